//! Reading frames: the rows of the bypass catalogue that one frame can carry, their benign
//! look-alikes, and the properties that hold for every frame.
//!
//! A case is named for its row: the letter and number of the catalogue's section, then what is
//! tried. What the upstream receives is not looked at here; `step` and `edge` tests do that.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod properties;

#[expect(
    clippy::disallowed_methods,
    clippy::arithmetic_side_effects,
    clippy::float_cmp,
    reason = "the fuzzer's invariants, which compare with the reader that is banned elsewhere"
)]
#[path = "../../fuzz/src/reading.rs"]
pub(crate) mod reading;

use bartizan::gate::document::{Document, DocumentLimits, Kind, Unreadable, write_string};
use bartizan::gate::frame::{
    Frame, FrameLimits, Id, Malformed, Message, Sender, is_plain_name, write_id,
};
use bytes::Bytes;

pub(crate) fn read(raw: impl AsRef<[u8]>, sender: Sender) -> Result<Frame, Malformed> {
    Frame::read(Bytes::copy_from_slice(raw.as_ref()), sender, &FrameLimits::default())
}

pub(crate) fn document(raw: impl AsRef<[u8]>) -> Result<Document, Unreadable> {
    Document::read(Bytes::copy_from_slice(raw.as_ref()), &DocumentLimits::default())
}

/// The name of a refusal, without positions.
fn fault(malformed: &Malformed) -> String {
    let named = |debug: String| debug.split([' ', '{']).next().unwrap_or_default().to_owned();
    match malformed {
        Malformed::Unreadable(unreadable) => named(format!("{unreadable:?}")),
        Malformed::BadParams { member } => format!("BadParams {member}"),
        other => named(format!("{other:?}")),
    }
}

/// A call of `get_x` with `text` put behind its name, inside `params`.
fn in_params(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get_x"{text}}}}}"#)
}

/// A call of `get_x` with these arguments.
fn with_arguments(arguments: &str) -> String {
    in_params(&format!(r#","arguments":{arguments}"#))
}

/// A call of `get_x` with `text` put behind the envelope's first member.
fn in_envelope(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0"{text},"id":1,"method":"tools/call","params":{{"name":"get_x"}}}}"#)
}

/// A call with this literal for its id.
fn with_id(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"get_x"}}}}"#)
}

/// A request of `method` with these `params`.
fn asking(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method},"params":{params}}}"#)
}

/// One thing said by one side, and how it must be refused.
type Case = (&'static str, Vec<u8>, &'static str);

fn check(sender: Sender, cases: impl IntoIterator<Item = Case>) {
    for (name, raw, wanted) in cases {
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let found = match read(&raw, sender) {
            Ok(frame) => format!("accepted as {:?}", frame.message()),
            Err(malformed) => fault(&malformed),
        };
        assert_eq!(found, wanted, "{name}: {:.200}", shown);
        reading::frame(&raw);
    }
}

fn case(name: &'static str, raw: impl Into<Vec<u8>>, wanted: &'static str) -> Case {
    (name, raw.into(), wanted)
}

#[test]
fn names_that_two_readers_take_differently_are_refused() {
    let dup = "DuplicateName";
    let alike = "LookAlike";
    let reserved = "ReservedName";
    check(
        Sender::Client,
        [
            // A1 to A3: one name twice, at any depth, however it is spelt.
            case("a1 dup-name-last", in_params(r#","name":"delete_x""#), dup),
            case("a1 dup-name-same-value", in_params(r#","name":"get_x""#), dup),
            case("a2 dup-name-escaped", in_params(r#","n\u0061me":"delete_x""#), dup),
            case("a2 dup-env-escaped", with_arguments(r#"{"env":"a","\u0065nv":"b"}"#), dup),
            case("a2 dup-surrogate-key", with_arguments(r#"{"😀":1,"\ud83d\uDE00":2}"#), dup),
            case("a2 dup-empty", with_arguments(r#"{"":1,"":2}"#), dup),
            case("a3 dup-jsonrpc", in_envelope(r#","jsonrpc":"2.0""#), dup),
            case("a3 dup-id", in_envelope(r#","id":2"#), dup),
            case("a3 dup-method", in_envelope(r#","method":"ping""#), dup),
            case("a3 dup-method-escaped", in_envelope(r#","\u006dethod":"ping""#), dup),
            case("a3 dup-params-merge", in_envelope(r#","params":{"arguments":{}}"#), dup),
            case("a3 dup-args", in_params(r#","arguments":{},"arguments":{"a":1}"#), dup),
            case("a3 dup-deep", with_arguments(r#"{"a":[[{"b":{"c":1,"d":2,"c":3}}]]}"#), dup),
            case("a3 dup-many", with_arguments(&many_names(500, Some(250))), dup),
            case("a3 dup-first-of-many", with_arguments(&many_names(13, Some(0))), dup),
            case("a3 dup-last-of-few", with_arguments(&many_names(11, Some(10))), dup),
            // A4 to A6: a name that folds to a known one.
            case("a4 case-method", in_envelope(r#","Method":"ping""#), alike),
            case("a4 case-jsonrpc", in_envelope(r#","JSONRPC":"2.0""#), alike),
            case("a4 case-id", in_envelope(r#","ID":2"#), alike),
            case("a4 case-result", in_envelope(r#","Result":{}"#), alike),
            case("a4 case-name", in_params(r#","Name":"delete_x""#), alike),
            case("a4 case-name-escaped", in_params(r#","\u004eame":"delete_x""#), alike),
            case("a4 case-arguments", in_params(r#","ARGUMENTS":{}"#), alike),
            case("a4 case-meta", in_params(r#","_Meta":{}"#), alike),
            case("a4 case-task", in_params(r#","taskid":"t""#), alike),
            case("a4 case-state", in_params(r#","RequestState":"s""#), alike),
            case("a5 fold-params", in_envelope(",\"param\u{17f}\":{}"), alike),
            case("a5 fold-params-escaped", in_envelope(r#","param\u017f":{}"#), alike),
            case("a5 fold-kelvin", in_params(",\"tas\u{212a}\":{}"), alike),
            case("a5 fold-dotless", in_envelope(",\"\u{131}d\":2"), alike),
            case("a5 fold-full-width", in_params(",\"ｎａｍｅ\":\"delete_x\""), alike),
            case("a6 nul-key", in_params(r#","name\u0000":"delete_x""#), alike),
            case("a6 nul-key-method", in_envelope(r#","method\u0000":"ping""#), alike),
            case("a6 nul-key-first", in_params(r#","\u0000name":"delete_x""#), alike),
            case("a6 space-key", in_params(r#"," name":"delete_x""#), alike),
            case("a6 zero-width-key", in_params(",\"name\u{200b}\":\"delete_x\""), alike),
            // A7 and A8: names that act on the reader itself.
            case(
                "a7 magic-raw-value",
                with_arguments(r#"{"$serde_json::private::RawValue":"{}"}"#),
                reserved,
            ),
            case(
                "a7 magic-number",
                with_arguments(r#"{"$serde_json::private::Number":"1e400"}"#),
                reserved,
            ),
            case(
                "a7 magic-spanned",
                with_arguments(r#"{"$__serde_spanned_private_start":1}"#),
                reserved,
            ),
            case(
                "a7 magic-escaped",
                with_arguments(r#"{"\u0024serde_json::private::Number":"1"}"#),
                reserved,
            ),
            case("a7 magic-top", r#"{"$serde_json::private::RawValue":"{}"}"#, reserved),
            case(
                "a8 proto",
                with_arguments(r#"{"__proto__":{"environment":"production"}}"#),
                reserved,
            ),
            case("a8 proto-escaped", with_arguments(r#"{"\u005f_proto__":{}}"#), reserved),
            case("a8 proto-deep", with_arguments(r#"{"a":[{"__proto__":{}}]}"#), reserved),
        ],
    );
}

/// `{"n0":0,…}` with, where asked, the name of one member again at the end.
fn many_names(count: usize, again: Option<usize>) -> String {
    let names = (0..count).chain(again).map(|number| format!(r#""name-of-{number}":0"#));
    format!("{{{}}}", names.collect::<Vec<_>>().join(","))
}

#[test]
fn values_that_two_readers_take_differently_are_refused() {
    let number = "BadNumber";
    let not_json = "NotJson";
    let lone = "LoneSurrogate";
    let nested = |depth: usize| with_arguments(&nested(depth));
    check(
        Sender::Client,
        [
            // A12 and A13: numbers.
            case("a12 syn-1e400", with_arguments(r#"{"n":1e400}"#), number),
            case("a12 syn-minus-1e400", with_arguments(r#"{"n":-1E+400}"#), number),
            case("a12 syn-just-too-big", with_arguments(r#"{"n":1.7976931348623159e308}"#), number),
            case("a13 syn-huge-exponent", with_arguments(r#"{"n":1e999999999}"#), number),
            case(
                "a13 syn-digits-5000",
                with_arguments(&format!("{{\"n\":{}}}", "9".repeat(5000))),
                number,
            ),
            case(
                "a13 syn-digits-257",
                with_arguments(&format!("{{\"n\":{}}}", "1".repeat(257))),
                number,
            ),
            // A14: depth. The envelope, `params` and `arguments` are three levels themselves.
            case("a14 depth-65", nested(63), "TooDeep"),
            case("a14 depth-100000", nested(100_000), "TooDeep"),
            case("a14 depth-unclosed", "[".repeat(1 << 20), "TooDeep"),
            case("a14 depth-objects", r#"{"a":"#.repeat(1 << 18), "TooDeep"),
            // A15: half of a surrogate pair.
            case("a15 enc-lone-high", with_arguments(r#"{"a":"\ud800"}"#), lone),
            case("a15 enc-lone-low", with_arguments(r#"{"a":"\udc00"}"#), lone),
            case("a15 enc-lone-high-then-text", with_arguments(r#"{"a":"\ud83dx"}"#), lone),
            case("a15 enc-lone-two-highs", with_arguments(r#"{"a":"\ud83d\ud83d"}"#), lone),
            case("a15 enc-lone-swapped", with_arguments(r#"{"a":"\ude00\ud83d"}"#), lone),
            case("a15 enc-lone-high-then-escape", with_arguments(r#"{"a":"\ud83d\n"}"#), lone),
            case("a15 enc-lone-key", with_arguments(r#"{"\udfff":1}"#), lone),
            // C1: something behind the value.
            case("c1 syn-trailing-object", with_id("1") + &with_id("2"), not_json),
            case("c1 syn-trailing-comma", with_id("1") + ",", not_json),
            case("c1 syn-trailing-nul", with_id("1") + "\0", not_json),
            case("c1 syn-trailing-line", with_id("1") + "\n" + &with_id("2"), not_json),
            case("c1 syn-empty", "", not_json),
            case("c1 syn-space", " \n", not_json),
            case("c1 syn-leading-separator", "\u{1e}".to_owned() + &with_id("1"), not_json),
            case(
                "c1 syn-length-prefix",
                format!("Content-Length: 60\r\n\r\n{}", with_id("1")),
                not_json,
            ),
        ],
    );
    // C2: what lenient readers take.
    for arguments in [
        "{/**/}",
        "{//\n}",
        "{#\n}",
        "{'a':1}",
        "{a:1}",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-Infinity}",
        "{\"a\":01}",
        "{\"a\":-}",
        "{\"a\":-01}",
        "{\"a\":+1}",
        "{\"a\":.5}",
        "{\"a\":1.}",
        "{\"a\":1e}",
        "{\"a\":1e+}",
        "{\"a\":0x1}",
        "{\"a\":1_000}",
        "{\"a\":00}",
        "{\"a\":\"\\x41\"}",
        "{\"a\":\"\\'\"}",
        "{\"a\":\"\\u00g0\"}",
        "{\"a\":\"\\u+123\"}",
        "{\"a\":\"\\u 123\"}",
        "{\"a\":\"\\U0041\"}",
        "{\"a\":\"\t\"}",
        "{\"a\":\"\n\"}",
        "{\"a\":\"\r\"}",
        "{\"a\":\"\0\"}",
        "{\"a\":\"\u{1f}\"}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\" 1}",
        "{\"a\"::1}",
        "{\"a\":1 \"b\":2}",
        "{1:1}",
        "{null:1}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{\"a\":1]",
        "True",
        "TRUE",
        "nul",
        "nulll",
        "undefined",
        "\u{a0}{}",
        "{}\u{c}",
        "\u{b}{}",
        "\u{2028}{}",
        "{\"a\":tru}",
        "{\"a\":\"x}",
        "{\"a\":`x`}",
        "{\"a\":1;}",
    ] {
        check(Sender::Client, [case("c2 syn", with_arguments(arguments), not_json)]);
    }
}

/// `arguments` nested so deep, itself included.
fn nested(depth: usize) -> String {
    let inner = depth.saturating_sub(1);
    format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
}

#[test]
fn bytes_that_are_not_plain_utf_8_are_refused() {
    let utf16 = |to_bytes: fn(u16) -> [u8; 2]| {
        with_id("1").encode_utf16().flat_map(to_bytes).collect::<Vec<_>>()
    };
    let call = with_id("1");
    let utf32 = call.chars().flat_map(|char| u32::from(char).to_le_bytes());
    let around = |bytes: &[u8]| {
        [b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools", bytes, b"call\"}"].concat()
    };
    check(
        Sender::Client,
        [
            // B2 and B4: other encodings of Unicode, labelled by their first bytes or not at all.
            case("b2 enc-utf16le", utf16(u16::to_le_bytes), "NotJson"),
            case("b2 enc-utf16be", utf16(u16::to_be_bytes), "NotJson"),
            case(
                "b2 enc-utf16-bom",
                [&[0xff, 0xfe], &*utf16(u16::to_le_bytes)].concat(),
                "NotUtf8",
            ),
            case("b2 enc-utf32le", utf32.collect::<Vec<_>>(), "NotJson"),
            case("b4 enc-utf8-bom", "\u{feff}".to_owned() + &with_id("1"), "NotUtf8"),
            case("b4 enc-utf8-bom-after-space", " \u{feff}".to_owned() + &with_id("1"), "NotJson"),
            case("b4 enc-utf8-bom-alone", "\u{feff}", "NotUtf8"),
            // B5: bytes that lossy readers repair.
            case("b5 enc-overlong-slash", around(b"\xc0\xaf"), "NotUtf8"),
            case("b5 enc-overlong-slash-3", around(b"\xe0\x80\xaf"), "NotUtf8"),
            case("b5 enc-overlong-nul", around(b"\xc0\x80"), "NotUtf8"),
            case("b5 enc-invalid-byte", around(b"\xff"), "NotUtf8"),
            case("b5 enc-invalid-cut", around(b"\xe2\x80"), "NotUtf8"),
            case("b5 enc-invalid-continuation", around(b"\x80"), "NotUtf8"),
            case("b5 enc-invalid-surrogate", around(b"\xed\xa0\x80"), "NotUtf8"),
            case("b5 enc-invalid-beyond", around(b"\xf4\x90\x80\x80"), "NotUtf8"),
            case("b5 enc-invalid-behind", [with_id("1").as_bytes(), b"\xff"].concat(), "NotUtf8"),
        ],
    );
}

#[test]
fn messages_that_two_readers_take_for_different_ones_are_refused() {
    let (id, shape, version, method) = ("BadId", "Shape", "Version", "BadMethod");
    check(
        Sender::Client,
        [
            // D1 and D10: not an object.
            case("d1 batch", format!("[{}]", with_id("1")), "Batch"),
            case("d1 batch-two", format!("[{},{}]", with_id("1"), with_id("2")), "Batch"),
            case("d1 batch-empty", "[]", "Batch"),
            case("d10 struct-positional", r#"["2.0",1,"tools/call",{}]"#, "Batch"),
            case("d10 struct-string", r#""tools/call""#, "NotObject"),
            case("d10 struct-number", "1", "NotObject"),
            case("d10 struct-null", "null", "NotObject"),
            // D2 and D6: ids.
            case(
                "d2 notif-call",
                r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#,
                id,
            ),
            case("d2 notif-with-id", r#"{"jsonrpc":"2.0","id":1,"method":"notifications/x"}"#, id),
            case(
                "d2 notif-null-id",
                r#"{"jsonrpc":"2.0","id":null,"method":"notifications/x"}"#,
                id,
            ),
            case("d2 notif-near", r#"{"jsonrpc":"2.0","method":"Notifications/x"}"#, id),
            case("d2 id-null", with_id("null"), id),
            case("d2 id-float", with_id("1.0"), id),
            case("d2 id-half", with_id("1.5"), id),
            case("d2 id-exponent", with_id("1e0"), id),
            case("d2 id-minus-zero", with_id("-0"), id),
            case("d2 id-true", with_id("true"), id),
            case("d2 id-object", with_id("{}"), id),
            case("d2 id-array", with_id("[1]"), id),
            case("d2 id-long", with_id(&format!("\"{}\"", "a".repeat(257))), id),
            case("d2 id-long-escaped", with_id(&format!("\"{}\"", "\\u00e9".repeat(129))), id),
            case("d6 id-2p53", with_id("9007199254740992"), id),
            case("d6 id-2p53p1", with_id("9007199254740993"), id),
            case("d6 id-minus-2p53", with_id("-9007199254740992"), id),
            case("d6 id-40-digits", with_id(&"1".repeat(40)), id),
            // D3: two kinds of message at once, or none.
            case("d3 struct-method-and-result", in_envelope(r#","result":{}"#), shape),
            case(
                "d3 struct-method-and-error",
                in_envelope(r#","error":{"code":1,"message":""}"#),
                shape,
            ),
            case("d3 struct-method-and-null-result", in_envelope(r#","result":null"#), shape),
            case(
                "d3 struct-result-and-error",
                r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}"#,
                shape,
            ),
            case(
                "d3 struct-result-and-params",
                r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
                shape,
            ),
            case("d3 struct-none", r#"{"jsonrpc":"2.0","id":1}"#, shape),
            case("d3 struct-only-params", r#"{"jsonrpc":"2.0","id":1,"params":{}}"#, shape),
            // D7: another version, or none.
            case("d7 ver-missing", r#"{"id":1,"method":"ping"}"#, version),
            case("d7 ver-1", r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, version),
            case("d7 ver-number", r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, version),
            case("d7 ver-null", r#"{"jsonrpc":null,"id":1,"method":"ping"}"#, version),
            case("d7 ver-space", r#"{"jsonrpc":"2.0 ","id":1,"method":"ping"}"#, version),
            // D9 is policy's; but a method must be a text.
            case("d9 method-empty", asking(r#""""#, "{}"), method),
            case("d9 method-null", asking("null", "{}"), method),
            case("d9 method-array", asking(r#"["tools/call"]"#, "{}"), method),
        ],
    );
}

#[test]
fn params_that_two_readers_take_differently_are_refused() {
    // D8 and the rest of P10, row by row.
    for (method, params, wanted) in [
        (r#""ping""#, "null", "BadParams params"),
        (r#""ping""#, "[]", "BadParams params"),
        (r#""vendor/x""#, r#""{}""#, "BadParams params"),
        (r#""tools/call""#, "null", "BadParams params"),
        (r#""tools/call""#, "{}", "BadParams name"),
        (r#""tools/call""#, r#"{"name":1}"#, "BadParams name"),
        (r#""tools/call""#, r#"{"name":null}"#, "BadParams name"),
        (r#""tools/call""#, r#"{"name":["get_x"]}"#, "BadParams name"),
        (r#""tools/call""#, r#"{"name":"x","arguments":"{\"a\":1}"}"#, "BadParams arguments"),
        (r#""tools/call""#, r#"{"name":"x","arguments":[]}"#, "BadParams arguments"),
        (r#""tools/call""#, r#"{"name":"x","arguments":0}"#, "BadParams arguments"),
        (r#""tools/call""#, r#"{"name":"x","arguments":false}"#, "BadParams arguments"),
        (r#""tools\/call""#, r#"{"name":"x","arguments":[]}"#, "BadParams arguments"),
        (r#""prompts/get""#, r#"{"name":{}}"#, "BadParams name"),
        (r#""prompts/get""#, r#"{"name":"x","arguments":[]}"#, "BadParams arguments"),
        (r#""resources/read""#, "{}", "BadParams uri"),
        (r#""resources/read""#, r#"{"uri":["file:///a"]}"#, "BadParams uri"),
        (r#""resources/subscribe""#, r#"{"uri":null}"#, "BadParams uri"),
        (r#""resources/unsubscribe""#, r#"{"uri":{}}"#, "BadParams uri"),
        (r#""completion/complete""#, r#"{"ref":"ref/prompt"}"#, "BadParams ref"),
        (r#""completion/complete""#, r#"{"ref":null}"#, "BadParams ref"),
        (r#""tasks/get""#, r#"{"taskId":1}"#, "BadParams taskId"),
        (r#""tasks/cancel""#, "{}", "BadParams taskId"),
        (r#""tasks/result""#, r#"{"taskId":null}"#, "BadParams taskId"),
        (r#""tasks/update""#, r#"{"taskId":[]}"#, "BadParams taskId"),
    ] {
        for sender in [Sender::Client, Sender::Server] {
            check(sender, [case("d8 params", asking(method, params), wanted)]);
        }
    }
    for method in ["tools/call", "prompts/get", "resources/read", "tasks/get"] {
        let raw = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        check(Sender::Client, [case("d8 no-params", raw, "BadParams params")]);
    }
}

#[test]
fn answers_are_read_by_who_sent_them() {
    let answer = |id: &str, rest: &str| format!(r#"{{"jsonrpc":"2.0"{id},{rest}}}"#);
    let error = r#""error":{"code":-32700,"message":"no"}"#;
    let more = r#""error":{"code":1,"message":"no","data":null,"cause":{}}"#;
    for (id, rest, client, server) in [
        (r#","id":1"#, r#""result":{}"#, "Result", "Result"),
        ("", r#""result":{}"#, "BadId", "BadId"),
        (r#","id":null"#, r#""result":{}"#, "BadId", "BadId"),
        (r#","id":1"#, r#""result":null"#, "Shape", "Shape"),
        (r#","id":1"#, r#""result":[]"#, "Shape", "Shape"),
        (r#","id":1"#, r#""result":"ok""#, "Shape", "Shape"),
        (r#","id":"a""#, error, "Error", "Error"),
        ("", error, "BadId", "Error"),
        (r#","id":null"#, error, "BadId", "Error"),
        (r#","id":1.0"#, error, "BadId", "BadId"),
        (r#","id":1"#, more, "Shape", "Error"),
        (r#","id":1"#, r#""error":{"code":1}"#, "Shape", "Shape"),
        (r#","id":1"#, r#""error":{"message":"no"}"#, "Shape", "Shape"),
        (r#","id":1"#, r#""error":{"code":1.0,"message":"no"}"#, "Shape", "Shape"),
        (r#","id":1"#, r#""error":{"code":"1","message":"no"}"#, "Shape", "Shape"),
        (r#","id":1"#, r#""error":{"code":1,"message":null}"#, "Shape", "Shape"),
        (r#","id":1"#, r#""error":"no""#, "Shape", "Shape"),
        (r#","id":1"#, r#""error":null"#, "Shape", "Shape"),
    ] {
        let raw = answer(id, rest);
        for (sender, wanted) in [(Sender::Client, client), (Sender::Server, server)] {
            let found = match read(&raw, sender).map(|frame| frame.message().clone()) {
                Ok(Message::Result { .. }) => "Result".to_owned(),
                Ok(Message::Error { .. }) => "Error".to_owned(),
                Ok(other) => format!("{other:?}"),
                Err(malformed) => fault(&malformed),
            };
            assert_eq!(found, wanted, "{sender:?}: {raw}");
        }
    }
    let unknown = read(answer("", error), Sender::Server).unwrap();
    assert_eq!(unknown.message(), &Message::Error { id: None, code: -32700 });
}

#[test]
fn look_alikes_of_attacks_pass_untouched() {
    for (name, raw) in [
        ("ok-constructor-key", with_arguments(r#"{"constructor":{"prototype":1},"prototype":2}"#)),
        ("ok-proto-near", with_arguments(r#"{"__proto":1,"proto__":2,"__Proto__":3,"serde":4,"$ser":5}"#)),
        ("ok-bigint", with_arguments(&format!(r#"{{"n":{}}}"#, "1".repeat(40)))),
        ("ok-bigint-256", with_arguments(&format!(r#"{{"n":{}}}"#, "9".repeat(256)))),
        ("ok-numbers-exact", with_arguments(r#"{"n":[-0,0,-0.0,1.0,1e2,1E+2,1e-400,0e999999,1.7976931348623157e308]}"#)),
        ("ok-utf7-looking", in_params(r#","arguments":{},"z":"+ACI-,+ACI-name+ACI-:+ACI-delete_x""#)),
        ("ok-emoji-flags", with_arguments("{\"🇩🇪\":\"🏴\u{e0067}\u{e0062}\u{e007f} 👩\u{200d}💻\"}")),
        ("ok-surrogate-pair", with_arguments(r#"{"a":"\ud83d\ude00\uD83D\uDE00"}"#)),
        ("ok-nul-in-value", with_arguments(r#"{"a":"x\u0000y"}"#)),
        ("ok-bom-in-value", with_arguments("{\"a\":\"\u{feff}\"}")),
        ("ok-separators-in-value", with_arguments("{\"a\":\"\u{85}\u{2028}\u{2029}\"}")),
        ("ok-odd-spacing", "\r\n\t {\n \"jsonrpc\" :\t\"2.0\" , \"id\" : 1 ,\r\"method\":\"tools/call\",\"params\":{ \"name\" : \"get_x\" } } \n".to_owned()),
        ("ok-escaped-names", r#"{"\u006asonrpc":"\u0032.0","i\u0064":1,"method":"tools\/call","params":{"n\u0061me":"get_x"}}"#.to_owned()),
        ("ok-args-case", with_arguments(r#"{"Name":1,"name":2,"NAME":3,"name\u0000":4,"param\u017f":5}"#)),
        ("ok-meta-case", in_params(r#","_meta":{"Name":1,"Params":2}"#)),
        ("ok-equal-names-apart", with_arguments(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#)),
        ("ok-names-of-one-head", with_arguments(r#"{"environment":1,"environments":2,"environ":3,"environm":4}"#)),
        ("ok-nul-names", with_arguments(r#"{"":1,"\u0000":2,"\u0000\u0000":3,"a":4,"\u0000a":5,"a\u0000":6}"#)),
        ("ok-many-names", with_arguments(&many_names(5000, None))),
        ("ok-unknown-members", in_envelope(r#","x-trace":"1","názov":[]"#)),
        ("ok-unknown-params", in_params(r#","names":[],"título":1,"n\u0430me":2,"naming":3"#)),
        ("ok-null-arguments", with_arguments("null")),
        ("ok-depth-64", with_arguments(&nested(62))),
        ("ok-id-edge", with_id("9007199254740991")),
        ("ok-id-low-edge", with_id("-9007199254740991")),
        ("ok-id-zero", with_id("0")),
        ("ok-id-empty", with_id("\"\"")),
        ("ok-id-256", with_id(&format!("\"{}\"", "a".repeat(256)))),
        ("ok-no-params", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned()),
        ("ok-notification", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()),
    ] {
        let frame = read(&raw, Sender::Client)
            .unwrap_or_else(|malformed| panic!("{name}: refused: {malformed:?}: {raw:.200}"));
        assert_eq!(frame.document().raw(), raw.as_bytes(), "{name}");
        reading::frame(raw.as_bytes());
        reading::minify(raw.as_bytes());
    }
}

#[test]
fn a_refusal_names_the_place() {
    for (raw, wanted) in [
        (r#"{"a":1,"b":2,"a":3}"#, Unreadable::DuplicateName { at: 13 }),
        (r#"{"a":1,"a":2,"a":3}"#, Unreadable::DuplicateName { at: 7 }),
        (r#"{"a":1,"b":2,"b":3,"a":4}"#, Unreadable::DuplicateName { at: 13 }),
        (r#"{"a":{"__proto__":1}}"#, Unreadable::ReservedName { at: 6 }),
        (r#"[1, 1e999]"#, Unreadable::BadNumber { at: 4 }),
        (r#"["é\ud800"]"#, Unreadable::LoneSurrogate { at: 4 }),
        (r#"[1 2]"#, Unreadable::NotJson { at: 3 }),
        (r#"[1"#, Unreadable::NotJson { at: 2 }),
        (r#"{} x"#, Unreadable::NotJson { at: 3 }),
    ] {
        assert_eq!(document(raw).unwrap_err(), wanted, "{raw}");
    }
    assert_eq!(document(b"[\"\xff\"]").unwrap_err(), Unreadable::NotUtf8 { at: 2 });
    let deep = "[".repeat(65) + &"]".repeat(65);
    assert_eq!(document(deep).unwrap_err(), Unreadable::TooDeep { at: 64 });
    let twenty = many_names(20, Some(3));
    let at = twenty.rfind("\"name-of-3\"").unwrap();
    assert_eq!(document(&twenty).unwrap_err(), Unreadable::DuplicateName { at });
    let alike = r#"{"jsonrpc":"2.0","id":1,"Method":"x"}"#;
    assert_eq!(read(alike, Sender::Client).unwrap_err(), Malformed::LookAlike { at: 24 });
}

#[test]
fn every_limit_is_inclusive() {
    let limits = DocumentLimits { bytes_max: 20, depth_max: 2, number_chars_max: 4, values_max: 5 };
    let read = |raw: &str| Document::read(Bytes::copy_from_slice(raw.as_bytes()), &limits).err();
    for (raw, wanted) in [
        ("\"345678901234567890\"", None),
        ("\"3456789012345678901\"", Some(Unreadable::TooLarge)),
        ("[[1]]", None),
        ("[[[]]]", Some(Unreadable::TooDeep { at: 2 })),
        ("-1.5", None),
        ("-1.25", Some(Unreadable::BadNumber { at: 0 })),
        ("[1,2,3,4]", None),
        ("[1,2,3,4,5]", Some(Unreadable::TooMany)),
        // Names are no values.
        (r#"{"a":1,"b":2,"c":3}"#, None),
    ] {
        assert_eq!(read(raw), wanted, "{raw}");
    }
}

#[test]
fn large_objects_cost_no_more_than_their_sorting() {
    // Quadratic work on this many names would take minutes.
    let raw = many_names(150_000, None);
    assert_eq!(document(&raw).unwrap().root().len(), 150_000);
    let alike: Vec<_> = (0..2000).map(|n| format!("\"{}{n:04}\":0", "x".repeat(1000))).collect();
    assert!(document(format!("{{{}}}", alike.join(","))).is_ok());
}

#[test]
fn values_show_what_was_written() {
    let raw = r#" {"a":[1,-0,1.0,"x\n",true,null],"":{"~/":"s","0":{}},"é\u0301":[]} "#;
    let document = document(raw).unwrap();
    let root = document.root();
    assert_eq!((root.kind(), root.len(), root.is_empty()), (Kind::Object, 3, false));
    assert_eq!(root.raw(), raw.trim().as_bytes());
    let a = root.get("a").unwrap();
    let kinds: Vec<_> = a.elements().map(|element| element.kind()).collect();
    let number = Kind::Number;
    assert_eq!(kinds, [number, number, number, Kind::String, Kind::Bool, Kind::Null]);
    let integers: Vec<_> = a.elements().map(|element| element.as_i64()).collect();
    assert_eq!(integers, [Some(1), None, None, None, None, None]);
    for (pointer, wanted) in [
        ("", Some(raw.trim())),
        ("/a/0", Some("1")),
        ("/a/1", Some("-0")),
        ("/a/3", Some(r#""x\n""#)),
        ("/a/6", None),
        ("/a/00", None),
        ("/a/-", None),
        ("/a/+1", None),
        ("/a/", None),
        ("a", None),
        ("/", Some(r#"{"~/":"s","0":{}}"#)),
        ("//~0~1", Some(r#""s""#)),
        ("//~01", None),
        ("//~2", None),
        ("//~", None),
        ("//0", Some("{}")),
        ("//0/x", None),
        ("/a/0/x", None),
        ("/e\u{301}\u{301}", None),
        ("/é\u{301}", Some("[]")),
    ] {
        let found = root.pointer(pointer).map(|value| std::str::from_utf8(value.raw()).unwrap());
        assert_eq!(found, wanted, "{pointer}");
    }
    assert_eq!(a.pointer("/3").and_then(|value| value.as_str()), Some("x\n"));
    let (name, value) = root.members().nth(2).unwrap();
    assert_eq!((name.as_str(), value.as_str()), (Some("é\u{301}"), None));
    assert_eq!(&raw[name.span()], r#""é\u0301""#);
    assert_eq!(root.elements().count() + a.members().count() + name.members().count(), 0);
}

#[test]
fn integers_are_read_only_when_exact() {
    for (literal, wanted) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-0", None),
        ("1.0", None),
        ("1e0", None),
        ("\"1\"", None),
    ] {
        assert_eq!(document(literal).unwrap().root().as_i64(), wanted, "{literal}");
    }
}

#[test]
fn a_wrong_edit_leaves_nothing_to_forward() {
    let document = document("[1,2,3]").unwrap();
    let edit = |span| (span, b"x".to_vec());
    assert_eq!(document.splice(&[]), "[1,2,3]");
    assert_eq!(document.splice(&[edit(1..2), edit(5..5)]), "[x,2,x3]");
    assert_eq!(document.splice(&[edit(3..4), edit(1..2)]), "");
    assert_eq!(document.splice(&[edit(1..4), edit(3..5)]), "");
    assert_eq!(document.splice(&[edit(7..8)]), "");
    #[expect(clippy::reversed_empty_ranges, reason = "the fault under test")]
    let reversed = document.splice(&[edit(4..3)]);
    assert_eq!(reversed, "");
}

#[test]
fn an_id_is_replaced_alone() {
    let raw = r#"{ "params":{"id":1}, "id" : 1 ,"method":"ping","jsonrpc":"2.0"}"#;
    let frame = read(raw, Sender::Client).unwrap();
    assert_eq!(
        frame.with_id(&Id::Number(-42)),
        r#"{ "params":{"id":1}, "id" : -42 ,"method":"ping","jsonrpc":"2.0"}"#
    );
    let mut text = Vec::new();
    write_id(&mut text, &Id::Text("fw-\"1\"".into()));
    assert_eq!(text, br#""fw-\"1\"""#);
    let quiet = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
    assert_eq!(read(quiet, Sender::Client).unwrap().with_id(&Id::Number(1)), quiet);
}

#[test]
fn one_and_its_text_are_two_ids() {
    let id = |literal| match read(with_id(literal), Sender::Client).unwrap().message() {
        Message::Request { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(id("1"), Id::Number(1));
    assert_eq!(id(r#""1""#), Id::Text("1".into()));
    assert_eq!(id(r#""\u0031""#), id(r#""1""#));
}

#[test]
fn plain_names_are_what_the_specification_recommends() {
    let longest = "a".repeat(128);
    for name in ["a", "get_x", "A-Z.0_9", &longest] {
        assert!(is_plain_name(name), "{name}");
    }
    let too_long = "a".repeat(129);
    for name in ["", "a b", "a/b", "get_x\0", "d\u{435}lete_x", "ｄelete", "a*", &too_long] {
        assert!(!is_plain_name(name), "{name}");
    }
}

#[test]
fn a_document_hides_its_bytes_from_logs() {
    let frame = read(with_arguments(r#"{"token":"s3cret"}"#), Sender::Client).unwrap();
    let shown = format!("{frame:?} {:?}", frame.params());
    assert!(!shown.contains("s3cret") && !shown.contains("token"), "{shown}");
}

#[test]
fn a_written_string_reads_back() {
    for text in ["", "\"\\/\u{8}\u{c}\n\r\t\0", "\u{7f}\u{85}\u{2028}\u{2029}", "é🇩🇪\u{feff}"]
    {
        let mut literal = Vec::new();
        write_string(&mut literal, text);
        assert_eq!(document(&literal).unwrap().root().as_str(), Some(text));
    }
}

#[test]
fn the_committed_seeds_keep_the_invariants() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut count = 0;
    for target in ["frame", "minify"] {
        for seed in std::fs::read_dir(seeds.join(target)).unwrap() {
            let bytes = std::fs::read(seed.unwrap().path()).unwrap();
            reading::frame(&bytes);
            reading::minify(&bytes);
            count += 1;
        }
    }
    assert!(count > 20, "seeds are missing");
}
