//! The table of one line's exchanges: who waits for what. Pure: nothing here waits.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::stream::{End, Item};
use crate::kept::Account;
use bartizan_gate::session::UpstreamFailure;

/// Exchanges closed before their answer, kept for one line: a late answer to one of them is expected.
const GIVEN_UP_MAX: usize = 256;

/// One message and the reader that it goes to.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) to: mpsc::Sender<Item>,
    pub(super) item: Item,
    /// The exchange, if it stays open.
    pub(super) number: Option<i64>,
}

/// An open exchange.
#[derive(Debug)]
struct OpenExchange<E> {
    exchange: E,
    to: mpsc::Sender<Item>,
    listens: bool,
}

/// The exchanges of one line.
#[derive(Debug)]
pub(crate) struct ExchangeTable<E> {
    next: i64,
    /// By number, which is by age.
    open: BTreeMap<i64, OpenExchange<E>>,
    /// Exchanges that were closed before their answer.
    given_up: BTreeMap<i64, E>,
    stream: Option<mpsc::Sender<Item>>,
    /// Messages that wait for the stream of server messages.
    backlog: VecDeque<Bytes>,
    /// When the line was last used, as uptime.
    pub(super) used: Duration,
    answered: bool,
    ended: bool,
}

impl<E> ExchangeTable<E> {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            next: 1,
            open: BTreeMap::new(),
            given_up: BTreeMap::new(),
            stream: None,
            backlog: VecDeque::new(),
            used: now,
            answered: false,
            ended: false,
        }
    }

    /// Opens an exchange; `None` if the line has ended. Fails if `exchanges_max` are open.
    pub(super) fn open<T>(
        &mut self,
        to: mpsc::Sender<Item>,
        listens: bool,
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
        self.open.insert(number, OpenExchange { exchange, to, listens });
        Ok(Some((number, more)))
    }

    /// Opens the stream of server messages and gives it the backlog; `false` if one is open or the
    /// line has ended.
    pub(super) fn set_stream(&mut self, to: mpsc::Sender<Item>, now: Duration) -> bool {
        if self.ended || self.stream.as_ref().is_some_and(|open| !open.is_closed()) {
            return false;
        }
        for message in self.backlog.drain(..) {
            if to.try_send(Item::Message(message, None)).is_err() {
                tracing::debug!("stream queue is full; kept message dropped");
            }
        }
        self.used = now;
        self.stream = Some(to);
        true
    }

    /// What is kept for exchange `number`.
    pub(crate) fn get(&self, number: i64) -> Option<&E> {
        self.open.get(&number).map(|open| &open.exchange)
    }

    /// The open exchanges, oldest first.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (i64, &E)> {
        self.open.iter().map(|(number, open)| (*number, &open.exchange))
    }

    /// Like [`ExchangeTable::iter`].
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (i64, &mut E)> {
        self.open.iter_mut().map(|(number, open)| (*number, &mut open.exchange))
    }

    /// Closes the exchanges for which `which` is false; no answer is expected for them.
    pub(crate) fn retain(&mut self, mut which: impl FnMut(&E) -> bool) {
        self.open.retain(|_, open| which(&open.exchange));
    }

    /// The exchange that waits for an answer, if there is exactly one. `read`: only exchanges with
    /// a reader count.
    pub(crate) fn only(&self, read: bool) -> Option<i64> {
        let waits = |open: &OpenExchange<E>| !(open.listens || read && open.to.is_closed());
        let mut waiting = self.open.iter().filter(|(_, open)| waits(open));
        let (number, _) = waiting.next()?;
        waiting.next().is_none().then_some(*number)
    }

    /// Closes an exchange before its answer and returns what is kept for it; `None` if it is not
    /// open.
    pub(crate) fn give_up(&mut self, number: i64) -> Option<&E> {
        let OpenExchange { exchange, .. } = self.open.remove(&number)?;
        if self.given_up.len() >= GIVEN_UP_MAX {
            self.given_up.pop_first();
        }
        Some(self.given_up.entry(number).or_insert(exchange))
    }

    /// The exchange that an error without an id must belong to: the only one that is open, if no
    /// other was closed before its answer.
    pub(crate) fn only_owed(&self) -> Option<i64> {
        self.only(false).filter(|_| self.given_up.is_empty())
    }

    /// Takes exchange `number` if nobody waits for its answer, which has come now: it was given up,
    /// or its reader is gone.
    pub(crate) fn take_abandoned(&mut self, number: i64) -> Option<E> {
        if let Some(exchange) = self.given_up.remove(&number) {
            return Some(exchange);
        }
        self.open.get(&number).filter(|open| open.to.is_closed())?;
        self.answered = true;
        self.open.remove(&number).map(|open| open.exchange)
    }

    /// Closes the exchange, or the stream of server messages, of the slow reader `to`.
    pub(super) fn give_up_reader(&mut self, to: &mpsc::Sender<Item>, number: Option<i64>) {
        if let Some(number) = number {
            self.give_up(number);
        } else if self.stream.as_ref().is_some_and(|stream| stream.same_channel(to)) {
            self.stream = None;
        }
    }

    /// The queue of exchange `number`'s reader.
    pub(super) fn reader(&self, number: i64) -> Option<mpsc::Sender<Item>> {
        self.open.get(&number).map(|open| open.to.clone())
    }

    /// Routes an answer and closes its exchange.
    pub(super) fn answer(
        &mut self,
        number: i64,
        message: Bytes,
        end: End,
        now: Duration,
    ) -> Option<Delivery> {
        let OpenExchange { to, .. } = self.open.remove(&number)?;
        self.answered = true;
        self.used = now;
        Some(Delivery { to, item: Item::Message(message, Some(end)), number: None })
    }

    /// Routes a message within exchange `number`.
    pub(super) fn within(&self, number: i64, message: Bytes) -> Option<Delivery> {
        let to = self.reader(number)?;
        Some(Delivery { to, item: Item::Message(message, None), number: Some(number) })
    }

    /// Routes a message to the stream of server messages; `None` if that is not open.
    pub(super) fn streamed(&self, message: Bytes) -> Option<Delivery> {
        let to = self.stream.as_ref().filter(|open| !open.is_closed())?.clone();
        Some(Delivery { to, item: Item::Message(message, None), number: None })
    }

    /// Routes a message that is no answer: to exchange `named` if that has a reader, else to the
    /// stream of server messages, else to the oldest exchange with a reader that `hears` anything.
    /// If there is none, the newest messages are kept: as many as `backlog` says, charged to it.
    pub(super) fn anybody(
        &mut self,
        named: Option<i64>,
        message: Bytes,
        hears: impl Fn(&E) -> bool,
        backlog: Option<(usize, &Account)>,
    ) -> Option<Delivery> {
        let is_read = |number: &i64| self.open.get(number).is_some_and(|open| !open.to.is_closed());
        if let Some(number) = named.filter(is_read) {
            return self.within(number, message);
        }
        if let Some(delivery) = self.streamed(message.clone()) {
            return Some(delivery);
        }
        let hears = |open: &OpenExchange<E>| !open.to.is_closed() && hears(&open.exchange);
        let oldest = self.open.iter().find(|(_, open)| hears(open)).map(|(number, _)| *number);
        if let Some(number) = oldest {
            let to = self.reader(number)?;
            return Some(Delivery { to, item: Item::Stray(message), number: Some(number) });
        }
        let Some((backlog_max, account)) = backlog else {
            tracing::debug!("message without a reader dropped");
            return None;
        };
        if self.backlog.len() >= backlog_max {
            self.backlog.pop_front();
            tracing::debug!("backlog is full; oldest message dropped");
        }
        match account.hold(message) {
            Ok(message) => self.backlog.push_back(message),
            Err(_) => tracing::warn!("no memory is left for the messages of a server; one dropped"),
        }
        None
    }

    /// Closes all exchanges and the stream of server messages.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.open.clear();
        self.stream = None;
        self.backlog.clear();
    }

    /// Whether the line has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the server has answered anything.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered
    }

    /// Whether an exchange with a reader waits for an answer.
    pub(crate) fn is_busy(&self) -> bool {
        self.open.values().any(|open| !open.listens && !open.to.is_closed())
    }

    /// Whether an exchange or the stream of server messages has a reader.
    pub(super) fn is_read(&self) -> bool {
        let mut readers = self.open.values().map(|open| &open.to).chain(self.stream.as_ref());
        readers.any(|to| !to.is_closed())
    }
}
