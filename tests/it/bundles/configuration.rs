//! What `policy.bundle` and `audit.decision_logs` may say, and what they may not.

use std::path::Path;

use bartizan::config::{BundleSource, Config, Surroundings};

fn parse(text: &str) -> Result<Config, String> {
    let surroundings = Surroundings {
        env: &|name| (name == "TOKEN").then(|| "t0ken".to_owned()),
        read: &|_, _| Ok(Vec::new()),
        exists: &|path| !path.ends_with("gone"),
    };
    let text = format!("servers: {{s: {{url: 'http://h/mcp'}}}}\n{text}\n");
    Config::parse_in(&text, Path::new("/etc"), &surroundings).map_err(|it| it.to_string())
}

#[test]
fn invalid_settings_are_named() {
    let url = "url: 'https://h/b'";
    let keys = "signing: {keys: {k: {algorithm: RS256, public_key: k.pem}}}";
    for (bundle, expected) in [
        ("{}", "policy.bundle (line 2): has neither `path` nor `url`: write `path` (a directory"),
        (
            &format!("{{path: b, {url}}}"),
            "policy.bundle.path (line 2): `path` and `url` are given at once: keep one of them",
        ),
        ("{path: gone}", "does not exist"),
        ("{path: b, timeout: 1s}", "policy.bundle.timeout (line 2): has a meaning only with `url`"),
        ("{path: b, polling: {min_delay: 1s}}", "policy.bundle.polling (line 2): has a meaning"),
        ("{path: b, bytes: 1MiB}", "policy.bundle.bytes (line 2): has a meaning only with `url`"),
        (
            "{path: b, credentials: {bearer: x}}",
            "policy.bundle.credentials (line 2): has a meaning",
        ),
        ("{url: 'ftp://h/b'}", "is no http or https URL"),
        ("{url: 'https://u:p@h/b'}", "holds a user or a password"),
        ("{url: 'http://h/b'}", "anybody on the way could change the policy"),
        (
            &format!("{{url: 'http://h/b', {keys}, credentials: {{bearer: x}}}}"),
            "credentials would be sent unprotected",
        ),
        (
            &format!("{{{url}, credentials: {{}}}}"),
            "policy.bundle.credentials (line 2): has none of `bearer`, `bearer_file` and `client_tls`",
        ),
        (
            &format!("{{{url}, credentials: {{bearer: x, bearer_file: y}}}}"),
            "policy.bundle.credentials.bearer (line 2): `bearer` and `bearer_file` are given at once",
        ),
        (
            &format!("{{{url}, credentials: {{client_tls: {{cert: c}}}}}}"),
            "policy.bundle.credentials.client_tls (line 2): `key` is missing: write both",
        ),
        (&format!("{{{url}, credentials: {{bearer: '${{env:GONE}}'}}}}"), "`GONE` is not set"),
        (
            &format!("{{{url}, polling: {{min_delay: 2m, max_delay: 1m}}}}"),
            "policy.bundle.polling.max_delay (line 2): `max_delay` is shorter",
        ),
        (
            "{path: b, signing: {}}",
            "policy.bundle.signing (line 2): `keys` is missing: name at least one key",
        ),
        ("{path: b, signing: {keys: {k: {public_key: k}}}}", "`algorithm` is missing"),
        ("{path: b, signing: {keys: {k: {algorithm: none}}}}", "must be `RS256`, "),
        ("{path: b, signing: {keys: {k: {algorithm: RS256}}}}", "RS256 takes `public_key`"),
        (
            "{path: b, signing: {keys: {k: {algorithm: HS256, public_key: k}}}}",
            "HS256 takes `secret`",
        ),
        (
            "{path: b, signing: {keys: {k: {algorithm: ES256, public_key: k, secret: x}}}}",
            "ES256 takes `public_key`, a PEM file, and that alone",
        ),
        (
            "{path: b, signing: {keyid: other, keys: {k: {algorithm: HS256, secret: x}}}}",
            "no key of `keys` is called so",
        ),
    ] {
        let problems = parse(&format!("policy: {{bundle: {bundle}}}")).unwrap_err();
        assert!(problems.contains(expected), "{bundle}: {problems}");
        assert!(!problems.contains("t0ken"), "{problems}");
    }
    let both = parse("policy: {paths: [p], bundle: {path: b}}").unwrap_err();
    assert!(both.contains("`policy.bundle` is the whole policy"), "{both}");
    let logs = parse("audit: {decision_logs: {labels: {a: b}}}").unwrap_err();
    assert!(logs.contains("audit.decision_logs (line 2): `url` is missing"), "{logs}");
    let logs = "audit: {decision_logs: {url: 'http://h', credentials: {bearer: x}}}";
    assert!(parse(logs).unwrap_err().contains("sent unprotected"));
}

#[test]
fn valid_settings_are_accepted() {
    let keys = "signing: {keys: {k: {algorithm: RS256, public_key: k.pem}}}";
    for bundle in [
        "{path: b}".to_owned(),
        "{url: 'https://h/b?x=1', credentials: {bearer: '${env:TOKEN}'}}".to_owned(),
        "{url: 'http://127.0.0.1:8181/b', credentials: {bearer: x}}".to_owned(),
        "{url: 'http://[::1]/b'}".to_owned(),
        "{url: 'http://localhost/b'}".to_owned(),
        format!("{{url: 'http://h/b', {keys}}}"),
        "{url: 'https://h/b', polling: {min_delay: 10m}}".to_owned(),
    ] {
        let config = parse(&format!("policy: {{bundle: {bundle}}}"));
        assert!(config.is_ok(), "{bundle}: {config:?}");
        let shown = format!("{config:?}");
        assert!(!shown.contains("t0ken"), "{shown}");
    }
    let config =
        parse("policy: {bundle: {url: 'https://h/b', polling: {min_delay: 10m}}}").unwrap();
    let BundleSource::Service(service) = config.policy.bundle.unwrap().source else { panic!() };
    assert_eq!(service.polling.max_delay, service.polling.min_delay);
}
