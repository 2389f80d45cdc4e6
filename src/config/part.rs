//! Parts of a configuration, for commands that need no secret.
//!
//! Only the keys of the part are looked at, and references (`${env:…}`, `${file:…}`) are not followed:
//! whoever asks for an address or replays a journal need not have the firewall's credentials.

use std::io;
use std::path::{Path, PathBuf};

use super::context::Context;
use super::listeners::Front;
use super::problem::Problems;
use super::surroundings::Surroundings;
use super::{Agents, Config, at_top, state_key, text_of, tree};
use crate::yaml::{Kind, Node};

/// The keys that say where clients come in.
const FRONT: &[&str] = &["listen", "listen_anywhere", "admin", "admin_anywhere"];
/// The keys that say which servers there are, and who the agents are.
const FACTS: &[&str] =
    &["listen", "listen_anywhere", "admin", "admin_anywhere", "servers", "principal"];

/// What stands for a secret that is not read.
const UNREAD: &str = "unread";

impl Config {
    /// The state directory of the configuration at `path`.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or with `state`.
    pub fn read_state(path: &Path) -> Result<PathBuf, Problems> {
        part(path, &["state"], |tree, cx| at_top(tree, cx, |s| Some(state_key(s))))
    }

    /// Where clients come in by the configuration at `path`.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or with those keys.
    pub fn read_front(path: &Path) -> Result<Front, Problems> {
        part(path, FRONT, |tree, cx| at_top(tree, cx, |s| Front::read(s, Agents::OverHttp)))
    }

    /// The servers and the principal of the configuration at `path`; all else is as if it were not
    /// written. Secrets in it are not the real ones.
    ///
    /// # Errors
    ///
    /// What is wrong with the file, or with those keys.
    pub fn read_facts(path: &Path) -> Result<Self, Problems> {
        part(path, FACTS, |tree, cx| Self::meant(tree, Agents::OverHttp, cx))
    }
}

/// What `meant` makes of the file at `path`, of which only the top-level `keys` are kept.
fn part<T>(
    path: &Path,
    keys: &[&str],
    meant: impl FnOnce(Node, &Context<'_>) -> Option<T>,
) -> Result<T, Problems> {
    let surroundings = Surroundings {
        env: &|_| Some(UNREAD.to_owned()),
        read: &|_, _| io::Result::Ok(UNREAD.as_bytes().to_vec()),
        exists: &|_| true,
    };
    let text = text_of(path)?;
    let cx = Context::new(path.parent().unwrap_or_else(|| Path::new("")), &surroundings);
    let found = tree(&text, &cx).and_then(|mut tree| {
        if let Kind::Map(members) = &mut tree.kind {
            members.retain(|member| keys.contains(&member.key.as_str()));
        }
        meant(tree, &cx)
    });
    cx.into_findings().0.unless_any(found)
}
