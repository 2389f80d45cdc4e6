//! Calls that wait for a person.
//!
//! The gate says that a call must be held ([`bartizan_gate::duty::hold::Hold`]). [`Approvals`] keeps
//! the hold, people answer it, and one call is sent for each grant. It knows nothing of MCP, of
//! policies, of HTTP or of consoles, and it does not decide who is an approver.
//!
//! - [`ledger`] is the state machine: pure, with the time passed in.
//! - [`store`] is where records are kept. What is not in the store has not happened: a hold is
//!   stored before the call waits, a grant before it counts, and that it is spent before the call is
//!   sent. If the store fails, holds wait and nothing is granted.
//! - [`service`] joins the two, and wakes those who wait.

pub mod clock;
pub mod limits;
pub mod record;
pub mod store;
pub mod ledger;
pub mod view;
pub mod parameters;
pub mod service;

pub use ledger::{AnswerError, Approver, NoTask};
pub use limits::{ApprovalLimits, Bound, NoHold};
pub use record::{HoldState, TaskState, Verdict};
pub use service::{Approvals, Clock, NewTask, TaskView, Waiter, Witness};
pub use store::embedded::{EmbeddedStore, OpenError};
pub use view::{AnswerView, HoldView, ScopeView};
