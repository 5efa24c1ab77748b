//! From a stream and what a client holds to the frames it lacks.
//!
//! A shared flush, a slow client's catch-up and a first snapshot are the same walk: the topics whose revision is above
//! what is held, with the fields whose revision is. Bound kept here: that of [`Batch`], frame by frame.

mod events;

use tickgate_feeds::market::{Channel, Symbol};

use events::{passes, window_of};

use super::batch::{Batch, Head};
use super::digest::digest;
use super::row::{
    Shape, encode_bar, encode_book, encode_event, encode_image, encode_no_fields, push_out, push_refused,
    push_topic, push_window,
};
use super::rows::Rows;
use super::text::Text;
use super::ticks::Ticks;
use crate::base::clock::Now;
use crate::base::limits::LEVEL_TEXT_BYTES;
use crate::flow::conflation::Rev;
use crate::flow::conflation::log::{Event, What};
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::sieve::{Look, Owed, Sieve};
use crate::flow::dispatch::streams::{Debt, Stream};
use crate::flow::dispatch::topic::Topic;
use crate::flow::dispatch::wish::Packing;

/// Selections shorter than this are walked whole, into one frame if it has room; for longer ones the walk over what changed
/// is tried first.
const SHORT_SELECTION: usize = 64;

/// What the encoder did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames made, each for one or for many clients.
    pub frames: u64,
    /// Rows in them.
    pub rows: u64,
    /// Losses announced in them.
    pub gaps: u64,
    /// Of these, for events that were no longer in the log.
    pub overruns: u64,
}

/// The topics to look at, in order.
struct Walk<'a> {
    topics: &'a [Topic],
    /// How many of the first are images.
    images_end: usize,
    /// How many of the first are no bars.
    bars_at: usize,
}

impl<'a> Walk<'a> {
    /// No rows but those of events.
    fn events(stream: &'a Stream) -> Self {
        let topics = stream.selection.topics();
        Self { topics: &topics[topics.len()..], images_end: 0, bars_at: 0 }
    }

    fn whole(stream: &'a Stream) -> Self {
        let selection = &stream.selection;
        Self { topics: selection.topics(), images_end: selection.images_end(), bars_at: selection.bars_at() }
    }
}

/// Makes frames from a replica.
#[derive(Debug)]
pub struct Encoder {
    /// The images and events.
    pub replica: Replica,
    /// What a client holds that has taken the last shared frames up to each of them but the last.
    pub held_between: Vec<Debt>,
    /// What was done so far.
    pub stats: Stats,
    /// When the newest tick of each row arrived.
    ticks: Ticks,
    rows: Rows,
    changed: Vec<Topic>,
}

impl Encoder {
    /// For this replica.
    pub fn new(replica: Replica) -> Self {
        Self {
            replica,
            held_between: Vec::new(),
            stats: Stats::default(),
            ticks: Ticks::default(),
            rows: Rows::default(),
            changed: Vec::new(),
        }
    }

    /// To be called when the replica has changed.
    pub fn begin_turn(&mut self) {
        self.rows.begin_turn(&self.replica);
        self.ticks.begin_turn();
    }

    /// Makes the stream's next frames, for everybody on it, and moves the stream on. Returns whether there are any. Their
    /// rows count as written `times` times; see [`Encoder::recount`].
    #[inline]
    pub fn encode_shared(&mut self, stream: &mut Stream, batch: &mut Batch, times: u32, now: Now) -> bool {
        let (rows, has_images) = (self.stats.rows, stream.is_open());
        self.begin_frames(batch, times);
        if !self.encode_one(stream, batch, now) {
            self.encode_many(stream, batch, now);
        }
        self.ticks.count_given(i64::from(times));
        stream.rows += self.stats.rows - rows;
        let sent = batch.count() > 0;
        if sent {
            stream.frame_ns = now.mono_ns;
            if has_images {
                stream.images_ns = now.mono_ns;
            }
        }
        sent
    }

    /// The common case: a few images, of which all that changed fits one frame. Returns whether it is that.
    #[inline]
    fn encode_one(&mut self, stream: &mut Stream, batch: &mut Batch, now: Now) -> bool {
        let (topics, rows) = (stream.selection.topics(), self.stats.rows);
        let is_short = topics.len() < SHORT_SELECTION && stream.selection.is_images();
        if !(is_short && stream.is_plain() && stream.is_open() && stream.refused.is_empty()) {
            return false;
        }
        self.rows.begin_frame();
        if self.push_images(stream, topics, stream.rev, batch) < topics.len() {
            self.stats.rows = rows;
            self.rows.forget_given();
            batch.clear();
            batch.open();
            return false;
        }
        let prev = stream.seq;
        (stream.rev, stream.events_rev) = (self.replica.rev, self.replica.rev);
        if !batch.is_empty() {
            stream.seq += 1;
            let head = Head {
                stream: stream.number,
                seq: stream.seq,
                prev: Some(prev),
                rev: stream.rev,
                ts_us: now.wall.us(),
                snapshot: false,
                more: false,
                digest: self.digest(stream, stream.seq),
            };
            self.finish(batch, head, stream.wish.packing);
        }
        true
    }

    #[inline]
    fn begin_frames(&mut self, batch: &mut Batch, times: u32) {
        self.ticks.begin_frames();
        self.rows.begin_frames(times);
        batch.clear();
        batch.open();
    }

    fn encode_many(&mut self, stream: &mut Stream, batch: &mut Batch, now: Now) {
        let mut position = Debt::at(stream.position());
        // A stream whose slot is used sends events alone: of its images there is no more than before.
        let ahead = !stream.is_open();
        position.target = if ahead { stream.rev } else { self.replica.rev };
        let mut changed = std::mem::take(&mut self.changed);
        let mut seq = stream.seq;
        let gaps = self.stats.gaps;
        self.held_between.clear();
        for topic in std::mem::take(&mut stream.refused) {
            push_refused(&mut batch.rejected, topic.channel(), self.replica.name(topic.symbol()));
        }
        self.judge(stream, true);
        let walk = if ahead { Walk::events(stream) } else { self.shortest_walk(stream, &mut changed) };
        loop {
            let done = self.fill(stream, &walk, &mut position, self.replica.rev, batch);
            // A frame that said `more` is followed by one that does not, be it empty.
            if batch.is_empty() && batch.count() == 0 {
                break;
            }
            seq += 1;
            let rev = if done { position.target } else { position.held };
            let digest = if done && !ahead { self.digest(stream, seq) } else { None };
            let (number, prev, ts_us) = (stream.number, position.seq, now.wall.us());
            self.finish(
                batch,
                Head { stream: number, seq, prev, rev, ts_us, snapshot: false, more: !done, digest },
                stream.wish.packing,
            );
            position.seq = Some(seq);
            if done {
                break;
            }
            // The next topic, by its place in the whole selection.
            let next = walk.topics.get(position.cursor as usize);
            let topics = stream.selection.topics();
            let at = next.map_or(topics.len(), |next| topics.partition_point(|topic| topic < next));
            self.held_between.push(Debt { cursor: at as u32, under_way: true, ..position.clone() });
        }
        self.changed = changed;
        (stream.rev, stream.events_rev, stream.seq) = (position.target, self.replica.rev, seq);
        stream.gaps += self.stats.gaps - gaps;
    }

    /// The rows of the frames made last went out so many times more, or less often, than was counted.
    #[inline]
    pub fn recount(&mut self, times: i32) {
        if times != 0 {
            self.rows.count_given(times);
            self.ticks.count_given(i64::from(times));
        }
    }

    /// Hands out when each tick arrived and how many rows of it went out since this was last asked.
    pub fn take_times(&mut self, tick: impl FnMut(u64, u64)) {
        self.rows.settle(&mut self.ticks);
        self.ticks.take(tick);
    }

    /// Makes the next frame of what one client lacks, and notes in `debt` that it has it. Returns whether that was all;
    /// then the client holds what those on the stream hold. No frame is made when it holds that already.
    pub fn encode_private(
        &mut self,
        stream: &mut Stream,
        debt: &mut Debt,
        batch: &mut Batch,
        now: Now,
    ) -> bool {
        self.begin_frames(batch, 1);
        self.judge(stream, false);
        if debt.fresh && self.replica.node.run > 0 {
            // Who connected in an earlier run was greeted with another epoch.
            batch.epoch.put_slice(self.replica.node.epoch.as_bytes());
        }
        // A picture or a payment under way ends with a frame without `more`, be it empty.
        let owes_end = debt.fresh || debt.under_way;
        let from_start = !debt.under_way;
        if from_start {
            // A client may come from elsewhere with more than this stream has sent so far.
            debt.target = stream.rev.max(debt.held);
        }
        let before = debt.seq;
        // A payment ends: events that come meanwhile wait for the next, or others would wait for them for ever. Where each
        // trade stands after the quote that it met, the quotes of now can only come after the trades of now.
        let events_target = if stream.is_ahead() { stream.events_rev } else { debt.target }.max(debt.events);
        let walk = Walk::whole(stream);
        if from_start && stream.is_ahead() && !stream.owes_images(debt, now.mono_ns) {
            (debt.cursor, debt.target) = (walk.topics.len() as u32, debt.held);
        }
        let done = self.fill(stream, &walk, debt, events_target, batch);
        self.ticks.count_given(1);
        if batch.is_empty() && done && !owes_end && before == Some(stream.seq) {
            debt.end_payment(stream);
            return debt.is_level(stream);
        }
        // Only what was given at once, and as it stands here, can be told in one number.
        let whole = done && from_start && debt.target == self.replica.rev;
        let head = Head {
            stream: stream.number,
            seq: stream.seq,
            prev: before,
            rev: if done { debt.target } else { debt.held },
            ts_us: now.wall.us(),
            snapshot: debt.fresh,
            more: !done,
            digest: if whole { self.digest(stream, stream.seq) } else { None },
        };
        self.finish(batch, head, stream.wish.packing);
        (debt.seq, debt.under_way) = (Some(stream.seq), !done);
        if done {
            debt.end_payment(stream);
        }
        done && debt.is_level(stream)
    }

    /// Lets a stream with a filter look at what changed since it looked last; `flushes` if those on the stream are sent what
    /// they lack now. A new stream looks once before anybody is served.
    pub fn judge(&self, stream: &mut Stream, flushes: bool) {
        // The sieve first: most streams have none, and their wish lies elsewhere in memory.
        let (Some(sieve), Some(filter)) = (&mut stream.sieve, &stream.wish.filter) else { return };
        let images = &stream.selection.topics()[..stream.selection.images_end()];
        let flush_from = flushes.then_some(stream.rev);
        let look = Look { images: &self.replica.images, rev: self.replica.rev, flush_from };
        sieve.judge(filter, images, look, &|symbol| self.replica.steps(symbol));
    }

    /// The whole selection, or, if fewer images than a part of it have changed, only those.
    fn shortest_walk<'a>(&self, stream: &'a Stream, changed: &'a mut Vec<Topic>) -> Walk<'a> {
        let whole = Walk::whole(stream);
        if whole.images_end < SHORT_SELECTION || stream.wish.window {
            return whole;
        }
        let (images, others) = whole.topics.split_at(whole.images_end);
        changed.clear();
        let mut budget = images.len() / 4;
        for symbol in self.replica.images.changed_since(stream.rev) {
            if budget == 0 {
                return whole;
            }
            budget -= 1;
            let topic = Topic::new(self.replica.images.head(symbol).channel, symbol);
            if images.binary_search(&topic).is_ok() {
                changed.push(topic);
            }
        }
        let joined =
            stream.joined.iter().filter(|(topic, rev)| *rev > stream.rev && topic.channel() < Channel::Book);
        changed.extend(joined.map(|(topic, _)| *topic));
        changed.sort_unstable();
        changed.dedup();
        let images_end = changed.len();
        changed.extend_from_slice(others);
        Walk { topics: changed, images_end, bars_at: images_end + whole.bars_at - images.len() }
    }

    /// Appends rows from `debt.cursor` on until the frame is full or everything is in; events up to `events_target`.
    fn fill(
        &mut self,
        stream: &Stream,
        walk: &Walk<'_>,
        debt: &mut Debt,
        events_target: Rev,
        batch: &mut Batch,
    ) -> bool {
        if debt.cursor as usize > walk.topics.len() {
            debt.cursor = 0; // the selection changed under a payment: begin again, repeats do no harm
        }
        self.rows.begin_frame();
        if stream.is_plain() && debt.news.is_none() {
            let images = walk.topics[..walk.images_end].get(debt.cursor as usize..).unwrap_or_default();
            let put = self.push_images(stream, images, debt.held, batch);
            debt.cursor += put as u32;
            if put < images.len() {
                return false;
            }
        }
        // In mode `trade_safe` a trade stands after the quote that it met, and the quotes of now come after both.
        let first = stream.is_ahead() && !debt.fresh;
        if first && !self.push_events(stream, debt, events_target, batch) {
            return false;
        }
        if !self.push_rows(stream, &walk.topics[..walk.bars_at], debt, batch) {
            return false;
        }
        if !first && !self.push_events(stream, debt, events_target, batch) {
            return false;
        }
        // A final bar stands before the bar that was opened after it.
        self.push_rows(stream, walk.topics, debt, batch)
    }

    /// The common case of [`Encoder::push_rows`]: images whose topics were there from the beginning, changed fields only.
    /// Returns how many topics were looked at.
    #[inline(always)]
    fn push_images(&mut self, stream: &Stream, topics: &[Topic], held: Rev, batch: &mut Batch) -> usize {
        let end = batch.rows_end();
        let out = batch.rows();
        let (limit, before) = (end.max(out.len()), self.rows.put_ever());
        let mut put = |topics: &[Topic], fields: u32| {
            if topics.is_empty() {
                return 0; // no shape is named for nothing
            }
            let shape = self.rows.name(Shape { since: held, fields, style: stream.wish.style });
            self.rows.put_all(&self.replica, topics, shape, out, limit, &mut self.ticks)
        };
        // Topics are in the order of their channels: quotes, then indices.
        let has_indices = topics.last().is_some_and(|topic| topic.channel() != Channel::Quote);
        let fields = stream.wish.fields;
        let looked_at = if has_indices {
            let indices_at = topics.partition_point(|topic| topic.channel() == Channel::Quote);
            let quotes = put(&topics[..indices_at], fields.quote);
            quotes + if quotes == indices_at { put(&topics[indices_at..], fields.index) } else { 0 }
        } else {
            put(topics, fields.quote)
        };
        self.stats.rows += self.rows.put_ever() - before;
        if held == 0 {
            // Rows of a first picture are as old as the market made them.
            self.rows.forget_given();
        }
        looked_at
    }

    fn push_rows(&mut self, stream: &Stream, topics: &[Topic], debt: &mut Debt, batch: &mut Batch) -> bool {
        while let Some(&topic) = topics.get(debt.cursor as usize) {
            let there =
                (stream.joined.is_empty() || stream.joined_at(topic) <= debt.held) && !debt.lacks(topic);
            let held = if there { debt.held } else { debt.given_rev(topic).unwrap_or(0) };
            let rev = self.topic_rev(stream, topic);
            // Of an image of which each change is given, only the first row is its state.
            let is_event = held > 0 && topic.is_image() && stream.wish.is_event(topic.channel());
            if rev > held && !is_event {
                if batch.is_full(self.row_bytes(stream, topic)) {
                    return false;
                }
                self.push_topic_row(stream, topic, held, debt, batch);
                if held == 0 && topic.is_image() && !stream.kept_images().is_empty() {
                    debt.gave(topic, rev);
                }
            }
            debt.cursor += 1;
        }
        true
    }

    /// The revision of a topic's last change; a window has the trades too.
    fn topic_rev(&self, stream: &Stream, topic: Topic) -> Rev {
        let rev = self.replica.topic_rev(topic.channel(), topic.symbol(), stream.wish.depth);
        let has_trades = stream.wish.window && topic.channel() == Channel::Quote;
        if has_trades { rev.max(self.replica.log.topic(Channel::Trade, topic.symbol()).rev) } else { rev }
    }

    fn push_topic_row(&mut self, stream: &Stream, topic: Topic, held: Rev, debt: &Debt, batch: &mut Batch) {
        let wish = &stream.wish;
        let (replica, symbol) = (&self.replica, topic.symbol());
        let name = replica.name(symbol);
        let out = batch.rows();
        let before = out.len();
        let arrival_ns = match topic.channel() {
            Channel::Quote | Channel::Index => {
                let sieve = stream.sieve.as_deref();
                match sieve.map_or(Owed::Since(held), |sieve| sieve.owed(symbol, held, debt.held)) {
                    Owed::Nothing => {}
                    Owed::Out => push_out(out, name),
                    Owed::Since(since) => {
                        let fields = wish.fields.mask(topic.channel());
                        let mut shape = Shape { since, fields, style: wish.style };
                        if !wish.delta && replica.images.mask_since(symbol, since) & fields != 0 {
                            shape.since = 0;
                        }
                        if sieve.is_some_and(Sieve::waits) || wish.window {
                            // Each image may have a `since` of its own: nobody else wants the same row.
                            encode_image(out, &replica.images, name, symbol, shape);
                            if wish.window && since > 0 {
                                let since = since.max(debt.given_rev(topic).unwrap_or(0));
                                let window = window_of(replica, topic, since);
                                if out.len() == before && !window.is_empty() {
                                    let head = replica.images.head(symbol);
                                    encode_no_fields(out, name, self.topic_rev(stream, topic), head);
                                }
                                if out.len() > before {
                                    push_window(out, window, wish.style);
                                }
                            }
                        } else {
                            let shape = self.rows.name(shape);
                            let row = self.rows.image(replica, symbol, shape, &mut self.ticks);
                            self.rows.put(row, out);
                        }
                    }
                }
                replica.images.head(symbol).arrival_ns
            }
            Channel::Book => {
                let Some(book) = replica.book(symbol) else { return };
                encode_book(out, &replica.images, name, book, wish.depth, wish.style);
                book.arrival_ns
            }
            Channel::Trade if wish.is_event(Channel::Trade) => return,
            Channel::Status => return,
            Channel::Trade => {
                let mut events = replica.log.topic_since(topic.channel(), symbol, held);
                let is_wanted = |event: &&Event| matches!(event.what, What::Trade(_)) && passes(wish, event);
                let Some(last) = events.find(is_wanted) else { return };
                encode_event(out, name, last, wish.style);
                last.arrival_ns
            }
            _ => {
                let Some(open) = replica.bar(topic.channel(), symbol) else { return };
                let Some(bar) = &open.bar else { return };
                encode_bar(out, name, open, bar, wish.style);
                open.arrival_ns
            }
        };
        if out.len() > before {
            // Image rows bring their comma along.
            if !out.as_bytes().ends_with(b",") {
                out.put(b",");
            }
            self.stats.rows += 1;
            if held > 0 {
                self.ticks.give(arrival_ns);
            }
        }
        if held == 0 && debt.held > 0 {
            batch.added.put(b"\"");
            push_topic(&mut batch.added, topic.channel(), name);
            batch.added.put(b"\",");
        }
    }

    #[inline]
    fn finish(&mut self, batch: &mut Batch, head: Head, packing: Packing) {
        self.stats.frames += 1;
        batch.finish(head, packing);
    }

    /// The digest that a frame of this number has: of everything, as it stands here.
    #[inline]
    fn digest(&self, stream: &Stream, seq: u64) -> Option<u32> {
        let due = stream.wish.digest > 0 && seq.is_multiple_of(u64::from(stream.wish.digest));
        due.then(|| self.digest_of(stream))
    }

    #[cold]
    fn digest_of(&self, stream: &Stream) -> u32 {
        let shown = |topic: &&Topic| stream.sieve.as_ref().is_none_or(|sieve| sieve.shows(**topic));
        digest(&self.replica, &stream.wish, stream.selection.topics().iter().filter(shown))
    }

    /// How long the topic's row may be, for rows that can be long.
    fn row_bytes(&self, stream: &Stream, topic: Topic) -> usize {
        let book = self.replica.book(topic.symbol()).filter(|_| topic.channel() == Channel::Book);
        let depth = usize::from(stream.wish.depth);
        book.map_or(0, |book| (book.bids.len().min(depth) + book.asks.len().min(depth)) * LEVEL_TEXT_BYTES)
    }

    /// The topic's name as clients write it.
    pub fn topic_name(&self, topic: Topic) -> String {
        let mut name = Text::default();
        push_topic(&mut name, topic.channel(), self.replica.name(topic.symbol()));
        String::from_utf8_lossy(name.as_bytes()).into_owned()
    }

    /// `"q"` of the answer to a subscription: the number each event topic stands at for a client with this debt.
    pub fn event_numbers(
        &self,
        stream: &Stream,
        debt: Option<&Debt>,
    ) -> std::collections::BTreeMap<String, u64> {
        let since = debt.map_or(stream.rev, |debt| debt.events);
        stream.events().iter().map(|topic| (self.topic_name(*topic), self.q_at(*topic, since))).collect()
    }

    /// Whether the symbol is known here yet.
    pub fn knows(&self, symbol: Symbol) -> bool {
        symbol.index() < self.replica.len()
    }
}
