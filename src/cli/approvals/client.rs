//! The client of the approvals API: where it is, who asks, and what its errors mean.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::http::header::CONTENT_TYPE;
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::AdminArgs;
use super::held::{Listed, One, Page};
use crate::cli::Failure;
use crate::config::{Config, Front, read_pem};
use bartizan_edge::admin::api::CHANGES_WAIT;
use bartizan_outbound::address::Address;
use bartizan_outbound::service::{
    Credentials, Service, ServiceAnswer, ServiceCall, ServiceConfig, ServiceFailure,
};

/// Where it is if nothing says otherwise: the default of `admin`.
const ADMIN: &str = "http://127.0.0.1:7071";
/// The variable with the token.
const TOKEN: &str = "BARTIZAN_APPROVER_TOKEN";
/// Time for one call.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Size of an answer, bytes: all that may be held at once, each byte an escape.
const ANSWER_BYTES_MAX: usize = 256 << 20;

const HINT_ADMIN: &str =
    "is `bartizan run` running, and is this its `admin`? `--admin URL` names another one";
const HINT_TOKEN: &str = "name a file with `--token-file`, or set BARTIZAN_APPROVER_TOKEN";

/// What is sent to grant or refuse.
#[derive(Debug, Serialize)]
pub(super) struct AnswerBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<&'a str>,
    pub(super) reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: ApiError,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    message: String,
    hint: String,
}

/// Why a call of the API failed.
#[derive(Debug)]
pub(super) struct CallFailure {
    /// What to tell.
    pub(super) failure: Failure,
    /// Whether the same call may succeed later: the firewall was not reached, is stopping, or busy.
    pub(super) passes: bool,
}

impl From<CallFailure> for Failure {
    fn from(of: CallFailure) -> Self {
        of.failure
    }
}

impl From<Failure> for CallFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, passes: false }
    }
}

/// A firewall's approvals API.
pub(super) struct Client {
    service: Service,
    /// The address, for messages.
    shown: String,
}

impl Client {
    /// Prepares a client; opens no connection yet.
    pub(super) fn new(args: &AdminArgs) -> Result<Self, Failure> {
        let url = url(args)?;
        let credentials = match (&args.token_file, std::env::var(TOKEN)) {
            (Some(path), _) => Credentials::BearerFile(path.clone()),
            (None, Ok(token)) if !token.trim().is_empty() => {
                Credentials::Bearer(token.trim().to_owned())
            }
            (None, _) => {
                return Err(
                    Failure::usage("token", "no token of an approver is given").hint(HINT_TOKEN)
                );
            }
        };
        let ca_pem = match &args.ca_file {
            Some(path) => Some(read_pem(path).map_err(|what| Failure::usage("--ca-file", what))?),
            None => None,
        };
        let wrong = |what: String| {
            Failure::usage("--admin", what).hint("write it like `http://127.0.0.1:7071`")
        };
        let address = Address::parse(&url).map_err(|error| wrong(error.to_string()))?;
        if address.url().scheme_str() != Some("https") && !is_loopback(&address) {
            let what = "the token would be sent unprotected";
            let hint =
                "use https, or forward the port to this machine: `kubectl port-forward`, `ssh -L`";
            return Err(Failure::usage("--admin", what).hint(hint));
        }
        let shown = format!("approvals at {}", address.host().to_str().unwrap_or_default());
        let config = ServiceConfig { address, ca_pem, credentials, timeout: TIMEOUT };
        let service = Service::new(config)
            .map_err(|error| Failure::usage("approvals", error.to_string()).hint(HINT_TOKEN))?;
        Ok(Self { service, shown })
    }

    /// The held calls in `state`.
    pub(super) async fn list(&self, state: &str) -> Result<Page<Listed>, CallFailure> {
        self.get(&format!("/approvals?state={state}"), Duration::ZERO).await
    }

    /// The held calls of every state that got into it at `since_ms` (milliseconds since 1970) or later.
    pub(super) async fn since(&self, since_ms: u64) -> Result<Page<Listed>, CallFailure> {
        self.get(&format!("/approvals?state=all&since={since_ms}"), Duration::ZERO).await
    }

    /// The held call `id`, which is hexadecimal.
    pub(super) async fn one(&self, id: &str) -> Result<Page<One>, CallFailure> {
        self.get(&format!("/approvals/{id}"), Duration::ZERO).await
    }

    /// Waits until something has changed since the change `after`, or for [`CHANGES_WAIT`].
    pub(super) async fn changed(&self, after: u64) -> Result<(), CallFailure> {
        let path = format!("/approvals/changes?after={after}");
        self.get::<()>(&path, CHANGES_WAIT).await.map(drop)
    }

    /// Sends the answer `verdict` to the held call `id`.
    pub(super) async fn answer(
        &self,
        id: &str,
        verdict: &str,
        answer: &AnswerBody<'_>,
    ) -> Result<Page<One>, CallFailure> {
        let body = serde_json::to_vec(answer)
            .map_err(|error| Failure::failed("answer", error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let path = format!("/approvals/{id}/{verdict}");
        self.call(Method::POST, &path, headers, body.into(), Duration::ZERO).await
    }

    async fn get<T>(&self, path: &str, wait: Duration) -> Result<Page<T>, CallFailure> {
        self.call(Method::GET, path, HeaderMap::new(), Bytes::new(), wait).await
    }

    async fn call<T>(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        wait: Duration,
    ) -> Result<Page<T>, CallFailure> {
        let target: PathAndQuery =
            path.parse().map_err(|_| Failure::usage("ID", "is no id of a held call"))?;
        let call = ServiceCall { method, target, headers, body, wait, bytes_max: ANSWER_BYTES_MAX };
        let answer = self.service.call(call).await.map_err(|failure| self.failed(&failure))?;
        self.page(&answer)
    }

    fn page<T>(&self, answer: &ServiceAnswer) -> Result<Page<T>, CallFailure> {
        let text = std::str::from_utf8(&answer.body).unwrap_or_default();
        if answer.status == StatusCode::OK {
            return Ok(Page::new(text));
        }
        let error = serde_json::from_str::<ErrorBody>(text);
        let failure = match (error, answer.status) {
            (Ok(ErrorBody { error }), _) => {
                Failure::failed(&self.shown, error.message).hint(error.hint)
            }
            (Err(_), StatusCode::NOT_FOUND) => {
                let what = "nobody may answer held calls there";
                let hint = "name approvers in `approvals.approvers` of its configuration";
                Failure::failed(&self.shown, what).hint(hint)
            }
            (Err(_), status) => {
                let what = format!("answered with status {}", status.as_u16());
                Failure::failed(&self.shown, what).hint(HINT_ADMIN)
            }
        };
        let passes =
            answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS;
        Err(CallFailure { failure, passes })
    }

    fn failed(&self, failure: &ServiceFailure) -> CallFailure {
        match failure {
            ServiceFailure::Token(_) => {
                Failure::usage("--token-file", failure.to_string()).hint(HINT_TOKEN).into()
            }
            ServiceFailure::Unreachable(_)
            | ServiceFailure::Late
            | ServiceFailure::TooLarge(_)
            | ServiceFailure::Redirected
            | ServiceFailure::Coded => CallFailure {
                failure: Failure::failed(&self.shown, failure.to_string()).hint(HINT_ADMIN),
                passes: matches!(failure, ServiceFailure::Unreachable(_) | ServiceFailure::Late),
            },
        }
    }
}

/// The address of the API.
fn url(args: &AdminArgs) -> Result<String, Failure> {
    if let Some(url) = &args.admin {
        return Ok(url.clone());
    }
    let Some(path) = &args.config else { return Ok(ADMIN.to_owned()) };
    let name = path.display().to_string();
    let front =
        Config::read_front(path).map_err(|problems| Failure::configuration(&name, &problems))?;
    let Front::Http { admin, .. } = front else { return Ok(ADMIN.to_owned()) };
    if admin.port() == 0 {
        let what = "`admin` has port 0, which is any free port";
        return Err(Failure::usage(name, what).hint("the log of `run` names it: use `--admin`"));
    }
    Ok(format!("http://{}", reachable(admin)))
}

/// The address at which this machine reaches `bound`.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, bound.port())
}

fn is_loopback(address: &Address) -> bool {
    crate::config::is_loopback(address.url().host().unwrap_or_default())
}
