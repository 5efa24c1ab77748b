//! Filters as a client understands them from the contract: each beside a function that says the same.

use tickgate_feeds::symbols::Symbols;

use super::history::{Fields, History};

/// A filter that clients of the world ask for.
#[derive(Debug)]
pub struct Reference {
    pub text: &'static str,
    /// Whether it has a field of an index; of a quote it has one unless it is about trades.
    of_indices: bool,
    /// Whether it is about trades, and about nothing else.
    pub of_trades: bool,
    /// Rows are held back until something has moved.
    pub waits: bool,
    /// Whether an image is let through.
    takes: fn(&Fields) -> bool,
}

const fn images(text: &'static str, of_indices: bool, waits: bool, takes: fn(&Fields) -> bool) -> Reference {
    Reference { text, of_indices, of_trades: false, waits, takes }
}

pub const FILTERS: [Reference; 7] = [
    images("last >= 250 or last == null", true, false, |image| {
        number(image, "last").is_none_or(|last| last >= 250.0)
    }),
    images("bid < 25 and ask == null", false, false, |image| {
        number(image, "bid").is_some_and(|bid| bid < 25.0) && number(image, "ask").is_none()
    }),
    images("phase != 'continuous'", true, false, |image| {
        !["null", "\"continuous\""].contains(&image["phase"].as_str())
    }),
    images("not (last > 100) and state == 'live'", true, false, |image| {
        number(image, "last").is_none_or(|last| last <= 100.0) && image["state"] == "\"live\""
    }),
    images("move(last) >= 100", true, true, |_| true),
    images("last > 50 and (changed(phase) or move(last) >= 10 %)", true, true, |image| {
        number(image, "last").is_some_and(|last| last > 50.0)
    }),
    Reference { text: "price >= 250", of_indices: false, of_trades: true, waits: false, takes: |_| true },
];

fn number(image: &Fields, field: &str) -> Option<f64> {
    image.get(field)?.parse().ok()
}

impl Reference {
    pub fn named(text: &str) -> &'static Self {
        FILTERS.iter().find(|filter| filter.text == text).expect("a filter that was asked for")
    }

    pub fn takes(&self, image: &Fields) -> bool {
        let is_index = image.contains_key("advances");
        is_index && !self.of_indices || (self.takes)(image)
    }

    pub fn takes_trade(&self, price: u32) -> bool {
        !self.of_trades || price >= 250
    }
}

/// Images among these topics that have not changed after `rev`: whether each has to be held at `rev`.
pub fn expected<'a>(
    filter: &'static Reference,
    topics: impl Iterator<Item = &'a str>,
    rev: u64,
    history: &History,
    symbols: &Symbols,
) -> Vec<(String, bool)> {
    let topics: Vec<&str> = topics.collect();
    let mut expected = Vec::new();
    let third = symbols.group("THIRD").expect("a group");
    for listing in symbols.listings_from(0) {
        let means = |topic: &&str| match *topic {
            "@THIRD" => third.iter().any(|member| symbols.find(&listing.name) == Some(*member)),
            topic => topic.strip_suffix('*').map_or(topic == &*listing.name, |p| listing.name.starts_with(p)),
        };
        let symbol = symbols.find(&listing.name).expect("listed");
        if let Some((_, image)) = history.at(symbol, rev).filter(|_| topics.iter().any(means))
            && history.since(symbol, rev).next().is_none()
        {
            expected.push((listing.name.to_string(), filter.takes(image)));
        }
    }
    expected
}
