//! A cut: everything that changed between two revisions, at a message boundary. Made by the hub, shared by shards.
//!
//! Bound kept here: a cut holds at most every field of every symbol once, the log, and the books somebody wants.

use std::sync::Arc;

use rust_decimal::Decimal;
use tickgate_feeds::market::{State, Symbol, Time};

use super::Rev;
use super::bars::OpenBar;
use super::log::{Event, Lost};

/// Which run of revisions a node is in, and how well it knows the market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Counts the changes of everything below.
    pub version: u64,
    /// Counts the runs that this node was in: revisions of one mean nothing in another.
    pub run: u32,
    /// Names the run on every node of it.
    pub epoch: Arc<str>,
    /// The gateways from the source to this one, itself the last, by the names that they gave themselves.
    pub path: Arc<[String]>,
    /// How far everything here can be trusted, whatever the images say of themselves.
    pub link: State,
}

impl Default for Node {
    fn default() -> Self {
        Self { version: 0, run: 0, epoch: Arc::default(), path: Arc::default(), link: State::Live }
    }
}

impl Node {
    /// A node of this name that begins a run of this epoch.
    pub fn new(name: &str, epoch: &str) -> Self {
        Self { epoch: epoch.into(), path: [name.to_owned()].into(), ..Self::default() }
    }
}

/// What changed after `since`, up to and with `rev`.
#[derive(Clone, Debug, Default)]
pub struct Cut {
    /// The run that the revisions are of. An asker that was in another one begins anew: then `since` is 0.
    pub node: Arc<Node>,
    /// The asker held this.
    pub since: Rev,
    /// The asker holds this when it has applied the cut.
    pub rev: Rev,
    /// How many symbols are listed.
    pub symbols: usize,
    /// Version of the table of symbols and groups; another one means that groups and wildcards may mean more.
    pub directory: u64,
    /// Version of the groups alone.
    pub groups: u64,
    /// Images that changed.
    pub changed: Vec<Changed>,
    /// The changed fields' values, image by image, in the order of their numbers. Absent ones have none.
    pub values: Vec<Decimal>,
    /// Events, oldest first. Values of images' changes are counted from the first in [`Cut::event_values`].
    pub events: Vec<Event>,
    /// The events' values, event by event.
    pub event_values: Vec<Decimal>,
    /// Events that the log no longer had.
    pub lost: Vec<Lost>,
    /// Books that changed or that the asker wants deeper.
    pub books: Vec<BookTop>,
    /// Open bars that changed.
    pub bars: Vec<OpenBar>,
}

/// One changed image.
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// Whose.
    pub symbol: Symbol,
    /// The revision of its last change.
    pub rev: Rev,
    /// Its count of updates.
    pub q: u64,
    /// Event time of the last update.
    pub time: Time,
    /// When that entered the gateway.
    pub arrival_ns: u64,
    /// The changed fields.
    pub mask: u32,
    /// The fields that have a value, changed or not.
    pub present: u32,
    /// Where in [`Cut::values`] its values begin.
    pub values_at: u32,
}

/// Levels of one side of a book: (price, size), best first.
pub type Levels = Vec<(Decimal, Decimal)>;

/// The best levels of a book.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BookTop {
    /// Whose.
    pub symbol: Option<Symbol>,
    /// The revision of each level: when it or a better one last changed; the last is that of the end of the book.
    pub revs: Vec<Rev>,
    /// Its count of updates.
    pub q: u64,
    /// Event time of the last update.
    pub time: Time,
    /// When that entered the gateway.
    pub arrival_ns: u64,
    /// How many levels of a side were asked for.
    pub depth: u16,
    /// (price, size), best first.
    pub bids: Levels,
    /// (price, size), best first.
    pub asks: Levels,
}

impl BookTop {
    /// The revision of the last change among the best `depth` levels; 0 when it was never looked at.
    pub fn rev_at(&self, depth: u16) -> Rev {
        let last = self.revs.len().saturating_sub(1);
        self.revs.get(last.min(usize::from(depth).saturating_sub(1))).copied().unwrap_or(0)
    }
}
