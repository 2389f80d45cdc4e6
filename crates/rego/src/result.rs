//! Reads the values of the entrypoints into decisions and listings, strictly
//! (`docs/strict-profile.md`, P15; `docs/policy.md`, "What the firewall reads back").
//!
//! A value of another form than this is [`Indeterminate`], and so a denial or a withheld page.
//! `data.mcp.decision` is an object:
//!
//! | member | |
//! |---|---|
//! | `effect` | `"permit"` or `"deny"` |
//! | `reasons` | `{code?, message}` each; a permit needs one. Those of a denial may have `tell` and `tell_hidden` |
//! | `hold` | `{code?, message, tell?, approvers?, quorum?, ttl?, scopes?}` |
//! | `limit` | `{code?, message?, key, rate, burst?, window?, cost?, counts?}`, where a rate is `10/m` or `10/15m` and `window` is `"sliding"` or `"fixed"`; or `{code?, message?, key, concurrent}` |
//! | `set` | `{code?, message?, pointer, value}` |
//! | `redact` | `{code?, message?, pointer}` or `{code?, message?, what}`, where `what` is `"secrets"` |
//!
//! `data.mcp.listing` is `{"hide": [names]}`. Collections may be arrays or sets, and an absent one
//! is empty. A member that is not named here is an error, because a later version may define it
//! as a duty. The PDP in `engines` calls this module.

use std::time::Duration;

use regorus::Value;

use bartizan_gate::duty::decision::{
    Bound, Decision, Effect, Engine, GrantScope, HoldRule, Limit, Listing, Obligation, Origin,
    PolicyRevision, Rate, Reason, Redaction, Tell,
};
use bartizan_gate::duty::redact::REDACTIONS_MAX;
use bartizan_gate::question::hold::TTL_MAX;
use bartizan_gate::question::rate::span;

use super::program::{Operand, Type};
use super::recorded::CLIENT_WRITTEN;
use super::value::is_at_or_below;

/// The code of an element without a `code`.
const UNNAMED: &str = "unnamed";

/// The code of a denial for the reason that no rule permits.
const NOT_APPLICABLE: &str = "not_applicable";

/// The code of a denial because the evaluation exceeded its time limit.
pub(super) const TIMED_OUT: &str = "policy_late";

/// Most elements in one collection of a result, `hide` excepted.
const ELEMENTS_MAX: usize = 256;

/// Longest string in one element, bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// The members of an element of `permit`.
const PERMIT: &[&str] = &["code", "message"];
/// The members of an element of `deny` or `refuse`.
const DENIAL: &[&str] = &["code", "message", "tell", "tell_hidden"];
/// The members of an element of `hold`.
const HOLD: &[&str] = &["code", "message", "tell", "approvers", "quorum", "ttl", "scopes"];
/// The members of a wider grant.
pub(super) const SCOPE: &[&str] = &["code", "lasts", "count"];
/// The members of an element of `limit` with a rate.
pub(super) const LIMIT: &[&str] =
    &["code", "message", "key", "rate", "burst", "window", "cost", "counts"];
/// The members of an element of `limit` for calls in flight.
pub(super) const LIMIT_IN_FLIGHT: &[&str] = &["code", "message", "key", "concurrent"];
/// The members of an element of `set`.
const SET: &[&str] = &["code", "message", "pointer", "value"];
/// The members of an element of `redact`.
const REDACT: &[&str] = &["code", "message", "pointer", "what"];

/// Why there is no decision: Indeterminate in XACML 3.0. It always denies or withholds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Indeterminate {
    code: &'static str,
    message: String,
}

impl Indeterminate {
    /// The evaluation failed.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self { code: "policy_error", message: message.into() }
    }

    /// The evaluation exceeded its time limit.
    pub(super) fn timed_out(message: impl Into<String>) -> Self {
        Self { code: TIMED_OUT, message: message.into() }
    }

    /// The policy reads a number of the input that has no exact value. `pointer` (RFC 6901) names
    /// it. Names in it that are no plain identifiers are not repeated: they can be data.
    pub(super) fn inexact_number(pointer: &str) -> Self {
        let plain = |name: &str| {
            name.len() <= 64
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let named = pointer.split('/').all(plain);
        let part = CLIENT_WRITTEN.iter().find(|part| is_at_or_below(pointer, part));
        let pointer = if named { pointer } else { part.copied().unwrap_or_default() };
        let message = format!("number cannot be represented exactly: `{pointer}`");
        Self { code: "lossy_number", message }
    }

    /// A member of the message has a name that some reader takes for one that the policy reads.
    /// `pointer` (RFC 6901) names it.
    pub(super) fn ambiguous_name(pointer: &str) -> Self {
        let message = format!(
            "name that a reader may take for one that a rule reads: `{pointer}` (if a tool has both \
             names, a rule must read this one, too)"
        );
        Self { code: "ambiguous_name", message }
    }

    /// The value of the entrypoint has another form than this module reads.
    fn malformed(message: impl Into<String>) -> Self {
        Self { code: "policy_shape", message: message.into() }
    }

    fn reason(self) -> Reason {
        Reason {
            code: self.code.into(),
            message: self.message.into(),
            origin: Origin::Indeterminate,
            tell: None,
        }
    }

    /// The denial for this reason.
    pub(super) fn deny(self, revision: PolicyRevision, engine: Engine) -> Decision {
        Decision::deny(revision, engine, self.reason())
    }

    /// The listing that withholds the page for this reason.
    pub(super) fn withhold(self, revision: PolicyRevision) -> Listing {
        Listing::Withhold { reason: self.reason(), revision }
    }
}

/// A value of a result, as one of the engines has it.
pub(super) trait Readable: Clone {
    /// The text, if it is one.
    fn text(&self) -> Option<&str>;
    /// Whether it is an object.
    fn is_object(&self) -> bool;
    /// Whether `known` is true for the name of each member of an object: `None` for a name that is
    /// no text.
    fn all_names(&self, known: &dyn Fn(Option<&str>) -> bool) -> bool;
    /// The member of an object.
    fn member(&self, name: &str) -> Option<Self>;
    /// How many items an array or a set has; `None` for what is neither.
    fn count(&self) -> Option<usize>;
    /// Calls `visit` with each item of an array or a set, in order.
    fn each_item(
        &self,
        visit: &mut dyn FnMut(Self) -> Result<(), Indeterminate>,
    ) -> Result<(), Indeterminate>;
    /// The number, if it is a whole one below 2^32.
    fn whole(&self) -> Option<u32>;
    /// Whether it is `true`; `None` if it is neither that nor `false`.
    fn truth(&self) -> Option<bool>;
    /// The JSON text, if JSON can represent it.
    fn json(&self) -> Option<Box<str>>;
}

impl Readable for &Value {
    fn text(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }

    fn all_names(&self, known: &dyn Fn(Option<&str>) -> bool) -> bool {
        match self {
            Value::Object(members) => members.keys().all(|name| known(name.text())),
            _ => true,
        }
    }

    fn member(&self, name: &str) -> Option<Self> {
        match self {
            Value::Object(members) => {
                members.iter().find_map(|(key, item)| (key.text() == Some(name)).then_some(item))
            }
            _ => None,
        }
    }

    fn count(&self) -> Option<usize> {
        match self {
            Value::Array(items) => Some(items.len()),
            Value::Set(items) => Some(items.len()),
            _ => None,
        }
    }

    fn each_item(
        &self,
        visit: &mut dyn FnMut(Self) -> Result<(), Indeterminate>,
    ) -> Result<(), Indeterminate> {
        match self {
            Value::Array(items) => items.iter().try_for_each(visit),
            Value::Set(items) => items.iter().try_for_each(visit),
            _ => Ok(()),
        }
    }

    fn whole(&self) -> Option<u32> {
        self.as_u32().ok()
    }

    fn truth(&self) -> Option<bool> {
        self.as_bool().ok().copied()
    }

    fn json(&self) -> Option<Box<str>> {
        is_json(self).then(|| super::value::json(self).into())
    }
}

impl Readable for Operand<'_> {
    fn text(&self) -> Option<&str> {
        self.as_text()
    }

    fn is_object(&self) -> bool {
        self.kind() == Type::Object
    }

    fn all_names(&self, known: &dyn Fn(Option<&str>) -> bool) -> bool {
        match self {
            Self::Record(names, _) => names.sorted.iter().all(|name| known((&name).text())),
            other => other.as_value().is_none_or(|value| value.all_names(known)),
        }
    }

    fn member(&self, name: &str) -> Option<Self> {
        self.get(&Operand::Text(name)).ok().flatten()
    }

    fn count(&self) -> Option<usize> {
        if matches!(self.kind(), Type::Array | Type::Set) { self.len() } else { None }
    }

    fn each_item(
        &self,
        visit: &mut dyn FnMut(Self) -> Result<(), Indeterminate>,
    ) -> Result<(), Indeterminate> {
        match self {
            Self::Array(items) | Self::Set(items) => items.iter().cloned().try_for_each(visit),
            Self::Shared(value) => value.each_item(&mut |item| visit(Operand::Shared(item))),
            Self::Owned(value) => value.each_item(&mut |item| visit(Operand::Owned(item.clone()))),
            _ => Ok(()),
        }
    }

    fn whole(&self) -> Option<u32> {
        self.as_value().and_then(|value| value.whole())
    }

    fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            other => other.as_value().and_then(|value| value.truth()),
        }
    }

    fn json(&self) -> Option<Box<str>> {
        (&self.clone().into_value().ok()?).json()
    }
}

/// Reads the value of the decision's entrypoint: `None` where it has none.
pub(super) fn decision<V: Readable>(
    value: Option<V>,
    revision: PolicyRevision,
    engine: Engine,
) -> Result<Decision, Indeterminate> {
    let fields = Fields::of_result(value, "decision")?;
    fields.only(&["effect", "reasons", "hold", "limit", "set", "redact"])?;
    let effect = fields.with_text("effect", |text| match text {
        Some("permit") => Some(Effect::Permit),
        Some("deny") => Some(Effect::Deny),
        _ => None,
    })?;
    let effect = effect.ok_or_else(|| {
        Indeterminate::malformed("decision: `effect` is neither \"permit\" nor \"deny\"")
    })?;
    let mut reasons = fields.each("reasons", |element| {
        element.only(if effect == Effect::Deny { DENIAL } else { PERMIT })?;
        let code = element.code()?;
        let not_applicable = effect == Effect::Deny && &*code == NOT_APPLICABLE;
        let origin = if not_applicable { Origin::NotApplicable } else { Origin::Rule };
        Ok(Reason { code, message: element.required("message")?, origin, tell: tell(element)? })
    })?;
    if effect == Effect::Deny {
        if reasons.is_empty() {
            let message = "no rule permits this".into();
            let origin = Origin::NotApplicable;
            reasons.push(Reason { code: NOT_APPLICABLE.into(), message, origin, tell: None });
        }
        // A denial has no duties, except that limits may count it.
        let obligations = fields.each("limit", limit)?;
        return Ok(Decision { effect, reasons, obligations, revision, engine });
    }
    if reasons.is_empty() {
        return Err(Indeterminate::malformed("decision: a permit needs at least one of `reasons`"));
    }
    let obligations = obligations(&fields)?;
    Ok(Decision { effect, reasons, obligations, revision, engine })
}

/// Reads the value of the listing's entrypoint.
pub(super) fn listing<V: Readable>(
    value: Option<V>,
    revision: PolicyRevision,
) -> Result<Listing, Indeterminate> {
    let fields = Fields::of_result(value, "listing")?;
    fields.only(&["hide"])?;
    if fields.member("hide").is_none() {
        return Err(Indeterminate::malformed("listing: `hide` is missing"));
    }
    let names = fields.strings("hide")?;
    Ok(Listing::Hide { names, revision })
}

/// The members of an element of `duty`; of `limit`, those with a rate.
pub(super) fn members(duty: &str) -> &'static [&'static str] {
    match duty {
        "hold" => HOLD,
        "limit" => LIMIT,
        "set" => SET,
        "redact" => REDACT,
        _ => &[],
    }
}

/// Why a permit with `element` in its `duty` would be no decision; `None` if it is one.
pub(super) fn element_problem(duty: &str, element: Value) -> Option<String> {
    let mut permit = Value::new_object();
    let members = permit.as_object_mut().ok()?;
    let mut reason = Value::new_object();
    reason.as_object_mut().ok()?.insert("message".into(), "x".into());
    members.insert("effect".into(), "permit".into());
    members.insert("reasons".into(), Value::from(vec![reason]));
    members.insert(duty.into(), Value::from(vec![element]));
    decision(Some(&permit), PolicyRevision::from(""), Engine::Strict).err().map(|it| it.message)
}

fn obligations<V: Readable>(fields: &Fields<V>) -> Result<Vec<Obligation>, Indeterminate> {
    let mut obligations = fields.each("hold", |element| {
        element.only(HOLD)?;
        Ok(Obligation::Hold(HoldRule {
            code: element.code()?,
            message: element.required("message")?,
            tell: tell(element)?,
            approvers: element.strings("approvers")?,
            ttl: element.with_text("ttl", |text| text.map(ttl).transpose())??,
            quorum: element.positive("quorum")?.unwrap_or(1),
            scopes: element.each("scopes", scope)?,
        }))
    })?;
    obligations.extend(fields.each("limit", limit)?);
    let sets = fields.each("set", set)?;
    let mut pointers: Vec<&str> = Vec::new();
    for set in &sets {
        let Obligation::Set { pointer, .. } = set else { continue };
        let clash = |other: &&str| is_at_or_below(other, pointer) || is_at_or_below(pointer, other);
        if pointers.iter().any(clash) {
            return Err(Indeterminate::malformed("decision: `set` sets one argument twice"));
        }
        pointers.push(pointer);
    }
    obligations.extend(sets);
    let redactions = fields.each("redact", redact)?;
    if redactions.len() > REDACTIONS_MAX {
        return Err(Indeterminate::malformed(format!(
            "decision: more than {REDACTIONS_MAX} of `redact`"
        )));
    }
    obligations.extend(redactions);
    Ok(obligations)
}

/// Reads what a rule tells the agent.
fn tell<V: Readable>(element: &Fields<V>) -> Result<Option<Tell>, Indeterminate> {
    let hidden = element.flag("tell_hidden")?;
    match element.text("tell")? {
        Some(text) => Ok(Some(Tell { text, hidden })),
        None if hidden => {
            Err(Indeterminate::malformed(format!("{}: `tell_hidden` without `tell`", element.name)))
        }
        None => Ok(None),
    }
}

/// Reads a wider grant that a hold offers.
fn scope<V: Readable>(element: &Fields<V>) -> Result<GrantScope, Indeterminate> {
    element.only(SCOPE)?;
    let missing = || Indeterminate::malformed("scopes: `lasts` is missing");
    Ok(GrantScope {
        code: element.required("code")?,
        lasts: element.with_text("lasts", |text| text.map(ttl))?.ok_or_else(missing)??,
        count: element
            .positive("count")?
            .ok_or_else(|| Indeterminate::malformed("scopes: `count` is missing"))?,
    })
}

fn limit<V: Readable>(element: &Fields<V>) -> Result<Obligation, Indeterminate> {
    let concurrent = element.member("concurrent").is_some();
    element.only(if concurrent { LIMIT_IN_FLIGHT } else { LIMIT })?;
    let bound = match element.whole("concurrent")? {
        Some(most) => Bound::InFlight(most),
        None => rate_bound(element)?,
    };
    let cost = element.whole("cost")?.unwrap_or(1);
    if cost == 0 {
        return Err(Indeterminate::malformed(
            "decision: `limit`: a `cost` of 0 would count nothing",
        ));
    }
    element.with_text("message", |_| ())?;
    let (code, key) = (element.code()?, element.required("key")?);
    Ok(Obligation::Limit(Limit { code, key, bound, cost }))
}

/// Reads the bound of a limit with a rate.
fn rate_bound<V: Readable>(element: &Fields<V>) -> Result<Bound, Indeterminate> {
    // Which decisions have this limit is the entrypoint's choice; here only the word is checked.
    let known = |counts: Option<&str>| matches!(counts, None | Some("permitted" | "all"));
    if !element.with_text("counts", known)? {
        return Err(Indeterminate::malformed(
            "decision: `limit`: `counts` is neither \"permitted\" nor \"all\"",
        ));
    }
    let missing = || Indeterminate::malformed("limit: `rate` is missing");
    let rate = element.with_text("rate", |text| text.map(rate))?.ok_or_else(missing)??;
    let burst = element.whole("burst")?;
    element.with_text("window", |window| match (window, burst) {
        (None, Some(burst)) => Ok(Bound::Bucket { rate, burst }),
        (None | Some("sliding"), None) => Ok(Bound::Sliding(rate)),
        (Some("fixed"), None) => Ok(Bound::Fixed(rate)),
        (Some("sliding" | "fixed"), Some(_)) => Err(Indeterminate::malformed(
            "decision: `limit`: a `window` has no `burst`; the count of `rate` is all that may pass",
        )),
        (Some(_), _) => Err(Indeterminate::malformed(
            "decision: `limit`: `window` is neither \"sliding\" nor \"fixed\"",
        )),
    })?
}

fn set<V: Readable>(element: &Fields<V>) -> Result<Obligation, Indeterminate> {
    element.only(SET)?;
    element.with_text("code", |_| ())?;
    element.with_text("message", |_| ())?;
    let pointer = element.required("pointer")?;
    let escapes_ok = pointer.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !pointer.starts_with('/') || !escapes_ok {
        return Err(Indeterminate::malformed("decision: `set`: `pointer` is not a JSON pointer"));
    }
    let value = element.member("value").and_then(|value| value.json());
    let value =
        value.ok_or_else(|| Indeterminate::malformed("decision: `set`: `value` is not JSON"))?;
    Ok(Obligation::Set { pointer, value })
}

fn redact<V: Readable>(element: &Fields<V>) -> Result<Obligation, Indeterminate> {
    element.only(REDACT)?;
    element.with_text("message", |_| ())?;
    let redaction = match (element.text("pointer")?, element.text("what")?.as_deref()) {
        (Some(pointer), None) => Redaction::pointer(&pointer).ok_or_else(|| {
            Indeterminate::malformed(
                "decision: `redact`: `pointer` is no JSON pointer below `/result` or `/error`",
            )
        })?,
        (None, Some("secrets")) => Redaction::Secrets,
        _ => {
            let message = "decision: `redact` needs a `pointer`, or `what` as \"secrets\"";
            return Err(Indeterminate::malformed(message));
        }
    };
    Ok(Obligation::Redact { code: element.code()?, redaction })
}

/// Whether JSON can represent a value: no sets, no infinite numbers, and only strings as names.
fn is_json(value: &Value) -> bool {
    let mut todo = vec![value];
    while let Some(value) = todo.pop() {
        match value {
            Value::Null | Value::Bool(_) | Value::String(_) => {}
            Value::Number(number) if number.as_f64().is_some_and(f64::is_finite) => {}
            Value::Array(items) => todo.extend(items.iter()),
            Value::Object(members) => {
                for (name, member) in members.iter() {
                    todo.push(member);
                    if !matches!(name, Value::String(_)) {
                        return false;
                    }
                }
            }
            Value::Number(_) | Value::Set(_) | Value::Undefined => return false,
        }
    }
    true
}

/// Reads a rate such as `10/m` or `10/15m`.
fn rate(text: &str) -> Result<Rate, Indeterminate> {
    Rate::parse(text).ok_or_else(|| {
        Indeterminate::malformed("decision: `limit`: `rate` is not a rate like `10/m`")
    })
}

/// Reads how long a hold waits or a wider grant lasts, such as `15m`.
fn ttl(text: &str) -> Result<Duration, Indeterminate> {
    span(text).filter(|time| *time <= TTL_MAX).ok_or_else(|| {
        Indeterminate::malformed("decision: `hold`: not a time like `15m`, of 30 days at most")
    })
}

/// An object in a result, and its name in messages.
struct Fields<V> {
    object: V,
    name: &'static str,
}

impl<V: Readable> Fields<V> {
    fn of_result(value: Option<V>, name: &'static str) -> Result<Self, Indeterminate> {
        let undefined = || Indeterminate::malformed(format!("{name}: undefined"));
        Self::of(value.ok_or_else(undefined)?, name)
    }

    fn of(value: V, name: &'static str) -> Result<Self, Indeterminate> {
        if value.is_object() {
            Ok(Self { object: value, name })
        } else {
            Err(Indeterminate::malformed(format!("{name}: not an object")))
        }
    }

    fn member(&self, name: &str) -> Option<V> {
        self.object.member(name)
    }

    fn only(&self, names: &[&str]) -> Result<(), Indeterminate> {
        if self.object.all_names(&|name| name.is_some_and(|name| names.contains(&name))) {
            return Ok(());
        }
        // The name itself can come from the input.
        Err(Indeterminate::malformed(format!("{}: unknown member", self.name)))
    }

    /// Calls `read` with the text of a member.
    fn with_text<T>(
        &self,
        name: &str,
        read: impl FnOnce(Option<&str>) -> T,
    ) -> Result<T, Indeterminate> {
        let Some(member) = self.member(name) else { return Ok(read(None)) };
        match member.text() {
            Some(text) if text.len() <= TEXT_BYTES_MAX => Ok(read(Some(text))),
            Some(_) => {
                Err(Indeterminate::malformed(format!("{}: `{name}` is too long", self.name)))
            }
            None => {
                Err(Indeterminate::malformed(format!("{}: `{name}` is not a string", self.name)))
            }
        }
    }

    fn text(&self, name: &str) -> Result<Option<Box<str>>, Indeterminate> {
        self.with_text(name, |text| text.map(Box::from))
    }

    /// A member that is `true` or `false`; absent for `false`.
    fn flag(&self, name: &str) -> Result<bool, Indeterminate> {
        let Some(member) = self.member(name) else { return Ok(false) };
        member.truth().ok_or_else(|| {
            let name = format!("{}: `{name}` is neither true nor false", self.name);
            Indeterminate::malformed(name)
        })
    }

    /// A member that is a whole number below 2^32.
    fn whole(&self, name: &str) -> Result<Option<u32>, Indeterminate> {
        let Some(member) = self.member(name) else { return Ok(None) };
        member.whole().map(Some).ok_or_else(|| {
            let name = format!("{}: `{name}` is not a whole number below 2^32", self.name);
            Indeterminate::malformed(name)
        })
    }

    fn required(&self, name: &str) -> Result<Box<str>, Indeterminate> {
        self.text(name)?
            .ok_or_else(|| Indeterminate::malformed(format!("{}: `{name}` is missing", self.name)))
    }

    /// The whole number of a member, at least 1.
    fn positive(&self, name: &str) -> Result<Option<u32>, Indeterminate> {
        let Some(member) = self.member(name) else { return Ok(None) };
        member.whole().filter(|number| *number > 0).map(Some).ok_or_else(|| {
            let message =
                format!("{}: `{name}` is not a whole number from 1 to 2^32 - 1", self.name);
            Indeterminate::malformed(message)
        })
    }

    fn code(&self) -> Result<Box<str>, Indeterminate> {
        self.with_text("code", |code| code.unwrap_or(UNNAMED).into())
    }

    /// Calls `read` with each item of an array or a set.
    fn items<T>(
        &self,
        name: &str,
        read: impl Fn(V) -> Result<T, Indeterminate>,
    ) -> Result<Vec<T>, Indeterminate> {
        let Some(items) = self.member(name) else { return Ok(Vec::new()) };
        let Some(count) = items.count() else {
            let message = format!("{}: `{name}` is neither an array nor a set", self.name);
            return Err(Indeterminate::malformed(message));
        };
        if count > ELEMENTS_MAX && name != "hide" {
            return Err(Indeterminate::malformed(format!("{}: `{name}` is too long", self.name)));
        }
        let mut found = Vec::with_capacity(count);
        items.each_item(&mut |item| {
            found.push(read(item)?);
            Ok(())
        })?;
        Ok(found)
    }

    fn each<T>(
        &self,
        name: &'static str,
        read: impl Fn(&Self) -> Result<T, Indeterminate>,
    ) -> Result<Vec<T>, Indeterminate> {
        self.items(name, |item| read(&Self::of(item, name)?))
    }

    fn strings(&self, name: &str) -> Result<Vec<Box<str>>, Indeterminate> {
        self.items(name, |item| match item.text() {
            Some(text) => Ok(text.into()),
            None => Err(Indeterminate::malformed(format!(
                "{}: `{name}` holds a value that is no string",
                self.name
            ))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Decision, Indeterminate> {
        decision(Some(&Value::from_json_str(json).unwrap()), "r".into(), Engine::Strict)
    }

    fn obliged(member: &str) -> Result<Vec<Obligation>, Indeterminate> {
        let json = format!(r#"{{"effect": "permit", "reasons": [{{"message": "m"}}], {member}}}"#);
        read(&json).map(|decision| decision.obligations)
    }

    #[test]
    fn a_denial_has_reasons_and_no_duties() {
        let denial = read(
            r#"{"effect": "deny", "reasons": [{"code": "c", "message": "m"}, {"message": "n"}],
                "set": [{"pointer": "/a", "value": 1}]}"#,
        )
        .unwrap();
        assert_eq!(denial.effect, Effect::Deny);
        assert_eq!(denial.obligations, []);
        let codes: Vec<&str> = denial.reasons.iter().map(|reason| &*reason.code).collect();
        assert_eq!(codes, ["c", "unnamed"]);
        assert_eq!(denial.reasons[0].origin, Origin::Rule);
        let silent = read(r#"{"effect": "deny"}"#).unwrap();
        assert_eq!(silent.reasons[0].origin, Origin::NotApplicable);
    }

    #[test]
    fn duties_of_a_permit_are_read() {
        let minute = Duration::from_mins(1);
        let limit = |bound, cost| {
            let (code, key) = ("c".into(), "k".into());
            Ok(vec![Obligation::Limit(Limit { code, key, bound, cost })])
        };
        let limited =
            |rest: &str| obliged(&format!(r#""limit": [{{"code": "c", "key": "k", {rest}}}]"#));
        let rate = |count, period| Rate { count, period };
        let bucket = |rate, burst| Bound::Bucket { rate, burst };
        let ten = rate(10, minute);
        for (rest, bound, cost) in [
            (r#""rate": "10/m""#, Bound::Sliding(ten), 1),
            (r#""rate": "10/m", "window": "sliding""#, Bound::Sliding(ten), 1),
            (r#""rate": "10/m", "window": "fixed""#, Bound::Fixed(ten), 1),
            (r#""rate": "10/15m", "burst": 3"#, bucket(rate(10, minute * 15), 3), 1),
            (r#""rate": "10/m", "burst": 3, "cost": 4"#, bucket(ten, 3), 4),
            (r#""rate": "10/m", "cost": 1"#, Bound::Sliding(ten), 1),
            (r#""rate": "2/d""#, Bound::Sliding(rate(2, minute * 1440)), 1),
            // Zero permits nothing, in each form.
            (r#""rate": "0/m""#, Bound::Sliding(rate(0, minute)), 1),
            (r#""rate": "0/m", "burst": 5"#, bucket(rate(0, minute), 5), 1),
            (r#""rate": "1/m", "burst": 0"#, bucket(rate(1, minute), 0), 1),
            (r#""rate": "0/m", "window": "fixed""#, Bound::Fixed(rate(0, minute)), 1),
            (r#""concurrent": 3"#, Bound::InFlight(3), 1),
            (r#""concurrent": 0"#, Bound::InFlight(0), 1),
        ] {
            assert_eq!(limited(rest), limit(bound, cost), "{rest}");
        }
        assert_eq!(
            obliged(r#""hold": [{"message": "m", "approvers": ["a"], "ttl": "2h"}]"#),
            Ok(vec![Obligation::Hold(HoldRule {
                code: "unnamed".into(),
                message: "m".into(),
                tell: None,
                approvers: vec!["a".into()],
                ttl: Some(minute * 120),
                quorum: 1,
                scopes: Vec::new(),
            })])
        );
        let wider = r#""scopes": [{"code": "hour", "lasts": "1h", "count": 5}]"#;
        assert_eq!(
            obliged(&format!(r#""hold": [{{"message": "m", "quorum": 2, {wider}}}]"#)),
            Ok(vec![Obligation::Hold(HoldRule {
                code: "unnamed".into(),
                message: "m".into(),
                tell: None,
                approvers: Vec::new(),
                ttl: None,
                quorum: 2,
                scopes: vec![GrantScope { code: "hour".into(), lasts: minute * 60, count: 5 }],
            })])
        );
        let redact = |redaction| Obligation::Redact { code: "unnamed".into(), redaction };
        assert_eq!(
            obliged(r#""redact": [{"what": "secrets"}, {"pointer": "/result/a~1b/*"}]"#),
            Ok(vec![
                redact(Redaction::Secrets),
                redact(Redaction::Pointer("/result/a~1b/*".into())),
            ])
        );
        assert_eq!(
            obliged(r#""set": [{"pointer": "/a~1b", "value": {"x": [1, null]}}]"#),
            Ok(vec![Obligation::Set {
                pointer: "/a~1b".into(),
                value: r#"{"x":[1,null]}"#.into()
            }])
        );
    }

    #[test]
    fn any_other_form_is_indeterminate() {
        for json in [
            "null",
            "true",
            "\"permit\"",
            "[]",
            "{}",
            r#"{"effect": true}"#,
            r#"{"effect": "allow"}"#,
            r#"{"effect": "permit"}"#,
            r#"{"effect": "permit", "reasons": []}"#,
            r#"{"effect": "permit", "reasons": {}}"#,
            r#"{"effect": "permit", "reasons": ["m"]}"#,
            r#"{"effect": "permit", "reasons": [{"code": "c"}]}"#,
            r#"{"effect": "permit", "reasons": [{"message": 1}]}"#,
            r#"{"effect": "permit", "reasons": [{"message": "m", "severity": 1}]}"#,
            r#"{"effect": "permit", "reasons": [{"message": "m"}], "warn": []}"#,
            r#"{"effect": "permit", "reasons": [{"message": "m", "tell": "t"}]}"#,
            r#"{"effect": "deny", "reasons": [{"message": "m", "tell": 1}]}"#,
            r#"{"effect": "deny", "reasons": [{"message": "m", "tell": "t", "tell_hidden": "yes"}]}"#,
            r#"{"effect": "deny", "reasons": [{"message": "m", "tell_hidden": true}]}"#,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
        for member in [
            r#""redact": 1"#,
            r#""redact": [{"pointer": "/a"}]"#,
            r#""redact": [{"pointer": "/result/a~2"}]"#,
            r#""redact": [{"what": "names"}]"#,
            r#""redact": [{"what": "secrets", "pointer": "/result/a"}]"#,
            r#""redact": [{"code": "c"}]"#,
            r#""hold": [{}]"#,
            r#""hold": [{"message": "m", "tell": ["t"]}]"#,
            r#""hold": [{"message": "m", "tell": "t", "tell_hidden": true}]"#,
            r#""hold": [{"message": "m", "ttl": "soon"}]"#,
            r#""hold": [{"message": "m", "ttl": "0s"}]"#,
            r#""hold": [{"message": "m", "approvers": [1]}]"#,
            r#""hold": [{"message": "m", "ttl": "31d"}]"#,
            r#""hold": [{"message": "m", "quorum": 0}]"#,
            r#""hold": [{"message": "m", "quorum": 1.5}]"#,
            r#""hold": [{"message": "m", "quorum": "2"}]"#,
            r#""hold": [{"message": "m", "scopes": [{"code": "c", "lasts": "1h"}]}]"#,
            r#""hold": [{"message": "m", "scopes": [{"code": "c", "count": 1}]}]"#,
            r#""hold": [{"message": "m", "scopes": [{"lasts": "1h", "count": 1}]}]"#,
            r#""hold": [{"message": "m", "scopes": [{"code": "c", "lasts": "1h", "count": 0}]}]"#,
            r#""hold": [{"message": "m", "scopes": [{"code": "c", "lasts": "90d", "count": 1}]}]"#,
            r#""hold": [{"message": "m", "scopes": ["c"]}]"#,
            r#""limit": [{"key": "k"}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "counts": "none"}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "counts": true}]"#,
            r#""limit": [{"rate": "1/m"}]"#,
            r#""limit": [{"key": 1, "rate": "1/m"}]"#,
            r#""limit": [{"key": "k", "rate": "1"}]"#,
            r#""limit": [{"key": "k", "rate": "-1/m"}]"#,
            r#""limit": [{"key": "k", "rate": "+1/m"}]"#,
            r#""limit": [{"key": "k", "rate": "1/0m"}]"#,
            r#""limit": [{"key": "k", "rate": "1/week"}]"#,
            r#""limit": [{"key": "k", "rate": "99999999999/m"}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "burst": -1}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "burst": 1.5}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "burst": 4294967296}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "window": "rolling"}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "window": true}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "window": "fixed", "burst": 1}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "window": "sliding", "burst": 1}]"#,
            r#""limit": [{"key": "k", "window": "fixed"}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "cost": 0}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "cost": -1}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "cost": 0.5}]"#,
            r#""limit": [{"key": "k", "rate": "1/m", "cost": "2"}]"#,
            r#""limit": [{"concurrent": 1}]"#,
            r#""limit": [{"key": "k", "concurrent": -1}]"#,
            r#""limit": [{"key": "k", "concurrent": 1.5}]"#,
            r#""limit": [{"key": "k", "concurrent": null}]"#,
            r#""limit": [{"key": "k", "concurrent": "1"}]"#,
            r#""limit": [{"key": "k", "concurrent": 1, "rate": "1/m"}]"#,
            r#""limit": [{"key": "k", "concurrent": 1, "burst": 1}]"#,
            r#""limit": [{"key": "k", "concurrent": 1, "cost": 1}]"#,
            r#""limit": [{"key": "k", "concurrent": 1, "window": "fixed"}]"#,
            r#""limit": [{"key": "k", "concurrent": 1, "counts": "all"}]"#,
            r#""set": [{"pointer": "a", "value": 1}]"#,
            r#""set": [{"pointer": "/a~2", "value": 1}]"#,
            r#""set": [{"pointer": "", "value": 1}]"#,
            r#""set": [{"pointer": "/a"}]"#,
            r#""set": [{"pointer": "/a", "value": 1}, {"pointer": "/a", "value": 2}]"#,
            r#""set": [{"pointer": "/a", "value": 1}, {"pointer": "/a/b", "value": 2}]"#,
        ] {
            assert!(obliged(member).is_err(), "{member}");
        }
        let listing_of =
            |json: &str| listing(Some(&Value::from_json_str(json).unwrap()), "r".into());
        for json in
            ["null", "{}", r#"{"hide": "a"}"#, r#"{"hide": [1]}"#, r#"{"hide": [], "x": 1}"#]
        {
            assert!(listing_of(json).is_err(), "{json}");
        }
        assert!(listing_of(r#"{"hide": ["a"]}"#).is_ok());
        assert!(listing::<&Value>(None, "r".into()).is_err());
    }
}
