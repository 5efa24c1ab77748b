//! The only reader of the machine's clocks. Everybody else is handed a [`Now`].

use std::time::{Duration, Instant, SystemTime};

use tickgate_feeds::market::Time;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the process began: never goes back. Every wait and every latency is measured on it.
    pub mono_ns: u64,
    /// What is written into frames.
    pub wall: Time,
}

impl Now {
    /// The monotonic time that lies `wait` ahead.
    pub fn after(self, wait: Duration) -> u64 {
        self.mono_ns + wait.as_nanos() as u64
    }
}

/// The machine's clocks, read from the same origin by every thread of the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts the monotonic count at 1 (0 means "never" in a stamp).
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Reads both clocks.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono_ns: self.origin.elapsed().as_nanos() as u64 + 1, wall: Time(wall.as_nanos() as i64) }
    }
}
