//! Joins a client on a pipe to a child process of its own (`bartizan wrap`).
//!
//! Two tasks, one for each direction, keep the order of messages. The child gets minified lines;
//! the client gets the child's bytes unchanged unless some reader would split them. At the end
//! calls in flight may finish, then the child is stopped.

use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::process::ChildStdout;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::exit::ExitReason;
use super::{Client, Input};
use crate::child::lines::{Line, Lines, line_for_child};
use crate::child::process::{Process, StopLevel};
use crate::child::{ChildLimits, ChildSpec};
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::session::UpstreamFailure;

/// How long the remaining output of an ended child is read.
const REST_MAX: Duration = Duration::from_secs(5);

/// Runs a child for the client until one of them ends.
pub(super) async fn serve<R: AsyncRead + Unpin>(
    client: &Client,
    mut input: Lines<R>,
    spec: &ChildSpec,
    limits: &ChildLimits,
) -> ExitReason {
    let shared = &client.shared;
    let started = spec.program().await;
    let started = started
        .and_then(|program| Process::spawn(spec, program, limits, shared.clock, &shared.tasks));
    let (process, output) = match started {
        Ok(started) => started,
        Err(error) => {
            if let failure @ UpstreamFailure::PinViolated(_) = error.failure(client.server()) {
                refuse_first(client, &mut input, &failure).await;
            }
            return ExitReason::NotStarted(error);
        }
    };
    let mut output = output.telling_of_skipped();
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
        end(client, &process, limits, &silent, ended).await
    };
    tokio::select! {
        reason = down => reason,
        reason = ends => reason,
    }
}

/// Answers the client's first request with `failure`, which gives it a record; within [`REST_MAX`].
async fn refuse_first<R: AsyncRead + Unpin>(
    client: &Client,
    input: &mut Lines<R>,
    failure: &UpstreamFailure,
) {
    let first = async {
        while let Input::Act(act) = client.next(input).await {
            if client.carry(act).await.is_some_and(|permitted| permitted.id().is_some()) {
                return;
            }
        }
    };
    tokio::select! {
        _ = timeout(REST_MAX, first) => {}
        () = client.shared.closing.cancelled() => {}
        () = client.gone.cancelled() => {}
    }
    client.close(Some(failure), REST_MAX).await;
}

/// Lets calls in flight finish, stops the child, and settles what is left. `ended` is `None` if the
/// child ended first. Its output is still read meanwhile, else the child could block on a full pipe
/// and not end.
async fn end(
    client: &Client,
    process: &Process,
    limits: &ChildLimits,
    silent: &CancellationToken,
    ended: Option<ExitReason>,
) -> ExitReason {
    if let Some(reason) = &ended {
        process.raise(StopLevel::Close);
        let shutdown = async {
            // Shutdown was requested after the client had disconnected: do not wait longer.
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
            () = shutdown => {}
        }
    }
    process.raise(StopLevel::Stop);
    let exit = process.exited().await;
    if timeout(REST_MAX, silent.cancelled()).await.is_err() {
        tracing::debug!("an ended child's output did not end in time; the rest is not read");
    }
    let failure = match &ended {
        None => Some(format!("child process ended: {exit}")),
        Some(ExitReason::Closing) => Some("closing".to_owned()),
        Some(_) => None,
    };
    client.close(failure.map(UpstreamFailure::Unreachable).as_ref(), REST_MAX).await;
    ended.unwrap_or(ExitReason::ChildEnded(exit))
}

/// Forwards the client's messages to the child. `None` if the child accepts no more.
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
            // `end` settles this call with all others.
            return None;
        }
        if permitted.id().is_none() {
            client.accepted(permitted.call()).await;
        }
    }
}

/// Forwards the child's messages to the client until its output ends.
async fn pump_down(client: &Client, process: &Process, output: &mut Lines<ChildStdout>) {
    loop {
        let line = match output.next().await {
            Ok(Some(Line::Whole(line))) => line,
            Ok(Some(Line::Skipped(outer))) => {
                tracing::warn!("the server wrote a line longer than allowed; it was skipped");
                outer.stub()
            }
            Ok(Some(Line::TooLong)) => {
                process.raise(StopLevel::Kill("it wrote a line longer than allowed"));
                return;
            }
            Ok(None) => return,
            Err(cause) => {
                tracing::debug!(%cause, "reading a child's output failed");
                return;
            }
        };
        match client.unasked(&line).await {
            Act::Deliver(released) => client.deliver(released).await,
            Act::Forward(permitted) => refuse(process, &permitted),
            Act::Hold(_) | Act::Drop => {}
        }
    }
}

/// Sends the gate's refusal of the child's own request. It never waits: a child that writes
/// requests without reading the answers would block both directions.
fn refuse(process: &Process, permitted: &Permitted) {
    if process.try_write(line_for_child(&permitted.minified())).is_err() {
        tracing::debug!("child's input queue is full; refusal not sent");
    }
}
