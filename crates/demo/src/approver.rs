//! The person who answers held calls: the commands of `bartizan approvals`, typed by somebody in
//! another terminal or run by the demo.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use super::DemoError;
use super::agent::Answer;

/// How often the demo asks which calls are held.
const POLL: Duration = Duration::from_millis(100);
/// Most letters of an id that are shown; the commands take an id that is cut short.
const ID_CHARS: usize = 12;

/// How an approver reaches the firewall.
#[derive(Debug, Clone)]
pub struct Approver {
    /// The program to run for `bartizan approvals`.
    pub program: PathBuf,
    /// The URL of the admin listener.
    pub admin: String,
    /// A file that holds the approver's token.
    pub token_file: PathBuf,
}

impl Approver {
    /// Waits until a call is held. Returns the beginning of its id. Fails if the command fails.
    pub(super) async fn held(&self) -> Result<String, DemoError> {
        loop {
            let listed = self.run(&["list", "--json"]).await?;
            let listed: Value = serde_json::from_str(&listed).unwrap_or_default();
            let id = listed.pointer("/approvals/0/id").and_then(Value::as_str);
            if let Some(id) = id {
                return Ok(id.chars().take(ID_CHARS).collect());
            }
            sleep(POLL).await;
        }
    }

    /// Answers the held call `id`. Fails if the command fails.
    pub(super) async fn answer(&self, id: &str, answer: Answer) -> Result<(), DemoError> {
        self.run(&[answer.as_str(), id, "--reason", reason(answer)]).await.map(drop)
    }

    /// The command that answers the held call `id`, as it is typed.
    pub(super) fn typed(&self, id: &str, answer: Answer) -> String {
        format!(
            "bartizan approvals {} {id} --reason '{}' --admin {} --token-file {}",
            answer.as_str(),
            reason(answer),
            self.admin,
            self.token_file.display()
        )
    }

    async fn run(&self, words: &[&str]) -> Result<String, DemoError> {
        let output = Command::new(&self.program)
            .arg("approvals")
            .args(words)
            .arg("--admin")
            .arg(&self.admin)
            .arg("--token-file")
            .arg(&self.token_file)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| DemoError::Io("running `bartizan approvals`", error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(DemoError::Approvals(said));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn reason(answer: Answer) -> &'static str {
    match answer {
        Answer::Grant => "looked at it",
        Answer::Refuse => "nobody asked for 91",
    }
}
