//! HTTP clients in front of a stdio server: children, sessions and ids.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_edge::child::{ChildLimits, ChildSpec, ChildUpstream};
use bartizan_edge::upstream::{Departure, SendContext};
use bartizan_edge::{Answer, EventStream, Shared};
use bartizan_gate::evidence::record::CallId;
use bartizan_gate::evidence::step::{Act, Permitted};
use bartizan_gate::question::access::Principal;
use bartizan_gate::session::{Arrival, Session, UpstreamFailure};
use bartizan_gate::wire::protocol::Transport;
use http::HeaderMap;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::support::{LONG, Sink, file, limits, principal, protected, script, shared};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

/// A server of either era: `initialize` and `ping` are answered at once, `tools/call` too with
/// the name of the process. It writes down all that it reads, the question of its era apart.
const SERVER: &str = r#"
while IFS= read -r line; do
    id=${line##*'"id":'}
    case $line in
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","result":{"supportedVersions":["2026-07-28"]},"id":%s\n' "$id"; continue;;
    esac
    printf '%s\n' "$line" >> "$1/read"
    case $line in
        *'"initialize"'*) printf '{"jsonrpc":"2.0","result":{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"s","version":"1"}},"id":%s\n' "$id";;
        *'"tools/call"'*) printf '{"jsonrpc":"2.0","result":{"process":%d},"id":%s\n' $$ "$id";;
        *'"ping"'*) printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";;
    esac
done
"#;

/// Before any other script: the first child is asked which era it speaks, and says the modern one.
const MODERN: &str = r#"
if ! [ -e "$1/asked" ]; then
    read -r line; printf '%s\n' "$line" >> "$1/asked"
    printf '{"jsonrpc":"2.0","result":{"supportedVersions":["2026-07-28"]},"id":%s\n' "${line##*'"id":'}"
fi
"#;

/// HTTP clients of one server.
struct Clients {
    shared: Shared,
    sink: Arc<Sink>,
    upstream: ChildUpstream,
    folder: TempDir,
}

/// Like [`Answer`], read to its end.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Accepted(u16),
    Whole(u16, String),
    Events(Vec<String>),
}

impl Clients {
    fn new(server: &str, limits: ChildLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::of(script(server, folder.path()), limits, folder)
    }

    /// Of a server that is of the modern era.
    fn modern(server: &str, limits: ChildLimits) -> Self {
        Self::new(&format!("{MODERN}{server}"), limits)
    }

    fn of(spec: ChildSpec, limits: ChildLimits, folder: TempDir) -> Self {
        let (shared, sink) = shared();
        let upstream = ChildUpstream::new(spec, limits, shared.clone(), protected());
        Self { shared, sink, upstream, folder }
    }

    /// Judges a message in a conversation of its own.
    fn permit(&self, who: &Arc<Principal>, body: &str) -> Permitted {
        self.permit_in(&mut conversation(who), body)
    }

    fn permit_in(&self, session: &mut Session, body: &str) -> Permitted {
        let arrival = Arrival { raw: body.to_owned().into(), ..Arrival::default() };
        let step = session.client_frame(&self.shared.gate, &arrival, self.shared.now());
        permitted(self.shared.record(step).unwrap())
    }

    async fn send(
        &self,
        (who, session): (&str, Option<&str>),
        body: &str,
    ) -> Result<Answer, UpstreamFailure> {
        let who = principal(who);
        let permitted = self.permit(&who, body);
        self.dispatch(who, session, permitted).await
    }

    async fn dispatch(
        &self,
        who: Arc<Principal>,
        session: Option<&str>,
        permitted: Permitted,
    ) -> Result<Answer, UpstreamFailure> {
        let context = SendContext {
            headers: HeaderMap::new(),
            session: session.map(Into::into),
            principal: who,
            departure: None,
        };
        timeout(LONG, self.upstream.send(permitted, &context)).await.expect("an answer")
    }

    async fn get(&self, (who, session): (&str, Option<&str>), body: &str) -> Got {
        whole(self.send((who, session), body).await.unwrap()).await
    }

    /// Opens or ends a session by GET or DELETE.
    async fn transport(&self, (who, session): (&str, Option<&str>), ends: bool) -> Answer {
        let who = principal(who);
        let mut conversation = conversation(&who);
        let step = if ends {
            conversation.end(&self.shared.gate, self.shared.now())
        } else {
            conversation.open_stream(&self.shared.gate, self.shared.now())
        };
        let permitted = permitted(self.shared.record(step).unwrap());
        self.dispatch(who, session, permitted).await.unwrap()
    }

    /// Starts a session and gives its name.
    async fn initialize(&self, who: &str) -> String {
        match self.send((who, None), &initialize()).await.unwrap() {
            Answer::Whole { status: 200, headers, .. } => {
                headers.get("mcp-session-id").unwrap().to_str().unwrap().to_owned()
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the children have read, once there are `lines` of it.
    async fn read(&self, lines: usize) -> Vec<String> {
        let path = self.folder.path().join("read");
        let text = file(&path, |text| text.lines().count() >= lines).await;
        text.lines().map(ToOwned::to_owned).collect()
    }
}

/// The id of a request as the child got it.
fn number(line: &str) -> i64 {
    serde_json::from_str::<serde_json::Value>(line).unwrap().get("id").unwrap().as_i64().unwrap()
}

fn conversation(who: &Arc<Principal>) -> Session {
    Session::new(Arc::clone(who), protected(), Transport::Http)
}

fn permitted(act: Act) -> Permitted {
    match act {
        Act::Forward(permitted) => permitted,
        other => panic!("{other:?}"),
    }
}

async fn whole(answer: Answer) -> Got {
    match answer {
        Answer::Accepted { status, .. } => Got::Accepted(status),
        Answer::Whole { status, body, .. } => {
            Got::Whole(status, String::from_utf8(body.to_vec()).unwrap())
        }
        Answer::Stream { mut events, .. } => {
            let mut got = Vec::new();
            while let Some(event) = next(&mut events).await {
                got.push(event);
            }
            Got::Events(got)
        }
    }
}

async fn next(events: &mut EventStream) -> Option<String> {
    let event = timeout(LONG, events.next()).await.expect("an event")?.unwrap();
    Some(String::from_utf8(event.data.to_vec()).unwrap())
}

fn stream(answer: Answer) -> EventStream {
    match answer {
        Answer::Stream { events, .. } => events,
        other => panic!("{other:?}"),
    }
}

fn initialize() -> String {
    r#"{"jsonrpc":"2.0","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}},"id":0}"#.into()
}

fn call(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"t"}},"id":{id}}}"#)
}

fn modern(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"t",{META}}},"id":{id}}}"#)
}

/// A modern call with a progress token, also naming a tool of its own.
fn progressing(tool: &str, id: &str, token: &str) -> String {
    let meta = META.replace("\"_meta\":{", &format!("\"_meta\":{{\"progressToken\":{token},"));
    format!(
        r#"{{"jsonrpc":"2.0","method":"tools/call","params":{{"name":"{tool}",{meta}}},"id":{id}}}"#
    )
}

#[tokio::test]
async fn ids_that_collide_come_back_to_whom_they_belong() {
    // Answers in the reverse order, each with the name of the tool that was called.
    let reversing = r#"
answer() { tool=${1##*'"name":"'}; printf '{"jsonrpc":"2.0","id":%s,"result":{"tool":"%s"}}\n' "${2%\}}" "${tool%%\"*}"; }
read -r a; read -r b; read -r c
for l in "$c" "$b" "$a"; do answer "$l" "${l##*'"id":'}"; done
cat > /dev/null
"#;
    let clients = Clients::modern(reversing, limits());
    let call = |tool: &str, id: &str| {
        modern(id).replace("\"name\":\"t\"", &format!("\"name\":\"{tool}\""))
    };
    let (first, second, third) = (call("one", "1"), call("two", "1"), call("three", "\"1\""));
    let (first, second, third) = tokio::join!(
        clients.get(("a", None), &first),
        clients.get(("a", None), &second),
        clients.get(("a", None), &third),
    );
    let answer = |tool: &str, id: &str| {
        Got::Whole(200, format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tool":"{tool}"}}}}"#))
    };
    assert_eq!(first, answer("one", "1"));
    assert_eq!(second, answer("two", "1"));
    assert_eq!(third, answer("three", "\"1\""));
}

#[tokio::test]
async fn progress_goes_to_the_exchange_that_asked_for_it() {
    let progressing_server = r#"
progress() { t=${1##*'"progressToken":'}; printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%s}}\n' "${t%%,*}" "$2"; }
read -r a; read -r b
progress "$a" 1; progress "$b" 2; progress "$a" 3
echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"foreign","progress":4}}'
for l in "$a" "$b"; do id=${l##*'"id":'}; printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id"; done
cat > /dev/null
"#;
    let clients = Clients::modern(progressing_server, limits());
    let (first, second) = (progressing("a", "5", "\"p\""), progressing("b", "5", "\"p\""));
    let (first, second) =
        tokio::join!(clients.get(("a", None), &first), clients.get(("a", None), &second));
    let progress = |n: u8| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"p","progress":{n}}}}}"#
        )
    };
    let answer = r#"{"jsonrpc":"2.0","result":{},"id":5}"#.to_owned();
    assert_eq!(first, Got::Events(vec![progress(1), progress(3), answer.clone()]));
    assert_eq!(second, Got::Events(vec![progress(2), answer]));
}

#[tokio::test]
async fn a_body_with_line_ends_is_one_line_to_the_child() {
    // Threat C4.
    let clients = Clients::new(SERVER, limits());
    let nested = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"forbidden"},"id":2}"#;
    for end in ["\n", "\r", "\r\n", "\t"] {
        let body = modern("1").replace(
            "\"name\":\"t\"",
            &format!("\"name\":\"t\",\"arguments\":{{\"x\":{end}{nested}{end}}}"),
        );
        let got = clients.get(("a", None), &body).await;
        assert!(matches!(got, Got::Whole(200, _)), "{got:?}");
    }
    let read = clients.read(4).await;
    assert_eq!(read.len(), 4, "{read:?}");
    for line in read {
        let separate = line.starts_with(
            "{\"jsonrpc\":\"2.0\",\"method\":\"tools/call\",\"params\":{\"name\":\"t\"",
        );
        assert!(separate && !line.contains(char::is_control), "{line:?}");
    }
}

#[tokio::test]
async fn each_session_has_a_child_and_a_name_of_its_own() {
    let clients = Clients::new(SERVER, limits());
    let (one, two) = (clients.initialize("a").await, clients.initialize("a").await);
    assert_ne!(one, two);
    assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()), "{one}");
    assert_eq!(clients.upstream.children(), 2);

    let first = clients.get(("a", Some(&one)), &call("1")).await;
    assert_eq!(clients.get(("a", Some(&one)), &call("1")).await, first);
    assert_ne!(clients.get(("a", Some(&two)), &call("1")).await, first);

    // Threats F7, F8: a session is its principal's, and nobody else can name one.
    let missing = Got::Whole(404, String::new());
    assert_eq!(clients.get(("b", Some(&one)), &call("1")).await, missing);
    assert_eq!(clients.get(("b", Some(&one)), &initialize()).await, missing);
    assert_eq!(clients.get(("a", Some("chosen")), &call("1")).await, missing);
    assert!(matches!(
        clients.transport(("b", Some(&one)), true).await,
        Answer::Whole { status: 404, .. }
    ));

    let ended = clients.transport(("a", Some(&one)), true).await;
    assert!(matches!(ended, Answer::Accepted { status: 204, .. }));
    assert_eq!(clients.get(("a", Some(&one)), &call("1")).await, missing);
    assert_eq!(clients.upstream.children(), 1);
}

#[tokio::test]
async fn a_name_that_the_edge_minted_is_taken() {
    let clients = Clients::new(SERVER, limits());
    let got = clients.get(("a", Some("minted")), &initialize()).await;
    assert!(matches!(got, Got::Whole(200, _)), "{got:?}");
    assert!(matches!(clients.get(("a", Some("minted")), &call("1")).await, Got::Whole(200, _)));
}

#[tokio::test]
async fn a_refused_initialize_leaves_nothing_behind() {
    let refusing = r#"read -r l; printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32602,"message":"no"}}\n' "$(expr "$l" : '.*"id":\([0-9]*\)')"; cat"#;
    let clients = Clients::new(refusing, limits());
    match clients.send(("a", None), &initialize()).await.unwrap() {
        Answer::Whole { status: 200, headers, body, .. } => {
            assert!(headers.get("mcp-session-id").is_none());
            assert!(
                body.ends_with(b"\"message\":\"no\"}}")
                    && body.starts_with(br#"{"jsonrpc":"2.0","id":0"#)
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(clients.upstream.children(), 0);
}

#[tokio::test]
async fn without_a_session_only_the_modern_era_is_served() {
    let clients = Clients::new(SERVER, limits());
    assert_eq!(clients.get(("a", None), &call("1")).await, legacy_only());
    assert!(matches!(
        clients.transport(("a", None), false).await,
        Answer::Whole { status: 405, .. }
    ));
    assert_eq!(clients.upstream.children(), 0);

    let first = clients.get(("a", None), &modern("1")).await;
    assert!(matches!(first, Got::Whole(200, _)), "{first:?}");
    assert_eq!(clients.get(("a", None), &modern("1")).await, first, "one child a principal");
    assert_ne!(clients.get(("b", None), &modern("1")).await, first, "and no child for two");
    assert_eq!(clients.upstream.children(), 2);
}

#[tokio::test]
async fn modern_errors_have_the_status_that_http_gives_them() {
    let failing = r#"
while read -r l; do
    id=${l##*'"id":'}; code=${l##*'"name":"'}
    printf '{"jsonrpc":"2.0","error":{"code":%s,"message":""},"id":%s\n' "${code%%\"*}" "$id"
done
"#;
    let clients = Clients::modern(failing, limits());
    for (code, expected) in
        [("-32601", 404), ("-32020", 400), ("-32022", 400), ("-32602", 200), ("-32000", 200)]
    {
        let body = modern("1").replace("\"t\"", &format!("\"{code}\""));
        let got = clients.get(("a", None), &body).await;
        assert!(matches!(got, Got::Whole(status, _) if status == expected), "{code}: {got:?}");
    }
}

#[tokio::test]
async fn a_legacy_cancel_names_the_request_as_the_child_knows_it() {
    let silent = r#"
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$1/read"
    id=${line##*'"id":'}
    case $line in *'"initialize"'*) printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";; esac
done
"#;
    let hasty = ChildLimits { whole_wait: Duration::ZERO, ..limits() };
    let clients = Clients::new(silent, hasty);
    whole(clients.send(("a", Some("s")), &initialize()).await.unwrap()).await;
    let who = principal("a");
    let mut session = conversation(&who);
    let asked = clients.permit_in(&mut session, &call("\"mine\""));
    let answer = clients.dispatch(Arc::clone(&who), Some("s"), asked).await.unwrap();
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine"}}"#;
    let cancel = clients.permit_in(&mut session, cancel);
    let got = clients.dispatch(who, Some("s"), cancel).await.unwrap();
    assert!(matches!(got, Answer::Accepted { status: 202, .. }));
    let read = clients.read(3).await;
    let id = number(&read[1]);
    assert!(read[2].ends_with(&format!(r#""params":{{"requestId":{id}}}}}"#)), "{read:?}");
    drop(answer);
}

/// Gives the cancellations that it holds, and forgets that they were sent.
#[derive(Debug)]
struct Leaving(Mutex<Vec<Permitted>>);

impl Departure for Leaving {
    fn cancellation(&self) -> Option<Permitted> {
        self.0.lock().unwrap().pop()
    }

    fn told(&self, _: &CallId, sent: bool) {
        assert!(sent);
    }

    fn answered(&self, _: &bytes::Bytes) {}
}

#[tokio::test]
async fn a_modern_client_cancels_by_going_away_and_a_legacy_one_does_not() {
    let silent = r#"
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$1/read"
    id=${line##*'"id":'}
    case $line in
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","result":{"supportedVersions":[]},"id":%s\n' "$id";;
        *'"initialize"'* | *'"ping"'*) printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";;
    esac
done
"#;
    let hasty = ChildLimits { whole_wait: Duration::ZERO, ..limits() };
    let clients = Clients::new(silent, hasty);
    let leave = async |body: &str, departure: Option<Arc<dyn Departure>>| {
        let principal = principal("a");
        let permitted = clients.permit(&principal, body);
        let headers = HeaderMap::new();
        let context = SendContext { headers, session: None, principal, departure };
        drop(timeout(LONG, clients.upstream.send(permitted, &context)).await.unwrap().unwrap());
    };
    // Nobody may say so.
    leave(&modern("8"), None).await;
    let cancel =
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"mine"}}"#;
    let mut session = conversation(&principal("a"));
    drop(clients.permit_in(&mut session, &modern("\"mine\"")));
    let departure = Arc::new(Leaving(Mutex::new(vec![clients.permit_in(&mut session, cancel)])));
    leave(&modern("9"), Some(Arc::<Leaving>::clone(&departure))).await;
    let read = clients.read(4).await;
    assert!(departure.0.lock().unwrap().is_empty());
    let id = read.iter().rfind(|line| line.contains("\"id\":")).map(|line| number(line));
    let cancel =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    assert_eq!(serde_json::from_str::<serde_json::Value>(&read[3]).unwrap(), cancel);

    whole(clients.send(("a", Some("s")), &initialize()).await.unwrap()).await;
    drop(clients.send(("a", Some("s")), &call("9")).await.unwrap());
    let ping = r#"{"jsonrpc":"2.0","method":"ping","id":10}"#;
    whole(clients.send(("a", Some("s")), ping).await.unwrap()).await;
    let read = clients.read(7).await;
    assert!(read.iter().skip(4).all(|line| !line.contains("cancelled")), "{read:?}");
}

#[tokio::test]
async fn the_server_is_heard_on_its_stream_even_if_it_spoke_first() {
    let asking = r#"
read -r l; id=${l##*'"id":'}; printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id"
read -r l
echo '{"jsonrpc":"2.0","method":"roots/list","id":"q"}'
read -r l; printf '%s\n' "$l" >> "$1/read"
echo '{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}'
cat > /dev/null
"#;
    let clients = Clients::new(asking, limits());
    let name = clients.initialize("a").await;
    let here = ("a", Some(&*name));
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(clients.get(here, initialized).await, Got::Accepted(202));
    let mut heard = stream(clients.transport(here, false).await);
    let asked = r#"{"jsonrpc":"2.0","method":"roots/list","id":"q"}"#;
    assert_eq!(next(&mut heard).await.unwrap(), asked);
    assert!(matches!(clients.transport(here, false).await, Answer::Whole { status: 409, .. }));

    let who = principal("a");
    let mut session = conversation(&who);
    let step = session.server_frame(&clients.shared.gate, &asked.into(), clients.shared.now());
    assert!(matches!(clients.shared.record(step).unwrap(), Act::Deliver(_)));
    let answer =
        clients.permit_in(&mut session, r#"{"jsonrpc":"2.0","result":{"roots":[]},"id":"q"}"#);
    let got = clients.dispatch(who, Some(&name), answer).await.unwrap();
    assert!(matches!(got, Answer::Accepted { status: 202, .. }));
    assert_eq!(clients.read(1).await, [r#"{"jsonrpc":"2.0","result":{"roots":[]},"id":"q"}"#]);
    assert!(next(&mut heard).await.unwrap().contains("list_changed"));
    drop(clients.transport(here, true).await);
    assert_eq!(next(&mut heard).await, None);
}

#[tokio::test]
async fn subscriptions_are_tagged_with_the_client_s_own_id() {
    let listening = r#"
read -r l; id=${l##*'"id":'}; id=${id%\}}
tag="\"_meta\":{\"io.modelcontextprotocol/subscriptionId\":$id}"
printf '{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{%s}}\n' "$tag"
printf '{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{%s}}\n' "$tag"
printf '{"jsonrpc":"2.0","result":{%s},"id":%s}\n' "$tag" "$id"
cat > /dev/null
"#;
    let clients = Clients::modern(listening, limits());
    let body = format!(
        r#"{{"jsonrpc":"2.0","method":"subscriptions/listen","params":{{"notifications":{{}},{META}}},"id":"mine"}}"#
    );
    let tag = r#""_meta":{"io.modelcontextprotocol/subscriptionId":"mine"}"#;
    assert_eq!(
        clients.get(("a", None), &body).await,
        Got::Events(vec![
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{{tag}}}}}"#
            ),
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{{{tag}}}}}"#
            ),
            format!(r#"{{"jsonrpc":"2.0","result":{{{tag}}},"id":"mine"}}"#),
        ])
    );
}

#[tokio::test]
async fn answers_to_what_was_not_asked_reach_nobody() {
    let forging = r#"
read -r l; id=${l##*'"id":'}; id=${id%\}}
for forged in 99 '"1"' -1; do printf '{"jsonrpc":"2.0","result":{"forged":true},"id":%s}\n' "$forged"; done
echo 'a line of a log'
echo '{"level":"info"}'
printf '{"jsonrpc":"2.0","result":{},"id":%s}\n' "$id" "$id"
cat > /dev/null
"#;
    let clients = Clients::modern(forging, limits());
    let expected = Got::Whole(200, r#"{"jsonrpc":"2.0","result":{},"id":99}"#.into());
    assert_eq!(clients.get(("a", None), &modern("99")).await, expected);
    // Each is recorded, the repeated answer too.
    let dropped = clients.sink.lines().into_iter().filter(|line| line.starts_with("Drop"));
    assert_eq!(dropped.count(), 6, "{:?}", clients.sink.lines());
}

#[tokio::test]
async fn a_flood_for_nobody_is_recorded_within_bounds() {
    let flooding = r#"
read -r l; id=${l##*'"id":'}
i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo 'no message at all'; done
printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id"
cat > /dev/null
"#;
    let few = ChildLimits { strays_per_second: 3, ..limits() };
    let clients = Clients::modern(flooding, few);
    assert!(matches!(clients.get(("a", None), &modern("1")).await, Got::Whole(200, _)));
    let dropped = clients.sink.lines().into_iter().filter(|line| line.starts_with("Drop")).count();
    assert!((3..=30).contains(&dropped), "{dropped}");
}

/// What a legacy server over HTTP says to a request that came before `initialize`.
fn legacy_only() -> Got {
    let error = r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}"#;
    Got::Whole(400, error.into())
}

#[tokio::test]
async fn a_modern_request_never_reaches_a_legacy_server() {
    // This child would carry out a call before `initialize`, or exit because of it.
    let answering = r#"
echo started >> "$1/starts"
while IFS= read -r line; do
    printf '%s\n' "$line" >> "$1/read"
    id=${line##*'"id":'}
    case $line in
        *'"server/discover"'*) printf '{"jsonrpc":"2.0","error":{"code":-32601,"message":"Method not found"},"id":%s\n' "$id";;
        *) printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";;
    esac
done
"#;
    let exiting =
        answering.replace("*'\"server/discover\"'*) ", "*'\"server/discover\"'*) exit 3; ");
    for (server, cached) in [(answering, "-32601"), (&*exiting, "exit")] {
        let clients = Clients::new(server, limits());
        let name = clients.initialize("a").await;
        // Named or not, the session's child is not tried.
        for session in [Some(&*name), None, None] {
            assert_eq!(clients.get(("a", session), &modern("1")).await, legacy_only(), "{cached}");
        }
        let discover = modern("2").replace("tools/call", "server/discover");
        assert_eq!(clients.get(("b", None), &discover).await, legacy_only());
        assert!(matches!(clients.get(("a", Some(&name)), &call("1")).await, Got::Whole(200, _)));
        let read = clients.read(3).await;
        let methods: Vec<_> = read
            .iter()
            .map(|line| line.split("\"method\":\"").nth(1).unwrap().split('"').next().unwrap())
            .collect();
        assert_eq!(methods, ["initialize", "server/discover", "tools/call"]);
        let starts = std::fs::read_to_string(clients.folder.path().join("starts")).unwrap();
        assert_eq!(starts.lines().count(), 2, "asked once, and what was asked is ended");
        assert_eq!(clients.upstream.children(), 1);
        let lines = clients.sink.lines();
        assert!(lines.contains(&"Intent server/discover -".to_owned()), "{lines:?}");
    }
}

#[tokio::test]
async fn what_was_learnt_of_the_era_is_asked_again_in_time() {
    let changing = r#"
echo started >> "$1/starts"
read -r l; id=${l##*'"id":'}
[ -e "$1/new" ] || { printf '{"jsonrpc":"2.0","error":{"code":-32601,"message":""},"id":%s\n' "$id"; exit; }
printf '{"jsonrpc":"2.0","result":{"supportedVersions":[]},"id":%s\n' "$id"
while read -r l; do printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "${l##*'"id":'}"; done
"#;
    let forgetful = ChildLimits { era_max: Duration::from_millis(50), ..limits() };
    let clients = Clients::new(changing, forgetful);
    assert_eq!(clients.get(("a", None), &modern("1")).await, legacy_only());
    std::fs::write(clients.folder.path().join("new"), "").unwrap();
    let served = timeout(LONG, async {
        while clients.get(("a", None), &modern("1")).await == legacy_only() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    served.await.unwrap();
}

#[tokio::test]
async fn sessions_whose_children_die_at_once_are_not_started_for_ever() {
    let patient = ChildLimits {
        restart_pause: Duration::from_millis(1),
        restart_wait_max: Duration::from_millis(20),
        restart_pause_max: Duration::from_hours(1),
        ..limits()
    };
    let clients = Clients::new(r#"echo started >> "$1/starts"; exit 1"#, patient);
    let refused = timeout(LONG, async {
        loop {
            match clients.send(("a", None), &initialize()).await {
                Err(UpstreamFailure::Unreachable(why)) if why.contains("not started again") => {
                    return;
                }
                Err(_) => {}
                Ok(answer) => drop(answer),
            }
        }
    });
    refused.await.unwrap();
    // 1, 2, 4, 8, 16 ms are waited for; 32 ms are not.
    let starts = std::fs::read_to_string(clients.folder.path().join("starts")).unwrap();
    assert_eq!(starts.lines().count(), 6);
    assert_eq!(clients.upstream.children(), 0);
}

#[tokio::test]
async fn a_child_that_writes_an_endless_line_fails_its_calls_and_is_killed() {
    // Threat C6. The child ignores the end of its input and SIGTERM, too.
    let endless = r"
trap '' TERM
read -r l
head -c 8388608 /dev/zero | tr '\0' x
while :; do sleep 1; done
";
    let clients = Clients::modern(endless, limits());
    let failed = clients.send(("a", None), &modern("1")).await;
    let failure = match failed {
        Err(failure) => failure,
        Ok(answer) => timeout(LONG, stream(answer).next()).await.unwrap().unwrap().unwrap_err(),
    };
    match failure {
        UpstreamFailure::Unreachable(why) => assert!(why.contains("longer than allowed"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(clients.upstream.children(), 0);
}

#[tokio::test]
async fn an_id_may_be_used_again_once_it_was_answered() {
    // Threat D5: each use is another request to the child.
    let clients = Clients::new(SERVER, limits());
    let first = clients.get(("a", None), &modern("1")).await;
    assert_eq!(clients.get(("a", None), &modern("1")).await, first);
    let read = clients.read(2).await;
    assert_ne!(number(&read[0]), number(&read[1]));
}

#[tokio::test]
async fn a_text_reaches_the_child_on_one_line_whatever_its_line_ends() {
    // Threat C7.
    let clients = Clients::new(SERVER, limits());
    let body = modern("1").replace(
        "\"name\":\"t\"",
        "\"name\":\"t\",\"arguments\":{\"x\":\"a\u{2028}b\u{2029}c\u{85}\"}",
    );
    assert!(matches!(clients.get(("a", None), &body).await, Got::Whole(200, _)));
    let read = clients.read(1).await;
    assert!(read[0].contains(r#"{"x":"a\u2028b\u2029c\u0085"}"#), "{read:?}");
}

#[tokio::test]
async fn an_unreadable_answer_goes_to_the_only_call_that_waits() {
    let ambiguous = r#"read -r l; echo '{"jsonrpc":"2.0","result":{},"result":{},"id":2}'; cat"#;
    let clients = Clients::modern(ambiguous, limits());
    let mut events = stream(clients.send(("a", None), &modern("1")).await.unwrap());
    // As it came, for the gate to withhold.
    let raw = r#"{"jsonrpc":"2.0","result":{},"result":{},"id":2}"#;
    assert_eq!(next(&mut events).await.unwrap(), raw);
}

#[tokio::test]
async fn a_dead_child_fails_its_calls_and_is_started_again() {
    let mortal = r#"
echo started >> "$1/starts"
while read -r l; do
    id=${l##*'"id":'}
    case $l in *'"die"'*) exit 7;; *'"server/discover"'*) printf '{"jsonrpc":"2.0","result":{"supportedVersions":[]},"id":%s\n' "$id";; *) printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id";; esac
done
"#;
    let clients = Clients::new(mortal, limits());
    let fatal = modern("1").replace("\"t\"", "\"die\"");
    let failed = clients.send(("a", None), &fatal).await;
    let failure = match failed {
        Err(failure) => failure,
        Ok(answer) => timeout(LONG, stream(answer).next()).await.unwrap().unwrap().unwrap_err(),
    };
    match failure {
        UpstreamFailure::Unreachable(why) => assert!(why.contains("exit status: 7"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(clients.get(("a", None), &modern("2")).await, Got::Whole(200, _)));
    let starts = std::fs::read_to_string(clients.folder.path().join("starts")).unwrap();
    assert_eq!(starts.lines().count(), 2);

    // A session's child is not replaced: the client must begin again (404).
    let name = clients.initialize("a").await;
    let fatal = call("1").replace("\"t\"", "\"die\"");
    drop(clients.send(("a", Some(&name)), &fatal).await.map(whole));
    let gone = timeout(LONG, async {
        while clients.send(("a", Some(&name)), &call("2")).await.is_err() {
            tokio::task::yield_now().await;
        }
        clients.get(("a", Some(&name)), &call("2")).await
    });
    assert_eq!(gone.await.unwrap(), Got::Whole(404, String::new()));
}

#[tokio::test]
async fn a_child_that_keeps_dying_is_not_started_for_ever() {
    let patient = ChildLimits {
        restart_pause: Duration::from_millis(1),
        restart_wait_max: Duration::from_millis(20),
        restart_pause_max: Duration::from_hours(1),
        ..limits()
    };
    let clients = Clients::modern(r#"echo started >> "$1/starts"; exit 1"#, patient);
    let refused = timeout(LONG, async {
        loop {
            match clients.send(("a", None), &modern("1")).await {
                Err(UpstreamFailure::Unreachable(why)) if why.contains("not started again") => {
                    return;
                }
                Err(_) => {}
                Ok(answer) => drop(answer),
            }
        }
    });
    refused.await.unwrap();
    // 1, 2, 4, 8, 16 ms are waited for; 32 ms are not.
    let starts = std::fs::read_to_string(clients.folder.path().join("starts")).unwrap();
    assert_eq!(starts.lines().count(), 6);
}

#[tokio::test]
async fn children_are_bounded_and_idle_ones_make_room() {
    let few = ChildLimits { children_max: 3, children_per_principal_max: 2, ..limits() };
    let clients = Clients::new(SERVER, few.clone());
    for who in ["a", "a", "b"] {
        clients.initialize(who).await;
    }
    for (who, bound) in [("a", "children_max"), ("c", "children_max")] {
        match clients.send((who, None), &initialize()).await {
            Err(UpstreamFailure::Unreachable(why)) => assert!(why.contains(bound), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(clients.upstream.children(), 3);

    let clients = Clients::new(SERVER, ChildLimits { children_max: 9, ..few.clone() });
    clients.initialize("a").await;
    clients.initialize("a").await;
    match clients.send(("a", None), &modern("1")).await {
        Err(UpstreamFailure::Unreachable(why)) => {
            assert!(why.contains("children_per_principal_max"), "{why}");
        }
        other => panic!("{other:?}"),
    }

    let idle = ChildLimits { children_max: 1, idle_max: Duration::ZERO, ..few };
    let clients = Clients::new(SERVER, idle);
    let first = clients.initialize("a").await;
    clients.initialize("b").await;
    assert_eq!(clients.upstream.children(), 1);
    assert_eq!(clients.get(("a", Some(&first)), &call("1")).await, Got::Whole(404, String::new()));
}

#[tokio::test]
async fn closing_lets_calls_finish_and_ends_all_children() {
    let slow = r#"
read -r l; id=${l##*'"id":'}
while ! [ -e "$1/go" ]; do sleep 0.01; done
printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id"
cat > /dev/null
"#;
    let hasty = ChildLimits { whole_wait: Duration::ZERO, ..limits() };
    let clients = Clients::modern(slow, hasty);
    let mut events = stream(clients.send(("a", None), &modern("1")).await.unwrap());
    clients.shared.closing.cancel();
    std::fs::write(clients.folder.path().join("go"), "").unwrap();
    assert_eq!(next(&mut events).await.unwrap(), r#"{"jsonrpc":"2.0","result":{},"id":1}"#);
    assert_eq!(next(&mut events).await, None);
    clients.shared.tasks.close();
    timeout(LONG, clients.shared.tasks.wait()).await.expect("no task is left");
    assert_eq!(clients.upstream.children(), 0);
    let refused = clients.send(("b", None), &modern("1")).await;
    assert!(matches!(refused, Err(UpstreamFailure::Unreachable(_))), "{refused:?}");
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_given_up_and_others_go_on() {
    let flooding = r#"
read -r l; t=${l##*'"progressToken":'}; t=${t%%,*}
i=0; while [ $i -lt 100 ]; do i=$((i+1)); printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":%s}}\n' "$t" $i; done
read -r l; id=${l##*'"id":'}; printf '{"jsonrpc":"2.0","result":{},"id":%s\n' "$id"
cat > /dev/null
"#;
    let strict = ChildLimits {
        exchange_wait_max: Duration::from_millis(20),
        exchange_queue_max: 4,
        ..limits()
    };
    let clients = Clients::modern(flooding, strict);
    let slow = clients.send(("a", None), &progressing("slow", "1", "1")).await.unwrap();
    assert!(matches!(clients.get(("a", None), &modern("2")).await, Got::Whole(200, _)));
    let mut slow = stream(slow);
    let mut passed = 0;
    let end = loop {
        match timeout(LONG, slow.next()).await.unwrap() {
            Some(Ok(_)) => passed += 1,
            other => break other,
        }
    };
    assert!(matches!(end, Some(Err(UpstreamFailure::EndedEarly))), "{end:?}");
    assert!(passed <= 6, "{passed}");
}
