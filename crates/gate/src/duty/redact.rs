//! Discharges [`Obligation::Redact`](super::decision::Obligation): removes from a server's message
//! the values at given pointers, and secrets of known forms wherever they occur.
//!
//! Each removed value is replaced by [`MARKER`]; every other byte stays as the server wrote it. A
//! string that holds JSON, as servers repeat structured content, is searched like the message
//! around it; one that holds JSON behind other text is searched as it reads without its escapes,
//! too. A message that cannot be searched, or that holds a secret where no marker can stand (a name,
//! an id, a state that the client sends back), is [`Unredactable`], and `session` withholds it.

mod copies;
mod split;
mod unescaped;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;

use self::copies::{COPY_BYTES_MIN, Copies};
use self::split::{Order, is_value_name, secret_name, shown};
use self::unescaped::{Unescaped, hides};
use super::secrets::{self, FoundSecret, Rules, SearchError};
use crate::wire::document::{Document, DocumentLimits, Kind, Value, unescaped, write_string};
use crate::wire::fold::is_alias;
use crate::wire::frame::is_other_spelling;

/// The text that replaces a removed value. None of its characters is escaped in JSON, so it reads
/// the same at every level of JSON inside JSON.
pub const MARKER: &str = "[redacted]";

/// Longest pointer of a [`Redaction`], bytes.
pub const POINTER_BYTES_MAX: usize = 256;
/// Redactions of one answer at most.
pub const REDACTIONS_MAX: usize = 64;
/// Values removed from one answer at most; an answer with more is withheld.
const PLACES_MAX: usize = 1024;
/// Work spent on searching one answer, bytes: each byte counts once each time a rule or the JSON
/// reader reads it. An answer that needs more is withheld.
const SEARCH_BYTES_MAX: usize = 64 << 20;
/// Work spent on searching one answer for what is split over several values, bytes, counted in the
/// same way.
const SPLIT_SEARCH_BYTES_MAX: usize = 64 << 20;
/// Work spent by [`is_split_over`], bytes, counted in the same way.
const VALUES_SEARCH_BYTES_MAX: usize = 1 << 20;
/// Levels of JSON inside strings that are searched; an answer with more is withheld.
const NESTING_MAX: usize = 4;
/// The rule of a removed copy.
const COPY: &str = "copy";
/// The rule of a number that is a secret by its name.
const DIGITS: &str = "digits";
/// Digits of a number from which on it is a secret if its name says so. Counts (`tokens`) and times
/// have fewer.
const SECRET_DIGITS_MIN: usize = 16;

/// Members of a result that the client sends back to the server without reading them: cursors and
/// states. A marker in them would break the next request, so a message with a secret in one is
/// withheld.
const OPAQUE: &[&str] = &["requestState", "nextCursor", "taskId"];

/// What a rule demands to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redaction {
    /// The value at this RFC 6901 pointer from the message's root, below `/result` or `/error`, in
    /// which `*` means each element or member. The pointer also leads into strings that hold JSON.
    Pointer(Box<str>),
    /// Every text that has the form of a known kind of secret; see `duty::secrets`.
    Secrets,
}

impl Redaction {
    /// Returns a pointer redaction. `None` if `text` is longer than [`POINTER_BYTES_MAX`], does not
    /// begin with `/result/` or `/error/`, or has an invalid escape.
    pub fn pointer(text: &str) -> Option<Self> {
        let known = text.starts_with("/result/") || text.starts_with("/error/");
        let escapes_ok = text.split('/').all(|token| unescaped(token).is_some());
        let fits = known && escapes_ok && text.len() <= POINTER_BYTES_MAX;
        fits.then(|| Self::Pointer(text.into()))
    }
}

/// One value that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedactedPlace {
    /// Where it stood: a pointer from the message's root, also through strings that hold JSON.
    pub pointer: String,
    /// Why it was removed: `pointer`, `copy` (of a value that a pointer named), or the id of the
    /// rule that found a secret.
    pub rule: &'static str,
}

/// The outcome of [`redact`].
#[derive(Debug)]
pub struct Redacted {
    /// The message with each removed value replaced by [`MARKER`].
    pub body: Bytes,
    /// What was removed, in the order of the bytes.
    pub places: Vec<RedactedPlace>,
}

/// Why a message cannot be redacted, so that it must be withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unredactable {
    /// It holds an image, audio or a blob, which cannot be searched for secrets.
    NoText,
    /// It exceeds `SEARCH_BYTES_MAX`, `NESTING_MAX` or `PLACES_MAX`.
    TooMuch,
    /// The name of a member or method, or an id, holds a secret. A marker in its place could make
    /// two names equal.
    InName,
    /// A cursor or state that the client sends back holds a secret. With a marker in its place the
    /// server would not take it.
    InState,
    /// A string that a pointer leads into is not strict JSON, or the redacted message would not be.
    Unreadable,
    /// The rules for secrets could not be applied.
    SearchFailed,
}

impl Unredactable {
    /// The text for the record's `note`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoText => "holds content that is no text, so it cannot be redacted",
            Self::TooMuch => "is too large to be redacted",
            Self::InName => "holds a secret in a name or an id",
            Self::InState => "holds a secret in a cursor or state that goes back to the server",
            Self::Unreadable => "holds a text that a redaction cannot be followed into",
            Self::SearchFailed => "cannot be searched for secrets",
        }
    }
}

/// The parts of a message that may be redacted, each with its pointer; `session` chooses them.
#[derive(Debug, Default)]
pub struct RedactionScope<'a> {
    /// Names and ids that stand outside of the parts, and must not hold secrets.
    pub names: Vec<&'a str>,
    /// The parts that are searched for secrets and copies.
    pub searched: Vec<(String, Value<'a>)>,
    /// The values that `/result` of a pointer stands for: the result, and the result inside a task.
    pub results: Vec<(String, Value<'a>)>,
    /// The value that `/error` of a pointer stands for.
    pub error: Option<Value<'a>>,
}

/// Carries out `redactions` on the parts of `document` that `scope` names. `limits` bound every
/// JSON text that is read on the way and the result.
///
/// # Errors
///
/// [`Unredactable`]: the message must be withheld.
pub fn redact(
    document: &Document,
    scope: &RedactionScope<'_>,
    redactions: &[Redaction],
    limits: &DocumentLimits,
) -> Result<Redacted, Unredactable> {
    let mut run = Redactor {
        secrets: false,
        left_of_split: SPLIT_SEARCH_BYTES_MAX,
        ..Redactor::for_secrets(limits, SEARCH_BYTES_MAX)
    };
    let mut edits = Vec::new();
    for redaction in redactions {
        match redaction {
            Redaction::Secrets => run.secrets = true,
            Redaction::Pointer(pointer) => run.follow(scope, pointer, &mut edits)?,
        }
    }
    scope.names.iter().try_for_each(|name| run.name(name))?;
    if run.secrets || !run.copies.is_empty() {
        for (at, value) in &scope.searched {
            run.search_part(*value, at, &mut edits)?;
        }
        run.split(&scope.searched, &mut edits)?;
    }
    let edits = merged(edits)?;
    if edits.is_empty() {
        return Ok(Redacted { body: document.raw().clone(), places: Vec::new() });
    }
    let (places, edits): (Vec<_>, Vec<_>) =
        edits.into_iter().map(|edit| (edit.place, (edit.at, edit.with.into_bytes()))).unzip();
    let body = document.splice(&edits);
    // What is delivered must satisfy the same strict profile as what was read.
    Document::read(body.clone(), limits).map_err(|_| Unredactable::Unreadable)?;
    Ok(Redacted { body, places })
}

/// The pointers, from the root of the JSON text `text`, to each place of a secret: what [`redact`]
/// would remove from it with [`Redaction::Secrets`]. `bytes_max` is the work that may be spent, bytes.
///
/// # Errors
///
/// [`Unredactable`]: `text` cannot be searched, or a name in it holds a secret.
pub(crate) fn secret_places(text: &str, bytes_max: usize) -> Result<Vec<String>, Unredactable> {
    let limits = DocumentLimits::default();
    let document = Document::read(Bytes::copy_from_slice(text.as_bytes()), &limits)
        .map_err(|_| Unredactable::Unreadable)?;
    let mut run = Redactor::for_secrets(&limits, bytes_max);
    let mut edits = Vec::new();
    run.search(document.root(), "", Position::top(""), &mut edits)?;
    run.split(&[(String::new(), document.root())], &mut edits)?;
    Ok(edits.into_iter().map(|edit| edit.place.pointer).collect())
}

/// Whether a secret of a known form is split over several of `values`, which a reader may put
/// together in any order, or over words that follow each other in them. Also `true` if the search
/// would cost more than [`VALUES_SEARCH_BYTES_MAX`]. For the few short texts that go to a client
/// beside a message.
pub fn is_split_over(values: &[&str]) -> bool {
    let limits = DocumentLimits::default();
    let mut run = Redactor::for_secrets(&limits, VALUES_SEARCH_BYTES_MAX);
    let words: Vec<&str> = values.iter().flat_map(|value| value.split(' ')).collect();
    run.is_split_over(values, Order::Any).unwrap_or(true)
        || run.is_split_over(&words, Order::Neighbours).unwrap_or(true)
}

/// A replacement in one text, as a range of that text's bytes.
struct Replacement {
    at: Range<usize>,
    with: String,
    place: RedactedPlace,
}

/// Sorts the edits and merges those that overlap. The edit that begins first keeps its marker and
/// its place.
fn merged(mut edits: Vec<Replacement>) -> Result<Vec<Replacement>, Unredactable> {
    edits.sort_by_key(|edit| (edit.at.start, Reverse(edit.at.end)));
    let mut kept: Vec<Replacement> = Vec::new();
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

/// Translates edits of the decoded text of `string` into edits of its literal in the document.
fn lifted(string: Value<'_>, edits: Vec<Replacement>) -> Result<Vec<Replacement>, Unredactable> {
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

/// Replaces a whole value: a string keeps its quotes, a value of another kind becomes a string.
fn replaced(value: Value<'_>, pointer: &str) -> Replacement {
    let span = value.span();
    let (at, with) = if value.kind() == Kind::String {
        (span.start.saturating_add(1)..span.end.saturating_sub(1), MARKER.to_owned())
    } else {
        (span, format!("\"{MARKER}\""))
    };
    Replacement { at, with, place: RedactedPlace { pointer: pointer.to_owned(), rule: "pointer" } }
}

/// Whether `text` is a number of at least [`SECRET_DIGITS_MIN`] digits, in any notation of JSON or
/// divided into groups.
fn is_long_number(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    digits >= SECRET_DIGITS_MIN
        && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE _".contains(&byte))
}

/// The pointer `at`, extended by the member `name`.
pub fn below(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The members of `object` that some reader takes for its member `known`, and their names.
fn spelt<'a>(object: Value<'a>, known: &str) -> impl Iterator<Item = (&'a str, Value<'a>)> {
    let named = object.members().map(|(name, member)| (name.as_str().unwrap_or_default(), member));
    named.filter(move |(name, _)| *name == known || is_other_spelling(name, &[known]))
}

/// The texts of a content block, also that of a resource in it, each with its pointer.
fn texts_of<'a>(block: Value<'a>, at: &str) -> Vec<(String, Value<'a>)> {
    let inside = spelt(block, "resource").map(|(name, resource)| (below(at, name), resource));
    let holders = std::iter::once((at.to_owned(), block)).chain(inside);
    let texts = |(at, holder): (String, Value<'a>)| {
        spelt(holder, "text").map(move |(name, text)| (below(&at, name), text))
    };
    holders.flat_map(texts).collect()
}

/// What counts as content that is no text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    /// Anything that a client could take for it.
    OfContent,
    /// In structured data, which may use the name `blob` for something else: what has the members
    /// that MCP demands.
    OfData,
}

/// Where a value stands in the message.
#[derive(Clone, Copy)]
struct Position<'a> {
    /// The RFC 6901 pointer to it, also through strings that hold JSON.
    pointer: &'a str,
    /// Strings read as JSON around it; at most [`NESTING_MAX`].
    nesting: usize,
}

impl<'a> Position<'a> {
    /// At `pointer`, not inside a string.
    fn top(pointer: &'a str) -> Self {
        Self { pointer, nesting: 0 }
    }

    /// At `pointer`, inside the same string.
    fn at(self, pointer: &str) -> Position<'_> {
        Position { pointer, nesting: self.nesting }
    }

    /// Inside the JSON that the string at this position holds.
    fn inside(self) -> Self {
        Self { nesting: self.nesting.saturating_add(1), ..self }
    }
}

/// The state of one call of [`redact`].
struct Redactor<'l> {
    limits: &'l DocumentLimits,
    secrets: bool,
    /// What a pointer named; its copies elsewhere are removed too.
    copies: Copies,
    /// Where a pointer led. What stands below is removed and need not be searched.
    removed: BTreeSet<String>,
    /// What is left of [`SEARCH_BYTES_MAX`].
    left: usize,
    /// What is left of [`SPLIT_SEARCH_BYTES_MAX`].
    left_of_split: usize,
}

impl<'l> Redactor<'l> {
    /// One that searches for secrets, and spends at most `bytes_max` on texts as they stand and as
    /// much on split ones.
    fn for_secrets(limits: &'l DocumentLimits, bytes_max: usize) -> Self {
        let (left, left_of_split) = (bytes_max, bytes_max);
        let (copies, removed) = (Copies::default(), BTreeSet::new());
        Self { limits, secrets: true, copies, removed, left, left_of_split }
    }
}

impl Redactor<'_> {
    fn follow(
        &mut self,
        scope: &RedactionScope<'_>,
        pointer: &str,
        edits: &mut Vec<Replacement>,
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
        let Some((first, rest)) = tokens.split_first() else { return Ok(()) };
        for (at, result) in &scope.results {
            self.named(*result, &tokens, Position::top(at), true, edits)?;
            // Readers that take MCP's names in snake case, too, find the value under such a name.
            let left = |(name, _): &(&str, Value<'_>)| name != first && !is_alias(name, first);
            for (name, member) in spelt(*result, first).filter(left) {
                self.named(member, rest, Position::top(&below(at, name)), true, edits)?;
            }
            // Servers repeat structured content as JSON in a text (2025-06-18, tools,
            // "Structured Content").
            if *first != "structuredContent" || rest.is_empty() {
                continue;
            }
            for (name, blocks) in spelt(*result, "content") {
                let at = below(at, name);
                for (index, block) in blocks.elements().enumerate() {
                    let at = format!("{at}/{index}");
                    for (at, text) in texts_of(block, &at) {
                        self.named(text, rest, Position::top(&at), false, edits)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Replaces each value that `tokens` lead to from `value`, which stands at `position`. If
    /// `must`, a string on the way that is not JSON is an error; otherwise it is skipped.
    fn named(
        &mut self,
        value: Value<'_>,
        tokens: &[&str],
        position: Position<'_>,
        must: bool,
        edits: &mut Vec<Replacement>,
    ) -> Result<(), Unredactable> {
        let at = position.pointer;
        let Some((token, rest)) = tokens.split_first() else {
            self.copies.remember(value)?;
            self.removed.insert(at.to_owned());
            edits.push(replaced(value, at));
            return Ok(());
        };
        let name = unescaped(token).ok_or(Unredactable::Unreadable)?;
        let every = *token == "*";
        match value.kind() {
            Kind::Object => {
                for (key, member) in value.members() {
                    let key = key.as_str().unwrap_or_default();
                    // A client that ignores case would show what a member `Token` holds as `token`.
                    if every || *key == *name || is_alias(key, &name) {
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

    /// Reads `text` as JSON; `None` if it is not a JSON object or array.
    fn inner(&mut self, text: &str, nesting: usize) -> Result<Option<Document>, Unredactable> {
        if !text.trim_start().starts_with(['{', '[']) {
            return Ok(None);
        }
        self.searches(text.len())?;
        match Document::read(Bytes::copy_from_slice(text.as_bytes()), self.limits) {
            Ok(_) if nesting >= NESTING_MAX => Err(Unredactable::TooMuch),
            Ok(document) => Ok(Some(document)),
            // It is JSON to other readers, and was not searched as such.
            Err(why) if why.may_be_json() => Err(Unredactable::Unreadable),
            Err(_) => Ok(None),
        }
    }

    fn searches(&mut self, bytes: usize) -> Result<(), Unredactable> {
        self.left = self.left.checked_sub(bytes).ok_or(Unredactable::TooMuch)?;
        Ok(())
    }

    fn secrets(&mut self, text: &str, rules: Rules) -> Result<Vec<FoundSecret>, Unredactable> {
        secrets::find_by(rules, text, &mut self.left).map_err(|why| match why {
            SearchError::OverBudget => Unredactable::TooMuch,
            SearchError::BrokenRule => Unredactable::SearchFailed,
        })
    }

    /// Searches a result, an error or the `params` of a notification. Nothing may be found in members
    /// in [`OPAQUE`].
    fn search_part(
        &mut self,
        part: Value<'_>,
        at: &str,
        edits: &mut Vec<Replacement>,
    ) -> Result<(), Unredactable> {
        if part.kind() != Kind::Object {
            self.texts_alone(part, Media::OfContent)?;
            return self.search(part, "", Position::top(at), edits);
        }
        for (name, member) in part.members() {
            let name = name.as_str().unwrap_or_default();
            self.name(name)?;
            if OPAQUE.contains(&name) {
                let mut found = Vec::new();
                self.search(member, name, Position::top(&below(at, name)), &mut found)?;
                if !found.is_empty() {
                    return Err(Unredactable::InState);
                }
                continue;
            }
            let media = if name == "structuredContent" { Media::OfData } else { Media::OfContent };
            self.texts_alone(member, media)?;
            self.search(member, name, Position::top(&below(at, name)), edits)?;
        }
        Ok(())
    }

    /// Refuses content that cannot be searched for secrets: `ImageContent`, `AudioContent` and
    /// `BlobResourceContents` (MCP 2025-06-18, schema), in any spelling of their names.
    fn texts_alone(&self, value: Value<'_>, of: Media) -> Result<(), Unredactable> {
        if !self.secrets {
            return Ok(());
        }
        let texts = |known| spelt(value, known).filter_map(|(_, member)| member.as_str());
        let has = |known| texts(known).next().is_some();
        let is_media =
            |kind: &str| ["image", "audio"].iter().any(|it| kind.eq_ignore_ascii_case(it));
        let media = has("data") && texts("type").any(is_media);
        let blob = has("blob") && (of == Media::OfContent || has("uri"));
        if media || blob {
            return Err(Unredactable::NoText);
        }
        value.members().try_for_each(|(_, member)| self.texts_alone(member, of))?;
        value.elements().try_for_each(|element| self.texts_alone(element, of))
    }

    /// Finds secrets and copies in `value`, which stands at `position` under `name`. The document's
    /// own depth limit bounds the recursion.
    fn search(
        &mut self,
        value: Value<'_>,
        name: &str,
        position: Position<'_>,
        edits: &mut Vec<Replacement>,
    ) -> Result<(), Unredactable> {
        let at = position.pointer;
        if self.removed.contains(at) {
            return Ok(());
        }
        match value.kind() {
            Kind::Object => {
                for (member_name, member) in value.members() {
                    let member_name = member_name.as_str().unwrap_or_default();
                    self.name(member_name)?;
                    let at = below(at, member_name);
                    // `{"api_key": {"value": …}}`: the name around it says what it is.
                    let inherits = secret_name(name).is_some() && is_value_name(member_name);
                    let name = if inherits { name } else { member_name };
                    self.search(member, name, position.at(&at), edits)?;
                }
            }
            Kind::Array => {
                for (index, element) in value.elements().enumerate() {
                    self.search(element, name, position.at(&format!("{at}/{index}")), edits)?;
                }
                self.across(value, name, at, edits)?;
            }
            Kind::String => {
                let text = value.as_str().unwrap_or_default();
                // Rules know such names in the singular.
                let singular = secret_name(name).unwrap_or(name);
                let mut inside = self.plain(text, singular, at, Rules::All)?;
                if self.is_digits_secret(text, name) {
                    let place = RedactedPlace { pointer: at.to_owned(), rule: DIGITS };
                    let at = 0..text.len();
                    inside.push(Replacement { at, with: MARKER.to_owned(), place });
                }
                if let Some(document) = self.inner(text, position.nesting)? {
                    let root = document.root();
                    self.texts_alone(root, Media::OfData)?;
                    self.search(root, name, position.inside(), &mut inside)?;
                    self.split(&[(at.to_owned(), root)], &mut inside)?;
                }
                edits.extend(lifted(value, inside)?);
            }
            Kind::Number => {
                let literal = value.as_number();
                let rule = if literal.is_some_and(|literal| self.copies.is_number(literal)) {
                    Some(COPY)
                } else if literal.is_some_and(|literal| self.is_digits_secret(literal, name)) {
                    Some(DIGITS)
                } else {
                    // Some forms are numbers that a name precedes.
                    let literal = literal.filter(|it| it.len() >= COPY_BYTES_MIN);
                    let found = self.plain(literal.unwrap_or_default(), name, at, Rules::All)?;
                    found.first().map(|edit| edit.place.rule)
                };
                if let Some(rule) = rule {
                    let place = RedactedPlace { pointer: at.to_owned(), rule };
                    edits.push(Replacement { place, ..replaced(value, at) });
                }
            }
            Kind::Null | Kind::Bool => {}
        }
        if edits.len() > PLACES_MAX { Err(Unredactable::TooMuch) } else { Ok(()) }
    }

    /// Whether `text`, which stands under `name`, is a secret of digits alone. No rule finds it: ten
    /// digits have too little entropy, and numbers are much else.
    fn is_digits_secret(&self, text: &str, name: &str) -> bool {
        self.secrets && is_long_number(text) && secret_name(name).is_some()
    }

    /// Refuses a name or an id that holds a secret or a copy: a marker could make two names equal.
    fn name(&mut self, name: &str) -> Result<(), Unredactable> {
        if self.plain(name, "", "", Rules::All)?.is_empty() {
            Ok(())
        } else {
            Err(Unredactable::InName)
        }
    }

    /// Finds secrets and copies in one text: as it stands, and as it reads without the escapes of
    /// JSON that it may hold behind other text.
    fn plain(
        &mut self,
        text: &str,
        name: &str,
        at: &str,
        rules: Rules,
    ) -> Result<Vec<Replacement>, Unredactable> {
        let mut edits = self.literal(text, name, at, rules)?;
        if !text.contains('\\') {
            return Ok(edits);
        }
        let mut read = Unescaped::of(text);
        for _ in 0..NESTING_MAX {
            let Some(next) = read.next() else { return Ok(edits) };
            self.searches(next.text.len())?;
            for mut edit in self.literal(&next.text, name, at, rules)? {
                edit.at = next.source(&edit.at);
                edits.push(edit);
            }
            read = next;
        }
        if hides(&read.text) { Err(Unredactable::TooMuch) } else { Ok(edits) }
    }

    /// Finds secrets and copies in one text as it stands. Many rules look at what precedes the
    /// secret, so the text is searched as it would appear in JSON, after its member's name.
    fn literal(
        &mut self,
        text: &str,
        name: &str,
        at: &str,
        rules: Rules,
    ) -> Result<Vec<Replacement>, Unredactable> {
        let edit = |at_text: Range<usize>, rule| Replacement {
            at: at_text,
            with: MARKER.to_owned(),
            place: RedactedPlace { pointer: at.to_owned(), rule },
        };
        let mut edits = Vec::new();
        if self.secrets {
            let before = if name.is_empty() { String::new() } else { format!("\"{name}\": \"") };
            let after = if name.is_empty() { "" } else { "\"" };
            let found = self.secrets(&format!("{before}{text}{after}"), rules)?;
            for secret in found {
                let start = secret.at.start.saturating_sub(before.len());
                let end = secret.at.end.saturating_sub(before.len()).min(text.len());
                if start < end {
                    edits.push(edit(start..end, secret.rule));
                }
            }
        }
        self.searches(text.len().saturating_mul(self.copies.readings()))?;
        edits.extend(self.copies.places(text).into_iter().map(|at| edit(at, COPY)));
        Ok(edits)
    }

    /// Finds a secret or a copy that is split over neighbouring elements of a list under `name`:
    /// content blocks, resources, messages of a prompt, texts.
    fn across(
        &mut self,
        blocks: Value<'_>,
        name: &str,
        at: &str,
        edits: &mut Vec<Replacement>,
    ) -> Result<(), Unredactable> {
        let mut found = Vec::new();
        shown(blocks, at, &mut found);
        let texts: Vec<_> = found
            .into_iter()
            .filter_map(|(place, value)| Some((place, value, value.as_str()?)))
            .collect();
        if texts.len() < 2 {
            return Ok(());
        }
        let joined: String = texts.iter().map(|(_, _, text)| *text).collect();
        self.searches(joined.len())?;
        let name = secret_name(name).unwrap_or_default();
        for found in merged(self.plain(&joined, name, at, Rules::All)?)? {
            let mut start = 0_usize;
            for (pointer, value, text) in &texts {
                let end = start.saturating_add(text.len());
                let from = found.at.start.max(start);
                let to = found.at.end.min(end);
                // A copy that lies in one text was found there; a secret may need what precedes it.
                let split = found.at.start < start || found.at.end > end;
                if from < to && (split || found.place.rule != COPY) {
                    let place = RedactedPlace { pointer: pointer.clone(), rule: found.place.rule };
                    let at = from.saturating_sub(start)..to.saturating_sub(start);
                    let edit = Replacement { at, with: MARKER.to_owned(), place };
                    edits.extend(lifted(*value, vec![edit])?);
                }
                start = end;
            }
        }
        Ok(())
    }
}
