//! Lists the tools of servers that have a lock, so that no definition is unverified for long.
//!
//! At the start, after the server says that its tools have changed, when it calls itself by another
//! name or version, when a session of it begins, when it could not be reached, and from time to
//! time. The list goes the way of every call, with the configured transport, credential and limits,
//! through a gate of its own that permits it and keeps its records in the same journal; what that
//! gate parsed becomes what counts as seen for every principal. Calls wait for a listing that is
//! under way. Where agents' own tokens reach the server, we have none to list it with, and each
//! agent must list it itself.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::background::keep_running;
use super::edges::{Launching, stdio_limits, upstream};
use crate::config::{Config, OAuthMode, ServerConfig, Upstream};
use crate::lock::client::list_all;
use bartizan_edge::Shared;
use bartizan_edge::client::{Serving, StdioUpstream, serve_pipes};
use bartizan_gate::catalog::drift::DefinitionLock;
use bartizan_gate::duty::decision::{
    Decision, Effect, Engine, Listing, Origin, PolicyRevision, Reason,
};
use bartizan_gate::duty::pdp::{ListEntry, Pdp};
use bartizan_gate::question::access::{AccessRequest, Principal};
use bartizan_gate::session::{Gate, GateConfig, Mode, Protected};
use bartizan_gate::wire::protocol::Direction;

/// The principal of our own listings in records.
const PRINCIPAL: &str = "bartizan";
/// Time limit for one listing, all pages.
const LISTING_MAX: Duration = Duration::from_secs(30);
/// Pause between two listings at least.
const PAUSE: Duration = Duration::from_millis(100);
/// First and longest pause after a listing that failed; it doubles in between.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_mins(1);
/// Time after which a server is listed again though nothing has happened.
const INTERVAL: Duration = Duration::from_mins(1);
/// Bytes in flight between the lister and its gate.
const PIPE_BYTES: usize = 64 << 10;

/// Keeps `server` listed until shutdown, if it has a lock and we can list it.
pub(super) fn keep_listed(
    config: &Arc<Config>,
    index: usize,
    launching: &Launching,
    shared: &Shared,
    server: &Arc<Protected>,
) {
    let Some(described) = config.servers.get(index) else { return };
    let oauth = described.oauth.as_ref();
    let forwards = oauth.is_some_and(|it| matches!(it.mode, OAuthMode::Forward { .. }))
        || matches!(&described.upstream, Upstream::Http(http) if http.forward_authorization);
    if forwards || !matches!(server.lock, DefinitionLock::Locked(_)) {
        return;
    }
    server.attach_lister();
    let lister = Arc::new(Lister {
        config: Arc::clone(config),
        index,
        launching: launching.clone(),
        shared: shared.clone(),
        server: Arc::clone(server),
    });
    keep_running(shared, "listing of a locked server", move || {
        let lister = Arc::clone(&lister);
        async move { match lister.run().await {} }
    });
}

struct Lister {
    config: Arc<Config>,
    index: usize,
    launching: Launching,
    shared: Shared,
    server: Arc<Protected>,
}

impl Lister {
    async fn run(&self) -> std::convert::Infallible {
        let mut retry = RETRY_MIN;
        let mut wait = INTERVAL;
        loop {
            let wanted = poll_fn(|cx| self.server.poll_listing(cx));
            let Ok(epoch) = timeout(wait, wanted).await else {
                self.server.advise_listing();
                continue;
            };
            let listed = match timeout(LISTING_MAX, Box::pin(self.list())).await {
                Ok(listed) => listed,
                Err(_elapsed) => Err("did not list its tools in time".to_owned()),
            };
            let found = listed.as_ref().ok();
            self.server.listed(epoch, found, self.shared.gate.memory(), self.shared.now());
            if let Err(what) = listed {
                let server = &self.server.facts.name;
                tracing::warn!(%server, what, "the tools of a locked server cannot be verified");
                wait = retry;
                retry = retry.saturating_mul(2).min(RETRY_MAX);
            } else {
                (retry, wait) = (RETRY_MIN, INTERVAL);
            }
            sleep(PAUSE).await;
        }
    }

    /// Lists the server; what was parsed is in the value.
    async fn list(&self) -> Result<Protected, String> {
        let scratch = Arc::new(Protected::new(self.server.facts.clone(), self.server.refusal));
        let tasks = TaskTracker::new();
        let shared = Shared {
            gate: Arc::new(self.gate()?),
            tasks: tasks.clone(),
            closing: self.shared.closing.child_token(),
            ..self.shared.clone()
        };
        let _stop = shared.closing.clone().drop_guard();
        let described = self.config.servers.get(self.index).ok_or("is not configured")?;
        let way = self.way(described, &shared, &scratch)?;
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (input, output) = tokio::io::split(theirs);
        let serving = Serving {
            shared: shared.clone(),
            server: Arc::clone(&scratch),
            principal: Arc::new(Principal { id: PRINCIPAL.into(), ..Principal::default() }),
            upstream: StdioUpstream::Http(Arc::new(way)),
            limits: stdio_limits(&self.config),
        };
        let listing = list_all(tokio::io::split(ours));
        let (listed, _ended) = tokio::join!(listing, serve_pipes(serving, input, output));
        listed?;
        shared.closing.cancel();
        tasks.close();
        tasks.wait().await;
        Arc::into_inner(scratch).ok_or_else(|| "is still being listed".to_owned())
    }

    fn way(
        &self,
        described: &ServerConfig,
        shared: &Shared,
        scratch: &Arc<Protected>,
    ) -> Result<bartizan_edge::upstream::Upstream, String> {
        upstream(&self.config, described, &self.launching, shared, scratch)
            .map_err(|error| error.to_string())
    }

    /// A gate that lets the lister list, and the server ask nothing.
    fn gate(&self) -> Result<Gate, String> {
        let mut random = [0_u8; 40];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let (boot, key) = random.split_at(8);
        let config = GateConfig {
            mode: Mode::Enforce,
            frame: *self.shared.gate.frame_limits(),
            in_flight_max: self.config.limits.in_flight,
            buckets_max: 1,
            boot: bartizan_gate::wire::hex::hex(boot).into(),
            digest_key: key.try_into().map_err(|_| "no key")?,
        };
        Ok(Gate::new(config, Arc::new(ListsAlone)))
    }
}

/// Permits what goes to the server: our own client sends nothing but what a list needs.
#[derive(Debug)]
struct ListsAlone;

impl Pdp for ListsAlone {
    fn decide(&self, request: &AccessRequest<'_>) -> Decision {
        let own = request.direction == Direction::ToServer;
        let message = if own { "lists the tools of a locked server" } else { "asks the lister" };
        let reason = Reason {
            code: "lock".into(),
            message: message.into(),
            origin: Origin::Protocol,
            tell: None,
        };
        if !own {
            return Decision::deny(self.revision(), Engine::None, reason);
        }
        Decision {
            effect: Effect::Permit,
            reasons: vec![reason],
            obligations: Vec::new(),
            revision: self.revision(),
            engine: Engine::None,
        }
    }

    fn list(&self, _: &AccessRequest<'_>, _: &[ListEntry<'_>]) -> Listing {
        Listing::Hide { names: Vec::new(), revision: self.revision() }
    }

    fn revision(&self) -> PolicyRevision {
        "lock".into()
    }
}
