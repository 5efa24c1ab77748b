//! What a decoder remembers of each of the venue's symbols, found by the venue's own name.
//!
//! Bound kept here: at most [`NAMES_MAX`] names, and the table's lock is taken once per name, never per message.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::sync::Sync;
use crate::market::{Channel, FeedId, Symbol};
use crate::symbols::Symbols;

/// How many names are remembered, those that the table refused included.
pub(super) const NAMES_MAX: usize = 65_536;

/// One symbol of the venue.
#[derive(Debug)]
pub(super) struct Instrument {
    /// The venue's own name.
    pub(super) name: Box<str>,
    pub(super) symbol: Symbol,
    /// Number of the newest bookTicker.
    pub(super) ticker: Option<u64>,
    /// Number of the newest `trade`.
    pub(super) trade: Option<u64>,
    /// Number of the newest `aggTrade`.
    pub(super) aggregate: Option<u64>,
    pub(super) sync: Sync,
    /// A picture of the book is wanted and has not been asked for yet.
    pub(super) wanted: bool,
}

/// All symbols seen so far.
pub(super) struct Instruments {
    symbols: Arc<Symbols>,
    feed: FeedId,
    prefix: Box<str>,
    known: Vec<Instrument>,
    /// Name to place in `known`; none where the table refused it.
    places: HashMap<Box<str>, Option<usize>, BuildHasherDefault<NameHasher>>,
    refused: u64,
}

impl Instruments {
    pub(super) fn new(symbols: Arc<Symbols>, feed: FeedId, prefix: &str) -> Self {
        Self {
            symbols,
            feed,
            prefix: prefix.into(),
            known: Vec::new(),
            places: HashMap::default(),
            refused: 0,
        }
    }

    /// The symbol of that name, listed when it is new; none if the table refuses it.
    pub(super) fn named(&mut self, name: &str) -> Option<&mut Instrument> {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => self.list(name),
        };
        self.known.get_mut(place?)
    }

    fn list(&mut self, name: &str) -> Option<usize> {
        if self.places.len() >= NAMES_MAX {
            self.refused += 1;
            return None;
        }
        let listed = self.symbols.list(self.feed, &format!("{}{name}", self.prefix), Channel::Quote);
        let place = match listed {
            Ok(symbol) => {
                self.known.push(Instrument {
                    name: name.into(),
                    symbol,
                    ticker: None,
                    trade: None,
                    aggregate: None,
                    sync: Sync::default(),
                    wanted: false,
                });
                Some(self.known.len() - 1)
            }
            Err(_) => {
                self.refused += 1;
                None
            }
        };
        self.places.insert(name.into(), place);
        place
    }

    /// The one symbol that a picture without a name can be of: the only one that waits for one, else the only one.
    pub(super) fn unnamed(&mut self) -> Result<&mut Instrument, String> {
        let waiting = self.known.iter().filter(|known| known.sync.waits()).count();
        let known = self.known.len();
        if waiting != 1 && known != 1 {
            return Err(format!(
                "names no symbol, and of {known} symbols {waiting} wait for one; expected exactly 1"
            ));
        }
        let mut candidates = self.known.iter_mut().filter(|one| known == 1 || one.sync.waits());
        candidates.next().ok_or_else(|| "names no symbol".to_owned())
    }

    /// Takes one name of those that want a picture of their book.
    pub(super) fn take_wanted(&mut self) -> Option<String> {
        let wanted = self.known.iter_mut().find(|known| known.wanted)?;
        wanted.wanted = false;
        Some(wanted.name.to_string())
    }

    /// How many names the table refused, each once (or each time, beyond [`NAMES_MAX`]).
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }
}

/// FNV-1a: quick on names of six to twelve letters. They come from one venue and their number is bounded, so nothing is
/// won by choosing them to collide.
pub(super) struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
