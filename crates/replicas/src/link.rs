//! The connections to the shared store.
//!
//! One task probes ([`Link::probe`]) and opens connections; a call uses only what is open. So no call
//! waits for a name to be resolved or a handshake, and while the store is away each fails at once.
//! The store is away from the first failure of a call until a probe succeeds. A store that answers and
//! does not run scripts or takes no writes (a copy that may only be read, one that is full or still
//! loads, a user without the rights) is away, too: a probe runs a script with a write, as calls do.
//!
//! What the server says in an error may repeat what was sent to it, so only the code of the error is
//! shown.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use bartizan_sync::lock;
use redis::{
    Client, Connection, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo as _,
    RedisError, TlsCertificates,
};

/// Connections at once. A call that finds all of them in use waits for one.
const CONNECTIONS: usize = 8;
/// Longest text of an error, characters.
const CAUSE_CHARS_MAX: usize = 200;

/// Where the store is, and who we are to it.
#[derive(Clone)]
pub struct LinkConfig {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: u16,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
    /// Certificates to trust instead of the system's, PEM. Only with `tls`.
    pub ca_pem: Option<Vec<u8>>,
    /// The number of the database.
    pub database: u32,
    /// The user; absent for the default one.
    pub user: Option<Box<str>>,
    /// The password.
    pub password: Option<Box<str>>,
    /// How the names of all keys begin.
    pub prefix: Box<str>,
    /// For a connection to be opened, and for one answer.
    pub timeout: Duration,
}

/// Without the password.
impl fmt::Debug for LinkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// The store did not do what was asked; whether it did it all the same is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkError {
    /// Why, for the operator. Holds nothing that was sent.
    pub cause: Box<str>,
    /// Whether it does not let us in, so that trying again is of no use.
    pub is_refusal: bool,
}

/// Codes of errors that say that we are not let in.
const REFUSALS: [&str; 2] = ["NOAUTH", "WRONGPASS"];
/// The code of the error that says that we may not do that.
const NOT_ALLOWED: &str = "NOPERM";

impl LinkError {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        let cause: String = cause.to_string().chars().take(CAUSE_CHARS_MAX).collect();
        Self { cause: cause.into(), is_refusal: false }
    }

    /// The error for a script that gave what it never gives.
    pub(crate) fn odd() -> Self {
        Self::new("its answer cannot be understood")
    }

    fn of(error: &RedisError) -> Self {
        let of_ours = matches!(error.kind(), ErrorKind::Io | ErrorKind::InvalidClientConfig);
        if error.is_timeout() {
            Self::new("no answer in time")
        } else if of_ours {
            Self::new(error)
        } else if error.kind() == ErrorKind::AuthenticationFailed
            || error.code().is_some_and(|code| REFUSALS.contains(&code))
        {
            Self { is_refusal: true, ..Self::new("it refuses the user or the password") }
        } else if error.code() == Some(NOT_ALLOWED) {
            Self { is_refusal: true, ..Self::new("the user may not give all commands (NOPERM)") }
        } else {
            match error.code() {
                Some(code) => Self::new(format_args!("it answers with the error {code}")),
                None => Self::odd(),
            }
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl std::error::Error for LinkError {}

/// A script that the store runs as a whole.
pub(crate) struct Script(redis::Script);

impl Script {
    pub(crate) fn new(text: &str) -> Self {
        Self(redis::Script::new(text))
    }
}

/// The connections to one store.
pub struct Link {
    client: Client,
    prefix: Box<str>,
    timeout: Duration,
    probe: Script,
    pool: Mutex<Pool>,
    /// Told when a connection is free, and when the store is lost.
    freed: Condvar,
}

struct Pool {
    /// Those that nobody uses, the one that was used last at the end.
    idle: VecDeque<Connection>,
    /// How many there are with those in use.
    open: usize,
    /// Why the store is away.
    away: Option<LinkError>,
    /// How often it was lost.
    losses: u64,
}

/// A connection in use. If it is not given back, it is closed.
struct Lease<'a> {
    link: &'a Link,
    connection: Option<Connection>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl Link {
    /// Connections to the store at `config`. None is opened before [`Link::probe`]; until then the
    /// store is away.
    ///
    /// # Errors
    ///
    /// The configuration cannot be used.
    pub fn new(config: &LinkConfig) -> Result<Self, LinkError> {
        let host = config.host.to_string();
        let address = if config.tls {
            let (insecure, tls_params) = (false, None);
            ConnectionAddr::TcpTls { host, port: config.port, insecure, tls_params }
        } else {
            ConnectionAddr::Tcp(host, config.port)
        };
        let info = address.into_connection_info().map_err(|error| LinkError::of(&error))?;
        let mut settings = info.redis_settings().clone().set_db(config.database.into());
        if let Some(user) = &config.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &config.password {
            settings = settings.set_password(password);
        }
        let info = info.set_redis_settings(settings.set_skip_set_lib_name());
        let client = if config.tls {
            let certificates =
                TlsCertificates { client_tls: None, root_cert: config.ca_pem.clone() };
            Client::build_with_tls(info, certificates)
        } else {
            Client::open(info)
        };
        let away = Some(LinkError::new("not connected yet"));
        Ok(Self {
            client: client.map_err(|error| LinkError::of(&error))?,
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            probe: Script::new(include_str!("scripts/probe.lua")),
            pool: Mutex::new(Pool { idle: VecDeque::new(), open: 0, away, losses: 0 }),
            freed: Condvar::new(),
        })
    }

    /// The name of a key: all of them are in one slot of a cluster.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.prefix)
    }

    /// Why the store is away; `None` while it works.
    pub fn fault(&self) -> Option<LinkError> {
        lock(&self.pool).away.clone()
    }

    /// Asks the store on each connection that nobody uses whether it runs scripts and takes writes,
    /// and opens the connections that are missing. Somebody should call it about four times each
    /// second, on a thread that may wait: names are resolved.
    ///
    /// A connection that is dead among others is replaced. The store is away if no connection works.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub fn probe(&self) -> Result<(), LinkError> {
        let (losses, away) = {
            let pool = lock(&self.pool);
            (pool.losses, pool.away.clone())
        };
        match (self.probe_all(away.is_some()), away) {
            (Ok(0), Some(away)) => Err(away),
            (Ok(_), _) => {
                let mut pool = lock(&self.pool);
                if pool.losses == losses {
                    pool.away = None;
                }
                // What a call met meanwhile is newer.
                pool.away.clone().map_or(Ok(()), Err)
            }
            (Err(error), _) => {
                self.lose(&error);
                Err(error)
            }
        }
    }

    /// How many connections are known to work. With `was_away`, the first one must show that the
    /// store takes a write; the others do not change what is in it.
    fn probe_all(&self, was_away: bool) -> Result<usize, LinkError> {
        let mut work = 0_usize;
        let idle = lock(&self.pool).idle.len();
        for _ in 0..idle {
            let Some(connection) = lock(&self.pool).idle.pop_front() else { break };
            let mut lease = Lease { link: self, connection: Some(connection) };
            if self.ask(&mut lease, was_away && work == 0).is_err() {
                // The rest is asked by the next probe, so that this one waits for one answer only.
                break;
            }
            lease.give_back();
            work = work.saturating_add(1);
        }
        while lock(&self.pool).open < CONNECTIONS {
            let mut lease = match self.connect() {
                Ok(lease) => lease,
                // Those that there are will do; the next probe tries again.
                Err(_) if work > 0 => break,
                Err(error) => return Err(error),
            };
            self.ask(&mut lease, was_away && work == 0)?;
            lease.give_back();
            work = work.saturating_add(1);
        }
        Ok(work)
    }

    /// Asks the store whether it runs scripts and takes writes; with `changes`, by writing something.
    fn ask(&self, lease: &mut Lease<'_>, changes: bool) -> Result<(), LinkError> {
        let changes: &[u8] = if changes { b"1" } else { b"0" };
        lease.run(&self.probe, &[self.key("probe")], &[changes])
    }

    /// A new connection.
    fn connect(&self) -> Result<Lease<'_>, LinkError> {
        let opened = self.client.get_connection_with_timeout(self.timeout).and_then(|connection| {
            connection.set_read_timeout(Some(self.timeout))?;
            connection.set_write_timeout(Some(self.timeout))?;
            Ok(connection)
        });
        let connection = opened.map_err(|error| LinkError::of(&error))?;
        let mut pool = lock(&self.pool);
        pool.open = pool.open.saturating_add(1);
        Ok(Lease { link: self, connection: Some(connection) })
    }

    /// Runs `script` over `keys` with `args`.
    ///
    /// # Errors
    ///
    /// The store is away, or gives an error. The script may have run all the same.
    pub(crate) fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<T, LinkError> {
        let mut lease = self.lease()?;
        let done = lease.run(script, keys, args);
        match &done {
            Ok(_) => lease.give_back(),
            Err(error) => {
                // What is still to come on it would be taken for the answer to something else.
                drop(lease);
                self.lose(error);
            }
        }
        done
    }

    /// The connection that was used last, or the next one that is free.
    fn lease(&self) -> Result<Lease<'_>, LinkError> {
        let none = |pool: &mut Pool| pool.idle.is_empty() && pool.away.is_none();
        let waited = self.freed.wait_timeout_while(lock(&self.pool), self.timeout, none);
        let (mut pool, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &pool.away {
            return Err(error.clone());
        }
        let connection = pool.idle.pop_back();
        let connection = connection.ok_or_else(|| LinkError::new("all connections are in use"))?;
        Ok(Lease { link: self, connection: Some(connection) })
    }

    /// Takes note that the store is away, and gives up the connections: most of them are lost, too.
    fn lose(&self, error: &LinkError) {
        let mut pool = lock(&self.pool);
        pool.away = Some(error.clone());
        pool.losses = pool.losses.wrapping_add(1);
        pool.open = pool.open.saturating_sub(pool.idle.len());
        let closed = std::mem::take(&mut pool.idle);
        drop(pool);
        self.freed.notify_all();
        drop(closed);
    }
}

impl Lease<'_> {
    fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<T, LinkError> {
        let connection = self.connection.as_mut();
        let connection = connection.ok_or_else(|| LinkError::new("the connection is lost"))?;
        let mut invocation = script.0.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for arg in args {
            invocation.arg(*arg);
        }
        invocation.invoke(connection).map_err(|error| LinkError::of(&error))
    }

    /// Others may use it.
    fn give_back(mut self) {
        lock(&self.link.pool).idle.extend(self.connection.take());
        self.link.freed.notify_one();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.connection.take().is_some() {
            let mut pool = lock(&self.link.pool);
            pool.open = pool.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LinkConfig {
        LinkConfig {
            host: "127.0.0.1".into(),
            // Nothing listens on the port of tcpmux.
            port: 1,
            tls: false,
            ca_pem: None,
            database: 0,
            user: Some("bartizan".into()),
            password: Some("s3cret".into()),
            prefix: "p".into(),
            timeout: Duration::from_millis(200),
        }
    }

    #[test]
    fn a_store_that_is_away_is_said_to_be_and_no_secret_is_shown() {
        let link = Link::new(&config()).unwrap();
        assert!(link.fault().is_some(), "before the first probe");
        let script = Script::new("return 1");
        assert!(link.run::<u64>(&script, &[], &[]).is_err());
        let error = link.probe().unwrap_err();
        assert_eq!(link.fault(), Some(error.clone()));
        for shown in [error.to_string(), format!("{:?} {link:?}", config())] {
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }

    #[test]
    fn what_the_server_says_is_not_shown() {
        let said = "-ERR unknown command 'AUTH', with args beginning with: 's3cret'\r\n";
        let value = redis::parse_redis_value(said.as_bytes()).unwrap();
        let error = value.extract_error().unwrap_err();
        assert!(error.to_string().contains("s3cret"), "{error}");
        assert_eq!(LinkError::of(&error).to_string(), "it answers with the error ERR");
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        let ca_pem =
            Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
        let config = LinkConfig { tls: true, ca_pem, ..config() };
        assert!(Link::new(&config).is_err());
    }
}
