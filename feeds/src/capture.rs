//! A capture: a venue's messages as they were recorded, played back at their own pace or as fast as they are taken, all of
//! them or those of a part.
//!
//! Bounds kept here: a call of `next` reads at most [`LINES_PER_CALL`] lines and stops once it has appended
//! [`UPDATES_PER_CALL`] updates (the last message goes out whole, so a picture of a book may exceed it by its levels);
//! the file is never held in memory.

mod part;
mod seek;
mod lines;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;

pub use self::lines::LINE_BYTES_MAX;
use self::lines::{Line, Lines};
pub use self::part::Part;
use self::part::show;
use crate::binance::{Binance, Market};
use crate::feed::{Feed, Next, Skipped, Source};
use crate::market::{Body, FeedId, Level, Side, Symbol, Time, Update};
use crate::spec::Spec;
use crate::symbols::{NAME_CHARS_MAX, Symbols, is_name};

/// After this many updates a call of `next` returns.
pub const UPDATES_PER_CALL: usize = 4_096;
/// After this many lines too: most of them may lead to nothing.
pub const LINES_PER_CALL: usize = 4_096;
/// How many lines are read ahead where it begins, only to learn which symbols there are.
pub const HEAD_LINES: usize = 1_000;

/// The quickest and the slowest recorded pace that can be asked for.
const MULTIPLES: std::ops::RangeInclusive<f64> = 0.001..=10_000.0;
/// What a file should have been.
const EXPECTED: &str = "expected lines `<nanoseconds> <json>`";
/// Options of `capture:PATH?...`.
const OPTIONS: [&str; 6] = ["venue", "speed", "loop", "start", "end", "prefix"];

/// How fast a capture is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// As recorded, that many times as fast.
    Recorded {
        /// 1 for the recorded pace, 10 for ten times as fast.
        multiple: f64,
    },
    /// As fast as it is taken.
    Max,
}

impl Speed {
    /// Reads `max`, `1`, `10x`, `0.5`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "max" {
            return Some(Self::Max);
        }
        let multiple: f64 = text.strip_suffix('x').unwrap_or(text).parse().ok()?;
        MULTIPLES.contains(&multiple).then_some(Self::Recorded { multiple })
    }
}

/// Makes the decoder that a pass through the file begins with.
pub type NewFeed = Box<dyn Fn() -> Box<dyn Feed> + Send>;

/// What is to be played and how.
pub struct Plan {
    /// The file.
    pub path: String,
    /// The decoder of its messages.
    pub new_feed: NewFeed,
    /// How fast.
    pub speed: Speed,
    /// Whether the end is followed by the beginning.
    pub looped: bool,
    /// Which lines.
    pub part: Part,
}

/// A capture being played. Its lines are `<nanoseconds since 1970> <message>`.
pub struct Capture {
    plan: Plan,
    lines: Lines,
    feed: Box<dyn Feed>,
    /// Time of the line that has been read and waits for its turn.
    ready: Option<Time>,
    /// When the first line of this pass was played, and what its time was.
    begun: Option<(Time, Time)>,
    /// Time of the newest line that was read and is not of the part.
    outside: Option<Time>,
    /// Time of the newest line that has been played.
    played: Time,
    /// Messages of this pass that could be decoded: a pass without any is the last.
    decoded: u64,
    /// Symbols of this pass, and whether their book has been told of, to be emptied before the next.
    seen: BTreeMap<Symbol, bool>,
    /// What earlier passes skipped.
    skipped: Skipped,
    errors: u64,
    last_error: Option<String>,
    ended: bool,
}

impl Plan {
    /// What `capture:PATH?venue=...&speed=...&loop=...&start=...&end=...&prefix=...` says; the file is not looked at yet.
    pub fn from_spec(spec: &Spec, symbols: &Arc<Symbols>, id: FeedId) -> Result<Self, String> {
        spec.only(&OPTIONS)?;
        let path = spec.path_of("the file to play")?.to_owned();
        let venues = [("binance", Market::Spot), ("binance-usdm", Market::UsdM)];
        let market = spec.choice("venue", Market::Spot, &venues)?;
        let expected = format!("max, or a multiple from {} to {} (10x)", MULTIPLES.start(), MULTIPLES.end());
        let speed = spec.read("speed", Speed::Recorded { multiple: 1.0 }, &expected, Speed::parse)?;
        let looped = spec.flag("loop", false)?;
        let part = Part::from_spec(spec)?;
        let expected = format!("characters of a symbol name, fewer than {NAME_CHARS_MAX}");
        let prefix = spec.read("prefix", String::new(), &expected, |text| {
            (text.is_empty() || is_name(text) && text.len() < NAME_CHARS_MAX).then(|| text.to_owned())
        })?;
        let symbols = Arc::clone(symbols);
        let new_feed =
            move || -> Box<dyn Feed> { Box::new(Binance::new(market, Arc::clone(&symbols), id, &prefix)) };
        Ok(Self { path, new_feed: Box::new(new_feed), speed, looped, part })
    }

    /// Opens the file and reads the head of the part through a decoder of its own, so that the symbols in it are listed
    /// before the first update. Fails if the file cannot be read, has nothing in the part, or no line at the part's head
    /// that can be decoded.
    pub fn open(self) -> Result<Capture, String> {
        let mut capture = Capture {
            lines: Lines::open(&self.path, self.part.start)?,
            feed: (self.new_feed)(),
            plan: self,
            ready: None,
            begun: None,
            outside: None,
            played: Time::default(),
            decoded: 0,
            seen: BTreeMap::new(),
            skipped: Skipped::default(),
            errors: 0,
            last_error: None,
            ended: false,
        };
        capture.read_head()?;
        capture.errors = 0;
        capture.last_error = None;
        capture.rewind()?;
        capture.skipped = Skipped::default();
        Ok(capture)
    }
}

impl Capture {
    fn read_head(&mut self) -> Result<(), String> {
        let mut out = Vec::new();
        let mut first = None;
        let mut lines = 0;
        while lines < HEAD_LINES && self.fetch() {
            lines += usize::from(!self.lines.is_early());
            out.clear();
            self.play(&mut out);
            first = first.or_else(|| self.last_error.clone());
        }
        let path = &self.plan.path;
        match (self.last_error.take(), self.outside) {
            _ if self.decoded > 0 => self.plan.part.check(self.played),
            (Some(last), _) => Err(format!("no line can be read of {}", first.unwrap_or(last))),
            (None, Some(time)) => Err(self.nothing(time)),
            (None, None) if self.lines.is_early() => {
                Err(format!("capture {path} has no line with a time; {EXPECTED}"))
            }
            (None, None) => Err(format!("capture {path} is empty; {EXPECTED}")),
        }
    }

    fn nothing(&self, time: Time) -> String {
        let Plan { path, part, .. } = &self.plan;
        let which = if part.end.is_some_and(|end| end <= time) { "next" } else { "last" };
        format!("capture {path} has no line {part}; the {which} line is of {}", show(time))
    }

    /// Begins from the part's start, with a decoder that remembers nothing.
    fn rewind(&mut self) -> Result<(), String> {
        self.skipped = total(self.skipped, self.feed.skipped());
        self.feed = (self.plan.new_feed)();
        self.lines = Lines::open(&self.plan.path, self.plan.part.start)?;
        (self.ready, self.begun, self.decoded) = (None, None, 0);
        Ok(())
    }

    /// Reads a line, unless one is ready already. False at the end of the part; a line that cannot be used is counted and
    /// leaves nothing ready, and one before the part too.
    fn fetch(&mut self) -> bool {
        if self.ready.is_some() {
            return true;
        }
        match self.lines.read() {
            Line::Message(time) if self.plan.part.end.is_some_and(|end| time >= end) => {
                self.outside = Some(time);
            }
            Line::Message(time) => self.ready = Some(time),
            Line::Early(time) => {
                self.outside = time.or(self.outside);
                return true;
            }
            Line::Bad(text) => {
                self.wrong(&text);
                return true;
            }
            Line::Broken(text) => self.wrong(&text),
            Line::End => {}
        }
        self.ready.is_some()
    }

    /// Decodes the line that is ready.
    fn play(&mut self, out: &mut Vec<Update>) {
        let Some(time) = self.ready.take() else { return };
        self.played = time;
        match self.feed.decode(self.lines.message(), time, out) {
            Ok(()) => self.decoded += 1,
            Err(error) => self.wrong(&format!("{}: {error}", self.lines.place())),
        }
        // A capture cannot fetch anything: what it lacks comes later in the file or not at all.
        while self.feed.wants().is_some() {}
    }

    fn wrong(&mut self, text: &str) {
        self.errors += 1;
        self.last_error = Some(format!("capture {}: {text}", self.plan.path));
    }

    /// When the line of that time is due.
    fn due(&mut self, line: Time, now: Time) -> Time {
        let Speed::Recorded { multiple } = self.plan.speed else { return now };
        let (begun, first) = *self.begun.get_or_insert((now, line));
        let since = line.0.saturating_sub(first.0) as f64 / multiple;
        Time(begun.0.saturating_add(since as i64))
    }

    /// At the end of the part: once more from its start, or never again.
    fn again(&mut self, out: &mut Vec<Update>) -> bool {
        if !self.plan.looped || self.decoded == 0 {
            return false;
        }
        if let Err(text) = self.rewind() {
            self.errors += 1;
            self.last_error = Some(text);
            return false;
        }
        let nothing = Level { price: Decimal::ZERO, size: Decimal::ZERO, side: Side::Buy, reset: true };
        for (&symbol, has_book) in &self.seen {
            let bodies = [Some(Body::Rewound), has_book.then_some(Body::Level(nothing))];
            out.extend(bodies.into_iter().flatten().map(|body| Update::new(symbol, self.played, body)));
        }
        self.seen.clear();
        true
    }

    /// Remembers of whom these updates are, and whose books begin among them: every book begins with a reset.
    fn note_seen(&mut self, updates: &[Update]) {
        for update in updates {
            let begins = matches!(update.body, Body::Level(level) if level.reset);
            *self.seen.entry(update.symbol).or_default() |= begins;
        }
    }
}

impl Source for Capture {
    fn next(&mut self, now: Time, out: &mut Vec<Update>) -> Next {
        let begin = out.len();
        for _ in 0..LINES_PER_CALL {
            if out.len() - begin >= UPDATES_PER_CALL {
                break;
            }
            if self.ended || !self.fetch() {
                self.ended = self.ended || !self.again(out);
                return if self.ended { Next::Ended } else { Next::Now };
            }
            let Some(line) = self.ready else { continue };
            let due = self.due(line, now);
            if due > now {
                return Next::At(due);
            }
            let before = out.len();
            self.play(out);
            if self.plan.looped {
                self.note_seen(&out[before..]);
            }
        }
        Next::Now
    }

    fn pulled(&self) -> bool {
        true
    }

    fn silent_after(&self) -> Option<Duration> {
        None
    }

    fn has_rhythm(&self) -> bool {
        self.plan.speed != Speed::Max
    }

    fn simulated(&self) -> bool {
        false
    }

    fn skipped(&self) -> Skipped {
        total(self.skipped, self.feed.skipped())
    }

    fn errors(&self) -> u64 {
        self.errors
    }

    fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

/// Counts of earlier passes and of this one; what is held back at the moment is held back by this one alone.
fn total(earlier: Skipped, now: Skipped) -> Skipped {
    Skipped {
        unknown: earlier.unknown + now.unknown,
        old: earlier.old + now.old,
        waiting: now.waiting,
        gaps: earlier.gaps + now.gaps,
        refused: earlier.refused + now.refused,
    }
}
