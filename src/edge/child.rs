//! A protected server that is a child process.
use super::ServerEvent;
use crate::gate::session::UpstreamFailure;
/// The messages of a child that belong to one exchange.
#[derive(Debug)]
pub struct ChildStream {}
impl ChildStream {
    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        None
    }
}
