//! Finds secrets of known forms in a text. Called by `redact`.
//!
//! The rules are data: those of gitleaks (`secrets/gitleaks.json`, MIT), and those for the keys of
//! the vendors whose tools the built-in packs know (`secrets/vendors.json`). A rule has keywords,
//! one of which must occur in the text, a regular expression, a minimum entropy, and allow-lists of
//! false positives. One pass finds the keywords ([`keywords`]); only the rules whose keywords occur
//! in a text that is long enough are run, each in time linear in the text. A rule is compiled when
//! it is first run, and kept.

mod keywords;

use std::ops::Range;
use std::sync::{LazyLock, OnceLock};

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use serde::Deserialize;

use keywords::Keywords;

/// Size of one compiled expression, bytes. A rule whose expression is larger does not compile, and
/// texts that need it cannot be redacted.
const REGEX_BYTES_MAX: usize = 16 << 20;

/// Work spent by [`is_suspicious`] on one text, bytes: each byte counts once for each rule that is
/// run.
const SHORT_SEARCH_BYTES_MAX: usize = 1 << 20;

/// Rules of all files together at most.
const RULES_MAX: usize = 256;

/// The files of rules.
const FILES: [&str; 2] =
    [include_str!("secrets/gitleaks.json"), include_str!("secrets/vendors.json")];

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
    /// Length of the shortest match, bytes.
    bytes_min: usize,
    allow_secret: Vec<Regex>,
    allow_match: Vec<Regex>,
}

/// What one file says for all its rules.
struct AllowList {
    allow_secret: Vec<String>,
    stopwords: Vec<String>,
}

/// The rules of all files, in their order.
struct RuleSet {
    /// Each rule, with the index of its file's list.
    rules: Vec<(SecretRule, usize)>,
    allowed: Vec<AllowList>,
    /// The keywords, with the index of the rule.
    keywords: Keywords,
    /// The rules for any text behind a word such as `key`.
    generic: RuleBits,
}

/// Some of the rules, one bit each.
#[derive(Clone, Copy, Default)]
struct RuleBits([u64; RULES_MAX / 64]);

impl RuleBits {
    fn insert(&mut self, index: usize) {
        if let Some(bits) = self.0.get_mut(index / 64) {
            *bits |= 1 << (index % 64);
        }
    }

    fn remove(&mut self, others: Self) {
        for (bits, others) in self.0.iter_mut().zip(others.0) {
            *bits &= !others;
        }
    }

    fn count(self) -> usize {
        let ones = self.0.into_iter().map(|bits| usize::try_from(bits.count_ones()).unwrap_or(64));
        ones.fold(0, usize::saturating_add)
    }

    /// The indexes, in rising order.
    fn indexes(self) -> impl Iterator<Item = usize> {
        let mut words =
            self.0.into_iter().enumerate().map(|(at, bits)| (at.saturating_mul(64), bits));
        let mut current = words.next();
        std::iter::from_fn(move || {
            loop {
                let (from, bits) = current?;
                if bits == 0 {
                    current = words.next();
                    continue;
                }
                current = Some((from, bits & bits.saturating_sub(1)));
                let bit = usize::try_from(bits.trailing_zeros()).unwrap_or_default();
                return Some(from.saturating_add(bit));
            }
        })
    }
}

/// `None` if a file cannot be read; a test shows that all can.
static ALL: LazyLock<Option<RuleSet>> = LazyLock::new(|| RuleSet::read(&FILES));

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
    ALL.as_ref().ok_or(SearchError::BrokenRule)?.find(by, text, left)
}

/// `text` with `mask` in place of each of `found`, which [`find`] found in it.
pub fn masked(text: &str, mut found: Vec<FoundSecret>, mask: &str) -> String {
    found.sort_by_key(|secret| secret.at.start);
    let (mut out, mut end) = (String::with_capacity(text.len()), 0_usize);
    for secret in found {
        if secret.at.start >= end {
            out.push_str(text.get(end..secret.at.start).unwrap_or_default());
            out.push_str(mask);
        }
        end = end.max(secret.at.end);
    }
    out.push_str(text.get(end..).unwrap_or_default());
    out
}

/// Whether `text` holds a secret of a known form, or cannot be searched. For short texts.
pub fn is_suspicious(text: &str) -> bool {
    let mut left = SHORT_SEARCH_BYTES_MAX;
    find(text, &mut left).map_or(true, |found| !found.is_empty())
}

impl RuleSet {
    fn read(files: &[&str]) -> Option<Self> {
        let (mut rules, mut allowed, mut words) = (Vec::new(), Vec::new(), Vec::new());
        let mut generic = RuleBits::default();
        for text in files {
            let file: RuleFile = serde_json::from_str(text).ok()?;
            for form in file.rules {
                let index = rules.len();
                words.extend(form.keywords.iter().map(|keyword| (keyword.clone(), index)));
                if form.id == GENERIC {
                    generic.insert(index);
                }
                rules.push((SecretRule { form, compiled: OnceLock::new() }, allowed.len()));
            }
            let RuleFile { allow_secret, stopwords, .. } = file;
            allowed.push(AllowList { allow_secret, stopwords });
        }
        let keywords = Keywords::new(words)?;
        (rules.len() <= RULES_MAX).then_some(Self { rules, allowed, keywords, generic })
    }

    fn find(
        &'static self,
        by: Rules,
        text: &str,
        left: &mut usize,
    ) -> Result<Vec<FoundSecret>, SearchError> {
        let mut asked = RuleBits::default();
        self.keywords.find(text.as_bytes(), |rule| asked.insert(rule));
        if by == Rules::OfOwnForm {
            asked.remove(self.generic);
        }
        let cost = text.len().saturating_mul(asked.count().saturating_add(self.allowed.len()));
        *left = left.checked_sub(cost).ok_or(SearchError::OverBudget)?;
        let mut found = Vec::new();
        for (rule, file) in asked.indexes().filter_map(|index| self.rules.get(index)) {
            let allowed = self.allowed.get(*file).ok_or(SearchError::BrokenRule)?;
            rule.find(allowed, text, &mut found)?;
        }
        Ok(found)
    }
}

impl SecretRule {
    fn find(
        &'static self,
        allowed: &AllowList,
        text: &str,
        found: &mut Vec<FoundSecret>,
    ) -> Result<(), SearchError> {
        let compiled = self.compiled(&allowed.allow_secret).ok_or(SearchError::BrokenRule)?;
        let bytes = text.as_bytes();
        // Nearly no text matches, and to ask whether it does is cheaper.
        if bytes.len() < compiled.bytes_min || !compiled.regex.is_match(bytes) {
            return Ok(());
        }
        for captures in compiled.regex.captures_iter(bytes) {
            let group = match self.form.group {
                Some(group) => captures.get(group),
                None => captures.iter().skip(1).flatten().find(|group| !group.is_empty()),
            };
            let (Some(whole), Some(secret)) = (captures.get(0), group.or(captures.get(0))) else {
                continue;
            };
            if !self.allows(compiled, &allowed.stopwords, whole.as_bytes(), secret.as_bytes()) {
                let at = on_characters(text, secret.range());
                found.push(FoundSecret { at, rule: &self.form.id });
            }
        }
        Ok(())
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
                bytes_min: bytes_min(&self.form.regex)?,
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

/// Length of the shortest text that the expression matches, bytes; 0 if it can match nowhere.
fn bytes_min(text: &str) -> Option<usize> {
    let expression = ParserBuilder::new().unicode(false).utf8(false).build().parse(text).ok()?;
    Some(expression.properties().minimum_len().unwrap_or_default())
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
        let rules = ALL.as_ref().unwrap();
        for (rule, file) in &rules.rules {
            let allowed = rules.allowed.get(*file).unwrap();
            let compiled = rule.compiled(&allowed.allow_secret);
            assert!(compiled.is_some_and(|it| it.bytes_min > 0), "{}", rule.form.id);
            assert!(!rule.form.keywords.is_empty(), "{}", rule.form.id);
            count += 1;
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
