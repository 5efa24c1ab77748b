//! The ordered log of events (trades, changes of phase, gaps, changes of images that somebody wants one by one), with a
//! chain per topic.
//!
//! Bound kept here: `log_events_max` events with at most `VALUES_PER_EVENT` values each on average, oldest out first. What
//! fell out is remembered per topic as two numbers, so whoever still needed it is told exactly which numbers are missing.

use std::collections::{BTreeMap, VecDeque};

use rust_decimal::Decimal;
use tickgate_feeds::market::{Bar, Channel, Phase, Symbol, Time, Trade};

use super::Rev;
use super::images::{Head, Images};
use crate::base::limits::VALUES_PER_EVENT;
use crate::base::reason::Reason;

/// One event of one topic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Its revision.
    pub rev: Rev,
    /// The topic's own number of it; of a gap the last missing number.
    pub q: u64,
    /// The upstream's time.
    pub time: Time,
    /// When it entered the gateway.
    pub arrival_ns: u64,
    /// Whose.
    pub symbol: Symbol,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum What {
    /// A trade.
    Trade(Trade),
    /// A final bar.
    Bar(Bar),
    /// The phase is now this one.
    Phase(Phase),
    /// An image changed.
    Image {
        /// Quote or index.
        channel: Channel,
        /// The fields that changed.
        mask: u32,
        /// Those of them that have a value now: [`Log::values`] has these, in the order of their numbers.
        present: u32,
        /// Position of the first value, counted from the first ever.
        values_at: u64,
    },
    /// The numbers `from` to the event's `q` of this topic are lost.
    Gap {
        /// The topic's channel.
        channel: Channel,
        /// First missing number; `None` for the next that the reader expects.
        from: Option<u64>,
        /// Why.
        reason: Reason,
    },
}

impl Event {
    /// Whether it is a loss.
    pub fn is_gap(&self) -> bool {
        matches!(self.what, What::Gap { .. })
    }

    /// Whether it says that events were no longer to be had where they are asked for.
    pub fn is_overrun(&self) -> bool {
        matches!(self.what, What::Gap { reason: Reason::LogOverrun, .. })
    }

    /// The topic's channel.
    pub fn channel(&self) -> Channel {
        match self.what {
            What::Trade(_) => Channel::Trade,
            What::Bar(bar) => bar.channel,
            What::Phase(_) => Channel::Status,
            What::Image { channel, .. } | What::Gap { channel, .. } => channel,
        }
    }

    /// Whether it is something of its own, and not a change of an image, which is told by the image too.
    pub fn is_apart(&self) -> bool {
        !matches!(self.what, What::Image { .. })
    }

    /// The same, with its values at this position.
    pub fn with_values_at(mut self, position: u64) -> Self {
        if let What::Image { values_at, .. } = &mut self.what {
            *values_at = position;
        }
        self
    }

    /// How many values belong to it.
    fn values(&self) -> usize {
        if let What::Image { present, .. } = self.what { present.count_ones() as usize } else { 0 }
    }
}

/// What the log knows of one topic.
#[derive(Clone, Copy, Debug, Default)]
pub struct Topic {
    /// The last number given.
    pub q: u64,
    /// The revision of the last event.
    pub rev: Rev,
    /// The last number that is no longer in the log.
    pub gone_q: u64,
    /// The revision of that event: whoever holds less has lost something.
    pub gone_rev: Rev,
    /// Position of the newest event, counted from the first ever, plus one; 0 for none.
    newest: u64,
}

impl Topic {
    /// What fell out of the log, as an event: a gap up to the last number gone, from wherever the reader stands.
    pub fn gone(&self, channel: Channel, symbol: Symbol) -> Event {
        let what = What::Gap { channel, from: None, reason: Reason::LogOverrun };
        Event { rev: self.gone_rev, q: self.gone_q, time: Time(0), arrival_ns: 0, symbol, what }
    }
}

const NOTHING: Topic = Topic { q: 0, rev: 0, gone_q: 0, gone_rev: 0, newest: 0 };

#[derive(Clone, Copy, Debug)]
struct Entry {
    event: Event,
    /// Position of the topic's event before this one, plus one; 0 for none.
    older: u64,
}

/// The log.
#[derive(Debug)]
pub struct Log {
    entries: VecDeque<Entry>,
    /// Position of the oldest entry.
    first: u64,
    /// The values of the images' changes.
    values: VecDeque<Decimal>,
    /// Position of the oldest value.
    first_value: u64,
    trades: Vec<Topic>,
    statuses: Vec<Topic>,
    /// Bars of those that have had one, and images of those whose changes are kept.
    others: BTreeMap<(Channel, Symbol), Topic>,
    /// Revision of the last event that fell out or never came.
    gone_rev: Rev,
    /// Revision of the last change of an image that fell out or never came.
    image_gone_rev: Rev,
    events_max: usize,
}

impl Log {
    /// An empty log of at most `events_max` events.
    pub fn new(events_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            values: VecDeque::new(),
            first_value: 0,
            trades: Vec::new(),
            statuses: Vec::new(),
            others: BTreeMap::new(),
            gone_rev: 0,
            image_gone_rev: 0,
            events_max,
        }
    }

    /// How many events it holds at most.
    pub fn events_max(&self) -> usize {
        self.events_max
    }

    /// Makes room for the topics of one more symbol.
    pub fn list(&mut self) {
        self.trades.push(Topic::default());
        self.statuses.push(Topic::default());
    }

    /// What is known of an event topic.
    pub fn topic(&self, channel: Channel, symbol: Symbol) -> &Topic {
        match channel {
            Channel::Trade => &self.trades[symbol.index()],
            Channel::Status => &self.statuses[symbol.index()],
            other => self.others.get(&(other, symbol)).unwrap_or(&NOTHING),
        }
    }

    fn topic_mut(&mut self, channel: Channel, symbol: Symbol) -> &mut Topic {
        match channel {
            Channel::Trade => &mut self.trades[symbol.index()],
            Channel::Status => &mut self.statuses[symbol.index()],
            other => self.others.entry((other, symbol)).or_default(),
        }
    }

    /// From now on the changes of this image are kept: those up to its last one are not.
    pub fn keep(&mut self, images: &Images, symbol: Symbol) {
        let (rev, Head { q, channel, .. }) = (images.rev(symbol), *images.head(symbol));
        let topic = Topic { q, rev, gone_q: q, gone_rev: rev, newest: 0 };
        if !self.keeps(channel, symbol) {
            self.others.insert((channel, symbol), topic);
            self.image_gone_rev = self.image_gone_rev.max(rev);
        }
    }

    /// Keeps the changes of this image no longer.
    pub fn drop(&mut self, channel: Channel, symbol: Symbol) {
        self.others.remove(&(channel, symbol));
    }

    /// Whether changes of this image are kept.
    pub fn keeps(&self, channel: Channel, symbol: Symbol) -> bool {
        self.others.contains_key(&(channel, symbol))
    }

    /// The revision of the last change of any image that fell out: whoever holds more has lost none.
    pub fn image_gone_rev(&self) -> Rev {
        self.image_gone_rev
    }

    /// Appends an event; revisions never fall.
    pub fn append(&mut self, event: Event) {
        self.append_with(event, &[]);
    }

    /// Appends how an image changed at `rev`, its newest.
    pub fn append_image(&mut self, images: &Images, symbol: Symbol) {
        let (rev, head) = (images.rev(symbol), images.head(symbol));
        let mask = images.mask_since(symbol, rev - 1);
        let present = mask & head.present;
        let mut values = [Decimal::ZERO; 32];
        let mut len = 0;
        for (number, cell) in images.cells(symbol).iter().enumerate() {
            if present >> number & 1 == 1 {
                values[len] = cell.value;
                len += 1;
            }
        }
        let what = What::Image { channel: head.channel, mask, present, values_at: 0 };
        let event = Event { rev, q: head.q, time: head.time, arrival_ns: head.arrival_ns, symbol, what };
        self.append_with(event, &values[..len]);
    }

    /// Appends an event with its values.
    pub fn append_with(&mut self, event: Event, values: &[Decimal]) {
        debug_assert!(self.entries.back().is_none_or(|last| last.event.rev <= event.rev));
        let values_max = self.events_max * VALUES_PER_EVENT;
        while self.entries.len() == self.events_max || self.values.len() + values.len() > values_max {
            if self.entries.is_empty() {
                break; // one event has room always
            }
            self.forget_oldest();
        }
        let position = self.first + self.entries.len() as u64 + 1;
        let topic = self.topic_mut(event.channel(), event.symbol);
        let older = std::mem::replace(&mut topic.newest, position);
        (topic.q, topic.rev) = (event.q, event.rev);
        let event = event.with_values_at(self.first_value + self.values.len() as u64);
        self.values.extend(values);
        self.entries.push_back(Entry { event, older });
    }

    fn forget_oldest(&mut self) {
        let Some(Entry { event, .. }) = self.entries.pop_front() else { return };
        self.first += 1;
        self.gone_rev = self.gone_rev.max(event.rev);
        let is_image = matches!(event.what, What::Image { .. });
        if is_image {
            self.values.drain(..event.values());
            self.first_value += event.values() as u64;
            self.image_gone_rev = self.image_gone_rev.max(event.rev);
            if !self.keeps(event.channel(), event.symbol) {
                return;
            }
        }
        let topic = self.topic_mut(event.channel(), event.symbol);
        // An image whose changes were not kept for a while knows better. A gap may have the revision of the event after it.
        if event.rev >= topic.gone_rev {
            (topic.gone_q, topic.gone_rev) = (event.q, event.rev);
        }
    }

    /// The values of an image's change, in the order of its fields' numbers.
    pub fn values(&self, event: &Event) -> impl Iterator<Item = Decimal> + '_ {
        let at = match event.what {
            What::Image { values_at, .. } => (values_at - self.first_value) as usize,
            _ => 0,
        };
        self.values.range(at..at + event.values()).copied()
    }

    /// Appends what the source of this log had lost already: of an image, from which revision on it is kept, of the
    /// others each as a gap in its topic.
    pub fn lose(&mut self, lost: &[Lost]) {
        let mut lost = lost.to_vec();
        lost.sort_unstable_by_key(|lost| lost.rev);
        for Lost { channel, symbol, q, rev } in lost {
            if !channel.fields().is_empty() {
                if let Some(topic) = self.others.get_mut(&(channel, symbol)) {
                    (topic.gone_q, topic.gone_rev) = (q, rev);
                    self.image_gone_rev = self.image_gone_rev.max(rev);
                    self.gone_rev = self.gone_rev.max(rev);
                }
                continue;
            }
            let from = self.topic(channel, symbol).q + 1;
            let what = What::Gap { channel, from: Some(from), reason: Reason::LogOverrun };
            self.append(Event { rev, q, time: Time(0), arrival_ns: 0, symbol, what });
        }
    }

    /// How many events there are after `since`.
    pub fn count_since(&self, since: Rev) -> usize {
        self.entries.len() - self.entries.partition_point(|entry| entry.event.rev <= since)
    }

    /// All events after `since`, oldest first.
    pub fn since(&self, since: Rev) -> impl Iterator<Item = &Event> {
        let at = self.entries.partition_point(|entry| entry.event.rev <= since);
        self.entries.range(at..).map(|entry| &entry.event)
    }

    /// The topic's events after `since`, newest first.
    pub fn topic_since(&self, channel: Channel, symbol: Symbol, since: Rev) -> impl Iterator<Item = &Event> {
        let mut chain = self.chain(channel, symbol);
        std::iter::from_fn(move || self.older(&mut chain).filter(|event| event.rev > since))
    }

    /// The topic's chain of events, from its newest on.
    pub fn chain(&self, channel: Channel, symbol: Symbol) -> Chain {
        Chain(self.topic(channel, symbol).newest)
    }

    /// The next event of a chain, which is older; `None` when the log has no more of it.
    pub fn older(&self, chain: &mut Chain) -> Option<&Event> {
        let entry = self.entries.get(chain.0.checked_sub(self.first + 1)? as usize)?;
        chain.0 = entry.older;
        Some(&entry.event)
    }

    /// The topics that lost events after `since`, with the last number and revision lost.
    pub fn lost_since(&self, since: Rev) -> Vec<Lost> {
        if since >= self.gone_rev {
            return Vec::new();
        }
        let of = |channel, topics: &[Topic]| {
            let lost = topics.iter().enumerate().filter(|(_, topic)| topic.gone_rev > since);
            let lost = lost.map(|(at, t)| Lost {
                channel,
                symbol: Symbol::at(at as u32),
                q: t.gone_q,
                rev: t.gone_rev,
            });
            lost.collect::<Vec<_>>()
        };
        let mut lost = of(Channel::Trade, &self.trades);
        lost.extend(of(Channel::Status, &self.statuses));
        let others = self.others.iter().filter(|(_, topic)| topic.gone_rev > since);
        lost.extend(others.map(|(&(channel, symbol), t)| Lost {
            channel,
            symbol,
            q: t.gone_q,
            rev: t.gone_rev,
        }));
        lost
    }
}

/// Where a reader of one topic's events has got to: it may go on when the log has gone on.
#[derive(Clone, Copy, Debug)]
pub struct Chain(u64);

/// Events of a topic up to a number and a revision that are no longer to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The topic's channel.
    pub channel: Channel,
    /// The topic's symbol.
    pub symbol: Symbol,
    /// The last number lost.
    pub q: u64,
    /// Its revision.
    pub rev: Rev,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::Decimal;
    use tickgate_feeds::market::TradeKind;

    fn event(symbol: u32, q: u64, rev: Rev) -> Event {
        let (price, size) = (Decimal::ONE, Decimal::ONE);
        let trade = Trade {
            price,
            size,
            trade_id: 0,
            ref_trade_id: 0,
            source_seq: 0,
            side: None,
            kind: TradeKind::New,
        };
        Event { rev, q, time: Time(0), arrival_ns: 0, symbol: Symbol::at(symbol), what: What::Trade(trade) }
    }

    #[test]
    fn a_topic_is_walked_by_its_own_chain_and_knows_what_fell_out() {
        let mut log = Log::new(4);
        log.list();
        log.list();
        for rev in 1..=6u64 {
            log.append(event((rev % 2) as u32, rev.div_ceil(2), rev));
        }
        let odd: Vec<_> = log.topic_since(Channel::Trade, Symbol::at(1), 0).map(|e| e.rev).collect();
        assert_eq!(odd, [5, 3]);
        assert_eq!(log.topic_since(Channel::Trade, Symbol::at(1), 3).count(), 1);
        assert_eq!(log.topic(Channel::Trade, Symbol::at(1)).gone_q, 1);
        assert_eq!(log.since(4).map(|e| e.rev).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(
            log.lost_since(1),
            [Lost { channel: Channel::Trade, symbol: Symbol::at(0), q: 1, rev: 2 }]
        );
        assert_eq!(log.lost_since(2), []);
    }

    #[test]
    fn a_gap_and_the_event_after_it_fall_out_one_by_one() {
        let mut log = Log::new(3);
        log.list();
        let (from, reason) = (None, Reason::LogOverrun);
        let gap = Event { what: What::Gap { channel: Channel::Trade, from, reason }, ..event(0, 4, 7) };
        for event in [gap, event(0, 5, 7), event(0, 6, 8)] {
            log.append(event);
        }
        for (rev, gone_q) in [(9, 4), (10, 5), (11, 6)] {
            log.append(event(0, rev - 2, rev));
            assert_eq!(log.topic(Channel::Trade, Symbol::at(0)).gone_q, gone_q);
        }
    }
}
