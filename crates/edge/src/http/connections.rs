//! The open connections of the listener: their number, and which give way to a new one.
//!
//! If all places are taken, connections without a request that has arrived whole are closed, first
//! those that never had one (threat K3). If every connection has a request in progress, or the
//! system is out of file descriptors, the new client gets 503: none waits without an answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_sync::lock;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::connection_state::{ConnectionState, NO_ROOM};

/// Pause after a failed `accept`. Without it, running out of file descriptors would make a busy
/// loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// TCP keep-alive: how long a connection is silent before the kernel sends the first probe.
const SILENT_MAX: Duration = Duration::from_mins(1);
/// TCP keep-alive: time between two probes.
const PROBE_INTERVAL: Duration = Duration::from_secs(15);
/// TCP keep-alive: unanswered probes before the kernel closes the connection. With the values above
/// that is two minutes after the last sign of life.
const PROBES_MAX: u32 = 4;
/// Bytes of answers that the kernel takes before it has sent them. By itself it takes up to 4 MiB
/// for each connection (`tcp_wmem`), which no budget of ours counts: a client that asks for large
/// answers and reads none would fill the memory (threat K9).
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 128 << 10;
/// How long bytes that we sent may stay unacknowledged (RFC 5482): as long as probes do. While bytes
/// wait for their acknowledgement the kernel sends no probes, and would go on for a quarter of an
/// hour; keep-alive comments are such bytes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX_MS: u32 = 120_000;
/// Of all connections, one in so many gives way at once, so that finding them costs little for each
/// new one.
const SHED_SHARE: usize = 16;

/// The open connections.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    made: u64,
    open: BTreeMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    state: Arc<ConnectionState>,
    /// Ends its task; `None` until that runs.
    task: Option<AbortHandle>,
}

impl Connections {
    /// At most `max` connections.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, table: Mutex::default() })
    }

    /// A place for a connection with `state`; others give way to it. `None` if all others have a
    /// request in progress.
    pub(super) fn place(self: &Arc<Self>, state: &Arc<ConnectionState>) -> Option<Place> {
        let full = lock(&self.table).open.len() >= self.max;
        if full && self.shed() == 0 {
            return None;
        }
        let mut table = lock(&self.table);
        table.made = table.made.saturating_add(1);
        let number = table.made;
        state.set_number(number);
        table.open.insert(number, OpenConnection { state: Arc::clone(state), task: None });
        Some(Place { connections: Arc::clone(self), number })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        lock(&self.table).open.len()
    }

    /// Says which task serves connection `number`.
    pub(super) fn runs(&self, number: u64, task: AbortHandle) {
        if let Some(open) = lock(&self.table).open.get_mut(&number) {
            open.task = Some(task);
        }
    }

    /// Closes connection `number`.
    pub(super) fn end(&self, number: u64) {
        let task = lock(&self.table).open.remove(&number).and_then(|open| open.task);
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Closes connections that give way; how many.
    fn shed(&self) -> usize {
        let mut table = lock(&self.table);
        let mut idle: Vec<_> = table
            .open
            .iter()
            .filter(|(_, open)| open.task.is_some() && open.state.gives_way())
            .map(|(number, open)| (open.state.idle_order(), *number))
            .collect();
        let count = self.max.div_ceil(SHED_SHARE).min(idle.len());
        if count < idle.len() {
            idle.select_nth_unstable(count);
        }
        for (_, number) in idle.iter().take(count) {
            let task = table.open.remove(number).and_then(|open| open.task);
            if let Some(task) = task {
                task.abort();
            }
        }
        drop(table);
        if count > 0 {
            tracing::warn!(count, max = self.max, "closed idle connections for new ones");
        }
        count
    }
}

/// The place of one connection, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    number: u64,
}

impl Place {
    /// The connection's number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.connections.table).open.remove(&self.number);
    }
}

/// Accepts connections, also when the system is out of file descriptors.
#[derive(Debug)]
pub(super) struct Acceptor {
    tcp: TcpListener,
    connections: Arc<Connections>,
    /// A descriptor that can be given up to tell one client that there is none.
    spare: Option<File>,
}

impl Acceptor {
    pub(super) fn new(tcp: TcpListener, connections: &Arc<Connections>) -> Self {
        Self { tcp, connections: Arc::clone(connections), spare: spare() }
    }

    /// The next connection that has a place.
    pub(super) async fn accept(&mut self) -> (TcpStream, Arc<ConnectionState>, Place) {
        loop {
            let stream = match self.tcp.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            };
            let state = Arc::default();
            match self.connections.place(&state) {
                // A peer that has gone already has no options.
                Some(place) if prepared(&stream).is_ok() => return (stream, state, place),
                Some(_) => {}
                // It may not fit into the socket's buffer, but it always does when that is empty.
                None => drop(stream.try_write(NO_ROOM)),
            }
        }
    }

    /// Makes descriptors free, and tells the client that waits first.
    async fn failed(&mut self, error: &io::Error) {
        tracing::warn!(%error, "a connection was not accepted");
        if self.connections.shed() == 0 {
            self.spare = None;
            let waiting = tokio::time::timeout(ACCEPT_PAUSE, self.tcp.accept()).await;
            if let Ok(Ok((stream, _))) = waiting {
                drop(stream.try_write(NO_ROOM));
            }
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
        if self.spare.is_none() {
            self.spare = spare();
        }
    }
}

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Sets the options of a new connection. TCP keep-alive: an agent whose host disappears sends no
/// FIN, and an idle stream writes nothing that could fail.
fn prepared(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX)?;
    sockopt::set_tcp_keepidle(stream, SILENT_MAX)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, PROBES_MAX)?;
    sockopt::set_socket_keepalive(stream, true)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MAX_MS)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_host_that_vanished_is_found_in_the_same_time_whether_or_not_bytes_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(client, listener.accept());
        let (stream, _) = accepted.unwrap();
        prepared(&stream).unwrap();
        let probed = SILENT_MAX.saturating_add(PROBE_INTERVAL.saturating_mul(PROBES_MAX));
        let unacknowledged = sockopt::tcp_user_timeout(&stream).unwrap();
        assert_eq!(Duration::from_millis(unacknowledged.into()), probed);
    }

    /// The task may run, on a thread of its own, before [`Connections::runs`] is told of it.
    #[test]
    fn a_connection_knows_its_number_before_its_task_runs() {
        let connections = Connections::new(2);
        for number in 1..=2 {
            let state = Arc::default();
            let place = connections.place(&state).unwrap();
            assert_eq!((place.number(), state.number()), (number, number));
        }
    }
}
