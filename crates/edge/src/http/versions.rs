//! How hyper serves a connection of each version of HTTP. [`WatchedStream::version`] tells which it
//! is.
//!
//! hyper-util can tell as well, but hands the first bytes to hyper apart from the rest of the
//! request: hyper then makes its read buffer of 8 KiB twice as large, and it stays that large as
//! long as the connection is open.
//!
//! [`WatchedStream::version`]: super::connection_state::WatchedStream::version

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;

use super::stalls::Tracked;
use super::{HttpConfig, HttpLimits};

/// For a connection that speaks HTTP/1.
pub(super) fn http1(config: &HttpConfig) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // `connection_state` keeps the deadlines of HTTP/1 with one timer for each connection; hyper
    // would set one for each request.
    builder
        .header_read_timeout(None)
        .max_headers(config.limits.headers_max)
        .max_buf_size(config.limits.head_bytes());
    builder
}

/// For a connection that speaks HTTP/2, whose streams run in `tracked`.
pub(super) fn http2(config: &HttpConfig, tracked: Tracked) -> http2::Builder<Tracked> {
    let HttpConfig { limits, timeouts, .. } = config;
    let mut builder = http2::Builder::new(tracked);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams_max)
        // The h2 crate refuses a longer list without a word to us; `admission` refuses what is
        // over the limit, with a record.
        .max_header_list_size(list_bytes_max(limits))
        .max_pending_accept_reset_streams(limits.h2_pending_resets_max)
        .initial_stream_window_size(limits.h2_window_bytes)
        .initial_connection_window_size(limits.h2_window_bytes)
        .keep_alive_interval(timeouts.h2_ping)
        .keep_alive_timeout(timeouts.h2_ping);
    builder
}

/// The longest header list over HTTP/2 that is read at all, bytes.
fn list_bytes_max(limits: &HttpLimits) -> u32 {
    let most = limits.head_bytes().saturating_mul(2);
    u32::try_from(most).unwrap_or(u32::MAX)
}
