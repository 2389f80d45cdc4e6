//! Merges JSON files into the document `data` of a policy, as OPA does (OPA docs, "Bundles").
//!
//! Each file is read with the strict reader. Scalars and arrays are copied as text, so no number is
//! rounded. Two files with a value at one path are an error. `sources` and `bundle` call it.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::bundle::manifest::{Root, leads_to, owns};
use bartizan_gate::wire::document::{Document, DocumentLimits, Kind, Value, write_string};
use bartizan_rego::unreadable_cause;

/// Most values in one data file.
const VALUES_MAX: usize = 1 << 23;

/// The data merged so far.
#[derive(Debug, Default)]
pub(super) struct Data {
    members: BTreeMap<String, Node>,
    /// Whether a file was added: an empty object is not the same as no data.
    given: bool,
}

impl Data {
    /// Merges one file's JSON text at the path `names` below `data`.
    ///
    /// # Errors
    ///
    /// The byte offset, where one is known, and what is wrong.
    pub(super) fn add(
        &mut self,
        text: &str,
        names: &[String],
    ) -> Result<(), (Option<usize>, String)> {
        let node = names
            .iter()
            .rev()
            .fold(read(text)?, |inner, name| Node::Object(BTreeMap::from([(name.clone(), inner)])));
        self.given = true;
        merge(&mut self.members, node, &mut Vec::new())
            .map_err(|path| (None, format!("`data.{path}` is given by another file too")))
    }

    /// The dotted path of a value outside of all `roots`; `None` where each is inside of one.
    pub(super) fn outside(&self, roots: &[Root]) -> Option<String> {
        let inside = |(name, node)| outside(node, &mut vec![name], roots);
        if owns::<&str>(roots, &[]) {
            return None;
        }
        self.members.iter().map(|(name, node)| (name.as_str(), node)).find_map(inside)
    }

    /// The merged document as JSON text; `None` where no file was added.
    pub(super) fn text(self) -> Option<String> {
        self.given.then(|| {
            let mut text = Vec::new();
            write(&mut text, &Node::Object(self.members));
            // Every part was UTF-8 when it was read, so nothing is replaced.
            String::from_utf8_lossy(&text).into_owned()
        })
    }
}

/// A part of `data`: an object, which other files may extend, or the JSON text of another value.
#[derive(Debug)]
enum Node {
    Object(BTreeMap<String, Self>),
    Leaf(Vec<u8>),
}

fn read(text: &str) -> Result<Node, (Option<usize>, String)> {
    let limits = DocumentLimits {
        bytes_max: text.len(),
        values_max: VALUES_MAX,
        ..DocumentLimits::default()
    };
    let document =
        Document::read(Bytes::copy_from_slice(text.as_bytes()), &limits).map_err(|unreadable| {
            let (at, cause) = unreadable_cause(&unreadable);
            (at, cause.to_owned())
        })?;
    if document.root().kind() != Kind::Object {
        return Err((Some(0), "not an object".to_owned()));
    }
    Ok(copy(document.root()))
}

/// Copies a value. The recursion is as deep as the document, which the strict reader bounds.
fn copy(value: Value<'_>) -> Node {
    if value.kind() != Kind::Object {
        return Node::Leaf(value.raw().to_vec());
    }
    let members = value.members();
    Node::Object(
        members
            .filter_map(|(name, value)| Some((name.as_str()?.to_owned(), copy(value))))
            .collect(),
    )
}

/// Merges `node`, an object, into `into`. The error is the dotted path of a conflict.
fn merge(
    into: &mut BTreeMap<String, Node>,
    node: Node,
    path: &mut Vec<String>,
) -> Result<(), String> {
    let Node::Object(members) = node else { return Err(path.join(".")) };
    for (name, node) in members {
        path.push(name.clone());
        match into.get_mut(&name) {
            None => drop(into.insert(name, node)),
            Some(Node::Object(inner)) => merge(inner, node, path)?,
            Some(Node::Leaf(_)) => return Err(path.join(".")),
        }
        drop(path.pop());
    }
    Ok(())
}

/// The dotted path of a value in `node`, which is at `path`, that is outside of all `roots`. The
/// recursion is as deep as the document.
fn outside<'a>(node: &'a Node, path: &mut Vec<&'a str>, roots: &[Root]) -> Option<String> {
    if owns(roots, path) {
        return None;
    }
    let Node::Object(members) = node else { return Some(path.join(".")) };
    if !leads_to(roots, path) {
        return Some(path.join("."));
    }
    members.iter().find_map(|(name, node)| {
        path.push(name);
        let found = outside(node, path, roots);
        path.pop();
        found
    })
}

fn write(out: &mut Vec<u8>, node: &Node) {
    match node {
        Node::Leaf(raw) => out.extend_from_slice(raw),
        Node::Object(members) => {
            let mut separator = b'{';
            for (name, node) in members {
                out.push(separator);
                separator = b',';
                write_string(out, name);
                out.push(b':');
                write(out, node);
            }
            if members.is_empty() {
                out.push(b'{');
            }
            out.push(b'}');
        }
    }
}
