//! The rows of `docs/threats.md` that one request can show (JSON, bytes, syntax, JSON-RPC, HTTP,
//! environment pins), as one table against a whole running firewall. Each case says what the
//! upstream received (nothing, or those very bytes) and what the client got.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and its offsets are its own"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::firewall::{Firewall, Received, odd_answer};

/// What must have reached the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upstream {
    /// Not one byte of it.
    Nothing,
    /// Exactly these bytes.
    Same,
}

/// What the client must have got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// The upstream's answer, byte for byte.
    Answer,
    /// This HTTP status and this JSON-RPC error code.
    Refused(u16, i64),
    /// One of the transport's own refusals: an HTTP status in this range and no frame of ours, or
    /// a closed connection.
    Cut,
}

struct Case {
    row: &'static str,
    name: &'static str,
    request: Vec<u8>,
    upstream: Upstream,
    body: Vec<u8>,
    client: Client,
}

const LEGACY: &str = "MCP-Protocol-Version: 2025-11-25\r\n";
const JSON: &str =
    "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";

/// A POST of `body` with `headers` besides the ordinary ones.
fn post(body: &[u8], headers: &str) -> Vec<u8> {
    raw("POST /mcp HTTP/1.1", &format!("{JSON}{LEGACY}{headers}"), body)
}

/// A request with exactly these headers, Host and Content-Length.
fn raw(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut out =
        format!("{line}\r\nHost: 127.0.0.1\r\n{headers}Content-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    out.extend_from_slice(body);
    out
}

fn call(params: &str) -> Vec<u8> {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}")
        .into_bytes()
}

fn read_call() -> Vec<u8> {
    call(r#"{"name":"get_flag","arguments":{"key":"x"}}"#)
}

#[derive(Default)]
struct Table(Vec<Case>);

impl Table {
    fn add(&mut self, row: &'static str, name: &'static str, request: Vec<u8>, client: Client) {
        let upstream = if client == Client::Answer { Upstream::Same } else { Upstream::Nothing };
        let at = request.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let body = request[at + 4..].to_vec();
        self.0.push(Case { row, name, request, upstream, body, client });
    }

    fn refuse(&mut self, row: &'static str, name: &'static str, body: &[u8], code: i64) {
        self.add(row, name, post(body, ""), Client::Refused(400, code));
    }

    /// Refused by policy, not by the reader: the frame is well-formed.
    fn deny(&mut self, row: &'static str, name: &'static str, params: &str) {
        self.add(row, name, post(&call(params), ""), Client::Refused(200, -31001));
    }

    fn pass(&mut self, row: &'static str, name: &'static str, body: &[u8]) {
        self.add(row, name, post(body, ""), Client::Answer);
    }
}

/// Section A: names and values.
fn json_keys(t: &mut Table) {
    t.refuse("A1", "dup-name", &call(r#"{"name":"get_flag","name":"delete_flag"}"#), -32600);
    t.refuse("A1", "dup-env", &call(r#"{"name":"get_flag","arguments":{"environment":"staging","environment":"production"}}"#), -32600);
    t.refuse(
        "A2",
        "dup-name-escaped",
        &call(r#"{"name":"get_flag","n\u0061me":"delete_flag"}"#),
        -32600,
    );
    t.refuse(
        "A2",
        "dup-surrogate-key",
        &call(r#"{"name":"get_flag","arguments":{"\ud83d\ude00":1,"😀":2}}"#),
        -32600,
    );
    t.refuse(
        "A3",
        "dup-method",
        br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        -32600,
    );
    t.refuse("A3", "dup-params-merge", br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_flag"},"params":{"name":"delete_flag"}}"#, -32600);
    t.refuse(
        "A3",
        "dup-args",
        &call(r#"{"name":"get_flag","arguments":{},"arguments":{"key":"x"}}"#),
        -32600,
    );
    t.refuse(
        "A3",
        "dup-deep",
        &call(r#"{"name":"get_flag","arguments":{"a":[{"b":{"c":1,"c":2}}]}}"#),
        -32600,
    );
    t.refuse(
        "A4",
        "case-method",
        br#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
        -32600,
    );
    t.refuse("A4", "case-name", &call(r#"{"name":"get_flag","Name":"delete_flag"}"#), -32600);
    t.refuse(
        "A4",
        "case-params",
        br#"{"jsonrpc":"2.0","id":1,"method":"ping","PARAMS":{}}"#,
        -32600,
    );
    t.refuse("A5", "fold-long-s", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"get_flag\"},\"param\u{17f}\":{\"name\":\"delete_flag\"}}".as_bytes(), -32600);
    t.refuse(
        "A5",
        "fold-escaped",
        br#"{"jsonrpc":"2.0","id":1,"method":"ping","param\u017f":{}}"#,
        -32600,
    );
    t.refuse(
        "A5",
        "fold-full-width",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"ｍethod\":\"x\"}".as_bytes(),
        -32600,
    );
    t.refuse(
        "A6",
        "nul-key",
        &call("{\"name\":\"get_flag\",\"name\\u0000\":\"delete_flag\"}"),
        -32600,
    );
    t.refuse(
        "A7",
        "magic-raw",
        &call(r#"{"name":"get_flag","arguments":{"$serde_json::private::RawValue":"{}"}}"#),
        -32600,
    );
    t.refuse(
        "A7",
        "magic-number",
        &call(r#"{"name":"get_flag","arguments":{"x":{"$serde_json::private::Number":"1e400"}}}"#),
        -32600,
    );
    t.refuse(
        "A8",
        "proto",
        &call(r#"{"name":"get_flag","arguments":{"__proto__":{"environment":"production"}}}"#),
        -32600,
    );
    t.pass(
        "A8",
        "ok-constructor-key",
        &call(r#"{"name":"get_flag","arguments":{"constructor":1,"prototype":2}}"#),
    );
    t.deny("A9", "name-escaped", r#"{"name":"\u0064elete_flag","arguments":{}}"#);
    t.deny("A9", "name-homoglyph", "{\"name\":\"g\u{435}t_flag\"}");
    t.refuse("A9", "name-full-width", &call("{\"name\":\"ｇet_flag\"}"), -32602);
    t.refuse("A9", "name-zero-width", &call("{\"name\":\"get_flag\u{200b}\"}"), -32602);
    t.refuse("A10", "name-nul", &call(r#"{"name":"get_flag\u0000delete_flag"}"#), -32602);
    t.deny("A10", "env-null-suffix", r#"{"name":"update_flag","arguments":{"key":"x","environment":"staging\u0000production","enabled":true}}"#);
    for (name, value) in [
        ("env-lead-space", " staging"),
        ("env-upper", "STAGING"),
        ("env-newline", "staging\\n"),
        ("env-comma", "staging,production"),
        ("env-query", "staging&environment=production"),
    ] {
        t.deny("A11", name, &format!(r#"{{"name":"update_flag","arguments":{{"key":"x","environment":"{value}","enabled":true}}}}"#));
    }
    t.refuse("A12", "syn-1e400", &call(r#"{"name":"get_flag","arguments":{"n":1e400}}"#), -32700);
    t.pass(
        "A12",
        "ok-numbers-exact",
        &call(r#"{"name":"get_flag","arguments":{"a":-0,"b":1.0,"c":1e2,"d":0.10}}"#),
    );
    t.pass(
        "A12",
        "ok-bigint",
        &call(r#"{"name":"get_flag","arguments":{"a":1234567890123456789012345678901234567890}}"#),
    );
    t.refuse(
        "A13",
        "syn-digits-5000",
        &call(&format!(r#"{{"name":"get_flag","arguments":{{"n":{}}}}}"#, "9".repeat(5000))),
        -32700,
    );
    t.refuse(
        "A14",
        "depth-100",
        &call(&format!(
            r#"{{"name":"get_flag","arguments":{{"n":{}{}}}}}"#,
            "[".repeat(100),
            "]".repeat(100)
        )),
        -32700,
    );
    t.refuse("A14", "depth-100000", &"[".repeat(100_000).into_bytes(), -32700);
    t.pass(
        "A14",
        "ok-depth-50",
        &call(&format!(
            r#"{{"name":"get_flag","arguments":{{"n":{}{}}}}}"#,
            "[".repeat(50),
            "]".repeat(50)
        )),
    );
    t.refuse(
        "A15",
        "enc-lone-high",
        &call(r#"{"name":"get_flag","arguments":{"k":"\ud800"}}"#),
        -32700,
    );
    t.refuse(
        "A15",
        "enc-lone-low-key",
        &call(r#"{"name":"get_flag","arguments":{"\udc00":1}}"#),
        -32700,
    );
}

/// Section B: bytes, charsets, codings.
fn bytes(t: &mut Table) {
    let utf7 = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_flag","arguments":{},"z":"+ACI-,+ACI-name+ACI-:+ACI-delete_flag"}}"#;
    let with_type = |kind: &str, body: &[u8]| {
        raw(
            "POST /mcp HTTP/1.1",
            &format!("Content-Type: {kind}\r\nAccept: application/json\r\n{LEGACY}"),
            body,
        )
    };
    t.add(
        "B1",
        "enc-utf7",
        with_type("application/json; charset=utf-7", utf7),
        Client::Refused(415, -32600),
    );
    t.pass("B1", "ok-utf7-looking", utf7);
    let utf16: Vec<u8> =
        String::from_utf8(read_call()).unwrap().encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf32: Vec<u8> = String::from_utf8(read_call())
        .unwrap()
        .chars()
        .flat_map(|c| u32::from(c).to_be_bytes())
        .collect();
    t.refuse("B2", "enc-utf16", &utf16, -32700);
    t.refuse("B2", "enc-utf32", &utf32, -32700);
    t.add(
        "B3",
        "enc-charset-utf16",
        with_type("application/json; charset=utf-16le", &utf16),
        Client::Refused(415, -32600),
    );
    t.add(
        "B3",
        "ok-charset-utf8",
        with_type("application/json; charset=utf-8", &read_call()),
        Client::Answer,
    );
    t.add(
        "B3",
        "ok-charset-quoted",
        with_type("application/json;charset=\"UTF-8\"", &read_call()),
        Client::Answer,
    );
    t.add(
        "B3",
        "enc-two-charsets",
        with_type("application/json; charset=utf-8; charset=utf-7", &read_call()),
        Client::Refused(415, -32600),
    );
    let mut bom = vec![0xef, 0xbb, 0xbf];
    bom.extend_from_slice(&read_call());
    t.refuse("B4", "enc-utf8-bom", &bom, -32700);
    t.refuse("B5", "enc-overlong", b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools\xc0\xafcall\",\"params\":{\"name\":\"get_flag\"}}", -32700);
    t.refuse(
        "B5",
        "enc-invalid",
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\xff\"}",
        -32700,
    );
    for (name, coding) in [
        ("ce-gzip", "gzip"),
        ("ce-upper", "GZIP"),
        ("ce-deflate", "deflate"),
        ("ce-br", "br"),
        ("ce-double", "gzip, gzip"),
    ] {
        let row = if name == "ce-double" { "B7" } else { "B6" };
        t.add(
            row,
            name,
            post(&read_call(), &format!("Content-Encoding: {coding}\r\n")),
            Client::Refused(415, -32600),
        );
    }
    t.add(
        "B6",
        "ok-identity",
        post(&read_call(), "Content-Encoding: identity\r\n"),
        Client::Answer,
    );
    t.add(
        "B7",
        "ce-bomb",
        post(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0x4b], "Content-Encoding: gzip\r\n"),
        Client::Refused(415, -32600),
    );
    t.add(
        "B8",
        "ct-absent",
        raw("POST /mcp HTTP/1.1", LEGACY, &read_call()),
        Client::Refused(415, -32600),
    );
    for (name, kind) in [
        ("ct-plain", "text/plain"),
        ("ct-list", "application/json, text/plain"),
        ("ct-suffix", "application/x+json"),
        ("ct-form", "application/x-www-form-urlencoded"),
    ] {
        t.add("B8", name, with_type(kind, &read_call()), Client::Refused(415, -32600));
    }
    t.add(
        "B8",
        "ct-twice",
        post(&read_call(), "Content-Type: application/json\r\n"),
        Client::Refused(415, -32600),
    );
}

/// Section C: syntax and framing. The stdio rows (C3 to C7) run in `threats_stdio`.
fn syntax(t: &mut Table) {
    let mut two = read_call();
    two.extend_from_slice(&call(r#"{"name":"delete_flag"}"#));
    t.refuse("C1", "syn-trailing-value", &two, -32700);
    let mut garbage = read_call();
    garbage.extend_from_slice(b" x");
    t.refuse("C1", "syn-trailing-garbage", &garbage, -32700);
    let mut spaced = b" \t\r\n".to_vec();
    spaced.extend_from_slice(&read_call());
    spaced.extend_from_slice(b"\r\n \t");
    t.pass("C1", "ok-white-space-around", &spaced);
    for (name, params) in [
        ("syn-comment", r#"{"name":"get_flag"/**/}"#),
        ("syn-single-quotes", "{'name':'get_flag'}"),
        ("syn-unquoted", r#"{name:"get_flag"}"#),
        ("syn-nan", r#"{"name":"get_flag","arguments":{"n":NaN}}"#),
        ("syn-infinity", r#"{"name":"get_flag","arguments":{"n":Infinity}}"#),
        ("syn-leading-zero", r#"{"name":"get_flag","arguments":{"n":01}}"#),
        ("syn-plus", r#"{"name":"get_flag","arguments":{"n":+1}}"#),
        ("syn-hex-escape", r#"{"name":"get_\x41"}"#),
        ("syn-trailing-comma", r#"{"name":"get_flag",}"#),
        ("syn-raw-newline", "{\"name\":\"get_\nflag\"}"),
    ] {
        t.refuse("C2", name, &call(params), -32700);
    }
    t.refuse("C2", "syn-empty", b"", -32700);
}

/// Section D: JSON-RPC.
fn rpc(t: &mut Table) {
    let mut batch = vec![b'['];
    batch.extend_from_slice(&read_call());
    batch.push(b',');
    batch.extend_from_slice(&call(r#"{"name":"delete_flag"}"#));
    batch.push(b']');
    t.refuse("D1", "batch", &batch, -32600);
    t.refuse("D1", "batch-one", &[b"[".as_slice(), &read_call(), b"]"].concat(), -32600);
    t.refuse("D1", "batch-empty", b"[]", -32600);
    t.refuse(
        "D2",
        "notif-call",
        br#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"delete_flag"}}"#,
        -32600,
    );
    for (name, id) in [
        ("id-null", "null"),
        ("id-float", "1.0"),
        ("id-half", "1.5"),
        ("id-true", "true"),
        ("id-object", "{}"),
        ("id-array", "[1]"),
        ("id-exponent", "1e0"),
        ("id-minus-zero", "-0"),
        ("id-2p53", "9007199254740992"),
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"get_flag"}}}}"#
        );
        let row = if name == "id-2p53" { "D6" } else { "D2" };
        t.refuse(row, name, body.as_bytes(), -32600);
    }
    t.refuse(
        "D2",
        "notif-with-id",
        br#"{"jsonrpc":"2.0","id":1,"method":"notifications/initialized"}"#,
        -32600,
    );
    t.refuse("D3", "struct-method-and-result", br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_flag"},"result":{}}"#, -32600);
    t.refuse(
        "D3",
        "struct-method-and-error",
        br#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{"code":1,"message":"x"}}"#,
        -32600,
    );
    t.refuse(
        "D3",
        "struct-result-and-error",
        br#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}"#,
        -32600,
    );
    t.refuse(
        "D4",
        "struct-response-forged",
        br#"{"jsonrpc":"2.0","id":777,"result":{"action":"accept"}}"#,
        -32600,
    );
    t.add(
        "D6",
        "ok-id-string",
        post(
            br#"{"jsonrpc":"2.0","id":"1","method":"tools/call","params":{"name":"get_flag"}}"#,
            "",
        ),
        Client::Answer,
    );
    for (name, version) in
        [("ver-missing", ""), ("ver-1", r#""jsonrpc":"1.0","#), ("ver-number", r#""jsonrpc":2.0,"#)]
    {
        t.refuse("D7", name, format!(r#"{{{version}"id":1,"method":"ping"}}"#).as_bytes(), -32600);
    }
    t.refuse("D8", "args-string", &call(r#"{"name":"delete_flag","arguments":"{}"}"#), -32602);
    t.refuse("D8", "args-array", &call(r#"{"name":"delete_flag","arguments":[]}"#), -32602);
    t.refuse("D8", "name-number", &call(r#"{"name":7}"#), -32602);
    t.refuse(
        "D8",
        "params-array",
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["delete_flag"]}"#,
        -32602,
    );
    for (name, method) in [("method-upper", "TOOLS/CALL"), ("method-space", "tools/call ")] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"delete_flag"}}}}"#
        );
        t.refuse("D9", name, body.as_bytes(), -32600);
    }
    for (name, method) in [
        ("method-slashes", "tools//call"),
        ("method-homoglyph", "tools/с\u{430}ll"),
        ("m-vendor", "debug/eval"),
    ] {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"delete_flag"}}}}"#
        );
        t.add("D9", name, post(body.as_bytes(), ""), Client::Refused(200, -32601));
    }
    t.refuse("D10", "struct-positional", br#"["2.0",1,"tools/call",{}]"#, -32600);
    t.refuse("D10", "struct-string", br#""tools/call""#, -32600);
}

/// Section E: HTTP.
fn http(t: &mut Table) {
    let body = read_call();
    let mismatch = Client::Refused(400, -32020);
    let ambiguous = Client::Refused(400, -32600);
    t.add("E1", "hdr-method", post(&body, "Mcp-Method: tools/list\r\n"), mismatch);
    t.add(
        "E1",
        "hdr-name",
        post(&body, "Mcp-Method: tools/call\r\nMcp-Name: list_flags\r\n"),
        mismatch,
    );
    t.add(
        "E1",
        "ok-hdr",
        post(&body, "Mcp-Method: tools/call\r\nMcp-Name: get_flag\r\n"),
        Client::Answer,
    );
    let modern = call(
        r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}},"name":"get_flag","arguments":{"key":"x"}}"#,
    );
    let at = |version: &str, more: &str, body: &[u8]| {
        raw("POST /mcp HTTP/1.1", &format!("{JSON}{version}{more}"), body)
    };
    let v2026 = "MCP-Protocol-Version: 2026-07-28\r\n";
    let named = "Mcp-Method: tools/call\r\nMcp-Name: get_flag\r\n";
    t.add("E1", "ok-modern", at(v2026, named, &modern), Client::Answer);
    t.add(
        "E1",
        "hdr-modern-without-method",
        at(v2026, "Mcp-Name: get_flag\r\n", &modern),
        mismatch,
    );
    t.add(
        "E1",
        "hdr-modern-without-name",
        at(v2026, "Mcp-Method: tools/call\r\n", &modern),
        mismatch,
    );
    t.add("E2", "hdr-missing-version-but-meta", at("", named, &modern), mismatch);
    t.add("E2", "hdr-version-mismatch", at(LEGACY, named, &modern), mismatch);
    t.add("E2", "hdr-modern-without-meta", at(v2026, named, &body), Client::Refused(400, -32602));
    t.add(
        "E3",
        "hdr-dup-name",
        post(&body, "Mcp-Name: get_flag\r\nMcp-Name: delete_flag\r\n"),
        ambiguous,
    );
    t.add("E3", "hdr-dup-version", post(&body, LEGACY), ambiguous);
    t.add("E3", "hdr-name-list", post(&body, "Mcp-Name: get_flag, delete_flag\r\n"), mismatch);
    t.add(
        "E4",
        "hdr-b64-upper-marker",
        post(&body, "Mcp-Name: =?BASE64?Z2V0X2ZsYWc=?=\r\n"),
        mismatch,
    );
    t.add(
        "E4",
        "hdr-b64-not-canonical",
        post(&body, "Mcp-Name: =?base64?Z2V0X2ZsYWd=?=\r\n"),
        mismatch,
    );
    t.add(
        "E4",
        "hdr-b64-method",
        post(&body, "Mcp-Method: =?base64?dG9vbHMvY2FsbA==?=\r\n"),
        mismatch,
    );
    t.add("E4", "ok-b64", post(&body, "Mcp-Name: =?base64?Z2V0X2ZsYWc=?=\r\n"), Client::Answer);
    t.add(
        "E5",
        "hdr-connection-strip",
        post(&body, "Connection: close, MCP-Protocol-Version\r\n"),
        ambiguous,
    );
    t.add("E5", "ok-connection-close", post(&body, "Connection: close\r\n"), Client::Answer);
    let chunked = |te: &str, more: &str, tail: &str| {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{JSON}{LEGACY}{more}Transfer-Encoding: {te}\r\n\r\n"
        );
        [
            head.as_bytes(),
            format!("{:x}\r\n", body.len()).as_bytes(),
            &body,
            b"\r\n0\r\n",
            tail.as_bytes(),
            b"\r\n",
        ]
        .concat()
    };
    t.add("E6", "raw-cl-te", chunked("chunked", "Content-Length: 4\r\n", ""), Client::Cut);
    t.add("E6", "raw-te-cl", {
        let head = format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{JSON}{LEGACY}Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    }, Client::Cut);
    t.add("E6", "raw-two-lengths", post(&body, "Content-Length: 3\r\n"), Client::Cut);
    t.add("E7", "raw-te-gzip-chunked", chunked("gzip, chunked", "", ""), Client::Cut);
    t.add("E7", "raw-te-identity", chunked("identity", "", ""), Client::Cut);
    t.add("E8", "raw-chunk-lf-ext", {
        let head = format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{JSON}{LEGACY}Transfer-Encoding: chunked\r\n\r\n");
        [head.as_bytes(), format!("{:x};a\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat()
    }, Client::Cut);
    t.add("E8", "raw-chunk-overflow", {
        let head = format!("POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n{JSON}{LEGACY}Transfer-Encoding: chunked\r\n\r\n");
        [head.as_bytes(), b"fffffffffffffffff\r\n", &body, b"\r\n0\r\n\r\n"].concat()
    }, Client::Cut);
    t.add(
        "E10",
        "m-put",
        raw("PUT /mcp HTTP/1.1", &format!("{JSON}{LEGACY}"), &body),
        Client::Refused(405, -32600),
    );
    t.add("E10", "m-trace", raw("TRACE /mcp HTTP/1.1", "", b""), Client::Refused(405, -32600));
    t.add("E10", "m-options", raw("OPTIONS /mcp HTTP/1.1", "", b""), Client::Refused(405, -32600));
    t.add(
        "E10",
        "m-get-body",
        raw("GET /mcp HTTP/1.1", &format!("{JSON}{LEGACY}"), &body),
        ambiguous,
    );
    for (name, path) in [
        ("p-double", "//mcp"),
        ("p-dots", "/mcp/../mcp"),
        ("p-encoded", "/%6dcp"),
        ("p-slash", "/mcp/"),
        ("p-params", "/mcp;x"),
        ("p-case", "/MCP"),
        ("p-query", "/mcp?environment=production"),
        ("p-admin", "/admin"),
        ("p-metrics", "/metrics"),
        ("p-root", "/"),
    ] {
        t.add(
            "E11",
            name,
            raw(&format!("POST {path} HTTP/1.1"), &format!("{JSON}{LEGACY}"), &body),
            Client::Refused(404, -32600),
        );
    }
    t.add(
        "E12",
        "p-absolute",
        raw("POST http://evil.example/mcp HTTP/1.1", &format!("{JSON}{LEGACY}"), &body),
        Client::Refused(403, -32600),
    );
    t.add(
        "E12",
        "raw-two-hosts",
        post(&body, "Host: evil.example\r\n"),
        Client::Refused(403, -32600),
    );
    t.add(
        "E12",
        "raw-no-host",
        {
            let head = format!(
                "POST /mcp HTTP/1.1\r\n{JSON}{LEGACY}Content-Length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), &body].concat()
        },
        Client::Refused(403, -32600),
    );
    t.add("E12", "hdr-host-rebinding", {
        let head = format!("POST /mcp HTTP/1.1\r\nHost: evil.example\r\n{JSON}{LEGACY}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    }, Client::Refused(403, -32600));
    for (name, origin) in [
        ("hdr-origin-foreign", "http://localhost.evil.example"),
        ("hdr-origin-null", "null"),
        ("hdr-origin-https-twin", "https://127.0.0.1.evil.example"),
    ] {
        t.add(
            "E13",
            name,
            post(&body, &format!("Origin: {origin}\r\n")),
            Client::Refused(403, -32600),
        );
    }
    t.add(
        "E13",
        "ok-origin-loopback",
        post(&body, "Origin: http://localhost:3000\r\n"),
        Client::Answer,
    );
    t.add(
        "E14",
        "raw-upgrade-websocket",
        post(&body, "Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        ambiguous,
    );
    t.add("E14", "raw-upgrade-h2c", post(&body, "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), ambiguous);
    t.add("E14", "raw-connect", raw("CONNECT evil.example:443 HTTP/1.1", "", b""), Client::Cut);
    t.add("E15", "h1-header-bomb", post(&body, &"X: y\r\n".repeat(300)), Client::Cut);
    t.add(
        "E17",
        "body-over-limit",
        post(
            &call(&format!(
                r#"{{"name":"get_flag","arguments":{{"k":"{}"}}}}"#,
                "a".repeat(5 << 20)
            )),
            "",
        ),
        Client::Refused(413, -32600),
    );
}

/// Section H: environment pins; the server is pinned to `staging`.
fn pins(t: &mut Table) {
    let update = |arguments: &str| format!(r#"{{"name":"update_flag","arguments":{arguments}}}"#);
    t.pass(
        "H1",
        "ok-env-staging",
        &call(&update(r#"{"key":"x","environment":"staging","enabled":true}"#)),
    );
    for (row, name, arguments) in [
        ("H1", "env-missing", r#"{"key":"x","enabled":true}"#),
        ("H1", "env-null", r#"{"key":"x","environment":null,"enabled":true}"#),
        ("H1", "env-empty", r#"{"key":"x","environment":"","enabled":true}"#),
        ("H1", "env-number", r#"{"key":"x","environment":1,"enabled":true}"#),
        ("H1", "env-true", r#"{"key":"x","environment":true,"enabled":true}"#),
        ("H1", "env-production", r#"{"key":"x","environment":"production","enabled":true}"#),
        ("H2", "env-array", r#"{"key":"x","environment":["staging","production"],"enabled":true}"#),
        ("H2", "env-object", r#"{"key":"x","environment":{"$ne":"staging"},"enabled":true}"#),
        ("H3", "env-alias", r#"{"key":"x","env":"staging","enabled":true}"#),
        (
            "H3",
            "env-alias-nested",
            r#"{"key":"x","target":{"environment":"staging"},"enabled":true}"#,
        ),
        (
            "H3",
            "env-json-in-string",
            r#"{"key":"x","environment":"{\"name\":\"staging\"}","enabled":true}"#,
        ),
        ("H4", "env-casevariant", r#"{"key":"x","Environment":"staging","enabled":true}"#),
        (
            "H4",
            "env-homoglyph",
            "{\"key\":\"x\",\"environment\":\"st\u{430}ging\",\"enabled\":true}",
        ),
        ("H4", "env-trailing-space", r#"{"key":"x","environment":"staging ","enabled":true}"#),
    ] {
        t.deny(row, name, &update(arguments));
    }
    t.deny(
        "H2",
        "env-list-mixed",
        r#"{"name":"create_flag","arguments":{"key":"x","environments":["staging","production"]}}"#,
    );
    t.pass(
        "H2",
        "ok-env-list",
        &call(r#"{"name":"create_flag","arguments":{"key":"x","environments":["staging"]}}"#),
    );
    t.deny(
        "H2",
        "env-list-empty",
        r#"{"name":"create_flag","arguments":{"key":"x","environments":[]}}"#,
    );
}

#[test]
fn every_row_of_the_catalogue_is_answered_as_it_must_be() {
    let firewall = Firewall::start();
    let mut table = Table::default();
    for part in [json_keys, bytes, syntax, rpc, http, pins] {
        part(&mut table);
    }
    let mut wrong = Vec::new();
    for case in &table.0 {
        if let Err(why) = check(&firewall, case) {
            wrong.push(format!("{} {}: {why}", case.row, case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), table.0.len(), wrong.join("\n"));
    let rows: std::collections::BTreeSet<_> = table.0.iter().map(|case| case.row).collect();
    for (section, last) in [("A", 15), ("B", 8), ("D", 10), ("H", 4)] {
        for row in 1..=last {
            let row = format!("{section}{row}");
            // D5 needs two calls at once: `threats_http`.
            assert!(rows.contains(row.as_str()) || row == "D5", "row {row} has no case");
        }
    }
}

fn check(firewall: &Firewall, case: &Case) -> Result<(), String> {
    let before = firewall.received().len();
    let (status, body) = exchange(firewall, &case.request);
    let received: Vec<Received> = firewall.received().split_off(before);
    match case.upstream {
        Upstream::Nothing if !received.is_empty() => {
            return Err(format!("reached the upstream: {received:?}"));
        }
        Upstream::Same if received.len() != 1 => {
            return Err(format!(
                "{} requests reached the upstream; client got {status} {}",
                received.len(),
                String::from_utf8_lossy(&body)
            ));
        }
        Upstream::Same if received[0].body != case.body => {
            return Err(format!("other bytes reached the upstream: {:?}", received[0]));
        }
        Upstream::Nothing | Upstream::Same => {}
    }
    let text = String::from_utf8_lossy(&body);
    match case.client {
        Client::Answer if status == 200 && body == odd_answer(&case.body) => Ok(()),
        Client::Refused(wanted, code)
            if status == wanted
                && text.contains(&format!("\"code\":{code},"))
                && text.contains("decision_id") =>
        {
            Ok(())
        }
        Client::Cut if status == 0 || (400..500).contains(&status) => Ok(()),
        Client::Answer | Client::Refused(..) | Client::Cut => {
            Err(format!("client got {status} {text}, expected {:?}", case.client))
        }
    }
}

/// Sends raw bytes on a fresh connection and reads one answer: status (0 for none) and body.
fn exchange(firewall: &Firewall, request: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(firewall.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A refusal may come, and the connection close, before all is sent.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    let mut chunk = [0; 16384];
    while let Ok(read) = stream.read(&mut chunk) {
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&chunk[..read]);
        if let Some(whole) = parse(&answer) {
            return whole;
        }
    }
    parse(&answer).unwrap_or((0, answer))
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.get(9..12)?.parse().ok()?;
    let length: usize = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")
                .map(|n| n.trim().parse().unwrap())
        })
        .unwrap_or(0);
    let body = answer.get(end + 4..end + 4 + length)?;
    Some((status, body.to_vec()))
}
