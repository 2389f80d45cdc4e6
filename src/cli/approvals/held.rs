//! Held calls as the approvals API has them.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cli::Failure;
use bartizan_audit::inert;

/// An answer of the API.
pub(super) struct Page<T> {
    /// The JSON, with each invisible character escaped, and a line end.
    pub(super) text: String,
    of: PhantomData<T>,
}

impl<T> Page<T> {
    pub(super) fn new(json: &str) -> Self {
        Self { text: inert::escaped(json.trim_end()) + "\n", of: PhantomData }
    }
}

impl<T: DeserializeOwned> Page<T> {
    /// What it says.
    pub(super) fn read(&self) -> Result<T, Failure> {
        serde_json::from_str(&self.text).map_err(|error| {
            let what = format!("the answer cannot be read: {error}");
            Failure::failed("approvals", what)
                .hint("use the version of `bartizan` that the firewall has")
        })
    }
}

/// The answer to a list.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub(super) change: u64,
    pub(super) approvals: Vec<Held>,
    /// How many are left out.
    #[serde(default)]
    pub(super) more: u64,
}

/// The answer about one.
#[derive(Debug, Deserialize)]
pub(super) struct One {
    pub(super) approval: Held,
}

/// One held call. In a list, `shown` and `previous` are left out. Members that nobody prints are
/// skipped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) call: String,
    pub(super) principal: String,
    pub(super) client: Option<String>,
    pub(super) server: String,
    pub(super) method: String,
    pub(super) target: Option<String>,
    pub(super) effect: String,
    pub(super) tags: Vec<String>,
    pub(super) environments: Vec<String>,
    /// What earlier calls have selected at the server, by name.
    pub(super) facts: BTreeMap<String, String>,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) approvers: Vec<String>,
    pub(super) quorum: u32,
    pub(super) scopes: Vec<Scope>,
    pub(super) definition: Option<String>,
    pub(super) revision: String,
    pub(super) digest: String,
    pub(super) asked_unix_ms: u64,
    pub(super) changed_unix_ms: u64,
    pub(super) expires_in_ms: u64,
    pub(super) answers: Vec<Answered>,
    pub(super) granted_through: Option<String>,
    /// Calls that wait for it in the firewall.
    pub(super) waiting: u64,
    /// How the arguments begin; in lists.
    #[serde(default)]
    pub(super) excerpt: String,
    /// Size of the parameters, bytes.
    pub(super) bytes: u64,
    pub(super) shown: Option<String>,
    pub(super) previous: Option<String>,
}

/// A wider grant that the rule offers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Scope {
    pub(super) code: String,
    pub(super) lasts_ms: u64,
    pub(super) count: u32,
}

/// What an approver answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Answered {
    pub(super) by: String,
    /// `grant` or `refuse`.
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) scope: Option<String>,
    pub(super) unix_ms: u64,
}
