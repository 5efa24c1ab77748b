//! Another gateway as an upstream: what is asked of it, and what its messages mean.
//!
//! A [`Peer`] is handed messages and says what to do. What it was told is staged until a batch names a revision that
//! covers every row so far: then all of it is one [`Told`], whole up to that revision, and whoever takes it may claim no
//! more and no less than the upstream did. What was staged when a connection ends is dropped: the next one goes on from
//! the last revision that was whole.
//!
//! Bounds kept here: [`STAGED_MAX`] rows and gaps are staged; one number for each name that was ever told.

mod directory;
mod plan;
mod row;
mod retelling;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use simd_json::prelude::{ValueAsScalar, ValueIntoString};
use simd_json::tape::Value;

pub use self::directory::Directory;
pub use self::plan::Plan;
pub use self::retelling::Retelling;
pub use self::row::{Body, Gap, Image, Row};
use crate::feed::DecodeError;
use crate::market::{Channel, FeedId, State, Symbol};
use crate::symbols::{Carried, Refused, Symbols};

/// Rows and gaps that may wait for the end of a picture: one of 200,000 symbols with their books, trades and bars.
const STAGED_MAX: usize = 1 << 20;
/// Gateways between the source and this one: more are a mistake in somebody's configuration.
pub const PATH_MAX: usize = 8;
/// The name of the one subscription.
const SUB: &str = "edge";

/// A name that the upstream uses, and what it became here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// As it is written.
    pub text: Arc<str>,
    /// Quote or index.
    pub channel: Channel,
    /// Listed here, or why not; `None` until the table was asked.
    pub symbol: Option<Result<Symbol, Refused>>,
}

/// One thing that the upstream told.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A row.
    Row(Row),
    /// A loss.
    Gap(Gap),
}

impl Item {
    /// Items of equal revisions stand in the order in which they were told.
    fn rev(&self) -> u64 {
        match self {
            Self::Row(row) => row.rev,
            Self::Gap(gap) => gap.rev,
        }
    }
}

/// What an upstream told, whole up to a revision: in the order of its frames, with losses before what they precede.
#[derive(Debug, Default)]
pub struct Told {
    /// Names the run of revisions.
    pub epoch: Arc<str>,
    /// The gateways from the source to the upstream, by the names that they gave themselves.
    pub path: Vec<String>,
    /// Every change up to here is told.
    pub rev: u64,
    /// News since the last one.
    pub items: Vec<Item>,
    /// Every name so far; items name them by position.
    pub names: Vec<Name>,
    /// Groups and price steps, where they were read anew.
    pub directory: Option<Directory>,
    /// Which channels the upstream was asked for, and how deep.
    pub carried: Carried,
    by_name: HashMap<Arc<str>, u32>,
    feed: FeedId,
}

impl Told {
    /// Lists the names that are new in the table; to be called when nobody can look at the table between this and the
    /// taking of their rows.
    pub fn list(&mut self, symbols: &Symbols) {
        for name in self.names.iter_mut().filter(|name| name.symbol.is_none()) {
            let listed = symbols.list(self.feed, &name.text, name.channel);
            if let Ok(symbol) = listed {
                symbols.set_carried(symbol, self.carried);
            }
            name.symbol = Some(listed);
        }
        if let Some(directory) = self.directory.take() {
            directory.apply(symbols, self.feed, |name| self.find(name));
        }
    }

    /// Takes the news out, in the order of their revisions: whole images come first in a frame, in that of their names.
    pub fn take(&mut self) -> Vec<Item> {
        self.items.sort_by_key(Item::rev);
        std::mem::take(&mut self.items)
    }

    /// The symbol that a name became here.
    pub fn find(&self, name: &str) -> Option<Symbol> {
        self.symbol(*self.by_name.get(name)?)
    }

    /// The symbol of the name at this position.
    pub fn symbol(&self, at: u32) -> Option<Symbol> {
        self.names.get(at as usize)?.symbol?.ok()
    }

    /// How many names were refused.
    pub fn refused(&self) -> usize {
        self.names.iter().filter(|name| matches!(name.symbol, Some(Err(_)))).count()
    }

    /// The position of a name, which is new if `channel` says what it would be.
    fn position(&mut self, text: &str, channel: Option<Channel>) -> Option<u32> {
        if let Some(&at) = self.by_name.get(text) {
            return Some(at);
        }
        let (at, text) = (self.names.len() as u32, Arc::<str>::from(text));
        self.names.push(Name { text: Arc::clone(&text), channel: channel?, symbol: None });
        self.by_name.insert(text, at);
        Some(at)
    }
}

/// What is to be done after a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// This is to be sent.
    Say(String),
    /// [`Peer::told`] is whole.
    Whole,
    /// How well the upstream itself knows the market.
    Link(State),
    /// The upstream ends: come back after so many milliseconds.
    Drain(u64),
    /// A new connection is needed, for this reason.
    Again(String),
}

/// Where a connection stands.
#[derive(Debug, Default)]
struct Place {
    stream: u64,
    seq: Option<u64>,
    /// The newest revision among what is staged.
    newest: u64,
    /// A frame with `more` was the last.
    more: bool,
}

/// The conversation with an upstream, over all its connections.
#[derive(Debug)]
pub struct Peer {
    plan: Plan,
    /// This gateway's own name, to be found in no upstream's path.
    node: String,
    told: Told,
    place: Option<Place>,
    heartbeat_ms: u64,
    simulated: Option<bool>,
    /// `ts_us` of the last message that had one.
    ts_us: Option<i64>,
    rejected: u64,
    /// How often it was asked where its stream stands.
    asked: u64,
}

impl Peer {
    /// Nothing heard yet. `node` is this gateway's own name.
    pub fn new(plan: Plan, feed: FeedId, node: String) -> Self {
        let told = Told { feed, carried: plan.carried(), ..Told::default() };
        Self {
            plan,
            node,
            told,
            place: None,
            heartbeat_ms: 3_000,
            simulated: None,
            ts_us: None,
            rejected: 0,
            asked: 0,
        }
    }

    /// What is asked for.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What was told since it was taken last.
    pub fn told(&mut self) -> &mut Told {
        &mut self.told
    }

    /// The upstream's heartbeat interval in milliseconds.
    pub fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms
    }

    /// Whether the upstream's prices are made up; false before it said so.
    pub fn simulated(&self) -> bool {
        self.simulated.unwrap_or(false)
    }

    /// When the last message was made, by the upstream's clock, in microseconds; each is told once.
    pub fn take_ts_us(&mut self) -> Option<i64> {
        self.ts_us.take()
    }

    /// Topics that the upstream would not give so far, those it gave before included.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Whether everything that this connection has told so far is whole.
    pub fn is_level(&self) -> bool {
        self.told.items.is_empty()
            && self.place.as_ref().is_some_and(|place| place.seq.is_some() && !place.more)
    }

    /// A connection ended: what was not whole is forgotten.
    pub fn disconnected(&mut self) {
        self.place = None;
        self.told.items.clear();
    }

    /// Takes one message. An error is a message that could not be understood; nothing of it counts.
    pub fn hear(&mut self, raw: &mut [u8]) -> Result<Heard, DecodeError> {
        let tape = simd_json::to_tape(raw).map_err(|error| DecodeError(format!("not JSON: {error}")))?;
        let message = tape.as_value();
        self.ts_us = message.get("ts_us").and_then(|ts_us| ts_us.as_i64()).or(self.ts_us);
        match text(&message, "type")? {
            "welcome" => self.welcome(&message),
            "subscribed" | "updated" => self.subscribed(&message),
            "batch" => self.batch(&message),
            "heartbeat" => Ok(self.heartbeat(&message)),
            "link" => {
                let name = text(&message, "state")?;
                let state = State::ALL.iter().find(|state| state.name() == name);
                Ok(Heard::Link(state.copied().unwrap_or(State::Suspect)))
            }
            "error" => Ok(Heard::Again(format!(
                "it says {}: {}",
                text(&message, "code")?,
                text(&message, "message").unwrap_or_default()
            ))),
            "drain" => Ok(Heard::Drain(number(&message, "reconnect_in_ms")?)),
            _ => Ok(Heard::Nothing),
        }
    }

    fn welcome(&mut self, message: &Value<'_, '_>) -> Result<Heard, DecodeError> {
        let epoch = text(message, "epoch")?;
        let path = message.get("path").and_then(|path| path.as_array());
        let path: Vec<String> = path
            .map(|path| path.iter().filter_map(|node| node.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        if path.contains(&self.node) {
            return Ok(Heard::Again("it takes its updates from this gateway: a loop".to_owned()));
        }
        if path.len() >= PATH_MAX {
            return Ok(Heard::Again(format!(
                "it is {} gateways from the source, at most {PATH_MAX}",
                path.len()
            )));
        }
        let simulated = flag(message, "simulated");
        if *self.simulated.get_or_insert(simulated) != simulated {
            let now = if simulated { "simulated" } else { "not simulated" };
            return Ok(Heard::Again(format!("its prices are {now} from now on: start this gateway anew")));
        }
        self.heartbeat_ms = number(message, "heartbeat_ms")?.clamp(100, 30_000);
        if *self.told.epoch != *epoch {
            (self.told.epoch, self.told.rev) = (epoch.into(), 0);
        }
        self.told.path = path;
        Ok(Heard::Say(self.plan.subscribe(SUB, &self.told.epoch, self.told.rev)))
    }

    fn subscribed(&mut self, message: &Value<'_, '_>) -> Result<Heard, DecodeError> {
        if let Some(refused) = self.plan.refused(message) {
            return Ok(Heard::Again(format!("it refuses {refused}")));
        }
        let (stream, seq) = (number(message, "stream")?, number(message, "seq")?);
        let has_picture = text(message, "type")? == "updated"
            || ["exact", "conflated"].contains(&text(message, "recovered").unwrap_or_default());
        let before = self.place.take();
        self.place = Some(Place { stream, seq: has_picture.then_some(seq), ..before.unwrap_or_default() });
        if !has_picture {
            // What came before the picture is not to be had here.
            let rev = number(message, "rev")?;
            row::begin(&mut self.told, message, rev)?;
        }
        Ok(Heard::Nothing)
    }

    fn batch(&mut self, message: &Value<'_, '_>) -> Result<Heard, DecodeError> {
        let Some(place) = &mut self.place else { return Ok(Heard::Nothing) };
        if number(message, "stream")? != place.stream {
            return Ok(Heard::Nothing);
        }
        if text(message, "epoch").is_ok_and(|epoch| *epoch != *self.told.epoch) {
            return Ok(Heard::Again("it began a new epoch".to_owned()));
        }
        let prev = message.get("prev").and_then(|prev| prev.as_u64());
        if prev != place.seq {
            return Ok(Heard::Again("a frame is missing".to_owned()));
        }
        (place.seq, place.more) = (Some(number(message, "seq")?), flag(message, "more"));
        let rev = number(message, "rev")?;
        place.newest = place.newest.max(row::read(&mut self.told, message)?);
        if self.told.items.len() > STAGED_MAX {
            return Ok(Heard::Again(format!(
                "more than {STAGED_MAX} rows before a revision that covers them"
            )));
        }
        let refused = message.get("rejected").and_then(|rejected| rejected.as_array());
        self.rejected += refused.map_or(0, |rejected| rejected.len() as u64);
        Ok(self.cover(rev))
    }

    /// Everything up to `rev` has come: is that all that has come?
    fn cover(&mut self, rev: u64) -> Heard {
        if self.place.as_ref().is_none_or(|place| place.more || place.newest > rev) {
            return Heard::Nothing;
        }
        let held = std::mem::replace(&mut self.told.rev, rev);
        row::number_gaps(&mut self.told.items, held, rev);
        Heard::Whole
    }

    fn heartbeat(&mut self, message: &Value<'_, '_>) -> Heard {
        let Some(place) = &self.place else { return Heard::Nothing };
        let told = message.get("streams").and_then(|streams| streams.get(place.stream.to_string().as_str()));
        let Some(seq) = told.and_then(|told| told.get("seq")?.as_u64()) else { return Heard::Nothing };
        if place.seq.is_some_and(|held| held != seq) {
            return Heard::Again("a frame is missing".to_owned());
        }
        if place.more || place.seq.is_none() {
            return Heard::Nothing;
        }
        let rev = told.and_then(|told| told.get("rev")?.as_u64()).unwrap_or(0);
        if rev > self.told.rev && self.cover(rev) == Heard::Whole {
            return Heard::Whole;
        }
        // The stream was quiet. Revisions that change nothing of it come with no frame, but clients of the upstream hold
        // them, and would be sent away here for being ahead. So it is asked where it stands; a heartbeat tells.
        self.asked += 1;
        Heard::Say(self.plan.ask_again(SUB, self.asked))
    }
}

/// A text member.
fn text<'i>(of: &Value<'_, 'i>, key: &str) -> Result<&'i str, DecodeError> {
    of.get(key).and_then(ValueIntoString::into_string).ok_or_else(|| wrong(key, "a string"))
}

/// A whole number.
fn number(of: &Value<'_, '_>, key: &str) -> Result<u64, DecodeError> {
    of.get(key).and_then(|value| value.as_u64()).ok_or_else(|| wrong(key, "a whole number from 0 up"))
}

/// Whether a member is there and true.
fn flag(of: &Value<'_, '_>, key: &str) -> bool {
    of.get(key).and_then(|value| value.as_bool()).unwrap_or(false)
}

fn wrong(key: &str, expected: &str) -> DecodeError {
    DecodeError(format!("{key}: expected {expected}"))
}
