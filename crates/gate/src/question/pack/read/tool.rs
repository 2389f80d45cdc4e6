//! Reads one tool of a pack, and its operations.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ITEMS_MAX, PackReader, TOOLS_MAX, escape, is_slug, pointer_problem};
use crate::question::pack::{
    Absent, Effect, EnvironmentForm, EnvironmentPath, FactSource, HandleFormat, OperationDispatch,
    PointerStep, Route, Scope, Selector, ToolEntry, steps,
};
use crate::question::path::is_plain_segment;
use crate::question::rate::span;
use crate::wire::document::{Kind, Value};

impl PackReader {
    pub(super) fn tool(&mut self, path: &str, value: Value<'_>) -> Option<ToolEntry> {
        self.entry(path, value, true)
    }

    /// Reads a tool, or one of its operations, which cannot dispatch any further.
    fn entry(&mut self, path: &str, value: Value<'_>, tool: bool) -> Option<ToolEntry> {
        const KNOWN: [&str; 11] = [
            "effect",
            "environments",
            "absent",
            "arguments",
            "tags",
            "tags_if",
            "confidence",
            "notes",
            "facts",
            "dispatch",
            "mints",
        ];
        if !self.object(path, value) {
            return None;
        }
        let known = if tool { KNOWN.len() } else { KNOWN.len().saturating_sub(2) };
        self.known(path, value, KNOWN.get(..known).unwrap_or_default());
        let at = |member: &str| format!("{path}/{member}");
        let effect = if let Some(effect) = value.get("effect") {
            self.choice(
                &at("effect"),
                effect,
                Effect::of_pack,
                "`read`, `write`, `destructive` or `exec`; leave out a tool that is not known",
            )
        } else {
            self.problem(&at("effect"), "missing; write what the tool does at worst");
            None
        };
        let environments = self.places(&at("environments"), value.get("environments"));
        let absent = self.absent(&at("absent"), value);
        let arguments = value.get("arguments").map(|arguments| {
            self.strings(&at("arguments"), Some(arguments), |name| {
                name.is_empty().then(|| "empty; write the argument's name".to_owned())
            })
        });
        if let Some(arguments) = &arguments {
            self.arguments_cover(&at("environments"), &environments, arguments);
        }
        let tags = self.strings(&at("tags"), value.get("tags"), slug_problem);
        let tags_if = self.tags_if(&at("tags_if"), value);
        if let Some(confidence) = value.get("confidence") {
            let known = |text: &str| ["high", "medium", "low"].contains(&text).then_some(());
            self.choice(&at("confidence"), confidence, known, "`high`, `medium` or `low`");
        }
        self.text(&at("notes"), value.get("notes"));
        let facts = self.facts(&at("facts"), value);
        let dispatch = value.get("dispatch").filter(|_| tool);
        let dispatch =
            dispatch.and_then(|value| self.dispatch(&at("dispatch"), value)).map(Box::new);
        let mints = value.get("mints").filter(|_| tool);
        let mints = mints.and_then(|value| self.handle_format(&at("mints"), value));
        Some(ToolEntry {
            effect: effect?,
            environments,
            absent: absent?,
            arguments,
            tags,
            tags_if,
            dispatch,
            handle_format: mints,
            facts,
        })
    }

    fn tags_if(&mut self, path: &str, tool: Value<'_>) -> BTreeMap<Box<str>, Vec<Box<str>>> {
        self.map(path, tool.get("tags_if"), |reading, path, tag, places| {
            if let Some(message) = slug_problem(tag) {
                reading.problem(path, message);
            }
            Some(reading.strings(path, Some(places), pointer_problem))
        })
    }

    fn facts(&mut self, path: &str, tool: Value<'_>) -> BTreeMap<Box<str>, FactSource> {
        self.map(path, tool.get("facts"), |reading, path, name, value| {
            if let Some(message) = slug_problem(name) {
                reading.problem(path, message);
            }
            let source = reading.fact(path, value)?;
            let scope = *reading.scopes.entry(name.into()).or_insert(source.scope);
            if scope != source.scope {
                let what = "has another scope elsewhere in this pack; a fact has one";
                reading.problem(path, what);
            }
            Some(source)
        })
    }

    /// A pointer, or an object with the pointer and a scope.
    fn fact(&mut self, path: &str, value: Value<'_>) -> Option<FactSource> {
        if value.kind() != Kind::Object {
            let at = self.string(path, value, pointer_problem)?.into();
            return Some(FactSource { at, scope: Scope::default() });
        }
        self.known(path, value, &["at", "scope"]);
        let at = self.required(&format!("{path}/at"), value.get("at"), pointer_problem);
        let scope = self.scope(path, value, "`session`, `principal` or `server`")?;
        Some(FactSource { at: at?, scope })
    }

    fn scope(&mut self, path: &str, value: Value<'_>, expected: &str) -> Option<Scope> {
        match value.get("scope") {
            Some(scope) => self.choice(&format!("{path}/scope"), scope, Scope::of_pack, expected),
            None => Some(Scope::default()),
        }
    }

    fn absent(&mut self, path: &str, tool: Value<'_>) -> Option<Absent> {
        match tool.get("absent") {
            Some(absent) => {
                self.choice(path, absent, Absent::of_pack, "`all`, `production` or `none`")
            }
            None if tool.get("environments").is_none() => Some(Absent::None),
            None => {
                self.problem(
                    path,
                    "missing; say what leaving the environment out means: `all`, `production` or \
                     `none`",
                );
                None
            }
        }
    }

    fn places(&mut self, path: &str, value: Option<Value<'_>>) -> Vec<EnvironmentPath> {
        let mut places: Vec<EnvironmentPath> = Vec::new();
        let Some(value) = value else { return places };
        if value.kind() != Kind::Array || value.len() > ITEMS_MAX {
            self.problem(path, format!("not an array of at most {ITEMS_MAX} places"));
            return places;
        }
        for (index, element) in value.elements().enumerate() {
            let path = format!("{path}/{index}");
            let place = if element.kind() == Kind::Object {
                self.place(&path, element)
            } else {
                let at = self.string(&path, element, pointer_problem);
                at.map(|at| EnvironmentPath {
                    inside: None,
                    at: at.into(),
                    form: EnvironmentForm::Name,
                    optional: false,
                })
            };
            let Some(place) = place else { continue };
            if places.contains(&place) {
                self.problem(&path, "stands here twice; keep one");
            } else {
                places.push(place);
            }
        }
        places
    }

    fn place(&mut self, path: &str, value: Value<'_>) -> Option<EnvironmentPath> {
        self.known(path, value, &["at", "inside", "form", "after", "optional"]);
        let at = self.required(&format!("{path}/at"), value.get("at"), pointer_problem)?;
        let inside = match value.get("inside") {
            Some(inside) => {
                Some(self.string(&format!("{path}/inside"), inside, pointer_problem)?.into())
            }
            None => None,
        };
        let after = match value.get("after") {
            Some(after) => Some(self.string(&format!("{path}/after"), after, |text| {
                let plain = text.split('/').all(is_plain_segment);
                (!plain).then(|| "not a path of plain segments, such as `files/live`".to_owned())
            })?),
            None => None,
        };
        let form = value.get("form").map_or(Some("name"), Value::as_str);
        let form = match (form, after) {
            (Some("name"), None) => EnvironmentForm::Name,
            (Some("keys"), None) => EnvironmentForm::Keys,
            (Some("id"), None) => EnvironmentForm::Id,
            (Some("segment"), Some(after)) => EnvironmentForm::Segment(after.into()),
            (Some("patch"), Some(after)) => EnvironmentForm::Patch(after.into()),
            _ => {
                self.problem(
                    &format!("{path}/form"),
                    "not a form; write `name`, `keys` or `id`, or `segment` or `patch` together with `after`",
                );
                return None;
            }
        };
        let optional = match value.get("optional").map(Value::as_bool) {
            None => false,
            Some(Some(optional)) => optional,
            Some(None) => {
                self.problem(&format!("{path}/optional"), "neither `true` nor `false`");
                return None;
            }
        };
        Some(EnvironmentPath { inside, at, form, optional })
    }

    /// Reports a pointer whose first step `arguments` does not list: it could never match.
    fn arguments_cover(&mut self, path: &str, places: &[EnvironmentPath], arguments: &[Box<str>]) {
        for (index, place) in places.iter().enumerate() {
            let pointer = place.inside.as_deref().unwrap_or(&place.at);
            let Some(PointerStep::Member(first)) = steps(pointer).next() else { continue };
            if !arguments.iter().any(|argument| **argument == *first) {
                self.problem(
                    &format!("{path}/{index}"),
                    format!("begins with `{first}`, which `arguments` does not list; add it there"),
                );
            }
        }
    }

    fn dispatch(&mut self, path: &str, value: Value<'_>) -> Option<OperationDispatch> {
        if !self.object(path, value) {
            return None;
        }
        self.known(
            path,
            value,
            &["values", "method", "path", "command", "handle", "cases", "otherwise"],
        );
        let by = self.selector(path, value);
        let mut cases = BTreeMap::new();
        let mut routes = Vec::new();
        if let Some(listed) = value.get("cases") {
            let path = format!("{path}/cases");
            if self.object(&path, listed) && listed.len() <= TOOLS_MAX {
                for (name, case) in listed.members() {
                    let name = name.as_str().unwrap_or_default();
                    let path = format!("{path}/{}", escape(name));
                    self.name(&path, name);
                    if let Some(Selector::Route { .. }) = by {
                        match Route::read(name) {
                            Ok(route) => routes.push(route),
                            Err(_) => self.problem(&path, "not a route; write `POST /v1/x/{id}`"),
                        }
                    }
                    if let Some(entry) = self.entry(&path, case, false) {
                        cases.insert(name.into(), entry);
                    }
                }
            }
        }
        let otherwise = match value.get("otherwise") {
            Some(entry) => Some(self.entry(&format!("{path}/otherwise"), entry, false)?),
            None => None,
        };
        Some(OperationDispatch { by: by?, cases, routes, otherwise })
    }

    fn selector(&mut self, path: &str, value: Value<'_>) -> Option<Selector> {
        let pointer = |reading: &mut Self, member: &str| {
            reading.required(&format!("{path}/{member}"), value.get(member), pointer_problem)
        };
        let given: Vec<_> = ["values", "path", "command", "handle"]
            .into_iter()
            .filter(|member| value.get(member).is_some())
            .collect();
        match given.as_slice() {
            ["values"] => {
                let values = value.get("values");
                let found = self.strings(&format!("{path}/values"), values, pointer_problem);
                Some(Selector::Values(found))
            }
            ["path"] => {
                let method =
                    self.required(&format!("{path}/method"), value.get("method"), |text| {
                        let literal =
                            !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase());
                        if literal { None } else { pointer_problem(text) }
                    });
                Some(Selector::Route { method: method?, path: pointer(self, "path")? })
            }
            ["command"] => Some(Selector::Command(pointer(self, "command")?)),
            ["handle"] => Some(Selector::Handle(pointer(self, "handle")?)),
            _ => {
                self.problem(
                    path,
                    "say once where the operation stands: `values`, `method` with `path`, \
                     `command` or `handle`",
                );
                None
            }
        }
    }

    fn handle_format(&mut self, path: &str, value: Value<'_>) -> Option<HandleFormat> {
        if !self.object(path, value) {
            return None;
        }
        self.known(path, value, &["handle", "operation", "effect", "ttl", "scope"]);
        let named = |text: &str| text.is_empty().then(|| "empty; name the member".to_owned());
        let handle = self.required(&format!("{path}/handle"), value.get("handle"), named);
        let operation = self.required(&format!("{path}/operation"), value.get("operation"), named);
        let ttl = self.required(&format!("{path}/ttl"), value.get("ttl"), |text| {
            span(text).is_none().then(|| "not a time; write `15m`".to_owned())
        });
        let ttl: Duration = span(&ttl?)?;
        let effect = value
            .get("effect")
            .and_then(|effect| self.string(&format!("{path}/effect"), effect, named))
            .map(Into::into);
        let scope = self.scope(path, value, "`session` or `principal`")?;
        if scope == Scope::Server {
            let what = "a handle works like a credential: `session` or `principal`";
            self.problem(&format!("{path}/scope"), what);
        }
        Some(HandleFormat { handle: handle?, operation: operation?, effect, ttl, scope })
    }
}

fn slug_problem(text: &str) -> Option<String> {
    (!is_slug(text)).then(|| "not a tag; use a-z, 0-9 and `-`, at most 64".to_owned())
}
