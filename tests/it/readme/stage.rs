//! Where the commands of a document run: a directory of its own, ports of its own.
//!
//! Ports that a document names may be taken on the machine that runs the tests, so each becomes a
//! free one, and later commands are told. Long-running commands are stopped when the document
//! ends, and must end in order. Programs that are not ours have stand-ins.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::fence::{commands, words};

/// A protected server that answers whatever it is asked.
const SERVER: &str = "#!/bin/sh\nwhile read -r line; do\n\
    echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"protocolVersion\":\"2025-11-25\",\
    \"capabilities\":{},\"serverInfo\":{\"name\":\"stand-in\",\"version\":\"1\"}}}'\ndone\n";

/// Commands of documents that are too expensive to be run by a test, and why. What they name is
/// looked at all the same.
pub(super) const NOT_RUN: &[(&str, &str)] = &[
    ("cargo test -p bartizan-gate", "compiles the tests of another crate"),
    ("cargo fmt --all --check", "the first step of `.ci/quick` and `.ci/run`"),
    ("cargo clippy --workspace --all-targets -- -D warnings", "compiles everything once more"),
];

const INITIALIZE: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":\
    {\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},\
    \"clientInfo\":{\"name\":\"reader\",\"version\":\"1\"}}}\n";

/// A command that goes on until it is stopped.
struct Background {
    what: String,
    child: Child,
    /// Whether SIGTERM ends it in order, with exit code 0.
    drains: bool,
}

/// One document's stage.
pub(super) struct Stage {
    folder: TempDir,
    background: Vec<Background>,
    /// What a document calls an address, and what it is here.
    addresses: BTreeMap<String, SocketAddr>,
    /// Variables that the document has set.
    variables: BTreeMap<String, String>,
}

impl Stage {
    pub(super) fn new(page: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("page").tempdir().unwrap();
        let (background, addresses, variables) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let stage = Self { folder, background, addresses, variables };
        assert!(!page.is_empty());
        for name in ["my-mcp-server", "npx"] {
            let path = stage.path(&format!("bin/{name}"));
            stage.write(&format!("bin/{name}"), SERVER);
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        stage
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes a file of the document.
    pub(super) fn write(&self, file: &str, body: &str) {
        assert!(!file.starts_with('/') && !file.contains(".."), "{file}");
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, body).unwrap();
    }

    /// Runs the commands of one fence; gives what those that ended printed.
    pub(super) fn run(&mut self, place: &str, body: &str) -> String {
        let mut printed = String::new();
        for command in commands(body) {
            let place = format!("{place}: {command}");
            let (command, background) = match command.strip_suffix(" &") {
                Some(command) => (command, true),
                None => (command.as_str(), false),
            };
            let mut words = words(command);
            match words.first().map(String::as_str) {
                Some("cargo") => printed.push_str(&self.cargo(&place, command, &words[1..])),
                Some("bartizan") => {
                    words.remove(0);
                    printed.push_str(&self.ours(&place, &words, background));
                }
                Some("curl") => printed.push_str(&(self.curl(&place, &words[1..]) + "\n")),
                Some("openssl") => self.token(&place, &words[1..]),
                Some("cp") => {
                    let [_, from, to] = &words[..] else { panic!("{place}: cp how?") };
                    fs::copy(self.path(from), self.path(to)).unwrap();
                }
                Some("export") => self.export(&place, &words[1..]),
                _ => panic!("{place}: nothing here knows this command"),
            }
        }
        printed
    }

    /// cargo, as far as it can be played within one of its own runs.
    fn cargo(&self, place: &str, command: &str, words: &[String]) -> String {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words.as_slice() {
            // It is running.
            ["test"] => String::new(),
            ["run", "--release", "--", "demo", "--auto"] => {
                self.bartizan(place, &["demo".to_owned(), "--auto".to_owned()])
            }
            // This binary is what would run.
            ["test", "--test", "it", filter] => {
                let own = std::env::current_exe().unwrap();
                let output = Command::new(own).arg(filter).output().unwrap();
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{place}: {said}");
                assert!(!said.contains("running 0 tests"), "{place}: no test has such a name");
                String::new()
            }
            words => {
                let listed = NOT_RUN.iter().any(|(listed, _)| *listed == command);
                assert!(listed, "{place}: nothing here knows this command");
                let package = words.iter().skip_while(|word| **word != "-p").nth(1);
                assert!(package.is_none_or(|name| is_package(name)), "{place}: no such package");
                String::new()
            }
        }
    }

    /// One of our own commands, perhaps with a filter behind it.
    fn ours(&mut self, place: &str, words: &[String], background: bool) -> String {
        if let Some(bar) = words.iter().position(|word| word == "|") {
            let printed = self.bartizan(place, &words[..bar]);
            return filter(place, &words[bar + 1..], &printed);
        }
        if let [command @ .., to, file] = words
            && to == ">"
        {
            let printed = self.bartizan(place, command);
            self.write(file, &printed);
            return String::new();
        }
        match words[0].as_str() {
            "run" => self.serve(place, words),
            "wrap" => self.wrap(place, words),
            "demo" if background => self.flag_service(place, words),
            "approvals" => return self.approvals(place, words),
            "audit" if words[1] == "session" => return self.session(place, words),
            "lock" => {
                // The same file, with the ports that the servers really have.
                let file = &words[words.iter().position(|word| word == "-c").unwrap() + 1];
                self.write(file, &self.live(&fs::read_to_string(self.path(file)).unwrap()));
                return self.bartizan(place, words);
            }
            // The ports that the servers really have.
            "assess" => {
                let live: Vec<String> = words.iter().map(|word| self.live(word)).collect();
                return self.bartizan(place, &live);
            }
            _ if background => panic!("{place}: does not go on by itself"),
            _ => return self.bartizan(place, words),
        }
        String::new()
    }

    fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartizan"));
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("HOME", self.folder.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("BARTIZAN_CONFIG")
            .env_remove("BARTIZAN_APPROVER_TOKEN")
            .envs(&self.variables)
            .stdin(Stdio::null());
        command
    }

    /// `openssl rand -hex 32 > FILE`, without that program.
    fn token(&self, place: &str, words: &[String]) {
        let ["rand", "-hex", "32", ">", file] =
            &words.iter().map(String::as_str).collect::<Vec<_>>()[..]
        else {
            panic!("{place}: openssl how?")
        };
        self.write(file, &format!("{}\n", "0123456789abcdef".repeat(4)));
    }

    /// `export NAME="$(cat FILE)"`.
    fn export(&mut self, place: &str, words: &[String]) {
        let [words] = words else { panic!("{place}: export what?") };
        let (name, value) = words.split_once('=').unwrap();
        let file = value.strip_prefix("$(cat ").and_then(|rest| rest.strip_suffix(')'));
        let file = file.unwrap_or_else(|| panic!("{place}: export what?"));
        let text = fs::read_to_string(self.path(file)).unwrap();
        self.variables.insert(name.to_owned(), text.trim_end().to_owned());
    }

    /// `approvals …`, to the default address of the document's firewall. The id that a document shows
    /// stands for that of the latest held call.
    fn approvals(&self, place: &str, words: &[String]) -> String {
        let admin = self.addresses["127.0.0.1:7071"];
        let to = |words: &[String]| {
            let mut words = words.to_vec();
            words.extend(["--admin".to_owned(), format!("http://{admin}")]);
            self.bartizan(place, &words)
        };
        let mut words = words.to_vec();
        if matches!(words[1].as_str(), "show" | "grant" | "refuse") {
            let all = to(&["approvals", "list", "--state", "all", "--json"].map(str::to_owned));
            let all: serde_json::Value = serde_json::from_str(&all).unwrap();
            let held = all["approvals"].as_array().unwrap().iter();
            let latest = held.max_by_key(|held| held["asked_unix_ms"].as_u64());
            let latest = latest.unwrap_or_else(|| panic!("{place}: nothing is held"));
            latest["id"].as_str().unwrap().clone_into(&mut words[2]);
        }
        to(&words)
    }

    /// `audit session`: the id that a document shows stands for that of the latest call.
    fn session(&self, place: &str, words: &[String]) -> String {
        let mut words = words.to_vec();
        let state = words.iter().position(|word| word == "--state").unwrap() + 1;
        let call = words.iter().position(|word| word == "--call").unwrap() + 1;
        let tail = ["audit", "tail", "--json", "--event", "intent", "--state", &words[state]];
        let records = self.bartizan(place, &tail.map(str::to_owned));
        let latest = records.lines().last().unwrap_or_else(|| panic!("{place}: no call"));
        let latest: serde_json::Value = serde_json::from_str(latest).unwrap();
        latest["call"].as_str().unwrap()[..8].clone_into(&mut words[call]);
        self.bartizan(place, &words)
    }

    /// Runs a command that ends, to its good end.
    fn bartizan(&self, place: &str, args: &[String]) -> String {
        let output = self.command(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{place}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// `demo --server-only --port N`.
    fn flag_service(&mut self, place: &str, args: &[String]) {
        let port = args.iter().position(|arg| arg == "--port").unwrap() + 1;
        let mut free = args.to_vec();
        let named = std::mem::replace(&mut free[port], "0".to_owned());
        let mut child = self.command(&free).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split('/').nth(2).and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("{place}: {line}"));
        self.addresses.insert(format!("127.0.0.1:{named}"), address);
        self.background.push(Background { what: place.to_owned(), child, drains: false });
    }

    /// A configuration with the addresses that servers really have.
    fn live(&self, text: &str) -> String {
        self.addresses.iter().fold(text.to_owned(), |text, (name, address)| {
            text.replace(&format!("//{name}/"), &format!("//{address}/"))
        })
    }

    /// `run -c FILE`: the same file with free ports.
    fn serve(&mut self, place: &str, args: &[String]) {
        let [_, option, file] = args else { panic!("{place}: run how?") };
        assert_eq!(option, "-c", "{place}");
        let mut text = fs::read_to_string(self.path(file)).unwrap();
        let named = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        let (listen, admin) = (named("listen:"), named("admin:"));
        for own in [&listen, &admin] {
            text = text.replacen(&format!(" {own}"), " 127.0.0.1:0", 1);
        }
        self.write(&format!("live-{file}"), &self.live(&text));
        let args = ["run".to_owned(), "-c".to_owned(), format!("live-{file}")];
        let mut child = self.command(&args).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let bound = loop {
            let before = said.len();
            lines.read_line(&mut said).unwrap();
            assert!(said.len() > before, "{place}: {said}");
            let value = |key: &str| {
                let value = said[before..].split(key).nth(1)?.split_whitespace().next()?;
                value.parse::<SocketAddr>().ok()
            };
            if let (Some(listen), Some(admin)) = (value(" address="), value(" admin=")) {
                break [listen, admin];
            }
        };
        // Nobody needs its later output; read it, so that a full pipe does not block the program.
        std::thread::spawn(move || drop(lines.read_to_end(&mut Vec::new())));
        let ready = exchange(bound[1], "GET", "/readyz", &[], "");
        assert!(ready.starts_with("HTTP/1.1 200 "), "{place}: {ready}");
        self.addresses.extend([listen, admin].into_iter().zip(bound));
        self.background.push(Background { what: place.to_owned(), child, drains: true });
    }

    /// `wrap`, or a server of a desktop configuration: it answers one message, then is stopped.
    pub(super) fn wrap(&mut self, place: &str, args: &[String]) {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Keep standard input open, because the run ends with it.
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(INITIALIZE.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
        assert!(answer.contains("\"serverInfo\""), "{place}: {answer:?}");
        stop(Background { what: place.to_owned(), child, drains: true });
        drop(stdin);
    }

    /// The few options of curl that documents use.
    fn curl(&self, place: &str, args: &[String]) -> String {
        let (mut url, mut headers, mut body) = (None, Vec::new(), None);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "-s" => {}
                "-H" => headers.push(args.next().unwrap().as_str()),
                "-d" => body = Some(args.next().unwrap().as_str()),
                option if option.starts_with('-') => panic!("{place}: curl {option}?"),
                target => url = Some(target),
            }
        }
        let url = url.and_then(|url| url.strip_prefix("http://"));
        let url = url.unwrap_or_else(|| panic!("{place}: where?"));
        let (host, path) = url.split_once('/').unwrap();
        let address = self.addresses.get(host);
        let address = address.unwrap_or_else(|| panic!("{place}: nothing listens there"));
        let method = if body.is_some() { "POST" } else { "GET" };
        let path = format!("/{path}");
        let answer = exchange(*address, method, &path, &headers, body.unwrap_or_default());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{place}: {answer}");
        body.to_owned()
    }

    /// Stops what still runs.
    pub(super) fn end(mut self) {
        for background in self.background.drain(..).rev() {
            stop(background);
        }
    }
}

impl Drop for Stage {
    /// Leaves nothing behind where a test failed halfway.
    fn drop(&mut self) {
        for mut background in self.background.drain(..) {
            drop(background.child.kill());
            drop(background.child.wait());
        }
    }
}

fn stop(mut background: Background) {
    let Background { what, child, drains } = &mut background;
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    assert!(!*drains || status.success(), "{what}: ended with {status}");
}

/// One request, one answer.
fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    let length =
        if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    write!(stream, "{head}{length}\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// `jq`, where this machine has it; elsewhere the records alone are looked at.
fn filter(place: &str, words: &[String], printed: &str) -> String {
    assert_eq!(words.first().map(String::as_str), Some("jq"), "{place}: behind the bar");
    assert!(!printed.is_empty(), "{place}: nothing goes into the filter");
    for line in printed.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{place}: {line}");
    }
    let jq =
        Command::new("jq").args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut jq) = jq else { return String::new() };
    jq.stdin.take().unwrap().write_all(printed.as_bytes()).unwrap();
    let output = jq.wait_with_output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{place}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the workspace has a package of this name.
fn is_package(name: &str) -> bool {
    let crates = fs::read_dir(super::root().join("crates")).into_iter().flatten();
    let manifests = crates.map(|entry| entry.unwrap().path().join("Cargo.toml"));
    let line = format!("name = \"{name}\"");
    std::iter::once(super::root().join("Cargo.toml"))
        .chain(manifests)
        .any(|manifest| fs::read_to_string(manifest).is_ok_and(|text| text.contains(&line)))
}
