//! Finds secrets and copies that are split over several values of an answer.
//!
//! A reader of an answer puts its texts together in an order that the firewall cannot know. So the
//! strings of all parts are joined in document order in several ways: all of them with the numbers,
//! those that are no metadata of MCP, and for each member name those that stand under it, all of
//! them and in pairs of neighbours. Each way costs at most twice the size of the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::{
    MARKER, OPAQUE, PLACES_MAX, RedactedPlace, Redactor, Replacement, Unredactable, below, lifted,
    replaced,
};
use crate::duty::secrets::Rules;
use crate::wire::document::{Kind, Value};

/// Of a longer text only this much at both ends is joined with its neighbours, bytes. More than a
/// private key of 4096 bits has in PEM.
const END_BYTES_MAX: usize = 4 << 10;

/// Members that say how content is read, and are not shown with it (MCP 2025-11-25, schema,
/// `ContentBlock`, `ResourceContents`, `SamplingMessage`).
const METADATA: &[&str] =
    &["type", "role", "uri", "name", "mimeType", "audience", "lastModified", "id", "toolUseId"];

/// Names of members, in the form of [`plain`], that hold the value of the object around them.
const VALUE_NAMES: &[&str] = &[
    "value",
    "values",
    "key",
    "raw",
    "rawvalue",
    "data",
    "string",
    "text",
    "plaintext",
    "current",
    "content",
    "number",
];

/// Endings of names, in the form of [`plain`], under which a value is a secret by its
/// place.
const SECRET_NAMES: &[&str] = &[
    "apikey",
    "accesskey",
    "privatekey",
    "secretkey",
    "authkey",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "authorization",
];

/// The name of one value under `name`, in the singular, if it says that the value is a secret.
pub(super) fn secret_name(name: &str) -> Option<&str> {
    let name = name.strip_suffix(['s', 'S']).unwrap_or(name);
    let plain = plain(name);
    SECRET_NAMES.iter().any(|it| plain.ends_with(it)).then_some(name)
}

/// Whether a member `name` of an object holds what the object's own name says.
pub(super) fn is_value_name(name: &str) -> bool {
    VALUE_NAMES.contains(&&*plain(name))
}

/// `name` in lower case, without `-`, `_`, dots and white space.
fn plain(name: &str) -> String {
    let plain = name.chars().filter(|it| !matches!(it, '-' | '_' | '.' | ' '));
    plain.map(|it| it.to_ascii_lowercase()).collect()
}

/// Adds the texts that a reader shows of an element of a list, each with its pointer: of a content
/// block, an embedded resource, a message, a list, or the element itself. The document's depth limit
/// bounds the recursion.
pub(super) fn shown<'a>(element: Value<'a>, at: &str, texts: &mut Vec<(String, Value<'a>)>) {
    match element.kind() {
        Kind::String => texts.push((at.to_owned(), element)),
        Kind::Array => {
            for (index, inner) in element.elements().enumerate() {
                shown(inner, &format!("{at}/{index}"), texts);
            }
        }
        Kind::Object => {
            let string = |value: Value<'a>| Some(value).filter(|it| it.kind() == Kind::String);
            let text = element.get("text").and_then(string);
            let resource = element.get("resource").and_then(|it| it.get("text")).and_then(string);
            let is_resource = element.get("type").and_then(Value::as_str) == Some("resource");
            match (text, resource, element.get("content")) {
                (_, Some(inner), _) if is_resource || text.is_none() => {
                    texts.push((format!("{at}/resource/text"), inner));
                }
                (Some(text), _, _) => texts.push((format!("{at}/text"), text)),
                (None, _, Some(content)) => shown(content, &format!("{at}/content"), texts),
                (None, _, None) => {}
            }
        }
        Kind::Null | Kind::Bool | Kind::Number => {}
    }
}

/// A string or number of the answer.
struct Piece<'a> {
    /// The member that it stands under, also through lists.
    name: &'a str,
    value: Value<'a>,
    text: &'a str,
    /// Whether it is part of a member in [`OPAQUE`].
    opaque: bool,
}

/// A part of a piece in a joined text.
struct Segment {
    /// Where it begins in the joined text, bytes.
    start: usize,
    piece: usize,
    /// The bytes of the piece.
    at: Range<usize>,
}

/// Parts of pieces, joined.
#[derive(Default)]
struct Joined {
    text: String,
    segments: Vec<Segment>,
}

impl Joined {
    fn push(&mut self, piece: usize, text: &str) {
        let end = text.ceil_char_boundary(text.len().saturating_sub(END_BYTES_MAX));
        let head = text.floor_char_boundary(END_BYTES_MAX);
        if head >= end {
            self.add(piece, text, 0..text.len());
        } else {
            self.add(piece, text, 0..head);
            self.text.push('\n');
            self.add(piece, text, end..text.len());
        }
    }

    fn add(&mut self, piece: usize, text: &str, at: Range<usize>) {
        let start = self.text.len();
        self.text.push_str(text.get(at.clone()).unwrap_or_default());
        self.segments.push(Segment { start, piece, at });
    }

    /// The parts of pieces that `found` covers, if they belong to more than one piece.
    fn covered(&self, found: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let first = self.segments.partition_point(|it| it.start <= found.start).saturating_sub(1);
        let mut parts = Vec::new();
        for segment in self.segments.iter().skip(first) {
            if segment.start >= found.end {
                break;
            }
            let inside = |at: usize| {
                segment
                    .at
                    .start
                    .saturating_add(at.saturating_sub(segment.start))
                    .min(segment.at.end)
            };
            let at = inside(found.start)..inside(found.end);
            if !at.is_empty() {
                parts.push((segment.piece, at));
            }
        }
        let several = parts.iter().any(|(piece, _)| parts.first().is_some_and(|it| it.0 != *piece));
        if several { parts } else { Vec::new() }
    }
}

/// In which orders the texts of a search may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Each two of them may follow each other.
    Any,
    /// Only those that stand side by side.
    Neighbours,
}

/// What must go: for each piece, the bytes of its text and the rule.
type Hits = BTreeMap<usize, Vec<(Range<usize>, &'static str)>>;

impl Redactor<'_> {
    /// Finds what is split over several values of `parts`, each with its pointer.
    pub(super) fn split(
        &mut self,
        parts: &[(String, Value<'_>)],
        edits: &mut Vec<Replacement>,
    ) -> Result<(), Unredactable> {
        let mut pieces = Vec::new();
        for (_, part) in parts {
            if part.kind() == Kind::Object {
                for (name, member) in part.members() {
                    let name = name.as_str().unwrap_or_default();
                    collect(member, name, OPAQUE.contains(&name), &mut pieces);
                }
            } else {
                collect(*part, "", false, &mut pieces);
            }
        }
        if pieces.len() < 2 {
            return Ok(());
        }
        // A budget of its own, so that an answer without split secrets is not withheld because of
        // this search alone while each of its texts was searched.
        let left = std::mem::replace(&mut self.left, self.left_of_split);
        let found = self.in_pieces(&pieces);
        self.left_of_split = std::mem::replace(&mut self.left, left);
        edits.extend(edits_of(&pieces, found?, parts)?);
        if edits.len() > PLACES_MAX { Err(Unredactable::TooMuch) } else { Ok(()) }
    }

    fn in_pieces(&mut self, pieces: &[Piece<'_>]) -> Result<Hits, Unredactable> {
        let mut hits = Hits::new();
        let is_string = |piece: &Piece<'_>| piece.value.kind() == Kind::String;
        // One joined text at a time, because of the memory.
        let content = joined(pieces, |it| is_string(it) && !METADATA.contains(&it.name));
        self.in_joined(&content)?.into_iter().try_for_each(|find| add(&mut hits, find))?;
        drop(content);
        let mut named: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, piece) in pieces.iter().enumerate().filter(|(_, it)| is_string(it)) {
            named.entry(piece.name).or_default().push(index);
        }
        for indexes in named.values().filter(|it| it.len() > 1) {
            let text = |index: usize| pieces.get(index).map_or("", |it| it.text);
            let mut chain = Joined::default();
            for index in indexes {
                chain.push(*index, text(*index));
            }
            self.in_joined(&chain)?.into_iter().try_for_each(|find| add(&mut hits, find))?;
            drop(chain);
            let mut pairs = Joined::default();
            for (index, next) in indexes.iter().zip(indexes.iter().skip(1)) {
                pairs.push(*index, text(*index));
                pairs.push(*next, text(*next));
                pairs.text.push('\n');
            }
            self.in_joined(&pairs)?.into_iter().try_for_each(|find| add(&mut hits, find))?;
        }
        drop(named);
        for find in self.in_joined(&joined(pieces, |_| true))? {
            // What was found without the metadata between its parts would take that along.
            let overlaps = |(piece, at): &(usize, Range<usize>)| {
                hits.get(piece).is_some_and(|found| {
                    found.iter().any(|(it, _)| it.start < at.end && at.start < it.end)
                })
            };
            let again = find.parts.iter().any(overlaps);
            let metadata = |piece: usize| {
                pieces.get(piece).is_some_and(|it: &Piece<'_>| METADATA.contains(&it.name))
            };
            let parts = find.parts.into_iter().filter(|(piece, _)| !again || !metadata(*piece));
            add(&mut hits, Find { parts: parts.collect(), rule: find.rule })?;
        }
        Ok(hits)
    }

    /// Whether a secret is split over all of `texts` in a row, forwards or backwards, or over two of
    /// them.
    pub(super) fn is_split_over(
        &mut self,
        texts: &[&str],
        order: Order,
    ) -> Result<bool, Unredactable> {
        let mut forwards = Joined::default();
        let mut backwards = Joined::default();
        for (index, text) in texts.iter().enumerate() {
            forwards.push(index, text);
        }
        for (index, text) in texts.iter().enumerate().rev() {
            backwards.push(index, text);
        }
        for joined in [forwards, backwards] {
            if !self.in_joined(&joined)?.is_empty() {
                return Ok(true);
            }
        }
        for (index, text) in texts.iter().enumerate() {
            let others = match order {
                Order::Any => texts,
                Order::Neighbours => {
                    let end = index.saturating_add(2).min(texts.len());
                    texts.get(index.saturating_sub(1)..end).unwrap_or_default()
                }
            };
            let first = if order == Order::Any { 0 } else { index.saturating_sub(1) };
            let mut pairs = Joined::default();
            for (other, next) in (first..).zip(others).filter(|(other, _)| *other != index) {
                pairs.push(index, text);
                pairs.push(other, next);
                pairs.text.push('\n');
            }
            if !self.in_joined(&pairs)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn in_joined(&mut self, joined: &Joined) -> Result<Vec<Find>, Unredactable> {
        if joined.segments.len() < 2 {
            return Ok(Vec::new());
        }
        self.searches(joined.text.len())?;
        // By a word before it alone, values that stand side by side would often look like one key.
        let found = self.plain(&joined.text, "", "", Rules::OfOwnForm)?.into_iter();
        let find = |it: Replacement| Find { parts: joined.covered(&it.at), rule: it.place.rule };
        Ok(found.map(find).filter(|find| !find.parts.is_empty()).collect())
    }
}

/// The pieces that `take` chooses, joined.
fn joined<'a>(pieces: &[Piece<'a>], take: impl Fn(&Piece<'a>) -> bool) -> Joined {
    let mut joined = Joined::default();
    for (index, piece) in pieces.iter().enumerate().filter(|(_, piece)| take(piece)) {
        joined.push(index, piece.text);
    }
    joined
}

/// A secret or copy that is split.
struct Find {
    /// The pieces that hold it, with the bytes of each.
    parts: Vec<(usize, Range<usize>)>,
    rule: &'static str,
}

/// Adds `find` to `hits`.
fn add(hits: &mut Hits, find: Find) -> Result<(), Unredactable> {
    for (piece, at) in find.parts {
        let of_piece = hits.entry(piece).or_default();
        of_piece.push((at, find.rule));
        if of_piece.len() > PLACES_MAX || hits.len() > PLACES_MAX {
            return Err(Unredactable::TooMuch);
        }
    }
    Ok(())
}

/// Adds the strings and numbers of `value`, which stands under `name`. The document's depth limit
/// bounds the recursion.
fn collect<'a>(value: Value<'a>, name: &'a str, opaque: bool, pieces: &mut Vec<Piece<'a>>) {
    if let Some(text) = value.as_str().or_else(|| value.as_number()).filter(|it| !it.is_empty()) {
        pieces.push(Piece { name, value, text, opaque });
    }
    for (name, member) in value.members() {
        collect(member, name.as_str().unwrap_or_default(), opaque, pieces);
    }
    for element in value.elements() {
        collect(element, name, opaque, pieces);
    }
}

/// The replacements that `hits` ask for.
fn edits_of(
    pieces: &[Piece<'_>],
    hits: Hits,
    parts: &[(String, Value<'_>)],
) -> Result<Vec<Replacement>, Unredactable> {
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let starts: BTreeSet<usize> = hits
        .keys()
        .filter_map(|index| pieces.get(*index))
        .map(|piece| piece.value.span().start)
        .collect();
    let mut pointers = BTreeMap::new();
    for (at, part) in parts {
        find_pointers(*part, at, &starts, &mut pointers);
    }
    let mut edits = Vec::new();
    for (index, found) in hits {
        let Some(piece) = pieces.get(index) else { continue };
        if piece.opaque {
            return Err(Unredactable::InState);
        }
        let pointer = pointers.get(&piece.value.span().start).cloned().unwrap_or_default();
        let place = |rule| RedactedPlace { pointer: pointer.clone(), rule };
        if piece.value.kind() == Kind::String {
            let edit = |(at, rule)| Replacement { at, with: MARKER.to_owned(), place: place(rule) };
            edits.extend(lifted(piece.value, found.into_iter().map(edit).collect())?);
        } else if let Some((_, rule)) = found.first() {
            edits.push(Replacement { place: place(rule), ..replaced(piece.value, &pointer) });
        }
    }
    Ok(edits)
}

/// Finds the pointers to the values that begin at `starts`.
fn find_pointers(
    value: Value<'_>,
    at: &str,
    starts: &BTreeSet<usize>,
    found: &mut BTreeMap<usize, String>,
) {
    let span = value.span();
    if starts.range(span.clone()).next().is_none() {
        return;
    }
    if matches!(value.kind(), Kind::String | Kind::Number) {
        found.insert(span.start, at.to_owned());
    }
    let holds = |value: Value<'_>| starts.range(value.span()).next().is_some();
    for (name, member) in value.members().filter(|(_, member)| holds(*member)) {
        let at = below(at, name.as_str().unwrap_or_default());
        find_pointers(member, &at, starts, found);
    }
    for (index, element) in value.elements().enumerate().filter(|(_, it)| holds(*it)) {
        find_pointers(element, &format!("{at}/{index}"), starts, found);
    }
}
