//! Reads a whole journal fast: several threads, one piece of a segment after the other.
//!
//! A [`Scan`] hands each line to a function that runs on several threads, and what this function
//! made of a piece to another one, in the order of the journal. Pieces are bounded, and a thread is
//! at most two pieces ahead, so memory is bounded however large the journal is. Segments that lie
//! outside of the wanted time or behind the wanted record are not read. It only reads files and checks
//! no chain; [`verify`](super::verify) does.

use std::io::{self, BufRead as _, Read as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use memchr::memchr_iter;

use super::filter::{Filter, time_of};
use super::segment::{self, Content, LINE_BYTES_MAX, LineReader, Piece, Segment};
use super::tail::{ReadError, seq_of};

/// Size of one piece, bytes; the line at its end may exceed it.
const PIECE_BYTES: u64 = 8 << 20;
/// Threads at most.
const THREADS_MAX: usize = 8;
/// How far the wall clock may have been set back: segments whose neighbours are further outside of
/// the wanted time are not read.
const SET_BACK_MAX: Duration = Duration::from_hours(1);

/// What to read.
#[derive(Debug, Clone, Copy)]
pub struct Scan<'a> {
    /// The journal's directory.
    pub directory: &'a Path,
    /// The first record that is wanted; earlier ones may be read, too.
    pub from_seq: u64,
    /// The filter of the lines: only its times are looked at here.
    pub filter: &'a Filter,
}

/// A part of a segment that one thread reads.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    /// Sequence number that the segment begins with, if the part begins there.
    begins: Option<u64>,
    /// Lines that begin at these offsets, bytes. `None` for a compressed segment, which is read from its
    /// beginning to its end, piece by piece.
    between: Option<(u64, u64)>,
}

/// What was made of a piece.
#[derive(Debug)]
struct Read<S> {
    made: S,
    /// Sequence number of its last record.
    last: Option<u64>,
    /// Whether another piece of its part follows.
    more: bool,
}

impl Scan<'_> {
    /// Hands each line to `line`, and what that has made of a piece to `done`, which says whether to go
    /// on.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or records are missing between two segments.
    pub fn run<S: Default + Send>(
        &self,
        line: impl Fn(&mut S, &[u8]) + Sync,
        mut done: impl FnMut(S) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let parts = self.parts()?;
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.min(THREADS_MAX).min(parts.len()).max(1);
        thread::scope(|scope| {
            let readers: Vec<Receiver<_>> = (0..threads)
                .map(|first| {
                    let (to, from) = sync_channel(1);
                    let (parts, line) = (&parts, &line);
                    scope.spawn(move || {
                        read_parts(parts.iter().skip(first).step_by(threads), line, &to);
                    });
                    from
                })
                .collect();
            let mut last = None;
            'parts: for (part, from) in parts.iter().zip(readers.iter().cycle()) {
                check_joined(last, part)?;
                loop {
                    let Ok(read) = from.recv() else { break 'parts };
                    let Read { made, last: reached, more } =
                        read.map_err(|source| ReadError::Io { path: part.path.clone(), source })?;
                    last = reached.or(last);
                    if done(made).is_break() {
                        break 'parts;
                    }
                    if !more {
                        break;
                    }
                }
            }
            // Threads that still read find nobody who takes it, and end.
            drop(readers);
            Ok(())
        })
    }

    /// The parts of the segments that may hold what is wanted, oldest first.
    fn parts(&self) -> Result<Vec<Part>, ReadError> {
        let failed = |path: &Path, source| ReadError::Io { path: path.to_owned(), source };
        let mut segments =
            segment::list(self.directory).map_err(|source| failed(self.directory, source))?;
        let before = segments.iter().rposition(|it| it.first_seq <= self.from_seq).unwrap_or(0);
        segments.drain(..before);
        let segments = self.in_time(segments)?;
        let mut parts = Vec::new();
        for Segment { first_seq, path } in segments {
            let whole = Part { path: path.clone(), begins: Some(first_seq), between: None };
            let content = Content::open(&path).map_err(|source| failed(&path, source))?;
            let Content::Plain(file) = content else {
                parts.push(whole);
                continue;
            };
            let length = file.get_ref().metadata().map_err(|source| failed(&path, source))?.len();
            let mut from = 0;
            while from < length {
                let to = from.saturating_add(PIECE_BYTES).min(length);
                let begins = whole.begins.filter(|_| from == 0);
                parts.push(Part { begins, between: Some((from, to)), ..whole.clone() });
                from = to;
            }
        }
        Ok(parts)
    }

    /// Those of `segments` that may have records of the wanted time.
    fn in_time(&self, segments: Vec<Segment>) -> Result<Vec<Segment>, ReadError> {
        let Filter { since, until, .. } = self.filter;
        if since.is_none() && until.is_none() {
            return Ok(segments);
        }
        let moved = |time: &Option<String>, back: bool| {
            let time = humantime::parse_rfc3339(time.as_deref()?).ok()?;
            if back { time.checked_sub(SET_BACK_MAX) } else { time.checked_add(SET_BACK_MAX) }
        };
        let (since, until) = (moved(since, true), moved(until, false));
        let mut begun = Vec::new();
        for segment in segments {
            let time = first_time(&segment.path)
                .map_err(|source| ReadError::Io { path: segment.path.clone(), source })?;
            begun.push((segment, time.and_then(|it| humantime::parse_rfc3339(&it).ok())));
        }
        // A segment ends where the next one begins.
        let ends: Vec<Option<SystemTime>> =
            begun.iter().skip(1).map(|(_, time)| *time).chain([None]).collect();
        let late = |end: Option<SystemTime>| end.zip(since).is_none_or(|(end, since)| end >= since);
        let early =
            |time: Option<SystemTime>| time.zip(until).is_none_or(|(time, until)| time < until);
        let wanted =
            begun.into_iter().zip(ends).filter(|((_, time), end)| late(*end) && early(*time));
        Ok(wanted.map(|((segment, _), _)| segment).collect())
    }
}

/// The time of the first record of the segment at `path`, as the record has it.
pub(super) fn first_time(path: &Path) -> io::Result<Option<String>> {
    let mut lines = LineReader::open(path)?;
    if lines.advance()? != Piece::Whole {
        return Ok(None);
    }
    let time = time_of(lines.line()).and_then(|time| std::str::from_utf8(time).ok());
    Ok(time.map(str::to_owned))
}

/// Whether `part` begins with the record after `last`, where that is known.
fn check_joined(last: Option<u64>, part: &Part) -> Result<(), ReadError> {
    let Some((last, found)) = last.zip(part.begins) else { return Ok(()) };
    let seq = last.saturating_add(1);
    if found > seq { Err(ReadError::Missing { seq, found }) } else { Ok(()) }
}

fn read_parts<'a, S: Default>(
    parts: impl Iterator<Item = &'a Part>,
    line: &impl Fn(&mut S, &[u8]),
    to: &SyncSender<io::Result<Read<S>>>,
) {
    let mut bytes = Vec::new();
    for part in parts {
        let mut reading = None;
        loop {
            let read = part.read(&mut reading, &mut bytes).map(|more| {
                let mut read = Read { made: S::default(), last: None, more };
                let mut start = 0_usize;
                for end in memchr_iter(b'\n', &bytes) {
                    let text = bytes.get(start..end).unwrap_or_default();
                    line(&mut read.made, text);
                    read.last = seq_of(text).or(read.last);
                    start = end.saturating_add(1);
                }
                read
            });
            let more = read.as_ref().map_or(None, |read| Some(read.more));
            if to.send(read).is_err() || more.is_none() {
                return;
            }
            if more != Some(true) {
                break;
            }
        }
    }
}

impl Part {
    /// Reads its next piece into `bytes`: lines, each with its LF; bytes without LF at the end of the
    /// file are no line yet. `reading` is kept between the pieces. Whether another one follows.
    fn read(&self, reading: &mut Option<Content>, bytes: &mut Vec<u8>) -> io::Result<bool> {
        bytes.clear();
        // If the byte before is an LF, the first line begins here.
        let from = self.between.map_or(0, |(from, _)| from.saturating_sub(1));
        let mut content = if let Some(begun) = reading.take() {
            begun
        } else {
            let mut content = Content::open(&self.path)?;
            content.skip(from)?;
            content
        };
        let size = self.between.map_or(PIECE_BYTES, |(_, to)| to.saturating_sub(from));
        (&mut content).take(size).read_to_end(bytes)?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            // The longest line, and its LF.
            let rest = u64::try_from(LINE_BYTES_MAX.saturating_add(1)).unwrap_or(u64::MAX);
            (&mut content).take(rest).read_until(b'\n', bytes)?;
        }
        if self.between.is_some_and(|(from, _)| from > 0) {
            let first = memchr_iter(b'\n', bytes).next();
            bytes.drain(..first.map_or(bytes.len(), |at| at.saturating_add(1)));
        }
        let more = self.between.is_none() && !content.fill_buf()?.is_empty();
        *reading = Some(content);
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "tests")]

    use std::fs;

    use super::*;

    fn line(seq: u64, day: u64, note: usize) -> String {
        format!(
            "{{\"seq\":{seq},\"boot\":\"b\",\"prev\":\"\",\"schema\":1,\"event\":\"denial\",\
             \"time\":\"2026-11-{day:02}T00:00:00.000000Z\",\"note\":\"{}\"}}\n",
            "x".repeat(note)
        )
    }

    /// The lines that a scan hands out, and how many pieces there were.
    fn seqs(
        directory: &Path,
        from_seq: u64,
        filter: &Filter,
    ) -> Result<(Vec<u64>, usize), ReadError> {
        let (mut seqs, mut pieces) = (Vec::new(), 0);
        let scan = Scan { directory, from_seq, filter };
        scan.run(
            |found: &mut Vec<u64>, line| found.extend(seq_of(line)),
            |found| {
                seqs.extend(found);
                pieces += 1;
                ControlFlow::Continue(())
            },
        )?;
        Ok((seqs, pieces))
    }

    #[test]
    fn every_line_is_handed_out_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(seqs(path, 1, &Filter::default()).unwrap(), (vec![], 0));
        // Lines of all sizes, so that pieces end everywhere in them, and one that fills many reads.
        let size = |seq: u64| {
            if seq == 700 { 1 << 19 } else { usize::try_from(seq * 7919 % 30_000).unwrap() }
        };
        let lines: Vec<String> = (1..=1500).map(|seq| line(seq, 1, size(seq))).collect();
        fs::write(path.join(segment::name(1)), lines[..1400].concat()).unwrap();
        fs::write(path.join(segment::name(1401)), lines[1400..].concat() + "{\"seq\":1501,")
            .unwrap();
        let (found, pieces) = seqs(path, 1, &Filter::default()).unwrap();
        assert_eq!(found, (1..=1500).collect::<Vec<_>>());
        assert!(pieces >= 4, "{pieces}");
        assert_eq!(seqs(path, 1450, &Filter::default()).unwrap().0.first(), Some(&1401));
        segment::compress(&path.join(segment::name(1))).unwrap();
        let (found, pieces) = seqs(path, 1, &Filter::default()).unwrap();
        assert_eq!(found, (1..=1500).collect::<Vec<_>>());
        assert!(pieces >= 4, "{pieces}");
    }

    #[test]
    fn it_ends_where_it_is_told_and_where_records_are_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for first in [11, 13, 16] {
            let lines = line(first, 1, 0) + &line(first + 1, 1, 0);
            fs::write(path.join(segment::name(first)), lines).unwrap();
        }
        let missing = seqs(path, 1, &Filter::default()).unwrap_err();
        assert!(matches!(missing, ReadError::Missing { seq: 15, found: 16 }), "{missing}");
        let mut pieces = 0;
        let scan = Scan { directory: path, from_seq: 1, filter: &Filter::default() };
        let first = |(): &mut (), _: &[u8]| ();
        scan.run(first, |()| {
            pieces += 1;
            ControlFlow::Break(())
        })
        .unwrap();
        assert_eq!(pieces, 1);
    }

    #[test]
    fn segments_of_another_time_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for day in 1..=5 {
            fs::write(path.join(segment::name(day)), line(day, day, 0)).unwrap();
        }
        let on = |day: u64| Some(format!("2026-11-{day:02}T12:00:00.000000Z"));
        for (since, until, expected) in [
            (None, on(2), vec![1, 2]),
            (on(2), on(4), vec![2, 3, 4]),
            (on(4), None, vec![4, 5]),
            (on(9), None, vec![5]),
        ] {
            let filter = Filter::default().within(since, until);
            assert_eq!(seqs(path, 1, &filter).unwrap().0, expected, "{filter:?}");
        }
    }
}
