//! How long to wait before connecting again: exponential with full jitter, so that ten thousand do not come together.
//!
//! Bound kept here: the ceiling lies between `FIRST_MS` and what the caller says; the wait is anything up to it.

use super::random::Random;

/// Ceiling of the first wait.
const FIRST_MS: u64 = 500;

/// Failures in a row, and the chance.
#[derive(Clone, Debug)]
pub struct Backoff {
    most_ms: u64,
    failures: u32,
    random: Random,
}

impl Backoff {
    /// No failure yet; `most_ms` is the ceiling of the longest wait.
    pub fn new(seed: u64, most_ms: u64) -> Backoff {
        Backoff { most_ms, failures: 0, random: Random::new(seed) }
    }

    /// The wait after one more failure.
    pub fn next_ms(&mut self) -> u64 {
        let ceiling = FIRST_MS.saturating_mul(1 << self.failures.min(16)).min(self.most_ms);
        self.failures += 1;
        self.random.below(ceiling + 1)
    }

    /// Data has come: the next failure is a first one.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_jittered_and_bounded() {
        const MOST_MS: u64 = 30_000;
        let mut backoff = Backoff::new(1, MOST_MS);
        let waits: Vec<u64> = (0..200).map(|_| backoff.next_ms()).collect();
        assert!(waits[0] <= FIRST_MS && waits[1] <= 2 * FIRST_MS);
        assert!(waits.iter().all(|&wait| wait <= MOST_MS));
        assert!(
            waits[20..].iter().any(|&wait| wait > 20_000) && waits[20..].iter().any(|&wait| wait < 10_000)
        );
        backoff.reset();
        assert!(backoff.next_ms() <= FIRST_MS);
    }
}
