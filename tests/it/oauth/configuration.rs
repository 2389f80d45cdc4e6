//! The configuration of `oauth: {mode: terminate}`: what it means, and which ones are refused.

use std::path::Path;

use bartizan::config::{Config, JwksConfig, OAuthMode, Problems, Surroundings, TerminateConfig};
use bartizan_edge::oauth::token::ALGORITHMS;
use bartizan_jose::Algorithm;

/// Reads `text` in a world without a path below `/gone`.
fn read(text: &str) -> Result<Config, Problems> {
    let surroundings = Surroundings {
        env: &|_| None,
        read: &|_, _| Ok(Vec::new()),
        exists: &|path| !path.starts_with("/gone"),
    };
    Config::parse_in(text, Path::new("/etc/bartizan"), &surroundings)
}

fn server(keys: &str) -> String {
    format!("servers:\n  s:\n    url: http://h/\n    {keys}\n")
}

/// `more` inside `oauth`, `keys` below the server.
fn terminate(more: &str, keys: &str) -> String {
    server(&format!("oauth: {{mode: terminate{more}}}\n    public_url: 'https://a/b'\n{keys}"))
}

fn with_issuer(issuer: &str) -> String {
    terminate(&format!(", issuers: [{{{issuer}}}]"), "")
}

fn meant(text: &str) -> TerminateConfig {
    let config = read(text).unwrap_or_else(|problems| panic!("{problems}"));
    match &config.servers[0].oauth.as_ref().unwrap().mode {
        OAuthMode::Terminate(meant) => meant.clone(),
        other @ OAuthMode::Forward { .. } => panic!("{other:?}"),
    }
}

#[test]
fn the_shortest_form_has_strict_defaults() {
    let meant = meant(&with_issuer("issuer: 'https://i/r', jwks_uri: 'https://k/keys?x=1'"));
    let [issuer] = &meant.issuers[..] else { panic!("{meant:?}") };
    assert_eq!(
        (issuer.issuer.as_str(), &issuer.audiences[..]),
        ("https://i/r", &["https://a/b".to_owned()][..])
    );
    assert_eq!(issuer.algorithms, ALGORITHMS);
    let JwksConfig::Uri { uri, ca_file: None } = &issuer.jwks else { panic!("{issuer:?}") };
    assert_eq!(uri, "https://k/keys?x=1");
    assert_eq!((meant.principal_claim.as_str(), meant.groups_claim), ("sub", None));
    assert!(meant.scopes.is_empty() && meant.claims.is_empty());
}

#[test]
fn every_key_arrives() {
    let issuers = "[{issuer: 'http://127.0.0.1:1', jwks_file: keys.json, audiences: [x, y], algorithms: [ES256]}, {issuer: 'https://i', jwks_uri: 'http://localhost:2/k', ca_file: ca.pem, audiences: z}]";
    let meant = meant(&terminate(
        &format!(
            ", issuers: {issuers}, scopes: [a, 'b:c'], principal_claim: /u/n, groups_claim: g, claims: tenant"
        ),
        "",
    ));
    let [one, two] = &meant.issuers[..] else { panic!("{meant:?}") };
    assert_eq!(
        (&one.audiences[..], &two.audiences[..]),
        (&["x".to_owned(), "y".into()][..], &["z".to_owned()][..])
    );
    assert_eq!(one.algorithms, [Algorithm::ES256]);
    assert!(
        matches!(&one.jwks, JwksConfig::File(path) if *path == Path::new("/etc/bartizan/keys.json"))
    );
    assert!(
        matches!(&two.jwks, JwksConfig::Uri { ca_file: Some(path), .. } if *path == Path::new("/etc/bartizan/ca.pem"))
    );
    assert_eq!(meant.scopes, ["a", "b:c"]);
    assert_eq!(
        (meant.principal_claim.as_str(), meant.groups_claim.as_deref()),
        ("/u/n", Some("g"))
    );
    assert_eq!(meant.claims, ["tenant"]);
    // A program behind us takes no token, and needs none.
    let program = "servers: {s: {command: c, public_url: 'https://a', oauth: {mode: terminate, issuers: [{issuer: 'https://i', jwks_file: k}]}}}";
    assert!(read(program).is_ok());
}

const ISSUER: &str = ", issuers: [{issuer: 'https://i', jwks_file: k}]";

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let many = ["issuer: 'https://i', jwks_file: k"; 9].join("}, {");
    let rows: Vec<(String, &str)> = vec![
        (terminate("", ""), "servers.s.oauth (line 4): `issuers` is missing: write `- issuer:"),
        (terminate(", issuers: []", ""), "s.oauth.issuers (line 4): is empty: write `- issuer:"),
        (terminate(", issuers: {}", ""), "s.oauth.issuers (line 4): must be a list of keys with"),
        (
            terminate(ISSUER, "    forward_authorization: true"),
            "(line 6): `oauth.mode: terminate` lets no token go on",
        ),
        (
            terminate(&format!("{ISSUER}, origin_endpoints: true"), ""),
            "s.oauth.origin_endpoints (line 4): has a meaning only with `mode: forward`",
        ),
        (
            server("oauth: {mode: forward, scopes: a}"),
            "s.oauth.scopes (line 4): has a meaning only with `mode: terminate`",
        ),
        (
            server("oauth: {mode: forward, issuers: [{issuer: 'https://i'}]}"),
            "s.oauth.issuers (line 4): has a meaning only with",
        ),
        (
            server("oauth: {mode: terminate, issuers: [{issuer: 'https://i', jwks_file: k}]}"),
            "s.oauth (line 4): `public_url` is missing",
        ),
        (with_issuer("jwks_file: k"), "s.oauth.issuers[0] (line 4): `issuer` is missing"),
        (with_issuer("issuer: 'https://i'"), "has neither `jwks_uri` nor `jwks_file`"),
        (
            with_issuer("issuer: 'https://i', jwks_file: k, jwks_uri: 'https://i/k'"),
            "issuers[0].jwks_uri (line 4): `jwks_uri` and `jwks_file` are given at once",
        ),
        (
            with_issuer("issuer: 'http://i', jwks_file: k"),
            "issuers[0].issuer (line 4): is http beyond loopback",
        ),
        (
            with_issuer("issuer: 'https://i?x', jwks_file: k"),
            "issuers[0].issuer (line 4): holds a query",
        ),
        (
            with_issuer("issuer: 'https://i', jwks_uri: 'http://i/k'"),
            "issuers[0].jwks_uri (line 4): is http beyond",
        ),
        (
            with_issuer("issuer: 'https://i', jwks_uri: 'https://u:p@i/k'"),
            "holds a user or a password",
        ),
        (with_issuer("issuer: 'https://i', jwks_file: /gone/k"), "`/gone/k` does not exist"),
        (
            with_issuer("issuer: 'https://i', jwks_file: k, ca_file: c"),
            "has a meaning only with `jwks_uri`",
        ),
        (
            with_issuer("issuer: 'https://i', jwks_file: k, algorithms: [ES256, none]"),
            "issuers[0].algorithms[1] (line 4): must be `RS256`, `PS256`, `ES256` or `EdDSA`",
        ),
        (with_issuer("issuer: 'https://i', jwks_file: k, algorithms: HS256"), "must be `RS256`"),
        (
            with_issuer("issuer: 'https://i', jwks_file: k}, {issuer: 'https://i', jwks_file: k"),
            "issuers[1].issuer (line 4): stands twice",
        ),
        (with_issuer(&many), "more than 8 issuers"),
        (
            terminate(", scopes: 'a b', issuers: [{issuer: 'https://i', jwks_file: k}]", ""),
            "is no scope",
        ),
        (
            terminate(&format!("{ISSUER}, groups_claim: /a~b"), ""),
            "s.oauth.groups_claim (line 4): is no pointer: write `~0`",
        ),
        (
            terminate(&format!("{ISSUER}, claims: [a~b, /c~]"), ""),
            "s.oauth.claims[1] (line 4): is no pointer",
        ),
    ];
    for (text, expected) in rows {
        let problems = read(&text).expect_err(&text).to_string();
        assert!(problems.contains(expected), "{text}\n{problems}");
    }
}
