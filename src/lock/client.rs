//! Lists all tools of a server as an MCP client does, so that the gate on the way parses them.
//!
//! rmcp finds out which era the server speaks and follows the pages. What its typed model makes of
//! a definition is not used.

use rmcp::RoleClient;
use rmcp::model::{
    ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams, ProtocolVersion,
};
use rmcp::service::{ClientLifecycleMode, serve_client_with_lifecycle};
use rmcp::transport::IntoTransport;

/// Largest number of pages of one list.
const PAGES_MAX: usize = 1000;

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
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::V_2025_11_25),
    };
    let client = Implementation::new("bartizan-lock", env!("CARGO_PKG_VERSION"));
    let client = ClientConfig::new(ClientCapabilities::default(), client)
        .with_protocol_version(ProtocolVersion::V_2025_11_25);
    let mut peer = serve_client_with_lifecycle(client, transport, lifecycle)
        .await
        .map_err(|error| format!("the MCP session cannot be opened: {error}"))?;
    let mut cursor = None;
    let mut pages = 0_usize;
    let listed = loop {
        let page = PaginatedRequestParams::default().with_cursor(cursor);
        match peer.list_tools(Some(page)).await {
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
    if let Err(error) = peer.close().await {
        tracing::debug!(%error, "the connection was not closed cleanly");
    }
    listed
}
