//! Keeps protected servers that are programs away from what belongs to this program.
//!
//! Such a server runs at our own user id unless the configuration names another one. Without more,
//! it could read our environment and memory through `/proc`, read the digest key, and write the
//! journal. [`protect_self`] makes this process unreadable for others of its user. Each server is
//! started through the hidden subcommand `confine` of this program, which calls [`enter`] and then
//! executes the server. A [`Confinement`] is what the parent tells it.
//!
//! On Linux, `enter` uses Landlock, seccomp and capabilities; elsewhere only `user` is done. This
//! module knows nothing of MCP and of the configuration file.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod hidden;
#[cfg(target_os = "linux")]
mod linux;

pub use hidden::{above, resolve};

/// The name of the hidden subcommand that confines itself and becomes a server.
pub const SUBCOMMAND: &str = "confine";

/// A user and a group that a server runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The group id, which is the only group.
    pub gid: u32,
}

impl FromStr for User {
    type Err = &'static str;

    /// `UID` or `UID:GID`, as numbers; without a group, that of the same number. Names are not
    /// looked up, because a container may have no list of users.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|id| is_plain && *id != u32::MAX)
        };
        match (number(uid), number(gid)) {
            (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
            _ => Err("is no user id, or user id and group id with `:` between them"),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

/// What a server is kept away from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Files and directories that it cannot open, as they are named; see [`resolve`].
    pub hidden: Vec<PathBuf>,
    /// Who it runs as; `None` is our own user.
    pub user: Option<User>,
    /// Its soft limit of file descriptors; `None` is ours.
    pub descriptors: Option<u64>,
    /// Do not start it where the kernel cannot hide files.
    pub required: bool,
}

impl Confinement {
    /// The arguments of this program, without its name, before `--`, the server and its arguments.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![SUBCOMMAND.into()];
        for path in &self.hidden {
            arguments.extend(["--hide".into(), path.clone().into_os_string()]);
        }
        if let Some(user) = self.user {
            arguments.extend(["--user".into(), user.to_string().into()]);
        }
        if let Some(descriptors) = self.descriptors {
            arguments.extend(["--descriptors".into(), descriptors.to_string().into()]);
        }
        if self.required {
            arguments.push("--required".into());
        }
        arguments
    }
}

/// What the kernel offers to confine a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Support {
    /// Landlock can hide files (Linux 5.13).
    pub files: bool,
    /// Landlock can keep a server from signalling processes that are not its own (Linux 6.12).
    pub signals: bool,
}

/// What the running kernel offers.
pub fn support() -> Support {
    #[cfg(target_os = "linux")]
    let support = linux::support();
    #[cfg(not(target_os = "linux"))]
    let support = Support { files: false, signals: false };
    support
}

/// Why a process could not be confined.
#[derive(Debug)]
pub struct ConfineError {
    /// What was being done.
    pub doing: &'static str,
    /// The system's error.
    pub cause: String,
}

impl ConfineError {
    fn new(doing: &'static str, cause: impl fmt::Display) -> Self {
        Self { doing, cause: cause.to_string() }
    }
}

impl fmt::Display for ConfineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.cause)
    }
}

impl std::error::Error for ConfineError {}

/// Makes this process unreadable for other processes of its user, and keeps it from writing a core
/// file, which would hold its secrets.
///
/// On Linux the process is then not dumpable (`PR_SET_DUMPABLE`): its `/proc` files belong to root,
/// and only a process with `CAP_SYS_PTRACE` may trace it or read its memory and environment.
pub fn protect_self() -> Result<(), ConfineError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|cause| ConfineError::new("forbidding core files", cause))?;
    #[cfg(target_os = "linux")]
    linux::not_dumpable()?;
    Ok(())
}

/// Confines this process, which must have one thread, and executes `program` in its place. Returns
/// only if that fails.
pub fn enter(confinement: &Confinement, program: &Path, args: &[OsString]) -> ConfineError {
    use std::os::unix::process::CommandExt as _;
    #[cfg(target_os = "linux")]
    if let Err(error) = linux::restrict(confinement) {
        return error;
    }
    #[cfg(not(target_os = "linux"))]
    if confinement.required {
        return ConfineError::new("hiding files", "this system has no Landlock");
    }
    if let Some(descriptors) = confinement.descriptors {
        let limit = Rlimit { current: Some(descriptors), ..getrlimit(Resource::Nofile) };
        if let Err(cause) = setrlimit(Resource::Nofile, limit) {
            return ConfineError::new("lowering the limit of file descriptors", cause);
        }
    }
    let mut command = std::process::Command::new(program);
    command.args(args);
    if let Some(user) = confinement.user {
        // Without other groups: as root, the standard library empties their list.
        command.gid(user.gid).uid(user.uid);
    }
    ConfineError::new("starting the server", command.exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        for (text, expected) in [
            ("65532", Some((65532, 65532))),
            ("1000:100", Some((1000, 100))),
            ("0", Some((0, 0))),
            ("", None),
            ("nobody", None),
            ("1000:", None),
            (":1", None),
            ("+1", None),
            ("1:2:3", None),
            ("4294967295", None),
            ("4294967296", None),
        ] {
            let user = text.parse::<User>().ok().map(|user| (user.uid, user.gid));
            assert_eq!(user, expected, "{text}");
        }
    }
}
