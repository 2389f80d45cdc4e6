//! What an approver sends: the JSON of a grant or a refusal, read strictly.

use bytes::Bytes;

use bartizan_gate::wire::document::{Document, DocumentLimits, Kind};

/// Size of the body of an answer, bytes: a reason at its longest, every character an escape.
pub(super) const BODY_BYTES_MAX: usize = 16 << 10;

const LIMITS: DocumentLimits =
    DocumentLimits { bytes_max: BODY_BYTES_MAX, depth_max: 2, number_chars_max: 1, values_max: 16 };

/// What an approver says of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Grant,
    Refuse,
}

impl Verdict {
    /// Its name in paths and records.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Refuse => "refuse",
        }
    }
}

/// The members of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The digest of what the approver saw; always there with a grant.
    pub(super) digest: Option<Box<str>>,
    /// Why; not blank.
    pub(super) reason: Box<str>,
    /// The code of the wider grant that is given, if one is.
    pub(super) scope: Option<Box<str>>,
}

impl Answer {
    /// Reads the body of `verdict`: strict JSON, with no member that nobody reads.
    ///
    /// # Errors
    ///
    /// What is wrong, for the approver.
    pub(super) fn read(body: Bytes, verdict: Verdict) -> Result<Self, &'static str> {
        let document = Document::read(body, &LIMITS).map_err(|_| "the body is no strict JSON")?;
        let root = document.root();
        if root.kind() != Kind::Object {
            return Err("the body is no JSON object");
        }
        let (mut digest, mut reason, mut scope) = (None, None, None);
        for (name, value) in root.members() {
            let place = match name.as_str() {
                Some("digest") => &mut digest,
                Some("reason") => &mut reason,
                Some("scope") if verdict == Verdict::Grant => &mut scope,
                _ => return Err("the body has a member that an answer does not have"),
            };
            if value.kind() != Kind::Null {
                let text = value.as_str().ok_or("a member of the body is no text")?;
                *place = Some(Box::from(text));
            }
        }
        let reason: Box<str> = reason.ok_or("`reason` is missing")?;
        if reason.trim().is_empty() {
            return Err("`reason` is blank");
        }
        if verdict == Verdict::Grant && digest.is_none() {
            return Err("`digest` is missing: it says what the approver saw");
        }
        Ok(Self { digest, reason, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, verdict: Verdict) -> Result<Answer, &'static str> {
        Answer::read(Bytes::copy_from_slice(body.as_bytes()), verdict)
    }

    #[test]
    fn an_answer_has_a_reason_and_a_grant_a_digest() {
        let granted = read(r#"{"digest":"d","reason":"r","scope":"s"}"#, Verdict::Grant);
        let all = |text: &str| Some(Box::from(text));
        assert_eq!(granted, Ok(Answer { digest: all("d"), reason: "r".into(), scope: all("s") }));
        let granted = read(r#"{"digest":"d","reason":"r","scope":null}"#, Verdict::Grant);
        assert_eq!(granted.unwrap().scope, None);
        let refused = read(r#"{"reason":"r"}"#, Verdict::Refuse);
        assert_eq!(refused, Ok(Answer { digest: None, reason: "r".into(), scope: None }));
    }

    #[test]
    fn what_is_not_strict_or_not_meant_is_refused() {
        for (body, verdict) in [
            ("", Verdict::Grant),
            ("[]", Verdict::Grant),
            ("\"reason\"", Verdict::Refuse),
            (r#"{"digest":"d"}"#, Verdict::Grant),
            (r#"{"reason":"r"}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":" \n"}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":1}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":["r"]}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":"r","reason":"s"}"#, Verdict::Grant),
            (r#"{"digest":"d","\u0072eason":"r","reason":"s"}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":"r","by":"alice"}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":"r"} {}"#, Verdict::Grant),
            (r#"{"digest":"d","reason":"r",}"#, Verdict::Grant),
            (r#"{"reason":"r","scope":"s"}"#, Verdict::Refuse),
        ] {
            assert!(read(body, verdict).is_err(), "{body}");
        }
        let long = format!(r#"{{"reason":"{}"}}"#, "x".repeat(BODY_BYTES_MAX));
        assert!(read(&long, Verdict::Refuse).is_err());
    }
}
