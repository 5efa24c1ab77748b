//! Binance's spot and USD-M market streams: trades, best bid and ask, daily figures and the order book.
//!
//! Bounds kept here: no memory per message once warm (the parser's buffers, its tape and the list of levels are used
//! again); what is held back until a book is in sync is bounded in [`sync`], the symbols in [`instruments`].

mod fields;
mod message;
mod scan;
mod sync;
mod instruments;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rust_decimal::Decimal;
use simd_json::{Buffers, Tape};

use self::instruments::{Instrument, Instruments};
use self::message::{Day, Depth, Message, Snapshot, Ticker, Trade};
use self::sync::Event;
use crate::feed::{DecodeError, Feed, Skipped, Want};
use crate::market::{Body, Channel, FeedId, Level, Time, TradeKind, Update, quote};
use crate::symbols::Symbols;

/// Which of the venue's markets: they number the changes of a book differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Market {
    /// Spot.
    Spot,
    /// Futures margined in USDT or USDC.
    UsdM,
}

/// A decoder of raw and combined streams, and of REST depth snapshots.
///
/// Trades come as `trade` or as `aggTrade`: a symbol that has both is told by its `trade`s alone. Numbers that are
/// missing between two trades of the same kind are reported as [`Body::Missing`], and a number seen before is dropped.
///
/// A depth snapshot names no symbol. Handed to [`Feed::decode`] it is taken for the only symbol that waits for one, or
/// for the only one known; a live connection, which knows whose it fetched, calls [`Binance::snapshot`].
pub struct Binance {
    market: Market,
    instruments: Instruments,
    skipped: Skipped,
    buffers: Buffers,
    tape: Tape<'static>,
    levels: Vec<Level>,
    /// Some symbol may want a picture of its book: without it there is no need to look.
    wanting: bool,
}

/// The raw bytes that the buffers are made for at first; a longer message makes them grow once.
const MESSAGE_BYTES: usize = 16 * 1024;

impl Binance {
    /// A decoder that lists the symbol `S` of the venue as `prefix` + `S`.
    pub fn new(market: Market, symbols: Arc<Symbols>, feed: FeedId, prefix: &str) -> Self {
        Self {
            market,
            instruments: Instruments::new(symbols, feed, prefix),
            skipped: Skipped::default(),
            buffers: Buffers::new(MESSAGE_BYTES),
            tape: Tape(Vec::new()),
            levels: Vec::new(),
            wanting: false,
        }
    }

    /// Decodes the depth snapshot that was fetched for `name`, the venue's own name of a symbol.
    pub fn snapshot(
        &mut self,
        name: &str,
        raw: &mut [u8],
        arrival: Time,
        out: &mut Vec<Update>,
    ) -> Result<(), DecodeError> {
        self.parse(raw, |feed, message| match message {
            Message::Snapshot(snapshot) => feed.book(Some(name), snapshot, arrival, out),
            _ => Err(DecodeError(format!(
                "binance depth snapshot of {name}: expected an object with lastUpdateId"
            ))),
        })
    }

    /// Parses `raw` on the buffers kept for it and hands the message to `act`.
    fn parse(
        &mut self,
        raw: &mut [u8],
        act: impl FnOnce(&mut Self, Message<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        self.levels.clear();
        let read = match simd_json::fill_tape(raw, &mut self.buffers, &mut tape) {
            Ok(()) => message::read(&tape.0, self.market, &mut self.levels),
            Err(error) => Err(DecodeError(format!("binance message is no JSON: {error}"))),
        };
        let done = read.and_then(|message| act(self, message));
        self.tape = tape.reset();
        done
    }

    fn apply(
        &mut self,
        message: Message<'_>,
        arrival: Time,
        out: &mut Vec<Update>,
    ) -> Result<(), DecodeError> {
        match message {
            Message::Trade(trade) => self.trade(&trade, arrival, out),
            Message::Ticker(ticker) => self.ticker(&ticker, arrival, out),
            Message::Day(day) => self.day(&day, arrival, out),
            Message::Kline(kline) => {
                let Some(known) = self.instruments.named(kline.symbol) else { return Ok(()) };
                out.push(Update::new(known.symbol, kline.time.unwrap_or(arrival), Body::Bar(kline.bar)));
            }
            Message::Depth(depth) => self.depth(&depth, arrival, out),
            Message::Snapshot(snapshot) => return self.book(None, snapshot, arrival, out),
            Message::Unknown => self.skipped.unknown += 1,
        }
        Ok(())
    }

    fn trade(&mut self, trade: &Trade<'_>, arrival: Time, out: &mut Vec<Update>) {
        let Some(known) = self.instruments.named(trade.symbol) else { return };
        // Both kinds tell of the same deals: counting both would double the volume.
        let told = trade.aggregate && known.trade.is_some();
        let newest = if trade.aggregate { &mut known.aggregate } else { &mut known.trade };
        if told || newest.is_some_and(|newest| trade.id <= newest) {
            self.skipped.old += 1;
            return;
        }
        let lost = newest.map_or(0, |newest| trade.id - newest - 1);
        *newest = Some(trade.id);
        let (symbol, time) = (known.symbol, trade.time.unwrap_or(arrival));
        if lost > 0 {
            out.push(Update::new(symbol, time, Body::missing(Channel::Trade, lost)));
        }
        let body = crate::market::Trade {
            price: trade.price,
            size: trade.size,
            trade_id: trade.id,
            ref_trade_id: 0,
            source_seq: 0,
            side: Some(trade.side),
            kind: TradeKind::New,
        };
        out.push(Update::new(symbol, time, Body::Trade(body)));
        out.push(image(known, time, &[(quote::LAST, trade.price), (quote::LAST_SIZE, trade.size)]));
    }

    fn ticker(&mut self, ticker: &Ticker<'_>, arrival: Time, out: &mut Vec<Update>) {
        let Some(known) = self.instruments.named(ticker.symbol) else { return };
        if known.ticker.is_some_and(|newest| ticker.update <= newest) {
            self.skipped.old += 1;
            return;
        }
        known.ticker = Some(ticker.update);
        let fields = [
            (quote::BID, ticker.bid),
            (quote::BID_SIZE, ticker.bid_size),
            (quote::ASK, ticker.ask),
            (quote::ASK_SIZE, ticker.ask_size),
        ];
        out.push(image(known, ticker.time.unwrap_or(arrival), &fields));
    }

    fn day(&mut self, day: &Day<'_>, arrival: Time, out: &mut Vec<Update>) {
        let Some(known) = self.instruments.named(day.symbol) else { return };
        let time = day.time.unwrap_or(arrival);
        let prices = [(quote::OPEN, day.open), (quote::HIGH, day.high), (quote::LOW, day.low)];
        out.push(image(known, time, &prices));
        let totals = [(quote::VOLUME, day.volume), (quote::TURNOVER, day.turnover), (quote::LAST, day.last)];
        // Sent once a second, its last price would set back the one of a newer trade.
        let traded = known.trade.is_some() || known.aggregate.is_some();
        out.push(image(known, time, if traded { &totals[..2] } else { &totals }));
    }

    fn depth(&mut self, depth: &Depth<'_>, arrival: Time, out: &mut Vec<Update>) {
        let Some(known) = self.instruments.named(depth.symbol) else { return };
        let event = Event { after: depth.after, last: depth.last, time: depth.time.unwrap_or(arrival) };
        let (symbol, skipped) = (known.symbol, &mut self.skipped);
        known.wanted |= known.sync.event(self.market, symbol, event, &self.levels, skipped, out);
        self.wanting |= known.wanted;
    }

    fn book(
        &mut self,
        name: Option<&str>,
        snapshot: Snapshot,
        arrival: Time,
        out: &mut Vec<Update>,
    ) -> Result<(), DecodeError> {
        let known = match name {
            Some(name) => match self.instruments.named(name) {
                Some(known) => known,
                None => return Ok(()),
            },
            None => self
                .instruments
                .unnamed()
                .map_err(|text| DecodeError(format!("binance depth snapshot: {text}")))?,
        };
        let at = (snapshot.last, snapshot.time.unwrap_or(arrival));
        let (symbol, skipped) = (known.symbol, &mut self.skipped);
        let again = known.sync.snapshot(self.market, symbol, at, &self.levels, skipped, out);
        // Whatever was still to be asked for has come, unless it was too old.
        known.wanted = again;
        self.wanting |= again;
        Ok(())
    }
}

impl Feed for Binance {
    fn decode(&mut self, raw: &mut [u8], arrival: Time, out: &mut Vec<Update>) -> Result<(), DecodeError> {
        self.levels.clear();
        match scan::read(raw, self.market, &mut self.levels) {
            Some(message) => self.apply(message, arrival, out),
            None => self.parse(raw, |feed, message| feed.apply(message, arrival, out)),
        }
    }

    fn wants(&mut self) -> Option<Want> {
        if !self.wanting {
            return None;
        }
        let name = self.instruments.take_wanted();
        self.wanting = name.is_some();
        name.map(Want::BookSnapshot)
    }

    fn skipped(&self) -> Skipped {
        Skipped { refused: self.instruments.refused(), ..self.skipped }
    }
}

/// An update of up to four fields that all have a value.
fn image(of: &Instrument, time: Time, fields: &[(u8, Decimal)]) -> Update {
    let mut some = [(0, None); 4];
    for (to, (number, value)) in some.iter_mut().zip(fields) {
        *to = (*number, Some(*value));
    }
    Update::image(of.symbol, Channel::Quote, time, &some[..fields.len().min(4)])
}
