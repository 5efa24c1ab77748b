//! Opens the feeds that the configuration names, and the groups it adds to theirs.
//!
//! Bound kept here: as many feeds as a feed's number can tell apart.

use std::sync::Arc;

use tickgate_feeds::capture::Plan;
use tickgate_feeds::feed::Source;
use tickgate_feeds::market::FeedId;
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::synthetic::Synthetic;

use super::config::Config;

/// Why a gateway could not be built, in one line for the operator.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for cannot be.
    Usage(String),
    /// It could be, but not here and now: a port is taken, a file is missing.
    Unavailable(String),
}

/// A source under the name that operators see.
pub type Named = (String, Box<dyn Source>);

/// Opens every feed and sets every group.
pub fn open(config: &Config, symbols: &Arc<Symbols>) -> Result<Vec<Named>, Failure> {
    let mut sources: Vec<Named> = Vec::new();
    for (at, text) in config.feeds.iter().enumerate() {
        let id = u16::try_from(at).map_err(|_| Failure::Usage("feeds: expected at most 65,536".into()))?;
        let spec = Spec::parse(text).map_err(Failure::Usage)?;
        let source = open_one(&spec, text, symbols, FeedId(id))?;
        let name = format!("{}:{}", spec.kind, spec.path.rsplit('/').next().unwrap_or_default());
        let taken = sources.iter().filter(|(other, _)| other.split('#').next() == Some(&name)).count();
        sources.push((if taken == 0 { name } else { format!("{name}#{}", taken + 1) }, source));
    }
    set_groups(config, symbols).map_err(Failure::Usage)?;
    Ok(sources)
}

fn open_one(spec: &Spec, text: &str, symbols: &Arc<Symbols>, id: FeedId) -> Result<Box<dyn Source>, Failure> {
    match spec.kind.as_str() {
        "synthetic" => Ok(Box::new(Synthetic::from_spec(spec, symbols, id).map_err(Failure::Usage)?)),
        "capture" => {
            let plan = Plan::from_spec(spec, symbols, id).map_err(Failure::Usage)?;
            Ok(Box::new(plan.open().map_err(Failure::Unavailable)?))
        }
        other => {
            Err(Failure::Usage(format!("feed kind {other:?} in {text:?}: expected synthetic or capture")))
        }
    }
}

fn set_groups(config: &Config, symbols: &Symbols) -> Result<(), String> {
    for (group, members) in &config.groups {
        let find = |name: &String| {
            symbols.find(name).ok_or_else(|| format!("groups.{group}: no feed has a symbol {name:?}"))
        };
        let found = members.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        symbols.set_group(group, &found);
    }
    Ok(())
}
