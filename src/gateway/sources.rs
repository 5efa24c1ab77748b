//! Opens the feeds that the configuration names, and the groups it adds to theirs.
//!
//! Bound kept here: as many feeds as a feed's number can tell apart.

use std::sync::Arc;

use tickgate_feeds::capture;
use tickgate_feeds::feed::Source;
use tickgate_feeds::market::FeedId;
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::synthetic::Synthetic;
use tickgate_feeds::tickgate::Plan;

use super::config::Config;
use crate::flow::adapter::endpoint::Endpoint;

/// Why a gateway could not be built, in one line for the operator.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for cannot be.
    Usage(String),
    /// It could be, but not here and now: a port is taken, a file is missing.
    Unavailable(String),
}

/// A feed that can be opened without asking anybody.
pub enum Opened {
    /// A source.
    Source(Box<dyn Source>),
    /// Another gateway, which is not asked yet.
    Upstream(Plan),
}

/// Opens every feed, under the names that operators see.
pub fn open(config: &Config, symbols: &Arc<Symbols>) -> Result<Vec<(String, Opened)>, Failure> {
    let mut feeds: Vec<(String, Opened)> = Vec::new();
    for (at, text) in config.feeds.iter().enumerate() {
        let id = u16::try_from(at).map_err(|_| Failure::Usage("feeds: expected at most 65,536".into()))?;
        let spec = Spec::parse(text).map_err(Failure::Usage)?;
        let feed = open_one(&spec, text, symbols, FeedId(id))?;
        let name = name(&spec);
        let taken = feeds.iter().filter(|(other, _)| other.split('#').next() == Some(&name)).count();
        feeds.push((if taken == 0 { name } else { format!("{name}#{}", taken + 1) }, feed));
    }
    Ok(feeds)
}

/// What operators call a feed: its kind and the last part of its path, or the address of another gateway.
fn name(spec: &Spec) -> String {
    let path = spec.path.strip_prefix("ws://").map(|address| address.split('/').next().unwrap_or_default());
    format!("{}:{}", spec.kind, path.unwrap_or_else(|| spec.path.rsplit('/').next().unwrap_or_default()))
}

fn open_one(spec: &Spec, text: &str, symbols: &Arc<Symbols>, id: FeedId) -> Result<Opened, Failure> {
    match spec.kind.as_str() {
        "synthetic" => {
            let source = Synthetic::from_spec(spec, symbols, id).map_err(Failure::Usage)?;
            Ok(Opened::Source(Box::new(source)))
        }
        "capture" => {
            let plan = capture::Plan::from_spec(spec, symbols, id).map_err(Failure::Usage)?;
            Ok(Opened::Source(Box::new(plan.open().map_err(Failure::Unavailable)?)))
        }
        "tickgate" => {
            let plan = Plan::from_spec(spec).map_err(Failure::Usage)?;
            Endpoint::parse(&plan.url).map_err(Failure::Usage)?;
            Ok(Opened::Upstream(plan))
        }
        other => Err(Failure::Usage(format!(
            "feed kind {other:?} in {text:?}: expected synthetic, capture or tickgate"
        ))),
    }
}

/// Sets the groups of the configuration, for good. What an upstream has is known when it has told.
pub fn set_groups(config: &Config, symbols: &Symbols) -> Result<(), String> {
    for (group, members) in &config.groups {
        let find = |name: &String| {
            symbols.find(name).ok_or_else(|| format!("groups.{group}: no feed has a symbol {name:?}"))
        };
        let found = members.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        symbols.fix_group(group, &found);
    }
    Ok(())
}
