//! What can be read of a message that is no frame: the outer `id`, and whether it asks or answers.
//!
//! A message that the strict reader refuses may still say whom it concerns (JSON-RPC 2.0 §5: an
//! error has the id of its request, unless that cannot be read). This reader looks at the members of
//! the outer object alone, takes bytes in pieces, keeps a few of them, and is used for nothing but to
//! say who gets an error.

use bytes::Bytes;

use super::{FrameLimits, Id, is_look_alike, read_id};
use crate::wire::document::{Document, DocumentLimits};

/// Longest name or id that is looked at, bytes.
const KEPT_BYTES_MAX: usize = 256;

/// The members of an outer object that say what kind of message it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OuterMembers {
    depth: usize,
    /// Whether something other than an object began the text, or more follows the object.
    odd: bool,
    began: bool,
    string: Option<StringState>,
    place: Place,
    /// The last name, or the value of `id` that is being read.
    kept: Vec<u8>,
    ids: usize,
    id: Vec<u8>,
    asks: bool,
}

/// What is being read at the outer level.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// A value, or what stands between.
    #[default]
    Elsewhere,
    /// The next string is a name.
    Name,
    /// The name was `id`, and the colon comes.
    NamedId,
    /// The value of `id`.
    Id,
}

/// A string that is being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StringState {
    Plain,
    /// Behind a backslash.
    Escape,
}

impl OuterMembers {
    /// The outer members of a whole text.
    pub fn of(text: &[u8]) -> Self {
        let mut outer = Self::default();
        outer.push(text);
        outer
    }

    /// Reads the next piece of the text.
    pub fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            self.byte(*byte);
        }
    }

    /// The id of the request that this message is an answer to, if it is one.
    pub fn answers(&self) -> Option<Id> {
        self.id().filter(|_| !self.asks)
    }

    /// The id of this message if it is a request.
    pub fn asks(&self) -> Option<Id> {
        self.id().filter(|_| self.asks)
    }

    /// A text that is no frame and has the same outer members, as far as they are known.
    pub fn stub(&self) -> Bytes {
        let id = self.id().map(|_| String::from_utf8_lossy(&self.id).into_owned());
        let asks = if self.asks { "\"method\":" } else { "" };
        match id {
            Some(id) => format!("{{\"id\":{id},{asks}").into(),
            None => format!("{{{asks}").into(),
        }
    }

    fn id(&self) -> Option<Id> {
        if self.odd || self.ids != 1 {
            return None;
        }
        let id = Bytes::copy_from_slice(&self.id);
        let document = Document::read(id, &DocumentLimits::default()).ok()?;
        read_id(document.root(), &FrameLimits::default())
    }

    fn keep(&mut self, byte: u8) {
        if self.kept.len() <= KEPT_BYTES_MAX {
            self.kept.push(byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if let Some(state) = self.string {
            self.in_string(state, byte);
            return;
        }
        let outer = self.depth == 1;
        match byte {
            b'"' => {
                self.string = Some(StringState::Plain);
                match self.place {
                    Place::Name if outer => self.kept.clear(),
                    Place::Id if outer => self.keep(byte),
                    Place::Name | Place::Id | Place::NamedId | Place::Elsewhere => {}
                }
            }
            b'{' | b'[' => {
                self.odd |= self.depth == 0 && (byte != b'{' || self.began);
                self.began = true;
                self.depth = self.depth.saturating_add(1);
                if self.depth == 1 {
                    self.place = Place::Name;
                }
            }
            b'}' | b']' => {
                if outer {
                    self.end_id();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            b',' if outer => {
                self.end_id();
                self.place = Place::Name;
            }
            b':' if outer => {
                if self.place == Place::NamedId {
                    self.place = Place::Id;
                    self.kept.clear();
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' => {
                if self.place == Place::Id && outer && !self.kept.is_empty() {
                    self.keep(b' ');
                }
            }
            _ if self.place == Place::Id && outer => self.keep(byte),
            _ => self.odd |= self.depth == 0,
        }
    }

    fn in_string(&mut self, state: StringState, byte: u8) {
        let name = self.depth == 1 && self.place == Place::Name;
        let id = self.depth == 1 && self.place == Place::Id;
        if name && byte == b'\\' {
            // Another reader may take this name for `id` or `method`.
            self.odd = true;
        }
        let ends = state == StringState::Plain && byte == b'"';
        if name && !ends || id {
            self.keep(byte);
        }
        self.string = match (state, byte) {
            _ if ends => None,
            (StringState::Plain, b'\\') => Some(StringState::Escape),
            _ => Some(StringState::Plain),
        };
        if ends && name {
            self.place = if self.kept == b"id" { Place::NamedId } else { Place::Elsewhere };
            self.asks |= self.kept == b"method";
            let name = String::from_utf8_lossy(&self.kept);
            self.odd |= is_look_alike(&name, &["id", "method"]);
        }
    }

    fn end_id(&mut self) {
        if std::mem::take(&mut self.place) == Place::Id {
            self.ids = self.ids.saturating_add(1);
            self.id = std::mem::take(&mut self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_id_is_read_and_no_other() {
        let text = |text: &str| Some(Id::Text(text.into()));
        for (message, asks, answers) in [
            (
                r#"{"jsonrpc":"2.0","id":5,"result":{"id":6,"a":1,"a":2}}"#,
                None,
                Some(Id::Number(5)),
            ),
            (
                r#" {"result":{"x":"\"id\":7}"},"jsonrpc":"2.0", "id" : "a\u0062" }"#,
                None,
                text("ab"),
            ),
            (r#"{"id":5,"method":"m","params":[1]}"#, Some(Id::Number(5)), None),
            (r#"{"method":"m","id":-3,"#, Some(Id::Number(-3)), None),
            (r#"{"id":5,"result":{"unfinished"#, None, Some(Id::Number(5))),
            (r#"{"id":5"#, None, None),
            (r#"{"id":5,"id":5,"result":1}"#, None, None),
            (r#"{"\u0069d":5,"result":1}"#, None, None),
            (r#"{"id":5,"m\u0065thod":"m"}"#, None, None),
            (r#"{"id":1.5,"result":1}"#, None, None),
            (r#"{"id":null,"result":1}"#, None, None),
            (r#"{"id":{"id":5},"result":1}"#, None, None),
            (r#"{"id":[5],"result":1}"#, None, None),
            (r#"{"ID":5,"result":1}"#, None, None),
            (r#"{"id":5,"ID":6,"result":1}"#, None, None),
            (r#"{"id":5 ,"x":1}"#, None, Some(Id::Number(5))),
            (r#"{"id":5 6,"x":1}"#, None, None),
            (r#"[{"id":5,"result":1}]"#, None, None),
            (r#"{"id":5,"result":1}{"id":6}"#, None, None),
            (r#"x{"id":5,"result":1}"#, None, None),
            (r#""{"#, None, None),
            ("", None, None),
        ] {
            let outer = OuterMembers::of(message.as_bytes());
            assert_eq!(
                (outer.asks(), outer.answers()),
                (asks.clone(), answers.clone()),
                "{message}"
            );
            let mut pieces = OuterMembers::default();
            message.as_bytes().chunks(3).for_each(|piece| pieces.push(piece));
            assert_eq!(pieces, outer, "{message}");
            let stub = OuterMembers::of(&outer.stub());
            assert_eq!((stub.asks(), stub.answers()), (asks, answers), "{message}");
        }
        let long = format!("{{\"id\":\"{}\",\"result\":1}}", "x".repeat(1 << 20));
        let outer = OuterMembers::of(long.as_bytes());
        assert_eq!(outer.answers(), None);
        assert!(outer.id.len() <= KEPT_BYTES_MAX + 1);
    }
}
