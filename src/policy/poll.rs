//! Polls a bundle service for policies (OPA docs, "Bundles", "Bundle Service API").
//!
//! Each request carries the `ETag` of the running bundle. The pause between requests is random within
//! the configured bounds, or short where the service supports long polling. A new bundle is
//! unpacked, verified, proven and built while the old policy runs; then it replaces the old one and
//! is stored as the last good bundle. After a failure the running policy stays. This module writes
//! no log and no record: it sends events to a channel, and `run` writes them.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bartizan_outbound::service::{Service, ServiceAnswer, ServiceCall, ServiceFailure};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::bundle::signature::Signing;
use super::bundle::{self, archive, manifest};
use super::last_good::LastGood;
use super::watch::{PolicyEvent, Source, Triggers};
use super::{PolicySettings, Ready, blocking, prove_and_build};
use bartizan_edge::clock::Clock;
use bartizan_gate::duty::decision::PolicyRevision;
use bartizan_gate::wire::hex::hex;
use bartizan_rego::{PolicyProblem, RegoPdp};
use bartizan_sync::caught;

/// Pause after the first failure. It doubles with each further one, up to [`Polling::max`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Pause between two long polls, so that a service that answers them at once does not cause a busy
/// loop.
const LONG_POLL_PAUSE: Duration = Duration::from_millis(500);
/// How many times a refused bundle is ignored before it is tried again, because the state of this
/// machine may have been the cause. It doubles with each refusal.
const REFUSED_SKIP: u32 = 10;

/// Shortest pause between two looks at the age of the running policy.
const AGE_STEP: Duration = Duration::from_millis(100);

/// The content type by which a service declares support for long polling (OPA docs, "Bundles",
/// "HTTP Long Polling").
const LONG_POLL_TYPE: &str = "application/vnd.openpolicyagent.bundles";

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A bundle service, and how to use it.
#[derive(Debug)]
pub struct BundleService {
    /// The HTTP client for it. Its address is that of the bundle.
    pub service: Service,
    /// Largest bundle as it is sent (compressed), bytes.
    pub bytes_max: usize,
    /// The pauses between requests.
    pub polling: Polling,
    /// The keys that must have signed the bundle; with `None` it must be unsigned.
    pub signing: Option<Arc<Signing>>,
    /// The file with the last good bundle.
    pub last_good: LastGood,
    /// Whether a bundle must not be older than the one before it.
    pub rising: bool,
    /// How old a bundle may be when it is installed and while it decides; `None` is any age.
    pub max_age: Option<Duration>,
    /// The clock by which its age counts.
    pub clock: Clock,
}

/// The pauses between requests to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// Shortest pause between two requests.
    pub min: Duration,
    /// Longest pause, also after failures.
    pub max: Duration,
    /// How long the service may delay its response (long polling); `None` turns it off.
    pub long: Option<Duration>,
}

/// The SHA-256 digest of a bundle as it was sent.
type Digest = [u8; 32];

/// A bundle that was refused.
#[derive(Debug)]
pub struct Refused {
    /// Its revision from the manifest, where it could be read, and its digest.
    pub candidate: String,
    /// The problems for which it was refused.
    pub problems: Vec<PolicyProblem>,
}

/// The last bundle that was refused. It is ignored for a number of times before the next try.
struct RefusedBundle {
    digest: Digest,
    /// How many times it is ignored after the last refusal.
    skip: u32,
    /// How many of these times remain.
    left: u32,
}

/// The response of a service.
enum Response {
    /// 304: the running bundle is the newest.
    NotModified,
    /// 200: a bundle, its `ETag`, and whether the service supports long polling.
    Bundle { bytes: Bytes, tag: Option<HeaderValue>, long: bool },
}

impl BundleService {
    /// Loads and proves the last good bundle; `None` where none is stored.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is refused.
    pub async fn last_good(&self, settings: &PolicySettings) -> Result<Option<Ready>, Refused> {
        let (kept, bytes_max) = (self.last_good.clone(), self.bytes_max);
        let loaded = blocking(move || kept.load(bytes_max)).await;
        let unreadable = |problems| Refused { candidate: "the one on disk".to_owned(), problems };
        match loaded.map_err(unreadable)? {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => {
                let digest = digest(&bytes);
                let ready = self.prepare(settings, bytes.into()).await?;
                self.in_age(ready, &digest).map(Some)
            }
            Err(error) => {
                let file = self.last_good.path().display().to_string();
                let message = format!("cannot be read: {error}");
                Err(unreadable(vec![PolicyProblem { file, line: None, message, hint: None }]))
            }
        }
    }

    /// Unpacks, verifies, proves and builds a bundle.
    async fn prepare(&self, settings: &PolicySettings, bytes: Bytes) -> Result<Ready, Refused> {
        let (files, signing, packed) =
            (settings.files.clone(), self.signing.clone(), bytes.clone());
        let unpacked = blocking(move || {
            let members = archive::unpack(&packed, &files.limits).map_err(|message| {
                let hint = Some("see what the service sends".to_owned());
                let problem = PolicyProblem { file: String::new(), line: None, message, hint };
                (None, vec![problem])
            })?;
            let called = members.get(bundle::MANIFEST).and_then(|bytes| {
                manifest::Manifest::read(bytes).ok().and_then(|manifest| manifest.revision)
            });
            bundle::read(&members, signing.as_deref(), &files)
                .map_err(|it| (called.clone(), it))
                .map(|loaded| (called, loaded))
        });
        let named = |called: Option<String>| {
            let digest = hex(&digest(&bytes));
            called.map_or(format!("sha256:{digest}"), |it| format!("`{it}`, sha256:{digest}"))
        };
        let refused = |called, problems| Refused { candidate: named(called), problems };
        let unpacked = unpacked.await.map_err(|problems| refused(None, problems))?;
        let (called, loaded) = unpacked.map_err(|(called, it)| refused(called, it))?;
        prove_and_build(settings, loaded).await.map_err(|problems| refused(called, problems))
    }

    /// Refuses a bundle that is too old.
    fn in_age(&self, ready: Ready, digest: &Digest) -> Result<Ready, Refused> {
        let Some(max_age) = self.max_age else { return Ok(ready) };
        let revision = ready.pdp.policy().revision();
        match bundle::order::is_young(&revision, max_age, self.clock.now().wall) {
            Ok(()) => Ok(ready),
            Err(message) => {
                let hint =
                    "publish it anew, with the time as its revision (`opa build --revision`)";
                Err(misplaced(&revision, digest, message, hint))
            }
        }
    }

    /// Requests a bundle whose `ETag` is not `tag`. `long` permits a delayed response.
    async fn request(&self, tag: Option<&HeaderValue>, long: bool) -> Result<Response, String> {
        let wait = self.polling.long.filter(|_| long).unwrap_or_default();
        let mut headers = HeaderMap::new();
        // No delta bundles: signatures cover whole bundles, so a delta cannot be verified.
        let prefer = match wait.as_secs() {
            0 => "modes=snapshot".to_owned(),
            seconds => format!("modes=snapshot;wait={seconds}"),
        };
        if let Ok(prefer) = HeaderValue::from_str(&prefer) {
            headers.insert(PREFER, prefer);
        }
        if let Some(tag) = tag {
            headers.insert(IF_NONE_MATCH, tag.clone());
        }
        let call = ServiceCall {
            method: Method::GET,
            target: self.service.target(),
            headers,
            body: Bytes::new(),
            wait,
            bytes_max: self.bytes_max,
        };
        let failed = |failure: ServiceFailure| failure.to_string();
        let ServiceAnswer { status, headers, body } =
            self.service.call(call).await.map_err(failed)?;
        match status {
            StatusCode::OK => Ok(Response::Bundle {
                bytes: body,
                tag: headers.get(ETAG).cloned(),
                long: headers.get(CONTENT_TYPE).is_some_and(|kind| kind == LONG_POLL_TYPE),
            }),
            StatusCode::NOT_MODIFIED if tag.is_some() => Ok(Response::NotModified),
            other => Err(format!("the service answered with status {}", other.as_u16())),
        }
    }
}

/// Polls `service` until [`Triggers::stop`]. `now` is the running policy at the beginning, if there
/// is one; `install` replaces it by a proven one.
pub async fn poll(
    settings: PolicySettings,
    service: BundleService,
    now: Option<Arc<RegoPdp>>,
    triggers: Triggers,
    install: impl Fn(Change) + Send + Sync,
    events: mpsc::Sender<PolicyEvent>,
) {
    let (max_age, clock) = (service.max_age, service.clock);
    let mut poller = Poller {
        long: service.polling.long.is_some(),
        settings,
        service,
        monitor: Monitor {
            answering: now,
            demoted: false,
            expired: false,
            max_age,
            clock,
            triggers: triggers.clone(),
            install,
            events,
        },
        tag: None,
        active: None,
        refused: None,
        failures: 0,
    };
    let running = async {
        while caught(poller.run()).await.is_err() {
            poller.reset();
            poller.monitor.send(PolicyEvent::Interrupted).await;
            tokio::time::sleep(RETRY_FIRST).await;
        }
    };
    tokio::select! {
        () = triggers.stop.cancelled() => {}
        () = running => {}
    }
}

/// What decides from now on.
#[derive(Debug)]
pub enum Change {
    /// This policy.
    To(Arc<RegoPdp>),
    /// Nothing permits: the policy of this revision has become too old.
    Expired(PolicyRevision),
}

struct Poller<I> {
    settings: PolicySettings,
    service: BundleService,
    monitor: Monitor<I>,
    /// The `ETag` of the running bundle.
    tag: Option<HeaderValue>,
    /// The digest of the running bundle, if it came from the service in this run.
    active: Option<Digest>,
    /// The last bundle that was refused.
    refused: Option<RefusedBundle>,
    /// Whether to use long polling: configured, and not contradicted by the last response.
    long: bool,
    /// Failed requests since the last one that succeeded.
    failures: u32,
}

impl<I: Fn(Change) + Send + Sync> Poller<I> {
    async fn run(&mut self) {
        loop {
            let asked = self.service.request(self.tag.as_ref(), self.long);
            let pause = match self.monitor.wait_for(asked).await {
                None => {
                    self.reset();
                    continue;
                }
                Some(Err(what)) => self.handle_failure(what).await,
                Some(Ok(response)) => self.handle_response(response).await,
            };
            if self.monitor.wait_for(tokio::time::sleep(pause)).await.is_none() {
                self.reset();
            }
        }
    }

    /// After a trigger (SIGHUP), the next bundle is loaded even if it did not change.
    fn reset(&mut self) {
        self.tag = None;
        self.active = None;
        self.refused = None;
    }

    async fn handle_failure(&mut self, what: String) -> Duration {
        self.failures = self.failures.saturating_add(1);
        // Only the first of several failures in a row is an event.
        if self.failures == 1 {
            self.monitor.send(PolicyEvent::ServiceFailed { what }).await;
        }
        let doubled = 1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX);
        let longest = RETRY_FIRST.saturating_mul(doubled).min(self.service.polling.max);
        between(longest.checked_div(2).unwrap_or_default(), longest)
    }

    async fn handle_response(&mut self, response: Response) -> Duration {
        if self.failures > 0 {
            self.failures = 0;
            self.monitor.send(PolicyEvent::Recovered).await;
        }
        let Polling { min, max, long } = self.service.polling;
        let good = match response {
            Response::NotModified => true,
            Response::Bundle { bytes, tag, long: can_wait } => {
                self.long = can_wait && long.is_some();
                self.install_bundle(bytes, tag).await
            }
        };
        if good && self.long { LONG_POLL_PAUSE } else { between(min, max) }
    }

    /// Installs a new bundle. Returns whether the running bundle is the one from the service.
    async fn install_bundle(&mut self, bytes: Bytes, tag: Option<HeaderValue>) -> bool {
        let digest = digest(&bytes);
        if self.active == Some(digest) {
            self.tag = tag;
            return true;
        }
        let again = self.refused.as_mut().filter(|refused| refused.digest == digest);
        let skip = match again {
            Some(refused) if refused.left > 0 => {
                refused.left = refused.left.saturating_sub(1);
                return false;
            }
            Some(refused) => refused.skip.saturating_mul(2),
            None => REFUSED_SKIP,
        };
        let prepared = self.service.prepare(&self.settings, bytes.clone()).await;
        let young = prepared.and_then(|ready| self.service.in_age(ready, &digest));
        match young.and_then(|ready| self.in_order(ready, &digest)) {
            Ok(ready) => {
                (self.monitor.install)(Change::To(Arc::clone(&ready.pdp)));
                (self.tag, self.active, self.refused) = (tag, Some(digest), None);
                self.monitor.answers(&ready).await;
                self.store(bytes).await;
                true
            }
            Err(Refused { candidate, problems }) => {
                self.refused = Some(RefusedBundle { digest, skip, left: skip });
                let (source, candidate) = (Source::Service, Some(candidate));
                let event = PolicyEvent::Rejected { source, candidate, problems };
                self.monitor.send(event).await;
                false
            }
        }
    }

    /// Refuses a bundle that is older than the running one, where the order counts. At the start
    /// the running one is the last good one on disk, so a restart does not forget it.
    fn in_order(&self, ready: Ready, digest: &Digest) -> Result<Ready, Refused> {
        if !self.service.rising {
            return Ok(ready);
        }
        let running = self.monitor.answering.as_ref().map(|pdp| pdp.policy().revision());
        let revision = ready.pdp.policy().revision();
        match bundle::order::follows(&revision, running.as_deref()) {
            Ok(()) => Ok(ready),
            Err(message) => {
                let hint = "publish it with a later revision (`opa build --revision`)";
                Err(misplaced(&revision, digest, message, hint))
            }
        }
    }

    /// Stores the bundle for a start without the service.
    async fn store(&mut self, bytes: Bytes) {
        let last_good = self.service.last_good.clone();
        let what = match blocking(move || last_good.save(&bytes)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a panic".to_owned(),
        };
        let path = self.service.last_good.path().display().to_string();
        let what = format!("the bundle cannot be kept for the next start: `{path}`: {what}");
        self.monitor.send(PolicyEvent::ServiceFailed { what }).await;
    }
}

/// A bundle that is good, and not in its place or time.
fn misplaced(revision: &str, digest: &Digest, message: String, hint: &str) -> Refused {
    let hint = Some(hint.to_owned());
    let problem = PolicyProblem { file: String::new(), line: None, message, hint };
    let candidate = format!("`{revision}`, sha256:{}", hex(digest));
    Refused { candidate, problems: vec![problem] }
}

/// Watches for triggers and for the demotion and the age of the running policy while other work is
/// awaited.
struct Monitor<I> {
    answering: Option<Arc<RegoPdp>>,
    demoted: bool,
    /// Whether the running policy became too old.
    expired: bool,
    max_age: Option<Duration>,
    clock: Clock,
    triggers: Triggers,
    install: I,
    events: mpsc::Sender<PolicyEvent>,
}

impl<I: Fn(Change) + Send + Sync> Monitor<I> {
    /// Awaits `work`; `None` where a trigger came first.
    async fn wait_for<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.triggers.again.notified() => return None,
                () = tokio::time::sleep(self.triggers.poll.min(self.left())) => {}
            }
            self.check_age().await;
            let demotion = self.answering.as_ref().and_then(|pdp| pdp.demotion());
            if let Some(demotion) = demotion.filter(|_| !self.demoted) {
                self.demoted = true;
                self.send(PolicyEvent::Demoted { demotion }).await;
            }
        }
    }

    /// How long the running policy may still decide; at least [`AGE_STEP`].
    fn left(&self) -> Duration {
        let running = self.answering.as_ref().filter(|_| !self.expired).zip(self.max_age);
        let Some((pdp, max_age)) = running else { return Duration::MAX };
        let revision = pdp.policy().revision();
        let left = bundle::order::left(&revision, max_age, self.clock.now().wall);
        left.map_or(AGE_STEP, |left| left.max(AGE_STEP))
    }

    /// Ends the running policy if it is too old. A service that does not answer must not keep an old
    /// policy in force for ever (threat M19).
    async fn check_age(&mut self) {
        let running = self.answering.as_ref().filter(|_| !self.expired).zip(self.max_age);
        let Some((pdp, max_age)) = running else { return };
        let revision = pdp.policy().revision();
        let young = bundle::order::is_young(&revision, max_age, self.clock.now().wall);
        let Err(what) = young else { return };
        self.expired = true;
        (self.install)(Change::Expired(revision.clone()));
        self.send(PolicyEvent::Expired { revision, what }).await;
    }

    async fn answers(&mut self, ready: &Ready) {
        self.answering = Some(Arc::clone(&ready.pdp));
        (self.demoted, self.expired) = (false, false);
        self.send(PolicyEvent::loaded(ready, Source::Service)).await;
    }

    async fn send(&self, event: PolicyEvent) {
        // The send fails once the receiver is dropped. Polling continues without events.
        drop(self.events.send(event).await);
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// A random time from `min` to `max` (jitter), so that many instances that started together spread
/// their requests.
fn between(min: Duration, max: Duration) -> Duration {
    let mut chance = [0_u8; 4];
    // If there is no randomness, the longest pause puts the least load on the service.
    let chance = getrandom::fill(&mut chance).map_or(u32::MAX, |()| u32::from_be_bytes(chance));
    let spread = u64::try_from(max.saturating_sub(min).as_millis()).unwrap_or(u64::MAX);
    let part = u128::from(spread).saturating_mul(u128::from(chance)) >> 32;
    min.saturating_add(Duration::from_millis(u64::try_from(part).unwrap_or(u64::MAX)))
}
