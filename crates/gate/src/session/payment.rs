//! What a held call has paid of its limits, also when its client is told to call again: the same call,
//! made again, does not pay its rates a second time.
//!
//! A payment is found by the key of the hold, which binds principal, server, parameters and policy, and
//! each is used by one call. So no more calls pass than have paid.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use bartizan_sync::lock;

use crate::duty::decision::Limit;
use crate::duty::limit::Places;
use crate::question::hold::{Hold, HoldKey};

use super::sizes;

/// Payments kept at most; the oldest gives way, and its call pays again.
const PAYMENTS_MAX: usize = 1024;
/// Limits of one payment at most, bytes: they may be named by texts of the client.
const LIMITS_BYTES_MAX: usize = 4096;
/// A call that has not paid itself leaves its payment to a further one only if it has waited this
/// long, so that calling without a pause is not free.
const WAITED_MIN: Duration = Duration::from_secs(1);

/// What one held call has paid.
#[derive(Debug, Clone)]
pub(super) struct Payment {
    /// The hold that the call met first, when it paid.
    first: HoldKey,
    /// The limits of the decisions that held it.
    limits: Vec<Limit>,
    /// Whether an earlier call has paid.
    inherited: bool,
    /// Until when a further call may use it, as uptime.
    until: Duration,
}

impl Payment {
    /// The payment of a call that is held by `hold` at the uptime `now`, under a decision with
    /// `limits`; `before` is what it has paid before.
    pub(super) fn of<'l>(
        before: Paid<'_>,
        limits: impl Iterator<Item = &'l Limit>,
        hold: &Hold,
        now: Duration,
    ) -> Self {
        let until = now.saturating_add(hold.ttl);
        let mut payment = match before {
            Paid::Held { payment, .. } => Self { until, ..payment.clone() },
            Paid::Nothing | Paid::Rates => {
                Self { first: hold.key, limits: Vec::new(), inherited: false, until }
            }
        };
        for limit in limits {
            if !payment.limits.contains(limit) {
                payment.limits.push(limit.clone());
            }
        }
        payment
    }

    /// The limits of the decisions that held the call.
    pub(super) fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// What it costs, bytes.
    pub(super) fn bytes(&self) -> usize {
        sizes::limits(&self.limits)
    }
}

/// What a message has of its limits before it is judged.
#[derive(Clone, Copy)]
pub(super) enum Paid<'a> {
    Nothing,
    /// It is sent once more, so it has paid all rates.
    Rates,
    /// It was held. It has paid the rates of these limits, and may have places reserved. A limit that
    /// came with the approval is paid now.
    Held {
        payment: &'a Payment,
        reserved: Option<&'a Places>,
    },
}

impl<'a> Paid<'a> {
    /// Whether it has paid the rate of `limit`.
    pub(super) fn covers(self, limit: &Limit) -> bool {
        match self {
            Self::Nothing => false,
            Self::Rates => true,
            Self::Held { payment, .. } => payment.limits.contains(limit),
        }
    }

    /// Its places in limits of calls in flight, which it has before its grants are spent.
    pub(super) fn reserved(self) -> Option<&'a Places> {
        match self {
            Self::Nothing | Self::Rates => None,
            Self::Held { reserved, .. } => reserved,
        }
    }
}

/// Payments of calls whose clients were told to call again.
#[derive(Debug, Default)]
pub(super) struct Payments(Mutex<VecDeque<Payment>>);

impl Payments {
    /// Leaves the payment of a call to the next one with the same hold. It has waited for `waited`.
    pub(super) fn leave(&self, payment: &Payment, waited: Duration) {
        if payment.inherited && waited < WAITED_MIN {
            return;
        }
        self.put(payment.clone());
    }

    /// Keeps a payment for the next call with the same hold. One of nothing is not kept: calls without
    /// limits would push out what others have paid.
    pub(super) fn put(&self, payment: Payment) {
        if payment.limits.is_empty() || payment.bytes() > LIMITS_BYTES_MAX {
            return;
        }
        let mut payments = lock(&self.0);
        if payments.len() >= PAYMENTS_MAX {
            payments.pop_front();
        }
        payments.push_back(payment);
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    /// Takes a payment for a call that meets the hold `first` at the uptime `now`.
    pub(super) fn take(&self, first: &HoldKey, now: Duration) -> Option<Payment> {
        let mut payments = lock(&self.0);
        payments.retain(|payment| now < payment.until);
        let at = payments.iter().position(|payment| payment.first == *first)?;
        Some(Payment { inherited: true, ..payments.remove(at)? })
    }
}
