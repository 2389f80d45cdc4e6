//! The dead-letter file: what a service refused for good, so that somebody can look at it and send
//! it again.
//!
//! `dead-letters.ndjson` in the state directory has one JSON object per line:
//!
//! - `exporter`: which export it was;
//! - `cause`: what the service said;
//! - `rejected` and `of`, where the service refused only a part of a request and did not say which:
//!   how many items, and of how many. All of them are in the file;
//! - `item`: for spans and log records the journal's record that they were made of; for decision
//!   logs the event as it was sent, after masking.
//!
//! The file has at most [`BYTES_MAX`] bytes. What would come after that is only counted. Nothing
//! here removes a line: somebody who has dealt with the file moves it away.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::segment::FILE_MODE;

/// The name of the file in the state directory.
pub const FILE: &str = "dead-letters.ndjson";

/// Largest size of the file, bytes.
pub const BYTES_MAX: u64 = 64 << 20;

/// Longest cause, characters.
const CAUSE_CHARS_MAX: usize = 1024;

/// Where dead letters are written.
#[derive(Debug, Clone)]
pub(super) struct DeadLetters {
    path: PathBuf,
    bytes_max: u64,
}

/// Why the items of one request are dead letters.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// Which export it was.
    pub(super) exporter: &'static str,
    /// What the service said.
    pub(super) cause: String,
    /// How many items it refused, where it refused a part.
    pub(super) rejected: Option<u64>,
}

impl DeadLetters {
    /// The file in the state directory `state`.
    pub(super) fn of(state: &Path) -> Self {
        Self { path: state.join(FILE), bytes_max: BYTES_MAX }
    }

    /// Appends a line for each of `items`, JSON texts, and returns how many were written: fewer if
    /// the file is full.
    ///
    /// # Errors
    ///
    /// The file cannot be written. Items before the failed one may have been written.
    pub(super) fn append(&self, refusal: &Refusal, items: &[Vec<u8>]) -> io::Result<u64> {
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create(true).mode(FILE_MODE).open(&self.path)?;
        let mut size = file.metadata()?.len();
        // A program that was killed, or a full disk, may have left a part of a line.
        if !ends_with_line(&file, size)? {
            file.write_all(b"\n")?;
            size = size.saturating_add(1);
        }
        let cause: String = refusal.cause.chars().take(CAUSE_CHARS_MAX).collect();
        let (exporter, of) = (refusal.exporter, items.len());
        let head = match refusal.rejected {
            Some(rejected) => {
                json!({"exporter": exporter, "cause": cause, "rejected": rejected, "of": of})
            }
            None => json!({"exporter": exporter, "cause": cause}),
        };
        // The items are JSON already: the object is left open for them.
        let head = head.to_string();
        let head = head.strip_suffix('}').unwrap_or(&head);
        let mut written = 0_u64;
        for item in items {
            let mut line = format!("{head},\"item\":").into_bytes();
            line.extend_from_slice(item);
            line.push(b'}');
            line.push(b'\n');
            size = size.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
            if size > self.bytes_max {
                break;
            }
            file.write_all(&line)?;
            written = written.saturating_add(1);
        }
        // The cursor goes past these items next.
        file.sync_data()?;
        Ok(written)
    }
}

/// Whether nothing, or an LF, is before byte `size`, where the file ends.
fn ends_with_line(file: &File, size: u64) -> io::Result<bool> {
    let Some(at) = size.checked_sub(1) else { return Ok(true) };
    let mut last = [0];
    file.read_exact_at(&mut last, at)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_after_a_part_of_a_line_has_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let letters = DeadLetters::of(folder.path());
        std::fs::write(&letters.path, "{\"exporter\":\"otl").unwrap();
        let refusal = Refusal { exporter: "otlp", cause: "no".to_owned(), rejected: None };
        assert_eq!(letters.append(&refusal, &[b"1".to_vec()]).unwrap(), 1);
        assert_eq!(letters.append(&refusal, &[b"2".to_vec()]).unwrap(), 1);
        let text = std::fs::read_to_string(&letters.path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let whole = |item: u8| format!(r#"{{"cause":"no","exporter":"otlp","item":{item}}}"#);
        assert_eq!(lines, ["{\"exporter\":\"otl", &whole(1), &whole(2)]);
    }

    #[test]
    fn the_file_has_a_largest_size_and_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let letters = DeadLetters { bytes_max: 400, ..DeadLetters::of(folder.path()) };
        let refusal =
            Refusal { exporter: "otlp", cause: "status 400\n".to_owned(), rejected: Some(1) };
        let items = vec![br#"{"seq":1}"#.to_vec(), br#"{"seq":3}"#.to_vec()];
        assert_eq!(letters.append(&refusal, &items).unwrap(), 2);
        for _ in 0..9 {
            letters.append(&refusal, &items).unwrap();
        }
        let text = std::fs::read_to_string(&letters.path).unwrap();
        assert!(text.len() <= 400 && text.ends_with('\n'), "{text}");
        let line =
            r#"{"cause":"status 400\n","exporter":"otlp","of":2,"rejected":1,"item":{"seq":1}}"#;
        assert_eq!(text.lines().next(), Some(line));
        assert_eq!(letters.append(&refusal, &items).unwrap(), 0, "it is full");
    }
}
