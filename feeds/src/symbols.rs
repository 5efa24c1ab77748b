//! The table of symbols and groups: the one place where names become small integers.
//!
//! Bound kept here: at most `symbols_max` symbols; one more is refused and the caller counts it. Decoders keep a small
//! map of their own names, so the lock is taken once per new symbol and never per message.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rust_decimal::Decimal;

use crate::market::{Channel, FeedId, Symbol};

/// What the table knows of a symbol.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The exact name that clients subscribe to.
    pub name: Arc<str>,
    /// [`Channel::Quote`] for what is traded, [`Channel::Index`] for an index.
    pub channel: Channel,
    /// The feed that owns it.
    pub feed: FeedId,
    /// The steps in which its price moves, where the feed knows them.
    pub steps: Option<Steps>,
    /// What its feed brings of it.
    pub carried: Carried,
}

/// What a feed brings of a symbol. Of most a gateway makes whatever is asked for; another gateway gives what it was asked
/// for at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// Bit n: the channel of number n.
    channels: u16,
    /// Levels of a side of a book.
    pub depth: u16,
}

impl Default for Carried {
    fn default() -> Self {
        Self { channels: u16::MAX, depth: u16::MAX }
    }
}

impl Carried {
    /// These channels, and books so deep.
    pub fn only(channels: impl IntoIterator<Item = Channel>, depth: u16) -> Self {
        Self { channels: channels.into_iter().fold(0, |mask, channel| mask | 1 << channel as u8), depth }
    }

    /// Whether a channel is among them.
    pub const fn has(self, channel: Channel) -> bool {
        self.channels >> channel as u8 & 1 == 1
    }
}

/// The steps in which a price moves: their width from each of some prices on, lowest price first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps(Arc<[(Decimal, Decimal)]>);

impl Steps {
    /// Of these pairs: a price, and how wide a step is from there on.
    ///
    /// # Panics
    /// Without a pair, or when prices do not rise: that is a bug of the feed.
    pub fn new(steps: &[(Decimal, Decimal)]) -> Self {
        assert!(
            !steps.is_empty() && steps.is_sorted_by(|one, next| one.0 < next.0),
            "steps of rising prices"
        );
        Self(steps.into())
    }

    /// The pairs that they were made of.
    pub fn pairs(&self) -> &[(Decimal, Decimal)] {
        &self.0
    }

    /// How wide the step up from `price` is.
    pub fn at(&self, price: Decimal) -> Decimal {
        let above = self.0.partition_point(|(from, _)| *from <= price);
        self.0[above.saturating_sub(1)].1
    }
}

/// Why a symbol was not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The table is full.
    Full,
    /// Another feed owns the name.
    Clash(FeedId),
    /// The name is empty, longer than 64, or has a character outside `[A-Za-z0-9._/-]`.
    BadName,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full => f.write_str("the table of symbols is full"),
            Self::Clash(feed) => {
                write!(f, "feed number {} has a symbol of that name; give one of them a prefix", feed.0 + 1)
            }
            Self::BadName => f.write_str("expected 1 to 64 characters of [A-Za-z0-9._/-]"),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    listings: Vec<Listing>,
    by_name: BTreeMap<Arc<str>, Symbol>,
    /// Group name to its members, sorted.
    groups: BTreeMap<Arc<str>, Arc<[Symbol]>>,
    /// The groups that no feed may change.
    fixed: BTreeSet<Arc<str>>,
    /// Grows with every listing and every change of a group.
    version: u64,
    groups_version: u64,
}

impl Table {
    fn set_group(&mut self, name: &str, members: &[Symbol]) {
        let mut members = members.to_vec();
        members.sort_unstable();
        members.dedup();
        self.groups.insert(name.into(), members.into());
        self.version += 1;
        self.groups_version += 1;
    }
}

/// All symbols and groups of a gateway. Cheap to share: one table, many readers.
#[derive(Debug)]
pub struct Symbols {
    table: RwLock<Table>,
    symbols_max: usize,
}

/// The longest name of a symbol or group, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// Whether `name` can be a symbol or group: the characters that topics use for themselves (`:`, `@`, `*`) are left out.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-'))
}

impl Symbols {
    /// An empty table for at most `symbols_max` symbols.
    pub fn new(symbols_max: usize) -> Self {
        Self { table: RwLock::default(), symbols_max }
    }

    /// Lists `name` for `feed`, or finds it again.
    pub fn list(&self, feed: FeedId, name: &str, channel: Channel) -> Result<Symbol, Refused> {
        let mut table = self.write();
        if let Some(&symbol) = table.by_name.get(name) {
            let owner = table.listings[symbol.index()].feed;
            return if owner == feed { Ok(symbol) } else { Err(Refused::Clash(owner)) };
        }
        if !is_name(name) {
            return Err(Refused::BadName);
        }
        if table.listings.len() >= self.symbols_max {
            return Err(Refused::Full);
        }
        let symbol = Symbol::at(table.listings.len() as u32);
        let name: Arc<str> = name.into();
        table.listings.push(Listing {
            name: Arc::clone(&name),
            channel,
            feed,
            steps: None,
            carried: Carried::default(),
        });
        table.by_name.insert(name, symbol);
        table.version += 1;
        Ok(symbol)
    }

    /// Notes the steps in which a listed symbol's price moves.
    pub fn set_steps(&self, symbol: Symbol, steps: Steps) {
        if let Some(listing) = self.write().listings.get_mut(symbol.index()) {
            listing.steps = Some(steps);
        }
    }

    /// Notes what the feed of a listed symbol brings of it.
    pub fn set_carried(&self, symbol: Symbol, carried: Carried) {
        if let Some(listing) = self.write().listings.get_mut(symbol.index()) {
            listing.carried = carried;
        }
    }

    /// Sets the members of a group for a feed, unless it is fixed; the gateway's `@name` topics follow.
    pub fn set_group(&self, name: &str, members: &[Symbol]) {
        let mut table = self.write();
        if !table.fixed.contains(name) {
            table.set_group(name, members);
        }
    }

    /// Sets the members of a group for the operator: whatever feeds say of it from now on is passed over.
    pub fn fix_group(&self, name: &str, members: &[Symbol]) {
        let mut table = self.write();
        table.fixed.insert(name.into());
        table.set_group(name, members);
    }

    /// The symbol of that exact name.
    pub fn find(&self, name: &str) -> Option<Symbol> {
        self.read().by_name.get(name).copied()
    }

    /// What `pick` makes of the symbols whose names begin so and of their listings, by name; at most `max` of it.
    pub fn with_prefix<T>(
        &self,
        prefix: &str,
        max: usize,
        pick: impl Fn(Symbol, &Listing) -> Option<T>,
    ) -> Vec<T> {
        let table = self.read();
        let from = table.by_name.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let matching = from.take_while(|(name, _)| name.starts_with(prefix));
        matching.filter_map(|(_, &symbol)| pick(symbol, &table.listings[symbol.index()])).take(max).collect()
    }

    /// What is known of a symbol.
    pub fn listing(&self, symbol: Symbol) -> Option<Listing> {
        self.read().listings.get(symbol.index()).cloned()
    }

    /// The listings from `from` on, in the order of their symbols: what a reader has not seen yet.
    pub fn listings_from(&self, from: usize) -> Vec<Listing> {
        self.read().listings.get(from..).unwrap_or_default().to_vec()
    }

    /// The members of a group, sorted.
    pub fn group(&self, name: &str) -> Option<Arc<[Symbol]>> {
        self.read().groups.get(name).cloned()
    }

    /// All groups, by name.
    pub fn groups(&self) -> Vec<(Arc<str>, Arc<[Symbol]>)> {
        self.read().groups.iter().map(|(name, members)| (Arc::clone(name), Arc::clone(members))).collect()
    }

    /// How many symbols are listed.
    pub fn len(&self) -> usize {
        self.read().listings.len()
    }

    /// Whether nothing is listed yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Two numbers: one changes whenever a symbol is listed or a group changes, the other when a group changes.
    pub fn versions(&self) -> (u64, u64) {
        let table = self.read();
        (table.version, table.groups_version)
    }

    // A panic elsewhere cannot leave the table half written, so a poisoned lock is still good.
    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_as_wide_as_it_is_at_that_price() {
        let steps = [(0, 10), (10_000, 50)].map(|(from, width)| (Decimal::from(from), Decimal::from(width)));
        let steps = Steps::new(&steps);
        let at = |price: i32| steps.at(Decimal::from(price));
        assert_eq!([-5, 0, 9_990, 10_000, 20_000].map(at), [10, 10, 10, 50, 50].map(Decimal::from));
        let symbols = Symbols::new(1);
        let vcb = symbols.list(FeedId(0), "VCB", Channel::Quote).expect("room");
        symbols.set_steps(vcb, steps.clone());
        assert_eq!(symbols.listing(vcb).and_then(|listing| listing.steps), Some(steps));
    }

    #[test]
    fn a_fixed_group_is_no_feeds_to_change() {
        let symbols = Symbols::new(2);
        let [vcb, fpt] =
            ["VCB", "FPT"].map(|name| symbols.list(FeedId(0), name, Channel::Quote).expect("room"));
        symbols.set_group("VN30", &[vcb]);
        symbols.fix_group("VN30", &[fpt, vcb, fpt]);
        let versions = symbols.versions();
        symbols.set_group("VN30", &[vcb]);
        assert_eq!((symbols.group("VN30").as_deref(), symbols.versions()), (Some(&[vcb, fpt][..]), versions));
        symbols.fix_group("VN30", &[fpt]);
        assert_eq!(symbols.group("VN30").as_deref(), Some(&[fpt][..]), "the operator may");
    }

    #[test]
    fn a_name_belongs_to_one_feed_and_the_table_is_bounded() {
        let symbols = Symbols::new(2);
        let vcb = symbols.list(FeedId(0), "VCB", Channel::Quote);
        assert_eq!(vcb, symbols.list(FeedId(0), "VCB", Channel::Quote));
        assert_eq!(symbols.list(FeedId(1), "VCB", Channel::Quote), Err(Refused::Clash(FeedId(0))));
        assert_eq!(symbols.list(FeedId(0), "a b", Channel::Quote), Err(Refused::BadName));
        assert_eq!(symbols.list(FeedId(0), "VN30", Channel::Index), Ok(Symbol::at(1)));
        assert_eq!(symbols.list(FeedId(0), "FPT", Channel::Quote), Err(Refused::Full));
        assert_eq!(symbols.len(), 2);
    }
}
