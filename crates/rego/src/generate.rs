//! Generated inputs for the proof (differential test of both engines).
//!
//! Each input begins as one of the shape that real ones have. Then values at the paths that the
//! policy reads are replaced or removed. The replacements come from the policy's own constants, so
//! that its comparisons are both true and false, and from every JSON type, so that built-ins get
//! arguments of a wrong type. The same seed gives the same inputs. Only [`prove()`](super::prove())
//! uses it.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Value;
use regorus::unstable::{Expr, Module, Ref};

use super::ReadSet;
use super::random::Random;
use super::walk::{Visit, Walk};

/// The values of `input.tool.drift`.
const DRIFTS: &[&str] = &["none", "changed", "added", "unlocked", "unseen"];

/// Most constants of a policy that are used as values.
const CONSTANTS_MAX: usize = 512;

/// A seeded generator of inputs for one policy.
#[derive(Debug)]
pub(super) struct Generator {
    random: Random,
    /// Constants of the policy and edge cases of every type.
    values: Vec<Value>,
    /// The strings in `values`, and variations of them.
    strings: Vec<Value>,
    /// The paths that the policy reads, without `input`; a last `*` stands for any name.
    paths: Vec<Vec<String>>,
}

impl Generator {
    /// A generator for the policy that reads `reads`.
    pub(super) fn new(modules: &[Ref<Module>], reads: &ReadSet, seed: u64) -> Self {
        let mut constants: BTreeSet<Value> = BTreeSet::new();
        for rule in modules.iter().flat_map(|module| &module.policy) {
            for visit in Walk::rule(rule) {
                if let Visit::Expr(
                    Expr::String { value, .. }
                    | Expr::RawString { value, .. }
                    | Expr::Number { value, .. },
                ) = visit
                    && constants.len() < CONSTANTS_MAX
                {
                    constants.insert(value.clone());
                }
            }
        }
        let mut values: Vec<Value> = constants.into_iter().collect();
        values.extend(
            ["", "a", "prod", "staging", "read", "é/日本", "*", "1", "{}"].map(Value::from),
        );
        let mut strings: Vec<Value> =
            values.iter().filter(|it| it.as_string().is_ok()).cloned().collect();
        // A string that extends or shortens another shows whether a rule compares a prefix or the
        // whole.
        let longer: Vec<Value> = strings
            .iter()
            .filter_map(|it| it.as_string().ok())
            .flat_map(|it| {
                [Value::from(format!("{it}x")), Value::from(it.chars().skip(1).collect::<String>())]
            })
            .collect();
        strings.extend(longer.iter().cloned());
        values.extend(longer);
        values.extend([-1_i64, 0, 1, 2, 5, 23].map(Value::from));
        values.extend([0.5, 1e15].map(Value::from));
        values.push(Value::from(u64::MAX));
        values.extend([Value::Null, Value::Bool(true), Value::Bool(false)]);
        values.extend([Value::new_array(), Value::new_object()]);
        let paths = reads
            .paths()
            .iter()
            .map(|path| path.split('.').skip(1).map(str::to_owned).collect())
            .collect();
        Self { random: Random::new(seed), values, strings, paths }
    }

    /// The next input of the sequence.
    pub(super) fn input(&mut self) -> Value {
        let mut input = self.plausible();
        for path in self.paths.clone() {
            match self.random.below(12) {
                0..=2 => {
                    let value = self.string();
                    set_or_remove(&mut input, &path, Some(value));
                }
                3 | 4 => {
                    let value = self.value(2);
                    set_or_remove(&mut input, &path, Some(value));
                }
                5 | 6 => set_or_remove(&mut input, &path, None),
                _ => {}
            }
        }
        input
    }

    fn string(&mut self) -> Value {
        self.random.pick(&self.strings).cloned().unwrap_or(Value::Null)
    }

    /// A value of any JSON type, nested at most `depth` levels.
    fn value(&mut self, depth: usize) -> Value {
        let inner = depth.saturating_sub(1);
        match self.random.below(if depth == 0 { 4 } else { 6 }) {
            4 => {
                let items = self.random.below(4);
                Value::from((0..items).map(|_| self.value(inner)).collect::<Vec<_>>())
            }
            5 => {
                let members = self.random.below(4);
                let members = (0..members).map(|_| (self.string(), self.value(inner)));
                Value::from(members.collect::<BTreeMap<_, _>>())
            }
            _ => self.random.pick(&self.values).cloned().unwrap_or(Value::Null),
        }
    }

    fn strings(&mut self, most: usize) -> Value {
        let items = self.random.below(most.saturating_add(1));
        Value::from((0..items).map(|_| self.string()).collect::<Vec<_>>())
    }

    fn usually_one_of(&mut self, names: &[&str]) -> Value {
        let often = self.random.pick(names).map(|name| Value::from(*name));
        often.filter(|_| !self.random.one_in(8)).unwrap_or_else(|| self.string())
    }

    fn operation(&mut self) -> Value {
        object([
            ("name", self.string()),
            ("effect", self.usually_one_of(&["read", "write", "destructive", "exec", "unknown"])),
            ("environments", self.strings(2)),
            (
                "environment_source",
                self.usually_one_of(&["arguments", "absent", "unmapped", "unreadable", "none"]),
            ),
            ("tags", self.strings(2)),
            ("pack", self.string()),
        ])
    }

    fn principal(&mut self) -> Value {
        object([
            ("id", self.string()),
            ("kind", self.usually_one_of(&["agent", "user"])),
            ("groups", self.strings(3)),
            ("claims", object([("team", self.string())])),
        ])
    }

    fn server(&mut self) -> Value {
        object([
            ("name", self.string()),
            ("environment", self.string()),
            ("labels", object([("tier", self.string())])),
        ])
    }

    fn tool(&mut self, arguments: Value) -> Value {
        object([
            ("name", self.string()),
            ("arguments", arguments),
            ("definition", object([("description", self.string())])),
            ("drift", self.usually_one_of(DRIFTS)),
            ("flags", self.strings(2)),
        ])
    }

    fn params(&mut self) -> Value {
        object([
            ("mode", self.usually_one_of(&["form", "url"])),
            ("url", self.string()),
            ("task", object([("ttl", Value::from(self.random.below(9)))])),
            ("requestState", self.string()),
        ])
    }

    fn elicitation(&mut self) -> Value {
        let parsed =
            object([("scheme", self.usually_one_of(&["https", "http"])), ("host", self.string())]);
        object([
            ("mode", self.usually_one_of(&["form", "url"])),
            ("url", self.string()),
            ("parsed", parsed),
        ])
    }

    fn answer(&mut self) -> Value {
        let root =
            object([("uri", self.string()), ("ambiguous", Value::Bool(self.random.below(2) == 0))]);
        object([
            ("outcome", self.usually_one_of(&["result", "error"])),
            ("action", self.usually_one_of(&["accept", "decline", "cancel"])),
            ("content", object([("key", self.string())])),
            ("roots", Value::from(vec![root])),
        ])
    }

    fn resource(&mut self) -> Value {
        let parsed = object([
            ("scheme", self.string()),
            ("host", self.string()),
            ("port", Value::from(443_u64)),
            ("path", self.string()),
            ("segments", self.strings(3)),
            ("query", self.string()),
        ]);
        let ambiguous = Value::Bool(self.random.below(4) == 0);
        object([("uri", self.string()), ("ambiguous", ambiguous), ("parsed", parsed)])
    }

    /// An input with the members and types that real ones have.
    fn plausible(&mut self) -> Value {
        let hour = self.random.below(24);
        let unix_ms = self.random.number() >> 22;
        let listed = (0..self.random.below(4)).map(|_| {
            object([
                ("name", self.string()),
                ("operation", self.operation()),
                ("definition", object([("description", self.string())])),
                ("definition_digest", self.string()),
                ("drift", self.usually_one_of(DRIFTS)),
                ("flags", self.strings(2)),
            ])
        });
        let listed = Value::from(listed.collect::<Vec<_>>());
        let members = (0..self.random.below(4)).map(|_| (self.string(), self.value(2)));
        let arguments = Value::from(members.collect::<BTreeMap<_, _>>());
        object([
            ("version", Value::from(1_u64)),
            ("phase", self.usually_one_of(&["call", "answer", "list"])),
            ("direction", self.usually_one_of(&["to_server", "to_client"])),
            (
                "method",
                self.usually_one_of(&[
                    "tools/call",
                    "tools/list",
                    "resources/read",
                    "initialize",
                    "x/y",
                ]),
            ),
            ("principal", self.principal()),
            ("client", object([("name", self.string()), ("version", self.string())])),
            ("server", self.server()),
            (
                "protocol",
                object([
                    ("revision", self.usually_one_of(&["2025-11-25", "2026-07-28"])),
                    ("era", self.usually_one_of(&["legacy", "modern"])),
                    ("transport", self.usually_one_of(&["http", "stdio"])),
                ]),
            ),
            ("tool", self.tool(arguments)),
            ("resource", self.resource()),
            ("params", self.params()),
            ("elicitation", self.elicitation()),
            ("answer", self.answer()),
            ("operation", self.operation()),
            ("session", object([("facts", object([("project", self.string())]))])),
            ("time", object([("hour", Value::from(hour)), ("unix_ms", Value::from(unix_ms))])),
            ("tools", listed),
        ])
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter().map(|(name, value)| (Value::from(name), value));
    Value::from(members.collect::<BTreeMap<_, _>>())
}

/// Sets the value at `path`, or removes it where `new` is `None`. A last `*` adds the string `new`
/// as a member with its own name.
fn set_or_remove(value: &mut Value, path: &[String], new: Option<Value>) {
    let mut at = value;
    let Some((last, way)) = path.split_last() else {
        if let Some(new) = new {
            *at = new;
        }
        return;
    };
    for name in way {
        if !matches!(at, Value::Object(_)) {
            *at = Value::new_object();
        }
        let Ok(members) = at.as_object_mut() else { return };
        at = members.get_or_insert_with(Value::from(name.as_str()), Value::new_object);
    }
    let Ok(members) = at.as_object_mut() else { return };
    match (last.as_str(), new) {
        ("*", Some(new)) if matches!(new, Value::String(_)) => {
            members.insert(new.clone(), new);
        }
        ("*", _) => {}
        (name, Some(new)) => {
            members.insert(Value::from(name), new);
        }
        (name, None) => {
            members.remove(&Value::from(name));
        }
    }
}
