//! Bartizan: a policy-enforcing firewall for the Model Context Protocol.
//!
//! A transparent reverse proxy between an MCP client and the MCP servers that it uses. It parses
//! every JSON-RPC message once and strictly, asks a Rego policy what may pass, carries out the
//! obligations that the policy returns, and writes each act to the journal before it does it.
//! `README.md` says how to use it; this page says how it is built.
//!
//! # Crates
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
//! | Crate | What it does | What it must not do |
//! |---|---|---|
//! | [`bartizan_gate`] | Parses, decides, writes refusals and records: functions on values. | Any input or output; know Rego. |
//! | [`bartizan_jose`] | Verifies signed tokens (JWS) with public keys and shared secrets. | Judge what a token says; make one. |
//! | [`bartizan_rego`] | Evaluates Rego policies behind the gate's [`Pdp`](bartizan_gate::duty::pdp::Pdp). | Any input or output. |
//! | [`bartizan_outbound`] | Makes HTTP connections on the firewall's own behalf: TLS, time-outs, bounds. | Carry an agent's message by itself. |
//! | [`bartizan_audit`] | Keeps, recovers, verifies and exports the journal. | Delay a decision for an exporter. |
//! | [`bartizan_edge`] | Moves bytes: listeners, servers over HTTP, child processes. | Decide anything. |
//! | [`bartizan_peer`] | Speaks MCP as a client, through rmcp. | Stand on the forwarding path. |
//! | [`bartizan_demo`] | A flag service, stand-ins for vendors' servers, a scripted agent. | Be needed by the firewall. |
//! | this one | Command line, configuration, policy distribution, confinement of programs, start and stop. | |
//!
//! Between gate and edge stands a [`Step`](bartizan_gate::evidence::step::Step): an act that can be
//! taken out of it only in exchange for its kept record.
//!
//! # The way of one request
//!
//! HTTP and stdio differ in rows 1, 2, 9 and 12 only.
//!
//! | # | What happens | Where |
//! |---|---|---|
//! | 1 | A connection is accepted; their number is bounded. | [`bartizan_edge::http`], [`bartizan_edge::client`] |
//! | 2 | Host, origin, framing, media type and, where configured, the access token are checked; the body is read whole; an [`Arrival`](bartizan_gate::session::Arrival) is made. | [`bartizan_edge::http`] |
//! | 3 | The bytes become a [`Frame`](bartizan_gate::wire::frame::Frame), or are refused. | [`bartizan_gate::wire`] |
//! | 4 | The frame becomes a question: method, resource, operation by the server's pack. Routing headers must agree with the body. | [`bartizan_gate::question`] |
//! | 5 | The policy answers with a [`Decision`](bartizan_gate::duty::decision::Decision). | [`bartizan_gate::duty::pdp`], [`bartizan_rego`] |
//! | 6 | Obligations are carried out: limits, then arguments to set, approval last. | [`bartizan_gate::duty`] |
//! | 7 | The call enters the table of calls in flight; a [`Step`](bartizan_gate::evidence::step::Step) holds record and act. | [`bartizan_gate::session`] |
//! | 8 | The record is kept; that releases the act. | [`bartizan_gate::evidence::step`], [`bartizan_audit::journal`] |
//! | 9 | The [`Permitted`](bartizan_gate::evidence::step::Permitted) message goes to the server. | [`bartizan_edge::upstream`], [`bartizan_edge::child`] |
//! | 10 | Each frame of the answer is parsed, matched with its call, filtered if it is a list, and judged if it asks something. | [`bartizan_gate::session`], [`bartizan_gate::catalog`] |
//! | 11 | The outcome is recorded; that releases the answer. | [`bartizan_gate::evidence::step`], [`bartizan_audit::journal`] |
//! | 12 | The [`Released`](bartizan_gate::evidence::step::Released) message goes to the client. | [`bartizan_edge::http`], [`bartizan_edge::client`] |
//!
//! Rows 3 to 7 are [`Session::client_frame`](bartizan_gate::session::Session::client_frame); row 10
//! is [`Session::server_answer`](bartizan_gate::session::Session::server_answer) and
//! [`Session::server_frame`](bartizan_gate::session::Session::server_frame). Read those first.
//!
//! # Architecture invariants
//!
//! Cargo enforces which crate may use which. `tests/it/tidy.rs` and the compile-fail tests in
//! `tests/ui` hold the rest of what can be seen in the source.
//!
//! - **The gate does no input or output.** No socket, file, clock, environment, task, log or
//!   `async`. Time comes in as [`Now`](bartizan_gate::evidence::record::Now), so a whole session can
//!   be replayed.
//! - **Only a `Permitted` reaches a server, and only a `Released` reaches a client.** Both have
//!   private fields, cannot be cloned, and are made by the session alone; a refusal is the one other
//!   source of a `Released`.
//! - **No act without a record.** [`Step::record`](bartizan_gate::evidence::step::Step::record)
//!   consumes the step and gives the act only if the sink kept the record.
//! - **Deciding cannot fail.** [`Pdp`](bartizan_gate::duty::pdp::Pdp) returns no `Result`: an error,
//!   a time-out, a panic and a wrong shape are denials with a reason, so no caller can turn one into
//!   a permit.
//! - **One parser on the decision path.** The policy's input is built from the spans that
//!   [`bartizan_gate::wire::document`] found, the bytes that it parsed are the bytes forwarded, and
//!   edits replace spans. Nothing is decoded into a map and serialised again.
//! - **Proofs carry what the gate read.** A `Permitted` lends the frame that goes on, a `Released`
//!   says what it is and under which id. The edge reads a message itself only before the gate has:
//!   to find whose answer it is among calls that share a child or a stream.
//! - **No method is special in the control flow.** A method is a row of
//!   [`bartizan_gate::wire::method`], which alone compares names; one without a row is a question
//!   like any other.
//! - **No decision depends on a header.** Routing headers are compared with the body and then
//!   dropped.
//! - **The edge knows no `Decision`, `Effect` or `Obligation`.**
//! - **A module of the gate uses only those declared above it**, in the order in which a frame meets
//!   them; modules of other crates use one another in no circle.
//! - **A foreign crate has one door**: regorus in [`bartizan_rego`], OpenTelemetry in
//!   [`bartizan_audit`], the clocks in
//!   [`bartizan_edge::clock`], YAML in [`yaml`], rmcp in [`bartizan_peer`], [`bartizan_demo`] and
//!   [`lock::ask`] and so never on the forwarding path.
//! - **Nothing is unbounded.** Queues, tables, buffers, depths and waits have a limit with a name
//!   and a unit; most are keys of the configuration.
//! - **The journal does not wait for its readers.** Spans and decision logs are made from its files,
//!   so a slow collector slows no call.
//! - **No secret reaches a log, an error or a record.** [`config::Secret`] prints nothing, records
//!   hold keyed digests in place of values, refusals have constant text.
//! - **There are no Cargo features**: one program, one behaviour.
//!
//! # Modules of this crate, in reading order
//!
//! 1. [`yaml`]: YAML text to a tree, for configurations and for the data of policies.
//! 2. [`config`]: from the text of `bartizan.yaml` to what the program does; reports all problems at
//!    once.
//! 3. [`policy`]: policies found, proven in a child process, put in place, reloaded.
//! 4. [`run`]: builds everything once, starts it, stops it in order.
//! 5. [`demo`]: starts the firewall for the demo.
//! 6. [`lock`]: tool definitions as they were reviewed, and how they are asked for.
//! 7. [`assess`]: what a server shows of itself, for its threat model.
//! 8. [`cli`]: arguments in, exit code out.
//!
//! `docs/decisions/` records decisions that could have gone otherwise, each with its price.

pub mod yaml;
pub mod confine;
pub mod config;
pub mod policy;
pub mod run;
pub mod demo;
pub mod lock;
pub mod assess;
pub mod cli;
