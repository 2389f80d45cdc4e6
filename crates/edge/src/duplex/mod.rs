//! Multiplexes many agents over one duplex line: a child's pipes, or the POST endpoint and the
//! event stream of an HTTP+SSE server. `child` and `upstream::legacy_sse` implement [`Line`].
//!
//! Each request opens an exchange, and the server's messages arrive in one sequence. The [`Line`]
//! decides which exchange a message belongs to. A message that belongs to none goes to the stream
//! of server messages if that is open, else to the oldest exchange with a reader, else it is kept
//! for that stream. A slow reader delays the line (backpressure) for a limited time; then its
//! exchange is closed. This module decides nothing about content: the gate reads every message
//! again on its way to the client.

mod stream;
mod table;

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bartizan_sync::lock;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;

pub use self::stream::DuplexStream;
pub(crate) use self::stream::{End, ExchangeAnswer};
use self::stream::{Item, Owner};
use self::table::Delivery;
pub(crate) use self::table::ExchangeTable;
use crate::Answer;
use crate::clock::Clock;
use crate::kept::Account;
use crate::session::Departure;
use bartizan_gate::duty::duties::Duties;
use bartizan_gate::session::UpstreamFailure;

/// How often a draining line checks whether its calls have ended.
pub(crate) const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Limits of one line.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "each of them is a maximum")]
pub(crate) struct DuplexLimits {
    /// Exchanges open at once.
    pub(crate) exchanges_max: usize,
    /// Messages queued for the reader of one exchange.
    pub(crate) exchange_queue_max: usize,
    /// How long a message waits for a slow reader before its exchange is closed.
    pub(crate) exchange_wait_max: Duration,
    /// Messages kept for the stream of server messages while it is not open.
    pub(crate) backlog_max: usize,
}

/// Where a message of the server goes. An `i64` is the number of an exchange.
#[derive(Debug)]
pub(crate) enum Destination {
    /// To this exchange, as its answer.
    Answer(i64, Bytes, End),
    /// To this exchange.
    Exchange(i64, Bytes),
    /// To the exchange that it names, if that has a reader; else to the stream of server messages
    /// or to any exchange that accepts it.
    Anybody(Option<i64>, Bytes),
    /// To the stream of server messages; dropped if that is not open.
    Stream(Bytes),
    /// Dropped, after [`Line::unsolicited`] has recorded it.
    Unsolicited(Bytes),
    /// Dropped, after it was recorded as the late answer to this call.
    Late(Arc<dyn Departure>, Bytes),
    /// Dropped, for this reason.
    Nobody(&'static str),
}

/// One kind of line, and how its messages are matched with exchanges (correlation).
pub(crate) trait Line: fmt::Debug + Send + Sync + Sized + 'static {
    /// What is kept for an open exchange, to match its messages.
    type Exchange: fmt::Debug + Send;

    /// A message of the server after [`Line::read`].
    type Message;

    /// Parses a message. The table is not locked, so that parsing a long message delays nobody.
    fn read(&self, message: Bytes) -> Self::Message;

    /// Decides where `message` goes. The table is locked.
    fn route(
        &self,
        table: &mut ExchangeTable<Self::Exchange>,
        message: Self::Message,
    ) -> Destination;

    /// Whether a message that belongs to no exchange may go to this one.
    fn accepts_any_message(exchange: &Self::Exchange) -> bool;

    /// Whether messages without a reader are kept for the stream of server messages.
    fn keeps_backlog(&self) -> bool;

    /// Records a message that belongs to no exchange.
    fn unsolicited(&self, message: &Bytes);

    /// The reader of an exchange was dropped before its answer.
    fn reader_dropped(duplex: &Duplex<Self>, number: i64);

    /// What all calls on the line so far demand of messages that name none, as far as one session
    /// does not know it: none if the line is one session's.
    fn duties(&self) -> Arc<Duties> {
        Arc::default()
    }

    /// Why an exchange gets no answer. `ended`: the line has ended.
    fn failure(&self, ended: bool) -> impl Future<Output = UpstreamFailure> + Send;
}

/// A line and the exchanges that share it.
#[derive(Debug)]
pub(crate) struct Duplex<L: Line> {
    pub(crate) line: L,
    limits: DuplexLimits,
    clock: Clock,
    /// Where queued messages are charged.
    account: Account,
    table: Mutex<ExchangeTable<L::Exchange>>,
}

impl<L: Line> Duplex<L> {
    /// A line whose queued messages are charged to `account`.
    pub(crate) fn new(line: L, limits: DuplexLimits, clock: Clock, account: Account) -> Arc<Self> {
        let table = Mutex::new(ExchangeTable::new(clock.uptime()));
        Arc::new(Self { line, limits, clock, account, table })
    }

    /// Where messages on the line are charged.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// The exchanges.
    pub(crate) fn table(&self) -> MutexGuard<'_, ExchangeTable<L::Exchange>> {
        // No panic can leave the table half updated, so a poisoned lock is safe.
        lock(&self.table)
    }

    /// Opens an exchange. `describe` gets its number and returns what is kept for it and what the
    /// caller needs. `listens`: it stays open until one side ends it (`subscriptions/listen`).
    /// Fails if the line has ended or too many exchanges are open.
    pub(crate) async fn open<T>(
        self: &Arc<Self>,
        listens: bool,
        describe: impl FnOnce(i64) -> Result<(L::Exchange, T), UpstreamFailure>,
    ) -> Result<(DuplexStream, T), UpstreamFailure> {
        let (to, from) = mpsc::channel(self.limits.exchange_queue_max);
        let now = self.clock.uptime();
        let opened = self.table().open(to, listens, self.limits.exchanges_max, now, describe)?;
        let Some((number, more)) = opened else { return Err(self.failure().await) };
        let owner = Arc::clone(self);
        Ok((DuplexStream::new(owner, from, Some(number)), more))
    }

    /// Tells the reader of exchange `number` how the server answered the POST that carried the
    /// request, where the answer itself comes on the stream.
    pub(crate) async fn posted(&self, number: i64, outcome: Result<Answer, UpstreamFailure>) {
        let reader = self.table().reader(number);
        if let Some(reader) = reader {
            // The reader may have been dropped.
            drop(reader.send(Item::Posted(Box::new(outcome))).await);
        }
    }

    /// Opens the stream of server messages; `None` if one is open already (threat F7).
    pub(crate) fn open_server_stream(self: &Arc<Self>) -> Option<DuplexStream> {
        let room = self.limits.backlog_max.saturating_add(self.limits.exchange_queue_max);
        let (to, from) = mpsc::channel(room);
        if !self.table().set_stream(to, self.clock.uptime()) {
            return None;
        }
        let owner = Arc::clone(self);
        Some(DuplexStream::new(owner, from, None))
    }

    /// Marks the line as used.
    pub(crate) fn touch(&self) {
        self.table().used = self.clock.uptime();
    }

    /// Delivers a message of the server; waits for a slow reader up to
    /// [`DuplexLimits::exchange_wait_max`].
    pub(crate) async fn deliver(&self, message: Bytes) {
        let Some(Delivery { to, item, number }) = self.delivery(message) else { return };
        match timeout(self.limits.exchange_wait_max, to.send(item)).await {
            Ok(Ok(())) => {}
            Ok(Err(mpsc::error::SendError(Item::Message(answer, Some(_))))) => {
                // Its reader has gone just now.
                self.line.unsolicited(&answer);
            }
            Ok(Err(_gone)) => tracing::debug!("an exchange's reader was dropped; message dropped"),
            Err(_elapsed) => {
                tracing::warn!("an exchange's reader is too slow; closing the exchange");
                self.table().give_up_reader(&to, number);
            }
        }
    }

    fn delivery(&self, message: Bytes) -> Option<Delivery> {
        let message = self.line.read(message);
        let mut table = self.table();
        let delivery = match self.line.route(&mut table, message) {
            Destination::Answer(number, message, end) => {
                table.answer(number, message, end, self.clock.uptime())
            }
            Destination::Exchange(number, message) => table.within(number, message),
            Destination::Anybody(named, message) => {
                let backlog = (self.limits.backlog_max, &self.account);
                let backlog = self.line.keeps_backlog().then_some(backlog);
                table.anybody(named, message, L::accepts_any_message, backlog)
            }
            Destination::Stream(message) => {
                let delivery = table.streamed(message);
                if delivery.is_none() {
                    tracing::warn!("unreadable message of a server dropped");
                }
                delivery
            }
            Destination::Unsolicited(message) => {
                drop(table);
                self.line.unsolicited(&message);
                return None;
            }
            Destination::Late(departure, message) => {
                drop(table);
                departure.answered(&message);
                return None;
            }
            Destination::Nobody(why) => {
                tracing::debug!(why, "message of a server dropped");
                None
            }
        };
        let Delivery { to, item, number } = delivery?;
        let (item, fits) = item.charged(&self.account);
        if !fits {
            tracing::warn!("no memory is left for the messages of a server; closing the exchange");
            table.give_up_reader(&to, number);
        }
        Some(Delivery { to, item, number })
    }

    /// The server sends no more. Dropping the senders wakes the readers; each then asks for the
    /// [`Duplex::failure`].
    pub(crate) fn end(&self) {
        self.table().end();
    }

    /// Why an exchange gets no answer.
    pub(crate) async fn failure(&self) -> UpstreamFailure {
        let ended = self.table().has_ended();
        self.line.failure(ended).await
    }

    /// For how long the line has been unused; `None` while somebody reads from it.
    pub(crate) fn unused(&self) -> Option<Duration> {
        let table = self.table();
        (!table.is_read()).then(|| self.clock.uptime().saturating_sub(table.used))
    }
}

impl<L: Line> Owner for Duplex<L> {
    fn failure(&self) -> Pin<Box<dyn Future<Output = UpstreamFailure> + Send + '_>> {
        Box::pin(self.failure())
    }

    fn reader_dropped(&self, number: i64) {
        L::reader_dropped(self, number);
    }

    fn duties(&self) -> Arc<Duties> {
        self.line.duties()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;
    use bartizan_gate::memory::MemoryBudget;

    /// What may be kept, bytes; one owner has half of it.
    const KEPT_BYTES: usize = 200;

    /// A line whose messages name their destination.
    #[derive(Debug, Default)]
    struct ScriptedLine {
        unsolicited: Mutex<Vec<Bytes>>,
        /// Locked while messages must wait to be read.
        unreadable: Mutex<()>,
        /// Whether a message is being read.
        reading: AtomicBool,
    }

    impl Line for ScriptedLine {
        type Exchange = ();
        type Message = Bytes;

        fn read(&self, message: Bytes) -> Bytes {
            self.reading.store(true, Ordering::SeqCst);
            drop(lock(&self.unreadable));
            message
        }

        fn route(&self, table: &mut ExchangeTable<()>, message: Bytes) -> Destination {
            let text = String::from_utf8(message.to_vec()).unwrap();
            let (word, number) = text.split_once(' ').unwrap_or((&text, "0"));
            let number: i64 = number.parse().unwrap();
            match word {
                "answer" if table.take_abandoned(number).is_some() => {
                    Destination::Nobody("it was given up")
                }
                "answer" if table.get(number).is_some() => {
                    Destination::Answer(number, message, End::Result)
                }
                "progress" => Destination::Exchange(number, message),
                "named" => Destination::Anybody(Some(number), message),
                "notice" => Destination::Anybody(None, message),
                "streamed" => Destination::Stream(message),
                _ => Destination::Unsolicited(message),
            }
        }

        fn accepts_any_message((): &()) -> bool {
            true
        }

        fn keeps_backlog(&self) -> bool {
            true
        }

        fn unsolicited(&self, message: &Bytes) {
            self.unsolicited.lock().unwrap().push(message.clone());
        }

        fn reader_dropped(duplex: &Duplex<Self>, number: i64) {
            duplex.table().give_up(number);
        }

        async fn failure(&self, ended: bool) -> UpstreamFailure {
            if ended { UpstreamFailure::TimedOut } else { UpstreamFailure::EndedEarly }
        }
    }

    fn line() -> Arc<Duplex<ScriptedLine>> {
        let limits = DuplexLimits {
            exchanges_max: 2,
            exchange_queue_max: 1,
            exchange_wait_max: Duration::from_millis(20),
            backlog_max: 2,
        };
        let account = Account::new(&MemoryBudget::new(KEPT_BYTES), "a");
        Duplex::new(ScriptedLine::default(), limits, Clock::start(), account)
    }

    async fn open(line: &Arc<Duplex<ScriptedLine>>) -> Result<DuplexStream, UpstreamFailure> {
        let (stream, ()) = line.open(false, |_| Ok(((), ()))).await?;
        Ok(stream)
    }

    async fn say(line: &Duplex<ScriptedLine>, message: &'static str) {
        line.deliver(Bytes::from_static(message.as_bytes())).await;
    }

    async fn read(stream: &mut DuplexStream) -> Option<String> {
        let event = timeout(Duration::from_secs(10), stream.next()).await.expect("a message")?;
        Some(String::from_utf8(event.unwrap().data.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_message_goes_to_its_exchange_and_the_rest_to_whoever_hears_it() {
        let line = line();
        for kept in ["notice 1", "notice 2", "notice 3"] {
            say(&line, kept).await;
        }
        let mut one = open(&line).await.unwrap();
        say(&line, "notice 4").await;
        assert_eq!(read(&mut one).await.unwrap(), "notice 4", "the oldest that is read");
        let mut heard = line.open_server_stream().unwrap();
        assert!(line.open_server_stream().is_none(), "one at a time");
        assert_eq!(read(&mut heard).await.unwrap(), "notice 2", "the newest were kept");
        assert_eq!(read(&mut heard).await.unwrap(), "notice 3");
        let two = open(&line).await.unwrap();
        assert!(open(&line).await.is_err(), "two are the most");
        let mut streams = [one, two, heard];
        for (message, to) in [
            ("progress 2", 1),
            ("named 1", 0),
            ("notice 5", 2),
            ("named 7", 2),
            ("streamed", 2),
            ("answer 2", 1),
            ("answer 1", 0),
        ] {
            say(&line, message).await;
            assert_eq!(read(&mut streams[to]).await.unwrap(), message);
        }
        let [_, mut two, heard] = streams;
        assert_eq!(read(&mut two).await, None, "nothing follows an answer");
        say(&line, "answer 2").await;
        assert_eq!(*line.line.unsolicited.lock().unwrap(), ["answer 2"], "answered already");
        drop(heard);
        assert!(line.open_server_stream().is_some());
    }

    #[tokio::test]
    async fn what_waits_is_charged_and_what_does_not_fit_ends_its_exchange() {
        let line = line();
        let memory = Arc::clone(line.account.memory());
        let kept = "notice 1234567890123456789";
        say(&line, kept).await;
        say(&line, kept).await;
        assert_eq!(memory.used(), 2 * kept.len(), "the backlog");
        let mut stream = line.open_server_stream().unwrap();
        let mut one = open(&line).await.unwrap();
        say(&line, "progress 1").await;
        assert_eq!(memory.used(), 2 * kept.len() + 10, "the queues");
        assert_eq!(read(&mut stream).await.unwrap(), kept);
        assert_eq!(memory.used(), kept.len() + 10, "what is read is given back");
        assert_eq!(read(&mut one).await.unwrap(), "progress 1");
        let full = memory.count("a", KEPT_BYTES);
        say(&line, "answer 1").await;
        let failure = one.next().await.unwrap().unwrap_err();
        assert!(format!("{failure:?}").contains("limits.kept_bytes"), "{failure:?}");
        say(&line, kept).await;
        assert_eq!(read(&mut stream).await.unwrap(), kept, "it was kept before");
        assert_eq!(read(&mut stream).await, None, "the stream of server messages ends");
        say(&line, kept).await;
        drop((full, stream, one));
        assert_eq!(memory.used(), 0, "and nothing is kept for the next");
    }

    #[tokio::test]
    async fn who_reads_too_slowly_is_given_up_and_nobody_else() {
        let line = line();
        let mut slow = open(&line).await.unwrap();
        let mut heard = line.open_server_stream().unwrap();
        say(&line, "progress 1").await;
        say(&line, "progress 1").await;
        assert_eq!(read(&mut slow).await.unwrap(), "progress 1");
        assert_eq!(slow.next().await.unwrap().unwrap_err(), UpstreamFailure::EndedEarly);
        say(&line, "answer 1").await;
        assert!(line.line.unsolicited.lock().unwrap().is_empty(), "its late answer is expected");
        // An answer that is not taken ends its exchange alone.
        let slow = open(&line).await.unwrap();
        say(&line, "progress 2").await;
        say(&line, "answer 2").await;
        drop(slow);
        say(&line, "notice").await;
        assert_eq!(read(&mut heard).await.unwrap(), "notice", "the stream is still open");
    }

    #[tokio::test]
    async fn the_line_can_be_asked_while_a_long_message_is_read() {
        let line = line();
        let unreadable = lock(&line.line.unreadable);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                runtime.unwrap().block_on(say(&line, "notice"));
            });
            while !line.line.reading.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            let free = line.table.try_lock().is_ok();
            drop(unreadable);
            reader.join().unwrap();
            assert!(free, "the table is locked while a message is read");
        });
    }

    #[tokio::test]
    async fn the_end_of_the_line_is_told_to_everybody() {
        let line = line();
        let mut one = open(&line).await.unwrap();
        let mut heard = line.open_server_stream().unwrap();
        assert!(line.unused().is_none() && line.table().is_busy());
        line.end();
        assert_eq!(one.next().await.unwrap().unwrap_err(), UpstreamFailure::TimedOut);
        assert!(heard.next().await.is_none());
        assert_eq!(open(&line).await.unwrap_err(), UpstreamFailure::TimedOut);
        assert!(line.open_server_stream().is_none() && line.unused().is_some());
    }

    #[tokio::test]
    async fn a_request_that_was_not_taken_is_answered_by_its_status() {
        let line = line();
        let long = Duration::from_secs(10);
        let stream = open(&line).await.unwrap();
        line.posted(1, Ok(Answer::bare(401))).await;
        let answered = stream.answer(false, long).await.unwrap();
        assert!(
            matches!(answered, ExchangeAnswer::Status(Answer::Whole { status: 401, .. })),
            "{answered:?}"
        );
        let stream = open(&line).await.unwrap();
        line.posted(2, Err(UpstreamFailure::TimedOut)).await;
        let failed = stream.answer(false, long).await;
        assert_eq!(failed.unwrap_err(), UpstreamFailure::TimedOut);
        let stream = open(&line).await.unwrap();
        line.posted(3, Ok(Answer::accepted(202))).await;
        let answered = stream.answer(false, Duration::ZERO).await.unwrap();
        let ExchangeAnswer::Stream(mut stream) = answered else { panic!("{answered:?}") };
        say(&line, "answer 3").await;
        assert_eq!(read(&mut stream).await.unwrap(), "answer 3");
        let stream = open(&line).await.unwrap();
        say(&line, "answer 4").await;
        let answered = stream.answer(true, long).await.unwrap();
        assert!(matches!(answered, ExchangeAnswer::Whole(_, End::Result)), "{answered:?}");
    }
}
