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

/// A source under the name that operators see.
pub type Named = (String, Box<dyn Source>);

/// Where updates come from.
pub enum Feeds {
    /// Sources, whose updates are numbered here.
    Own(Vec<Named>),
    /// Another gateway, under the name that operators see: its epoch and its revisions are those of this one.
    Adopted(String, Plan),
}

/// Opens every feed and sets every group; another gateway is not asked yet.
pub fn open(config: &Config, symbols: &Arc<Symbols>) -> Result<Feeds, Failure> {
    let mut sources: Vec<Named> = Vec::new();
    for (at, text) in config.feeds.iter().enumerate() {
        let id = u16::try_from(at).map_err(|_| Failure::Usage("feeds: expected at most 65,536".into()))?;
        let spec = Spec::parse(text).map_err(Failure::Usage)?;
        if spec.kind == "tickgate" {
            let plan = Plan::from_spec(&spec).map_err(Failure::Usage)?;
            Endpoint::parse(&plan.url).map_err(Failure::Usage)?;
            if config.feeds.len() > 1 {
                let error = format!(
                    "feed {text:?}: expected no other feed beside another gateway, as its revisions are taken over"
                );
                return Err(Failure::Usage(error));
            }
            return Ok(Feeds::Adopted(name(&spec), plan));
        }
        let source = open_one(&spec, text, symbols, FeedId(id))?;
        let name = name(&spec);
        let taken = sources.iter().filter(|(other, _)| other.split('#').next() == Some(&name)).count();
        sources.push((if taken == 0 { name } else { format!("{name}#{}", taken + 1) }, source));
    }
    set_groups(config, symbols).map_err(Failure::Usage)?;
    Ok(Feeds::Own(sources))
}

/// What operators call a feed: its kind and the last part of its path, or the address of another gateway.
fn name(spec: &Spec) -> String {
    let path = spec.path.strip_prefix("ws://").map(|address| address.split('/').next().unwrap_or_default());
    format!("{}:{}", spec.kind, path.unwrap_or_else(|| spec.path.rsplit('/').next().unwrap_or_default()))
}

fn open_one(spec: &Spec, text: &str, symbols: &Arc<Symbols>, id: FeedId) -> Result<Box<dyn Source>, Failure> {
    match spec.kind.as_str() {
        "synthetic" => Ok(Box::new(Synthetic::from_spec(spec, symbols, id).map_err(Failure::Usage)?)),
        "capture" => {
            let plan = capture::Plan::from_spec(spec, symbols, id).map_err(Failure::Usage)?;
            Ok(Box::new(plan.open().map_err(Failure::Unavailable)?))
        }
        other => Err(Failure::Usage(format!(
            "feed kind {other:?} in {text:?}: expected synthetic, capture or tickgate"
        ))),
    }
}

/// Sets the groups that the configuration adds to those of the feeds.
pub fn set_groups(config: &Config, symbols: &Symbols) -> Result<(), String> {
    for (group, members) in &config.groups {
        let find = |name: &String| {
            symbols.find(name).ok_or_else(|| format!("groups.{group}: no feed has a symbol {name:?}"))
        };
        let found = members.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        symbols.set_group(group, &found);
    }
    Ok(())
}
