//! Starts the firewall for the demo: the built-in baseline policy, an example that holds rollouts, a
//! pack, a fixed environment, one approver, and no other settings. The demo itself is [`bartizan_demo`].

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::config::Config;
use crate::policy::embedded;
use crate::run::{self, RunOptions};
use bartizan_demo::{Approver, Firewall, Setting, Vendor};
use bartizan_gate::wire::hex::hex;

/// The server's name in the configuration.
const NAME: &str = "flags";

/// Bytes of the approver's random token.
const TOKEN_BYTES: usize = 32;

fn pairs(pairs: &[(&str, &str)]) -> Value {
    let text = |(name, text): &(&str, &str)| ((*name).to_owned(), Value::from(*text));
    Value::Object(pairs.iter().map(text).collect())
}

/// Writes the policy into `directory`: one file for each module.
fn write_policy(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let modules = [embedded::baseline(), embedded::review_rollouts()].concat();
    for module in modules {
        let name = Path::new(&module.path).file_name().unwrap_or_default();
        std::fs::write(directory.join(name), module.text)?;
    }
    Ok(())
}

/// Makes a random token and a file that holds it, which this user alone may read. Gives both.
fn make_token(directory: &Path) -> io::Result<(String, PathBuf)> {
    let mut random = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let token = hex(&random);
    let path = directory.join("approver.token");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(token.as_bytes())?;
    Ok((token, path))
}

/// What lets a person answer held calls: a policy that holds one, and an approver, whose token is
/// in the file that is returned.
fn approvals(directory: &Path) -> io::Result<(Value, PathBuf)> {
    let policy = directory.join("policy");
    write_policy(&policy)?;
    let (token, token_file) = make_token(directory)?;
    let settings = json!({
        "policy": {"paths": [policy]},
        // A person who watches needs time to answer.
        "limits": {"answer_time": "15m"},
        "approvals": {"wait": "10m", "approvers": [{"id": "you", "token": token}]},
    });
    Ok((settings, token_file))
}

/// Starts a firewall for `setting`, with both listeners on free loopback ports and the built-in
/// policy.
///
/// # Errors
///
/// The firewall does not start.
pub async fn start(setting: Setting, options: RunOptions) -> Result<Firewall, String> {
    // A configuration as a user would write it. JSON is valid YAML, and it quotes paths correctly.
    let mut text = json!({
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
    // The scripts for the other servers have no call that a person answers.
    let mut token_file = None;
    if setting.vendor == Vendor::FlagService {
        let (settings, file) = approvals(&setting.state)
            .map_err(|error| format!("{}: {error}", setting.state.display()))?;
        if let (Value::Object(text), Value::Object(settings)) = (&mut text, settings) {
            text.extend(settings);
        }
        token_file = Some(file);
    }
    let config = Config::parse(&text.to_string(), Path::new(""), &|_| None)
        .map_err(|problems| problems.to_string())?;
    let program = options.prover.clone();
    let running = run::start(config, options).await.map_err(|error| error.to_string())?;
    let address = running.address().ok_or("it serves no HTTP address")?;
    let admin = running.admin().ok_or("it serves no admin address")?;
    let admin = format!("http://{admin}");
    Ok(Firewall {
        approver: token_file.map(|token_file| Approver { program, admin, token_file }),
        url: format!("http://{address}/{NAME}"),
        journal: running.journal().directory().to_owned(),
        stop: Box::pin(running.end()),
    })
}
