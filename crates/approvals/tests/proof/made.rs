//! Holds as the gate makes them.

use std::time::Duration;

use bartizan_gate::duty::hold::{GrantScope, Hold, HoldKey};

/// What differs between holds.
pub(crate) struct Parts {
    pub(crate) principal: String,
    pub(crate) target: String,
    pub(crate) environment: String,
    pub(crate) shown: String,
    pub(crate) revision: String,
    pub(crate) approvers: Vec<Box<str>>,
    pub(crate) quorum: u32,
    pub(crate) ttl: Duration,
    pub(crate) scopes: Vec<GrantScope>,
}

pub(crate) fn hold(parts: Parts) -> Hold {
    Hold {
        key: HoldKey([0; 32]),
        call: "call".into(),
        principal: parts.principal.into(),
        server: "flags".into(),
        method: "tools/call".into(),
        target: Some(parts.target.into()),
        effect: "write".into(),
        tags: Vec::new(),
        environments: vec![parts.environment.into()],
        facts: std::collections::BTreeMap::new(),
        shown: parts.shown.into_bytes().into(),
        definition: None,
        revision: parts.revision.into(),
        code: "ask".into(),
        message: "A person must look.".into(),
        approvers: parts.approvers,
        quorum: parts.quorum,
        ttl: parts.ttl,
        client: None,
        scopes: parts.scopes,
        also: Vec::new(),
    }
    .keyed()
}
