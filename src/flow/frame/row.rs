//! Rows as JSON. An image row is the same bytes for all who hold the same revision and selected the same fields, so
//! within a turn it is encoded once and copied from then on.
//!
//! Bound kept here: the turn's arena is emptied at every turn; one slot per symbol and number format.

use rust_decimal::Decimal;
use tickgate_feeds::market::{Bar, Channel, Kind, STATE, Side, State, Symbol, Time, TradeKind};

use super::number::{push_decimal, push_i64, push_u64};
use crate::flow::conflation::Rev;
use crate::flow::conflation::bars::OpenBar;
use crate::flow::conflation::cut::BookTop;
use crate::flow::conflation::images::Images;
use crate::flow::conflation::log::{Event, What};

/// How a row of an image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Fields that changed after this; 0 for a full row.
    pub since: Rev,
    /// The selected fields.
    pub fields: u32,
    /// Decimals as strings.
    pub strings: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    turn: u64,
    shape: Shape,
    start: u32,
    len: u32,
}

const EMPTY: Slot = Slot { turn: 0, shape: Shape { since: 0, fields: 0, strings: false }, start: 0, len: 0 };

/// Rows already encoded in this turn.
#[derive(Debug, Default)]
pub struct Rows {
    turn: u64,
    arena: Vec<u8>,
    slots: Vec<Slot>,
}

impl Rows {
    /// Forgets the rows of the turn before: images may have changed.
    pub fn begin_turn(&mut self, symbols: usize) {
        self.turn += 1;
        self.arena.clear();
        if self.slots.len() < symbols {
            self.slots.resize(symbols, EMPTY);
        }
    }

    /// Appends the image's row, or nothing when none of the selected fields changed. Returns whether it did.
    pub fn push_image(
        &mut self,
        out: &mut Vec<u8>,
        images: &Images,
        name: &str,
        symbol: Symbol,
        shape: Shape,
    ) -> bool {
        let slot = &mut self.slots[symbol.index()];
        if slot.turn != self.turn || slot.shape != shape {
            let start = self.arena.len() as u32;
            encode_image(&mut self.arena, images, name, symbol, shape);
            *slot = Slot { turn: self.turn, shape, start, len: self.arena.len() as u32 - start };
        }
        out.extend_from_slice(&self.arena[slot.start as usize..][..slot.len as usize]);
        slot.len > 0
    }
}

/// Appends an image's row with the fields that changed after `since`; nothing when none did.
pub fn encode_image(out: &mut Vec<u8>, images: &Images, name: &str, symbol: Symbol, shape: Shape) {
    let full = shape.since == 0;
    let head = images.head(symbol);
    let every = u32::MAX >> (32 - head.channel.fields().len());
    let mut mask = shape.fields & if full { every } else { images.mask_since(symbol, shape.since) };
    if mask == 0 {
        return;
    }
    push_key(out, name, None, head.rev, head.q, head.time);
    if full {
        out.extend_from_slice(b",\"full\":true");
    }
    let (fields, cells) = (head.channel.fields(), images.cells(symbol));
    while mask != 0 {
        let number = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        out.extend_from_slice(b",\"");
        out.extend_from_slice(fields[number].name.as_bytes());
        out.extend_from_slice(b"\":");
        let value = (head.present >> number & 1 == 1).then_some(cells[number].value);
        push_value(out, value, fields[number].kind, shape.strings);
    }
    out.push(b'}');
}

/// Appends a book's row: always whole, best levels first.
pub fn encode_book(
    out: &mut Vec<u8>,
    images: &Images,
    name: &str,
    book: &BookTop,
    depth: u16,
    strings: bool,
) {
    let Some(symbol) = book.symbol else { return };
    push_key(out, name, Some(Channel::Book), book.rev, book.q, book.time);
    out.extend_from_slice(b",\"full\":true,\"state\":");
    push_value(out, images.value(symbol, STATE), Kind::Code(&State::NAMES), strings);
    for (key, side) in [(&b",\"bids\":["[..], &book.bids), (b",\"asks\":[", &book.asks)] {
        out.extend_from_slice(key);
        for (at, (price, size)) in side.iter().take(usize::from(depth)).enumerate() {
            out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
            push_value(out, Some(*price), Kind::Decimal, strings);
            out.push(b',');
            push_value(out, Some(*size), Kind::Decimal, strings);
            out.push(b']');
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// Appends an event's row. Gaps are no rows: see [`push_gap`].
pub fn encode_event(out: &mut Vec<u8>, name: &str, event: &Event, strings: bool) {
    push_key(out, name, Some(event.channel()), event.rev, event.q, event.time);
    match &event.what {
        What::Trade(trade) => {
            out.extend_from_slice(b",\"price\":");
            push_value(out, Some(trade.price), Kind::Decimal, strings);
            out.extend_from_slice(b",\"size\":");
            push_value(out, Some(trade.size), Kind::Decimal, strings);
            out.extend_from_slice(match trade.side {
                Some(Side::Buy) => b",\"side\":\"buy\"",
                Some(Side::Sell) => b",\"side\":\"sell\"",
                None => b",\"side\":null",
            });
            out.extend_from_slice(match trade.kind {
                TradeKind::New => b",\"kind\":\"new\"",
                TradeKind::Correct => b",\"kind\":\"correct\"",
                TradeKind::Cancel => b",\"kind\":\"cancel\"",
            });
            for (key, number) in [
                (&b",\"trade_id\":"[..], trade.trade_id),
                (b",\"ref_trade_id\":", trade.ref_trade_id),
                (b",\"source_seq\":", trade.source_seq),
            ] {
                if number != 0 {
                    out.extend_from_slice(key);
                    push_u64(out, number);
                }
            }
        }
        What::Bar(bar) => push_bar(out, bar, strings),
        What::Phase(phase) => {
            out.extend_from_slice(b",\"phase\":\"");
            out.extend_from_slice(phase.name().as_bytes());
            out.push(b'"');
        }
        What::Gap { .. } => {}
    }
    out.push(b'}');
}

/// Appends the row of a bar that is still open: always whole.
pub fn encode_bar(out: &mut Vec<u8>, name: &str, open: &OpenBar, bar: &Bar, strings: bool) {
    push_key(out, name, Some(open.channel), open.rev, open.q, open.time);
    push_bar(out, bar, strings);
    out.push(b'}');
}

fn push_bar(out: &mut Vec<u8>, bar: &Bar, strings: bool) {
    out.extend_from_slice(b",\"full\":true,\"start_us\":");
    push_i64(out, bar.start.us());
    let [open, high, low, close] = bar.prices();
    for (key, value) in [
        (&b",\"open\":"[..], open),
        (b",\"high\":", high),
        (b",\"low\":", low),
        (b",\"close\":", close),
        (b",\"volume\":", bar.volume),
    ] {
        out.extend_from_slice(key);
        push_value(out, Some(value), Kind::Decimal, strings);
    }
    out.extend_from_slice(b",\"trades\":");
    push_u64(out, u64::from(bar.trades));
    out.extend_from_slice(if bar.is_final { b",\"final\":true" } else { b",\"final\":false" });
    if bar.is_partial {
        out.extend_from_slice(b",\"partial\":true");
    }
}

/// Appends `{"topic":..,"from":..,"to":..,"reason":..},`; `from` is `None` for "the next you expect".
pub fn push_gap(out: &mut Vec<u8>, channel: Channel, name: &str, from: Option<u64>, to: u64, reason: &str) {
    out.extend_from_slice(b"{\"topic\":\"");
    push_topic(out, channel, name);
    out.extend_from_slice(b"\",\"from\":");
    match from {
        Some(from) => push_u64(out, from),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"to\":");
    push_u64(out, to);
    out.extend_from_slice(b",\"reason\":\"");
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\"},");
}

/// Appends a topic's name: bare for the symbol's own image.
pub fn push_topic(out: &mut Vec<u8>, channel: Channel, name: &str) {
    if !matches!(channel, Channel::Quote | Channel::Index) {
        out.extend_from_slice(channel.name().as_bytes());
        out.push(b':');
    }
    out.extend_from_slice(name.as_bytes());
}

/// Appends what every row begins with. Names need no escaping: `is_name` saw to that when they were listed.
fn push_key(out: &mut Vec<u8>, name: &str, channel: Option<Channel>, rev: Rev, q: u64, time: Time) {
    out.extend_from_slice(b"{\"symbol\":\"");
    out.extend_from_slice(name.as_bytes());
    if let Some(channel) = channel {
        out.extend_from_slice(b"\",\"channel\":\"");
        out.extend_from_slice(channel.name().as_bytes());
    }
    out.extend_from_slice(b"\",\"rev\":");
    push_u64(out, rev);
    out.extend_from_slice(b",\"q\":");
    push_u64(out, q);
    out.extend_from_slice(b",\"time_us\":");
    push_i64(out, time.us());
}

fn push_value(out: &mut Vec<u8>, value: Option<Decimal>, kind: Kind, strings: bool) {
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return;
    };
    match kind {
        Kind::Decimal if strings => {
            out.push(b'"');
            push_decimal(out, value);
            out.push(b'"');
        }
        Kind::Decimal => push_decimal(out, value),
        Kind::Code(names) => {
            let name = names.get(value.mantissa() as usize).copied().unwrap_or("unknown");
            out.push(b'"');
            out.extend_from_slice(name.as_bytes());
            out.push(b'"');
        }
        Kind::Date => {
            let date = value.mantissa() as u64;
            let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
            out.extend_from_slice(format!("\"{year:04}-{month:02}-{day:02}\"").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickgate_feeds::market::quote;

    #[test]
    fn a_row_has_what_changed_and_a_full_row_has_everything_selected() {
        let mut images = Images::default();
        let symbol = images.list(Channel::Quote);
        images.set(symbol, STATE, Some(State::Live.decimal()), 1);
        images.set(symbol, quote::LAST, Some(Decimal::from(61_500)), 2);
        images.set(symbol, quote::BID, Some(Decimal::new(6_140_050, 2)), 3);
        images.set(symbol, quote::TRADING_DATE, Some(Decimal::from(20_261_122)), 3);
        images.touch(symbol, 3, 7, Time(1_999_999), 0);
        let mut rows = Rows::default();
        let mut row = |since, fields, strings| {
            rows.begin_turn(1);
            let mut out = Vec::new();
            let pushed = rows.push_image(&mut out, &images, "VCB", symbol, Shape { since, fields, strings });
            assert_eq!(pushed, !out.is_empty());
            String::from_utf8(out).expect("text")
        };
        let key = r#"{"symbol":"VCB","rev":3,"q":7,"time_us":1999"#;
        assert_eq!(row(2, u32::MAX, false), format!(r#"{key},"bid":61400.50,"trading_date":"2026-11-22"}}"#));
        assert_eq!(row(2, 1 << quote::LAST, false), "");
        let some = 1 << STATE | 1 << quote::LAST | 1 << quote::ASK;
        assert_eq!(
            row(0, some, true),
            format!(r#"{key},"full":true,"state":"live","last":"61500","ask":null}}"#)
        );
    }
}
