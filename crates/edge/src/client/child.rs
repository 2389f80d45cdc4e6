//! A client on a pipe, a child process of its own: `wrap`.
//!
//! Two pumps, one for each direction, keep each direction's order. The child is fed minified
//! lines; the client gets the child's bytes as they are wherever they are one line to any reader.
//! At the end calls in flight may finish, then the child is ended in order.

use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::process::ChildStdout;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::exit::ExitReason;
use super::{Client, Input};
use crate::child::lines::{Line, Lines, line_for_child};
use crate::child::process::{Process, Wish};
use crate::child::{ChildLimits, ChildSpec};
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::session::UpstreamFailure;

/// How long the rest of an ended child's output is read.
const REST_MAX: Duration = Duration::from_secs(5);

/// Runs a child for the client until one of them ends.
pub(super) async fn serve<R: AsyncRead + Unpin>(
    client: &Client,
    mut input: Lines<R>,
    spec: &ChildSpec,
    limits: &ChildLimits,
) -> ExitReason {
    let shared = &client.shared;
    let (process, mut output) = match Process::spawn(spec, limits, shared.clock, &shared.tasks) {
        Ok(started) => started,
        Err(error) => return ExitReason::NotStarted(error),
    };
    let silent = CancellationToken::new();
    let down = async {
        pump_down(client, &process, &mut output).await;
        silent.cancel();
        std::future::pending::<ExitReason>().await
    };
    let ends = async {
        let ended = tokio::select! {
            reason = pump_up(client, &process, &mut input) => reason,
            () = silent.cancelled() => None,
            () = shared.closing.cancelled() => Some(ExitReason::Closing),
            () = client.closed().cancelled() => Some(ExitReason::SessionClosed),
            () = client.gone.cancelled() => {
                Some(ExitReason::ClientBroken("it no longer reads".to_owned()))
            }
        };
        end(client, &process, limits, (&silent, ended)).await
    };
    tokio::select! {
        reason = down => reason,
        reason = ends => reason,
    }
}

/// Lets calls in flight finish, ends the child, and settles what is left. `ended` is `None` where
/// the child ended first. Its output is read on meanwhile; without that it could not end.
async fn end(
    client: &Client,
    process: &Process,
    limits: &ChildLimits,
    (silent, ended): (&CancellationToken, Option<ExitReason>),
) -> ExitReason {
    if let Some(reason) = &ended {
        process.wish(Wish::Close);
        let hurry = async {
            // Told to close when the client had gone already: nothing is worth waiting for.
            if *reason == ExitReason::Closing {
                std::future::pending::<()>().await;
            } else {
                client.shared.closing.cancelled().await;
            }
        };
        tokio::select! {
            () = silent.cancelled() => {}
            () = client.idle() => {}
            () = client.gone.cancelled() => {}
            () = sleep(limits.drain_max) => {}
            () = hurry => {}
        }
    }
    process.wish(Wish::Stop);
    let exit = process.exited().await;
    if timeout(REST_MAX, silent.cancelled()).await.is_err() {
        tracing::debug!("the rest of an ended child's output is not read");
    }
    let failure = match &ended {
        None => Some(format!("child process ended: {exit}")),
        Some(ExitReason::Closing) => Some("closing".to_owned()),
        Some(_) => None,
    };
    client.close(failure.map(UpstreamFailure::Unreachable).as_ref(), REST_MAX).await;
    ended.unwrap_or(ExitReason::ChildEnded(exit))
}

/// Carries the client's messages to the child. `None` if the child takes no more.
async fn pump_up<R: AsyncRead + Unpin>(
    client: &Client,
    process: &Process,
    input: &mut Lines<R>,
) -> Option<ExitReason> {
    loop {
        let act = match client.next(input).await {
            Input::Act(act) => act,
            Input::Closed => return Some(ExitReason::ClientClosed),
            Input::Broken(cause) => return Some(ExitReason::ClientBroken(cause.to_string())),
        };
        let Some(permitted) = client.carry(act).await else { continue };
        if process.write(line_for_child(&permitted.minified())).await.is_err() {
            // The end of the child settles this call with all others.
            return None;
        }
        if permitted.id().is_none() {
            client.accepted(permitted.call()).await;
        }
    }
}

/// Carries the child's messages to the client until its output ends.
async fn pump_down(client: &Client, process: &Process, output: &mut Lines<ChildStdout>) {
    loop {
        let line = match output.next().await {
            Ok(Some(Line::Whole(line))) => line,
            Ok(Some(Line::TooLong)) => {
                process.wish(Wish::Kill("it wrote a line longer than allowed"));
                return;
            }
            Ok(None) => return,
            Err(cause) => {
                tracing::debug!(%cause, "child's output broke");
                return;
            }
        };
        let act = client.act(|session, gate, now| session.server_frame(gate, &line, now));
        match act {
            Act::Deliver(released) => client.deliver(released).await,
            Act::Forward(permitted) => refuse(process, &permitted),
            Act::Drop => {}
        }
    }
}

/// Our refusal of the child's own request. Never waits: a child that writes requests without
/// reading our answers would stop both directions.
fn refuse(process: &Process, permitted: &Permitted) {
    if process.try_write(line_for_child(&permitted.minified())).is_err() {
        tracing::debug!("no room to tell the child of a refusal");
    }
}
