//! The latest value of every field of every symbol, and the order in which symbols last changed.
//!
//! Bound kept here: one image per listed symbol, sized by its channel's fields. What changed since a revision is found
//! by walking from the newest change, so it costs what changed and not what exists.

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

const NONE: u32 = u32::MAX;

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
    newer: u32,
    older: u32,
}

impl Head {
    /// Bit n: field n was set at least once, be it to nothing.
    pub fn touched(&self) -> u32 {
        self.touched
    }
}

/// All images of a hub or a replica.
#[derive(Debug)]
pub struct Images {
    heads: Vec<Head>,
    /// The revision of each image's last change, apart from the heads: it is what flushes look at.
    revs: Vec<Rev>,
    cells: Vec<Cell>,
    newest: u32,
    oldest: u32,
}

impl Default for Images {
    fn default() -> Self {
        Self { heads: Vec::new(), revs: Vec::new(), cells: Vec::new(), newest: NONE, oldest: NONE }
    }
}

impl Images {
    /// Adds the image of the next symbol; symbols come in the order of their index.
    pub fn list(&mut self, channel: Channel) -> Symbol {
        let at = self.heads.len() as u32;
        self.revs.push(0);
        self.heads.push(Head {
            q: 0,
            time: Time(0),
            arrival_ns: 0,
            present: 0,
            touched: 0,
            channel,
            first_cell: self.cells.len() as u32,
            newer: self.oldest,
            older: NONE,
        });
        self.cells.resize(self.cells.len() + channel.fields().len(), Cell::default());
        // A symbol that never changed stands at the old end, where no walk since a revision reaches it.
        match self.oldest {
            NONE => self.newest = at,
            oldest => self.heads[oldest as usize].older = at,
        }
        self.oldest = at;
        Symbol::at(at)
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
        let head = &self.heads[symbol.index()];
        let cells = self.cells(symbol);
        let (mut touched, mut mask) = (head.touched, 0);
        while touched != 0 {
            let number = touched.trailing_zeros();
            touched &= touched - 1;
            mask |= u32::from(cells[number as usize].rev > since) << number;
        }
        mask
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

    /// Notes that the symbol changed at `rev` and makes it the newest.
    pub fn touch(&mut self, symbol: Symbol, rev: Rev, q: u64, time: Time, arrival_ns: u64) {
        let at = symbol.index() as u32;
        self.revs[symbol.index()] = rev;
        let head = &mut self.heads[symbol.index()];
        (head.q, head.time, head.arrival_ns) = (q, time, arrival_ns);
        if self.newest == at {
            return;
        }
        let (newer, older) = (head.newer, head.older);
        (head.newer, head.older) = (NONE, self.newest);
        // Not the newest, so there is a newer one.
        self.heads[newer as usize].older = older;
        match older {
            NONE => self.oldest = newer,
            older => self.heads[older as usize].newer = newer,
        }
        self.heads[self.newest as usize].newer = at;
        self.newest = at;
    }

    /// The symbols that changed after `since`, newest first.
    pub fn changed_since(&self, since: Rev) -> impl Iterator<Item = Symbol> + '_ {
        let mut at = self.newest;
        std::iter::from_fn(move || {
            let symbol = Symbol::at(at);
            self.revs.get(at as usize).filter(|rev| **rev > since)?;
            at = self.heads[at as usize].older;
            Some(symbol)
        })
    }
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
        for rev in 1..2_000 {
            let at = random.u32(..40);
            images.touch(Symbol::at(at), rev, 0, Time(0), 0);
            last[at as usize] = rev;
            let since = random.u64(..rev + 1);
            let mut found: Vec<_> = images.changed_since(since).map(Symbol::index).collect();
            assert!(found.is_sorted_by(|a, b| last[*a] > last[*b]), "newest first");
            found.sort_unstable();
            let expected: Vec<_> = (0..40).filter(|&at| last[at] > since).collect();
            assert_eq!(found, expected);
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
