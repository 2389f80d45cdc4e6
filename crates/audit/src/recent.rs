//! Reads the newest records of a journal, backwards and in bounded steps: for a person who looks at it
//! in a browser while it is written.
//!
//! One step reads at most [`SCAN_BYTES_MAX`] bytes, however large the journal is and however few records
//! a filter admits, and tells where the next step goes on. It only reads files, takes no lock of the
//! writer, and keeps nothing between steps.

use std::fmt;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::path::Path;

use percent_encoding::percent_decode_str;

use super::filter::{Field, Filter, Matcher};
use super::segment::{self, LINE_BYTES_MAX};
use super::tail::seq_of;

/// Records of one step at most.
pub const RECORDS_MAX: usize = 200;
/// Bytes of the records of one step, after which it ends; the last record may exceed them.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes that one step looks at, after which it ends.
pub const SCAN_BYTES_MAX: usize = 4 << 20;
/// Parts of a query at most.
const PARTS_MAX: usize = 16;
/// Size of one value of a query, decoded, bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Bytes that are read at once, unless a line is longer.
const CHUNK_BYTES: u64 = 256 << 10;

/// A place between two records: where a step goes on, towards older ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Sequence number of the first record of the segment.
    pub segment: u64,
    /// Offset in its file, bytes.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.segment, self.offset)
    }
}

impl Place {
    fn read(text: &str) -> Option<Self> {
        let (segment, offset) = text.split_once('-')?;
        Some(Self { segment: segment.parse().ok()?, offset: offset.parse().ok()? })
    }
}

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentQuery {
    /// Only records before this place. Default: from the end of the journal.
    pub before: Option<Place>,
    /// Only records after the one with this sequence number. Default: all.
    pub after: Option<u64>,
    /// Only those that it admits.
    pub filter: Filter,
}

impl RecentQuery {
    /// Reads the query of a URL, as forms are encoded: `tool=delete_flag&decision=deny`. The names
    /// are `before`, `after`, and those of [`Field`]s; the latter may be repeated. `None` if there is
    /// another name, a value that the field cannot have, too much, or what is no text.
    pub fn read(query: &str) -> Option<Self> {
        let mut found = Self::default();
        for (count, part) in query.split('&').filter(|part| !part.is_empty()).enumerate() {
            if count >= PARTS_MAX {
                return None;
            }
            let (name, value) = part.split_once('=')?;
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8().ok()?;
            if value.len() > VALUE_BYTES_MAX {
                return None;
            }
            match name {
                "before" => found.before = Some(Place::read(&value)?),
                "after" => found.after = Some(value.parse().ok()?),
                name => {
                    let field = Field::named(name)?;
                    if field.known().is_some_and(|known| !known.contains(&&*value)) {
                        return None;
                    }
                    found.filter.want(field, value);
                }
            }
        }
        Some(found)
    }
}

/// What one step has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentRecords {
    /// Lines of the journal without their LF, newest first.
    pub lines: Vec<Vec<u8>>,
    /// Where to go on; `None` if no older record is wanted, or none is there.
    pub older: Option<Place>,
    /// Lines that are no records: the journal is damaged there.
    pub unreadable: u64,
}

impl RecentRecords {
    /// Takes one step in the journal in `directory`.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn read(directory: &Path, query: &RecentQuery) -> io::Result<Self> {
        let segments = segment::list(directory)?;
        let begun =
            |at: &segment::Segment| query.before.is_none_or(|it| at.first_seq <= it.segment);
        let matcher = Matcher::new(&query.filter);
        let mut step = Step { query, matcher, found: Self::default(), page: 0, scanned: 0 };
        for (number, at) in segments.iter().enumerate().rev().filter(|(_, at)| begun(at)) {
            let from = query.before.filter(|it| it.segment == at.first_seq).map(|it| it.offset);
            match step.segment(&at.path, from)? {
                Stopped::AtStart => {}
                Stopped::Done => return Ok(step.found),
                Stopped::Full { offset: 0 } if number == 0 => return Ok(step.found),
                Stopped::Full { offset } => {
                    step.found.older = Some(Place { segment: at.first_seq, offset });
                    return Ok(step.found);
                }
            }
        }
        Ok(step.found)
    }

    /// As a JSON text: `{"change": …, "older": …, "unreadable": …, "records": […]}` with the records
    /// as they are in the journal. `head` is the sequence number of the last record that was there
    /// before.
    pub fn json(&self, head: u64) -> Vec<u8> {
        let older = self.older.map_or_else(|| "null".to_owned(), |place| format!("\"{place}\""));
        let unreadable = self.unreadable;
        let start = format!(
            "{{\"change\":{head},\"older\":{older},\"unreadable\":{unreadable},\"records\":["
        );
        // Each line was read as JSON.
        let mut text = start.into_bytes();
        text.extend(self.lines.join(&b','));
        text.extend(b"]}");
        text
    }
}

/// A step, while it is taken.
struct Step<'a> {
    query: &'a RecentQuery,
    matcher: Matcher,
    found: RecentRecords,
    /// Bytes of the records that were found.
    page: usize,
    /// Bytes that were looked at.
    scanned: usize,
}

/// Why the reading of a segment has stopped.
enum Stopped {
    /// Its first record was read.
    AtStart,
    /// Nothing older is wanted.
    Done,
    /// The step is at one of its bounds.
    Full { offset: u64 },
}

impl Step<'_> {
    /// Reads the segment at `path` backwards, from `from` or from its end.
    fn segment(&mut self, path: &Path, from: Option<u64>) -> io::Result<Stopped> {
        let mut window = match Window::before(path, from) {
            Ok(window) => window,
            // Archived elsewhere since the directory was listed; so were all older ones.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Stopped::Done),
            Err(error) => return Err(error),
        };
        let mut end = window.end;
        while end > 0 {
            let Chunk { start, bytes, read } = Chunk::before(&mut window, end)?;
            self.scanned = self.scanned.saturating_add(read.saturating_sub(bytes.len()));
            end = start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            for line in bytes.split_inclusive(|byte| *byte == b'\n').rev() {
                if self.is_full() {
                    return Ok(Stopped::Full { offset: end });
                }
                end = end.saturating_sub(u64::try_from(line.len()).unwrap_or(u64::MAX));
                self.scanned = self.scanned.saturating_add(line.len());
                if !self.line(line.strip_suffix(b"\n").unwrap_or(line)) {
                    return Ok(Stopped::Done);
                }
            }
            end = start;
            if end > 0 && self.is_full() {
                return Ok(Stopped::Full { offset: end });
            }
        }
        Ok(if self.is_full() { Stopped::Full { offset: 0 } } else { Stopped::AtStart })
    }

    fn is_full(&self) -> bool {
        self.found.lines.len() >= RECORDS_MAX
            || self.page >= PAGE_BYTES_MAX
            || self.scanned >= SCAN_BYTES_MAX
    }

    /// Keeps `line` if it is wanted; whether older ones may be.
    fn line(&mut self, line: &[u8]) -> bool {
        if seq_of(line).zip(self.query.after).is_some_and(|(seq, after)| seq <= after) {
            return false;
        }
        match self.matcher.read(line) {
            Ok(Some(_)) => {
                self.page = self.page.saturating_add(line.len());
                self.found.lines.push(line.to_vec());
            }
            Ok(None) => {}
            Err(_) => self.found.unreadable = self.found.unreadable.saturating_add(1),
        }
        true
    }
}

/// Where the bytes of a segment are read from.
struct Window {
    /// What is at the offsets from `start` on.
    content: Box<dyn ReadSeek>,
    start: u64,
    end: u64,
}

trait ReadSeek: io::Read + Seek {}

impl<T: io::Read + Seek> ReadSeek for T {}

/// What a step can read of one segment at most, bytes: what it may look at, with the longest line at
/// both ends.
const WINDOW_BYTES: usize = SCAN_BYTES_MAX + 3 * LINE_BYTES_MAX;

impl Window {
    /// The part of the segment at `path` that ends at `end`, or at its end.
    fn before(path: &Path, end: Option<u64>) -> io::Result<Self> {
        if let segment::Content::Plain(file) = segment::Content::open(path)? {
            let file = file.into_inner();
            let length = file.metadata()?.len();
            return Ok(Self {
                content: Box::new(file),
                start: 0,
                end: end.unwrap_or(length).min(length),
            });
        }
        // It is read from its beginning whatever is wanted, so all that may be is kept.
        let (start, bytes) = segment::tail(path, end, WINDOW_BYTES)?;
        let end = start.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(Self { content: Box::new(io::Cursor::new(bytes)), start, end })
    }
}

/// Whole lines of a segment.
struct Chunk {
    /// Where the first of them begins.
    start: u64,
    /// The lines, each with its LF.
    bytes: Vec<u8>,
    /// How many bytes were read.
    read: usize,
}

impl Chunk {
    /// The lines before `end`, as many as are read at once. There are none if what is there is no
    /// whole line: it is being written, or damaged.
    fn before(window: &mut Window, end: u64) -> io::Result<Self> {
        let usual = Self::of(window, end, CHUNK_BYTES)?;
        if !usual.bytes.is_empty() || usual.start != end.saturating_sub(CHUNK_BYTES) {
            return Ok(usual);
        }
        // The longest line, its LF and the LF before it.
        let longest = u64::try_from(LINE_BYTES_MAX.saturating_add(2)).unwrap_or(u64::MAX);
        Self::of(window, end, longest)
    }

    fn of(window: &mut Window, end: u64, size: u64) -> io::Result<Self> {
        let from = end.saturating_sub(size).max(window.start);
        window.content.seek(SeekFrom::Start(from.saturating_sub(window.start)))?;
        let mut bytes = Vec::new();
        let read = (&mut window.content).take(end.saturating_sub(from)).read_to_end(&mut bytes)?;
        let at = |offset: usize| from.saturating_add(u64::try_from(offset).unwrap_or(u64::MAX));
        let last = bytes.iter().rposition(|byte| *byte == b'\n');
        let last = last.map_or(0, |at| at.saturating_add(1));
        bytes.truncate(last);
        if from == 0 {
            return Ok(Self { start: 0, bytes, read });
        }
        // The first line may have begun before.
        let first = bytes.iter().position(|byte| *byte == b'\n');
        let first = first.map_or(0, |at| at.saturating_add(1));
        bytes.drain(..first);
        let start = match bytes.is_empty() {
            false => at(first),
            // The line that ends there may be whole, seen from its end.
            true if last > 0 && last < read => at(last),
            true => from,
        };
        Ok(Self { start, bytes, read })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::arithmetic_side_effects, reason = "tests")]

    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// A line of a record, with a note of so many bytes.
    fn line(seq: u64, event: &str, note: usize) -> String {
        format!(
            "{{\"seq\":{seq},\"boot\":\"b\",\"prev\":\"\",\"schema\":1,\"event\":\"{event}\",\
             \"time\":\"\",\"uptime_us\":0,\"note\":\"{}\"}}\n",
            "x".repeat(note)
        )
    }

    fn write(directory: &Path, first_seq: u64, lines: &[String]) {
        fs::write(directory.join(segment::name(first_seq)), lines.concat()).unwrap();
    }

    fn seqs(found: &RecentRecords) -> Vec<u64> {
        found.lines.iter().map(|line| seq_of(line).unwrap()).collect()
    }

    /// All steps from the end on: what they found, and how many there were.
    fn walk(directory: &Path, query: &RecentQuery) -> (Vec<u64>, usize) {
        let (mut query, mut found, mut steps) = (query.clone(), Vec::new(), 0);
        loop {
            let step = RecentRecords::read(directory, &query).unwrap();
            steps += 1;
            assert!(step.lines.len() <= RECORDS_MAX && steps < 1000);
            found.extend(seqs(&step));
            let Some(older) = step.older else { return (found, steps) };
            query.before = Place::read(&older.to_string());
            assert_eq!(query.before, Some(older));
        }
    }

    #[test]
    fn steps_find_every_record_once_newest_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(walk(path, &RecentQuery::default()), (vec![], 1), "no segment");
        // Lines of all sizes, so that chunks begin and end everywhere, over three segments.
        let size = |seq: u64| usize::try_from(seq * 7919 % 3000).unwrap();
        let lines: Vec<String> = (1..=900).map(|seq| line(seq, "denial", size(seq))).collect();
        write(path, 1, &lines[..300]);
        write(path, 301, &lines[300..301]);
        write(path, 302, &lines[301..]);
        let all: Vec<u64> = (1..=900).rev().collect();
        for compressed in [None, Some(1), Some(301), Some(302)] {
            if let Some(first_seq) = compressed {
                segment::compress(&path.join(segment::name(first_seq))).unwrap();
            }
            let (found, steps) = walk(path, &RecentQuery::default());
            assert_eq!(found, all);
            assert!(steps >= 900 / RECORDS_MAX, "{steps}");
        }
        // What is being written is no record yet.
        let newest = line(901, "denial", 0);
        fs::write(path.join(segment::name(901)), newest.clone() + "{\"seq\":902,").unwrap();
        assert_eq!(walk(path, &RecentQuery::default()).0, (1..=901).rev().collect::<Vec<_>>());
    }

    /// A compressed segment is larger than what one step keeps of it, and has the longest lines.
    #[test]
    fn steps_go_through_a_compressed_segment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let size = |seq: u64| if seq.is_multiple_of(50) { LINE_BYTES_MAX - 200 } else { 50_000 };
        let lines: Vec<String> = (1..=300).map(|seq| line(seq, "denial", size(seq))).collect();
        assert!(lines.concat().len() > 2 * WINDOW_BYTES);
        write(path, 1, &lines);
        let plain = walk(path, &RecentQuery::default());
        segment::compress(&path.join(segment::name(1))).unwrap();
        assert_eq!(walk(path, &RecentQuery::default()), plain);
        assert_eq!(plain.0, (1..=300).rev().collect::<Vec<_>>());
    }

    #[test]
    fn only_newer_ones_are_read_where_the_older_ones_are_known() {
        let directory = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (1..=50).map(|seq| line(seq, "denial", 10)).collect();
        write(directory.path(), 1, &lines);
        for (after, wanted) in [(0, 50), (47, 3), (50, 0), (99, 0)] {
            let query = RecentQuery { after: Some(after), ..RecentQuery::default() };
            let found = RecentRecords::read(directory.path(), &query).unwrap();
            assert_eq!((found.lines.len(), found.older), (wanted, None), "after {after}");
        }
    }

    /// A filter that admits little, long lines, and a place that somebody made up cost no more.
    #[test]
    fn a_step_is_bounded_whatever_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let long = LINE_BYTES_MAX - 200;
        let lines: Vec<String> = (1..=12).map(|seq| line(seq, "denial", long)).collect();
        write(path, 1, &lines);
        let found = RecentRecords::read(path, &RecentQuery::default()).unwrap();
        assert_eq!(seqs(&found), [12, 11], "the second one exceeds the bytes of a page");
        let mut query = RecentQuery::read("event=hold").unwrap();
        let found = RecentRecords::read(path, &query).unwrap();
        assert_eq!(found.lines.len(), 0);
        let place = found.older.unwrap();
        let wide = |size: usize| u64::try_from(size).unwrap();
        let length = wide(lines.concat().len());
        assert!(length - place.offset <= wide(SCAN_BYTES_MAX + LINE_BYTES_MAX));
        assert!(walk(path, &query).1 >= 3);
        for (segment, offset) in
            [(0, 5), (1, 5), (1, length - 7), (1, u64::MAX), (7, 9), (u64::MAX, 0)]
        {
            query.before = Some(Place { segment, offset });
            walk(path, &query);
        }
        // Damage is counted and passed over.
        let torn = format!("{}\n{}", "y".repeat(2 * LINE_BYTES_MAX), line(13, "hold", 1));
        fs::OpenOptions::new()
            .append(true)
            .open(path.join(segment::name(1)))
            .unwrap()
            .write_all(torn.as_bytes())
            .unwrap();
        let (found, _) = walk(path, &RecentQuery::default());
        assert_eq!(found, (1..=13).rev().collect::<Vec<_>>());
        fs::write(path.join(segment::name(14)), "no record\n{}\n").unwrap();
        let found =
            RecentRecords::read(path, &RecentQuery { after: Some(12), ..RecentQuery::default() })
                .unwrap();
        assert_eq!((seqs(&found), found.unreadable), (vec![13], 2));
    }

    #[test]
    fn a_query_is_read_as_forms_are_encoded() {
        let found =
            RecentQuery::read("tool=a%20b+c%26&tool=%E2%80%AE&rule=r&before=7-9&after=3").unwrap();
        let wanted = Filter::default().and(Field::Tool, "a b c&").and(Field::Tool, "\u{202e}");
        assert_eq!(found.filter, wanted.and(Field::Rule, "r"));
        assert_eq!((found.before, found.after), (Some(Place { segment: 7, offset: 9 }), Some(3)));
        assert_eq!(RecentQuery::read(""), Some(RecentQuery::default()));
        let long = format!("tool={}", "x".repeat(VALUE_BYTES_MAX + 1));
        let many = "tool=x&".repeat(PARTS_MAX + 1);
        for wrong in [
            "x=1",
            "tool",
            "tool=%ff",
            "after=-1",
            "after=x",
            "before=1",
            "before=1-x",
            "since=1",
            "effect=wri",
            "finding=tool_refused",
            &long,
            &many,
        ] {
            assert_eq!(RecentQuery::read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_answer_has_the_lines_as_they_are() {
        let found = RecentRecords {
            lines: vec![b"{\"seq\":2}".to_vec(), b"{\"seq\":1}".to_vec()],
            older: Some(Place { segment: 1, offset: 10 }),
            unreadable: 1,
        };
        let text = String::from_utf8(found.json(3)).unwrap();
        assert_eq!(
            text,
            r#"{"change":3,"older":"1-10","unreadable":1,"records":[{"seq":2},{"seq":1}]}"#
        );
        let none = String::from_utf8(RecentRecords::default().json(0)).unwrap();
        assert_eq!(none, r#"{"change":0,"older":null,"unreadable":0,"records":[]}"#);
    }
}
