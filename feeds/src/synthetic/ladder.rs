//! The price ladder of HOSE stocks: every permitted price is a rung with a number, so a book works in small integers.
//!
//! Bound kept here: every price that leaves the simulated market is `price_of` some rung, hence exact and on tick.

use rust_decimal::Decimal;

use crate::symbols::Steps;

/// Steps of 10 VND below this price, of 50 up to the next.
const MIDDLE: i64 = 10_000;
/// Steps of 100 VND from this price on.
const UPPER: i64 = 50_000;
/// The rung of [`MIDDLE`].
const MIDDLE_RUNG: u32 = 1_000;
/// The rung of [`UPPER`].
const UPPER_RUNG: u32 = 1_800;

/// The widths of the steps, from price to price.
pub(super) fn steps() -> Steps {
    let steps = [(0, 10), (MIDDLE, 50), (UPPER, 100)];
    Steps::new(&steps.map(|(from, width)| (Decimal::from(from), Decimal::from(width))))
}

/// The price of a rung in VND.
pub(super) const fn price_of(rung: u32) -> i64 {
    let rung = rung as i64;
    if rung < MIDDLE_RUNG as i64 {
        rung * 10
    } else if rung < UPPER_RUNG as i64 {
        MIDDLE + (rung - MIDDLE_RUNG as i64) * 50
    } else {
        UPPER + (rung - UPPER_RUNG as i64) * 100
    }
}

/// The highest rung at or below `price`; 0 for a price below nothing.
pub(super) const fn rung_below(price: i64) -> u32 {
    if price < 0 {
        0
    } else if price < MIDDLE {
        (price / 10) as u32
    } else if price < UPPER {
        MIDDLE_RUNG + ((price - MIDDLE) / 50) as u32
    } else {
        UPPER_RUNG + ((price - UPPER) / 100) as u32
    }
}

/// The lowest rung at or above `price`.
pub(super) const fn rung_above(price: i64) -> u32 {
    let below = rung_below(price);
    if price_of(below) < price { below + 1 } else { below }
}

/// Where `price` stands between rungs, for the fair value alone: it never becomes a price without being rounded.
pub(super) fn rung_of_fair(price: f64) -> f64 {
    if price < MIDDLE as f64 {
        price / 10.0
    } else if price < UPPER as f64 {
        f64::from(MIDDLE_RUNG) + (price - MIDDLE as f64) / 50.0
    } else {
        f64::from(UPPER_RUNG) + (price - UPPER as f64) / 100.0
    }
}

/// The rungs between which a stock may trade today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) floor: u32,
    pub(super) ceiling: u32,
}

impl Band {
    /// 7 % around `reference`: the ceiling rounded down to a tick, the floor rounded up.
    pub(super) const fn around(reference: i64) -> Self {
        Self {
            floor: rung_above((reference * 93 + 99).div_euclid(100)),
            ceiling: rung_below((reference * 107).div_euclid(100)),
        }
    }

    /// `rung`, or the nearest within the band.
    pub(super) fn clamp(self, rung: i64) -> u32 {
        rung.clamp(i64::from(self.floor), i64::from(self.ceiling)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_and_prices_are_one_to_one_and_on_the_tick_table() {
        let (steps, mut before) = (steps(), -10);
        for rung in 0..4_000 {
            let price = price_of(rung);
            let tick = if before < 10_000 {
                10
            } else if before < 50_000 {
                50
            } else {
                100
            };
            assert_eq!(price - before, tick, "the step up from {before}");
            assert_eq!(steps.at(Decimal::from(before)), Decimal::from(tick));
            assert_eq!((rung_below(price), rung_above(price)), (rung, rung));
            assert_eq!((rung_below(price + 1), rung_above(price + 1)), (rung, rung + 1));
            assert_eq!(rung_of_fair(price as f64), f64::from(rung));
            before = price;
        }
    }

    #[test]
    fn a_band_may_cross_from_one_tick_to_another() {
        let prices = |reference| {
            let band = Band::around(reference);
            (price_of(band.ceiling), price_of(band.floor))
        };
        assert_eq!(prices(49_000), (52_400, 45_600));
        assert_eq!(prices(9_900), (10_550, 9_210));
        // SSI and ACB of the messages in section 1.4 and the iBoard frame.
        assert_eq!(prices(25_000), (26_750, 23_250));
    }

    #[test]
    fn bands_are_those_that_the_exchange_published() {
        let Some(text) = crate::synthetic::tests::real_feed("vietnam/price_bands_2026-08.csv") else {
            return;
        };
        let mut checked = 0;
        for row in text.lines().skip(1) {
            let cells: Vec<_> = row.split(',').collect();
            let [symbol, "HOSE", "2", reference, ceiling, floor] = cells[..] else { continue };
            let number = |text: &str| text.parse::<i64>().expect("a price of the file");
            let band = Band::around(number(reference));
            assert_eq!(
                (price_of(band.ceiling), price_of(band.floor)),
                (number(ceiling), number(floor)),
                "{symbol}"
            );
            checked += 1;
        }
        assert!(checked >= 2, "only {checked} HOSE stocks in the file");
    }
}
