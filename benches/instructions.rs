//! How many instructions the firewall runs for one call, refusal, list, event and large answer,
//! counted by valgrind's callgrind. Unlike a time, the count is the same on a busy machine.
//!
//! The parent is client and server; its child, this program once more under valgrind, is the
//! firewall with one thread. Each scenario is run in two lengths, and the difference of the counts
//! divided by the difference of the lengths is the figure, so that starting and warming up do not
//! count. What the kernel does is not counted.
//!
//! The figures are compared with `instructions.json`: one that is more than [`TOLERANCE_PERCENT`]
//! higher fails, one that is as much lower is to be recorded. `--write` records them all. They are
//! of the release profile, for x86-64 Linux; `instructions.sh` runs this program so.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a wrong bench may end in a panic, and its figures are what it prints"
)]

mod firewall;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use firewall::{ANSWER, Firewall, GET, STREAM_HEAD, event, message, until};
#[cfg(target_os = "linux")]
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};
use tokio_util::sync::CancellationToken;

/// A figure may be so much higher than the recorded one.
const TOLERANCE_PERCENT: u64 = 5;

/// `PR_GET_AUXV` of `linux/prctl.h`.
#[cfg(target_os = "linux")]
const PR_GET_AUXV: u64 = 0x4155_5856;

/// The file with the recorded figures.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");

/// What one agent does over and over on one connection.
struct Scenario {
    /// Its name among the figures.
    name: &'static str,
    /// How often it is done in the shorter and in the longer run.
    lengths: [u64; 2],
    work: Work,
}

enum Work {
    /// Sends requests. The server, if asked, sends the answer; the agent gets the text at the end.
    Calls { request: fn(u64) -> String, answer: String, gets: &'static str },
    /// Reads events of one stream.
    Events,
}

fn scenarios() -> Vec<Scenario> {
    let calls = |request, answer, gets| Work::Calls { request, answer, gets };
    let large = ANSWER.replacen("on for", &"on for ".repeat((64 << 10) / 7), 1);
    let refused = r#""error":{"code":"#;
    let scenario = |name, lengths, work| Scenario { name, lengths, work };
    vec![
        scenario("tools/call of 600 B", [200, 700], calls(call, ANSWER.to_owned(), ANSWER)),
        scenario("tools/call refused", [200, 700], calls(refused_call, String::new(), refused)),
        scenario("tools/list of 100 tools", [20, 70], calls(list, page(), r#""name":"tool_99""#)),
        scenario("tools/call answered with 64 KiB", [20, 70], calls(call, large, "of staging")),
        scenario("event of 1 KiB", [200, 1200], Work::Events),
    ]
}

/// The `number`th `tools/call`, unlike all others.
fn call(number: u64) -> String {
    tool_call(number, "staging")
}

/// One that the policy refuses for one of its arguments.
fn refused_call(number: u64) -> String {
    tool_call(number, "production")
}

fn tool_call(number: u64, environment: &str) -> String {
    let params = format!(
        concat!(
            r#"{{"name":"get_flag","arguments":{{"key":"checkout-redesign-{:06}","environment":"{}","#,
            r#""context":{{"users":[{{"id":"u-0001","country":"DK","plan":"pro"}},"#,
            r#"{{"id":"u-0002","country":"DK","plan":"pro"}}],"note":"{}"}}}},"#
        ),
        number,
        environment,
        "x".repeat(120)
    );
    request("tools/call", "mcp-name: get_flag\r\n", &params)
}

fn list(_: u64) -> String {
    request("tools/list", "", "{")
}

/// One request of revision 2026-07-28, with the part of `params` before `_meta`.
fn request(method: &str, headers: &str, params: &str) -> String {
    let meta = concat!(
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"},"#,
        r#""io.modelcontextprotocol/clientCapabilities":{}}"#,
    );
    let body =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}{meta}}}}}"#);
    let length = body.len();
    format!(
        concat!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
            "accept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\n",
            "mcp-method: {}\r\n{}content-length: {}\r\n\r\n{}"
        ),
        method, headers, length, body
    )
}

/// A list of a hundred tools, each with a schema.
fn page() -> String {
    let tool = |number: u64| {
        format!(
            concat!(
                r#"{{"name":"tool_{}","description":"Reads one flag of one environment, with rules.","#,
                r#""inputSchema":{{"type":"object","properties":{{"key":{{"type":"string"}},"#,
                r#""environment":{{"type":"string","enum":["staging","production"]}}}},"#,
                r#""required":["key"]}}}}"#
            ),
            number
        )
    };
    let tools: Vec<String> = (0..100).map(tool).collect();
    let head = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","tools":["#;
    format!("{head}{}]}}}}", tools.join(","))
}

/// A server that gives every POST one answer, and opens a stream for every GET, in which it sends
/// one event for each tick of the sender that comes out of the second half.
fn server(answer: &str) -> (SocketAddr, Receiver<Sender<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let length = answer.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{answer}"
    );
    let (opened, streams) = channel();
    std::thread::spawn(move || {
        let opened = Mutex::new(opened);
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            let opened = opened.lock().unwrap().clone();
            std::thread::spawn(move || serve(stream, &answer, &opened));
        }
    });
    (address, streams)
}

fn serve(mut stream: TcpStream, answer: &str, opened: &Sender<Sender<()>>) {
    stream.set_nodelay(true).unwrap();
    let mut first = [0];
    while stream.peek(&mut first).is_ok_and(|read| read == 1) {
        if first == *b"G" {
            until(&mut stream, b"\r\n\r\n");
            stream.write_all(STREAM_HEAD.as_bytes()).unwrap();
            let (tick, ticks) = channel();
            opened.send(tick).unwrap();
            while ticks.recv().is_ok() {
                stream.write_all(event().as_bytes()).unwrap();
            }
            return;
        }
        let mut buffer = Vec::new();
        if message(&mut stream, &mut buffer) {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }
}

/// The child: serves on a thread until its standard input ends.
fn child(server: &str) {
    let closing = CancellationToken::new();
    // One serving thread, so that no two runs differ in which thread did the work.
    let firewall = Firewall::before(server.parse().unwrap(), 1, closing.clone());
    println!("{}", firewall.address);
    std::thread::spawn(move || {
        let _read = std::io::stdin().read_to_end(&mut Vec::new());
        closing.cancel();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(firewall.serve());
}

/// Starts the child under valgrind, which writes to `out`.
fn start(server: SocketAddr, out: &Path) -> Child {
    let valgrind = std::env::var_os("VALGRIND").unwrap_or_else(|| "valgrind".into());
    let mut command = Command::new(&valgrind);
    command
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--child", &server.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    // On a thread of its own, because the filter stays with the thread and its children.
    let started = std::thread::spawn(move || {
        #[cfg(target_os = "linux")]
        hide_auxv();
        command.spawn()
    });
    started.join().unwrap().unwrap_or_else(|error| panic!("{}: {error}", valgrind.display()))
}

/// Lets the call fail by which rustix asks the kernel for the process's auxiliary vector. valgrind
/// passes that call on, so the answer would name the vDSO, which valgrind has unmapped. From
/// `/proc/self/auxv`, where rustix looks next, valgrind takes it out.
#[cfg(target_os = "linux")]
fn hide_auxv() {
    let option = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, PR_GET_AUXV);
    let rule = SeccompRule::new(vec![option.unwrap()]).unwrap();
    let rules = BTreeMap::from([(libc::SYS_prctl, vec![rule])]);
    let refuse = SeccompAction::Errno(u32::try_from(libc::EINVAL).unwrap());
    let machine = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine).unwrap();
    apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Does the work `times` times through a firewall under valgrind; the count of the whole child.
fn count(work: &Work, times: u64) -> u64 {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("callgrind.out");
    let answer = match work {
        Work::Calls { answer, .. } => answer,
        Work::Events => "",
    };
    let (server, streams) = server(answer);
    let mut child = start(server, &out);
    let mut address = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let stream = TcpStream::connect(address.trim_end()).unwrap();
    stream.set_nodelay(true).unwrap();
    match work {
        Work::Calls { request, gets, .. } => calls(stream, (0..times).map(request), gets),
        Work::Events => events(stream, &streams, times),
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "the firewall failed");
    total(&out)
}

fn calls(mut stream: TcpStream, requests: impl Iterator<Item = String>, gets: &str) {
    let mut buffer = Vec::new();
    for request in requests {
        stream.write_all(request.as_bytes()).unwrap();
        let read = message(&mut stream, &mut buffer);
        let text = String::from_utf8_lossy(&buffer);
        assert!(read && text.contains(gets), "answered: {text}");
    }
}

fn events(mut stream: TcpStream, streams: &Receiver<Sender<()>>, times: u64) {
    stream.write_all(GET.as_bytes()).unwrap();
    until(&mut stream, b"\r\n\r\n");
    let tick = streams.recv().unwrap();
    for _ in 0..times {
        tick.send(()).unwrap();
        until(&mut stream, b"\n\n\r\n");
    }
}

/// The sum of all instructions in a file of callgrind.
fn total(out: &Path) -> u64 {
    let text = std::fs::read_to_string(out).unwrap();
    let lines = text.lines().filter_map(|line| line.strip_prefix("totals: "));
    lines.map(|total| total.trim().parse::<u64>().unwrap()).sum()
}

/// Instructions for doing the scenario's work once.
fn figure(scenario: &Scenario) -> u64 {
    let [short, long] = scenario.lengths;
    let [less, more] = [short, long].map(|times| count(&scenario.work, times));
    (more - less) / (long - short)
}

/// What is said of a figure beside the recorded one, and whether it fails.
fn verdict(figure: u64, recorded: Option<u64>) -> (String, bool) {
    let Some(recorded) = recorded else { return ("not recorded".to_owned(), true) };
    let room = recorded * TOLERANCE_PERCENT / 100;
    let tenths = figure.abs_diff(recorded) * 1000 / recorded.max(1);
    let sign = if figure < recorded { '-' } else { '+' };
    let change = format!("{sign}{}.{} % to {recorded}", tenths / 10, tenths % 10);
    if figure > recorded + room {
        (format!("{change}: FAILS, more than {TOLERANCE_PERCENT} % above"), true)
    } else if figure + room < recorded {
        (format!("{change}: lower, record it"), false)
    } else {
        (change, false)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, server] = arguments.as_slice()
        && flag == "--child"
    {
        child(server);
        return ExitCode::SUCCESS;
    }
    // Under `cargo test` there is nothing to test.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    let write = arguments.iter().any(|argument| argument == "--write");
    let recorded = std::fs::read_to_string(RECORDED).unwrap_or_else(|_| "{}".to_owned());
    let recorded: BTreeMap<String, u64> = serde_json::from_str(&recorded).unwrap();
    let mut figures = BTreeMap::new();
    let mut failed = false;
    for scenario in scenarios() {
        let figure = figure(&scenario);
        let (said, fails) = verdict(figure, recorded.get(scenario.name).copied());
        println!("{:<32} {figure:>9} instructions, {said}", scenario.name);
        failed |= fails;
        figures.insert(scenario.name, figure);
    }
    if write {
        let text = serde_json::to_string_pretty(&figures).unwrap();
        std::fs::write(RECORDED, format!("{text}\n")).unwrap();
        println!("recorded in {RECORDED}");
        return ExitCode::SUCCESS;
    }
    if failed {
        eprintln!(
            "instructions: the firewall runs more instructions than recorded in {RECORDED}, or \
            nothing is recorded.\nFind out what costs them, or, if they are worth it, record the \
            figures with\n`benches/instructions.sh --write` and say why in the commit."
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
