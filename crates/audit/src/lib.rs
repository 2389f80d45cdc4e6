//! The journal and what is made from it.
//!
//! The journal is the record; everything else here only reads it. [`journal`] keeps records and is
//! the one writer, [`recover`] puts a directory right after a crash, [`tail`] reads records back,
//! [`verify`] proves them whole, [`pretty`] shows them to a person, [`export`] sends them on:
//! [`otlp`] as spans, [`decisions`] as OPA's decision logs. Nothing here decides anything, and no
//! reader can slow the writer down.
//!
//! # What is in a journal directory
//!
//! - `journal-<first seq, 20 digits>.ndjson`: segments. One JSON object a line, UTF-8, LF.
//! - `journal.lock`: locked while a program writes.
//! - `torn-<seq>.bin`: the bytes of a record that a crash cut off, kept aside by recovery.
//!
//! # What the journal adds to a record
//!
//! Each line is an [`AuditRecord`](bartizan_gate::evidence::record::AuditRecord) behind these members, always
//! in this order:
//!
//! - `seq`: 1, 2, 3 and so on, without a gap over segments and restarts.
//! - `boot`: names the run of the program that wrote the line.
//! - `prev`: SHA-256, in lower-case hex, of the bytes of the line before without its LF; 64 zeros
//!   in the first line of all.
//! - `open` (event `rotation`): call ids of every intent that still awaits its outcome, so that
//!   recovery needs the last segment alone; `open_elided` counts ids left out.
//! - `gap` (event `gap`): `refused`, how many records could not be kept, `since` when, and the
//!   last `cause`.
//!
//! Every segment but the first begins with a `rotation` record. Characters that could steer a
//! terminal or hide text ([`bartizan_gate::wire::unseen`]) are written as JSON escapes, so a line is safe to
//! print as it is.
//!
//! The chain shows any change to a record that has a successor. It does not show that whole
//! records were cut off at the end, nor a journal rewritten from some point on by someone who can
//! write the directory; for that its head must be known elsewhere.

use std::path::{Path, PathBuf};

pub mod inert;
pub mod entry;
pub mod segment;
pub mod chain;
pub mod recover;
pub mod writer;
pub mod journal;
pub mod tail;
pub mod verify;
pub mod filter;
pub mod pretty;
pub mod span;
pub mod export;
pub mod otlp;
pub mod decisions;

/// The journal's directory below the state directory of a configuration.
pub fn journal_directory(state: &Path) -> PathBuf {
    state.join("journal")
}
