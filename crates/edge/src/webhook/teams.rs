//! The body for a workflow of Microsoft Teams ("When a Teams webhook request is received"): a
//! message with an Adaptive Card.
//!
//! What strangers wrote stands in `TextRun`s, in which Teams reads no Markdown and no mention
//! (Adaptive Cards 1.2, `TextRun`). A second `{` in a row is written as an escape, because `{{DATE(…)}}`
//! would be shown as a date.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Ways;
use super::story::{Params, Story, fitted, missing};

/// Size of the parameters, bytes. Teams takes 28 KiB for a whole message.
const PARAMS_BYTES_MAX: usize = 3 << 10;
/// Lines of the parameters.
const PARAMS_LINES_MAX: usize = 60;
/// Spaces at the beginning of a line that are shown.
const INDENT_MAX: usize = 20;
/// Size of any other text, bytes.
const TEXT_BYTES_MAX: usize = 700;

/// The body that asks.
pub(super) fn asking(story: &Story, params: &Params, ways: &Ways) -> Bytes {
    let (text, cut) = match params {
        Params::Withheld { .. } => (String::new(), false),
        Params::Shown { text, .. } => fitted(text, PARAMS_BYTES_MAX, escaping()),
    };
    let cut = cut || text.lines().count() > PARAMS_LINES_MAX;
    let mut body = vec![
        rich(&[bold("A call waits for approval")]),
        rich(&[run(&story.title)]),
        rich(&[run(&story.message)]),
    ];
    body.extend(story.facts.iter().map(|(name, value)| {
        let name = format!("{name}: ");
        rich(&[bold(&name), run(value)])
    }));
    // Each line by itself: a line end in a run is no line break in all clients.
    body.extend(text.lines().take(PARAMS_LINES_MAX).map(code));
    let note = missing(params, cut);
    if !note.is_empty() {
        body.push(rich(&[run(&note)]));
    }
    message(&body, &actions(ways))
}

/// The body that says what has become of it.
pub(super) fn ended(story: &Story) -> Bytes {
    let text = format!("{}: {}", story.title, story.end);
    message(&[rich(&[run(&text)])], &[])
}

fn message(body: &[Value], actions: &[Value]) -> Bytes {
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": actions,
    });
    let message = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": card,
        }],
    });
    message.to_string().into()
}

fn actions(ways: &Ways) -> Vec<Value> {
    let open = |title: &str, url: &str, style: &str| json!({"type": "Action.OpenUrl", "title": title, "url": url, "style": style});
    let mut actions = Vec::new();
    if let Some(answer) = &ways.answer {
        actions.push(open("Grant", &answer.grant, "positive"));
        actions.push(open("Refuse", &answer.refuse, "destructive"));
    }
    actions.extend(ways.console.as_ref().map(|url| open("Open the console", url, "default")));
    actions
}

/// A line of the parameters. Spaces at its beginning would be dropped, so they do not break.
fn code(line: &str) -> Value {
    let text = line.trim_start_matches(' ');
    let indent = line.len().saturating_sub(text.len()).min(INDENT_MAX);
    let text = format!("{}{text}", "\u{a0}".repeat(indent));
    let run = json!({"type": "TextRun", "fontType": "Monospace", "text": text});
    json!({"type": "RichTextBlock", "spacing": "None", "inlines": [run]})
}

fn rich(inlines: &[Value]) -> Value {
    json!({"type": "RichTextBlock", "inlines": inlines})
}

fn run(text: &str) -> Value {
    let (text, _) = fitted(text, TEXT_BYTES_MAX, escaping());
    json!({"type": "TextRun", "text": text})
}

fn bold(text: &str) -> Value {
    let mut run = run(text);
    if let Some(members) = run.as_object_mut() {
        members.insert("weight".to_owned(), "Bolder".into());
    }
    run
}

/// Escapes a `{` that follows another one.
fn escaping() -> impl FnMut(char) -> String {
    let mut before = '\0';
    move |character| {
        let second = before == '{' && character == '{';
        before = if second { '\0' } else { character };
        if second { "\\u007b".to_owned() } else { character.to_string() }
    }
}
