//! Bars made from trades, or taken from venues that make their own.
//!
//! A bar belongs to its trades' own time, so a replay makes the same bars at any speed. It is closed when the feed's time
//! has passed its end by [`GRACE_NS`], once; a venue's own when the venue says so or begins the next.
//!
//! Bound kept here: one open bar for each topic that somebody wants.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use tickgate_feeds::market::{Bar, Channel, FeedId, Symbol, Time, Trade, TradeKind};

use super::Rev;

/// How long after its end a bar waits for trades that come late: feeds of one venue differ by less.
const GRACE_NS: i64 = 1_000_000_000;

/// The bar of a topic that is not final yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenBar {
    /// Whose.
    pub symbol: Symbol,
    /// The topic's channel.
    pub channel: Channel,
    /// `None` between a final bar and the first trade after it.
    pub bar: Option<Bar>,
    /// The revision of the last change.
    pub rev: Rev,
    /// The number that the bar has and keeps when it is final.
    pub q: u64,
    /// Event time of the last change.
    pub time: Time,
    /// When that entered the gateway.
    pub arrival_ns: u64,
}

#[derive(Debug)]
struct Entry {
    open: OpenBar,
    feed: FeedId,
    /// Nothing of the topic was looked at before this.
    began: Option<Time>,
    /// The end of the last final bar: a trade from before it comes too late for what clients hold as final.
    closed: Time,
    /// The venue sends bars of this topic: ours would only disagree.
    from_venue: bool,
    /// The revision at which somebody began to want it: whoever holds less may never have seen it.
    wanted_rev: Rev,
}

/// All bars that somebody wants.
#[derive(Debug, Default)]
pub struct Bars {
    entries: BTreeMap<(Symbol, Channel), Entry>,
    /// By feed: the feed's time at which some bar is to be closed.
    due: Vec<Time>,
    late_trades: u64,
}

/// A bar that has become final, with its number.
pub type Final = (Symbol, Bar, u64);

impl Bars {
    /// From `rev` on bars of this topic are made, if they were not; the first is number `q`.
    pub fn want(&mut self, symbol: Symbol, channel: Channel, feed: FeedId, q: u64, rev: Rev) {
        let open = OpenBar { symbol, channel, bar: None, rev: 0, q, time: Time(0), arrival_ns: 0 };
        let new =
            Entry { open, feed, began: None, closed: Time(i64::MIN), from_venue: false, wanted_rev: rev };
        self.entries.entry((symbol, channel)).or_insert(new).wanted_rev = rev;
    }

    /// Nobody wants bars of this topic any more.
    pub fn release(&mut self, symbol: Symbol, channel: Channel) {
        self.entries.remove(&(symbol, channel));
    }

    /// The open bars that changed after `since`, or that somebody began to want after it.
    pub fn changed_since(&self, since: Rev) -> impl Iterator<Item = OpenBar> {
        let is_news = move |entry: &&Entry| entry.open.rev.max(entry.wanted_rev) > since;
        self.entries.values().filter(is_news).map(|entry| entry.open)
    }

    /// Closes the feed's bars whose time is over at `time`; `Time(i64::MAX)` closes all.
    #[inline]
    pub fn close_due(&mut self, feed: FeedId, time: Time, finals: &mut Vec<Final>) {
        let at = usize::from(feed.0);
        if self.due.get(at).is_some_and(|due| time >= *due) {
            self.close_some(feed, time, finals);
        }
    }

    #[cold]
    fn close_some(&mut self, feed: FeedId, time: Time, finals: &mut Vec<Final>) {
        let mut due = i64::MAX;
        for entry in self.entries.values_mut().filter(|entry| entry.feed == feed) {
            if entry.closing_time() <= time {
                entry.close(finals);
            }
            due = due.min(entry.closing_time().0);
        }
        self.due[usize::from(feed.0)] = Time(due);
    }

    /// Closes the symbol's bars that cannot take a trade of this time: theirs is over.
    pub fn close_before(&mut self, symbol: Symbol, time: Time, finals: &mut Vec<Final>) {
        for (_, entry) in self.entries.range_mut((symbol, Channel::Bar1s)..=(symbol, Channel::Bar1h)) {
            if !entry.from_venue && entry.open.bar.is_some_and(|bar| bar.end() <= time) {
                entry.close(finals);
            }
        }
    }

    /// Adds a trade to the symbol's bars.
    pub fn add(&mut self, symbol: Symbol, trade: &Trade, time: Time, arrival_ns: u64, rev: Rev) {
        if trade.kind != TradeKind::New {
            return;
        }
        for (_, entry) in self.entries.range_mut((symbol, Channel::Bar1s)..=(symbol, Channel::Bar1h)) {
            if entry.from_venue {
                continue;
            }
            let Some(length) = entry.open.channel.bar_ns() else { continue };
            let start = Time(time.0.div_euclid(length) * length);
            let began = *entry.began.get_or_insert(time);
            if start < entry.open.bar.map_or(entry.closed, |bar| bar.start) {
                self.late_trades += 1;
                continue;
            }
            let bar = match &entry.open.bar {
                Some(bar) => extended(bar, trade),
                None => {
                    let first = Bar::new(entry.open.channel, start, [trade.price; 4], trade.size, 1);
                    // Looking began with a trade somewhere in this bar, so there may have been others before it.
                    first.map(|mut bar| {
                        bar.is_partial = start < began && began < bar.end();
                        bar
                    })
                }
            };
            if let Some(bar) = bar {
                entry.set(bar, time, arrival_ns, rev);
                note_due(&mut self.due, entry);
            }
        }
    }

    /// Takes a bar that the venue made.
    pub fn take(
        &mut self,
        symbol: Symbol,
        bar: Bar,
        time: Time,
        arrival_ns: u64,
        rev: Rev,
        finals: &mut Vec<Final>,
    ) {
        let Some(entry) = self.entries.get_mut(&(symbol, bar.channel)) else { return };
        entry.from_venue = true;
        if entry.open.bar.is_some_and(|open| open.start < bar.start) {
            entry.close(finals);
        }
        entry.set(bar, time, arrival_ns, rev);
        if bar.is_final {
            entry.close(finals);
        }
        note_due(&mut self.due, entry);
    }

    /// So many final bars of a topic will never come, and what was open is among them: the next has the number behind
    /// theirs. Returns whether somebody wants the topic.
    pub fn skip(&mut self, symbol: Symbol, channel: Channel, count: u64, rev: Rev) -> bool {
        let Some(entry) = self.entries.get_mut(&(symbol, channel)) else { return false };
        entry.open = OpenBar { bar: None, q: entry.open.q + count, rev, ..entry.open };
        true
    }

    /// Trades of the symbol were lost: its open bars are no longer whole.
    pub fn lose(&mut self, symbol: Symbol, rev: Rev) {
        for (_, entry) in self.entries.range_mut((symbol, Channel::Bar1s)..=(symbol, Channel::Bar1h)) {
            if let Some(bar) = &mut entry.open.bar {
                (bar.is_partial, entry.open.rev) = (true, rev);
            }
        }
    }

    /// The symbol's trades may be of an earlier time from now on: what is open is over, and nothing comes too late.
    pub fn rewind(&mut self, symbol: Symbol, finals: &mut Vec<Final>) {
        for (_, entry) in self.entries.range_mut((symbol, Channel::Bar1s)..=(symbol, Channel::Bar1h)) {
            entry.close(finals);
            (entry.began, entry.closed) = (None, Time(i64::MIN));
        }
    }

    /// Trades that came too late for a bar, once for each.
    pub fn late_trades(&self) -> u64 {
        self.late_trades
    }

    /// Stamps the topics whose bar has just become final: they have none open from this revision on.
    pub fn closed_at(&mut self, symbol: Symbol, channel: Channel, rev: Rev) {
        if let Some(entry) = self.entries.get_mut(&(symbol, channel)) {
            entry.open.rev = rev;
        }
    }
}

impl Entry {
    fn set(&mut self, bar: Bar, time: Time, arrival_ns: u64, rev: Rev) {
        self.open = OpenBar { bar: Some(bar), time, arrival_ns, rev, ..self.open };
    }

    fn close(&mut self, finals: &mut Vec<Final>) {
        if let Some(mut bar) = self.open.bar.take() {
            bar.is_final = true;
            self.closed = bar.end();
            finals.push((self.open.symbol, bar, self.open.q));
            self.open.q += 1;
        }
    }

    /// When the feed's time closes the bar. A venue closes its own: its other symbols' time may be another.
    fn closing_time(&self) -> Time {
        let bar = self.open.bar.filter(|_| !self.from_venue);
        bar.map_or(Time(i64::MAX), |bar| Time(bar.end().0 + GRACE_NS))
    }
}

fn note_due(due: &mut Vec<Time>, entry: &Entry) {
    let at = usize::from(entry.feed.0);
    if due.len() <= at {
        due.resize(at + 1, Time(i64::MAX));
    }
    due[at] = due[at].min(entry.closing_time());
}

fn extended(bar: &Bar, trade: &Trade) -> Option<Bar> {
    let [open, high, low, _] = bar.prices();
    let prices: [Decimal; 4] = [open, high.max(trade.price), low.min(trade.price), trade.price];
    let volume = bar.volume.checked_add(trade.size)?;
    let mut longer = Bar::new(bar.channel, bar.start, prices, volume, bar.trades + 1)?;
    longer.is_partial = bar.is_partial;
    Some(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(price: i64) -> Trade {
        let (price, size) = (Decimal::from(price), Decimal::TWO);
        Trade { price, size, trade_id: 0, ref_trade_id: 0, source_seq: 0, side: None, kind: TradeKind::New }
    }

    #[test]
    fn trades_become_bars_and_time_closes_them() {
        const S: i64 = 1_000_000_000;
        let (symbol, feed) = (Symbol::at(0), FeedId(0));
        let (mut bars, mut finals) = (Bars::default(), Vec::new());
        bars.want(symbol, Channel::Bar1s, feed, 1, 0);
        bars.want(symbol, Channel::Bar1m, feed, 1, 0);
        for (rev, (at, price)) in [(S / 2, 10), (S - 1, 14), (S + 1, 12), (S + 5, 9)].into_iter().enumerate()
        {
            bars.close_before(symbol, Time(at), &mut finals);
            bars.add(symbol, &trade(price), Time(at), 0, rev as u64 + 1);
        }
        let (_, first, q) = finals.pop().expect("the first second is over");
        assert_eq!((q, first.trades, first.is_partial, first.is_final), (1, 2, true, true));
        assert_eq!(first.prices(), [10, 14, 10, 14].map(Decimal::from));
        bars.close_due(feed, Time(2 * S + GRACE_NS - 1), &mut finals);
        assert!(finals.is_empty(), "the grace is not over");
        bars.close_due(feed, Time(2 * S + GRACE_NS), &mut finals);
        let (_, second, q) = finals.pop().expect("the second second is over");
        assert_eq!((q, second.is_partial), (2, false));
        assert_eq!(second.prices(), [12, 12, 9, 9].map(Decimal::from));
        bars.add(symbol, &trade(1), Time(2 * S - 1), 0, 9);
        assert_eq!(bars.late_trades(), 1, "its second is over, its minute is not");
        bars.close_due(feed, Time(i64::MAX), &mut finals);
        let minute = finals.iter().find(|(_, bar, _)| bar.channel == Channel::Bar1m).expect("the minute's").1;
        assert_eq!((minute.trades, minute.volume), (5, Decimal::TEN));
        bars.add(symbol, &trade(1), Time(59 * S), 0, 10);
        assert_eq!((bars.late_trades(), bars.changed_since(9).count()), (2, 1), "a minute is final once");

        finals.clear();
        bars.rewind(symbol, &mut finals);
        assert_eq!(finals.len(), 1, "what was open is over");
        bars.add(symbol, &trade(3), Time(S / 2), 0, 11);
        let again: Vec<_> = bars.changed_since(10).filter_map(|open| open.bar).collect();
        assert!(again.len() == 2 && again.iter().all(|bar| bar.is_partial && bar.trades == 1), "{again:?}");
        assert_eq!(bars.late_trades(), 2);
    }
}
