//! A row as JSON: an object, or an array in the order of the announced columns.
//!
//! Bound kept here: none of its own; who appends a row asks before whether the frame has room.

use std::ops::Range;

use rust_decimal::Decimal;
use tickgate_feeds::market::{Bar, Channel, Kind, STATE, Side, State, Symbol, Time, Trade, TradeKind};

use super::text::Text;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::bars::OpenBar;
use crate::flow::conflation::cut::BookTop;
use crate::flow::conflation::images::{Head, Images, ones};
use crate::flow::conflation::log::{Event, What};
use crate::flow::dispatch::wish::{Mode, Style, Wish};

/// How a row of an image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Fields that changed after this; 0 for a full row.
    pub since: Rev,
    /// The selected fields.
    pub fields: u32,
    /// How it is written.
    pub style: Style,
}

/// The selected fields that changed after `shape.since`, and who lacks just these.
#[inline]
pub(super) fn selected(images: &Images, symbol: Symbol, shape: Shape) -> (u32, Range<Rev>) {
    let head = images.head(symbol);
    if shape.since == 0 {
        return (shape.fields & every(head.channel), 0..1);
    }
    let cells = images.cells(symbol);
    let (mut mask, mut since) = (0, 1..Rev::MAX);
    for number in ones(shape.fields & head.touched()) {
        let rev = cells[number].rev;
        if rev > shape.since {
            mask |= 1 << number;
            since.end = since.end.min(rev);
        } else {
            since.start = since.start.max(rev);
        }
    }
    (mask, since)
}

/// Appends an image's row with the fields that changed after `since`; nothing when none did.
pub fn encode_image(out: &mut Text, images: &Images, name: &str, symbol: Symbol, shape: Shape) {
    match selected(images, symbol, shape).0 {
        0 => {}
        mask if shape.style.columns => put_columns(out, images, name, symbol, shape, mask),
        mask => {
            push_name(out, name, None);
            put_fields(out, images, symbol, shape, mask);
        }
    }
}

/// Appends what follows the name in an image's row with the fields of this mask.
pub(super) fn put_fields(out: &mut Text, images: &Images, symbol: Symbol, shape: Shape, mask: u32) {
    let head = images.head(symbol);
    // Columns go another way, so the labels are known here.
    push_numbers(out, Style::default(), images.rev(symbol), head.q, head.time);
    if shape.since == 0 {
        out.put(b",\"full\":true");
    }
    let (fields, cells) = (head.channel.fields(), images.cells(symbol));
    for number in ones(mask) {
        let (field, cell) = (&fields[number], &cells[number]);
        out.put_first(&field.key.bytes, field.key.len);
        let value = (head.present >> number & 1 == 1).then_some(cell.value);
        push_value(out, value, field.kind, shape.style);
    }
    out.put(b"}");
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
    style: Style,
) {
    let Change { rev, q, time, channel, mask, present } = change;
    let changed = mask & fields;
    if changed == 0 {
        return;
    }
    push_key(out, style, channel, name, rev, q, time);
    if style.columns {
        push_mask(out, fields & every(channel), changed);
    }
    for number in ones(mask) {
        let value = if present >> number & 1 == 1 { values.next() } else { None };
        if changed >> number & 1 == 1 {
            let field = &channel.fields()[number];
            push_label(out, style, field.key.text());
            push_value(out, value, field.kind, style);
        }
    }
    push_end(out, style);
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
    push_key(out, Style::default(), head.channel, name, rev, head.q, head.time);
    out.put(b"}");
}

/// Puts a window at the end of an image's row.
pub fn push_window(row: &mut Text, window: Window, style: Style) {
    row.truncate(row.len() - 1);
    for (key, value) in
        [(&b",\"hi\":"[..], window.high), (b",\"lo\":", window.low), (b",\"vol\":", window.volume)]
    {
        row.put_slice(key);
        push_value(row, value, Kind::Decimal, style);
    }
    row.put(b"}");
}

/// Appends `{"symbol":..,"out":true}`: the filter no longer lets the image through.
pub fn push_out(out: &mut Text, name: &str) {
    out.put(b"{\"symbol\":\"");
    out.put_slice(name.as_bytes());
    out.put(b"\",\"out\":true}");
}

/// Appends an image's row as an array: a mask of the columns whose values follow, then those.
pub(super) fn put_columns(
    out: &mut Text,
    images: &Images,
    name: &str,
    symbol: Symbol,
    shape: Shape,
    changed: u32,
) {
    let head = images.head(symbol);
    let fields = head.channel.fields();
    push_key(out, shape.style, head.channel, name, images.rev(symbol), head.q, head.time);
    push_mask(out, shape.fields & every(head.channel), changed);
    for number in ones(changed) {
        let value = (head.present >> number & 1 == 1).then(|| images.cells(symbol)[number].value);
        out.put(b",");
        push_value(out, value, fields[number].kind, shape.style);
    }
    out.put(b"]");
}

/// All fields of a channel, as a mask.
fn every(channel: Channel) -> u32 {
    u32::MAX >> (32 - channel.fields().len())
}

/// Appends which of the selected fields' columns follow: a field's column is the number of selected fields before it.
fn push_mask(out: &mut Text, selected: u32, changed: u32) {
    let column = |number: usize| (selected & ((1 << number) - 1)).count_ones();
    out.put(b",");
    out.put_u64(ones(changed).fold(0, |mask, number| mask | 1 << column(number)));
}

/// The names of the columns of each channel that the wish's topics may have, at the place of the number that the
/// channel's rows begin with; before them in each list, at the number's place, the channel's own name.
pub fn columns(wish: &Wish) -> Vec<Option<Vec<&'static str>>> {
    let of = |channel: Channel| -> Vec<&'static str> {
        let mut names = vec![channel.name(), "symbol", "rev", "q", "time_us"];
        names.extend_from_slice(match channel {
            Channel::Quote | Channel::Index => &["mask"],
            Channel::Book => &["state", "bids", "asks"],
            Channel::Trade => &["price", "size", "side", "kind", "trade_id", "ref_trade_id", "source_seq"],
            Channel::Status => &["phase"],
            _ => &["start_us", "open", "high", "low", "close", "volume", "trades", "final", "partial"],
        });
        let selected = ones(wish.fields.mask(channel)).filter_map(|number| channel.fields().get(number));
        names.extend(selected.map(|field| field.name));
        names
    };
    let has = |channel: Channel| {
        let is_image = !channel.fields().is_empty();
        let comes_along = wish.mode == Mode::TradeSafe && channel == Channel::Trade;
        let is_named = |named| named == channel || comes_along && named == Channel::Quote;
        let is_asked = |channel: Option<Channel>| channel.map_or(is_image || comes_along, is_named);
        let mut single = wish.topics.single().iter();
        single.any(|topic| is_asked(Some(topic.channel()).filter(|_| !topic.is_image())))
            || wish.topics.open().any(|name| is_asked(name.channel))
    };
    let mut lists: Vec<_> =
        Channel::ALL.into_iter().map(|channel| has(channel).then(|| of(channel))).collect();
    lists.truncate(lists.iter().rposition(Option::is_some).map_or(0, |last| last + 1));
    lists
}

/// Appends a book's row: always whole, best levels first.
pub fn encode_book(out: &mut Text, images: &Images, name: &str, book: &BookTop, depth: u16, style: Style) {
    let Some(symbol) = book.symbol else { return };
    push_key(out, style, Channel::Book, name, book.rev_at(depth), book.q, book.time);
    push_full(out, style);
    push_label(out, style, b",\"state\":");
    push_value(out, images.value(symbol, STATE), Kind::Code(&State::NAMES), style);
    for (key, side) in [(b",\"bids\":", &book.bids), (b",\"asks\":", &book.asks)] {
        push_label(out, style, key);
        out.put(b"[");
        for (at, (price, size)) in side.iter().take(usize::from(depth)).enumerate() {
            out.put_slice(if at == 0 { b"[" } else { b",[" });
            push_value(out, Some(*price), Kind::Decimal, style);
            out.put(b",");
            push_value(out, Some(*size), Kind::Decimal, style);
            out.put(b"]");
        }
        out.put(b"]");
    }
    push_end(out, style);
}

/// Appends an event's row. Gaps are no rows: see [`push_gap`]; for images see [`encode_change`].
pub fn encode_event(out: &mut Text, name: &str, event: &Event, style: Style) {
    push_key(out, style, event.channel(), name, event.rev, event.q, event.time);
    match &event.what {
        What::Trade(trade) => push_trade(out, trade, style),
        What::Bar(bar) => push_bar(out, bar, style),
        What::Phase(phase) => {
            push_label(out, style, b",\"phase\":");
            push_code(out, phase.name());
        }
        What::Image { .. } | What::Gap { .. } => {}
    }
    push_end(out, style);
}

/// Appends the row of a bar that is still open: always whole.
pub fn encode_bar(out: &mut Text, name: &str, open: &OpenBar, bar: &Bar, style: Style) {
    push_key(out, style, open.channel, name, open.rev, open.q, open.time);
    push_bar(out, bar, style);
    push_end(out, style);
}

fn push_trade(out: &mut Text, trade: &Trade, style: Style) {
    push_label(out, style, b",\"price\":");
    push_value(out, Some(trade.price), Kind::Decimal, style);
    push_label(out, style, b",\"size\":");
    push_value(out, Some(trade.size), Kind::Decimal, style);
    push_label(out, style, b",\"side\":");
    match trade.side {
        Some(Side::Buy) => push_code(out, "buy"),
        Some(Side::Sell) => push_code(out, "sell"),
        None => out.put(b"null"),
    }
    push_label(out, style, b",\"kind\":");
    push_code(
        out,
        match trade.kind {
            TradeKind::New => "new",
            TradeKind::Correct => "correct",
            TradeKind::Cancel => "cancel",
        },
    );
    for (key, number) in [
        (&b",\"trade_id\":"[..], trade.trade_id),
        (b",\"ref_trade_id\":", trade.ref_trade_id),
        (b",\"source_seq\":", trade.source_seq),
    ] {
        if number != 0 {
            push_label(out, style, key);
            out.put_u64(number);
        } else if style.columns {
            out.put(b",null");
        }
    }
}

fn push_bar(out: &mut Text, bar: &Bar, style: Style) {
    push_full(out, style);
    push_label(out, style, b",\"start_us\":");
    out.put_i64(bar.start.us());
    let [open, high, low, close] = bar.prices();
    for (key, value) in [
        (&b",\"open\":"[..], open),
        (b",\"high\":", high),
        (b",\"low\":", low),
        (b",\"close\":", close),
        (b",\"volume\":", bar.volume),
    ] {
        push_label(out, style, key);
        push_value(out, Some(value), Kind::Decimal, style);
    }
    push_label(out, style, b",\"trades\":");
    out.put_u64(u64::from(bar.trades));
    push_label(out, style, b",\"final\":");
    push_bool(out, bar.is_final);
    if bar.is_partial || style.columns {
        push_label(out, style, b",\"partial\":");
        push_bool(out, bar.is_partial);
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

/// Appends what every row begins with: in an array the channel's number, in an object the channel where it is no image.
fn push_key(out: &mut Text, style: Style, channel: Channel, name: &str, rev: Rev, q: u64, time: Time) {
    if style.columns {
        out.put(b"[");
        out.put_u64(channel as u64);
        out.put(b",\"");
        out.put_slice(name.as_bytes());
        out.put(b"\",");
    } else {
        push_name(out, name, channel.fields().is_empty().then_some(channel));
    }
    push_numbers(out, style, rev, q, time);
}

/// Appends an object's beginning up to its first number. Names need no escaping: `is_name` saw to that when they were
/// listed.
pub(super) fn push_name(out: &mut Text, name: &str, channel: Option<Channel>) {
    out.put(b"{\"symbol\":\"");
    out.put_slice(name.as_bytes());
    if let Some(channel) = channel {
        out.put(b"\",\"channel\":\"");
        out.put_slice(channel.name().as_bytes());
    }
    out.put(b"\",\"rev\":");
}

#[inline(always)]
fn push_numbers(out: &mut Text, style: Style, rev: Rev, q: u64, time: Time) {
    out.put_u64(rev);
    push_label(out, style, b",\"q\":");
    out.put_u64(q);
    push_label(out, style, b",\"time_us\":");
    if time == Time(0) {
        out.put(b"null"); // a symbol that is still pending has no time
    } else {
        out.put_us(time.us());
    }
}

/// Appends the name that a value has in an object; in an array its place is its name.
#[inline]
fn push_label(out: &mut Text, style: Style, label: &[u8]) {
    if style.columns {
        out.put(b",");
    } else {
        out.put_slice(label);
    }
}

/// Says that the row replaces what is held; arrays of these channels always do.
fn push_full(out: &mut Text, style: Style) {
    if !style.columns {
        out.put(b",\"full\":true");
    }
}

fn push_end(out: &mut Text, style: Style) {
    out.put(if style.columns { b"]" } else { b"}" });
}

fn push_code(out: &mut Text, name: &str) {
    out.put(b"\"");
    out.put_slice(name.as_bytes());
    out.put(b"\"");
}

fn push_bool(out: &mut Text, yes: bool) {
    out.put_slice(if yes { b"true" } else { b"false" });
}

#[inline]
fn push_value(out: &mut Text, value: Option<Decimal>, kind: Kind, style: Style) {
    match (value, kind) {
        (Some(value), Kind::Decimal) if !style.strings => out.put_decimal(value),
        (Some(value), _) => push_quoted(out, value, kind),
        (None, _) => out.put(b"null"),
    }
}

fn push_quoted(out: &mut Text, value: Decimal, kind: Kind) {
    match kind {
        Kind::Decimal => {
            out.put(b"\"");
            out.put_decimal(value);
            out.put(b"\"");
        }
        Kind::Code(names) => {
            push_code(out, names.get(value.mantissa() as usize).copied().unwrap_or("unknown"));
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
    use crate::flow::dispatch::topic::{Asked, Topic, TopicName};
    use crate::flow::dispatch::wish::Fields;
    use tickgate_feeds::market::quote;

    fn row(since: Rev, fields: u32, style: Style) -> String {
        let (mut images, mut out) = (Images::default(), Text::default());
        let symbol = images.list(Channel::Quote);
        images.set(symbol, STATE, Some(State::Live.decimal()), 1);
        images.set(symbol, quote::LAST, Some(Decimal::from(61_500)), 2);
        images.set(symbol, quote::BID, Some(Decimal::new(6_140_050, 2)), 3);
        images.set(symbol, quote::TRADING_DATE, Some(Decimal::from(20_261_122)), 3);
        images.touch(symbol, 3, 7, Time(1_999_999), 0);
        encode_image(&mut out, &images, "VCB", symbol, Shape { since, fields, style });
        String::from_utf8(out.as_bytes().to_vec()).expect("text")
    }

    const SOME: u32 = 1 << STATE | 1 << quote::LAST | 1 << quote::ASK | 1 << quote::TRADING_DATE;

    #[test]
    fn a_row_has_what_changed_and_a_full_row_has_everything_selected() {
        let numbers = Style::default();
        let key = r#"{"symbol":"VCB","rev":3,"q":7,"time_us":1999"#;
        assert_eq!(
            row(2, u32::MAX, numbers),
            format!(r#"{key},"bid":61400.50,"trading_date":"2026-11-22"}}"#)
        );
        assert_eq!(row(2, 1 << quote::LAST, numbers), "");
        assert_eq!(
            row(0, SOME, Style { strings: true, ..numbers }),
            format!(
                r#"{key},"full":true,"state":"live","last":"61500","ask":null,"trading_date":"2026-11-22"}}"#
            )
        );
    }

    #[test]
    fn an_array_says_which_of_the_announced_columns_follow() {
        let style = Style { strings: false, columns: true };
        let quote = Topic::new(Channel::Quote, Symbol::at(0));
        let topics = Asked::new(vec![quote], vec![TopicName::parse("status:*").expect("a topic")]);
        let fields = Fields { quote: SOME, index: 1 << STATE };
        let lists = columns(&Wish { topics, fields, ..Wish::default() });
        let image = ["symbol", "rev", "q", "time_us", "mask", "state"];
        assert_eq!(
            lists,
            [
                Some([&["quote"], &image[..], &["last", "ask", "trading_date"]].concat()),
                Some([&["index"], &image[..]].concat()),
                None,
                None,
                Some(vec!["status", "symbol", "rev", "q", "time_us", "phase"]),
            ],
            "a row's first value is the number of its list"
        );
        assert_eq!(row(2, SOME, style), r#"[0,"VCB",3,7,1999,8,"2026-11-22"]"#);
        assert_eq!(row(1, SOME, style), r#"[0,"VCB",3,7,1999,10,61500,"2026-11-22"]"#);
        assert_eq!(row(0, SOME, style), r#"[0,"VCB",3,7,1999,15,"live",61500,null,"2026-11-22"]"#);
        assert_eq!(row(2, 1 << quote::LAST, style), "");
    }
}
