//! `bartizan approvals`: lists, shows and answers held calls, at the `admin` address of a running
//! firewall.
//!
//! What a held call says comes from an agent, so all of it is escaped before it is printed. A grant
//! names the digest of what was printed: if it is about anything else, the firewall refuses it.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, print};

mod client;
mod held;
mod show;
mod watch;

use client::{AnswerBody, Client};
use held::{Held, Page};

/// Least characters of the beginning of an id that stand for it.
const ID_START_MIN: usize = 4;
/// Characters of a whole id.
const ID_CHARS: usize = 32;

/// List, show, grant and refuse calls that wait for a person's approval
///
/// Asks the `admin` address of a running firewall, with the token of an approver.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    export BARTIZAN_APPROVER_TOKEN=\"$(cat alice.token)\"\n  \
    bartizan approvals list\n  \
    bartizan approvals show 3f2a\n  \
    bartizan approvals grant 3f2a --reason 'change CH-1042'")]
pub(super) struct ApprovalsArgs {
    #[command(subcommand)]
    command: ApprovalsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ApprovalsCommand {
    /// List held calls
    ///
    /// The beginning of the arguments stands last, as far as the terminal has room; `show` has all.
    List(ListArgs),
    /// Show one held call whole, and what differs from the last one that was granted
    ///
    /// Characters that cannot be seen are printed as escapes.
    Show(ShowArgs),
    /// Let a held call pass
    ///
    /// Shows it first. The grant is for what was shown: the firewall refuses it for anything else.
    Grant(GrantArgs),
    /// Refuse a held call
    Refuse(RefuseArgs),
    /// Print held calls as they come, and what becomes of them
    ///
    /// Each grant, refusal, expiry, cancel and use is a line. If the firewall goes away, it waits and
    /// connects again.
    Watch(WatchArgs),
}

/// Where the firewall is, and who asks.
#[derive(Debug, clap::Args)]
struct AdminArgs {
    /// The `admin` address of the firewall. Default: that of the configuration, otherwise
    /// `http://127.0.0.1:7071`.
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// The configuration file of the firewall, YAML, for its `admin` address. Secrets are not read.
    #[arg(short, long, value_name = "FILE", env = "BARTIZAN_CONFIG")]
    config: Option<PathBuf>,
    /// A file with the token of an approver. Default: the variable `BARTIZAN_APPROVER_TOKEN`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificates to trust instead of the system's, PEM, for an address with https.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print JSON for a program.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Only held calls in this state; `ended` means all but pending and granted.
    #[arg(long, default_value = "pending", value_parser = ["pending", "granted", "refused",
        "expired", "cancelled", "spent", "unknown", "ended", "all"])]
    state: String,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The id of the held call, or how it begins.
    id: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
struct GrantArgs {
    /// The id of the held call, or how it begins.
    id: String,
    /// Why; it goes into the journal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Give the wider grant with this code, which the rule must offer.
    #[arg(long, value_name = "CODE")]
    scope: Option<String>,
    /// The digest that `show` printed. Without it the grant is for what is shown now.
    #[arg(long, value_name = "DIGEST")]
    digest: Option<String>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
struct RefuseArgs {
    /// The id of the held call, or how it begins.
    id: String,
    /// Why; it goes into the journal.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, clap::Args)]
struct WatchArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs `bartizan approvals`.
pub(super) async fn run(args: ApprovalsArgs) -> Result<ExitCode, Failure> {
    match args.command {
        ApprovalsCommand::List(args) => list(args).await,
        ApprovalsCommand::Show(args) => show(args).await,
        ApprovalsCommand::Grant(args) => grant(args).await,
        ApprovalsCommand::Refuse(args) => refuse(args).await,
        ApprovalsCommand::Watch(args) => {
            watch::run(&Client::new(&args.admin)?, args.admin.json).await
        }
    }
}

async fn list(args: ListArgs) -> Result<ExitCode, Failure> {
    let page = Client::new(&args.admin)?.list(&args.state).await?;
    if args.admin.json {
        return print(&page.text);
    }
    let held = page.read()?;
    print(&show::table(&held, &args.state, columns()))
}

/// Columns of the terminal that standard output is, if it is one.
fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

async fn show(args: ShowArgs) -> Result<ExitCode, Failure> {
    let client = Client::new(&args.admin)?;
    let id = whole_id(&client, &args.id).await?;
    let page = client.one(&id).await?;
    if args.admin.json {
        return print(&page.text);
    }
    print(&show::whole(&page.read()?))
}

async fn grant(args: GrantArgs) -> Result<ExitCode, Failure> {
    check_reason(&args.reason)?;
    let client = Client::new(&args.admin)?;
    let id = whole_id(&client, &args.id).await?;
    let held = client.one(&id).await?.read()?;
    if !args.admin.json {
        print(&show::whole(&held))?;
    }
    if let Some(digest) = &args.digest
        && *digest != held.approval.digest
    {
        let what = format!("what is held has another digest: {}", held.approval.digest);
        return Err(Failure::failed(id, what).hint("look at it again with `show`"));
    }
    let body = AnswerBody {
        digest: Some(&held.approval.digest),
        reason: &args.reason,
        scope: args.scope.as_deref(),
    };
    let now = client.answer(&id, "grant", &body).await?;
    told(&now, args.admin.json)
}

async fn refuse(args: RefuseArgs) -> Result<ExitCode, Failure> {
    check_reason(&args.reason)?;
    let client = Client::new(&args.admin)?;
    let id = whole_id(&client, &args.id).await?;
    let body = AnswerBody { digest: None, reason: &args.reason, scope: None };
    let now = client.answer(&id, "refuse", &body).await?;
    told(&now, args.admin.json)
}

/// A reason without words would be none.
fn check_reason(reason: &str) -> Result<(), Failure> {
    if !reason.trim().is_empty() {
        return Ok(());
    }
    let hint = "say in a few words why, such as `--reason 'change CH-1042'`: the journal keeps it, and \
                other approvers read it";
    Err(Failure::usage("--reason", "is blank, and an answer needs a reason").hint(hint))
}

/// Prints what a hold is after an answer.
fn told(now: &Page<held::One>, json: bool) -> Result<ExitCode, Failure> {
    if json {
        return print(&now.text);
    }
    print(&show::answered(&now.read()?.approval))
}

/// The id that `start` is, or begins.
async fn whole_id(client: &Client, start: &str) -> Result<String, Failure> {
    let hex = start.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !hex || start.len() < ID_START_MIN || start.len() > ID_CHARS {
        let what = "is no id of a held call, and no beginning of one";
        return Err(Failure::usage("ID", what).hint("`bartizan approvals list` shows the ids"));
    }
    if start.len() == ID_CHARS {
        return Ok(start.to_owned());
    }
    let held = client.list("all").await?.read()?;
    let mut found =
        held.approvals.into_iter().map(|it: Held| it.id).filter(|id| id.starts_with(start));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => {
            let what = "no held call has an id that begins so";
            Err(Failure::failed(start, what)
                .hint("`bartizan approvals list --state all` shows the ids"))
        }
        (Some(_), Some(_)) => {
            let what = "several held calls have an id that begins so";
            Err(Failure::failed(start, what).hint("write more of the id"))
        }
    }
}
