//! Answers by a link: once, by whom it was made for, for what was shown, and by `POST` alone.

use super::*;

const OTHER_KEY: &[u8] = b"the key of links in other tests.";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// The links of the latest message, as paths of the listener.
async fn links(receiver: &Receiver, number: usize) -> [String; 2] {
    let told = receiver.request(number).await.json();
    ["grant", "refuse"].map(|name| {
        let url = told["data"]["links"][name].as_str().unwrap_or_else(|| panic!("{told}"));
        url.strip_prefix("https://approvals.example.com/b").unwrap().to_owned()
    })
}

impl Desk {
    async fn look(&self, path: &str) -> Reply {
        self.send(&format!("GET {path}"), "", "").await
    }

    async fn follow(&self, path: &str) -> Reply {
        self.send(&format!("POST {path}"), FORM, "reason=Ann%3A+ch%C3%A9cked").await
    }

    fn errors(&self) -> Vec<Option<String>> {
        self.answers().into_iter().map(|(_, _, error)| error).collect()
    }
}

fn counted(who: &str, what: &'static str) -> (String, &'static str, Option<String>) {
    (who.to_owned(), what, None)
}

#[tokio::test]
async fn a_link_grants_once_and_only_by_post() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let mut waiter = desk.ask(&hold("publish", r#"{"arguments":{"n":1}}"#, 1));
    let [grant, refuse] = links(&receiver, 1).await;
    // Chats and scanners fetch links, in any of these ways, as often as they like.
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for path in [&grant, &refuse] {
            let mut client = Client::connect(desk.address).await;
            client
                .send(format!("{method} {path} HTTP/1.1\r\nHost: desk:1\r\n\r\n").as_bytes())
                .await;
            let expected = if matches!(method, "GET" | "HEAD") { 200 } else { 405 };
            assert_eq!(client.head().await.0, expected, "{method}");
        }
    }
    assert_eq!((waiter.state(), desk.answers()), (HoldState::Pending, vec![]));

    let page = desk.look(&grant).await;
    for expected in [
        "publish on flags",
        "a second pair of eyes",
        "&quot;n&quot;: 1",
        "staging",
        "<form method=\"post\">",
        "Grant this call",
        "The answer counts as that of chat.",
    ] {
        assert!(page.text().contains(expected), "{expected}: {}", page.text());
    }
    let done = desk.follow(&grant).await;
    assert_eq!(done.status, 200, "{}", done.text());
    assert!(done.text().contains("The call is granted, once."), "{}", done.text());
    assert_eq!(waiter.decided().await, HoldState::Granted);
    assert_eq!(desk.answers(), [counted("chat", "grant")]);
    let reason = desk.sink.kept().last().unwrap().approval.as_ref().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("Ann: chécked"));

    // Neither link does anything any more, and each says so.
    for path in [&grant, &refuse, &grant] {
        for reply in [desk.look(path).await, desk.follow(path).await] {
            assert_eq!(reply.status, 409, "{}", reply.text());
            assert!(reply.text().contains("Nothing was done: it was granted already"));
            assert!(!reply.text().contains("<form"), "{}", reply.text());
        }
    }
    let approval = waiter.spend(desk.shared.now()).unwrap();
    assert_eq!(&*approval.approvers, [Box::from("chat")]);
    assert_eq!(desk.follow(&grant).await.status, 409);
    assert_eq!(desk.answers().iter().filter(|(_, _, error)| error.is_none()).count(), 1);
}

#[tokio::test]
async fn a_link_refuses_once() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let mut waiter = desk.ask(&hold("publish", "{}", 1));
    let [grant, refuse] = links(&receiver, 1).await;
    assert!(desk.look(&refuse).await.text().contains("Refuse this call"));
    assert!(desk.follow(&refuse).await.text().contains("The call is refused."));
    assert_eq!(waiter.decided().await, HoldState::Refused);
    for path in [&refuse, &grant] {
        assert_eq!(desk.follow(path).await.status, 409);
    }
    assert_eq!(desk.answers()[0], counted("chat", "refuse"));
    assert!(desk.errors()[1..].iter().all(|error| error.as_deref() == Some("not-pending")));
}

/// Each part changed, left out, doubled or taken from the link of another call; another key.
#[tokio::test]
async fn a_changed_link_is_worth_nothing() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let one = desk.ask(&hold("publish", r#"{"n":1}"#, 1));
    let [grant, refuse] = links(&receiver, 1).await;
    let other = desk.ask(&hold("publish", r#"{"n":2}"#, 1));
    let [of_other, _] = links(&receiver, 2).await;
    let parts = |path: &str| -> Vec<String> {
        path.strip_prefix("/callback/").unwrap().split('.').map(str::to_owned).collect()
    };
    let (own, others) = (parts(&grant), parts(&of_other));
    assert_eq!(own.len(), 6, "{own:?}");
    let mut forged = Vec::new();
    for at in 0..own.len() {
        for instead in [others[at].clone(), String::new(), format!("{}0", own[at])] {
            let mut changed = own.clone();
            changed[at] = instead;
            if changed != own {
                forged.push(changed);
            }
        }
        let mut less = own.clone();
        less.remove(at);
        forged.push(less);
        let mut more = own.clone();
        more.insert(at, own[at].clone());
        forged.push(more);
        let mut upper = own.clone();
        upper[at] = own[at].to_uppercase();
        if upper != own {
            forged.push(upper);
        }
    }
    // The other answer, a later end.
    for (at, instead) in [(0, "refuse".to_owned()), (1, format!("9{}", own[1]))] {
        let mut changed = own.clone();
        changed[at] = instead;
        forged.push(changed);
    }
    let mut mac = own.clone();
    mac[5] = parts(&refuse)[5].clone();
    forged.push(mac);
    let mut tried = 0;
    for parts in &forged {
        let path = format!("/callback/{}", parts.join("."));
        for reply in [desk.look(&path).await, desk.follow(&path).await] {
            assert!(matches!(reply.status, 404 | 429), "{path}: {}", reply.text());
            tried += 1;
        }
    }
    for path in ["/callback/", "/callback/.....", "/callback/x", "/callback/%2e"] {
        assert!(matches!(desk.follow(path).await.status, 404 | 429), "{path}");
        tried += 1;
    }
    assert_eq!((one.state(), other.state()), (HoldState::Pending, HoldState::Pending));
    let records = desk.sink.kept().clone();
    assert_eq!(records.len(), tried, "each attempt is recorded");
    assert!(records.iter().all(|record| record.event == Event::Denial));
    let kept = desk.sink.lines().concat();
    assert!(!kept.contains(&own[5]), "no link is in a record");
    // After as many failures a right link is taken all the same.
    assert_eq!(desk.follow(&grant).await.status, 200);
}

#[tokio::test]
async fn a_link_of_another_key_or_of_an_earlier_configuration_is_worth_nothing() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let [grant, refuse] = links(&receiver, 1).await;
    for setup in [
        Setup { keys: &[OTHER_KEY], ..Setup::default() },
        Setup { groups: &["on-call", "leads"], ..Setup::default() },
        Setup { groups: &["on-call-"], ..Setup::default() },
        Setup { groups: &[], ..Setup::default() },
        Setup { approver: Some("cha"), ..Setup::default() },
        Setup { approver: None, ..Setup::default() },
    ] {
        let quiet = Receiver::start(&[]);
        let now = Desk::over(&quiet, &setup, Arc::default(), Some(&desk));
        for path in [&grant, &refuse] {
            assert_eq!(now.look(path).await.status, 404);
            assert_eq!(now.follow(path).await.status, 404);
        }
    }
    assert_eq!(waiter.state(), HoldState::Pending);
    // Another instance, which has a newer key as well, while keys are exchanged.
    let newer = Setup { keys: &[OTHER_KEY, KEY], ..Setup::default() };
    let quiet = Receiver::start(&[]);
    let other = Desk::over(&quiet, &newer, Arc::default(), Some(&desk));
    assert_eq!(other.look(&refuse).await.status, 200);
    let [newest, _] = links(&quiet, 1).await;
    assert_eq!(desk.look(&newest).await.status, 404);
    let same = Desk::over(&receiver, &Setup::default(), Arc::default(), Some(&desk));
    assert_eq!(same.follow(&grant).await.status, 200, "a restart changes nothing");
}

#[tokio::test]
async fn a_link_ends_with_its_time() {
    let receiver = Receiver::start(&[]);
    let setup = Setup { lasts: Duration::from_millis(1500), ..Setup::default() };
    let desk = Desk::open(&receiver, &setup);
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let [grant, refuse] = links(&receiver, 1).await;
    let mut over = desk.look(&grant).await;
    for _ in 0..500 {
        if over.status != 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        over = desk.look(&grant).await;
    }
    assert_eq!(over.status, 410, "{}", over.text());
    assert!(over.text().contains("Nothing was done: the time of this link is over"));
    for path in [&grant, &refuse] {
        assert_eq!(desk.follow(path).await.status, 410);
    }
    assert_eq!((waiter.state(), desk.answers()), (HoldState::Pending, vec![]));
}

#[tokio::test]
async fn a_link_ends_with_the_held_call() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let cancelled = desk.ask(&hold("publish", r#"{"n":1}"#, 1));
    let id = cancelled.id().to_string();
    let [grant, refuse] = links(&receiver, 1).await;
    cancelled.cancel(desk.shared.now());
    for path in [&grant, &refuse] {
        for reply in [desk.look(path).await, desk.follow(path).await] {
            assert_eq!(reply.status, 409, "{}", reply.text());
            assert!(reply.text().contains("Nothing was done: the call was cancelled"));
        }
    }
    assert_eq!(desk.approvals.get(&id).unwrap().state, HoldState::Cancelled);
}

/// No link is made for a call that the webhook's approver may not answer: another group's, that of
/// a principal of the same name, and one that it has granted already. A quorum counts it once.
#[tokio::test]
async fn the_approver_of_a_webhook_is_one_approver_with_its_groups() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup { person: true, ..Setup::default() });
    let waiter = desk.ask(&hold("publish", "{}", 2));
    let [grant, _] = links(&receiver, 1).await;
    let done = desk.follow(&grant).await;
    assert!(done.text().contains("1 of 2 approvers have granted it"), "{}", done.text());
    for reply in [desk.look(&grant).await, desk.follow(&grant).await] {
        assert_eq!(reply.status, 409);
        assert!(reply.text().contains("this approver has granted it already"), "{}", reply.text());
    }
    assert_eq!(waiter.state(), HoldState::Pending);
    let (view, now) = (desk.view(&waiter), desk.shared.now());
    desk.approvals.grant(&view.id, &view.digest, &alice(), "r", None, now).unwrap();
    assert_eq!(waiter.state(), HoldState::Granted);

    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup { groups: &[], ..Setup::default() });
    desk.ask(&hold("of-a-group", "{}", 1));
    let told = receiver.request(1).await.json();
    assert_eq!(told["data"]["links"]["grant"], Value::Null, "it is in no group");
    assert_eq!(told["data"]["links"]["refuse"], Value::Null);

    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup { approver: Some("AGENT"), ..Setup::default() });
    desk.ask(&hold("publish", "{}", 1));
    let told = receiver.request(1).await.json();
    assert_eq!(told["data"]["links"]["grant"], Value::Null, "it is who asks");
}

/// Several people must grant the call, and nobody knows who of a channel follows a link: it could be one
/// who has granted it already. So no link is made, and one from before a rule or the configuration changed
/// grants nothing.
#[tokio::test]
async fn a_link_of_a_channel_is_no_second_person() {
    let receiver = Receiver::start(&[]);
    let channel = Desk::open(&receiver, &Setup::default());
    let waiter = channel.ask(&hold("publish", "{}", 2));
    let told = receiver.request(1).await.json();
    assert_eq!(told["data"]["links"]["grant"], Value::Null);
    assert!(told["data"]["links"]["console"].is_string());

    // The same approver was one person when the link was made.
    let setup = Setup { person: true, ..Setup::default() };
    let elsewhere = Receiver::start(&[]);
    let _person = Desk::over(&elsewhere, &setup, Arc::default(), Some(&channel));
    let [grant, refuse] = links(&elsewhere, 1).await;
    for reply in [channel.look(&grant).await, channel.follow(&grant).await] {
        assert_eq!(reply.status, 409);
        assert!(reply.text().contains("several people must grant it"), "{}", reply.text());
    }
    assert_eq!(waiter.state(), HoldState::Pending);
    assert_eq!(channel.follow(&refuse).await.status, 200, "one refusal is enough");
}

/// A form of another site, other media types, no reason, two, one that is blank or too long.
#[tokio::test]
async fn only_the_form_of_the_page_is_an_answer() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let [grant, _] = links(&receiver, 1).await;
    let line = format!("POST {grant}");
    let long = format!("reason={}", "x".repeat(1025));
    let huge = format!("reason={}", "x".repeat(20 << 10));
    for (headers, body, status) in [
        ("", "reason=r", 400),
        ("Content-Type: text/plain\r\n", "reason=r", 400),
        ("Content-Type: application/json\r\n", r#"{"reason":"r"}"#, 400),
        (FORM, "", 400),
        (FORM, "reason=", 400),
        (FORM, "reason=+%20", 400),
        (FORM, "reason=a&reason=b", 400),
        (FORM, "reason=%ff", 400),
        (FORM, "raison=r", 400),
        (FORM, &long, 413),
        (FORM, &huge, 413),
        (&format!("{FORM}Sec-Fetch-Site: cross-site\r\n"), "reason=r", 403),
        (&format!("{FORM}Sec-Fetch-Site: same-site\r\n"), "reason=r", 403),
        (&format!("{FORM}{FORM}"), "reason=r", 400),
    ] {
        let reply = desk.send(&line, headers, body).await;
        assert_eq!(reply.status, status, "{headers} {body:.40}: {}", reply.text());
        assert_eq!(waiter.state(), HoldState::Pending, "{headers} {body:.40}");
    }
    let own = format!("{FORM}Sec-Fetch-Site: same-origin\r\nOrigin: null\r\n");
    assert_eq!(desk.send(&line, &own, "reason=r").await.status, 200);
}

#[tokio::test]
async fn an_answer_that_cannot_be_recorded_does_not_count() {
    let receiver = Receiver::start(&[]);
    let sink = Arc::new(Sink::refusing());
    let desk = Desk::over(&receiver, &Setup::default(), sink, None);
    let waiter = desk.ask(&hold("publish", "{}", 1));
    for path in links(&receiver, 1).await {
        assert_eq!(desk.follow(&path).await.status, 503);
    }
    assert_eq!(waiter.state(), HoldState::Pending);
}

/// What agents write is text on the page, and the page may run and load nothing.
#[tokio::test]
async fn the_page_of_a_link_shows_everything_and_runs_nothing() {
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let mut evil = evil();
    evil.message = "\"><img src=x onerror=alert(1)>'".into();
    desk.ask(&evil.keyed());
    let [grant, refuse] = links(&receiver, 1).await;
    for page in [
        desk.look(&grant).await,
        desk.send(&format!("POST {refuse}"), FORM, "reason=%3Cscript%3E").await,
        desk.look(&grant).await,
    ] {
        let text = page.text();
        let ours = [
            "!doctype", "html", "head", "meta", "title", "link", "body", "header", "h1", "span",
            "main", "h2", "h3", "p", "dl", "dt", "dd", "pre", "form", "label", "input", "div",
            "button",
        ];
        for tag in text.split('<').skip(1) {
            let name = tag.trim_start_matches('/').split([' ', '>']).next().unwrap();
            assert!(ours.contains(&name), "{name}: {text}");
        }
        assert!(text.contains("&lt;!channel&gt;") && !text.contains("onerror=alert(1)>"), "{text}");
        assert!(!text.contains(['\u{202e}', '\u{200b}']), "{text}");
        assert_eq!(page.header("content-type"), ["text/html; charset=utf-8"]);
        let policy = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";
        assert_eq!(page.header("content-security-policy"), [policy]);
        assert_eq!(page.header("x-frame-options"), ["DENY"]);
        assert_eq!(page.header("referrer-policy"), ["no-referrer"]);
        assert_eq!(page.header("cache-control"), ["no-store"]);
        assert_eq!(page.header("x-content-type-options"), ["nosniff"]);
    }
    // Nothing is cut here, however long it is.
    let receiver = Receiver::start(&[]);
    let desk = Desk::open(&receiver, &Setup::default());
    let long = format!(r#"{{"arguments":{{"a":"{}","z":"the end"}}}}"#, "x".repeat(100_000));
    desk.ask(&hold("publish", &long, 1));
    let [grant, _] = links(&receiver, 1).await;
    assert!(desk.look(&grant).await.text().contains("the end"));
}
