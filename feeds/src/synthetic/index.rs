//! The simulated index: the free-float value of its members, divided so that it starts at about 1 970 points.
//!
//! Bound kept here: every figure is computed from the members as they stand at the moment it is told.

use rust_decimal::Decimal;

use super::ladder::price_of;
use super::member::Member;
use super::tape::{Tape, amount, div_round, hundredths};
use crate::market::{Symbol, index};

/// Where the index starts, in hundredths of a point.
const START: i128 = 197_000;

/// The index of the simulated market.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) symbol: Symbol,
    /// Free-float shares of each member, in thousands.
    floats: Vec<i64>,
    /// Value per hundredth of a point.
    divisor: i128,
    /// All in hundredths of a point.
    prev_close: i128,
    last: i128,
    open: Option<i128>,
    high: i128,
    low: i128,
}

/// How many members stand where.
#[derive(Default)]
struct Breadth {
    advances: u32,
    declines: u32,
    unchanged: u32,
    ceilings: u32,
    floors: u32,
}

impl Index {
    pub(super) fn new(symbol: Symbol, floats: Vec<i64>, members: &[Member]) -> Self {
        let divisor = (value(&floats, members) / START).max(1);
        let mut index = Self { symbol, floats, divisor, prev_close: 0, last: 0, open: None, high: 0, low: 0 };
        index.last = index.points(members);
        index
    }

    /// The level in hundredths of a point, the half rounded away from zero.
    fn points(&self, members: &[Member]) -> i128 {
        div_round(value(&self.floats, members), self.divisor)
    }

    /// Begins a day, after the members have begun theirs.
    pub(super) fn open_day(&mut self, members: &[Member], tape: &mut Tape<'_>) {
        // Today's references are yesterday's last prices, so this is also yesterday's close.
        self.prev_close = self.points(members);
        self.last = self.prev_close;
        self.open = None;
        tape.index(&[
            (index::PREV_CLOSE, Some(hundredths(self.prev_close))),
            (index::OPEN, None),
            (index::HIGH, None),
            (index::LOW, None),
        ]);
        self.show(members, tape);
    }

    /// Computes the index again, after trades, and tells it.
    pub(super) fn refresh(&mut self, members: &[Member], tape: &mut Tape<'_>) {
        self.last = self.points(members);
        let opens = self.open.is_none();
        let open = *self.open.get_or_insert(self.last);
        self.high = if opens { open } else { self.high.max(self.last) };
        self.low = if opens { open } else { self.low.min(self.last) };
        tape.index(&[
            (index::OPEN, Some(hundredths(open))),
            (index::HIGH, Some(hundredths(self.high))),
            (index::LOW, Some(hundredths(self.low))),
        ]);
        self.show(members, tape);
    }

    fn show(&self, members: &[Member], tape: &mut Tape<'_>) {
        let change = self.last - self.prev_close;
        let percent = div_round(change * 10_000, self.prev_close.max(1));
        let volume: u64 = members.iter().map(Member::volume).sum();
        let turnover: i128 = members.iter().map(|member| member.today.turnover).sum();
        let breadth = breadth(members);
        let count = |number: u32| Some(Decimal::from(number));
        tape.index(&[
            (index::LAST, Some(hundredths(self.last))),
            (index::CHANGE, Some(hundredths(change))),
            (index::CHANGE_PCT, Some(hundredths(percent))),
            (index::VOLUME, Some(Decimal::from(volume))),
        ]);
        tape.index(&[
            (index::TURNOVER, Some(amount(turnover))),
            (index::ADVANCES, count(breadth.advances)),
            (index::DECLINES, count(breadth.declines)),
            (index::UNCHANGED, count(breadth.unchanged)),
        ]);
        tape.index(&[(index::CEILINGS, count(breadth.ceilings)), (index::FLOORS, count(breadth.floors))]);
    }
}

fn value(floats: &[i64], members: &[Member]) -> i128 {
    floats.iter().zip(members).map(|(float, member)| i128::from(*float) * i128::from(member.price())).sum()
}

/// A member that has not traded counts as unchanged, one at its ceiling also as an advance.
fn breadth(members: &[Member]) -> Breadth {
    let mut breadth = Breadth::default();
    for member in members {
        let price = member.price();
        match price.cmp(&member.reference) {
            std::cmp::Ordering::Greater => breadth.advances += 1,
            std::cmp::Ordering::Less => breadth.declines += 1,
            std::cmp::Ordering::Equal => breadth.unchanged += 1,
        }
        breadth.ceilings += u32::from(price == price_of(member.band.ceiling));
        breadth.floors += u32::from(price == price_of(member.band.floor));
    }
    breadth
}
