//! What one thread of the load has counted, and how the threads' counts are added.
//!
//! Bound: four histograms of fixed size (`LONGEST_US`, two digits after the first), a few maps keyed by closed sets
//! or cut at `KINDS_MAX`, and the rounds, which bound themselves.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::rounds::{Round, Rounds};

/// The longest time that a histogram holds, one hour in microseconds; what is longer counts as this.
const LONGEST_US: u64 = 3_600_000_000;

/// Significant digits of every quantile.
const DIGITS: u8 = 3;

/// Distinct error texts that are kept; one is usually enough to know.
const KINDS_MAX: usize = 8;

/// A histogram of microseconds.
pub(super) type Times = Histogram<u64>;

/// Makes an empty histogram.
pub(super) fn times() -> Result<Times, String> {
    Times::new_with_bounds(1, LONGEST_US, DIGITS).map_err(|error| error.to_string())
}

/// Counts of one thread.
pub(super) struct Tally {
    /// Batch frames within the measured time.
    pub(super) frames: u64,
    /// Bytes of those, headers included.
    pub(super) bytes: u64,
    /// Other data frames within the measured time: heartbeats, answers.
    pub(super) other_frames: u64,
    /// Frames whose numbers were not where the protocol puts them, or whose JSON does not parse.
    pub(super) unreadable: u64,
    pub(super) sampled_frames: u64,
    pub(super) sampled_rows: u64,
    pub(super) missing: u64,
    pub(super) merged: u64,
    /// From `ts_us` of a batch to its arrival.
    pub(super) frame_us: Times,
    /// From `time_us` of a row to its arrival, in sampled frames.
    pub(super) tick_us: Times,
    /// From connect to the answer of the handshake.
    pub(super) handshake_us: Times,
    /// From connect to the first batch.
    pub(super) first_frame_us: Times,
    pub(super) subscribed: u64,
    pub(super) reconnects: u64,
    pub(super) server_pings: u64,
    /// Close codes; 1006 stands for an end without a close frame.
    pub(super) closed: BTreeMap<u16, u64>,
    /// Why connections could not be opened.
    pub(super) failed: BTreeMap<String, u64>,
    /// The first `error` frames, and refusals within `subscribed`.
    pub(super) errors: BTreeMap<String, u64>,
    pub(super) stalled_ended: u64,
    pub(super) rounds: Rounds,
    pub(super) finished_rounds: Vec<Round>,
}

impl Tally {
    /// An empty one.
    pub(super) fn new() -> Result<Tally, String> {
        Ok(Tally {
            frames: 0,
            bytes: 0,
            other_frames: 0,
            unreadable: 0,
            sampled_frames: 0,
            sampled_rows: 0,
            missing: 0,
            merged: 0,
            frame_us: times()?,
            tick_us: times()?,
            handshake_us: times()?,
            first_frame_us: times()?,
            subscribed: 0,
            reconnects: 0,
            server_pings: 0,
            closed: BTreeMap::new(),
            failed: BTreeMap::new(),
            errors: BTreeMap::new(),
            stalled_ended: 0,
            rounds: Rounds::default(),
            finished_rounds: Vec::new(),
        })
    }

    /// Adds another thread's counts.
    pub(super) fn add(&mut self, mut other: Tally) -> Result<(), String> {
        self.frames += other.frames;
        self.bytes += other.bytes;
        self.other_frames += other.other_frames;
        self.unreadable += other.unreadable;
        self.sampled_frames += other.sampled_frames;
        self.sampled_rows += other.sampled_rows;
        self.missing += other.missing;
        self.merged += other.merged;
        self.subscribed += other.subscribed;
        self.reconnects += other.reconnects;
        self.server_pings += other.server_pings;
        self.stalled_ended += other.stalled_ended;
        for (into, from) in [
            (&mut self.frame_us, &other.frame_us),
            (&mut self.tick_us, &other.tick_us),
            (&mut self.handshake_us, &other.handshake_us),
            (&mut self.first_frame_us, &other.first_frame_us),
        ] {
            into.add(from).map_err(|error| error.to_string())?;
        }
        for (code, count) in other.closed {
            *self.closed.entry(code).or_default() += count;
        }
        for (text, count) in other.failed {
            count_kind(&mut self.failed, &text, count);
        }
        for (text, count) in other.errors {
            count_kind(&mut self.errors, &text, count);
        }
        self.finished_rounds.extend(other.rounds.take());
        Ok(())
    }

    /// Counts a connection that could not be opened.
    pub(super) fn fail(&mut self, why: &str) {
        count_kind(&mut self.failed, why, 1);
    }

    /// Counts a refusal from the server.
    pub(super) fn error(&mut self, text: &str) {
        count_kind(&mut self.errors, text, 1);
    }
}

fn count_kind(kinds: &mut BTreeMap<String, u64>, text: &str, count: u64) {
    let known = kinds.len() < KINDS_MAX || kinds.contains_key(text);
    *kinds.entry(if known { text } else { "other" }.to_owned()).or_default() += count;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_bounded() {
        let mut tally = Tally::new().unwrap();
        for number in 0..100 {
            tally.fail(&format!("reason {number}"));
        }
        assert_eq!(tally.failed.len(), KINDS_MAX + 1);
        assert_eq!(tally.failed.values().sum::<u64>(), 100);
    }
}
