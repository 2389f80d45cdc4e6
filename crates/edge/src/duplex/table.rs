//! Who waits for what on one line. Pure: nothing here waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::stream::{End, Item};
use bartizan_gate::session::UpstreamFailure;

/// Numbers of exchanges that were given up, remembered for one line: a late answer to one of them
/// is expected.
const GIVEN_UP_MAX: usize = 256;

/// Where one message goes.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) to: mpsc::Sender<Item>,
    pub(super) item: Item,
    /// The exchange, if it goes to one that stays open.
    pub(super) number: Option<i64>,
}

/// An open exchange.
#[derive(Debug)]
struct Open<E> {
    exchange: E,
    to: mpsc::Sender<Item>,
    listens: bool,
}

/// The exchanges of one line.
#[derive(Debug)]
pub(crate) struct Table<E> {
    next: i64,
    /// By number, so the oldest first.
    open: BTreeMap<i64, Open<E>>,
    /// Exchanges that were given up before their answer.
    given_up: BTreeSet<i64>,
    stream: Option<mpsc::Sender<Item>>,
    /// What the server said before anybody could hear it.
    backlog: VecDeque<Bytes>,
    /// When somebody last spoke, by uptime.
    pub(super) used: Duration,
    answered: bool,
    ended: bool,
}

impl<E> Table<E> {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            next: 1,
            open: BTreeMap::new(),
            given_up: BTreeSet::new(),
            stream: None,
            backlog: VecDeque::new(),
            used: now,
            answered: false,
            ended: false,
        }
    }

    /// Opens an exchange; `None` where the line has ended.
    pub(super) fn open<T>(
        &mut self,
        (to, listens): (mpsc::Sender<Item>, bool),
        exchanges_max: usize,
        now: Duration,
        describe: impl FnOnce(i64) -> Result<(E, T), UpstreamFailure>,
    ) -> Result<Option<(i64, T)>, UpstreamFailure> {
        if self.open.len() >= exchanges_max {
            let closed = self.open.iter().filter(|(_, open)| open.to.is_closed());
            for number in closed.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.give_up(number);
            }
        }
        if self.open.len() >= exchanges_max {
            return Err(UpstreamFailure::Unreachable(format!(
                "too many calls at once in one session (`exchanges_max` {exchanges_max})"
            )));
        }
        if self.ended {
            return Ok(None);
        }
        let number = self.next;
        let (exchange, more) = describe(number)?;
        self.next = number.saturating_add(1);
        self.used = now;
        self.open.insert(number, Open { exchange, to, listens });
        Ok(Some((number, more)))
    }

    /// Opens the stream of server messages and gives it what was kept; `false` where one is open
    /// already, or the line has ended.
    pub(super) fn hear(&mut self, to: mpsc::Sender<Item>, now: Duration) -> bool {
        if self.ended || self.stream.as_ref().is_some_and(|open| !open.is_closed()) {
            return false;
        }
        for message in self.backlog.drain(..) {
            if to.try_send(Item::Message(message, None)).is_err() {
                tracing::debug!("no room for a message kept for the stream");
            }
        }
        self.used = now;
        self.stream = Some(to);
        true
    }

    /// What is remembered of exchange `number`.
    pub(crate) fn get(&self, number: i64) -> Option<&E> {
        self.open.get(&number).map(|open| &open.exchange)
    }

    /// The open exchanges, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, &E)> {
        self.open.iter().map(|(number, open)| (*number, &open.exchange))
    }

    /// Like [`Table::iter`].
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (i64, &mut E)> {
        self.open.iter_mut().map(|(number, open)| (*number, &mut open.exchange))
    }

    /// Closes the exchanges that `which` does not choose; no answer is expected for them.
    pub(crate) fn retain(&mut self, mut which: impl FnMut(&E) -> bool) {
        self.open.retain(|_, open| which(&open.exchange));
    }

    /// The one exchange that waits for an answer, if there is exactly one. `read`: of those alone
    /// that somebody reads.
    pub(crate) fn only(&self, read: bool) -> Option<i64> {
        let waits = |open: &Open<E>| !(open.listens || read && open.to.is_closed());
        let mut waiting = self.open.iter().filter(|(_, open)| waits(open));
        let (number, _) = waiting.next()?;
        waiting.next().is_none().then_some(*number)
    }

    /// Closes an exchange before its answer; `false` where there is none.
    pub(crate) fn give_up(&mut self, number: i64) -> bool {
        let open = self.open.remove(&number).is_some();
        if open {
            self.given_up.insert(number);
            if self.given_up.len() > GIVEN_UP_MAX {
                self.given_up.pop_first();
            }
        }
        open
    }

    /// Whether exchange `number` was given up and its answer has not come yet; it has now.
    pub(crate) fn was_given_up(&mut self, number: i64) -> bool {
        self.given_up.remove(&number)
    }

    /// Gives up the slow reader `to`.
    pub(super) fn give_up_reader(&mut self, to: &mpsc::Sender<Item>, number: Option<i64>) {
        if let Some(number) = number {
            self.give_up(number);
        } else if self.stream.as_ref().is_some_and(|stream| stream.same_channel(to)) {
            self.stream = None;
        }
    }

    /// The way to the reader of exchange `number`.
    pub(super) fn reader(&self, number: i64) -> Option<mpsc::Sender<Item>> {
        self.open.get(&number).map(|open| open.to.clone())
    }

    /// The way of an answer: its exchange is over.
    pub(super) fn answer(
        &mut self,
        number: i64,
        message: Bytes,
        end: End,
        now: Duration,
    ) -> Option<Delivery> {
        let Open { to, .. } = self.open.remove(&number)?;
        self.answered = true;
        self.used = now;
        Some(Delivery { to, item: Item::Message(message, Some(end)), number: None })
    }

    /// The way of a message within exchange `number`.
    pub(super) fn within(&self, number: i64, message: Bytes) -> Option<Delivery> {
        let to = self.reader(number)?;
        Some(Delivery { to, item: Item::Message(message, None), number: Some(number) })
    }

    /// The way of a message for the stream of server messages.
    pub(super) fn streamed(&self, message: Bytes) -> Option<Delivery> {
        let to = self.stream.as_ref().filter(|open| !open.is_closed())?.clone();
        Some(Delivery { to, item: Item::Message(message, None), number: None })
    }

    /// The way of a message that is no answer: to exchange `named` if that is read, else to the
    /// stream of server messages, else to the oldest exchange that is read and `hears` anything.
    /// Without any of these the newest `backlog_max` messages are kept.
    pub(super) fn anybody(
        &mut self,
        named: Option<i64>,
        message: Bytes,
        hears: impl Fn(&E) -> bool,
        backlog_max: Option<usize>,
    ) -> Option<Delivery> {
        let is_read = |number: &i64| self.open.get(number).is_some_and(|open| !open.to.is_closed());
        if let Some(number) = named.filter(is_read) {
            return self.within(number, message);
        }
        if let Some(delivery) = self.streamed(message.clone()) {
            return Some(delivery);
        }
        let hears = |open: &Open<E>| !open.to.is_closed() && hears(&open.exchange);
        let oldest = self.open.iter().find(|(_, open)| hears(open)).map(|(number, _)| *number);
        if let Some(number) = oldest {
            return self.within(number, message);
        }
        let Some(backlog_max) = backlog_max else {
            tracing::debug!("message that nobody waits for dropped");
            return None;
        };
        if self.backlog.len() >= backlog_max {
            self.backlog.pop_front();
            tracing::debug!("oldest message that nobody heard is dropped");
        }
        self.backlog.push_back(message);
        None
    }

    /// Closes everything.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.open.clear();
        self.stream = None;
        self.backlog.clear();
    }

    /// Whether the server sends no more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the server has answered anything.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.values().any(|open| !open.listens && !open.to.is_closed())
    }

    /// Whether somebody reads an exchange or the stream of server messages.
    pub(super) fn is_read(&self) -> bool {
        let mut readers = self.open.values().map(|open| &open.to).chain(self.stream.as_ref());
        readers.any(|to| !to.is_closed())
    }
}
