//! A store that fails, played by a listener of the test's own.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_gate::duty::limit::shared::{NotShared, SharedForm, SharedLimits as _, SharedTake};
use bartizan_replicas::{Link, LinkConfig, SharedCounts};

/// A store that takes everything, or gives an error to everything.
struct Fake {
    port: u16,
    /// What it answers instead.
    error: Mutex<Option<String>>,
    /// The connections on which it does not answer any more.
    dead: Mutex<BTreeSet<usize>>,
    opened: AtomicUsize,
}

impl Fake {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fake = Arc::new(Self {
            port: listener.local_addr().unwrap().port(),
            error: Mutex::default(),
            dead: Mutex::default(),
            opened: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&fake);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (fake, stream) = (Arc::clone(&accepting), stream.unwrap());
                let number = fake.opened.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || fake.serve(&stream, number));
            }
        });
        fake
    }

    /// Answers commands until the connection ends.
    fn serve(&self, stream: &TcpStream, number: usize) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let line = |reader: &mut BufReader<_>| {
            let mut text = String::new();
            reader.read_line(&mut text).ok().filter(|read| *read > 0)?;
            text.trim_end().get(1..)?.parse::<usize>().ok()
        };
        loop {
            let words = line(&mut reader)?;
            for _ in 0..words {
                let mut word = vec![0; line(&mut reader)?.saturating_add(2)];
                reader.read_exact(&mut word).ok()?;
            }
            if self.dead.lock().unwrap().contains(&number) {
                continue;
            }
            let error = self.error.lock().unwrap().clone();
            // A probe has five words, `EVALSHA`, digest, 1, key and argument; a limit has more.
            let answer = match error {
                Some(error) => format!("-{error} what s3cret was sent\r\n"),
                None if words == 5 => ":1\r\n".to_owned(),
                None => "*2\r\n:0\r\n$1\r\n0\r\n".to_owned(),
            };
            let mut stream = stream;
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }

    fn link(&self) -> Arc<Link> {
        let link = Link::new(&LinkConfig {
            host: "127.0.0.1".into(),
            port: self.port,
            tls: false,
            ca_pem: None,
            database: 0,
            user: None,
            password: None,
            prefix: "p".into(),
            timeout: Duration::from_millis(500),
        });
        Arc::new(link.unwrap())
    }
}

fn take(counts: &SharedCounts) -> Result<(), NotShared> {
    let form = SharedForm::Fixed { period: 1_000_000_000, count: 1 };
    counts.take(&[SharedTake { name: "l".into(), form, cost: 1 }])
}

#[test]
fn a_store_that_answers_and_runs_no_script_is_away_until_it_does() {
    let fake = Fake::start();
    let link = fake.link();
    let counts = SharedCounts::new(Arc::clone(&link));
    assert_eq!(take(&counts), Err(NotShared::Away), "before the first probe");
    for code in
        ["LOADING", "READONLY", "OOM", "MISCONF", "NOSCRIPT", "BUSY", "MASTERDOWN", "NOPERM", "ERR"]
    {
        link.probe().unwrap();
        assert_eq!(take(&counts), Ok(()), "{code}");
        *fake.error.lock().unwrap() = Some(code.to_owned());
        let error = link.probe().unwrap_err();
        assert!(error.cause.contains(code) && !error.cause.contains("s3cret"), "{error}");
        assert_eq!(error.is_refusal, code == "NOPERM", "{error}");
        assert_eq!(link.fault(), Some(error));
        assert_eq!(take(&counts), Err(NotShared::Away), "{code}");
        link.probe().unwrap_err();
        *fake.error.lock().unwrap() = None;
        assert_eq!(take(&counts), Err(NotShared::Away), "{code}: a probe says when it is back");
    }
}

#[test]
fn a_call_that_the_store_refuses_makes_it_away_until_a_probe() {
    let fake = Fake::start();
    let link = fake.link();
    let counts = SharedCounts::new(Arc::clone(&link));
    link.probe().unwrap();
    *fake.error.lock().unwrap() = Some("OOM".to_owned());
    assert_eq!(take(&counts), Err(NotShared::Away));
    *fake.error.lock().unwrap() = None;
    assert_eq!(take(&counts), Err(NotShared::Away));
    link.probe().unwrap();
    assert_eq!(take(&counts), Ok(()));
}

#[test]
fn a_dead_connection_among_others_is_replaced_and_holds_up_no_call() {
    let fake = Fake::start();
    let link = fake.link();
    let counts = SharedCounts::new(Arc::clone(&link));
    link.probe().unwrap();
    let opened = fake.opened.load(Ordering::Relaxed);
    for number in 0..3 {
        fake.dead.lock().unwrap().insert(number);
    }
    let probing = std::thread::spawn(move || {
        // One of them in each probe.
        (0..3).map(|_| link.probe()).collect::<Vec<_>>()
    });
    let mut calls = 0_usize;
    while !probing.is_finished() {
        assert_eq!(take(&counts), Ok(()), "after {calls} calls");
        calls = calls.saturating_add(1);
    }
    assert_eq!(probing.join().unwrap(), [const { Ok(()) }; 3]);
    assert_eq!(fake.opened.load(Ordering::Relaxed), opened.saturating_add(3));
    assert!(calls > 3, "{calls}");
}
