//! Filters: which rows a client wants, as an expression over the fields of quotes, indices and trades.
//!
//! Comparisons are exact. An empty field matches no comparison but those with `null`. A channel that has none of the
//! names stays whole, as with `fields`; one that has some of them knows the others as empty.
//!
//! Bounds kept here: `FILTER_CHARS_MAX`, `FILTER_DEPTH_MAX`, `FILTER_NODES_MAX`, `FILTER_CHANGES_MAX`.

mod parse;

#[cfg(test)]
mod tests;

use rust_decimal::Decimal;
use tickgate_feeds::market::{Channel, Kind, Symbol, Trade};

use crate::flow::conflation::images::Images;

/// A filter as the client wrote it, and what it means.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    text: Box<str>,
    expression: Expression,
    /// The changes that the expression names, each by its place here.
    changes: Box<[Change]>,
}

/// Where an expression cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Counted in characters, from 1.
    pub column: usize,
    /// What should have stood there.
    pub expected: String,
    /// What stands there, as the client wrote it.
    pub found: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Expression {
    All(Box<[Expression]>),
    Any(Box<[Expression]>),
    Not(Box<Expression>),
    /// `None` is `null`.
    Compare(Name, Relation, Option<Decimal>),
    /// Whether the change at this place has been made.
    Change(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// The numbers that a field has in the tables of the channels, where they have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Name {
    quote: Option<u8>,
    index: Option<u8>,
    trade: Option<u8>,
}

/// A change against the value last sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Change {
    name: Name,
    /// `None`: any change.
    least: Option<Least>,
}

/// The least change that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Least {
    amount: Decimal,
    unit: Unit,
    /// It has to be more than that.
    more: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unit {
    /// The field's own.
    Plain,
    /// Hundredths of the value last sent.
    Percent,
    /// The venue's price steps, as wide as they are at the value last sent.
    Ticks,
}

/// The fields of a trade that a filter may name.
const TRADE: [(&str, Kind); 4] = [
    ("price", Kind::Decimal),
    ("size", Kind::Decimal),
    ("side", Kind::Code(&["buy", "sell"])),
    ("kind", Kind::Code(&["new", "correct", "cancel"])),
];

impl Filter {
    /// Reads an expression.
    pub fn parse(text: &str) -> Result<Self, Slip> {
        let (expression, changes) = parse::expression(text)?;
        Ok(Self { text: text.into(), expression, changes: changes.into() })
    }

    /// As the client wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it says anything of this channel.
    pub fn concerns(&self, channel: Channel) -> bool {
        self.expression.names(&self.changes, &|name| name.number(channel).is_some())
    }

    /// Whether it holds rows back until something has changed.
    pub fn waits(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Whether it cannot be understood without knowing the symbol's price steps.
    pub fn counts_ticks(&self) -> bool {
        self.changes.iter().any(|change| change.least.is_some_and(|least| least.unit == Unit::Ticks))
    }

    /// Whether an image is let through, every change that it may wait for taken as made.
    pub fn takes(&self, images: &Images, symbol: Symbol) -> bool {
        let channel = images.head(symbol).channel;
        let can_change = |at: usize| self.changes[at].name.number(channel).is_some();
        self.expression.holds(&|name| name.value(images, symbol), &can_change)
    }

    /// Whether an image is to be sent again to somebody who was last sent these `values` (see [`Filter::values`]).
    pub fn is_due(
        &self,
        images: &Images,
        symbol: Symbol,
        values: &[Option<Decimal>],
        step: &Step<'_>,
    ) -> bool {
        let is_made = |at: usize| {
            let change: &Change = &self.changes[at];
            change.is_made(values[at], change.name.value(images, symbol), step)
        };
        self.expression.holds(&|name| name.value(images, symbol), &is_made)
    }

    /// The values that changes are measured from.
    pub fn values<'a>(
        &'a self,
        images: &'a Images,
        symbol: Symbol,
    ) -> impl Iterator<Item = Option<Decimal>> + 'a {
        self.changes.iter().map(move |change| change.name.value(images, symbol))
    }

    /// Whether a trade is let through.
    pub fn takes_trade(&self, trade: &Trade) -> bool {
        let value = |name: &Name| {
            Some(match name.trade? {
                0 => trade.price,
                1 => trade.size,
                2 => Decimal::from(trade.side? as u8),
                _ => Decimal::from(trade.kind as u8),
            })
        };
        !self.concerns(Channel::Trade) || self.expression.holds(&value, &|_| false)
    }
}

/// The width of a price step at a price, where it is known.
pub type Step<'a> = dyn Fn(Decimal) -> Option<Decimal> + 'a;

impl Expression {
    fn holds(&self, value: &impl Fn(&Name) -> Option<Decimal>, is_made: &impl Fn(usize) -> bool) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(value, is_made)),
            Self::Any(any) => any.iter().any(|one| one.holds(value, is_made)),
            Self::Not(one) => !one.holds(value, is_made),
            Self::Compare(name, relation, wanted) => relation.holds(value(name), *wanted),
            Self::Change(at) => is_made(*at),
        }
    }

    /// Whether any name in it is such a one.
    fn names(&self, changes: &[Change], is: &impl Fn(&Name) -> bool) -> bool {
        match self {
            Self::All(some) | Self::Any(some) => some.iter().any(|one| one.names(changes, is)),
            Self::Not(one) => one.names(changes, is),
            Self::Compare(name, ..) => is(name),
            Self::Change(at) => is(&changes[*at].name),
        }
    }

    fn waits(&self) -> bool {
        match self {
            Self::All(some) | Self::Any(some) => some.iter().any(Self::waits),
            Self::Not(one) => one.waits(),
            Self::Compare(..) => false,
            Self::Change(_) => true,
        }
    }
}

impl Relation {
    fn holds(self, value: Option<Decimal>, wanted: Option<Decimal>) -> bool {
        match (value, wanted) {
            (value, None) => (self == Self::Equal) == value.is_none(),
            (None, Some(_)) => false,
            (Some(value), Some(wanted)) => match self {
                Self::Equal => value == wanted,
                Self::NotEqual => value != wanted,
                Self::Less => value < wanted,
                Self::AtMost => value <= wanted,
                Self::More => value > wanted,
                Self::AtLeast => value >= wanted,
            },
        }
    }
}

impl Name {
    fn number(&self, channel: Channel) -> Option<u8> {
        match channel {
            Channel::Quote => self.quote,
            Channel::Index => self.index,
            Channel::Trade => self.trade,
            _ => None,
        }
    }

    fn value(&self, images: &Images, symbol: Symbol) -> Option<Decimal> {
        images.value(symbol, self.number(images.head(symbol).channel)?)
    }
}

impl Change {
    /// From and to nothing every change counts, and so does one whose size cannot be told.
    fn is_made(&self, before: Option<Decimal>, now: Option<Decimal>, step: &Step<'_>) -> bool {
        if before == now {
            return false;
        }
        let (Some(before), Some(now), Some(least)) = (before, now, self.least) else { return true };
        let distance = now.checked_sub(before).map(|distance| distance.abs());
        let (distance, amount) = match least.unit {
            Unit::Plain => (distance, Some(least.amount)),
            Unit::Percent => {
                let hundredfold = distance.and_then(|distance| distance.checked_mul(Decimal::ONE_HUNDRED));
                (hundredfold, before.abs().checked_mul(least.amount))
            }
            Unit::Ticks => (distance, step(before).and_then(|step| step.checked_mul(least.amount))),
        };
        let (Some(distance), Some(amount)) = (distance, amount) else { return true };
        if least.more { distance > amount } else { distance >= amount }
    }
}
