//! Finds the `RetryInfo` in the details of a gRPC status (`google/rpc/status.proto` and
//! `google/rpc/error_details.proto`), with which a server says that and when it can be asked again.

use std::time::Duration;

use bytes::Bytes;
use prost::{DecodeError, Message};

/// The end of the type's URL; what is before the last `/` is not part of the name
/// (`google/protobuf/any.proto`).
const RETRY_INFO: &str = "google.rpc.RetryInfo";

/// Nanoseconds of a second.
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// What a server says of another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RetryAsked {
    /// The delay before it; `None` if the server leaves that to us.
    pub(super) delay: Option<Duration>,
}

/// The first `RetryInfo` in `details`, a `google.rpc.Status`; `None` if there is none that can be
/// read.
pub(super) fn find(details: Bytes) -> Option<RetryAsked> {
    let status = Status::decode(details).ok()?;
    let is_it = |detail: &&Detail| detail.type_url.rsplit('/').next() == Some(RETRY_INFO);
    let detail = status.details.iter().find(is_it)?;
    asked(&detail.value).ok()
}

fn asked(info: &[u8]) -> Result<RetryAsked, DecodeError> {
    let delay = RetryInfo::decode(info)?.retry_delay.and_then(duration);
    Ok(RetryAsked { delay })
}

/// `None` for one that is zero, negative or invalid.
fn duration(of: Delay) -> Option<Duration> {
    let (seconds, nanos) = (u64::try_from(of.seconds).ok()?, u32::try_from(of.nanos).ok()?);
    let delay = (nanos < NANOS_PER_SECOND).then(|| Duration::new(seconds, nanos))?;
    (!delay.is_zero()).then_some(delay)
}

/// `google.rpc.Status`, without what the headers have, too.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(url: &str, value: Vec<u8>) -> Bytes {
        let other = Detail { type_url: "x/google.rpc.Help".into(), value: Bytes::new() };
        let detail = Detail { type_url: url.into(), value: value.into() };
        Status { details: vec![other, detail] }.encode_to_vec().into()
    }

    #[test]
    fn a_server_says_when_to_try_again() {
        const URL: &str = "type.googleapis.com/google.rpc.RetryInfo";
        for (seconds, nanos, delay) in [
            (7, 0, Some(Duration::from_secs(7))),
            (0, 250_000_000, Some(Duration::from_millis(250))),
            (0, 0, None),
            (-1, 0, None),
            (1, -1, None),
            (1, i32::MAX, None),
            (i64::MAX, 999_999_999, Some(Duration::new(i64::MAX.unsigned_abs(), 999_999_999))),
        ] {
            let info = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) };
            let found = find(details(URL, info.encode_to_vec()));
            assert_eq!(found, Some(RetryAsked { delay }), "{seconds} {nanos}");
        }
        assert_eq!(find(details(URL, Vec::new())), Some(RetryAsked { delay: None }));
        assert_eq!(find(details(URL, vec![0xff])), None);
        assert_eq!(find(details("x/google.rpc.RetryInformation", Vec::new())), None);
        assert_eq!(find(Bytes::new()), None);
        assert_eq!(find(Bytes::from_static(b"\xff\xff")), None);
    }
}
