//! The order of a bundle's revisions, so that an older bundle cannot take the place of a newer one.
//!
//! A manifest has no member for the time or the number of a bundle (OPA documentation, "Bundle File
//! Format"), and `opa build` sets its revision alone. So a revision counts as a whole number or as an
//! RFC 3339 time if it is one or begins with one: `17`, `17-abc`, `2026-11-29T21:00:00Z`.

use std::time::{Duration, SystemTime};

/// A revision that can be compared with others of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Number(u128),
    Time(SystemTime),
}

fn position(revision: &str) -> Option<Position> {
    let time = revision.split_inclusive(['Z', 'z']).next().unwrap_or_default();
    if let Ok(time) = humantime::parse_rfc3339(&time.to_ascii_uppercase()) {
        return Some(Position::Time(time));
    }
    let end = revision.find(|c: char| !c.is_ascii_digit()).unwrap_or(revision.len());
    let (number, rest) = revision.split_at_checked(end)?;
    let separated = rest.is_empty() || rest.starts_with(['-', '.', '_', '+', ' ', '@']);
    number.parse().ok().filter(|_| separated).map(Position::Number)
}

/// Checks that the bundle with `revision` may follow the one with `accepted`.
///
/// # Errors
///
/// Why it may not.
pub fn follows(revision: &str, accepted: Option<&str>) -> Result<(), String> {
    let Some(new) = position(revision) else {
        return Err(format!(
            "its revision `{revision}` is neither a number nor an RFC 3339 time, so it cannot be \
             compared"
        ));
    };
    let older = match (accepted.and_then(position), new) {
        (Some(Position::Number(old)), Position::Number(new)) => new < old,
        (Some(Position::Time(old)), Position::Time(new)) => new < old,
        // A running policy without an order, as before the rule was configured.
        (None, _) => false,
        (Some(_), _) => {
            return Err(format!(
                "its revision `{revision}` cannot be compared with `{}`, which was accepted before",
                accepted.unwrap_or_default()
            ));
        }
    };
    if older {
        return Err(format!(
            "its revision `{revision}` is older than `{}`, which was accepted before",
            accepted.unwrap_or_default()
        ));
    }
    Ok(())
}

/// Checks that the bundle with `revision` is at most `max_age` old at `now`.
///
/// # Errors
///
/// Why it counts as too old.
pub fn is_young(revision: &str, max_age: Duration, now: SystemTime) -> Result<(), String> {
    let Some(Position::Time(made)) = position(revision) else {
        return Err(format!(
            "its revision `{revision}` is no RFC 3339 time, so its age is not known"
        ));
    };
    // A time to come is one by another clock, and young.
    let age = now.duration_since(made).unwrap_or_default();
    if age > max_age {
        let (age, most) = (humantime::format_duration(whole(age)), whole(max_age));
        let most = humantime::format_duration(most);
        return Err(format!("its revision `{revision}` is {age} old, and {most} is the most"));
    }
    Ok(())
}

/// How long the bundle with `revision` stays at most `max_age` old; `None` if its age is not known or
/// is more already.
pub fn left(revision: &str, max_age: Duration, now: SystemTime) -> Option<Duration> {
    let Some(Position::Time(made)) = position(revision) else { return None };
    let age = now.duration_since(made).unwrap_or_default();
    // `is_young` refuses what is older than this, not as old.
    max_age.checked_sub(age)?.checked_add(Duration::from_millis(1))
}

fn whole(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn a_bundle_has_an_age() {
        let now = UNIX_EPOCH + Duration::from_hours(24 * 365);
        for (revision, young) in [
            ("1970-12-31T23:00:00Z", true),
            ("1970-12-31T22:59:59Z", false),
            ("1970-12-31T23:30:00Z-abc", true),
            ("1999-01-01T00:00:00Z", true),
            ("17", false),
            ("", false),
        ] {
            let checked = super::is_young(revision, Duration::from_hours(1), now);
            assert_eq!(checked.is_ok(), young, "{revision} {checked:?}");
        }
        // Driven to the end of its time, it is too old; one step before, it is not.
        let (made, hour) = ("1970-12-31T23:30:00Z", Duration::from_hours(1));
        let left = super::left(made, hour, now).unwrap();
        assert!(super::is_young(made, hour, now + left).is_err());
        assert!(super::is_young(made, hour, now + left - Duration::from_millis(1)).is_ok());
        assert_eq!(super::left(made, hour, now + left), None);
        assert_eq!(super::left("17", hour, now), None);
    }

    #[test]
    fn an_older_revision_does_not_follow() {
        for (old, new, follows) in [
            (Some("1"), "2", true),
            (Some("2"), "2", true),
            (Some("10"), "9", false),
            (Some("10-abc"), "11-abc", true),
            (Some("10"), "011", true),
            (Some("2026-11-29T21:00:00Z"), "2026-11-29T21:00:01Z-abc", true),
            (Some("2026-11-29T21:00:00Z"), "2025-11-29T21:00:01Z", false),
            (Some("2026-11-29T21:00:00Z"), "99", false),
            (Some("5"), "2026-11-29T21:00:00Z", false),
            (Some("sha256:0"), "1", true),
            (None, "1", true),
            (None, "abc", false),
            (None, "", false),
            (None, "1x", false),
            (None, "-1", false),
        ] {
            assert_eq!(super::follows(new, old).is_ok(), follows, "{old:?} {new}");
        }
    }
}
