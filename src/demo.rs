//! Starts the real firewall as the demo shows it: the baseline, a pack, a pin, and nothing else.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::Config;
use crate::run::{self, Options};
use bartizan_demo::{Firewall, Setting};

/// The server's name in the configuration.
const NAME: &str = "flags";

fn pairs(pairs: &[(&str, &str)]) -> Value {
    let text = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::from(*text));
    Value::Object(pairs.iter().map(text).collect())
}

/// Starts a firewall on `setting`: both listeners on free ports of loopback, the built-in policy.
pub async fn start(setting: Setting, options: Options) -> Result<Firewall, String> {
    // A configuration as a user would write it; JSON is YAML, and quotes what paths may hold.
    let text = json!({
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "state": setting.state,
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
    let address = running.address().ok_or("it serves no address")?;
    Ok(Firewall {
        url: format!("http://{address}/{NAME}"),
        journal: running.journal().directory().to_owned(),
        stop: Box::pin(running.stop()),
    })
}
