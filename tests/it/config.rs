//! Configuration through its public doors: what a file means, and everything wrong with one.

mod page;
mod schema;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartizan::config::{
    Config, Confine, Front, HttpTransport, Inherit, LogFormat, PackRef, Problems, Secret,
    Surroundings, Upstream, Wrap,
};
use bartizan_edge::webhook::Template;
use bartizan_gate::session::{Mode, RefusalForm};

/// Reads `text` in a world with one variable, one credential file, and no path below `/gone`.
/// Whatever has a meaning, the schema takes.
fn read(text: &str) -> Result<Config, Problems> {
    let read = in_world(|world| Config::parse_in(text, Path::new("/etc/bartizan"), world));
    if read.is_ok() {
        assert_eq!(schema::refused(text), [""; 0], "{text}");
    }
    read
}

/// Holds a file of the repository to what `written` makes of it. With `BARTIZAN_BLESS=1` in the
/// environment the file is written instead.
#[expect(clippy::unwrap_used, reason = "tests")]
fn bless(file: &str, written: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let written = written(&there);
    if std::env::var_os("BARTIZAN_BLESS").is_some() {
        std::fs::write(&path, written).unwrap();
    } else {
        let how = "write it anew: BARTIZAN_BLESS=1 cargo test --test it config::";
        assert!(there == written, "{file} is not what the program says; {how}");
    }
}

/// The token of an approver.
const ALICE: &str = "al1ce-0123456789abcdefghijklmnopqrst";

fn in_world<T>(act: impl FnOnce(&Surroundings<'_>) -> T) -> T {
    act(&Surroundings {
        env: &|name| match name {
            "TOKEN" => Some("t0ken".to_owned()),
            "ALICE" => Some(ALICE.to_owned()),
            "SPLIT" => Some("s3cret\nx: y".to_owned()),
            "HOME" => Some("/home/me".to_owned()),
            _ => None,
        },
        read: &|path, _| match path.to_str() {
            Some("/run/key") => Ok(b"k3y\n".to_vec()),
            Some("/run/approver") => Ok(b"b0b-0123456789abcdefghijklmnopqrstuvw\n".to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        },
        exists: &|path| !path.starts_with("/gone"),
    })
}

#[test]
fn the_shortest_file_has_safe_defaults() {
    let config = read("servers: {flags: {url: 'https://api.example.com/v3/mcp'}}").unwrap();
    let Front::Http { listen, admin } = config.front else { panic!("no listener") };
    assert_eq!((listen.to_string(), admin.to_string()).0, "127.0.0.1:7070");
    assert_eq!(admin.to_string(), "127.0.0.1:7071");
    assert_eq!(config.state, PathBuf::from("/var/lib/bartizan"));
    assert_eq!(config.mode, Mode::Enforce);
    assert_eq!(config.policy.paths, Vec::<PathBuf>::new());
    assert_eq!(config.policy.entrypoint, "data.mcp.decision");
    assert_eq!((&*config.principal.id, &*config.principal.kind), ("agent", "agent"));
    assert_eq!(config.limits.frame, bartizan_gate::wire::frame::FrameLimits::default());
    let approvals = &config.approvals;
    assert_eq!((approvals.wait, approvals.approvers.len()), (Duration::from_secs(45), 0));
    assert_eq!((approvals.holds, approvals.holds_principal, approvals.bytes), (500, 20, 16 << 20));
    assert!(approvals.public_url.is_none() && approvals.oidc.is_none());
    let least = format!(
        "servers: {{s: {{url: 'http://h/'}}}}\napprovals: {{public_url: 'https://d', oidc: {{issuer: 'https://login.example:8443/r', {GOOD}}}}}"
    );
    let oidc = read(&least).unwrap().approvals.oidc.unwrap();
    assert_eq!((oidc.name.as_str(), oidc.people.id_claim.as_str()), ("login.example", "sub"));
    assert_eq!(
        (oidc.people.groups_claim.as_str(), oidc.client_secret, oidc.ca_file),
        ("groups", None, None)
    );
    assert!(oidc.scopes.is_empty() && oidc.people.principal_claims.is_empty());
    assert_eq!([oidc.idle, oidc.session], [30, 480].map(Duration::from_mins));
    assert_eq!((approvals.progress, approvals.elicit), (Some(Duration::from_secs(5)), false));
    assert!(config.otlp.is_none() && config.replicas.is_none());
    assert_eq!((config.log.format, config.log.filter.as_str()), (LogFormat::Text, "info"));
    let [server] = &config.servers[..] else { panic!("one server") };
    assert_eq!((server.name.as_str(), server.path.as_str()), ("flags", "/mcp"));
    assert_eq!(server.refusal, RefusalForm::Error);
    assert!(server.hosts.is_empty() && server.origins.is_empty(), "the loopback names");
    assert_eq!((&server.pack, &server.environment), (&None, &None));
    let Upstream::Http(upstream) = &server.upstream else { panic!("over HTTP") };
    assert_eq!(upstream.url, "https://api.example.com/v3/mcp");
    assert!(upstream.headers.is_empty() && !upstream.forward_authorization);
    assert_eq!((upstream.transport, &server.sse_path), (HttpTransport::StreamableHttp, &None));
}

#[test]
fn every_key_arrives() {
    let config = read(
        "
listen: 0.0.0.0:8080
listen_anywhere: true
admin: '[::1]:8081'
state: state
mode: observe
policy: {paths: [policies, /etc/more.rego], entrypoint: data.my.answer,
  listing_entrypoint: data.my.page, shadow_one_in: 10}
principal: {id: ci, kind: service, groups: [deploy, qa], claims: {team: flags}}
limits: {frame_bytes: 1 MiB, json_depth: 32, json_values: 1000, number_chars: 64, id_bytes: 64,
  header_bytes: 16KiB, header_count: 50, header_time: 1s, body_time: 2s, bodies_bytes: 2MiB,
  connections: 10, requests: 11, sessions: 20, session_idle: 3m, in_flight: 30, streams: 40,
  answer_time: 5s, stream_idle: 6s, keep_alive: 200ms, children: 7, buckets: 60, drain: 4s}
audit: {segment_bytes: 1MiB}
approvals: {wait: 2s, progress: off, public_url: 'https://desk.example/bartizan/', elicit: true, holds: 9, holds_principal: 8, bytes: 1MiB, approvers: [
  {id: alice, token: '${env:ALICE}'},
  {id: Bob B., groups: [on-call, leads], token: '${file:/run/approver}'},
  {id: carol, groups: leads, token: 'carol-${env:ALICE}'}],
  oidc: {issuer: 'https://login.example/realm', name: corp, client_id: console, client_secret: '${env:TOKEN}',
    ca_file: ca.pem, scopes: [profile, groups], id_claim: email, principal_claims: [upn, /act/sub],
    groups_claim: /realm/roles, groups: {on-call: sre, leads: [heads, chiefs]}, idle: 5m, session: 1h},
  callback_key: 'key of links ${env:ALICE}', webhooks: [
  {name: chat-1, url: 'https://h/${env:TOKEN}', template: slack, groups: leads, timeout: 3s,
    ca_file: ca.pem, callback: {approver: chat, lasts: 5m}},
  {name: pager, url: 'http://localhost:1/p', secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}]}
replicas: {url: 'rediss://store.example:6380/2', user: gate, password: '${env:TOKEN}', ca_file: ca.pem,
  prefix: flags, timeout: 80ms, keys: ['${env:ALICE}-new', '${env:ALICE}']}
otlp: {endpoint: 'http://127.0.0.1:4318', headers: {x-key: 'a ${env:TOKEN}'}}
log: {format: json, filter: 'warn,bartizan_edge=debug'}
servers:
  http:
    path: /deep/flags.v1
    sse_path: /deep/flags.v1/sse
    url: http://localhost:9000/mcp?x=1
    transport: sse
    headers: {Statsig-Api-Key: '${file:/run/key}'}
    forward_authorization: true
    ca_file: ca.pem
    pack: ./packs/mine
    environment: staging
    labels: {tier: gold}
    hosts: [Gate.Example:8080]
    origins: ['https://App.example']
    refusal: tool_result
    connect_timeout: 100ms
  child:
    command: [npx, -y]
    args: ['@stigg/typescript-mcp']
    env: {STIGG_API_KEY: '${env:TOKEN}'}
    env_inherit: [PATH]
    cwd: work
    pack: stigg
    stop_timeout: 1s
",
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    let Front::Http { listen, admin } = config.front else { panic!("no listener") };
    assert_eq!(listen.to_string(), "0.0.0.0:8080");
    assert_eq!(admin.to_string(), "[::1]:8081");
    assert_eq!(config.state, Path::new("/etc/bartizan/state"));
    assert_eq!(config.mode, Mode::Observe);
    assert_eq!(
        config.policy.paths,
        ["/etc/bartizan/policies", "/etc/more.rego"].map(PathBuf::from)
    );
    assert_eq!(
        (config.policy.entrypoint.as_str(), config.policy.shadow_one_in),
        ("data.my.answer", 10)
    );
    assert_eq!(config.policy.listing_entrypoint, "data.my.page");
    assert_eq!((&*config.principal.id, &*config.principal.kind), ("ci", "service"));
    assert_eq!(config.principal.groups, ["deploy", "qa"].map(Box::from));
    assert_eq!(config.principal.claims["team"], Box::from("flags"));
    let limits = &config.limits;
    let document = limits.frame.document;
    assert_eq!((document.bytes_max, document.depth_max), (1 << 20, 32));
    assert_eq!((document.values_max, document.number_chars_max), (1000, 64));
    assert_eq!((limits.frame.id_bytes_max, limits.header_bytes), (64, 16 << 10));
    assert_eq!((limits.header_count, limits.connections), (50, 10));
    assert_eq!((limits.sessions, limits.in_flight, limits.streams), (20, 30, 40));
    assert_eq!(limits.buckets, 60);
    assert_eq!((limits.requests, limits.children, limits.bodies_bytes), (11, 7, 2 << 20));
    let times = [limits.header_time, limits.body_time, limits.session_idle, limits.drain];
    assert_eq!(times, [1, 2, 180, 4].map(Duration::from_secs));
    assert_eq!([limits.answer_time, limits.stream_idle], [5, 6].map(Duration::from_secs));
    assert_eq!(limits.keep_alive, Some(Duration::from_millis(200)));
    assert_eq!(config.audit.segment_bytes, 1 << 20);
    let approvals = &config.approvals;
    assert_eq!((approvals.wait, approvals.bytes), (Duration::from_secs(2), 1 << 20));
    assert_eq!((approvals.holds, approvals.holds_principal), (9, 8));
    assert_eq!((approvals.progress, approvals.elicit), (None, true));
    assert_eq!(approvals.public_url.as_deref(), Some("https://desk.example/bartizan"));
    let [alice, bob, carol] = &approvals.approvers[..] else { panic!("three approvers") };
    assert_eq!([&*alice.id, &*bob.id, &*carol.id], ["alice", "Bob B.", "carol"]);
    assert!(alice.groups.is_empty() && carol.groups == ["leads"].map(Box::from));
    assert_eq!(bob.groups, ["on-call", "leads"].map(Box::from));
    assert!(alice.token.is_of(ALICE) && !bob.token.is_of(ALICE));
    assert!(bob.token.is_of("b0b-0123456789abcdefghijklmnopqrstuvw"));
    assert!(carol.token.is_of(&format!("carol-{ALICE}")));
    let oidc = approvals.oidc.as_ref().unwrap();
    assert_eq!((oidc.issuer.as_str(), oidc.name.as_str()), ("https://login.example/realm", "corp"));
    assert_eq!(oidc.client_id, "console");
    assert_eq!(oidc.client_secret.as_ref().map(Secret::expose), Some("t0ken"));
    assert_eq!(oidc.ca_file.as_deref(), Some(Path::new("/etc/bartizan/ca.pem")));
    assert_eq!(oidc.scopes, ["profile", "groups"]);
    assert_eq!(
        (oidc.people.id_claim.as_str(), oidc.people.groups_claim.as_str()),
        ("email", "/realm/roles")
    );
    assert_eq!(oidc.people.principal_claims, ["upn", "/act/sub"]);
    let of = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    let groups = [("on-call".into(), of(&["sre"])), ("leads".into(), of(&["heads", "chiefs"]))];
    assert_eq!(oidc.people.groups, groups);
    assert_eq!([oidc.idle, oidc.session], [5, 60].map(Duration::from_mins));
    let [chat, pager] = &approvals.webhooks[..] else { panic!("two webhooks") };
    assert_eq!((&*chat.name, chat.url.expose()), ("chat-1", "https://h/t0ken"));
    assert_eq!((chat.template, pager.template), (Template::Slack, Template::Plain));
    assert_eq!((&chat.groups[..], pager.groups.len()), (&["leads".into()][..], 0));
    assert_eq!([chat.timeout, pager.timeout], [3, 10].map(Duration::from_secs));
    assert_eq!(chat.ca_file, Some("/etc/bartizan/ca.pem".into()));
    let callback = chat.callback.as_ref().unwrap();
    assert_eq!((&*callback.approver, callback.lasts), ("chat", Duration::from_mins(5)));
    assert!(pager.callback.is_none() && chat.secret.is_none() && pager.secret.is_some());
    let shown = format!("{config:?}");
    assert!(!shown.contains("h/t0ken") && !shown.contains("whsec_"), "{shown}");
    assert!(approvals.callback_key.as_ref().unwrap().expose().ends_with(ALICE));
    let replicas = config.replicas.as_ref().unwrap();
    let store = &replicas.store;
    assert_eq!(
        (&*store.host, store.port, store.database, store.tls),
        ("store.example", 6380, 2, true)
    );
    assert_eq!(replicas.user.as_deref(), Some("gate"));
    assert_eq!(replicas.password.as_ref().unwrap().expose(), "t0ken");
    assert_eq!(replicas.ca_file, Some("/etc/bartizan/ca.pem".into()));
    assert_eq!((&*replicas.prefix, replicas.timeout), ("flags", Duration::from_millis(80)));
    assert_eq!(replicas.keys.len(), 2);
    assert_ne!(replicas.keys[0], replicas.keys[1]);
    let otlp = config.otlp.as_ref().unwrap();
    assert_eq!(otlp.remote.url, "http://127.0.0.1:4318");
    assert_eq!(otlp.headers[0].1.expose(), "a t0ken");
    assert_eq!(config.log.format, LogFormat::Json);

    let [http, child] = &config.servers[..] else { panic!("two servers") };
    assert_eq!((http.path.as_str(), child.path.as_str()), ("/deep/flags.v1", "/child"));
    let streams = (http.sse_path.as_deref(), child.sse_path.as_deref());
    assert_eq!(streams, (Some("/deep/flags.v1/sse"), None));
    assert_eq!(http.pack, Some(PackRef::File("/etc/bartizan/./packs/mine".into())));
    assert_eq!(http.refusal, RefusalForm::ToolResult);
    assert_eq!(http.hosts, ["gate.example:8080"]);
    assert_eq!(http.origins, ["https://app.example"]);
    let facts = http.facts(None);
    assert_eq!((&*facts.name, facts.environment.as_deref()), ("http", Some("staging")));
    assert_eq!(facts.labels["tier"], Box::from("gold"));
    let Upstream::Http(upstream) = &http.upstream else { panic!("over HTTP") };
    assert_eq!(upstream.url, "http://localhost:9000/mcp?x=1");
    assert_eq!(upstream.transport, HttpTransport::Sse);
    assert_eq!(upstream.headers[0].0, "statsig-api-key");
    assert_eq!(upstream.headers[0].1.expose(), "k3y");
    assert!(upstream.forward_authorization);
    assert_eq!(upstream.ca_file.as_deref(), Some(Path::new("/etc/bartizan/ca.pem")));
    assert_eq!(upstream.connect_timeout, Duration::from_millis(100));

    assert_eq!(child.pack, Some(PackRef::Embedded("stigg".to_owned())));
    let Upstream::Child(upstream) = &child.upstream else { panic!("a child") };
    assert_eq!(upstream.program, "npx");
    assert_eq!(upstream.args, ["-y", "@stigg/typescript-mcp"]);
    assert_eq!(upstream.cwd.as_deref(), Some(Path::new("/etc/bartizan/work")));
    assert_eq!(upstream.inherit, Inherit::Only(vec!["PATH".to_owned()]));
    assert_eq!(upstream.stop_timeout, Duration::from_secs(1));
    assert_eq!(
        (upstream.env[0].0.as_str(), upstream.env[0].1.expose()),
        ("STIGG_API_KEY", "t0ken")
    );
    assert!(!format!("{config:?}").contains("t0ken"), "a secret is printed");
    assert!(!format!("{config:?}").contains("k3y"), "a secret is printed");
    for secret in ["al1ce", "b0b-"] {
        assert!(!format!("{config:?}").contains(secret), "a token is printed");
    }
    assert!(!format!("{:?}", config.gate("b".into(), [0; 32])).is_empty());
}

#[test]
fn a_child_gets_what_it_needs_and_no_credential_of_ours() {
    let given = |keys: &str| -> Vec<String> {
        let text = format!("servers: {{s: {{command: server, {keys}}}}}");
        let config = read(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let Upstream::Child(child) = &config.servers[0].upstream else { panic!("a child") };
        child.inherit.names(["PATH", "AWS_SECRET_ACCESS_KEY"].map(str::to_owned))
    };
    let default = given("");
    assert!(default.contains(&"PATH".to_owned()) && default.contains(&"HOME".to_owned()));
    let secret = |name: &String| ["KEY", "TOKEN", "SECRET"].iter().any(|word| name.contains(word));
    assert!(!default.iter().any(secret), "{default:?}");
    assert_eq!(given("env_inherit: []"), Vec::<String>::new());
    assert_eq!(given("env_inherit: [A, PATH]"), ["A", "PATH"]);
    assert_eq!(given("env_inherit: ['*']"), ["PATH", "AWS_SECRET_ACCESS_KEY"]);
}

#[test]
fn a_child_is_confined_unless_the_file_says_otherwise() {
    let meant = |keys: &str| {
        let text = format!("servers: {{s: {{command: server, {keys}}}}}");
        let config = read(&text).unwrap_or_else(|problems| panic!("{problems}"));
        let Upstream::Child(child) = &config.servers[0].upstream else { panic!("no child") };
        (child.confine, child.user.map(|user| (user.uid, user.gid)))
    };
    assert_eq!(meant(""), (Confine::On, None));
    assert_eq!(meant("confine: 'on'"), (Confine::On, None));
    assert_eq!(meant("confine: required"), (Confine::Required, None));
    assert_eq!(meant("confine: off"), (Confine::Off, None));
    assert_eq!(meant("user: '1000'"), (Confine::On, Some((1000, 1000))));
    assert_eq!(meant("user: '1000:100'"), (Confine::On, Some((1000, 100))));
}

/// What `oidc` needs, beside `issuer`.
const GOOD: &str = "client_id: c, groups: {g: v}";

/// Each row: a file, and the one problem that it has.
#[test]
fn each_problem_names_its_place_and_a_next_step() {
    let server = "servers: {s: {url: 'http://h/'}}\n";
    let beside = |keys: &str| format!("{server}{keys}");
    let inside = |keys: &str| format!("servers:\n  s:\n    url: http://h/\n    {keys}");
    let child = |keys: &str| format!("servers:\n  s:\n    command: c\n    {keys}");
    let approvers = |list: &str| beside(&format!("approvals: {{approvers: [{list}]}}"));
    let oidc = |keys: &str, more: &str| {
        let oidc = format!("oidc: {{issuer: 'https://i', {keys}}}{more}");
        beside(&format!("approvals: {{public_url: 'https://d', {oidc}}}"))
    };
    let alice = "approvers: [{id: a, token: '${env:ALICE}'}]";
    let webhook = |keys: &str| beside(&format!("approvals: {{{alice}, webhooks: [{{{keys}}}]}}"));
    let slack = |url: &str| format!("name: a, template: slack, url: '{url}'");
    let rows: Vec<(String, &str)> = vec![
        (String::new(), "the file: it is empty: name at least one server"),
        ("hello".into(), "the file: must be keys with values, is a text: write its keys below it, indented"),
        ("mode: enforce".into(), "the file: `servers` is missing: name at least one server, with its"),
        ("servers: {}".into(), "servers (line 1): is empty: name at least one server"),
        (beside("lsten: x"), "lsten (line 2): no such key: did you mean `listen`?"),
        (beside("mode: dry"), "mode (line 2): must be `enforce` or `observe`: known here"),
        (beside("mode: Observe"), "did you mean `observe`?"),
        (beside("mode:"), "mode (line 2): has no value: give it one, or remove the key"),
        (beside("listen: localhost:1"), "listen (line 2): is no IP address with a port: `loc"),
        (beside("listen: 7070"), "listen (line 2): must be a text, is the number 7070: put it"),
        (beside("listen: 0.0.0.0:7"), "0.0.0.0:7 can be reached from other machines: use 127.0"),
        (beside("admin: 10.1.2.3:7"), "or add `admin_anywhere: true`"),
        (beside("admin: 127.0.0.1:7070"), "`admin` and `listen` are both 127.0.0.1:7070: agents"),
        (
            beside("admin_anywhere: true\nadmin: 0.0.0.0:7070"),
            "admin (line 3): `admin` and `listen` are both 0.0.0.0:7070",
        ),
        (beside("listen_anywhere: 1"), "(line 2): must be `true` or `false`, is the number 1"),
        (beside("replicas: {url: 'redis://h'}"), "replicas (line 2): `keys` is missing: make one with"),
        (
            beside("replicas: {url: 'redis://u:s3cret@h', keys: '${env:ALICE}'}"),
            "replicas.url (line 2): holds a user or a password: write it like",
        ),
        (
            beside(&format!(
                "replicas: {{url: 'redis://h', keys: [{}]}}",
                "'${env:ALICE}', ".repeat(9)
            )),
            "replicas.keys (line 2): more than 8 keys: remove the oldest ones",
        ),
        (beside("replicas: {url: 'redis://h', keys: x}"), "keys (line 2): must have 32 to 512 characters"),
        (
            beside(&format!("replicas: {{url: 'redis://h', keys: {}}}", "k".repeat(64))),
            "has too few different characters to be made at random: make one with `openssl rand",
        ),
        (
            beside("replicas: {url: 'redis://h', ca_file: ca.pem, keys: '${env:ALICE}'}"),
            "replicas.ca_file (line 2): `url` is without TLS: use `rediss://`",
        ),
        (
            beside("replicas: {url: 'redis://h', prefix: 'a{b}', keys: '${env:ALICE}'}"),
            "replicas.prefix (line 2): must be 1 to 64 visible characters of ASCII, without braces",
        ),
        (beside("policy: {paths: x}"), "policy.paths (line 2): must be a list of texts, is a t"),
        (beside("policy: {paths: [/gone/p]}"), "policy.paths[0] (line 2): `/gone/p` does not"),
        (beside("policy: {entrypoint: mcp.x}"), "policy.entrypoint (line 2): is no rule: `mcp.x`"),
        (beside("policy: {shadow_one_in: 0}"), "out of range: from 1 to 1000000"),
        (beside("limits: {json_depth: 1000}"), "limits.json_depth (line 2): out of range: from 4"),
        (beside("limits: {json_depth: -1}"), "out of range: from 4 to 128"),
        (beside("limits: {json_depth: 1.5}"), "must be a whole number, is the number 1.5"),
        (beside("limits: {json_depth: 99999999999999999999}"), "is the number 99999999999999999"),
        (beside("limits: {frame_bytes: 4MB}"), "must be a size, is a text: write bytes, or a si"),
        (beside("limits: {frame_bytes: 1}"), "out of range: from 1KiB to 256MiB"),
        (beside("limits: {drain: 5}"), "must be a length of time, is the number 5: write a num"),
        (beside("limits: {drain: 2h}"), "out of range: from 1ms to 1h"),
        (beside("limits: {keep_alive: 99ms}"), "out of range: from 100ms to 10m"),
        (beside("limits: {keep_alive: false}"), "such as `15s`, or `off`"),
        (beside("limits: {frames: 2}"), "limits.frames (line 2): no such key: "),
        (beside("principal: {id: \"a\\nb\"}"), "principal.id (line 2): longer than 256 bytes, or"),
        (beside("otlp: {}"), "otlp (line 2): `endpoint` is missing: write where they go"),
        (
            beside("approvals: {elicit: true}"),
            "approvals.elicit (line 2): there is no address to tell: write `public_url`, the URL under which approvers reach `admin`",
        ),
        (
            beside("approvals: {public_url: 'http://desk.example'}"),
            "approvals.public_url (line 2): is http beyond loopback",
        ),
        (beside("approvals: {wait: 2h}"), "approvals.wait (line 2): out of range: from 1ms to 1h"),
        (beside("approvals: {holds: 0}"), "approvals.holds (line 2): out of range: from 1 to 100"),
        (beside("approvals: {bytes: 1}"), "approvals.bytes (line 2): out of range: from 64KiB to"),
        (approvers("{id: a}"), "approvers[0] (line 2): `token` is missing: make one with `openssl"),
        (approvers("{token: '${env:ALICE}'}"), "[0] (line 2): `id` is missing: write `- id: alice"),
        (approvers("{id: a, token: s3cret}"), "[0].token (line 2): must have 32 to 512 characters"),
        (approvers("{id: a, token: '${env:ALICE} '}"), "must be visible ASCII, without space"),
        (
            approvers("{id: a, token: s3crets3crets3crets3crets3crets3cret}"),
            "has too few different characters to be made at random: make one with `openssl rand",
        ),
        (approvers("{id: a, token: '${env:NO}'}"), "[0].token (line 2): environment variable `NO`"),
        (approvers("{id: 'a ', token: '${env:ALICE}'}"), "[0].id (line 2): holds what nobody can"),
        (approvers("{id: \"a\\u202e\", token: '${env:ALICE}'}"), "holds what nobody can see: use vis"),
        (
            approvers(&format!("{{id: {}, token: '${{env:ALICE}}'}}", "a".repeat(129))),
            "approvals.approvers[0].id (line 2): is longer than 128 bytes: shorten it",
        ),
        (
            approvers("{id: a, token: '${env:ALICE}'}, {id: a, token: 'x${env:ALICE}'}"),
            "approvers[1].id (line 2): stands twice: give each approver an id of its own",
        ),
        (
            approvers("{id: a, token: '${env:ALICE}'}, {id: b, token: '${env:ALICE}'}"),
            "approvers[1].token (line 2): is the token of another approver, too: give each",
        ),
        (oidc("groups: {g: v}", ""), "approvals.oidc (line 2): `client_id` is missing: register Bartizan there, an"),
        (oidc("client_id: c, groups: {}", ""), "oidc.groups (line 2): is empty: write each group of"),
        (oidc("client_id: c, groups: {g: []}", ""), "oidc.groups.g (line 2): is empty: give it a va"),
        (oidc("client_id: c, groups: {'g ': v}", ""), "is no name of at most 128 bytes: use visible"),
        (oidc("client_id: c", ""), "approvals.oidc (line 2): `groups` is missing: write each group o"),
        (oidc(&format!("{GOOD}, name: 'a:b'"), ""), "oidc.name (line 2): has a colon, which ends it"),
        (oidc(&format!("{GOOD}, session: 25h"), ""), "oidc.session (line 2): out of range: from 1m"),
        (oidc(&format!("{GOOD}, idle: 1s"), ""), "approvals.oidc.idle (line 2): out of range: from 1"),
        (oidc(&format!("{GOOD}, scopes: 'a b'"), ""), "oidc.scopes (line 2): is no scope: write each"),
        (oidc(&format!("{GOOD}, id_claim: /a~2"), ""), "oidc.id_claim (line 2): is no pointer: writ"),
        (oidc(&format!("{GOOD}, client_secret: '${{env:NO}}'"), ""), "oidc.client_secret (line 2): e"),
        (oidc(&format!("{GOOD}, ca_file: /gone/x"), ""), "approvals.oidc.ca_file (line 2): `/gone/x`"),
        (
            oidc(GOOD, "").replace("https://i", "http://login.example"),
            "approvals.oidc.issuer (line 2): is http beyond loopback: use https",
        ),
        (
            oidc(GOOD, "").replace("public_url: 'https://d', ", ""),
            "approvals.oidc (line 2): `public_url` is missing: write the URL at which people reach",
        ),
        (
            oidc(GOOD, "").replace("https://d", "http://d"),
            "approvals.public_url (line 2): is http beyond loopback: use https",
        ),
        (
            oidc(&format!("{GOOD}, name: Corp"), ", approvers: [{id: 'corp:x', token: '${env:ALICE}'}]"),
            "approvals.approvers (line 2): an id begins with `Corp:`, as those of people who sign in",
        ),
        (webhook("url: 'https://h/', template: slack"), "approvals.webhooks[0] (line 2): `name` is missing: write a name, such as"),
        (webhook("name: a, template: slack"), "webhooks[0] (line 2): `url` is missing: write its address, like"),
        (webhook("name: a, url: 'https://h/s3cret'"), "[0].secret: `secret` is missing: a receiver"),
        (webhook("name: A b, template: slack, url: 'https://h/'"), "webhooks[0].name (line 2): is no name for a webhook"),
        (webhook(&slack("http://h/s3cret")), "[0].url (line 2): messages would be sent unprotected: u"),
        (webhook(&slack("https://u:s3cret@h/")), "webhooks[0].url (line 2): holds a user or a passw"),
        (webhook(&slack("s3cret")), "webhooks[0].url (line 2): is no http or https URL: write it"),
        (webhook(&slack("${file:/gone/s}")), "webhooks[0].url (line 2): file `/gone/s` cannot be"),
        (webhook("name: a, url: 'https://h/', template: discord"), "template (line 2): must be `plain`, `slack` or `t"),
        (
            webhook("name: a, url: 'https://h/', secret: s3cret"),
            "webhooks[0].secret (line 2): is not `whsec_` and base64 of 24 to 64 bytes: make one",
        ),
        (
            webhook(&format!("{}, callback: {{approver: chat}}", slack("https://h/"))),
            "webhooks[0].callback (line 2): links need the address at which people reach `admin`",
        ),
        (
            beside(&format!(
                "approvals: {{{alice}, public_url: 'https://h/', webhooks: [{{{}, callback: \
                 {{approver: chat, lasts: 2d}}}}]}}",
                slack("https://h/")
            )),
            "webhooks[0].callback.lasts (line 2): out of range: from 1m to 24h",
        ),
        (
            webhook(&format!("{}}}, {{{}", slack("https://h/"), slack("https://h/"))),
            "webhooks[1].name (line 2): stands twice: give each webhook a name of its own",
        ),
        (
            beside(&format!("approvals: {{webhooks: [{{{}}}]}}", slack("https://h/"))),
            "approvals.webhooks (line 2): nobody may answer, so no call is held: name `approvers`",
        ),
        (
            beside("approvals: {callback_key: s3cret}"),
            "approvals.callback_key (line 2): must have 32 to 512 characters: make one with `openssl",
        ),
        (
            beside(&format!("approvals: {{callback_key: {}}}", "s3cret".repeat(8))),
            "approvals.callback_key (line 2): has too few different characters to be made at random",
        ),
        (beside("otlp: {endpoint: 'ftp://x'}"), "otlp.endpoint (line 2): is no http or https URL"),
        (beside("log: {filter: 'a=b=c'}"), "log.filter (line 2): is no filter: "),
        (beside("state: '${env:TOKEN}'"), "state (line 2): a reference (`${…}`) stands where no"),
        ("servers: {s: {}}".into(), "servers.s (line 1): has neither `url` nor `command`: write"),
        ("servers: {s: [x]}".into(), "servers.s (line 1): must be keys with values, is a list"),
        ("servers: {'a b': {url: 'http://h'}}".into(), "is no name for a server: use 1 to 63"),
        (inside("command: [x]"), "servers.s.url (line 3): `url` and `command` are given at once: keep one of them"),
        (inside("path: flags"), "servers.s.path (line 4): is no plain absolute path: write it"),
        (inside("path: //flags"), "is no plain absolute path"),
        (inside("path: /a/../b"), "is no plain absolute path"),
        (inside("path: /a%2fb"), "is no plain absolute path"),
        (inside("path: /a/"), "is no plain absolute path"),
        (inside("environment: '*'"), "servers.s.environment (line 4): `*` stands for every"),
        (inside("cwd: /x"), "servers.s.cwd (line 4): has a meaning only with `command`: remove"),
        (inside("env: {A: b}"), "servers.s.env (line 4): has a meaning only with `command`"),
        (inside("args: [x]"), "servers.s.args (line 4): has a meaning only with `command`"),
        (inside("ca_file: /gone/ca"), "servers.s.ca_file (line 4): `/gone/ca` does not exist"),
        (inside("pack: /gone/p.json"), "servers.s.pack (line 4): `/gone/p.json` does not exist"),
        (inside("hosts: ['http://x']"), "servers.s.hosts[0] (line 4): is no host name: write a"),
        (inside("hosts: ['*']"), "is no host name"),
        (inside("origins: [x]"), "servers.s.origins[0] (line 4): is no origin: write scheme"),
        (inside("origins: ['http://x/']"), "is no origin"),
        (inside("origins: ['null']"), "is no origin"),
        (inside("headers: {Host: x}"), "servers.s.headers.Host (line 4): `host` belongs to the"),
        (inside("headers: {Mcp-Method: x}"), "`mcp-method` belongs to the transport"),
        (inside("headers: {'a b': x}"), "is no name for a header"),
        (inside("headers: {a: x, A: y}"), "servers.s.headers.A (line 4): `a` stands twice"),
        (inside("headers: {a: '${env:NO}'}"), "environment variable `NO` is not set"),
        (inside("headers: {a: '${file:/no}'}"), "file `/no` cannot be read: permission denied"),
        (inside("headers: {a: '${env:SPLIT}'}"), "its value holds a character that no header"),
        (
            inside("headers: {authorization: x}\n    forward_authorization: true"),
            "servers.s.forward_authorization (line 5): `headers` sets `authorization` too",
        ),
        (inside("public_url: 'https://a'"), "has a meaning only with `oauth`"),
        (inside("oauth: {}"), "servers.s.oauth (line 4): `mode` is missing: write `mode: forward` or"),
        (inside("oauth: {mode: forward}\n    hosts: a"), "s.oauth (line 4): `public_url` is missing"),
        (inside("oauth: {mode: forward}\n    public_url: http://a/"), "is http beyond loopback"),
        (inside("oauth: {mode: forward}\n    public_url: https://a/?b"), "holds a query, or what must be quoted"),
        (inside("oauth: {mode: forward}\n    public_url: a"), "is no http or https URL"),
        (
            inside("oauth: {mode: forward}\n    headers: {authorization: x}"),
            "s.oauth (line 4): `headers` sets `authorization`, so no client's can go on",
        ),
        (
            inside("oauth: {mode: forward}\n    forward_authorization: false"),
            "s.forward_authorization (line 5): `oauth.mode: forward` sends it on",
        ),
        (
            "servers: {s: {command: [x], oauth: {mode: forward}}}".into(),
            "s.oauth (line 1): a program's standard input takes no token: use it with `url`, or",
        ),
        (
            "servers:\n  a: {url: 'http://h', oauth: {mode: forward, origin_endpoints: true}}\n  b: {url: 'http://h', path: /token}".into(),
            "`/token` is an origin endpoint of `a`",
        ),
        (
            "servers:\n  a: {url: 'http://h', oauth: {mode: forward, origin_endpoints: true}}\n  b: {url: 'http://h', oauth: {mode: forward, origin_endpoints: true}}".into(),
            "`a` has `origin_endpoints` too",
        ),
        (
            "servers:\n  a: {url: 'http://h', public_url: 'https://x/p', oauth: {mode: forward}}\n  b: {url: 'http://h', public_url: 'https://y/p', oauth: {mode: forward}}".into(),
            "its metadata is where that of `a` is",
        ),
        (inside("path: /.well-known/x"), "`/.well-known` is taken (RFC 8615)"),
        (inside("sse_path: /.well-known/x"), "`/.well-known` is taken (RFC 8615)"),
        (inside("sse_path: sse"), "servers.s.sse_path (line 4): is no plain absolute path"),
        (inside("sse_path: /mcp"), "servers.s.sse_path (line 4): `/mcp` is already a path of `s`"),
        (inside("sse_path: /sse\n    batches: true"), "s.batches (line 5): HTTP+SSE has no batches"),
        (inside("transport: sse\n    batches: true"), "s.batches (line 5): HTTP+SSE has no batches"),
        (inside("transport: stdio"), "must be `streamable_http` or `sse`"),
        (child("transport: sse"), "servers.s.transport (line 4): has a meaning only with `url`"),
        (inside("refusal: html"), "must be `error` or `tool_result`"),
        (inside("hosts: []"), "servers.s.hosts (line 4): is empty"),
        (inside("origins: []"), "servers.s.origins (line 4): is empty"),
        (beside("limits: {session_idle: 1ms}"), "out of range: from 1s to 24h"),
        (beside("limits: {bodies_bytes: 2MiB}"), "less than `frame_bytes`: no message of that"),
        (child("headers: {a: b}"), "servers.s.headers (line 4): has a meaning only with `url`"),
        (child("connect_timeout: 1s"), "(line 4): has a meaning only with `url`"),
        (child("user: nobody"), "servers.s.user (line 4): is no user id, or user id and group id with `:`"),
        (child("user: '1:2'\n    confine: off"), "servers.s.user (line 4): is part of the confinement that `confine` switches off"),
        (inside("confine: off"), "servers.s.confine (line 4): has a meaning only with `command`"),
        (inside("user: '1'"), "servers.s.user (line 4): has a meaning only with `command`"),
        (child("env: {A-B: x}"), "servers.s.env.A-B (line 4): is no name for a variable"),
        ("servers: {s: {command: []}}".into(), "servers.s.command (line 1): is empty: give"),
        ("servers: {s: {command: ['${env:TOKEN}']}}".into(), "a reference (`${…}`) stands where"),
        ("servers: {s: {url: 5}}".into(), "servers.s.url (line 1): must be a text, is the number"),
        ("servers: {s: {command: {}}}".into(), "servers.s.command (line 1): must be a list of"),
        ("servers: {s: {url: 'https://u:p@h/'}}".into(), "holds a user or a password: write it"),
        ("servers: {s: {url: 'https://h/#x'}}".into(), "holds a fragment"),
        ("servers: {s: {url: 'h:1/mcp'}}".into(), "is no "),
        ("servers: {s: {url: /mcp}}".into(), "is no http or https URL"),
        ("servers: {s: {url: 'http://127.0.0.1:7070/x'}}".into(), "leads back to this program"),
        ("servers: {s: {url: 'http://LOCALHOST:7071'}}".into(), "leads back to this program"),
        (
            "servers:\n  a: {url: 'http://h', path: /x}\n  b: {url: 'http://h', path: /x}".into(),
            "servers.b.path (line 3): `/x` is already the path of `a`: give each server a path",
        ),
        (
            "servers:\n  a: {url: 'http://h', sse_path: /x}\n  b: {url: 'http://h', path: /x}".into(),
            "servers.b.path (line 3): `/x` is already the path of `a`",
        ),
        (
            "servers:\n  a: {url: 'http://h', path: /x}\n  b: {url: 'http://h', sse_path: /x}".into(),
            "servers.b.sse_path (line 3): `/x` is already a path of `a`: give the stream a path",
        ),
        (
            "servers:\n  a: {url: 'http://h', sse_path: /x}\n  b: {url: 'http://h', sse_path: /x}".into(),
            "servers.b.sse_path (line 3): `/x` is already a path of `a`",
        ),
        (
            "servers:\n  a: {url: 'http://h', oauth: {mode: forward, origin_endpoints: true}}\n  b: {url: 'http://h', sse_path: /token}".into(),
            "`/token` is an origin endpoint of `a`",
        ),
    ];
    for (text, expected) in rows {
        let problems = read(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
        let shown = problems.to_string();
        assert!(shown.contains(expected), "{text}\nhas: {shown}\nnot: {expected}");
        assert_eq!(problems.list().len(), 1, "{text}\nhas: {shown}");
        for secret in ["s3cret", "t0ken", "al1ce"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let problems = read(
        "
listen: nowhere
mode: maybe
polcy: {}
limits: {json_depth: x, in_flight: 0}
servers:
  a: {url: 'ftp://x', path: here, headers: {Host: h, k: '${env:NO}'}}
  b: {colour: red}
",
    )
    .unwrap_err();
    let shown = problems.to_string();
    let starts: Vec<&str> =
        shown.lines().map(|line| line.split_once(": ").map_or(line, |(start, _)| start)).collect();
    assert_eq!(
        starts,
        [
            "listen (line 2)",
            "mode (line 3)",
            "polcy (line 4)",
            "limits.json_depth (line 5)",
            "limits.in_flight (line 5)",
            "servers.a.path (line 7)",
            "servers.a.url (line 7)",
            "servers.a.headers.Host (line 7)",
            "servers.a.headers.k (line 7)",
            "servers.b (line 8)",
            "servers.b.colour (line 8)",
        ],
        "{shown}"
    );
    assert_eq!(problems.list().len(), starts.len(), "one line each");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Config::read(&folder.path().join("no.yaml")).unwrap_err().to_string();
    assert!(missing.starts_with("the file: it cannot be read: "), "{missing}");
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(Config::read(&binary).unwrap_err().to_string().contains("not UTF-8"));
    let large = folder.path().join("large.yaml");
    std::fs::write(&large, vec![b'#'; 2 << 20]).unwrap();
    assert!(Config::read(&large).unwrap_err().to_string().contains("larger than 1048576 bytes"));
    let whole = folder.path().join("whole.yaml");
    std::fs::write(&whole, "servers: {s: {command: x}}\npolicy: {paths: [.]}\n").unwrap();
    assert_eq!(Config::read(&whole).unwrap().policy.paths, [folder.path().join(".")]);
}

#[test]
fn wrap_means_the_same_as_a_file() {
    let wrap = |wrap: Wrap| in_world(|world| Config::wrap_in(wrap, world));
    let texts = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let config = wrap(Wrap {
        command: texts(&["npx", "-y", "server"]),
        pack: Some("flagsmith".to_owned()),
        policies: texts(&["policies"]),
        environment: Some("staging".to_owned()),
        principal: Some("me".to_owned()),
        observe: true,
        ..Wrap::default()
    })
    .unwrap();
    assert_eq!(config.front, Front::Stdio { admin: None });
    assert_eq!(config.mode, Mode::Observe);
    assert_eq!(config.state, Path::new("/home/me/.local/state/bartizan/server"));
    assert_eq!(&*config.principal.id, "me");
    assert_eq!(config.log.filter, "warn,child=info");
    assert_eq!(config.policy.paths, [PathBuf::from("policies")]);
    let server = &config.servers[0];
    assert_eq!((server.name.as_str(), server.environment.as_deref()), ("server", Some("staging")));
    let Upstream::Child(child) = &server.upstream else { panic!("a child") };
    assert_eq!((child.program.as_str(), &child.inherit), ("npx", &Inherit::Everything));
    assert_eq!(child.args, ["-y", "server"]);

    let config = wrap(Wrap {
        url: Some("https://h/mcp".to_owned()),
        headers: vec![("authorization".to_owned(), "Bearer ${env:TOKEN}".to_owned())],
        state: Some("/tmp/s".to_owned()),
        ..Wrap::default()
    })
    .unwrap();
    assert_eq!(
        (config.servers[0].name.as_str(), config.state.as_path()),
        ("h", Path::new("/tmp/s"))
    );
    let Upstream::Http(http) = &config.servers[0].upstream else { panic!("over HTTP") };
    assert_eq!(http.headers[0].1.expose(), "Bearer t0ken");
    assert_eq!(http.transport, HttpTransport::StreamableHttp);

    let config = wrap(Wrap {
        url: Some("https://h/sse".to_owned()),
        transport: Some(HttpTransport::Sse),
        ..Wrap::default()
    })
    .unwrap();
    let Upstream::Http(http) = &config.servers[0].upstream else { panic!("over HTTP") };
    assert_eq!(http.transport, HttpTransport::Sse);

    // A shell has read the words already: none is empty by mistake, and `${…}` means itself. There
    // is no listener that a server could be mistaken for.
    let words = ["sh", "-c", "", "echo ${HOME}"];
    let config = wrap(Wrap { command: texts(&words), ..Wrap::default() }).unwrap();
    let Upstream::Child(child) = &config.servers[0].upstream else { panic!("a child") };
    assert_eq!(child.args, words[1..]);
    let url = Some("http://127.0.0.1:7070/mcp".to_owned());
    assert!(wrap(Wrap { url, ..Wrap::default() }).is_ok());

    let problems = wrap(Wrap {
        url: Some("nowhere".to_owned()),
        policies: texts(&["/gone/p"]),
        headers: vec![("a".to_owned(), "${env:NO}".to_owned())],
        ..Wrap::default()
    })
    .unwrap_err()
    .to_string();
    for expected in ["--url: is no http", "--policy: `/gone/p` does", "--header: environment"] {
        assert!(problems.contains(expected), "{problems}");
    }
}

proptest::proptest! {
    /// No text makes reading panic, and none with a problem gives a configuration.
    #[test]
    fn any_text_is_read_without_panic(text in "(servers|listen|a|: |\n|  |- |\\[|\\{|\\}|\\]|&x |\\*x|'|\"|\\$\\{env:TOKEN\\}|[ -~]){0,40}") {
        match read(&text) {
            Ok(config) => proptest::prop_assert!(!config.servers.is_empty()),
            Err(problems) => proptest::prop_assert!(!problems.is_empty()),
        }
    }
}

#[test]
fn what_is_allowed_and_probably_not_meant_is_told() {
    let told = |text: &str| {
        let config = Config::parse(text, Path::new("/"), &|_| None).unwrap();
        config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let quiet = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: s\nservers:\n  a: {url: 'https://h/mcp', headers: {x-key: k}}\n  b: {url: 'http://127.0.0.1:9/mcp', headers: {x-key: k}}\n  c: {url: 'http://h/mcp'}\n";
    assert_eq!(told(quiet), [""; 0]);
    let loud = "listen: 0.0.0.0:7070\nlisten_anywhere: true\nadmin: 127.0.0.1:0\nstate: s\notlp: {endpoint: 'http://collector:4318', headers: {x-key: k}}\nreplicas: {url: 'redis://store', keys: 0123456789abcdef0123456789abcdef}\nservers:\n  a: {url: 'http://h/mcp', headers: {x-key: k}}\n  b: {url: 'http://h/mcp', forward_authorization: true}\n";
    let on_this_machine = quiet.replace(
        "state: s\n",
        "state: s\nreplicas: {url: 'redis://[::1]:1', keys: 0123456789abcdef0123456789abcdef}\n",
    );
    assert_eq!(told(&on_this_machine), [""; 0]);
    let warnings = told(loud);
    for (at, what) in [
        ("servers.a: ", "no access token is asked for"),
        ("servers.a.headers: ", "`h` over plain http"),
        ("servers.b: ", "no access token is asked for"),
        ("servers.b.forward_authorization: ", "`h` over plain http"),
        ("otlp.headers: ", "`collector` over plain http"),
        ("replicas.url: ", "to `store` without TLS"),
    ] {
        let found = warnings.iter().any(|it| it.starts_with(at) && it.contains(what));
        assert!(found, "{at}{what}: {warnings:?}");
    }
    assert_eq!(warnings.len(), 6, "{warnings:?}");
    assert!(warnings.iter().all(|it| !it.contains(": k")), "no credential: {warnings:?}");
}

/// Each setting that can never act is told, with its place and a next step; the same setting beside
/// what it needs is not.
#[test]
fn settings_that_do_nothing_are_told_and_contradictions_refused() {
    let read = |more: &str| {
        let text = format!("state: s\nservers:\n  a: {{url: 'https://h/mcp'}}\n{more}\n");
        Config::parse(&text, Path::new("/"), &|_| None)
    };
    let told = |more: &str| {
        let config = read(more).unwrap_or_else(|problems| panic!("{more}: {problems}"));
        config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let approver = "approvers: [{id: al, token: 0123456789abcdef0123456789abcdef}]";
    for (idle, meant, at) in [
        ("audit: {retention: {}}", "audit: {retention: {age: 90d}}", "audit.retention "),
        (
            "audit: {retention: {age: 90d, unsent: remove}}",
            "audit: {retention: {age: 90d, unsent: remove}, decision_logs: {url: 'https://d'}}",
            "audit.retention.unsent: ",
        ),
        (
            "audit: {retention: {bytes: 1MiB}}",
            "audit: {segment_bytes: 512KiB, retention: {bytes: 1MiB}}",
            "audit.retention.bytes: ",
        ),
        (
            "audit: {segment_bytes: 1MiB, bytes: 1MiB}",
            "audit: {segment_bytes: 1MiB, bytes: 2MiB}",
            "audit.segment_bytes ",
        ),
        (
            "audit: {each_refusal: true, repeat_interval: 5s}",
            "audit: {repeat_interval: 5s}",
            "audit.repeat_interval ",
        ),
        (
            "audit: {compress_after: 2h, retention: {age: 2h}}",
            "audit: {compress_after: 1h, retention: {age: 2h}}",
            "audit.compress_after ",
        ),
        (
            "otlp: {endpoint: 'https://c', metrics_interval: 5s}",
            "otlp: {endpoint: 'https://c', metrics_interval: 5s, signals: [metrics]}",
            "otlp.metrics_interval ",
        ),
        (
            "otlp: {endpoint: 'http://127.0.0.1:4318', ca_file: /dev/null}",
            "otlp: {endpoint: 'https://c', ca_file: /dev/null}",
            "otlp.ca_file ",
        ),
        (
            "otlp: {endpoint: 'http://127.0.0.1:4318', credentials: {client_tls: {cert: /dev/null, key: /dev/null}}}",
            "otlp: {endpoint: 'https://c', credentials: {client_tls: {cert: /dev/null, key: /dev/null}}}",
            "otlp.credentials ",
        ),
        (
            "limits: {requests: 8, streams: 9}",
            "limits: {requests: 8, streams: 8}",
            "limits.streams ",
        ),
        ("listen_anywhere: true", "listen_anywhere: false", "listen_anywhere "),
        ("approvals: {wait: 30s}", &format!("approvals: {{wait: 30s, {approver}}}"), "approvals "),
        (
            &format!("approvals: {{wait: 4s, progress: 5s, {approver}}}"),
            &format!("approvals: {{wait: 6s, progress: 5s, {approver}}}"),
            "approvals.progress ",
        ),
        (
            &format!("approvals: {{holds: 4, holds_principal: 5, {approver}}}"),
            &format!("approvals: {{holds: 5, holds_principal: 5, {approver}}}"),
            "approvals.holds_principal ",
        ),
    ] {
        let warnings = told(idle);
        assert!(
            warnings.iter().any(|it| it.starts_with(at) && it.contains("; ")),
            "{idle}: {warnings:?}"
        );
        assert_eq!(told(meant), [""; 0], "{meant}");
    }
    for bytes in ["2GiB", "1GiB"] {
        let problems = read(&format!("audit: {{bytes: 1GiB, retention: {{bytes: {bytes}}}}}"));
        let problems = problems.unwrap_err().to_string();
        assert!(
            problems.contains("audit.retention.bytes: ") && problems.contains("lower it"),
            "{problems}"
        );
    }
}
