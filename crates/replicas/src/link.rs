//! The connections to the shared store.
//!
//! One task probes ([`Link::probe`]) and opens connections; a call uses only what is open. So no call
//! waits for a name to be resolved or a handshake, and while the store is away each fails at once.
//! The store is away from the first failure of a call until a probe succeeds.
//!
//! What the server says in an error may repeat what was sent to it, so only the code of the error is
//! shown.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use bartizan_sync::lock;
use redis::{
    Client, Connection, ConnectionAddr, ConnectionLike as _, ErrorKind, IntoConnectionInfo as _,
    RedisError, TlsCertificates, Value,
};

/// Connections at once. A call that finds all of them in use waits for one.
const PLACES: usize = 8;
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
const REFUSALS: [&str; 3] = ["NOAUTH", "NOPERM", "WRONGPASS"];

impl LinkError {
    pub(crate) fn new(cause: impl fmt::Display) -> Self {
        let cause: String = cause.to_string().chars().take(CAUSE_CHARS_MAX).collect();
        Self { cause: cause.into(), is_refusal: false }
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
        } else {
            match error.code() {
                Some(code) => Self::new(format_args!("it answers with the error {code}")),
                None => Self::new("its answer cannot be understood"),
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

/// What a script gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Number(i64),
    Text(Vec<u8>),
    List(Vec<Self>),
}

impl Reply {
    fn of(value: Value) -> Result<Self, LinkError> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no script of ours gives any other")]
        match value {
            Value::Int(number) => Ok(Self::Number(number)),
            Value::BulkString(text) => Ok(Self::Text(text)),
            Value::Array(items) => {
                items.into_iter().map(Self::of).collect::<Result<_, _>>().map(Self::List)
            }
            _ => Err(Self::odd()),
        }
    }

    /// The error for a reply of another form.
    pub(crate) fn odd() -> LinkError {
        LinkError::new("a script gave what it never gives")
    }

    /// The items of a list.
    pub(crate) fn items(self) -> Result<Vec<Self>, LinkError> {
        match self {
            Self::List(items) => Ok(items),
            Self::Number(_) | Self::Text(_) => Err(Self::odd()),
        }
    }

    /// A text.
    pub(crate) fn text(self) -> Result<String, LinkError> {
        match self {
            Self::Text(bytes) => String::from_utf8(bytes).map_err(|_| Self::odd()),
            Self::Number(_) | Self::List(_) => Err(Self::odd()),
        }
    }

    /// A whole number, or a text that is one.
    pub(crate) fn number(self) -> Result<u64, LinkError> {
        match self {
            Self::Number(number) => u64::try_from(number).map_err(|_| Self::odd()),
            Self::Text(_) => self.text()?.parse().map_err(|_| Self::odd()),
            Self::List(_) => Err(Self::odd()),
        }
    }
}

/// The connections to one store.
pub struct Link {
    client: Client,
    prefix: Box<str>,
    timeout: Duration,
    places: [Mutex<Option<Connection>>; PLACES],
    next: AtomicUsize,
    /// Why the store is away.
    away: Mutex<Option<LinkError>>,
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
        Ok(Self {
            client: client.map_err(|error| LinkError::of(&error))?,
            prefix: config.prefix.clone(),
            timeout: config.timeout,
            places: std::array::from_fn(|_| Mutex::new(None)),
            next: AtomicUsize::new(0),
            away: Mutex::new(Some(LinkError::new("not connected yet"))),
        })
    }

    /// The name of a key: all of them are in one slot of a cluster.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.prefix)
    }

    /// Why the store is away; `None` while it works.
    pub fn fault(&self) -> Option<LinkError> {
        lock(&self.away).clone()
    }

    /// Asks the store whether it is there, and opens the connections that are missing. Somebody
    /// should call it about four times each second, on a thread that may wait: names are resolved.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub fn probe(&self) -> Result<(), LinkError> {
        let probed = self.probe_all();
        match &probed {
            Ok(()) => *lock(&self.away) = None,
            Err(error) => self.lose(error),
        }
        probed
    }

    fn probe_all(&self) -> Result<(), LinkError> {
        let mut asked = false;
        for place in &self.places {
            // One that is in use is open.
            let Some(mut place) = free(place) else { continue };
            if place.is_none() {
                *place = Some(self.connect()?);
            }
            if !asked && let Some(connection) = place.as_mut() {
                let answer = connection.req_command(&redis::cmd("PING"));
                answer.map_err(|error| LinkError::of(&error))?;
                asked = true;
            }
        }
        Ok(())
    }

    fn connect(&self) -> Result<Connection, LinkError> {
        let opened = self.client.get_connection_with_timeout(self.timeout).and_then(|connection| {
            connection.set_read_timeout(Some(self.timeout))?;
            connection.set_write_timeout(Some(self.timeout))?;
            Ok(connection)
        });
        opened.map_err(|error| LinkError::of(&error))
    }

    /// Runs `script` over `keys` with `args`.
    ///
    /// # Errors
    ///
    /// The store is away, or gives an error. The script may have run all the same.
    pub(crate) fn run(
        &self,
        script: &Script,
        keys: &[String],
        args: &[&[u8]],
    ) -> Result<Reply, LinkError> {
        if let Some(error) = self.fault() {
            return Err(error);
        }
        let mut place = self.place();
        let done = match place.as_mut() {
            Some(connection) => {
                let mut invocation = script.0.prepare_invoke();
                for key in keys {
                    invocation.key(key);
                }
                for arg in args {
                    invocation.arg(*arg);
                }
                let value = invocation.invoke::<Value>(connection);
                value.map_err(|error| LinkError::of(&error)).and_then(Reply::of)
            }
            None => Err(LinkError::new("the connection is lost")),
        };
        if done.is_err() {
            // What is still to come on it would be taken for the answer to something else.
            *place = None;
        }
        drop(place);
        if let Err(error) = &done {
            self.lose(error);
        }
        done
    }

    /// A connection that nobody uses, or the next one once it is free.
    fn place(&self) -> MutexGuard<'_, Option<Connection>> {
        let from = self.next.fetch_add(1, Ordering::Relaxed);
        let turn = |number: usize| {
            let index = from.wrapping_add(number).checked_rem(PLACES)?;
            self.places.get(index)
        };
        let unused = (0..PLACES).filter_map(turn).filter_map(free).find(|place| place.is_some());
        let [first, ..] = &self.places;
        unused.unwrap_or_else(|| lock(turn(0).unwrap_or(first)))
    }

    /// Takes note that the store is away, and gives up the connections: most of them are lost, too.
    fn lose(&self, error: &LinkError) {
        *lock(&self.away) = Some(error.clone());
        for place in self.places.iter().filter_map(free) {
            let mut place = place;
            *place = None;
        }
    }
}

/// The place, unless it is in use.
fn free(place: &Mutex<Option<Connection>>) -> Option<MutexGuard<'_, Option<Connection>>> {
    match place.try_lock() {
        Ok(place) => Some(place),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
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
        assert!(link.run(&script, &[], &[]).is_err());
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
