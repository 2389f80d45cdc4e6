//! The links by which a held call is answered without another token: each names one held call, what
//! was shown of it, one answer, an expiry, and the approver whose answer it is.
//!
//! A link is authenticated by HMAC-SHA-256, and the ledger lets it act once: after the answer of an
//! approver there is no second one of the same approver, and after a refusal, an expiry or a cancel
//! there is none at all (`bartizan_approvals::ledger`). That holds after a restart and with several
//! replicas, so no list of used links is kept. The approver's groups are authenticated, too: when
//! they change in the configuration, older links are worth nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use bartizan_approvals::{Approver, HoldState, HoldView, Verdict};
use bartizan_gate::evidence::record::Now;

/// Where links lead to, below the URL of the operators' listener.
pub const PATH: &str = "/callback/";
/// Least size of the key, bytes.
pub const KEY_BYTES_MIN: usize = 32;
/// Names what is authenticated, so that it equals nothing that another part of the program signs.
const PURPOSE: &str = "bartizan: a link that answers a held call, version 1";
/// Between the parts of a link, none of which may hold it.
const SEPARATOR: char = '.';

/// The answers that links stand for.
#[derive(Debug, Clone)]
pub struct Answering {
    /// Whose answers they are.
    pub approver: Arc<Approver>,
    /// Whether that is one person alone, who has this id with a token or a sign-in, too.
    pub person: bool,
    /// How long after the call was held a link can be used.
    pub lasts: Duration,
}

/// Whether a grant of whoever follows a link counts for `hold`. Where several people must grant it, one of
/// those who read a channel could have granted it already by another way, and would count twice (threat
/// I3); one `person` has one id.
fn counts(person: bool, hold: &HoldView) -> bool {
    person || hold.quorum <= 1
}

/// Makes and checks links.
pub struct Links {
    /// All of them open links, the first one makes them.
    keys: Vec<Hmac<Sha256>>,
    root: Box<str>,
    /// By the name of the webhook that sends them.
    answering: BTreeMap<Box<str>, Answering>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").finish_non_exhaustive()
    }
}

/// A link that was checked. What it names may be over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Whose answer it is.
    pub approver: Arc<Approver>,
    /// The answer.
    pub verdict: Verdict,
    /// The held call.
    pub hold: Box<str>,
    /// Digest of what was shown.
    pub digest: Box<str>,
    person: bool,
}

impl Link {
    /// Whether a grant by it counts for `hold`: see [`Answering::person`].
    pub(crate) fn counts_for(&self, hold: &HoldView) -> bool {
        counts(self.person, hold)
    }
}

/// Why a link is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLink {
    /// It was not made with this key, or for an approver who is not configured so any more.
    Forged,
    /// Its time is over.
    Expired,
}

impl Links {
    /// Links below `public_url`, which has no slash at its end, for the webhooks of `answering`.
    /// All of `keys` open links, the first one makes them. `None` if there is none, or one has less
    /// than [`KEY_BYTES_MIN`] bytes.
    pub fn new(
        keys: &[&[u8]],
        public_url: &str,
        answering: impl IntoIterator<Item = (Box<str>, Answering)>,
    ) -> Option<Self> {
        if keys.is_empty() || keys.iter().any(|key| key.len() < KEY_BYTES_MIN) {
            return None;
        }
        let keys = keys.iter().map(|key| Hmac::<Sha256>::new_from_slice(key));
        let keys = keys.collect::<Result<_, _>>().ok()?;
        let root = format!("{public_url}{}", PATH.trim_end_matches('/')).into();
        Some(Self { keys, root, answering: answering.into_iter().collect() })
    }

    /// What links begin with.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// The parts of the links that grant and refuse `hold`, and until when they can be used,
    /// milliseconds since 1970. `None` if `webhook` has no approver, or its approver has nothing to
    /// say, or several people must grant it and its approver is not one person, or the time is over.
    pub(super) fn make(
        &self,
        webhook: &str,
        hold: &HoldView,
        now: Now,
    ) -> Option<(u64, [String; 2])> {
        let Answering { approver, person, lasts } = self.answering.get(webhook)?;
        let key = self.keys.first()?;
        let answered =
            hold.answers.iter().any(|answer| answer.by.eq_ignore_ascii_case(&approver.id));
        let may = counts(*person, hold) && approver.may_answer(&hold.principal, &hold.approvers);
        let until_ms = hold.asked_unix_ms.saturating_add(millis(*lasts));
        if hold.state != HoldState::Pending || answered || !may || until_ms <= wall_ms(now) {
            return None;
        }
        let made = [Verdict::Grant, Verdict::Refuse].map(|verdict| {
            let parts = [name(verdict), &until_ms.to_string(), &hold.id, &hold.digest, webhook];
            let mac = mac(key, &parts, approver).finalize().into_bytes();
            let [verdict, until, hold, digest, webhook] = parts;
            let mac = URL_SAFE_NO_PAD.encode(mac);
            [verdict, until, hold, digest, webhook, &mac].join(&SEPARATOR.to_string())
        });
        Some((until_ms, made))
    }

    /// What the link `token` stands for.
    ///
    /// # Errors
    ///
    /// It stands for nothing.
    pub fn open(&self, token: &str, now: Now) -> Result<Link, BadLink> {
        let parts: Vec<&str> = token.split(SEPARATOR).collect();
        let [verdict, until, hold, digest, webhook, tag] = parts[..] else {
            return Err(BadLink::Forged);
        };
        let Answering { approver, person, .. } =
            self.answering.get(webhook).ok_or(BadLink::Forged)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| BadLink::Forged)?;
        // Each in constant time (threat I17).
        let signed = [verdict, until, hold, digest, webhook];
        let is_of = |key: &Hmac<Sha256>| mac(key, &signed, approver).verify_slice(&tag).is_ok();
        if !self.keys.iter().any(is_of) {
            return Err(BadLink::Forged);
        }
        let verdict = [Verdict::Grant, Verdict::Refuse].into_iter().find(|it| name(*it) == verdict);
        let until_ms: u64 = until.parse().map_err(|_| BadLink::Forged)?;
        if until_ms <= wall_ms(now) {
            return Err(BadLink::Expired);
        }
        Ok(Link {
            approver: Arc::clone(approver),
            verdict: verdict.ok_or(BadLink::Forged)?,
            hold: hold.into(),
            digest: digest.into(),
            person: *person,
        })
    }
}

/// Over all parts and the approver, each after its length, so that none can be taken for another.
fn mac(key: &Hmac<Sha256>, parts: &[&str; 5], approver: &Approver) -> Hmac<Sha256> {
    let texts = [PURPOSE].into_iter().chain(*parts).chain([&*approver.id]);
    let texts = texts.chain(approver.groups.iter().map(|group| &**group));
    texts.fold(key.clone(), |mac, text| {
        let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
        mac.chain_update(length.to_be_bytes()).chain_update(text)
    })
}

fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Grant => "grant",
        Verdict::Refuse => "refuse",
    }
}

/// Wall time, milliseconds since 1970.
fn wall_ms(now: Now) -> u64 {
    millis(now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
