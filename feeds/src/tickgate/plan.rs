//! What `tickgate:ws://host:port?...` asks another gateway for.
//!
//! Bound kept here: that of a spec.

use std::time::Duration;

use simd_json::prelude::ValueAsScalar;
use simd_json::tape::Value;

use crate::market::Channel;
use crate::spec::Spec;
use crate::symbols::{Carried, is_name};

/// Options of `tickgate:URL?...`.
const OPTIONS: [&str; 4] = ["symbols", "books", "bars", "silence_ms"];
/// Levels of a side of a book when nothing is said: what clients get who say nothing.
const DEPTH: u16 = 10;
/// The most that a gateway gives.
const DEPTH_MAX: u16 = 1_000;
/// A digest that no batch has: two subscriptions that differ in it differ in nothing that is sent.
const NO_DIGEST: u32 = u32::MAX;

/// What is asked of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it is, as it was written.
    pub url: String,
    /// How long it may say nothing; `None` for two and a half of its own heartbeats.
    pub silence: Option<Duration>,
    symbols: Vec<String>,
    depth: u16,
    bars: Vec<Channel>,
}

impl Plan {
    /// What a spec says; nobody is asked yet.
    pub fn from_spec(spec: &Spec) -> Result<Self, String> {
        spec.only(&OPTIONS)?;
        let url = spec.path_of("the address of another gateway, such as ws://127.0.0.1:8080")?.to_owned();
        let expected = "symbols, @groups, prefixes* with commas between, or *";
        let symbols = spec.read("symbols", vec!["*".to_owned()], expected, |text| {
            let names: Vec<String> = text.split(',').map(str::to_owned).collect();
            names.iter().all(|name| is_target(name)).then_some(names)
        })?;
        let bars = spec.read("bars", Vec::new(), "some of 1s, 1m, 5m, 1h with commas between", |text| {
            let named = |length| Channel::named(&format!("bar_{length}"));
            text.split(',').filter(|length| !length.is_empty()).map(named).collect()
        })?;
        let silence_ms = spec.number("silence_ms", 0u64, 100, 60_000)?;
        Ok(Self {
            url,
            silence: (silence_ms > 0).then(|| Duration::from_millis(silence_ms)),
            symbols,
            depth: spec.number("books", DEPTH, 0, DEPTH_MAX)?,
            bars,
        })
    }

    /// What there is of its symbols here.
    pub fn carried(&self) -> Carried {
        let books = (self.depth > 0).then_some(Channel::Book);
        let always = [Channel::Quote, Channel::Index, Channel::Trade, Channel::Status];
        Carried::only(always.into_iter().chain(books).chain(self.bars.iter().copied()), self.depth)
    }

    /// The command that subscribes; from the revision up to which all is held, if it is not 0.
    pub(super) fn subscribe(&self, sub: &str, epoch: &str, rev: u64) -> String {
        let channels = [Channel::Trade, Channel::Status].into_iter();
        let channels =
            channels.chain((self.depth > 0).then_some(Channel::Book)).chain(self.bars.iter().copied());
        let own = self.symbols.iter().map(|symbol| format!("\"{symbol}\""));
        let others = channels.flat_map(|channel| {
            self.symbols.iter().map(move |symbol| format!("\"{}:{symbol}\"", channel.name()))
        });
        let topics: Vec<String> = own.chain(others).collect();
        let depth = self.depth.max(1);
        let since = match rev {
            0 => String::new(),
            // Without `wish`: it is the same subscription always.
            rev => format!(",\"since\":{{\"epoch\":\"{epoch}\",\"rev\":{rev}}}"),
        };
        format!(
            "{{\"action\":\"subscribe\",\"sub\":\"{sub}\",\"topics\":[{}],\"mode\":\"every\",\"decimals\":\"string\",\
             \"depth\":{depth}{since}}}",
            topics.join(",")
        )
    }

    /// The command that asks where the stream stands: an update that changes nothing that is sent.
    pub(super) fn ask_again(&self, sub: &str, times: u64) -> String {
        let digest = if times.is_multiple_of(2) { NO_DIGEST - 1 } else { NO_DIGEST };
        format!("{{\"action\":\"update\",\"sub\":\"{sub}\",\"digest\":{digest}}}")
    }

    /// The first topic that was refused although it was meant; an index has no book, and that is no fault.
    pub(super) fn refused(&self, answer: &Value<'_, '_>) -> Option<String> {
        let rejected = answer.get("rejected").and_then(|rejected| rejected.as_array())?;
        let told = |rejected: &Value<'_, '_>, key: &str| {
            rejected.get(key).and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
        };
        let mut refusals =
            rejected.iter().map(|rejected| (told(&rejected, "topic"), told(&rejected, "code")));
        let is_meant =
            |(topic, code): &(String, String)| code != "unknown_topic" || self.symbols.contains(topic);
        let (topic, code) = refusals.find(is_meant)?;
        let advice = match code.as_str() {
            "topic_limit" => {
                ": its limits.topics_per_session_max must allow four for each symbol, and one for each of bars"
            }
            _ => "",
        };
        Some(format!("{topic} with {code}{advice}"))
    }
}

/// Whether this names symbols: one, a group, all that begin so, or all.
fn is_target(text: &str) -> bool {
    let name = text.strip_prefix('@').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    is_name(name) || text == "*"
}
