//! A reader of the simulated market that believes nothing: it keeps images and books and checks every claim.
//!
//! Bound kept here: it knows of the market only what a client would, and of the index only weights and divisor.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::{Decimal, RoundingStrategy};

use crate::market::{Body, Channel, Level, Phase, Side, Symbol, Time, Trade, Update, index, quote};
use crate::symbols::Symbols;
use crate::synthetic::ladder::{Band, price_of, rung_above, rung_below};
use crate::synthetic::members::MEMBERS;

/// What is known of one symbol.
#[derive(Default)]
pub(super) struct Row {
    pub(super) values: BTreeMap<u8, Decimal>,
    pub(super) phase: Option<Phase>,
    bids: BTreeMap<Decimal, Decimal>,
    asks: BTreeMap<Decimal, Decimal>,
    begun: bool,
    trade_id: u64,
    /// Trades of the day: how many shares, for how much, at which price last.
    shares: Decimal,
    amount: Decimal,
    last: Option<Decimal>,
    /// The last trade was an auction's: it has no aggressor.
    in_auction: bool,
    prices: BTreeSet<Decimal>,
    /// When a value of the image last became another.
    pub(super) changed: Time,
}

/// All symbols.
pub(super) struct Board {
    pub(super) rows: Vec<Row>,
    pub(super) index: Symbol,
    pub(super) members: Vec<Symbol>,
    /// Said in every failure: what to run to see it again.
    label: String,
    pub(super) trades: u64,
    pub(super) days: u32,
    date: Option<Decimal>,
}

macro_rules! ensure {
    ($board:expr, $symbol:expr, $holds:expr, $($what:tt)*) => {
        assert!($holds, "{} symbol {:?}: {}", $board.label, $symbol, format!($($what)*))
    };
}

impl Row {
    /// Everything that a client sees of it.
    fn seen(&self) -> impl PartialEq + use<> {
        let books = (self.bids.clone(), self.asks.clone());
        (self.values.clone(), books, self.trade_id, self.phase)
    }

    pub(super) fn value(&self, field: u8) -> Option<Decimal> {
        self.values.get(&field).copied()
    }
}

impl Board {
    pub(super) fn new(symbols: &Symbols, label: &str) -> Self {
        let find = |name: &str| symbols.find(name).unwrap_or_else(|| panic!("{name} is not listed"));
        Self {
            rows: (0..symbols.len()).map(|_| Row::default()).collect(),
            index: find("VN30"),
            members: MEMBERS.iter().map(|profile| find(profile.name)).collect(),
            label: label.to_owned(),
            trades: 0,
            days: 0,
            date: None,
        }
    }

    /// Takes what one call brought and checks every stock of which it spoke.
    pub(super) fn take(&mut self, updates: &[Update]) {
        let touched: BTreeSet<_> = updates.iter().map(|update| update.symbol).collect();
        let before: Vec<_> = touched.iter().map(|symbol| self.rows[symbol.index()].seen()).collect();
        for update in updates {
            self.apply(update);
        }
        let after: Vec<_> = touched.iter().map(|symbol| self.rows[symbol.index()].seen()).collect();
        assert!(before != after, "{}: nothing to be seen of {updates:?}", self.label);
        for symbol in touched {
            if symbol != self.index {
                self.check_quote(symbol);
            }
        }
    }

    fn apply(&mut self, update: &Update) {
        let symbol = update.symbol;
        match update.body {
            Body::Image { channel, len, nulls, numbers, values } => {
                let expected = if symbol == self.index { Channel::Index } else { Channel::Quote };
                ensure!(self, symbol, channel == expected, "an image of {channel:?}");
                for at in 0..len as usize {
                    let value = (nulls >> at & 1 == 0).then_some(values[at]);
                    self.set(symbol, numbers[at], value, update.time);
                }
                // The last fields of an index message: now it must agree with what the members have said so far.
                if symbol == self.index && numbers[..len as usize].contains(&index::FLOORS) {
                    self.check_index();
                }
            }
            Body::Trade(trade) => self.trade(symbol, &trade),
            Body::Level(level) => self.level(symbol, &level),
            Body::Phase(phase) => {
                self.rows[symbol.index()].phase = Some(phase);
                // No phase ends with an index that its members have left behind.
                if symbol == self.index {
                    self.check_index();
                }
            }
            Body::Bar(_) | Body::State(_) | Body::Missing { .. } | Body::Lost(_) | Body::Rewound => {
                panic!("{}: {update:?}", self.label)
            }
        }
    }

    fn set(&mut self, symbol: Symbol, field: u8, value: Option<Decimal>, time: Time) {
        let quote = symbol != self.index;
        if quote && field == quote::TRADING_DATE {
            self.begin_day(symbol, value);
        }
        let row = &mut self.rows[symbol.index()];
        let before = row.value(field);
        let grows = if quote { [quote::VOLUME, quote::TURNOVER] } else { [index::VOLUME, index::TURNOVER] };
        if grows.contains(&field) && value != Some(Decimal::ZERO) {
            ensure!(self, symbol, value >= before, "field {field} fell from {before:?} to {value:?}");
        }
        if before != value {
            row.changed = time;
        }
        match value {
            Some(value) => row.values.insert(field, value),
            None => row.values.remove(&field),
        };
    }

    fn begin_day(&mut self, symbol: Symbol, date: Option<Decimal>) {
        if self.date != date {
            ensure!(self, symbol, date > self.date, "{date:?} after {:?}", self.date);
            self.date = date;
            self.days += 1;
        }
        let row = &mut self.rows[symbol.index()];
        if let Some(close) = row.last.take() {
            ensure!(
                self,
                symbol,
                row.value(quote::REFERENCE) == Some(close),
                "the reference is not the last close"
            );
        }
        (row.shares, row.amount) = (Decimal::ZERO, Decimal::ZERO);
        row.prices.clear();
        // The index has no date: its day is that of its members.
        self.rows[self.index.index()].values.remove(&index::OPEN);
    }

    fn trade(&mut self, symbol: Symbol, trade: &Trade) {
        let row = &mut self.rows[symbol.index()];
        ensure!(
            self,
            symbol,
            trade.trade_id == row.trade_id + 1,
            "trade {} after {}",
            trade.trade_id,
            row.trade_id
        );
        ensure!(self, symbol, trade.size > Decimal::ZERO && is_lots(trade.size), "a trade of {}", trade.size);
        row.trade_id = trade.trade_id;
        row.shares += trade.size;
        row.amount += trade.size * trade.price;
        row.last = Some(trade.price);
        row.in_auction = trade.side.is_none();
        row.prices.insert(trade.price);
        self.trades += 1;
    }

    fn level(&mut self, symbol: Symbol, level: &Level) {
        let row = &mut self.rows[symbol.index()];
        if level.reset {
            row.bids.clear();
            row.asks.clear();
            row.begun = true;
        }
        ensure!(self, symbol, row.begun, "a level before any reset");
        ensure!(self, symbol, is_lots(level.size), "a level of {}", level.size);
        let levels = if level.side == Side::Buy { &mut row.bids } else { &mut row.asks };
        if level.size.is_zero() {
            levels.remove(&level.price);
        } else {
            levels.insert(level.price, level.size);
        }
    }

    fn check_quote(&self, symbol: Symbol) {
        let row = &self.rows[symbol.index()];
        let Some(reference) = row.value(quote::REFERENCE) else {
            return ensure!(self, symbol, row.values.is_empty(), "values without a reference");
        };
        let band = Band::around(number(reference));
        ensure!(self, symbol, row.value(quote::CEILING) == Some(price_of(band.ceiling).into()), "ceiling");
        ensure!(self, symbol, row.value(quote::FLOOR) == Some(price_of(band.floor).into()), "floor");
        ensure!(self, symbol, row.value(quote::PREV_CLOSE) == Some(reference), "previous close");
        ensure!(self, symbol, row.value(quote::FOREIGN_ROOM) >= Some(Decimal::ZERO), "foreign room");
        let fields =
            [quote::LAST, quote::BID, quote::ASK, quote::OPEN, quote::HIGH, quote::LOW, quote::AUCTION_PRICE];
        let images = fields.iter().filter_map(|&field| row.value(field));
        for price in images.chain(row.bids.keys().copied()).chain(row.asks.keys().copied()) {
            let rung = rung_below(number(price));
            ensure!(self, symbol, rung == rung_above(number(price)), "{price} is off the tick table");
            ensure!(
                self,
                symbol,
                band.floor <= rung && rung <= band.ceiling,
                "{price} is outside of the band"
            );
        }
        let auction = matches!(row.phase, Some(Phase::Ato | Phase::Atc));
        ensure!(
            self,
            symbol,
            auction || row.value(quote::AUCTION_PRICE).is_none(),
            "an auction price in {:?}",
            row.phase
        );
        self.check_book(symbol, row);
        self.check_trades(symbol, row, reference);
    }

    fn check_book(&self, symbol: Symbol, row: &Row) {
        let (bid, ask) = (row.bids.last_key_value(), row.asks.first_key_value());
        for (best, price, size) in [(bid, quote::BID, quote::BID_SIZE), (ask, quote::ASK, quote::ASK_SIZE)] {
            let image = row.value(price).zip(row.value(size));
            ensure!(
                self,
                symbol,
                best.map(|(price, size)| (*price, *size)) == image,
                "book {best:?}, image {image:?}"
            );
        }
        if let (Some((bid, _)), Some((ask, _))) = (bid, ask) {
            ensure!(self, symbol, bid < ask, "bid {bid}, ask {ask}");
        }
        // What an auction has matched is gone; after the closing one no order comes that would hide it.
        if let (Some(Phase::PutThrough | Phase::Closed), Some(last)) =
            (row.phase, row.last.filter(|_| row.in_auction))
        {
            let left = bid.is_none_or(|(bid, _)| *bid <= last) && ask.is_none_or(|(ask, _)| *ask >= last);
            ensure!(self, symbol, left, "closed at {last}, bid {bid:?}, ask {ask:?}");
        }
        ensure!(self, symbol, row.bids.len() <= 10 && row.asks.len() <= 10, "too many levels");
    }

    fn check_trades(&self, symbol: Symbol, row: &Row, reference: Decimal) {
        ensure!(self, symbol, row.value(quote::LAST) == row.last, "last price and last trade");
        ensure!(self, symbol, row.value(quote::VOLUME) == Some(row.shares), "volume and trades");
        ensure!(self, symbol, row.value(quote::TURNOVER) == Some(row.amount), "turnover and trades");
        let extremes = (row.value(quote::HIGH), row.value(quote::LOW));
        ensure!(
            self,
            symbol,
            extremes == (row.prices.last().copied(), row.prices.first().copied()),
            "high and low"
        );
        let open = row.value(quote::OPEN);
        ensure!(
            self,
            symbol,
            open.is_some() == row.last.is_some() && open <= extremes.0 && open >= extremes.1,
            "open"
        );
        let change = row.last.map(|last| last - reference);
        ensure!(self, symbol, row.value(quote::CHANGE) == change, "change");
        let percent = change.map(|change| two_places(change * Decimal::ONE_HUNDRED / reference));
        ensure!(self, symbol, row.value(quote::CHANGE_PCT) == percent, "change in percent, not {percent:?}");
        let average = row.last.map(|_| two_places(row.amount / row.shares));
        ensure!(self, symbol, row.value(quote::AVERAGE) == average, "average, not {average:?}");
    }

    fn check_index(&self) {
        let (symbol, row) = (self.index, &self.rows[self.index.index()]);
        let Some(prev_close) = row.value(index::PREV_CLOSE) else { return };
        let total = |field: u8| {
            self.members.iter().filter_map(|m| self.rows[m.index()].value(field)).sum::<Decimal>()
        };
        let home: i64 = MEMBERS.iter().map(|profile| profile.home * profile.float).sum();
        let (mut value, mut up, mut down, mut ceilings, mut floors) = (Decimal::ZERO, 0, 0, 0, 0);
        for (member, profile) in self.members.iter().zip(&MEMBERS) {
            let row = &self.rows[member.index()];
            let reference = row.value(quote::REFERENCE);
            let last = row.value(quote::LAST).or(reference);
            value += last.unwrap_or_default() * Decimal::from(profile.float);
            up += i32::from(last > reference);
            down += i32::from(last < reference);
            ceilings += i32::from(last == row.value(quote::CEILING));
            floors += i32::from(last == row.value(quote::FLOOR));
        }
        let points = two_places(value / Decimal::from(home / 197_000) / Decimal::ONE_HUNDRED);
        let change = points - prev_close;
        for (field, expected) in [
            (index::LAST, points),
            (index::CHANGE, change),
            (index::CHANGE_PCT, two_places(change * Decimal::ONE_HUNDRED / prev_close)),
            (index::VOLUME, total(quote::VOLUME)),
            (index::TURNOVER, total(quote::TURNOVER)),
            (index::ADVANCES, up.into()),
            (index::DECLINES, down.into()),
            (index::UNCHANGED, (30 - up - down).into()),
            (index::CEILINGS, ceilings.into()),
            (index::FLOORS, floors.into()),
        ] {
            ensure!(
                self,
                symbol,
                row.value(field) == Some(expected),
                "field {field} is {:?}, not {expected}",
                row.value(field)
            );
        }
        if let Some(open) = row.value(index::OPEN) {
            let (high, low) = (row.value(index::HIGH), row.value(index::LOW));
            let within = |value| high >= Some(value) && low <= Some(value);
            ensure!(self, symbol, within(open) && within(points), "high {high:?}, low {low:?}");
        }
    }
}

fn number(price: Decimal) -> i64 {
    i64::try_from(price).unwrap_or_else(|why| panic!("{price}: {why}"))
}

fn is_lots(size: Decimal) -> bool {
    (size % Decimal::ONE_HUNDRED).is_zero()
}

fn two_places(value: Decimal) -> Decimal {
    value.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}
