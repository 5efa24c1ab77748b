//! Rows as JSON. An image row is the same bytes for all who hold the same revision and selected the same fields, so
//! within a turn it is encoded once and copied from then on.
//!
//! Bound kept here: the arena is emptied at every turn, and between frames when it holds `ROWS_BYTES_MAX`; a row's
//! beginning and the last row of each symbol.

use rust_decimal::Decimal;
use tickgate_feeds::market::{Bar, Channel, Kind, STATE, Side, State, Symbol, Time, TradeKind};

use super::text::Text;
use crate::base::limits::ROWS_BYTES_MAX;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::bars::OpenBar;
use crate::flow::conflation::cut::BookTop;
use crate::flow::conflation::images::{Head, Images};
use crate::flow::conflation::log::{Event, What};
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::topic::Topic;

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

/// A row of this turn's arena, or that there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Which shape in which turn; 0 for none.
    shape: u64,
    /// When the image's last update entered the gateway.
    pub arrival_ns: u64,
    start: u32,
    len: u32,
}

/// A shape that rows of this turn have: equal shapes have equal names, and no other turn has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeName(u64);

/// Rows already encoded in this turn.
#[derive(Debug, Default)]
pub struct Rows {
    arena: Text,
    /// The beginnings of the rows of all symbols' images, and where each ends.
    names: Text,
    name_ends: Vec<u32>,
    /// For each symbol the row that was asked for last.
    last: Vec<Row>,
    /// The shapes of this turn; they are few, and the last one is asked for most.
    shapes: Vec<Shape>,
    /// The name of the first of them.
    first_shape: u64,
}

impl Rows {
    /// Forgets the rows of the turn before: images may have changed.
    pub fn begin_turn(&mut self, replica: &Replica) {
        self.forget();
        for at in self.last.len()..replica.len() {
            self.last.push(Row::default());
            push_name(&mut self.names, replica.name(Symbol::at(at as u32)), None);
            self.name_ends.push(self.names.len() as u32);
        }
    }

    fn forget(&mut self) {
        self.first_shape += self.shapes.len() as u64 + 1;
        self.shapes.clear();
        self.arena.truncate(0);
    }

    /// To be called between frames, where no name of a shape is in use: keeps the arena within its bound.
    pub fn begin_frame(&mut self) {
        if self.arena.len() >= ROWS_BYTES_MAX {
            self.forget();
        }
    }

    /// The name of a shape, good until the turn or frame ends.
    pub fn name(&mut self, shape: Shape) -> ShapeName {
        let at = self.shapes.iter().rposition(|known| *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        });
        ShapeName(self.first_shape + at as u64)
    }

    /// The image's row in this shape.
    #[inline]
    pub fn image(&mut self, replica: &Replica, symbol: Symbol, shape: ShapeName) -> Row {
        match self.last.get(symbol.index()) {
            Some(row) if row.shape == shape.0 => *row,
            _ => self.encode(replica, symbol, shape),
        }
    }

    /// Appends a row, with a comma after it.
    #[inline]
    pub fn put(&self, row: Row, out: &mut Text) {
        out.put_from(&self.arena, row.start as usize, row.len as usize);
    }

    /// Appends the rows of these topics, all of one shape, until `out` is longer than `limit`; notes when each tick
    /// arrived. Returns how many topics were looked at.
    pub fn put_all(
        &mut self,
        replica: &Replica,
        topics: &[Topic],
        shape: ShapeName,
        out: &mut Text,
        limit: usize,
        arrivals_ns: &mut Vec<u64>,
    ) -> usize {
        for (at, topic) in topics.iter().enumerate() {
            let row = self.image(replica, topic.symbol, shape);
            if row.len == 0 {
                continue;
            }
            if out.len() > limit {
                return at;
            }
            self.put(row, out);
            arrivals_ns.push(row.arrival_ns);
        }
        topics.len()
    }

    #[cold]
    fn encode(&mut self, replica: &Replica, symbol: Symbol, name: ShapeName) -> Row {
        let shape = self.shapes[(name.0 - self.first_shape) as usize];
        let (images, start) = (&replica.images, self.arena.len());
        if images.rev(symbol) > shape.since {
            let at = symbol.index();
            let name_at = at.checked_sub(1).map_or(0, |before| self.name_ends[before]);
            self.arena.put_from(&self.names, name_at as usize, (self.name_ends[at] - name_at) as usize);
            encode_rest(&mut self.arena, images, symbol, shape, start);
            if self.arena.len() > start {
                self.arena.put(b",");
            }
        }
        let len = (self.arena.len() - start) as u32;
        let arrival_ns = if len > 0 { images.head(symbol).arrival_ns } else { 0 };
        let row = Row { shape: name.0, arrival_ns, start: start as u32, len };
        self.last[symbol.index()] = row;
        row
    }
}

/// Appends an image's row with the fields that changed after `since`; nothing when none did.
pub fn encode_image(out: &mut Text, images: &Images, name: &str, symbol: Symbol, shape: Shape) {
    let start = out.len();
    push_name(out, name, None);
    encode_rest(out, images, symbol, shape, start);
}

/// Appends what follows the name in an image's row, or takes the row back to `start` when it has no fields.
fn encode_rest(out: &mut Text, images: &Images, symbol: Symbol, shape: Shape, start: usize) {
    let full = shape.since == 0;
    let head = images.head(symbol);
    push_numbers(out, images.rev(symbol), head.q, head.time);
    if full {
        out.put(b",\"full\":true");
    }
    let (fields, cells) = (head.channel.fields(), images.cells(symbol));
    let every = u32::MAX >> (32 - fields.len());
    let mut mask = shape.fields & if full { every } else { head.touched() };
    let before = out.len();
    while mask != 0 {
        let number = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        let (field, cell) = (&fields[number], &cells[number]);
        if full || cell.rev > shape.since {
            out.put_slice(field.key.as_bytes());
            let value = (head.present >> number & 1 == 1).then_some(cell.value);
            push_value(out, value, field.kind, shape.strings);
        }
    }
    if out.len() > before {
        out.put(b"}");
    } else {
        out.truncate(start);
    }
}

/// How an image changed.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Its revision then.
    pub rev: Rev,
    /// Its count of updates then.
    pub q: u64,
    /// The upstream's time.
    pub time: Time,
    /// Quote or index.
    pub channel: Channel,
    /// The fields that changed.
    pub mask: u32,
    /// Those of them that have a value now.
    pub present: u32,
}

/// Appends the row of an image's change, if any of the selected fields is in it; `values` are those of the present fields.
pub fn encode_change(
    out: &mut Text,
    name: &str,
    change: Change,
    mut values: impl Iterator<Item = Decimal>,
    fields: u32,
    strings: bool,
) {
    if change.mask & fields == 0 {
        return;
    }
    push_key(out, name, None, change.rev, change.q, change.time);
    for number in ones(change.mask) {
        let value = if change.present >> number & 1 == 1 { values.next() } else { None };
        if fields >> number & 1 == 1 {
            let field = &change.channel.fields()[number];
            out.put_slice(field.key.as_bytes());
            push_value(out, value, field.kind, strings);
        }
    }
    out.put(b"}");
}

/// The numbers of the bits that are set, from the lowest on.
pub fn ones(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = (mask != 0).then_some(mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        number
    })
}

/// What became of an image between two rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The highest last price.
    pub high: Option<Decimal>,
    /// The lowest.
    pub low: Option<Decimal>,
    /// The sizes of the trades; an index has none.
    pub volume: Option<Decimal>,
}

impl Window {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.high.is_none() && self.volume.is_none_or(|volume| volume.is_zero())
    }
}

/// Appends an image's row of which no selected field has changed.
pub fn encode_no_fields(out: &mut Text, name: &str, rev: Rev, head: &Head) {
    push_key(out, name, None, rev, head.q, head.time);
    out.put(b"}");
}

/// Puts a window at the end of an image's row.
pub fn push_window(row: &mut Text, window: Window, strings: bool) {
    row.truncate(row.len() - 1);
    for (key, value) in
        [(&b",\"hi\":"[..], window.high), (b",\"lo\":", window.low), (b",\"vol\":", window.volume)]
    {
        row.put_slice(key);
        push_value(row, value, Kind::Decimal, strings);
    }
    row.put(b"}");
}

/// Appends `{"symbol":..,"out":true}`: the filter no longer lets the image through.
pub fn push_out(out: &mut Text, name: &str) {
    out.put(b"{\"symbol\":\"");
    out.put_slice(name.as_bytes());
    out.put(b"\",\"out\":true}");
}

/// Appends a book's row: always whole, best levels first.
pub fn encode_book(out: &mut Text, images: &Images, name: &str, book: &BookTop, depth: u16, strings: bool) {
    let Some(symbol) = book.symbol else { return };
    push_key(out, name, Some(Channel::Book), book.rev_at(depth), book.q, book.time);
    out.put(b",\"full\":true,\"state\":");
    push_value(out, images.value(symbol, STATE), Kind::Code(&State::NAMES), strings);
    for (key, side) in [(&b",\"bids\":["[..], &book.bids), (b",\"asks\":[", &book.asks)] {
        out.put_slice(key);
        for (at, (price, size)) in side.iter().take(usize::from(depth)).enumerate() {
            out.put_slice(if at == 0 { b"[" } else { b",[" });
            push_value(out, Some(*price), Kind::Decimal, strings);
            out.put(b",");
            push_value(out, Some(*size), Kind::Decimal, strings);
            out.put(b"]");
        }
        out.put(b"]");
    }
    out.put(b"}");
}

/// Appends an event's row. Gaps are no rows: see [`push_gap`]; for images see [`encode_change`].
pub fn encode_event(out: &mut Text, name: &str, event: &Event, strings: bool) {
    push_key(out, name, Some(event.channel()), event.rev, event.q, event.time);
    match &event.what {
        What::Trade(trade) => {
            out.put(b",\"price\":");
            push_value(out, Some(trade.price), Kind::Decimal, strings);
            out.put(b",\"size\":");
            push_value(out, Some(trade.size), Kind::Decimal, strings);
            out.put_slice(match trade.side {
                Some(Side::Buy) => b",\"side\":\"buy\"",
                Some(Side::Sell) => b",\"side\":\"sell\"",
                None => b",\"side\":null",
            });
            out.put_slice(match trade.kind {
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
                    out.put_slice(key);
                    out.put_u64(number);
                }
            }
        }
        What::Bar(bar) => push_bar(out, bar, strings),
        What::Phase(phase) => {
            out.put(b",\"phase\":\"");
            out.put_slice(phase.name().as_bytes());
            out.put(b"\"");
        }
        What::Image { .. } | What::Gap { .. } => {}
    }
    out.put(b"}");
}

/// Appends the row of a bar that is still open: always whole.
pub fn encode_bar(out: &mut Text, name: &str, open: &OpenBar, bar: &Bar, strings: bool) {
    push_key(out, name, Some(open.channel), open.rev, open.q, open.time);
    push_bar(out, bar, strings);
    out.put(b"}");
}

fn push_bar(out: &mut Text, bar: &Bar, strings: bool) {
    out.put(b",\"full\":true,\"start_us\":");
    out.put_i64(bar.start.us());
    let [open, high, low, close] = bar.prices();
    for (key, value) in [
        (&b",\"open\":"[..], open),
        (b",\"high\":", high),
        (b",\"low\":", low),
        (b",\"close\":", close),
        (b",\"volume\":", bar.volume),
    ] {
        out.put_slice(key);
        push_value(out, Some(value), Kind::Decimal, strings);
    }
    out.put(b",\"trades\":");
    out.put_u64(u64::from(bar.trades));
    out.put_slice(if bar.is_final { b",\"final\":true" } else { b",\"final\":false" });
    if bar.is_partial {
        out.put(b",\"partial\":true");
    }
}

/// Appends `{"topic":..,"from":..,"to":..,"reason":..},`; `from` is `None` for "the next you expect".
pub fn push_gap(out: &mut Text, channel: Channel, name: &str, from: Option<u64>, to: u64, reason: &str) {
    out.put(b"{\"topic\":\"");
    push_topic(out, channel, name);
    out.put(b"\",\"from\":");
    match from {
        Some(from) => out.put_u64(from),
        None => out.put(b"null"),
    }
    out.put(b",\"to\":");
    out.put_u64(to);
    out.put(b",\"reason\":\"");
    out.put_slice(reason.as_bytes());
    out.put(b"\"},");
}

/// Appends `{"topic":..,"code":"topic_limit"},`: a topic that came to a group or wildcard but had no room.
pub fn push_refused(out: &mut Text, channel: Channel, name: &str) {
    out.put(b"{\"topic\":\"");
    push_topic(out, channel, name);
    out.put(b"\",\"code\":\"");
    out.put_slice(Reason::TopicLimit.label().as_bytes());
    out.put(b"\"},");
}

/// Appends a topic's name: bare for the symbol's own image.
pub fn push_topic(out: &mut Text, channel: Channel, name: &str) {
    if !matches!(channel, Channel::Quote | Channel::Index) {
        out.put_slice(channel.name().as_bytes());
        out.put(b":");
    }
    out.put_slice(name.as_bytes());
}

/// Appends what every row begins with.
fn push_key(out: &mut Text, name: &str, channel: Option<Channel>, rev: Rev, q: u64, time: Time) {
    push_name(out, name, channel);
    push_numbers(out, rev, q, time);
}

/// Appends a row's beginning up to its first number. Names need no escaping: `is_name` saw to that when they were listed.
fn push_name(out: &mut Text, name: &str, channel: Option<Channel>) {
    out.put(b"{\"symbol\":\"");
    out.put_slice(name.as_bytes());
    if let Some(channel) = channel {
        out.put(b"\",\"channel\":\"");
        out.put_slice(channel.name().as_bytes());
    }
    out.put(b"\",\"rev\":");
}

fn push_numbers(out: &mut Text, rev: Rev, q: u64, time: Time) {
    out.put_u64(rev);
    out.put(b",\"q\":");
    out.put_u64(q);
    out.put(b",\"time_us\":");
    if time == Time(0) {
        out.put(b"null"); // a symbol that is still pending has no time
    } else {
        out.put_i64(time.us());
    }
}

fn push_value(out: &mut Text, value: Option<Decimal>, kind: Kind, strings: bool) {
    let Some(value) = value else {
        out.put(b"null");
        return;
    };
    match kind {
        Kind::Decimal if strings => {
            out.put(b"\"");
            out.put_decimal(value);
            out.put(b"\"");
        }
        Kind::Decimal => out.put_decimal(value),
        Kind::Code(names) => {
            let name = names.get(value.mantissa() as usize).copied().unwrap_or("unknown");
            out.put(b"\"");
            out.put_slice(name.as_bytes());
            out.put(b"\"");
        }
        Kind::Date => {
            let date = value.mantissa() as u64;
            let (year, month, day) = (date / 10_000, date / 100 % 100, date % 100);
            out.put_slice(format!("\"{year:04}-{month:02}-{day:02}\"").as_bytes());
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
        let row = |since, fields, strings| {
            let mut out = Text::default();
            encode_image(&mut out, &images, "VCB", symbol, Shape { since, fields, strings });
            String::from_utf8(out.as_bytes().to_vec()).expect("text")
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
