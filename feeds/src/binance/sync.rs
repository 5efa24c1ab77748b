//! When a stream of book changes and a picture of the whole book fit together: Binance's published rule, one symbol.
//!
//! Bound kept here: while a picture is awaited at most [`EVENTS_HELD_MAX`] events with at most [`LEVELS_HELD_MAX`]
//! levels are held back; the oldest go first, and a picture that would have needed them is asked for again.

use std::collections::VecDeque;

use super::Market;
use crate::feed::Skipped;
use crate::market::{Body, Level, Side, Symbol, Time, Update};

/// Events held back per symbol: more than a minute and a half of the 100 ms stream.
pub(super) const EVENTS_HELD_MAX: usize = 1_024;
/// Levels in them.
pub(super) const LEVELS_HELD_MAX: usize = 16_384;

/// An event without its levels: it covers the changes above `after`, up to and with `last`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) after: u64,
    pub(super) last: u64,
    pub(super) time: Time,
}

/// The state of one symbol's book; the levels themselves are the receiver's.
#[derive(Debug, Default)]
pub(super) struct Sync {
    base: Option<Base>,
    held: VecDeque<(Event, usize)>,
    held_levels: VecDeque<Level>,
}

/// What the next event has to follow.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// A picture; the first event after it may begin inside it.
    Snapshot(u64),
    /// The event that ended with this number.
    Event(u64),
}

enum Verdict {
    Old,
    Apply,
    Gap,
}

impl Sync {
    /// Takes an event: applies it, drops it or holds it back. True when a picture has to be fetched now.
    pub(super) fn event(
        &mut self,
        market: Market,
        symbol: Symbol,
        event: Event,
        levels: &[Level],
        skipped: &mut Skipped,
        out: &mut Vec<Update>,
    ) -> bool {
        let Some(base) = self.base else {
            let first = self.held.is_empty();
            self.hold(event, levels, skipped);
            return first;
        };
        match judge(market, base, event) {
            Verdict::Old => skipped.old += 1,
            Verdict::Apply => {
                self.base = Some(Base::Event(event.last));
                out.extend(levels.iter().map(|level| Update::new(symbol, event.time, Body::Level(*level))));
            }
            Verdict::Gap => {
                skipped.gaps += 1;
                self.base = None;
                self.hold(event, levels, skipped);
                return true;
            }
        }
        false
    }

    /// Takes a picture: it becomes levels, and what was held back follows it. True when it was too old to be of use
    /// and another one has to be fetched.
    pub(super) fn snapshot(
        &mut self,
        market: Market,
        symbol: Symbol,
        (last, time): (u64, Time),
        levels: &[Level],
        skipped: &mut Skipped,
        out: &mut Vec<Update>,
    ) -> bool {
        if let Some(Base::Snapshot(known) | Base::Event(known)) = self.base
            && last <= known
        {
            skipped.old += 1;
            return false;
        }
        let base = Base::Snapshot(last);
        while let Some(&(event, _)) = self.held.front() {
            match judge(market, base, event) {
                Verdict::Old => self.forget(skipped),
                Verdict::Apply => break,
                Verdict::Gap => {
                    skipped.old += 1;
                    return true;
                }
            }
        }
        self.base = Some(base);
        // An empty picture has no level to carry the reset, so one that removes nothing does.
        let nothing = Level { price: 0.into(), size: 0.into(), side: Side::Buy, reset: true };
        let head = levels.first().map_or(nothing, |level| Level { reset: true, ..*level });
        out.push(Update::new(symbol, time, Body::Level(head)));
        out.extend(levels.iter().skip(1).map(|level| Update::new(symbol, time, Body::Level(*level))));
        self.release(symbol, skipped, out);
        false
    }

    /// Whether a picture is missing.
    pub(super) fn waits(&self) -> bool {
        self.base.is_none() && !self.held.is_empty()
    }

    fn hold(&mut self, event: Event, levels: &[Level], skipped: &mut Skipped) {
        if let Some(&(newest, _)) = self.held.back() {
            if event.last <= newest.last {
                skipped.old += 1;
                return;
            }
            if event.after != newest.last {
                // Nothing before this break can be of use: a picture that old would not reach over it.
                skipped.gaps += 1;
                while !self.held.is_empty() {
                    self.forget(skipped);
                }
            }
        }
        skipped.waiting += 1;
        self.held.push_back((event, levels.len()));
        self.held_levels.extend(levels);
        // The newest event always stays: it is the memory that a picture has been asked for.
        while self.held.len() > 1
            && (self.held.len() > EVENTS_HELD_MAX || self.held_levels.len() > LEVELS_HELD_MAX)
        {
            self.forget(skipped);
        }
    }

    /// Drops the oldest event held.
    fn forget(&mut self, skipped: &mut Skipped) {
        if let Some((_, levels)) = self.held.pop_front() {
            self.held_levels.drain(..levels);
            skipped.waiting -= 1;
            skipped.old += 1;
        }
    }

    /// Passes on all that is held, which follows the base without a break, and gives its memory back.
    fn release(&mut self, symbol: Symbol, skipped: &mut Skipped, out: &mut Vec<Update>) {
        skipped.waiting -= self.held.len() as u64;
        for (event, count) in std::mem::take(&mut self.held) {
            self.base = Some(Base::Event(event.last));
            let levels = self.held_levels.drain(..count);
            out.extend(levels.map(|level| Update::new(symbol, event.time, Body::Level(level))));
        }
        self.held_levels = VecDeque::new();
    }
}

fn judge(market: Market, base: Base, event: Event) -> Verdict {
    let (old, follows) = match (base, market) {
        // Spot: drop u <= L, then U <= L + 1 <= u.
        (Base::Snapshot(last), Market::Spot) => (event.last <= last, event.after <= last),
        // USD-M: drop u < L, then U <= L <= u. Its numbers run over all symbols, so L may also lie between two events
        // of this one (pu <= L < U), which is just as gapless.
        (Base::Snapshot(last), Market::UsdM) => (event.last < last, event.after <= last),
        (Base::Event(last), _) => (event.last <= last, event.after == last),
    };
    match (old, follows) {
        (true, _) => Verdict::Old,
        (false, true) => Verdict::Apply,
        (false, false) => Verdict::Gap,
    }
}
