//! A plain shape for load tests: ticks spread over many symbols by Zipf's law, every row of one length on the wire.
//!
//! Bounds kept here: a tick is one image update of at most four fields, each of which changes with every tick; one
//! call appends at most [`CALL_UPDATES`] updates; memory is 16 bytes a symbol.

use std::ops::RangeInclusive;

use fastrand::Rng;
use rust_decimal::Decimal;

use super::alias::Alias;
use super::pace::Pace;
use crate::feed::Next;
use crate::market::{Body, Channel, FeedId, Symbol, Time, Update, quote};
use crate::symbols::Symbols;

const CALL_UPDATES: usize = 2_048;

/// What can be chosen about the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadOptions {
    /// How many symbols there are.
    pub symbols: u32,
    /// Ticks a second over all of them; 0 for as fast as they are pulled.
    pub rate: u64,
    /// The exponent of Zipf's law: 0 spreads evenly.
    pub zipf: f64,
    /// How long a row is on the wire, its comma included; less than the least possible means the least possible.
    pub row_bytes: usize,
    /// Everything random follows from it.
    pub seed: u64,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { symbols: 1_000, rate: 20_000, zipf: 1.0, row_bytes: 70, seed: 1 }
    }
}

impl LoadOptions {
    /// What [`LoadOptions::symbols`] may be.
    pub const SYMBOLS: RangeInclusive<u32> = 1..=1_000_000;
    /// What [`LoadOptions::rate`] may be.
    pub const RATE: RangeInclusive<u64> = 0..=100_000_000;
    /// What [`LoadOptions::zipf`] may be.
    pub const ZIPF: RangeInclusive<f64> = 0.0..=4.0;
    /// What [`LoadOptions::row_bytes`] may be: four fields of sixteen characters hold no more.
    pub const ROW_BYTES: RangeInclusive<usize> = 1..=160;
}

/// The load as a source of updates.
#[derive(Debug)]
pub(super) struct Load {
    rate: u64,
    pace: Pace,
    rng: Rng,
    alias: Alias,
    /// Each symbol and the last digit of its last tick.
    symbols: Vec<(Symbol, u8)>,
    columns: Vec<Column>,
}

impl Load {
    pub(super) fn new(options: LoadOptions, symbols: &Symbols, feed: FeedId) -> Result<Self, String> {
        let width = options.symbols.to_string().len();
        let mut listed = Vec::with_capacity(options.symbols as usize);
        for number in 0..options.symbols {
            let name = format!("L{number:0width$}");
            let symbol = symbols.list(feed, &name, Channel::Quote);
            listed.push((symbol.map_err(|why| format!("symbol {name} was refused: {why}"))?, 0));
        }
        let group: Vec<_> = listed.iter().map(|(symbol, _)| *symbol).collect();
        symbols.set_group("LOAD", &group);
        Ok(Self {
            rate: options.rate,
            pace: Pace::new(options.rate),
            rng: Rng::with_seed(options.seed),
            alias: Alias::zipf(listed.len(), options.zipf),
            symbols: listed,
            columns: columns(options.row_bytes, 1 + width),
        })
    }

    pub(super) fn next(&mut self, now: Time, out: &mut Vec<Update>) -> Next {
        if self.rate == 0 {
            for _ in 0..CALL_UPDATES {
                let tick = self.tick(now);
                out.push(tick);
            }
            return Next::Now;
        }
        let mut due = self.pace.due(now);
        for _ in 0..CALL_UPDATES {
            if due > now {
                return Next::At(due);
            }
            let tick = self.tick(due);
            out.push(tick);
            due = self.pace.advance();
        }
        Next::Now
    }

    /// Whether it has no pace of its own.
    pub(super) fn pulled(&self) -> bool {
        self.rate == 0
    }

    fn tick(&mut self, time: Time) -> Update {
        let bits = self.rng.u64(..);
        let (symbol, last_digit) = &mut self.symbols[self.alias.draw(bits)];
        // The last digit goes round from 1 to 9: every value differs from the one before, and none ends in a zero
        // that a writer might leave out.
        *last_digit = *last_digit % 9 + 1;
        let (mut numbers, mut values) = ([0; 4], [Decimal::ZERO; 4]);
        for (at, column) in self.columns.iter().enumerate() {
            numbers[at] = column.number;
            values[at] = column.value(self.rng.u64(..), *last_digit);
        }
        let body =
            Body::Image { channel: Channel::Quote, len: self.columns.len() as u8, nulls: 0, numbers, values };
        Update::new(*symbol, time, body)
    }
}

/// One field of the row and how its values look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Column {
    number: u8,
    /// The least of all digits but the last: a power of ten, or 0 where there is only the last.
    least: u64,
    /// Digits after the point.
    scale: u32,
}

/// Prices are written with two decimals from this many characters on: "1.23".
const POINT_FROM: usize = 4;
/// Fifteen digits and a point: what a reader's double still holds exactly.
const VALUE_CHARS_MAX: usize = 16;
/// The fields in the order in which a longer row takes them.
const FIELDS: [u8; 4] = [quote::LAST, quote::BID, quote::ASK, quote::HIGH];
/// A row without name and fields: `{"symbol":"","rev":1234567,"q":1234,"time_us":1763787600123456},`.
const ROW_FRAME: usize = 64;

impl Column {
    fn new(number: u8, chars: usize) -> Self {
        let scale = if chars >= POINT_FROM { 2 } else { 0 };
        let digits = if scale == 0 { chars } else { chars - 1 } as u32;
        Self { number, least: if digits < 2 { 0 } else { 10_u64.pow(digits - 2) }, scale }
    }

    /// A value of this length: first digit and middle drawn, last one given.
    fn value(self, bits: u64, last_digit: u8) -> Decimal {
        let spread = ((u128::from(bits) * u128::from(9 * self.least)) >> 64) as u64;
        let mantissa = (self.least + spread) * 10 + u64::from(last_digit);
        Decimal::new(mantissa as i64, self.scale)
    }
}

/// `,"name":`
fn label(number: u8) -> usize {
    quote::FIELDS[number as usize].name.len() + 4
}

/// The fields of a row of `row_bytes`, or of the shortest one there is: LAST of one digit.
fn columns(row_bytes: usize, name: usize) -> Vec<Column> {
    let room = row_bytes.saturating_sub(ROW_FRAME + name);
    // As few fields as can hold that many characters.
    let holds =
        |count: usize| FIELDS[..count].iter().map(|&field| label(field) + VALUE_CHARS_MAX).sum::<usize>();
    let count = (1..FIELDS.len()).find(|&count| room <= holds(count)).unwrap_or(FIELDS.len());
    let labels: usize = FIELDS[..count].iter().map(|&field| label(field)).sum();
    let digits = room.saturating_sub(labels).clamp(count, count * VALUE_CHARS_MAX);
    let share = |at: usize| digits / count + usize::from(at < digits % count);
    FIELDS[..count].iter().enumerate().map(|(at, &field)| Column::new(field, share(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// The row as the wire will have it, the two numbers that the gateway adds taken as long as is assumed.
    fn row(symbols: &Symbols, update: &Update) -> String {
        let Body::Image { len, numbers, values, nulls: 0, .. } = update.body else { panic!("no image") };
        let name = symbols.listing(update.symbol).expect("listed").name;
        let mut row = format!(r#"{{"symbol":"{name}","rev":1234567,"q":1234,"time_us":{}"#, update.time.us());
        for at in 0..len as usize {
            // Normalized: the length must not hang on zeros at the end.
            let field = quote::FIELDS[numbers[at] as usize].name;
            row += &format!(r#","{field}":{}"#, values[at].normalize());
        }
        row + "},"
    }

    #[test]
    fn rows_are_exactly_as_long_as_was_asked_for_and_every_field_changes() {
        for count in [1, 10, 1_000] {
            for row_bytes in LoadOptions::ROW_BYTES {
                let options = LoadOptions { symbols: count, rate: 0, row_bytes, ..LoadOptions::default() };
                let symbols = Symbols::new(2_000);
                let mut load = Load::new(options, &symbols, FeedId(0)).expect("a load");
                let (mut out, mut before) = (Vec::new(), HashMap::new());
                load.next(Time(1_763_787_600_123_456_789), &mut out);
                let least = ROW_FRAME + 1 + count.to_string().len() + label(quote::LAST) + 1;
                for update in &out {
                    let row = row(&symbols, update);
                    assert_eq!(row.len(), row_bytes.max(least), "{row}");
                    let Body::Image { len, values, .. } = update.body else { panic!("no image") };
                    if let Some(last) = before.insert(update.symbol, values) {
                        assert!((0..len as usize).all(|at| last[at] != values[at]), "{row}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_long_row_is_reached_whatever_the_length_of_the_names() {
        let longest = 1 + LoadOptions::SYMBOLS.end().to_string().len();
        for row_bytes in 100..=*LoadOptions::ROW_BYTES.end() {
            for name in 2..=longest {
                let fields = columns(row_bytes, name);
                let chars: usize = fields
                    .iter()
                    .map(|field| label(field.number) + field.value(0, 1).to_string().len())
                    .sum();
                assert_eq!(ROW_FRAME + name + chars, row_bytes);
            }
        }
    }
}
