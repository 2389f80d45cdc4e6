//! Server-sent events.
use super::ServerEvent;
use crate::gate::session::UpstreamFailure;
/// An event stream read from an HTTP body.
#[derive(Debug)]
pub struct SseBody {}
impl SseBody {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        None
    }
}
