//! The program as a user meets it: exit codes, what goes to which stream, and what is said.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;
use std::process::{Command, Output};

fn bartizan(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
    let command = command.args(args).env_remove("BARTIZAN_CONFIG").env("TOKEN", "t0ken");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn results_go_to_standard_output_and_complaints_do_not() {
    for (args, exit, expected) in [
        (&["--version"][..], 0, concat!("bartizan ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], 0, "Usage: bartizan <COMMAND>"),
        (&["wrap", "--help"], 0, "Stands where the server's command stood"),
        (&["help", "policy", "explain"], 0, "Example:"),
        (&[], 64, "Usage: bartizan <COMMAND>"),
        (&["walk"], 64, "error: unrecognized subcommand 'walk'"),
        (&["run"], 64, "--config <FILE>"),
        (&["run", "-c", "/no/such.yaml"], 64, "error: /no/such.yaml: it cannot be read: "),
        (&["wrap"], 64, "<--url <URL>|COMMAND>"),
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
";
    std::fs::write(&file, text).unwrap();
    let (code, stdout, stderr) = bartizan(&["check", "-c", file.to_str().unwrap()]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for expected in [": good\n", "flags at /flags: https://h/mcp\n", "environment staging\n"] {
        assert!(stdout.contains(expected), "{stdout}");
    }
    assert!(!stdout.contains("hidden") && !stdout.contains("t0ken"), "{stdout}");
}
