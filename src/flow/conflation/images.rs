//! The latest value of every field of every symbol, and which symbols have changed since when.
//!
//! Symbols that change are noted once for each part of the revisions; a part ends when somebody has asked what changed.
//! So a change that is not the part's first costs nothing but its values, and an answer costs what changed and not what
//! exists, unless the asker has missed as many changes as symbols exist. Bounds kept here: one image per listed symbol,
//! sized by its channel's fields; two notes for each, those of the open part, and no more ends of parts than notes.

use std::collections::VecDeque;

use rust_decimal::Decimal;
use tickgate_feeds::market::{Channel, Symbol, Time};

use super::Rev;

/// One field of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cell {
    /// The revision that set it last; 0 when it was never set.
    pub rev: Rev,
    /// Meaningless when the field is absent from [`Head::present`].
    pub value: Decimal,
}

/// Notes that are kept besides two for each image.
const SPARE_NOTES: usize = 64;

/// What an image says besides its fields.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// How many updates this image has taken.
    pub q: u64,
    /// Event time of the last update.
    pub time: Time,
    /// When the last update entered the gateway.
    pub arrival_ns: u64,
    /// Bit n: field n has a value.
    pub present: u32,
    /// Bit n: field n was set at least once, be it to nothing.
    touched: u32,
    /// Which table of fields.
    pub channel: Channel,
    first_cell: u32,
    /// How many notes had ever been made when its last one was, itself included; 0 when it never changed.
    note: u64,
}

impl Head {
    /// Bit n: field n was set at least once, be it to nothing.
    pub fn touched(&self) -> u32 {
        self.touched
    }
}

/// All images of a hub or a replica.
#[derive(Debug, Default)]
pub struct Images {
    heads: Vec<Head>,
    /// The revision of each image's last change, apart from the heads: it is what flushes look at.
    revs: Vec<Rev>,
    cells: Vec<Cell>,
    /// Symbols that changed, part by part; only the last note of each counts.
    notes: Vec<Symbol>,
    /// How many notes were forgotten, and from which revision on the others tell what changed.
    forgotten: u64,
    noted_from: Rev,
    /// The parts that have ended: each one's last revision, and how many notes had ever been made then.
    parts: VecDeque<(Rev, u64)>,
    /// The same number of the last of them.
    ended: u64,
}

impl Images {
    /// Adds the image of the next symbol; symbols come in the order of their index.
    pub fn list(&mut self, channel: Channel) -> Symbol {
        let symbol = Symbol::at(self.heads.len() as u32);
        self.revs.push(0);
        self.heads.push(Head {
            q: 0,
            time: Time(0),
            arrival_ns: 0,
            present: 0,
            touched: 0,
            channel,
            first_cell: self.cells.len() as u32,
            note: 0,
        });
        self.cells.resize(self.cells.len() + channel.fields().len(), Cell::default());
        symbol
    }

    /// How many symbols are listed.
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether no symbol is listed.
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// The revision of the image's last change.
    pub fn rev(&self, symbol: Symbol) -> Rev {
        self.revs[symbol.index()]
    }

    /// The same of all images, by the index of their symbols.
    pub fn revs(&self) -> &[Rev] {
        &self.revs
    }

    /// The image's head.
    pub fn head(&self, symbol: Symbol) -> &Head {
        &self.heads[symbol.index()]
    }

    /// The image's fields, in the order of their numbers.
    pub fn cells(&self, symbol: Symbol) -> &[Cell] {
        let head = &self.heads[symbol.index()];
        &self.cells[head.first_cell as usize..][..head.channel.fields().len()]
    }

    /// The value of a field, if it has one.
    pub fn value(&self, symbol: Symbol, number: u8) -> Option<Decimal> {
        let present = self.heads[symbol.index()].present >> number & 1 == 1;
        present.then(|| self.cells(symbol)[number as usize].value)
    }

    /// The fields that changed after `since`, as a mask.
    pub fn mask_since(&self, symbol: Symbol, since: Rev) -> u32 {
        let cells = self.cells(symbol);
        let touched = ones(self.heads[symbol.index()].touched);
        touched.fold(0, |mask, number| mask | u32::from(cells[number].rev > since) << number)
    }

    /// Sets a field and says whether that changed it. "Changed" compares all parts: another scale is another text.
    pub fn set(&mut self, symbol: Symbol, number: u8, value: Option<Decimal>, rev: Rev) -> bool {
        self.set_all(symbol, &[number], &[value.unwrap_or_default()], u8::from(value.is_none()), rev)
    }

    /// [`Images::set`] for several fields, those whose bit is in `nulls` to nothing: whether that changed any.
    #[inline(always)]
    pub fn set_all(
        &mut self,
        symbol: Symbol,
        numbers: &[u8],
        values: &[Decimal],
        nulls: u8,
        rev: Rev,
    ) -> bool {
        let head = &mut self.heads[symbol.index()];
        let cells = &mut self.cells[head.first_cell as usize..];
        let mut changed = 0;
        for (at, (&number, &value)) in numbers.iter().zip(values).enumerate() {
            let (cell, bit, is_null) = (&mut cells[number as usize], 1 << number, nulls >> at & 1 == 1);
            let was_present = head.present & bit != 0;
            if is_null && was_present {
                head.present &= !bit;
                cell.rev = rev;
                changed |= bit;
            } else if !(is_null || was_present && is_same(cell.value, value)) {
                head.present |= bit;
                *cell = Cell { rev, value };
                changed |= bit;
            }
        }
        head.touched |= changed;
        changed != 0
    }

    /// Sets a field whether or not it differs: a cut says what changed, and the reader believes it.
    pub fn replace(&mut self, symbol: Symbol, number: u8, value: Option<Decimal>, rev: Rev) {
        let head = &mut self.heads[symbol.index()];
        let bit = 1 << number;
        head.present = if value.is_some() { head.present | bit } else { head.present & !bit };
        head.touched |= bit;
        self.cells[head.first_cell as usize + number as usize] =
            Cell { rev, value: value.unwrap_or_default() };
    }

    /// [`Images::touch`] by the next update.
    #[inline(always)]
    pub fn advance(&mut self, symbol: Symbol, rev: Rev, time: Time, arrival_ns: u64) {
        let q = self.heads[symbol.index()].q + 1;
        self.touch(symbol, rev, q, time, arrival_ns);
    }

    /// Notes that the symbol changed at `rev`.
    #[inline(always)]
    pub fn touch(&mut self, symbol: Symbol, rev: Rev, q: u64, time: Time, arrival_ns: u64) {
        self.revs[symbol.index()] = rev;
        let head = &mut self.heads[symbol.index()];
        (head.q, head.time, head.arrival_ns) = (q, time, arrival_ns);
        if head.note <= self.ended {
            self.notes.push(symbol);
            head.note = self.forgotten + self.notes.len() as u64;
        }
    }

    /// Ends the part of the revisions up to `rev`, which nothing that changed is newer than: what changes from now on changes
    /// anew.
    pub fn end_part(&mut self, rev: Rev) {
        let open = (self.ended - self.forgotten) as usize..;
        debug_assert!(self.notes[open].iter().all(|symbol| self.rev(*symbol) <= rev), "newer than {rev}");
        let made = self.forgotten + self.notes.len() as u64;
        if made == self.ended {
            return; // nothing has changed in it
        }
        self.ended = made;
        self.parts.push_back((rev, made));
        if self.notes.len() > 2 * self.heads.len() + SPARE_NOTES {
            self.forget_notes();
        }
    }

    /// Forgets the older half of the notes.
    fn forget_notes(&mut self) {
        let half = self.ended - self.notes.len() as u64 / 2;
        let forgotten = self.forgotten;
        while let Some((rev, made)) = self.parts.front().copied().filter(|(_, made)| *made <= half) {
            self.parts.pop_front();
            (self.forgotten, self.noted_from) = (made, rev);
        }
        self.notes.drain(..(self.forgotten - forgotten) as usize);
    }

    /// The symbols that changed after `since`, in no order.
    pub fn changed_since(&self, since: Rev) -> impl Iterator<Item = Symbol> + '_ {
        let before = self.parts.iter().rev().find(|(rev, _)| *rev <= since);
        let (from, all) = match before.map_or(self.forgotten, |(_, made)| *made) - self.forgotten {
            0 if since < self.noted_from => (self.notes.len(), self.heads.len() as u32),
            from => (from as usize, 0),
        };
        let made = (self.forgotten..).skip(from + 1);
        let notes = self.notes[from..].iter().copied().zip(made);
        let noted = notes.filter(|(symbol, made)| self.heads[symbol.index()].note == *made);
        let every = (0..all).map(Symbol::at);
        noted.map(|(symbol, _)| symbol).chain(every).filter(move |symbol| self.rev(*symbol) > since)
    }
}

/// The numbers of the bits that are set, from the lowest on.
pub fn ones(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = (mask != 0).then_some(mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        number
    })
}

/// Whether all parts of two decimals are equal: the scale counts.
fn is_same(one: Decimal, other: Decimal) -> bool {
    let (one, other) = (one.unpack(), other.unpack());
    (one.lo, one.mid, one.hi, one.scale, one.negative)
        == (other.lo, other.mid, other.hi, other.scale, other.negative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickgate_feeds::market::quote;

    #[test]
    fn the_walk_finds_what_changed_and_no_more() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut images = Images::default();
        let mut last = vec![0; 40];
        for _ in 0..40 {
            images.list(Channel::Quote);
        }
        for rev in 1..20_000 {
            let at = random.u32(..40);
            images.touch(Symbol::at(at), rev, 0, Time(0), 0);
            last[at as usize] = rev;
            let since =
                if random.bool() { random.u64(..rev + 1) } else { rev.saturating_sub(random.u64(..99)) };
            let mut found: Vec<_> = images.changed_since(since).map(Symbol::index).collect();
            found.sort_unstable();
            let expected: Vec<_> = (0..40).filter(|&at| last[at] > since).collect();
            assert_eq!(found, expected, "each once, after {since} of {rev}");
            if random.u32(..8) == 0 {
                images.end_part(rev);
            }
            assert!(images.notes.len() <= 3 * 40 + SPARE_NOTES && images.parts.len() <= images.notes.len());
        }
    }

    #[test]
    fn a_repeat_is_no_change_and_another_scale_is() {
        let mut images = Images::default();
        let symbol = images.list(Channel::Quote);
        let value = Decimal::new(100, 2);
        assert!(images.set(symbol, quote::LAST, Some(value), 1));
        assert!(!images.set(symbol, quote::LAST, Some(value), 2));
        assert!(images.set(symbol, quote::LAST, Some(value.normalize()), 3));
        assert!(images.set(symbol, quote::LAST, None, 4));
        assert!(!images.set(symbol, quote::LAST, None, 5));
        assert_eq!(images.mask_since(symbol, 3), 1 << quote::LAST);
        assert_eq!(images.value(symbol, quote::LAST), None);
    }
}
