//! Starts the real firewall as the demo shows it: the baseline, a pack, a pin, and nothing else.

use std::fmt::Write as _;

use serde_json::json;

use super::{Firewall, Setting};
use crate::audit::journal_directory;
use crate::config::Config;
use crate::run::{self, Options};

/// Starts a firewall on `setting`: both listeners on free ports of loopback, the built-in policy.
pub async fn start(setting: Setting, options: Options) -> Result<Firewall, String> {
    // A configuration as a user would write it; JSON is YAML, and quotes what paths may hold.
    let text = json!({
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "state": setting.state,
        "servers": {"flags": {
            "path": super::PATH,
            "url": setting.upstream,
            "pack": setting.pack,
            "environment": setting.environment,
        }},
    });
    let config =
        Config::parse(&text.to_string(), &setting.state, &|_| None).map_err(|problems| {
            problems.list().iter().fold(String::new(), |mut text, problem| {
                // Writing to a `String` cannot fail.
                write!(text, "{}: {}; ", problem.place, problem.what).unwrap_or_default();
                text
            })
        })?;
    let running = run::start(config, options).await.map_err(|error| error.to_string())?;
    let address = running.address().ok_or("it serves no address")?;
    Ok(Firewall {
        url: format!("http://{address}{}", super::PATH),
        journal: journal_directory(&setting.state),
        stop: Box::pin(running.stop()),
    })
}
