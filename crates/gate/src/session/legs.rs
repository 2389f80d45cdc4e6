//! How a client of 2026-07-28 calls again by itself: the `requestState` of a held request.
//!
//! A held request is answered with a result that asks for input (MCP 2026-07-28,
//! basic/patterns/mrtr). Its client sends the same request again with the state of that answer, and
//! with its responses to what the answer asked. The state and the responses are for this gate alone:
//! the server gets what it would have got without a hold. What the first request carried of the
//! server's own (a state, and responses to what the server asked) is in our state, because the client
//! sends it no more.

use bytes::Bytes;

use crate::evidence::record::Now;
use crate::question::hold::{ELICITATION, HoldId};
use crate::wire::document::{Value, write_string};
use crate::wire::frame::{Frame, Malformed, Sender};

use super::expected::Declared;
use super::question::wall_time;
use super::{Gate, Session};

/// The member of `params` that carries what a server wants to have back.
pub(super) const STATE: &str = "requestState";
/// The member of `params` that carries responses to what a server has asked.
pub(super) const INPUT_RESPONSES: &str = "inputResponses";
/// With what a state begins that is the gate's own.
const STATE_PREFIX: &str = "bartizan-hold.";
/// How long such a state is accepted, milliseconds: a client calls again at once.
const STATE_MS_MAX: u64 = 24 * 3600 * 1000;
/// Responses to the server that a state may hold, bytes. A request with more is told to be made
/// again.
const RESPONSES_BYTES_MAX: usize = 64 << 10;

/// A held request whose client calls again by itself.
#[derive(Debug, Clone)]
pub(super) struct Resumes {
    /// What it carries of the server's own.
    pub(super) carried: Carried,
    /// Whether the client may be asked to open a page.
    pub(super) asks: bool,
    /// The hold whose page the client would not open.
    pub(super) declined: Option<HoldId>,
}

/// What a request carries for its server, each with its place among the members of `params`: the
/// order of what a person was shown is part of what was approved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Carried {
    state: Option<(usize, Box<str>)>,
    /// The value of `inputResponses`, as it was sent.
    responses: Option<(usize, Box<str>)>,
}

/// What our own state in a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leg {
    hold: HoldId,
    /// Whether the client was asked to open the hold's page, and would not.
    declined: bool,
}

impl Resumes {
    /// How the client of `frame` can call again; `leg` says that it has already. `None` if it cannot.
    pub(super) fn of(frame: &Frame, leg: Option<&Leg>, declared: Declared) -> Option<Self> {
        let mut carried = Carried::default();
        let members = frame.params().into_iter().flat_map(Value::members);
        for (place, (name, value)) in members.enumerate() {
            match name.as_str() {
                Some(STATE) => carried.state = value.as_str().map(|it| (place, it.into())),
                Some(INPUT_RESPONSES) if value.raw().len() > RESPONSES_BYTES_MAX => return None,
                Some(INPUT_RESPONSES) => {
                    let text = std::str::from_utf8(value.raw()).ok();
                    carried.responses = text.map(|it| (place, it.into()));
                }
                _ => {}
            }
        }
        let declined = leg.filter(|leg| leg.declined).map(|leg| leg.hold.clone());
        Some(Self { carried, asks: leg.is_none() && declared.opens_urls(), declined })
    }

    /// The bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        let Carried { state, responses } = &self.carried;
        [state, responses].into_iter().flatten().map(|(_, text)| text.len()).sum()
    }
}

impl Carried {
    /// As text behind the seal; empty if there is nothing.
    fn text(&self) -> String {
        let Self { state, responses } = self;
        if state.is_none() && responses.is_none() {
            return String::new();
        }
        let place = |of: &Option<(usize, Box<str>)>| {
            of.as_ref().map_or_else(|| "-".to_owned(), |(place, _)| place.to_string())
        };
        let text = |of: &'_ Option<(usize, Box<str>)>| {
            of.as_ref().map(|(_, text)| text.to_string()).unwrap_or_default()
        };
        let (places, own) = ((place(state), place(responses)), text(state));
        format!(".{}.{}.{}:{own}{}", places.0, places.1, own.len(), text(responses))
    }

    fn read(text: &str) -> Option<Self> {
        let Some(text) = text.strip_prefix('.') else {
            return text.is_empty().then(Self::default);
        };
        let (places, texts) = text.split_once(':')?;
        let mut places = places.splitn(3, '.');
        let mut place = || match places.next()? {
            "-" => Some(None),
            place => place.parse::<usize>().ok().map(Some),
        };
        let (state, responses) = (place()?, place()?);
        let (own, rest) = texts.split_at_checked(places.next()?.parse().ok()?)?;
        let of = |place: Option<usize>, text: &str| place.map(|place| (place, text.into()));
        Some(Self { state: of(state, own), responses: of(responses, rest) })
    }
}

impl Session {
    /// Reads a frame of the client. If it has a `requestState` that [`Session::hold_ended`] wrote, it
    /// becomes the request that was held, without what is for this gate alone, and the second value
    /// says so. Another state is the server's and passes.
    ///
    /// # Errors
    ///
    /// The frame is malformed, or it has a state with our prefix that was not written for this
    /// principal and server, or is older than [`STATE_MS_MAX`].
    pub(super) fn read_frame(
        &self,
        gate: &Gate,
        raw: &Bytes,
        now: Now,
    ) -> Result<(Frame, Option<Leg>), Malformed> {
        let limits = &gate.config.frame;
        let frame = Frame::read(raw.clone(), Sender::Client, limits)?;
        let params = frame.params();
        let state = params.and_then(|params| params.get(STATE)).and_then(Value::as_str);
        let Some((params, state)) =
            params.zip(state.and_then(|state| state.strip_prefix(STATE_PREFIX)))
        else {
            return Ok((frame, None));
        };
        let bad = Malformed::BadParams { member: STATE };
        let (hold, carried) = self.opened(gate, state, now).ok_or(bad)?;
        let responses = params.get(INPUT_RESPONSES);
        let leg = Leg { hold, declined: responses.is_some_and(declines) };
        let edit = (params.span(), as_held(params, &carried));
        let frame = Frame::read(frame.document().splice(&[edit]), Sender::Client, limits)?;
        Ok((frame, Some(leg)))
    }

    /// The state with which the client of a request that carries `carried` calls again.
    pub(super) fn state_of(
        &self,
        gate: &Gate,
        hold: &HoldId,
        carried: &Carried,
        now: Now,
    ) -> Box<str> {
        let until = wall_time(now).unix_ms.saturating_add(STATE_MS_MAX);
        let states = self.states(gate, &hold.0, until, &carried.text());
        states.into_iter().next().unwrap_or_default().into()
    }

    /// What a state without its prefix says; `None` if it is not ours, or too old.
    fn opened(&self, gate: &Gate, state: &str, now: Now) -> Option<(HoldId, Carried)> {
        let (hold, rest) = state.split_once('.')?;
        let (until, rest) = rest.split_once('.')?;
        let inside = rest.find('.').map_or("", |at| rest.get(at..).unwrap_or_default());
        let until: u64 = until.parse().ok()?;
        let genuine = self.states(gate, hold, until, inside);
        // The seal authorizes nothing, so nobody gains by measuring this comparison.
        let is_ours = genuine.iter().any(|one| one.strip_prefix(STATE_PREFIX) == Some(state));
        if !is_ours || until < wall_time(now).unix_ms {
            return None;
        }
        Some((HoldId::new(hold), Carried::read(inside)?))
    }

    /// States for the client, one under each key of seals: the hold, until when the state is accepted (milliseconds since the
    /// Unix epoch), a keyed digest that binds all to this principal and server, and what the held
    /// request carried for the server.
    fn states(&self, gate: &Gate, hold: &str, until: u64, inside: &str) -> Vec<String> {
        let (principal, server) = (&*self.principal.id, self.server_name());
        let lengths = (principal.len(), server.len(), inside.len());
        let sealed = format!("hold state\0{lengths:?}{principal}{server}{inside}{hold}.{until}");
        let seals = gate.seals(sealed.as_bytes());
        seals.map(|seal| format!("{STATE_PREFIX}{hold}.{until}.{seal}{inside}")).collect()
    }
}

/// Whether the client would not open the page that it was asked to open. Anything else, such as that
/// it would, grants nothing either.
fn declines(responses: Value<'_>) -> bool {
    let action = responses.get(ELICITATION).and_then(|response| response.get("action"));
    matches!(action.and_then(Value::as_str), Some("decline" | "cancel"))
}

/// `params` with what the held request carried in the place of what is for the gate.
fn as_held(params: Value<'_>, carried: &Carried) -> Vec<u8> {
    let own = |name: &str| matches!(name, STATE | INPUT_RESPONSES);
    let others = params.members().filter(|(name, _)| !name.as_str().is_some_and(own));
    let mut members: Vec<Vec<u8>> =
        others.map(|(name, value)| [name.raw(), b":", value.raw()].concat()).collect();
    let state = carried.state.as_ref().map(|(place, state)| {
        let mut member = b"\"requestState\":".to_vec();
        write_string(&mut member, state);
        (*place, member)
    });
    let responses = carried.responses.as_ref().map(|(place, responses)| {
        (*place, [b"\"inputResponses\":", responses.as_bytes()].concat())
    });
    let mut carried: Vec<_> = state.into_iter().chain(responses).collect();
    carried.sort_by_key(|(place, _)| *place);
    for (place, member) in carried {
        members.insert(place.min(members.len()), member);
    }
    [b"{", &*members.join(&b','), b"}"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_request_carries_comes_back_whole() {
        for state in
            [None, Some((0, "")), Some((7, "a.b:c")), Some((1, "é\u{2028}")), Some((2, "-:{}"))]
        {
            for responses in [None, Some((3, "{}")), Some((0, r#"{ "q": {"action":"accept"} }"#))] {
                let of = |of: Option<(usize, &str)>| of.map(|(place, text)| (place, text.into()));
                let carried = Carried { state: of(state), responses: of(responses) };
                assert_eq!(Carried::read(&carried.text()), Some(carried));
            }
        }
        for text in
            [".", ".x:", ".1.2.9:short", ".1.2.1:é", "x", ".-", ".-.-:", ".1.2.-:", ".a.-.0:"]
        {
            assert_eq!(Carried::read(text), None, "{text}");
        }
    }
}
