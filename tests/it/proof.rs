//! What signed checkpoints, saved heads and proofs show about a journal that somebody has changed.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bartizan::cli::audit::{KeyArgs, ProveArgs, VerifyArgs, check, inclusion, key};
use bartizan_audit::chain::{self, ChainFault};
use bartizan_audit::checkpoint::Checkpoint;
use bartizan_audit::journal::Journal;
use bartizan_audit::journal_directory;
use bartizan_audit::note::{PublicKey, Signer, split};
use bartizan_audit::recover::Damage;
use bartizan_audit::segment;
use bartizan_audit::signing::{CHECKPOINT_FILE, CheckpointError, Checkpointer};
use bartizan_audit::verify::{
    Extent, JournalSummary, SavedCheckpoint, SavedHead, Source, VerifyError, VerifyOptions,
    verify_with,
};
use bartizan_gate::evidence::step::AuditSink as _;
use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use crate::failures::Program;
use crate::firewall::{journal, wait};
use crate::journal::{config, denial, intent, now, outcome, verify_in_python};

fn signer(seed: u8) -> Signer {
    Signer::from_seed(&[seed; 32], Some("log.example/a")).unwrap()
}

/// A journal of several segments with several checkpoints, and what was kept of it elsewhere.
struct Kept {
    state: tempfile::TempDir,
    /// Each record's file and line.
    records: Vec<(PathBuf, String)>,
    key: PublicKey,
    note: String,
}

fn kept() -> Kept {
    let state = tempfile::tempdir().unwrap();
    for run in 0..2 {
        let config = config(&journal_directory(state.path()), 2500);
        let (journal, _) = Journal::open(&config, &format!("boot-{run}"), now(0)).unwrap();
        let journal = Arc::new(journal);
        let mut checkpointer = Checkpointer::open(&journal, state.path(), signer(1), &[]).unwrap();
        for n in 0..5 {
            journal.keep(&intent(&format!("c{run}{n}"))).unwrap();
            if n % 2 == 1 {
                checkpointer.write(now(3)).unwrap();
                // At most the `rotation` that came before it.
                assert!(checkpointer.uncovered() <= 1, "a checkpoint calls for no other one");
            }
            journal.keep(&outcome(&format!("c{run}{n}"))).unwrap();
        }
        journal.keep(&denial("c9")).unwrap();
        checkpointer.write(now(4)).unwrap();
        journal.close(now(5)).unwrap();
        checkpointer.seal().unwrap();
    }
    let records = records(state.path());
    let note = std::fs::read_to_string(state.path().join(CHECKPOINT_FILE)).unwrap();
    Kept { state, records, key: signer(1).public().clone(), note }
}

fn records(state: &Path) -> Vec<(PathBuf, String)> {
    let segments = segment::list(&journal_directory(state)).unwrap();
    let lines = segments.into_iter().flat_map(|segment| {
        let text = std::fs::read_to_string(&segment.path).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.into_iter().map(move |line| (segment.path.clone(), line))
    });
    lines.collect()
}

impl Kept {
    /// Writes `records` in the place of the files; what has none of them is removed.
    fn write(&self, records: &[(PathBuf, String)]) {
        for segment in segment::list(&journal_directory(self.state.path())).unwrap() {
            std::fs::remove_file(segment.path).unwrap();
        }
        for (path, line) in records {
            let mut file =
                std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
            writeln!(file, "{line}").unwrap();
        }
    }

    fn head(&self) -> SavedHead {
        let (_, line) = self.records.last().unwrap();
        let hash = Sha256::digest(line.as_bytes()).into();
        let seq = u64::try_from(self.records.len()).ok();
        SavedHead { seq, hash, from: "the saved head".to_owned() }
    }

    fn with_key(&self) -> VerifyOptions {
        VerifyOptions { keys: vec![self.key.clone()], ..VerifyOptions::default() }
    }

    fn with_checkpoint(&self) -> VerifyOptions {
        let saved =
            SavedCheckpoint::read(&self.note, std::slice::from_ref(&self.key), "the saved one");
        VerifyOptions { checkpoints: vec![saved.unwrap()], ..self.with_key() }
    }

    fn with_head(&self) -> VerifyOptions {
        VerifyOptions { heads: vec![self.head()], ..VerifyOptions::default() }
    }

    fn verify(&self, options: &VerifyOptions) -> Result<JournalSummary, VerifyError> {
        verify_with(Source::Directory(&journal_directory(self.state.path())), options)
    }

    fn damage(&self, what: &str, options: &VerifyOptions) -> Damage {
        match self.verify(options) {
            Err(VerifyError::Damaged(damage)) => damage,
            other => panic!("{what}: {other:?}"),
        }
    }

    /// The numbers of records that its checkpoints cover, the saved one included.
    fn sizes(&self) -> Vec<u64> {
        let notes = self.records.iter().filter_map(|(_, line)| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["checkpoint"]["note"].as_str().map(str::to_owned)
        });
        let size = |note: &String| Checkpoint::read(split(note).unwrap().0).unwrap().size;
        notes.chain([self.note.clone()]).map(|note| size(&note)).collect()
    }
}

/// `records` with gapless numbers and the hashes that follow from them.
fn chained(records: &[(PathBuf, String)]) -> Vec<(PathBuf, String)> {
    let mut prev = "0".repeat(64);
    let each = records.iter().zip(1..).map(|((path, line), seq)| {
        let (_, rest) = line.split_once(",\"boot\":").unwrap();
        let (boot, rest) = rest.split_once(",\"prev\":\"").unwrap();
        let (_, rest) = rest.split_at(64);
        let line = format!("{{\"seq\":{seq},\"boot\":{boot},\"prev\":\"{prev}{rest}");
        prev = String::from_utf8(chain::hash(line.as_bytes()).to_vec()).unwrap();
        (path.clone(), line)
    });
    each.collect()
}

type Records = Vec<(PathBuf, String)>;
type Mutate = fn(&mut Records, usize);

/// The lines as one exported file.
fn exported(records: &Records) -> String {
    records.iter().flat_map(|(_, line)| [line.as_str(), "\n"]).collect()
}

fn flip(records: &mut Records, at: usize) {
    let line = &mut records.get_mut(at).unwrap().1;
    *line = line.replacen("\"uptime_us\":", "\"uptime_us\":9", 1);
}

fn swap_with_next(records: &mut Records, at: usize) {
    let other = records.get(at + 1).unwrap().1.clone();
    let own = std::mem::replace(&mut records.get_mut(at).unwrap().1, other);
    records.get_mut(at + 1).unwrap().1 = own;
}

#[test]
fn a_signed_journal_over_runs_and_files_is_whole() {
    let kept = kept();
    let files = segment::list(&journal_directory(kept.state.path())).unwrap().len();
    assert!(files > 3, "{files}");
    assert_eq!(kept.sizes().len(), 7);
    let all = VerifyOptions { heads: vec![kept.head()], ..kept.with_checkpoint() };
    let summary = kept.verify(&all).unwrap();
    let last = u64::try_from(kept.records.len()).unwrap();
    assert_eq!((summary.checkpoints, summary.proven), (6, Some(last)));
    assert_eq!(summary.origin.as_deref(), Some("log.example/a"));
    assert!(summary.signatures_checked && summary.stopped && !summary.being_written);
    assert_eq!(kept.verify(&kept.with_key()).unwrap().proven, Some(last - 2));
    assert_eq!(chained(&kept.records), kept.records, "the test computes the same hashes");
    if let Some((whole, said)) = verify_in_python(&journal_directory(kept.state.path())) {
        assert!(whole, "{said}");
    }
}

#[test]
fn every_mutation_of_every_record_is_found_at_its_record() {
    let kept = kept();
    let all = VerifyOptions { heads: vec![kept.head()], ..kept.with_checkpoint() };
    // The last column: how many records after the changed one the first bad record is.
    let mutations: [(&str, Mutate, u64); 4] = [
        ("flip", flip, 0),
        ("delete", |records, at| drop(records.remove(at)), 0),
        ("swap", swap_with_next, 0),
        ("duplicate", |records, at| records.insert(at, records.get(at).unwrap().clone()), 1),
    ];
    for (name, mutate, later) in mutations {
        for (at, seq) in (0..kept.records.len()).zip(1..) {
            if name == "swap" && at + 1 == kept.records.len() {
                continue;
            }
            let mut records = kept.records.clone();
            mutate(&mut records, at);
            kept.write(&records);
            let damage = kept.damage(name, &all);
            assert_eq!(damage.seq, seq + later, "{name} {seq}: {damage}");
            check_export(name, &records, &all, seq + later);
        }
    }
    truncated(&kept, &all);
}

/// The same lines as one exported file have the same first bad record, on its own line.
fn check_export(name: &str, records: &Records, options: &VerifyOptions, seq: u64) {
    let text = exported(records);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    for bytes in [text.into_bytes(), gzip.finish().unwrap()] {
        let read = Box::new(std::io::Cursor::new(bytes));
        let verified = verify_with(Source::Export { name: Path::new("-"), read }, options);
        let Err(VerifyError::Damaged(damage)) = verified else { panic!("{name}: {verified:?}") };
        assert_eq!(damage.seq, seq, "{name}: {damage}");
        assert!(damage.line == seq || damage.line == 0, "{name} {seq}: {damage}");
    }
}

/// A file that ends within a line, at each record.
fn truncated(kept: &Kept, options: &VerifyOptions) {
    for (at, seq) in (0..kept.records.len()).zip(1_u64..) {
        kept.write(&kept.records);
        let (path, line) = kept.records.get(at).unwrap();
        let first = kept.records.iter().position(|(other, _)| other == path).unwrap();
        let before: usize =
            kept.records.get(first..at).unwrap().iter().map(|(_, l)| l.len() + 1).sum();
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(u64::try_from(before + line.len() / 2).unwrap()).unwrap();
        let damage = kept.damage("truncate", options);
        assert_eq!((damage.seq, damage.fault), (seq, ChainFault::Torn));
    }
}

#[test]
fn a_rewritten_chain_is_found_between_two_checkpoints_wherever_it_was_changed() {
    let kept = kept();
    let sizes = kept.sizes();
    for (at, seq) in (0..kept.records.len()).zip(1_u64..) {
        let mut records = kept.records.clone();
        flip(&mut records, at);
        kept.write(&chained(&records));
        let damage = kept.damage("rewritten", &kept.with_checkpoint());
        let first = sizes.iter().filter(|size| **size < seq).max().map_or(1, |size| size + 1);
        let covering = *sizes.iter().find(|size| **size >= seq).unwrap();
        assert_eq!(damage.seq, first, "{seq}: {damage}");
        let ChainFault::Rewritten { last, .. } = damage.fault else { panic!("{damage}") };
        assert_eq!(last, covering, "{seq}");
        // Without key and checkpoint, those in the journal still show it, and the head the rest.
        let is_covered = seq <= *sizes.get(sizes.len() - 2).unwrap();
        let by_head = kept.damage("rewritten", &kept.with_head());
        let last = u64::try_from(kept.records.len()).unwrap();
        assert_eq!(by_head.seq, if is_covered { first } else { last }, "{by_head}");
        if is_covered
            && let Some((whole, said)) = verify_in_python(&journal_directory(kept.state.path()))
        {
            assert!(!whole && said.starts_with(&format!("bad {first} ")), "{seq}: {said}");
        }
    }
}

#[test]
fn an_unknown_event_is_found_at_its_record_though_all_hashes_fit() {
    let kept = kept();
    for (at, seq) in (0..kept.records.len()).zip(1_u64..) {
        let mut records = kept.records.clone();
        let line = &mut records.get_mut(at).unwrap().1;
        *line = line.replacen("\"event\":\"", "\"event\":\"un", 1);
        kept.write(&chained(&records));
        let damage = kept.damage("unknown event", &VerifyOptions::default());
        assert!(matches!(damage.fault, ChainFault::UnknownEvent { .. }), "{damage}");
        assert_eq!(damage.seq, seq, "{damage}");
    }
}

#[test]
fn lost_records_at_the_end_are_found_by_what_was_kept_elsewhere() {
    let kept = kept();
    let unplaced = SavedHead { seq: None, ..kept.head() };
    let unplaced = VerifyOptions { heads: vec![unplaced], ..VerifyOptions::default() };
    for (at, seq) in (1..kept.records.len()).zip(2_u64..) {
        kept.write(kept.records.get(..at).unwrap());
        assert!(kept.verify(&VerifyOptions::default()).is_ok(), "nothing else shows it: {seq}");
        for options in [kept.with_checkpoint(), kept.with_head(), unplaced.clone()] {
            let damage = kept.damage("tail loss", &options);
            assert!(matches!(damage.fault, ChainFault::CutOff { .. }), "{damage}");
            assert_eq!(damage.seq, seq, "{damage}");
        }
    }
}

#[test]
fn removed_and_forged_checkpoints_are_found_with_the_key() {
    let kept = kept();
    let unsigned: Records = kept
        .records
        .iter()
        .filter(|(_, line)| !line.contains("\"event\":\"checkpoint\""))
        .filter(|(_, line)| !line.contains("\"event\":\"rotation\""))
        .map(|(_, line)| (kept.records.first().unwrap().0.clone(), line.clone()))
        .collect();
    kept.write(&chained(&unsigned));
    assert!(kept.verify(&VerifyOptions::default()).is_ok());
    assert_eq!(kept.damage("no checkpoints", &kept.with_key()).fault, ChainFault::Unsigned);
    let damage = kept.damage("no checkpoints", &kept.with_checkpoint());
    assert!(matches!(damage.fault, ChainFault::CutOff { .. }), "{damage}");

    // The whole journal anew, with another key under the same name.
    kept.write(&[]);
    let other = tempfile::tempdir().unwrap();
    let (journal, _) =
        Journal::open(&config(&journal_directory(other.path()), 1 << 20), "b", now(0)).unwrap();
    let journal = Arc::new(journal);
    let mut checkpointer = Checkpointer::open(&journal, other.path(), signer(2), &[]).unwrap();
    checkpointer.write(now(1)).unwrap();
    let verified =
        verify_with(Source::Directory(&journal_directory(other.path())), &kept.with_key());
    let Err(VerifyError::Damaged(damage)) = verified else { panic!("{verified:?}") };
    assert!(matches!(damage.fault, ChainFault::Checkpoint { .. }), "{damage}");
    assert_eq!(damage.seq, 2);
}

#[test]
fn a_remainder_is_compared_from_its_first_checkpoint_on() {
    let kept = kept();
    let (first_file, _) = kept.records.first().unwrap();
    let rest: Records =
        kept.records.iter().filter(|(path, _)| path != first_file).cloned().collect();
    kept.write(&rest);
    let options = VerifyOptions { extent: Extent::Remainder, ..kept.with_checkpoint() };
    let summary = kept.verify(&options).unwrap();
    assert_eq!(summary.proven, u64::try_from(kept.records.len()).ok());

    // What was saved of records that were removed says nothing of the rest, and nothing is missing.
    let (_, line) = kept.records.first().unwrap();
    let hash = Sha256::digest(line.as_bytes()).into();
    let old = SavedHead { seq: Some(1), hash, from: "the old head".to_owned() };
    let mut checkpoint = kept.with_checkpoint().checkpoints;
    checkpoint[0].checkpoint.size = 1;
    for (heads, checkpoints) in [(vec![old], Vec::new()), (Vec::new(), checkpoint)] {
        let options =
            VerifyOptions { extent: Extent::Remainder, heads, checkpoints, ..kept.with_key() };
        let damage = kept.damage("only what was removed", &options);
        assert!(matches!(damage.fault, ChainFault::NotComparable { .. }), "{damage}");
        assert!(damage.to_string().contains("use one that was saved later"), "{damage}");
    }

    let sizes = kept.sizes();
    let mut records = kept.records.clone();
    flip(&mut records, kept.records.len() - 4);
    let rewritten: Records =
        chained(&records).into_iter().filter(|(path, _)| path != first_file).collect();
    kept.write(&rewritten);
    let damage = kept.damage("remainder", &options);
    assert!(matches!(damage.fault, ChainFault::Rewritten { .. }), "{damage}");
    assert!(sizes.contains(&(damage.seq - 1)), "{damage}");
}

#[test]
fn a_line_that_is_being_written_is_no_fault_and_a_torn_one_is() {
    let state = tempfile::tempdir().unwrap();
    let directory = journal_directory(state.path());
    let (journal, _) = Journal::open(&config(&directory, 1 << 20), "b", now(0)).unwrap();
    let path = segment::list(&directory).unwrap().pop().unwrap().path;
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"{\"seq\":2").unwrap();
    let options = VerifyOptions::default();
    let summary = verify_with(Source::Directory(&directory), &options).unwrap();
    assert!(summary.being_written && summary.last_seq == 1);
    drop(journal);
    let verified = verify_with(Source::Directory(&directory), &options);
    let Err(VerifyError::Damaged(damage)) = verified else { panic!("{verified:?}") };
    assert_eq!((damage.seq, damage.line, damage.fault), (2, 2, ChainFault::Torn));
}

#[test]
fn another_key_needs_to_be_meant_and_changed_records_are_not_signed() {
    let kept = kept();
    let config = config(&journal_directory(kept.state.path()), 2500);
    let (journal, _) = Journal::open(&config, "boot-3", now(0)).unwrap();
    let journal = Arc::new(journal);
    let refused = Checkpointer::open(&journal, kept.state.path(), signer(2), &[]).unwrap_err();
    assert!(matches!(refused, CheckpointError::OtherKey { .. }), "{refused}");
    let former = [kept.key.clone()];
    let mut checkpointer =
        Checkpointer::open(&journal, kept.state.path(), signer(2), &former).unwrap();
    checkpointer.write(now(1)).unwrap();
    let both = VerifyOptions {
        keys: vec![kept.key.clone(), signer(2).public().clone()],
        ..kept.with_checkpoint()
    };
    assert_eq!(kept.verify(&both).unwrap().checkpoints, 7);

    journal.keep(&denial("c1")).unwrap();
    journal.keep(&denial("c2")).unwrap();
    let (path, line) = records(kept.state.path()).into_iter().rev().nth(1).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&line, &line.replace("agent-1", "agent-2"))).unwrap();
    let refused = checkpointer.write(now(2)).unwrap_err();
    assert!(matches!(refused, CheckpointError::Changed { .. }), "{refused}");
}

#[derive(Debug, Parser)]
struct Verify {
    #[command(flatten)]
    args: VerifyArgs,
}

#[derive(Debug, Parser)]
struct Prove {
    #[command(flatten)]
    args: ProveArgs,
}

fn checked(options: &[&str]) -> (bool, String) {
    let args = Verify::try_parse_from(["verify"].iter().chain(options)).unwrap().args;
    let mut out = Vec::new();
    let whole = check(&args, &mut out);
    let said = whole.as_ref().map_or_else(ToString::to_string, |()| String::new());
    (whole.is_ok(), String::from_utf8(out).unwrap() + &said)
}

#[test]
fn the_commands_verify_with_what_they_print_and_prove_each_record() {
    let kept = kept();
    let aside = tempfile::tempdir().unwrap();
    let file = |name: &str| aside.path().join(name).to_str().unwrap().to_owned();
    let state = kept.state.path().to_str().unwrap();
    let mut printed = Vec::new();
    key(&KeyArgs { state: kept.state.path().to_owned() }, &mut printed).unwrap();
    assert_eq!(String::from_utf8_lossy(&printed).trim(), kept.key.to_string());
    std::fs::write(file("key"), &printed).unwrap();
    std::fs::write(file("note"), &kept.note).unwrap();
    for (form, name) in [(&["--json"][..], "json"), (&[], "text")] {
        let (whole, said) = checked(&[&["--state", state], form].concat());
        assert!(whole, "{said}");
        std::fs::write(file(name), said).unwrap();
    }
    let json = file("json");
    let all = ["--state", state, "--key", &file("key"), "--checkpoint", &file("note")];
    let (whole, said) = checked(&[&all[..], &["--head", &json, "--head", &file("text")]].concat());
    assert!(whole && said.contains("6 checkpoints, signed up to record"), "{said}");

    for seq in 1..=kept.records.len() {
        let args = ["prove", &seq.to_string(), "--state", state];
        let mut proof = Vec::new();
        inclusion(&Prove::try_parse_from(args).unwrap().args, &mut proof).unwrap();
        std::fs::write(file("proof"), &proof).unwrap();
        let (proven, said) = checked(&["--proof", &file("proof"), "--key", &file("key")]);
        let (_, line) = kept.records.get(seq - 1).unwrap();
        assert!(proven && said.contains(line), "{said}");
    }

    let all_but_one: Records = kept.records.get(..kept.records.len() - 1).unwrap().to_vec();
    kept.write(&all_but_one);
    let last = kept.records.len();
    for expected in [&["--head", &json][..], &all[2..]] {
        let (whole, said) = checked(&[&["--state", state, "--json"], expected].concat());
        assert!(!whole && said.contains("\"whole\":false"), "{said}");
        assert!(said.contains(&format!("\"seq\":{last}")), "{said}");
    }
    std::fs::write(file("export.ndjson"), exported(&all_but_one)).unwrap();
    assert!(checked(&["--file", &file("export.ndjson"), "--key", &file("key")]).0);
    let bad = checked(&["--file", &file("export.ndjson"), "--head", "7:00"]);
    assert!(!bad.0 && bad.1.contains("cannot be read"), "{}", bad.1);
}

#[test]
fn a_running_firewall_signs_its_journal_and_goes_on_with_no_other_key() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let configuration = |more: &str| {
        format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\n\
             audit: {{checkpoints: {{interval: 100ms{more}}}}}\n\
             servers:\n  flags: {{path: /mcp, url: 'http://127.0.0.1:1/mcp'}}\n",
            state.display(),
        )
    };
    let signed = || journal(&state).iter().filter(|r| r["event"] == "checkpoint").count();
    let program = Program::run(folder.path(), "", &configuration(""));
    program.addresses();
    wait("a checkpoint", || (signed() > 0).then_some(()));
    assert_eq!(program.stop(), Some(0));
    let mode = std::fs::metadata(state.join("checkpoint.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = std::fs::read_to_string(state.join("checkpoint.pub")).unwrap();
    let note = std::fs::read_to_string(state.join(CHECKPOINT_FILE)).unwrap();
    let keys = [key.trim().parse().unwrap()];
    let saved = SavedCheckpoint::read(&note, &keys, "the saved one").unwrap();
    let options =
        VerifyOptions { keys: keys.to_vec(), checkpoints: vec![saved], ..VerifyOptions::default() };
    let source = journal_directory(&state);
    let summary = verify_with(Source::Directory(&source), &options).unwrap();
    assert_eq!(summary.proven, Some(summary.last_seq), "the file covers the last record, too");

    std::fs::remove_file(state.join("checkpoint.key")).unwrap();
    let (code, said) = Program::run(folder.path(), "", &configuration("")).ended();
    assert!(code != Some(0) && said.contains("former_keys"), "{said}");
    let meant = format!(", former_keys: ['{}']", key.trim());
    let program = Program::run(folder.path(), "", &configuration(&meant));
    program.addresses();
    assert_eq!(program.stop(), Some(0));
    let mut options = options;
    let key = std::fs::read_to_string(state.join("checkpoint.pub")).unwrap();
    options.keys.push(key.trim().parse().unwrap());
    assert!(verify_with(Source::Directory(&source), &options).is_ok());
}
