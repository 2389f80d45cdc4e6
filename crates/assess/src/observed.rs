//! What a server showed: who it says it is, and the entries of its lists.

use bytes::Bytes;
use serde_json::Value;

use bartizan_gate::catalog::flags;
use bartizan_gate::catalog::lists::digest;
use bartizan_gate::wire::document::{Document, DocumentLimits};
use bartizan_gate::wire::unseen::twins;

/// How the server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Over HTTP.
    Http {
        /// Whether the address is `https`.
        encrypted: bool,
        /// Whether the address is on this machine.
        loopback: bool,
        /// Whether requests carried a header that the user gave, such as a credential.
        with_headers: bool,
    },
    /// As a child process: the program and its arguments.
    Program(Vec<String>),
}

/// What stands in a report in place of a credential.
pub const MASK: &str = "[credential]";

/// The entries of one list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// The entries, in the server's order; tools are sorted by name.
    pub items: Vec<Item>,
    /// Whether the server offers the list at all.
    pub offered: bool,
    /// Why entries are missing; absent if the list is whole.
    pub gap: Option<String>,
}

/// One entry of a list: a tool, a resource, a resource template or a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name, URI or URI template.
    pub name: String,
    /// The definition.
    pub definition: Value,
    /// `sha256:<hex>` of the canonical definition, as in a lock.
    pub digest: String,
    /// What the gate flags in it: invisible text, look-alike names, schemas that refer elsewhere.
    pub flags: Vec<&'static str>,
    /// Whether the list has another entry of the same name; of an entry that is no tool, an earlier
    /// one.
    pub is_repeated: bool,
}

/// Everything that a server showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Its address without credentials and query, or its program, for readers.
    pub address: String,
    /// How it is reached.
    pub reach: Reach,
    /// The answer to `initialize` or `server/discover`: `serverInfo`, `protocolVersion`,
    /// `capabilities`, `instructions`.
    pub identity: Value,
    /// Its tools.
    pub tools: Listed,
    /// Its resources.
    pub resources: Listed,
    /// Its resource templates.
    pub templates: Listed,
    /// Its prompts.
    pub prompts: Listed,
}

impl Item {
    /// Reads a definition. Its flags are complete once it is in a [`Listed`].
    ///
    /// # Errors
    ///
    /// The text is no strict JSON (see `docs/strict-profile.md`).
    pub fn read(name: &str, text: &str) -> Result<Self, String> {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let document = Document::read(bytes, &DocumentLimits::default())
            .map_err(|_| "a definition is no strict JSON".to_owned())?;
        let definition =
            serde_json::from_str(text).map_err(|_| "a definition is no strict JSON".to_owned())?;
        let digest = digest(document.root()).into();
        Ok(Self {
            name: name.to_owned(),
            definition,
            digest,
            flags: flags::of(document.root(), false),
            is_repeated: false,
        })
    }

    /// The text of member `name`; empty if there is none.
    pub fn text(&self, name: &str) -> &str {
        self.definition.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Listed {
    /// A list that the server offers, whole if there is no `gap`. Flags names that look like another
    /// name of the list.
    pub fn new(mut items: Vec<Item>, gap: Option<String>) -> Self {
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        let twins = twins(&names);
        for (item, is_twin) in items.iter_mut().zip(twins) {
            if is_twin && !item.flags.contains(&bartizan_gate::wire::unseen::TWIN) {
                item.flags.push(bartizan_gate::wire::unseen::TWIN);
            }
        }
        Self { items, offered: true, gap }
    }
}

impl Observed {
    /// The lists with the word for an entry of each.
    pub fn lists(&self) -> [(&'static str, &Listed); 4] {
        [
            ("tool", &self.tools),
            ("resource", &self.resources),
            ("template", &self.templates),
            ("prompt", &self.prompts),
        ]
    }

    /// Whether the server declares `at`, a pointer into its capabilities, as `true`.
    pub(crate) fn declares(&self, at: &str) -> bool {
        let declared = self.identity.get("capabilities").and_then(|all| all.pointer(at));
        declared.and_then(Value::as_bool) == Some(true)
    }
}
