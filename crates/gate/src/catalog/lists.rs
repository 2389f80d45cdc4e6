//! Pages of a server's lists (`tools/list` and the like): reads, digests and filters them.
//!
//! A filtered page differs from the server's only where an entry was removed: kept entries, their
//! order, the cursor and unknown members stay byte for byte. Which entries are hidden is the
//! policy's decision; `session` carries it out with these functions.

use std::collections::HashSet;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::steps;
use crate::wire::document::{Document, Kind, Value, write_string};
use crate::wire::fold::is_alias;
use crate::wire::frame::is_look_alike;
use crate::wire::hex::hex;
use crate::wire::method::List;

/// Members of a result that say how long and for whom it may be kept (MCP 2026-07-28, caching).
const CACHING: [&str; 2] = ["cacheScope", "ttlMs"];
/// Members of a definition that rules and flags read.
const DEFINITION: [&str; 4] = ["description", "inputSchema", "outputSchema", "annotations"];

/// One definition on a page.
#[derive(Debug)]
pub struct ListedDefinition<'a> {
    /// The name, URI, URI template or task id by which the list identifies it.
    pub name: &'a str,
    /// [`digest`] of the definition, `sha256:<hex>`.
    pub digest: Box<str>,
    /// The definition as the server sent it.
    pub value: Value<'a>,
}

/// One page of a list.
#[derive(Debug)]
pub struct ListPage<'a> {
    list: Value<'a>,
    /// The definitions, in the server's order.
    pub entries: Vec<ListedDefinition<'a>>,
}

/// The result does not hold an array of named definitions, or some reader finds another one in it
/// (P5). It cannot be filtered, so `session` withholds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAList;

impl<'a> ListPage<'a> {
    /// Reads the page of kind `list` from a `result`.
    ///
    /// # Errors
    ///
    /// [`NotAList`] where the array is missing, an entry has no name, or a member beside one of them
    /// has a name that some reader takes for the same.
    pub fn read(result: Value<'a>, list: List) -> Result<Self, NotAList> {
        let (member, key) = match list {
            List::Tools => ("tools", "name"),
            List::Prompts => ("prompts", "name"),
            List::Resources => ("resources", "uri"),
            List::ResourceTemplates => ("resourceTemplates", "uriTemplate"),
            List::Tasks => ("tasks", "taskId"),
        };
        let has_two_readings = |value: Value<'_>, name: &str, more: &[&str]| {
            let names = value.members().filter_map(|(other, _)| other.as_str());
            names.into_iter().any(|it| is_alias(it, name) || is_look_alike(it, more))
        };
        if has_two_readings(result, member, &CACHING) {
            return Err(NotAList);
        }
        let list =
            result.get(member).filter(|value| value.kind() == Kind::Array).ok_or(NotAList)?;
        let entries = list
            .elements()
            .map(|value| {
                let name = value.get(key).and_then(Value::as_str).ok_or(NotAList)?;
                if has_two_readings(value, key, &DEFINITION) {
                    return Err(NotAList);
                }
                Ok(ListedDefinition { name, digest: digest(value), value })
            })
            .collect::<Result<Vec<_>, NotAList>>()?;
        Ok(Self { list, entries })
    }

    /// Returns those of `names` that stand on the page. Linear in both.
    pub fn listed(&self, names: Vec<Box<str>>) -> Vec<Box<str>> {
        let listed: HashSet<&str> = self.entries.iter().map(|entry| entry.name).collect();
        let stands = |name: &str| {
            steps::count();
            listed.contains(name)
        };
        names.into_iter().filter(|name| stands(name)).collect()
    }

    /// Returns the edit of `document` that removes the entries that `hidden` names; `None` if it
    /// names none of them. Linear in entries and names.
    pub fn without(
        &self,
        document: &Document,
        hidden: &[Box<str>],
    ) -> Option<(Range<usize>, Vec<u8>)> {
        let hidden: HashSet<&str> = hidden.iter().map(|name| &**name).collect();
        let hides = |entry: &ListedDefinition<'_>| {
            steps::count();
            hidden.contains(entry.name)
        };
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
            // The bytes before an entry hold its comma and spacing; the first kept entry needs no
            // comma.
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

/// Returns the edit that sets `cacheScope` to `private`, so that a shared cache does not serve one
/// principal's page to another (MCP 2026-07-28, caching); `None` where the result does not say
/// `public`.
pub fn make_cache_private(result: Value<'_>) -> Option<(Range<usize>, Vec<u8>)> {
    let scope = result.get("cacheScope")?;
    (scope.as_str()? == "public").then(|| (scope.span(), b"\"private\"".to_vec()))
}

/// The longest `ttlMs` of a filtered page, milliseconds. What is hidden changes with the policy,
/// and the server does not notify the client of that.
pub const FILTERED_TTL_MS_MAX: u32 = 60_000;

/// Returns the edit that lowers `ttlMs` to [`FILTERED_TTL_MS_MAX`], so that a cached page does not
/// outlive a change of policy for long (MCP 2026-07-28, caching); `None` where it is lower already.
pub fn cap_ttl(result: Value<'_>) -> Option<(Range<usize>, Vec<u8>)> {
    let ttl = result.get("ttlMs")?;
    let millis: f64 = ttl.as_number()?.parse().ok()?;
    (millis > f64::from(FILTERED_TTL_MS_MAX))
        .then(|| (ttl.span(), FILTERED_TTL_MS_MAX.to_string().into_bytes()))
}

/// Returns `document` with `edits` applied; they may come in any order but must not overlap.
pub fn with_edits(document: &Document, mut edits: Vec<(Range<usize>, Vec<u8>)>) -> Bytes {
    if edits.is_empty() {
        return document.raw().clone();
    }
    edits.sort_by_key(|(span, _)| span.start);
    document.splice(&edits)
}

/// Returns the digest of a definition, `sha256:<hex>`, over its canonical form: members sorted by
/// name, no white space, one spelling for each string, numbers as written. Reformatting does not
/// change it; any change of content does. Records, policy input and lock file use it.
pub fn digest(value: Value<'_>) -> Box<str> {
    format!("sha256:{}", hex(&Sha256::digest(canonical_text(value)))).into()
}

/// Returns the canonical form over which [`digest`] is computed.
pub fn canonical_text(value: Value<'_>) -> String {
    let mut text = Vec::with_capacity(value.raw().len());
    canonical(value, &mut text);
    // Always UTF-8: it is assembled from UTF-8 texts.
    String::from_utf8(text).unwrap_or_default()
}

/// Recursive; the document's own depth limit bounds it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::document::DocumentLimits;

    #[test]
    fn hiding_every_entry_of_a_long_list_is_linear() {
        const ENTRIES: usize = 60_000;
        let entries: Vec<_> =
            (0..ENTRIES).map(|number| format!(r#"{{"name":"t{number}"}}"#)).collect();
        let text = format!(r#"{{"tools":[{}]}}"#, entries.join(","));
        let document = Document::read(text.into(), &DocumentLimits::default()).unwrap();
        let page = ListPage::read(document.root(), List::Tools).unwrap();
        let names = (0..ENTRIES).map(|number| format!("t{number}").into()).collect();
        let (taken, edit) = steps::of(|| page.without(&document, &page.listed(names)));
        assert_eq!(edit.unwrap().1, b"[]");
        assert!(taken <= 3 * ENTRIES, "{taken} steps");
    }
}
