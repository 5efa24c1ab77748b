//! When the ticks behind the rows of a turn arrived, and to how many clients each went: every arrival has a number, so that
//! a row costs one addition to time.
//!
//! Bound kept here: a number for each arrival that a turn's rows speak of; ticks that arrive together share one.

/// Places of numbers given lately, one for each millisecond of a quarter second.
const PLACES: usize = 256;
/// The number of what no tick brought.
const NO_TICK: u32 = 0;

/// Ticks that arrived together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tick {
    arrival_ns: u64,
    /// How often rows of it went out since that was last taken.
    times: u64,
}

/// The arrivals of a turn.
#[derive(Debug)]
pub struct Ticks {
    ticks: Vec<Tick>,
    places: Box<[u32; PLACES]>,
    /// The numbers behind rows of the frames made last, but for those that [`super::rows::Rows`] counts.
    given: Vec<u32>,
}

impl Default for Ticks {
    fn default() -> Self {
        let no_tick = Tick { arrival_ns: 0, times: 0 };
        Self { ticks: vec![no_tick], places: Box::new([NO_TICK; PLACES]), given: Vec::new() }
    }
}

impl Ticks {
    /// Forgets all numbers.
    pub fn begin_turn(&mut self) {
        self.ticks.truncate(1);
    }

    /// To be called before frames are made.
    pub fn begin_frames(&mut self) {
        self.given.clear();
    }

    /// The number of what arrived then; 0 is when no tick brought it.
    #[inline]
    pub fn number(&mut self, arrival_ns: u64) -> u32 {
        if arrival_ns == 0 {
            return NO_TICK;
        }
        // Neighbouring milliseconds have neighbouring places; what wants a place that is taken has a number more.
        let place = &mut self.places[(arrival_ns >> 20) as usize % PLACES];
        if self.ticks.get(*place as usize).is_none_or(|tick| tick.arrival_ns != arrival_ns) {
            *place = self.ticks.len() as u32;
            self.ticks.push(Tick { arrival_ns, times: 0 });
        }
        *place
    }

    /// Notes a row that a tick of then brought.
    pub fn give(&mut self, arrival_ns: u64) {
        let number = self.number(arrival_ns);
        self.given.push(number);
    }

    /// Counts all rows noted since the frames were begun: they went out so many times, or less often than was counted.
    pub fn count_given(&mut self, times: i64) {
        for &number in &self.given {
            self.ticks[number as usize].times = self.ticks[number as usize].times.wrapping_add_signed(times);
        }
    }

    /// Counts rows of this number.
    #[inline]
    pub fn count(&mut self, number: u32, times: u64) {
        if let Some(tick) = self.ticks.get_mut(number as usize) {
            tick.times += times;
        }
    }

    /// Hands out when each tick arrived and how often it went out since this was last asked.
    pub fn take(&mut self, mut tick: impl FnMut(u64, u64)) {
        for Tick { arrival_ns, times } in &mut self.ticks {
            let times = std::mem::take(times);
            if times > 0 && *arrival_ns > 0 {
                tick(*arrival_ns, times);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrived_together_has_one_number() {
        let mut ticks = Ticks::default();
        for turn in 0..2 {
            ticks.begin_turn();
            ticks.begin_frames();
            // The third wants the place of the first.
            let arrivals_ns = [5, 5, 5 + (256 << 20), 1 << 20, 0, 1 << 20];
            arrivals_ns.iter().for_each(|arrival_ns| ticks.give(*arrival_ns));
            let again: Vec<u64> = ticks.given.iter().map(|at| ticks.ticks[*at as usize].arrival_ns).collect();
            assert_eq!(again, arrivals_ns, "turn {turn}");
            assert_eq!(ticks.ticks.len(), 4);
            ticks.count_given(7);
            ticks.count_given(-5);
            let mut taken = Vec::new();
            ticks.take(|arrival_ns, times| taken.push((arrival_ns, times)));
            ticks.take(|_, _| panic!("all is taken"));
            assert_eq!(taken, [(5, 4), (5 + (256 << 20), 2), (1 << 20, 4)]);
        }
    }
}
