//! Many agents over one duplex line: a child's pipes, or the POST endpoint and the event stream of
//! an HTTP+SSE server.
//!
//! Each request opens an exchange, and the messages that the server sends come in one sequence. The
//! [`Line`] tells which exchange a message belongs to. A message that belongs to none goes to the
//! stream of server messages if one is open, else to the oldest exchange that is read, else it waits
//! for that stream. A slow reader holds up the line for a bounded time and is then given up. Decides
//! nothing about content: the gate reads every message again on its way to the client.

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
pub(crate) use self::stream::{Answered, End};
use self::stream::{Item, Owner};
use self::table::Delivery;
pub(crate) use self::table::Table;
use crate::Answer;
use crate::clock::Clock;
use bartizan_gate::session::UpstreamFailure;

/// How often a line that drains looks whether its calls are over.
pub(crate) const DRAIN_STEP: Duration = Duration::from_millis(20);

/// Bounds on what passes over one line.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "each of them is a maximum")]
pub(crate) struct DuplexLimits {
    /// Exchanges open at once.
    pub(crate) exchanges_max: usize,
    /// Messages waiting for the reader of one exchange.
    pub(crate) exchange_queue_max: usize,
    /// How long a message waits for a slow reader before its exchange is given up.
    pub(crate) exchange_wait_max: Duration,
    /// Messages kept for the stream of server messages while it is not open.
    pub(crate) backlog_max: usize,
}

/// Where a message of the server goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// To this exchange, whose answer it is.
    Answer(i64, Bytes, End),
    /// To this exchange.
    Exchange(i64, Bytes),
    /// To the exchange that it names, if that is read; else to whoever can hear it.
    Anybody(Option<i64>, Bytes),
    /// To the stream of server messages, or to nobody.
    Stream(Bytes),
    /// To nobody, and [`Line::stray`] is told.
    Stray(Bytes),
    /// To nobody, for this reason.
    Nobody(&'static str),
}

/// One kind of line, and how its messages are told apart.
pub(crate) trait Line: fmt::Debug + Send + Sync + Sized + 'static {
    /// What is remembered of an open exchange, to tell its messages from others.
    type Exchange: fmt::Debug + Send;

    /// A message of the server, as it was read.
    type Message;

    /// Reads a message. The table is not locked: a long message would hold up everybody who asks
    /// the line anything meanwhile.
    fn read(&self, message: Bytes) -> Self::Message;

    /// Whose `message` this is. The table is locked.
    fn route(&self, table: &mut Table<Self::Exchange>, message: Self::Message) -> Route;

    /// Whether a message that belongs to no exchange may go to this one.
    fn hears_anything(exchange: &Self::Exchange) -> bool;

    /// Whether messages that nobody can hear yet are kept.
    fn keeps_backlog(&self) -> bool;

    /// Takes a message that belongs to nobody.
    fn stray(&self, message: &Bytes);

    /// The reader of an exchange went away before its answer.
    fn abandoned(duplex: &Duplex<Self>, number: i64);

    /// Why an exchange gets no answer; `ended` says whether the server's messages are over.
    fn failure(&self, ended: bool) -> impl Future<Output = UpstreamFailure> + Send;
}

/// A line and the exchanges that share it.
#[derive(Debug)]
pub(crate) struct Duplex<L: Line> {
    pub(crate) line: L,
    limits: DuplexLimits,
    clock: Clock,
    table: Mutex<Table<L::Exchange>>,
}

impl<L: Line> Duplex<L> {
    pub(crate) fn new(line: L, limits: DuplexLimits, clock: Clock) -> Arc<Self> {
        let table = Mutex::new(Table::new(clock.uptime()));
        Arc::new(Self { line, limits, clock, table })
    }

    /// The exchanges.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table<L::Exchange>> {
        // No panic can leave the table half updated, so a poisoned lock is safe.
        lock(&self.table)
    }

    /// Opens an exchange, and gives what `describe` makes of its number: what is remembered of it,
    /// and whatever else the caller needs. `listens`: it stays open until somebody ends it.
    pub(crate) async fn open<T>(
        self: &Arc<Self>,
        listens: bool,
        describe: impl FnOnce(i64) -> Result<(L::Exchange, T), UpstreamFailure>,
    ) -> Result<(DuplexStream, T), UpstreamFailure> {
        let (to, from) = mpsc::channel(self.limits.exchange_queue_max);
        let now = self.clock.uptime();
        let opened = self.table().open((to, listens), self.limits.exchanges_max, now, describe)?;
        let Some((number, more)) = opened else { return Err(self.failure().await) };
        let owner = Arc::clone(self);
        Ok((DuplexStream::new(owner, from, Some(number)), more))
    }

    /// Tells the reader of exchange `number` how the server took the request itself, where that is
    /// answered apart from the request's own answer.
    pub(crate) async fn posted(&self, number: i64, outcome: Result<Answer, UpstreamFailure>) {
        let reader = self.table().reader(number);
        if let Some(reader) = reader {
            // The reader may be gone by now.
            drop(reader.send(Item::Posted(Box::new(outcome))).await);
        }
    }

    /// Opens the stream of server messages; `None` where one is open already (threat F7).
    pub(crate) fn hear(self: &Arc<Self>) -> Option<DuplexStream> {
        let room = self.limits.backlog_max.saturating_add(self.limits.exchange_queue_max);
        let (to, from) = mpsc::channel(room);
        if !self.table().hear(to, self.clock.uptime()) {
            return None;
        }
        let owner = Arc::clone(self);
        Some(DuplexStream::new(owner, from, None))
    }

    /// The client said something.
    pub(crate) fn touch(&self) {
        self.table().used = self.clock.uptime();
    }

    /// Hands a message of the server to whom it belongs, waiting a bounded time for a slow reader.
    pub(crate) async fn deliver(&self, message: Bytes) {
        let Some(Delivery { to, item, number }) = self.delivery(message) else { return };
        match timeout(self.limits.exchange_wait_max, to.send(item)).await {
            Ok(Ok(())) => {}
            Ok(Err(_gone)) => tracing::debug!("the reader of an exchange is gone"),
            Err(_elapsed) => {
                tracing::warn!("the reader of an exchange is too slow; giving it up");
                self.table().give_up_reader(&to, number);
            }
        }
    }

    fn delivery(&self, message: Bytes) -> Option<Delivery> {
        let message = self.line.read(message);
        let mut table = self.table();
        match self.line.route(&mut table, message) {
            Route::Answer(number, message, end) => {
                table.answer(number, message, end, self.clock.uptime())
            }
            Route::Exchange(number, message) => table.within(number, message),
            Route::Anybody(named, message) => {
                let backlog = self.line.keeps_backlog().then_some(self.limits.backlog_max);
                table.anybody(named, message, L::hears_anything, backlog)
            }
            Route::Stream(message) => {
                let delivery = table.streamed(message);
                if delivery.is_none() {
                    tracing::warn!("server wrote an unreadable message; dropped");
                }
                delivery
            }
            Route::Stray(message) => {
                drop(table);
                self.line.stray(&message);
                None
            }
            Route::Nobody(why) => {
                tracing::debug!(why, "message of a server dropped");
                None
            }
        }
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

    /// For how long nobody has used the line; `None` while somebody reads.
    pub(crate) fn unused(&self) -> Option<Duration> {
        let table = self.table();
        (!table.is_read()).then(|| self.clock.uptime().saturating_sub(table.used))
    }
}

impl<L: Line> Owner for Duplex<L> {
    fn failure(&self) -> Pin<Box<dyn Future<Output = UpstreamFailure> + Send + '_>> {
        Box::pin(self.failure())
    }

    fn abandoned(&self, number: i64) {
        L::abandoned(self, number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    /// A line whose messages say themselves where they go.
    #[derive(Debug, Default)]
    struct Spelt {
        strays: Mutex<Vec<Bytes>>,
        /// Locked while no message can be read.
        unreadable: Mutex<()>,
        /// Whether a message is being read.
        reading: AtomicBool,
    }

    impl Line for Spelt {
        type Exchange = ();
        type Message = Bytes;

        fn read(&self, message: Bytes) -> Bytes {
            self.reading.store(true, Ordering::SeqCst);
            drop(lock(&self.unreadable));
            message
        }

        fn route(&self, table: &mut Table<()>, message: Bytes) -> Route {
            let text = String::from_utf8(message.to_vec()).unwrap();
            let (word, number) = text.split_once(' ').unwrap_or((&text, "0"));
            let number: i64 = number.parse().unwrap();
            match word {
                "answer" if table.was_given_up(number) => Route::Nobody("it was given up"),
                "answer" if table.get(number).is_some() => {
                    Route::Answer(number, message, End::Result)
                }
                "progress" => Route::Exchange(number, message),
                "named" => Route::Anybody(Some(number), message),
                "notice" => Route::Anybody(None, message),
                "streamed" => Route::Stream(message),
                _ => Route::Stray(message),
            }
        }

        fn hears_anything((): &()) -> bool {
            true
        }

        fn keeps_backlog(&self) -> bool {
            true
        }

        fn stray(&self, message: &Bytes) {
            self.strays.lock().unwrap().push(message.clone());
        }

        fn abandoned(duplex: &Duplex<Self>, number: i64) {
            duplex.table().give_up(number);
        }

        async fn failure(&self, ended: bool) -> UpstreamFailure {
            if ended { UpstreamFailure::TimedOut } else { UpstreamFailure::EndedEarly }
        }
    }

    fn line() -> Arc<Duplex<Spelt>> {
        let limits = DuplexLimits {
            exchanges_max: 2,
            exchange_queue_max: 1,
            exchange_wait_max: Duration::from_millis(20),
            backlog_max: 2,
        };
        Duplex::new(Spelt::default(), limits, Clock::start())
    }

    async fn open(line: &Arc<Duplex<Spelt>>) -> Result<DuplexStream, UpstreamFailure> {
        let (stream, ()) = line.open(false, |_| Ok(((), ()))).await?;
        Ok(stream)
    }

    async fn say(line: &Duplex<Spelt>, message: &'static str) {
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
        let mut heard = line.hear().unwrap();
        assert!(line.hear().is_none(), "one at a time");
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
        assert_eq!(*line.line.strays.lock().unwrap(), ["answer 2"], "answered already");
        drop(heard);
        assert!(line.hear().is_some());
    }

    #[tokio::test]
    async fn who_reads_too_slowly_is_given_up_and_nobody_else() {
        let line = line();
        let mut slow = open(&line).await.unwrap();
        let mut heard = line.hear().unwrap();
        say(&line, "progress 1").await;
        say(&line, "progress 1").await;
        assert_eq!(read(&mut slow).await.unwrap(), "progress 1");
        assert_eq!(slow.next().await.unwrap().unwrap_err(), UpstreamFailure::EndedEarly);
        say(&line, "answer 1").await;
        assert!(line.line.strays.lock().unwrap().is_empty(), "its late answer is expected");
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
        let mut heard = line.hear().unwrap();
        assert!(line.unused().is_none() && line.table().is_busy());
        line.end();
        assert_eq!(one.next().await.unwrap().unwrap_err(), UpstreamFailure::TimedOut);
        assert!(heard.next().await.is_none());
        assert_eq!(open(&line).await.unwrap_err(), UpstreamFailure::TimedOut);
        assert!(line.hear().is_none() && line.unused().is_some());
    }

    #[tokio::test]
    async fn a_request_that_was_not_taken_is_answered_by_its_status() {
        let line = line();
        let long = Duration::from_secs(10);
        let stream = open(&line).await.unwrap();
        line.posted(1, Ok(Answer::bare(401))).await;
        let answered = stream.answer(false, long).await.unwrap();
        assert!(
            matches!(answered, Answered::Turned(Answer::Whole { status: 401, .. })),
            "{answered:?}"
        );
        let stream = open(&line).await.unwrap();
        line.posted(2, Err(UpstreamFailure::TimedOut)).await;
        let failed = stream.answer(false, long).await;
        assert_eq!(failed.unwrap_err(), UpstreamFailure::TimedOut);
        let stream = open(&line).await.unwrap();
        line.posted(3, Ok(Answer::accepted(202))).await;
        let answered = stream.answer(false, Duration::ZERO).await.unwrap();
        let Answered::Stream(mut stream) = answered else { panic!("{answered:?}") };
        say(&line, "answer 3").await;
        assert_eq!(read(&mut stream).await.unwrap(), "answer 3");
        let stream = open(&line).await.unwrap();
        say(&line, "answer 4").await;
        let answered = stream.answer(true, long).await.unwrap();
        assert!(matches!(answered, Answered::Whole(_, End::Result)), "{answered:?}");
    }
}
