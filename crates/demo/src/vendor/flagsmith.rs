//! A stand-in for Flagsmith: feature states by environment, named by number or key; features,
//! segments, projects and invitations, which have no environment.

use std::collections::BTreeMap;

use http::HeaderMap;
use rmcp::model::Tool;
use serde_json::{Value, json};

use super::{Service, list, member, name_of, tool};
use crate::agent::{Attempt, AttemptKind, attempts};
use crate::flags::CallError;

/// The accepted `Authorization`.
pub(super) const KEY: &str = "Api-Key demo";

/// Each environment by its number and by its key.
pub(super) const ENVIRONMENT_IDS: [(&str, &str); 4] =
    [("41", "staging"), ("ser.stg", "staging"), ("42", "production"), ("ser.prd", "production")];

/// Argument names that hold an environment.
const ENVIRONMENT_ARGUMENTS: [&str; 4] =
    ["environment_api_key", "environment_pk", "environment_id", "environment"];

/// Most shared entities at once.
const SHARED_MAX: usize = 1_000;

/// A project with one feature, number 7.
#[derive(Debug)]
pub(super) struct Flagsmith {
    /// Whether feature 7 is on, by environment.
    states: BTreeMap<&'static str, Value>,
    /// Entities without an environment, which apply to all.
    shared: BTreeMap<String, Value>,
}

impl Flagsmith {
    pub(super) fn seeded() -> Self {
        let project = json!({"minimum_change_request_approvals": 1});
        Self {
            states: [
                ("staging", json!({"enabled": true})),
                ("production", json!({"enabled": false})),
            ]
            .into(),
            shared: [("project 3".to_owned(), project)].into(),
        }
    }

    /// Writes the feature's state into every environment that the call names, or into all if it
    /// names none.
    fn state(&mut self, arguments: &Value) -> Value {
        let named: Vec<String> = ENVIRONMENT_ARGUMENTS
            .iter()
            .filter_map(|name| member(arguments, name))
            .flat_map(list)
            .map(|id| name_of(&id))
            .collect();
        let mut written = Vec::new();
        for (name, state) in &mut self.states {
            let mut ids = ENVIRONMENT_IDS.iter().filter(|(_, environment)| environment == name);
            if named.is_empty() || ids.any(|(id, _)| named.iter().any(|named| named == id)) {
                *state = json!({
                    "enabled": member(arguments, "enabled"),
                    "value": member(arguments, "feature_state_value"),
                    "states": member(arguments, "feature_states_to_update"),
                });
                written.push(*name);
            }
        }
        json!({"written": written})
    }

    fn share(&mut self, kind: &str, arguments: &Value) -> Result<Value, CallError> {
        if self.shared.len() >= SHARED_MAX {
            return Err(CallError::rejected("there is too much already"));
        }
        let id = member(arguments, "id__path").or_else(|| member(arguments, "name"));
        let name = format!("{kind} {}", id.as_ref().map(name_of).unwrap_or_default());
        self.shared.insert(name.clone(), arguments.clone());
        Ok(json!({"written": name}))
    }
}

impl Service for Flagsmith {
    fn tools(&self) -> Vec<Tool> {
        TOOLS.iter().map(|(name, text, arguments)| tool(name, text, arguments, &[])).collect()
    }

    fn call(&mut self, tool: &str, arguments: &Value, _: &HeaderMap) -> Result<Value, CallError> {
        match tool {
            "list_project_environments" => Ok(json!({"results": [
                {"id": 41, "name": "staging", "api_key": "ser.stg"},
                {"id": 42, "name": "production", "api_key": "ser.prd"},
            ]})),
            "list_project_features" => Ok(json!({"results": [{"id": 7, "states": self.states}]})),
            "create_environment_feature_version"
            | "update_environment_feature_version_state"
            | "publish_environment_feature_version"
            | "update_environment_feature_state"
            | "update_feature_state" => Ok(self.state(arguments)),
            "create_feature" => self.share("feature", arguments),
            "update_project_segment" => self.share("segment", arguments),
            "update_project" => self.share("project", arguments),
            "create_organization_invite" => self.share("invitation", arguments),
            _ => Err(CallError::UnknownTool),
        }
    }

    fn snapshot(&self, environment: &str) -> Value {
        json!({"state": self.states.get(environment), "shared": self.shared})
    }
}

const TOOLS: &[(&str, &str, &[&str])] = &[
    ("list_project_environments", "List environments", &["id"]),
    ("list_project_features", "List features", &["project_pk", "environment", "search"]),
    (
        "create_environment_feature_version",
        "Create a version of a feature in an environment",
        &["environment_pk", "feature_pk", "feature_states_to_update", "publish_immediately"],
    ),
    (
        "update_environment_feature_version_state",
        "Change a draft",
        &[
            "environment_feature_version_pk",
            "environment_pk",
            "feature_pk",
            "id__path",
            "enabled",
            "feature_state_value",
            "environment",
        ],
    ),
    (
        "publish_environment_feature_version",
        "Publish a version",
        &["environment_pk", "feature_pk", "id", "live_from"],
    ),
    (
        "update_environment_feature_state",
        "Change a feature in an environment",
        &["environment_api_key", "id__path", "feature", "enabled", "environment"],
    ),
    (
        "update_feature_state",
        "Change a feature state",
        &["id__path", "feature", "enabled", "environment"],
    ),
    ("create_feature", "Create a feature", &["project_pk", "name", "default_enabled"]),
    ("update_project_segment", "Change a segment", &["id__path", "project_pk", "name", "rules"]),
    (
        "update_project",
        "Change a project",
        &["id__path", "name", "minimum_change_request_approvals"],
    ),
    ("create_organization_invite", "Invite", &["organisation_pk", "email", "role"]),
];

pub(super) fn script() -> Vec<Attempt> {
    let draft = |environment: Value| {
        json!({"environment_feature_version_pk": "v-1", "environment_pk": environment,
            "feature_pk": 7, "id__path": 101, "enabled": true})
    };
    let both = json!({"environment_feature_version_pk": "v-1", "environment_pk": 41,
        "environment": 42, "feature_pk": 7, "id__path": 101, "enabled": true});
    let update = "update_environment_feature_version_state";
    let modern = attempts(AttemptKind::Modern)
        .connect()
        .passes("list the features", "list_project_features", json!({"project_pk": 3}))
        .passes("change a draft in staging, 41", update, draft(json!(41)))
        .passes("the same by its key", update, draft(json!("ser.stg")))
        .refused("change it in production, 42", update, draft(json!(42)))
        .refused("name both at once", update, both)
        .refused("an environment that is in no map", update, draft(json!(43)))
        .refused("read the environments' keys", "list_project_environments", json!({"id": 3}));
    let publish = json!({"environment_pk": 42, "feature_pk": 7, "id": "v-1"});
    let project = json!({"id__path": 3, "name": "shop", "minimum_change_request_approvals": 0});
    let invite = json!({"organisation_pk": 1, "email": "a@example.com", "role": "ADMIN"});
    let legacy = attempts(AttemptKind::Legacy)
        .connect()
        .refused("publish in production", "publish_environment_feature_version", publish)
        .refused("ask for no approvals any more", "update_project", project)
        .refused("invite an administrator", "create_organization_invite", invite)
        .refused(
            "create a feature in all",
            "create_feature",
            json!({"project_pk": 3, "name": "x"}),
        );
    [modern.done(), legacy.done()].concat()
}
