//! The clocks of the programs on the client's side, which measure real servers and so never run on a made-up clock.
//!
//! Bound: one reading a call.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// For spans and waits.
#[expect(clippy::disallowed_methods, reason = "a client program has no `Now` to be handed")]
pub(super) fn instant() -> Instant {
    Instant::now()
}

/// Microseconds since the epoch: the clock of the protocol's `_us` members.
#[expect(clippy::disallowed_methods, reason = "a client program has no `Now` to be handed")]
pub(super) fn wall_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
