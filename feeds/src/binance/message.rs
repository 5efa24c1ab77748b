//! What a Binance message says, read from simd-json's tape before anything is done about it.
//!
//! Bound kept here: a message is read whole or not at all, so an error leaves every state as it was.

use rust_decimal::Decimal;
use simd_json::Node;

use super::Market;
use super::fields::Fields;
use crate::feed::DecodeError;
use crate::market::{Bar, Channel, Level, Side, Time};

/// One message; texts are borrowed from the raw bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Message<'a> {
    Trade(Trade<'a>),
    Ticker(Ticker<'a>),
    Day(Day<'a>),
    Kline(Kline<'a>),
    /// A change of the book; its levels were appended to the list given along.
    Depth(Depth<'a>),
    /// A whole book, likewise; it names no symbol.
    Snapshot(Snapshot),
    /// An acknowledgement or a kind that has no place here.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trade<'a> {
    pub(super) symbol: &'a str,
    /// Several fills of one order in one message (`aggTrade`), numbered apart from single trades.
    pub(super) aggregate: bool,
    pub(super) id: u64,
    pub(super) price: Decimal,
    pub(super) size: Decimal,
    /// The side of the aggressor.
    pub(super) side: Side,
    pub(super) time: Option<Time>,
}

/// Best bid and ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ticker<'a> {
    pub(super) symbol: &'a str,
    pub(super) update: u64,
    pub(super) bid: Decimal,
    pub(super) bid_size: Decimal,
    pub(super) ask: Decimal,
    pub(super) ask_size: Decimal,
    pub(super) time: Option<Time>,
}

/// Figures of the last 24 hours.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Day<'a> {
    pub(super) symbol: &'a str,
    pub(super) last: Decimal,
    pub(super) open: Decimal,
    pub(super) high: Decimal,
    pub(super) low: Decimal,
    pub(super) volume: Decimal,
    pub(super) turnover: Decimal,
    pub(super) time: Option<Time>,
}

/// A bar of the venue's own making.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kline<'a> {
    pub(super) symbol: &'a str,
    pub(super) bar: Bar,
    pub(super) time: Option<Time>,
}

/// Which of the venue's changes a book event covers: those numbered above `after`, up to and with `last`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Depth<'a> {
    pub(super) symbol: &'a str,
    /// `U - 1` on the spot market, `pu` on USD-M: either way the last number that the event before it had.
    pub(super) after: u64,
    pub(super) last: u64,
    pub(super) time: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Snapshot {
    pub(super) last: u64,
    pub(super) time: Option<Time>,
}

/// Reads the message on the tape, with or without the wrapper of a combined stream.
pub(super) fn read<'a>(
    nodes: &[Node<'a>],
    market: Market,
    levels: &mut Vec<Level>,
) -> Result<Message<'a>, DecodeError> {
    let Some(outer) = Fields::read(nodes) else {
        return Err(DecodeError("binance message: expected a JSON object".to_owned()));
    };
    if outer.has("stream") && outer.has("data") {
        // An array of events or a text is nothing that was subscribed to here.
        return match outer.nodes("data").and_then(Fields::read) {
            // A picture of the top of the book (`@depth20`) looks like a REST snapshot, but is not one to build on.
            Some(inner) if inner.has("lastUpdateId") => Ok(Message::Unknown),
            Some(inner) => event(inner, market, levels),
            None => Ok(Message::Unknown),
        };
    }
    if outer.has("lastUpdateId") {
        snapshot(&outer.named("depth snapshot"), levels)
    } else {
        event(outer, market, levels)
    }
}

fn event<'a>(
    fields: Fields<'_, 'a>,
    market: Market,
    levels: &mut Vec<Level>,
) -> Result<Message<'a>, DecodeError> {
    match fields.some_text("e") {
        Some("trade") => trade(&fields.named("trade"), "t"),
        Some("aggTrade") => trade(&fields.named("aggTrade"), "a"),
        Some("bookTicker") => ticker(&fields.named("bookTicker")),
        Some("24hrMiniTicker") => day(&fields.named("24hrMiniTicker")),
        Some("kline") => kline(&fields.named("kline")),
        Some("depthUpdate") => depth(&fields.named("depthUpdate"), market, levels),
        Some(_) => Ok(Message::Unknown),
        // The spot market's bookTicker is the one event that does not say what it is.
        None if fields.has("u") && fields.has("s") => ticker(&fields.named("bookTicker")),
        None if fields.has("code") && fields.has("msg") => {
            let text = fields.some_text("msg").unwrap_or_default();
            Err(DecodeError(format!("binance refused a request: {text}")))
        }
        None => Ok(Message::Unknown),
    }
}

fn trade<'a>(fields: &Fields<'_, 'a>, id: &str) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Trade(Trade {
        symbol: fields.text("s")?,
        aggregate: id == "a",
        id: fields.number(id)?,
        price: fields.decimal("p")?,
        size: fields.decimal("q")?,
        // `m`: the buyer was the one who waited in the book, so the seller came to him.
        side: if fields.flag("m")? { Side::Sell } else { Side::Buy },
        time: fields.time()?,
    }))
}

fn ticker<'a>(fields: &Fields<'_, 'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Ticker(Ticker {
        symbol: fields.text("s")?,
        update: fields.number("u")?,
        bid: fields.decimal("b")?,
        bid_size: fields.decimal("B")?,
        ask: fields.decimal("a")?,
        ask_size: fields.decimal("A")?,
        time: fields.time()?,
    }))
}

fn day<'a>(fields: &Fields<'_, 'a>) -> Result<Message<'a>, DecodeError> {
    Ok(Message::Day(Day {
        symbol: fields.text("s")?,
        last: fields.decimal("c")?,
        open: fields.decimal("o")?,
        high: fields.decimal("h")?,
        low: fields.decimal("l")?,
        volume: fields.decimal("v")?,
        turnover: fields.decimal("q")?,
        time: fields.time()?,
    }))
}

/// A bar of an interval that has no channel here is unknown, not wrong.
fn kline<'a>(fields: &Fields<'_, 'a>) -> Result<Message<'a>, DecodeError> {
    let missing = || DecodeError("binance kline: expected an object in k".to_owned());
    let bar = fields.nodes("k").and_then(Fields::read).ok_or_else(missing)?.named("kline");
    let channel = match bar.text("i")? {
        "1s" => Channel::Bar1s,
        "1m" => Channel::Bar1m,
        "5m" => Channel::Bar5m,
        "1h" => Channel::Bar1h,
        _ => return Ok(Message::Unknown),
    };
    let start = Time::from_ms(i64::try_from(bar.number("t")?).unwrap_or(i64::MAX));
    let prices = [bar.decimal("o")?, bar.decimal("h")?, bar.decimal("l")?, bar.decimal("c")?];
    let trades = u32::try_from(bar.number("n")?).unwrap_or(u32::MAX);
    let too_long = || DecodeError("binance kline: expected prices of at most 63 bits".to_owned());
    let mut made = Bar::new(channel, start, prices, bar.decimal("v")?, trades).ok_or_else(too_long)?;
    made.is_final = bar.flag("x")?;
    Ok(Message::Kline(Kline { symbol: fields.text("s")?, bar: made, time: fields.time()? }))
}

fn depth<'a>(
    fields: &Fields<'_, 'a>,
    market: Market,
    levels: &mut Vec<Level>,
) -> Result<Message<'a>, DecodeError> {
    let (first, last) = (fields.number("U")?, fields.number("u")?);
    let after = match market {
        Market::Spot => first.saturating_sub(1),
        Market::UsdM => fields.number("pu")?,
    };
    if last < first || last <= after {
        let text = format!(
            "binance depthUpdate: last number {last} is below its first {first}, or not above {after}"
        );
        return Err(DecodeError(text));
    }
    fields.levels("b", Side::Buy, levels)?;
    fields.levels("a", Side::Sell, levels)?;
    Ok(Message::Depth(Depth { symbol: fields.text("s")?, after, last, time: fields.time()? }))
}

fn snapshot<'a>(fields: &Fields<'_, 'a>, levels: &mut Vec<Level>) -> Result<Message<'a>, DecodeError> {
    fields.levels("bids", Side::Buy, levels)?;
    fields.levels("asks", Side::Sell, levels)?;
    Ok(Message::Snapshot(Snapshot { last: fields.number("lastUpdateId")?, time: fields.time()? }))
}
