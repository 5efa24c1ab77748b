//! The hub of an edge: what another gateway told, with the revisions that it gave.
//!
//! Nothing here has a revision of its own, so that a client may go on from any node of the epoch: what is told is applied
//! only when it is whole up to a revision, which then is the hub's. A field is at least as new as its row says, never
//! older, so that a client with a cursor is sent a little too much rather than too little.
//!
//! Bounds kept here: those of the images and the log; `book_levels_max` levels of books, whose worst are counted when there is
//! no room for them; the open bars that the upstream was asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use tickgate_feeds::market::{Channel, PHASE, STATE, State, Symbol, Time};
use tickgate_feeds::tickgate::{Body, Gap, Item, Row, Told};

use super::Hub;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::bars::OpenBar;
use crate::flow::conflation::cut::{BookTop, Cut, Node};
use crate::flow::conflation::images::Images;
use crate::flow::conflation::log::{Event, Log, Lost, What};
use crate::flow::conflation::wants::{Want, Wants};

/// What an edge keeps besides images and events.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    books: BTreeMap<Symbol, BookTop>,
    bars: BTreeMap<(Channel, Symbol), OpenBar>,
    levels: usize,
    /// Levels for which there was no room.
    pub(super) dropped: u64,
    /// What somebody began to want since the last cut, which holds it however old it is.
    asked: Vec<(Channel, Symbol)>,
}

impl Adopted {
    pub(super) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Keeps a book as it is now, as far as there is room.
    fn put_book(&mut self, symbol: Symbol, mut top: BookTop, levels_max: usize) {
        let of = |top: &BookTop| top.bids.len() + top.asks.len();
        self.levels -= self.books.get(&symbol).map_or(0, of);
        let (wanted, room) = (of(&top), levels_max - self.levels);
        if wanted > room {
            top.bids.truncate(room / 2);
            top.asks.truncate(room / 2);
            self.dropped += (wanted - of(&top)) as u64;
        }
        self.levels += of(&top);
        self.books.insert(symbol, top);
    }

    /// The best levels of a book, for one-off readers.
    pub(super) fn book_top(&self, symbol: Symbol, depth: u16) -> Option<BookTop> {
        let mut top = self.books.get(&symbol)?.clone();
        top.bids.truncate(usize::from(depth));
        top.asks.truncate(usize::from(depth));
        Some(top)
    }

    /// Puts the wanted books and bars that changed after `since`, or were asked for since the last cut, into a cut.
    pub(super) fn changed_since(&mut self, since: Rev, wants: &Wants, cut: &mut Cut) {
        let asked = std::mem::take(&mut self.asked);
        let mut wanted: Vec<_> = wants.all().map(|want| (want.channel, want.symbol)).collect();
        wanted.dedup(); // of several depths
        for topic @ (channel, symbol) in wanted {
            let is_due = |rev| rev > since || asked.contains(&topic);
            if channel == Channel::Book {
                cut.books.extend(self.books.get(&symbol).filter(|top| is_due(top.rev_at(1))).cloned());
            } else {
                cut.bars.extend(self.bars.get(&topic).filter(|open| is_due(open.rev)));
            }
        }
    }
}

impl Hub {
    /// Takes over what an upstream told. The first time, the hub becomes that of an edge; in another epoch it begins anew.
    pub fn adopt(&mut self, told: &mut Told, arrival_ns: u64) {
        let begins = *self.node.epoch != *told.epoch || self.adopted.is_none();
        if begins {
            self.begin_run(told);
        }
        told.list(&self.symbols);
        self.list_new();
        let mut items = told.take();
        for item in items.drain(..) {
            self.stats.changes += 1;
            match item {
                Item::Row(row) => {
                    let Some(symbol) = told.symbol(row.name) else { continue };
                    self.adopt_row(symbol, row, told.carried.depth, arrival_ns);
                }
                Item::Gap(gap) => {
                    let Some(symbol) = told.find(&gap.name) else { continue };
                    self.adopt_gap(symbol, &gap);
                }
            }
        }
        told.items = items;
        self.rev = self.rev.max(told.rev);
        if begins {
            self.mark_untold();
            for want in self.wants.all().collect::<Vec<_>>() {
                self.keep_adopted(want);
            }
        }
    }

    /// Says how far everything here can be trusted from now on.
    pub(super) fn set_link(&mut self, link: State) {
        if self.node.link != link {
            self.node = Arc::new(Node { version: self.node.version + 1, link, ..(*self.node).clone() });
        }
    }

    /// Forgets everything: the upstream is in another run.
    fn begin_run(&mut self, told: &Told) {
        let own = self.node.path.last().cloned().unwrap_or_default();
        let path = told.path.iter().cloned().chain([own]).collect();
        // A gateway that has served nobody yet has no run to end.
        let run = self.node.run + u32::from(self.adopted.is_some());
        let (version, link) = (self.node.version + 1, self.node.link);
        self.node = Arc::new(Node { version, run, epoch: Arc::clone(&told.epoch), path, link });
        self.rev = 0;
        self.images = Images::default();
        self.log = Log::new(self.log.events_max());
        // What is wanted is wanted still.
        self.adopted = Some(Adopted::default());
    }

    pub(super) fn want_adopted(&mut self, want: Want, on: bool) {
        let Want { channel, symbol, .. } = want;
        if !on {
            self.wants.remove(want);
            if is_image(channel) && self.wants.deepest(channel, symbol).is_none() {
                self.log.drop(channel, symbol);
            }
            return;
        }
        self.wants.add(want);
        self.keep_adopted(want);
        if let Some(adopted) = self.adopted.as_mut().filter(|_| !is_image(channel)) {
            adopted.asked.push((channel, symbol));
        }
    }

    /// From now on each change of the image that somebody wants is logged.
    fn keep_adopted(&mut self, want: Want) {
        let Want { channel, symbol, .. } = want;
        if is_image(channel) && symbol.index() < self.images.len() {
            self.log.keep(&self.images, symbol);
        }
    }

    fn adopt_row(&mut self, symbol: Symbol, row: Row, depth: u16, arrival_ns: u64) {
        let Row { rev, q, time, body, .. } = row;
        let event = |what| Event { rev, q, time, arrival_ns, symbol, what };
        let adopted = self.adopted.get_or_insert_default();
        match body {
            Body::Image(image) => {
                if rev <= self.images.rev(symbol) {
                    return; // a picture repeats what is held
                }
                for (number, value) in image.fields {
                    self.images.replace(symbol, number, value, rev);
                }
                self.images.touch(symbol, rev, q, time, arrival_ns);
                let channel = self.images.head(symbol).channel;
                if image.is_full {
                    self.log.lose(&[Lost { channel, symbol, q, rev }]);
                } else if self.log.keeps(channel, symbol) {
                    self.log.append_image(&self.images, symbol);
                }
            }
            Body::Book { bids, asks } => {
                // A level may have changed and changed back between two rows: all are as new as the row.
                let (whose, revs) = (Some(symbol), vec![rev]);
                let top = BookTop { symbol: whose, revs, q, time, arrival_ns, depth, bids, asks };
                adopted.put_book(symbol, top, self.books.levels_max());
            }
            Body::Trade(trade) => self.adopt_event(event(What::Trade(trade))),
            Body::Phase(phase) => self.adopt_event(event(What::Phase(phase))),
            Body::Bar(bar) => {
                let channel = bar.channel;
                let open = OpenBar { symbol, channel, bar: Some(bar), rev, q, time, arrival_ns };
                let next = OpenBar { bar: None, q: q + 1, ..open };
                adopted.bars.insert((channel, symbol), if bar.is_final { next } else { open });
                if bar.is_final {
                    self.adopt_event(event(What::Bar(bar)));
                }
            }
        }
    }

    /// Events of a topic that came while we watched begin with the first that is told. Those before it are not to be had
    /// here, and who comes from elsewhere may need them.
    fn adopt_event(&mut self, event: Event) {
        let channel = event.channel();
        if event.q > self.log.topic(channel, event.symbol).q + 1 {
            let what = What::Gap { channel, from: None, reason: Reason::LogOverrun };
            self.log.append(Event { q: event.q - 1, what, ..event });
        }
        self.log.append(event);
    }

    fn adopt_gap(&mut self, symbol: Symbol, gap: &Gap) {
        let (channel, rev, q) = (gap.channel, gap.rev, gap.to);
        let last = self.log.topic(channel, symbol).q;
        if q <= last {
            return; // it was told before, or is held
        }
        // What lies before it is not to be had here either: then it begins with whatever a reader expects.
        let from = gap.from.filter(|from| *from <= last + 1);
        let known = Reason::ALL.iter().find(|reason| reason.label() == gap.reason);
        let reason = known.copied().unwrap_or(Reason::UpstreamGap);
        // What the upstream sends is not ours to trust: a gap may begin after its end.
        let numbers = (q - last).min(q.saturating_add(1).saturating_sub(gap.from.unwrap_or(0)));
        match reason {
            Reason::LogOverrun => {} // they were there, and come too late for this gateway alone
            Reason::IngestOverflow => self.stats.overflowed += numbers,
            _ => self.stats.missing += numbers,
        }
        let adopted = self.adopted.get_or_insert_default();
        // A bar that became final unseen is open no longer.
        if let Some(open) = adopted.bars.get_mut(&(channel, symbol)).filter(|open| open.q <= q) {
            *open = OpenBar { bar: None, rev, q: q + 1, ..*open };
        }
        let what = What::Gap { channel, from, reason };
        self.log.append(Event { rev, q, time: Time(0), arrival_ns: 0, symbol, what });
    }

    /// Symbols of an earlier run that this one does not have are known to be nothing.
    fn mark_untold(&mut self) {
        let untold = (0..self.images.len() as u32).map(Symbol::at);
        let untold: Vec<Symbol> = untold.filter(|symbol| self.images.rev(*symbol) == 0).collect();
        for symbol in untold {
            self.images.replace(symbol, STATE, Some(State::Pending.decimal()), self.rev);
            self.images.replace(symbol, PHASE, None, self.rev);
            self.images.touch(symbol, self.rev, 0, Time(0), 0);
        }
    }
}

fn is_image(channel: Channel) -> bool {
    !channel.fields().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use rust_decimal::Decimal;
    use tickgate_feeds::market::{FeedId, quote};
    use tickgate_feeds::spec::Spec;
    use tickgate_feeds::symbols::Symbols;
    use tickgate_feeds::tickgate::{Heard, Peer, Plan};

    /// A peer on a connection to a gateway of this epoch, which gives a picture of these rows at `rev`.
    fn connect(peer: &mut Peer, epoch: &str, rev: u64, rows: &str) {
        peer.disconnected();
        let frames = [
            format!(
                r#"{{"type":"welcome","epoch":"{epoch}","heartbeat_ms":3000,"simulated":true,"path":["{epoch}"]}}"#
            ),
            format!(
                r#"{{"type":"subscribed","stream":1,"seq":1,"rev":{rev},"q":{{"trade:A":4}},"rejected":[]}}"#
            ),
            format!(
                r#"{{"type":"batch","stream":1,"seq":1,"prev":null,"rev":{rev},"snapshot":true,"rows":[{rows}]}}"#
            ),
        ];
        let heard = frames.map(|frame| peer.hear(&mut frame.into_bytes()).expect("understood"));
        assert_eq!(heard[2], Heard::Whole);
    }

    fn row(name: &str, rev: u64, last: &str) -> String {
        format!(
            r#"{{"symbol":"{name}","rev":{rev},"q":7,"time_us":5,"full":true,"state":"live","last":"{last}"}}"#
        )
    }

    #[test]
    fn another_epoch_leaves_no_number_of_the_one_before() {
        let symbols = Arc::new(Symbols::new(9));
        let mut hub = Hub::new(Arc::clone(&symbols), Node::new("edge", "edge"), &Limits::default());
        let plan = Plan::from_spec(&Spec::parse("tickgate:ws://h").expect("a spec")).expect("a plan");
        let mut peer = Peer::new(plan, FeedId(0), "edge".to_owned());
        connect(&mut peer, "e1", 90, &[row("A", 80, "1.50"), row("B", 85, "2")].join(","));
        hub.adopt(peer.told(), 3);
        let [a, b] = ["A", "B"].map(|name| symbols.find(name).expect("listed"));
        assert_eq!((hub.rev(), hub.images().rev(a), &*hub.node().epoch, hub.node().run), (90, 80, "e1", 0));
        assert_eq!(*hub.node().path, ["e1".to_owned(), "edge".to_owned()]);
        assert_eq!(hub.images().value(a, quote::LAST), Some(Decimal::new(150, 2)));
        let cut = hub.cut(0, 80);
        assert_eq!(
            cut.changed.iter().map(|changed| changed.symbol).collect::<Vec<_>>(),
            [b],
            "by its revision"
        );
        assert!(hub.cut(0, 0).events[0].is_overrun(), "four trades are not to be had here");

        connect(&mut peer, "e2", 12, &row("A", 10, "3"));
        hub.adopt(peer.told(), 4);
        assert_eq!((hub.rev(), &*hub.node().epoch, hub.node().run), (12, "e2", 1));
        assert_eq!(hub.images().value(a, quote::LAST), Some(Decimal::from(3)));
        assert_eq!(hub.images().value(b, STATE), Some(State::Pending.decimal()));
        assert_eq!(hub.images().value(b, quote::LAST), None, "this run has no such symbol");
        let cut = hub.cut(0, 90);
        assert_eq!(
            (cut.since, cut.rev, cut.changed.len()),
            (0, 12, 2),
            "who was in the other run gets everything"
        );
    }

    #[test]
    fn what_the_source_lacks_is_counted_here_too() {
        let symbols = Arc::new(Symbols::new(9));
        let mut hub = Hub::new(Arc::clone(&symbols), Node::new("edge", "edge"), &Limits::default());
        let plan = Plan::from_spec(&Spec::parse("tickgate:ws://h").expect("a spec")).expect("a plan");
        let mut peer = Peer::new(plan, FeedId(0), "edge".to_owned());
        connect(&mut peer, "e1", 10, &row("A", 10, "1"));
        hub.adopt(peer.told(), 1);
        assert_eq!(hub.stats().missing, 0, "what came before the connection is not lost");
        let losses = [
            (5, 9, "upstream_gap"),
            (10, 12, "ingest_overflow"),
            (13, 20, "log_overrun"),
            (30, 25, "upstream_gap"),
        ];
        for (at, (from, to, reason)) in losses.into_iter().enumerate() {
            let (seq, rev) = (at + 2, at + 11);
            let frame = format!(
                r#"{{"type":"batch","stream":1,"seq":{seq},"prev":{},"rev":{rev},"rows":[],"gaps":[{{"topic":"trade:A","from":{from},"to":{to},"reason":"{reason}"}}]}}"#,
                seq - 1
            );
            assert_eq!(peer.hear(&mut frame.into_bytes()), Ok(Heard::Whole));
            hub.adopt(peer.told(), 1);
        }
        assert_eq!((hub.stats().missing, hub.stats().overflowed), (5, 3));
    }
}
