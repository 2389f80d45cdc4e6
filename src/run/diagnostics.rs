//! The program's log output. A log line never stops or fails what logs it.
//!
//! Lines go through a bounded queue to a thread that writes them to standard error. If standard
//! error is full, slow or closed, lines are lost and counted, and nobody waits: a decision must not
//! depend on whether somebody reads the log.

use std::fmt;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{Format, Writer as TextWriter};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::StartError;
use crate::config::{LogConfig, LogFormat};

/// Lines that wait to be written at most; further ones are lost.
const LINES_MAX: usize = 4096;

/// How long the end of the program waits for the last lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Item {
    Line(Vec<u8>),
    /// Asks for an answer once all lines before it are written.
    Flush(Sender<()>),
}

/// The queue of the one log output of the program.
static QUEUE: OnceLock<Queue> = OnceLock::new();

struct Queue {
    items: SyncSender<Item>,
    lost: AtomicU64,
    format: LogFormat,
}

impl Queue {
    fn start(format: LogFormat) -> io::Result<Self> {
        let (items, waiting) = sync_channel(LINES_MAX);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            // A line that panics is lost, and the next one is written.
            while catch_unwind(AssertUnwindSafe(|| write_all(&waiting))).is_err() {}
        })?;
        Ok(Self { items, lost: AtomicU64::new(0), format })
    }

    fn put(&self, line: Vec<u8>) {
        if self.items.try_send(Item::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes lines until the program ends.
fn write_all(waiting: &Receiver<Item>) {
    while let Ok(item) = waiting.recv() {
        match item {
            Item::Line(line) => write(&line),
            Item::Flush(done) => drop(done.send(())),
        }
        let lost = QUEUE.get().map_or(0, |queue| queue.lost.swap(0, Ordering::Relaxed));
        if lost > 0 {
            write(format!("{lost} log lines were lost\n").as_bytes());
        }
    }
}

fn write(line: &[u8]) {
    if io::stderr().lock().write_all(line).is_err()
        && let Some(queue) = QUEUE.get()
    {
        queue.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Hands each line to the queue.
#[derive(Debug, Clone, Copy)]
struct ToQueue;

impl Write for ToQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get() {
            queue.put(line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ToQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

/// Installs the program's log output; call it once.
///
/// # Errors
///
/// The filter cannot be parsed, or the thread that writes cannot be started.
pub fn install(config: &LogConfig) -> Result<(), StartError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| {
        StartError::new("log.filter", format!("`{}`: {error}", config.filter))
            .hint("write a level such as `info`, or `target=level` pairs")
    })?;
    let log = |error: &dyn fmt::Display| StartError::new("log", error.to_string());
    let queue = Queue::start(config.format).map_err(|error| log(&error))?;
    QUEUE.set(queue).map_err(|_| log(&"installed before"))?;
    // The subscriber would print its own errors to standard error, and panic if it cannot.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(ToQueue);
    let set = match config.format {
        LogFormat::Text => {
            builder.with_ansi(false).event_format(TextLines(Format::default())).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    set.map_err(|error| log(&error))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Says something that no filter leaves out: `bartizan: ` and `text`, or, in the JSON format, an object
/// like those of the other lines. Says nothing where no log output is installed.
pub fn say(text: &str) {
    let Some(queue) = QUEUE.get() else { return };
    let line = match queue.format {
        LogFormat::Text => format!("bartizan: {text}\n"),
        LogFormat::Json => {
            let mut time = String::new();
            // A time that cannot be formatted stays empty.
            SystemTime.format_time(&mut TextWriter::new(&mut time)).unwrap_or_default();
            let fields = serde_json::json!({ "message": text });
            let object = serde_json::json!({
                "timestamp": time, "level": "INFO", "fields": fields, "target": "bartizan"
            });
            format!("{object}\n")
        }
    };
    queue.put(line.into_bytes());
}

/// The target of what programs write to their standard error.
const CHILD: &str = "child";

/// The text format. A line of a program is what it wrote, after the time and `child[PID]: `, so that no
/// program can write a line that looks like one of ours.
struct TextLines(Format);

impl<S, N> FormatEvent<S, N> for TextLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: TextWriter<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut child = ChildLine::default();
        if event.metadata().target() == CHILD {
            event.record(&mut child);
        }
        let ChildLine { pid, line: Some(line) } = child else {
            return self.0.format_event(context, writer, event);
        };
        SystemTime.format_time(&mut writer)?;
        writeln!(writer, " {CHILD}[{pid}]: {line}")
    }
}

/// What the event of a line of a program holds.
#[derive(Debug, Default)]
struct ChildLine {
    pid: u64,
    line: Option<String>,
}

impl Visit for ChildLine {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "pid" {
            self.pid = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "line" {
            self.line = Some(format!("{value:?}"));
        }
    }
}

/// Waits, but not long, until the lines that were logged so far are written. Called at the end of
/// the program.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, written) = channel();
    if queue.items.try_send(Item::Flush(done)).is_ok() {
        // If standard error is stuck, the last lines are lost.
        written.recv_timeout(FLUSH_MAX).unwrap_or_default();
    }
}

/// Logs where a panic happened. The panic's message is left out, because it may contain what a peer
/// sent.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(
        place,
        "internal error (panic); the message or call that it interrupted is refused"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_log_says_where_a_panic_was_and_not_what_it_said() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(subscriber, || {
            catch_unwind(|| panic!("a secret")).unwrap_err();
        });
        std::panic::set_hook(before);
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(log.contains(file!()) && !log.contains("secret"), "{log}");
    }
}
