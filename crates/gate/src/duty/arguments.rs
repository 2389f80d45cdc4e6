//! Discharges [`Obligation::Set`](super::decision::Obligation): sets one argument of a call and
//! changes no other byte of the frame. Called by `session`, which reads the result as a new frame.

use std::ops::Range;

use bytes::Bytes;

use crate::wire::document::{Document, DocumentLimits, Kind, Value, write_string};
use crate::wire::fold::is_alias;

/// The argument cannot be set: the pointer leads through a value that is not an object, a member
/// beside the pointer's way has a name that some reader takes for the pointer's, the new value is
/// not strict JSON, or the frame has no `params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsettable;

/// Returns the frame in `document` with the argument at `pointer` (RFC 6901, below
/// `params.arguments`) set to `value`, a JSON text. An argument that exists is replaced; one that
/// does not exist is inserted as the first member of its parent object, which must exist. Absent or
/// `null` `arguments` become an object. The caller must read the result as strictly as any frame.
///
/// # Errors
///
/// [`Unsettable`], for the reasons that it names.
pub fn set(
    document: &Document,
    pointer: &str,
    value: &str,
    limits: &DocumentLimits,
) -> Result<Bytes, Unsettable> {
    Document::read(Bytes::copy_from_slice(value.as_bytes()), limits).map_err(|_| Unsettable)?;
    let params = document.root().get("params").ok_or(Unsettable)?;
    let edit = match params.get("arguments") {
        Some(arguments) if arguments.kind() == Kind::Object => within(arguments, pointer, value)?,
        Some(arguments) if arguments.kind() == Kind::Null => {
            (arguments.span(), object(pointer, value)?)
        }
        Some(_) => return Err(Unsettable),
        None => insert(params, "arguments", &object(pointer, value)?),
    };
    Ok(document.splice(&[edit]))
}

fn within(
    arguments: Value<'_>,
    pointer: &str,
    value: &str,
) -> Result<(Range<usize>, Vec<u8>), Unsettable> {
    if imitated(arguments, pointer) {
        return Err(Unsettable);
    }
    if let Some(present) = arguments.pointer(pointer).filter(|_| !pointer.is_empty()) {
        return Ok((present.span(), value.as_bytes().to_vec()));
    }
    let (parent, name) = pointer.rsplit_once('/').ok_or(Unsettable)?;
    let parent = arguments.pointer(parent).ok_or(Unsettable)?;
    if parent.kind() != Kind::Object {
        return Err(Unsettable);
    }
    Ok(insert(parent, &unescape(name), value.as_bytes()))
}

/// Whether an object on the way of `pointer` has a member that some reader takes for the one that the
/// pointer names (threat A4): the server could then read that member's value instead.
fn imitated(arguments: Value<'_>, pointer: &str) -> bool {
    let mut at = Some(arguments);
    pointer.split('/').skip(1).any(|token| {
        let Some(value) = at else { return false };
        let known = unescape(token);
        let aliased =
            value.members().any(|(name, _)| name.as_str().is_some_and(|it| is_alias(it, &known)));
        at = value.pointer(&format!("/{token}"));
        aliased
    })
}

/// A new `arguments` object with one member, named by a `pointer` of one step.
fn object(pointer: &str, value: &str) -> Result<Vec<u8>, Unsettable> {
    let name = pointer.strip_prefix('/').filter(|name| !name.contains('/')).ok_or(Unsettable)?;
    let mut text = vec![b'{'];
    write_string(&mut text, &unescape(name));
    text.push(b':');
    text.extend_from_slice(value.as_bytes());
    text.push(b'}');
    Ok(text)
}

/// The edit that makes `name` the first member of `parent`.
pub(crate) fn insert(parent: Value<'_>, name: &str, value: &[u8]) -> (Range<usize>, Vec<u8>) {
    let at = parent.span().start.saturating_add(1);
    let mut text = Vec::with_capacity(name.len().saturating_add(value.len()).saturating_add(8));
    write_string(&mut text, name);
    text.push(b':');
    text.extend_from_slice(value);
    if !parent.is_empty() {
        text.push(b',');
    }
    (at..at, text)
}

/// Decodes one reference token: `~1` first, then `~0` (RFC 6901 §4).
fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}
