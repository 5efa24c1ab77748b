//! The ingest queue between the feeds and the hub.
//!
//! Bound kept here: `ingest_updates_max` updates, or a third more than the distinct fields and levels that wait, if those
//! alone are more. A pulled feed waits for room. For a live feed the queue is compacted: fields and levels that a later
//! update of the same symbol overwrites anyway are dropped, and if that is not enough, the oldest trades become counted
//! losses. Overload costs detail, never latency, and never silently.

use std::collections::{HashMap, HashSet};

use rust_decimal::Decimal;
use tickgate_feeds::market::{Body, Channel, Side, Symbol, Update};

/// What the queue did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Updates taken in.
    pub accepted: u64,
    /// Updates that a later one made needless while the queue was full.
    pub merged: u64,
    /// Trades that had to go; each is announced as a gap.
    pub trades_lost: u64,
    /// The most updates that ever waited.
    pub waiting_max: u64,
}

/// The queue. The caller drains it whole, so a message is never torn.
#[derive(Debug)]
pub struct Buffer {
    queue: Vec<Update>,
    updates_max: usize,
    /// `updates_max`, or more while what waits cannot be made less: a latest value is never dropped.
    room: usize,
    stats: Stats,
}

impl Buffer {
    /// An empty queue for `updates_max` updates.
    pub fn new(updates_max: usize) -> Self {
        Self { queue: Vec::new(), updates_max, room: updates_max, stats: Stats::default() }
    }

    /// Takes one message of a live feed; makes room if it must.
    pub fn push(&mut self, message: &[Update]) {
        if self.queue.len() + message.len() > self.room {
            self.make_room();
        }
        self.accept(message);
    }

    /// Takes one message of a pulled feed, or refuses it until the queue was drained. A message longer than the
    /// whole queue is taken when the queue is empty: it cannot be split.
    #[must_use]
    pub fn offer(&mut self, message: &[Update]) -> bool {
        let room = self.queue.is_empty() || self.queue.len() + message.len() <= self.updates_max;
        if room {
            self.accept(message);
        }
        room
    }

    /// Moves everything that waits into `out`, which must be empty; its capacity is used for the next updates.
    pub fn drain(&mut self, out: &mut Vec<Update>) {
        debug_assert!(out.is_empty());
        std::mem::swap(&mut self.queue, out);
        self.room = self.updates_max;
    }

    /// How many updates wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What the queue did so far.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    fn accept(&mut self, message: &[Update]) {
        self.queue.extend_from_slice(message);
        self.stats.accepted += message.len() as u64;
        self.stats.waiting_max = self.stats.waiting_max.max(self.queue.len() as u64);
    }

    /// Frees at least a quarter of the queue, so that the work of a full queue is shared by many updates.
    fn make_room(&mut self) {
        let before = self.queue.len();
        drop_overwritten(&mut self.queue);
        self.stats.merged += (before - self.queue.len()) as u64;
        let target = self.updates_max - self.updates_max / 4;
        if self.queue.len() > target {
            let surplus = self.queue.len() - target;
            self.stats.trades_lost += drop_oldest_trades(&mut self.queue, surplus);
        }
        self.room = self.updates_max.max(self.queue.len() * 4 / 3);
    }
}

/// Drops what a later update overwrites, never across a trade of the same symbol: the quote that a trade met stays.
fn drop_overwritten(queue: &mut Vec<Update>) {
    let mut fields: HashMap<(Symbol, Channel), u32> = HashMap::new();
    let mut levels: HashSet<(Symbol, Side, Decimal)> = HashSet::new();
    let mut new_books: HashSet<Symbol> = HashSet::new();
    let mut keep = vec![true; queue.len()];
    for (at, update) in queue.iter_mut().enumerate().rev() {
        let symbol = update.symbol;
        match &mut update.body {
            Body::Image { channel, len, nulls, numbers, values } => {
                let later = fields.entry((symbol, *channel)).or_default();
                let mut kept = 0;
                let old_nulls = std::mem::take(nulls);
                for from in 0..*len as usize {
                    if *later & 1 << numbers[from] == 0 {
                        (numbers[kept], values[kept]) = (numbers[from], values[from]);
                        *nulls |= (old_nulls >> from & 1) << kept;
                        kept += 1;
                    }
                }
                *len = kept as u8;
                keep[at] = kept > 0;
                *later |= numbers[..kept].iter().fold(0, |mask, number| mask | 1 << number);
            }
            Body::Level(level) => {
                keep[at] = !new_books.contains(&symbol) && levels.insert((symbol, level.side, level.price));
                if level.reset && !new_books.contains(&symbol) {
                    // The level that opens a book carries the reset, so it stays even when its own price is set later.
                    keep[at] = true;
                    new_books.insert(symbol);
                }
            }
            Body::Trade(_) | Body::Missing { .. } | Body::Lost(_) => {
                fields.remove(&(symbol, Channel::Quote));
                fields.remove(&(symbol, Channel::Index));
            }
            Body::Bar(_) | Body::Phase(_) | Body::State(_) | Body::Rewound => {}
        }
    }
    let mut at = 0;
    queue.retain(|_| {
        at += 1;
        keep[at - 1]
    });
}

/// Turns the `surplus` oldest trades into losses, at most one `Lost` per symbol; returns how many trades went.
fn drop_oldest_trades(queue: &mut Vec<Update>, surplus: usize) -> u64 {
    let mut lost_at: HashMap<Symbol, usize> = HashMap::new();
    let mut kept: Vec<Update> = Vec::with_capacity(queue.capacity());
    let mut lost = 0;
    let mut freed = 0;
    for mut update in queue.drain(..) {
        let trades = match update.body {
            Body::Trade(_) if freed < surplus => 1,
            Body::Lost(earlier) if lost_at.contains_key(&update.symbol) => earlier,
            _ => {
                kept.push(update);
                continue;
            }
        };
        lost += u64::from(matches!(update.body, Body::Trade(_)));
        if let Some(&at) = lost_at.get(&update.symbol) {
            if let Body::Lost(count) = &mut kept[at].body {
                *count += trades;
            }
            freed += 1;
        } else {
            lost_at.insert(update.symbol, kept.len());
            update.body = Body::Lost(trades);
            kept.push(update);
        }
    }
    *queue = kept;
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickgate_feeds::market::{Level, Time, Trade, TradeKind, quote};

    fn bid(symbol: u32, price: i64) -> Update {
        let fields = [(quote::BID, Some(Decimal::from(price))), (quote::BID_SIZE, None)];
        Update::image(Symbol::at(symbol), Channel::Quote, Time(0), &fields)
    }

    fn trade(symbol: u32, id: u64) -> Update {
        let (price, size) = (Decimal::ONE, Decimal::ONE);
        let trade = Trade {
            price,
            size,
            trade_id: id,
            ref_trade_id: 0,
            source_seq: 0,
            side: None,
            kind: TradeKind::New,
        };
        Update::new(Symbol::at(symbol), Time(0), Body::Trade(trade))
    }

    fn level(price: i64, reset: bool) -> Update {
        let level = Level { price: Decimal::from(price), size: Decimal::ONE, side: Side::Buy, reset };
        Update::new(Symbol::at(0), Time(0), Body::Level(level))
    }

    fn drained(buffer: &mut Buffer) -> Vec<Update> {
        let mut out = Vec::new();
        buffer.drain(&mut out);
        out
    }

    #[test]
    fn a_full_queue_keeps_the_latest_value_and_the_quote_before_a_trade() {
        let mut buffer = Buffer::new(8);
        for update in
            [bid(0, 1), bid(0, 2), trade(0, 1), bid(0, 3), bid(0, 4), bid(1, 9), bid(0, 5), bid(1, 10)]
        {
            buffer.push(&[update]);
        }
        buffer.push(&[bid(2, 7)]);
        assert_eq!(drained(&mut buffer), [bid(0, 2), trade(0, 1), bid(0, 5), bid(1, 10), bid(2, 7)]);
        assert_eq!(buffer.stats().merged, 4);
    }

    #[test]
    fn trades_that_must_go_are_counted_in_place() {
        let mut buffer = Buffer::new(8);
        for id in 0..8 {
            buffer.push(&[trade((id % 2) as u32, id)]);
        }
        buffer.push(&[trade(0, 8)]);
        let out = drained(&mut buffer);
        let lost: u32 =
            out.iter().map(|update| if let Body::Lost(count) = update.body { count } else { 0 }).sum();
        let trades = out.iter().filter(|update| matches!(update.body, Body::Trade(_))).count();
        assert_eq!(lost as usize + trades, 9);
        assert_eq!(u64::from(lost), buffer.stats().trades_lost);
        assert!(out.len() <= 7, "a quarter of the queue is free again: {}", out.len());
    }

    #[test]
    fn a_new_book_hides_the_levels_before_it() {
        let mut queue =
            vec![level(1, false), level(2, true), level(3, false), level(2, false), level(3, false)];
        drop_overwritten(&mut queue);
        assert_eq!(queue, [level(2, true), level(2, false), level(3, false)]);
    }

    #[test]
    fn a_pulled_feed_waits_but_never_starves() {
        let mut buffer = Buffer::new(2);
        let message = [bid(0, 1), bid(1, 1), bid(2, 1)];
        assert!(buffer.offer(&message), "longer than the queue, but the queue is empty");
        assert!(!buffer.offer(&message[..1]));
        assert_eq!(drained(&mut buffer).len(), 3);
        assert!(buffer.offer(&message[..1]));
    }
}
