//! What `/v1/symbols` and `/v1/groups` of an upstream say besides what its rows say: groups, and price steps.
//!
//! Bound kept here: as many names as the answers have.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::feed::DecodeError;
use crate::market::{FeedId, Symbol};
use crate::symbols::{Steps, Symbols};

/// Groups and price steps, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    groups: Vec<Group>,
    steps: Vec<(String, Steps)>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
struct Group {
    group: String,
    symbols: Vec<String>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Listed {
    symbol: String,
    #[serde(default)]
    steps: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct AllListed {
    symbols: Vec<Listed>,
}

impl Directory {
    /// Reads the two answers.
    pub fn read(symbols: &mut [u8], groups: &mut [u8]) -> Result<Self, DecodeError> {
        let wrong = |what: &str, error: simd_json::Error| DecodeError(format!("{what}: {error}"));
        let listed: AllListed =
            simd_json::from_slice(symbols).map_err(|error| wrong("/v1/symbols", error))?;
        let groups: Groups = simd_json::from_slice(groups).map_err(|error| wrong("/v1/groups", error))?;
        let steps =
            listed.symbols.into_iter().filter_map(|listed| Some((listed.symbol, steps(&listed.steps)?)));
        Ok(Self { groups: groups.groups, steps: steps.collect() })
    }

    /// Sets groups and steps of the symbols that are known. The members that a group has of other feeds are left alone, and
    /// so is a group that is fixed.
    pub(super) fn apply(self, symbols: &Symbols, feed: FeedId, find: impl Fn(&str) -> Option<Symbol>) {
        for (name, steps) in self.steps {
            if let Some(symbol) = find(&name) {
                symbols.set_steps(symbol, steps);
            }
        }
        for Group { group, symbols: members } in self.groups {
            let mut members: Vec<Symbol> = members.iter().filter_map(|name| find(name)).collect();
            if members.is_empty() {
                continue;
            }
            let held = symbols.group(&group).unwrap_or_default();
            let is_others =
                |symbol: &&Symbol| symbols.listing(**symbol).is_some_and(|listing| listing.feed != feed);
            members.extend(held.iter().filter(is_others));
            members.sort_unstable();
            members.dedup();
            if *held != *members {
                symbols.set_group(&group, &members);
            }
        }
    }
}

fn steps(pairs: &[(String, String)]) -> Option<Steps> {
    let exact = |text: &String| Decimal::from_str_exact(text).ok();
    let pairs: Option<Vec<_>> =
        pairs.iter().map(|(from, width)| Some((exact(from)?, exact(width)?))).collect();
    pairs
        .filter(|pairs| !pairs.is_empty() && pairs.is_sorted_by(|one, next| one.0 < next.0))
        .map(|pairs| Steps::new(&pairs))
}
