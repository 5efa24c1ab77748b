//! The simulated VN30 market: thirty order books, an index over them, and a compressed trading day.
//!
//! Bound kept here: one call appends at most [`CALL_UPDATES`] updates plus those of one message; the sequence of
//! messages depends on seed and options alone, never on how often it is asked for.

use std::ops::RangeInclusive;

use fastrand::Rng;
use rust_decimal::Decimal;

use super::alias::Alias;
use super::day::{Day, is_silent, longest_silence};
use super::flow;
use super::index::Index;
use super::ladder::{rung_of_fair, steps};
use super::member::Member;
use super::members::MEMBERS;
use super::pace::Pace;
use super::tape::Tape;
use crate::calendar::{Calendar, Date};
use crate::feed::Next;
use crate::market::{Channel, FeedId, Phase, Side, Symbol, Time, Update};
use crate::symbols::{Steps, Symbols};

/// After this many updates a call ends, between two messages.
const CALL_UPDATES: usize = 2_048;
/// Fair values move this many times a second.
const STEPS_PER_SECOND: u64 = 10;
/// The index is told at most this many times a second.
const INDEX_PER_SECOND: u64 = 5;
/// Within this many seconds it is every member's turn at least once, however little it trades.
const ROUND_SECONDS: u64 = 4;
/// Turns take no more than one slot in this many, so that a slow market still has busy and quiet members.
const ROUND_SLOTS_MIN: u64 = 8;

/// What can be chosen about the simulated market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarketOptions {
    /// Messages a second over all members.
    pub rate: u64,
    /// Everything random follows from it.
    pub seed: u64,
    /// Seconds of one trading day; 0 for continuous trading without end.
    pub day: u64,
}

impl Default for MarketOptions {
    fn default() -> Self {
        Self { rate: 500, seed: 1, day: 3_600 }
    }
}

impl MarketOptions {
    /// What [`MarketOptions::rate`] may be.
    pub const RATE: RangeInclusive<u64> = 10..=10_000_000;
    /// What [`MarketOptions::day`] may be, unless it is 0.
    pub const DAY: RangeInclusive<u64> = 60..=86_400;
}

/// The market as a source of updates.
#[derive(Debug)]
pub(super) struct Market {
    options: MarketOptions,
    pace: Pace,
    day: Day,
    /// Known from the first call on, as its time is the start.
    date: Option<Date>,
    rng: Rng,
    busy: Alias,
    members: Vec<Member>,
    walk: Walk,
    /// The slot at which fair values move next.
    walk_at: u64,
    index: Index,
    /// The index has not been told since the last trade.
    index_old: bool,
    /// Not before this slot is the index told again.
    index_at: u64,
    /// One slot in this many is given to the members in turn.
    round_slots: u64,
    round_next: usize,
}

impl Market {
    pub(super) fn new(options: MarketOptions, symbols: &Symbols, feed: FeedId) -> Result<Self, String> {
        let list = |name: &str, channel: Channel| {
            symbols.list(feed, name, channel).map_err(|why| format!("symbol {name} was refused: {why}"))
        };
        let index = list("VN30", Channel::Index)?;
        let mut members = Vec::with_capacity(MEMBERS.len());
        symbols.set_steps(index, Steps::new(&[(Decimal::ZERO, Decimal::new(1, 2))]));
        for profile in &MEMBERS {
            let symbol = list(profile.name, Channel::Quote)?;
            symbols.set_steps(symbol, steps());
            members.push(Member::new(symbol, profile));
        }
        let group: Vec<Symbol> =
            std::iter::once(index).chain(members.iter().map(|member| member.symbol)).collect();
        symbols.set_group("VN30", &group);
        let floats = MEMBERS.iter().map(|profile| profile.float).collect();
        let weights: Vec<_> = MEMBERS.iter().map(|profile| f64::from(profile.activity)).collect();
        let rate = options.rate;
        Ok(Self {
            options,
            pace: Pace::new(rate),
            day: Day::new(options.day, rate),
            date: None,
            rng: Rng::with_seed(options.seed),
            busy: Alias::new(&weights),
            index: Index::new(index, floats, &members),
            walk: Walk::new(options, members.len()),
            members,
            walk_at: 0,
            index_old: false,
            index_at: 0,
            round_slots: (rate * ROUND_SECONDS / MEMBERS.len() as u64).max(ROUND_SLOTS_MIN),
            round_next: 0,
        })
    }

    pub(super) fn next(&mut self, now: Time, out: &mut Vec<Update>) -> Next {
        let full = out.len() + CALL_UPDATES;
        let mut due = self.pace.due(now);
        while due <= now {
            if out.len() >= full {
                return Next::Now;
            }
            due = self.slot(due, out);
        }
        Next::At(due)
    }

    /// The longest silence that is no fault.
    pub(super) fn silent_seconds(&self) -> u64 {
        longest_silence(self.options.day) + 5
    }

    /// Everything of the present slot; says when the next one is due.
    fn slot(&mut self, time: Time, out: &mut Vec<Update>) -> Time {
        if self.date.is_none() {
            self.open_day(time, out);
            self.enter(time, out);
            self.seed_books(time, out);
        }
        if self.pace.slot() >= self.day.end() {
            self.boundary(time, out);
        }
        if is_silent(self.day.phase()) {
            return self.pace.skip_to(self.day.end());
        }
        if self.pace.slot() >= self.walk_at {
            self.walk.step(&mut self.members, &mut self.rng);
            self.walk_at = self.pace.slot() + self.walk.slots;
        }
        self.message(time, out);
        if self.index_old && self.pace.slot() >= self.index_at {
            self.show_index(time, out);
        }
        self.pace.advance()
    }

    /// One message of one member.
    fn message(&mut self, time: Time, out: &mut Vec<Update>) {
        let in_turn = self.pace.slot().is_multiple_of(self.round_slots);
        let at = if in_turn { self.round_next } else { self.busy.draw(self.rng.u64(..)) };
        if in_turn {
            self.round_next = (self.round_next + 1) % self.members.len();
        }
        let member = &mut self.members[at];
        let tape = &mut Tape { out, time, symbol: member.symbol };
        match self.day.phase() {
            Phase::Continuous => {
                let volume = member.volume();
                flow::order(member, &mut self.rng, in_turn, tape);
                self.index_old |= member.volume() != volume;
            }
            Phase::Ato | Phase::Atc => member.bid_in_auction(&mut self.rng, tape),
            Phase::PutThrough => {
                let side = if self.rng.bool() { Side::Buy } else { Side::Sell };
                let lots = self.rng.u64(1..=200);
                member.foreign(side, lots, tape);
            }
            Phase::PreOpen | Phase::Break | Phase::Closed => {}
        }
    }

    fn show_index(&mut self, time: Time, out: &mut Vec<Update>) {
        self.index.refresh(&self.members, &mut Tape { out, time, symbol: self.index.symbol });
        self.index_old = false;
        self.index_at = self.pace.slot() + (self.options.rate / INDEX_PER_SECOND).max(1);
    }

    /// From one phase to the next: what ends ends first, at the same instant.
    fn boundary(&mut self, time: Time, out: &mut Vec<Update>) {
        let ended = self.day.phase();
        if matches!(ended, Phase::Ato | Phase::Atc) {
            for member in &mut self.members {
                let volume = member.volume();
                member.match_auction(&mut Tape { out, time, symbol: member.symbol });
                self.index_old |= member.volume() != volume;
            }
        }
        // A phase is left with the index as its members are, however short ago it was last told.
        if self.index_old {
            self.show_index(time, out);
        }
        if self.day.advance() {
            self.open_day(time, out);
        }
        self.enter(time, out);
        match (ended, self.day.phase()) {
            (Phase::Ato, _) => self.seed_books(time, out),
            (_, Phase::Ato | Phase::Atc) => self.members.iter_mut().for_each(Member::open_auction),
            _ => {}
        }
    }

    /// Fills every book for the first continuous trading of a day.
    fn seed_books(&mut self, time: Time, out: &mut Vec<Update>) {
        for member in &mut self.members {
            flow::seed_book(member, &mut self.rng, &mut Tape { out, time, symbol: member.symbol });
        }
    }

    /// Tells every symbol's new phase.
    fn enter(&self, time: Time, out: &mut Vec<Update>) {
        let members = self.members.iter().map(|member| member.symbol);
        for symbol in std::iter::once(self.index.symbol).chain(members) {
            Tape { out, time, symbol }.phase(self.day.phase());
        }
    }

    /// A new trading day: the first is that of the start, each further one the next on which HOSE is open.
    fn open_day(&mut self, time: Time, out: &mut Vec<Update>) {
        let hose = Calendar::Hose(std::collections::BTreeSet::new());
        let date = match self.date {
            None if hose.is_trading_day(hose.civil_date(time)) => hose.civil_date(time),
            None => hose.next_trading_day(hose.civil_date(time)).unwrap_or(hose.civil_date(time)),
            Some(date) => hose.next_trading_day(date).unwrap_or(date),
        };
        self.date = Some(date);
        for member in &mut self.members {
            member.open_day(date, &mut Tape { out, time, symbol: member.symbol });
        }
        self.index.open_day(&self.members, &mut Tape { out, time, symbol: self.index.symbol });
    }
}

/// The walk of fair values around each home price, with a factor that all share. It draws; it makes no price.
#[derive(Debug)]
struct Walk {
    /// Slots between two steps.
    slots: u64,
    /// How far from home each fair value is, as a part of the home price.
    away: Vec<f64>,
    /// Standard deviation of one step.
    sigma: f64,
    /// The part of the way home that one step takes.
    home: f64,
}

/// Standard deviation of a day's return.
const DAILY: f64 = 0.018;
/// Days (or, without days, [`ENDLESS`]es) after which most of a deviation from home is forgotten.
const MEMORY_DAYS: f64 = 12.0;
/// Seconds that count as a day where there is none: the band never moves then, so the way home is shorter too.
const ENDLESS: f64 = 3_600.0;
/// The part of the variance that is common to all.
const COMMON: f64 = 0.36;

impl Walk {
    fn new(options: MarketOptions, members: usize) -> Self {
        let slots = (options.rate / STEPS_PER_SECOND).max(1);
        let seconds = slots as f64 / options.rate as f64;
        let (day, memory) = match options.day {
            0 => (ENDLESS, ENDLESS),
            day => (day as f64, day as f64 * MEMORY_DAYS),
        };
        Self {
            slots,
            away: vec![0.0; members],
            sigma: DAILY * (seconds / day).sqrt(),
            home: (seconds / memory).min(1.0),
        }
    }

    fn step(&mut self, members: &mut [Member], rng: &mut Rng) {
        let common = COMMON.sqrt() * normal(rng);
        let own = (1.0 - COMMON).sqrt();
        for ((away, member), profile) in self.away.iter_mut().zip(members).zip(&MEMBERS) {
            *away += self.sigma * (common + own * normal(rng)) - self.home * *away;
            let fair = rung_of_fair(profile.home as f64 * (1.0 + *away));
            member.fair = fair.clamp(f64::from(member.band.floor), f64::from(member.band.ceiling));
        }
    }
}

/// About normal, of variance 1 and never beyond 3.5: the sum of four uniform draws needs no transcendental function,
/// whose last bit differs between machines.
fn normal(rng: &mut Rng) -> f64 {
    let sum: f64 = (0..4).map(|_| rng.f64()).sum();
    (sum - 2.0) * 3.0_f64.sqrt()
}
