//! The body for an incoming webhook of Slack: a message in Block Kit.
//!
//! Threat I23: what strangers wrote stands in `plain_text`, in which Slack gives no character a meaning but `&`,
//! `<` and `>` (`<!channel>`, `<@U1>`, `<https://…|text>`), and these are written as entities. The
//! parameters stand in a code block: a grave accent, which could end it, is written as a JSON escape.
//! Slack is asked to fetch no link.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Ways;
use super::story::{Params, Story, fitted, missing};

/// Size of a text in a section, bytes; Slack takes 3000 characters.
const TEXT_BYTES_MAX: usize = 2900;
/// Size of one field, bytes; Slack takes 2000 characters.
const FIELD_BYTES_MAX: usize = 1950;
/// Size of the text of a header, bytes; Slack takes 150 characters.
const HEADER_BYTES_MAX: usize = 145;
/// Fields of one section; Slack takes 10.
const FIELDS_MAX: usize = 10;

/// The body that asks.
pub(super) fn asking(story: &Story, params: &Params, ways: &Ways) -> Bytes {
    let (text, cut) = match params {
        Params::Withheld { .. } => (String::new(), false),
        Params::Shown { text, .. } => fitted(text, TEXT_BYTES_MAX, in_code),
    };
    let mut blocks = vec![
        json!({"type": "header", "text": plain("A call waits for approval", HEADER_BYTES_MAX)}),
        json!({"type": "section", "text": plain(&story.title, TEXT_BYTES_MAX)}),
    ];
    if !story.message.is_empty() {
        blocks.push(json!({"type": "section", "text": plain(&story.message, TEXT_BYTES_MAX)}));
    }
    for facts in story.facts.chunks(FIELDS_MAX) {
        let fields = facts.iter().map(|(name, value)| {
            let field = format!("{name}\n{value}");
            plain(&field, FIELD_BYTES_MAX)
        });
        blocks.push(json!({"type": "section", "fields": fields.collect::<Vec<_>>()}));
    }
    if !text.is_empty() {
        let text = format!("```{text}```");
        let text = json!({"type": "mrkdwn", "verbatim": true, "text": text});
        blocks.push(json!({"type": "section", "text": text}));
    }
    let note = missing(params, cut);
    if !note.is_empty() {
        blocks.push(json!({"type": "context", "elements": [plain(&note, TEXT_BYTES_MAX)]}));
    }
    let buttons = buttons(ways);
    if !buttons.is_empty() {
        blocks.push(json!({"type": "actions", "elements": buttons}));
    }
    message(&format!("A call waits for approval: {}", story.title), &blocks)
}

/// The body that says what has become of it.
pub(super) fn ended(story: &Story) -> Bytes {
    let text = format!("{}: {}", story.title, story.end);
    message(&text, &[json!({"type": "section", "text": plain(&text, TEXT_BYTES_MAX)})])
}

/// A message; `text` is what a notification shows.
fn message(text: &str, blocks: &[Value]) -> Bytes {
    let (text, _) = fitted(text, TEXT_BYTES_MAX, escape);
    let message = json!({
        "text": text,
        "mrkdwn": false,
        "unfurl_links": false,
        "unfurl_media": false,
        "blocks": blocks,
    });
    message.to_string().into()
}

fn buttons(ways: &Ways) -> Vec<Value> {
    let button = |id: &str, text: &str, url: &str| {
        let text = plain(text, HEADER_BYTES_MAX);
        json!({"type": "button", "action_id": id, "text": text, "url": url})
    };
    let mut buttons = Vec::new();
    if let Some(answer) = &ways.answer {
        for (id, text, url, style) in [
            ("grant", "Grant", &answer.grant, "primary"),
            ("refuse", "Refuse", &answer.refuse, "danger"),
        ] {
            let mut button = button(id, text, url);
            if let Some(members) = button.as_object_mut() {
                members.insert("style".to_owned(), style.into());
            }
            buttons.push(button);
        }
    }
    buttons.extend(ways.console.as_ref().map(|url| button("console", "Open the console", url)));
    buttons
}

fn plain(text: &str, bytes_max: usize) -> Value {
    let (text, _) = fitted(text, bytes_max, escape);
    json!({"type": "plain_text", "emoji": false, "text": text})
}

/// The three characters that Slack gives a meaning, as entities.
fn escape(character: char) -> String {
    match character {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        other => other.to_string(),
    }
}

/// For a code block of JSON, in which a grave accent stands inside strings alone.
fn in_code(character: char) -> String {
    if character == '`' { "\\u0060".to_owned() } else { escape(character) }
}
