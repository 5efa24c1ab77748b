//! Where the simulated market writes: one symbol's updates of one moment, integers made exact decimals at this edge.
//!
//! Bound kept here: nothing is stored; every call appends exactly one update.

use rust_decimal::Decimal;

use super::ladder::price_of;
use crate::market::{Body, Channel, Level, Phase, Side, Symbol, Time, Trade, TradeKind, Update};

/// Shares in a board lot on HOSE.
pub(super) const LOT: u64 = 100;

/// The output of one symbol at one moment.
pub(super) struct Tape<'a> {
    pub(super) out: &'a mut Vec<Update>,
    pub(super) time: Time,
    pub(super) symbol: Symbol,
}

impl Tape<'_> {
    /// Fields of the symbol's quote.
    pub(super) fn quote(&mut self, fields: &[(u8, Option<Decimal>)]) {
        self.out.push(Update::image(self.symbol, Channel::Quote, self.time, fields));
    }

    /// Fields of the symbol's index.
    pub(super) fn index(&mut self, fields: &[(u8, Option<Decimal>)]) {
        self.out.push(Update::image(self.symbol, Channel::Index, self.time, fields));
    }

    /// The absolute size of one level of the book.
    pub(super) fn level(&mut self, side: Side, rung: u32, lots: u32, reset: bool) {
        let level = Level { price: price(rung), size: shares(u64::from(lots)), side, reset };
        self.out.push(Update::new(self.symbol, self.time, Body::Level(level)));
    }

    /// A new trade; `side` is the aggressor's, none in an auction.
    pub(super) fn trade(&mut self, rung: u32, lots: u64, trade_id: u64, side: Option<Side>) {
        let trade = Trade {
            price: price(rung),
            size: shares(lots),
            trade_id,
            ref_trade_id: 0,
            source_seq: 0,
            side,
            kind: TradeKind::New,
        };
        self.out.push(Update::new(self.symbol, self.time, Body::Trade(trade)));
    }

    /// The symbol's new phase.
    pub(super) fn phase(&mut self, phase: Phase) {
        self.out.push(Update::new(self.symbol, self.time, Body::Phase(phase)));
    }
}

/// The price of a rung, in VND.
pub(super) fn price(rung: u32) -> Decimal {
    Decimal::from(price_of(rung))
}

/// Board lots as shares.
pub(super) fn shares(lots: u64) -> Decimal {
    Decimal::from(lots * LOT)
}

/// An amount of VND; past 96 bits (never reached within centuries) it is cut off there.
pub(super) fn amount(vnd: i128) -> Decimal {
    Decimal::try_from_i128_with_scale(vnd, 0).unwrap_or(Decimal::MAX)
}

/// A number of hundredths.
pub(super) fn hundredths(number: i128) -> Decimal {
    Decimal::new(number as i64, 2)
}

/// `numerator / denominator`, the half rounded away from zero; the denominator is positive.
pub(super) const fn div_round(numerator: i128, denominator: i128) -> i128 {
    let half = if numerator < 0 { -denominator } else { denominator };
    (2 * numerator + half) / (2 * denominator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_away_from_zero() {
        let cases = [(5, 2, 3), (-5, 2, -3), (4, 3, 1), (-4, 3, -1), (0, 7, 0), (7, 7, 1), (-1, 2, -1)];
        for (numerator, denominator, expected) in cases {
            assert_eq!(div_round(numerator, denominator), expected, "{numerator}/{denominator}");
        }
    }
}
