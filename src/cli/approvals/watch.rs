//! `bartizan approvals watch`: prints held calls as they come, and what becomes of them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use super::client::Client;
use super::held::Held;
use super::show;
use crate::cli::{Failure, print};

/// Least time between two lists, so that many changes at once are one.
const PAUSE: Duration = Duration::from_millis(100);

/// Prints until the connection fails.
pub(super) async fn run(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    let mut waiting: BTreeMap<String, Held> = BTreeMap::new();
    loop {
        let listed = client.list("pending").await?.read()?;
        let mut now = BTreeMap::new();
        for held in listed.approvals {
            if waiting.remove(&held.id).is_none() {
                tell("held", &held, json, || show::come(&held))?;
            }
            now.insert(held.id.clone(), held);
        }
        // What no longer waits.
        for id in std::mem::take(&mut waiting).into_keys() {
            // One that is forgotten already is told no more; what else fails, fails again above.
            let Ok(page) = client.one(&id).await else { continue };
            let held = page.read()?.approval;
            tell("changed", &held, json, || show::gone(&held))?;
        }
        waiting = now;
        tokio::time::sleep(PAUSE).await;
        client.changed(listed.change).await?;
    }
}

fn tell(
    event: &str,
    held: &Held,
    json: bool,
    line: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = if json {
        let value = json!({ "event": event, "approval": held });
        bartizan_audit::inert::escaped(&value.to_string()) + "\n"
    } else {
        line()
    };
    print(&text).map(drop)
}
