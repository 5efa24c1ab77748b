//! The order book of one simulated stock: at most ten levels a side, in rungs and board lots.
//!
//! Bounds kept here: never more than [`DEPTH`] levels a side, and the best bid is below the best ask; every change of
//! a level is told the moment it is made, so the levels a reader has are the whole book.

use rust_decimal::Decimal;

use super::tape::{Tape, price, shares};
use crate::market::{Side, quote};

/// Levels a side.
pub(super) const DEPTH: usize = 10;

/// One price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) rung: u32,
    pub(super) lots: u32,
}

/// Both sides, each best first.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    bids: Vec<Level>,
    asks: Vec<Level>,
    /// The best bid and ask as they were last told.
    shown: [Option<Level>; 2],
    /// The next level to be told begins a new book.
    begins: bool,
}

/// The other side.
pub(super) const fn opposite(side: Side) -> Side {
    match side {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
    }
}

impl Book {
    /// The levels of a side, best first.
    pub(super) fn levels(&self, side: Side) -> &[Level] {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    /// The best level of a side.
    pub(super) fn best(&self, side: Side) -> Option<Level> {
        self.levels(side).first().copied()
    }

    fn half(&mut self, side: Side) -> &mut Vec<Level> {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    /// Adds an order; where it makes one level too many, the worst is given up. It must not cross the other side.
    pub(super) fn add(&mut self, side: Side, rung: u32, lots: u32, tape: &mut Tape<'_>) {
        let levels = self.half(side);
        let at = match side {
            Side::Buy => levels.iter().position(|level| level.rung <= rung),
            Side::Sell => levels.iter().position(|level| level.rung >= rung),
        };
        let at = at.unwrap_or(levels.len());
        match levels.get_mut(at) {
            Some(level) if level.rung == rung => level.lots += lots,
            _ => levels.insert(at, Level { rung, lots }),
        }
        let lots = levels[at].lots;
        let given_up = if levels.len() > DEPTH { levels.pop() } else { None };
        let begins = std::mem::take(&mut self.begins);
        tape.level(side, rung, lots, begins);
        if let Some(worst) = given_up {
            tape.level(side, worst.rung, 0, false);
        }
    }

    /// Takes up to `lots` away from the level at `at` (0 is the best) and says how many, and at which price.
    pub(super) fn take(&mut self, side: Side, at: usize, lots: u32, tape: &mut Tape<'_>) -> Option<Level> {
        let levels = self.half(side);
        let level = levels.get_mut(at)?;
        let (rung, taken) = (level.rung, lots.min(level.lots));
        level.lots -= taken;
        let rest = level.lots;
        if rest == 0 {
            levels.remove(at);
        }
        tape.level(side, rung, rest, false);
        Some(Level { rung, lots: taken })
    }

    /// Removes what an auction at `rung` has executed: all bids above it and all asks below it.
    pub(super) fn uncross(&mut self, rung: u32, tape: &mut Tape<'_>) {
        while let Some(best) = self.best(Side::Buy).filter(|best| best.rung > rung) {
            self.take(Side::Buy, 0, best.lots, tape);
        }
        while let Some(best) = self.best(Side::Sell).filter(|best| best.rung < rung) {
            self.take(Side::Sell, 0, best.lots, tape);
        }
    }

    /// Empties the book and tells so: `rung` only fills the place of a price in that message.
    pub(super) fn reset(&mut self, rung: u32, tape: &mut Tape<'_>) {
        self.bids.clear();
        self.asks.clear();
        tape.level(Side::Buy, rung, 0, true);
    }

    /// The next order begins a new book.
    pub(super) fn begin(&mut self) {
        self.bids.clear();
        self.asks.clear();
        self.begins = true;
    }

    /// Tells those of the four fields of the best bid and ask that have changed.
    pub(super) fn show_best(&mut self, tape: &mut Tape<'_>) {
        let mut fields: [(u8, Option<Decimal>); 4] = [(0, None); 4];
        let mut len = 0;
        let numbers = [(Side::Buy, quote::BID, quote::BID_SIZE), (Side::Sell, quote::ASK, quote::ASK_SIZE)];
        for (side, price_field, size_field) in numbers {
            let (now, before) = (self.best(side), self.shown[side as usize]);
            if now.map(|level| level.rung) != before.map(|level| level.rung) {
                fields[len] = (price_field, now.map(|level| price(level.rung)));
                len += 1;
            }
            if now.map(|level| level.lots) != before.map(|level| level.lots) {
                fields[len] = (size_field, now.map(|level| shares(u64::from(level.lots))));
                len += 1;
            }
            self.shown[side as usize] = now;
        }
        if len > 0 {
            tape.quote(&fields[..len]);
        }
    }
}
