//! Lists what a server offers as an MCP client does, so that the gate on the way parses it.
//!
//! rmcp finds out which era the server speaks and follows the pages. What its typed model makes of
//! a tool's definition is not used: that is taken from the gate. Nothing but lists is asked for.

use std::future::Future;
use std::time::Duration;

use rmcp::RoleClient;
use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams, ProtocolVersion,
};
use rmcp::service::{
    ClientLifecycleMode, RunningService, ServiceError, serve_client_with_lifecycle,
};
use rmcp::transport::IntoTransport;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

/// Largest number of pages of one list.
const PAGES_MAX: usize = 1000;
/// Entries of one list of a survey at most.
const ENTRIES_MAX: usize = 4096;
/// Size of all entries of one list of a survey, bytes of JSON.
const LIST_BYTES_MAX: usize = 16 << 20;

type Peer = RunningService<RoleClient, ClientConfig>;

/// One list of a survey.
#[derive(Debug, Default)]
pub(crate) struct SurveyedList {
    /// The entries as rmcp reads them.
    pub(crate) entries: Vec<Value>,
    /// Whether the server declares the list.
    pub(crate) offered: bool,
    /// Why entries are missing.
    pub(crate) gap: Option<String>,
}

/// What a server offers.
#[derive(Debug, Default)]
pub(crate) struct Surveyed {
    /// The answer to `initialize` or `server/discover`.
    pub(crate) identity: Value,
    /// Its tools; the definitions are the gate's.
    pub(crate) tools: SurveyedList,
    /// Its resources.
    pub(crate) resources: SurveyedList,
    /// Its resource templates.
    pub(crate) templates: SurveyedList,
    /// Its prompts.
    pub(crate) prompts: SurveyedList,
}

/// One page: its entries and the cursor of the next one.
type Page = (Vec<Value>, Option<String>);

/// Lists all tools through `transport`.
///
/// # Errors
///
/// Why they could not be listed, as text.
pub(crate) async fn list_all<T, E, A>(transport: T) -> Result<(), String>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let peer = open("bartizan-lock", transport).await?;
    let mut cursor = None;
    let mut pages = 0_usize;
    let listed = loop {
        match peer.list_tools(from(cursor.take())).await {
            Err(error) => break Err(format!("does not list its tools: {error}")),
            Ok(page) => cursor = page.next_cursor,
        }
        pages = pages.saturating_add(1);
        if cursor.is_none() {
            break Ok(());
        }
        if pages >= PAGES_MAX {
            break Err(format!("lists its tools on more than {PAGES_MAX} pages"));
        }
    };
    close(peer).await;
    listed
}

/// Lists everything that the server declares. A list that fails, is too large or does not come within
/// `time` has a gap, and what came before is kept.
///
/// # Errors
///
/// Why no session could be opened, as text.
pub(crate) async fn survey<T, E, A>(transport: T, time: Duration) -> Result<Surveyed, String>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let end = sleep(time).deadline();
    let late = || "the MCP session was not opened in time".to_owned();
    let peer = timeout_at(end, open("bartizan-assess", transport)).await.map_err(|_| late())??;
    let identity = peer.peer_info().map(|info| json(&*info)).unwrap_or_default();
    let declared = |name: &str| {
        identity.get("capabilities").is_some_and(|it| it.get(name).is_some_and(|it| !it.is_null()))
    };
    let has_resources = declared("resources");
    let has_prompts = declared("prompts");
    let surveyed = Surveyed {
        // Some servers list tools without declaring them.
        tools: collect(end, true, async |cursor| {
            let page = peer.list_tools(from(cursor)).await?;
            Ok((page.tools.iter().map(json).collect(), page.next_cursor))
        })
        .await,
        resources: collect(end, has_resources, async |cursor| {
            let page = peer.list_resources(from(cursor)).await?;
            Ok((page.resources.iter().map(json).collect(), page.next_cursor))
        })
        .await,
        templates: collect(end, has_resources, async |cursor| {
            let page = peer.list_resource_templates(from(cursor)).await?;
            Ok((page.resource_templates.iter().map(json).collect(), page.next_cursor))
        })
        .await,
        prompts: collect(end, has_prompts, async |cursor| {
            let page = peer.list_prompts(from(cursor)).await?;
            Ok((page.prompts.iter().map(json).collect(), page.next_cursor))
        })
        .await,
        identity,
    };
    close(peer).await;
    Ok(surveyed)
}

/// Opens a session as the client `name`.
async fn open<T, E, A>(name: &str, transport: T) -> Result<Peer, String>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    let client = Implementation::new(name, env!("CARGO_PKG_VERSION"));
    let client = ClientConfig::new(ClientCapabilities::default(), client)
        .with_protocol_version(ProtocolVersion::V_2025_11_25);
    serve_client_with_lifecycle(client, transport, lifecycle)
        .await
        .map_err(|error| format!("the MCP session cannot be opened: {error}"))
}

async fn close(mut peer: Peer) {
    if let Err(error) = peer.close().await {
        tracing::debug!(%error, "the connection was not closed cleanly");
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what the lists of rmcp take")]
fn from(cursor: Option<String>) -> Option<PaginatedRequestParams> {
    Some(PaginatedRequestParams::default().with_cursor(cursor))
}

/// An entry as JSON; `null` if it has no such form.
fn json<T: Serialize>(entry: &T) -> Value {
    serde_json::to_value(entry).unwrap_or_default()
}

/// All pages of one list, within the limits.
async fn collect<F>(end: Instant, offered: bool, page: impl Fn(Option<String>) -> F) -> SurveyedList
where
    F: Future<Output = Result<Page, ServiceError>>,
{
    let mut list = SurveyedList { offered, ..SurveyedList::default() };
    if !offered {
        return list;
    }
    let mut cursor = None;
    let mut bytes = 0_usize;
    for _ in 0..PAGES_MAX {
        let (entries, next) = match timeout_at(end, page(cursor.take())).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => {
                list.gap = Some(error.to_string());
                return list;
            }
            Err(_) => {
                list.gap = Some("the server did not answer in time".to_owned());
                return list;
            }
        };
        for entry in entries {
            bytes = bytes.saturating_add(entry.to_string().len());
            if list.entries.len() >= ENTRIES_MAX {
                list.gap = Some(format!("it has more than {ENTRIES_MAX} entries"));
                return list;
            }
            if bytes > LIST_BYTES_MAX {
                list.gap = Some(format!("it is larger than {LIST_BYTES_MAX} bytes"));
                return list;
            }
            list.entries.push(entry);
        }
        cursor = next;
        if cursor.is_none() {
            return list;
        }
    }
    list.gap = Some(format!("it has more than {PAGES_MAX} pages"));
    list
}
