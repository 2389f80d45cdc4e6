//! What rules tell the agent whose message they refuse or hold.
//!
//! A rule may repeat what the agent wrote, so the text is cleaned before it is cut: a secret that is
//! cut in two has no known form any more.

use super::mask;
use super::text::{Text, Told};
use crate::duty::decision::Tell;
use crate::wire::unseen::is_unseen;

/// Most bytes of what one rule tells the agent.
const TELL_BYTES_MAX: usize = 512;

/// Most bytes of what all rules together tell the agent about one message.
const TOLD_BYTES_MAX: usize = 1024;

/// What rules tell, together: each text once, in order, as long as there is room. `None` if they
/// tell nothing.
pub(crate) fn together<'a>(tells: impl Iterator<Item = &'a Tell>) -> Option<Text<Told>> {
    let mut told: Vec<String> = Vec::new();
    let mut bytes: usize = 0;
    for tell in tells {
        let shown = shown(&tell.text);
        let with_it = bytes.saturating_add(shown.len()).saturating_add(1);
        if !shown.is_empty() && with_it <= TOLD_BYTES_MAX && !told.contains(&shown) {
            bytes = with_it;
            told.push(shown);
        }
    }
    (!told.is_empty()).then(|| told.join(" ").as_str().into())
}

/// `text` as an agent gets it: on one line, without characters that are not shown and without secrets
/// of known forms.
fn shown(text: &str) -> String {
    let seen: String = text.chars().filter(|c| c.is_whitespace() || !is_unseen(*c)).collect();
    let words: Vec<&str> = seen.split_whitespace().collect();
    let line = words.join(" ");
    let masked = mask::secrets(&line);
    let end = masked.floor_char_boundary(TELL_BYTES_MAX);
    masked.get(..end).unwrap_or_default().trim_end().to_owned()
}
