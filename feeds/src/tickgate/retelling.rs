//! What an upstream told, said again as updates of one feed among several.
//!
//! The numbers of the upstream are not ours: they only say what is news, and what is missing. Bound kept here: [`PIECE`]
//! updates are handed on together, and those of one row more; some numbers for each name that was ever told.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::row::{self, Gap, Image, Row};
use super::{Item, Told};
use crate::market::{Body, Channel, Level, PHASE, Phase, STATE, Side, State, Symbol, Time, Update};
use crate::symbols::Symbols;

/// As many updates as any source says at once: a first picture has more, and need not be in one cut.
const PIECE: usize = 4_096;

/// Takes updates.
type Take<'a> = &'a mut dyn FnMut(&mut [Update]);

/// Says again what an upstream tells.
#[derive(Debug)]
pub struct Retelling {
    symbols: Arc<Symbols>,
    /// Names the upstream's run of revisions; empty before anything was told.
    epoch: Arc<str>,
    /// What was said of each name, by position.
    said: Vec<Said>,
    out: Vec<Update>,
}

/// What was said of a name in the upstream's run.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    /// The revision of its image; 0 for none.
    image_rev: u64,
    /// The revision of its book; 0 for none.
    book_rev: u64,
    /// In an earlier run it had a book, which stands until it is told anew.
    has_old_book: bool,
    /// By channel the number of the last event that was said, or known to be lost.
    numbers: [u64; Channel::ALL.len()],
}

impl Retelling {
    /// Nothing was told yet; new names are listed in this table.
    pub fn new(symbols: Arc<Symbols>) -> Self {
        Self { symbols, epoch: Arc::default(), said: Vec::new(), out: Vec::new() }
    }

    /// Hands on everything that was told, some thousand updates at a time, a row never in two pieces.
    pub fn tell(&mut self, told: &mut Told, take: Take<'_>) {
        told.list(&self.symbols);
        self.said.resize(told.names.len(), Said::default());
        let is_first = self.epoch.is_empty();
        let is_new_run = *self.epoch != *told.epoch && !is_first;
        self.epoch = Arc::clone(&told.epoch);
        if is_new_run {
            self.begin_run(told, take);
        }
        let mut items = told.take();
        for item in items.drain(..) {
            match item {
                Item::Row(row) => self.say_row(told, row),
                Item::Gap(gap) => self.say_gap(told, &gap, is_first),
            }
            self.hand_on(PIECE, take);
        }
        told.items = items;
        if is_new_run {
            self.empty_untold(told, take);
        }
        self.hand_on(1, take);
    }

    /// Hands on what is said so far, if it is enough.
    fn hand_on(&mut self, enough: usize, take: Take<'_>) {
        if self.out.len() >= enough {
            take(&mut self.out);
            self.out.clear();
        }
    }

    /// The upstream numbers anew. How many events of the run before were never told nobody knows: they count as one.
    fn begin_run(&mut self, told: &Told, take: Take<'_>) {
        for at in 0..self.said.len() {
            let said = &mut self.said[at];
            let had_book = said.has_old_book || said.book_rev > 0;
            let before = std::mem::replace(said, Said { has_old_book: had_book, ..Said::default() });
            let Some(symbol) = told.symbol(at as u32) else { continue };
            for channel in Channel::ALL.into_iter().filter(|channel| before.numbers[*channel as usize] > 0) {
                self.out.push(Update::new(symbol, Time(0), Body::missing(channel, 1)));
            }
            self.hand_on(PIECE, take);
        }
    }

    /// What an earlier run had and this one has not is empty now.
    fn empty_untold(&mut self, told: &Told, take: Take<'_>) {
        for at in 0..self.said.len() {
            let Some(symbol) = told.symbol(at as u32) else { continue };
            if std::mem::take(&mut self.said[at].has_old_book) {
                self.say_book(symbol, Time(0), &[], &[]);
            }
            if self.said[at].image_rev == 0 {
                let channel = told.names[at].channel;
                let fields = (0..channel.fields().len() as u8).map(|number| (number, None)).collect();
                self.say_image(symbol, channel, Time(0), &Image { is_full: true, fields });
            }
            self.hand_on(PIECE, take);
        }
    }

    fn say_row(&mut self, told: &Told, row: Row) {
        let Some(symbol) = told.symbol(row.name) else { return };
        let Row { rev, q, time, body, .. } = row;
        let said = &mut self.said[row.name as usize];
        match body {
            // A picture repeats what is known.
            row::Body::Image(image) if rev > said.image_rev => {
                said.image_rev = rev;
                self.say_image(symbol, told.names[row.name as usize].channel, time, &image);
            }
            row::Body::Book { bids, asks } if rev > said.book_rev => {
                // Who has no book yet needs no empty one.
                if said.book_rev > 0 || said.has_old_book || !bids.is_empty() || !asks.is_empty() {
                    (said.book_rev, said.has_old_book) = (rev, false);
                    self.say_book(symbol, time, &bids, &asks);
                }
            }
            row::Body::Image(_) | row::Body::Book { .. } => {}
            row::Body::Trade(trade) => {
                self.say_event(row.name, symbol, q, Channel::Trade, time, Body::Trade(trade));
            }
            row::Body::Phase(phase) => {
                self.say_event(row.name, symbol, q, Channel::Status, time, Body::Phase(phase));
            }
            row::Body::Bar(bar) if bar.is_final => {
                self.say_event(row.name, symbol, q, bar.channel, time, Body::Bar(bar));
            }
            row::Body::Bar(bar) => self.out.push(Update::new(symbol, time, Body::Bar(bar))),
        }
    }

    /// Every field as it was told. The state comes before the values that it is said of, lest they look better than they
    /// are; that there are none comes last.
    fn say_image(&mut self, symbol: Symbol, channel: Channel, time: Time, image: &Image) {
        let told = |number| image.fields.iter().find(|(told, _)| *told == number).map(|(_, value)| *value);
        if let Some(phase) = told(PHASE) {
            self.out.push(match coded(Phase::ALL, phase) {
                Some(phase) => Update::new(symbol, time, Body::Phase(phase)),
                None => Update::image(symbol, channel, time, &[(PHASE, None)]),
            });
        }
        let state = told(STATE).map(|state| coded(State::ALL, state).unwrap_or(State::Pending));
        let say = |state| Update::new(symbol, time, Body::State(state));
        self.out.extend(state.filter(|state| *state != State::Pending).map(say));
        let is_value = |(number, _): &&(u8, Option<Decimal>)| ![STATE, PHASE].contains(number);
        let values: Vec<_> = image.fields.iter().filter(is_value).copied().collect();
        self.out.extend(values.chunks(4).map(|fields| Update::image(symbol, channel, time, fields)));
        self.out.extend(state.filter(|state| *state == State::Pending).map(say));
    }

    /// The whole book, whose first level begins a new one.
    fn say_book(
        &mut self,
        symbol: Symbol,
        time: Time,
        bids: &[(Decimal, Decimal)],
        asks: &[(Decimal, Decimal)],
    ) {
        let sides = [(Side::Buy, bids), (Side::Sell, asks)];
        let levels =
            sides.into_iter().flat_map(|(side, levels)| levels.iter().map(move |level| (side, *level)));
        // A level of no size is none.
        let nothing = (Side::Buy, (Decimal::ZERO, Decimal::ZERO));
        let none = (bids.is_empty() && asks.is_empty()).then_some(nothing);
        for (at, (side, (price, size))) in none.into_iter().chain(levels).enumerate() {
            let level = Level { price, size, side, reset: at == 0 };
            self.out.push(Update::new(symbol, time, Body::Level(level)));
        }
    }

    /// An event, unless it was said before; what its number passes over is lost.
    fn say_event(&mut self, name: u32, symbol: Symbol, q: u64, channel: Channel, time: Time, event: Body) {
        if let Some(lost) = self.count(name, channel, q) {
            if lost > 1 {
                self.out.push(Update::new(symbol, time, Body::missing(channel, lost - 1)));
            }
            self.out.push(Update::new(symbol, time, event));
        }
    }

    /// A loss that the upstream announced. What it lost before anything was told nobody here can miss.
    fn say_gap(&mut self, told: &Told, gap: &Gap, is_first: bool) {
        let Some(&name) = told.by_name.get(gap.name.as_str()) else { return };
        let Some(symbol) = told.symbol(name) else { return };
        if let Some(lost) = self.count(name, gap.channel, gap.to).filter(|_| !is_first) {
            self.out.push(Update::new(symbol, Time(0), Body::missing(gap.channel, lost)));
        }
    }

    /// The events of a topic have come to number `q`: how many are new, if any are.
    fn count(&mut self, name: u32, channel: Channel, q: u64) -> Option<u64> {
        let last = &mut self.said[name as usize].numbers[channel as usize];
        let new = q.checked_sub(*last).filter(|new| *new > 0)?;
        *last = q;
        Some(new)
    }
}

/// The word that a code stands for.
fn coded<T: Copy>(all: &[T], code: Option<Decimal>) -> Option<T> {
    all.get(usize::try_from(code?).ok()?).copied()
}
