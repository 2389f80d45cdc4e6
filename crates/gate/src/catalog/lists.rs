//! Server frames: pages of definitions, digested and filtered.
//!
//! A filtered page differs from the server's only where an entry was taken out: kept entries,
//! their order, the cursor and unknown members stay byte for byte.

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::wire::document::{Document, Kind, Value, write_string};
use crate::wire::hex::hex;
use crate::wire::method::List;

/// One definition of a page.
#[derive(Debug)]
pub struct Entry<'a> {
    /// Name, URI or URI template.
    pub name: &'a str,
    /// Digest of the definition, `sha256:<hex>`.
    pub digest: Box<str>,
    /// The definition.
    pub value: Value<'a>,
}

/// The definitions of one page, in the server's order.
#[derive(Debug)]
pub struct Page<'a> {
    list: Value<'a>,
    /// The entries.
    pub entries: Vec<Entry<'a>>,
}

/// A list answer that does not hold a list of named definitions: it cannot be filtered, so it
/// cannot pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPage;

impl<'a> Page<'a> {
    /// Reads the page out of a `result`.
    pub fn read(result: Value<'a>, list: List) -> Result<Self, NoPage> {
        let (member, key) = match list {
            List::Tools => ("tools", "name"),
            List::Prompts => ("prompts", "name"),
            List::Resources => ("resources", "uri"),
            List::ResourceTemplates => ("resourceTemplates", "uriTemplate"),
            List::Tasks => ("tasks", "taskId"),
        };
        let list = result.get(member).filter(|value| value.kind() == Kind::Array).ok_or(NoPage)?;
        let entries = list
            .elements()
            .map(|value| {
                let name = value.get(key).and_then(Value::as_str).ok_or(NoPage)?;
                Ok(Entry { name, digest: digest(value), value })
            })
            .collect::<Result<Vec<_>, NoPage>>()?;
        Ok(Self { list, entries })
    }

    /// The edit that takes out the entries that `hidden` names; none if it names none of them.
    pub fn without(
        &self,
        document: &Document,
        hidden: &[Box<str>],
    ) -> Option<(Range<usize>, Vec<u8>)> {
        let hides = |entry: &Entry<'_>| hidden.iter().any(|name| **name == *entry.name);
        if !self.entries.iter().any(hides) {
            return None;
        }
        let raw = document.raw();
        let span = self.list.span();
        let mut text = vec![b'['];
        let mut last_end = span.start.saturating_add(1);
        let mut kept = 0_usize;
        for entry in &self.entries {
            let at = entry.value.span();
            let gap = raw.get(last_end..at.start).unwrap_or_default();
            last_end = at.end;
            if hides(entry) {
                continue;
            }
            // The gap before an entry holds its comma and spacing; the first kept entry has none.
            if kept > 0 {
                let comma = if gap.contains(&b',') { gap } else { b"," };
                text.extend_from_slice(comma);
            }
            text.extend_from_slice(entry.value.raw());
            kept = kept.saturating_add(1);
        }
        text.push(b']');
        Some((span, text))
    }
}

/// The edit that keeps a shared cache from serving one principal's page to another
/// (2026-07-28, caching: `cacheScope`); none where the answer does not say `public`.
pub fn private_scope(result: Value<'_>) -> Option<(Range<usize>, Vec<u8>)> {
    let scope = result.get("cacheScope")?;
    (scope.as_str()? == "public").then(|| (scope.span(), b"\"private\"".to_vec()))
}

/// How long a client may keep a page that was filtered, milliseconds: what is hidden changes with
/// the policy, and in 2026-07-28 nobody tells the client of that.
pub const FILTERED_TTL_MS_MAX: u32 = 60_000;

/// The edit that keeps a filtered page from outliving its policy for long (2026-07-28, caching:
/// `ttlMs`); none where the answer allows less.
pub fn short_life(result: Value<'_>) -> Option<(Range<usize>, Vec<u8>)> {
    let ttl = result.get("ttlMs")?;
    let millis: f64 = ttl.as_number()?.parse().ok()?;
    (millis > f64::from(FILTERED_TTL_MS_MAX))
        .then(|| (ttl.span(), FILTERED_TTL_MS_MAX.to_string().into_bytes()))
}

/// `document` with `edits` made, in whatever order they come.
pub fn edited(document: &Document, mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Bytes {
    if edits.is_empty() {
        return document.raw().clone();
    }
    edits.sort_by_key(|(span, _)| span.start);
    document.splice(&edits)
}

/// Digest of a definition over its canonical form: members sorted by name, no white space,
/// strings in one spelling, numbers as written. A server may reformat a definition freely; any
/// change of its content is another digest.
pub fn digest(value: Value<'_>) -> Box<str> {
    format!("sha256:{}", hex(&Sha256::digest(canonical_text(value)))).into()
}

/// The canonical form that [`digest`] is of.
pub fn canonical_text(value: Value<'_>) -> String {
    let mut text = Vec::with_capacity(value.raw().len());
    canonical(value, &mut text);
    // Always UTF-8: all of it came from texts.
    String::from_utf8(text).unwrap_or_default()
}

/// Depth is bounded by the document's own limit.
fn canonical(value: Value<'_>, out: &mut Vec<u8>) {
    match value.kind() {
        Kind::Null | Kind::Bool | Kind::Number => out.extend_from_slice(value.raw()),
        Kind::String => write_string(out, value.as_str().unwrap_or_default()),
        Kind::Array => {
            out.push(b'[');
            for (index, element) in value.elements().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                canonical(element, out);
            }
            out.push(b']');
        }
        Kind::Object => {
            let mut members: Vec<_> = value.members().collect();
            members.sort_by_key(|(name, _)| name.as_str());
            out.push(b'{');
            for (index, (name, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(out, name.as_str().unwrap_or_default());
                out.push(b':');
                canonical(member, out);
            }
            out.push(b'}');
        }
    }
}
