//! `principal`: who the clients of this instance are.

use super::form::{Form, list, text, texts_by_name};
use super::problem::wrong;
use super::section::Section;
use bartizan_gate::question::access::Principal;

/// Length of a principal's id, bytes: it is in every record and names buckets.
const PRINCIPAL_BYTES_MAX: usize = 256;

pub(super) fn read(s: &mut Section<'_>) -> Principal {
    let agent = || "agent".into();
    Principal {
        id: s
            .key("id", name(), "Its name in rules, limits and records. At most 256 bytes.")
            .or(agent()),
        kind: s.key("kind", name(), "What it is, such as `agent`, `user`, `service`.").or(agent()),
        groups: s
            .key("groups", list(name()), "Groups, for rules.")
            .optional("none")
            .unwrap_or_default(),
        claims: s
            .key("claims", texts_by_name(), "Names and texts, for rules.")
            .optional("none")
            .unwrap_or_default(),
    }
}

fn name<'f>() -> Form<'f, Box<str>> {
    text()
        .try_map(|text, _| {
            if text.len() > PRINCIPAL_BYTES_MAX || text.contains(char::is_control) {
                let what = format!("longer than {PRINCIPAL_BYTES_MAX} bytes, or not printable");
                return wrong(what, "use a short name");
            }
            Ok(text.into())
        })
        .shown(Box::<str>::to_string)
}
