//! Holds and people for tests.

use std::time::Duration;

use bartizan_gate::duty::hold::{GrantScope, Hold, HoldKey};

use crate::ledger::Approver;

/// A call of `p` that lasts a minute, with this number in its arguments.
pub(crate) fn call(number: u64) -> Hold {
    let shown = format!(r#"{{"name":"write","arguments":{{"n":{number}}}}}"#);
    Hold {
        key: HoldKey([0; 32]),
        call: "call".into(),
        principal: "p".into(),
        server: "flags".into(),
        method: "tools/call".into(),
        target: Some("write".into()),
        effect: "write".into(),
        tags: vec!["flag".into()],
        environments: vec!["production".into()],
        facts: [("project".into(), "7".into())].into(),
        shown: shown.into_bytes().into(),
        definition: Some("d1".into()),
        revision: "r1".into(),
        code: "ask".into(),
        message: "A person must look.".into(),
        approvers: Vec::new(),
        quorum: 1,
        ttl: Duration::from_mins(1),
        client: Some("agent".into()),
        scopes: vec![GrantScope { code: "more".into(), lasts: Duration::from_secs(30), count: 3 }],
        also: Vec::new(),
    }
    .keyed()
}

/// An approver of the group `ops`.
pub(crate) fn ann() -> Approver {
    person("ann")
}

/// An approver of the group `ops` with this name.
pub(crate) fn person(name: &str) -> Approver {
    Approver { id: name.into(), groups: vec!["ops".into()] }
}
