//! `oauth: {mode: terminate}`: the token is checked and not forwarded, it names the principal, and
//! the server gets a configured credential.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_edge::oauth::token::{ALGORITHMS, Unverified};
use bartizan_jose::{Algorithm, KeySet};
use serde_json::{Value, json};

use super::issuer::{Signer, claims, encoded, now, set};
use super::{challenge, get, targets};
use crate::firewall::{
    Answer, Client, Firewall, LEGACY, PATIENCE, RecordingUpstream, Reply, Setup, answer, call,
    events, journal_text, json as answered, odd_answer, post, wait,
};

pub(super) const ISSUER: &str = "https://login.example.com/realm";
pub(super) const PUBLIC: &str = "https://agents.example/flags";
const PRM: &str = "/.well-known/oauth-protected-resource";
const METADATA: &str = "https://agents.example/.well-known/oauth-protected-resource/flags";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;

/// A firewall in front of a server that wants a key of ours, and the keys of the one issuer.
struct Rig {
    firewall: Firewall,
    signer: Signer,
    // Holds the file of keys.
    _folder: tempfile::TempDir,
}

/// Settings of a [`Rig`].
struct Wanted {
    signer: Signer,
    /// More of the set, beside the signer's key `k1`.
    more: Vec<Value>,
    /// More lines below `oauth`.
    oauth: &'static str,
    setup: Setup,
}

impl Default for Wanted {
    fn default() -> Self {
        let (signer, setup) = (Signer::ec(), Setup::default());
        Self { signer, more: Vec::new(), oauth: "      scopes: mcp:tools\n", setup }
    }
}

fn below_server(issuers: &str, oauth: &str) -> String {
    format!(
        "    pack: flag-service\n    environment: staging\n    hosts: [localhost, 127.0.0.1]\n    sse_path: /sse\n    public_url: {PUBLIC}\n    oauth:\n      mode: terminate\n{oauth}      issuers:\n{issuers}"
    )
}

fn issuer_with_file(file: &Path) -> String {
    format!("        - {{issuer: '{ISSUER}', jwks_file: '{}'}}\n", file.display())
}

impl Rig {
    fn start() -> Self {
        Self::with(Wanted::default())
    }

    fn with(wanted: Wanted) -> Self {
        let Wanted { signer, mut more, oauth, setup } = wanted;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwks.json");
        more.push(signer.jwk("k1"));
        std::fs::write(&file, set(&more)).unwrap();
        let mut server = below_server(&issuer_with_file(&file), oauth);
        if setup.way.is_none() {
            server.push_str("    headers: {authorization: Bearer 0ur-own-credential}\n");
        }
        let firewall = Firewall::with(Setup { server, ..setup });
        Self { firewall, signer, _folder: folder }
    }

    fn token(&self, changes: Value) -> String {
        self.signer.token(HEADER, &claims(changes))
    }

    /// Calls a tool with `token`.
    fn call(&self, token: &str) -> Reply {
        self.post(call(1, "get_flag", "{}"), &bearer(token))
    }

    fn post(&self, body: impl AsRef<[u8]>, headers: &str) -> Reply {
        self.firewall.send(&post(body, &format!("{LEGACY}{headers}")))
    }
}

const HEADER: &str = r#"{"alg":"ES256","kid":"k1","typ":"at+jwt"}"#;

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// The reply without the id of its record.
fn said(reply: &Reply) -> String {
    let mut body = reply.json();
    body["error"]["data"]["decision_id"].take();
    format!("{} {:?} {body}", reply.status, reply.header("www-authenticate"))
}

#[test]
fn without_a_token_the_client_learns_where_to_get_one_and_nothing_else() {
    let rig = Rig::start();
    for headers in ["", "Authorization: Basic YTpi\r\n", "Authorization: DPoP x\r\n"] {
        let reply = rig.post(call(1, "get_flag", "{}"), headers);
        assert_eq!(reply.status, 401, "{headers}");
        let expected = format!("Bearer scope=\"mcp:tools\", resource_metadata=\"{METADATA}\"");
        assert_eq!(challenge(&reply), expected);
        assert_eq!(reply.json()["error"]["message"], "Access token required");
    }
    let opened = rig.firewall.send(&get("/mcp", "Accept: text/event-stream\r\n"));
    assert_eq!(opened.status, 401);
    let suffixed = format!("{PRM}/flags");
    for path in [PRM, &suffixed, &format!("{PRM}/mcp")] {
        let reply = rig.firewall.send(&get(path, ""));
        assert_eq!((reply.status, reply.header("content-type")), (200, vec!["application/json"]));
        let expected = json!({
            "resource": PUBLIC,
            "authorization_servers": [ISSUER],
            "scopes_supported": ["mcp:tools"],
            "bearer_methods_supported": ["header"],
        });
        assert_eq!(reply.json(), expected);
    }
    assert!(targets(&rig.firewall).is_empty(), "the server is asked nothing");
    let record = rig.firewall.record("event", "denial", 4);
    assert_eq!(record["decision"]["reasons"][0]["code"], "no-token");
    assert!(record.get("principal").is_none() && record.get("finding").is_none(), "{record}");
}

#[test]
fn a_valid_token_authenticates_its_principal_and_is_not_forwarded() {
    for (signer, alg) in [
        (Signer::ec(), "ES256"),
        (Signer::ed(), "EdDSA"),
        (Signer::rsa(), "RS256"),
        (Signer::rsa(), "PS256"),
    ] {
        let rig = Rig::with(Wanted { signer, ..Wanted::default() });
        let newer = alg.replace("EdDSA", "Ed25519");
        for (header, changes) in [
            (format!("{{\"alg\":\"{alg}\",\"kid\":\"k1\"}}"), json!({})),
            (format!("{{\"alg\":\"{alg}\",\"typ\":\"JWT\"}}"), json!({"aud": ["x", PUBLIC]})),
            (format!("{{\"typ\":\"application/at+jwt\",\"alg\":\"{alg}\"}}"), json!({"exp": 1e10})),
            (format!("{{\"alg\":\"{newer}\"}}"), json!({"nbf": now(30), "exp": now(-30)})),
            (format!("{{\"alg\":\"{alg}\"}}"), json!({"scope": null, "scp": ["mcp:tools"]})),
        ] {
            let token = rig.signer.token(&header, &claims(changes));
            let reply = rig.call(&token);
            assert_eq!(reply.status, 200, "{header}: {reply:?}");
            assert_eq!(reply.body, odd_answer(call(1, "get_flag", "{}").as_bytes()));
            let received = rig.firewall.received().pop().unwrap();
            assert_eq!(received.header("authorization"), ["bearer 0ur-own-credential"]);
            let signature = token.rsplit('.').next().unwrap().to_ascii_lowercase();
            assert!(!received.head.contains(&signature), "{}", received.head);
            let journal = journal_text(&rig.firewall.state());
            assert!(token.split('.').all(|part| !journal.contains(part)), "{journal}");
        }
        assert_eq!(rig.firewall.record("event", "outcome", 5)["principal"], "alice");
    }
}

/// A token that is not good, and what the record says of it.
type Bad = (&'static str, Box<dyn Fn(&Rig) -> String>);

fn bad(says: &'static str, changes: Value) -> Bad {
    (says, Box::new(move |rig| rig.token(changes.clone())))
}

fn odd(says: &'static str, header: &'static str) -> Bad {
    (says, Box::new(move |rig| rig.signer.token(header, &claims(json!({})))))
}

/// With parts of a good token.
fn spoilt(says: &'static str, spoil: impl Fn(&str, &str, &str) -> String + 'static) -> Bad {
    (
        says,
        Box::new(move |rig| {
            let token = rig.token(json!({}));
            let parts: Vec<&str> = token.split('.').collect();
            spoil(parts[0], parts[1], parts[2])
        }),
    )
}

const FORM: &str = "the token is no signed JWT in strict JSON";
const ALGORITHM: &str = "the token is signed with an algorithm that is not allowed";
const SIGNATURE: &str = "the signature of the token is wrong";
const KEY: &str = "the token is signed with a key that its issuer does not publish";
const AUDIENCE: &str = "the token is for another audience";
const OTHER_ISSUER: &str = "the token is of an issuer that is not configured";
const EXPIRY: &str = "the token has no readable expiry or beginning";
const CLAIM: &str = "a configured claim of the token has a form or size that cannot be used";
const PRINCIPAL: &str = "the token does not name a principal as configured";

fn forms() -> Vec<Bad> {
    vec![
        spoilt(FORM, |_, _, _| "opaque".to_owned()),
        spoilt(FORM, |header, claims, _| format!("{header}.{claims}")),
        spoilt(FORM, |header, claims, sign| format!("{header}.{claims}.{sign}.{sign}.{sign}")),
        spoilt(FORM, |header, claims, sign| format!("{header}.{claims}.{sign}=")),
        spoilt(FORM, |header, _, sign| format!("{header}.{}.{sign}", encoded("[]"))),
        spoilt(FORM, |_, claims, sign| {
            let twice = encoded(r#"{"alg":"ES256","alg":"none"}"#);
            format!("{twice}.{claims}.{sign}")
        }),
        spoilt(FORM, |header, _, sign| {
            let twice = format!(r#"{{"iss":"{ISSUER}","iss":"{ISSUER}"}}"#);
            format!("{header}.{}.{sign}", encoded(twice))
        }),
        odd(FORM, r#"{"alg":"ES256","kid":1}"#),
        spoilt("the token is too long", |header, claims, sign| {
            format!("{header}.{claims}.{sign}{}", "A".repeat(16 << 10))
        }),
        odd("the token is another kind of JWT", r#"{"alg":"ES256","kid":"k1","typ":"dpop+jwt"}"#),
        odd("the token is another kind of JWT", r#"{"alg":"ES256","kid":"k1","typ":7}"#),
        odd(
            "the token has critical extensions",
            r#"{"alg":"ES256","kid":"k1","crit":["b64"],"b64":false}"#,
        ),
        odd("the token has critical extensions", r#"{"alg":"ES256","kid":"k1","crit":[]}"#),
    ]
}

/// Tokens that choose how they are checked.
fn confusions() -> Vec<Bad> {
    let none = encoded(r#"{"alg":"none","kid":"k1"}"#);
    let hs = encoded(r#"{"alg":"HS256","kid":"k1"}"#);
    let rs = encoded(r#"{"alg":"RS256","kid":"k1"}"#);
    let other = Signer::ec();
    vec![
        spoilt(ALGORITHM, move |_, claims, _| format!("{none}.{claims}.")),
        (
            ALGORITHM,
            // The public key as a shared secret.
            Box::new(move |rig| {
                let secret = rig.signer.jwk("k1").to_string();
                let signed = format!("{hs}.{}", encoded(claims(json!({}))));
                let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
                let tag = ring::hmac::sign(&key, signed.as_bytes());
                format!("{signed}.{}", encoded(tag))
            }),
        ),
        odd(ALGORITHM, r#"{"alg":"none","kid":"k1"}"#),
        odd(ALGORITHM, r#"{"alg":"nOnE","kid":"k1"}"#),
        odd(ALGORITHM, r#"{"alg":"ES384","kid":"k1"}"#),
        odd(ALGORITHM, r#"{"alg":"es256","kid":"k1"}"#),
        odd(ALGORITHM, r#"{"alg":["ES256"],"kid":"k1"}"#),
        odd(ALGORITHM, r#"{"kid":"k1"}"#),
        spoilt(KEY, move |_, claims, sign| format!("{rs}.{claims}.{sign}")),
        odd(KEY, r#"{"alg":"ES256","kid":"k2"}"#),
        odd(KEY, r#"{"alg":"ES256","kid":"../../dev/null"}"#),
        (
            SIGNATURE,
            // A key of its own in the header.
            Box::new(move |_| {
                let jwk = other.jwk("k1");
                let header = json!({"alg": "ES256", "kid": "k1", "jwk": jwk, "jku": "http://x/"});
                other.token(&header.to_string(), &claims(json!({})))
            }),
        ),
        spoilt(SIGNATURE, |header, claims, _| format!("{header}.{claims}.")),
        spoilt(SIGNATURE, |header, claims, _| format!("{header}.{claims}.{}", encoded([0_u8; 64]))),
        spoilt(SIGNATURE, |header, _, sign| {
            format!("{header}.{}.{sign}", encoded(claims(json!({"sub": "root"}))))
        }),
        spoilt(SIGNATURE, |_, claims, sign| {
            format!("{}.{claims}.{sign}", encoded(r#"{"alg":"ES256", "kid":"k1"}"#))
        }),
    ]
}

fn lies() -> Vec<Bad> {
    let long = "x".repeat(257);
    vec![
        bad(OTHER_ISSUER, json!({"iss": "https://evil.example"})),
        bad(OTHER_ISSUER, json!({"iss": "https://login.example.com/realm/"})),
        bad(OTHER_ISSUER, json!({"iss": [ISSUER]})),
        bad(OTHER_ISSUER, json!({"iss": null})),
        bad(AUDIENCE, json!({"aud": null})),
        bad(AUDIENCE, json!({"aud": "https://agents.example"})),
        bad(AUDIENCE, json!({"aud": "https://agents.example/flags/"})),
        bad(AUDIENCE, json!({"aud": ["https://agents.example/other", "flags"]})),
        bad(AUDIENCE, json!({"aud": {"0": PUBLIC}})),
        bad("the token is expired", json!({"exp": now(-61)})),
        bad("the token is expired", json!({"exp": 0})),
        bad(EXPIRY, json!({"exp": null})),
        bad(EXPIRY, json!({"exp": now(300).to_string()})),
        bad(EXPIRY, json!({"exp": -1})),
        bad(EXPIRY, json!({"exp": 1e300})),
        bad("the token is not valid yet", json!({"nbf": now(90)})),
        bad(EXPIRY, json!({"nbf": "0"})),
        bad(
            "the token is bound to a key of its client, which is not checked here",
            json!({"cnf": {"jkt": "x"}}),
        ),
        bad(PRINCIPAL, json!({"sub": null})),
        bad(PRINCIPAL, json!({"sub": ""})),
        bad(PRINCIPAL, json!({"sub": 7})),
        bad(PRINCIPAL, json!({"sub": "a\u{1b}[2J"})),
        bad(PRINCIPAL, json!({"sub": long})),
        bad(CLAIM, json!({"groups": {"a": 1}})),
        bad(CLAIM, json!({"groups": ["a", 1]})),
        bad(CLAIM, json!({"groups": vec!["g"; 257]})),
        bad(CLAIM, json!({"groups": ["a\nb"]})),
        bad(CLAIM, json!({"client_id": {"a": 1}})),
        bad(CLAIM, json!({"client_id": "x".repeat(4097)})),
    ]
}

#[test]
fn a_bad_token_is_refused_like_any_other_and_only_the_record_says_why() {
    // A second key of the issuer's, which the one in use must not be taken for.
    let more = vec![Signer::rsa().jwk("r1"), json!({"kty": "oct", "kid": "unusable"})];
    let oauth = "      scopes: mcp:tools\n      groups_claim: groups\n";
    let rig = Rig::with(Wanted { more, oauth, ..Wanted::default() });
    let error = format!(
        "Bearer error=\"invalid_token\", scope=\"mcp:tools\", resource_metadata=\"{METADATA}\""
    );
    let mut first = None;
    let mut count = 0;
    for (says, make) in forms().into_iter().chain(confusions()).chain(lies()) {
        let token = make(&rig);
        let reply = rig.call(&token);
        count += 1;
        assert_eq!((reply.status, challenge(&reply)), (401, error.as_str()), "{says}: {token}");
        let said = said(&reply);
        assert_eq!(&said, first.get_or_insert_with(|| said.clone()), "{says}");
        let record = rig.firewall.records("event", "denial").pop().unwrap();
        assert_eq!(record["note"], says, "{token}");
        let code = &record["decision"]["reasons"][0]["code"];
        if says == "the token is expired" {
            assert!(*code == "expired-token" && record.get("finding").is_none(), "{record}");
        } else {
            assert!(*code == "bad-token" && record["finding"] == "unauthenticated_caller");
        }
        assert!(record.get("principal").is_none(), "{record}");
        let journal = journal_text(&rig.firewall.state());
        let mut parts = token.split('.').filter(|part| part.len() > 12);
        assert!(parts.all(|part| !journal.contains(part)), "{says}");
    }
    assert!(count > 55, "{count}");
    assert!(rig.firewall.received().is_empty());
    assert_eq!(rig.call(&rig.token(json!({}))).status, 200, "the rig lets a good one in");
}

#[test]
fn no_byte_of_a_token_can_be_changed() {
    let signer = Signer::ec();
    let keys = KeySet::read(set(&[signer.jwk("k1")]).into(), &ALGORITHMS).unwrap();
    let key = keys.find(Some("k1"), Algorithm::ES256).unwrap();
    let token = signer.token(HEADER, &claims(json!({})));
    let now = Duration::from_secs(u64::try_from(now(0)).unwrap());
    let good = |token: &str| {
        let read = Unverified::read(token);
        read.and_then(|token| token.verify(key, &[PUBLIC.into()], now)).is_ok()
    };
    assert!(good(&token));
    for at in 0..token.len() {
        for other in ["A", "B", "_", "=", ".", "~"] {
            let changed = [&token[..at], other, &token[at + 1..]].concat();
            assert!(changed == token || !good(&changed), "{other} at {at}: {changed}");
            assert!(!good(&[&token[..at], other, &token[at..]].concat()), "{other} before {at}");
        }
        assert!(!good(&[&token[..at], &token[at + 1..]].concat()), "without {at}");
    }
}

#[test]
fn a_token_without_all_scopes_is_told_which() {
    let oauth = "      scopes: [mcp:tools, flags:read]\n";
    let rig = Rig::with(Wanted { oauth, ..Wanted::default() });
    for scope in ["", "mcp:tools", "mcp:tools flags:reader", "flags:read", "MCP:tools flags:read"] {
        let reply = rig.call(&rig.token(json!({"scope": scope})));
        let expected = format!(
            "Bearer error=\"insufficient_scope\", scope=\"mcp:tools flags:read\", resource_metadata=\"{METADATA}\""
        );
        assert_eq!((reply.status, challenge(&reply)), (403, expected.as_str()), "{scope}");
    }
    let record = rig.firewall.record("event", "denial", 5);
    assert_eq!(record["principal"], "alice", "{record}");
    assert_eq!(record["decision"]["reasons"][0]["code"], "insufficient-scope");
    assert!(rig.firewall.received().is_empty());
    let both = json!({"scope": "flags:read other mcp:tools"});
    assert_eq!(rig.call(&rig.token(both)).status, 200);
}

#[test]
fn a_token_is_accepted_only_in_one_header() {
    let rig = Rig::start();
    let token = rig.token(json!({}));
    let twice = [bearer(&token), bearer(&token)].concat();
    assert_eq!(rig.post(call(1, "get_flag", "{}"), &twice).status, 400);
    for query in [format!("access_token={token}"), format!("x=1&access_token={token}")] {
        for headers in [String::new(), bearer(&token)] {
            let request = post(call(1, "get_flag", "{}"), &format!("{LEGACY}{headers}"));
            let request = String::from_utf8(request).unwrap();
            let reply = rig
                .firewall
                .send(request.replacen("POST /mcp ", &format!("POST /mcp?{query} "), 1).as_bytes());
            assert_eq!(reply.status, 400);
            assert!(challenge(&reply).contains("error=\"invalid_request\""), "{reply:?}");
        }
    }
    let elsewhere = format!("/other?access_token={token}");
    assert_eq!(rig.firewall.send(&get(&elsewhere, "")).status, 404);
    for spelt in ["bearer", "BEARER"] {
        let headers = format!("Authorization: {spelt} {token}\r\n");
        assert_eq!(rig.post(call(1, "get_flag", "{}"), &headers).status, 200);
    }
    assert_eq!(rig.firewall.received().len(), 2);
    let journal = journal_text(&rig.firewall.state());
    assert!(token.split('.').all(|part| !journal.contains(part)), "{journal}");
}

/// Permits what the token's own facts allow.
const BY_TOKEN: &str = r#"package mcp

permit contains {"code": "ops", "message": "m"} if {
	input.method == "tools/call"
	input.principal.kind == "agent"
	"ops" in input.principal.groups
	input.principal.claims.client_id == "c1"
	input.principal.claims.iss == "https://login.example.com/realm"
	input.principal.claims["https://example.com/tenant"] == "acme corp"
	input.principal.claims["/act/sub"] == "robot"
	not input.principal.claims.exp
	input.principal.id == "alice"
}
"#;

#[test]
fn policy_sees_whom_the_token_names() {
    let setup = Setup { rego: Some(BY_TOKEN.to_owned()), ..Setup::default() };
    let oauth = "      principal_claim: /user/name\n      groups_claim: /access/roles\n      claims: ['https://example.com/tenant', /act/sub]\n";
    let rig = Rig::with(Wanted { oauth, setup, ..Wanted::default() });
    let good = json!({
        "sub": "0815",
        "user": {"name": "alice"},
        "access": {"roles": ["x", "ops"]},
        "https://example.com/tenant": ["acme", "corp"],
        "act": {"sub": "robot"},
    });
    let changed = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    for (changes, code) in [
        (good.clone(), 0),
        (changed("user", json!({"name": "bob"})), -31001),
        (changed("access", json!({"roles": "ops"})), 0),
        (changed("access", json!({})), -31001),
        (changed("client_id", json!("c2")), -31001),
        (changed("act", json!({"sub": true})), -31001),
    ] {
        let reply = rig.call(&rig.token(changes.clone()));
        assert_eq!((reply.status, reply.code()), (200, code), "{changes}");
    }
}

/// A legacy server with sessions, whose events are numbered.
fn with_sessions() -> Box<Answer> {
    let sessions = AtomicUsize::new(0);
    Box::new(move |received| {
        let body = String::from_utf8_lossy(&received.body);
        if body.contains("\"initialize\"") {
            let head = format!(
                "Content-Type: application/json\r\nMcp-Session-Id: theirs-{}\r\n",
                sessions.fetch_add(1, Ordering::Relaxed)
            );
            let result = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
            return answer("200 OK", &head, result.as_bytes());
        }
        if received.head.starts_with("get") {
            let notice = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}"#;
            return events(&format!("id: 7\ndata: {notice}\n\n"));
        }
        if received.head.starts_with("delete") {
            return answer("204 No Content", "", b"");
        }
        answered(&odd_answer(&received.body))
    })
}

#[test]
fn a_session_belongs_to_the_principal_that_began_it() {
    let setup = Setup { answer: with_sessions(), ..Setup::default() };
    let oauth = "      groups_claim: groups\n";
    let rig = Rig::with(Wanted { oauth, setup, ..Wanted::default() });
    let alice = bearer(&rig.token(json!({})));
    let begun = rig.post(INITIALIZE, &alice);
    let session = format!("Mcp-Session-Id: {}\r\n", begun.header("mcp-session-id")[0]);
    // A token that was renewed and says the same.
    let renewed = bearer(&rig.token(json!({"exp": now(600), "jti": "2"})));
    assert_eq!(rig.post(call(1, "get_flag", "{}"), &[&*session, &renewed].concat()).status, 200);
    let streamed = rig.firewall.send(&get("/mcp", &[LEGACY, &session, &alice].concat()));
    let event = streamed.text().lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let resuming = format!("Last-Event-ID: {event}\r\n");
    let before = rig.firewall.received().len();
    for other in [
        json!({"sub": "bob"}),
        json!({"groups": ["growth"]}),
        json!({"client_id": "c2"}),
        json!({"scope": "mcp:less"}),
    ] {
        let token = bearer(&rig.token(other.clone()));
        let headers = [LEGACY, &session, &token].concat();
        let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        for request in [
            post(call(2, "get_flag", "{}"), &headers),
            get("/mcp", &headers),
            get("/mcp", &[&*headers, &resuming].concat()),
            delete.into_bytes(),
        ] {
            let reply = rig.firewall.send(&request);
            assert_eq!(reply.status, 404, "{other}: {reply:?}");
        }
        // Without the session, its event id means nothing either.
        let alone = get("/mcp", &[LEGACY, &token, &resuming].concat());
        assert_eq!(rig.firewall.send(&alone).status, 400, "{other}");
    }
    assert_eq!(rig.firewall.received().len(), before, "the server saw none of it");
    let resumed = get("/mcp", &[LEGACY, &session, &alice, &resuming].concat());
    assert_eq!(rig.firewall.send(&resumed).status, 200);
    assert_eq!(rig.firewall.received().pop().unwrap().header("last-event-id"), ["7"]);
    let delete = format!("DELETE /mcp HTTP/1.1\r\nHost: localhost\r\n{LEGACY}{session}{alice}\r\n");
    assert_eq!(rig.firewall.send(delete.as_bytes()).status, 204);
}

#[test]
fn a_servers_401_about_our_credential_is_not_passed_to_the_client() {
    let status = Arc::new(Mutex::new("401 Unauthorized"));
    let told = Arc::clone(&status);
    let answer: Box<Answer> = Box::new(move |_| {
        let head = "Content-Type: application/json\r\nWWW-Authenticate: Bearer resource_metadata=\"http://evil.example/\", error=\"invalid_token\"\r\n";
        let body = br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"token 0ur-own-credential"}}"#;
        answer(*told.lock().unwrap(), head, body)
    });
    let rig =
        Rig::with(Wanted { setup: Setup { answer, ..Setup::default() }, ..Wanted::default() });
    let token = bearer(&rig.token(json!({})));
    for (count, (given, shown)) in
        [("401 Unauthorized", "401"), ("403 Forbidden", "403")].into_iter().enumerate()
    {
        *status.lock().unwrap() = given;
        let reply = rig.post(call(1, "get_flag", "{}"), &token);
        assert_eq!((reply.status, reply.code()), (200, -31005), "{given}: {reply:?}");
        assert!(reply.header("www-authenticate").is_empty(), "{reply:?}");
        assert!(!reply.text().contains("credential"), "{reply:?}");
        let outcome = rig.firewall.record("event", "outcome", count + 1);
        assert_eq!(outcome["outcome"], "upstream_failed", "{outcome}");
        assert!(outcome.to_string().contains(shown), "{outcome}");
    }
    for (given, expected) in [("400 Bad Request", 400), ("404 Not Found", 404)] {
        *status.lock().unwrap() = given;
        let reply = rig.post(call(1, "get_flag", "{}"), &token);
        assert_eq!(reply.status, expected);
        assert!(reply.header("www-authenticate").is_empty(), "{reply:?}");
    }
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    *status.lock().unwrap() = "401 Unauthorized";
    let reply = rig.post(note, &token);
    assert_eq!(reply.status, 502, "{reply:?}");
    assert!(reply.header("www-authenticate").is_empty(), "{reply:?}");
}

/// A program of the modern era that names its process, and all variables that it has.
const PROGRAM: &str = r#"while IFS= read -r line; do
    id=${line##*'"id":'}; id=${id%%[!0-9]*}
    case $line in
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","result":{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{}},"id":%s}\n' "$id";;
        *) printf '%s\n' "$line" >> "$1"; printf '{"jsonrpc":"2.0","result":{"resultType":"complete","content":[],"process":%d},"id":%s}\n' $$ "$id";;
    esac
done
"#;

#[test]
fn programs_serve_one_principal_each_and_see_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let (script, read) = (folder.path().join("server.sh"), folder.path().join("read"));
    std::fs::write(&script, PROGRAM).unwrap();
    let way = Some(format!("command: [sh, '{}', '{}']", script.display(), read.display()));
    let rig = Rig::with(Wanted { setup: Setup { way, ..Setup::default() }, ..Wanted::default() });
    let asked = |token: &str| {
        let body = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"get_flag","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}},"id":1}"#;
        let headers =
            "MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: get_flag\r\n";
        rig.firewall.send(&post(body, &[headers, &bearer(token)].concat()))
    };
    let process = |changes: Value| {
        let reply = asked(&rig.token(changes));
        reply.json()["result"]["process"].as_i64().unwrap_or_else(|| panic!("{reply:?}"))
    };
    let alice = process(json!({}));
    assert_ne!(alice, process(json!({"sub": "bob"})));
    assert_eq!(alice, process(json!({"jti": "2"})));
    assert_eq!(asked("no.good.token").status, 401);
    let read = std::fs::read_to_string(read).unwrap();
    assert_eq!(read.lines().count(), 3, "{read}");
    assert!(!read.to_lowercase().contains("bearer") && !read.contains("eyJ"), "{read}");
}

/// An issuer at an address that answers `what` now.
struct Published {
    server: RecordingUpstream,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Published {
    fn new(first: &Signer) -> Self {
        let answer = Arc::new(Mutex::new(answered(set(&[first.jwk("k1")]).as_bytes())));
        let told = Arc::clone(&answer);
        let server = RecordingUpstream::start(Box::new(move |_| told.lock().unwrap().clone()));
        Self { server, answer }
    }

    fn now(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }

    fn firewall(&self) -> Firewall {
        let uri = self.server.url().replace("/mcp", "/keys?realm=1");
        let issuer = format!("        - {{issuer: '{ISSUER}', jwks_uri: '{uri}'}}\n");
        Firewall::with(Setup { server: below_server(&issuer, ""), ..Setup::default() })
    }
}

fn calls(firewall: &Firewall, token: &str) -> Reply {
    firewall.send(&post(call(1, "get_flag", "{}"), &format!("{LEGACY}{}", bearer(token))))
}

#[test]
fn keys_at_an_address_are_found_kept_and_replaced() {
    let (first, second) = (Signer::ec(), Signer::rsa());
    let issuer = Published::new(&first);
    let firewall = issuer.firewall();
    assert!(issuer.server.received().is_empty(), "not before there is a token");
    let old = first.token(HEADER, &claims(json!({})));
    let new = second.token(r#"{"alg":"RS256","kid":"k2"}"#, &claims(json!({})));
    for _ in 0..3 {
        assert_eq!(calls(&firewall, &old).status, 200);
    }
    let asked = issuer.server.received();
    assert_eq!(asked.len(), 1, "kept");
    assert!(asked[0].head.starts_with("get /keys?realm=1 http/1.1"), "{}", asked[0].head);
    assert!(asked[0].header("authorization").is_empty());
    // The issuer changes its key. Tokens with a key that is not known yet ask again, but not
    // each of them.
    issuer.now(answered(set(&[second.jwk("k2")]).as_bytes()));
    for _ in 0..10 {
        calls(&firewall, &first.token(r#"{"alg":"ES256","kid":"no"}"#, &claims(json!({}))));
    }
    assert!(issuer.server.received().len() <= 2);
    wait("the new key", || (calls(&firewall, &new).status == 200).then_some(()));
    assert_eq!(calls(&firewall, &old).status, 401, "the old one is gone");
}

#[test]
fn without_keys_no_token_is_accepted_and_none_is_called_invalid() {
    let signer = Signer::ec();
    let good = set(&[signer.jwk("k1")]);
    let large = format!("{{\"x\":\"{}\",{}", "x".repeat(70_000), &good[1..]);
    for given in [
        answer("302 Found", "Location: https://evil.example/\r\n", b""),
        answer("500 Internal Server Error", "", good.as_bytes()),
        answered(b"<html>"),
        answered(b"{\"keys\":[]}"),
        answered(large.as_bytes()),
        answered(format!("{{\"keys\":[],{}", &good[1..]).as_bytes()),
        b"nonsense".to_vec(),
    ] {
        let issuer = Published::new(&signer);
        issuer.now(given.clone());
        let firewall = issuer.firewall();
        let token = signer.token(HEADER, &claims(json!({})));
        let reply = calls(&firewall, &token);
        let shown = String::from_utf8_lossy(&given[..given.len().min(60)]).into_owned();
        assert_eq!(reply.status, 503, "{shown}: {reply:?}");
        assert!(reply.header("www-authenticate").is_empty(), "{reply:?}");
        let record = firewall.record("event", "denial", 1);
        assert_eq!(record["decision"]["reasons"][0]["code"], "no-keys", "{record}");
        assert_eq!(issuer.server.received().len(), 1, "{shown}: no redirect is followed");
        assert!(firewall.received().is_empty());
    }
}

#[test]
fn a_subject_of_one_issuer_is_not_that_of_another() {
    let (first, second) = (Signer::ec(), Signer::ec());
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, signer: &Signer| {
        let path = folder.path().join(name);
        std::fs::write(&path, set(&[signer.jwk("k1")])).unwrap();
        path.display().to_string()
    };
    let issuers = format!(
        "        - {{issuer: '{ISSUER}', jwks_file: '{}'}}\n        - {{issuer: 'https://other.example', jwks_file: '{}', audiences: other-id, algorithms: ES256}}\n",
        file("one", &first),
        file("two", &second),
    );
    let server = below_server(&issuers, "");
    let firewall = Firewall::with(Setup { server, ..Setup::default() });
    let other = json!({"iss": "https://other.example", "aud": "other-id"});
    assert_eq!(calls(&firewall, &first.token(HEADER, &claims(json!({})))).status, 200);
    assert_eq!(calls(&firewall, &second.token(HEADER, &claims(other.clone()))).status, 200);
    let ids: Vec<_> = firewall
        .records("event", "intent")
        .iter()
        .map(|record| record["principal"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, [&format!("{ISSUER}#alice"), "https://other.example#alice"]);
    for (signer, changes) in [
        (&second, json!({})),
        (&first, other),
        (&second, json!({"iss": "https://other.example"})),
        (&first, json!({"aud": "other-id"})),
    ] {
        let reply = calls(&firewall, &signer.token(HEADER, &claims(changes.clone())));
        assert_eq!(reply.status, 401, "{changes}");
    }
}

#[test]
fn no_endless_stream_outlives_the_token_that_opened_it() {
    let answer: Box<Answer> = Box::new(|received| {
        if received.head.starts_with("get") {
            // A stream without a length and without an end: the thread stays in the next read.
            return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        }
        answered(&odd_answer(&received.body))
    });
    let rig =
        Rig::with(Wanted { setup: Setup { answer, ..Setup::default() }, ..Wanted::default() });
    // Within the leeway of a minute, a token that has ended holds for two seconds more.
    let token = bearer(&rig.token(json!({"exp": now(-58)})));
    let mut client = rig.firewall.client();
    client.send(&get("/mcp", &[LEGACY, &token].concat()));
    let reply = client.reply();
    assert_eq!((reply.status, reply.whole), (200, true), "it was ended in order");
    assert_eq!(rig.post(call(1, "get_flag", "{}"), &token).status, 401);
}

/// The program on a configuration, saying all that it can.
struct Talkative {
    child: std::process::Child,
    said: PathBuf,
}

impl Talkative {
    fn run(folder: &Path, server: &str) -> Self {
        let (config, said) = (folder.join("bartizan.yaml"), folder.join("said"));
        let text = format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\nlog: {{format: json, filter: trace}}\nservers:\n  flags:\n    path: /mcp\n{server}",
            folder.join("state").display()
        );
        std::fs::write(&config, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .args([Path::new("run"), Path::new("-c"), &config])
            .stderr(std::fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        Self { child, said }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    fn address(&self) -> SocketAddr {
        wait(&format!("serving; it said {}", self.said()), || {
            let said = self.said();
            let line = said.lines().find(|line| line.contains("\"serving\""))?;
            let line: Value = serde_json::from_str(line).ok()?;
            line["fields"]["address"].as_str()?.parse().ok()
        })
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn no_log_holds_a_token_however_much_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::ec();
    let issuer = Published::new(&signer);
    let uri = issuer.server.url().replace("/mcp", "/keys");
    let upstream =
        RecordingUpstream::start(Box::new(|received| answered(&odd_answer(&received.body))));
    let issuers = format!("        - {{issuer: '{ISSUER}', jwks_uri: '{uri}'}}\n");
    let server = format!(
        "    url: {}\n    headers: {{authorization: Bearer 0ur-own-credential}}\n{}",
        upstream.url(),
        below_server(&issuers, "      scopes: mcp:tools\n")
    );
    let program = Talkative::run(folder.path(), &server);
    let address = program.address();
    let tokens = [
        (200, signer.token(HEADER, &claims(json!({})))),
        (401, signer.token(HEADER, &claims(json!({"aud": "x"})))),
        (403, signer.token(HEADER, &claims(json!({"scope": "x"})))),
    ];
    for (status, token) in &tokens {
        let mut client = Client::connect(address);
        let headers = format!("{LEGACY}{}", bearer(token));
        client.send(&post(call(1, "get_flag", "{}"), &headers));
        assert_eq!(client.reply().status, *status);
        client = Client::connect(address);
        client.send(&get(&format!("/mcp?access_token={token}"), ""));
        assert_eq!(client.reply().status, 400);
    }
    // Without its keys, the issuer is what the program complains of.
    issuer.now(answered(b"<html>"));
    let mut client = Client::connect(address);
    let unknown = signer.token(r#"{"alg":"ES256","kid":"no"}"#, &claims(json!({})));
    std::thread::sleep(Duration::from_secs(5));
    client.send(&post(call(1, "get_flag", "{}"), &bearer(&unknown)));
    assert_eq!(client.reply().status, 401);
    // The log is written by a thread of its own.
    let said = wait("the failed fetch in the log", || {
        let said = program.said();
        (said.contains("fetching an issuer's keys failed") && said.contains(ISSUER)).then_some(said)
    });
    let journal = journal_text(&folder.path().join("state"));
    assert!(journal.contains("\"principal\":\"alice\""), "{journal}");
    let all = [said, journal].concat();
    let tokens = tokens.iter().map(|(_, token)| token).chain([&unknown]);
    for part in tokens.flat_map(|token| token.split('.').skip(1)) {
        assert!(!all.contains(part), "{part}: {all}");
    }
    assert!(!all.contains("0ur-own-credential"));
}

/// A stream as it comes, unframed.
struct Streamed {
    from: TcpStream,
    read: String,
}

impl Streamed {
    fn open(firewall: &Firewall, request: &[u8]) -> Self {
        let mut from = TcpStream::connect(firewall.address()).unwrap();
        from.set_read_timeout(Some(PATIENCE)).unwrap();
        from.write_all(request).unwrap();
        Self { from, read: String::new() }
    }

    /// Reads until `text` came, and gives all that did; at the end of the stream, too, what came.
    fn until(&mut self, text: &str) -> &str {
        let mut piece = [0; 4096];
        while !self.read.contains(text) {
            match self.from.read(&mut piece).unwrap() {
                0 => break,
                read => self.read.push_str(&String::from_utf8_lossy(&piece[..read])),
            }
        }
        &self.read
    }
}

#[test]
fn streams_of_2024_11_05_ask_for_tokens_too() {
    let told = Arc::new(Mutex::new("200 OK"));
    let status = Arc::clone(&told);
    let answer: Box<Answer> = Box::new(move |received| {
        let (status, body) = (*status.lock().unwrap(), odd_answer(&received.body));
        let head = "Content-Type: application/json\r\nWWW-Authenticate: Bearer realm=x\r\n";
        answer(status, head, &body)
    });
    let rig =
        Rig::with(Wanted { setup: Setup { answer, ..Setup::default() }, ..Wanted::default() });
    let firewall = &rig.firewall;
    assert_eq!(firewall.send(&get("/sse", "")).status, 401);
    assert_eq!(firewall.send(&get("/sse?access_token=x", "")).status, 400);
    let alice = bearer(&rig.token(json!({})));
    let mut stream = Streamed::open(firewall, &get("/sse", &alice));
    let opened = stream.until("data: /sse/").to_owned();
    let opened =
        if opened.ends_with("data: /sse/") { stream.until("\n\n").to_owned() } else { opened };
    let path = opened.split("data: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let posted = |id: u32, headers: &str| {
        let request = String::from_utf8(post(call(id, "get_flag", "{}"), headers)).unwrap();
        firewall.send(request.replacen("/mcp", &path, 1).as_bytes())
    };
    assert_eq!(posted(1, "").status, 401);
    assert_eq!(posted(2, &bearer(&rig.token(json!({"sub": "bob"})))).status, 404);
    assert_eq!(posted(3, &bearer(&rig.token(json!({"client_id": "c2"})))).status, 404);
    assert!(firewall.received().is_empty());
    let renewed = bearer(&rig.token(json!({"exp": now(600)})));
    assert_eq!(posted(4, &renewed).status, 202);
    assert!(stream.until("\"id\":4").contains("\"n\":1.50e+2"));
    assert_eq!(firewall.received()[0].header("authorization"), ["bearer 0ur-own-credential"]);
    for (id, refused) in [(5, "401 Unauthorized"), (6, "403 Forbidden")] {
        *told.lock().unwrap() = refused;
        let reply = posted(id, &alice);
        assert_eq!((reply.status, reply.header("www-authenticate").len()), (202, 0), "{refused}");
        let id = format!("\"id\":{id}");
        let seen = stream.until(&format!("{id},\"error\":{{\"code\":-31005")).to_owned();
        assert!(seen.matches(&id).count() == 1, "{seen}");
        let outcome =
            firewall.record("outcome", "upstream_failed", usize::from(id.contains('6')) + 1);
        assert_eq!(outcome["principal"], "alice", "{outcome}");
    }
}

#[test]
fn a_stream_of_2024_11_05_ends_with_its_token() {
    let rig = Rig::start();
    let token = bearer(&rig.token(json!({"exp": now(-58)})));
    let mut stream = Streamed::open(&rig.firewall, &get("/sse", &token));
    let seen = stream.until("\r\n0\r\n\r\n");
    assert!(seen.contains("data: /sse/") && seen.ends_with("\r\n0\r\n\r\n"), "{seen}");
    assert_eq!(rig.firewall.send(&get("/sse", &token)).status, 401);
}

#[test]
fn the_page_names_the_limits_that_are_kept() {
    use bartizan_edge::oauth::keys::{FRESH, PATIENCE as ANSWER_MAX, PAUSE, STALE_MAX};
    use bartizan_edge::oauth::metadata::DOCUMENT_BYTES_MAX;
    use bartizan_edge::oauth::token::{LEEWAY, TOKEN_BYTES_MAX};
    use bartizan_edge::oauth::{CLAIM_BYTES_MAX, GROUPS_MAX, NAME_BYTES_MAX};
    use bartizan_jose::KEYS_MAX;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/oauth.md");
    let page = std::fs::read_to_string(page).unwrap();
    for line in [
        format!("| Keys are used without a new fetch for | {} min |", FRESH.as_secs() / 60),
        format!(
            "| Keys are used while fetches fail for, in total | {} h |",
            STALE_MAX.as_secs() / 3600
        ),
        format!(
            "| Minimum time between two fetches, for any number of tokens | {} s |",
            PAUSE.as_secs()
        ),
        format!("| Time limit of a fetch | {} s |", ANSWER_MAX.as_secs()),
        format!("| Size of a key set | {} KiB, {KEYS_MAX} keys |", DOCUMENT_BYTES_MAX >> 10),
        format!("in compact form, of at most {} KiB,", TOKEN_BYTES_MAX >> 10),
        format!("with a tolerance of {} s.", LEEWAY.as_secs()),
        format!("a string of at most {NAME_BYTES_MAX} bytes"),
        format!("each of at most {GROUPS_MAX} groups"),
        format!("of at most {} KiB. If a configured claim", CLAIM_BYTES_MAX >> 10),
    ] {
        assert!(page.contains(&line), "{line}");
    }
}
