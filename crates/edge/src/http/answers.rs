//! The memory of answers that clients have not taken.
//!
//! A client that asks for large answers and does not read them keeps each in memory until the write
//! deadline. Such answers share a budget; when it is spent, the connection that has kept one longest
//! is closed (threat K9). An answer of at most 4 KiB fits into the socket's buffer and is not
//! counted.

use std::sync::Arc;

use ::http::Response;
use bytes::Bytes;

use super::connections::Connections;
use super::reply::ReplyBody;
use crate::budget::{Hold, YieldingBudget};
use crate::kept::FREE_BYTES;

/// Size from which an answer is counted, bytes.
const COUNTED_BYTES: usize = FREE_BYTES;

/// The answers of all connections.
#[derive(Debug)]
pub(super) struct Answers {
    budget: Arc<YieldingBudget>,
    connections: Arc<Connections>,
}

/// An answer that is counted until the last reference to its bytes is dropped.
struct CountedAnswer {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for CountedAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answers {
    /// At most `bytes_max` in all, or one answer that is larger.
    pub(super) fn new(bytes_max: u64, connections: &Arc<Connections>) -> Self {
        let budget = YieldingBudget::new(bytes_max);
        Self { budget, connections: Arc::clone(connections) }
    }

    /// `response` with its body counted, if it is a large one for connection `number`.
    pub(super) fn counted(
        &self,
        response: Response<ReplyBody>,
        number: u64,
    ) -> Response<ReplyBody> {
        response.map(|body| match body {
            ReplyBody::Whole(bytes) => ReplyBody::Whole(self.bytes(bytes, number)),
            body @ (ReplyBody::Events(_) | ReplyBody::Watched(_)) => body,
        })
    }

    /// `bytes` for connection `number`, counted if there are many.
    fn bytes(&self, bytes: Bytes, number: u64) -> Bytes {
        if bytes.len() < COUNTED_BYTES {
            return bytes;
        }
        let amount = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // Only an answer larger than the whole budget does not fit.
        let Some(reserved) = self.budget.take(amount) else { return bytes };
        let connections = Arc::clone(&self.connections);
        let hold = self.budget.hold(reserved, move || connections.end(number));
        Bytes::from_owner(CountedAnswer { bytes, _hold: hold })
    }
}
