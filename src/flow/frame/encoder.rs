//! From a stream and what a client holds to the frames it lacks.
//!
//! A shared flush, a slow client's catch-up and a first snapshot are the same walk: the topics whose revision is above
//! what is held, with the fields whose revision is. Bound kept here: that of [`Batch`], frame by frame.

use tickgate_feeds::market::{Channel, Symbol};

use super::batch::{Batch, Head};
use super::digest::digest;
use super::row::{
    Rows, Shape, encode_bar, encode_book, encode_event, encode_image, push_gap, push_out, push_refused,
    push_topic,
};
use super::text::Text;
use crate::base::clock::Now;
use crate::base::limits::LEVEL_TEXT_BYTES;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::log::{Event, What};
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::sieve::{Look, Owed, Sieve};
use crate::flow::dispatch::streams::{Debt, Stream};
use crate::flow::dispatch::topic::Topic;
use crate::flow::dispatch::wish::{Form, Mode, Wish};

/// Events taken from the log for one frame: more than fit into one.
const EVENTS_AT_ONCE: usize = 1024;
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
    /// When the newest tick of each row made since the last `clear` entered the gateway. Rows of a first picture
    /// are not in it: they are as old as the market made them.
    pub arrivals_ns: Vec<u64>,
    /// What a client holds that has taken the last shared frames up to each of them but the last.
    pub positions: Vec<Debt>,
    /// What was done so far.
    pub stats: Stats,
    rows: Rows,
    changed: Vec<Topic>,
}

impl Encoder {
    /// For this replica.
    pub fn new(replica: Replica) -> Self {
        Self {
            replica,
            arrivals_ns: Vec::new(),
            positions: Vec::new(),
            stats: Stats::default(),
            rows: Rows::default(),
            changed: Vec::new(),
        }
    }

    /// To be called when the replica has changed.
    pub fn begin_turn(&mut self) {
        self.rows.begin_turn(&self.replica);
    }

    /// Makes the stream's next frames, for everybody on it, and moves the stream on. Returns whether there are any.
    pub fn encode_shared(&mut self, stream: &mut Stream, batch: &mut Batch, now: Now) -> bool {
        let mut position = Debt { told: stream.told, ..Debt::holding(stream.rev, stream.seq) };
        position.target = self.replica.rev;
        let mut changed = std::mem::take(&mut self.changed);
        let mut seq = stream.seq;
        let before = self.stats;
        self.positions.clear();
        batch.clear();
        batch.open();
        for topic in std::mem::take(&mut stream.refused) {
            push_refused(&mut batch.rejected, topic.channel, self.replica.name(topic.symbol));
        }
        self.judge(stream, true);
        let walk = self.shortest_walk(stream, &mut changed);
        loop {
            let done = self.fill(stream, &walk, &mut position, self.replica.rev, batch);
            // A frame that said `more` is followed by one that does not, be it empty.
            if batch.is_empty() && batch.count() == 0 {
                break;
            }
            seq += 1;
            let rev = if done { position.target } else { stream.told };
            let digest = if done { self.digest(stream, seq) } else { None };
            let (number, prev, ts_us) = (stream.number, position.seq, now.wall.us());
            self.finish(
                batch,
                Head { stream: number, seq, prev, rev, ts_us, snapshot: false, more: !done, digest },
                stream.wish.form,
            );
            position.seq = Some(seq);
            if done {
                break;
            }
            // The next topic, by its place in the whole selection.
            let next = walk.topics.get(position.cursor as usize);
            let topics = stream.selection.topics();
            let at = next.map_or(topics.len(), |next| topics.partition_point(|topic| topic < next));
            self.positions.push(Debt { cursor: at as u32, ..position.clone() });
        }
        self.changed = changed;
        (stream.rev, stream.seq) = (position.target, seq);
        stream.rows += self.stats.rows - before.rows;
        stream.gaps += self.stats.gaps - before.gaps;
        if batch.count() == 0 {
            return false;
        }
        (stream.frame_ns, stream.told) = (now.mono_ns, position.target);
        true
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
        batch.clear();
        batch.open();
        self.judge(stream, false);
        // A picture or a payment under way ends with a frame without `more`, be it empty.
        let owes_end = debt.fresh || debt.cursor > 0;
        let from_start = debt.cursor == 0;
        if from_start {
            // A client may come from elsewhere with more than this stream has sent so far.
            debt.target = stream.rev.max(debt.held);
        }
        let before = debt.seq;
        let events_target = stream.rev.max(debt.events);
        let done = self.fill(stream, &Walk::whole(stream), debt, events_target, batch);
        // The next part of the shared frames names what those on the stream were told: nobody may be level and told less.
        let is_told = debt.told >= debt.target.min(stream.told);
        if batch.is_empty() && done && !owes_end && before == Some(stream.seq) && is_told {
            (debt.held, debt.cursor, debt.joining, debt.news) = (debt.target, 0, false, None);
            return debt.held == stream.rev && debt.events == stream.rev;
        }
        // Nobody on the stream has been told of more, and the next part of theirs must not name less.
        let rev = if done { debt.told.max(debt.target.min(stream.told)) } else { debt.told };
        // Only what was given at once, and as it stands here, can be told in one number.
        let whole = done && from_start && debt.target == self.replica.rev;
        let head = Head {
            stream: stream.number,
            seq: stream.seq,
            prev: before,
            rev,
            ts_us: now.wall.us(),
            snapshot: debt.fresh,
            more: !done,
            digest: if whole { self.digest(stream, stream.seq) } else { None },
        };
        self.finish(batch, head, stream.wish.form);
        (debt.seq, debt.told) = (Some(stream.seq), rev);
        if done {
            (debt.held, debt.cursor, debt.news) = (debt.target, 0, None);
            (debt.fresh, debt.joining) = (false, false);
        }
        done && debt.held == stream.rev && debt.events == stream.rev
    }

    /// Lets a stream with a filter look at what changed since it looked last; `flushes` if those on the stream are sent what
    /// they lack now. A new stream looks once before anybody is served.
    pub fn judge(&self, stream: &mut Stream, flushes: bool) {
        let (Some(filter), Some(sieve)) = (&stream.wish.filter, &mut stream.sieve) else { return };
        let images = &stream.selection.topics()[..stream.selection.images_end()];
        let flush_from = flushes.then_some(stream.rev);
        let look = Look { images: &self.replica.images, rev: self.replica.rev, flush_from };
        sieve.judge(filter, images, look, &|symbol| self.replica.steps(symbol));
    }

    /// The whole selection, or, if fewer images than a part of it have changed, only those.
    fn shortest_walk<'a>(&self, stream: &'a Stream, changed: &'a mut Vec<Topic>) -> Walk<'a> {
        let whole = Walk::whole(stream);
        if whole.images_end < SHORT_SELECTION {
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
            let topic = Topic { channel: self.replica.images.head(symbol).channel, symbol };
            if images.binary_search(&topic).is_ok() {
                changed.push(topic);
            }
        }
        let joined =
            stream.joined.iter().filter(|(topic, rev)| *rev > stream.rev && topic.channel < Channel::Book);
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
        let plain =
            stream.joined.is_empty() && stream.wish.delta && debt.news.is_none() && stream.sieve.is_none();
        if plain && !self.push_images(stream, &walk.topics[..walk.images_end], debt, batch) {
            return false;
        }
        if !self.push_rows(stream, &walk.topics[..walk.bars_at], debt, batch) {
            return false;
        }
        if stream.events().is_empty() {
            debt.events = events_target;
        } else if !self.push_events(stream, debt, events_target, batch) {
            return false;
        }
        // A final bar stands before the bar that was opened after it.
        self.push_rows(stream, walk.topics, debt, batch)
    }

    /// The common case of [`Encoder::push_rows`]: images whose topics were there from the beginning, changed fields only.
    fn push_images(&mut self, stream: &Stream, topics: &[Topic], debt: &mut Debt, batch: &mut Batch) -> bool {
        let (held, wish) = (debt.held, &stream.wish);
        let mut name = |fields| self.rows.name(Shape { since: held, fields, style: wish.style });
        let (quote, index) = (name(wish.fields.quote), name(wish.fields.index));
        let end = batch.rows_end();
        let out = batch.rows();
        let (limit, before) = (end.max(out.len()), self.arrivals_ns.len());
        // Topics are in the order of their channels: quotes, then indices.
        let indices_at = topics.partition_point(|topic| topic.channel == Channel::Quote);
        for (topics_end, shape) in [(indices_at, quote), (topics.len(), index)] {
            let rest = topics.get(debt.cursor as usize..topics_end).unwrap_or_default();
            let put = self.rows.put_all(&self.replica, rest, shape, out, limit, &mut self.arrivals_ns);
            debt.cursor += put as u32;
            if put < rest.len() {
                break;
            }
        }
        self.stats.rows += (self.arrivals_ns.len() - before) as u64;
        if held == 0 {
            self.arrivals_ns.truncate(before);
        }
        debt.cursor as usize >= topics.len()
    }

    fn push_rows(&mut self, stream: &Stream, topics: &[Topic], debt: &mut Debt, batch: &mut Batch) -> bool {
        while let Some(&topic) = topics.get(debt.cursor as usize) {
            let there =
                (stream.joined.is_empty() || stream.joined_at(topic) <= debt.held) && !debt.lacks(topic);
            let held = if there { debt.held } else { 0 };
            if self.replica.topic_rev(topic.channel, topic.symbol, stream.wish.depth) > held {
                if batch.is_full(self.row_bytes(stream, topic)) {
                    return false;
                }
                self.push_topic_row(stream, topic, held, debt, batch);
            }
            debt.cursor += 1;
        }
        true
    }

    fn push_topic_row(&mut self, stream: &Stream, topic: Topic, held: Rev, debt: &Debt, batch: &mut Batch) {
        let wish = &stream.wish;
        let (replica, symbol) = (&self.replica, topic.symbol);
        let name = replica.name(symbol);
        let out = batch.rows();
        let before = out.len();
        let arrival_ns = match topic.channel {
            Channel::Quote | Channel::Index => {
                let sieve = stream.sieve.as_ref();
                match sieve.map_or(Owed::Since(held), |sieve| sieve.owed(symbol, held, debt.held)) {
                    Owed::Nothing => {}
                    Owed::Out => push_out(out, name),
                    Owed::Since(since) => {
                        let fields = wish.fields.mask(topic.channel);
                        let mut shape = Shape { since, fields, style: wish.style };
                        if !wish.delta && replica.images.mask_since(symbol, since) & fields != 0 {
                            shape.since = 0;
                        }
                        if sieve.is_some_and(Sieve::waits) {
                            // Each image may have a `since` of its own: nobody else wants the same row.
                            encode_image(out, &replica.images, name, symbol, shape);
                        } else {
                            let shape = self.rows.name(shape);
                            let row = self.rows.image(replica, symbol, shape);
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
            Channel::Trade if wish.mode == Mode::Every => return,
            Channel::Status => return,
            Channel::Trade => {
                let mut events = replica.log.topic_since(topic.channel, symbol, held);
                let is_wanted = |event: &&Event| matches!(event.what, What::Trade(_)) && passes(wish, event);
                let Some(last) = events.find(is_wanted) else { return };
                encode_event(out, name, last, wish.style);
                last.arrival_ns
            }
            _ => {
                let Some(open) = replica.bar(topic.channel, symbol) else { return };
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
                self.arrivals_ns.push(arrival_ns);
            }
        }
        if held == 0 && debt.held > 0 {
            batch.added.put(b"\"");
            push_topic(&mut batch.added, topic.channel, name);
            batch.added.put(b"\",");
        }
    }

    /// Appends the events after `debt.events` in their order, each topic's losses before them.
    fn push_events(&mut self, stream: &Stream, debt: &mut Debt, target: Rev, batch: &mut Batch) -> bool {
        let (due, all) = self.due_events(stream, debt, target);
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
                self.stats.overruns += u64::from(reason == Reason::LogOverrun);
                push_gap(&mut batch.gaps, event.channel(), name, from, event.q, reason.label());
            } else {
                encode_event(batch.rows(), name, &event, stream.wish.style);
                batch.rows().put(b",");
                rows += 1;
                self.arrivals_ns.push(event.arrival_ns);
            }
            debt.events = event.rev;
            self.stats.rows += u64::from(!matches!(event.what, What::Gap { .. }));
        }
        if all {
            debt.events = target;
        }
        all
    }

    /// The events after `since`, oldest first, and whether these are all. Who is far behind gets them in portions, so that
    /// no payment walks the whole log for one frame.
    fn due_events(&self, stream: &Stream, debt: &Debt, target: Rev) -> (Vec<Event>, bool) {
        let log = &self.replica.log;
        let mut due: Vec<Event> = Vec::new();
        let since = |topic: Topic| {
            let asked = debt.news.as_ref().filter(|_| debt.lacks(topic)).map_or(0, |news| news.events_from);
            debt.events.max(stream.joined_at(topic)).max(asked)
        };
        for &topic in stream.events() {
            let known = log.topic(topic.channel, topic.symbol);
            if known.gone_rev > since(topic) && known.gone_rev <= target {
                due.push(known.gone(topic.channel, topic.symbol));
            }
        }
        let wanted = |event: &&Event| {
            let topic = Topic { channel: event.channel(), symbol: event.symbol };
            stream.events().binary_search(&topic).is_ok()
                && event.rev > since(topic)
                && passes(&stream.wish, event)
        };
        let mut all = true;
        if log.count_since(debt.events) > EVENTS_AT_ONCE {
            let before = due.len();
            let behind = log.since(debt.events).take_while(|event| event.rev <= target);
            due.extend(behind.filter(wanted).take(EVENTS_AT_ONCE));
            all = due.len() - before < EVENTS_AT_ONCE;
        } else {
            for &topic in stream.events() {
                let events = log.topic_since(topic.channel, topic.symbol, since(topic));
                due.extend(events.filter(|event| event.rev <= target && passes(&stream.wish, event)));
            }
        }
        due.sort_unstable_by_key(|event| event.rev);
        (due, all)
    }

    fn finish(&mut self, batch: &mut Batch, head: Head, form: Form) {
        self.stats.frames += 1;
        batch.finish(head, form);
    }

    /// The digest that a frame of this number has: of everything, as it stands here.
    fn digest(&self, stream: &Stream, seq: u64) -> Option<u32> {
        let due = stream.wish.digest > 0 && seq.is_multiple_of(u64::from(stream.wish.digest));
        let shown = |topic: &&Topic| stream.sieve.as_ref().is_none_or(|sieve| sieve.shows(**topic));
        due.then(|| digest(&self.replica, &stream.wish, stream.selection.topics().iter().filter(shown)))
    }

    /// How long the topic's row may be, for rows that can be long.
    fn row_bytes(&self, stream: &Stream, topic: Topic) -> usize {
        let book = self.replica.book(topic.symbol).filter(|_| topic.channel == Channel::Book);
        let depth = usize::from(stream.wish.depth);
        book.map_or(0, |book| (book.bids.len().min(depth) + book.asks.len().min(depth)) * LEVEL_TEXT_BYTES)
    }

    /// The number of the topic's last event that somebody who holds `rev` has been given.
    pub fn q_at(&self, topic: Topic, rev: Rev) -> u64 {
        let log = &self.replica.log;
        let known = log.topic(topic.channel, topic.symbol);
        let first_after = log.topic_since(topic.channel, topic.symbol, rev).last();
        first_after.map_or(known.q, |event| match event.what {
            What::Gap { from: Some(from), .. } => from - 1,
            _ => event.q - 1,
        })
    }

    /// The topic's name as clients write it.
    pub fn topic_name(&self, topic: Topic) -> String {
        let mut name = Text::default();
        push_topic(&mut name, topic.channel, self.replica.name(topic.symbol));
        String::from_utf8_lossy(name.as_bytes()).into_owned()
    }

    /// `"q"` of the answer to a subscription: the number each event topic stands at for a client with this debt.
    pub fn event_numbers(
        &self,
        stream: &Stream,
        debt: Option<&Debt>,
    ) -> std::collections::BTreeMap<String, u64> {
        let of = |topic: &Topic| -> (String, u64) {
            let since = debt.map_or(stream.rev, |debt| {
                let asked = debt.news.as_ref().filter(|_| debt.lacks(*topic));
                asked.map_or(debt.events, |news| news.events_from)
            });
            (self.topic_name(*topic), self.q_at(*topic, since))
        };
        stream.events().iter().map(of).collect()
    }

    /// Whether the symbol is known here yet.
    pub fn knows(&self, symbol: Symbol) -> bool {
        symbol.index() < self.replica.len()
    }
}

/// Whether the filter, if there is one, lets an event through: it speaks of trades alone.
fn passes(wish: &Wish, event: &Event) -> bool {
    match (&wish.filter, &event.what) {
        (Some(filter), What::Trade(trade)) => filter.takes_trade(trade),
        _ => true,
    }
}
