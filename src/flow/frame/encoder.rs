//! From a stream and what a client holds to the frames it lacks.
//!
//! A shared flush, a slow client's catch-up and a first snapshot are the same walk: the topics whose revision is above
//! what is held, with the fields whose revision is. Bound kept here: that of [`Batch`], frame by frame.

use tickgate_feeds::market::{Channel, Symbol};

use super::batch::{Batch, Head};
use super::row::{Rows, Shape, encode_bar, encode_book, encode_event, push_gap, push_topic};
use crate::base::clock::Now;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::log::{Event, What};
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::streams::{Debt, Stream};
use crate::flow::dispatch::topic::Topic;
use crate::flow::dispatch::wish::Mode;

/// Selections shorter than this are walked whole; for longer ones the walk over what changed is tried first.
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
}

/// Makes frames from a replica.
#[derive(Debug)]
pub struct Encoder {
    /// The images and events.
    pub replica: Replica,
    /// When the newest tick of each row made since the last [`Encoder::begin_turn`] or `clear` entered the gateway.
    /// Rows of a first picture are not in it: they are as old as the market made them.
    pub arrivals_ns: Vec<u64>,
    /// What was done so far.
    pub stats: Stats,
    rows: Rows,
    walk: Vec<Topic>,
}

impl Encoder {
    /// For this replica.
    pub fn new(replica: Replica) -> Self {
        Self {
            replica,
            arrivals_ns: Vec::new(),
            stats: Stats::default(),
            rows: Rows::default(),
            walk: Vec::new(),
        }
    }

    /// To be called when the replica has changed.
    pub fn begin_turn(&mut self) {
        self.rows.begin_turn(self.replica.len());
        self.arrivals_ns.clear();
    }

    /// Makes the stream's next frames, for everybody on it, and moves the stream on. Returns whether there was anything.
    pub fn encode_shared(&mut self, stream: &mut Stream, batch: &mut Batch, now: Now) -> bool {
        batch.restart();
        let mut position = Debt::holding(stream.rev, stream.seq);
        position.target = self.replica.rev;
        let mut walk = std::mem::take(&mut self.walk);
        walk.clear();
        let topics = if self.changed_topics(stream, &mut walk) { &walk } else { &stream.selection };
        loop {
            let done = self.fill(stream, topics, &mut position, self.replica.rev, batch);
            if batch.is_empty() {
                break;
            }
            stream.seq += 1;
            let rev = if done { position.target } else { stream.rev };
            self.finish(stream, batch, position.seq, rev, false, !done, now);
            position.seq = Some(stream.seq);
            if done {
                break;
            }
        }
        self.walk = walk;
        stream.rev = position.target;
        if batch.frames().is_empty() {
            return false;
        }
        stream.frame_ns = now.mono_ns;
        true
    }

    /// Makes the next frame of what one client lacks, and notes in `debt` that it has it. Returns whether that was all;
    /// then the client holds what those on the stream hold. No frame is made when it holds that already.
    pub fn encode_private(&mut self, stream: &Stream, debt: &mut Debt, batch: &mut Batch, now: Now) -> bool {
        batch.restart();
        // A picture or a payment under way ends with a frame without `more`, be it empty.
        let owes_end = debt.fresh || debt.cursor > 0;
        if debt.cursor == 0 {
            debt.target = stream.rev;
        }
        let before = debt.seq;
        let done = self.fill(stream, &stream.selection, debt, stream.rev, batch);
        if batch.is_empty() && done && !owes_end && before == Some(stream.seq) {
            (debt.held, debt.cursor) = (debt.target, 0);
            return true;
        }
        let rev = if done { debt.target } else { debt.held };
        self.finish(stream, batch, before, rev, debt.fresh, !done, now);
        debt.seq = Some(stream.seq);
        if done {
            (debt.held, debt.cursor, debt.fresh) = (debt.target, 0, false);
        }
        done && debt.held == stream.rev && debt.events == stream.rev
    }

    /// Collects the selected topics that changed since the stream's last flush, if that is the shorter walk.
    fn changed_topics(&self, stream: &Stream, walk: &mut Vec<Topic>) -> bool {
        if stream.selection.len() < SHORT_SELECTION {
            return false;
        }
        let images_end = stream.selection.partition_point(|topic| topic.channel < Channel::Book);
        let mut budget = images_end / 4;
        for symbol in self.replica.images.changed_since(stream.rev) {
            if budget == 0 {
                return false;
            }
            budget -= 1;
            let topic = Topic { channel: self.replica.images.head(symbol).channel, symbol };
            if stream.selection[..images_end].binary_search(&topic).is_ok() {
                walk.push(topic);
            }
        }
        let joined =
            stream.joined.iter().filter(|(topic, rev)| *rev > stream.rev && topic.channel < Channel::Book);
        walk.extend(joined.map(|(topic, _)| *topic));
        walk.sort_unstable();
        walk.dedup();
        walk.extend_from_slice(&stream.selection[images_end..]);
        true
    }

    /// Appends rows from `debt.cursor` on until the frame is full or everything is in; events up to `events_target`.
    fn fill(
        &mut self,
        stream: &Stream,
        topics: &[Topic],
        debt: &mut Debt,
        events_target: Rev,
        batch: &mut Batch,
    ) -> bool {
        if debt.cursor as usize > topics.len() {
            debt.cursor = 0; // the selection changed under a payment: begin again, repeats do no harm
        }
        let bars_at = topics.partition_point(|topic| topic.channel <= Channel::Status) as u32;
        if !self.push_rows(stream, topics, bars_at, debt, batch) {
            return false;
        }
        if stream.events().is_empty() {
            debt.events = events_target;
        } else if !self.push_events(stream, debt, events_target, batch) {
            return false;
        }
        // A final bar stands before the bar that was opened after it.
        self.push_rows(stream, topics, topics.len() as u32, debt, batch)
    }

    fn push_rows(
        &mut self,
        stream: &Stream,
        topics: &[Topic],
        end: u32,
        debt: &mut Debt,
        batch: &mut Batch,
    ) -> bool {
        while debt.cursor < end {
            let topic = topics[debt.cursor as usize];
            if batch.is_full(self.row_bytes(stream, topic)) {
                return false;
            }
            self.push_topic_row(stream, topic, debt, batch);
            debt.cursor += 1;
        }
        true
    }

    fn push_topic_row(&mut self, stream: &Stream, topic: Topic, debt: &Debt, batch: &mut Batch) {
        let wish = &stream.wish;
        let held =
            if stream.joined.is_empty() || stream.joined_at(topic) <= debt.held { debt.held } else { 0 };
        let (replica, symbol) = (&self.replica, topic.symbol);
        if replica.topic_rev(topic.channel, symbol) <= held {
            return;
        }
        let name = replica.name(symbol);
        let out = batch.rows();
        let before = out.len();
        let arrival_ns = match topic.channel {
            Channel::Quote | Channel::Index => {
                let mut shape =
                    Shape { since: held, fields: wish.fields.mask(topic.channel), strings: wish.strings };
                if !wish.delta && replica.images.mask_since(symbol, held) & shape.fields != 0 {
                    shape.since = 0;
                }
                self.rows.push_image(out, &replica.images, name, symbol, shape);
                replica.images.head(symbol).arrival_ns
            }
            Channel::Book => {
                let Some(book) = replica.book(symbol) else { return };
                encode_book(out, &replica.images, name, book, wish.depth, wish.strings);
                book.arrival_ns
            }
            Channel::Trade if wish.mode == Mode::Every => return,
            Channel::Status => return,
            Channel::Trade => {
                let mut events = replica.log.topic_since(topic.channel, symbol, 0);
                let Some(last) = events.find(|event| !matches!(event.what, What::Gap { .. })) else { return };
                if last.rev <= held {
                    return;
                }
                encode_event(out, name, last, wish.strings);
                last.arrival_ns
            }
            _ => {
                let Some(open) = replica.bar(topic.channel, symbol) else { return };
                let Some(bar) = &open.bar else { return };
                encode_bar(out, name, open, bar, wish.strings);
                open.arrival_ns
            }
        };
        if out.len() > before {
            out.push(b',');
            self.stats.rows += 1;
            if held > 0 {
                self.arrivals_ns.push(arrival_ns);
            }
        }
        if held == 0 && debt.held > 0 {
            batch.added.push(b'"');
            push_topic(&mut batch.added, topic.channel, name);
            batch.added.extend_from_slice(b"\",");
        }
    }

    /// Appends the events after `debt.events` in their order, each topic's losses before them.
    fn push_events(&mut self, stream: &Stream, debt: &mut Debt, target: Rev, batch: &mut Batch) -> bool {
        let log = &self.replica.log;
        let mut due: Vec<&Event> = Vec::new();
        for &topic in stream.events() {
            let since = debt.events.max(stream.joined_at(topic));
            let known = log.topic(topic.channel, topic.symbol);
            if known.gone_rev > since && known.gone_rev <= target {
                let (name, reason) = (self.replica.name(topic.symbol), Reason::LogOverrun.label());
                self.stats.gaps += 1;
                push_gap(&mut batch.gaps, topic.channel, name, None, known.gone_q, reason);
            }
            due.extend(
                log.topic_since(topic.channel, topic.symbol, since).filter(|event| event.rev <= target),
            );
        }
        due.sort_unstable_by_key(|event| event.rev);
        let mut rows = 0;
        for event in due {
            if batch.is_full(0) {
                return false;
            }
            let name = self.replica.name(event.symbol);
            if let What::Gap { from, reason, .. } = event.what {
                if rows > 0 {
                    // A gap stands before the rows it precedes, so it begins a frame of its own.
                    return false;
                }
                self.stats.gaps += 1;
                push_gap(&mut batch.gaps, event.channel(), name, Some(from), event.q, reason.label());
            } else {
                encode_event(batch.rows(), name, event, stream.wish.strings);
                batch.rows().push(b',');
                rows += 1;
                self.arrivals_ns.push(event.arrival_ns);
            }
            debt.events = event.rev;
            self.stats.rows += u64::from(!matches!(event.what, What::Gap { .. }));
        }
        debt.events = target;
        true
    }

    fn finish(
        &mut self,
        stream: &Stream,
        batch: &mut Batch,
        prev: Option<u64>,
        rev: Rev,
        snapshot: bool,
        more: bool,
        now: Now,
    ) {
        self.stats.frames += 1;
        let (stream, seq) = (stream.number, stream.seq);
        batch.finish(Head { stream, seq, prev, rev, ts_us: now.wall.us(), snapshot, more });
    }

    /// How long the topic's row may be, for rows that can be long.
    fn row_bytes(&self, stream: &Stream, topic: Topic) -> usize {
        const LEVEL_BYTES: usize = 40; // `["61685.99","1.25869"],` with room for longer prices
        match topic.channel {
            Channel::Book => 2 * usize::from(stream.wish.depth) * LEVEL_BYTES,
            _ => 0,
        }
    }

    /// The number of the topic's last event that somebody who holds `rev` has been given.
    pub fn q_at(&self, topic: Topic, rev: Rev) -> u64 {
        let log = &self.replica.log;
        let known = log.topic(topic.channel, topic.symbol);
        let first_after = log.topic_since(topic.channel, topic.symbol, rev).last();
        first_after.map_or(known.q, |event| match event.what {
            What::Gap { from, .. } => from - 1,
            _ => event.q - 1,
        })
    }

    /// `"q"` of the answer to a subscription: the number each event topic stands at.
    pub fn event_numbers(&self, stream: &Stream) -> std::collections::BTreeMap<String, u64> {
        let of = |topic: &Topic| -> (String, u64) {
            let mut name = Vec::new();
            push_topic(&mut name, topic.channel, self.replica.name(topic.symbol));
            (String::from_utf8_lossy(&name).into_owned(), self.q_at(*topic, stream.rev))
        };
        stream.events().iter().map(of).collect()
    }

    /// Whether the symbol is known here yet.
    pub fn knows(&self, symbol: Symbol) -> bool {
        symbol.index() < self.replica.len()
    }
}
