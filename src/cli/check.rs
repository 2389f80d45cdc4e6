//! `bartizan check`: reports all problems of a configuration, or summarises it.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Exit, Failure, policy, print};
use crate::config::{
    BundleSource, ChildUpstream, Config, Confine, Front, HttpTransport, JwksConfig, OAuthMode,
    PackRef, PolicyConfig, Upstream,
};
use crate::confine::{above, resolve};
use crate::lock::LockFile;
use crate::policy::prepare;
use crate::run::StartError;
use crate::run::confinement::own;
use crate::run::edges::unconfined;
use crate::run::policies::PolicyOrigin;
use bartizan_edge::child::SpawnError;
use bartizan_edge::oauth::keys::{HINT, read_file};
use bartizan_gate::session::Mode;

/// Report everything that is wrong with a configuration, without starting it
///
/// Resolves references to secrets, reads every file that is named, and proves the policy as `run`
/// would. A valid configuration is summarised on standard output, without its secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bartizan check -c /etc/bartizan/bartizan.yaml")]
pub(super) struct CheckArgs {
    /// The configuration file, YAML.
    #[arg(short, long, value_name = "FILE", env = "BARTIZAN_CONFIG")]
    config: PathBuf,
}

/// Checks the configuration and prints a summary.
pub(super) async fn run(args: CheckArgs) -> Result<ExitCode, Failure> {
    let name = args.config.display().to_string();
    let config =
        Config::read(&args.config).map_err(|problems| Failure::configuration(&name, &problems))?;
    let mut failures = Vec::new();
    for server in &config.servers {
        let Some(Err(error)) = server.pack.as_ref().map(PackRef::read) else { continue };
        for what in error.whats {
            let subject = format!("{name}: servers.{}.pack", server.name);
            failures.push(Failure::usage(subject, what).hint(error.hint.clone()));
        }
    }
    let lock = config.lock.as_ref().map(|path| (path, LockFile::read(path)));
    if let Some((path, Err(what))) = &lock {
        let what = format!("`{}`: {what}", path.display());
        let failure = Failure::usage(format!("{name}: lock"), what);
        failures.push(failure.hint("`bartizan lock` writes it"));
    }
    failures.extend(bad_keys(&name, &config));
    let missing = programs(&name, &config, &mut failures).await;
    let mut warnings = Vec::new();
    let proven = match PolicyOrigin::new(&config, policy::prover()?, 1) {
        Ok(PolicyOrigin::Files(settings)) => match prepare(&settings).await {
            Ok(ready) => {
                warnings = ready.warnings.iter().map(policy::warning).collect();
                policy::proven(&ready)
            }
            Err(problems) => {
                failures.push(Failure::policy(&problems, Exit::Usage));
                String::new()
            }
        },
        Ok(PolicyOrigin::Service(..)) => "proven when it is fetched".to_owned(),
        Err(StartError { subject, what, hint }) => {
            let failure = Failure::usage(format!("{name}: {subject}"), what);
            failures.push(failure.hint(hint.unwrap_or_default()));
            String::new()
        }
    };
    match failures.into_iter().reduce(Failure::joined) {
        None => {
            let lock = lock.and_then(|(path, lock)| {
                let (servers, tools) = lock.ok()?.counts();
                Some(format!("{}: {tools} tools of {servers} servers", path.display()))
            });
            warnings.extend(missing);
            warnings.extend(config.warnings().iter().map(ToString::to_string));
            print(&(summary(&name, &config, &proven, lock.as_deref()) + &told(&warnings)))
        }
        Some(failure) => Err(failure),
    }
}

/// Warnings of programs that cannot be started here. One that differs from its pin is a failure.
async fn programs(name: &str, config: &Config, failures: &mut Vec<Failure>) -> Vec<String> {
    let mut missing = Vec::new();
    for server in &config.servers {
        let Upstream::Child(child) = &server.upstream else { continue };
        let Err(error) = unconfined(child).program().await else { continue };
        let at = format!("servers.{}", server.name);
        let hint = error.hint().unwrap_or("make the file readable for this program");
        if matches!(error, SpawnError::PinViolation { .. }) {
            let failure = Failure::usage(format!("{name}: {at}.sha256"), error.to_string());
            failures.push(failure.hint(hint));
        } else {
            missing.push(format!("{at}.command: {error}; {hint}"));
        }
    }
    missing
}

/// Reports files of issuers' keys that contain no usable key.
fn bad_keys(name: &str, config: &Config) -> Vec<Failure> {
    let mut failures = Vec::new();
    for server in &config.servers {
        let Some(OAuthMode::Terminate(ours)) = server.oauth.as_ref().map(|oauth| &oauth.mode)
        else {
            continue;
        };
        for issuer in &ours.issuers {
            let JwksConfig::File(path) = &issuer.jwks else { continue };
            if let Err(why) = read_file(path) {
                let subject = format!("{name}: servers.{}.oauth.issuers.jwks_file", server.name);
                let what = format!("`{}` {why}", path.display());
                failures.push(Failure::usage(subject, what).hint(HINT));
            }
        }
    }
    failures
}

/// A summary of `config`, one line per part.
fn summary(name: &str, config: &Config, proven: &str, lock: Option<&str>) -> String {
    let mut lines = vec![format!("{name}: good")];
    let mut line = |key: &str, value: &str| {
        lines.push(format!("  {key:<10} {value}"));
    };
    match config.front {
        Front::Http { listen, admin } => {
            line("listen", &listen.to_string());
            line("admin", &admin.to_string());
        }
        Front::Stdio { .. } => line("listen", "standard input and output"),
    }
    line("state", &config.state.display().to_string());
    line(
        "mode",
        match config.mode {
            Mode::Enforce => "enforce",
            Mode::Observe => "observe: nothing is refused by policy",
        },
    );
    if let Some(lock) = lock {
        line("lock", lock);
    }
    let paths = sources(&config.policy);
    let (first, more) = match paths.split_first() {
        Some((first, more)) => (first.as_str(), more),
        None => ("built-in baseline", &[][..]),
    };
    line("policy", first);
    for path in more {
        line("", path);
    }
    line("", proven);
    for server in &config.servers {
        let target = target(&server.upstream);
        line("server", &format!("{} at {}: {target}", server.name, server.path));
        if let Some(path) = &server.sse_path {
            line("", &format!("HTTP+SSE at {path}, too"));
        }
        if let Some(pack) = &server.pack {
            let pack = match pack {
                PackRef::Embedded(name) => name.clone(),
                PackRef::File(path) => path.display().to_string(),
            };
            line("", &format!("pack {pack}"));
        }
        if let Upstream::Child(child) = &server.upstream {
            line("", &confined(child, config));
        }
        if let Some(environment) = &server.environment {
            line("", &format!("environment {environment}"));
        }
        if let Some(oauth) = &server.oauth {
            let public = oauth.public_url.as_deref().unwrap_or("loopback");
            line(
                "",
                &match &oauth.mode {
                    OAuthMode::Forward { .. } => format!("tokens for {public} go on to it"),
                    OAuthMode::Terminate(_) => format!("tokens for {public} end here"),
                },
            );
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What is allowed and probably not meant, as lines below the summary.
fn told(warnings: &[String]) -> String {
    let line = |warning: &String| format!("  {:<10} {warning}\n", "warning");
    warnings.iter().map(line).collect::<Vec<_>>().concat()
}

/// How a program is confined.
fn confined(child: &ChildUpstream, config: &Config) -> String {
    if child.confine == Confine::Off {
        return "not confined".to_owned();
    }
    let above = above(&resolve(&own(config)));
    let above: Vec<String> = above.iter().map(|path| path.display().to_string()).collect();
    let user = child.user.map(|user| format!(" as user {user}")).unwrap_or_default();
    format!("confined{user}: creates and lists nothing directly in {}", above.join(", "))
}

/// The sources of the policy, as the configuration names them.
pub(super) fn sources(policy: &PolicyConfig) -> Vec<String> {
    let bundle = policy.bundle.iter().map(|bundle| match &bundle.source {
        BundleSource::Path(path) => format!("bundle {}", path.display()),
        // The query and the credentials may be secret, so they are not shown.
        BundleSource::Service(service) => {
            let url = service.remote.url.to_string();
            format!("bundle from {}", url.split('?').next().unwrap_or_default())
        }
    });
    let paths = policy.paths.iter().map(|path| path.display().to_string());
    paths.chain(bundle).collect()
}

/// The address or command of a server. Query and arguments are left out, because people put
/// credentials there.
fn target(upstream: &Upstream) -> String {
    match upstream {
        Upstream::Http(http) => {
            let url: String = http.url.to_string().split('?').take(1).collect();
            match http.transport {
                HttpTransport::StreamableHttp => url,
                HttpTransport::Sse => format!("{url}, which speaks HTTP+SSE"),
            }
        }
        Upstream::Child(child) => format!("{} ({} arguments)", child.program, child.args.len()),
    }
}
