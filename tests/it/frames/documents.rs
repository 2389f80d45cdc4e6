//! Documents below the frame: limits, values, pointers, edits, literals.

use bartizan_gate::wire::document::{
    Document, DocumentLimits, Kind, Unreadable, Value, write_string,
};
use bartizan_gate::wire::frame::Sender;
use bytes::Bytes;

use super::{document, many_names, read, with_arguments};

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
        // Member names do not count as values.
        (r#"{"a":1,"b":2,"c":3}"#, None),
    ] {
        assert_eq!(read(raw), wanted, "{raw}");
    }
}

#[test]
fn a_number_is_finite_however_long_it_may_be() {
    let limits = DocumentLimits { number_chars_max: 1000, ..DocumentLimits::default() };
    let read = |raw: String| Document::read(Bytes::from(raw), &limits).err();
    assert_eq!(read("9".repeat(308)), None);
    assert_eq!(read("9".repeat(310)), Some(Unreadable::BadNumber { at: 0 }));
    assert_eq!(read(format!("-{}", "9".repeat(400))), Some(Unreadable::BadNumber { at: 0 }));
    assert_eq!(read(format!("0.{}", "9".repeat(900))), None);
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
    let kinds: Vec<_> = a.elements().map(Value::kind).collect();
    let number = Kind::Number;
    assert_eq!(kinds, [number, number, number, Kind::String, Kind::Bool, Kind::Null]);
    let integers: Vec<_> = a.elements().map(Value::as_i64).collect();
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
    assert_eq!(a.pointer("/3").and_then(Value::as_str), Some("x\n"));
    let (name, value) = root.members().nth(2).unwrap();
    assert_eq!((name.as_str(), value.as_str()), (Some("é\u{301}"), None));
    assert_eq!(name.raw(), r#""é\u0301""#.as_bytes());
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
