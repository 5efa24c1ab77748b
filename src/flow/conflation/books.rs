//! The books of all symbols, and their best levels as far as somebody wants them.
//!
//! Bound kept here: `levels_max` levels in all books together. Beyond it a book that would grow gives up its own worst
//! level, which is counted.

use std::collections::{BTreeMap, BTreeSet};

use tickgate_feeds::book::Book;
use tickgate_feeds::market::{Level, Symbol, Time};

use super::Rev;
use super::cut::{BookTop, Levels};

#[derive(Debug, Default)]
struct State {
    book: Book,
    /// What cuts hold of it; as deep as somebody wants it.
    top: BookTop,
    /// The book moved on after `top` was taken.
    outdated: bool,
    /// The symbol's state changed after `top` was taken: its row tells that too.
    restated: bool,
    /// The revision at which somebody began to want it: whoever holds less may never have seen it.
    wanted_rev: Rev,
}

/// All books.
#[derive(Debug)]
pub struct Books {
    states: BTreeMap<Symbol, State>,
    wanted: BTreeSet<Symbol>,
    levels: usize,
    levels_max: usize,
    dropped: u64,
}

impl Books {
    /// No books yet, and room for so many levels in all.
    pub fn new(levels_max: usize) -> Self {
        Self { states: BTreeMap::new(), wanted: BTreeSet::new(), levels: 0, levels_max, dropped: 0 }
    }

    /// Makes one change to a book.
    pub fn apply(&mut self, symbol: Symbol, level: &Level, time: Time, arrival_ns: u64) {
        let state = self.states.entry(symbol).or_default();
        let book = &mut state.book;
        let (levels, dropped) = (book.bids().len() + book.asks().len(), book.dropped());
        book.apply(level);
        let grown = book.bids().len() + book.asks().len() > levels;
        if grown && self.levels >= self.levels_max {
            book.drop_worst(level.side);
        }
        self.levels = self.levels + book.bids().len() + book.asks().len() - levels;
        self.dropped += book.dropped() - dropped;
        state.outdated = true;
        state.top.q += 1;
        (state.top.time, state.top.arrival_ns) = (time, arrival_ns);
    }

    /// How many levels all books may have together.
    pub fn levels_max(&self) -> usize {
        self.levels_max
    }

    /// How many levels were dropped so far because there was no room for more.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notes that the symbol's state changed.
    pub fn restate(&mut self, symbol: Symbol) {
        if let Some(state) = self.states.get_mut(&symbol) {
            (state.outdated, state.restated) = (true, true);
        }
    }

    /// From `rev` on cuts hold so many levels of a side; `None` when nobody wants the book any more.
    pub fn want(&mut self, symbol: Symbol, depth: Option<u16>, rev: Rev) {
        let Some(depth) = depth else {
            self.wanted.remove(&symbol);
            if let Some(state) = self.states.get_mut(&symbol) {
                (state.top.bids, state.top.asks, state.top.revs) = Default::default();
            }
            return;
        };
        let state = self.states.entry(symbol).or_default();
        (state.top.symbol, state.top.depth) = (Some(symbol), depth);
        (state.outdated, state.wanted_rev) = (true, rev);
        if self.wanted.insert(symbol) {
            // A book without levels is a row too.
            state.top.revs = vec![rev];
        }
    }

    /// The wanted books that changed after `since`, or that somebody began to want after it.
    pub fn changed_since(&mut self, since: Rev, rev: Rev, out: &mut Vec<BookTop>) {
        for symbol in &self.wanted {
            let Some(state) = self.states.get_mut(symbol) else { continue };
            state.refresh(rev);
            if state.wanted_rev.max(state.top.rev_at(u16::MAX)) > since {
                out.push(state.top.clone());
            }
        }
    }

    /// The best levels of a book, for one-off readers; `None` when there is no book.
    pub fn top(&mut self, symbol: Symbol, depth: u16, rev: Rev) -> Option<BookTop> {
        let wanted = self.wanted.contains(&symbol);
        let state = self.states.get_mut(&symbol)?;
        if wanted {
            state.refresh(rev);
        }
        let known = wanted && depth <= state.top.depth;
        let revs = vec![if known { state.top.rev_at(depth) } else { rev }];
        let (bids, asks) = state.best(depth);
        Some(BookTop { symbol: Some(symbol), depth, bids, asks, revs, ..state.top })
    }
}

impl State {
    fn best(&self, depth: u16) -> (Levels, Levels) {
        let depth = usize::from(depth);
        (self.book.bids().take(depth).collect(), self.book.asks().take(depth).collect())
    }

    /// Takes the best levels anew if the book moved on. Each level has the revision in which it or a better one
    /// changed, so that who wants few levels is not told of changes below them.
    fn refresh(&mut self, rev: Rev) {
        if !std::mem::take(&mut self.outdated) {
            return;
        }
        let (bids, asks) = self.best(self.top.depth);
        let (restated, old) = (std::mem::take(&mut self.restated), &self.top);
        let mut newest = 0;
        // One more than there are levels: whoever wants more than there are sees the end of the book.
        let revs = (0..=bids.len().max(asks.len())).map(|at| {
            let same = !restated && old.bids.get(at) == bids.get(at) && old.asks.get(at) == asks.get(at);
            newest = newest.max(if same { old.rev_at(at as u16 + 1) } else { rev });
            newest
        });
        self.top.revs = revs.collect();
        (self.top.bids, self.top.asks) = (bids, asks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rust_decimal::Decimal;
    use tickgate_feeds::market::Side;

    fn level(price: i64, size: i64) -> Level {
        let (price, size) = (Decimal::from(price), Decimal::from(size));
        Level { price, size, side: Side::Buy, reset: false }
    }

    fn books(levels_max: usize, levels: &[(i64, i64)]) -> Books {
        let mut books = Books::new(levels_max);
        for &(price, size) in levels {
            books.apply(Symbol::at(0), &level(price, size), Time(0), 0);
        }
        books
    }

    #[test]
    fn a_change_below_the_wanted_levels_is_none() {
        let symbol = Symbol::at(0);
        let mut books = books(100, &[(10, 1), (9, 1), (8, 1)]);
        books.want(symbol, Some(3), 5);
        let mut revs = |price, size, rev| {
            books.apply(symbol, &level(price, size), Time(0), 0);
            let mut out = Vec::new();
            books.changed_since(rev - 1, rev, &mut out);
            let top = out.pop();
            [1, 2, 3, 9].map(|depth| top.as_ref().map_or(0, |top| top.rev_at(depth)))
        };
        assert_eq!(revs(8, 2, 6), [6, 6, 6, 6], "the first look sees levels that were not wanted before");
        assert_eq!(revs(9, 2, 7), [6, 7, 7, 7]);
        assert_eq!(revs(8, 0, 8), [6, 7, 8, 8], "the book has become shorter");
        assert_eq!(revs(1, 1, 9), [6, 7, 9, 9]);
        assert_eq!(revs(10, 3, 10), [10; 4]);
        assert_eq!(revs(10, 3, 11), [0; 4], "nothing changed");
        assert_eq!(revs(0, 1, 12), [0; 4], "below the wanted levels");
    }

    #[test]
    fn what_nobody_wants_is_let_go_and_comes_again() {
        let symbol = Symbol::at(0);
        let mut books = books(100, &[(10, 1), (9, 1)]);
        let tops = |books: &mut Books, since, rev| {
            let mut out = Vec::new();
            books.changed_since(since, rev, &mut out);
            out.iter().map(|top| top.bids.len()).collect::<Vec<_>>()
        };
        books.want(symbol, Some(2), 5);
        assert_eq!(tops(&mut books, 4, 5), [2]);
        books.want(symbol, Some(1), 6);
        assert_eq!(tops(&mut books, 5, 6), [1]);
        books.want(symbol, None, 7);
        assert!(tops(&mut books, 0, 7).is_empty());
        books.want(symbol, Some(1), 8);
        assert_eq!(tops(&mut books, 7, 8), [1], "whoever wants it anew gets it though it did not change");
    }

    #[test]
    fn all_books_together_have_a_bound() {
        let mut books = books(3, &[(10, 1), (9, 1), (8, 1), (7, 1), (11, 1)]);
        assert_eq!(books.dropped(), 2);
        let prices = |books: &mut Books| -> Vec<i64> {
            let top = books.top(Symbol::at(0), 9, 1).expect("a book");
            top.bids.iter().map(|(price, _)| price.mantissa() as i64).collect()
        };
        assert_eq!(prices(&mut books), [11, 10, 9], "the worst level went");
        books.apply(Symbol::at(0), &level(11, 0), Time(0), 0);
        books.apply(Symbol::at(1), &level(5, 1), Time(0), 0);
        assert_eq!((books.levels, books.dropped()), (3, 2), "what a level frees, another book may take");
    }
}
