//! `bartizan wrap` as a client's user meets it: names, state directories, what it says.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop at once, and say what it saw"
)]

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bartizan::config::{Config, Surroundings, Wrap};
use serde_json::{Value, json};

/// Answers each request with an empty result.
const SERVER: &str = r#"while IFS= read -r line; do id=${line#*'"id":'}; id=${id%%[,\}]*}; printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id"; done"#;

/// `bartizan wrap`, with its client's ends of the pipes; what it says is in a file.
struct Wrapped {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    said: PathBuf,
}

impl Wrapped {
    /// Starts it with `args`, for a user whose home is `home`. `name` is of this start alone.
    fn start(home: &Path, name: &str, args: &[&str]) -> Self {
        let said = home.join(format!("{name}.stderr"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .arg("wrap")
            .args(args)
            .env("HOME", home)
            .env_remove("XDG_STATE_HOME")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&said).unwrap())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from, said }
    }

    /// Sends a request without parameters, and returns its answer.
    fn ask(&mut self, id: u32, method: &str) -> Value {
        self.request(id, method, &json!({}))
    }

    /// Sends a request, and returns its answer.
    fn request(&mut self, id: u32, method: &str, params: &Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(self.to.as_mut().unwrap(), "{request}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("`{line}`: {}", self.said()))
    }

    /// What it has said so far.
    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    /// Closes its input, and returns its exit code and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        drop(self.to.take());
        let status = self.child.wait().unwrap();
        (status.code(), self.said())
    }
}

/// The states in the home directory `home`.
fn states(home: &Path) -> Vec<String> {
    let found = std::fs::read_dir(home.join(".local/state/bartizan")).unwrap();
    let mut names: Vec<String> =
        found.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn wrapped(wrap: Wrap) -> Result<Config, String> {
    let surroundings = Surroundings {
        env: &|name| (name == "HOME").then(|| "/home/me".to_owned()),
        read: &|_, _| Ok(Vec::new()),
        exists: &|_| true,
    };
    Config::wrap_in(wrap, &surroundings).map_err(|problems| problems.to_string())
}

#[test]
fn a_server_is_called_what_its_launcher_starts() {
    for (command, name) in [
        ("npx -y @scope/server-x", "server-x"),
        ("npx -y @scope/server-x@1.2.3 /some/directory", "server-x"),
        ("/usr/local/bin/npx --yes --package @scope/tools -- tools-server --stdio", "tools-server"),
        ("npx -p @scope/tools", "tools"),
        ("npx -y github:owner/weather-mcp#main", "weather-mcp"),
        ("npm exec --yes @scope/server-x", "server-x"),
        ("pnpm dlx server-x@latest", "server-x"),
        ("bunx server-x", "server-x"),
        ("bun run /srv/notes/src/index.ts", "notes"),
        ("uvx mcp-server-git --repository /r", "mcp-server-git"),
        ("uvx --from git+https://host/o/mcp-server-git.git mcp-server-git", "mcp-server-git"),
        ("uvx mcp-server-git==2.0", "mcp-server-git"),
        ("uvx awslabs.docs-server@latest", "awslabs-docs-server"),
        ("uv tool run mcp-server-time", "mcp-server-time"),
        ("uv --directory /srv/weather run weather.py", "weather"),
        ("uv run --with mcp[cli] mcp run /srv/weather/server.py", "weather"),
        ("uv run -m mcp_server_git", "mcp_server_git"),
        ("pipx run mcp-server-git", "mcp-server-git"),
        (
            "docker run -i --rm -e TOKEN -v /a:/b ghcr.io/owner/some-server:1.2 --flag",
            "some-server",
        ),
        ("docker run -ie TOKEN -eA=b --name n mcp/fetch@sha256:00", "fetch"),
        ("podman run --network=none registry:5000/x/time", "time"),
        ("docker mcp gateway run", "docker"),
        ("python -m mcp_server_git", "mcp_server_git"),
        ("python3.12 -um weather.server", "weather"),
        ("python -W ignore -X dev /srv/notes.py --port 1", "notes"),
        ("/srv/venv/bin/python3 /srv/weather/src/server.py", "weather"),
        ("python3 -c print(1)", "python3"),
        ("node path/x.js", "x"),
        ("node --import tsx /srv/weather/build/index.js", "weather"),
        ("node dist/index.js", "index"),
        ("node -e 1+1", "node"),
        ("deno run -A npm:@scope/server-x@1", "server-x"),
        ("java -Xmx1g -jar /opt/tool-server.jar", "tool-server"),
        ("env A=b C=d uvx mcp-server-git", "mcp-server-git"),
        ("env env env env env env env env env env x", "env"),
        ("./my.server", "my-server"),
        ("/opt/weather/target/release/server", "weather"),
        ("sh -c exec", "sh"),
        ("npx", "npx"),
        ("uv run", "uv"),
        ("docker run -i", "docker"),
        ("éß", "server"),
    ] {
        let words = command.split(' ').map(str::to_owned).collect();
        // What a pack or a policy adds must not move the journal.
        let pack = Some("flag-service".to_owned());
        let config = wrapped(Wrap { command: words, pack, ..Wrap::default() }).unwrap();
        assert_eq!(config.servers[0].name, name, "{command}");
        assert_eq!(config.state, Path::new("/home/me/.local/state/bartizan").join(name));
    }
    for (url, name) in [
        ("https://api.example.com/mcp?key=hidden", "api-example-com"),
        ("http://127.0.0.1:9000/mcp", "127-0-0-1-9000"),
        ("http://[::1]:9000/mcp", "1-9000"),
    ] {
        let config = wrapped(Wrap { url: Some(url.to_owned()), ..Wrap::default() }).unwrap();
        assert_eq!(config.servers[0].name, name, "{url}");
    }
}

#[test]
fn a_name_may_be_chosen() {
    let named = |name: &str| {
        let command = vec!["npx".to_owned(), "x".to_owned()];
        wrapped(Wrap { command, name: Some(name.to_owned()), ..Wrap::default() })
    };
    let config = named("mine").unwrap();
    assert_eq!(config.servers[0].name, "mine");
    assert_eq!(config.state, Path::new("/home/me/.local/state/bartizan/mine"));
    for wrong in ["../x", "", "a.2", "a b"] {
        let problems = named(wrong).unwrap_err();
        assert!(problems.contains("--name: is no name for a server"), "{problems}");
    }
}

#[test]
fn each_client_that_runs_a_server_at_once_has_a_journal_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let args = ["--name", "flags", "--observe", "--", "sh", "-c", SERVER];
    let mut running: Vec<Wrapped> = Vec::new();
    // All start at once, so that they meet where nothing is there yet.
    for name in ["a", "b", "c"] {
        running.push(Wrapped::start(home.path(), name, &args));
    }
    for client in &mut running {
        assert_eq!(client.ask(1, "ping")["result"], json!({}));
    }
    assert_eq!(states(home.path()), ["flags", "flags.2", "flags.3"]);
    let mut told = 0;
    for client in running {
        let (code, said) = client.end();
        assert_eq!(code, Some(0), "{said}");
        told += usize::from(said.contains("another process writes the journal in "));
    }
    assert_eq!(told, 2, "all but the first are told");
    for state in states(home.path()) {
        let state = home.path().join(".local/state/bartizan").join(state);
        let verified = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .args(["audit", "verify", "--state"])
            .arg(&state)
            .output()
            .unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
    // The next one finds the first directory free again.
    let mut again = Wrapped::start(home.path(), "d", &args);
    assert_eq!(again.ask(1, "ping")["result"], json!({}));
    assert_eq!(again.end().0, Some(0));
    assert_eq!(states(home.path()).len(), 3);
}

#[test]
fn a_state_directory_that_was_chosen_is_not_exchanged_for_another() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let args = ["--state", state.to_str().unwrap(), "--observe", "--", "sh", "-c", SERVER];
    let mut first = Wrapped::start(home.path(), "a", &args);
    assert_eq!(first.ask(1, "ping")["result"], json!({}));
    let (code, said) = Wrapped::start(home.path(), "b", &args).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is being written by another program\nhint: stop it, or name"), "{said}");
    assert_eq!(first.end().0, Some(0));
}

/// Lists one tool, and answers its call; says on standard error that it runs.
const TOOLS: &str = r#"echo "Server running on stdio" >&2; printf 'two\033[31m\n2026-01-01T00:00:00Z ERROR bartizan: forged\n' >&2
while IFS= read -r line; do
    id=${line#*'"id":'}; id=${id%%[,\}]*}
    case $line in
        *initialize*) result='{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"notes","version":"1"}}';;
        *tools/list*) result='{"tools":[{"name":"read_note","description":"Reads a note","inputSchema":{"type":"object"}}]}';;
        *) result='{"content":[{"type":"text","text":"hello"}]}';;
    esac
    printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done"#;

/// Initializes, lists the tools, and calls the one; returns the answer to the call.
fn call(client: &mut Wrapped) -> Value {
    let initialize = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}
    });
    client.request(1, "initialize", &initialize);
    let listed = client.request(2, "tools/list", &json!({}));
    assert_eq!(listed.pointer("/result/tools/0/name"), Some(&json!("read_note")), "{listed}");
    client.request(3, "tools/call", &json!({"name": "read_note", "arguments": {}}))
}

#[test]
fn the_start_says_what_is_guarded_and_the_commands_that_it_names_work() {
    let home = tempfile::tempdir().unwrap();
    let args = ["--", "sh", "-c", TOOLS, "--key=hidden"];
    let mut refusing = Wrapped::start(home.path(), "a", &args);
    assert_eq!(call(&mut refusing)["error"]["code"], -31001);
    let (code, said) = refusing.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        said.lines().next().unwrap(),
        "bartizan: guarding `sh`, the program `sh`; mode: enforce; policy: the built-in baseline; \
         pack: none"
    );
    assert!(!said.contains("hidden"), "{said}");
    assert!(said.contains("they are listed, and calls of them are refused"), "{said}");
    // Each command stands alone after a colon.
    let command = |starts: &str| {
        let line = said.lines().find(|line| line.contains(starts)).unwrap();
        line.split_once(starts).map(|(_, rest)| format!("{starts}{rest}")).unwrap()
    };
    let runs = |command: &str| {
        let program = env!("CARGO_BIN_EXE_bartizan");
        let line = command.replacen("bartizan ", &format!("{program} "), 1);
        let ran = Command::new("sh").args(["-c", &line]).current_dir(home.path()).output().unwrap();
        assert!(ran.status.success(), "{command}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    assert!(runs(&command("bartizan audit tail")).contains("read_note"));
    assert!(said.contains("`bartizan wrap --observe`"), "{said}");
    let observing = [&["--observe"], &args[..]].concat();
    let mut observing = Wrapped::start(home.path(), "b", &observing);
    assert_eq!(call(&mut observing)["result"]["content"][0]["text"], "hello");
    let (_, observed) = observing.end();
    assert!(observed.contains("mode: observe (nothing is refused by policy)"), "{observed}");
    assert!(!observed.contains("calls of them are refused"), "{observed}");
    runs(&command("bartizan policy learn"));
    let learned = home.path().join("learned");
    let enforcing = [&["--policy", learned.to_str().unwrap()], &args[..]].concat();
    let mut enforcing = Wrapped::start(home.path(), "c", &enforcing);
    assert_eq!(call(&mut enforcing)["result"]["content"][0]["text"], "hello");
    let (_, said) = enforcing.end();
    assert!(said.contains("/learned; pack: none"), "{said}");
    assert!(!said.contains("calls of them are refused"), "{said}");
}

#[test]
fn what_the_program_says_passes_and_forges_no_line() {
    let home = tempfile::tempdir().unwrap();
    let mut client = Wrapped::start(home.path(), "a", &["--", "sh", "-c", TOOLS]);
    call(&mut client);
    let (_, said) = client.end();
    for expected in
        ["Server running on stdio", r"two\u{1b}[31m", "2026-01-01T00:00:00Z ERROR bartizan: forged"]
    {
        let line =
            said.lines().find(|line| line.ends_with(expected)).unwrap_or_else(|| panic!("{said}"));
        let (_, before) = line.split_once("Z child[").unwrap();
        let (pid, text) = before.split_once("]: ").unwrap();
        assert!(pid.parse::<u32>().is_ok(), "{line}");
        assert_eq!(text, expected);
    }
}

/// Prints its arguments to standard error, and waits for the end.
const SHOW: &str = r#"printf 'got:%s|' "$@" >&2; echo >&2; cat > /dev/null"#;

#[test]
fn a_double_dash_that_a_launcher_dropped_is_not_missed() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("show.sh"), SHOW).unwrap();
    let show = home.path().join("show.sh");
    let show = show.to_str().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["--observe", "--", "sh", show, "-y", "x"], "got:-y|got:x|"),
        (&["--observe", "sh", show, "-y", "x"], "got:-y|got:x|"),
        // What follows the program is the program's, whatever it looks like.
        (&["sh", show, "--observe", "--", "x"], "got:--observe|got:--|got:x|"),
        (&["--", "sh", show, "--", "--url"], "got:--|got:--url|"),
    ];
    for (at, (args, expected)) in cases.into_iter().enumerate() {
        let (code, said) = Wrapped::start(home.path(), &at.to_string(), args).end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(expected), "{args:?}: {said}");
        assert_eq!(said.contains("mode: observe"), args[0] == "--observe", "{said}");
    }
}

#[test]
fn exit_codes_tell_a_server_that_fails_from_wrong_arguments() {
    let home = tempfile::tempdir().unwrap();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--", "no-such-program-anywhere"], 1, "error: wrap: no such program: `no-such-program"),
        (&["--limit", "children", "--", "cat"], 64, "must be a key of `limits`, `=`, and a value"),
        (&["--limit", "children=x", "--", "cat"], 64, "error: wrap: --limit children: "),
        (&["-c", "/no/such.yaml"], 64, "error: /no/such.yaml: it cannot be read: "),
    ];
    for (at, (args, expected, text)) in cases.into_iter().enumerate() {
        let (code, said) = Wrapped::start(home.path(), &at.to_string(), args).end();
        assert_eq!(code, Some(expected), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
    }
    let mut ended = Wrapped::start(home.path(), "ended", &["--", "sh", "-c", "read -r l; exit 3"]);
    assert_eq!(ended.ask(1, "ping")["error"]["code"], -31005);
    let (code, said) = ended.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("error: wrap: the server process ended by itself: exit status: 3"),
        "{said}"
    );
}

#[test]
fn two_servers_of_one_file_are_wrapped_at_once() {
    let home = tempfile::tempdir().unwrap();
    // A file's `command` takes no `${…}`, so the script is in a file of its own.
    std::fs::write(home.path().join("server.sh"), SERVER).unwrap();
    let server = home.path().join("server.sh");
    let server = server.display();
    let text = format!(
        "state: shared\nmode: observe\nservers:\n  a: {{command: [sh, {server}]}}\n  b: {{command: [sh, {server}]}}\n"
    );
    let file = home.path().join("bartizan.yaml");
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let mut running: Vec<Wrapped> = ["a", "b"]
        .map(|name| Wrapped::start(home.path(), name, &["-c", file, "--server", name]))
        .into();
    for client in &mut running {
        assert_eq!(client.ask(1, "ping")["result"], json!({}));
    }
    for (client, name) in running.into_iter().zip(["a", "b"]) {
        let (code, said) = client.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("bartizan: guarding `{name}`")), "{said}");
        assert!(said.contains("mode: observe"), "{said}");
    }
    assert_eq!(states(home.path()), ["a", "b"]);
    assert!(!home.path().join("shared").exists());
}
