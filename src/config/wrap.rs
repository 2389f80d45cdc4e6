//! The arguments of `bartizan wrap` as a configuration: one server, no file.
//!
//! They become the tree that a file would have, and are read like one, so that they mean the same
//! and are refused alike; only the places of problems are names of arguments.

use std::path::{Path, PathBuf};

use super::launched;
use super::problem::Location;
use super::surroundings::Surroundings;
use super::upstream::{Confine, HttpTransport};
use crate::yaml::{Kind, Member, Node, Origin};

/// Which lines of diagnostics: warnings, and what the program writes to its standard error, as its
/// client's user would have seen it.
const FILTER: &str = "warn,child=info";

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
    /// The server's name in rules and records; absent: one made of the command or the URL.
    pub name: Option<String>,
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
    /// Whether the program is confined; absent: as the key `confine`.
    pub confine: Option<Confine>,
    /// See `servers.<name>.sha256`.
    pub sha256: Option<String>,
    /// A file with what stands below `approvals` in a configuration.
    pub approvals: Option<String>,
    /// The address at which approvers answer; absent: as the key `admin`.
    pub admin: Option<String>,
}

impl Wrap {
    /// The same as the tree of a file, with `approvals` as its part of that name. Where no state
    /// directory can be found, `problem` is told.
    pub(super) fn into_tree(
        self,
        surroundings: &Surroundings<'_>,
        approvals: Option<Node>,
        problem: impl FnOnce(&Location, &str, &str),
    ) -> Node {
        let (name, named) = self.server_name();
        let state = self.state.or_else(|| default_state(&name, surroundings));
        if state.is_none() {
            let hint = "name a directory that you may write to, or set HOME";
            problem(&Location::named("--state"), "is missing, and HOME is not set", hint);
        }
        let mut server = Vec::new();
        if !self.command.is_empty() {
            server.push(member("command", texts(self.command, "COMMAND")));
            // The child would have had all of them without us.
            server.push(member("env_inherit", texts(vec!["*".to_owned()], "COMMAND")));
            let confine = self
                .confine
                .and_then(|confine| Confine::NAMES.iter().find(|(_, known)| *known == confine));
            let confine = confine.map(|(word, _)| (*word).to_owned());
            server.extend(optional("confine", confine, "--confine"));
            server.extend(optional("sha256", self.sha256, "--sha256"));
        }
        let transport = self.transport.and_then(|transport| {
            HttpTransport::NAMES.iter().find(|(_, known)| *known == transport)
        });
        let headers = self.headers.into_iter().map(|(name, value)| Member {
            key: name,
            origin: Origin::Named("--header"),
            value: text(value, "--header"),
        });
        let headers = map(headers.collect(), "--header");
        server.push(member("headers", headers));
        server.extend(optional("url", self.url, "--url"));
        let transport = transport.map(|(word, _)| (*word).to_owned());
        server.extend(optional("transport", transport, "--transport"));
        server.extend(optional("pack", self.pack, "--pack"));
        server.extend(optional("environment", self.environment, "--environment"));
        let server = Member { key: name, origin: named, value: map(server, "wrap") };
        let mut root = vec![
            member("servers", map(vec![server], "wrap")),
            member("policy", map(vec![member("paths", texts(self.policies, "--policy"))], "wrap")),
            member(
                "log",
                map(
                    vec![
                        member("format", text("text".to_owned(), "wrap")),
                        member("filter", text(FILTER.to_owned(), "wrap")),
                    ],
                    "wrap",
                ),
            ),
        ];
        root.extend(optional("state", state, "--state"));
        root.extend(optional("admin", self.admin, "--admin"));
        root.extend(approvals.map(|it| member("approvals", it)));
        let mode = self.observe.then(|| "observe".to_owned());
        root.extend(optional("mode", mode, "--observe"));
        let id = optional("id", self.principal, "--principal");
        root.push(member("principal", map(id.into_iter().collect(), "wrap")));
        map(root, "wrap")
    }

    /// What rules and records call the server, and where that came from.
    fn server_name(&self) -> (String, Origin) {
        if let Some(name) = &self.name {
            return (name.clone(), Origin::Named("--name"));
        }
        let found = match &self.url {
            Some(url) => launched::name_of_url(url),
            None => launched::name_of_command(&self.command),
        };
        (found.unwrap_or_else(|| "server".to_owned()), Origin::Named("wrap"))
    }
}

fn text(text: String, argument: &'static str) -> Node {
    Node { origin: Origin::Named(argument), kind: Kind::Text(text) }
}

fn texts(all: Vec<String>, argument: &'static str) -> Node {
    let nodes = all.into_iter().map(|one| text(one, argument)).collect();
    Node { origin: Origin::Named(argument), kind: Kind::List(nodes) }
}

fn map(members: Vec<Member>, argument: &'static str) -> Node {
    Node { origin: Origin::Named(argument), kind: Kind::Map(members) }
}

fn member(key: &str, value: Node) -> Member {
    Member { key: key.to_owned(), origin: value.origin, value }
}

fn optional(key: &str, value: Option<String>, argument: &'static str) -> Option<Member> {
    Some(member(key, text(value?, argument)))
}

/// `bartizan/<server>` in the user's state directory (XDG base directories, `XDG_STATE_HOME`).
fn default_state(name: &str, surroundings: &Surroundings<'_>) -> Option<String> {
    let absolute = |path: &String| Path::new(path).is_absolute();
    let base = (surroundings.env)("XDG_STATE_HOME").filter(absolute).map(PathBuf::from);
    let home = || (surroundings.env)("HOME").filter(absolute).map(PathBuf::from);
    let base = base.or_else(|| Some(home()?.join(".local/state")))?;
    base.join("bartizan").join(name).into_os_string().into_string().ok()
}
