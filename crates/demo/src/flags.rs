//! The flags: a small in-memory flag service with the habits of real vendors.
//!
//! It has two environments and the trap that the demo is about: a change that names no environment
//! changes production, or all environments. It checks no permissions; that is the firewall's task.
//! Nothing here speaks MCP.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// All environments, in the order in which they are listed.
pub(super) const ENVIRONMENTS: [&str; 2] = ["staging", "production"];

/// Most flags at once; creating a further one is rejected.
const FLAGS_MAX: usize = 1_000;

/// Most entries of the change log that are kept; older ones are dropped.
const CHANGES_MAX: usize = 1_000;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallError {
    /// No tool has this name.
    UnknownTool,
    /// The arguments are invalid; the text tells the caller why.
    Rejected(String),
}

impl CallError {
    pub(super) fn rejected(text: impl Into<String>) -> Self {
        Self::Rejected(text.into())
    }
}

#[derive(Debug, Clone, PartialEq)]
struct FlagState {
    enabled: bool,
    value: Value,
    percentage: u64,
}

impl FlagState {
    fn off() -> Self {
        Self { enabled: false, value: Value::Bool(false), percentage: 0 }
    }

    fn shown(&self) -> Value {
        json!({"enabled": self.enabled, "value": self.value, "percentage": self.percentage})
    }
}

type Flag = BTreeMap<&'static str, FlagState>;

/// All flags, and the log of changes.
#[derive(Debug)]
pub(super) struct Flags {
    flags: BTreeMap<String, Flag>,
    changes: Vec<Value>,
}

impl Flags {
    /// Three flags, on in staging, off in production.
    pub(super) fn seeded() -> Self {
        let flag = || {
            let on = FlagState { enabled: true, value: Value::Bool(true), percentage: 100 };
            Flag::from([("staging", on), ("production", FlagState::off())])
        };
        let keys = ["checkout-redesign", "new-pricing", "search-v2"];
        Self {
            flags: keys.into_iter().map(|key| (key.to_owned(), flag())).collect(),
            changes: Vec::new(),
        }
    }

    /// The keys of all flags, in order.
    pub(super) fn keys(&self) -> Vec<String> {
        self.flags.keys().cloned().collect()
    }

    /// The state of all flags in one environment; the demo compares it before and after.
    pub(super) fn snapshot(&self, environment: &str) -> Value {
        let of = |flag: &Flag| flag.get(environment).map_or(Value::Null, FlagState::shown);
        Value::Object(self.flags.iter().map(|(key, flag)| (key.clone(), of(flag))).collect())
    }

    /// Carries out one call.
    pub(super) fn call(&mut self, tool: &str, arguments: &Value) -> Result<Value, CallError> {
        match tool {
            "list_environments" => Ok(json!({"environments": ENVIRONMENTS})),
            "list_flags" => self.list(&scope(arguments)?),
            "get_flag" => self.get(key(arguments)?, &scope(arguments)?),
            "get_audit_log" => Ok(json!({"changes": self.changes})),
            "create_flag" => self.create(arguments),
            "update_flag" => self.update(arguments),
            "set_rollout" => self.rollout(arguments),
            "replace_flag" => self.replace(arguments),
            "delete_flag" => self.delete(arguments),
            "approve_review" => self.approve(arguments),
            "run_script" => self.script(arguments),
            _ => Err(CallError::UnknownTool),
        }
    }

    fn list(&self, scope: &[&'static str]) -> Result<Value, CallError> {
        let shown: Result<Vec<Value>, CallError> =
            self.flags.keys().map(|key| self.get(key, scope)).collect();
        Ok(json!({"flags": shown?}))
    }

    fn get(&self, key: &str, scope: &[&'static str]) -> Result<Value, CallError> {
        let flag = self.flags.get(key).ok_or_else(|| unknown(key))?;
        let states = flag
            .iter()
            .filter(|(environment, _)| scope.contains(environment))
            .map(|(environment, state)| ((*environment).to_owned(), state.shown()))
            .collect();
        Ok(json!({"key": key, "environments": Value::Object(states)}))
    }

    fn create(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let key = key(arguments)?.to_owned();
        if self.flags.contains_key(&key) {
            return Err(CallError::rejected(format!("flag `{key}` exists already")));
        }
        if self.flags.len() >= FLAGS_MAX {
            return Err(CallError::rejected(format!("there are {FLAGS_MAX} flags already")));
        }
        let scope = named(arguments.get("environments"))?;
        let flag = scope.iter().map(|environment| (*environment, FlagState::off())).collect();
        self.flags.insert(key.clone(), flag);
        self.changed("create_flag", &key, &scope);
        self.get(&key, &scope)
    }

    fn update(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let enabled = arguments
            .get("enabled")
            .and_then(Value::as_bool)
            .ok_or_else(|| CallError::rejected("`enabled` must be true or false"))?;
        let value = arguments.get("value").cloned();
        let scope = match arguments.get("environment") {
            None => vec!["production"], // as the pack says
            Some(name) => vec![environment(name)?],
        };
        self.change("update_flag", arguments, &scope, |state| {
            state.enabled = enabled;
            if let Some(value) = &value {
                state.value = value.clone();
            }
        })
    }

    fn rollout(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let percentage = arguments
            .get("percentage")
            .and_then(Value::as_u64)
            .filter(|percentage| *percentage <= 100)
            .ok_or_else(|| CallError::rejected("`percentage` must be a whole number up to 100"))?;
        let name = arguments.get("environment");
        let name = name.ok_or_else(|| CallError::rejected("`environment` is required"))?;
        let scope = [environment(name)?];
        self.change("set_rollout", arguments, &scope, |state| state.percentage = percentage)
    }

    fn change(
        &mut self,
        tool: &str,
        arguments: &Value,
        scope: &[&'static str],
        mut edit: impl FnMut(&mut FlagState),
    ) -> Result<Value, CallError> {
        let key = key(arguments)?.to_owned();
        let flag = self.flags.get_mut(&key).ok_or_else(|| unknown(&key))?;
        for environment in scope {
            edit(flag.entry(environment).or_insert_with(FlagState::off));
        }
        self.changed(tool, &key, scope);
        self.get(&key, scope)
    }

    /// Replaces a flag's rules completely, as vendors do: environments that no rule names are
    /// turned off.
    fn replace(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let key = key(arguments)?.to_owned();
        let rules = arguments
            .get("rules")
            .and_then(Value::as_array)
            .ok_or_else(|| CallError::rejected("`rules` must be an array"))?;
        let mut fresh: Flag =
            ENVIRONMENTS.iter().map(|environment| (*environment, FlagState::off())).collect();
        for rule in rules {
            for environment in named(rule.get("environments"))? {
                let on = FlagState { enabled: true, value: Value::Bool(true), percentage: 100 };
                fresh.insert(environment, on);
            }
        }
        let flag = self.flags.get_mut(&key).ok_or_else(|| unknown(&key))?;
        *flag = fresh;
        self.changed("replace_flag", &key, &ENVIRONMENTS);
        self.get(&key, &ENVIRONMENTS)
    }

    fn delete(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let key = key(arguments)?.to_owned();
        let scope = scope(arguments)?;
        let flag = self.flags.get_mut(&key).ok_or_else(|| unknown(&key))?;
        flag.retain(|environment, _| !scope.contains(environment));
        if flag.is_empty() {
            self.flags.remove(&key);
        }
        self.changed("delete_flag", &key, &scope);
        Ok(json!({"deleted": key, "environments": scope}))
    }

    fn approve(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let review = text(arguments, "review_id")?.to_owned();
        self.changed("approve_review", &review, &ENVIRONMENTS);
        Ok(json!({"approved": review}))
    }

    fn script(&mut self, arguments: &Value) -> Result<Value, CallError> {
        let code = text(arguments, "code")?.to_owned();
        self.changed("run_script", &code, &ENVIRONMENTS);
        Ok(json!({"ran": code.len(), "unit": "bytes"}))
    }

    fn changed(&mut self, tool: &str, what: &str, scope: &[&'static str]) {
        if self.changes.len() >= CHANGES_MAX {
            self.changes.remove(0);
        }
        self.changes.push(json!({"tool": tool, "what": what, "environments": scope}));
    }
}

fn text<'a>(arguments: &'a Value, name: &str) -> Result<&'a str, CallError> {
    arguments
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| CallError::rejected(format!("`{name}` must be a string")))
}

fn key(arguments: &Value) -> Result<&str, CallError> {
    text(arguments, "key")
}

fn unknown(key: &str) -> CallError {
    CallError::rejected(format!("there is no flag `{key}`"))
}

/// The environment that a call's `environment` names; all if it has none.
fn scope(arguments: &Value) -> Result<Vec<&'static str>, CallError> {
    match arguments.get("environment") {
        None => Ok(ENVIRONMENTS.to_vec()),
        Some(name) => Ok(vec![environment(name)?]),
    }
}

/// The environments that a list names; all if there is no list.
fn named(names: Option<&Value>) -> Result<Vec<&'static str>, CallError> {
    match names {
        None | Some(Value::Null) => Ok(ENVIRONMENTS.to_vec()),
        Some(Value::Array(names)) => names.iter().map(environment).collect(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            Err(CallError::rejected("`environments` must be an array of names"))
        }
    }
}

fn environment(name: &Value) -> Result<&'static str, CallError> {
    ENVIRONMENTS
        .into_iter()
        .find(|known| name.as_str() == Some(known))
        .ok_or_else(|| CallError::rejected(format!("there is no environment {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_without_an_environment_reaches_production() {
        let mut flags = Flags::seeded();
        let arguments = json!({"key": "new-pricing", "enabled": true, "value": 7});
        let shown = flags.call("update_flag", &arguments).unwrap();
        assert_eq!(shown["environments"]["production"]["enabled"], true);
        assert_eq!(flags.snapshot("production")["new-pricing"]["value"], 7);
        assert_eq!(flags.snapshot("staging")["new-pricing"]["value"], true);
    }

    #[test]
    fn a_write_with_an_environment_changes_it_alone() {
        let mut flags = Flags::seeded();
        let before = flags.snapshot("production");
        let arguments = json!({"key": "new-pricing", "enabled": false, "environment": "staging"});
        flags.call("update_flag", &arguments).unwrap();
        assert_eq!(flags.snapshot("production"), before);
        assert_eq!(flags.snapshot("staging")["new-pricing"]["enabled"], false);
    }

    #[test]
    fn a_rule_without_environments_serves_all_and_a_full_replacement_forgets() {
        let mut flags = Flags::seeded();
        let all = json!({"key": "search-v2", "rules": [{}]});
        flags.call("replace_flag", &all).unwrap();
        assert_eq!(flags.snapshot("production")["search-v2"]["enabled"], true);
        let none = json!({"key": "search-v2", "rules": []});
        flags.call("replace_flag", &none).unwrap();
        assert_eq!(flags.snapshot("staging")["search-v2"]["enabled"], false);
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for (tool, arguments) in [
            ("get_flag", json!({})),
            ("get_flag", json!({"key": "nobody"})),
            ("get_flag", json!({"key": "search-v2", "environment": "moon"})),
            ("create_flag", json!({"key": "search-v2"})),
            ("create_flag", json!({"key": "x", "environments": "staging"})),
            ("update_flag", json!({"key": "search-v2"})),
            ("set_rollout", json!({"key": "search-v2", "percentage": 10})),
            (
                "set_rollout",
                json!({"key": "search-v2", "environment": "staging", "percentage": 101}),
            ),
            ("replace_flag", json!({"key": "search-v2"})),
            ("approve_review", json!({})),
            ("run_script", json!({"code": 1})),
        ] {
            let fault = Flags::seeded().call(tool, &arguments).unwrap_err();
            assert!(
                matches!(&fault, CallError::Rejected(text) if !text.is_empty()),
                "{tool} {fault:?}"
            );
        }
        assert_eq!(Flags::seeded().call("drop_tables", &json!({})), Err(CallError::UnknownTool));
    }
}
