//! Writes JSON-RPC documents for other readers, and what the gate's reader makes of each.
//!
//! `documents SEED COUNT SEEDS DOCUMENTS READINGS`: the documents, base64, one a line, go to
//! `DOCUMENTS`; one line of readings for each goes to `READINGS`. A document grows from a file of
//! the folder `SEEDS` or from nothing, is spelled in a random way and then damaged in a random
//! way; the same seed gives the same documents. `README.md` beside this file says what a reading
//! is and when two are equal.

#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::format_collect,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "a tool of the tests"
)]

mod generate;
mod project;

use std::io::{BufWriter, Write as _};
use std::path::Path;

use bartizan_edge::child::lines::line_for_child;
use bartizan_gate::wire::frame::{Frame, FrameLimits, Sender};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use generate::Generator;
use project::Reading;

fn main() -> std::io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [seed, count, seeds, documents, readings] = &*arguments else {
        eprintln!("usage: documents SEED COUNT SEEDS DOCUMENTS READINGS");
        std::process::exit(2);
    };
    let mut generator = Generator::new(seed.parse().unwrap(), &corpus(Path::new(seeds))?);
    let mut documents = BufWriter::new(std::fs::File::create(documents)?);
    let mut readings = BufWriter::new(std::fs::File::create(readings)?);
    writeln!(readings, "{}", project::COLUMNS.join("\t"))?;
    for number in 0..count.parse::<u64>().unwrap() {
        let mut raw = Bytes::from(generator.document());
        let reading = read(&raw);
        if let (Some(frame), 0) = (&reading, number % 4) {
            // What a child process gets: the same tokens on one line.
            raw = line_for_child(&frame.document().minified());
        }
        writeln!(documents, "{}", STANDARD.encode(&raw))?;
        let reading = reading.map_or_else(Reading::refused, |frame| Reading::of(&frame, &raw));
        writeln!(readings, "{}", reading.line())?;
    }
    documents.flush()?;
    readings.flush()
}

/// The frame that may go on, of whichever side it is.
fn read(raw: &Bytes) -> Option<Frame> {
    let limits = FrameLimits::default();
    let read = |sender| Frame::read(raw.clone(), sender, &limits).ok();
    read(Sender::Client).or_else(|| read(Sender::Server))
}

/// Every document in the files below `folder`, in a fixed order: a whole file, or a line of one.
fn corpus(folder: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let bytes = std::fs::read(file)?;
        let lines = bytes.split(|byte| *byte == b'\n');
        found.extend(lines.filter_map(|line| {
            let start = line.iter().position(|byte| *byte == b'{')?;
            Some(line[start..].to_vec())
        }));
        found.push(bytes);
    }
    Ok(found)
}
