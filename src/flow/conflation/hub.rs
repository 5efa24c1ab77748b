//! The hub itself: the one writer of images and events. It numbers what feeds say, or, at an edge, takes over what another
//! gateway has numbered; see [`adopted`].
//!
//! Bounds kept here: those of the images, the log and the books it is made of.

mod adopted;

use std::sync::Arc;

use tickgate_feeds::market::{Body, Channel, FeedId, PHASE, Phase, STATE, State, Symbol, Time, Update};
use tickgate_feeds::symbols::Symbols;

use super::Rev;
use super::bars::{Bars, Final};
use super::books::Books;
use super::cut::{BookTop, Changed, Cut, Node};
use super::images::{Images, ones};
use super::log::{Event, Log, What};
use super::rhythm::Rhythm;
use super::wants::{Want, Wants};
use crate::base::limits::Limits;
use crate::base::reason::Reason;
use adopted::Adopted;

/// What the hub did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Updates that changed something.
    pub changes: u64,
    /// Updates that said what was known already.
    pub repeats: u64,
    /// Events that the source itself did not have, each announced as a gap.
    pub missing: u64,
    /// Events that an upstream's full ingest queue took from it.
    pub overflowed: u64,
    /// Trades that came too late for a bar; each counts once for every bar without it.
    pub late_trades: u64,
    /// Cuts made.
    pub cuts: u64,
    /// Levels of books that had no room.
    pub book_levels_dropped: u64,
    /// How often a symbol fell silent by its own rhythm.
    pub silenced: u64,
    /// How many symbols are silent now.
    pub silent: usize,
}

/// What the hub knows of a symbol besides its image.
#[derive(Clone, Copy, Debug)]
struct Standing {
    feed: FeedId,
    /// Somebody wants each change of the image.
    is_kept: bool,
    has_data: bool,
    /// How far the source trusts it.
    told: State,
}

/// All images, events and books.
#[derive(Debug)]
pub struct Hub {
    symbols: Arc<Symbols>,
    node: Arc<Node>,
    /// Of an edge: revisions are the upstream's, and none is given here.
    adopted: Option<Adopted>,
    rev: Rev,
    directory: u64,
    groups: u64,
    images: Images,
    standings: Vec<Standing>,
    feeds: Vec<State>,
    log: Log,
    books: Books,
    bars: Bars,
    wants: Wants,
    rhythm: Rhythm,
    silent: Vec<Symbol>,
    finals: Vec<Final>,
    last_cut: Arc<Cut>,
    stats: Stats,
}

impl Hub {
    /// An empty hub for the symbols of this table.
    pub fn new(symbols: Arc<Symbols>, node: Node, limits: &Limits) -> Self {
        Self {
            symbols,
            node: Arc::new(node),
            adopted: None,
            rev: 0,
            directory: 0,
            groups: 0,
            images: Images::default(),
            standings: Vec::new(),
            feeds: Vec::new(),
            log: Log::new(limits.log_events_max),
            books: Books::new(limits.book_levels_max),
            bars: Bars::default(),
            wants: Wants::default(),
            rhythm: Rhythm::new(limits),
            silent: Vec::new(),
            finals: Vec::new(),
            last_cut: Arc::default(),
            stats: Stats::default(),
        }
    }

    /// The revision of the last change.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// Which run of revisions this is, and how well the market is known.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The images, for one-off readers.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// The events, for one-off readers.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// What the hub did so far.
    pub fn stats(&self) -> Stats {
        let (silent, silenced) = self.rhythm.counts();
        let dropped = self.books.dropped() + self.adopted.as_ref().map_or(0, |adopted| adopted.dropped);
        let late_trades = self.bars.late_trades();
        Stats { book_levels_dropped: dropped, late_trades, silent, silenced, ..self.stats }
    }

    /// Applies updates in order.
    pub fn apply(&mut self, updates: &[Update]) {
        for update in updates {
            if update.symbol.index() >= self.images.len() {
                self.list_new();
            }
            let Standing { feed, is_kept, .. } = self.standings[update.symbol.index()];
            self.close_bars(feed, update);
            if self.rhythm.beat(feed, update.symbol, update.arrival_ns) {
                self.restate(update.symbol);
            }
            let rev = self.rev + 1;
            if self.apply_one(update, rev) {
                self.rev = rev;
                self.stats.changes += 1;
                // Asked here too, where the answer is at hand.
                if is_kept {
                    self.keep_change(update.symbol, rev);
                }
                self.log_finals(update.time, update.arrival_ns); // a venue's own final bar
            } else {
                self.stats.repeats += 1;
            }
        }
    }

    /// Lists symbols that the table has and the hub has not: each begins as `pending`.
    pub fn list_new(&mut self) {
        for listing in self.symbols.listings_from(self.images.len()) {
            let symbol = self.images.list(listing.channel);
            self.log.list();
            if self.adopted.is_some() {
                continue; // the upstream says what is known of it, and at which revision
            }
            self.rhythm.list();
            self.standings.push(Standing {
                feed: listing.feed,
                is_kept: false,
                has_data: false,
                told: State::Live,
            });
            self.rev += 1;
            self.images.set(symbol, STATE, Some(State::Pending.decimal()), self.rev);
            let head = *self.images.head(symbol);
            self.images.touch(symbol, self.rev, 0, head.time, head.arrival_ns);
        }
    }

    /// Says how far a feed's symbols can be trusted from now on.
    pub fn set_feed_state(&mut self, feed: FeedId, state: State) {
        let at = usize::from(feed.0);
        if self.feeds.len() <= at {
            self.feeds.resize(at + 1, State::Live);
        }
        if self.feeds[at] == state {
            return;
        }
        self.feeds[at] = state;
        if self.adopted.is_some() {
            return self.set_link(state); // nothing here has a revision to change its state at
        }
        if state == State::Closed {
            self.bars.close_due(feed, Time(i64::MAX), &mut self.finals);
            self.log_finals(Time(0), 0);
        }
        for index in 0..self.standings.len() {
            if self.standings[index].feed == feed {
                self.restate(Symbol::at(index as u32));
            }
        }
    }

    /// Finds out which of a feed's symbols have been silent for too long by `now_ns`, by their own rhythm.
    pub fn settle(&mut self, feed: FeedId, now_ns: u64) {
        let mut silent = std::mem::take(&mut self.silent);
        self.rhythm.settle(feed, now_ns, &mut silent);
        for symbol in silent.drain(..) {
            self.restate(symbol);
        }
        self.silent = silent;
    }

    /// Sets a symbol's state anew, at a revision of its own if that changes it. No tick brought it.
    fn restate(&mut self, symbol: Symbol) {
        let rev = self.rev + 1;
        if self.settle_state(symbol, rev) {
            self.rev = rev;
            let head = *self.images.head(symbol);
            self.images.touch(symbol, rev, head.q, head.time, 0);
            self.keep_change(symbol, rev);
        }
    }

    /// Logs how the image changed at `rev`, if it did and somebody wants each change.
    fn keep_change(&mut self, symbol: Symbol, rev: Rev) {
        if self.standings[symbol.index()].is_kept && self.images.rev(symbol) == rev {
            self.log.append_image(&self.images, symbol);
        }
    }

    /// How far a feed is trusted at the moment.
    pub fn feed_state(&self, feed: FeedId) -> State {
        self.feeds.get(usize::from(feed.0)).copied().unwrap_or(State::Live)
    }

    /// A shard begins to want something (or wants it no more): from now on cuts hold it.
    pub fn want(&mut self, want: Want, on: bool) {
        self.list_new();
        let Want { channel, symbol, .. } = want;
        if self.adopted.is_some() {
            return self.want_adopted(want, on);
        }
        let Some(standing) = self.standings.get_mut(symbol.index()) else { return };
        if on {
            self.wants.add(want);
        } else {
            self.wants.remove(want);
        }
        // A revision of its own, so that the asker's next cut holds it although the market has not moved.
        self.rev += 1;
        let depth = self.wants.deepest(channel, symbol);
        if !channel.fields().is_empty() {
            standing.is_kept = depth.is_some();
            if standing.is_kept {
                self.log.keep(&self.images, symbol);
            } else {
                self.log.drop(channel, symbol);
            }
        } else if channel == Channel::Book {
            self.books.want(symbol, depth, self.rev);
        } else if depth.is_some() {
            let next_q = self.log.topic(channel, symbol).q + 1;
            self.bars.want(symbol, channel, standing.feed, next_q, self.rev);
        } else {
            self.bars.release(symbol, channel);
        }
    }

    /// The best levels of a symbol's book, for one-off readers; `None` when it has no book.
    pub fn book_top(&mut self, symbol: Symbol, depth: u16) -> Option<BookTop> {
        if let Some(adopted) = &self.adopted {
            return adopted.book_top(symbol, depth);
        }
        self.books.top(symbol, depth, self.rev)
    }

    /// What changed after `since` of a run; everything, when the run is another one now. Askers that hold the same get the
    /// same cut.
    pub fn cut(&mut self, run: u32, since: Rev) -> Arc<Cut> {
        let since = if run == self.node.run { since } else { 0 };
        // The version first: what is listed after it will have another.
        let (directory, groups) = self.symbols.versions();
        self.list_new();
        if std::mem::replace(&mut self.directory, directory) != directory {
            // Membership of a group is a revision too; of an edge the upstream's.
            self.rev += u64::from(self.adopted.is_none());
            self.groups = groups;
        }
        let last = &self.last_cut;
        let is_last = (last.since, last.rev, last.directory) == (since, self.rev, self.directory);
        let has_asked = self.adopted.as_ref().is_some_and(Adopted::has_asked);
        if !is_last || has_asked || last.node.version != self.node.version {
            self.last_cut = Arc::new(self.make_cut(since));
            self.stats.cuts += 1;
        }
        Arc::clone(&self.last_cut)
    }

    fn make_cut(&mut self, since: Rev) -> Cut {
        let last = &self.last_cut; // the next one is about as long
        let mut cut = Cut {
            changed: Vec::with_capacity(last.changed.len()),
            values: Vec::with_capacity(last.values.len()),
            node: Arc::clone(&self.node),
            since,
            rev: self.rev,
            symbols: self.images.len(),
            directory: self.directory,
            groups: self.groups,
            ..Cut::default()
        };
        let images = &self.images;
        images.changed_since(since).for_each(|symbol| {
            let (head, cells, values_at) =
                (images.head(symbol), images.cells(symbol), cut.values.len() as u32);
            let mut mask = 0;
            for number in ones(head.touched()).filter(|number| cells[*number].rev > since) {
                mask |= 1 << number;
                if head.present >> number & 1 == 1 {
                    cut.values.push(cells[number].value);
                }
            }
            cut.changed.push(Changed {
                symbol,
                rev: images.rev(symbol),
                q: head.q,
                time: head.time,
                arrival_ns: head.arrival_ns,
                mask,
                present: head.present,
                values_at,
            });
        });
        self.images.end_part(self.rev);
        for event in self.log.since(since) {
            let values_from = cut.event_values.len() as u64;
            cut.event_values.extend(self.log.values(event));
            cut.events.push(event.with_values_at(values_from));
        }
        cut.lost = self.log.lost_since(since);
        if let Some(adopted) = &mut self.adopted {
            adopted.changed_since(since, &self.wants, &mut cut);
        } else {
            cut.bars.extend(self.bars.changed_since(since));
            self.books.changed_since(since, self.rev, &mut cut.books);
        }
        cut
    }

    /// Applies one update at `rev` and says whether anything changed.
    fn apply_one(&mut self, update: &Update, rev: Rev) -> bool {
        let symbol = update.symbol;
        match &update.body {
            Body::Image { len, nulls, numbers, values, .. } => {
                let numbers = &numbers[..usize::from(*len)];
                let changed = self.images.set_all(symbol, numbers, values, *nulls, rev);
                self.touch_if(changed, update, rev);
                if changed {
                    self.has_data(symbol, rev);
                }
                changed
            }
            Body::Trade(trade) => {
                self.log_event(update, rev, 1, What::Trade(*trade));
                self.bars.add(symbol, trade, update.time, update.arrival_ns, rev);
                let changed = self.has_data(symbol, rev);
                self.touch_if(changed, update, rev);
                true
            }
            Body::Missing { channel, count } => {
                self.stats.missing += u64::from(*count);
                self.lose(update, rev, *channel, *count, Reason::UpstreamGap)
            }
            Body::Lost(count) => self.lose(update, rev, Channel::Trade, *count, Reason::IngestOverflow),
            Body::Rewound => false, // its bars are closed already
            Body::Level(level) => {
                self.books.apply(symbol, level, update.time, update.arrival_ns);
                let changed = self.has_data(symbol, rev);
                self.touch_if(changed, update, rev);
                true
            }
            Body::Bar(bar) => {
                self.bars.take(symbol, *bar, update.time, update.arrival_ns, rev, &mut self.finals);
                let changed = self.has_data(symbol, rev);
                self.touch_if(changed, update, rev);
                true
            }
            Body::Phase(phase) => {
                let changed = self.images.set(symbol, PHASE, Some(phase.decimal()), rev);
                if changed {
                    self.rest(update);
                    self.settle_state(symbol, rev);
                    self.log_event(update, rev, 1, What::Phase(*phase));
                }
                self.touch_if(changed, update, rev)
            }
            Body::State(state) => {
                let standing = &mut self.standings[symbol.index()];
                (standing.told, standing.has_data) = (*state, *state != State::Pending);
                self.rest(update);
                let changed = self.settle_state(symbol, rev);
                self.touch_if(changed, update, rev)
            }
        }
    }

    /// Closes the bars whose time is over when this update has come.
    fn close_bars(&mut self, feed: FeedId, update: &Update) {
        match update.body {
            // Quotes of some venues have no time but that of their arrival, by a clock that may be ahead.
            Body::Image { .. } => return,
            Body::Trade(_) => self.bars.close_before(update.symbol, update.time, &mut self.finals),
            Body::Rewound => self.bars.rewind(update.symbol, &mut self.finals),
            _ => {}
        }
        self.bars.close_due(feed, update.time, &mut self.finals);
        self.log_finals(update.time, update.arrival_ns);
    }

    #[inline]
    fn log_finals(&mut self, time: Time, arrival_ns: u64) {
        // Nearly always there are none.
        if !self.finals.is_empty() {
            self.log_all_finals(time, arrival_ns);
        }
    }

    #[cold]
    fn log_all_finals(&mut self, time: Time, arrival_ns: u64) {
        for (symbol, bar, q) in self.finals.drain(..) {
            self.rev += 1;
            let rev = self.rev;
            self.bars.closed_at(symbol, bar.channel, rev);
            // A feed that ends tells no time: then it is that of the bar's end.
            let time = if time == Time(0) { bar.end() } else { time };
            self.log.append(Event { rev, q, time, arrival_ns, symbol, what: What::Bar(bar) });
        }
    }

    #[inline(always)]
    fn touch_if(&mut self, changed: bool, update: &Update, rev: Rev) -> bool {
        if changed {
            self.images.advance(update.symbol, rev, update.time, update.arrival_ns);
        }
        changed
    }

    /// Announces that events before this point will never come: they keep their numbers.
    fn lose(&mut self, update: &Update, rev: Rev, channel: Channel, count: u32, reason: Reason) -> bool {
        let (symbol, numbers) = (update.symbol, u64::from(count));
        if channel == Channel::Trade {
            self.bars.lose(symbol, rev);
        } else if channel.bar_ns().is_some() && !self.bars.skip(symbol, channel, numbers, rev) {
            return false; // bars that nobody wants have no numbers
        }
        let from = Some(self.log.topic(channel, symbol).q + 1);
        self.log_event(update, rev, numbers, What::Gap { channel, from, reason });
        true
    }

    fn log_event(&mut self, update: &Update, rev: Rev, numbers: u64, what: What) {
        let (time, arrival_ns, symbol) = (update.time, update.arrival_ns, update.symbol);
        let mut event = Event { rev, q: 0, time, arrival_ns, symbol, what };
        event.q = self.log.topic(event.channel(), symbol).q + numbers;
        self.log.append(event);
    }

    /// Lets a symbol rest, or expects it to speak: in continuous trading, or always where no phase is known.
    fn rest(&mut self, update: &Update) {
        let (symbol, standing) = (update.symbol, self.standings[update.symbol.index()]);
        let phase = self.images.value(symbol, PHASE);
        let trades = phase.is_none_or(|phase| phase == Phase::Continuous.decimal());
        self.rhythm.rest(standing.feed, symbol, standing.told == State::Halted || !trades, update.arrival_ns);
    }

    /// The first data of a symbol ends `pending`.
    fn has_data(&mut self, symbol: Symbol, rev: Rev) -> bool {
        let standing = &mut self.standings[symbol.index()];
        !std::mem::replace(&mut standing.has_data, true) && self.settle_state(symbol, rev)
    }

    /// Sets `state` to the worst of what feed, source, rhythm and phase say; pending before any data.
    fn settle_state(&mut self, symbol: Symbol, rev: Rev) -> bool {
        let standing = self.standings[symbol.index()];
        let is_closed = self.images.value(symbol, PHASE) == Some(Phase::Closed.decimal());
        let own = match () {
            () if self.rhythm.is_silent(symbol) => State::Stale,
            () if is_closed => State::Closed,
            () => State::Live,
        };
        let known = self.feed_state(standing.feed).max(standing.told).max(own);
        let state = if standing.has_data { known } else { State::Pending };
        let changed = self.images.set(symbol, STATE, Some(state.decimal()), rev);
        if changed {
            self.books.restate(symbol);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::Decimal;
    use tickgate_feeds::market::{Bar, Trade, TradeKind, quote};

    const FEED: FeedId = FeedId(1);

    fn hub() -> (Hub, Symbol) {
        let symbols = Arc::new(Symbols::new(1));
        let symbol = symbols.list(FEED, "A", Channel::Quote).expect("room");
        (Hub::new(symbols, Node::new("e", "e"), &Limits::default()), symbol)
    }

    #[test]
    fn the_worst_word_about_a_symbol_counts() {
        let (mut hub, a) = hub();
        let say = |hub: &mut Hub, body| hub.apply(&[Update::new(a, Time(1), body)]);
        let state = |hub: &Hub| {
            let code = hub.images().value(a, STATE).expect("always");
            *State::ALL.iter().find(|state| state.decimal() == code).expect("a state")
        };
        let last = |value| Update::image(a, Channel::Quote, Time(1), &[(quote::LAST, value)]);
        hub.apply(&[last(None)]);
        assert_eq!(state(&hub), State::Pending, "an empty field is no data");
        hub.apply(&[last(Some(Decimal::ONE))]);
        assert_eq!(state(&hub), State::Live);
        for told in [State::Stale, State::Halted, State::Suspect, State::Closed, State::Live] {
            say(&mut hub, Body::State(told));
            assert_eq!(state(&hub), told);
        }
        say(&mut hub, Body::Phase(Phase::Closed));
        assert_eq!(state(&hub), State::Closed);
        say(&mut hub, Body::State(State::Halted));
        hub.set_feed_state(FEED, State::Stale);
        assert_eq!(state(&hub), State::Stale);
        hub.set_feed_state(FEED, State::Live);
        assert_eq!(state(&hub), State::Halted, "what the source said of it stands");
        hub.apply(&[Update::image(a, Channel::Quote, Time(1), &[(PHASE, None)])]);
        say(&mut hub, Body::State(State::Live));
        assert_eq!(state(&hub), State::Live, "it has no phase any more");
        say(&mut hub, Body::State(State::Pending));
        assert_eq!(state(&hub), State::Pending);
    }

    #[test]
    fn quotes_by_another_clock_close_no_bar() {
        const S: i64 = 1_000_000_000;
        let (mut hub, a) = hub();
        hub.want(Want { channel: Channel::Bar1s, symbol: a, depth: 0 }, true);
        let trade = Trade {
            price: Decimal::ONE,
            size: Decimal::ONE,
            trade_id: 0,
            ref_trade_id: 0,
            source_seq: 0,
            side: None,
            kind: TradeKind::New,
        };
        for at in 0..30 {
            let bid = [(quote::BID, Some(Decimal::from(at)))];
            hub.apply(&[
                Update::new(a, Time(at * S / 10), Body::Trade(trade)),
                Update::image(a, Channel::Quote, Time(at * S / 10 + 4 * S), &bid),
            ]);
        }
        let cut = hub.cut(0, 0);
        let trades = cut.events.iter().filter_map(|event| match event.what {
            What::Bar(bar) => Some(bar.trades),
            _ => None,
        });
        assert_eq!((trades.collect::<Vec<_>>(), hub.stats().late_trades), (vec![10, 10], 0));
    }

    #[test]
    fn bars_that_never_came_keep_their_numbers() {
        const MINUTE: i64 = 60_000_000_000;
        let (mut hub, a) = hub();
        let bar = |at: i64, is_final| {
            let bar = Bar::new(Channel::Bar1m, Time(at * MINUTE), [Decimal::ONE; 4], Decimal::ONE, 1);
            let mut bar = bar.expect("small prices");
            bar.is_final = is_final;
            Update::new(a, Time(at * MINUTE), Body::Bar(bar))
        };
        let missing = |count| Update::new(a, Time(0), Body::missing(Channel::Bar1m, count));
        hub.apply(&[missing(9)]);
        hub.want(Want { channel: Channel::Bar1m, symbol: a, depth: 0 }, true);
        // Time alone closes none of them: the other symbols of the feed may be of another day.
        hub.apply(&[bar(0, false), Update::new(a, Time(99 * MINUTE), Body::State(State::Live))]);
        hub.apply(&[missing(2), bar(3, false), bar(3, true), bar(4, false), bar(5, false)]);
        let cut = hub.cut(0, 0);
        let told = cut.events.iter().map(|event| match event.what {
            What::Gap { from, .. } => (from, event.q, None),
            What::Bar(bar) => (None, event.q, Some(bar.start.0 / MINUTE)),
            _ => panic!("{event:?}"),
        });
        let told: Vec<_> = told.collect();
        assert_eq!(told, [(Some(1), 2, None), (None, 3, Some(3)), (None, 4, Some(4))]);
        assert_eq!((cut.bars[0].q, cut.bars[0].bar.map(|bar| bar.start.0 / MINUTE)), (5, Some(5)));
    }
}
