//! When the ticks behind the rows of a turn arrived: each arrival has a number, so that a row costs one addition to time.
//!
//! Bound kept here: a number for each arrival that a turn's rows speak of; ticks that arrive together share one.

/// Places of numbers given lately, one for each millisecond of a quarter second.
const PLACES: usize = 256;
/// The number of what no tick brought.
const NO_TICK: u32 = 0;

/// The arrivals of a turn.
#[derive(Debug)]
pub struct Ticks {
    arrivals_ns: Vec<u64>,
    places: Box<[u32; PLACES]>,
    /// The numbers of the rows made since the last `clear`. Rows of a first picture are not among them: they are as old as
    /// the market made them.
    pub given: Vec<u32>,
}

impl Default for Ticks {
    fn default() -> Self {
        Self { arrivals_ns: vec![0], places: Box::new([NO_TICK; PLACES]), given: Vec::new() }
    }
}

impl Ticks {
    /// Forgets all numbers.
    pub fn begin_turn(&mut self) {
        self.arrivals_ns.truncate(1);
    }

    /// The number of what arrived then; 0 is when no tick brought it.
    pub fn number(&mut self, arrival_ns: u64) -> u32 {
        if arrival_ns == 0 {
            return NO_TICK;
        }
        // Neighbouring milliseconds have neighbouring places; what wants a place that is taken has a number more.
        let place = &mut self.places[(arrival_ns >> 20) as usize % PLACES];
        if self.arrivals_ns.get(*place as usize) != Some(&arrival_ns) {
            *place = self.arrivals_ns.len() as u32;
            self.arrivals_ns.push(arrival_ns);
        }
        *place
    }

    /// Notes a row that a tick of then brought.
    pub fn give(&mut self, arrival_ns: u64) {
        let number = self.number(arrival_ns);
        self.given.push(number);
    }

    /// When the ticks of these numbers arrived.
    pub fn arrivals_ns(&self) -> &[u64] {
        &self.arrivals_ns
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
            ticks.given.clear();
            // The third wants the place of the first.
            let arrivals_ns = [5, 5, 5 + (256 << 20), 1 << 20, 0, 1 << 20];
            arrivals_ns.iter().for_each(|arrival_ns| ticks.give(*arrival_ns));
            let again: Vec<u64> = ticks.given.iter().map(|at| ticks.arrivals_ns()[*at as usize]).collect();
            assert_eq!(again, arrivals_ns, "turn {turn}");
            assert_eq!(ticks.arrivals_ns().len(), 4);
        }
    }
}
