//! Random JSON-RPC documents: a tree, a spelling of it, and damage, in that order.

use bartizan_rego::Random;

/// Names that decide, and how they are disguised.
const NAMES: [&str; 16] = [
    "jsonrpc",
    "id",
    "method",
    "params",
    "result",
    "error",
    "name",
    "arguments",
    "uri",
    "_meta",
    "task",
    "cursor",
    "requestId",
    "level",
    "ref",
    "capabilities",
];
const METHODS: [&str; 14] = [
    "tools/call",
    "tools/call",
    "tools/call",
    "tools/call",
    "prompts/get",
    "resources/read",
    "tools/list",
    "initialize",
    "ping",
    "completion/complete",
    "tasks/get",
    "logging/setLevel",
    "notifications/cancelled",
    "x/unknown",
];
const TEXTS: [&str; 20] = [
    "get_flag",
    "delete_flag",
    "staging",
    "prod",
    "",
    "a",
    "\0",
    "name\0",
    "é",
    "e\u{301}",
    "😀",
    "\u{2028}",
    "\u{85}",
    "\u{feff}",
    "\u{fffd}",
    "\u{7f}",
    "\"",
    "\\",
    "/",
    "tools/call",
];
const NUMBERS: [&str; 24] = [
    "0",
    "-0",
    "1",
    "-1",
    "1.0",
    "1e0",
    "1E+2",
    "-0.0",
    "0.1",
    "0.30000000000000004",
    "9007199254740991",
    "9007199254740992",
    "9007199254740993",
    "-9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e308",
    "1e309",
    "5e-324",
    "2.2250738585072011e-308",
    "1e-400",
    "123456789012345678901234567890",
    "179769313486231570000000000000000000000",
];
/// Texts that some readers take and others do not, put anywhere.
const TOKENS: [&[u8]; 44] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"\\",
    b"null",
    b"true",
    b"false",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"undefined",
    b"'a'",
    b"/**/",
    b"//\n",
    b"#\n",
    b"0x10",
    b"01",
    b"+1",
    b".5",
    b"5.",
    b"1_000",
    b"\\u0000",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"\\ud83d\\ude00",
    b"\\x41",
    b"\\'",
    b"\\v",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\0",
    b"\x1f",
    b"\x0b",
    b"\x0c",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\x7f",
];
/// Whole members that a mutation adds.
const MEMBERS: [&str; 12] = [
    r#""__proto__":{"name":"delete_flag"}"#,
    r#""\u005f_proto__":{}"#,
    r#""constructor":{"prototype":{"name":"delete_flag"}}"#,
    r#""$serde_json::private::Number":"1""#,
    r#""$serde_json::private::RawValue":"{}""#,
    r#""toString":"x""#,
    r#""toJSON":"x""#,
    r#""length":0"#,
    r#""0":"zero","00":"more""#,
    r#""":"""#,
    r#""a":{"a":{"a":[]}}"#,
    r#""na\u006de":"delete_flag""#,
];

/// Makes documents.
pub(crate) struct Generator {
    chance: Random,
    corpus: Vec<Vec<u8>>,
}

impl Generator {
    pub(crate) fn new(seed: u64, corpus: &[Vec<u8>]) -> Self {
        Self { chance: Random::new(seed), corpus: corpus.to_vec() }
    }

    /// One of `all`.
    fn of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        self.chance.pick(all).unwrap()
    }

    /// The next document: one in four grows from the corpus; those and some others are damaged.
    pub(crate) fn document(&mut self) -> Vec<u8> {
        let from_corpus = self.chance.one_in(4);
        let mut document = if from_corpus {
            let at = self.chance.below(self.corpus.len());
            self.corpus[at].clone()
        } else {
            let mut out = Vec::new();
            self.message(&mut out);
            out
        };
        if from_corpus || self.chance.one_in(4) {
            for _ in 0..=self.chance.below(3) {
                self.damage(&mut document);
            }
        }
        document
    }

    fn message(&mut self, out: &mut Vec<u8>) {
        let mut members = vec![member("jsonrpc", b"\"2.0\"".to_vec())];
        let method = self.of(&METHODS);
        if self.chance.one_in(8) {
            members.push(member("id", self.id()));
            if self.chance.one_in(3) {
                members.push(member("error", br#"{"code":-32000,"message":"m"}"#.to_vec()));
            } else {
                let result = self.object(3);
                members.push(member("result", result));
            }
        } else {
            members.push(member("method", self.text(method)));
            if !method.starts_with("notifications/") {
                members.push(member("id", self.id()));
            }
            let params = self.params(method);
            members.push(member("params", params));
        }
        self.vary(&mut members, 12);
        self.join(members, out);
    }

    fn id(&mut self) -> Vec<u8> {
        match self.chance.below(12) {
            0 => self.of(&NUMBERS).into(),
            1 => b"null".to_vec(),
            2..=5 => {
                let text = self.of(&TEXTS);
                self.text(text)
            }
            _ => self.chance.below(1000).to_string().into_bytes(),
        }
    }

    fn params(&mut self, method: &str) -> Vec<u8> {
        let mut members = Vec::new();
        let name = self.of(&TEXTS);
        let decisive = match method {
            "tools/call" | "prompts/get" => Some("name"),
            "resources/read" => Some("uri"),
            "tasks/get" => Some("taskId"),
            _ => None,
        };
        if let Some(decisive) = decisive {
            members.push(member(decisive, self.text(name)));
        }
        if method == "completion/complete" {
            members.push(member("ref", br#"{"type":"ref/prompt","name":"p"}"#.to_vec()));
        }
        match self.chance.below(8) {
            0 => {}
            1 => members.push(member("arguments", b"null".to_vec())),
            _ => members.push(member("arguments", self.object(4))),
        }
        if self.chance.one_in(4) {
            members.push(member("_meta", self.object(2)));
        }
        self.vary(&mut members, 12);
        let mut out = Vec::new();
        self.join(members, &mut out);
        out
    }

    /// One time in `rarity`, adds a member that some reader may take for one of those there.
    fn vary(&mut self, members: &mut Vec<Vec<u8>>, rarity: usize) {
        if !self.chance.one_in(rarity) {
            return;
        }
        let added = if self.chance.one_in(3) {
            self.of(&MEMBERS).into()
        } else {
            let name = self.of(&NAMES);
            let name = self.disguise(name);
            let mut out = name;
            out.push(b':');
            self.value(2, &mut out);
            out
        };
        members.push(added);
    }

    /// A name as a literal that is, or to some reader may be, `name`.
    fn disguise(&mut self, name: &str) -> Vec<u8> {
        let text = match self.chance.below(10) {
            0 => name.to_uppercase(),
            1 => format!("{}{}", name[..1].to_uppercase(), &name[1..]),
            2 => name.replace('s', "\u{17f}").replace('k', "\u{212a}"),
            3 => format!("{name}\0"),
            4 => format!(" {name}"),
            5 => format!("{name} "),
            6 => name.chars().map(fullwidth).collect(),
            7 => format!("{name}\u{200b}"),
            8 => name.replace('e', "\u{435}"),
            _ => name.to_owned(),
        };
        self.text(&text)
    }

    fn object(&mut self, depth: usize) -> Vec<u8> {
        let mut members: Vec<Vec<u8>> = Vec::new();
        for _ in 0..self.chance.below(5) {
            let name = if self.chance.one_in(2) {
                format!("k{}", members.len())
            } else {
                // Names may repeat: refused, and nobody is asked.
                let texts = if self.chance.one_in(2) { &TEXTS[..] } else { &NAMES[..] };
                self.of(texts).to_owned()
            };
            let mut out = self.text(&name);
            self.space(&mut out);
            out.push(b':');
            self.value(depth.saturating_sub(1), &mut out);
            members.push(out);
        }
        self.vary(&mut members, 24);
        let mut out = Vec::new();
        self.join(members, &mut out);
        out
    }

    fn value(&mut self, depth: usize, out: &mut Vec<u8>) {
        self.space(out);
        let made = match self.chance.below(if depth == 0 { 6 } else { 9 }) {
            0 => self.of(&["null", "true", "false"]).into(),
            1 => self.of(&NUMBERS).into(),
            2 => self.number(),
            3..=5 => {
                let text = self.of(&TEXTS);
                self.text(text)
            }
            6 => {
                let mut made = vec![b'['];
                for index in 0..self.chance.below(4) {
                    made.extend_from_slice(if index > 0 { b"," } else { b"" });
                    self.value(depth - 1, &mut made);
                }
                made.push(b']');
                made
            }
            _ => self.object(depth - 1),
        };
        out.extend_from_slice(&made);
        self.space(out);
    }

    /// A number of any length and form that RFC 8259 has.
    fn number(&mut self) -> Vec<u8> {
        let digits = |chance: &mut Random, most: usize| -> String {
            (0..=chance.below(most))
                .map(|_| char::from(b'0' + u8::try_from(chance.below(10)).unwrap()))
                .collect()
        };
        let mut text = self.of(&["", "-"]).to_owned();
        let whole = digits(&mut self.chance, 22);
        let whole = whole.trim_start_matches('0');
        text.push_str(if whole.is_empty() { "0" } else { whole });
        if self.chance.one_in(2) {
            text = format!("{text}.{}", digits(&mut self.chance, 20));
        }
        if self.chance.one_in(3) {
            let sign = self.of(&["", "+", "-"]);
            text = format!("{text}e{sign}{}", self.chance.below(330));
        }
        text.into_bytes()
    }

    /// A string literal, each character in one of its spellings.
    fn text(&mut self, text: &str) -> Vec<u8> {
        let often = self.chance.below(8);
        let mut out = vec![b'"'];
        for char in text.chars() {
            let escaped = often == 0 && self.chance.one_in(2);
            match char {
                '"' | '\\' if !escaped => out.extend([b'\\', u8::try_from(char).unwrap()]),
                '/' if escaped => out.extend(b"\\/"),
                ' '.. if !escaped => out.extend(char.encode_utf8(&mut [0; 4]).bytes()),
                _ => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        out.extend(format!("\\u{unit:04x}").bytes());
                    }
                }
            }
        }
        out.push(b'"');
        out
    }

    fn space(&mut self, out: &mut Vec<u8>) {
        if self.chance.one_in(8) {
            out.extend_from_slice(self.of(&[&b" "[..], b"\n", b"\r", b"\t", b"\r\n  "]));
        }
    }

    /// The members as an object, in any order.
    fn join(&mut self, mut members: Vec<Vec<u8>>, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        while !members.is_empty() {
            let at = self.chance.below(members.len());
            let one = members.swap_remove(at);
            out.extend_from_slice(if first { b"" } else { b"," });
            self.space(out);
            out.extend_from_slice(&one);
            first = false;
        }
        out.push(b'}');
        self.space(out);
    }

    /// Changes some bytes.
    fn damage(&mut self, document: &mut Vec<u8>) {
        let at = self.chance.below(document.len() + 1);
        let end = (at + self.chance.below(8)).min(document.len());
        match self.chance.below(8) {
            0 => drop(document.drain(at..end)),
            1 => {
                let again = document[at..end].to_vec();
                drop(document.splice(at..at, again));
            }
            2 => {
                if let Some(byte) = document.get_mut(at) {
                    *byte ^= 1 << self.chance.below(8);
                }
            }
            3 => {
                let from = self.chance.below(document.len() + 1);
                let moved: Vec<_> = document.iter().skip(from).take(12).copied().collect();
                drop(document.splice(at..at, moved));
            }
            4 => {
                let name = self.of(&NAMES);
                let mut added = self.disguise(name);
                added.push(b':');
                self.value(2, &mut added);
                added.push(b',');
                // Behind a bracket or a comma it may well be a member.
                let behind = |byte: &u8| matches!(byte, b'{' | b',');
                let at = document.iter().skip(at).position(behind).map_or(at, |more| at + more + 1);
                drop(document.splice(at..at, added));
            }
            5 => {
                let mut value = Vec::new();
                self.value(2, &mut value);
                drop(document.splice(at..end, value));
            }
            _ => drop(document.splice(at..at, self.of(&TOKENS).to_vec())),
        }
    }
}

fn member(name: &str, value: Vec<u8>) -> Vec<u8> {
    [format!("\"{name}\":").into_bytes(), value].concat()
}

fn fullwidth(char: char) -> char {
    if char.is_ascii_lowercase() {
        char::from_u32(u32::from(char) - u32::from('a') + 0xff41).unwrap()
    } else {
        char
    }
}
