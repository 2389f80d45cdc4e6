//! What approvers see of a run beside held calls: its journal and its servers.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::config::{Config, HttpTransport, Upstream};
use bartizan_audit::journal::Journal;
use bartizan_audit::recent::{RecentQuery, RecentRecords};
use bartizan_edge::admin::overview::{Described, Overview, RecordSource};
use bartizan_gate::session::Protected;

/// The journal and the servers of `config`.
pub(super) fn of(config: &Config, servers: &[Arc<Protected>], journal: &Arc<Journal>) -> Overview {
    let described = servers.iter().zip(&config.servers).map(|(server, described)| Described {
        server: Arc::clone(server),
        path: described.path.as_str().into(),
        transport: match &described.upstream {
            Upstream::Child(_) => "program",
            Upstream::Http(http) => match http.transport {
                HttpTransport::StreamableHttp => "http",
                HttpTransport::Sse => "sse",
            },
        },
    });
    Overview::new(Arc::new(Shown(Arc::clone(journal))), described.collect())
}

/// The journal of this run, for the console.
struct Shown(Arc<Journal>);

impl RecordSource for Shown {
    fn head(&self) -> watch::Receiver<u64> {
        self.0.head()
    }

    fn recent(&self, query: &str) -> io::Result<Option<Bytes>> {
        let Some(query) = RecentQuery::read(query) else { return Ok(None) };
        let head = self.0.last_seq();
        let found = RecentRecords::read(self.0.directory(), &query)?;
        Ok(Some(found.json(head).into()))
    }
}
