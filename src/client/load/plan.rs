//! What each client of a load is: its address, its topics, its part in the load. Pure: the same arguments and seed
//! give the same clients.
//!
//! Bound: the list of symbols is held once; a client's own topics exist only while its request is written.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::random::Random;
use crate::flow::adapter::endpoint::Endpoint;

/// Names that one pattern may stand for: what a gateway may have at most.
const NAMES_MAX: usize = 200_000;

/// Connections from one source address to one server address. The kernel has 28,232 ephemeral ports for each such
/// pair by default; the rest is left to whatever else runs.
const CLIENTS_PER_SOURCE: usize = 25_000;

/// The first port of a source address that we choose. Chosen, because a bind that leaves the port to the kernel
/// searches longer with each one taken: 18,000 clients took 20 s that way.
const FIRST_PORT: u16 = 10_000;

/// What the names of the embedded load feed begin with; a number follows, as wide as the count of symbols is.
const LOAD_BASE: &str = "L";

/// How a client says what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Subscribe {
    /// A JSON command after the handshake.
    Message,
    /// The query of the URL: wanted at the handshake already, at most 8 KiB.
    Url,
}

/// Everything that the clients are made from.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) endpoint: Endpoint,
    pub(super) server: SocketAddr,
    pub(super) clients: usize,
    pub(super) topics: Vec<String>,
    /// Topics of each client, picked by chance; `None` is all of them.
    pub(super) pick: Option<usize>,
    pub(super) seed: u64,
    pub(super) subscribe: Subscribe,
    pub(super) rate: Option<f64>,
    /// Further members of the subscribe command, from `--with`.
    pub(super) with: serde_json::Map<String, serde_json::Value>,
    pub(super) stalled: f64,
    pub(super) sample: usize,
    pub(super) source: Option<Ipv4Addr>,
}

impl Plan {
    /// Whether client `index` stops reading once it has subscribed; the share is spread evenly over the clients.
    pub(super) fn is_stalled(&self, index: usize) -> bool {
        let reached = |count: usize| (count as f64 * self.stalled).floor();
        reached(index + 1) > reached(index)
    }

    /// Whether the sequence numbers of client `index` are checked.
    pub(super) fn is_sampled(&self, index: usize) -> bool {
        index.is_multiple_of(self.sample)
    }

    /// The address that client `index` connects from; `None` leaves it to the kernel.
    pub(super) fn source(&self, index: usize) -> Option<SocketAddr> {
        let step = (index / CLIENTS_PER_SOURCE) as u32;
        let first = match (self.source, self.server.ip()) {
            (Some(first), _) => first,
            (None, IpAddr::V4(server)) if server.is_loopback() && step > 0 => Ipv4Addr::LOCALHOST,
            _ => return None,
        };
        let port = FIRST_PORT + (index % CLIENTS_PER_SOURCE) as u16;
        Some(SocketAddr::from((Ipv4Addr::from(u32::from(first) + step), port)))
    }

    fn topics_of(&self, index: usize) -> Vec<&str> {
        match self.pick {
            None => self.topics.iter().map(String::as_str).collect(),
            Some(pick) => {
                let mut random = Random::new(self.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9));
                random.distinct(pick, self.topics.len()).iter().map(|&at| self.topics[at].as_str()).collect()
            }
        }
    }

    /// The path of client `index`'s request.
    pub(super) fn path(&self, index: usize) -> String {
        if self.subscribe == Subscribe::Message || self.topics.is_empty() {
            return self.endpoint.path.clone();
        }
        let rate = self.rate.map_or_else(String::new, |rate| format!("&rate={rate}"));
        self.endpoint.path_with(&format!("symbols={}{rate}", self.topics_of(index).join(",")))
    }

    /// The command that client `index` sends after the handshake, if any.
    pub(super) fn command(&self, index: usize) -> Option<String> {
        if self.subscribe == Subscribe::Url || self.topics.is_empty() {
            return None;
        }
        let mut command = self.with.clone();
        command.insert("action".into(), "subscribe".into());
        command.insert("topics".into(), self.topics_of(index).into());
        if let Some(rate) = self.rate {
            command.insert("rate".into(), rate.into());
        }
        Some(serde_json::Value::Object(command).to_string())
    }
}

/// Reads `--symbols`: `none`, names with commas, `load:1000`, or `BASE{000..999}SUFFIX`.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty() && *part != "none") {
        if let Some(count) = part.strip_prefix("load:") {
            let count: usize = count.parse().map_err(|_| format!("{part}: expected load:NUMBER"))?;
            let width = count.to_string().len();
            extend(&mut all, 0..=count.saturating_sub(1), |number| format!("{LOAD_BASE}{number:0width$}"))?;
        } else if let Some((base, rest)) = part.split_once('{') {
            let bad = || format!("{part}: expected a pattern like S{{000..999}}");
            let (range, suffix) = rest.split_once('}').ok_or_else(bad)?;
            let (first, last) = range.split_once("..").ok_or_else(bad)?;
            let width = first.len();
            let (first, last): (usize, usize) =
                (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
            extend(&mut all, first..=last, |number| format!("{base}{number:0width$}{suffix}"))?;
        } else {
            all.push(part.to_owned());
        }
    }
    Ok(all)
}

fn extend(
    all: &mut Vec<String>,
    range: std::ops::RangeInclusive<usize>,
    name: impl Fn(usize) -> String,
) -> Result<(), String> {
    if range.end().saturating_sub(*range.start()) >= NAMES_MAX {
        return Err(format!("--symbols: at most {NAMES_MAX} names"));
    }
    all.extend(range.map(name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(symbols: &str, pick: Option<usize>) -> Plan {
        Plan {
            endpoint: Endpoint::parse("ws://127.0.0.1:9/ws").unwrap(),
            server: "127.0.0.1:9".parse().unwrap(),
            clients: 10,
            topics: names(symbols).unwrap(),
            pick,
            seed: 1,
            subscribe: Subscribe::Message,
            rate: Some(10.0),
            with: serde_json::Map::new(),
            stalled: 0.1,
            sample: 4,
            source: None,
        }
    }

    #[test]
    fn names_are_expanded() {
        assert_eq!(names("VCB, @VN30").unwrap(), ["VCB", "@VN30"]);
        assert_eq!(names("S{08..10}X").unwrap(), ["S08X", "S09X", "S10X"]);
        let load = names("load:1000").unwrap();
        assert_eq!((load.len(), load[0].as_str(), load[999].as_str()), (1000, "L0000", "L0999"));
        assert!(names("none").unwrap().is_empty());
        assert!(names("load:x").is_err() && names("S{1").is_err() && names("load:900000").is_err());
    }

    #[test]
    fn a_client_asks_for_its_own_pick() {
        let plan = plan("load:100", Some(3));
        let command = plan.command(5).unwrap();
        let value: serde_json::Value = serde_json::from_str(&command).unwrap();
        assert_eq!(value["topics"].as_array().unwrap().len(), 3);
        assert_eq!(value["rate"], 10.0);
        assert_eq!(plan.command(5), Some(command));
        assert_ne!(plan.command(5), plan.command(6));
        let plan = Plan { subscribe: Subscribe::Url, ..plan };
        assert_eq!(plan.command(5), None);
        assert!(plan.path(5).starts_with("/ws?symbols=L"), "{}", plan.path(5));
        assert!(plan.path(5).ends_with("&rate=10"));
    }

    #[test]
    fn shares_and_sources_are_spread() {
        let plan = plan("A", None);
        assert_eq!((0..1000).filter(|&index| plan.is_stalled(index)).count(), 100);
        assert_eq!(plan.source(0), None);
        assert_eq!(plan.source(60_000), Some("127.0.0.3:20000".parse().unwrap()));
    }
}
