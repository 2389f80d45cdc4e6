//! Compares the records with checkpoints, in the journal and saved elsewhere, and with saved hashes.
//!
//! The Merkle tree is computed here anew (RFC 6962 §2.1), without the code of the signer. A
//! checkpoint in the journal covers records before its own, so the hashes of the newest records wait
//! until a checkpoint says how many of them it covers.

use std::collections::VecDeque;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::lines::Place;
use super::{JournalSummary, SavedCheckpoint, SavedHead, VerifyOptions};
use crate::chain::{ChainFault, Link};
use crate::checkpoint::{Checkpoint, CheckpointMember};
use crate::entry;
use crate::note;
use crate::recover::Damage;

/// Records that may be written while a checkpoint is made. The signer reads up to the newest record
/// and then records the checkpoint, so it is never so many behind.
const BEHIND_MAX: usize = 1 << 18;

type Hash = [u8; 32];

/// A tree as a stack of complete subtrees, each with its height and root.
#[derive(Clone, Default)]
struct Stack(Vec<(u32, Hash)>);

impl Stack {
    /// The stack of a tree of `size` leaves whose complete subtrees have the roots `peaks`.
    fn resume(size: u64, peaks: &[Hash]) -> Option<Self> {
        let heights: Vec<u32> =
            (0..u64::BITS).rev().filter(|height| (size >> height) & 1 == 1).collect();
        (heights.len() == peaks.len())
            .then(|| Self(heights.into_iter().zip(peaks.iter().copied()).collect()))
    }

    fn push(&mut self, leaf: Hash) {
        let (mut height, mut root) = (0_u32, leaf);
        while let Some((_, left)) = self.0.pop_if(|(other, _)| *other == height) {
            root = joined(&left, &root);
            height = height.saturating_add(1);
        }
        self.0.push((height, root));
    }

    fn root(&self) -> Hash {
        let mut roots = self.0.iter().rev().map(|(_, root)| *root);
        let Some(mut right) = roots.next() else { return Sha256::digest([]).into() };
        for left in roots {
            right = joined(&left, &right);
        }
        right
    }
}

fn joined(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = vec![1];
    bytes.extend_from_slice(left);
    bytes.extend_from_slice(right);
    Sha256::digest(bytes).into()
}

/// The member of a line that a checkpoint has.
#[derive(Deserialize)]
struct CheckpointLine {
    checkpoint: CheckpointMember,
}

/// What has been compared so far.
pub(super) struct Signed<'o> {
    options: &'o VerifyOptions,
    /// The tree of the first `size` records; absent where the records before are elsewhere and no
    /// checkpoint was read yet.
    tree: Option<Stack>,
    size: u64,
    first_seq: u64,
    /// The hashes of the leaves after those, the oldest one first.
    waiting: VecDeque<Hash>,
    /// The last record of which a checkpoint has confirmed that it is the one that was signed, and
    /// all before it.
    proven: u64,
    checkpoints: u64,
    origin: Option<String>,
    heads_found: Vec<bool>,
}

impl<'o> Signed<'o> {
    /// Before record `first_seq`.
    pub(super) fn new(options: &'o VerifyOptions, first_seq: u64) -> Self {
        Self {
            options,
            tree: (first_seq == 1).then(Stack::default),
            size: first_seq.saturating_sub(1),
            first_seq,
            waiting: VecDeque::new(),
            proven: 0,
            checkpoints: 0,
            origin: None,
            heads_found: vec![false; options.heads.len()],
        }
    }

    /// Takes the next record, whose line is `bytes` and has the hash `own`.
    pub(super) fn take(
        &mut self,
        link: &Link<'_>,
        bytes: &[u8],
        own: &Hash,
        place: Place<'_>,
    ) -> Result<(), Damage> {
        let mut leaf = Sha256::new();
        leaf.update([0]);
        leaf.update(bytes);
        self.waiting.push_back(leaf.finalize().into());
        if self.waiting.len() > BEHIND_MAX {
            self.settle(self.size.saturating_add(1));
        }
        let damage = |seq, fault| place.damage(seq, fault);
        for (head, found) in self.options.heads.iter().zip(&mut self.heads_found) {
            let same = head.hash == *own;
            *found |= same;
            if head.seq == Some(link.seq) && !same {
                let fault = ChainFault::OtherHead { by: head.from.clone() };
                return Err(damage(link.seq, fault));
            }
        }
        if link.event == "checkpoint" {
            self.examine(link.seq, bytes).map_err(|(seq, fault)| damage(seq, fault))?;
        }
        for saved in &self.options.checkpoints {
            if saved.checkpoint.size == link.seq {
                self.compare(saved, link.seq).map_err(|(seq, fault)| damage(seq, fault))?;
            }
        }
        Ok(())
    }

    /// Moves the tree on to `size` records.
    fn settle(&mut self, size: u64) {
        while self.size < size
            && let Some(leaf) = self.waiting.pop_front()
        {
            if let Some(tree) = &mut self.tree {
                tree.push(leaf);
            }
            self.size = self.size.saturating_add(1);
        }
    }

    /// Checks the checkpoint in record `seq`.
    fn examine(&mut self, seq: u64, line: &[u8]) -> Result<(), (u64, ChainFault)> {
        let bad = |cause: String| (seq, ChainFault::Checkpoint { cause });
        let member = entry::read::<CheckpointLine>(line).map_err(bad)?.checkpoint;
        let text = if self.options.keys.is_empty() {
            note::split(&member.note).map_err(|error| bad(error.to_string()))?.0
        } else {
            note::open(&member.note, &self.options.keys).map_err(|e| bad(e.to_string()))?.0
        };
        let checkpoint = Checkpoint::read(text)
            .ok_or_else(|| bad("its text is not the one of a checkpoint".to_owned()))?;
        if checkpoint.size >= seq {
            return Err(bad(format!("it covers {} records", checkpoint.size)));
        }
        if checkpoint.size >= self.size {
            self.settle(checkpoint.size);
            let root = match &self.tree {
                Some(tree) => tree.root(),
                // Records before the first one here are covered, too: the tree begins here.
                None => self.resume(checkpoint.size, &member).ok_or_else(|| {
                    bad("its `peaks` are not those of a tree of its size".to_owned())
                })?,
            };
            if root != checkpoint.root {
                let by = format!("the checkpoint in record {seq}");
                let fault = ChainFault::Rewritten { last: checkpoint.size, by };
                return Err((self.proven.saturating_add(1).max(self.first_seq), fault));
            }
            self.proven = self.proven.max(checkpoint.size);
        } else if self.tree.is_some() {
            return Err(bad(format!("it is too old: it covers {} records", checkpoint.size)));
        }
        self.checkpoints = self.checkpoints.saturating_add(1);
        self.origin = Some(checkpoint.origin);
        Ok(())
    }

    /// Begins the tree with the subtrees that a checkpoint names, and returns its root.
    fn resume(&mut self, size: u64, member: &CheckpointMember) -> Option<Hash> {
        let tree = Stack::resume(size, &member.hashes()?)?;
        Some(self.tree.insert(tree).root())
    }

    /// Compares the records up to `seq`, which is the newest one, with a checkpoint of this size.
    fn compare(&mut self, saved: &SavedCheckpoint, seq: u64) -> Result<(), (u64, ChainFault)> {
        let Some(tree) = &self.tree else {
            let by = saved.from.clone();
            return Err((self.first_seq, ChainFault::NotComparable { by }));
        };
        let mut tree = tree.clone();
        self.waiting.iter().for_each(|leaf| tree.push(*leaf));
        if tree.root() != saved.checkpoint.root {
            let fault = ChainFault::Rewritten { last: seq, by: saved.from.clone() };
            return Err((self.proven.saturating_add(1).max(self.first_seq), fault));
        }
        self.proven = seq;
        Ok(())
    }

    /// Checks at the end, after record `last`, that nothing is missing, and adds to `summary`.
    pub(super) fn finish(
        self,
        last: u64,
        summary: &mut JournalSummary,
    ) -> Result<(), (u64, ChainFault)> {
        let next = last.saturating_add(1);
        for SavedCheckpoint { checkpoint, from } in &self.options.checkpoints {
            if checkpoint.size < self.first_seq {
                let by = from.clone();
                return Err((self.first_seq, ChainFault::NotComparable { by }));
            }
            if checkpoint.size > last {
                let by = format!("{from} covers the records up to {}", checkpoint.size);
                return Err((next, ChainFault::CutOff { by }));
            }
        }
        for (SavedHead { seq, from, .. }, found) in self.options.heads.iter().zip(&self.heads_found)
        {
            if seq.is_some_and(|seq| seq < self.first_seq) {
                let by = from.clone();
                return Err((self.first_seq, ChainFault::NotComparable { by }));
            }
            if !found {
                let which = seq.map_or("a record".to_owned(), |seq| format!("record {seq}"));
                let by = format!("{from} has the hash of {which} that is not here");
                return Err((next, ChainFault::CutOff { by }));
            }
        }
        let keys = !self.options.keys.is_empty();
        if keys && self.checkpoints == 0 && self.options.checkpoints.is_empty() {
            return Err((summary.first_seq, ChainFault::Unsigned));
        }
        summary.checkpoints = self.checkpoints;
        summary.proven = (self.proven > 0).then_some(self.proven);
        summary.origin = self.origin;
        summary.signatures_checked = keys;
        Ok(())
    }
}
