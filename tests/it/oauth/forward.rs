//! `oauth: {mode: forward}`: the token is forwarded, and the metadata of the server is served under
//! the firewall's address.

use super::{challenge, get, target, targets};
use crate::firewall::{Answer, Firewall, LEGACY, Setup, answer, call, json, odd_answer, post};

const PRM: &str = "/.well-known/oauth-protected-resource";
const JSON: &str = "Content-Type: application/json\r\n";
const PUBLIC: &str = "    hosts: [localhost, 127.0.0.1]\n    public_url: https://agents.example/flags\n    oauth: {mode: forward}\n";

fn firewall(server: &str, answer: Box<Answer>) -> Firewall {
    let server = format!("    pack: flag-service\n    environment: staging\n{server}");
    Firewall::with(Setup { server, answer, ..Setup::default() })
}

/// Metadata as a server at `host` writes it, with spaces of its own.
fn metadata(host: &str) -> String {
    format!(
        "{{ \"resource\":\t\"http://{host}/mcp\" , \"authorization_servers\":[\"http://{host}\"], \"x\": 1.50e0}}\n"
    )
}

/// A server that wants a token and publishes its metadata at `at`, naming it in its challenge as
/// `named`.
fn protected(at: &'static str, named: Option<&'static str>) -> Box<Answer> {
    Box::new(move |received| {
        let host = received.header("host")[0].to_owned();
        let target = target(received);
        if target == at {
            return json(metadata(&host).as_bytes());
        }
        if target != "/mcp" {
            return answer("404 Not Found", "", b"");
        }
        if received.header("authorization") == ["bearer t0ken-of-the-client"] {
            return json(&odd_answer(&received.body));
        }
        let named = named
            .map_or(String::new(), |named| format!(", resource_metadata=\"http://{host}{named}\""));
        let head = format!("{JSON}WWW-Authenticate: Bearer scope=\"a b\"{named}, error=\"x\"\r\n");
        answer("401 Unauthorized", &head, b"{\"no\":\"token\"}")
    })
}

#[test]
fn a_client_finds_its_way_by_either_well_known_path_and_its_token_goes_on() {
    let suffixed = "/.well-known/oauth-protected-resource/mcp";
    for at in [PRM, suffixed] {
        let firewall = firewall(PUBLIC, protected(at, Some(at)));
        for asked in [PRM, suffixed, "/.well-known/oauth-protected-resource/flags"] {
            let reply = firewall.send(&get(asked, ""));
            assert_eq!(reply.status, 200, "{asked}");
            assert_eq!(reply.header("content-type"), ["application/json"]);
            let host = firewall.received()[0].header("host")[0].to_owned();
            let ours = metadata(&host)
                .replace(&format!("http://{host}/mcp"), "https://agents.example/flags");
            assert_eq!(reply.text(), ours, "{asked}: only `resource` differs");
        }
        let reply = firewall.ask(call(1, "get_flag", "{}"));
        assert_eq!((reply.status, reply.code()), (401, -31006));
        let expected = "Bearer scope=\"a b\", resource_metadata=\"https://agents.example/.well-known/oauth-protected-resource/flags\", error=\"x\"";
        assert_eq!(challenge(&reply), expected);
        let headers = format!("{LEGACY}Authorization: Bearer t0ken-of-the-client\r\n");
        let reply = firewall.send(&post(call(2, "get_flag", "{}"), &headers));
        assert_eq!(reply.status, 200, "{reply:?}");
        let last = firewall.received().pop().unwrap();
        assert_eq!(last.header("authorization"), ["bearer t0ken-of-the-client"]);
        let journal = crate::firewall::journal_text(&firewall.state());
        assert!(!journal.contains("t0ken"), "{journal}");
    }
}

#[test]
fn metadata_at_a_path_of_the_servers_own_is_found_once_a_challenge_named_it() {
    let at = "/custom/metadata.json";
    let firewall = firewall(PUBLIC, protected(at, Some(at)));
    assert_eq!(firewall.send(&get(PRM, "")).status, 404);
    assert_eq!(targets(&firewall), [&format!("{PRM}/mcp"), PRM], "suffixed first");
    assert_eq!(firewall.ask(call(1, "get_flag", "{}")).status, 401);
    let reply = firewall.send(&get(PRM, "Authorization: Bearer s3cret\r\nCookie: a=b\r\n"));
    assert_eq!(reply.status, 200);
    let asked = firewall.received().pop().unwrap();
    assert_eq!(target(&asked), at);
    let names: Vec<_> =
        asked.head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names, ["accept", "host", "accept-encoding"], "no credential of anybody");
}

#[test]
fn on_loopback_the_public_url_is_the_one_that_was_dialled() {
    let firewall = firewall("    oauth: {mode: forward}\n", protected(PRM, Some(PRM)));
    let reply = firewall.send(&get(PRM, ""));
    assert_eq!(reply.json()["resource"], "http://localhost:7/mcp");
    let reply = firewall.ask(call(1, "get_flag", "{}"));
    let expected =
        "resource_metadata=\"http://127.0.0.1/.well-known/oauth-protected-resource/mcp\"";
    assert!(challenge(&reply).contains(expected), "{reply:?}");
    let foreign = format!("GET {PRM} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(firewall.send(foreign.as_bytes()).status, 403);
}

#[test]
fn a_foreign_resource_is_shown_and_what_is_no_metadata_is_not() {
    let evil = r#"{"resource":"https://evil.example/mcp","authorization_servers":["https://evil.example"]}"#;
    let large = format!("{{\"resource\":\"{}\"}}", "x".repeat(70_000));
    for (given, expected) in [
        (json(evil.as_bytes()), (200, evil)),
        (json(b"{\"resource\":1}"), (502, "")),
        (json(b"{\"resource\":\"a\",\"resource\":\"b\"}"), (502, "")),
        (json(large.as_bytes()), (502, "")),
        (answer("200 OK", "Content-Type: text/html\r\n", b"{\"resource\":\"a\"}"), (502, "")),
        (answer("302 Found", "Location: https://evil.example/\r\n", b""), (502, "")),
        (answer("404 Not Found", JSON, b"{}"), (404, "")),
        (answer("503 Service Unavailable", JSON, b"{}"), (503, "")),
        (b"nonsense".to_vec(), (502, "")),
    ] {
        let shown = String::from_utf8_lossy(&given[..given.len().min(80)]).into_owned();
        let firewall = firewall(PUBLIC, Box::new(move |_| given.clone()));
        let reply = firewall.send(&get(PRM, ""));
        assert_eq!((reply.status, reply.text()), expected, "{shown}");
        assert!(reply.header("location").is_empty());
    }
}

#[test]
fn upstream_resource_names_what_the_server_calls_itself() {
    let named = r#"{"resource":"https://internal.example/api/mcp"}"#;
    let server = "    hosts: [localhost]\n    public_url: https://agents.example/flags\n    oauth: {mode: forward, upstream_resource: \"https://internal.example/api/mcp\"}\n";
    let firewall = firewall(server, Box::new(move |_| json(named.as_bytes())));
    assert_eq!(
        firewall.send(&get(PRM, "")).text(),
        r#"{"resource":"https://agents.example/flags"}"#
    );
}

#[test]
fn metadata_is_for_get_only_and_rate_limited() {
    let firewall = firewall(PUBLIC, protected(PRM, None));
    let posted = format!(
        "POST {PRM} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let reply = firewall.send(posted.as_bytes());
    assert_eq!((reply.status, reply.header("allow")), (405, vec!["GET"]));
    assert_eq!(firewall.send(&get(&format!("{PRM}?x=1"), "")).status, 404);
    assert_eq!(firewall.send(&get(&format!("{PRM}/other"), "")).status, 404);
    assert_eq!(firewall.send(&get("/authorize?x=1", "")).status, 404, "off by default");
    assert!(targets(&firewall).is_empty());
    let mut client = firewall.client();
    let mut refused = 0;
    for _ in 0..80 {
        client.send(&get(PRM, ""));
        refused += usize::from(client.reply().status == 429);
    }
    assert!(refused > 0, "never more than the rate");
    assert!(firewall.records("event", "denial").len() >= 5);
}

#[test]
fn endpoints_at_the_origin_reach_the_server_once_they_are_turned_on() {
    let server = "    oauth: {mode: forward, origin_endpoints: true}\n";
    let firewall = firewall(
        server,
        Box::new(|received| match target(received).split('?').next().unwrap() {
            "/authorize" => answer(
                "302 Found",
                "Location: https://app.example/?code=c0de-s3cret\r\nSet-Cookie: a=b\r\n",
                b"",
            ),
            "/token" => answer(
                "400 Bad Request",
                "Content-Type: application/json\r\nCache-Control: no-store\r\n",
                b"{\"access_token\":\"acc3ss\"}",
            ),
            _ => json(b"{\"issuer\":\"http://up\"}"),
        }),
    );
    let reply = firewall.send(&get("/.well-known/oauth-authorization-server", ""));
    assert_eq!(reply.text(), "{\"issuer\":\"http://up\"}", "no issuer is rewritten");
    let reply = firewall.send(&get("/authorize?client_id=a&state=st4te", ""));
    assert_eq!(
        (reply.status, reply.header("location")),
        (302, vec!["https://app.example/?code=c0de-s3cret"])
    );
    assert!(reply.header("set-cookie").is_empty());
    let form = "grant_type=authorization_code&code=c0de-s3cret";
    let posted = format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic czNjcmV0\r\nCookie: x=y\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let reply = firewall.send(posted.as_bytes());
    assert_eq!((reply.status, reply.text()), (400, "{\"access_token\":\"acc3ss\"}"));
    assert_eq!(reply.header("cache-control"), ["no-store"]);
    let received = firewall.received().pop().unwrap();
    assert_eq!(received.body, form.as_bytes());
    assert_eq!(received.header("content-type"), ["application/x-www-form-urlencoded"]);
    assert_eq!(received.header("authorization"), ["basic czNjcmV0".to_ascii_lowercase()]);
    assert!(received.header("cookie").is_empty());
    assert_eq!(firewall.send(&get("/token", "")).status, 405);
    let journal = crate::firewall::journal_text(&firewall.state());
    for secret in ["c0de", "st4te", "acc3ss", "czNjcmV0"] {
        assert!(!journal.contains(secret), "{secret}: {journal}");
    }
}
