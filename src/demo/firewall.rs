//! Starts the real firewall as the demo shows it: the baseline, a pack, a pin, and nothing else.

use std::path::Path;

use serde_json::json;

use super::{Firewall, Setting};
use crate::config::Config;
use crate::run::{self, Options};

/// Where the firewall serves the flags.
const PATH: &str = "/flags";

/// Starts a firewall on `setting`: both listeners on free ports of loopback, the built-in policy.
pub async fn start(setting: Setting, options: Options) -> Result<Firewall, String> {
    // A configuration as a user would write it; JSON is YAML, and quotes what paths may hold.
    let text = json!({
        "listen": "127.0.0.1:0",
        "admin": "127.0.0.1:0",
        "state": setting.state,
        "servers": {"flags": {
            "path": PATH,
            "url": setting.upstream,
            "pack": setting.pack,
            "environment": setting.environment,
        }},
    });
    let config = Config::parse(&text.to_string(), Path::new(""), &|_| None)
        .map_err(|problems| problems.to_string())?;
    let running = run::start(config, options).await.map_err(|error| error.to_string())?;
    let address = running.address().ok_or("it serves no address")?;
    Ok(Firewall {
        url: format!("http://{address}{PATH}"),
        journal: running.journal().directory().to_owned(),
        stop: Box::pin(running.stop()),
    })
}
