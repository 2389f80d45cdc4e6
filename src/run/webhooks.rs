//! The webhooks of a run: connects them, and gives their links a key.

use std::sync::Arc;
use std::time::Duration;

use bartizan_approvals::{Approvals, Approver};
use bartizan_edge::Shared;
use bartizan_edge::webhook::link::{Answering, Links};
use bartizan_edge::webhook::sign::SigningSecret;
use bartizan_edge::webhook::{Webhook, tell};
use bartizan_outbound::address::Address;
use bartizan_outbound::service::{Credentials, Service, ServiceConfig};

use super::StartError;
use super::background::keep_running;
use super::state;
use crate::config::{ApprovalsConfig, Config, OidcConfig, WebhookConfig, read_pem};

/// The file in the state directory with the key of links, unless the configuration has one.
const KEY_FILE: &str = "callback.key";
/// What keys of replicas are derived for.
const LINKS: &str = "links that answer held calls";
/// The pause before a second attempt.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The webhooks, and the links that they send, if any does.
pub(super) struct Webhooks {
    webhooks: Vec<Arc<Webhook>>,
    pub(super) links: Option<Arc<Links>>,
}

impl Webhooks {
    /// Prepares those of `config`; opens no connection yet.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written, or an address cannot be used.
    pub(super) fn open(config: &Config) -> Result<Self, StartError> {
        let links = links(config)?.map(Arc::new);
        let config = &config.approvals;
        let opened = config.webhooks.iter().map(|webhook| open(webhook, config, links.as_ref()));
        Ok(Self { webhooks: opened.collect::<Result<_, _>>()?, links })
    }

    /// Tells them of what is held, until the program closes.
    pub(super) fn start(self, approvals: &Arc<Approvals>, shared: &Shared) {
        for webhook in self.webhooks {
            let (approvals, own) = (Arc::clone(approvals), shared.clone());
            keep_running(shared, "webhook", move || {
                tell(Arc::clone(&webhook), Arc::clone(&approvals), own.clone())
            });
        }
    }
}

fn open(
    webhook: &WebhookConfig,
    config: &ApprovalsConfig,
    links: Option<&Arc<Links>>,
) -> Result<Arc<Webhook>, StartError> {
    let subject = format!("approvals.webhooks.{}", webhook.name);
    let failed = |what: String| StartError::new(&*subject, what);
    let ca_pem = webhook.ca_file.as_deref().map(read_pem).transpose().map_err(failed)?;
    let service = Address::parse(webhook.url.expose()).and_then(|address| {
        let (credentials, timeout) = (Credentials::None, webhook.timeout);
        Service::new(ServiceConfig { address, ca_pem, credentials, timeout })
    });
    Ok(Arc::new(Webhook {
        name: webhook.name.clone(),
        service: service.map_err(|error| failed(error.to_string()))?,
        template: webhook.template,
        secret: webhook.secret.as_ref().and_then(|text| SigningSecret::read(text.expose())),
        groups: webhook.groups.clone(),
        public_url: config.public_url.as_deref().map(Into::into),
        links: links.filter(|_| webhook.callback.is_some()).cloned(),
        retry_pause: RETRY_PAUSE,
    }))
}

/// Whether `id` is that of one person: it has a token, or is one that a sign-in gives.
fn is_person(approvals: &ApprovalsConfig, id: &str) -> bool {
    let signs_in =
        |oidc: &OidcConfig| id.strip_prefix(&*oidc.name).is_some_and(|rest| rest.starts_with(':'));
    approvals.approvers.iter().any(|approver| approver.id.eq_ignore_ascii_case(id))
        || approvals.oidc.as_ref().is_some_and(signs_in)
}

/// The links of all webhooks that send some.
fn links(config: &Config) -> Result<Option<Links>, StartError> {
    let approvals = &config.approvals;
    let answering: Vec<(Box<str>, Answering)> = approvals
        .webhooks
        .iter()
        .filter_map(|webhook| {
            let callback = webhook.callback.as_ref()?;
            let (id, groups) = (callback.approver.clone(), webhook.groups.clone());
            let approver = Arc::new(Approver { id, groups });
            let lasts = callback.lasts;
            let person = is_person(approvals, &callback.approver);
            Some((webhook.name.clone(), Answering { approver, person, lasts }))
        })
        .collect();
    let (false, Some(public_url)) = (answering.is_empty(), &approvals.public_url) else {
        return Ok(None);
    };
    // A link of one instance is opened by the others.
    let keys: Vec<Vec<u8>> = match (&approvals.callback_key, &config.replicas) {
        (Some(key), _) => vec![key.expose().as_bytes().to_vec()],
        (None, Some(replicas)) => {
            replicas.keys.iter().map(|key| key.derive(LINKS).to_vec()).collect()
        }
        (None, None) => vec![state::key(&config.state, KEY_FILE)?.to_vec()],
    };
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let links = Links::new(&keys, public_url, answering);
    links.map(Some).ok_or_else(|| StartError::new("approvals.callback_key", "is too short"))
}
