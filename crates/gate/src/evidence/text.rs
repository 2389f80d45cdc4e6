//! Texts and lists that may stand in a record.
//!
//! A record says what strangers sent, so each text in it has a kind ([`TextKind`]) with a limit in
//! bytes, and is kept without secrets of known forms. A [`Text`] is made from any text and can
//! be made in no other way, so no record holds a text that is longer than its kind allows, or that
//! was not cleaned. Only what the program itself has written down or computed is not searched: a
//! constant, a number, a digest. What is cut off is replaced by `…(+N bytes, sha256:…)`: the size and
//! the SHA-256 of the rest. A [`Listed`] keeps its first entries and counts the rest. With both, a
//! record has a largest size: [`super::record::RECORD_BYTES_MAX`].
//!
//! Limits count bytes as the journal writes them: `"`, `\` and invisible characters become escapes
//! there, and a control character is six bytes, not one.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use smol_str::SmolStr;

use super::mask;
use crate::wire::hex::{hex, write_hex};
use crate::wire::unseen::is_unseen;

/// Largest size of the mark that replaces what was cut off, bytes: the ellipsis, 20 digits, 64
/// hexadecimal digits and the words between them.
const MARK_BYTES_MAX: usize = 112;

/// What a text in a record is, and so how long it may be and what is removed from it.
pub trait TextKind {
    /// Longest text that is kept whole, bytes as the journal writes them. At least 128.
    const BYTES_MAX: usize;

    /// Returns `text` without what must not be kept: at least without secrets of known forms.
    fn cleaned(text: &str) -> Cow<'_, str>;
}

/// Declares a kind of text: its name, its limit, and the function that cleans it.
macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $bytes:literal, $clean:path;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        pub struct $name;

        impl TextKind for $name {
            const BYTES_MAX: usize = $bytes;

            fn cleaned(text: &str) -> Cow<'_, str> {
                $clean(text)
            }
        }
    )*};
}

// Each kind is cleaned: any text of a record may come from a message, also by way of a rule that
// computes it.
kinds! {
    /// The name of a principal, server, tool, prompt, task, method or policy revision.
    Name = 512, mask::secrets;
    /// A shorter name, of which a record lists many: environment, tag, obligation, hidden entry.
    Label = 256, mask::secrets;
    /// The name of an environment, which comes from an argument.
    Environment = 256, mask::secrets;
    /// A code: of a reason, of an error.
    Code = 128, mask::secrets;
    /// A JSON-RPC id as JSON text.
    IdText = 256, mask::secrets;
    /// A URI without user information, query values and fragment.
    UriText = 2048, mask::uri;
    /// The message of a reason.
    Message = 1024, mask::secrets;
    /// An RFC 6901 pointer.
    Pointer = 512, mask::secrets;
    /// What rules tell an agent. Longer than any such text, so that none is cut.
    Told = 4096, mask::secrets;
    /// Free text about an event.
    Note = 4096, mask::secrets;
}

/// A text of a record: at most [`TextKind::BYTES_MAX`] bytes as the journal writes it, and cleaned.
/// Copies share its bytes.
pub struct Text<K>(SmolStr, PhantomData<K>);

/// What stands before the digits of a keyed digest.
const HMAC: &[u8; 12] = b"hmac-sha256:";
/// Length of a keyed digest as text, bytes.
const HMAC_BYTES: usize = HMAC.len() + 64;

impl<K: TextKind> Text<K> {
    /// The text that a record keeps of `text`.
    pub fn new(text: &str) -> Self {
        let cleaned = K::cleaned(text);
        let kept = match cut_at(&cleaned, K::BYTES_MAX) {
            Some(at) => cut(&cleaned, at).into(),
            None => SmolStr::new(cleaned),
        };
        Self(kept, PhantomData)
    }

    /// As [`Text::new`]; shares the bytes of a text that is kept as it is.
    pub(crate) fn shared(text: &Arc<str>) -> Self {
        match K::cleaned(text) {
            Cow::Borrowed(kept)
                if kept.len() == text.len() && cut_at(kept, K::BYTES_MAX).is_none() =>
            {
                Self(SmolStr::from(Arc::clone(text)), PhantomData)
            }
            Cow::Borrowed(_) | Cow::Owned(_) => Self::new(text),
        }
    }

    /// A text of the program's own code, which holds nothing that anybody sent.
    pub(crate) fn constant(text: &'static str) -> Self {
        match cut_at(text, K::BYTES_MAX) {
            None => Self(SmolStr::new_static(text), PhantomData),
            Some(_) => Self::new(text),
        }
    }
}

impl Text<Code> {
    /// A keyed digest, `hmac-sha256:<hex>`, of the tag that HMAC-SHA-256 gave.
    pub(crate) fn hmac_sha256(tag: &[u8; 32]) -> Self {
        let mut text = [0; HMAC_BYTES];
        let (name, digits) = text.split_at_mut(HMAC.len());
        name.copy_from_slice(HMAC);
        write_hex(digits, tag);
        Self(SmolStr::new(std::str::from_utf8(&text).unwrap_or_default()), PhantomData)
    }

    /// Hexadecimal digits that the program made.
    pub(crate) fn digits(digits: &[u8]) -> Self {
        Self(SmolStr::new(std::str::from_utf8(digits).unwrap_or_default()), PhantomData)
    }
}

impl Text<IdText> {
    /// A number as JSON.
    pub(crate) fn number(number: i64) -> Self {
        Self(smol_str::format_smolstr!("{number}"), PhantomData)
    }
}

impl<K: TextKind, S: AsRef<str>> From<S> for Text<K> {
    fn from(text: S) -> Self {
        Self::new(text.as_ref())
    }
}

impl<K> Deref for Text<K> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<K> Clone for Text<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K> PartialEq for Text<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for Text<K> {}

impl<K> PartialEq<str> for Text<K> {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl<K> PartialEq<&str> for Text<K> {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

impl<K> fmt::Debug for Text<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl<K> fmt::Display for Text<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<K> Serialize for Text<K> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Bytes that the journal writes for one character of a string, at most.
pub(crate) fn written_bytes(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        ' '..='~' => 1,
        other if other < ' ' => 6,
        other if is_unseen(other) => other.len_utf16().saturating_mul(6),
        other => other.len_utf8(),
    }
}

/// Whether the journal writes a byte of a text as it is: visible ASCII and space, but for `"` and `\\`,
/// which JSON escapes.
pub fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')
}

/// Where `text` must be cut so that it and the mark have at most `max` bytes as written; `None` if
/// it need not be cut.
fn cut_at(text: &str, max: usize) -> Option<usize> {
    // No byte is written as more than six.
    if text.len().saturating_mul(6) <= max {
        return None;
    }
    if text.len() <= max && text.bytes().all(is_plain) {
        return None;
    }
    let room = max.saturating_sub(MARK_BYTES_MAX);
    let (mut written, mut at) = (0_usize, None);
    for (index, character) in text.char_indices() {
        written = written.saturating_add(written_bytes(character));
        if written > room {
            at = at.or(Some(index));
        }
        if written > max {
            return at;
        }
    }
    None
}

/// The first `at` bytes of `text`, and the size and digest of the rest.
fn cut(text: &str, at: usize) -> String {
    let (kept, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    format!("{kept}…(+{} bytes, sha256:{})", rest.len(), hex(&Sha256::digest(rest)))
}

/// A list in a record: its first `MAX` entries, and how many more there are.
#[derive(Clone, PartialEq, Eq)]
pub struct Listed<T, const MAX: usize> {
    kept: Vec<T>,
    more: u64,
}

impl<T, const MAX: usize> Listed<T, MAX> {
    /// Adds an entry, or counts it if the list is full.
    pub fn push(&mut self, entry: impl Into<T>) {
        if self.kept.len() < MAX {
            self.kept.push(entry.into());
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    /// How many entries there are that the list does not keep.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// The first `max` entries; the others are counted.
    pub(crate) fn shortened(mut self, max: usize) -> Self {
        let cut = u64::try_from(self.kept.len().saturating_sub(max)).unwrap_or(u64::MAX);
        self.more = self.more.saturating_add(cut);
        self.kept.truncate(max);
        self
    }

    /// Adds the entries of `other`.
    pub(crate) fn append(&mut self, other: Self) {
        self.extend(other.kept);
        self.more = self.more.saturating_add(other.more);
    }

    /// Writes the list as `name`, and as `more` the number of entries that it does not keep, if
    /// there are any. `empty` says whether an empty list is written.
    pub(super) fn write<S: Serializer>(
        &self,
        (name, more, empty): (&'static str, &'static str, bool),
        to: S,
    ) -> Result<S::Ok, S::Error>
    where
        T: Serialize,
    {
        use serde::ser::SerializeMap as _;
        let mut map = to.serialize_map(None)?;
        if empty || !self.kept.is_empty() {
            map.serialize_entry(name, &self.kept)?;
        }
        if self.more > 0 {
            map.serialize_entry(more, &self.more)?;
        }
        map.end()
    }
}

impl<T, const MAX: usize> Default for Listed<T, MAX> {
    fn default() -> Self {
        Self { kept: Vec::new(), more: 0 }
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for Listed<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(&self.kept);
        if self.more > 0 {
            list.entry(&format_args!("… {} more", self.more));
        }
        list.finish()
    }
}

impl<T, const MAX: usize> Deref for Listed<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.kept
    }
}

impl<T, const MAX: usize, S: Into<T>> Extend<S> for Listed<T, MAX> {
    fn extend<I: IntoIterator<Item = S>>(&mut self, entries: I) {
        for entry in entries {
            self.push(entry);
        }
    }
}

impl<T, const MAX: usize, S: Into<T>> FromIterator<S> for Listed<T, MAX> {
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut list = Self::default();
        list.extend(entries);
        list
    }
}

impl<T, const MAX: usize, S: Into<T>> From<Vec<S>> for Listed<T, MAX> {
    fn from(entries: Vec<S>) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a Listed<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> usize {
        text.chars().map(written_bytes).sum()
    }

    #[test]
    fn a_text_within_its_limit_is_kept_whole() {
        for text in ["", "a", &"x".repeat(256), &"é".repeat(128), &"\u{7f}".repeat(42)] {
            assert_eq!(*Text::<Label>::new(text), *text);
        }
    }

    #[test]
    fn a_longer_text_is_cut_and_says_what_is_missing() {
        for (unit, count) in
            [("x", 257), ("é", 129), ("\u{7f}", 43), ("\u{e0041}", 30), ("\"", 129)]
        {
            let long = unit.repeat(count);
            let kept = Text::<Label>::new(&long);
            assert!(written(&kept) <= Label::BYTES_MAX, "{kept}");
            let (start, rest) = kept.split_once("…(+").unwrap();
            let missing = long.strip_prefix(start).unwrap();
            let digest = hex(&Sha256::digest(missing));
            assert_eq!(rest, format!("{} bytes, sha256:{digest})", missing.len()));
            assert_eq!(Text::<Label>::new(&kept), kept, "a kept text is kept as it is");
        }
    }

    #[test]
    fn a_list_counts_what_it_does_not_keep() {
        let list: Listed<Text<Label>, 3> = ["a", "b", "c", "d", "e"].into_iter().collect();
        assert_eq!((list.len(), list.more()), (3, 2));
        let mut joined: Listed<Text<Label>, 3> = ["z"].into_iter().collect();
        joined.append(list);
        assert_eq!((joined.len(), joined.more()), (3, 3));
    }
}
