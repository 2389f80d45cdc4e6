//! What each server that is a program is kept away from, and what the kernel lacks for it.

use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::{StartError, descriptors};
use crate::config::{
    self, BundleSource, Config, Confine, CredentialsConfig, JwksConfig, KeyMaterial, OAuthMode,
    PackRef, RemoteConfig,
};
use crate::confine::{Confinement, Support};
use bartizan_audit::journal::Journal;
use bartizan_edge::child::Launcher;
use bartizan_gate::evidence::record::{AuditRecord, Event, Now};
use bartizan_gate::evidence::step::AuditSink as _;

/// The directory of all states of `bartizan wrap`, each in one of its own.
const STATES: &str = "bartizan";

/// How `child`, the server called `name`, is started. `None` if nothing confines it.
///
/// # Errors
///
/// The kernel or our user cannot do what the configuration requires.
pub(super) fn launcher(
    config: &Config,
    name: &str,
    child: &config::ChildUpstream,
    program: &Path,
    support: Support,
) -> Result<Option<Launcher>, StartError> {
    let required = match child.confine {
        Confine::Off => return Ok(None),
        Confine::On => false,
        Confine::Required => true,
    };
    if required && !support.files {
        return Err(StartError::new(
            format!("servers.{name}.confine"),
            "this kernel has no Landlock, so files cannot be hidden",
        )
        .hint("write `on` and give the server a `user`, or start Linux 5.13 or newer with it"));
    }
    if child.user.is_some() && !geteuid().is_root() {
        return Err(StartError::new(
            format!("servers.{name}.user"),
            "only root can start programs as others",
        )
        .hint("start this program as root, or remove `user`"));
    }
    let confinement = Confinement {
        hidden: own(config),
        user: child.user,
        descriptors: descriptors::before(),
        required,
    };
    Ok(Some(Launcher { program: program.to_owned(), args: confinement.arguments() }))
}

/// Warns of what the kernel lacks to confine the servers of `config`, and records it.
pub(super) fn record_lacking(config: &Config, support: Support, journal: &Journal, now: Now) {
    let Some(lacking) = lacking(config, support) else { return };
    tracing::warn!("{lacking}");
    let mut record = AuditRecord::new(Event::Policy, now);
    record.note = Some(format!("confinement: {lacking}").into());
    // A journal that cannot be written refuses every call later on.
    drop(journal.keep(&record));
}

fn lacking(config: &Config, support: Support) -> Option<&'static str> {
    let confines = |server: &config::ServerConfig| {
        let config::Upstream::Child(child) = &server.upstream else { return false };
        child.confine != Confine::Off
    };
    if !config.servers.iter().any(confines) {
        return None;
    }
    match support {
        Support { files: false, .. } => Some(
            "this kernel has no Landlock: programs that run as this user can open the journal, \
             the digest key and the files of secrets; give them a `user` of their own",
        ),
        Support { signals: false, .. } => Some(
            "this kernel's Landlock knows no signals (Linux 6.12): programs that run as this user \
             can stop this program",
        ),
        Support { files: true, signals: true } => None,
    }
}

/// Everything that only this program uses: its state, and what it is configured with.
pub(crate) fn own(config: &Config) -> Vec<PathBuf> {
    let mut own = config.own_files.clone();
    if config.hides_state {
        let above = config.state.parent();
        let states = above.filter(|above| above.file_name().is_some_and(|name| name == STATES));
        own.push(states.unwrap_or(&config.state).to_owned());
    }
    own.extend(config.lock.clone());
    own.extend(config.policy.paths.iter().cloned());
    for server in &config.servers {
        if let Some(PackRef::File(path)) = &server.pack {
            own.push(path.clone());
        }
        // Who may write these says which tokens are valid.
        if let Some(OAuthMode::Terminate(ours)) = server.oauth.as_ref().map(|oauth| &oauth.mode) {
            own.extend(ours.issuers.iter().filter_map(|issuer| match &issuer.jwks {
                JwksConfig::File(path) => Some(path.clone()),
                JwksConfig::Uri { .. } => None,
            }));
        }
    }
    let mut remotes: Vec<&RemoteConfig> = Vec::new();
    remotes.extend(config.audit.decision_logs.iter().map(|logs| &logs.remote));
    remotes.extend(config.otlp.iter().map(|otlp| &otlp.remote));
    if let Some(bundle) = &config.policy.bundle {
        match &bundle.source {
            BundleSource::Path(path) => own.push(path.clone()),
            BundleSource::Service(service) => remotes.push(&service.remote),
        }
        let keys = bundle.signing.iter().flat_map(|signing| &signing.keys);
        own.extend(keys.filter_map(|(_, key)| match &key.material {
            KeyMaterial::File(path) => Some(path.clone()),
            KeyMaterial::Secret(_) => None,
        }));
    }
    for remote in remotes {
        match &remote.credentials {
            Some(CredentialsConfig::BearerFile(path)) => own.push(path.clone()),
            Some(CredentialsConfig::ClientTls { key, .. }) => own.push(key.clone()),
            Some(CredentialsConfig::Bearer(_)) | None => {}
        }
    }
    own
}
