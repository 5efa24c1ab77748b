//! An order book by price level: what a feed's [`Level`]s add up to.
//!
//! Bound kept here: at most `levels_max` levels a side; what would lie beyond the worst of them is dropped and counted.

use rust_decimal::Decimal;

use crate::market::{Level, Side};

/// How many levels a side of a book holds unless it is told otherwise.
pub const LEVELS_MAX: usize = 5_000;

/// Both sides of a book.
#[derive(Clone, Debug)]
pub struct Book {
    bids: Half,
    asks: Half,
    levels_max: usize,
    dropped: u64,
}

/// One side, sorted so that the best price stands last: most changes are near it and move only a few others.
///
/// Measured on a recorded hour's worth of BTCUSDT changes (see `benches/book.rs`) against two `BTreeMap`s.
#[derive(Clone, Debug, Default)]
struct Half(Vec<Row>);

#[derive(Clone, Copy, Debug)]
struct Row {
    rank: Rank,
    price: Decimal,
    size: Decimal,
}

/// The price as a whole number of 10^-8, rounded down, and turned round for asks so that better is greater.
/// Comparing two of these is one instruction; only equal ones need their decimals compared.
type Rank = i64;

impl Book {
    /// An empty book that holds at most `levels_max` levels a side.
    pub const fn new(levels_max: usize) -> Self {
        Self { bids: Half(Vec::new()), asks: Half(Vec::new()), levels_max, dropped: 0 }
    }

    /// Makes one change. A removal of a level that is not there is no fault: venues send them.
    pub fn apply(&mut self, level: &Level) {
        if level.reset {
            self.bids.0.clear();
            self.asks.0.clear();
        }
        let half = match level.side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        };
        let found = half.find(level.side, level.price);
        match found {
            Ok(at) if level.size.is_zero() => drop(half.0.remove(at)),
            Ok(at) => half.0[at].size = level.size,
            Err(_) if level.size.is_zero() => {}
            Err(at) => {
                let full = half.0.len() >= self.levels_max;
                self.dropped += u64::from(full);
                if full && at == 0 {
                    return;
                }
                let row = Row { rank: rank(level.side, level.price), price: level.price, size: level.size };
                if full {
                    // The worst makes room: everything between it and the new one moves down by one.
                    half.0.copy_within(1..at, 0);
                    half.0[at - 1] = row;
                } else {
                    half.0.insert(at, row);
                }
            }
        }
    }

    /// The best price of a side and its size.
    pub fn best(&self, side: Side) -> Option<(Decimal, Decimal)> {
        self.levels(side).next()
    }

    /// Price and size of every level of a side, best first.
    pub fn levels(&self, side: Side) -> impl ExactSizeIterator<Item = (Decimal, Decimal)> + '_ {
        self.half(side).0.iter().rev().map(|row| (row.price, row.size))
    }

    /// The best `n` levels of a side, or all of them if there are fewer.
    pub fn top(&self, side: Side, n: usize) -> impl ExactSizeIterator<Item = (Decimal, Decimal)> + '_ {
        self.levels(side).take(n)
    }

    /// How many levels a side has.
    pub fn len(&self, side: Side) -> usize {
        self.half(side).0.len()
    }

    /// Whether neither side has a level.
    pub fn is_empty(&self) -> bool {
        self.bids.0.is_empty() && self.asks.0.is_empty()
    }

    /// How many levels were dropped so far because a side was full.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    const fn half(&self, side: Side) -> &Half {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }
}

impl Default for Book {
    fn default() -> Self {
        Self::new(LEVELS_MAX)
    }
}

impl Half {
    /// Where the price stands, or where it belongs.
    fn find(&self, side: Side, price: Decimal) -> Result<usize, usize> {
        let rank = rank(side, price);
        self.0.binary_search_by(|row| {
            row.rank.cmp(&rank).then_with(|| match side {
                Side::Buy => row.price.cmp(&price),
                Side::Sell => price.cmp(&row.price),
            })
        })
    }
}

/// Ten to the power of the index: what a mantissa is multiplied by to count in 10^-8.
const TENS: [i128; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

fn rank(side: Side, price: Decimal) -> Rank {
    let (mantissa, scale) = (price.mantissa(), price.scale() as usize);
    let units = match TENS.get(8usize.wrapping_sub(scale)) {
        Some(ten) => mantissa.saturating_mul(*ten),
        None => mantissa.div_euclid(10i128.pow(scale as u32 - 8)),
    };
    // Saturation keeps the order: equal ranks are told apart by their decimals. One less than the whole range, so
    // that turning it round cannot overflow.
    let rank = units.clamp(i128::from(-i64::MAX), i128::from(i64::MAX)) as i64;
    match side {
        Side::Buy => rank,
        Side::Sell => -rank,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn level(side: Side, price: &str, size: &str) -> Level {
        let number = |text| crate::decimal::exact(text).expect("a decimal");
        Level { price: number(price), size: number(size), side, reset: false }
    }

    fn shown(book: &Book, side: Side) -> Vec<String> {
        book.levels(side).map(|(price, size)| format!("{price}x{size}")).collect()
    }

    #[test]
    fn levels_stand_best_first_and_zero_removes() {
        let mut book = Book::default();
        for (price, size) in [("10", "1"), ("10.5", "2"), ("9", "3"), ("10.50", "4"), ("9", "0"), ("7", "0")]
        {
            book.apply(&level(Side::Buy, price, size));
            book.apply(&level(Side::Sell, price, size));
        }
        assert_eq!(shown(&book, Side::Buy), ["10.5x4", "10x1"]);
        assert_eq!(shown(&book, Side::Sell), ["10x1", "10.5x4"]);
        assert_eq!(book.best(Side::Sell), book.top(Side::Sell, 1).next());
        book.apply(&Level { reset: true, ..level(Side::Buy, "1", "1") });
        assert_eq!((book.len(Side::Buy), book.len(Side::Sell), book.is_empty()), (1, 0, false));
        book.apply(&Level { reset: true, ..level(Side::Buy, "0", "0") });
        assert!(book.is_empty());
    }

    #[test]
    fn a_full_side_keeps_the_best_and_counts_the_rest() {
        let mut book = Book::new(2);
        for price in ["5", "3", "4", "1", "6"] {
            book.apply(&level(Side::Buy, price, "1"));
            book.apply(&level(Side::Sell, price, "1"));
        }
        assert_eq!(shown(&book, Side::Buy), ["6x1", "5x1"]);
        assert_eq!(shown(&book, Side::Sell), ["1x1", "3x1"]);
        assert_eq!(book.dropped(), 6);
        let mut none = Book::new(0);
        none.apply(&level(Side::Buy, "1", "1"));
        assert!(none.is_empty() && none.dropped() == 1);
    }

    #[test]
    fn order_holds_where_the_rank_alone_cannot_tell() {
        let mut rng = fastrand::Rng::with_seed(3);
        for side in [Side::Buy, Side::Sell] {
            let (mut book, mut model) = (Book::default(), BTreeMap::new());
            for _ in 0..5_000 {
                // Few distinct mantissas at every scale, some of them beyond the rank's range or finer than its unit.
                let mantissa = i128::from(rng.i64(-30..30)) * 10i128.pow(rng.u32(0..26));
                let price = Decimal::from_i128_with_scale(mantissa, rng.u32(0..=28));
                let size = Decimal::from(rng.u8(0..3));
                book.apply(&Level { price, size, side, reset: false });
                if size.is_zero() {
                    model.remove(&price)
                } else {
                    model.insert(price, size)
                };
            }
            let mut expected: Vec<_> = model.into_iter().collect();
            if side == Side::Buy {
                expected.reverse();
            }
            assert_eq!(book.levels(side).collect::<Vec<_>>(), expected);
        }
    }
}
