//! Simulated markets: a VN30 to look at, and a plain load to measure with. Nothing here is a real price.
//!
//! Bounds kept here: options out of range are refused by name; what is made depends on seed, options and the time of
//! the first call alone.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::feed::{Next, Source};
use crate::market::{FeedId, Time, Update};
use crate::spec::Spec;
use crate::symbols::Symbols;

mod pace;
mod alias;
mod load;
mod day;
mod ladder;
mod tape;
mod book;
mod member;
mod members;
mod flow;
mod index;
mod market;

#[cfg(test)]
mod tests;

pub use load::LoadOptions;
pub use market::MarketOptions;

/// Which simulation, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Options {
    /// `synthetic:vn30`
    Vn30(MarketOptions),
    /// `synthetic:load`
    Load(LoadOptions),
}

impl Options {
    /// Understands the path and the options of a spec.
    pub fn from_spec(spec: &Spec) -> Result<Self, String> {
        match spec.path.as_str() {
            "vn30" => vn30_options(spec).map(Self::Vn30),
            "load" => load_options(spec).map(Self::Load),
            other => Err(format!("{kind}:{other}: expected {kind}:vn30 or {kind}:load", kind = spec.kind)),
        }
    }
}

fn vn30_options(spec: &Spec) -> Result<MarketOptions, String> {
    spec.only(&["rate", "seed", "day"])?;
    let default = MarketOptions::default();
    let (least, most) = MarketOptions::DAY.into_inner();
    let expected = format!("0 (never ends) or a number of seconds from {least} to {most}");
    let day = |text: &str| text.parse().ok().filter(|day| *day == 0 || MarketOptions::DAY.contains(day));
    Ok(MarketOptions {
        rate: number(spec, "rate", default.rate, MarketOptions::RATE)?,
        seed: number(spec, "seed", default.seed, 0..=u64::MAX)?,
        day: spec.read("day", default.day, &expected, day)?,
    })
}

fn load_options(spec: &Spec) -> Result<LoadOptions, String> {
    spec.only(&["symbols", "rate", "zipf", "row_bytes", "seed"])?;
    let default = LoadOptions::default();
    Ok(LoadOptions {
        symbols: number(spec, "symbols", default.symbols, LoadOptions::SYMBOLS)?,
        rate: number(spec, "rate", default.rate, LoadOptions::RATE)?,
        zipf: number(spec, "zipf", default.zipf, LoadOptions::ZIPF)?,
        row_bytes: number(spec, "row_bytes", default.row_bytes, LoadOptions::ROW_BYTES)?,
        seed: number(spec, "seed", default.seed, 0..=u64::MAX)?,
    })
}

fn number<T>(spec: &Spec, key: &str, default: T, range: RangeInclusive<T>) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
{
    let (least, most) = range.into_inner();
    spec.number(key, default, least, most)
}

/// A simulated market as a source.
#[derive(Debug)]
pub struct Synthetic(Shape);

#[derive(Debug)]
enum Shape {
    Market(Box<market::Market>),
    Load(Box<load::Load>),
}

impl Synthetic {
    /// The simulation that a spec describes; its symbols and its group are listed at once.
    pub fn from_spec(spec: &Spec, symbols: &Symbols, feed: FeedId) -> Result<Self, String> {
        Self::new(Options::from_spec(spec)?, symbols, feed)
    }

    /// The simulation of these options, which are taken as they are.
    pub fn new(options: Options, symbols: &Symbols, feed: FeedId) -> Result<Self, String> {
        let shape = match options {
            Options::Vn30(options) => Shape::Market(Box::new(market::Market::new(options, symbols, feed)?)),
            Options::Load(options) => Shape::Load(Box::new(load::Load::new(options, symbols, feed)?)),
        };
        Ok(Self(shape))
    }
}

impl Source for Synthetic {
    fn next(&mut self, now: Time, out: &mut Vec<Update>) -> Next {
        match &mut self.0 {
            Shape::Market(market) => market.next(now, out),
            Shape::Load(load) => load.next(now, out),
        }
    }

    fn pulled(&self) -> bool {
        match &self.0 {
            Shape::Market(_) => false,
            Shape::Load(load) => load.pulled(),
        }
    }

    fn silent_after(&self) -> Option<Duration> {
        match &self.0 {
            Shape::Market(market) => Some(Duration::from_secs(market.silent_seconds())),
            Shape::Load(load) => (!load.pulled()).then_some(Duration::from_secs(5)),
        }
    }

    fn has_rhythm(&self) -> bool {
        !self.pulled()
    }

    fn simulated(&self) -> bool {
        true
    }
}
