//! What a feed is: a state machine that turns a venue's bytes into updates, and a source that has a pace of its own.

use std::time::Duration;

use crate::market::{Time, Update};

/// The decoder of one venue's stream: handed raw messages in order, it appends what they say.
///
/// One message is one atomic group: the caller passes all of `out` on together, or none of it.
pub trait Feed: Send {
    /// Decodes one message that arrived at `arrival`. `raw` may be rewritten in place (simd-json does).
    /// An error concerns this message only: nothing of it has been appended, and the next one is welcome.
    fn decode(&mut self, raw: &mut [u8], arrival: Time, out: &mut Vec<Update>) -> Result<(), DecodeError>;

    /// What the feed needs fetched, asked after each message until it says `None`; each want is said once.
    /// The answer is handed to [`Feed::decode`] like any message.
    fn wants(&mut self) -> Option<Want>;

    /// What the feed had to pass over so far, by reason.
    fn skipped(&self) -> Skipped;
}

/// Something that a feed cannot go on without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A full picture of the book of this symbol, by the venue's own name.
    BookSnapshot(String),
}

/// Messages that were read but led to no update, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Well formed, of a kind that this decoder does not know.
    pub unknown: u64,
    /// Older than what is already known (a book change that the snapshot already has).
    pub old: u64,
    /// Held back at the moment, waiting for a snapshot.
    pub waiting: u64,
    /// Breaks in the venue's own numbering, each followed by a [`Want`].
    pub gaps: u64,
    /// Symbols that the table refused.
    pub refused: u64,
}

/// Why a message could not be decoded; the text says what was wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError(pub String);

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

/// A feed that needs no socket: it makes its own messages (a simulated market) or reads them (a capture).
pub trait Source: Send {
    /// Appends what is due at `now` and says when to ask again. One call appends at most a few thousand updates.
    fn next(&mut self, now: Time, out: &mut Vec<Update>) -> Next;

    /// Whether the gateway may slow it down: a pulled source waits for room and loses nothing,
    /// a live one is merged when the gateway cannot keep up.
    fn pulled(&self) -> bool;

    /// How long it may say nothing before its rows are stale; `None` when silence means nothing.
    fn silent_after(&self) -> Option<Duration>;

    /// Whether its updates come at the market's own pace, so that a symbol's silence means something.
    fn has_rhythm(&self) -> bool;

    /// Whether its prices are made up: every place that shows them says so.
    fn simulated(&self) -> bool;

    /// What it had to pass over so far.
    fn skipped(&self) -> Skipped {
        Skipped::default()
    }

    /// Messages that could not be decoded so far.
    fn errors(&self) -> u64 {
        0
    }

    /// What was wrong with the newest of them, and where it stands.
    fn last_error(&self) -> Option<&str> {
        None
    }
}

/// When a source wants to be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// At once: there is more.
    Now,
    /// Not before this time.
    At(Time),
    /// Never: it has ended, and the last images stand.
    Ended,
}
