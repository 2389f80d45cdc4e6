//! What records say of the client of a conversation: its name there, who it is, where it comes
//! from, and what it calls itself.

use core::net::IpAddr;
use std::sync::Arc;

use crate::evidence::record::{AuditRecord, ClientFacts, Event, IdentityFacts};
use crate::evidence::text::{Code, Text};
use crate::question::access::{Client, Principal};

/// A connection of a client, as records name it. Made by [`Gate::peer`](super::Gate::peer).
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) address: Option<Text<Code>>,
    /// Names the conversation of messages that belong to no session.
    pub(super) conversation: Text<Code>,
}

impl Peer {
    pub(super) fn new(address: Option<IpAddr>, conversation: Text<Code>) -> Self {
        Self { address: address.map(|address| address.to_string().into()), conversation }
    }
}

/// The facts of one conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Sender {
    conversation: Option<Text<Code>>,
    identity: Option<Arc<IdentityFacts>>,
    client: Option<Arc<ClientFacts>>,
    address: Option<Text<Code>>,
}

impl Sender {
    pub(super) fn of(principal: &Principal) -> Self {
        Self { identity: IdentityFacts::of(principal), ..Self::default() }
    }

    /// A message arrives from `peer`. Its connection names the conversation if nothing does yet.
    pub(super) fn arrives_from(&mut self, peer: &Peer) {
        self.address.clone_from(&peer.address);
        self.conversation.get_or_insert_with(|| peer.conversation.clone());
    }

    /// Names the conversation if nothing does yet.
    pub(super) fn named(&mut self, name: impl FnOnce() -> Text<Code>) {
        self.conversation.get_or_insert_with(name);
    }

    /// A new conversation begins, with a handshake.
    pub(super) fn begins(&mut self, name: Text<Code>) {
        self.conversation = Some(name);
    }

    /// The client calls itself so.
    pub(super) fn calls_itself(&mut self, client: &Client) {
        let (name, version) = ((&*client.name).into(), (&*client.version).into());
        self.client = Some(Arc::new(ClientFacts { name, version }));
    }

    /// Adds the facts to `record`. An outcome has the call of its intent, which has the others.
    pub(super) fn describe(&self, record: &mut AuditRecord) {
        record.session.clone_from(&self.conversation);
        if record.event != Event::Outcome {
            record.identity.clone_from(&self.identity);
            record.client.clone_from(&self.client);
            record.peer.clone_from(&self.address);
        }
    }
}
