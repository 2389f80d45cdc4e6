//! Finds secrets of known forms in a text. Called by `redact`.
//!
//! The rules are data: those of gitleaks (`secrets/gitleaks.json`, MIT), and those for the keys of
//! the vendors whose tools the built-in packs know (`secrets/vendors.json`). A rule has keywords,
//! one of which must occur in the text, a regular expression, a minimum entropy, and allow-lists of
//! false positives. One Aho-Corasick pass finds the keywords; only the rules whose keywords occur
//! are run, each in time linear in the text. A rule is compiled when it is first run, and kept.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use aho_corasick::{AhoCorasick, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

/// Size of one compiled expression, bytes. A rule whose expression is larger does not compile, and
/// texts that need it cannot be redacted.
const REGEX_BYTES_MAX: usize = 16 << 20;

/// Work spent by [`is_suspicious`] on one text, bytes: each byte counts once for each rule that is
/// run.
const SHORT_SEARCH_BYTES_MAX: usize = 1 << 20;

/// The rule that takes any text behind a word such as `key` for a secret.
const GENERIC: &str = "generic-api-key";

/// The text could not be searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchError {
    /// A rule file cannot be read, or a rule does not compile.
    BrokenRule,
    /// The search would cost more bytes than are left.
    OverBudget,
}

/// A secret that was found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSecret {
    /// Where it stands, bytes; both ends are on character boundaries.
    pub at: Range<usize>,
    /// The id of the rule that found it.
    pub rule: &'static str,
}

/// A file of rules.
#[derive(Deserialize)]
struct RuleFile {
    /// Expressions of false positives, for every rule.
    allow_secret: Vec<String>,
    /// Words that a secret never contains, for every rule.
    stopwords: Vec<String>,
    rules: Vec<RuleSource>,
}

/// One rule, as the file has it.
#[derive(Deserialize)]
struct RuleSource {
    id: String,
    regex: String,
    /// Lower-case words; one of them must occur in the text, in any case.
    keywords: Vec<String>,
    /// The capture group that holds the secret; by default the first that matched, else the whole
    /// match.
    #[serde(default)]
    group: Option<usize>,
    /// Shannon entropy that the secret must exceed, bits per byte; 0 for no minimum.
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    allow_secret: Vec<String>,
    #[serde(default)]
    allow_match: Vec<String>,
    #[serde(default)]
    stopwords: Vec<String>,
}

struct SecretRule {
    form: RuleSource,
    compiled: OnceLock<Option<CompiledRule>>,
}

struct CompiledRule {
    regex: Regex,
    allow_secret: Vec<Regex>,
    allow_match: Vec<Regex>,
}

/// The rules of one file.
struct RuleSet {
    all: Vec<SecretRule>,
    allow_secret: Vec<String>,
    stopwords: Vec<String>,
    keywords: AhoCorasick,
    /// For each keyword, in the automaton's order, the index of its rule.
    of_keyword: Vec<usize>,
}

/// `None` if a file cannot be read; a test shows that both can.
static ALL: LazyLock<Option<Vec<RuleSet>>> = LazyLock::new(|| {
    [include_str!("secrets/gitleaks.json"), include_str!("secrets/vendors.json")]
        .into_iter()
        .map(RuleSet::read)
        .collect()
});

/// Finds the secrets in `text`, in no particular order; they may overlap. Subtracts the size of the
/// text from `left` (bytes), once for the keywords and once for each rule that is run.
///
/// # Errors
///
/// [`SearchError`]: nothing is known about the text.
pub fn find(text: &str, left: &mut usize) -> Result<Vec<FoundSecret>, SearchError> {
    find_by(Rules::All, text, left)
}

/// The rules of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// All of them.
    All,
    /// Those for a known form, without the one for any text behind a word such as `key`.
    OfOwnForm,
}

/// As [`find`], by these rules.
///
/// # Errors
///
/// As [`find`].
pub fn find_by(by: Rules, text: &str, left: &mut usize) -> Result<Vec<FoundSecret>, SearchError> {
    let mut found = Vec::new();
    for rules in ALL.as_ref().ok_or(SearchError::BrokenRule)? {
        rules.find(by, text, left, &mut found)?;
    }
    Ok(found)
}

/// Whether `text` holds a secret of a known form, or cannot be searched. For short texts.
pub fn is_suspicious(text: &str) -> bool {
    let mut left = SHORT_SEARCH_BYTES_MAX;
    find(text, &mut left).map_or(true, |found| !found.is_empty())
}

impl RuleSet {
    fn read(text: &str) -> Option<Self> {
        let file: RuleFile = serde_json::from_str(text).ok()?;
        let mut words = Vec::new();
        let mut of_keyword = Vec::new();
        for (index, form) in file.rules.iter().enumerate() {
            for keyword in &form.keywords {
                words.push(keyword.clone());
                of_keyword.push(index);
            }
        }
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(words)
            .ok()?;
        let rule = |form| SecretRule { form, compiled: OnceLock::new() };
        Some(Self {
            all: file.rules.into_iter().map(rule).collect(),
            allow_secret: file.allow_secret,
            stopwords: file.stopwords,
            keywords,
            of_keyword,
        })
    }

    fn find(
        &'static self,
        by: Rules,
        text: &str,
        left: &mut usize,
        found: &mut Vec<FoundSecret>,
    ) -> Result<(), SearchError> {
        let mut asked = BTreeSet::new();
        for hit in self.keywords.find_overlapping_iter(text) {
            asked.extend(self.of_keyword.get(hit.pattern().as_usize()));
        }
        if by == Rules::OfOwnForm {
            let generic =
                |index: &&usize| self.all.get(**index).is_some_and(SecretRule::is_generic);
            asked.retain(|index| !generic(index));
        }
        let cost = text.len().saturating_mul(asked.len().saturating_add(1));
        *left = left.checked_sub(cost).ok_or(SearchError::OverBudget)?;
        for rule in asked.into_iter().filter_map(|index: &usize| self.all.get(*index)) {
            let compiled = rule.compiled(&self.allow_secret).ok_or(SearchError::BrokenRule)?;
            for captures in compiled.regex.captures_iter(text.as_bytes()) {
                let group = match rule.form.group {
                    Some(group) => captures.get(group),
                    None => captures.iter().skip(1).flatten().find(|group| !group.is_empty()),
                };
                let (Some(whole), Some(secret)) = (captures.get(0), group.or(captures.get(0)))
                else {
                    continue;
                };
                if !rule.allows(compiled, &self.stopwords, whole.as_bytes(), secret.as_bytes()) {
                    let at = on_characters(text, secret.range());
                    found.push(FoundSecret { at, rule: &rule.form.id });
                }
            }
        }
        Ok(())
    }
}

impl SecretRule {
    /// Whether the rule takes any text behind a word such as `key` for a secret.
    fn is_generic(&self) -> bool {
        self.form.id == GENERIC
    }

    fn compiled(&self, allow_secret: &[String]) -> Option<&CompiledRule> {
        let compile = || {
            let all = |expressions: &[String]| {
                expressions.iter().map(|it| expression(it)).collect::<Option<Vec<_>>>()
            };
            let mut allowed = all(allow_secret)?;
            allowed.extend(all(&self.form.allow_secret)?);
            Some(CompiledRule {
                regex: expression(&self.form.regex)?,
                allow_secret: allowed,
                allow_match: all(&self.form.allow_match)?,
            })
        };
        self.compiled.get_or_init(compile).as_ref()
    }

    /// Whether a match is a false positive: too little entropy, an allow-list, or a stop word.
    fn allows(
        &self,
        compiled: &CompiledRule,
        words: &[String],
        whole: &[u8],
        secret: &[u8],
    ) -> bool {
        if self.form.entropy > 0.0 && entropy(secret) <= self.form.entropy {
            return true;
        }
        let lower = secret.to_ascii_lowercase();
        let holds = |word: &String| holds(&lower, word.as_bytes());
        compiled.allow_secret.iter().any(|allow| allow.is_match(secret))
            || compiled.allow_match.iter().any(|allow| allow.is_match(whole))
            || words.iter().chain(&self.form.stopwords).any(holds)
    }
}

/// Compiles an expression over bytes: secrets are ASCII, and Unicode classes are large.
fn expression(text: &str) -> Option<Regex> {
    RegexBuilder::new(text).unicode(false).size_limit(REGEX_BYTES_MAX).build().ok()
}

fn holds(text: &[u8], word: &[u8]) -> bool {
    !word.is_empty() && text.windows(word.len()).any(|window| window == word)
}

/// Widens a range of bytes to character boundaries.
fn on_characters(text: &str, at: Range<usize>) -> Range<usize> {
    text.floor_char_boundary(at.start)..text.ceil_char_boundary(at.end)
}

/// Shannon entropy of the bytes, bits per byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let total = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let seen = counts.iter().filter(|count| **count > 0);
    seen.map(|count| f64::from(*count) / total).map(|share| -share * share.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_within_its_bounds() {
        let mut count = 0;
        for rules in ALL.as_ref().unwrap() {
            for rule in &rules.all {
                assert!(rule.compiled(&rules.allow_secret).is_some(), "{}", rule.form.id);
                let lower = |word: &String| word.to_ascii_lowercase() == *word && !word.is_empty();
                assert!(!rule.form.keywords.is_empty(), "{}", rule.form.id);
                assert!(rule.form.keywords.iter().all(lower), "{}", rule.form.id);
                count += 1;
            }
        }
        assert!(count > 200, "{count}");
    }

    #[test]
    fn secrets_are_found_and_look_alikes_are_not() {
        // Spelled in parts, so that no scanner takes this file for a leak.
        let found = |parts: &[&str]| {
            let text = parts.concat();
            let found = find(&text, &mut usize::MAX.clone()).unwrap();
            found
                .iter()
                .map(|it| (it.rule, text.get(it.at.clone()).unwrap().to_owned()))
                .collect::<Vec<_>>()
        };
        let one = |parts: &[&str], rule: &str, secret: &[&str]| {
            let found = found(parts);
            let secret = secret.concat();
            assert!(found.contains(&(rule, secret)), "{rule}: {found:?}");
        };
        one(
            &["é key AK", "IAQYLPMN5HHHFPZAM2 é"],
            "aws-access-token",
            &["AK", "IAQYLPMN5HHHFPZAM2"],
        );
        let token = ["gh", "p_", "x7Kq2Lm9Zt4Vb8Nc1Rf6Hj3Wd5Ys0Pg2Aa1B"];
        one(&token, "github-pat", &token);
        one(
            &["\"api_key\": \"", "q8Zr3Lk0", "vT5yWn2Bc7Xd", "\""],
            "generic-api-key",
            &["q8Zr3Lk0", "vT5yWn2Bc7Xd"],
        );
        let uuid = ["sdk-", "0a1b2c3d-4e5f-6071-8293-", "a4b5c6d7e8f9"];
        one(&uuid, "launchdarkly-key", &uuid);
        let server = ["ser", ".", "T7pKx2Wm9Qr4Zb6Nc8Vd3y"];
        one(&server, "flagsmith-server-key", &server);
        let statsig = ["sec", "ret-", "9fK2mZq7Lw4Xc8Vb1Nn5Rt3Yy6Uu0Pp2Aa4Dd7Ff9Gg"];
        one(&statsig, "statsig-key", &statsig);
        let unleash = ["*:", "development.", &"0a9f8e7d6c5b4a39".repeat(4)];
        one(&unleash, "unleash-token", &unleash);
        let configcat =
            ["configcat-", "sdk-1/", "aBcDeFgHiJkLmNoPqRsTu1", "/", "vWxYzAbCdEfGhIjKlMnOp2"];
        one(&configcat, "configcat-sdk-key", &configcat);
        for harmless in [
            "the flag `checkout` is on in staging",
            "{\"key\": \"production\", \"environment\": \"staging\"}",
            "{\"key\": \"new-checkout-flow\"}",
            "AKIA",
            "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9",
        ] {
            assert_eq!(found(&[harmless]), [], "{harmless}");
        }
    }

    #[test]
    fn entropy_is_that_of_shannon() {
        for (text, bits) in [("aaaa", 0.0), ("abab", 1.0), ("abcd", 2.0), ("abcdefgh", 3.0)] {
            assert!((entropy(text.as_bytes()) - bits).abs() < 1e-9, "{text}");
        }
    }
}
