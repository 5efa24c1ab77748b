//! The flow of orders in continuous trading: limit orders, cancels and market orders that pull the book to fair value.
//!
//! Bound kept here: one order changes something that can be seen, takes at most [`SWEEP`] levels, and leaves the best
//! bid below the best ask and every order within the day's band.

use fastrand::Rng;

use super::book::{DEPTH, opposite};
use super::member::Member;
use super::tape::Tape;
use crate::market::Side;

/// The most levels that one market order takes.
const SWEEP: usize = 3;
/// A side with fewer levels gets every second order. Not every one: at the edge of the band it may stay thin for long.
const THIN: usize = 3;
/// No level grows beyond this many lots.
const LOTS_MAX: u32 = 20_000;
/// How far behind the best price a limit order queues, in levels; small distances are the usual ones.
const BEHIND: [u32; 16] = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 9];
// Further back than a full side reaches, an order would not be seen.
const _: () = assert!(BEHIND[15] < DEPTH as u32, "the last distance is the greatest");

/// One order for `member`; with `touch` it concerns the best price, so that the quote is sure to change.
pub(super) fn order(member: &mut Member, rng: &mut Rng, touch: bool, tape: &mut Tape<'_>) {
    let pull = pull(member);
    let side = if rng.f64() < 0.5 + pull * 0.11 { Side::Buy } else { Side::Sell };
    // The further the book is from fair value, the more hurry there is.
    let market = 0.26 + 0.05 * pull.abs();
    let kind = rng.f64();
    if let Some(thin) = thin_side(member).filter(|_| rng.bool()) {
        limit(member, rng, thin, touch, tape);
    } else if kind < market {
        sweep(member, rng, side, tape);
    } else if kind < market + 0.22 {
        cancel(member, rng, opposite(side), touch, tape);
    } else {
        limit(member, rng, side, touch, tape);
    }
    member.book.show_best(tape);
}

/// The first book of a day's continuous trading, around fair value; the first level resets what a reader had.
pub(super) fn seed_book(member: &mut Member, rng: &mut Rng, tape: &mut Tape<'_>) {
    let (fair, band) = (i64::from(member.fair_rung()), member.band);
    member.book.begin();
    for distance in 0..DEPTH as i64 {
        let (bid, ask) = (fair - 1 - distance, fair + distance);
        if bid >= i64::from(band.floor) {
            member.book.add(Side::Buy, band.clamp(bid), lots(rng) + lots(rng), tape);
        }
        if ask <= i64::from(band.ceiling) {
            member.book.add(Side::Sell, band.clamp(ask), lots(rng) + lots(rng), tape);
        }
    }
    member.book.show_best(tape);
}

/// How many rungs the fair value is above the middle of the book, at most four either way.
fn pull(member: &Member) -> f64 {
    let middle = match (member.book.best(Side::Buy), member.book.best(Side::Sell)) {
        (Some(bid), Some(ask)) => f64::from(bid.rung + ask.rung) / 2.0,
        (Some(one), None) | (None, Some(one)) => f64::from(one.rung),
        (None, None) => member.fair,
    };
    (member.fair - middle).clamp(-4.0, 4.0)
}

/// The side that has few levels although the band leaves room for more.
fn thin_side(member: &Member) -> Option<Side> {
    [Side::Buy, Side::Sell].into_iter().find(|&side| {
        let levels = member.book.levels(side).len();
        levels < THIN && levels < room(member, side)
    })
}

/// How many rungs a side may use: from the edge of the band to just before the other side's best.
fn room(member: &Member, side: Side) -> usize {
    let (band, other) = (member.band, member.book.best(opposite(side)));
    match side {
        Side::Buy => (other.map_or(band.ceiling + 1, |ask| ask.rung) - band.floor) as usize,
        Side::Sell => (band.ceiling - other.map_or(band.floor.saturating_sub(1), |bid| bid.rung)) as usize,
    }
}

/// A limit order; where the band leaves it no room it takes the other side's best instead.
fn limit(member: &mut Member, rng: &mut Rng, side: Side, touch: bool, tape: &mut Tape<'_>) {
    let Some(rung) = limit_rung(member, rng, side, touch) else { return sweep(member, rng, side, tape) };
    let levels = member.book.levels(side);
    if let Some(at) = levels.iter().position(|level| level.rung == rung && level.lots > LOTS_MAX) {
        // A level as full as that empties by cancels, never by more orders.
        let half = levels[at].lots / 2;
        member.book.take(side, at, half, tape);
        return;
    }
    member.book.add(side, rung, lots(rng), tape);
}

/// Where a new limit order goes, if there is room for one.
fn limit_rung(member: &Member, rng: &mut Rng, side: Side, touch: bool) -> Option<u32> {
    if room(member, side) == 0 {
        return None;
    }
    let (book, band) = (&member.book, member.band);
    // Counted towards the other side: for a buyer up, for a seller down.
    let toward: i64 = if side == Side::Buy { 1 } else { -1 };
    let other = book.best(opposite(side)).map(|level| i64::from(level.rung));
    let nearest = other.map_or(i64::MAX, |other| other - toward);
    let Some(best) = book.best(side).map(|level| i64::from(level.rung)) else {
        let fair = i64::from(member.fair_rung()) - toward;
        let inside = if other.is_some() && (nearest - fair) * toward < 0 { nearest } else { fair };
        return Some(band.clamp(inside));
    };
    let gap = other.is_some_and(|other| (other - best) * toward > 1);
    // Nobody bids well above, or offers well below, what it is worth.
    let worth_it = (member.fair - best as f64) * toward as f64 > -1.0;
    if gap && worth_it && rng.u8(..4) != 0 {
        return Some(band.clamp(best + toward));
    }
    let behind = if touch { 0 } else { i64::from(BEHIND[rng.usize(..BEHIND.len())]) };
    Some(band.clamp(best - behind * toward))
}

/// Part of a level is taken back; now and then all of it, unless it is the best, which would widen the spread.
fn cancel(member: &mut Member, rng: &mut Rng, side: Side, touch: bool, tape: &mut Tape<'_>) {
    let levels = member.book.levels(side);
    if levels.is_empty() {
        return limit(member, rng, side, touch, tape);
    }
    let at = if touch { 0 } else { rng.usize(..levels.len()) };
    let lots = if at > 0 && levels.len() > THIN && rng.u8(..4) == 0 {
        levels[at].lots
    } else {
        1 + rng.u32(..levels[at].lots.div_ceil(2))
    };
    member.book.take(side, at, lots, tape);
}

/// A market order by `side` against the best levels of the other one.
fn sweep(member: &mut Member, rng: &mut Rng, side: Side, tape: &mut Tape<'_>) {
    let against = opposite(side);
    if member.book.best(against).is_none() {
        // Both cannot fail: where no limit order has room, the other side has a best price.
        if let Some(rung) = limit_rung(member, rng, side, true) {
            member.book.add(side, rung, lots(rng), tape);
        }
        return;
    }
    let (before, wanted) = (member.before(), lots(rng));
    let mut left = wanted;
    for _ in 0..SWEEP {
        let Some(taken) = member.book.take(against, 0, left, tape) else { break };
        member.fill(taken.rung, u64::from(taken.lots), Some(side), tape);
        left -= taken.lots;
        if left == 0 {
            break;
        }
    }
    member.show_trades(&before, tape);
    if rng.u8(..16) == 0 {
        member.foreign(side, u64::from(wanted - left), tape);
    }
}

/// The size of an order in lots: mostly small, with a long tail.
fn lots(rng: &mut Rng) -> u32 {
    let bits = rng.u32(..);
    let small = 1 + (bits & 0x1f);
    match bits >> 26 {
        0 => small * 20,
        1..=8 => small * 5,
        _ => small,
    }
}
