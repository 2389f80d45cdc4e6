//! A protected server that is a child process.
use super::upstream::SendContext;
use super::{Answer, ServerEvent};
use crate::gate::session::UpstreamFailure;
use crate::gate::step::Permitted;
/// The messages of a child that belong to one exchange.
#[derive(Debug)]
pub struct ChildStream {}
impl ChildStream {
    /// The next message; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, UpstreamFailure>> {
        None
    }
}
/// A child process.
#[derive(Debug)]
pub struct ChildUpstream {}
impl ChildUpstream {
    /// Sends `permitted`.
    pub async fn send(&self, permitted: Permitted, context: &SendContext) -> Result<Answer, UpstreamFailure> {
        let _ = (permitted, context);
        Err(UpstreamFailure::EndedEarly)
    }
}
