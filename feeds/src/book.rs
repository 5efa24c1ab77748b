//! placeholder until the real book lands.
use crate::market::{Level, Side};
use rust_decimal::Decimal;
use std::collections::BTreeMap;
/// A book.
#[derive(Debug, Default)]
pub struct Book {
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
}
impl Book {
    /// Applies.
    pub fn apply(&mut self, level: &Level) {
        if level.reset {
            self.bids.clear();
            self.asks.clear();
        }
        let side = if level.side == Side::Buy { &mut self.bids } else { &mut self.asks };
        if level.size.is_zero() {
            side.remove(&level.price);
        } else {
            side.insert(level.price, level.size);
        }
    }
    /// Best first.
    pub fn bids(&self) -> impl Iterator<Item = (Decimal, Decimal)> + '_ {
        self.bids.iter().rev().map(|(p, s)| (*p, *s))
    }
    /// Best first.
    pub fn asks(&self) -> impl Iterator<Item = (Decimal, Decimal)> + '_ {
        self.asks.iter().map(|(p, s)| (*p, *s))
    }
}
