//! Searches the texts of a definition: for credentials, and for sentences that address a model.

use serde_json::Value;

use super::observed::MASK;
use bartizan_gate::duty::secrets;

/// Work of all searches for credentials in one assessment, bytes; see [`secrets::find`].
const SEARCH_BYTES_MAX: usize = 256 << 20;
/// What stands in a report in place of a text that could not be searched.
const UNSEARCHED: &str = "[not searched for credentials, so not shown]";

/// Sentences that tell a model what to do or hide, in lower case.
const INSTRUCTIONS: &[&str] = &[
    "<important>",
    "<system>",
    "always call this tool first",
    "before using any other tool",
    "before using this tool",
    "disregard previous",
    "do not inform the user",
    "do not mention",
    "do not tell",
    "don't tell",
    "id_rsa",
    "ignore all previous",
    "ignore previous",
    "ignore the previous",
    "ignore your instructions",
    "instead of calling",
    "mcp.json",
    "never tell",
    "system prompt",
    "without asking",
    "without telling",
    "~/.aws",
    "~/.ssh",
];

/// Searches texts, with a limit for all of them together.
#[derive(Debug)]
pub(crate) struct Search {
    left: usize,
    /// Whether a text could not be searched.
    pub(crate) gave_up: bool,
}

/// What a definition holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Rules of credentials that were found, each once.
    pub(crate) credentials: Vec<&'static str>,
    /// The first sentence of [`INSTRUCTIONS`].
    pub(crate) instruction: Option<&'static str>,
}

impl Search {
    pub(crate) fn new() -> Self {
        Self { left: SEARCH_BYTES_MAX, gave_up: false }
    }

    /// Searches all texts and names of `value`. Recursive; a definition's depth is bounded.
    pub(crate) fn contents(&mut self, value: &Value, found: &mut Contents) {
        match value {
            Value::String(text) => self.text(text, found),
            Value::Array(elements) => elements.iter().for_each(|it| self.contents(it, found)),
            Value::Object(members) => {
                for (name, member) in members {
                    self.text(name, found);
                    self.contents(member, found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, text: &str, found: &mut Contents) {
        let lower = text.to_lowercase();
        let said = INSTRUCTIONS.iter().find(|said| lower.contains(**said)).copied();
        found.instruction = found.instruction.or(said);
        // Any text behind a word such as `key` is hidden, but is no finding.
        match secrets::find_by(secrets::Rules::OfOwnForm, text, &mut self.left) {
            Ok(secrets) => {
                for secret in secrets {
                    if !found.credentials.contains(&secret.rule) {
                        found.credentials.push(secret.rule);
                    }
                }
            }
            Err(_) => self.gave_up = true,
        }
    }

    /// `text` for a report: at most `chars_max` characters, without credentials.
    pub(crate) fn shown(&mut self, text: &str, chars_max: usize) -> String {
        let Ok(found) = secrets::find(text, &mut self.left) else {
            self.gave_up = true;
            return UNSEARCHED.to_owned();
        };
        let out = secrets::masked(text, found, MASK);
        match out.char_indices().nth(chars_max) {
            Some((at, _)) => format!("{}…", out.get(..at).unwrap_or_default()),
            None => out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_named_by_its_rule_and_never_shown() {
        let key = format!("ghp_{}", "aB3dE6gH9jK2mN5pQ8sT1vW4xY7zA0cD3fG6");
        let text = format!("Use {key} and {key}.");
        let mut search = Search::new();
        let mut found = Contents::default();
        search.contents(&serde_json::json!({ "description": [text] }), &mut found);
        assert_eq!(found.credentials, ["github-pat"]);
        assert_eq!(search.shown(&text, 100), "Use [credential] and [credential].");
        assert_eq!(search.shown("abcdef", 3), "abc…");
    }

    #[test]
    fn a_text_that_is_not_searched_is_not_shown() {
        let mut search = Search { left: 0, gave_up: false };
        assert_eq!(search.shown("api key", 100), UNSEARCHED);
        assert!(search.gave_up);
    }
}
