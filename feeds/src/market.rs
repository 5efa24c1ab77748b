//! Words of the market: an instrument, a time, and what one update says.
//!
//! Bound kept here: an [`Update`] is at most 96 bytes and `Copy`, so a queue of them is one flat block of memory.

use rust_decimal::Decimal;

/// An instrument at a venue, interned to a small integer by [`crate::symbols::Symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(u32);

impl Symbol {
    /// The symbol that stands at `index` of the table.
    pub const fn at(index: u32) -> Self {
        Self(index)
    }

    /// Where the symbol stands in the table: dense, from 0.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// From milliseconds since the Unix epoch.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// Whole microseconds since the Unix epoch, rounded down: what goes to the wire.
    #[inline]
    pub const fn us(self) -> i64 {
        self.0.div_euclid(1_000)
    }
}

/// Which of the configured feeds (or A/B group of feeds) something belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedId(pub u16);

/// What kind of thing is said about a symbol; together with the symbol it makes a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Image of a traded instrument, fields in [`quote`].
    Quote,
    /// Image of an index, fields in [`index`].
    Index,
    /// Image of an order book.
    Book,
    /// Events: trades, corrections, cancels.
    Trade,
    /// Events: changes of phase.
    Status,
    /// Bars of one second: the open one as an image, each final one as an event.
    Bar1s,
    /// Bars of one minute.
    Bar1m,
    /// Bars of five minutes.
    Bar5m,
    /// Bars of one hour.
    Bar1h,
}

impl Channel {
    /// All channels, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Quote,
        Self::Index,
        Self::Book,
        Self::Trade,
        Self::Status,
        Self::Bar1s,
        Self::Bar1m,
        Self::Bar5m,
        Self::Bar1h,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quote => "quote",
            Self::Index => "index",
            Self::Book => "book",
            Self::Trade => "trade",
            Self::Status => "status",
            Self::Bar1s => "bar_1s",
            Self::Bar1m => "bar_1m",
            Self::Bar5m => "bar_5m",
            Self::Bar1h => "bar_1h",
        }
    }

    /// The length of a bar in nanoseconds; `None` for what is no bar.
    pub const fn bar_ns(self) -> Option<i64> {
        match self {
            Self::Bar1s => Some(1_000_000_000),
            Self::Bar1m => Some(60_000_000_000),
            Self::Bar5m => Some(300_000_000_000),
            Self::Bar1h => Some(3_600_000_000_000),
            _ => None,
        }
    }

    /// The channel of that wire name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.name() == name)
    }

    /// The fields of an image channel in the order of their numbers; empty for the others.
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Self::Quote => &quote::FIELDS,
            Self::Index => &index::FIELDS,
            _ => &[],
        }
    }
}

/// One field of an image: its name on the wire and how its value is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Lower snake case, as in `docs/protocol.md`.
    pub name: &'static str,
    /// The same as it stands in a row.
    pub key: Key,
    /// How the value is written.
    pub kind: Kind,
}

/// A field's name as it stands in a row, `,"name":`, with zeros behind it: what has one length is copied without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The text and the zeros.
    pub bytes: [u8; 24],
    /// How long the text is.
    pub len: usize,
}

impl Key {
    const fn new(text: &str) -> Self {
        let (mut bytes, mut at) = ([0; 24], 0);
        while at < text.len() {
            bytes[at] = text.as_bytes()[at];
            at += 1;
        }
        Self { bytes, len: text.len() }
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// How a field's value is written on the wire. Every value is held as a [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An exact decimal number.
    Decimal,
    /// A code, written as the name at that position.
    Code(&'static [&'static str]),
    /// A date held as the number yyyymmdd, written as "yyyy-mm-dd".
    Date,
}

/// A field of this name.
macro_rules! field {
    ($name:literal, $kind:expr) => {
        Field { name: $name, key: Key::new(concat!(",\"", $name, "\":")), kind: $kind }
    };
}

/// Number of the field `state` in every image channel; the gateway owns it, feeds never set it.
pub const STATE: u8 = 0;
/// Number of the field `phase` in [`quote`] and [`index`].
pub const PHASE: u8 = 1;

const STATE_FIELD: Field = field!("state", Kind::Code(&State::NAMES));
const PHASE_FIELD: Field = field!("phase", Kind::Code(&Phase::NAMES));

macro_rules! fields {
    ($count:literal: $($constant:ident $name:literal),* $(,)?) => {
        fields!(@number 2u8; $($constant)*);
        /// Every field, in the order of their numbers.
        pub const FIELDS: [Field; $count] = [super::STATE_FIELD, super::PHASE_FIELD, $(field!($name, kind($name))),*];
    };
    (@number $n:expr; $constant:ident $($rest:ident)*) => {
        #[allow(missing_docs, reason = "the wire name beside it says what it is")]
        pub const $constant: u8 = $n;
        fields!(@number $n + 1; $($rest)*);
    };
    (@number $n:expr;) => {};
}

/// Field numbers of [`Channel::Quote`].
pub mod quote {
    use super::{Field, Key, Kind};
    pub use super::{PHASE, STATE};

    const fn kind(name: &str) -> Kind {
        // `trading_date` is the only field of these that is neither a number nor a code.
        if matches!(name.as_bytes(), b"trading_date") { Kind::Date } else { Kind::Decimal }
    }

    fields! { 27:
        LAST "last", LAST_SIZE "last_size", BID "bid", BID_SIZE "bid_size", ASK "ask", ASK_SIZE "ask_size",
        OPEN "open", HIGH "high", LOW "low", PREV_CLOSE "prev_close", VOLUME "volume", TURNOVER "turnover",
        CHANGE "change", CHANGE_PCT "change_pct", AVERAGE "average", REFERENCE "reference",
        CEILING "ceiling", FLOOR "floor", AUCTION_PRICE "auction_price", AUCTION_VOLUME "auction_volume",
        OPEN_INTEREST "open_interest", FOREIGN_BUY "foreign_buy", FOREIGN_SELL "foreign_sell",
        FOREIGN_ROOM "foreign_room", TRADING_DATE "trading_date",
    }
}

/// Field numbers of [`Channel::Index`].
pub mod index {
    use super::{Field, Key, Kind};
    pub use super::{PHASE, STATE};

    const fn kind(_: &str) -> Kind {
        Kind::Decimal
    }

    fields! { 16:
        LAST "last", OPEN "open", HIGH "high", LOW "low", PREV_CLOSE "prev_close", CHANGE "change",
        CHANGE_PCT "change_pct", VOLUME "volume", TURNOVER "turnover", ADVANCES "advances", DECLINES "declines",
        UNCHANGED "unchanged", CEILINGS "ceilings", FLOORS "floors",
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// All values, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// The names on the wire, in the order of the codes.
            pub const NAMES: [&'static str; Self::ALL.len()] = [$($text),*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                Self::NAMES[self as usize]
            }

            /// The code as it is held in an image.
            pub fn decimal(self) -> Decimal {
                Decimal::from(self as u8)
            }
        }
    };
}

codes! {
    /// How far an image can be trusted right now. Of several words about one image the one that stands last here counts.
    State {
        /// Accepted, no data yet.
        Pending "pending",
        /// Values are as fresh as the feed can make them.
        Live "live",
        /// The source has ended or the market is closed: the values are the last there will be.
        Closed "closed",
        /// The venue has halted this instrument.
        Halted "halted",
        /// Nothing came for longer than it should have.
        Stale "stale",
        /// The source says, or a gap means, that values may be wrong.
        Suspect "suspect",
    }
}

codes! {
    /// Where a market stands in its day. Names after HOSE's session table; others map to the nearest.
    Phase {
        /// Before the first auction.
        PreOpen "pre_open",
        /// Opening auction.
        Ato "ato",
        /// Continuous matching.
        Continuous "continuous",
        /// Lunch or another planned break: silence is no fault.
        Break "break",
        /// Closing auction.
        Atc "atc",
        /// Negotiated deals only.
        PutThrough "put_through",
        /// After the last session of the day.
        Closed "closed",
    }
}

/// Which side of the book, or the aggressor of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Side {
    Buy,
    Sell,
}

/// What a trade message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TradeKind {
    /// A new trade.
    New,
    /// Replaces the trade `ref_trade_id`.
    Correct,
    /// Takes back the trade `ref_trade_id`.
    Cancel,
}

/// A trade as the venue reported it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trade {
    /// Exact.
    pub price: Decimal,
    /// Exact, in the venue's unit (shares, base currency).
    pub size: Decimal,
    /// The venue's number of this trade; 0 where it has none.
    pub trade_id: u64,
    /// The trade that a correction or cancel speaks of; 0 for a new one.
    pub ref_trade_id: u64,
    /// The venue's sequence number; 0 where it has none.
    pub source_seq: u64,
    /// The aggressor, where the venue tells.
    pub side: Option<Side>,
    /// New, correction or cancel.
    pub kind: TradeKind,
}

/// One price level of a book: the size is absolute, 0 removes the level.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Exact.
    pub price: Decimal,
    /// Exact; 0 removes.
    pub size: Decimal,
    /// Buy is the bid side.
    pub side: Side,
    /// The book is emptied first: this level begins a new one.
    pub reset: bool,
}

/// A bar. The four prices share one scale, so that a bar is as small as other updates; see [`Bar::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Its first moment.
    pub start: Time,
    /// Traded in it.
    pub volume: Decimal,
    /// How many trades.
    pub trades: u32,
    /// One of the bar channels.
    pub channel: Channel,
    /// Nothing more will be added.
    pub is_final: bool,
    /// It does not cover its whole time: the gateway began to look after its start, or lost trades in it.
    pub is_partial: bool,
    scale: u8,
    /// Open, high, low, close as mantissas of `scale`.
    prices: [i64; 4],
}

impl Bar {
    /// An open, whole bar. `None` when the four prices need more than 63 bits at their common scale: no venue's do.
    pub fn new(
        channel: Channel,
        start: Time,
        [open, high, low, close]: [Decimal; 4],
        volume: Decimal,
        trades: u32,
    ) -> Option<Self> {
        let scale = [open, high, low, close].iter().map(Decimal::scale).max()?;
        let mantissa = |price: Decimal| {
            let factor = 10i128.checked_pow(scale - price.scale())?;
            i64::try_from(price.mantissa().checked_mul(factor)?).ok()
        };
        let prices = [mantissa(open)?, mantissa(high)?, mantissa(low)?, mantissa(close)?];
        let (is_final, is_partial, scale) = (false, false, scale as u8);
        Some(Self { start, volume, trades, channel, is_final, is_partial, scale, prices })
    }

    /// Open, high, low and close.
    pub fn prices(&self) -> [Decimal; 4] {
        self.prices.map(|mantissa| Decimal::new(mantissa, u32::from(self.scale)))
    }

    /// The first moment after it.
    pub fn end(&self) -> Time {
        Time(self.start.0 + self.channel.bar_ns().unwrap_or_default())
    }
}

/// What an update says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Body {
    /// Up to four fields of an image (quote or index). A message with more fields becomes several updates.
    Image {
        /// [`Channel::Quote`] or [`Channel::Index`].
        channel: Channel,
        /// How many of `numbers` and `values` count.
        len: u8,
        /// Bit k says that `values[k]` is "none" (an empty side of the book, say).
        nulls: u8,
        /// Field numbers, each at most once.
        numbers: [u8; 4],
        /// Their values.
        values: [Decimal; 4],
    },
    /// A trade.
    Trade(Trade),
    /// A change of one level of the book.
    Level(Level),
    /// A bar that the venue made itself: it replaces the one of the same channel and start.
    Bar(Bar),
    /// The symbol's trading phase changed.
    Phase(Phase),
    /// How far the source itself trusts its image of the symbol from now on; [`State::Live`] before it says so.
    State(State),
    /// That many events of a channel are known to be lost before this point, by the source's own numbers.
    Missing {
        /// A channel of events.
        channel: Channel,
        /// How many.
        count: u32,
    },
    /// That many trades of the symbol had to go because the gateway could not take them.
    Lost(u32),
    /// The source begins anew: what it says of the symbol from here on may be of an earlier time.
    Rewound,
}

impl Body {
    /// That many events of a channel are lost; more than can be counted are as many as can.
    pub fn missing(channel: Channel, count: u64) -> Self {
        Self::Missing { channel, count: u32::try_from(count).unwrap_or(u32::MAX) }
    }
}

/// One change of one symbol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The venue's event time, or the arrival where the message has none.
    pub time: Time,
    /// When it entered this gateway, in nanoseconds of the monotonic clock; the adapter stamps it, decoders leave 0.
    pub arrival_ns: u64,
    /// Whose.
    pub symbol: Symbol,
    /// What.
    pub body: Body,
}

const _: () = assert!(size_of::<Update>() <= 96, "the ingest queue is sized by this");

impl Update {
    /// An update of at most four fields; `None` empties a field.
    ///
    /// # Panics
    /// With more than four fields: that is a bug of the decoder.
    pub fn image(symbol: Symbol, channel: Channel, time: Time, fields: &[(u8, Option<Decimal>)]) -> Self {
        assert!(fields.len() <= 4, "an update holds at most four fields");
        let (mut nulls, mut numbers, mut values) = (0, [0; 4], [Decimal::ZERO; 4]);
        for (at, &(number, value)) in fields.iter().enumerate() {
            numbers[at] = number;
            match value {
                Some(value) => values[at] = value,
                None => nulls |= 1 << at,
            }
        }
        let body = Body::Image { channel, len: fields.len() as u8, nulls, numbers, values };
        Self { time, arrival_ns: 0, symbol, body }
    }

    /// Any other kind of update.
    pub const fn new(symbol: Symbol, time: Time, body: Body) -> Self {
        Self { time, arrival_ns: 0, symbol, body }
    }

    /// The changed-field mask of an image update, 0 for the others.
    pub fn mask(&self) -> u32 {
        match &self.body {
            Body::Image { len, numbers, .. } => {
                numbers[..*len as usize].iter().fold(0, |mask, n| mask | 1 << n)
            }
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_numbers_match_their_names() {
        assert_eq!(quote::FIELDS[quote::LAST as usize].name, "last");
        assert_eq!(quote::FIELDS[quote::TRADING_DATE as usize].name, "trading_date");
        assert_eq!(quote::FIELDS[quote::TRADING_DATE as usize].kind, Kind::Date);
        assert_eq!(index::FIELDS[index::FLOORS as usize].name, "floors");
        assert_eq!(quote::FIELDS[STATE as usize].name, "state");
        assert_eq!(index::FIELDS[PHASE as usize].name, "phase");
    }

    #[test]
    fn a_bar_keeps_its_prices_exactly() {
        let prices = [Decimal::new(6_168_599, 2), Decimal::from(61_700), Decimal::from(616), Decimal::ONE];
        let bar = Bar::new(Channel::Bar1m, Time(60), prices, Decimal::TEN, 3).expect("small enough");
        assert_eq!(bar.prices(), prices);
        assert_eq!(bar.end(), Time(60_000_000_060));
        let huge = [Decimal::MAX; 4];
        assert_eq!(Bar::new(Channel::Bar1m, Time(0), huge, Decimal::ONE, 1), None);
    }

    #[test]
    fn an_image_update_knows_its_mask() {
        let update = Update::image(
            Symbol::at(3),
            Channel::Quote,
            Time(5),
            &[(quote::BID, Some(Decimal::ONE)), (quote::ASK, None)],
        );
        assert_eq!(update.mask(), 1 << quote::BID | 1 << quote::ASK);
        assert!(matches!(update.body, Body::Image { len: 2, nulls: 2, .. }));
    }
}
