//! The quick way through the commonest messages: the keys are expected in the order in which Binance writes them.
//!
//! Bound kept here: it answers only if every byte is as expected up to the end, and then exactly as the general way
//! would; on anything else it says nothing, and the general way decides (which is also where every error comes from).

use rust_decimal::Decimal;

use super::Market;
use super::fields::event_time;
use super::message::{Depth, Message, Ticker, Trade};
use crate::decimal;
use crate::market::{Level, Side, Time};

/// Reads a `trade`, `bookTicker` or `depthUpdate`, wrapped or not. The levels of the last are appended to `levels`,
/// where some may be left behind when it gives up.
pub(super) fn read<'a>(raw: &'a [u8], market: Market, levels: &mut Vec<Level>) -> Option<Message<'a>> {
    let mut scan = Scan(raw);
    let wrapped = scan.skip(b"{\"stream\":\"");
    if wrapped {
        scan.name()?;
        scan.expect(b",\"data\":")?;
    }
    let message = if scan.skip(b"{\"u\":") {
        ticker(&mut scan)?
    } else {
        scan.expect(b"{\"e\":\"")?;
        if scan.skip(b"bookTicker\",\"u\":") {
            ticker(&mut scan)?
        } else if scan.skip(b"trade\",\"E\":") {
            trade(&mut scan)?
        } else if scan.skip(b"depthUpdate\",\"E\":") {
            depth(&mut scan, market, levels)?
        } else {
            return None;
        }
    };
    if wrapped {
        scan.expect(b"}")?;
    }
    scan.0.is_empty().then_some(message)
}

fn ticker<'a>(scan: &mut Scan<'a>) -> Option<Message<'a>> {
    let update = scan.number()?;
    scan.expect(b",\"s\":\"")?;
    let symbol = scan.name()?;
    let bid = scan.decimal(b",\"b\":\"")?;
    let bid_size = scan.decimal(b",\"B\":\"")?;
    let ask = scan.decimal(b",\"a\":\"")?;
    let ask_size = scan.decimal(b",\"A\":\"")?;
    let mut time = None;
    if scan.skip(b",\"T\":") {
        time = Some(scan.time()?);
        scan.expect(b",\"E\":")?;
        scan.number()?;
    }
    scan.expect(b"}")?;
    Some(Message::Ticker(Ticker { symbol, update, bid, bid_size, ask, ask_size, time }))
}

fn trade<'a>(scan: &mut Scan<'a>) -> Option<Message<'a>> {
    scan.number()?;
    // USD-M has the time before the symbol, spot behind the size.
    let early = if scan.skip(b",\"T\":") { Some(scan.time()?) } else { None };
    scan.expect(b",\"s\":\"")?;
    let symbol = scan.name()?;
    scan.expect(b",\"t\":")?;
    let id = scan.number()?;
    let price = scan.decimal(b",\"p\":\"")?;
    let size = scan.decimal(b",\"q\":\"")?;
    let time = match early {
        Some(time) => {
            scan.expect(b",\"X\":\"")?;
            scan.name()?;
            time
        }
        None => {
            scan.expect(b",\"T\":")?;
            scan.time()?
        }
    };
    scan.expect(b",\"m\":")?;
    let side = if scan.flag()? { Side::Sell } else { Side::Buy };
    if scan.skip(b",\"M\":") {
        scan.flag()?;
    }
    scan.expect(b"}")?;
    Some(Message::Trade(Trade { symbol, aggregate: false, id, price, size, side, time: Some(time) }))
}

fn depth<'a>(scan: &mut Scan<'a>, market: Market, levels: &mut Vec<Level>) -> Option<Message<'a>> {
    let mut time = scan.time()?;
    if scan.skip(b",\"T\":") {
        time = scan.time()?;
    }
    scan.expect(b",\"s\":\"")?;
    let symbol = scan.name()?;
    scan.expect(b",\"U\":")?;
    let first = scan.number()?;
    scan.expect(b",\"u\":")?;
    let last = scan.number()?;
    let after = match market {
        Market::Spot => first.saturating_sub(1),
        Market::UsdM => {
            scan.expect(b",\"pu\":")?;
            scan.number()?
        }
    };
    if last < first || last <= after {
        return None;
    }
    scan.expect(b",\"b\":[")?;
    scan.levels(Side::Buy, levels)?;
    scan.expect(b",\"a\":[")?;
    scan.levels(Side::Sell, levels)?;
    scan.expect(b"}")?;
    Some(Message::Depth(Depth { symbol, after, last, time: Some(time) }))
}

/// What is left of the message.
struct Scan<'a>(&'a [u8]);

impl<'a> Scan<'a> {
    /// Steps over `text` if it comes next.
    fn skip(&mut self, text: &[u8]) -> bool {
        match self.0.strip_prefix(text) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, text: &[u8]) -> Option<()> {
        self.skip(text).then_some(())
    }

    fn advance(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.get(bytes..)?;
        Some(())
    }

    /// A text up to and with its closing quote: plain ASCII, nothing escaped.
    fn name(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|b| !matches!(b, b' '..=b'~') || matches!(b, b'"' | b'\\'))?;
        let (name, rest) = self.0.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        std::str::from_utf8(name).ok()
    }

    fn number(&mut self) -> Option<u64> {
        let (value, used) = decimal::leading_whole(self.0)?;
        self.advance(used)?;
        // A fraction or an exponent would make it another number.
        matches!(self.0.first(), Some(b',' | b'}')).then_some(value)
    }

    fn time(&mut self) -> Option<Time> {
        event_time(self.number()?)
    }

    fn flag(&mut self) -> Option<bool> {
        if self.skip(b"true") {
            Some(true)
        } else {
            self.expect(b"false")?;
            Some(false)
        }
    }

    /// A decimal between `before` and a closing quote.
    fn decimal(&mut self, before: &[u8]) -> Option<Decimal> {
        self.expect(before)?;
        let (value, used) = decimal::leading(self.0)?;
        self.advance(used)?;
        self.expect(b"\"")?;
        Some(value)
    }

    /// Levels up to and with the closing bracket of their array.
    fn levels(&mut self, side: Side, out: &mut Vec<Level>) -> Option<()> {
        if self.skip(b"]") {
            return Some(());
        }
        loop {
            let price = self.decimal(b"[\"")?;
            let size = self.decimal(b",\"")?;
            out.push(Level { price, size, side, reset: false });
            if self.skip(b"]]") {
                return Some(());
            }
            self.expect(b"],")?;
        }
    }
}
