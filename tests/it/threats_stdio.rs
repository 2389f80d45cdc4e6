//! Rows C3 to C7 of `docs/threats.md`: bytes that programs reading lines split differently, sent
//! through `bartizan wrap` as a client starts it, and from an HTTP body to a child. Each test
//! compares byte for byte what the child received and what the client got.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

use super::firewall::{Firewall, LEGACY, PATIENCE, Setup, call, journal, post, wait};

/// Answers each request with the key that it names, and keeps every byte that it reads. The id
/// must be the last member of a request.
const ANSWERING: &str = r#"
tee "$1/read" | while IFS= read -r line; do
    case $line in
        *'"id":'*) id=${line##*'"id":'}; printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";;
    esac
done
"#;

/// A legal call with the id last, under the id `id`.
fn get_flag(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"get_flag","arguments":{{"key":"x"}}}},"id":{id}}}"#
    )
}

fn answered(id: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","result":{{}},"id":{id}}}"#)
}

/// `bartizan wrap` around a script, and its client.
struct Wrapped {
    program: Child,
    to: Option<ChildStdin>,
    lines: Receiver<String>,
    folder: tempfile::TempDir,
}

impl Wrapped {
    fn start(script: &str) -> Self {
        Self::under(script, None)
    }

    /// Under this policy instead of the baseline.
    fn under(script: &str, policy: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Beside the state, where a confined program can create files.
        let own = folder.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let file = own.join("server.sh");
        std::fs::write(&file, script).unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_bartizan"))
            .args(["wrap", "--pack", "flag-service", "--environment", "staging", "--state"])
            .arg(folder.path().join("state"))
            .args(policy.map(|rego| {
                let file = folder.path().join("p.rego");
                std::fs::write(&file, rego).unwrap();
                format!("--policy={}", file.display())
            }))
            .args(["--", "sh"])
            .args([file, own])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let to = program.stdin.take();
        let from = BufReader::new(program.stdout.take().unwrap());
        let (out, lines) = channel();
        thread::spawn(move || {
            // Split at LF alone: a CR inside must be seen.
            for line in from.split(b'\n') {
                let line = String::from_utf8(line.unwrap()).unwrap();
                if out.send(line).is_err() {
                    return;
                }
            }
        });
        Self { program, to, lines, folder }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.to.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn send(&mut self, line: impl AsRef<[u8]>) {
        self.write(&[line.as_ref(), b"\n"].concat());
    }

    /// The next line for the client.
    fn receive(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line came"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the child has read, once it is as long as `expected`.
    fn read(&self, expected: &[u8]) -> Vec<u8> {
        wait("what the child read", || {
            let read = std::fs::read(self.path("own/read")).unwrap_or_default();
            (read.len() >= expected.len()).then_some(read)
        })
    }

    fn journal(&self) -> Vec<Value> {
        journal(&self.path("state"))
    }

    /// Closes its input and waits for its end: what else it wrote for the client, to its log, and
    /// how it ended.
    fn end(&mut self) -> (Vec<String>, String, ExitStatus) {
        drop(self.to.take());
        let rest = self.lines.iter().collect();
        let mut log = String::new();
        self.program.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (rest, log, self.program.wait().unwrap())
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        drop(self.program.kill());
        drop(self.program.wait());
    }
}

/// What becomes of one line.
enum Fate {
    /// The child reads this line, and the client its answer.
    Passes(String),
    /// The child reads nothing; the client gets this code under a null id.
    Refused(i64),
    /// No line at all: nothing happens.
    Nothing,
}

fn lines() -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::{Nothing, Passes, Refused};
    let good = get_flag(1);
    let smuggled = get_flag(2).replace("get_flag", "delete_flag");
    let nested = |end: &str| good.replace("\"x\"", &format!("{end}{smuggled}{end}"));
    let around = |before: &[u8], after: &[u8]| [before, good.as_bytes(), after].concat();
    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let split = good.replace(":\"x\"", ":\"a\u{2028}b\u{2029}c\u{85}\"");
    vec![
        ("C3 stdio-cr-nested", nested("\r").into(), Refused(-32600)),
        ("C3 stdio-cr-between", format!("{good}\r{smuggled}").into(), Refused(-32600)),
        ("C3 stdio-cr-space", good.replacen(',', ",\r", 1).into(), Refused(-32600)),
        ("C3 stdio-cr-twice-at-end", around(b"", b"\r\r"), Refused(-32600)),
        ("C3 ok-crlf", around(b"", b"\r"), Passes(good.clone())),
        (
            "C3 ok-cr-escaped",
            good.replace("\"x\"", "\"a\\rb\\nc\"").into(),
            Passes(good.replace("\"x\"", "\"a\\rb\\nc\"")),
        ),
        ("C5 stdio-bom", around(b"\xef\xbb\xbf", b""), Refused(-32700)),
        ("C5 stdio-nul-before", around(b"\0", b""), Refused(-32600)),
        ("C5 stdio-nul-after", around(b"", b"\0"), Refused(-32600)),
        ("C5 stdio-nul-inside", good.replace('x', "\0").into(), Refused(-32600)),
        ("C5 stdio-rs", around(b"\x1e", b""), Refused(-32700)),
        ("C5 stdio-form-feed", around(b"\x0c", b""), Refused(-32700)),
        ("C5 stdio-vertical-tab", around(b"", b"\x0b"), Refused(-32700)),
        ("C5 stdio-escape", around(b"\x1b[2K", b""), Refused(-32700)),
        ("C5 stdio-nbsp", around("\u{a0}".as_bytes(), b""), Refused(-32700)),
        ("C5 stdio-content-length", b"Content-Length: 99".to_vec(), Refused(-32700)),
        ("C5 stdio-two-values", around(b"", smuggled.as_bytes()), Refused(-32700)),
        ("C5 stdio-comma", around(b"", b","), Refused(-32700)),
        ("C5 stdio-batch", around(b"[", b"]"), Refused(-32600)),
        ("C5 stdio-half", good.as_bytes().split_at(40).0.to_vec(), Refused(-32700)),
        ("C5 stdio-utf16", utf16, Refused(-32600)),
        (
            "C5 stdio-utf8-invalid",
            good.replace('x', "@").bytes().map(|b| if b == b'@' { 0xff } else { b }).collect(),
            Refused(-32700),
        ),
        ("C5 stdio-blank", b" \t ".to_vec(), Nothing),
        ("C5 stdio-empty", Vec::new(), Nothing),
        ("C5 stdio-blank-cr", b"  \r".to_vec(), Nothing),
        ("C5 ok-spaces", around(b" \t", b" \t "), Passes(good.clone())),
        ("C5 ok-space-inside", good.replace(',', " ,\t").into(), Passes(good.clone())),
        (
            "C7 stdio-u2028",
            split.clone().into(),
            Passes(
                split
                    .replace('\u{2028}', "\\u2028")
                    .replace('\u{2029}', "\\u2029")
                    .replace('\u{85}', "\\u0085"),
            ),
        ),
        (
            "C7 ok-u2028-escaped",
            good.replace("\"x\"", "\"\\u2028\"").into(),
            Passes(good.replace("\"x\"", "\"\\u2028\"")),
        ),
    ]
}

#[test]
fn a_line_is_one_message_to_every_reader() {
    let mut wrapped = Wrapped::start(ANSWERING);
    let mut expected = Vec::new();
    let (mut wrong, mut denied) = (Vec::new(), 0);
    for (id, (name, line, fate)) in (100..).zip(lines()) {
        // No id comes twice.
        let renumbered = |text: &str| text.replace("\"id\":1", &format!("\"id\":{id}"));
        let (line, fate) = match fate {
            Fate::Passes(read) => {
                let line = renumbered(std::str::from_utf8(&line).unwrap()).into_bytes();
                (line, Fate::Passes(renumbered(&read)))
            }
            other @ (Fate::Refused(_) | Fate::Nothing) => (line, other),
        };
        wrapped.send(&line);
        // Whatever the line does, the next one is answered after it, and by itself.
        let mark = get_flag(1000 + id);
        wrapped.send(&mark);
        if let Fate::Passes(read) = &fate {
            expected.extend_from_slice(format!("{read}\n").as_bytes());
        }
        expected.extend_from_slice(format!("{mark}\n").as_bytes());
        if !matches!(fate, Fate::Nothing) {
            let got = wrapped.receive();
            let fits = match &fate {
                Fate::Passes(_) => got == answered(id),
                Fate::Refused(code) => {
                    denied += 1;
                    got.starts_with(r#"{"jsonrpc":"2.0","id":null,"error":"#)
                        && got.contains(&format!("\"code\":{code},"))
                        && got.contains("decision_id")
                }
                Fate::Nothing => false,
            };
            if !fits {
                wrong.push(format!("{name}: the client got {got}"));
            }
        }
        if wrapped.receive() != answered(1000 + id) {
            wrong.push(format!("{name}: the line after it was lost"));
            break;
        }
        if wrapped.read(&expected) != expected {
            let read = String::from_utf8_lossy(&wrapped.read(&expected)).into_owned();
            wrong.push(format!("{name}: the child read {read:?}"));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let ended = wrapped.end();
    let records = wrapped.journal();
    let denials: Vec<_> = records.iter().filter(|record| record["event"] == "denial").collect();
    assert_eq!(denials.len() + repeated(&records), denied);
    assert!(denials.iter().all(|record| record["finding"] == "malformed_frame"), "{denials:?}");
    let (rest, _, status) = ended;
    assert_eq!((rest, status.code()), (Vec::new(), Some(0)));
}

#[test]
fn a_last_line_without_its_end_is_a_line() {
    let mut wrapped = Wrapped::start(ANSWERING);
    wrapped.write(get_flag(1).as_bytes());
    let (rest, _, status) = wrapped.end();
    assert_eq!((rest, status.code()), (vec![answered(1)], Some(0)));
    assert_eq!(wrapped.read(b""), format!("{}\n", get_flag(1)).into_bytes());
}

#[test]
fn answers_to_what_nobody_asked_are_dropped_and_recorded() {
    // C3: what a child that split a line would answer.
    let smuggling = r#"
read -r line; printf '%s\n' "$line" > "$1/read"
printf '{"jsonrpc":"2.0","result":{"deleted":true},"id":2}\n'
printf '{"jsonrpc":"2.0","result":{"deleted":true},"id":"1"}\n'
printf '{"jsonrpc":"2.0",\r"result":{"x":\r{"jsonrpc":"2.0","id":2,"result":{}}\r},"id":1}\n'
printf '{"jsonrpc":"2.0","result":{"again":true},"id":1}\n'
cat > /dev/null
"#;
    let mut wrapped = Wrapped::start(smuggling);
    wrapped.send(get_flag(1));
    let one_line =
        r#"{"jsonrpc":"2.0","result":{"x":{"jsonrpc":"2.0","id":2,"result":{}}},"id":1}"#;
    assert_eq!(wrapped.receive(), one_line);
    let (rest, _, status) = wrapped.end();
    assert_eq!((rest, status.code()), (Vec::new(), Some(0)));
    let records = wrapped.journal();
    let dropped = records.iter().filter(|record| record["event"] == "drop");
    assert_eq!(dropped.filter(|record| record["finding"] == "unsolicited_answer").count(), 3);
}

#[test]
fn one_line_passes_byte_for_byte_and_goes_up_as_the_same_tokens() {
    let request = "{\t\"params\": {\"arguments\" :{ \"key\":\"\\u0041\\/é\\ud83d\\ude00\",\"n\":[ 1.50e+2,-0 ,12345678901234567890123 ]}, \"name\":\"get_fl\\u0061g\",\"x\":{ }} ,\"method\":\"tools\\/call\", \"x\" : null,\"jsonrpc\":\"2.0\",\"id\": 1 }";
    let read = "{\"params\":{\"arguments\":{\"key\":\"\\u0041\\/é\\ud83d\\ude00\",\"n\":[1.50e+2,-0,12345678901234567890123]},\"name\":\"get_fl\\u0061g\",\"x\":{}},\"method\":\"tools\\/call\",\"x\":null,\"jsonrpc\":\"2.0\",\"id\":1}\n";
    let answer = " {\"result\" : {\"x\":\"\\u00e9\\/é\", \"n\":1E400e,\"z\":[ ]}\t,\"_x\":-0.0,\"id\":1,\"jsonrpc\":\"2.0\" } ".replace("1E400e", "1E+40");
    let notice = "{\"method\":\"notifications\\/message\" ,\"params\":{ \"level\":\"info\",\"data\":1.0},\"jsonrpc\":\"2.0\"}";
    let mut wrapped = Wrapped::start(r#"head -n 1 > "$1/read"; cat "$1/answer"; cat > /dev/null"#);
    std::fs::write(wrapped.path("own/answer"), format!("{notice}\n{answer}\n")).unwrap();
    wrapped.send(request);
    assert_eq!(wrapped.receive(), notice);
    assert_eq!(wrapped.receive(), answer);
    assert_eq!(String::from_utf8(wrapped.read(read.as_bytes())).unwrap(), read);
}

#[test]
fn the_client_is_never_given_two_lines_for_one() {
    // C7, the other way; `cat` of a file keeps the bytes as they are.
    for end in ['\r', '\u{85}', '\u{2028}', '\u{2029}'] {
        let space = if end == '\r' { "\r" } else { "" };
        let text = if end == '\r' { "x".to_owned() } else { format!("a{end}b") };
        let answer =
            format!("{{\"jsonrpc\":\"2.0\",{space}\"result\":{{\"x\":\"{text}\"}},\"id\":1}}");
        let mut wrapped = Wrapped::start(r#"read -r line; cat "$1/answer"; cat > /dev/null"#);
        std::fs::write(wrapped.path("own/answer"), format!("{answer}\n")).unwrap();
        wrapped.send(get_flag(1));
        let escape = format!("\\u{:04x}", u32::from(end));
        assert_eq!(wrapped.receive(), answer.replace('\r', "").replace(end, &escape));
    }
}

#[test]
fn what_policy_refuses_is_answered_and_the_child_never_sees_it() {
    let mut wrapped = Wrapped::start(ANSWERING);
    for (tool, arguments, code) in [
        ("delete_flag", r#"{"key":"x","environment":"staging"}"#, -31001),
        ("update_flag", r#"{"key":"x","environment":"production"}"#, -31001),
        ("no_such_tool", "{}", -31001),
    ] {
        wrapped.send(call(9, tool, arguments));
        let refusal: Value = serde_json::from_str(&wrapped.receive()).unwrap();
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&9.into(), &code.into()));
        let denial = wrapped.journal().pop().unwrap();
        assert_eq!(refusal["error"]["data"]["decision_id"], denial["call"]);
    }
    for request in ["tools/call", "vendor/do-it"] {
        wrapped.send(format!(
            r#"{{"jsonrpc":"2.0","method":"{request}","params":{{"name":"get_flag"}}}}"#
        ));
        let refusal = wrapped.receive();
        assert!(refusal.contains("\"id\":null") && refusal.contains("-32600"), "{refusal}");
    }
    // Nobody waits for an answer to an answer.
    wrapped.send(r#"{"jsonrpc":"2.0","id":777,"result":{"action":"accept"}}"#);
    wrapped.send(get_flag(1));
    assert_eq!(wrapped.receive(), answered(1));
    let read = format!("{}\n", get_flag(1)).into_bytes();
    assert_eq!(wrapped.read(&read), read);
}

#[cfg(target_os = "linux")]
#[test]
fn an_endless_line_is_refused_once_and_never_kept() {
    // C6 stdio-64mb-line.
    let mut wrapped = Wrapped::start(ANSWERING);
    wrapped.send(get_flag(1));
    assert_eq!(wrapped.receive(), answered(1));
    let peak_kib = |id: u32| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let before = peak_kib(wrapped.program.id());
    let begin = get_flag(2).replace("\"}", "");
    wrapped.write(begin.as_bytes());
    for _ in 0..64 {
        wrapped.write(&vec![b'x'; 1 << 20]);
    }
    // Refused while it still goes on.
    let refusal = wrapped.receive();
    assert!(refusal.contains("-32600") && refusal.contains("\"id\":null"), "{refusal}");
    wrapped.send("");
    wrapped.send(get_flag(3));
    assert_eq!(wrapped.receive(), answered(3));
    let grown = peak_kib(wrapped.program.id()).saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more");
    let read = format!("{}\n{}\n", get_flag(1), get_flag(3)).into_bytes();
    assert_eq!(wrapped.read(&read), read);
}

#[test]
fn a_child_that_writes_an_endless_line_is_ended() {
    let mut wrapped = Wrapped::start("read -r line\nyes | tr -d '\\n'");
    wrapped.send(get_flag(1));
    let error: Value = serde_json::from_str(&wrapped.receive()).unwrap();
    assert_eq!((&error["id"], &error["error"]["code"]), (&1.into(), &(-31005).into()));
    let (rest, log, status) = wrapped.end();
    assert_eq!((rest, status.code()), (Vec::new(), Some(1)), "{log}");
    assert!(log.contains("error: wrap: the server process ended by itself: "), "{log}");
    assert!(log.contains("a line longer than allowed") && log.contains("hint: "), "{log}");
    let records = wrapped.journal();
    let outcome = records.iter().find(|record| record["event"] == "outcome").unwrap();
    assert_eq!(outcome["outcome"], "upstream_failed");
    assert_eq!(records.last().unwrap()["event"], "stop");
}

#[test]
fn an_answer_that_cannot_be_read_ends_its_call_and_no_other() {
    // Each line answers one of the calls, or none. The last two are good.
    let broken = r#"
read -r one; read -r two; read -r three; read -r four; read -r five
printf '{"jsonrpc":"2.0","result":{"a":1,"a":2},"id":1}\n'
printf '{"jsonrpc":"1.0","id":2,"result":{}}\n'
printf '{"jsonrpc":"2.0","id":3,"result":{},"error":{"code":1,"message":"m"}}\n'
printf '{"jsonrpc":"2.0","id":9,"result":{"a":1,"a":2}}\n'
printf '{"jsonrpc":"2.0","id":4,"method":"ping","method":"ping"}\n'
printf '{"jsonrpc":"2.0","result":{},"id":4}\n'
printf '{"jsonrpc":"2.0","result":{},"id":5}\n'
cat > /dev/null
"#;
    let mut wrapped = Wrapped::start(broken);
    for id in 1..=5 {
        wrapped.send(get_flag(id));
    }
    for id in 1..=3 {
        let error: Value = serde_json::from_str(&wrapped.receive()).unwrap();
        assert_eq!((&error["id"], &error["error"]["code"]), (&id.into(), &(-31006).into()));
    }
    assert_eq!([wrapped.receive(), wrapped.receive()], [answered(4), answered(5)]);
    let (rest, _, _) = wrapped.end();
    assert_eq!(rest, Vec::<String>::new());
    let records = wrapped.journal();
    let withheld = records.iter().filter(|record| record["outcome"] == "withheld");
    assert!(withheld.clone().all(|record| record["finding"] == "malformed_frame"), "{records:#?}");
    let ids: Vec<_> = withheld.map(|record| record["id"].clone()).collect();
    assert_eq!(ids, ["1", "2", "3"]);
    let dropped = records.iter().filter(|record| record["event"] == "drop").count();
    assert_eq!(dropped + repeated(&records), 2);
}

#[test]
fn a_line_of_a_child_that_is_too_long_ends_its_call_and_not_the_run() {
    // The id stands before the long text, or behind it.
    for (before, after) in [
        (r#"{"jsonrpc":"2.0","id":1,"result":{"x":""#, r#""}}"#),
        (r#"{"result":{"x":""#, r#""},"jsonrpc":"2.0","id":1}"#),
    ] {
        let script = format!(
            "read -r line; read -r line\nprintf '%s' '{before}'; head -c 6000000 /dev/zero | tr '\\0' x; printf '%s\\n' '{after}'\nprintf '%s\\n' '{}'\nwhile IFS= read -r line; do printf '%s\\n' '{}'; done\n",
            answered(2),
            answered(3),
        );
        let mut wrapped = Wrapped::start(&script);
        wrapped.send(get_flag(1));
        wrapped.send(get_flag(2));
        let error: Value = serde_json::from_str(&wrapped.receive()).unwrap();
        assert_eq!((&error["id"], &error["error"]["code"]), (&1.into(), &(-31006).into()));
        assert_eq!(wrapped.receive(), answered(2));
        wrapped.send(get_flag(3));
        assert_eq!(wrapped.receive(), answered(3), "the run goes on");
        let (rest, log, status) = wrapped.end();
        assert_eq!((rest, status.code()), (Vec::new(), Some(0)), "{log}");
        let records = wrapped.journal();
        assert_eq!(records.iter().filter(|it| it["outcome"] == "withheld").count(), 1);
    }
}

#[test]
fn a_request_that_cannot_be_read_is_answered_under_its_id_where_that_can() {
    let mut wrapped = Wrapped::start(ANSWERING);
    let good = get_flag(1);
    wrapped.send(&good);
    assert_eq!(wrapped.receive(), answered(1));
    for (line, id) in [
        (r#"{"jsonrpc":"1.0","method":"ping","id":7}"#, Value::from(7)),
        (r#"{"id":"a","jsonrpc":"2.0","method":5}"#, "a".into()),
        (r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":[1]}"#, 8.into()),
        (
            r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"x","Name":"y"}}"#,
            8.into(),
        ),
        (r#"{"jsonrpc":"2.0","id":8,"method":"ping","result":{}}"#, 8.into()),
        // It cannot be read, or could be taken for the answer to another request.
        (r#"{"jsonrpc":"2.0","id":8,"method":"ping","params":{"a":1,"a":2}}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"2.0","id":8,"ID":9,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"1.0","id":"1","method":"ping"}"#, Value::Null),
        (r#"{"jsonrpc":"1.0","id":8,"result":{}}"#, Value::Null),
        (r#"[{"jsonrpc":"2.0","id":8,"method":"ping"}]"#, Value::Null),
    ] {
        wrapped.send(line);
        let error: Value = serde_json::from_str(&wrapped.receive()).unwrap();
        assert_eq!(error["id"], id, "{line}: {error}");
        assert!(error["error"]["code"].is_i64(), "{line}: {error}");
    }
    // The id was not used.
    wrapped.send(get_flag(8));
    assert_eq!(wrapped.receive(), answered(8));
}

#[test]
fn a_child_that_dies_is_named_and_its_calls_are_answered() {
    let mut wrapped = Wrapped::start("read -r line; read -r line; echo 'out of luck' >&2; exit 3");
    wrapped.send(get_flag(1));
    wrapped.send(get_flag(2));
    for id in [1, 2] {
        let error: Value = serde_json::from_str(&wrapped.receive()).unwrap();
        assert_eq!((&error["id"], &error["error"]["code"]), (&id.into(), &(-31005).into()));
    }
    let (rest, log, status) = wrapped.end();
    assert_eq!((rest, status.code()), (Vec::new(), Some(1)), "{log}");
    assert!(log.contains("ended by itself: exit status: 3"), "{log}");
}

/// How many further refusals the records count.
fn repeated(records: &[Value]) -> usize {
    let counts = records.iter().filter_map(|record| record["repeated"].as_u64());
    usize::try_from(counts.sum::<u64>()).unwrap()
}

#[test]
fn what_is_no_frame_never_reaches_the_client() {
    let noise = r#"
read -r line
printf 'Server running on stdio\n{"level":"info"}\n\0\n'
printf '{"jsonrpc":"2.0","result":{"a":1,"a":2},"id":5}\n'
printf '\357\273\277{"jsonrpc":"2.0","result":{},"id":1}\n'
printf '[{"jsonrpc":"2.0","result":{},"id":1}]\n'
printf '{"jsonrpc":"2.0","result":{},"id":1}{"jsonrpc":"2.0","result":{},"id":1}\n'
printf '{"jsonrpc":"2.0","result":{},"id":1}\n'
cat > /dev/null
"#;
    let mut wrapped = Wrapped::start(noise);
    wrapped.send(get_flag(1));
    assert_eq!(wrapped.receive(), answered(1));
    let (rest, _, _) = wrapped.end();
    assert_eq!(rest, Vec::<String>::new());
    let dropped = wrapped.journal();
    let recorded = dropped.iter().filter(|record| record["event"] == "drop").count();
    assert_eq!(recorded + repeated(&dropped), 7);
}

#[test]
fn a_legal_body_becomes_one_line() {
    // C4, C7: from HTTP to a child. The inner message stands on a line of its own.
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("server.sh");
    std::fs::write(&script, ANSWERING.replace("$1", &folder.path().display().to_string())).unwrap();
    let way = Some(format!("command: [sh, '{}']", script.display()));
    let firewall = Firewall::with(Setup { way, ..Setup::default() });
    let initialize = r#"{"jsonrpc":"2.0","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}},"id":0}"#;
    let reply = firewall.ask(initialize);
    let [session] = &*reply.header("mcp-session-id") else { panic!("{reply:?}") };
    let headers = format!("{LEGACY}Mcp-Session-Id: {session}\r\n");
    let mut lines = vec![initialize.replace("\"id\":0", "\"id\":1")];
    let smuggled = get_flag(2).replace("get_flag", "delete_flag");
    for (number, (end, text)) in (2..).zip([
        ("\n", "\"a\""),
        ("\r", "\"a\""),
        ("\r\n", "\"a\\nb\\rc\\u0000\""),
        ("\n\n\t ", "\"\u{2028}\""),
        ("\u{20}", "\"\u{2029}\u{feff}\""),
    ]) {
        let body = format!(
            "{end}{{{end}\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{{\"name\":\"get_flag\",\"arguments\":{{\"key\":{text},\"x\":{end}{smuggled}{end}}}}},{end}\"id\":\"c{number}\"{end}}}{end}"
        );
        let reply = firewall.send(&post(body, &headers));
        let expected = format!(r#"{{"jsonrpc":"2.0","result":{{}},"id":"c{number}"}}"#);
        assert_eq!(reply.text(), expected, "{end:?}");
        let text = text.replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029");
        lines.push(format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{{\"name\":\"get_flag\",\"arguments\":{{\"key\":{text},\"x\":{smuggled}}}}},\"id\":{number}}}"
        ));
    }
    let read = wait("what the child read", || {
        let read = std::fs::read_to_string(folder.path().join("read")).unwrap_or_default();
        (read.matches('\n').count() >= lines.len() && read.ends_with('\n')).then_some(read)
    });
    // The child gets ids of ours, each as the last member.
    let without_id = |line: &str| line.rsplit_once(",\"id\":").unwrap().0.to_owned();
    let read: Vec<String> = read.split_terminator('\n').map(without_id).collect();
    assert_eq!(read, lines.iter().map(|line| without_id(line)).collect::<Vec<_>>());
}

/// Answers no call before the line `{"jsonrpc":"2.0","method":"notifications/go"}`, and then all.
const HOLDING: &str = r#"
tee "$1/read" | {
    ids=
    while IFS= read -r line; do
        case $line in
            *notifications/go*)
                for id in $ids; do printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id"; done
                ids=;;
            *'"id":'*) ids="$ids ${line##*'"id":'}";;
        esac
    done
}
"#;

/// Threat J5, over a pipe: the calls in flight are bounded, and cancelling makes no room.
#[test]
fn calls_in_flight_over_a_pipe_are_bounded() {
    let rego = "package mcp\n\npermit contains {\"code\": \"all\", \"message\": \"m\"} if true\n\nlimit contains {\"code\": \"two\", \"key\": input.principal.id, \"concurrent\": 2} if input.method == \"tools/call\"\n";
    let mut wrapped = Wrapped::under(HOLDING, Some(rego));
    let refused = |line: &str, id: u32| {
        let refusal: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&refusal["id"], &refusal["error"]["code"]),
            (&id.into(), &(-31002).into()),
            "{line}"
        );
    };
    for id in 1..=2 {
        wrapped.send(get_flag(id));
    }
    wrapped.send(get_flag(3));
    refused(&wrapped.receive(), 3);
    // The server may be at work on what was cancelled.
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}"#;
    wrapped.send(cancel);
    wrapped.send(get_flag(4));
    refused(&wrapped.receive(), 4);
    let go = r#"{"jsonrpc":"2.0","method":"notifications/go"}"#;
    wrapped.send(go);
    assert_eq!(wrapped.receive(), answered(1), "and the late answer of 2 goes to nobody");
    wait("the late answer", || {
        let dropped = |record: &Value| record["event"] == "drop";
        wrapped.journal().iter().any(dropped).then_some(())
    });
    for id in 5..=6 {
        wrapped.send(get_flag(id));
    }
    wrapped.send(go);
    assert_eq!([wrapped.receive(), wrapped.receive()], [answered(5), answered(6)]);
    let sent =
        [get_flag(1), get_flag(2), cancel.into(), go.into(), get_flag(5), get_flag(6), go.into()];
    let sent: String = sent.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(String::from_utf8(wrapped.read(sent.as_bytes())).unwrap(), sent);
}
