//! Reading frames: the rows of `docs/threats.md` that one frame can carry, their benign
//! look-alikes, and the properties that hold for every frame.
//!
//! A case is named for its row: its letter and number there, then what is
//! tried. What the upstream receives is not looked at here; `step` and `edge` tests do that.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "a test may end in a panic"
)]

mod documents;
pub(crate) mod properties;
mod refusals;

#[expect(
    clippy::disallowed_methods,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::float_cmp,
    unreachable_pub,
    reason = "the fuzzer's invariants, which compare with the reader that is banned elsewhere"
)]
#[path = "../../fuzz/src/reading.rs"]
pub(crate) mod reading;

use bartizan_gate::wire::document::{Document, DocumentLimits, Unreadable};
use bartizan_gate::wire::frame::{Frame, FrameLimits, Id, Malformed, Message, Sender, write_id};
use bytes::Bytes;

pub(crate) fn read(raw: impl AsRef<[u8]>, sender: Sender) -> Result<Frame, Malformed> {
    Frame::read(Bytes::copy_from_slice(raw.as_ref()), sender, &FrameLimits::default())
}

pub(crate) fn document(raw: impl AsRef<[u8]>) -> Result<Document, Unreadable> {
    Document::read(Bytes::copy_from_slice(raw.as_ref()), &DocumentLimits::default())
}

/// The name of a refusal, without positions.
pub(crate) fn fault(malformed: &Malformed) -> String {
    let named = |debug: String| debug.split([' ', '{']).next().unwrap_or_default().to_owned();
    match malformed {
        Malformed::Unreadable(unreadable) => named(format!("{unreadable:?}")),
        Malformed::BadParams { member } => format!("BadParams {member}"),
        Malformed::Batch
        | Malformed::BatchSize
        | Malformed::NotObject
        | Malformed::LookAlike { .. }
        | Malformed::ControlInName { .. }
        | Malformed::Version
        | Malformed::Shape
        | Malformed::BadId
        | Malformed::BadMethod => named(format!("{malformed:?}")),
    }
}

/// A call of `get_x` with `text` put behind its name, inside `params`.
pub(crate) fn in_params(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get_x"{text}}}}}"#)
}

/// A call of `get_x` with these arguments.
pub(crate) fn with_arguments(arguments: &str) -> String {
    in_params(&format!(r#","arguments":{arguments}"#))
}

/// A call of `get_x` with `text` put behind the envelope's first member.
pub(crate) fn in_envelope(text: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0"{text},"id":1,"method":"tools/call","params":{{"name":"get_x"}}}}"#)
}

/// A call with this literal for its id.
pub(crate) fn with_id(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"get_x"}}}}"#)
}

/// A request of `method` with these `params`.
pub(crate) fn asking(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method},"params":{params}}}"#)
}

/// `{"n0":0,…}` with, where asked, the name of one member again at the end.
pub(crate) fn many_names(count: usize, again: Option<usize>) -> String {
    let names = (0..count).chain(again).map(|number| format!(r#""name-of-{number}":0"#));
    format!("{{{}}}", names.collect::<Vec<_>>().join(","))
}

/// `arguments` nested so deep, itself included.
pub(crate) fn nested(depth: usize) -> String {
    let inner = depth.saturating_sub(1);
    format!("{{\"a\":{}{}}}", "[".repeat(inner), "]".repeat(inner))
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
        ("ok-args-case", with_arguments(r#"{"Name":1,"name":2,"NAME":3,"param\u017f":5}"#)),
        ("ok-meta-case", in_params(r#","_meta":{"Name":1,"Params":2}"#)),
        ("ok-equal-names-apart", with_arguments(r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#)),
        ("ok-names-of-one-head", with_arguments(r#"{"environment":1,"environments":2,"environ":3,"environm":4}"#)),
        ("ok-many-names", with_arguments(&many_names(1000, None))),
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
    let id = |literal| {
        let frame = read(with_id(literal), Sender::Client).unwrap();
        let Message::Request { id, .. } = frame.message() else { panic!("{frame:?}") };
        id.clone()
    };
    assert_eq!(id("1"), Id::Number(1));
    assert_eq!(id(r#""1""#), Id::Text("1".into()));
    assert_eq!(id(r#""\u0031""#), id(r#""1""#));
}
