//! The compressed trading day: which phase the market is in at a slot, and at which slot the next one begins.
//!
//! Bound kept here: planned silence is at most 1.5 % of a day in a row, so a visitor rarely meets a market at rest.

use crate::market::Phase;

/// The phases of a day and their shares of it in thousandths.
const DAY: [(Phase, u64); 8] = [
    (Phase::PreOpen, 5),
    (Phase::Ato, 20),
    (Phase::Continuous, 480),
    (Phase::Break, 15),
    (Phase::Continuous, 435),
    (Phase::Atc, 20),
    (Phase::PutThrough, 15),
    (Phase::Closed, 10),
];
const WHOLE: u64 = 1_000;
/// The simulation starts here: in continuous trading, so that something moves at once.
const FIRST: usize = 2;
/// Thousandths of a day in which nothing is said: the break, or the close and what comes before the next opening.
const SILENT: u64 = 15;

/// The place in the day.
#[derive(Clone, Debug)]
pub(super) struct Day {
    /// Slots in a day; 0 for continuous trading without end.
    slots: u64,
    part: usize,
    /// The slot at which the present day began, had its first part not been left out.
    begin: i128,
}

impl Day {
    /// A day of `seconds` at `rate` slots a second.
    pub(super) fn new(seconds: u64, rate: u64) -> Self {
        let slots = seconds.saturating_mul(rate);
        Self { slots, part: FIRST, begin: -i128::from(offset(slots, FIRST)) }
    }

    /// The present phase.
    pub(super) fn phase(&self) -> Phase {
        DAY[self.part].0
    }

    /// The slot at which the present phase is over.
    pub(super) fn end(&self) -> u64 {
        if self.slots == 0 {
            return u64::MAX;
        }
        let end = self.begin + i128::from(offset(self.slots, self.part + 1));
        u64::try_from(end).unwrap_or(u64::MAX)
    }

    /// Goes on to the next phase; true when that begins a new day.
    pub(super) fn advance(&mut self) -> bool {
        self.part += 1;
        let new_day = self.part == DAY.len();
        if new_day {
            self.part = 0;
            self.begin += i128::from(self.slots);
        }
        new_day
    }
}

/// The slots of a day that come before one of its parts.
fn offset(slots: u64, part: usize) -> u64 {
    let thousandths: u64 = DAY[..part].iter().map(|(_, share)| share).sum();
    (u128::from(slots) * u128::from(thousandths) / u128::from(WHOLE)) as u64
}

/// The longest planned silence in a day of that many seconds, rounded up to whole ones.
pub(super) const fn longest_silence(seconds: u64) -> u64 {
    (seconds * SILENT).div_ceil(WHOLE)
}

/// Whether no message is expected in this phase.
pub(super) const fn is_silent(phase: Phase) -> bool {
    matches!(phase, Phase::PreOpen | Phase::Break | Phase::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_whole_and_starts_in_continuous_trading() {
        assert_eq!(DAY.iter().map(|(_, share)| share).sum::<u64>(), WHOLE);
        let (mut day, rate) = (Day::new(3_600, 500), 500);
        assert_eq!((day.phase(), day.end()), (Phase::Continuous, 480 * 3_600 * rate / WHOLE));
        let (mut ends, mut new_days) = (Vec::new(), 0);
        for _ in 0..16 {
            ends.push(day.end());
            new_days += u32::from(day.advance());
        }
        assert!(ends.is_sorted_by(|a, b| a < b));
        assert_eq!((new_days, ends[8] - ends[0]), (2, 3_600 * rate));
        assert_eq!(day.phase(), Phase::Continuous);
    }

    #[test]
    fn silence_is_as_long_as_is_said() {
        let silent: Vec<_> =
            DAY.iter().map(|&(phase, share)| if is_silent(phase) { share } else { 0 }).collect();
        // Round the corner: the close is followed by the next day's first part.
        let longest = (0..8).map(|at| silent[at] + silent[(at + 1) % 8]).max();
        assert_eq!(longest, Some(SILENT));
        assert_eq!(longest_silence(3_600), 54);
    }

    #[test]
    fn a_day_of_no_seconds_never_ends() {
        let day = Day::new(0, 10_000_000);
        assert_eq!((day.phase(), day.end()), (Phase::Continuous, u64::MAX));
    }
}
