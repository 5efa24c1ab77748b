//! A latency histogram for one writer: no lock, no allocation after the first, and no clock of its own.
//!
//! Bound kept here: 1 ns to 60 s at two significant digits, about 30 KiB; longer waits count as 60 s.

use hdrhistogram::Histogram;

const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// Latencies in nanoseconds, since the start of the process.
#[derive(Clone, Debug)]
pub struct Latency {
    histogram: Histogram<u64>,
    sum_ns: u128,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2).expect("the bounds are valid constants");
        Self { histogram, sum_ns: 0 }
    }
}

impl Latency {
    /// Counts `times` samples of the same latency.
    #[inline]
    pub fn record(&mut self, ns: u64, times: u64) {
        self.histogram.saturating_record_n(ns.max(1), times);
        self.sum_ns += u128::from(ns) * u128::from(times);
    }

    /// Adds everything that `other` holds.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so nothing can be out of range.
        let _ = self.histogram.add(&other.histogram);
        self.sum_ns += other.sum_ns;
    }

    /// What came after `earlier`, an older copy of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut window = self.clone();
        let _ = window.histogram.subtract(&earlier.histogram);
        window.sum_ns -= earlier.sum_ns;
        window
    }

    /// How many samples.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their exact sum in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// The latency in nanoseconds that this share (0 to 1) of the samples does not exceed.
    pub fn quantile_ns(&self, share: f64) -> u64 {
        self.histogram.value_at_quantile(share)
    }

    /// For each of `edges_ns` (rising), how many samples do not exceed it, within the two digits kept.
    pub fn cumulative(&self, edges_ns: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; edges_ns.len()];
        for step in self.histogram.iter_recorded() {
            let at = edges_ns.partition_point(|&edge| edge < step.value_iterated_to());
            if let Some(count) = counts.get_mut(at) {
                *count += step.count_since_last_iteration();
            }
        }
        for at in 1..counts.len() {
            counts[at] += counts[at - 1];
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fold_into_edges_and_windows() {
        let mut all = Latency::default();
        all.record(40_000, 3);
        let before = all.clone();
        all.record(900_000, 2);
        all.record(u64::MAX / 2, 1);
        assert_eq!(all.count(), 6);
        assert_eq!(all.cumulative(&[50_000, 1_000_000]), [3, 5]);
        let window = all.since(&before);
        assert_eq!(window.cumulative(&[50_000, 1_000_000]), [0, 2]);
        assert!((895_000..=910_000).contains(&window.quantile_ns(0.5)));
    }
}
