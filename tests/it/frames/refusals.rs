//! Every row of `docs/threats.md` that one frame can carry, and how it is refused.

use bartizan_gate::wire::document::Unreadable;
use bartizan_gate::wire::frame::{Malformed, Sender};

use super::{
    asking, document, fault, in_envelope, in_params, many_names, nested, read, reading,
    with_arguments, with_id,
};

/// One thing said by one side, and how it must be refused.
type Case = (&'static str, Vec<u8>, &'static str);

fn check(sender: Sender, cases: impl IntoIterator<Item = Case>) {
    for (name, raw, wanted) in cases {
        let shown = String::from_utf8_lossy(&raw).into_owned();
        let found = match read(&raw, sender) {
            Ok(frame) => format!("accepted as {:?}", frame.message()),
            Err(malformed) => fault(&malformed),
        };
        assert_eq!(found, wanted, "{name}: {shown:.200}");
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
            case(
                "a6 control-name",
                with_arguments(r#"{"Name":1,"name\u0000":4}"#),
                "ControlInName",
            ),
            case(
                "a6 nul-names",
                with_arguments(r#"{"":1,"\u0000":2,"\u0000\u0000":3}"#),
                "ControlInName",
            ),
            case("a6 deep", with_arguments(r#"{"a":[{"b":{"c\u009b":{}}}]}"#), "ControlInName"),
            case("a8 proto-deep", with_arguments(r#"{"a":[{"__proto__":{}}]}"#), reserved),
        ],
    );
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
        (
            r#""resources/subscribe""#,
            r#"{"uri":1,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#,
            "BadParams uri",
        ),
        (
            r#""resources/subscribe""#,
            r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2025-11-25"}}"#,
            "BadParams _meta",
        ),
        (r#""completion/complete""#, r#"{"ref":"ref/prompt"}"#, "BadParams ref"),
        (r#""completion/complete""#, r#"{"ref":null}"#, "BadParams ref"),
        (r#""completion/complete""#, r#"{"ref":{"name":"a","uri":"b:"}}"#, "BadParams ref"),
        (r#""subscriptions/listen""#, r#"{"notifications":[]}"#, "BadParams notifications"),
        (
            r#""subscriptions/listen""#,
            r#"{"notifications":{"resourceSubscriptions":"a:"}}"#,
            "BadParams notifications",
        ),
        (
            r#""subscriptions/listen""#,
            r#"{"notifications":{"taskIds":[1]}}"#,
            "BadParams notifications",
        ),
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
fn members_below_params_that_decide_have_no_look_alikes() {
    for (method, params) in [
        ("completion/complete", r#"{"ref":{"uri":"a:","Name":"b"}}"#),
        ("subscriptions/listen", r#"{"notifications":{"ResourceSubscriptions":["a:"]}}"#),
        ("subscriptions/listen", r#"{"notifications":{"taskids":["a"],"taskIds":[]}}"#),
    ] {
        let raw = asking(&format!("\"{method}\""), params);
        check(Sender::Client, [case("p5 below params", raw, "LookAlike")]);
    }
}

#[test]
fn a_refusal_names_the_place() {
    for (raw, wanted) in [
        (r#"{"a":1,"b":2,"a":3}"#, Unreadable::DuplicateName { at: 13 }),
        (r#"{"a":1,"a":2,"a":3}"#, Unreadable::DuplicateName { at: 7 }),
        (r#"{"a":1,"b":2,"b":3,"a":4}"#, Unreadable::DuplicateName { at: 13 }),
        (r#"{"a":{"__proto__":1}}"#, Unreadable::ReservedName { at: 6 }),
        ("[1, 1e999]", Unreadable::BadNumber { at: 4 }),
        (r#"["é\ud800"]"#, Unreadable::LoneSurrogate { at: 4 }),
        ("[1 2]", Unreadable::NotJson { at: 3 }),
        ("[1", Unreadable::NotJson { at: 2 }),
        ("{} x", Unreadable::NotJson { at: 3 }),
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
