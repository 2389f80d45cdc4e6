//! Runs the proof of a policy in a child process.
//!
//! A policy can overflow the stack, exhaust memory or run forever, and a process cannot catch these
//! in itself. So the sources are first tried in a child with resource limits (setrlimit(2)). It
//! reads a JSON question from its standard input and writes a JSON answer to its standard output.
//! If it ends without an answer, the policy is refused. The child has an empty environment, so it
//! holds no secrets. [`bartizan_rego::prove`] says what is proven; this module is called by the
//! parent module and, in the child, by the command line.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::bundle::is_member;
use super::bundle::manifest::{Root, owns};
use bartizan_rego::{self, Entrypoints, EvalLimits, Module, PolicyProblem, PolicySources, Proof};

/// The name of the hidden subcommand that runs [`child_main`].
pub const SUBCOMMAND: &str = "policy-prove";

/// Largest address space of the child, bytes (`RLIMIT_AS`).
const CHILD_MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Most processor time of the child, seconds (`RLIMIT_CPU`).
const CHILD_CPU_S_MAX: u64 = 60;
/// The child's niceness (nice(2)), so that processes that serve calls are scheduled first.
const CHILD_NICENESS: i32 = 10;
/// Largest question, bytes: all sources as JSON strings.
const QUESTION_BYTES_MAX: u64 = 512 << 20;
/// Largest answer, bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Largest part of the child's standard error that is kept, bytes.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// How long to wait for the exit of a child that was killed.
const REAP: Duration = Duration::from_secs(5);

/// The program that runs proofs, and their time limit.
#[derive(Debug, Clone)]
pub struct Prover {
    /// The absolute path of a program with the subcommand [`SUBCOMMAND`].
    pub program: PathBuf,
    /// Longest proof, wall time.
    pub wall: Duration,
}

impl Prover {
    /// This program, with a time limit of 60 s. On Linux `/proc/self/exe` names the running file,
    /// even after an update replaced the file at its path.
    ///
    /// # Errors
    ///
    /// The operating system does not tell the path of this program.
    pub fn this_program() -> std::io::Result<Self> {
        let program = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        Ok(Self { program, wall: Duration::from_mins(1) })
    }
}

/// The question to the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    modules: Vec<(String, String)>,
    data: Option<String>,
    revision: String,
    decision: String,
    listing: String,
    /// The bundle's roots, one of which must contain each of its packages.
    roots: Option<Vec<Root>>,
    seed: u64,
}

/// The answer of the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Answer {
    Proof(Proof),
    Problems(Vec<Problem>),
}

/// A [`PolicyProblem`] as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Problem {
    file: String,
    line: Option<u32>,
    message: String,
    hint: Option<String>,
}

/// Proves `sources` in a child process. `seed` selects the generated inputs.
///
/// # Errors
///
/// The problems for which the policy may not run: those of [`bartizan_rego::prove`], a test that
/// failed, a package outside the bundle's `roots` (OPA docs, "Bundles"), or a child that ended
/// without an answer.
pub async fn prove(
    prover: &Prover,
    sources: &PolicySources,
    entrypoints: &Entrypoints,
    roots: Option<&[Root]>,
    seed: u64,
) -> Result<Proof, Vec<PolicyProblem>> {
    let question = Question {
        modules: sources
            .modules
            .iter()
            .map(|module| (module.path.clone(), module.text.clone()))
            .collect(),
        data: sources.data.clone(),
        revision: sources.revision.to_string(),
        decision: entrypoints.decision.clone(),
        listing: entrypoints.listing.clone(),
        roots: roots.map(<[Root]>::to_vec),
        seed,
    };
    let proof = match ask(prover, &question).await {
        Ok(Answer::Proof(proof)) => proof,
        Ok(Answer::Problems(problems)) => {
            return Err(problems.into_iter().map(Into::into).collect());
        }
        Err(cause) => return Err(vec![refusal(&cause)]),
    };
    let failed: Vec<PolicyProblem> = proof
        .tests
        .iter()
        .filter(|test| !test.passed)
        .map(|test| PolicyProblem {
            file: test.file.clone(),
            line: None,
            message: match &test.message {
                Some(message) => format!("test `{}` failed: {message}", test.name),
                None => format!("test `{}` failed", test.name),
            },
            hint: Some("`bartizan policy test` runs the tests alone".to_owned()),
        })
        .collect();
    if failed.is_empty() { Ok(proof) } else { Err(failed) }
}

/// Why the child gave no answer.
#[derive(Debug)]
enum NoAnswer {
    /// The child could not be started, or a pipe failed.
    Io(&'static str, std::io::Error),
    /// It took longer than [`Prover::wall`].
    TimedOut(Duration),
    /// It ended with an error; the text is from its standard error.
    Died(ExitStatus, String),
    /// Its output is no [`Answer`].
    Invalid(String),
}

fn refusal(cause: &NoAnswer) -> PolicyProblem {
    let (message, hint) = match cause {
        NoAnswer::Io(what, error) => (
            format!("the proof could not be made: {what}: {error}"),
            "check that the program may start a child process of itself",
        ),
        NoAnswer::TimedOut(wall) => (
            format!("the proof took longer than {} s", wall.as_secs()),
            "look for rules that combine large collections",
        ),
        NoAnswer::Died(status, stderr_text) => (death(*status, stderr_text), HINT_DEATH),
        NoAnswer::Invalid(error) => {
            (format!("the proof gave no answer: {error}"), "report this as a bug")
        }
    };
    PolicyProblem { file: String::new(), line: None, message, hint: Some(hint.to_owned()) }
}

const HINT_DEATH: &str = "look for a function that calls itself, deep nesting, or data that grows";

/// The message for an exit status of the child.
fn death(status: ExitStatus, stderr_text: &str) -> String {
    use std::os::unix::process::ExitStatusExt;
    if stderr_text.contains("overflowed its stack") {
        return "the proof ended in a stack overflow".to_owned();
    }
    if stderr_text.contains("memory allocation of") {
        let mebibytes = CHILD_MEMORY_BYTES_MAX >> 20;
        return format!("the proof needed more than {mebibytes} MiB of memory");
    }
    // Signal numbers as on Linux and macOS alike.
    match (status.signal(), status.code()) {
        (Some(24), _) => {
            format!("the proof needed more than {CHILD_CPU_S_MAX} s of processor time")
        }
        (Some(9), _) => "the proof was killed".to_owned(),
        (Some(signal), _) => format!("the proof was ended by signal {signal}"),
        (None, Some(code)) => format!("the proof ended with code {code} and no answer"),
        (None, None) => "the proof ended with no answer".to_owned(),
    }
}

async fn ask(prover: &Prover, question: &Question) -> Result<Answer, NoAnswer> {
    let text = serde_json::to_vec(question)
        .map_err(|error| NoAnswer::Io("the sources cannot be written", error.into()))?;
    let mut child = Command::new(&prover.program)
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| NoAnswer::Io("the child did not start", error))?;
    let outcome = tokio::time::timeout(prover.wall, exchange(&mut child, text)).await;
    match outcome {
        Ok(outcome) => outcome,
        Err(_elapsed) => {
            let killed = child.start_kill();
            // Wait for its exit here, so that no zombie process remains; dropping only kills it.
            let reaped = tokio::time::timeout(REAP, child.wait()).await;
            drop((killed, reaped));
            Err(NoAnswer::TimedOut(prover.wall))
        }
    }
}

/// Writes the question and reads the answer concurrently: otherwise a full pipe could block both
/// processes.
async fn exchange(child: &mut Child, question: Vec<u8>) -> Result<Answer, NoAnswer> {
    let stdin = child.stdin.take();
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    let write = async move {
        if let Some(mut stdin) = stdin {
            // If the child ends early, its exit status says why; ignore the broken pipe.
            let written = stdin.write_all(&question).await;
            drop(written);
        }
    };
    let ((), answer, stderr_text) = tokio::join!(
        write,
        read_bounded(stdout, ANSWER_BYTES_MAX),
        read_bounded(stderr, STDERR_BYTES_MAX),
    );
    let status = child.wait().await.map_err(|error| NoAnswer::Io("the child is lost", error))?;
    if !status.success() {
        let stderr_text = stderr_text.unwrap_or_default();
        return Err(NoAnswer::Died(status, String::from_utf8_lossy(&stderr_text).into_owned()));
    }
    let answer = answer.map_err(|error| NoAnswer::Io("the answer cannot be read", error))?;
    let answer = String::from_utf8(answer).map_err(|error| NoAnswer::Invalid(error.to_string()))?;
    serde_json::from_str(&answer).map_err(|error| NoAnswer::Invalid(error.to_string()))
}

/// Reads to the end, and returns the first `bytes_max` bytes.
async fn read_bounded(
    from: Option<impl AsyncRead + Unpin>,
    bytes_max: u64,
) -> std::io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    let Some(mut from) = from else { return Ok(kept) };
    (&mut from).take(bytes_max).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

impl From<Problem> for PolicyProblem {
    fn from(problem: Problem) -> Self {
        let Problem { file, line, message, hint } = problem;
        Self { file, line, message, hint }
    }
}

impl From<PolicyProblem> for Problem {
    fn from(problem: PolicyProblem) -> Self {
        let PolicyProblem { file, line, message, hint } = problem;
        Self { file, line, message, hint }
    }
}

/// The main function of the child: sets limits, reads the question, writes the answer. The exit code
/// is 0 if an answer was written, also one with problems, and 1 if not.
pub fn child_main(stdin: impl Read, mut stdout: impl Write) -> ExitCode {
    let answered = limit_self().and_then(|()| {
        let mut text = String::new();
        stdin.take(QUESTION_BYTES_MAX).read_to_string(&mut text)?;
        let answer = answer(serde_json::from_str(&text)?);
        serde_json::to_writer(&mut stdout, &answer)?;
        stdout.flush()
    });
    if answered.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Sets the resource limits. A stricter limit that exists already stays: raising it needs a
/// privilege.
fn limit_self() -> std::io::Result<()> {
    // A failure is harmless: the proof then competes with the processes that serve calls.
    let _niceness = nice(CHILD_NICENESS);
    for (resource, soft, hard) in [
        (Resource::Core, 0, 0),
        // The soft limit sends SIGXCPU, which `death` recognises; the hard one, a second later, SIGKILL.
        (Resource::Cpu, CHILD_CPU_S_MAX, CHILD_CPU_S_MAX.saturating_add(1)),
        (Resource::As, CHILD_MEMORY_BYTES_MAX, CHILD_MEMORY_BYTES_MAX),
    ] {
        let now = getrlimit(resource);
        let within = |max: u64, bound: Option<u64>| bound.map_or(max, |bound| bound.min(max));
        let maximum = within(hard, now.maximum);
        let current = within(soft, now.current).min(maximum);
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })?;
    }
    Ok(())
}

fn answer(question: Question) -> Answer {
    let modules = question.modules.into_iter().map(|(path, text)| Module { path, text }).collect();
    let sources =
        PolicySources { modules, data: question.data, revision: question.revision.into() };
    let entrypoints = Entrypoints { decision: question.decision, listing: question.listing };
    let limits = EvalLimits::default();
    let within = question.roots.map_or(Ok(()), |roots| check_roots(&sources, &roots, &limits));
    match within.and_then(|()| bartizan_rego::prove(&sources, &entrypoints, &limits, question.seed))
    {
        Ok(proof) => Answer::Proof(proof),
        Err(problems) => Answer::Problems(problems.into_iter().map(Into::into).collect()),
    }
}

/// Checks that one of `roots` contains each package of a bundle's files.
fn check_roots(
    sources: &PolicySources,
    roots: &[Root],
    limits: &EvalLimits,
) -> Result<(), Vec<PolicyProblem>> {
    let packages = bartizan_rego::packages(sources, limits)?;
    let outside: Vec<PolicyProblem> = packages
        .into_iter()
        .filter(|(file, package)| is_member(file) && !owns(roots, package))
        .map(|(file, package)| PolicyProblem {
            file,
            line: None,
            message: format!(
                "package `{}` lies outside the roots of its manifest",
                package.join(".")
            ),
            hint: Some("name its root in `.manifest`".to_owned()),
        })
        .collect();
    if outside.is_empty() { Ok(()) } else { Err(outside) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn what_ended_the_child_is_named() {
        // A wait status: the low bits are a signal, the next eight a code (waitpid(2)).
        for (status, stderr_text, expected) in [
            (6, "thread 'main' has overflowed its stack\n", "stack overflow"),
            (6, "memory allocation of 4096 bytes failed\n", "MiB of memory"),
            (6, "", "signal 6"),
            (9, "", "killed"),
            (24, "", "processor time"),
            (1 << 8, "", "code 1"),
        ] {
            let words = death(ExitStatus::from_raw(status), stderr_text);
            assert!(words.contains(expected), "{status} {stderr_text}: {words}");
        }
    }
}
