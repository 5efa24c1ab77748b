//! The events that a client lacks, and the changes of images where each is given: in their order, losses before them.
//!
//! Bounds kept here: `EVENTS_AT_ONCE` events are taken from the log for one frame, or `CHAINED_MAX` from chains.

use tickgate_feeds::market::{Channel, TradeKind, index, quote};

use super::Encoder;
use crate::base::limits::ROW_BYTES_MAX;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::images::ones;
use crate::flow::conflation::log::{Event, Topic as Known, What};
use crate::flow::conflation::replica::Replica;
use crate::flow::dispatch::streams::{Debt, Stream};
use crate::flow::dispatch::topic::Topic;
use crate::flow::dispatch::wish::Wish;
use crate::flow::frame::batch::Batch;
use crate::flow::frame::row::{Change, Shape, Window, encode_change, encode_event, encode_image, push_gap};

/// Events taken from the log for one frame: more than fit into one.
const EVENTS_AT_ONCE: usize = 1024;
/// Events taken from the chains of the topics for one frame: their newest come first, so it must be all or nothing.
const CHAINED_MAX: usize = 4 * EVENTS_AT_ONCE;

impl Encoder {
    /// Appends the events after `debt.events` in their order, each topic's losses before them.
    pub(super) fn push_events(
        &mut self,
        stream: &Stream,
        debt: &mut Debt,
        target: Rev,
        batch: &mut Batch,
    ) -> bool {
        if stream.events().is_empty() && stream.event_images().is_empty() {
            debt.events = target;
            return true;
        }
        if self.replica.log.image_gone_rev() > debt.events && !self.push_lost_images(stream, debt, batch) {
            return false;
        }
        if !self.push_losses(stream, debt, target, batch) {
            return false;
        }
        let (due, all) = self.due_events(stream, debt, target);
        let mut rows = 0;
        for (at, event) in due.iter().enumerate() {
            // What has one revision stands in one frame: a change of phase is an event, and changes an image too.
            let together = due[at + 1..].iter().take_while(|next| next.rev == event.rev).count();
            if let What::Gap { from, reason, .. } = event.what {
                let topic = topic_of(event);
                // A source may have told many losses at once, which all have one revision: more than a frame takes. What is
                // noted of a topic is a revision, so those of one topic and revision are told together.
                let goes_on = due[..at]
                    .last()
                    .is_some_and(|last| last.is_gap() && (last.rev, topic_of(last)) == (event.rev, topic));
                // A gap stands before the rows it precedes, so it begins a frame of its own.
                if rows > 0 || !goes_on && batch.is_full(0) {
                    return false;
                }
                self.push_loss(topic, from, event.q, reason, batch);
                debt.gave(topic, event.rev);
                continue;
            }
            if event.rev > debt.events && batch.is_full(together * ROW_BYTES_MAX) {
                return false;
            }
            if event.channel() == Channel::Trade && stream.is_ahead() {
                self.push_quote_met(stream, event, debt, batch);
                if event.rev > debt.events && batch.is_full(together * ROW_BYTES_MAX) {
                    return false;
                }
            }
            rows += usize::from(self.push_event(stream, event, batch));
            debt.events = event.rev;
        }
        if all {
            debt.events = target;
        }
        all
    }

    /// Announces which events are no longer in the log: of what is lost after the target too, by the next payment there would
    /// be more of it; but as of images, once in a payment.
    fn push_losses(&mut self, stream: &Stream, debt: &mut Debt, target: Rev, batch: &mut Batch) -> bool {
        for &topic in stream.events() {
            let Known { gone_rev, gone_q, .. } = *self.replica.log.topic(topic.channel(), topic.symbol());
            if gone_rev <= debt.events {
                continue;
            }
            let told = since(stream, debt, topic).max(debt.given_rev(topic).unwrap_or(0));
            if told < target && told < gone_rev {
                if batch.is_full(0) {
                    return false;
                }
                self.push_loss(topic, None, gone_q, Reason::LogOverrun, batch);
                debt.gave(topic, gone_rev);
            }
        }
        true
    }

    fn push_loss(&mut self, topic: Topic, from: Option<u64>, to: u64, reason: Reason, batch: &mut Batch) {
        self.stats.gaps += 1;
        self.stats.overruns += u64::from(reason == Reason::LogOverrun);
        let name = self.replica.name(topic.symbol());
        push_gap(&mut batch.gaps, topic.channel(), name, from, to, reason.label());
    }

    /// Appends an event's row; says whether it has one: of an image's change no selected field may be in it.
    fn push_event(&mut self, stream: &Stream, event: &Event, batch: &mut Batch) -> bool {
        let (name, wish, out) = (self.replica.name(event.symbol), &stream.wish, batch.rows());
        let before = out.len();
        match event.what {
            What::Image { channel, mask, present, .. } => {
                let change = Change { rev: event.rev, q: event.q, time: event.time, channel, mask, present };
                let values = self.replica.log.values(event);
                encode_change(out, name, change, values, wish.fields.mask(channel), wish.style);
            }
            _ => encode_event(out, name, event, wish.style),
        }
        if out.len() == before {
            return false;
        }
        out.put(b",");
        self.ticks.give(event.arrival_ns);
        self.stats.rows += 1;
        true
    }

    /// Of images whose changes are no longer all in the log: announces the loss, and gives the image of now instead. What is
    /// lost after that is owed by the next payment, or busy images would keep the others from their turn for ever.
    fn push_lost_images(&mut self, stream: &Stream, debt: &mut Debt, batch: &mut Batch) -> bool {
        for &topic in stream.event_images() {
            let since = debt.image_rev(topic, stream.wish.mode);
            if since < debt.target && self.has_lost(topic, since) {
                if batch.is_full(0) {
                    return false;
                }
                self.push_instead(stream, topic, debt, batch);
            }
        }
        true
    }

    /// Whether changes of an image after `since` are no longer in the log.
    fn has_lost(&self, topic: Topic, since: Rev) -> bool {
        let (channel, symbol) = (topic.channel(), topic.symbol());
        self.replica.log.topic(channel, symbol).gone_rev > since && self.replica.images.rev(symbol) > since
    }

    /// Announces that changes of an image are lost, and gives it whole.
    fn push_instead(&mut self, stream: &Stream, topic: Topic, debt: &mut Debt, batch: &mut Batch) {
        let (channel, symbol) = (topic.channel(), topic.symbol());
        // The row itself has the last number.
        let last_q = self.replica.images.head(symbol).q;
        self.push_loss(topic, None, last_q.saturating_sub(1), Reason::LogOverrun, batch);
        let (name, head) = (self.replica.name(symbol), self.replica.images.head(symbol));
        let Wish { fields, style, .. } = *stream.wish;
        let shape = Shape { since: 0, fields: fields.mask(channel), style };
        encode_image(batch.rows(), &self.replica.images, name, symbol, shape);
        batch.rows().put(b",");
        self.stats.rows += 1;
        self.ticks.give(head.arrival_ns);
        debt.gave(topic, self.replica.images.rev(symbol));
    }

    /// Appends what changed of a trade's quote until the trade, unless it was given.
    fn push_quote_met(&mut self, stream: &Stream, trade: &Event, debt: &mut Debt, batch: &mut Batch) {
        let topic = Topic::new(Channel::Quote, trade.symbol);
        if stream.kept_images().binary_search(&topic).is_err() {
            return; // only the trades were asked for
        }
        if debt.given_rev(topic).is_none() {
            if debt.lacks(topic) {
                self.push_topic_row(stream, topic, 0, debt, batch);
                return debt.gave(topic, self.replica.images.rev(topic.symbol()));
            }
            if stream.joined_at(topic) > debt.held {
                return; // it comes whole at the next slot
            }
        }
        let since = debt.image_rev(topic, stream.wish.mode);
        if self.has_lost(topic, since) {
            return self.push_instead(stream, topic, debt, batch);
        }
        let mut values = [None; u32::BITS as usize];
        let mut change: Option<Change> = None;
        let log = &self.replica.log;
        for event in
            log.topic_since(topic.channel(), topic.symbol(), since).filter(|event| event.rev <= trade.rev)
        {
            let What::Image { channel, mask, present, .. } = event.what else { continue };
            // The newest comes first, and of each field the newest value counts.
            let Event { rev, q, time, .. } = *event;
            let change = change.get_or_insert(Change { rev, q, time, channel, mask: 0, present: 0 });
            let mut theirs = log.values(event);
            for number in ones(present) {
                let value = theirs.next();
                if change.mask >> number & 1 == 0 {
                    values[number] = value;
                }
            }
            change.present |= present & !change.mask;
            change.mask |= mask;
        }
        let Some(change) = change else { return };
        let (name, out) = (self.replica.name(topic.symbol()), batch.rows());
        let before = out.len();
        let values = values.into_iter().flatten();
        encode_change(out, name, change, values, stream.wish.fields.quote, stream.wish.style);
        if out.len() > before {
            out.put(b",");
            self.stats.rows += 1;
        }
        debt.gave(topic, change.rev);
    }

    /// The events that the client lacks, oldest first, and whether these are all.
    fn due_events(&self, stream: &Stream, debt: &Debt, target: Rev) -> (Vec<Event>, bool) {
        let topics = stream.events().len() + stream.event_images().len();
        let chained = if self.replica.log.count_since(debt.events) < topics {
            None
        } else {
            self.chained_events(stream, debt, target)
        };
        let (mut due, all) =
            chained.map_or_else(|| self.logged_events(stream, debt, target), |due| (due, true));
        // A gap that has the revision of an event stands before it, and those of a topic stand together.
        let gap = |event: &Event| event.is_gap().then(|| (topic_of(event), event.q));
        due.sort_by_key(|event| (event.rev, !event.is_gap(), gap(event)));
        (due, all)
    }

    /// What is due by the chains of its topics, so that others' events cost nothing; `None` when it is more than
    /// `CHAINED_MAX`.
    fn chained_events(&self, stream: &Stream, debt: &Debt, target: Rev) -> Option<Vec<Event>> {
        let mut due = Vec::new();
        for &topic in stream.events().iter().chain(stream.event_images()) {
            let since = since(stream, debt, topic);
            let events = self.replica.log.topic_since(topic.channel(), topic.symbol(), since);
            due.extend(
                events.filter(|event| is_due(stream, debt, target, event)).take(CHAINED_MAX - due.len()),
            );
            if due.len() == CHAINED_MAX {
                return None;
            }
        }
        Some(due)
    }

    /// What is due by the order of the log. Who is far behind gets it in portions, so that no payment walks the whole log
    /// for one frame.
    fn logged_events(&self, stream: &Stream, debt: &Debt, target: Rev) -> (Vec<Event>, bool) {
        let wanted = |event: &&Event| {
            let topic = topic_of(event);
            let topics = if topic.is_image() { stream.event_images() } else { stream.events() };
            topics.binary_search(&topic).is_ok()
                && event.rev > since(stream, debt, topic)
                && is_due(stream, debt, target, event)
        };
        let behind = self.replica.log.since(debt.events).take_while(|event| event.rev <= target);
        let mut due: Vec<Event> = behind.filter(wanted).take(EVENTS_AT_ONCE).copied().collect();
        let all = due.len() < EVENTS_AT_ONCE;
        if let (false, Some(last)) = (all, due.last().map(|event| event.rev)) {
            // What has one revision is not torn apart.
            due.truncate(due.iter().rposition(|event| event.rev < last).map_or(due.len(), |at| at + 1));
        }
        (due, all)
    }

    /// The number of the topic's last event that somebody who holds `rev` has been given.
    pub fn q_at(&self, topic: Topic, rev: Rev) -> u64 {
        let log = &self.replica.log;
        let known = log.topic(topic.channel(), topic.symbol());
        let first_after = log.topic_since(topic.channel(), topic.symbol(), rev).last();
        first_after.map_or(known.q, |event| match event.what {
            What::Gap { from: Some(from), .. } => from - 1,
            _ => event.q - 1,
        })
    }
}

fn topic_of(event: &Event) -> Topic {
    Topic::new(event.channel(), event.symbol)
}

/// Up to where the client was given what the log has of a topic.
fn since(stream: &Stream, debt: &Debt, topic: Topic) -> Rev {
    if topic.is_image() {
        return debt.image_rev(topic, stream.wish.mode);
    }
    debt.events.max(stream.joined_at(topic))
}

/// Whether a topic's event is due in a payment up to `target`.
fn is_due(stream: &Stream, debt: &Debt, target: Rev, event: &Event) -> bool {
    let is_told = event.is_gap() && debt.given_rev(topic_of(event)) >= Some(event.rev);
    !is_told && event.rev <= target && passes(&stream.wish, event)
}

/// Whether the filter, if there is one, lets an event through: it speaks of trades alone.
pub(super) fn passes(wish: &Wish, event: &Event) -> bool {
    match (&wish.filter, &event.what) {
        (Some(filter), What::Trade(trade)) => filter.takes_trade(trade),
        _ => true,
    }
}

/// The extremes of an image's last price and the volume of its trades after `since`: nothing where the log has lost some.
pub(super) fn window_of(replica: &Replica, topic: Topic, since: Rev) -> Window {
    let (channel, symbol) = (topic.channel(), topic.symbol());
    let log = &replica.log;
    let mut window = Window::default();
    if log.topic(channel, symbol).gone_rev <= since {
        let last = 1 << if channel == Channel::Quote { quote::LAST } else { index::LAST };
        for event in log.topic_since(channel, symbol, since) {
            let What::Image { present, .. } = event.what else { continue };
            let before = (present & (last - 1)).count_ones() as usize;
            let Some(price) = log.values(event).nth(before).filter(|_| present & last != 0) else { continue };
            window.high = window.high.max(Some(price));
            window.low = Some(window.low.map_or(price, |low| low.min(price)));
        }
    }
    if channel == Channel::Quote && log.topic(Channel::Trade, symbol).gone_rev <= since {
        let sizes = log.topic_since(Channel::Trade, symbol, since).filter_map(|event| match event.what {
            What::Trade(trade) if trade.kind == TradeKind::New => Some(trade.size),
            _ => None,
        });
        window.volume = Some(sizes.sum());
    }
    window
}
