//! Rows already encoded. An image's row is the same bytes for all who hold the same revision and selected the same fields, so
//! it is encoded once and copied from then on, until the image changes or another row of it is wanted.
//!
//! Bound kept here: the arena is emptied between turns when it holds `ROWS_KEPT_BYTES`, and between frames when it holds
//! `ROWS_BYTES_MAX`; a row's beginning and the last row of each symbol, which of them were found in this turn, and which
//! were given with the last frames.

use std::ops::Range;

use tickgate_feeds::market::Symbol;

use super::row::{Shape, push_name, put_columns, put_fields, selected};
use super::text::{SHORT, Text};
use super::ticks::Ticks;
use crate::base::limits::{ROWS_BYTES_MAX, ROWS_KEPT_BYTES};
use crate::flow::conflation::Rev;
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::topic::Topic;
use crate::flow::dispatch::wish::Style;

/// Topics whose rows are looked for before the first of them is copied: as many as a byte counts.
const TOPICS_AT_ONCE: usize = u8::MAX as usize;

/// A row of the arena as it is asked for in this turn, or that there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Which shape in which turn; 0 for none.
    shape: u32,
    start: u32,
    len: u32,
    /// How often it went out since that was last handed on.
    times: u32,
}

impl Row {
    /// How often it went out since this was last asked. That there is nothing to say does not count.
    fn take_times(&mut self) -> u64 {
        let times = std::mem::take(&mut self.times);
        if self.len > 0 { u64::from(times) } else { 0 }
    }
}

/// The row that was encoded last of an image, and who else can have it: one line of memory.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Kept {
    /// The image's revision.
    rev: Rev,
    /// When its newest tick arrived.
    arrival_ns: u64,
    /// Who holds any of these revisions lacks the same fields.
    since: Range<Rev>,
    fields: u32,
    style: Style,
    /// Where it begins in all that the arena ever held.
    place: u64,
    len: u32,
}

/// What the memory that is printed at start counts for it (`ROW`).
const _: () = assert!(size_of::<Kept>() == 64);

/// A shape that rows of this turn have: equal shapes have equal names, and no other turn has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeName(u32);

/// Rows already encoded.
#[derive(Debug, Default)]
pub struct Rows {
    /// For each symbol the row that was asked for last.
    last: Vec<Row>,
    /// The symbols whose rows were put into the frames made last, and scratch behind them.
    given: Vec<Symbol>,
    given_len: usize,
    /// How often the frames that are made now will go out.
    times: u32,
    /// How many rows were put all together.
    put: u64,
    store: Store,
}

impl Rows {
    /// To be called when images may have changed.
    pub fn begin_turn(&mut self, replica: &Replica) {
        self.forget_shapes();
        self.store.begin_turn(replica);
        self.last.resize(replica.len(), Row::default());
    }

    fn forget_shapes(&mut self) {
        // No name may come again while a row still has it.
        if self.store.forget_shapes() {
            self.last.iter_mut().for_each(|row| row.shape = 0);
        }
    }

    /// To be called before frames are made, each of which will go out so many times.
    #[inline]
    pub fn begin_frames(&mut self, times: u32) {
        (self.given_len, self.times) = (0, times);
    }

    /// To be called between frames, where no name of a shape is in use: keeps the arena within its bound.
    #[inline]
    pub fn begin_frame(&mut self) {
        if self.store.arena.len() >= ROWS_BYTES_MAX {
            self.forget_shapes();
            self.store.forget_rows();
        }
    }

    /// The name of a shape, good until the turn or frame ends.
    #[inline]
    pub fn name(&mut self, shape: Shape) -> ShapeName {
        self.store.name(shape)
    }

    /// The image's row in this shape.
    pub fn image(&mut self, replica: &Replica, symbol: Symbol, shape: ShapeName, ticks: &mut Ticks) -> Row {
        let row = &mut self.last[symbol.index()];
        if row.shape != shape.0 {
            self.store.find(replica, symbol, shape, row, ticks);
        }
        *row
    }

    /// Appends a row, with a comma after it.
    pub fn put(&self, row: Row, out: &mut Text) {
        out.put_from(&self.store.arena, row.start, row.len as usize);
    }

    /// Appends the rows of these topics, all of one shape, until `out` is longer than `limit`, and counts them.
    /// Returns how many topics were looked at.
    pub fn put_all(
        &mut self,
        replica: &Replica,
        topics: &[Topic],
        shape: ShapeName,
        out: &mut Text,
        limit: usize,
        ticks: &mut Ticks,
    ) -> usize {
        let mut looked_at = 0;
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            let changed = self.note_changed(replica, topics, shape);
            let mut put = self.put_short(replica, changed, shape, out, limit, ticks);
            while put < changed {
                let symbol = self.given[self.given_len + put];
                let row = self.image(replica, symbol, shape, ticks);
                if row.len > 0 && out.len() > limit {
                    self.given_len += put;
                    return looked_at + topics.iter().position(|topic| topic.symbol() == symbol).unwrap_or(0);
                }
                self.put(row, out);
                self.put += u64::from(row.len > 0);
                self.last[symbol.index()].times += self.times;
                put += 1;
            }
            self.given_len += put;
            looked_at += topics.len();
        }
        looked_at
    }

    /// Puts the symbols that have changed behind those given, and says how many they are.
    fn note_changed(&mut self, replica: &Replica, topics: &[Topic], shape: ShapeName) -> usize {
        let (since, revs) = (self.store.shape(shape).since, replica.images.revs());
        if self.given.len() <= self.given_len + TOPICS_AT_ONCE {
            self.given.resize(self.given_len + TOPICS_AT_ONCE + 1, Symbol::at(0));
        }
        let Some(behind) = self.given[self.given_len..].first_chunk_mut::<{ TOPICS_AT_ONCE + 1 }>() else {
            return 0;
        };
        // Whether a symbol has changed is a coin's toss: no jump hangs on it, only where the next one is put.
        let mut count = 0u8;
        let mut note = |topic: &Topic| {
            let symbol = topic.symbol();
            behind[usize::from(count)] = symbol;
            count += u8::from(revs[symbol.index()] > since);
        };
        // By fours, which spares most of the loop.
        let (fours, others) = topics.as_chunks::<4>();
        fours.iter().for_each(|four| four.iter().for_each(&mut note));
        others.iter().for_each(note);
        usize::from(count)
    }

    /// Appends the rows of the next so many symbols as long as they are short. Returns how many were looked at.
    fn put_short(
        &mut self,
        replica: &Replica,
        symbols: usize,
        shape: ShapeName,
        out: &mut Text,
        limit: usize,
        ticks: &mut Ticks,
    ) -> usize {
        let Some(left) = limit.checked_sub(out.len()) else { return 0 };
        // No row begins where less than a short one has room, so that one look at the room is enough.
        let mut room = out.spare(left.min(symbols * SHORT) + SHORT);
        let (whole, times) = (room.len(), self.times);
        let symbols = &self.given[self.given_len..][..symbols];
        let mut stopped_at = None;
        for symbol in symbols {
            let row = &mut self.last[symbol.index()];
            if row.shape != shape.0 {
                self.store.find(replica, *symbol, shape, row, ticks);
            }
            let len = row.len as usize;
            let (Some(from), Some(to)) = (self.store.arena.short(row.start), room.first_chunk_mut()) else {
                stopped_at = Some(*symbol);
                break;
            };
            if len > SHORT {
                stopped_at = Some(*symbol);
                break;
            }
            *to = *from;
            room = &mut room[len..];
            row.times += times;
        }
        let put = whole - room.len();
        out.claim(put);
        let looked_at = stopped_at.and_then(|stop| symbols.iter().position(|symbol| *symbol == stop));
        let looked_at = looked_at.unwrap_or(symbols.len());
        self.put += match self.store.has_empty {
            true => symbols[..looked_at].iter().filter(|symbol| self.last[symbol.index()].len > 0).count(),
            false => looked_at,
        } as u64;
        looked_at
    }

    /// How many rows were put all together.
    pub fn put_ever(&self) -> u64 {
        self.put
    }

    /// The rows given since the frames were begun are not to be counted after all.
    pub fn forget_given(&mut self) {
        self.count_given((self.times as i32).wrapping_neg());
        self.given_len = 0;
    }

    /// The rows given went out so many times more, or less often, than was expected.
    #[inline]
    pub fn count_given(&mut self, times: i32) {
        for symbol in &self.given[..self.given_len] {
            let row = &mut self.last[symbol.index()];
            row.times = row.times.wrapping_add_signed(times);
        }
    }

    /// Hands on how often the rows of each tick went out.
    pub fn settle(&mut self, ticks: &mut Ticks) {
        for &(symbol, tick) in &self.store.found {
            let row = &mut self.last[symbol.index()];
            ticks.count(tick, row.take_times());
        }
    }
}

/// Rows by their contents.
#[derive(Debug, Default)]
struct Store {
    arena: Text,
    /// How many bytes the arena held before it was emptied.
    forgotten: u64,
    /// Of which run of revisions they are.
    run: u32,
    /// The beginnings of the rows of all symbols' images, and where each ends.
    names: Text,
    name_ends: Vec<u32>,
    /// For each symbol the row that was encoded last; apart, since few of them are looked at in a turn.
    kept: Vec<Kept>,
    /// The shapes of this turn; they are few, and the last one is asked for most.
    shapes: Vec<Shape>,
    /// The name of the first of them.
    first_shape: u32,
    /// The symbols of this turn's rows, and the numbers of their newest ticks.
    found: Vec<(Symbol, u32)>,
    /// A row of this turn says nothing: what changed is none of the selected fields.
    has_empty: bool,
}

impl Store {
    fn begin_turn(&mut self, replica: &Replica) {
        self.found.clear();
        self.has_empty = false;
        let is_same_run = std::mem::replace(&mut self.run, replica.node.run) == replica.node.run;
        if !is_same_run || self.arena.len() >= ROWS_KEPT_BYTES {
            self.forget_rows();
        }
        for at in self.kept.len()..replica.len() {
            self.kept.push(Kept::default());
            push_name(&mut self.names, replica.name(Symbol::at(at as u32)), None);
            self.name_ends.push(self.names.len() as u32);
        }
    }

    /// Returns whether names begin anew.
    fn forget_shapes(&mut self) -> bool {
        self.first_shape += self.shapes.len() as u32 + 1;
        self.shapes.clear();
        let begins_anew = self.first_shape > u32::MAX / 2;
        if begins_anew {
            self.first_shape = 1;
        }
        begins_anew
    }

    fn forget_rows(&mut self) {
        // One more, so that an empty row at the very end is forgotten too.
        self.forgotten += self.arena.len() as u64 + 1;
        self.arena.truncate(0);
    }

    #[inline]
    fn name(&mut self, shape: Shape) -> ShapeName {
        let at = self.shapes.iter().rposition(|known| *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        });
        ShapeName(self.first_shape + at as u32)
    }

    fn shape(&self, name: ShapeName) -> Shape {
        self.shapes[(name.0 - self.first_shape) as usize]
    }

    /// Puts the row that an image has in this shape into `row`.
    #[cold]
    fn find(&mut self, replica: &Replica, symbol: Symbol, name: ShapeName, row: &mut Row, ticks: &mut Ticks) {
        let (shape, rev) = (self.shape(name), replica.images.rev(symbol));
        let mut found = Row { shape: name.0, ..Row::default() };
        let arrival_ns = if rev > shape.since {
            let kept = &self.kept[symbol.index()];
            let is_same = (kept.rev, kept.fields, kept.style) == (rev, shape.fields, shape.style);
            if !(is_same && kept.since.contains(&shape.since) && kept.place >= self.forgotten) {
                self.encode(replica, symbol, shape);
            }
            let kept = &self.kept[symbol.index()];
            (found.start, found.len) = ((kept.place - self.forgotten) as u32, kept.len);
            kept.arrival_ns
        } else {
            replica.images.head(symbol).arrival_ns
        };
        self.has_empty |= found.len == 0;
        let tick = ticks.number(arrival_ns);
        ticks.count(tick, row.take_times());
        if row.shape < self.first_shape {
            self.found.push((symbol, tick));
        }
        *row = found;
    }

    fn encode(&mut self, replica: &Replica, symbol: Symbol, shape: Shape) {
        let (images, start, at) = (&replica.images, self.arena.len(), symbol.index());
        let (mask, since) = selected(images, symbol, shape);
        if mask == 0 {
            // Nothing that is wanted has changed.
        } else if shape.style.columns {
            put_columns(&mut self.arena, images, replica.name(symbol), symbol, shape, mask);
            self.arena.put(b",");
        } else {
            let name_at = at.checked_sub(1).map_or(0, |before| self.name_ends[before]);
            self.arena.put_from(&self.names, name_at, (self.name_ends[at] - name_at) as usize);
            put_fields(&mut self.arena, images, symbol, shape, mask);
            self.arena.put(b",");
        }
        self.kept[at] = Kept {
            rev: images.rev(symbol),
            arrival_ns: images.head(symbol).arrival_ns,
            since,
            fields: shape.fields,
            style: shape.style,
            place: self.forgotten + start as u64,
            len: (self.arena.len() - start) as u32,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rust_decimal::Decimal;

    use super::*;
    use crate::base::limits::Limits;
    use crate::flow::conflation::cut::Node;
    use crate::flow::conflation::hub::Hub;
    use crate::flow::frame::row::encode_image;
    use tickgate_feeds::market::{Channel, FeedId, Time, Update, quote};
    use tickgate_feeds::symbols::Symbols;

    #[test]
    fn a_row_that_was_kept_is_the_row_of_now() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let symbols = Arc::new(Symbols::new(8));
        let names = ["A", "BB", "CCC", "DDDD"];
        let all = names.map(|name| symbols.list(FeedId(0), name, Channel::Quote).expect("there is room"));
        let mut hub = Hub::new(Arc::clone(&symbols), Node::default(), &Limits::default());
        let mut replica = Replica::new(symbols, Arc::clone(hub.node()), 0);
        let (mut rows, mut ticks, mut encoded) = (Rows::default(), Ticks::default(), 0);
        for turn in 0..20_000 {
            for _ in 0..random.u32(..3) {
                let field = *random.choice([quote::LAST, quote::BID, quote::ASK].iter()).expect("some");
                let value = random.bool().then(|| Decimal::new(random.i64(..5), 1));
                hub.apply(&[Update::image(
                    all[random.usize(..4)],
                    Channel::Quote,
                    Time(turn),
                    &[(field, value)],
                )]);
            }
            replica.apply(&hub.cut(0, replica.rev), |_, _| true);
            rows.begin_turn(&replica);
            for _ in 0..3 {
                rows.begin_frame();
                let since = replica.rev.saturating_sub(random.u64(..9)) * random.u64(..2);
                let fields = if random.bool() { u32::MAX } else { 1 << quote::BID };
                let shape = Shape { since, fields, style: Style { columns: random.bool(), strings: false } };
                let name = rows.name(shape);
                for symbol in all {
                    let (mut found, mut expected) = (Text::default(), Text::default());
                    let before = rows.store.arena.len();
                    let row = rows.image(&replica, symbol, name, &mut ticks);
                    encoded += usize::from(rows.store.arena.len() > before);
                    rows.put(row, &mut found);
                    let held = replica.images.rev(symbol) > since;
                    if held {
                        encode_image(&mut expected, &replica.images, names[symbol.index()], symbol, shape);
                    }
                    if !expected.is_empty() {
                        expected.put(b",");
                    }
                    assert_eq!(
                        String::from_utf8_lossy(found.as_bytes()),
                        String::from_utf8_lossy(expected.as_bytes()),
                        "turn {turn}, {shape:?}"
                    );
                }
            }
        }
        assert!((10_000..200_000).contains(&encoded), "some are kept: {encoded} of 240,000");
    }
}
