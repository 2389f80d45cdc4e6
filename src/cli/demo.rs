//! `bartizan demo`: arguments, a private directory, an exit code.
//!
//! Exits 0 when everything went as it should, 1 when something did not, 2 when the demo could not
//! be given.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::audit::entry::Entry;
use crate::audit::pretty::{self, Colour};
use crate::audit::verify::{Extent, verify};
use crate::config::Config;
use crate::demo::{self, Firewall, Options, Setting};
use crate::run;

/// Show the firewall at work: a flag service, an agent, every verdict, the audit journal.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Go on serving until Ctrl-C, for other clients.
    #[arg(long)]
    stay: bool,
    /// Keep the journal in this empty directory; otherwise it goes when the demo ends.
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,
    /// Serve the flag service alone, without a firewall, and print its address.
    #[arg(long, conflicts_with_all = ["stay", "state"])]
    server_only: bool,
    /// The loopback port of the flag service; any free one by default.
    #[arg(long, default_value_t = 0, requires = "server_only")]
    port: u16,
}

/// Gives the demo.
pub async fn run(args: Args) -> ExitCode {
    let mut out = io::stdout();
    let given = if args.server_only {
        demo::serve_alone(args.port, &mut out).await.map(|()| true).map_err(|e| e.to_string())
    } else {
        with_state(&args, &mut out).await
    };
    match given {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell if this fails too.
            drop(writeln!(io::stderr(), "bartizan: {error}"));
            ExitCode::from(2)
        }
    }
}

async fn with_state(args: &Args, out: &mut (dyn Write + Send)) -> Result<bool, String> {
    let state = match &args.state {
        Some(directory) => empty(directory)?,
        None => private().map_err(|e| format!("demo: making a directory for the journal: {e}"))?,
    };
    let options = Options { state: state.clone(), stay: args.stay };
    let given = demo::run(&options, start, out).await;
    if args.state.is_none() {
        std::fs::remove_dir_all(&state)
            .map_err(|e| format!("demo: removing {}: {e}", state.display()))?;
    }
    given.map(|summary| summary.is_as_expected()).map_err(|e| e.to_string())
}

/// The directory that the user named: made if need be, and empty, so that the demo counts only
/// its own records.
fn empty(directory: &Path) -> Result<PathBuf, String> {
    let fault = |e: io::Error| format!("demo: --state {}: {e}", directory.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fault)?;
    if std::fs::read_dir(directory).map_err(fault)?.next().is_some() {
        return Err(format!(
            "demo: --state {}: not empty; name a new directory",
            directory.display()
        ));
    }
    Ok(directory.to_owned())
}

/// A new directory that only this user can read, under a name that nobody can guess.
fn private() -> io::Result<PathBuf> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let name = format!("bartizan-demo-{:016x}", u64::from_be_bytes(random));
    let path = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(path)
}

/// Starts the firewall that the demo shows: the baseline and its pack, from a configuration as a
/// user would write it.
async fn start(setting: Setting) -> Result<Firewall, String> {
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {}\nservers:\n  flags:\n    \
         path: /flags\n    url: {}\n    pack: {}\n    environment: {}\n",
        serde_json::Value::from(setting.state.to_string_lossy()),
        setting.upstream,
        setting.pack,
        setting.environment,
    );
    let config = Config::parse(&text, &setting.state, &|_| None).map_err(|e| e.to_string())?;
    let options = run::Options::this_program().map_err(|e| e.to_string())?;
    let running = run::start(config, options).await.map_err(|e| e.to_string())?;
    let address = running.address().ok_or("the firewall does not serve HTTP")?;
    Ok(Firewall {
        url: format!("http://{address}/flags"),
        journal: running.journal().directory().to_owned(),
        pretty: |line| match Entry::read(line.as_bytes()) {
            Ok(entry) => pretty::line(&entry, Colour::None),
            Err(_) => demo::plain(line),
        },
        verify: |directory| {
            verify(directory, Extent::Whole)
                .map(|summary| format!("records {} to {}", summary.first_seq, summary.last_seq))
                .map_err(|e| e.to_string())
        },
        stop: Box::pin(running.stop()),
    })
}
