//! The held calls of a run: opens their store, and says who may answer.

use std::sync::Arc;

use super::StartError;
use super::background::keep_running;
use super::replicas::{Replicas, tell_losses};
use super::webhooks::Webhooks;
use crate::config::{ApprovalsConfig, ApproverConfig, Config, read_pem};
use bartizan_approvals::store::Store;
use bartizan_approvals::store::embedded::FILE_NAME;
use bartizan_approvals::{ApprovalLimits, Approvals, Approver, EmbeddedStore, OpenError};
use bartizan_edge::Shared;
use bartizan_edge::admin::api::ApprovalsApi;
use bartizan_edge::admin::approvers::Approvers;
use bartizan_edge::admin::overview::Overview;
use bartizan_edge::admin::record;
use bartizan_edge::admin::sign_in::{ClientConfig, People, SignIn, SignInConfig};
use bartizan_edge::clock::Clock;
use bartizan_edge::held::Holding;
use bartizan_edge::oauth::PublicUrl;

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
    if !config.approvals.has_approvers() {
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
    let ApprovalsConfig { wait, progress, public_url, elicit, tasks, .. } = &config.approvals;
    let page = public_url.as_ref().filter(|_| *elicit);
    let page = page.map(|url| format!("{url}/console#hold=").into());
    let (wait, progress, tasks) = (*wait, *progress, *tasks);
    Ok(Some(Holding { approvals, wait, progress, page, tasks }))
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

/// What approvers reach, `overview` included; `None` if nobody may answer. From now on the gate finds
/// tasks, it is written down in time which holds are over, the journal has what becomes of each, and
/// webhooks are told.
///
/// # Errors
///
/// A webhook, or what is configured for signing in, cannot be used. Whether the issuer answers does not
/// matter yet.
pub(super) fn answering(
    config: &Config,
    shared: &Shared,
    overview: Overview,
) -> Result<Option<ApprovalsApi>, StartError> {
    let Some(holding) = &shared.holding else { return Ok(None) };
    let approvals = &holding.approvals;
    holding.serve_tasks(&shared.gate);
    let sign_in = sign_in(&config.approvals)?;
    let webhooks = Webhooks::open(config)?;
    record::keep_states(approvals, shared);
    let tended = Arc::clone(approvals);
    keep_running(shared, "held calls", move || Arc::clone(&tended).tend());
    tell_losses(approvals, shared);
    let known = config.approvals.approvers.iter().map(|approver| {
        let ApproverConfig { id, groups, token } = approver;
        (Approver { id: id.clone(), groups: groups.clone() }, token.clone())
    });
    let approvers = Approvers::new(known);
    let mut api =
        ApprovalsApi::new(Arc::clone(approvals), approvers, shared.clone()).with_overview(overview);
    if let Some(sign_in) = sign_in {
        api = api.with_sign_in(sign_in);
    }
    if let Some(links) = webhooks.links.clone() {
        api = api.with_links(links);
    }
    webhooks.start(approvals, shared);
    Ok(Some(api))
}

/// Signing in at an issuer, if one is configured.
fn sign_in(config: &ApprovalsConfig) -> Result<Option<SignIn>, StartError> {
    let (Some(oidc), Some(public_url)) = (&config.oidc, &config.public_url) else {
        return Ok(None);
    };
    let problem = |key: &str, what: String| StartError::new(format!("approvals.{key}"), what);
    let ca_pem = oidc.ca_file.as_deref().map(read_pem).transpose();
    let public_url = PublicUrl::parse(public_url);
    let claims = &oidc.people;
    let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
    let described = SignInConfig {
        client: ClientConfig {
            issuer: oidc.issuer.as_str().into(),
            client_id: oidc.client_id.as_str().into(),
            client_secret: oidc.client_secret.as_ref().map(|secret| secret.expose().into()),
            ca_pem: ca_pem.map_err(|what| problem("oidc.ca_file", what))?,
        },
        name: oidc.name.as_str().into(),
        public_url: public_url.ok_or_else(|| problem("public_url", "is no URL".to_owned()))?,
        scopes: boxed(&oidc.scopes),
        people: People {
            prefix: oidc.name.as_str().into(),
            id_claim: claims.id_claim.as_str().into(),
            principal_claims: boxed(&claims.principal_claims),
            groups_claim: claims.groups_claim.as_str().into(),
            groups: claims
                .groups
                .iter()
                .map(|(group, of)| (group.as_str().into(), boxed(of)))
                .collect(),
        },
        idle: oidc.idle,
        lifetime: oidc.session,
    };
    SignIn::new(described).map(Some).map_err(|error| problem("oidc", error.to_string()))
}
