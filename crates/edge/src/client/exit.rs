//! Why a client's run ended.

use std::fmt;

use crate::child::SpawnError;
use crate::child::process::Exit;

/// Why a client's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// The client closed our standard input: the ordinary end.
    ClientClosed,
    /// Reading from or writing to the client failed.
    ClientBroken(String),
    /// Shutdown was requested.
    Closing,
    /// The child could not be started.
    NotStarted(SpawnError),
    /// The child ended while the client was still there.
    ChildEnded(Exit),
    /// The server no longer knows the session; only the client can begin a new one.
    SessionLost,
    /// An internal error left the session in an unknown state, so it was closed.
    SessionClosed,
}

impl ExitReason {
    /// Whether the program exits with a failure status.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::ClientClosed | Self::Closing => false,
            Self::ClientBroken(_)
            | Self::NotStarted(_)
            | Self::ChildEnded(_)
            | Self::SessionLost
            | Self::SessionClosed => true,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotStarted(error) => error.hint(),
            Self::ChildEnded(_) => {
                Some("run its command alone and read what it writes to standard error")
            }
            Self::SessionClosed => Some("report it with the log line that names the call"),
            Self::ClientClosed | Self::ClientBroken(_) | Self::Closing | Self::SessionLost => None,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientClosed => f.write_str("the client closed standard input"),
            Self::ClientBroken(why) => write!(f, "the client's pipe broke: {why}"),
            Self::Closing => f.write_str("closing"),
            Self::NotStarted(error) => error.fmt(f),
            Self::ChildEnded(exit) => write!(f, "the server process ended by itself: {exit}"),
            Self::SessionLost => f.write_str("the server ended the session"),
            Self::SessionClosed => f.write_str("an internal error closed the session"),
        }
    }
}
