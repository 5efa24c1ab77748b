//! Topic names: `[channel ":"] (symbol | "@" group | prefix "*" | "*")`, and the topics that a name means today.
//!
//! Bound kept here: a name is at most 64 characters of the documented set, plus its channel.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

use tickgate_feeds::market::{Channel, Symbol};
use tickgate_feeds::symbols::{Listing, Symbols, is_name};

use crate::base::limits::SYMBOLS_MAX;
use crate::base::reason::Reason;

/// A topic name as a client writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName {
    /// `None` means the symbol's own image: quote, or index for an index.
    pub channel: Option<Channel>,
    /// Which symbols.
    pub target: Target,
}

/// Which symbols a topic name means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Exactly this one.
    Symbol(Box<str>),
    /// The members of this group.
    Group(Box<str>),
    /// All that begin so; all there are when empty.
    Prefix(Box<str>),
}

impl TopicName {
    /// Reads a topic name; the error is what to tell the client.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let bad = || Refusal { code: Reason::BadTopic, message: Reason::BadTopic.text().into() };
        let (channel, rest) = match text.split_once(':') {
            Some((channel, rest)) => {
                let known = Channel::ALL.map(Channel::name).join(", ");
                let unknown = || Refusal {
                    code: Reason::BadTopic,
                    message: format!("channel: expected one of {known}"),
                };
                (Some(Channel::named(channel).ok_or_else(unknown)?), rest)
            }
            None => (None, text),
        };
        let target = if let Some(group) = rest.strip_prefix('@') {
            Target::Group(group.into())
        } else if let Some(prefix) = rest.strip_suffix('*') {
            Target::Prefix(prefix.into())
        } else {
            Target::Symbol(rest.into())
        };
        let name = match &target {
            Target::Symbol(name) | Target::Group(name) | Target::Prefix(name) => name,
        };
        let empty_prefix = matches!(&target, Target::Prefix(prefix) if prefix.is_empty());
        if empty_prefix || is_name(name) { Ok(Self { channel, target }) } else { Err(bad()) }
    }

    /// Whether what it means can grow while it is watched.
    pub fn is_open(&self) -> bool {
        !matches!(self.target, Target::Symbol(_))
    }

    /// The same topics by the shortest name: a symbol has one image, so its channel need not be said.
    pub fn shortest(mut self) -> Self {
        let is_image = self.channel.is_some_and(|channel| !channel.fields().is_empty());
        if is_image && !self.is_open() {
            self.channel = None;
        }
        self
    }

    /// The topics it means today; of a prefix at most `topics_max`.
    pub fn resolve(&self, symbols: &Symbols, topics_max: usize) -> Result<Vec<Topic>, Refusal> {
        let is_lacking = Cell::new(false);
        let carried = |symbol, listing: &Listing| {
            let topic = self.of(symbol, listing.channel)?;
            let is_carried = listing.carried.has(topic.channel());
            is_lacking.set(is_lacking.get() || !is_carried);
            is_carried.then_some(topic)
        };
        let topics: Vec<Topic> = match &self.target {
            Target::Symbol(name) => {
                let symbol = symbols.find(name).ok_or_else(|| Refusal::unknown("symbol"))?;
                symbols.listing(symbol).and_then(|listing| carried(symbol, &listing)).into_iter().collect()
            }
            Target::Group(name) => {
                let members = symbols.group(name).ok_or_else(|| Refusal::unknown("group"))?;
                members.iter().filter_map(|&symbol| carried(symbol, &symbols.listing(symbol)?)).collect()
            }
            Target::Prefix(prefix) => symbols.with_prefix(prefix, topics_max, carried),
        };
        match topics.is_empty() {
            true if is_lacking.get() => {
                Err(Refusal { code: Reason::NotCarried, message: Reason::NotCarried.text().into() })
            }
            true if !self.is_open() => Err(Refusal::unknown("topic: the symbol has no such channel")),
            _ => Ok(topics),
        }
    }

    /// The topic of this name's channel for a symbol whose own image is `own`; an index has neither trades nor a book.
    fn of(&self, symbol: Symbol, own: Channel) -> Option<Topic> {
        let channel = self.channel.unwrap_or(own);
        let exists = match channel {
            Channel::Quote | Channel::Index => channel == own,
            Channel::Status => true,
            _ => own == Channel::Quote,
        };
        exists.then_some(Topic::new(channel, symbol))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(channel) = self.channel {
            write!(f, "{}:", channel.name())?;
        }
        match &self.target {
            Target::Symbol(name) => f.write_str(name),
            Target::Group(name) => write!(f, "@{name}"),
            Target::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// The topics that a subscription asks for, in order and without repeats. Equal ones are equal however they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Of single symbols: most clients have a list of their own, and these are most of it.
    single: Arc<[Topic]>,
    /// Groups and wildcards, with commas between: hardly ever read.
    open: Box<str>,
}

impl Asked {
    /// Topics of single symbols, and names that are open, in any order.
    pub fn new(mut single: Vec<Topic>, mut open: Vec<TopicName>) -> Self {
        single.sort_unstable();
        single.dedup();
        open.sort_unstable();
        open.dedup();
        let open: Vec<String> = open.iter().map(TopicName::to_string).collect();
        Self { single: single.into(), open: open.join(",").into() }
    }

    /// The topics of single symbols.
    pub fn single(&self) -> &Arc<[Topic]> {
        &self.single
    }

    /// The names that are open; see [`TopicName::is_open`].
    pub fn open(&self) -> impl Iterator<Item = TopicName> + '_ {
        self.open.split(',').filter_map(|name| TopicName::parse(name).ok())
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.open.is_empty()
    }

    /// Whether what they mean can grow while it is watched.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// All names, in order, given those of the symbols.
    pub fn names<'a>(&self, of: impl Fn(Symbol) -> &'a str) -> Vec<TopicName> {
        let single = self.single.iter().map(|topic| TopicName {
            channel: Some(topic.channel()).filter(|_| !topic.is_image()),
            target: Target::Symbol(of(topic.symbol()).into()),
        });
        let mut names: Vec<TopicName> = single.chain(self.open()).collect();
        names.sort_unstable();
        names
    }
}

/// One topic: a channel of a symbol, in the order of the channels. Four bytes, since a gateway keeps one for each symbol
/// of each list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Topic(u32);

/// Bits of a symbol's place in the table; the channel stands above them.
const SYMBOL_BITS: u32 = 28;
const _: () = assert!(SYMBOLS_MAX < 1 << SYMBOL_BITS && Channel::ALL.len() <= 1 << (32 - SYMBOL_BITS));

impl Topic {
    /// This channel, never implied, of this symbol.
    pub const fn new(channel: Channel, symbol: Symbol) -> Self {
        Self((channel as u32) << SYMBOL_BITS | symbol.index() as u32)
    }

    /// The channel.
    pub fn channel(self) -> Channel {
        Channel::ALL[(self.0 >> SYMBOL_BITS) as usize]
    }

    /// The symbol.
    pub const fn symbol(self) -> Symbol {
        Symbol::at(self.0 & ((1 << SYMBOL_BITS) - 1))
    }

    /// Whether it is an image of fields.
    pub fn is_image(self) -> bool {
        self.channel() < Channel::Book
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topic").field(&self.channel()).field(&self.symbol()).finish()
    }
}

/// Why books so deep cannot be had of these topics, if one of them comes less deep from its feed.
pub fn too_deep(topics: &[Topic], depth: u16, symbols: &Symbols) -> Option<Refusal> {
    let books = topics.iter().filter(|topic| topic.channel() == Channel::Book);
    let least = books.filter_map(|topic| Some(symbols.listing(topic.symbol())?.carried.depth)).min()?;
    let message = || format!("depth: expected at most {least}, as its upstream gives this gateway");
    (depth > least).then(|| Refusal { code: Reason::NotCarried, message: message() })
}

/// A refusal that the client is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// `code` on the wire.
    pub code: Reason,
    /// What was wrong and what was expected.
    pub message: String,
}

impl Refusal {
    /// There is no such thing.
    pub fn unknown(what: &str) -> Self {
        Self { code: Reason::UnknownTopic, message: format!("no such {what}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickgate_feeds::market::FeedId;

    fn table() -> Symbols {
        let symbols = Symbols::new(10);
        let list = |name, channel| symbols.list(FeedId(0), name, channel).expect("room");
        let members =
            [list("VCB", Channel::Quote), list("VIC", Channel::Quote), list("VN30", Channel::Index)];
        list("FPT", Channel::Quote);
        symbols.set_group("VN30", &members);
        symbols
    }

    fn means(name: &str) -> Vec<String> {
        let symbols = table();
        let topics = TopicName::parse(name).and_then(|name| name.resolve(&symbols, 100));
        let text = |topic: &Topic| {
            format!("{}:{}", topic.channel().name(), symbols.listing(topic.symbol()).expect("listed").name)
        };
        topics.map_or_else(
            |refusal| vec![refusal.code.label().to_owned()],
            |topics| topics.iter().map(text).collect(),
        )
    }

    #[test]
    fn names_mean_what_the_contract_says() {
        assert_eq!(means("VCB"), ["quote:VCB"]);
        assert_eq!(means("VN30"), ["index:VN30"]);
        assert_eq!(means("@VN30"), ["quote:VCB", "quote:VIC", "index:VN30"]);
        assert_eq!(means("trade:@VN30"), ["trade:VCB", "trade:VIC"]);
        assert_eq!(means("V*"), ["quote:VCB", "quote:VIC", "index:VN30"]);
        assert_eq!(means("*"), ["quote:FPT", "quote:VCB", "quote:VIC", "index:VN30"]);
        assert_eq!(means("index:*"), ["index:VN30"]);
        assert_eq!(means("book:FPT"), ["book:FPT"]);
        let name = TopicName::parse("index:*").expect("a topic");
        assert_eq!(
            name.resolve(&table(), 1).map(|topics| topics.len()),
            Ok(1),
            "others do not take its room"
        );
    }

    #[test]
    fn what_is_asked_for_is_in_order_and_once_however_it_was_written() {
        let symbols = table();
        let asked = |texts: &[&str]| {
            let (mut single, mut open) = (Vec::new(), Vec::new());
            for text in texts {
                let name = TopicName::parse(text).expect(text);
                match name.is_open() {
                    true => open.push(name),
                    false => single.extend(name.resolve(&symbols, 1).expect(text)),
                }
            }
            Asked::new(single, open)
        };
        let names = |asked: &Asked| {
            let listings = symbols.listings_from(0);
            let names = asked.names(|symbol| &listings[symbol.index()].name);
            names.iter().map(TopicName::to_string).collect::<Vec<_>>()
        };
        let all = asked(&["trade:VCB", "VCB", "@VN30", "FPT", "quote:VCB", "V*", "index:VN30"]);
        assert_eq!(names(&all), ["FPT", "VCB", "VN30", "@VN30", "V*", "trade:VCB"]);
        let again = names(&all);
        assert_eq!(asked(&again.iter().map(String::as_str).collect::<Vec<_>>()), all);
        assert!(all.is_open() && asked(&["book:*"]).is_open() && !asked(&["FPT", "book:VCB"]).is_open());
        assert!(asked(&[]).is_empty() && asked(&[]).open().next().is_none() && !all.is_empty());
        let shortest = |text: &str| TopicName::parse(text).expect(text).shortest().to_string();
        assert_eq!(
            ["index:VN30", "book:VCB", "quote:@VN30"].map(shortest),
            ["VN30", "book:VCB", "quote:@VN30"]
        );
    }

    #[test]
    fn bad_names_get_their_reason() {
        for name in ["", "a b", "@", "x:VCB", "V*C", "@VN30*", "quote:", "\u{1b}[2J", &"A".repeat(65)] {
            assert_eq!(means(name), ["bad_topic"], "{name:?}");
        }
        for name in ["vcb", "@HNX30", "quote:VN30", "book:VN30"] {
            assert_eq!(means(name), ["unknown_topic"], "{name:?}");
        }
    }

    #[test]
    fn a_name_reads_back_as_it_was_written() {
        for name in ["VCB", "@VN30", "trade:V*", "*", "book:BTC-USD"] {
            assert_eq!(TopicName::parse(name).expect(name).to_string(), name);
        }
    }
}
