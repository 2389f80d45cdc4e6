//! Takes out of an answer what must not reach the client: named places, and secrets wherever they
//! stand.
//!
//! Only the bytes of what is taken out change, into [`MARKER`]; all else stays as the server wrote
//! it. A text that is JSON itself, as servers repeat structured content, is looked into like the
//! answer around it. What cannot be looked into, or holds a secret where no marker can stand, is
//! [`Unredactable`]: the answer must be withheld.

use std::cmp::Reverse;
use std::ops::Range;

use bytes::Bytes;

use super::secrets::{self, Found, Unasked};
use crate::wire::document::{Document, DocumentLimits, Kind, Value, unescaped, write_string};

/// What stands where something was taken out. Means the same in JSON and in every JSON text
/// inside it, since nothing in it is ever escaped.
pub const MARKER: &str = "[redacted]";

/// Longest pointer of a [`Redaction`], bytes.
pub const POINTER_BYTES_MAX: usize = 256;
/// Redactions of one answer at most.
pub const REDACTIONS_MAX: usize = 64;
/// Places that are taken out of one answer at most; one with more is withheld.
const PLACES_MAX: usize = 1024;
/// What searching one answer may take, bytes of text, each counted once for every time that it is
/// read: by a rule, or as JSON. An answer that would take more is withheld.
const SEARCH_BYTES_MAX: usize = 64 << 20;
/// JSON texts inside one another that are looked into.
const NESTING_MAX: usize = 4;
/// Copies of what a pointer named are taken out elsewhere too, if they are this long, bytes.
const COPY_BYTES_MIN: usize = 8;
/// Texts of which copies are taken out, at most.
const COPIES_MAX: usize = 64;

/// Members of a result that go back to the server unread: a marker in them would break the
/// exchange.
const OPAQUE: &[&str] = &["requestState", "nextCursor", "taskId"];

/// One thing to take out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redaction {
    /// What stands at this pointer: RFC 6901 from the message down, below `/result` or `/error`,
    /// `*` standing for each element or member. It goes on into texts that are JSON.
    Pointer(Box<str>),
    /// Whatever has the form of a well-known secret.
    Secrets,
}

impl Redaction {
    /// A pointer, if it is one that can be redacted.
    pub fn pointer(text: &str) -> Option<Self> {
        let known = text.starts_with("/result/") || text.starts_with("/error/");
        let escapes_ok = text.split('/').all(|token| unescaped(token).is_some());
        let fits = known && escapes_ok && text.len() <= POINTER_BYTES_MAX;
        fits.then(|| Self::Pointer(text.into()))
    }
}

/// Something that was taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it stood: a pointer from the message down, through texts that are JSON.
    pub pointer: String,
    /// `pointer`, `copy`, or the rule by which its form is known.
    pub rule: &'static str,
}

/// An answer, and what was taken out of it.
#[derive(Debug)]
pub struct Redacted {
    /// The answer without it.
    pub body: Bytes,
    /// Where, in the order of the text.
    pub places: Vec<Place>,
}

/// Why an answer cannot be delivered without what must not be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unredactable {
    /// It holds something that is no text: an image, sound, a blob.
    NoText,
    /// It is larger, deeper nested or has more to take out than may be looked through.
    TooMuch,
    /// A member's name has the form of a secret.
    InName,
    /// The text that a pointer leads into is not strict JSON.
    Unreadable,
    /// The forms of secrets could not be asked for.
    Unasked,
}

impl Unredactable {
    /// For the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoText => "holds content that is no text, so it cannot be redacted",
            Self::TooMuch => "is too large to be redacted",
            Self::InName => "holds a secret as the name of a member",
            Self::Unreadable => "holds a text that a redaction cannot be followed into",
            Self::Unasked => "cannot be searched for secrets",
        }
    }
}

/// The parts of a message that may be redacted, each with its pointer.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    /// What is searched for secrets.
    pub searched: Vec<(String, Value<'a>)>,
    /// What `/result` of a pointer stands for: the result, also that inside a task.
    pub results: Vec<(String, Value<'a>)>,
    /// What `/error` of a pointer stands for.
    pub error: Option<Value<'a>>,
}

/// Takes `redactions` out of the parts of `document` that `scope` names.
pub fn redact(
    document: &Document,
    scope: &Scope<'_>,
    redactions: &[Redaction],
    limits: &DocumentLimits,
) -> Result<Redacted, Unredactable> {
    let mut run = Run { limits, secrets: false, copies: Vec::new(), left: SEARCH_BYTES_MAX };
    let mut edits = Vec::new();
    for redaction in redactions {
        match redaction {
            Redaction::Secrets => run.secrets = true,
            Redaction::Pointer(pointer) => run.follow(scope, pointer, &mut edits)?,
        }
    }
    if run.secrets || !run.copies.is_empty() {
        for (at, value) in &scope.searched {
            run.search_part(*value, at, &mut edits)?;
        }
    }
    let edits = merged(edits)?;
    if edits.is_empty() {
        return Ok(Redacted { body: document.raw().clone(), places: Vec::new() });
    }
    let (places, edits): (Vec<_>, Vec<_>) =
        edits.into_iter().map(|edit| (edit.place, (edit.at, edit.with.into_bytes()))).unzip();
    let body = document.splice(&edits);
    // What is delivered must be as strict as what was read.
    Document::read(body.clone(), limits).map_err(|_| Unredactable::Unreadable)?;
    Ok(Redacted { body, places })
}

/// A replacement in one text, in its own bytes.
struct Edit {
    at: Range<usize>,
    with: String,
    place: Place,
}

/// In order, with what overlaps made one. Of two that overlap the one that begins first gives its
/// marker and its place.
fn merged(mut edits: Vec<Edit>) -> Result<Vec<Edit>, Unredactable> {
    edits.sort_by_key(|edit| (edit.at.start, Reverse(edit.at.end)));
    let mut kept: Vec<Edit> = Vec::new();
    for edit in edits {
        match kept.last_mut() {
            Some(last) if edit.at.start < last.at.end => {
                last.at.end = last.at.end.max(edit.at.end);
            }
            Some(_) | None => kept.push(edit),
        }
    }
    if kept.len() > PLACES_MAX { Err(Unredactable::TooMuch) } else { Ok(kept) }
}

/// Edits of the text that `string` decodes to, as edits of the text that it is written in.
fn lifted(string: Value<'_>, edits: Vec<Edit>) -> Result<Vec<Edit>, Unredactable> {
    let mut edits = merged(edits)?;
    let ranges: Vec<_> = edits.iter().map(|edit| edit.at.clone()).collect();
    let spans = string.spans_of(&ranges);
    if spans.len() != edits.len() {
        return Err(Unredactable::Unreadable);
    }
    for (edit, span) in edits.iter_mut().zip(spans) {
        let mut literal = Vec::new();
        write_string(&mut literal, &edit.with);
        let inside = literal.get(1..literal.len().saturating_sub(1)).unwrap_or_default();
        edit.with = String::from_utf8_lossy(inside).into_owned();
        edit.at = span;
    }
    Ok(edits)
}

/// A whole value replaced: a string keeps its quotes, anything else becomes a string.
fn replaced(value: Value<'_>, pointer: &str) -> Edit {
    let span = value.span();
    let (at, with) = if value.kind() == Kind::String {
        (span.start.saturating_add(1)..span.end.saturating_sub(1), MARKER.to_owned())
    } else {
        (span, format!("\"{MARKER}\""))
    };
    Edit { at, with, place: Place { pointer: pointer.to_owned(), rule: "pointer" } }
}

/// `at` and one step more.
fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Position<'a> {
    /// The JSON pointer to it.
    pointer: &'a str,
    /// Texts around it that are read as JSON.
    nesting: usize,
}

impl<'a> Position<'a> {
    /// At `pointer`, in no text.
    fn top(pointer: &'a str) -> Self {
        Self { pointer, nesting: 0 }
    }

    /// At `pointer`, in the same text.
    fn at(self, pointer: &str) -> Position<'_> {
        Position { pointer, nesting: self.nesting }
    }

    /// In the text that stands here.
    fn inside(self) -> Self {
        Self { nesting: self.nesting.saturating_add(1), ..self }
    }
}

/// What one answer has come to so far.
struct Run<'l> {
    limits: &'l DocumentLimits,
    secrets: bool,
    /// Texts that a pointer named.
    copies: Vec<String>,
    /// What searching may still take, bytes.
    left: usize,
}

impl Run<'_> {
    fn follow(
        &mut self,
        scope: &Scope<'_>,
        pointer: &str,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Unredactable> {
        let mut tokens = pointer.split('/').skip(1);
        let root = tokens.next();
        let tokens: Vec<&str> = tokens.collect();
        if root == Some("error") {
            let error = scope.error.map(|error| ("/error".to_owned(), error));
            return error.map_or(Ok(()), |(at, error)| {
                self.named(error, &tokens, Position::top(&at), true, edits)
            });
        }
        for (at, result) in &scope.results {
            self.named(*result, &tokens, Position::top(at), true, edits)?;
            // Servers repeat structured content as JSON in a text (2025-06-18, tools,
            // "Structured Content").
            if let Some(("structuredContent", rest)) = tokens.split_first().map(|(a, b)| (*a, b)) {
                let blocks = result.get("content").into_iter().flat_map(Value::elements);
                for (index, block) in blocks.enumerate() {
                    let Some(text) = block.get("text").filter(|_| !rest.is_empty()) else {
                        continue;
                    };
                    let at = format!("{at}/content/{index}/text");
                    self.named(text, rest, Position::top(&at), false, edits)?;
                }
            }
        }
        Ok(())
    }

    /// Replaces what `tokens` lead to from `value`, which stands at `position`. A text on the way must be
    /// JSON if it `must`; else what is no JSON has no such place.
    fn named(
        &mut self,
        value: Value<'_>,
        tokens: &[&str],
        position: Position<'_>,
        must: bool,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Unredactable> {
        let at = position.pointer;
        let Some((token, rest)) = tokens.split_first() else {
            self.copy(value);
            edits.push(replaced(value, at));
            return Ok(());
        };
        let name = unescaped(token).ok_or(Unredactable::Unreadable)?;
        let every = *token == "*";
        match value.kind() {
            Kind::Object => {
                for (key, member) in value.members() {
                    let key = key.as_str().unwrap_or_default();
                    if every || *key == *name {
                        self.named(member, rest, position.at(&below(at, key)), must, edits)?;
                    }
                }
            }
            Kind::Array => {
                for (index, element) in value.elements().enumerate() {
                    let index = index.to_string();
                    if every || *index == *name {
                        self.named(element, rest, position.at(&below(at, &index)), must, edits)?;
                    }
                }
            }
            Kind::String => {
                match self.inner(value.as_str().unwrap_or_default(), position.nesting)? {
                    Some(document) => {
                        let mut inside = Vec::new();
                        let root = document.root();
                        self.named(root, tokens, position.inside(), must, &mut inside)?;
                        edits.extend(lifted(value, inside)?);
                    }
                    None if must => return Err(Unredactable::Unreadable),
                    None => {}
                }
            }
            Kind::Null | Kind::Bool | Kind::Number => {}
        }
        if edits.len() > PLACES_MAX { Err(Unredactable::TooMuch) } else { Ok(()) }
    }

    /// Remembers the texts of what was named.
    fn copy(&mut self, value: Value<'_>) {
        if let Some(text) = value.as_str() {
            let text = text.trim();
            let new = !self.copies.iter().any(|copy| *copy == *text);
            if text.len() >= COPY_BYTES_MIN && self.copies.len() < COPIES_MAX && new {
                self.copies.push(text.to_owned());
            }
        }
        value.members().for_each(|(_, member)| self.copy(member));
        value.elements().for_each(|element| self.copy(element));
    }

    /// A text read as JSON, if it is an object or an array.
    fn inner(&mut self, text: &str, nesting: usize) -> Result<Option<Document>, Unredactable> {
        if !text.trim_start().starts_with(['{', '[']) {
            return Ok(None);
        }
        self.searches(text.len())?;
        let read = Document::read(Bytes::copy_from_slice(text.as_bytes()), self.limits).ok();
        match read {
            Some(_) if nesting >= NESTING_MAX => Err(Unredactable::TooMuch),
            read => Ok(read),
        }
    }

    fn searches(&mut self, bytes: usize) -> Result<(), Unredactable> {
        self.left = self.left.checked_sub(bytes).ok_or(Unredactable::TooMuch)?;
        Ok(())
    }

    fn secrets(&mut self, text: &str) -> Result<Vec<Found>, Unredactable> {
        secrets::find(text, &mut self.left).map_err(|why| match why {
            Unasked::TooMuch => Unredactable::TooMuch,
            Unasked::Broken => Unredactable::Unasked,
        })
    }

    /// A result, an error or the like: all but what goes back to the server unread.
    fn search_part(
        &mut self,
        part: Value<'_>,
        at: &str,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Unredactable> {
        if part.kind() != Kind::Object {
            return self.search(part, "", Position::top(at), edits);
        }
        for (name, member) in part.members() {
            let name = name.as_str().unwrap_or_default();
            self.name(name)?;
            if OPAQUE.contains(&name) {
                continue;
            }
            if name != "structuredContent" {
                self.texts_alone(member)?;
            }
            self.search(member, name, Position::top(&below(at, name)), edits)?;
        }
        Ok(())
    }

    /// Content that is no text cannot be searched (`ImageContent`, `AudioContent`,
    /// `BlobResourceContents`).
    fn texts_alone(&self, value: Value<'_>) -> Result<(), Unredactable> {
        if !self.secrets {
            return Ok(());
        }
        let text = |name| value.get(name).and_then(Value::as_str);
        let media = matches!(text("type"), Some("image" | "audio")) && text("data").is_some();
        if media || text("blob").is_some() {
            return Err(Unredactable::NoText);
        }
        value.members().try_for_each(|(_, member)| self.texts_alone(member))?;
        value.elements().try_for_each(|element| self.texts_alone(element))
    }

    /// Finds what must go in `value`, which stands at `position` and is known by `name`. The depth
    /// of the recursion is bounded by that of the document.
    fn search(
        &mut self,
        value: Value<'_>,
        name: &str,
        position: Position<'_>,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Unredactable> {
        let at = position.pointer;
        match value.kind() {
            Kind::Object => {
                for (name, member) in value.members() {
                    let name = name.as_str().unwrap_or_default();
                    self.name(name)?;
                    self.search(member, name, position.at(&below(at, name)), edits)?;
                }
            }
            Kind::Array => {
                for (index, element) in value.elements().enumerate() {
                    self.search(element, name, position.at(&format!("{at}/{index}")), edits)?;
                }
                self.across(value, at, edits)?;
            }
            Kind::String => {
                let text = value.as_str().unwrap_or_default();
                let mut inside = self.plain(text, name, at)?;
                if let Some(document) = self.inner(text, position.nesting)? {
                    let root = document.root();
                    self.search(root, name, position.inside(), &mut inside)?;
                }
                edits.extend(lifted(value, inside)?);
            }
            Kind::Null | Kind::Bool | Kind::Number => {}
        }
        if edits.len() > PLACES_MAX { Err(Unredactable::TooMuch) } else { Ok(()) }
    }

    /// A marker in the place of a name could make two members one.
    fn name(&mut self, name: &str) -> Result<(), Unredactable> {
        if !self.secrets {
            return Ok(());
        }
        if self.secrets(name)?.is_empty() { Ok(()) } else { Err(Unredactable::InName) }
    }

    /// Secrets and copies in one text. Many forms are known by what stands before the secret, so
    /// the text is searched as it would stand in JSON, behind its name.
    fn plain(&mut self, text: &str, name: &str, at: &str) -> Result<Vec<Edit>, Unredactable> {
        let edit = |at_text: Range<usize>, rule| Edit {
            at: at_text,
            with: MARKER.to_owned(),
            place: Place { pointer: at.to_owned(), rule },
        };
        let mut edits = Vec::new();
        if self.secrets {
            let before = format!("\"{name}\": \"");
            let found = self.secrets(&format!("{before}{text}\""))?;
            for secret in found {
                let start = secret.at.start.saturating_sub(before.len());
                let end = secret.at.end.saturating_sub(before.len()).min(text.len());
                if start < end {
                    edits.push(edit(start..end, secret.rule));
                }
            }
        }
        self.searches(text.len().saturating_mul(self.copies.len()))?;
        for copy in &self.copies {
            let found = text.match_indices(copy.as_str()).take(PLACES_MAX);
            edits.extend(found.map(|(at, _)| edit(at..at.saturating_add(copy.len()), "copy")));
        }
        Ok(edits)
    }

    /// A secret that is split over the texts of neighbouring blocks.
    fn across(
        &mut self,
        blocks: Value<'_>,
        at: &str,
        edits: &mut Vec<Edit>,
    ) -> Result<(), Unredactable> {
        let texts: Vec<_> = blocks
            .elements()
            .enumerate()
            .filter_map(|(index, block)| Some((index, block.get("text")?)))
            .filter_map(|(index, value)| Some((index, value, value.as_str()?)))
            .collect();
        if !self.secrets || texts.len() < 2 {
            return Ok(());
        }
        let joined: String = texts.iter().map(|(_, _, text)| *text).collect();
        for secret in self.secrets(&joined)? {
            let mut start = 0_usize;
            for (index, value, text) in &texts {
                let end = start.saturating_add(text.len());
                let from = secret.at.start.max(start);
                let to = secret.at.end.min(end);
                if from < to {
                    let pointer = format!("{at}/{index}/text");
                    let place = Place { pointer, rule: secret.rule };
                    let at = from.saturating_sub(start)..to.saturating_sub(start);
                    let edit = Edit { at, with: MARKER.to_owned(), place };
                    edits.extend(lifted(*value, vec![edit])?);
                }
                start = end;
            }
        }
        Ok(())
    }
}
