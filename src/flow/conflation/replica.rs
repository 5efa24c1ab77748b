//! A shard's own copy of the images, the log and the wanted books, kept up by cuts.
//!
//! Bound kept here: as the hub's, once per shard. It is read without a lock, and a late shard applies one bigger cut.

use std::collections::HashMap;
use std::sync::Arc;

use tickgate_feeds::market::{Channel, Symbol};
use tickgate_feeds::symbols::{Steps, Symbols};

use super::Rev;
use super::bars::OpenBar;
use super::cut::{BookTop, Cut, Node};
use super::images::Images;
use super::log::{Log, What};

/// The copy.
#[derive(Debug)]
pub struct Replica {
    /// Of which run of revisions it is a copy, and how well the market is known.
    pub node: Arc<Node>,
    /// Everything up to this revision is here.
    pub rev: Rev,
    /// The images; a cell's revision is that of the cut that brought it.
    pub images: Images,
    /// The events.
    pub log: Log,
    symbols: Arc<Symbols>,
    names: Vec<Arc<str>>,
    /// The revision of the cut that brought each symbol.
    listed: Vec<Rev>,
    groups: u64,
    /// The revision of the cut after the last change of a group.
    pub grouped_rev: Rev,
    books: HashMap<Symbol, BookTop>,
    bars: HashMap<(Channel, Symbol), OpenBar>,
}

impl Replica {
    /// An empty copy of a run.
    pub fn new(symbols: Arc<Symbols>, node: Arc<Node>, log_events_max: usize) -> Self {
        Self {
            node,
            rev: 0,
            images: Images::default(),
            log: Log::new(log_events_max),
            symbols,
            names: Vec::new(),
            listed: Vec::new(),
            groups: 0,
            grouped_rev: 0,
            books: HashMap::new(),
            bars: HashMap::new(),
        }
    }

    /// Applies a cut that was made for this copy's run and revision. Of books and bars it may hold what only others want.
    /// Of another run it becomes a copy.
    pub fn apply(&mut self, cut: &Cut, wanted: impl Fn(Channel, Symbol) -> bool) {
        if cut.node.run != self.node.run {
            let symbols = Arc::clone(&self.symbols);
            *self = Self::new(symbols, Arc::clone(&cut.node), self.log.events_max());
        }
        self.node.clone_from(&cut.node);
        debug_assert_eq!(cut.since, self.rev, "a cut fits only the revision it was made for");
        if cut.symbols > self.names.len() {
            for listing in
                self.symbols.listings_from(self.names.len()).into_iter().take(cut.symbols - self.names.len())
            {
                self.images.list(listing.channel);
                self.log.list();
                self.names.push(listing.name);
                self.listed.push(cut.rev);
            }
        }
        if std::mem::replace(&mut self.groups, cut.groups) != cut.groups {
            self.grouped_rev = cut.rev;
        }
        for changed in &cut.changed {
            let mut values = cut.values[changed.values_at as usize..].iter();
            let mut mask = changed.mask;
            while mask != 0 {
                let number = mask.trailing_zeros() as u8;
                mask &= mask - 1;
                let value = if changed.present >> number & 1 == 1 { values.next().copied() } else { None };
                self.images.replace(changed.symbol, number, value, cut.rev);
            }
            self.images.touch(changed.symbol, changed.rev, changed.q, changed.time, changed.arrival_ns);
        }
        self.images.end_part(cut.rev);
        self.log.lose(&cut.lost);
        for event in &cut.events {
            match event.what {
                What::Image { channel, .. } if !self.log.keeps(channel, event.symbol) => {}
                What::Image { present, values_at, .. } => {
                    let values = &cut.event_values[values_at as usize..][..present.count_ones() as usize];
                    self.log.append_with(*event, values);
                }
                _ => self.log.append(*event),
            }
        }
        for book in &cut.books {
            if let Some(symbol) = book.symbol.filter(|symbol| wanted(Channel::Book, *symbol)) {
                self.books.insert(symbol, book.clone());
            }
        }
        for open in cut.bars.iter().filter(|open| wanted(open.channel, open.symbol)) {
            self.bars.insert((open.channel, open.symbol), *open);
        }
        self.rev = cut.rev;
    }

    /// Somebody here begins to want something. Of an image every change from now on is kept.
    pub fn want(&mut self, channel: Channel, symbol: Symbol) {
        if !channel.fields().is_empty() && symbol.index() < self.len() {
            self.log.keep(&self.images, symbol);
        }
    }

    /// Forgets what nobody here wants any more.
    pub fn forget(&mut self, channel: Channel, symbol: Symbol) {
        match channel {
            Channel::Quote | Channel::Index => self.log.drop(channel, symbol),
            Channel::Book => drop(self.books.remove(&symbol)),
            _ => drop(self.bars.remove(&(channel, symbol))),
        }
    }

    /// How many symbols are listed.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no symbol is listed.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The symbol's name.
    pub fn name(&self, symbol: Symbol) -> &Arc<str> {
        &self.names[symbol.index()]
    }

    /// The revision from which on the symbol is known here.
    pub fn listed_rev(&self, symbol: Symbol) -> Rev {
        self.listed[symbol.index()]
    }

    /// The steps in which the symbol's price moves, if they are known.
    pub fn steps(&self, symbol: Symbol) -> Option<Steps> {
        self.symbols.listing(symbol)?.steps
    }

    /// The symbol's book, if anybody here wants it.
    pub fn book(&self, symbol: Symbol) -> Option<&BookTop> {
        self.books.get(&symbol)
    }

    /// The topic's open bar, if it ever had one.
    pub fn bar(&self, channel: Channel, symbol: Symbol) -> Option<&OpenBar> {
        self.bars.get(&(channel, symbol))
    }

    /// The revision of a topic's last change; of a book, among the best `depth` levels.
    pub fn topic_rev(&self, channel: Channel, symbol: Symbol, depth: u16) -> Rev {
        match channel {
            Channel::Quote | Channel::Index => self.images.rev(symbol),
            Channel::Book => self.books.get(&symbol).map_or(0, |book| book.rev_at(depth)),
            Channel::Trade | Channel::Status => self.log.topic(channel, symbol).rev,
            bars => self.bars.get(&(bars, symbol)).map_or(0, |open| open.rev),
        }
    }
}
