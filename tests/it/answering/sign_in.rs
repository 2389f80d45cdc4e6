//! Approvers who sign in at an issuer: that the session is of the person whom the issuer names, in the
//! browser that asked, and that nothing less than all of it is worth anything.
//!
//! The issuer is one of the tests: keys and signatures are real, and its answers are what a test wants.
//! The browser is the test itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bartizan_approvals::HoldState;
use bartizan_edge::admin::sign_in::{
    ClientConfig, People, SESSIONS_OF_ONE_MAX, SignIn, SignInConfig,
};
use bartizan_edge::oauth::PublicUrl;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::firewall::{
    Received, RecordingUpstream, answer as http_answer, json as http_json,
};
use super::super::http_edge::rig::Reply;
use super::super::oauth::issuer::{Signer, now, set};
use super::{ALICE, Desk, answer, error, hold, read, state};

const CLIENT: &str = "bartizan-console";
const SECRET: &str = "s3cret/of+this:client";
/// Where the page is; the requests of [`Desk`] name this host.
const PAGE: &str = "http://desk:1";
const SESSION: &str = "bartizan-session";
const ATTEMPT: &str = "bartizan-sign-in";

/// What an issuer was asked to grant, by its code.
#[derive(Debug, Clone)]
struct Grant {
    challenge: String,
    redirect_uri: String,
    token: String,
}

/// An issuer, which says what a test wants.
struct Issuer {
    server: RecordingUpstream,
    signer: Signer,
    grants: Arc<Mutex<HashMap<String, Grant>>>,
    /// Members of the metadata that differ; `null` removes one.
    metadata: Arc<Mutex<Value>>,
    /// Whether a code can be used more than once.
    forgetful: Arc<Mutex<bool>>,
}

impl Issuer {
    fn start() -> Self {
        let signer = Signer::ec();
        let keys = set(&[signer.jwk("one")]);
        let grants: Arc<Mutex<HashMap<String, Grant>>> = Arc::default();
        let metadata = Arc::new(Mutex::new(json!({})));
        let forgetful = Arc::new(Mutex::new(false));
        let (own, said, lax) = (Arc::clone(&grants), Arc::clone(&metadata), Arc::clone(&forgetful));
        let server = RecordingUpstream::start(Box::new(move |request| {
            let host = request.header("host")[0].to_owned();
            let line = request.head.lines().next().unwrap().to_owned();
            match line.split(' ').nth(1).unwrap() {
                "/.well-known/openid-configuration" => {
                    http_json(metadata_of(&host, &said.lock().unwrap()).to_string().as_bytes())
                }
                "/keys" => http_json(keys.as_bytes()),
                "/token" => token(request, &mut own.lock().unwrap(), *lax.lock().unwrap()),
                _ => http_answer("404 Not Found", "", b""),
            }
        }));
        Self { server, signer, grants, metadata, forgetful }
    }

    fn url(&self) -> String {
        self.server.url().strip_suffix("/mcp").unwrap().to_owned()
    }

    /// The person consents: the query with which the browser comes back. The ID token has `changes`.
    fn consents(&self, location: &str, changes: &Value) -> String {
        let nonce = field(location, "nonce");
        let claims = self.claims(&nonce, changes);
        let token = self.signer.token(r#"{"alg":"ES256","kid":"one","typ":"JWT"}"#, &claims);
        self.grants(location, token)
    }

    /// As [`Self::consents`], with this ID token.
    fn grants(&self, location: &str, token: String) -> String {
        let mut grants = self.grants.lock().unwrap();
        let code = format!("code-{}", grants.len());
        let grant = Grant {
            challenge: field(location, "code_challenge"),
            redirect_uri: field(location, "redirect_uri"),
            token,
        };
        grants.insert(code.clone(), grant);
        format!("code={code}&state={}&iss={}", field(location, "state"), self.url())
    }

    fn claims(&self, nonce: &str, changes: &Value) -> String {
        let mut claims = json!({
            "iss": self.url(),
            "sub": "u-1",
            "aud": CLIENT,
            "exp": now(300),
            "iat": now(0),
            "nonce": nonce,
            "email": "Ann@example.com",
            "groups": ["staff", "sre-on-call"],
        });
        put(&mut claims, changes);
        claims.to_string()
    }

    /// What reached the token endpoint.
    fn exchanges(&self) -> Vec<Received> {
        let all = self.server.received();
        all.into_iter().filter(|it| it.head.starts_with("post /token ")).collect()
    }

    fn sign_in(&self, change: impl FnOnce(&mut SignInConfig)) -> SignIn {
        let mut config = SignInConfig {
            client: ClientConfig {
                issuer: self.url().into(),
                client_id: CLIENT.into(),
                client_secret: Some(SECRET.into()),
                ca_pem: None,
            },
            name: "corp".into(),
            public_url: PublicUrl::parse(PAGE).unwrap(),
            scopes: vec!["groups".into()],
            people: People {
                prefix: "corp".into(),
                id_claim: "sub".into(),
                principal_claims: Vec::new(),
                groups_claim: "groups".into(),
                groups: vec![
                    ("on-call".into(), vec!["sre-on-call".into()]),
                    ("leads".into(), vec!["heads".into(), "chiefs".into()]),
                ],
            },
            idle: Duration::from_mins(30),
            lifetime: Duration::from_hours(8),
        };
        change(&mut config);
        SignIn::new(config).unwrap()
    }

    fn desk(&self) -> Desk {
        self.desk_with(|_| ())
    }

    fn desk_with(&self, change: impl FnOnce(&mut SignInConfig)) -> Desk {
        Desk::made(Arc::default(), |api| api.with_sign_in(self.sign_in(change)))
    }
}

fn metadata_of(host: &str, changes: &Value) -> Value {
    let issuer = format!("http://{host}");
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/authorize?tenant=1"),
        "token_endpoint": format!("{issuer}/token"),
        "jwks_uri": format!("{issuer}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    });
    put(&mut metadata, changes);
    metadata
}

fn put(into: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            into[name] = value.clone();
        }
    }
}

/// The token endpoint: a code for its verifier and address, once.
fn token(request: &Received, grants: &mut HashMap<String, Grant>, forgetful: bool) -> Vec<u8> {
    let body = format!("?{}", String::from_utf8_lossy(&request.body));
    let code = field(&body, "code");
    let found = if forgetful { grants.get(&code).cloned() } else { grants.remove(&code) };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(field(&body, "code_verifier")));
    match found {
        Some(grant)
            if grant.challenge == challenge
                && grant.redirect_uri == field(&body, "redirect_uri")
                && field(&body, "grant_type") == "authorization_code" =>
        {
            let said =
                json!({"access_token": "a", "token_type": "Bearer", "id_token": grant.token});
            http_json(said.to_string().as_bytes())
        }
        _ => {
            let headers = "Content-Type: application/json\r\n";
            http_answer("400 Bad Request", headers, br#"{"error":"invalid_grant"}"#)
        }
    }
}

/// The field `name` of the query of `url`; empty if there is none.
fn field(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| value).unwrap_or_default();
    let mut parts = value.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

/// A browser: its cookies, and the key that its page has.
#[derive(Debug, Clone, Default)]
struct Browser {
    cookies: HashMap<String, String>,
    key: String,
}

impl Browser {
    /// Keeps the cookies of `reply`.
    fn keep(&mut self, reply: &Reply) {
        for cookie in reply.header("set-cookie") {
            let (name, rest) = cookie.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
            self.cookies.retain(|_, value| !value.is_empty());
        }
    }

    fn cookie_line(&self) -> String {
        let pairs: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { String::new() } else { format!("Cookie: {}\r\n", pairs.join("; ")) }
    }

    /// Begins a sign-in; where the browser is sent.
    async fn begin(&mut self, desk: &Desk) -> String {
        let reply = desk.send("GET /console/sign-in", &self.cookie_line(), "").await;
        assert_eq!(reply.status, 303, "{reply:?}");
        self.keep(&reply);
        reply.header("location")[0].to_owned()
    }

    /// Comes back with `query`; what the page is told.
    async fn come_back(&mut self, desk: &Desk, query: &str) -> String {
        let line = format!("GET /console/callback?{query}");
        let reply = desk.send(&line, &self.cookie_line(), "").await;
        assert_eq!(reply.status, 303, "{reply:?}");
        self.keep(&reply);
        let location = reply.header("location")[0];
        let told = location.strip_prefix("http://desk:1/console#").unwrap_or(location).to_owned();
        if let Some(key) = told.strip_prefix("signed-in=") {
            key.clone_into(&mut self.key);
        } else {
            let opened =
                reply.header("set-cookie").iter().any(|it| it.contains("bartizan-session"));
            assert!(!opened, "{reply:?}");
        }
        told
    }

    /// Signs in with `changes` in the ID token; what the page is told.
    async fn sign_in(&mut self, desk: &Desk, issuer: &Issuer, changes: &Value) -> String {
        let location = self.begin(desk).await;
        let query = issuer.consents(&location, changes);
        self.come_back(desk, &query).await
    }

    async fn signed_in(desk: &Desk, issuer: &Issuer, changes: &Value) -> Self {
        let mut browser = Self::default();
        let told = browser.sign_in(desk, issuer, changes).await;
        assert!(told.starts_with("signed-in="), "{told}");
        browser
    }

    /// The headers that the page sends with what changes something.
    fn own(&self) -> String {
        format!("{}X-Bartizan-Session: {}\r\nOrigin: {PAGE}\r\n", self.cookie_line(), self.key)
    }

    async fn post(&self, desk: &Desk, path: &str, body: &Value) -> Reply {
        let headers = format!("{}Content-Type: application/json\r\n", self.own());
        desk.send(&format!("POST {path}"), &headers, &body.to_string()).await
    }

    /// Who is signed in; the status if nobody is.
    async fn who(&self, desk: &Desk) -> Result<Value, u16> {
        let reply = desk.send("GET /console/session", &self.own(), "").await;
        if reply.status == 200 { Ok(read(&reply)) } else { Err(reply.status) }
    }
}

/// How the issuer names itself in its answers to what was asked by `location`.
fn named(issuer: &Issuer, location: &str) -> String {
    let query = issuer.consents(location, &json!({}));
    query.split('&').find(|pair| pair.starts_with("iss=")).unwrap().to_owned()
}

/// The notes of the journal about sign-ins.
fn notes(desk: &Desk) -> Vec<String> {
    let records = desk.records();
    let notes = records.iter().filter_map(|it| it.note.as_ref().map(ToString::to_string));
    notes
        .filter_map(|it| it.split_once("approver on `admin`: ").map(|(_, why)| why.to_owned()))
        .collect()
}

#[tokio::test]
async fn a_person_signs_in_grants_a_held_call_and_signs_out() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let offered = read(&desk.send("GET /console/options", "", "").await);
    assert_eq!(offered["sign_in"], json!({"name": "corp", "url": "http://desk:1/console/sign-in"}));

    let mut browser = Browser::default();
    let reply = desk.send("GET /console/sign-in", "", "").await;
    let location = reply.header("location")[0].to_owned();
    assert!(location.starts_with(&format!("{}/authorize?tenant=1&", issuer.url())), "{location}");
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", "http://desk:1/console/callback"),
        ("scope", "openid groups"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(field(&location, name), value, "{name}");
    }
    let [cookie] = reply.header("set-cookie")[..] else { panic!("{reply:?}") };
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=600"), "{cookie}");
    browser.keep(&reply);
    // The browser has nothing of what the issuer gets, and the other way round.
    let seen = browser.cookies[ATTEMPT].clone();
    for name in ["state", "nonce", "code_challenge"] {
        let value = field(&location, name);
        assert!(value.len() == 43 && !seen.contains(&value), "{name}");
    }

    let query = issuer.consents(&location, &json!({}));
    let reply =
        desk.send(&format!("GET /console/callback?{query}"), &browser.cookie_line(), "").await;
    let cookies = reply.header("set-cookie");
    let session = cookies.iter().find(|it| it.starts_with("bartizan-session=")).unwrap();
    assert!(session.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{session}");
    assert!(
        cookies.iter().any(|it| it.starts_with("bartizan-sign-in=;") && it.contains("Max-Age=0"))
    );
    browser.keep(&reply);
    let key = reply.header("location")[0].strip_prefix("http://desk:1/console#signed-in=").unwrap();
    key.clone_into(&mut browser.key);
    assert!(!browser.cookies.contains_key(ATTEMPT));
    let who = browser.who(&desk).await.unwrap();
    assert_eq!(who, json!({"id": "corp:u-1", "groups": ["on-call"]}));
    let [exchange] = &issuer.exchanges()[..] else { panic!("one exchange") };
    let expected = STANDARD.encode(format!("{CLIENT}:s3cret%2Fof%2Bthis%3Aclient"));
    assert_eq!(exchange.header("authorization"), [format!("basic {expected}").to_lowercase()]);
    let body = String::from_utf8_lossy(&exchange.body).into_owned();
    assert!(!body.contains("s3cret"), "{body}");

    let mut waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let shown = read(&desk.send(&format!("GET /approvals/{id}"), &browser.own(), "").await);
    let body = json!({"digest": shown["approval"]["digest"], "reason": "seen"});
    let granted = browser.post(&desk, &format!("/approvals/{id}/grant"), &body).await;
    assert_eq!(state(&granted), "granted");
    assert_eq!(waiter.decided().await, HoldState::Granted);
    assert_eq!(desk.answers(), [answer("corp:u-1", "grant", None)]);

    let out = browser.post(&desk, "/console/sign-out", &json!({})).await;
    assert_eq!(read(&out), json!({"signed_out": true}));
    assert!(out.header("set-cookie")[0].starts_with("bartizan-session=; "), "{out:?}");
    assert_eq!(browser.who(&desk).await, Err(401), "the cookie that a thief has kept");
    assert_eq!(notes(&desk), [""; 0]);
}

/// Groups that the rule does not ask for may look, as with a token.
#[tokio::test]
async fn groups_come_from_the_claim_and_nothing_else() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let waiter = desk.ask(&hold("publish", "{}", 1));
    let id = waiter.id().to_string();
    let digest = desk.digest(&id).await;
    let lead = Browser::signed_in(&desk, &issuer, &json!({"groups": "chiefs"})).await;
    assert_eq!(lead.who(&desk).await.unwrap()["groups"], json!(["leads"]));
    let body = json!({"digest": digest, "reason": "r"});
    let reply = lead.post(&desk, &format!("/approvals/{id}/grant"), &body).await;
    assert_eq!(error(&reply), (403, "not-allowed".to_owned()));
    assert_eq!(waiter.state(), HoldState::Pending);
    for groups in [
        json!(null),
        json!([]),
        json!(["staff"]),
        // What the group is called here is no value of the claim.
        json!(["on-call"]),
        json!(["SRE-on-call"]),
        json!(["sre-on-call "]),
        json!("staff sre-on-call"),
        json!([["sre-on-call"]]),
        json!({"sre-on-call": true}),
        json!(["sre-on-call", 1]),
        json!(7),
    ] {
        let (desk, mut browser) = (issuer.desk(), Browser::default());
        let told = browser.sign_in(&desk, &issuer, &json!({"groups": groups})).await;
        assert!(matches!(&*told, "failed=no-group" | "failed=refused"), "{groups}: {told}");
        assert_eq!(browser.who(&desk).await, Err(401), "{groups}");
    }
}

/// Each row differs from a good ID token in one thing.
#[tokio::test]
async fn an_id_token_that_is_not_good_signs_nobody_in() {
    let issuer = Issuer::start();
    for (changes, why) in [
        (json!({"nonce": "other"}), "is no answer to this sign-in"),
        (json!({"nonce": null}), "is no answer to this sign-in"),
        (json!({"nonce": ["x"]}), "is no answer to this sign-in"),
        (json!({"iss": "https://evil.example"}), "is of another issuer"),
        (json!({"iss": format!("{}/", issuer.url())}), "is of another issuer"),
        (json!({"iss": null}), "is of another issuer"),
        (json!({"aud": "other"}), "is for another audience"),
        (json!({"aud": null}), "is for another audience"),
        (json!({"aud": [CLIENT, "other"]}), "is for another client"),
        (json!({"aud": [CLIENT, 1]}), "is for another client"),
        (json!({"azp": "other"}), "was issued to another client"),
        (json!({"azp": 1}), "was issued to another client"),
        (json!({"exp": now(-120)}), "is expired"),
        (json!({"exp": null}), "no readable expiry"),
        (json!({"nbf": now(600)}), "is not valid yet"),
        (json!({"iat": null}), "was made just now"),
        (json!({"iat": "0"}), "was made just now"),
        (json!({"iat": now(-900)}), "was made just now"),
        (json!({"iat": now(600)}), "was made just now"),
        (json!({"sub": null}), "does not name a person"),
        (json!({"sub": ""}), "does not name a person"),
        (json!({"sub": 7}), "does not name a person"),
        (json!({"sub": "ann\u{202e}"}), "does not name a person"),
        (json!({"sub": "x".repeat(125)}), "does not name a person"),
        (json!({"cnf": {"jkt": "x"}}), "is bound to a key"),
    ] {
        // Of its own, because failures are limited.
        let (desk, mut browser) = (issuer.desk(), Browser::default());
        let told = browser.sign_in(&desk, &issuer, &changes).await;
        assert_eq!(told, "failed=refused", "{changes}");
        assert!(notes(&desk).pop().unwrap().contains(why), "{changes}: {:?}", notes(&desk).pop());
        assert_eq!(browser.who(&desk).await, Err(401), "{changes}");
    }
    let (desk, mut browser) = (issuer.desk(), Browser::default());
    let told = browser.sign_in(&desk, &issuer, &json!({"aud": [CLIENT], "azp": CLIENT})).await;
    assert!(told.starts_with("signed-in="), "{told}");
}

#[tokio::test]
async fn a_signature_that_the_issuer_did_not_make_signs_nobody_in() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let stranger = Signer::ec();
    let mut browser = Browser::default();
    for case in 0..8 {
        let location = browser.begin(&desk).await;
        let claims = issuer.claims(&field(&location, "nonce"), &json!({}));
        let own = |header: &str| issuer.signer.token(header, &claims);
        let good = own(r#"{"alg":"ES256","kid":"one"}"#);
        let (signed, _) = good.rsplit_once('.').unwrap();
        let (token, why) = match case {
            0 => (stranger.token(r#"{"alg":"ES256","kid":"one"}"#, &claims), "signature"),
            1 => (
                format!(
                    "{}.{}.",
                    URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
                    URL_SAFE_NO_PAD.encode(&claims)
                ),
                "algorithm",
            ),
            2 => (format!("{signed}."), "signature"),
            3 => (own(r#"{"alg":"HS256","kid":"one"}"#), "algorithm"),
            4 => (own(r#"{"alg":"ES256","kid":"two"}"#), "does not publish"),
            5 => (own(r#"{"alg":"ES256","kid":"one","typ":"at+jwt"}"#), "an access token"),
            6 => (own(r#"{"alg":"ES256","kid":"one","crit":["x"]}"#), "critical"),
            _ => ("not.a.token".to_owned(), "no signed JWT"),
        };
        let query = issuer.grants(&location, token);
        assert_eq!(browser.come_back(&desk, &query).await, "failed=refused", "{case}");
        assert!(notes(&desk).pop().unwrap().contains(why), "{case}: {:?}", notes(&desk).pop());
    }
    assert_eq!(browser.who(&desk).await, Err(401));
}

/// Somebody else's answer, in this browser or another one; no answer at all; an answer that came before.
#[tokio::test]
async fn an_answer_is_taken_once_and_in_the_browser_that_asked() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let (mut victim, mut attacker) = (Browser::default(), Browser::default());
    let asked = attacker.begin(&desk).await;
    let query = issuer.consents(&asked, &json!({}));
    // Login CSRF: the attacker's answer in a browser that asked nothing, and in one that asked.
    assert_eq!(victim.come_back(&desk, &query).await, "failed=not-begun");
    let own = victim.begin(&desk).await;
    assert_eq!(victim.come_back(&desk, &query).await, "failed=refused");
    assert!(notes(&desk).pop().unwrap().contains("begun in another browser"));
    // The victim's state with the attacker's code, and the attacker's session cookie planted: the issuer
    // binds the code to the challenge, and the cookie is not adopted.
    let mixed = query.replace(&field(&asked, "state"), &field(&own, "state"));
    assert_eq!(victim.come_back(&desk, &mixed).await, "failed=refused");
    for state in ["", "x", &field(&asked, "nonce")] {
        let wrong = query.replace(&field(&asked, "state"), state);
        assert_eq!(attacker.come_back(&desk, &wrong).await, "failed=refused", "{state}");
    }
    let state = field(&asked, "state");
    assert_eq!(
        attacker.come_back(&desk, &format!("{query}&state={state}")).await,
        "failed=refused",
        "a field that is there twice"
    );
    let exchanged = issuer.exchanges().len();
    assert_eq!(exchanged, 1, "only an answer with the browser's own state is exchanged");

    let asked = attacker.begin(&desk).await;
    let query = issuer.consents(&asked, &json!({}));
    let thief = attacker.clone();
    assert!(attacker.come_back(&desk, &query).await.starts_with("signed-in="));
    assert_eq!(attacker.come_back(&desk, &query).await, "failed=not-begun");
    assert_eq!(
        thief.clone().come_back(&desk, &query).await,
        "failed=refused",
        "a code is used once"
    );
    // An issuer that takes a code twice makes no second session of it.
    *issuer.forgetful.lock().unwrap() = true;
    let asked = attacker.begin(&desk).await;
    let query = issuer.consents(&asked, &json!({}));
    let mut thief = attacker.clone();
    assert!(attacker.come_back(&desk, &query).await.starts_with("signed-in="));
    assert_eq!(thief.come_back(&desk, &query).await, "failed=refused");
    assert!(notes(&desk).pop().unwrap().contains("succeeded before"));
}

/// RFC 9207: an answer names its issuer, and one of another issuer is not exchanged.
#[tokio::test]
async fn an_answer_of_another_issuer_is_not_exchanged() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let mut browser = Browser::default();
    for (from, to) in [
        (format!("&iss={}", issuer.url()), "&iss=https://evil.example".to_owned()),
        (format!("&iss={}", issuer.url()), format!("&iss={}/", issuer.url())),
        (format!("&iss={}", issuer.url()), String::new()),
    ] {
        let asked = browser.begin(&desk).await;
        let query = issuer.consents(&asked, &json!({})).replace(&from, &to);
        assert_eq!(browser.come_back(&desk, &query).await, "failed=refused", "{to}");
        assert!(notes(&desk).pop().unwrap().contains("of another issuer"));
    }
    let asked = browser.begin(&desk).await;
    let state = field(&asked, "state");
    let denied = format!("error=access_denied&state={state}&iss={}", issuer.url());
    assert_eq!(browser.come_back(&desk, &denied).await, "failed=denied");
    let empty = format!("state={state}&iss={}", issuer.url());
    assert_eq!(browser.come_back(&desk, &empty).await, "failed=refused");
    assert!(issuer.exchanges().is_empty());

    // One that does not promise to name itself need not, but what it says must be right.
    let plain = Issuer::start();
    *plain.metadata.lock().unwrap() =
        json!({"authorization_response_iss_parameter_supported": null});
    let desk = plain.desk();
    let asked = browser.begin(&desk).await;
    let query = plain.consents(&asked, &json!({}));
    let wrong = query.replace(&plain.url(), "https://evil.example");
    assert_eq!(browser.come_back(&desk, &wrong).await, "failed=refused");
    let silent = query.replace(&format!("&iss={}", plain.url()), "");
    assert!(browser.come_back(&desk, &silent).await.starts_with("signed-in="));
}

/// What a page of another site sends, and a thief who has one half of a session, or a half of two; each
/// with the answer to it.
fn halves(browser: &Browser, other: &Browser) -> Vec<(String, (u16, &'static str))> {
    let (cookie, key) = (browser.cookie_line(), format!("X-Bartizan-Session: {}\r\n", browser.key));
    let own = format!("Origin: {PAGE}\r\n");
    let token = format!("Authorization: Bearer {ALICE}\r\n");
    let foreign_key = format!("X-Bartizan-Session: {}\r\n", other.key);
    let twice = format!("Cookie: {SESSION}={}\r\n", other.cookies[SESSION]);
    vec![
        (format!("{cookie}{own}"), (401, "no-token")),
        (format!("{key}{own}"), (401, "no-session")),
        (format!("{cookie}{foreign_key}{own}"), (401, "no-session")),
        (format!("{cookie}{twice}{key}{own}"), (401, "no-session")),
        (format!("{cookie}{key}{key}{own}"), (401, "no-session")),
        (format!("{cookie}X-Bartizan-Session: \r\n{own}"), (401, "no-session")),
        (format!("{cookie}{key}"), (403, "other-site")),
        (format!("{cookie}{key}Origin: http://evil.example\r\n"), (403, "other-site")),
        (format!("{cookie}{key}Origin: null\r\n"), (403, "other-site")),
        (format!("{cookie}{key}Origin: https://desk:1\r\n"), (403, "other-site")),
        (format!("{cookie}{key}{own}{own}"), (403, "other-site")),
        (format!("{cookie}{key}{own}Sec-Fetch-Site: cross-site\r\n"), (403, "other-site")),
        (format!("{cookie}{key}{own}Sec-Fetch-Site: same-site\r\n"), (403, "other-site")),
        // Nobody is two approvers at once.
        (format!("{cookie}{key}{own}{token}"), (401, "no-token")),
    ]
}

#[tokio::test]
async fn half_a_session_or_another_origin_is_worth_nothing() {
    let issuer = Issuer::start();
    let json = "Content-Type: application/json\r\n";
    for what in ["grant", "refuse", "sign-out"] {
        let desk = issuer.desk();
        let waiter = desk.ask(&hold("publish", "{}", 1));
        let id = waiter.id().to_string();
        let body = json!({"digest": desk.digest(&id).await, "reason": "r"}).to_string();
        let browser = Browser::signed_in(&desk, &issuer, &json!({})).await;
        let other = Browser::signed_in(&desk, &issuer, &json!({"sub": "u-2"})).await;
        let line = match what {
            "sign-out" => "POST /console/sign-out".to_owned(),
            verdict => format!("POST /approvals/{id}/{verdict}"),
        };
        for (headers, (status, code)) in halves(&browser, &other) {
            let reply = desk.send(&line, &format!("{headers}{json}"), &body).await;
            assert_eq!(error(&reply), (status, code.to_owned()), "{line} {headers}");
            assert!(reply.header("access-control-allow-origin").is_empty());
        }
        assert_eq!((waiter.state(), desk.answers().len()), (HoldState::Pending, 0));
        let whole = format!("{}{json}Sec-Fetch-Site: same-origin\r\n", browser.own());
        let reply = desk.send(&line, &whole, &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let desk = issuer.desk();
    let browser = Browser::signed_in(&desk, &issuer, &json!({})).await;
    let other = Browser::signed_in(&desk, &issuer, &json!({"sub": "u-2"})).await;
    let key = |of: &Browser| format!("X-Bartizan-Session: {}\r\n", of.key);
    for headers in
        [browser.cookie_line(), key(&browser), format!("{}{}", browser.cookie_line(), key(&other))]
    {
        for path in ["/approvals", "/approvals/changes", "/approvals/1", "/console/session"] {
            assert_eq!(desk.send(&format!("GET {path}"), &headers, "").await.status, 401, "{path}");
        }
    }
    assert_eq!(browser.who(&desk).await.unwrap()["id"], "corp:u-1");
}

/// A cookie that was there before the sign-in is not adopted, and ending one session ends no other.
#[tokio::test]
async fn each_sign_in_has_a_session_of_its_own_and_they_are_bounded() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let mut browser = Browser::default();
    let planted = "A".repeat(43);
    browser.cookies.insert(SESSION.to_owned(), planted.clone());
    browser.sign_in(&desk, &issuer, &json!({})).await;
    assert_ne!(browser.cookies[SESSION], planted);
    let mut thief = browser.clone();
    thief.cookies.insert(SESSION.to_owned(), planted);
    assert_eq!(thief.who(&desk).await, Err(401));
    let before = browser.clone();
    browser.sign_in(&desk, &issuer, &json!({})).await;
    assert!(before.cookies[SESSION] != browser.cookies[SESSION] && before.key != browser.key);

    let other = Browser::signed_in(&desk, &issuer, &json!({"sub": "u-2"})).await;
    let mut all = vec![before, browser];
    for _ in 0..SESSIONS_OF_ONE_MAX {
        all.push(Browser::signed_in(&desk, &issuer, &json!({})).await);
    }
    let mut live = Vec::new();
    for browser in &all {
        live.push(browser.who(&desk).await.is_ok());
    }
    assert_eq!(live[..2], [false, false], "the oldest gave way");
    assert_eq!(live.iter().filter(|it| **it).count(), SESSIONS_OF_ONE_MAX);
    let last = all.pop().unwrap();
    last.post(&desk, "/console/sign-out", &json!({})).await;
    assert_eq!(last.who(&desk).await, Err(401));
    assert!(all.pop().unwrap().who(&desk).await.is_ok());
    assert_eq!(other.who(&desk).await.unwrap()["id"], "corp:u-2");
}

#[tokio::test]
async fn a_session_ends_when_its_time_is_over() {
    let issuer = Issuer::start();
    for (idle, lifetime) in [(Duration::ZERO, Duration::MAX), (Duration::MAX, Duration::ZERO)] {
        let desk = issuer.desk_with(|config| (config.idle, config.lifetime) = (idle, lifetime));
        let browser = Browser::signed_in(&desk, &issuer, &json!({})).await;
        assert_eq!(browser.who(&desk).await, Err(401));
    }
}

/// The person who asks is known by other names where he approves: threat I3.
#[tokio::test]
async fn who_asks_is_no_approver_under_another_name() {
    let issuer = Issuer::start();
    let desk = issuer.desk_with(|config| {
        config.people.principal_claims = vec!["email".into(), "/act/as".into()];
    });
    let named = |principal: &str, tool: &str| {
        let mut hold = hold(tool, "{}", 1);
        hold.principal = principal.into();
        hold.keyed()
    };
    let claims = json!({"email": "Ann@example.com", "act": {"as": "svc-ann"}});
    let browser = Browser::signed_in(&desk, &issuer, &claims).await;
    let issuer_and = |name: &str| format!("{}#{name}", issuer.url());
    for (number, principal) in [
        "u-1".to_owned(),
        "U-1".into(),
        "ann@example.com".into(),
        "svc-ann".into(),
        "corp:u-1".into(),
        issuer_and("u-1"),
        issuer_and("ann@EXAMPLE.com"),
    ]
    .into_iter()
    .enumerate()
    {
        let waiter = desk.ask(&named(&principal, &format!("tool-{number}")));
        let id = waiter.id().to_string();
        let body = json!({"digest": desk.digest(&id).await, "reason": "r"});
        for verdict in ["grant", "refuse"] {
            let reply = browser.post(&desk, &format!("/approvals/{id}/{verdict}"), &body).await;
            assert_eq!(error(&reply), (403, "not-allowed".to_owned()), "{principal}");
        }
        assert_eq!(waiter.state(), HoldState::Pending, "{principal}");
    }
    assert!(desk.answers().iter().all(|(by, _, error)| by == "corp:u-1" && error.is_some()));
    let waiter = desk.ask(&named("u-2", "tool"));
    let id = waiter.id().to_string();
    let body = json!({"digest": desk.digest(&id).await, "reason": "r"});
    let reply = browser.post(&desk, &format!("/approvals/{id}/grant"), &body).await;
    assert_eq!(state(&reply), "granted");
    // Nobody whose other names are not known signs in.
    let mut nameless = Browser::default();
    for changes in [json!({}), json!({"email": null, "act": {"as": "x"}})] {
        assert_eq!(nameless.sign_in(&desk, &issuer, &changes).await, "failed=refused", "{changes}");
    }
}

/// Tokens work whatever the issuer does, and an issuer that is back is used.
#[tokio::test]
async fn an_issuer_that_cannot_be_used_stops_sign_ins_alone() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    for wrong in [
        json!({"issuer": "https://evil.example"}),
        json!({"token_endpoint": "http://evil.example/token"}),
        json!({"authorization_endpoint": "http://evil.example/authorize"}),
        json!({"authorization_endpoint": "javascript:alert(1)"}),
        json!({"jwks_uri": null}),
        json!({"code_challenge_methods_supported": ["plain"]}),
        json!({"response_types_supported": ["id_token"]}),
        json!({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}),
    ] {
        *issuer.metadata.lock().unwrap() = wrong.clone();
        let desk = issuer.desk();
        let reply = desk.send("GET /console/sign-in", "", "").await;
        assert_eq!(
            reply.header("location"),
            ["http://desk:1/console#failed=unavailable"],
            "{wrong}"
        );
        assert!(reply.header("set-cookie").is_empty());
        assert_eq!(notes(&desk), ["the issuer cannot be used now"]);
        assert_eq!(desk.get("/approvals", ALICE).await.status, 200);
    }
    *issuer.metadata.lock().unwrap() = json!({});
    let mut browser = Browser::default();
    assert!(browser.sign_in(&desk, &issuer, &json!({})).await.starts_with("signed-in="));

    // Nothing listens there.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let desk = issuer.desk_with(|config| config.client.issuer = format!("http://{gone}").into());
    let reply = desk.send("GET /console/sign-in", "", "").await;
    assert_eq!(reply.header("location"), ["http://desk:1/console#failed=unavailable"]);
    assert_eq!(desk.get("/approvals", ALICE).await.status, 200);
}

#[tokio::test]
async fn the_client_authenticates_as_the_issuer_wants() {
    let issuer = Issuer::start();
    let desk = issuer.desk_with(|config| config.client.client_secret = None);
    Browser::signed_in(&desk, &issuer, &json!({})).await;
    *issuer.metadata.lock().unwrap() =
        json!({"token_endpoint_auth_methods_supported": ["client_secret_post"]});
    let desk = issuer.desk();
    Browser::signed_in(&desk, &issuer, &json!({})).await;
    let [public, post] = &issuer.exchanges()[..] else { panic!("two exchanges") };
    let field_of = |request: &Received, name: &str| {
        field(&format!("?{}", String::from_utf8_lossy(&request.body)), name)
    };
    for exchange in [public, post] {
        assert!(exchange.header("authorization").is_empty());
        assert_eq!(field_of(exchange, "client_id"), CLIENT);
    }
    assert_eq!(
        (field_of(public, "client_secret"), field_of(post, "client_secret").as_str()),
        (String::new(), SECRET)
    );
}

/// Over TLS the cookies are of this host alone.
#[tokio::test]
async fn over_tls_the_cookies_are_secure_and_bound_to_the_host() {
    let issuer = Issuer::start();
    let desk = issuer.desk_with(|config| {
        config.public_url = PublicUrl::parse("https://desk:1/below").unwrap();
    });
    let mut browser = Browser::default();
    let reply = desk.send("GET /console/sign-in", "", "").await;
    let location = reply.header("location")[0].to_owned();
    assert_eq!(field(&location, "redirect_uri"), "https://desk:1/below/console/callback");
    let [cookie] = reply.header("set-cookie")[..] else { panic!("{reply:?}") };
    assert!(cookie.starts_with("__Host-bartizan-sign-in=") && cookie.ends_with("; Secure"));
    browser.keep(&reply);
    let query = issuer.consents(&location, &json!({}));
    let line = format!("GET /console/callback?{query}");
    let reply = desk.send(&line, &browser.cookie_line(), "").await;
    assert!(reply.header("location")[0].starts_with("https://desk:1/below/console#signed-in="));
    for cookie in reply.header("set-cookie") {
        assert!(cookie.starts_with("__Host-bartizan-") && cookie.ends_with("; Secure"), "{cookie}");
        assert!(cookie.contains("; Path=/; ") && !cookie.contains("Domain"), "{cookie}");
    }
}

/// What is no navigation of a browser begins and ends no sign-in; other methods and pages are none.
#[tokio::test]
async fn a_sign_in_is_a_page_of_its_own() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    for dest in ["image", "iframe", "empty", "script", "object"] {
        for path in ["/console/sign-in", "/console/callback?code=c&state=s"] {
            let headers = format!("Sec-Fetch-Dest: {dest}\r\nSec-Fetch-Site: cross-site\r\n");
            let reply = desk.send(&format!("GET {path}"), &headers, "").await;
            assert_eq!(error(&reply), (403, "other-site".to_owned()), "{dest} {path}");
            assert!(reply.header("set-cookie").is_empty());
        }
    }
    let link = "Sec-Fetch-Dest: document\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(desk.send("GET /console/sign-in", link, "").await.status, 303);
    for (line, status) in [
        ("POST /console/sign-in", 405),
        ("POST /console/callback", 405),
        ("GET /console/sign-out", 405),
        ("POST /console/options", 405),
        ("GET /console/sign-in/", 404),
    ] {
        assert_eq!(desk.send(line, "", "").await.status, status, "{line}");
    }
    // Without an issuer there is nothing to sign in at.
    let desk = Desk::open();
    assert_eq!(read(&desk.send("GET /console/options", "", "").await), json!({"sign_in": null}));
    for path in ["/console/sign-in", "/console/callback", "/console/session"] {
        assert_eq!(desk.send(&format!("GET {path}"), "", "").await.status, 404, "{path}");
    }
}

/// Whoever follows the address of a held call and signs in sees that call, also when it fails at first.
#[tokio::test]
async fn the_held_call_of_the_address_comes_back_with_who_signs_in() {
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let id = "5b0c1d9e7f2a4c6d8e9fa0b1c2d3e4f5";
    let mut browser = Browser::default();
    let begin = async |browser: &mut Browser, query: &str| {
        let line = format!("GET /console/sign-in?{query}");
        let reply = desk.send(&line, &browser.cookie_line(), "").await;
        assert_eq!(reply.status, 303, "{reply:?}");
        browser.keep(&reply);
        reply.header("location")[0].to_owned()
    };
    let asked = begin(&mut browser, &format!("hold={id}")).await;
    assert!(!asked.contains(id), "the issuer need not know it");
    let state = field(&asked, "state");
    let denied = format!("error=access_denied&state={state}&{}", named(&issuer, &asked));
    assert_eq!(browser.come_back(&desk, &denied).await, format!("failed=denied&hold={id}"));
    let query = issuer.consents(&asked, &json!({}));
    let told = browser.come_back(&desk, &query).await;
    assert!(told.starts_with("signed-in=") && told.ends_with(&format!("&hold={id}")), "{told}");
    // Nothing else comes back: no address, no other fragment.
    for other in ["//evil.example", "audit", "5b0c", "", "5B0C1D9E7F2A4C6D8E9FA0B1C2D3E4F5"] {
        let asked = begin(&mut browser, &format!("hold={other}&to=//evil.example")).await;
        let query = issuer.consents(&asked, &json!({}));
        let told = browser.come_back(&desk, &query).await;
        assert!(told.starts_with("signed-in=") && !told.contains('&'), "{told}");
    }
}

/// Codes that were made up do not reach the issuer without end, and whoever signed in before with the same
/// browser is not kept out by them.
#[tokio::test]
async fn made_up_codes_are_bounded_and_a_known_browser_comes_in() {
    const TRIED: usize = 100;
    let issuer = Issuer::start();
    let desk = issuer.desk();
    let mut known = Browser::signed_in(&desk, &issuer, &json!({})).await;
    let mut stranger = Browser::default();
    let asked = stranger.begin(&desk).await;
    let (state, iss) = (field(&asked, "state"), named(&issuer, &asked));
    let (before, mut told) = (issuer.exchanges().len(), Vec::new());
    for number in 0..TRIED {
        let line = format!("GET /console/callback?code=made-up-{number}&state={state}&{iss}");
        let reply = desk.send(&line, &stranger.cookie_line(), "").await;
        told.push(reply.header("location").concat());
    }
    let exchanged = issuer.exchanges().len() - before;
    assert!((15..50).contains(&exchanged), "{exchanged} of {TRIED}");
    let notes = notes(&desk);
    assert!(notes.last().unwrap().contains("the issuer was not asked"), "{notes:?}");
    // All of one kind, so the journal of the program counts them after the first.
    let kinds: HashSet<&String> = notes.iter().collect();
    assert_eq!(kinds.len(), 2, "a wrong code, and too many: {kinds:?}");
    assert!(told.iter().any(String::is_empty), "it is told so in the end");

    assert!(known.sign_in(&desk, &issuer, &json!({})).await.starts_with("signed-in="));
    let with_token = desk.get("/approvals", ALICE).await;
    assert_eq!(with_token.status, 200);
}
