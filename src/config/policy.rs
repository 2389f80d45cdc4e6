//! `policy`: which policy decides.

use std::path::PathBuf;

use super::bundle::BundleConfig;
use super::form::{Form, count, existing, list, text};
use super::problem::wrong;
use super::secret::is_variable_name;
use super::section::{Section, section};
use bartizan_rego::Entrypoints;

/// Which policy decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Files and directories of Rego and data (`paths`). Empty: the built-in baseline.
    pub paths: Vec<PathBuf>,
    /// A bundle in the place of `paths` (`bundle`).
    pub bundle: Option<BundleConfig>,
    /// The rule that answers for a frame (`entrypoint`).
    pub entrypoint: String,
    /// The rule that answers for a page of definitions (`listing_entrypoint`).
    pub listing_entrypoint: String,
    /// One decision in this many is also put to the strict engine (`shadow_one_in`).
    pub shadow_one_in: u32,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        let Entrypoints { decision, listing } = Entrypoints::default();
        Self {
            paths: Vec::new(),
            bundle: None,
            entrypoint: decision,
            listing_entrypoint: listing,
            shadow_one_in: 1000,
        }
    }
}

impl PolicyConfig {
    pub(super) fn read(s: &mut Section<'_>) -> Self {
        let default = Self::default();
        let paths = s
            .key(
                "paths",
                list(existing()),
                "Files and directories of Rego and `data.json`. Where there is one, the baseline \
                 is not loaded.",
            )
            .optional("the built-in baseline")
            .unwrap_or_default();
        let bundle = s
            .key("bundle", section(BundleConfig::read), "An OPA bundle in the place of `paths`.")
            .optional("none");
        if s.has("bundle") && !paths.is_empty() {
            s.problem("paths", "`policy.bundle` is the whole policy", "keep one of them");
        }
        let entrypoint = entrypoint(default.entrypoint.clone());
        let listing_entrypoint = self::entrypoint(default.listing_entrypoint.clone());
        Self {
            paths,
            bundle,
            entrypoint: s
                .key("entrypoint", entrypoint, "The rule that answers for a frame.")
                .or(default.entrypoint),
            listing_entrypoint: s
                .key(
                    "listing_entrypoint",
                    listing_entrypoint,
                    "The rule that answers for a page of definitions.",
                )
                .or(default.listing_entrypoint),
            shadow_one_in: s
                .key(
                    "shadow_one_in",
                    count(1..=1_000_000),
                    "One decision of the compiled engine in this many is made again by the strict \
                     one.",
                )
                .or(default.shadow_one_in),
        }
    }
}

/// `data.`, a package, and a rule in it, such as `example`.
fn entrypoint<'f>(example: String) -> Form<'f, String> {
    text()
        .checked(r"^data(\.[A-Za-z_][A-Za-z0-9_]*){2,}$", move |text| {
            let mut names = text.split('.');
            let starts = names.next() == Some("data");
            if !starts || names.clone().count() < 2 || !names.all(is_variable_name) {
                return wrong(
                    format!("is no rule: `{}`", text.escape_debug()),
                    format!("write `data.`, the package and the rule, like `{example}`"),
                );
            }
            Ok(text)
        })
        .shown(String::clone)
}
