//! Rows already encoded. An image's row is the same bytes for all who hold the same revision and selected the same fields, so
//! it is encoded once and copied from then on, until the image changes or another row of it is wanted.
//!
//! Bound kept here: the arena is emptied between turns when it holds `ROWS_KEPT_BYTES`, and between frames when it holds
//! `ROWS_BYTES_MAX`; a row's beginning and the last row of each symbol.

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

/// Topics whose rows are looked for before the first of them is copied.
const TOPICS_AT_ONCE: usize = 32;

/// A row of the arena as it is asked for in this turn, or that there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// Which shape in which turn; 0 for none.
    shape: u32,
    start: u32,
    len: u32,
    /// The number of the image's last tick.
    tick: u32,
}

/// The row that was encoded last of an image, and who else can have it.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// The image's revision.
    rev: Rev,
    /// Who holds any of these revisions lacks the same fields.
    since: Range<Rev>,
    fields: u32,
    style: Style,
    /// Where it begins in all that the arena ever held.
    place: u64,
    len: u32,
    arrival_ns: u64,
}

/// A shape that rows of this turn have: equal shapes have equal names, and no other turn has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeName(u32);

/// Rows already encoded.
#[derive(Debug, Default)]
pub struct Rows {
    arena: Text,
    /// How many bytes the arena held before it was emptied.
    forgotten: u64,
    /// Of which run of revisions they are.
    run: u32,
    /// The beginnings of the rows of all symbols' images, and where each ends.
    names: Text,
    name_ends: Vec<u32>,
    /// For each symbol the row that was asked for last.
    last: Vec<Row>,
    /// For each symbol the row that was encoded last; apart, since few of them are looked at in a turn.
    kept: Vec<Kept>,
    /// The shapes of this turn; they are few, and the last one is asked for most.
    shapes: Vec<Shape>,
    /// The name of the first of them.
    first_shape: u32,
}

impl Rows {
    /// To be called when images may have changed.
    pub fn begin_turn(&mut self, replica: &Replica) {
        self.forget_shapes();
        let is_same_run = std::mem::replace(&mut self.run, replica.node.run) == replica.node.run;
        if !is_same_run || self.arena.len() >= ROWS_KEPT_BYTES {
            self.forget_rows();
        }
        for at in self.last.len()..replica.len() {
            self.last.push(Row::default());
            self.kept.push(Kept::default());
            push_name(&mut self.names, replica.name(Symbol::at(at as u32)), None);
            self.name_ends.push(self.names.len() as u32);
        }
    }

    fn forget_shapes(&mut self) {
        self.first_shape += self.shapes.len() as u32 + 1;
        self.shapes.clear();
        // No name may come again while a row still has it.
        if self.first_shape > u32::MAX / 2 {
            self.first_shape = 1;
            self.last.fill(Row::default());
        }
    }

    fn forget_rows(&mut self) {
        // One more, so that an empty row at the very end is forgotten too.
        self.forgotten += self.arena.len() as u64 + 1;
        self.arena.truncate(0);
    }

    /// To be called between frames, where no name of a shape is in use: keeps the arena within its bound.
    pub fn begin_frame(&mut self) {
        if self.arena.len() >= ROWS_BYTES_MAX {
            self.forget_shapes();
            self.forget_rows();
        }
    }

    /// The name of a shape, good until the turn or frame ends.
    pub fn name(&mut self, shape: Shape) -> ShapeName {
        let at = self.shapes.iter().rposition(|known| *known == shape).unwrap_or_else(|| {
            self.shapes.push(shape);
            self.shapes.len() - 1
        });
        ShapeName(self.first_shape + at as u32)
    }

    /// The image's row in this shape.
    #[inline]
    pub fn image(&mut self, replica: &Replica, symbol: Symbol, shape: ShapeName, ticks: &mut Ticks) -> Row {
        match self.last.get(symbol.index()) {
            Some(row) if row.shape == shape.0 => *row,
            _ => {
                self.find(replica, symbol, shape, ticks);
                self.last[symbol.index()]
            }
        }
    }

    /// Appends a row, with a comma after it.
    #[inline]
    pub fn put(&self, row: Row, out: &mut Text) {
        out.put_from(&self.arena, row.start, row.len as usize);
    }

    /// Appends the rows of these topics, all of one shape, until `out` is longer than `limit`; notes each one's tick.
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
        let (since, revs) = (self.shape(shape).since, replica.images.revs());
        let mut looked_at = 0;
        for topics in topics.chunks(TOPICS_AT_ONCE) {
            // Whether a symbol has changed is a coin's toss: no jump hangs on it, only where the next one is put.
            let (mut changed, mut count) = ([Symbol::at(0); TOPICS_AT_ONCE], 0);
            for topic in topics {
                changed[count % TOPICS_AT_ONCE] = topic.symbol();
                count += usize::from(revs.get(topic.symbol().index()).is_some_and(|rev| *rev > since));
            }
            let changed = &changed[..count.min(TOPICS_AT_ONCE)];
            let put = self.put_short(replica, changed, shape, out, limit, ticks);
            for symbol in &changed[put..] {
                let row = self.image(replica, *symbol, shape, ticks);
                if row.len == 0 {
                    continue;
                }
                if out.len() > limit {
                    return looked_at
                        + topics.iter().position(|topic| topic.symbol() == *symbol).unwrap_or(0);
                }
                self.put(row, out);
                ticks.given.push(row.tick);
            }
            looked_at += topics.len();
        }
        looked_at
    }

    /// Appends rows as long as they are short, and notes their ticks. Returns how many symbols were looked at.
    fn put_short(
        &mut self,
        replica: &Replica,
        symbols: &[Symbol],
        shape: ShapeName,
        out: &mut Text,
        limit: usize,
        ticks: &mut Ticks,
    ) -> usize {
        let Some(left) = limit.checked_sub(out.len()) else { return 0 };
        // No row begins where less than a short one has room, so that one look at the room is enough.
        let mut room = out.spare(left.min(symbols.len() * SHORT) + SHORT);
        let whole = room.len();
        let (mut numbers, mut rows, mut looked_at) = ([0; TOPICS_AT_ONCE], 0, 0);
        for symbol in symbols {
            let row = self.image(replica, *symbol, shape, ticks);
            let len = row.len as usize;
            if len > SHORT {
                break;
            }
            let (Some(from), Some(to)) = (self.arena.short(row.start), room.first_chunk_mut()) else {
                break;
            };
            *to = *from;
            room = &mut room[len..];
            numbers[rows % TOPICS_AT_ONCE] = row.tick;
            rows += usize::from(len > 0);
            looked_at += 1;
        }
        let put = whole - room.len();
        out.claim(put);
        // All of them, whose number the compiler knows, then those that count.
        let before = ticks.given.len();
        ticks.given.extend_from_slice(&numbers);
        ticks.given.truncate(before + rows);
        looked_at
    }

    fn shape(&self, name: ShapeName) -> Shape {
        self.shapes[(name.0 - self.first_shape) as usize]
    }

    /// [`Rows::image`] for the first who asks in this turn.
    #[cold]
    fn find(&mut self, replica: &Replica, symbol: Symbol, name: ShapeName, ticks: &mut Ticks) {
        let shape = self.shape(name);
        let rev = replica.images.rev(symbol);
        let mut row = Row { shape: name.0, ..Row::default() };
        if rev > shape.since {
            let kept = &self.kept[symbol.index()];
            let is_same = (kept.rev, kept.fields, kept.style) == (rev, shape.fields, shape.style);
            if !(is_same && kept.since.contains(&shape.since) && kept.place >= self.forgotten) {
                self.encode(replica, symbol, shape);
            }
            let kept = &self.kept[symbol.index()];
            (row.start, row.len) = ((kept.place - self.forgotten) as u32, kept.len);
            if row.len > 0 {
                row.tick = ticks.number(kept.arrival_ns);
            }
        }
        self.last[symbol.index()] = row;
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
            since,
            fields: shape.fields,
            style: shape.style,
            place: self.forgotten + start as u64,
            len: (self.arena.len() - start) as u32,
            arrival_ns: images.head(symbol).arrival_ns,
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
                    let before = rows.arena.len();
                    let row = rows.image(&replica, symbol, name, &mut ticks);
                    encoded += usize::from(rows.arena.len() > before);
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
