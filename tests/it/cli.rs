//! The program as a user sees it: exit codes, standard output and standard error, messages.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn bartizan(args: &[&str]) -> (i32, String, String) {
    bartizan_reading(args, "")
}

fn bartizan_reading(args: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    let command = command.args(args).env_remove("BARTIZAN_CONFIG").env("TOKEN", "t0ken");
    let command = command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A program that does not read its input closes it.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn results_go_to_standard_output_and_complaints_do_not() {
    for (args, exit, expected) in [
        (&["--version"][..], 0, concat!("bartizan ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], 0, "Usage: bartizan <COMMAND>"),
        (&["wrap", "--help"], 0, "Replaces the server's command in the client's configuration"),
        (&["help", "policy", "explain"], 0, "Example:"),
        (&[], 64, "Usage: bartizan <COMMAND>"),
        (&["walk"], 64, "error: unrecognized subcommand 'walk'"),
        (&["run"], 64, "--config <FILE>"),
        (&["run", "-c", "/no/such.yaml"], 64, "error: /no/such.yaml: it cannot be read: "),
        (&["wrap"], 64, "<--url <URL>|--config <FILE>|COMMAND>"),
        (&["wrap", "--url", "http://h", "--", "c"], 64, "cannot be used with"),
        (&["wrap", "--url", "ftp://h", "--state", "s"], 64, "error: wrap: --url: is no http or"),
    ] {
        let (code, stdout, stderr) = bartizan(args);
        assert_eq!(code, exit, "{args:?}: {stderr}");
        let (said, silent) = if exit == 0 { (stdout, stderr) } else { (stderr, stdout) };
        assert!(said.contains(expected), "{args:?}: {said}");
        assert_eq!(silent, "", "{args:?}");
    }
}

#[test]
fn a_header_without_a_name_is_not_repeated() {
    let (code, stdout, stderr) =
        bartizan(&["wrap", "--url", "http://h", "--state", "s", "--header", "sk-live-1"]);
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert!(stderr.contains("--header: is no name for a header"), "{stderr}");
    assert!(!stderr.contains("sk-live-1"), "{stderr}");
}

#[test]
fn a_bad_configuration_is_refused_whole_before_any_port_is_bound() {
    // The port is taken: a program that bound it first would say so.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bartizan.yaml");
    let text = format!(
        "listen: {}\nmode: maybe\nservers:\n  a: {{url: 'ftp://x', colour: red}}\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    for command in ["run", "check"] {
        let (code, stdout, stderr) = bartizan(&[command, "-c", file.to_str().unwrap()]);
        assert_eq!((code, stdout.as_str()), (64, ""), "{command}: {stderr}");
        let name = file.display();
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 6, "three problems, three hints: {stderr}");
        for expected in [
            format!("error: {name}: mode (line 2): must be `enforce` or `observe`"),
            format!("error: {name}: servers.a.url (line 4): is no http or https URL"),
            format!("error: {name}: servers.a.colour (line 4): no such key"),
        ] {
            assert!(lines.contains(&expected.as_str()), "{stderr}");
        }
        assert_eq!(lines.iter().filter(|line| line.starts_with("hint: ")).count(), 3, "{stderr}");
    }
}

#[test]
fn check_sums_up_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bartizan.yaml");
    let text = "
servers:
  flags:
    url: 'https://h/mcp?key=hidden'
    pack: flag-service
    environment: staging
    headers: {x-key: '${env:TOKEN}'}
  child: {command: [server, --token=hidden]}
  old: {url: 'https://h/sse', transport: sse, sse_path: /old/sse}
";
    std::fs::write(&file, text).unwrap();
    let (code, stdout, stderr) = bartizan(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for expected in [
        ": good\n",
        "flags at /flags: https://h/mcp\n",
        "old at /old: https://h/sse, which speaks HTTP+SSE\n",
        "HTTP+SSE at /old/sse, too\n",
        "environment staging\n",
        "built-in baseline\n",
        " engine, ",
    ] {
        assert!(stdout.contains(expected), "{stdout}");
    }
    assert!(!stdout.contains("hidden") && !stdout.contains("t0ken"), "{stdout}");
}

#[test]
fn check_names_every_bad_pack_and_policy() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = "
policy: {paths: [policies]}
servers:
  a: {command: x, pack: flag-servce}
  b: {command: x, pack: ./bad.json}
";
    std::fs::write(path("bartizan.yaml"), text).unwrap();
    std::fs::write(path("bad.json"), "{\"version\": 1, \"colour\": 2}").unwrap();
    std::fs::create_dir(path("policies")).unwrap();
    std::fs::write(path("policies/x.rego"), "package mcp\n\npermit contains {").unwrap();
    let (code, stdout, stderr) =
        bartizan(&["check", "-c", path("bartizan.yaml").to_str().unwrap()]);
    assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
    for expected in [
        "servers.a.pack: no pack is called `flag-servce`\nhint: did you mean `flag-service`?",
        "servers.b.pack: ",
        "colour",
        "x.rego (line 3): ",
    ] {
        assert!(stderr.contains(expected), "no {expected}: {stderr}");
    }
}

const UPDATE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"update_flag","arguments":{"key":"a","environment":"ENV"}}}"#;

/// A call that a rule holds is neither denied nor permitted; a notification cannot wait.
#[test]
fn a_held_call_is_explained_with_who_may_grant_it() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("p.rego");
    let rules = r#"package mcp
permit contains {"code": "p", "message": "m"} if input.method != "ping"
hold contains {"code": "review", "message": "look", "approvers": ["on-call", "leads"], "quorum": 2,
  "ttl": "30m", "scopes": [{"code": "quarter", "lasts": "15m", "count": 3}]} if input.method != "ping"
hold contains {"code": "any", "message": "n"} if input.method != "ping"
"#;
    std::fs::write(&policy, rules).unwrap();
    let args = ["policy", "explain", "-p", policy.to_str().unwrap()];
    let (code, stdout, stderr) = bartizan_reading(&args, UPDATE);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let found: Vec<&str> = stdout
        .lines()
        .filter(|line| {
            !["method", "tool", "operation", "engine", "revision"]
                .iter()
                .any(|it| line.starts_with(it))
        })
        .collect();
    assert_eq!(
        found,
        [
            "effect      hold",
            "reason      p (rule): m",
            "hold        review: look",
            "  approvers on-call, leads",
            "  quorum    2",
            "  ttl       30m",
            "  scope     quarter: 3 calls in 15m",
            "hold        any: n",
            "  approvers any approver",
            "  quorum    1",
            "  ttl       15m",
        ],
        "{stdout}"
    );
    let cannot_wait = UPDATE.replace(r#""id":1,"#, "");
    let (_, stdout, _) = bartizan_reading(&args, &cannot_wait);
    assert!(stdout.contains("effect      deny\n"), "{stdout}");
}

#[test]
fn a_message_is_explained() {
    let args = ["policy", "explain", "--pack", "flag-service", "--environment", "staging"];
    let duplicate = r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#;
    for (message, expected) in [
        (
            UPDATE.replace("ENV", "production"),
            &[
                "tool        update_flag\n",
                "operation   write in [\"production\"]\n",
                "effect      deny\nreason      wrong-environment (rule): ",
                "engine      strict\nrevision    sha256:",
            ][..],
        ),
        (
            UPDATE.replace("ENV", "staging"),
            &[
                "effect      permit\nreason      pinned-writes (rule): ",
                "obligation  limit writes: 10 in 1m, burst 5, for `agent`\n",
            ],
        ),
        (
            duplicate.to_owned(),
            &["effect      deny\nreason      duplicate-name (malformed): ", "engine      none\n"],
        ),
    ] {
        let (code, stdout, stderr) = bartizan_reading(&args, &message);
        assert_eq!((code, stderr.as_str()), (0, ""), "{message}");
        for line in expected {
            assert!(stdout.contains(line), "no {line:?} for {message}:\n{stdout}");
        }
    }
    let (code, _, stderr) = bartizan(&["policy", "explain", "--pack", "nope"]);
    assert_eq!(code, 64);
    assert!(
        stderr.starts_with("error: --pack: nope: no pack is called `nope`\nhint: "),
        "{stderr}"
    );
}

#[test]
fn rules_are_evaluated_and_tests_run() {
    let ping = r#"{"method":"ping","direction":"to_server"}"#;
    let (code, stdout, _) = bartizan_reading(&["policy", "eval", "--input", "-"], ping);
    let value: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &value["effect"]), (0, &"permit".into()));
    let args = ["policy", "eval", "-i", "-", "-e", "data.mcp.forward_call"];
    assert_eq!(bartizan_reading(&args, ping), (0, "undefined\n".to_owned(), String::new()));
    let (code, _, stderr) = bartizan_reading(&["policy", "eval", "-i", "-"], "{\"a\":1,\"a\":2}");
    assert_eq!(code, 1);
    assert!(stderr.contains("the input is not strict JSON"), "{stderr}");

    let (code, stdout, _) = bartizan(&["policy", "check"]);
    assert!(code == 0 && stdout.starts_with("good: sha256:"), "{stdout}");
    let (code, stdout, _) = bartizan(&["policy", "test"]);
    assert!(code == 0 && stdout.ends_with(" tests passed\n"), "{stdout}");
    let folder = tempfile::tempdir().unwrap();
    let rules = "package mcp_x_test\n\ntest_good if 1 == 1\n\ntest_bad if 1 == 2\n";
    std::fs::write(folder.path().join("x_test.rego"), rules).unwrap();
    std::fs::write(folder.path().join("x.rego"), "package mcp\n").unwrap();
    let (code, stdout, _) = bartizan(&["policy", "test", "-p", folder.path().to_str().unwrap()]);
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("failed: data.mcp_x_test.test_bad ("), "{stdout}");
}

/// The program with at most `descriptors` file descriptors, and where its log goes.
fn limited(
    folder: &std::path::Path,
    descriptors: u32,
) -> (std::process::Child, std::path::PathBuf) {
    let (config, said) = (folder.join("bartizan.yaml"), folder.join("said"));
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\nlog: {{format: json}}\n\
         servers: {{flags: {{path: /mcp, url: \"http://127.0.0.1:1/\"}}}}\n",
        folder.join("state").display()
    );
    std::fs::write(&config, text).unwrap();
    let program = env!("CARGO_BIN_EXE_bartizan");
    let command = format!("ulimit -n {descriptors} && exec \"$0\" run -c \"$1\"");
    let child = Command::new("sh")
        .args(["-c", &command, program])
        .arg(&config)
        .stderr(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    (child, said)
}

#[test]
fn with_few_file_descriptors_nobody_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, said) = limited(folder.path(), 400);
    let address = super::firewall::wait("serving", || {
        let said = std::fs::read_to_string(&said).ok()?;
        let line = said.lines().find(|line| line.contains("\"serving\""))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        line["fields"]["address"].as_str()?.parse::<std::net::SocketAddr>().ok()
    });
    let warning = std::fs::read_to_string(&said).unwrap();
    for number in ["\"file_descriptors\":400", "\"needed\":8384", "\"connections\":104"] {
        assert!(warning.contains(number), "{warning}");
    }
    // Twice as many as there are descriptors; the listener answers each time.
    let mut open = Vec::new();
    for number in 0..800 {
        open.push(std::net::TcpStream::connect(address).unwrap());
        if number % 100 == 99 {
            let mut client = std::net::TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(super::firewall::PATIENCE)).unwrap();
            client.write_all(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let mut status = [0; 12];
            std::io::Read::read_exact(&mut client, &mut status).unwrap();
            assert_eq!(&status, b"HTTP/1.1 404", "{number}");
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, said) = limited(folder.path(), 100);
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let said = std::fs::read_to_string(said).unwrap();
    assert!(
        said.contains("100 file descriptors are too few") && said.contains("ulimit -n"),
        "{said}"
    );
}

#[test]
fn eval_denies_a_look_alike_name_as_the_firewall_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.rego");
    let policy = r#"package mcp

permit contains {"code": "get", "message": "get"} if input.tool.name == "get"

deny contains {"code": "prod", "message": "no"} if input.tool.arguments.key == "prod"
"#;
    std::fs::write(&file, policy).unwrap();
    let file = file.to_str().unwrap();
    for (arguments, denied) in [
        (r#"{"key":"dev"}"#, ""),
        (r#"{"key":"prod"}"#, "prod"),
        (r#"{"Key":"prod"}"#, "ambiguous_name"),
        (r#"{"key":"dev","\uff4bey":"prod"}"#, "ambiguous_name"),
        (r#"{"key":"prod","KEY":"dev"}"#, "ambiguous_name"),
        (r#"{"other":{"Key":"prod"}}"#, ""),
    ] {
        let params = format!(r#"{{"name":"get","arguments":{arguments}}}"#);
        let input = format!(
            r#"{{"version":1,"phase":"call","direction":"to_server","method":"tools/call","tool":{params},"params":{params}}}"#
        );
        let (code, stdout, stderr) =
            bartizan_reading(&["policy", "eval", "-p", file, "-i", "-"], &input);
        assert_eq!(code, 0, "{arguments}: {stderr}");
        let message =
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let (_, explained, _) = bartizan_reading(&["policy", "explain", "-p", file], &message);
        let effect =
            if denied.is_empty() { "\"effect\":\"permit\"" } else { "\"effect\":\"deny\"" };
        assert!(stdout.contains(effect) && stdout.contains(denied), "{arguments}: {stdout}");
        let verdict = if denied.is_empty() { "permit" } else { "deny" };
        assert!(
            explained.contains(verdict) && explained.contains(denied),
            "{arguments}: {explained}"
        );
    }
    // Another rule has its value.
    let input = r#"{"tool":{"name":"get","arguments":{"Key":"prod"}}}"#;
    let args = ["policy", "eval", "-p", file, "-i", "-", "-e", "data.mcp.deny"];
    let (code, stdout, _) = bartizan_reading(&args, input);
    assert_eq!((code, stdout.trim()), (0, "[]"));
}

#[test]
fn a_rule_on_what_no_session_has_keeps_the_policy_from_loading() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("test.rego");
    for (condition, fails) in [
        ("input.session.tainted", true),
        ("input.session[\"tainted\"] == true", true),
        ("object.get(input.session, \"tainted\", false)", true),
        ("{\n\tsession := input.session\n\tsession.tainted\n}", true),
        ("input.tool.name == \"tainted\"", false),
        ("input.session.facts.tainted == \"yes\"", false),
    ] {
        let rule = format!(r#"deny contains {{"code": "t", "message": "t"}} if {condition}"#);
        std::fs::write(&file, format!("package mcp\n\n{rule}\n")).unwrap();
        let args = ["policy", "eval", "-p", file.to_str().unwrap(), "-i", "-"];
        let (code, _, stderr) = bartizan_reading(&args, "{\"method\":\"ping\"}");
        assert_eq!(code != 0, fails, "{rule}: {stderr}");
        assert_eq!(stderr.contains("`input.session.tainted`"), fails, "{rule}: {stderr}");
    }
}
