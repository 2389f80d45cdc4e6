//! The arguments of `bartizan wrap` as a configuration: one server, of no file or of one.
//!
//! They become the tree that a file would have, or take the place of keys in the tree of a file, and
//! are read like one, so that they mean the same and are refused alike; only the places of problems are
//! names of arguments.

use std::path::{Path, PathBuf};

use super::launched;
use super::pack::PackRef;
use super::problem::{Location, did_you_mean, list_of};
use super::surroundings::Surroundings;
use super::upstream::{Confine, HttpTransport};
use crate::yaml::{self, Kind, Member, Node, Origin};

/// Which lines of diagnostics: warnings, and what the program writes to its standard error, as its
/// client's user would have seen it.
const FILTER: &str = "warn,child=info";

/// What `bartizan wrap` was given.
#[derive(Debug, Clone, Default)]
pub struct Wrap {
    /// The program to start and its arguments; empty where `url` or `config` is given.
    pub command: Vec<String>,
    /// The HTTP server to reach instead.
    pub url: Option<String>,
    /// The configuration file that has the server instead. Other arguments stand for its keys.
    pub config: Option<PathBuf>,
    /// The server of that file; absent: the only one.
    pub server: Option<String>,
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
    /// Keys of `limits`, as `(key, value)`.
    pub limits: Vec<(String, String)>,
    /// What records keep of the policy's input, as `audit.inputs`.
    pub inputs: Option<String>,
    /// How a refusal looks, as the server's `refusal`.
    pub refusal: Option<String>,
    /// The lock of tool definitions, as `lock`.
    pub lock: Option<String>,
    /// The collector, as `otlp.endpoint`.
    pub otlp: Option<String>,
    /// Which lines of diagnostics, as `log.filter`.
    pub log: Option<String>,
}

/// Tells of a problem: where, what, and what to do.
pub(super) type Tell<'t> = &'t dyn Fn(&Location, &str, &str);

impl Wrap {
    /// The same as the tree of a file, with `approvals` as its part of that name. `file` is the tree of
    /// `config`, if there is one. Where no server or no state directory can be found, `problem` is told.
    pub(super) fn into_tree(
        mut self,
        file: Option<Node>,
        surroundings: &Surroundings<'_>,
        approvals: Option<Node>,
        problem: Tell<'_>,
    ) -> Option<Node> {
        let whole = file.is_some();
        let mut tree = Tree { root: file.unwrap_or_else(|| map(Vec::new(), "wrap")) };
        let (name, named) = if whole {
            self.count_paths_from_here();
            (tree.choose(self.server.as_deref(), problem)?, "wrap")
        } else {
            self.server_name()
        };
        let state = self.state.take().or_else(|| default_state(&name, surroundings));
        if state.is_none() {
            let hint = "name a directory that you may write to, or set HOME";
            problem(&Location::named("--state"), "is missing, and HOME is not set", hint);
        }
        tree.set(&["state"], state, "--state");
        tree.begin("servers");
        tree.begin_named("servers", &name, named);
        self.set_server(&mut tree, &name);
        self.set_limits(&mut tree, problem);
        self.set_rest(&mut tree, approvals, problem);
        Some(tree.root)
    }

    /// The keys of the server called `name`.
    fn set_server(&mut self, tree: &mut Tree, name: &str) {
        let mut set = |key, value: Option<String>, argument| {
            tree.set(&["servers", name, key], value, argument);
        };
        let confine = self.confine.and_then(|confine| word_of(&Confine::NAMES, &confine));
        set("confine", confine, "--confine");
        set("sha256", self.sha256.take(), "--sha256");
        let transport = self.transport.and_then(|it| word_of(&HttpTransport::NAMES, &it));
        set("transport", transport, "--transport");
        set("url", self.url.take(), "--url");
        set("pack", self.pack.take(), "--pack");
        set("environment", self.environment.take(), "--environment");
        set("refusal", self.refusal.take(), "--refusal");
        if !self.command.is_empty() {
            let command = texts(std::mem::take(&mut self.command), "COMMAND");
            tree.put(&["servers", name, "command"], command);
            // The child would have had all of them without us.
            tree.put(&["servers", name, "env_inherit"], texts(vec!["*".to_owned()], "COMMAND"));
        }
        let headers = std::mem::take(&mut self.headers).into_iter().map(|(name, value)| Member {
            key: name,
            origin: Origin::Named("--header"),
            value: text(value, "--header"),
        });
        let headers: Vec<Member> = headers.collect();
        if !headers.is_empty() {
            tree.put(&["servers", name, "headers"], map(headers, "--header"));
        }
    }

    /// The keys of `limits`.
    fn set_limits(&mut self, tree: &mut Tree, problem: Tell<'_>) {
        let mut seen = Vec::new();
        for (key, value) in std::mem::take(&mut self.limits) {
            let origin = Origin::Pair("--limit");
            if seen.contains(&key) {
                let at = Location::named("limits").member(&key, origin);
                problem(&at, "is given twice", "keep one of them");
                continue;
            }
            // Numbers are told from texts as in a file. What is no scalar is a wrong text.
            let kind = yaml::read(&value, &mut Vec::new()).map(|node| node.kind);
            let kind = match kind {
                Some(Kind::List(_) | Kind::Map(_)) | None => Kind::Text(value),
                Some(kind) => kind,
            };
            tree.begin("limits");
            tree.put(&["limits", &key], Node { origin, kind });
            seen.push(key);
        }
    }

    /// The keys of no server.
    fn set_rest(self, tree: &mut Tree, approvals: Option<Node>, problem: Tell<'_>) {
        if !self.policies.is_empty() {
            tree.begin("policy");
            tree.put(&["policy", "paths"], texts(self.policies, "--policy"));
        }
        let mode = self.observe.then(|| "observe".to_owned());
        tree.set(&["mode"], mode, "--observe");
        tree.set(&["lock"], self.lock, "--lock");
        for (section, key, value, argument) in [
            ("principal", "id", self.principal, "--principal"),
            ("audit", "inputs", self.inputs, "--inputs"),
            ("otlp", "endpoint", self.otlp, "--otlp"),
        ] {
            if value.is_some() {
                tree.begin(section);
                tree.set(&[section, key], value, argument);
            }
        }
        tree.begin("log");
        tree.set(&["log", "filter"], self.log, "--log");
        for (key, default) in [("format", "text"), ("filter", FILTER)] {
            if !tree.has(&["log", key]) {
                tree.put(&["log", key], text(default.to_owned(), "wrap"));
            }
        }
        if let Some(approvals) = approvals {
            tree.put(&["approvals"], approvals);
        }
        if self.admin.is_some() && !tree.has(&["approvals"]) {
            let hint = "name who may answer with `--approvals`, or remove it";
            problem(&Location::named("--admin"), "does nothing without approvers", hint);
        }
        tree.set(&["admin"], self.admin, "--admin");
    }

    /// Paths in the file count from its directory; those in arguments go on counting from here.
    fn count_paths_from_here(&mut self) {
        let absolute = |path: &mut String| {
            let whole = std::path::absolute(&*path).ok();
            if let Some(whole) = whole.and_then(|whole| whole.into_os_string().into_string().ok()) {
                *path = whole;
            }
        };
        self.policies.iter_mut().for_each(absolute);
        let pack = self.pack.iter_mut();
        let pack = pack.filter(|pack| matches!(PackRef::named(pack), PackRef::File(_)));
        pack.chain(&mut self.lock).chain(&mut self.state).for_each(absolute);
    }

    /// What rules and records call the server, and where that came from.
    fn server_name(&self) -> (String, &'static str) {
        if let Some(name) = &self.name {
            return (name.clone(), "--name");
        }
        let found = match &self.url {
            Some(url) => launched::name_of_url(url),
            None => launched::name_of_command(&self.command),
        };
        (found.unwrap_or_else(|| "server".to_owned()), "wrap")
    }
}

/// The tree of a configuration that is being written.
struct Tree {
    root: Node,
}

impl Tree {
    /// Leaves, of the servers, only the one that is `wanted`, or the only one; its name.
    fn choose(&mut self, wanted: Option<&str>, problem: Tell<'_>) -> Option<String> {
        let Some(Kind::Map(servers)) = self.at(&["servers"]).map(|it| &mut it.value.kind) else {
            problem(
                &Location::named("servers"),
                "has no server",
                "name one, with `url` or `command`",
            );
            return None;
        };
        let names: Vec<String> = servers.iter().map(|server| server.key.clone()).collect();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let at = Location::named("--server");
        let name = match (wanted, known.as_slice()) {
            (Some(wanted), known) if known.contains(&wanted) => wanted.to_owned(),
            (None, [one]) => (*one).to_owned(),
            (Some(wanted), known) => {
                let what = format!("no server is called `{}`", wanted.escape_debug());
                problem(&at, &what, &did_you_mean(wanted, known));
                return None;
            }
            (None, known) => {
                let hint = format!("name one of {}", list_of(known));
                problem(&at, "is missing, and the file has not one server", &hint);
                return None;
            }
        };
        servers.retain(|server| server.key == name);
        Some(name)
    }

    /// The member at `keys`.
    fn at(&mut self, keys: &[&str]) -> Option<&mut Member> {
        let (last, above) = keys.split_last()?;
        let node = match above {
            [] => &mut self.root,
            above => &mut self.at(above)?.value,
        };
        let Kind::Map(members) = &mut node.kind else { return None };
        members.iter_mut().find(|member| member.key == *last)
    }

    fn has(&mut self, keys: &[&str]) -> bool {
        self.at(keys).is_some()
    }

    /// A mapping at the top-level `key`, unless there is one.
    fn begin(&mut self, key: &str) {
        if !self.has(&[key]) {
            self.put(&[key], map(Vec::new(), "wrap"));
        }
    }

    /// A mapping `name` in the one at `key`, unless there is one; `argument` named it.
    fn begin_named(&mut self, key: &str, name: &str, argument: &'static str) {
        if !self.has(&[key, name]) {
            self.put(&[key, name], map(Vec::new(), argument));
        }
    }

    /// Puts the text `value`, if there is one, at `keys`.
    fn set(&mut self, keys: &[&str], value: Option<String>, argument: &'static str) {
        if let Some(value) = value {
            self.put(keys, text(value, argument));
        }
    }

    /// Puts `value` at `keys`, in the place of what is there. What is above and no mapping stays, and
    /// is refused when the tree is read.
    fn put(&mut self, keys: &[&str], value: Node) {
        if let Some(member) = self.at(keys) {
            (member.origin, member.value) = (value.origin, value);
            return;
        }
        let Some((last, above)) = keys.split_last() else { return };
        let node = match above {
            [] => Some(&mut self.root),
            above => self.at(above).map(|member| &mut member.value),
        };
        if let Some(Node { kind: Kind::Map(members), .. }) = node {
            members.push(Member { key: (*last).to_owned(), origin: value.origin, value });
        }
    }
}

/// The word of `names` that means `value`.
fn word_of<T: PartialEq>(names: &[(&'static str, T)], value: &T) -> Option<String> {
    names.iter().find(|(_, known)| known == value).map(|(word, _)| (*word).to_owned())
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

/// `bartizan/<server>` in the user's state directory (XDG base directories, `XDG_STATE_HOME`).
fn default_state(name: &str, surroundings: &Surroundings<'_>) -> Option<String> {
    let absolute = |path: &String| Path::new(path).is_absolute();
    let base = (surroundings.env)("XDG_STATE_HOME").filter(absolute).map(PathBuf::from);
    let home = || (surroundings.env)("HOME").filter(absolute).map(PathBuf::from);
    let base = base.or_else(|| Some(home()?.join(".local/state")))?;
    base.join("bartizan").join(name).into_os_string().into_string().ok()
}
