//! A policy that follows a bundle service, as OPA's bundle protocol says.
//!
//! The service is asked again and again, with the tag of what answers now, at random within the
//! configured delays, or at once after each answer where it can hold a question open (long
//! polling). What comes is unpacked, verified, proven and built aside, like any change of a
//! policy; only then does it answer, and only then is it kept as the last good one. Whatever
//! fails leaves the running policy as it is. Nothing here writes a log or a record: events go to a
//! channel.

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
use bartizan_gate::wire::hex::hex;
use bartizan_rego::{PolicyProblem, RegoPdp};

/// First wait after a failure; it doubles up to the longest delay.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Pause between two long polls, so that a service that never holds a question open is not asked
/// without end.
const LONG_POLL_PAUSE: Duration = Duration::from_millis(500);
/// How often a bundle that was refused must come again before it is tried once more, because what
/// refused it may have been the state of this machine; twice as often each time.
const REFUSED_SKIP: u32 = 10;

/// The type that says that a service can hold a question open.
const LONG_POLL_TYPE: &str = "application/vnd.openpolicyagent.bundles";

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// A service that hands out a bundle.
#[derive(Debug)]
pub struct BundleService {
    /// The way to it; its address is that of the bundle.
    pub service: Service,
    /// Size of a bundle as it is sent, bytes.
    pub bytes_max: usize,
    /// How often it is asked.
    pub polling: Polling,
    /// Who must have signed.
    pub signing: Option<Arc<Signing>>,
    /// Where the last good bundle is kept.
    pub last_good: LastGood,
}

/// How often a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Polling {
    /// Shortest pause between two questions.
    pub min: Duration,
    /// Longest pause, also after failures.
    pub max: Duration,
    /// How long the service may hold a question open.
    pub long: Option<Duration>,
}

/// A digest of a whole bundle.
type Digest = [u8; 32];

/// A bundle that was refused.
#[derive(Debug)]
pub struct Refused {
    /// What it is called, as far as that can be told: its own word and a digest.
    pub candidate: String,
    /// Why.
    pub problems: Vec<PolicyProblem>,
}

/// A bundle that was refused, and is not tried again each time that it comes.
struct Skipped {
    digest: Digest,
    /// How often it was to be skipped this time.
    skip: u32,
    /// How often it is still to be skipped.
    left: u32,
}

/// What a service said.
enum Said {
    /// Nothing new.
    Same,
    /// A bundle.
    Bundle { bytes: Bytes, tag: Option<HeaderValue>, long: bool },
}

impl BundleService {
    /// The bundle that was kept, proven anew; nothing where none was kept.
    pub async fn last_good(&self, settings: &PolicySettings) -> Result<Option<Ready>, Refused> {
        let (kept, bytes_max) = (self.last_good.clone(), self.bytes_max);
        let loaded = blocking(move || kept.load(bytes_max)).await;
        let unreadable = |problems| Refused { candidate: "the one on disk".to_owned(), problems };
        match loaded.map_err(unreadable)? {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => self.prepare(settings, bytes.into()).await.map(Some),
            Err(error) => {
                let file = self.last_good.path().display().to_string();
                let message = format!("cannot be read: {error}");
                Err(unreadable(vec![PolicyProblem { file, line: None, message, hint: None }]))
            }
        }
    }

    /// Unpacks, verifies, proves and builds.
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

    /// Asks for another bundle than the one with this tag.
    async fn ask(&self, tag: Option<&HeaderValue>, long: bool) -> Result<Said, String> {
        let wait = self.polling.long.filter(|_| long).unwrap_or_default();
        let mut headers = HeaderMap::new();
        // Only whole bundles: a change to one cannot be verified.
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
            StatusCode::OK => Ok(Said::Bundle {
                bytes: body,
                tag: headers.get(ETAG).cloned(),
                long: headers.get(CONTENT_TYPE).is_some_and(|kind| kind == LONG_POLL_TYPE),
            }),
            StatusCode::NOT_MODIFIED if tag.is_some() => Ok(Said::Same),
            other => Err(format!("it answered with status {}", other.as_u16())),
        }
    }
}

/// Follows `service` until [`Triggers::stop`]. `now` is what answers when it begins, if anything
/// does; `install` puts a proven policy in its place.
pub async fn poll(
    settings: PolicySettings,
    service: BundleService,
    now: Option<Arc<RegoPdp>>,
    triggers: Triggers,
    install: impl Fn(Arc<RegoPdp>) + Send,
    events: mpsc::Sender<PolicyEvent>,
) {
    let mut poller = Poller {
        long: service.polling.long.is_some(),
        settings,
        service,
        attention: Attention { answering: now, demoted: false, triggers: triggers.clone(), events },
        install,
        tag: None,
        active: None,
        refused: None,
        failures: 0,
    };
    tokio::select! {
        () = triggers.stop.cancelled() => {}
        () = poller.run() => {}
    }
}

struct Poller<I> {
    settings: PolicySettings,
    service: BundleService,
    attention: Attention,
    install: I,
    /// The tag of the bundle that answers.
    tag: Option<HeaderValue>,
    /// The bundle that answers, if it came from the service.
    active: Option<Digest>,
    /// The bundle that was refused last.
    refused: Option<Skipped>,
    /// Whether the service can hold a question open, as far as is known.
    long: bool,
    failures: u32,
}

impl<I: Fn(Arc<RegoPdp>) + Send> Poller<I> {
    async fn run(&mut self) {
        loop {
            let asked = self.service.ask(self.tag.as_ref(), self.long);
            let pause = match self.attention.during(asked).await {
                None => {
                    self.forget();
                    continue;
                }
                Some(Err(what)) => self.failed(what).await,
                Some(Ok(said)) => self.heard(said).await,
            };
            if self.attention.during(tokio::time::sleep(pause)).await.is_none() {
                self.forget();
            }
        }
    }

    /// Told to read again whether or not anything changed.
    fn forget(&mut self) {
        self.tag = None;
        self.active = None;
        self.refused = None;
    }

    async fn failed(&mut self, what: String) -> Duration {
        self.failures = self.failures.saturating_add(1);
        // The first of a row tells; the rest would be noise.
        if self.failures == 1 {
            self.attention.tell(PolicyEvent::Trouble { what }).await;
        }
        let doubled = 1_u32.checked_shl(self.failures.min(16)).unwrap_or(u32::MAX);
        let longest = RETRY_FIRST.saturating_mul(doubled).min(self.service.polling.max);
        between(longest.checked_div(2).unwrap_or_default(), longest)
    }

    async fn heard(&mut self, said: Said) -> Duration {
        if self.failures > 0 {
            self.failures = 0;
            self.attention.tell(PolicyEvent::Recovered).await;
        }
        let Polling { min, max, long } = self.service.polling;
        let good = match said {
            Said::Same => true,
            Said::Bundle { bytes, tag, long: can_wait } => {
                self.long = can_wait && long.is_some();
                self.take(bytes, tag).await
            }
        };
        if good && self.long { LONG_POLL_PAUSE } else { between(min, max) }
    }

    /// Puts a new bundle in place, if it is good.
    async fn take(&mut self, bytes: Bytes, tag: Option<HeaderValue>) -> bool {
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
        match self.service.prepare(&self.settings, bytes.clone()).await {
            Ok(ready) => {
                (self.install)(Arc::clone(&ready.pdp));
                (self.tag, self.active, self.refused) = (tag, Some(digest), None);
                self.attention.answers(&ready).await;
                self.keep(bytes).await;
                true
            }
            Err(Refused { candidate, problems }) => {
                self.refused = Some(Skipped { digest, skip, left: skip });
                let (source, candidate) = (Source::Service, Some(candidate));
                let event = PolicyEvent::Rejected { source, candidate, problems };
                self.attention.tell(event).await;
                false
            }
        }
    }

    /// Keeps the bundle for a start without the service.
    async fn keep(&mut self, bytes: Bytes) {
        let last_good = self.service.last_good.clone();
        let what = match blocking(move || last_good.save(&bytes)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a panic".to_owned(),
        };
        let path = self.service.last_good.path().display().to_string();
        let what = format!("the bundle cannot be kept for the next start: `{path}`: {what}");
        self.attention.tell(PolicyEvent::Trouble { what }).await;
    }
}

/// What goes on beside asking: the trigger, and the policy's own demotion.
struct Attention {
    answering: Option<Arc<RegoPdp>>,
    demoted: bool,
    triggers: Triggers,
    events: mpsc::Sender<PolicyEvent>,
}

impl Attention {
    /// Waits for `work`; nothing where the trigger came first.
    async fn during<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                () = self.triggers.again.notified() => return None,
                () = tokio::time::sleep(self.triggers.poll) => {}
            }
            let demotion = self.answering.as_ref().and_then(|pdp| pdp.demotion());
            if let Some(demotion) = demotion.filter(|_| !self.demoted) {
                self.demoted = true;
                self.tell(PolicyEvent::Demoted { demotion }).await;
            }
        }
    }

    async fn answers(&mut self, ready: &Ready) {
        self.answering = Some(Arc::clone(&ready.pdp));
        self.demoted = false;
        self.tell(PolicyEvent::loaded(ready, Source::Service)).await;
    }

    async fn tell(&self, event: PolicyEvent) {
        // Where nobody listens, the policy goes on following its service.
        drop(self.events.send(event).await);
    }
}

fn digest(bytes: &[u8]) -> Digest {
    Sha256::digest(bytes).into()
}

/// A time between both, by chance, so that many that started together do not ask together.
fn between(min: Duration, max: Duration) -> Duration {
    let mut chance = [0_u8; 4];
    // Without randomness the longest pause is the safe one.
    let chance = getrandom::fill(&mut chance).map_or(u32::MAX, |()| u32::from_be_bytes(chance));
    let spread = u64::try_from(max.saturating_sub(min).as_millis()).unwrap_or(u64::MAX);
    let part = u128::from(spread).saturating_mul(u128::from(chance)) >> 32;
    min.saturating_add(Duration::from_millis(u64::try_from(part).unwrap_or(u64::MAX)))
}
