//! The rows and losses of a batch.
//!
//! Bound kept here: none of its own; an item is as long as its row.

use rust_decimal::Decimal;
use simd_json::prelude::{TypedScalarValue, ValueAsScalar, ValueIntoString};
use simd_json::tape::{Array, Value};

use super::{Item, Told, flag, number, text, wrong};
use crate::feed::DecodeError;
use crate::market::{Bar, Channel, Kind, Phase, Side, Time, Trade, TradeKind};

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Whose: a position among the names.
    pub name: u32,
    /// The revision of the topic's last change.
    pub rev: u64,
    /// The topic's own count.
    pub q: u64,
    /// Event time at the source; 0 while the row is pending.
    pub time: Time,
    /// What it says.
    pub body: Body,
}

/// What a row says.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Fields of a quote or an index.
    Image(Image),
    /// A book, best levels first.
    Book {
        /// (price, size).
        bids: Vec<(Decimal, Decimal)>,
        /// (price, size).
        asks: Vec<(Decimal, Decimal)>,
    },
    /// A trade.
    Trade(Trade),
    /// A change of phase.
    Phase(Phase),
    /// A bar, open or final.
    Bar(Bar),
}

/// Fields of an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// It is the state, and not a change of it: what came between it and the row before is not told.
    pub is_full: bool,
    /// The number of each field that the row names, and its value; `None` for an empty one.
    pub fields: Vec<(u8, Option<Decimal>)>,
}

/// A loss that the upstream announced.
#[derive(Clone, Debug, PartialEq)]
pub struct Gap {
    /// Whose.
    pub name: String,
    /// The topic's channel.
    pub channel: Channel,
    /// First missing number; `None` for the next that a reader expects.
    pub from: Option<u64>,
    /// Last missing number.
    pub to: u64,
    /// As it stands on the wire.
    pub reason: String,
    /// A revision at which the loss is known, below that of what comes after it; 0 until [`number_gaps`].
    pub rev: u64,
}

impl Row {
    fn is_event(&self) -> bool {
        match &self.body {
            Body::Trade(_) | Body::Phase(_) => true,
            Body::Bar(bar) => bar.is_final,
            Body::Image(image) => !image.is_full,
            Body::Book { .. } => false,
        }
    }
}

/// Begins with what an answer says: of each event topic the numbers so far are not to be had here. They were given by
/// revision `rev`.
pub(super) fn begin(told: &mut Told, answer: &Value<'_, '_>, rev: u64) -> Result<(), DecodeError> {
    let numbers = answer.get("q").and_then(|q| q.as_object()).ok_or_else(|| wrong("q", "an object"))?;
    for (topic, q) in &numbers {
        let to = q.as_u64().ok_or_else(|| wrong(topic, "a whole number from 0 up"))?;
        if to > 0 {
            let (channel, name) = event_topic(topic)?;
            let (from, reason) = (None, "log_overrun".to_owned());
            told.items.push(Item::Gap(Gap { name, channel, from, to, reason, rev }));
        }
    }
    Ok(())
}

/// Appends what a batch tells; returns the newest revision of its rows.
pub(super) fn read(told: &mut Told, batch: &Value<'_, '_>) -> Result<u64, DecodeError> {
    for gap in batch.get("gaps").and_then(|gaps| gaps.as_array()).iter().flat_map(Array::iter) {
        let topic = text(&gap, "topic")?;
        if !topic.contains(':') {
            continue; // of an image, which comes whole instead
        }
        let (channel, name) = event_topic(topic)?;
        let (from, to) = (gap.get("from").and_then(|from| from.as_u64()), number(&gap, "to")?);
        let reason = text(&gap, "reason")?.to_owned();
        told.items.push(Item::Gap(Gap { name, channel, from, to, reason, rev: 0 }));
    }
    let rows = batch.get("rows").and_then(|rows| rows.as_array()).ok_or_else(|| wrong("rows", "a list"))?;
    let mut newest = 0;
    for row in &rows {
        if let Some(row) = read_row(told, &row)? {
            newest = newest.max(row.rev);
            told.items.push(Item::Row(row));
        }
    }
    Ok(newest)
}

/// Gives each loss a revision between `held`, which was whole before, and `rev`, up to which all is told now: as late as
/// what comes after it allows, since it is not told when it happened, and whoever holds an earlier revision than that must
/// still be told of it. Where there is no room it has that of what comes after it.
pub(super) fn number_gaps(items: &mut [Item], held: u64, rev: u64) {
    let mut next = rev + 1;
    for item in items.iter_mut().rev() {
        match item {
            Item::Row(row) if row.is_event() => next = row.rev,
            Item::Gap(gap) if gap.rev == 0 => {
                next = next.saturating_sub(1).max(held + 1);
                gap.rev = next;
            }
            Item::Row(_) | Item::Gap(_) => {}
        }
    }
}

fn event_topic(topic: &str) -> Result<(Channel, String), DecodeError> {
    let parts =
        topic.split_once(':').and_then(|(channel, name)| Some((Channel::named(channel)?, name.to_owned())));
    parts.ok_or_else(|| wrong(topic, "a topic with its channel"))
}

/// `None`: of a channel or a name that means nothing here.
fn read_row(told: &mut Told, row: &Value<'_, '_>) -> Result<Option<Row>, DecodeError> {
    let channel = match row.get("channel") {
        None => None,
        Some(channel) => match channel.as_str().and_then(Channel::named) {
            Some(channel) => Some(channel),
            None => return Ok(None), // of a later version
        },
    };
    // A new name comes with a whole row, and only an index has advances.
    let is_whole = channel.is_none() && flag(row, "full");
    let own = if row.get("advances").is_some() { Channel::Index } else { Channel::Quote };
    let Some(name) = told.position(text(row, "symbol")?, is_whole.then_some(own)) else { return Ok(None) };
    let body = match channel {
        None | Some(Channel::Quote | Channel::Index) => {
            Body::Image(image(told.names[name as usize].channel, row)?)
        }
        Some(Channel::Book) => Body::Book { bids: levels(row, "bids")?, asks: levels(row, "asks")? },
        Some(Channel::Trade) => Body::Trade(trade(row)?),
        Some(Channel::Status) => Body::Phase(coded(row, "phase", Phase::ALL, Phase::name)?),
        Some(bars) => Body::Bar(bar(row, bars)?),
    };
    let time = row.get("time_us").and_then(|time| time.as_i64()).map_or(Time(0), time_of);
    Ok(Some(Row { name, rev: number(row, "rev")?, q: number(row, "q")?, time, body }))
}

fn image(channel: Channel, row: &Value<'_, '_>) -> Result<Image, DecodeError> {
    let mut image = Image { is_full: flag(row, "full"), fields: Vec::new() };
    let members = row.as_object().ok_or_else(|| wrong("rows", "objects"))?;
    for (key, value) in &members {
        let Some(number) = channel.fields().iter().position(|field| field.name == key) else { continue };
        let value =
            if value.is_null() { None } else { Some(field(channel.fields()[number].kind, key, &value)?) };
        image.fields.push((number as u8, value));
    }
    Ok(image)
}

fn field(kind: Kind, key: &str, value: &Value<'_, '_>) -> Result<Decimal, DecodeError> {
    let text = value.as_str().ok_or_else(|| wrong(key, "a string"))?;
    match kind {
        Kind::Decimal => exact(key, text),
        Kind::Code(names) => {
            let code = names.iter().position(|name| *name == text);
            code.map(Decimal::from).ok_or_else(|| wrong(key, &format!("one of {}", names.join(", "))))
        }
        Kind::Date => exact(key, &text.replace('-', "")),
    }
}

/// With the digits that it has: another scale is another text.
fn exact(key: &str, text: &str) -> Result<Decimal, DecodeError> {
    Decimal::from_str_exact(text).map_err(|_| wrong(key, "an exact decimal"))
}

fn decimal(row: &Value<'_, '_>, key: &str) -> Result<Decimal, DecodeError> {
    exact(key, text(row, key)?)
}

fn levels(row: &Value<'_, '_>, key: &str) -> Result<Vec<(Decimal, Decimal)>, DecodeError> {
    let side = row.get(key).and_then(|side| side.as_array()).ok_or_else(|| wrong(key, "a list"))?;
    let part = |level: &Value<'_, '_>, at| {
        let text = level.get_idx(at).and_then(ValueIntoString::into_string);
        text.ok_or_else(|| wrong(key, "pairs of strings")).and_then(|text| exact(key, text))
    };
    side.iter().map(|level| Ok((part(&level, 0)?, part(&level, 1)?))).collect()
}

fn trade(row: &Value<'_, '_>) -> Result<Trade, DecodeError> {
    let count = |key| row.get(key).and_then(|number| number.as_u64()).unwrap_or(0);
    let side = match row.get("side").and_then(ValueIntoString::into_string) {
        Some("buy") => Some(Side::Buy),
        Some("sell") => Some(Side::Sell),
        _ => None,
    };
    let kind = match text(row, "kind")? {
        "new" => TradeKind::New,
        "correct" => TradeKind::Correct,
        "cancel" => TradeKind::Cancel,
        _ => return Err(wrong("kind", "one of new, correct, cancel")),
    };
    Ok(Trade {
        price: decimal(row, "price")?,
        size: decimal(row, "size")?,
        trade_id: count("trade_id"),
        ref_trade_id: count("ref_trade_id"),
        source_seq: count("source_seq"),
        side,
        kind,
    })
}

fn bar(row: &Value<'_, '_>, channel: Channel) -> Result<Bar, DecodeError> {
    let start =
        row.get("start_us").and_then(|start| start.as_i64()).ok_or_else(|| wrong("start_us", "a time"))?;
    let [open, high, low, close] = ["open", "high", "low", "close"].map(|key| decimal(row, key));
    let trades = u32::try_from(number(row, "trades")?).map_err(|_| wrong("trades", "fewer"))?;
    let bar =
        Bar::new(channel, time_of(start), [open?, high?, low?, close?], decimal(row, "volume")?, trades);
    let mut bar = bar.ok_or_else(|| wrong("open", "prices of at most 63 bits at one scale"))?;
    (bar.is_final, bar.is_partial) = (flag(row, "final"), flag(row, "partial"));
    Ok(bar)
}

fn coded<T: Copy>(
    row: &Value<'_, '_>,
    key: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, DecodeError> {
    let text = text(row, key)?;
    all.iter().copied().find(|code| name(*code) == text).ok_or_else(|| wrong(key, "a known code"))
}

fn time_of(us: i64) -> Time {
    Time(us.saturating_mul(1_000))
}
