//! `bartizan policy learn`: drafts a policy from what a journal recorded.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::cli::print;
use crate::policy::learn::{SEEN_MAX, learn};
use crate::policy::replay::Source;

/// Arguments of `policy learn`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LearnArgs {
    /// Files with one record of a journal per line; `-` means standard input.
    #[arg(value_name = "FILE", required_unless_present = "state")]
    files: Vec<PathBuf>,
    /// A state directory with a journal; may be repeated.
    #[arg(long, value_name = "DIR")]
    state: Vec<PathBuf>,
    /// Use only records of this server. This and `--principal` may be repeated.
    #[arg(long, value_name = "NAME")]
    server: Vec<String>,
    /// Use only records of this principal.
    #[arg(long, value_name = "ID")]
    principal: Vec<String>,
    /// Write rules, tests and packs into this directory; existing files are not overwritten.
    /// Without it, the rules are printed.
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs `bartizan policy learn`.
pub(super) fn run(args: LearnArgs) -> Result<ExitCode, Failure> {
    let states = args.state.into_iter().map(Source::State);
    let sources: Vec<Source> = states.chain(args.files.into_iter().map(Source::File)).collect();
    let seen = learn(&sources, &args.server, &args.principal)
        .map_err(|error| Failure::failed(error.place, error.what))?;
    if seen.is_empty() {
        return Err(Failure::failed("journal", "no message went through")
            .hint("run with `mode: observe` for a while"));
    }
    if seen.elided > 0 {
        let what = format!("more than {SEEN_MAX} kinds of calls and messages");
        return Err(Failure::failed("journal", what).hint("narrow with --server or --principal"));
    }
    let draft = seen.draft();
    let Some(out) = args.out else {
        return print(draft.first().map_or("", |(_, rules)| rules.as_str()));
    };
    let unwritten = |path: &PathBuf, error: &std::io::Error| {
        let what = format!("cannot be written: {error}");
        Failure::failed(path.display().to_string(), what)
    };
    fs::create_dir_all(&out).map_err(|error| unwritten(&out, &error))?;
    let (calls, messages) = seen.kinds();
    let mut lines =
        vec![format!("{calls} kinds of calls, {messages} of messages, {} seen", seen.records)];
    for (name, text) in &draft {
        let path = out.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| unwritten(&path, &error))?;
        lines.push(format!("wrote {}", path.display()));
    }
    lines.push(String::new());
    print(&lines.join("\n"))
}
