//! Bartizan: a policy-enforcing firewall for the Model Context Protocol.
//!
//! A transparent reverse proxy between an MCP client and the MCP servers that it uses. It reads
//! every JSON-RPC message once and strictly, asks a Rego policy what may pass, discharges what the
//! policy demands, and writes down what is about to happen before it happens. `README.md` says how
//! to use it; this page says how it is built.
//!
//! # From above
//!
//! ```text
//!            agents                                                  MCP servers
//!   HTTP, stdio │                                                  ▲ HTTP, child process
//!               ▼                                                  │
//!        ┌─────────────┐ Arrival  ┌────────────────┐ Permitted ┌───┴─────────┐
//!        │    edge     ├─────────►│      gate      ├──────────►│    edge     │
//!        │ http, stdio │◄─────────┤ pure: bytes,   │◄──────────┤ upstream,   │
//!        └─────────────┘ Released │ time in,       │  frames   │ child       │
//!                                 │ Step out       │           └─────────────┘
//!                                 └──┬──────────┬──┘
//!                          question  │          │  record, before the act
//!                                    ▼          ▼
//!                              policy (Rego)  audit journal ──► spans
//! ```
//!
//! The [`gate`] decides and does nothing; the [`edge`] does and decides nothing. Between them
//! stands a [`Step`](gate::step::Step): an act that can be had only in exchange for its kept
//! record.
//!
//! # One request's way
//!
//! HTTP and stdio differ in the first, second, ninth and last row, and nowhere else.
//!
//! | # | What happens | Where |
//! |---|---|---|
//! | 1 | A connection is accepted; how many there are is bounded. | [`edge::http`], [`edge::stdio`] |
//! | 2 | Host, origin, framing and media type are checked, and the token where it ends here; the body is read whole; an [`Arrival`](gate::session::Arrival) is made. | [`edge::http`] |
//! | 3 | The bytes become a [`Frame`](gate::frame::Frame), or are refused. | [`gate::document`], [`gate::frame`] |
//! | 4 | The frame becomes a question: method, resource, what the call comes to by its pack. Routing headers must agree with the body. | [`gate::method`], [`gate::operation`], [`gate::headers`], [`gate::access`] |
//! | 5 | The policy answers with a [`Decision`](gate::decision::Decision). | [`gate::pdp`], [`gate::rego`] |
//! | 6 | Obligations are discharged: limits, arguments, approval last. | [`gate::limit`], [`gate::arguments`] |
//! | 7 | The call is put among those in flight; a [`Step`](gate::step::Step) holds record and act. | [`gate::session`] |
//! | 8 | The record is kept; that releases the act. | [`gate::step`], [`audit::journal`] |
//! | 9 | The [`Permitted`](gate::step::Permitted) message goes to the server. | [`edge::upstream`], [`edge::child`] |
//! | 10 | Each frame of the answer is read, matched with its call, filtered if it is a list, and judged if it asks something. | [`gate::session`], [`gate::inspect`] |
//! | 11 | The outcome is recorded; that releases the answer. | [`gate::step`], [`audit::journal`] |
//! | 12 | The [`Released`](gate::step::Released) message goes to the client. | [`edge::http`], [`edge::stdio`] |
//!
//! The control flow of rows 3 to 7 is [`Session::client_frame`](gate::session::Session::client_frame),
//! that of row 10 [`Session::server_answer`](gate::session::Session::server_answer) and
//! [`Session::server_frame`](gate::session::Session::server_frame). Read those first.
//!
//! # Architecture invariants
//!
//! Most of what holds is an absence. `tests/it/tidy.rs` and the compile-fail tests in `tests/ui`
//! hold the ones that can be seen in the source.
//!
//! - **`gate` does no IO.** No socket, file, clock, environment, task, log or `async`. Time comes
//!   in as [`Now`](gate::record::Now), so a whole session can be replayed.
//! - **There is no way to a server but a `Permitted`, and none to a client but a `Released`.**
//!   Both have private fields, cannot be cloned, and are made by the session alone; a refusal is
//!   the one other thing that may be released.
//! - **There is no act without a record.** [`Step::record`](gate::step::Step::record) consumes
//!   the step and gives the act only if the sink kept the record.
//! - **Deciding cannot fail.** [`Pdp`](gate::pdp::Pdp) has no `Result`: an error, a timeout, a
//!   panic and a wrong shape are denials with a reason, so no caller can turn one into a permit.
//! - **There is one parser on the decision path.** The policy's input is made from the spans that
//!   [`gate::document`] found, what is forwarded are the bytes that it read, and edits replace
//!   spans. Nothing is decoded into a map and written out again.
//! - **No method is special in the control flow.** A method is a row of [`gate::method`]; one
//!   without a row is a question like any other.
//! - **No decision is taken on a header.** Routing headers are held against the body and then
//!   forgotten.
//! - **`edge` knows no `Decision`, `Effect` or `Obligation`.**
//! - **A module of `gate` uses only those declared above it**; the order is that in which a frame
//!   meets them.
//! - **A foreign crate has one door**: regorus in [`gate::rego`], governor in [`gate::limit`],
//!   OpenTelemetry in [`audit`], the clocks in [`edge::clock`], YAML in [`yaml`], rmcp in
//!   [`demo`] and [`lock::ask`] and so never on the forwarding path.
//! - **Nothing is unbounded.** Queues, tables, buffers, depths and waits have a limit with a name
//!   and a unit; most are keys of the configuration.
//! - **The journal depends on nobody who reads it.** Spans are made from its files; a slow reader
//!   slows nothing down.
//! - **No secret reaches a log, an error or a record.** [`config::Secret`] prints nothing, records
//!   hold keyed digests in the place of values, refusals have constant text.
//! - **There are no Cargo features**: one program, one behaviour.
//!
//! # Modules, in reading order
//!
//! 1. [`gate`]: what may pass, decided on values. Its own order is that of a frame's way.
//! 2. [`yaml`] and [`config`]: what a file says, and what the program means by it; all problems at
//!    once.
//! 3. [`audit`]: the journal, its recovery and proof, how it is shown and sent on.
//! 4. [`policy`]: policies found, proven in a child process, put in place, reloaded.
//! 5. [`edge`]: sockets and pipes.
//! 6. [`demo`]: a flag service, an agent, and the firewall between them.
//! 7. [`run`]: everything built once, started, and stopped in order.
//! 8. [`lock`]: tools as they were reviewed, and how they are asked for.
//! 9. [`cli`]: arguments in, exit code out.
//!
//! Decisions that could have gone otherwise are in `docs/decisions/`, each with its price.

pub mod gate;
pub mod yaml;
pub mod config;
pub mod audit;
pub mod policy;
pub mod edge;
pub mod demo;
pub mod run;
pub mod lock;
pub mod cli;
