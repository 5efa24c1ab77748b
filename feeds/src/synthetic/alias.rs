//! Drawing from a fixed discrete distribution in constant time: the alias method of Walker, built as Vose does.
//!
//! Bound kept here: a draw is one multiplication, one comparison and one table look-up, whatever the number of choices.

/// A distribution over `0..len`.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    /// For each column: below this (of 2^32) the draw is the column itself, else its alias.
    columns: Vec<(u32, u32)>,
}

impl Alias {
    /// With chances in proportion to `weights`, which must be positive and at most 2^32 many.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        // Each column has room for exactly one; what a light one leaves free is filled up by a heavy one.
        let mut share: Vec<f64> =
            weights.iter().map(|weight| weight * weights.len() as f64 / total).collect();
        let mut columns: Vec<_> = (0..weights.len() as u32).map(|own| (u32::MAX, own)).collect();
        let (mut light, mut heavy): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&column| share[column] < 1.0);
        while let (Some(small), Some(&large)) = (light.pop(), heavy.last()) {
            columns[small] = ((share[small] * 4_294_967_296.0) as u32, large as u32);
            share[large] -= 1.0 - share[small];
            if share[large] < 1.0 {
                heavy.pop();
                light.push(large);
            }
        }
        Self { columns }
    }

    /// The `1/(rank + 1)^exponent` distribution over `len` ranks.
    pub(super) fn zipf(len: usize, exponent: f64) -> Self {
        let weights: Vec<_> = (1..=len).map(|rank| (rank as f64).powf(-exponent)).collect();
        Self::new(&weights)
    }

    /// The choice that belongs to 64 random bits.
    pub(super) fn draw(&self, bits: u64) -> usize {
        let column = (((bits >> 32) * self.columns.len() as u64) >> 32) as usize;
        let (below, alias) = self.columns[column];
        if (bits as u32) < below { column } else { alias as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_come_in_proportion_to_the_weights() {
        let mut rng = fastrand::Rng::with_seed(11);
        for (name, alias, weights) in [
            ("three", Alias::new(&[1.0, 5.0, 2.0]), vec![1.0, 5.0, 2.0]),
            ("one", Alias::new(&[3.0]), vec![3.0]),
            ("flat", Alias::zipf(7, 0.0), vec![1.0; 7]),
            ("zipf", Alias::zipf(100, 1.0), (1..=100).map(|rank| 1.0 / f64::from(rank)).collect()),
        ] {
            let (mut counts, draws) = (vec![0_u32; weights.len()], 1_000_000);
            for _ in 0..draws {
                counts[alias.draw(rng.u64(..))] += 1;
            }
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.into_iter().zip(&weights) {
                let expected = f64::from(draws) * weight / total;
                let off = (f64::from(count) - expected).abs();
                assert!(off <= 5.0 * expected.sqrt() + 1.0, "{name}: {count} instead of {expected}");
            }
        }
    }
}
