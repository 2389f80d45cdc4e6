//! AIVSS: the agentic risk score of OWASP's AI Vulnerability Scoring System.
//!
//! There is no single formula: version 0.5 and the published version 0.8 differ in the names of the
//! factors and in how they are combined, and public threat models use the names of 0.5 with the
//! formula of 0.8. So a score always carries its version, the CVSS score that it was made from, and
//! warnings; it is advice and decides nothing. Factors that nobody knows make the score a range.
//!
//! Sources: OWASP `www-project-artificial-intelligence-vulnerability-scoring-system`, and its public
//! calculator.

use serde::Serialize;

/// What a factor may be, in versions 0.5 and 0.8.
const SCALE: [f64; 3] = [0.0, 0.5, 1.0];
/// The threat multipliers of version 0.8.
const THREAT_MULTIPLIERS: [f64; 3] = [0.5, 0.97, 1.0];
/// The mitigation factors of version 0.8.
const MITIGATION_FACTORS: [f64; 3] = [0.67, 0.83, 1.0];
/// The threat multiplier that version 0.5 uses where none is known.
const THREAT_MULTIPLIER_0_5: f64 = 0.97;
/// The highest score of CVSS and of AIVSS.
const SCORE_MAX: f64 = 10.0;
/// How many factors there are.
const FACTORS: f64 = 10.0;
/// Difference below which two values are equal.
const SAME: f64 = 1e-9;

/// What is measured. A version uses ten of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Factor {
    /// Acts without a person.
    Autonomy,
    /// Plans towards goals (0.5 only).
    Planning,
    /// Takes natural language (0.8 only).
    Language,
    /// Uses and offers tools.
    Tools,
    /// Keeps state.
    Memory,
    /// Knows its surroundings.
    Context,
    /// Acts as somebody.
    Identity,
    /// Works with other agents.
    Agents,
    /// Does not always do the same.
    NonDeterminism,
    /// Cannot be looked into.
    Opacity,
    /// Changes itself.
    SelfModification,
}

/// A version of AIVSS: names of factors and formula.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The names of 0.5 with the formula of 0.8, as public threat models have it.
    Mixed,
    /// Version 0.8, of March 2026.
    V0_8,
    /// Version 0.5.
    V0_5,
}

const NAMES_0_5: [(Factor, &str); 10] = [
    (Factor::Autonomy, "Autonomy of Action"),
    (Factor::Planning, "Goal-Driven Planning"),
    (Factor::SelfModification, "Self-Modification"),
    (Factor::Tools, "Dynamic Tool Use"),
    (Factor::Memory, "Persistent Memory"),
    (Factor::Context, "Contextual Awareness"),
    (Factor::Identity, "Dynamic Identity"),
    (Factor::Agents, "Multi-Agent Interactions"),
    (Factor::NonDeterminism, "Non-Determinism"),
    (Factor::Opacity, "Opacity & Reflexivity"),
];

const NAMES_0_8: [(Factor, &str); 10] = [
    (Factor::Autonomy, "Execution Autonomy"),
    (Factor::Tools, "External Tool Control Surface"),
    (Factor::Language, "Natural Language Interface"),
    (Factor::Context, "Contextual Awareness"),
    (Factor::NonDeterminism, "Behavioural Non-Determinism"),
    (Factor::Opacity, "Opacity & Reflexivity"),
    (Factor::Memory, "Persistent State Retention"),
    (Factor::Identity, "Dynamic Identity"),
    (Factor::Agents, "Multi-Agent Interactions"),
    (Factor::SelfModification, "Self-Modification"),
];

impl Version {
    /// The words for them on a command line.
    pub const NAMES: [(&str, Self); 3] =
        [("mixed", Self::Mixed), ("0.8", Self::V0_8), ("0.5", Self::V0_5)];

    /// The ten factors with their published names, in the published order.
    pub fn factors(self) -> &'static [(Factor, &'static str); 10] {
        match self {
            Self::Mixed | Self::V0_5 => &NAMES_0_5,
            Self::V0_8 => &NAMES_0_8,
        }
    }

    /// The version of the formula.
    pub fn formula_version(self) -> &'static str {
        if self == Self::V0_5 { "0.5" } else { "0.8" }
    }

    /// The version of the factors' names.
    pub fn factors_version(self) -> &'static str {
        if self == Self::V0_8 { "0.8" } else { "0.5" }
    }

    /// The formula, for readers.
    pub fn formula(self) -> &'static str {
        match self {
            Self::V0_5 => "AARS = sum; AIVSS = (CVSS + AARS) / 2 * ThM",
            Self::Mixed | Self::V0_8 => {
                "AARS = (10 - CVSS) * (sum / 10) * ThM; AIVSS = (CVSS + AARS) * MF"
            }
        }
    }

    /// AARS and AIVSS of a sum of factors.
    fn score(self, cvss: f64, sum: f64, threat: f64, mitigation: f64) -> (f64, f64) {
        match self {
            Self::V0_5 => (sum, f64::midpoint(cvss, sum) * threat),
            Self::Mixed | Self::V0_8 => {
                let aars = (SCORE_MAX - cvss) * (sum / FACTORS) * threat;
                (aars, (cvss + aars) * mitigation)
            }
        }
    }
}

/// The name of a factor as an argument: lower case, words joined by hyphens.
pub fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

/// What the user knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scoring {
    /// The version.
    pub version: Version,
    /// The CVSS base score, 0 to 10; without it there is no score.
    pub cvss: Option<f64>,
    /// Factors that the user sets, 0 to 1.
    pub factors: Vec<(Factor, f64)>,
    /// The threat multiplier `ThM`; absent: that of the version.
    pub threat: Option<f64>,
    /// The mitigation factor MF.
    pub mitigation: f64,
}

impl Default for Scoring {
    fn default() -> Self {
        let version = Version::Mixed;
        Self { version, cvss: None, factors: Vec::new(), threat: None, mitigation: 1.0 }
    }
}

/// One factor, as it was judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FactorRow {
    /// Its published name.
    pub name: &'static str,
    /// Its value; absent if it is not certain.
    pub value: Option<f64>,
    /// Where the value comes from, or why there is none.
    pub basis: String,
}

/// A value between two bounds, which are equal if it is certain.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// Every factor that is not certain is 0.
    pub low: f64,
    /// Every factor that is not certain is 1.
    pub high: f64,
}

/// The score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Aivss {
    /// The version of the formula.
    pub version: &'static str,
    /// The version of the factors' names.
    pub factors_version: &'static str,
    /// The formula.
    pub formula: &'static str,
    /// Always true: no rule of the firewall reads the score.
    pub advisory: bool,
    /// Whether the score is made as the version says, from known values on its scale.
    pub conformant: bool,
    /// The CVSS score that the user gave.
    pub cvss: Option<f64>,
    /// The threat multiplier.
    pub threat_multiplier: f64,
    /// The mitigation factor.
    pub mitigation_factor: f64,
    /// The ten factors.
    pub factors: Vec<FactorRow>,
    /// The sum of the factors.
    pub sum: Range,
    /// The agentic part of the score, two decimals.
    pub aars: Option<Range>,
    /// The score, one decimal.
    pub score: Option<Range>,
    /// Why the score is not what it seems.
    pub warnings: Vec<String>,
}

/// The score of `rows`, which are in the order of the version's factors.
pub fn of(scoring: &Scoring, rows: Vec<FactorRow>) -> Aivss {
    let version = scoring.version;
    let default_threat = if version == Version::V0_5 { THREAT_MULTIPLIER_0_5 } else { 1.0 };
    let threat = scoring.threat.unwrap_or(default_threat);
    let mitigation = scoring.mitigation;
    let low: f64 = rows.iter().filter_map(|row| row.value).sum();
    let unknown = rows.iter().filter(|row| row.value.is_none()).count();
    let high = rows.iter().map(|row| row.value.unwrap_or(1.0)).sum();
    let mut warnings = warnings(scoring, threat, &rows);
    if unknown > 0 {
        warnings.push(format!("{unknown} of 10 factors are not certain, so the score is a range"));
    }
    let conformant = warnings.is_empty() && scoring.cvss.is_some();
    let scores = scoring
        .cvss
        .map(|cvss| [low, high].map(|sum| version.score(cvss, sum, threat, mitigation)));
    if scoring.cvss.is_none() {
        warnings.push("no CVSS score was given, so there is no AIVSS score".to_owned());
    }
    if let (Some(cvss), Some([_, (_, score)])) = (scoring.cvss, scores)
        && score + SAME < cvss
    {
        warnings.push("the score is below the CVSS score that it is made from".to_owned());
    }
    let range = |pick: fn((f64, f64)) -> f64, decimals: i32| {
        scores.map(|[low, high]| Range {
            low: rounded(pick(low), decimals),
            high: rounded(pick(high), decimals),
        })
    };
    Aivss {
        version: version.formula_version(),
        factors_version: version.factors_version(),
        formula: version.formula(),
        advisory: true,
        conformant,
        cvss: scoring.cvss,
        threat_multiplier: threat,
        mitigation_factor: mitigation,
        sum: Range { low: rounded(low, 2), high: rounded(high, 2) },
        aars: range(|(aars, _)| aars, 2),
        score: range(|(_, score)| score.min(SCORE_MAX), 1),
        factors: rows,
        warnings,
    }
}

/// Warnings about versions and about values that are not on the scale.
fn warnings(scoring: &Scoring, threat: f64, rows: &[FactorRow]) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_on = |scale: &[f64], value: f64| scale.iter().any(|it| (it - value).abs() < SAME);
    if scoring.version == Version::Mixed {
        let what = "the factors have the names of version 0.5 and the formula is that of 0.8";
        warnings.push(what.to_owned());
    }
    for row in rows {
        if let Some(value) = row.value.filter(|value| !is_on(&SCALE, *value)) {
            warnings.push(format!("{}: {value:.2} is not 0, 0.5 or 1", row.name));
        }
    }
    if scoring.version == Version::V0_5 {
        if (scoring.mitigation - 1.0).abs() > SAME {
            warnings.push("version 0.5 has no mitigation factor; it was not used".to_owned());
        }
        return warnings;
    }
    if !is_on(&THREAT_MULTIPLIERS, threat) {
        warnings.push(format!("threat multiplier {threat:.2} is not 0.5, 0.97 or 1"));
    }
    if !is_on(&MITIGATION_FACTORS, scoring.mitigation) {
        let given = scoring.mitigation;
        warnings.push(format!("mitigation factor {given:.2} is not 0.67, 0.83 or 1"));
    }
    warnings
}

fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten factors whose sum is `sum`: as many whole ones as fit, and the rest in one.
    fn rows(version: Version, sum: f64) -> Vec<FactorRow> {
        let mut left = sum;
        let row = |(_, name): &(Factor, &'static str)| {
            let value = left.clamp(0.0, 1.0);
            left -= value;
            FactorRow { name, value: Some(value), basis: String::new() }
        };
        version.factors().iter().map(row).collect()
    }

    fn scored(cvss: f64, sum: f64, threat: f64, mitigation: f64) -> Aivss {
        let scoring =
            Scoring { cvss: Some(cvss), threat: Some(threat), mitigation, ..Scoring::default() };
        of(&scoring, rows(Version::Mixed, sum))
    }

    #[test]
    fn published_scores_are_reproduced() {
        for (cvss, sum, threat, mitigation, aars, score) in [
            (7.8, 0.1, 1.0, 1.0, 0.02, 7.8),
            (8.5, 2.4, 1.0, 0.70, 0.36, 6.2),
            (8.5, 3.3, 0.95, 0.55, 0.47, 4.9),
            (6.3, 3.4, 1.0, 0.90, 1.26, 6.8),
            (6.5, 3.8, 1.0, 1.0, 1.33, 7.8),
            (7.8, 3.8, 1.0, 1.0, 0.84, 8.6),
            (8.7, 3.8, 1.0, 1.0, 0.49, 9.2),
        ] {
            let got = scored(cvss, sum, threat, mitigation);
            let exact = |value| Some(Range { low: value, high: value });
            assert_eq!((got.aars, got.score), (exact(aars), exact(score)), "{cvss} {sum}");
            assert!(!got.conformant && got.advisory);
        }
    }

    #[test]
    fn a_score_below_cvss_and_values_off_the_scale_are_warned_of() {
        let warnings = scored(8.5, 3.3, 0.95, 0.55).warnings;
        for part in ["0.30 is not", "multiplier 0.95", "factor 0.55", "below the CVSS", "of 0.8"] {
            assert!(warnings.iter().any(|it| it.contains(part)), "{part}: {warnings:?}");
        }
        let low = scored(6.5, 3.0, 1.0, 1.0).warnings;
        assert_eq!(
            low,
            ["the factors have the names of version 0.5 and the formula is that of 0.8"]
        );
    }

    #[test]
    fn a_version_by_itself_conforms() {
        let scoring = Scoring { version: Version::V0_8, cvss: Some(6.5), ..Scoring::default() };
        let got = of(&scoring, rows(Version::V0_8, 4.0));
        assert!(got.conformant, "{:?}", got.warnings);
        assert_eq!(got.score, Some(Range { low: 7.9, high: 7.9 }));
        let scoring = Scoring { version: Version::V0_5, ..scoring };
        let got = of(&scoring, rows(Version::V0_5, 4.0));
        assert!(got.conformant);
        // (6.5 + 4) / 2 * 0.97
        assert_eq!(got.score, Some(Range { low: 5.1, high: 5.1 }));
        assert_eq!(got.warnings, ["the score is below the CVSS score that it is made from"]);
    }

    #[test]
    fn factors_that_nobody_knows_make_a_range() {
        let mut rows = rows(Version::V0_8, 2.0);
        for row in rows.iter_mut().skip(6) {
            row.value = None;
        }
        let scoring = Scoring { version: Version::V0_8, cvss: Some(5.0), ..Scoring::default() };
        let got = of(&scoring, rows.clone());
        assert_eq!(got.sum, Range { low: 2.0, high: 6.0 });
        assert_eq!(got.score, Some(Range { low: 6.0, high: 8.0 }));
        assert_eq!(got.warnings, ["4 of 10 factors are not certain, so the score is a range"]);
        let got = of(&Scoring { cvss: None, ..scoring }, rows);
        assert_eq!((got.score, got.aars), (None, None));
    }

    #[test]
    fn each_version_has_ten_factors_with_names_of_their_own() {
        for (_, version) in Version::NAMES {
            let mut slugs: Vec<_> = version.factors().iter().map(|(_, name)| slug(name)).collect();
            slugs.sort_unstable();
            slugs.dedup();
            assert_eq!(slugs.len(), 10);
        }
        assert_eq!(slug("Opacity & Reflexivity"), "opacity-reflexivity");
    }
}
