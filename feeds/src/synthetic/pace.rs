//! When a message is due: the k-th one at the start plus k / rate seconds, rounded down to a nanosecond.
//!
//! Bound kept here: exact for any k (no error adds up and nothing overflows before the year 2262).

use crate::market::Time;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Counts slots, one for each message, and knows when the present one is due.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Slots a second, at least 1.
    rate: u64,
    /// When the present slot is due; `None` until the first call tells when the start is.
    due: Option<Time>,
    /// What the rounding of `due` has left out, in `1 / rate` nanoseconds: always below `rate`.
    left: u64,
    slot: u64,
}

impl Pace {
    pub(super) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), due: None, left: 0, slot: 0 }
    }

    /// When the present slot is due; the first call ever makes `now` the start.
    pub(super) fn due(&mut self, now: Time) -> Time {
        *self.due.get_or_insert(now)
    }

    /// The number of the present slot.
    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    /// Goes on to the next slot and says when it is due; two additions instead of a division, as it is called often.
    pub(super) fn advance(&mut self) -> Time {
        self.left += NS_PER_SECOND % self.rate;
        let carry = u64::from(self.left >= self.rate);
        self.left -= carry * self.rate;
        self.slot += 1;
        self.shift(NS_PER_SECOND / self.rate + carry)
    }

    /// Leaves slots empty up to `slot` (or stays, if that is past) and says when it is due.
    pub(super) fn skip_to(&mut self, slot: u64) -> Time {
        let slots = u128::from(slot.saturating_sub(self.slot));
        let total = slots * u128::from(NS_PER_SECOND) + u128::from(self.left);
        self.slot = self.slot.max(slot);
        self.left = (total % u128::from(self.rate)) as u64;
        self.shift((total / u128::from(self.rate)) as u64)
    }

    fn shift(&mut self, ns: u64) -> Time {
        let due = Time(self.due.unwrap_or_default().0.saturating_add_unsigned(ns));
        self.due = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_due_at_its_exact_time_walked_or_skipped() {
        let start = Time(1_763_787_600_123_456_789);
        for rate in [1, 7, 10, 999, 20_000, 3_000_001, 10_000_000] {
            let (mut walker, mut skipper) = (Pace::new(rate), Pace::new(rate));
            assert_eq!((walker.due(start), skipper.due(start)), (start, start));
            for k in 1..50_000_u64 {
                let expected = Time(start.0 + (u128::from(k) * 1_000_000_000 / u128::from(rate)) as i64);
                assert_eq!(walker.advance(), expected);
                if k % 37 == 0 {
                    assert_eq!(skipper.skip_to(k), expected);
                    assert_eq!(skipper.slot(), walker.slot());
                }
            }
        }
    }
}
