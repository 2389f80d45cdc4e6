//! The arguments of `bartizan wrap` as a configuration: one server, no file.
//!
//! They go the same way as a file does, so that they mean the same and are refused alike; only
//! the places of problems are names of arguments.

use std::path::{Path, PathBuf};

use super::file::{ConfigFile, ServerFile};
use super::problem::{Place, Problems, Spot};
use super::{HttpTransport, LogFormat, Surroundings};
use bartizan_gate::session::Mode;

/// What `bartizan wrap` was given.
#[derive(Debug, Clone, Default)]
pub struct Wrap {
    /// The program to start and its arguments; empty where `url` is given.
    pub command: Vec<String>,
    /// The HTTP server to reach instead.
    pub url: Option<String>,
    /// What that server speaks; absent: Streamable HTTP.
    pub transport: Option<HttpTransport>,
    /// Headers for it, as `(name, value)`; a value may hold references.
    pub headers: Vec<(String, String)>,
    /// A pack's name or file.
    pub pack: Option<String>,
    /// Files and directories of policy; none: the baseline.
    pub policies: Vec<String>,
    /// The environment to pin calls to.
    pub environment: Option<String>,
    /// The state directory; absent: below the user's own.
    pub state: Option<String>,
    /// The principal's id.
    pub principal: Option<String>,
    /// Decide and record, and carry out nothing.
    pub observe: bool,
}

impl Wrap {
    pub(super) fn into_file(
        self,
        surroundings: &Surroundings<'_>,
        problems: &mut Problems,
    ) -> ConfigFile {
        let name = self.server_name();
        let state = self.state.or_else(|| default_state(&name, surroundings));
        if state.is_none() {
            let hint = "name a directory that you may write to, or set HOME";
            problems.push(&Place::named("--state"), "is missing, and HOME is not set", hint);
        }
        let mut server = ServerFile::named(spot(name, "wrap"));
        if !self.command.is_empty() {
            let words = self.command.into_iter();
            server.command = Some(words.map(|word| spot(word, "COMMAND")).collect());
            // The child would have had all of them without us.
            server.env_inherit = Some(vec![spot("*".to_owned(), "COMMAND")]);
        }
        server.url = self.url.map(|url| spot(url, "--url"));
        server.transport = self.transport.map(|transport| spot(transport, "--transport"));
        let header = |(name, value)| (name, spot(value, "--header"));
        server.headers = self.headers.into_iter().map(header).collect();
        server.pack = self.pack.map(|pack| spot(pack, "--pack"));
        server.environment = self.environment.map(|name| spot(name, "--environment"));
        let mut file = ConfigFile {
            state: state.map(|state| spot(state, "--state")),
            servers: vec![server],
            mode: self.observe.then(|| spot(Mode::Observe, "--observe")),
            ..ConfigFile::default()
        };
        file.policy.paths = self.policies.into_iter().map(|path| spot(path, "--policy")).collect();
        file.principal.id = self.principal.map(|id| spot(id, "--principal"));
        file.log.format = Some(spot(LogFormat::Text, "wrap"));
        file.log.filter = Some(spot("warn".to_owned(), "wrap"));
        file
    }

    /// The pack's name, else the program's, else `server`: what records call the server.
    fn server_name(&self) -> String {
        let stem = |text: &str| {
            Path::new(text).file_stem().map(|stem| stem.to_string_lossy().into_owned())
        };
        let named = self.pack.as_deref().and_then(stem);
        let named = named.or_else(|| self.command.first().and_then(|program| stem(program)));
        let kept = named.unwrap_or_default();
        let kept = kept.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let kept: String = kept.take(63).collect();
        if kept.is_empty() { "server".to_owned() } else { kept }
    }
}

fn spot<T>(value: T, argument: &str) -> Spot<T> {
    Spot::new(value, Place::named(argument))
}

/// `bartizan/<server>` in the user's state directory (XDG base directories, `XDG_STATE_HOME`).
fn default_state(name: &str, surroundings: &Surroundings<'_>) -> Option<String> {
    let absolute = |path: &String| Path::new(path).is_absolute();
    let base = (surroundings.env)("XDG_STATE_HOME").filter(absolute).map(PathBuf::from);
    let home = || (surroundings.env)("HOME").filter(absolute).map(PathBuf::from);
    let base = base.or_else(|| Some(home()?.join(".local/state")))?;
    base.join("bartizan").join(name).into_os_string().into_string().ok()
}
