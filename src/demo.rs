//! Starts the firewall for the demo: the built-in baseline policy, a pack, a fixed environment, and
//! no other settings. The demo itself is [`bartizan_demo`].

use std::path::Path;

use serde_json::{Value, json};

use crate::config::Config;
use crate::run::{self, RunOptions};
use bartizan_demo::{Firewall, Setting};

/// The server's name in the configuration.
const NAME: &str = "flags";

fn pairs(pairs: &[(&str, &str)]) -> Value {
    let text = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::from(*text));
    Value::Object(pairs.iter().map(text).collect())
}

/// Starts a firewall for `setting`, with both listeners on free loopback ports and the built-in
/// policy.
///
/// # Errors
///
/// The firewall does not start.
pub async fn start(setting: Setting, options: RunOptions) -> Result<Firewall, String> {
    // A configuration as a user would write it. JSON is valid YAML, and it quotes paths correctly.
    let text = json!({
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "state": setting.state,
        // The demo shows a record for each attempt.
        "audit": {"each_refusal": true},
        "servers": {NAME: {
            "path": format!("/{NAME}"),
            "url": setting.upstream,
            "pack": setting.vendor.name(),
            "environment": setting.environment,
            "environment_ids": pairs(setting.vendor.environment_ids()),
            "headers": pairs(setting.vendor.headers()),
        }},
    });
    let config = Config::parse(&text.to_string(), Path::new(""), &|_| None)
        .map_err(|problems| problems.to_string())?;
    let running = run::start(config, options).await.map_err(|error| error.to_string())?;
    let address = running.address().ok_or("it serves no HTTP address")?;
    Ok(Firewall {
        url: format!("http://{address}/{NAME}"),
        journal: running.journal().directory().to_owned(),
        stop: Box::pin(running.stop()),
    })
}
