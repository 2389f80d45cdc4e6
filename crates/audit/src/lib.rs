//! The audit journal, and everything that reads it.
//!
//! [`journal`] is the only writer: it appends records, and [`durability`] says which acts wait until
//! theirs are on the disk. [`recover`] repairs a directory after a
//! crash, [`tail`] reads records, [`recent`] the newest of them backwards and [`scan`] all of them
//! fast, [`signing`] signs them, [`verify`] checks that none was changed or removed, [`prove`]
//! proves a single one. [`filter`] selects records, [`calls`] joins those of a call, [`tally`] counts
//! calls, [`pretty`] and [`story`] format them for people, and [`export`] sends them to services: as
//! spans ([`otlp`]) and as OPA's decision logs ([`decisions`]). [`formats`] writes these and others
//! to a file, and [`report`] tells people what happened in a time. Nothing here decides
//! anything, and no reader can slow the writer down. `docs/audit.md` describes records and commands
//! for users.
//!
//! # What is in a journal directory
//!
//! - `journal-<first seq, 20 digits>.ndjson`: segments. One JSON object per line, UTF-8, LF.
//! - `journal.lock`: locked while a program writes.
//! - `torn-<seq>.bin`: the bytes of a record that a crash cut off. Recovery moves them here.
//!
//! # What the journal adds to a record
//!
//! Each line is an [`AuditRecord`](bartizan_gate::evidence::record::AuditRecord) after these
//! members, always in this order:
//!
//! - `seq`: 1, 2, 3 and so on, without a gap across segments and restarts.
//! - `boot`: identifies the run of the program that wrote the line.
//! - `prev`: SHA-256, in lower-case hexadecimal, of the bytes of the line before without its LF; 64
//!   zeros in the first record.
//! - `open` (event `rotation`): call ids of all intents without an outcome, so that recovery needs
//!   only the last segment; `open_elided` counts the ids that are left out.
//! - `gap` (event `gap`): `refused`, the number of records that could not be written; `since`, the
//!   time of the first; and `cause`, the reason for the last.
//! - `checkpoint` (event `checkpoint`): `note`, a signed note (C2SP `tlog-checkpoint`) over the
//!   number of earlier records and the root of the Merkle tree (RFC 6962) of their lines without
//!   LF; and `peaks`, the roots of the complete subtrees of that tree, largest first, base64.
//!
//! Every segment except the first begins with a `rotation` record. Characters that can control a
//! terminal or hide text ([`bartizan_gate::wire::unseen`]) are written as JSON escapes, so a line
//! can be printed as it is.
//!
//! The chain reveals any change to a record that has a successor. Checkpoints reveal that someone
//! with write access to the directory rewrote records that were signed. Neither reveals that whole
//! records were cut off at the end: to detect this, keep the last hash or checkpoint elsewhere
//! (`docs/threats.md`).

use std::path::{Path, PathBuf};

pub mod inert;
pub mod note;
pub mod merkle;
pub mod checkpoint;
pub mod entry;
pub mod segment;
pub mod retention;
pub mod chain;
mod encode;
pub mod recover;
pub mod durability;
mod commit;
pub mod writer;
pub mod journal;
pub mod tail;
pub mod signing;
pub mod verify;
pub mod prove;
pub mod filter;
pub mod recent;
pub mod beginning;
pub mod scan;
pub mod calls;
pub mod tally;
pub mod pretty;
pub mod story;
pub mod span;
pub mod dead_letter;
pub mod export;
pub mod otlp;
pub mod decisions;
pub mod formats;
pub mod report;

/// The journal's directory in the state directory `state` of a configuration.
pub fn journal_directory(state: &Path) -> PathBuf {
    state.join("journal")
}
