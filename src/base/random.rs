//! A small seeded generator (splitmix64), so that a load is the same load each time and no crate is needed for it.
//!
//! Bound kept here: eight bytes of state.

/// The generator. Not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; zero when `end` is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// `count` distinct numbers below `end`, in order (Floyd's method: the cost does not depend on `end`).
    pub fn distinct(&mut self, count: usize, end: usize) -> Vec<usize> {
        let count = count.min(end);
        let mut chosen = std::collections::BTreeSet::new();
        for last in end - count..end {
            let pick = self.below(last as u64 + 1) as usize;
            if !chosen.insert(pick) {
                chosen.insert(last);
            }
        }
        chosen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_distinct_in_range_and_repeatable() {
        for (count, end) in [(30, 1000), (10, 10), (0, 5), (9, 3)] {
            let picks = Random::new(7).distinct(count, end);
            assert_eq!(picks.len(), count.min(end));
            assert!(picks.windows(2).all(|pair| pair[0] < pair[1]) && picks.iter().all(|&p| p < end));
            assert_eq!(picks, Random::new(7).distinct(count, end));
        }
    }
}
