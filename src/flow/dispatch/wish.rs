//! What a subscription asks for, in its effective form: equal wishes share a stream.
//!
//! Bound kept here: the closed list of rates, so that phase groups are few.

use tickgate_feeds::market::{Channel, STATE, Symbol};

use super::filter::Filter;
use super::topic::{Asked, Topic, TopicName};
use crate::base::limits::DEPTH_DEFAULT;
use crate::flow::conflation::wants::Want;

/// Frames per thousand seconds that a client may have; a rate between two is rounded down.
const RATES_MILLIHZ: [u32; 12] =
    [100, 200, 500, 1_000, 2_000, 4_000, 5_000, 10_000, 20_000, 25_000, 50_000, 100_000];

/// A rate from the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u32);

impl Rate {
    /// The slowest.
    pub const MIN: Self = Self(RATES_MILLIHZ[0]);

    /// The rate of the list that is not faster than `per_second`; the slowest when there is none.
    pub fn at_most(per_second: f64) -> Self {
        let fits = |millihz: &&u32| f64::from(**millihz) <= per_second * 1_000.0;
        Self(*RATES_MILLIHZ.iter().rfind(fits).unwrap_or(&RATES_MILLIHZ[0]))
    }

    /// Frames per second.
    pub fn per_second(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }

    /// Nanoseconds of one slot.
    pub fn slot_ns(self) -> u64 {
        1_000_000_000_000 / u64::from(self.0)
    }
}

/// How changes become rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The latest values; of trades the last one.
    Conflate,
    /// The latest values; each trade at once, whatever the rate, after the quote that it met.
    TradeSafe,
    /// Each event and each change of an image, in order.
    Every,
    /// The values of now, once.
    Snapshot,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Conflate, Self::TradeSafe, Self::Every, Self::Snapshot];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflate => "conflate",
            Self::TradeSafe => "trade_safe",
            Self::Every => "every",
            Self::Snapshot => "snapshot",
        }
    }

    /// A topic that was asked for, and what this mode adds to it: to a quote its trades.
    pub fn with_its_own(self, topic: Topic) -> impl Iterator<Item = Topic> {
        let adds = self == Self::TradeSafe && topic.channel() == Channel::Quote;
        std::iter::once(topic).chain(adds.then_some(Topic::new(Channel::Trade, topic.symbol())))
    }
}

/// Which fields of the image channels; the state is always among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fields {
    /// Mask over the quote's fields.
    pub quote: u32,
    /// Mask over the index's fields.
    pub index: u32,
}

impl Fields {
    /// All of them.
    pub const ALL: Self = Self { quote: u32::MAX, index: u32::MAX };

    /// Those of these names. A channel with none of the names stays whole. The error is the name nobody knows.
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        let (mut quote, mut index) = (0, 0);
        for name in names {
            let find = |channel: Channel| channel.fields().iter().position(|field| field.name == name);
            let (in_quote, in_index) = (find(Channel::Quote), find(Channel::Index));
            if in_quote.is_none() && in_index.is_none() {
                return Err(name);
            }
            quote |= in_quote.map_or(0, |number| 1 << number);
            index |= in_index.map_or(0, |number| 1 << number);
        }
        let or_all = |mask: u32| if mask == 0 { u32::MAX } else { mask | 1 << STATE };
        Ok(Self { quote: or_all(quote), index: or_all(index) })
    }

    /// The mask for this channel.
    pub fn mask(self, channel: Channel) -> u32 {
        if channel == Channel::Index { self.index } else { self.quote }
    }

    /// The selected names, in the order of the tables; `None` for all.
    pub fn names(self) -> Option<Vec<&'static str>> {
        if self == Self::ALL {
            return None;
        }
        let mut names = Vec::new();
        for channel in [Channel::Quote, Channel::Index] {
            if self.mask(channel) == u32::MAX {
                continue; // the channel has none of the names, so it is whole
            }
            for (number, field) in channel.fields().iter().enumerate() {
                if self.mask(channel) >> number & 1 == 1 && !names.contains(&field.name) {
                    names.push(field.name);
                }
            }
        }
        Some(names)
    }
}

/// The options that a client gave; what is absent is as it was, or as it is by default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// How changes become rows.
    pub mode: Option<Mode>,
    /// Frames per second; `Some(None)` for no rate.
    pub rate: Option<Option<f64>>,
    /// Which fields.
    pub fields: Option<Fields>,
    /// Rows carry changed fields only.
    pub delta: Option<bool>,
    /// Levels of a side of each book.
    pub depth: Option<u16>,
    /// Decimals as JSON strings.
    pub strings: Option<bool>,
    /// Rows as arrays.
    pub columns: Option<bool>,
    /// A digest in every frame whose number divides by this; 0 for none.
    pub digest: Option<u32>,
    /// Rows have the extremes of the last price and the volume since the row before.
    pub window: Option<bool>,
    /// Only rows that it lets through; `Some(None)` for no filter.
    pub filter: Option<Option<Filter>>,
}

/// How messages travel, as the handshake settled it for the whole session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Packing {
    /// The window that frames may be compressed for, in bits; `None`: they are not compressed.
    pub window_bits: Option<u8>,
    /// MessagePack instead of JSON.
    pub is_binary: bool,
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Style {
    /// Decimals as JSON strings instead of numbers.
    pub strings: bool,
    /// Rows as arrays in the order of the announced columns, instead of objects.
    pub columns: bool,
}

/// A subscription's effective options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wish {
    /// What was asked for.
    pub topics: Asked,
    /// How changes become rows.
    pub mode: Mode,
    /// `None`: as fast as turns allow.
    pub rate: Option<Rate>,
    /// Which fields.
    pub fields: Fields,
    /// Rows carry changed fields only.
    pub delta: bool,
    /// Levels of a side of each book.
    pub depth: u16,
    /// How rows are written.
    pub style: Style,
    /// A digest in every frame whose number divides by this; 0 for none.
    pub digest: u32,
    /// Rows of images have the extremes of the last price and the volume since the row before.
    pub window: bool,
    /// Only rows that it lets through.
    pub filter: Option<Filter>,
    /// How frames travel.
    pub packing: Packing,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            topics: Asked::default(),
            mode: Mode::Conflate,
            rate: None,
            fields: Fields::ALL,
            delta: true,
            depth: DEPTH_DEFAULT,
            style: Style::default(),
            digest: 0,
            window: false,
            filter: None,
            packing: Packing::default(),
        }
    }
}

impl Wish {
    /// This wish with these options, and whether its rate was lowered to `rate_max` per second.
    pub fn with(mut self, options: &Options, rate_max: Option<f64>) -> (Self, bool) {
        let asked = options.rate.unwrap_or(self.rate.map(Rate::per_second));
        let capped = rate_max.filter(|max| asked.is_none_or(|asked| asked > *max));
        self.rate = capped.or(asked).map(Rate::at_most);
        self.mode = options.mode.unwrap_or(self.mode);
        self.fields = options.fields.unwrap_or(self.fields);
        self.delta = options.delta.unwrap_or(self.delta);
        self.depth = options.depth.unwrap_or(self.depth);
        self.style.strings = options.strings.unwrap_or(self.style.strings);
        self.style.columns = options.columns.unwrap_or(self.style.columns);
        self.digest = options.digest.unwrap_or(self.digest);
        self.window = options.window.unwrap_or(self.window);
        self.filter = options.filter.clone().unwrap_or(self.filter);
        (self, capped.is_some())
    }

    /// Whether each event of the channel is given, and not the last state.
    pub fn is_event(&self, channel: Channel) -> bool {
        match channel {
            Channel::Quote | Channel::Index => self.mode == Mode::Every,
            Channel::Trade => matches!(self.mode, Mode::Every | Mode::TradeSafe),
            Channel::Book => false,
            Channel::Status | Channel::Bar1s | Channel::Bar1m | Channel::Bar5m | Channel::Bar1h => true,
        }
    }

    /// Whether all that is given of the channel is events that are in the log, wanted or not.
    pub fn is_logged(&self, channel: Channel) -> bool {
        matches!(channel, Channel::Trade | Channel::Status) && self.is_event(channel)
    }

    /// Whether the changes of images must be in the log.
    pub fn keeps_images(&self) -> bool {
        matches!(self.mode, Mode::Every | Mode::TradeSafe) || self.window
    }

    /// What must be made for a topic because this wish asks for it: books are kept cut to the wanted depth, bars are added
    /// up, changes of images are logged.
    pub fn want(&self, topic: Topic) -> Option<Want> {
        let (channel, symbol) = (topic.channel(), topic.symbol());
        let wanted = match channel {
            Channel::Quote | Channel::Index => self.keeps_images(),
            Channel::Trade | Channel::Status => false,
            Channel::Book | Channel::Bar1s | Channel::Bar1m | Channel::Bar5m | Channel::Bar1h => true,
        };
        let depth = if channel == Channel::Book { self.depth } else { 0 };
        wanted.then_some(Want { channel, symbol, depth })
    }

    /// Whether a client of `other` lacks something of each of the channel's topics that this wish asks for.
    pub fn needs_more_than(&self, other: &Self, channel: Channel) -> bool {
        match channel {
            Channel::Book => self.depth > other.depth,
            Channel::Quote | Channel::Index => {
                // What is given change by change, or before a trade, goes on from a state that the gateway knows.
                let begins = self.keeps_images() && self.mode != other.mode;
                begins || self.fields.mask(channel) & !other.fields.mask(channel) != 0
            }
            _ => false,
        }
    }

    /// The same on every node for the same subscription, whatever its topics mean there: a cursor belongs to it.
    /// Takes the names of symbols.
    pub fn name<'a>(&self, of: impl Fn(Symbol) -> &'a str) -> String {
        let Self { topics, mode, rate, fields, delta, depth, style, digest, window, filter, packing: _ } =
            self;
        let Style { strings, columns } = style;
        let topics: Vec<String> = topics.names(of).iter().map(TopicName::to_string).collect();
        let text = format!(
            "{} {} {:?} {:x} {:x} {delta} {depth} {strings} {columns} {digest} {window} {}",
            topics.join(","),
            mode.name(),
            rate.map(|rate| rate.0),
            fields.quote,
            fields.index,
            filter.as_ref().map_or("", Filter::text)
        );
        // FNV-1a, 64 bits (draft-eastlake-fnv): short, stable, and nobody gains by making two wishes collide.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickgate_feeds::market::{index, quote};

    #[test]
    fn rates_are_rounded_down_to_the_list() {
        for (asked, given) in [(10.0, 10.0), (9.99, 5.0), (3.0, 2.0), (1e9, 100.0), (0.01, 0.1), (0.3, 0.2)] {
            assert_eq!(Rate::at_most(asked).per_second(), given, "{asked}");
        }
        assert_eq!(Rate::at_most(10.0).slot_ns(), 100_000_000);
    }

    #[test]
    fn fields_keep_the_state_and_leave_other_channels_whole() {
        let fields = Fields::named(["bid", "ask"]).expect("known");
        assert_eq!(fields.quote, 1 << quote::BID | 1 << quote::ASK | 1 << STATE);
        assert_eq!(fields.index, u32::MAX);
        let fields = Fields::named(["last"]).expect("known");
        assert_eq!(fields.index, 1 << index::LAST | 1 << STATE);
        assert_eq!(fields.names(), Some(vec!["state", "last"]));
        assert_eq!(Fields::named(["last", "lsat"]), Err("lsat"));
    }
}
