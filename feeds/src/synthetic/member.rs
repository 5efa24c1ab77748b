//! One simulated stock: what is fixed, what the day has brought, and the images that tell of it.
//!
//! Bounds kept here: volume and turnover only grow within a day, every price is a rung of the day's band, and each
//! image agrees with the trade that came just before it.

use rust_decimal::Decimal;

use super::book::Book;
use super::ladder::{Band, price_of, rung_below, rung_of_fair};
use super::tape::{LOT, Tape, amount, div_round, hundredths, price, shares};
use crate::calendar::Date;
use crate::market::{Side, Symbol, quote};

/// What is known of a member of the index before any trading.
pub(super) struct Profile {
    pub(super) name: &'static str,
    /// The price in VND around which the simulation wanders.
    pub(super) home: i64,
    /// Free-float shares in thousands: the weight in the index.
    pub(super) float: i64,
    /// How busy it is compared with the others.
    pub(super) activity: u32,
}

/// What has traded today.
#[derive(Clone, Debug, Default)]
pub(super) struct Today {
    pub(super) last: Option<u32>,
    open: Option<u32>,
    high: Option<u32>,
    low: Option<u32>,
    lots: u64,
    /// In VND.
    pub(super) turnover: i128,
    foreign_bought: u64,
    foreign_sold: u64,
    /// Size of the last trade, in lots.
    last_lots: u64,
}

/// The call auction that is open: the price and size at which it would match now.
#[derive(Clone, Copy, Debug)]
struct Auction {
    rung: u32,
    lots: u64,
}

/// One stock of the simulated market.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) symbol: Symbol,
    pub(super) reference: i64,
    pub(super) band: Band,
    pub(super) book: Book,
    pub(super) today: Today,
    /// Fair value, in rungs, within the band.
    pub(super) fair: f64,
    auction: Option<Auction>,
    trades: u64,
    /// Lots that foreigners may still buy, and may hold at most.
    foreign_room: u64,
    foreign_limit: u64,
}

impl Member {
    pub(super) fn new(symbol: Symbol, profile: &Profile) -> Self {
        // Foreigners may hold about a third of the float here, half of which is taken at the start.
        let foreign_limit = profile.float as u64 * 1_000 / LOT / 3;
        Self {
            symbol,
            reference: profile.home,
            band: Band::around(profile.home),
            book: Book::default(),
            today: Today::default(),
            fair: rung_of_fair(profile.home as f64),
            auction: None,
            trades: 0,
            foreign_room: foreign_limit / 2,
            foreign_limit,
        }
    }

    /// The price that counts for the index: the last one, or the reference until there is one.
    pub(super) fn price(&self) -> i64 {
        self.today.last.map_or(self.reference, price_of)
    }

    /// Shares traded today.
    pub(super) fn volume(&self) -> u64 {
        self.today.lots * LOT
    }

    /// The rung nearest to the fair value.
    pub(super) fn fair_rung(&self) -> u32 {
        self.band.clamp(self.fair.round() as i64)
    }

    /// Begins a day: yesterday's close is the reference, and every field says that nothing has happened yet.
    pub(super) fn open_day(&mut self, date: Date, tape: &mut Tape<'_>) {
        self.reference = self.price();
        self.band = Band::around(self.reference);
        self.today = Today::default();
        self.auction = None;
        let reference = Some(Decimal::from(self.reference));
        let zero = Some(Decimal::ZERO);
        tape.quote(&[
            (quote::REFERENCE, reference),
            (quote::CEILING, Some(price(self.band.ceiling))),
            (quote::FLOOR, Some(price(self.band.floor))),
            (quote::PREV_CLOSE, reference),
        ]);
        tape.quote(&[
            (quote::TRADING_DATE, Some(Decimal::from(date.yyyymmdd()))),
            (quote::VOLUME, zero),
            (quote::TURNOVER, zero),
            (quote::AVERAGE, None),
        ]);
        tape.quote(&[
            (quote::LAST, None),
            (quote::LAST_SIZE, None),
            (quote::CHANGE, None),
            (quote::CHANGE_PCT, None),
        ]);
        tape.quote(&[
            (quote::OPEN, None),
            (quote::HIGH, None),
            (quote::LOW, None),
            (quote::FOREIGN_ROOM, Some(shares(self.foreign_room))),
        ]);
        tape.quote(&[
            (quote::AUCTION_PRICE, None),
            (quote::AUCTION_VOLUME, None),
            (quote::FOREIGN_BUY, zero),
            (quote::FOREIGN_SELL, zero),
        ]);
        self.book.reset(rung_below(self.reference), tape);
        self.book.show_best(tape);
    }

    /// A trade: into the day's figures and onto the tape. [`Member::show_trades`] tells the image afterwards.
    pub(super) fn fill(&mut self, rung: u32, lots: u64, side: Option<Side>, tape: &mut Tape<'_>) {
        let today = &mut self.today;
        today.lots += lots;
        today.turnover += i128::from(price_of(rung)) * i128::from(lots * LOT);
        today.last = Some(rung);
        today.last_lots = lots;
        today.open = today.open.or(Some(rung));
        today.high = today.high.max(Some(rung));
        today.low = Some(today.low.map_or(rung, |low| low.min(rung)));
        self.trades += 1;
        tape.trade(rung, lots, self.trades, side);
    }

    /// Tells what trades have changed since the figures were `before`.
    pub(super) fn show_trades(&self, before: &Before, tape: &mut Tape<'_>) {
        let today = &self.today;
        let Some(last) = today.last else { return };
        tape.quote(&[
            (quote::LAST, Some(price(last))),
            (quote::LAST_SIZE, Some(shares(today.last_lots))),
            (quote::VOLUME, Some(shares(today.lots))),
            (quote::TURNOVER, Some(amount(today.turnover))),
        ]);
        let average = hundredths(div_round(today.turnover * 100, i128::from(self.volume().max(1))));
        if before.last == today.last {
            tape.quote(&[(quote::AVERAGE, Some(average))]);
        } else {
            let change = price_of(last) - self.reference;
            let percent = div_round(i128::from(change) * 10_000, i128::from(self.reference.max(1)));
            tape.quote(&[
                (quote::AVERAGE, Some(average)),
                (quote::CHANGE, Some(Decimal::from(change))),
                (quote::CHANGE_PCT, Some(hundredths(percent))),
            ]);
        }
        if (before.high, before.low) != (today.high, today.low) {
            tape.quote(&[
                (quote::OPEN, today.open.map(price)),
                (quote::HIGH, today.high.map(price)),
                (quote::LOW, today.low.map(price)),
            ]);
        }
    }

    /// What [`Member::show_trades`] compares with.
    pub(super) fn before(&self) -> Before {
        Before { last: self.today.last, high: self.today.high, low: self.today.low }
    }

    /// Foreigners take part: a buy needs room, a sale needs holdings, so the other one happens where it lacks.
    pub(super) fn foreign(&mut self, side: Side, lots: u64, tape: &mut Tape<'_>) {
        let lots = lots.min(self.foreign_limit / 2);
        let held = self.foreign_limit - self.foreign_room;
        let buys = if side == Side::Buy { self.foreign_room >= lots } else { held < lots };
        let (field, total) = if buys {
            self.foreign_room -= lots;
            self.today.foreign_bought += lots;
            (quote::FOREIGN_BUY, self.today.foreign_bought)
        } else {
            self.foreign_room += lots;
            self.today.foreign_sold += lots;
            (quote::FOREIGN_SELL, self.today.foreign_sold)
        };
        tape.quote(&[(field, Some(shares(total))), (quote::FOREIGN_ROOM, Some(shares(self.foreign_room)))]);
    }

    /// Opens a call auction around the fair value.
    pub(super) fn open_auction(&mut self) {
        self.auction = Some(Auction { rung: self.fair_rung(), lots: 0 });
    }

    /// An order of the call auction: it adds to what would match, and now and then moves the price to the fair value.
    pub(super) fn bid_in_auction(&mut self, rng: &mut fastrand::Rng, tape: &mut Tape<'_>) {
        let fair = self.fair_rung();
        let Some(auction) = &mut self.auction else { return };
        let first = auction.lots == 0;
        auction.lots += rng.u64(1..=60);
        let moves = auction.rung != fair && rng.u8(..4) == 0;
        if moves {
            auction.rung = if fair > auction.rung { auction.rung + 1 } else { auction.rung - 1 };
        }
        let volume = (quote::AUCTION_VOLUME, Some(shares(auction.lots)));
        if first || moves {
            tape.quote(&[(quote::AUCTION_PRICE, Some(price(auction.rung))), volume]);
        } else {
            tape.quote(&[volume]);
        }
    }

    /// Ends the call auction with its one match, if any order came.
    pub(super) fn match_auction(&mut self, tape: &mut Tape<'_>) {
        let Some(auction) = self.auction.take().filter(|auction| auction.lots > 0) else { return };
        let before = self.before();
        self.fill(auction.rung, auction.lots, None, tape);
        self.show_trades(&before, tape);
        tape.quote(&[(quote::AUCTION_PRICE, None), (quote::AUCTION_VOLUME, None)]);
        self.book.uncross(auction.rung, tape);
        self.book.show_best(tape);
    }
}

/// The figures before some trades.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    last: Option<u32>,
    high: Option<u32>,
    low: Option<u32>,
}
