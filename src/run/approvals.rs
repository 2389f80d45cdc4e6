//! The held calls of a run: opens their store, and says who may answer.

use std::sync::Arc;

use super::StartError;
use super::background::keep_running;
use super::replicas::Replicas;
use super::webhooks::Webhooks;
use crate::config::{ApprovalsConfig, ApproverConfig, Config};
use bartizan_approvals::store::Store;
use bartizan_approvals::store::embedded::FILE_NAME;
use bartizan_approvals::{ApprovalLimits, Approvals, Approver, EmbeddedStore, OpenError};
use bartizan_edge::Shared;
use bartizan_edge::admin::api::ApprovalsApi;
use bartizan_edge::admin::approvers::Approvers;
use bartizan_edge::admin::overview::Overview;
use bartizan_edge::clock::Clock;
use bartizan_edge::held::Holding;

/// Opens the held calls in the state directory, or in the store that replicas share; `None` if nobody
/// may answer, so that a `hold` rule refuses.
///
/// # Errors
///
/// The store cannot be opened.
pub(super) fn open(
    config: &Config,
    replicas: Option<&Replicas>,
    clock: Clock,
) -> Result<Option<Holding>, StartError> {
    if config.approvals.approvers.is_empty() {
        return Ok(None);
    }
    let failed = |error: OpenError| {
        StartError::new("approvals", error.to_string())
            .hint("held calls are kept in the directory that `state` names")
    };
    let store: Box<dyn Store> = match replicas {
        Some(replicas) => Box::new(replicas.holds()),
        None => Box::new(EmbeddedStore::open(&config.state.join(FILE_NAME)).map_err(failed)?),
    };
    let limits = limits(&config.approvals);
    let approvals = Approvals::open(store, limits, Box::new(move || clock.now()));
    let approvals = Arc::new(approvals.map_err(failed)?);
    let ApprovalsConfig { wait, progress, public_url, elicit, .. } = &config.approvals;
    let page = public_url.as_ref().filter(|_| *elicit);
    let page = page.map(|url| format!("{url}/console#hold=").into());
    Ok(Some(Holding { approvals, wait: *wait, progress: *progress, page }))
}

/// The bounds that the configuration sets, and the usual ones.
fn limits(config: &ApprovalsConfig) -> ApprovalLimits {
    let usual = ApprovalLimits::default();
    ApprovalLimits {
        holds: config.holds,
        holds_per_principal: config.holds_principal,
        holds_per_server: config.holds,
        bytes: config.bytes,
        bytes_per_hold: usual.bytes_per_hold.min(config.bytes),
        bytes_per_principal: usual.bytes_per_principal.min(config.bytes),
        ..usual
    }
}

/// What approvers reach, `overview` included; `None` if nobody may answer. From now on it is written
/// down in time which holds are over, and webhooks are told.
///
/// # Errors
///
/// A webhook cannot be used.
pub(super) fn answering(
    config: &Config,
    shared: &Shared,
    overview: Overview,
) -> Result<Option<ApprovalsApi>, StartError> {
    let Some(Holding { approvals, .. }) = &shared.holding else { return Ok(None) };
    let webhooks = Webhooks::open(config)?;
    let tended = Arc::clone(approvals);
    keep_running(shared, "held calls", move || Arc::clone(&tended).tend());
    let known = config.approvals.approvers.iter().map(|approver| {
        let ApproverConfig { id, groups, token } = approver;
        (Approver { id: id.clone(), groups: groups.clone() }, token.clone())
    });
    let api = ApprovalsApi::new(Arc::clone(approvals), Approvers::new(known), shared.clone());
    let api = api.with_overview(overview);
    let links = webhooks.links.clone();
    webhooks.start(approvals, shared);
    Ok(Some(match links {
        Some(links) => api.with_links(links),
        None => api,
    }))
}
