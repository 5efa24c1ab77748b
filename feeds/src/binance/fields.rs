//! The fields of one JSON object on simd-json's tape, found by name in one pass over it.
//!
//! Bound kept here: no memory of its own; unknown keys are passed over, and of a key that stands twice the last counts.

use rust_decimal::Decimal;
use simd_json::{Node, StaticNode};

use crate::decimal;
use crate::feed::DecodeError;
use crate::market::{Level, Side, Time};

/// One-letter keys from `A` to `z` have the first slots.
const LETTERS: usize = 58;
/// Longer keys that mean something, in the slots after the letters.
const WORDS: usize = 8;

/// Where each known key of an object has its value.
pub(super) struct Fields<'t, 'a> {
    nodes: &'t [Node<'a>],
    /// Position on the tape; 0, where the object itself begins, says "not there".
    at: [u32; LETTERS + WORDS],
    /// What the object is called in an error.
    kind: &'static str,
}

fn slot(key: &str) -> Option<usize> {
    let word = match key {
        "stream" => 0,
        "data" => 1,
        "pu" => 2,
        "lastUpdateId" => 3,
        "bids" => 4,
        "asks" => 5,
        "code" => 6,
        "msg" => 7,
        _ => match key.as_bytes() {
            [letter @ b'A'..=b'z'] => return Some(usize::from(letter - b'A')),
            _ => return None,
        },
    };
    Some(LETTERS + word)
}

/// How many nodes a value takes on the tape.
const fn extent(node: &Node<'_>) -> usize {
    match node {
        Node::Object { count, .. } | Node::Array { count, .. } => *count + 1,
        Node::String(_) | Node::Static(_) => 1,
    }
}

impl<'t, 'a> Fields<'t, 'a> {
    /// Reads the object that `nodes` begins with; `None` if it begins with something else.
    pub(super) fn read(nodes: &'t [Node<'a>]) -> Option<Self> {
        let Some(Node::Object { len, .. }) = nodes.first() else { return None };
        let mut fields = Self { nodes, at: [0; LETTERS + WORDS], kind: "message" };
        let mut next = 1;
        for _ in 0..*len {
            let (Some(Node::String(key)), Some(value)) = (nodes.get(next), nodes.get(next + 1)) else {
                break;
            };
            if let Some(slot) = slot(key) {
                fields.at[slot] = u32::try_from(next + 1).unwrap_or(0);
            }
            next += 1 + extent(value);
        }
        Some(fields)
    }

    /// Names the message for errors from here on.
    pub(super) fn named(mut self, kind: &'static str) -> Self {
        self.kind = kind;
        self
    }

    /// The nodes of a value, the value itself first.
    pub(super) fn nodes(&self, key: &str) -> Option<&'t [Node<'a>]> {
        match slot(key).map(|slot| self.at[slot]) {
            None | Some(0) => None,
            Some(at) => self.nodes.get(at as usize..),
        }
    }

    fn node(&self, key: &str) -> Option<Node<'a>> {
        self.nodes(key)?.first().copied()
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.nodes(key).is_some()
    }

    /// A text, if it is there and is one.
    pub(super) fn some_text(&self, key: &str) -> Option<&'a str> {
        match self.node(key) {
            Some(Node::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<&'a str, DecodeError> {
        self.some_text(key).ok_or_else(|| self.wrong(key, "a string"))
    }

    /// A whole number that is not negative.
    pub(super) fn number(&self, key: &str) -> Result<u64, DecodeError> {
        match self.node(key) {
            Some(Node::Static(StaticNode::U64(n))) => Ok(n),
            Some(Node::Static(StaticNode::I64(n))) if n >= 0 => Ok(n.unsigned_abs()),
            _ => Err(self.wrong(key, "a whole number from 0 up")),
        }
    }

    /// true or false.
    pub(super) fn flag(&self, key: &str) -> Result<bool, DecodeError> {
        match self.node(key) {
            Some(Node::Static(StaticNode::Bool(flag))) => Ok(flag),
            _ => Err(self.wrong(key, "true or false")),
        }
    }

    /// A decimal as the venue writes it: in a string, never below zero.
    pub(super) fn decimal(&self, key: &str) -> Result<Decimal, DecodeError> {
        self.some_text(key).and_then(unsigned).ok_or_else(|| self.wrong(key, DECIMAL))
    }

    /// The time of the event: `T` (when it happened), else `E` (when it was sent), else none.
    pub(super) fn time(&self) -> Result<Option<Time>, DecodeError> {
        for key in ["T", "E"] {
            if self.has(key) {
                let time = event_time(self.number(key)?);
                return time
                    .map(Some)
                    .ok_or_else(|| self.wrong(key, "milliseconds or microseconds since 1970"));
            }
        }
        Ok(None)
    }

    /// Appends the levels of one side of a book: `[["price","size"],...]`.
    pub(super) fn levels(&self, key: &str, side: Side, out: &mut Vec<Level>) -> Result<(), DecodeError> {
        let wrong = || self.wrong(key, "an array of [\"price\",\"size\"]");
        let Some(nodes) = self.nodes(key) else { return Err(wrong()) };
        let Some(Node::Array { len, .. }) = nodes.first() else { return Err(wrong()) };
        // Each level is three nodes: the pair and its two texts.
        let pairs = nodes.get(1..=len * 3).ok_or_else(wrong)?;
        out.reserve(*len);
        for pair in pairs.chunks_exact(3) {
            let [Node::Array { len: 2, count: 2 }, Node::String(price), Node::String(size)] = pair else {
                return Err(wrong());
            };
            let (Some(price), Some(size)) = (unsigned(price), unsigned(size)) else {
                return Err(
                    self.error(format_args!("level [{price:?},{size:?}] in {key:?}: expected {DECIMAL}"))
                );
            };
            out.push(Level { price, size, side, reset: false });
        }
        Ok(())
    }

    fn wrong(&self, key: &str, expected: &str) -> DecodeError {
        let found = match self.node(key) {
            None => "is missing".to_owned(),
            Some(Node::String(text)) => {
                format!("is {:?}", text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
            }
            Some(Node::Static(value)) => format!("is {value}"),
            Some(Node::Object { .. }) => "is an object".to_owned(),
            Some(Node::Array { .. }) => "is an array".to_owned(),
        };
        self.error(format_args!("{key:?} {found}; expected {expected}"))
    }

    fn error(&self, text: std::fmt::Arguments<'_>) -> DecodeError {
        DecodeError(format!("binance {}: {text}", self.kind))
    }
}

const DECIMAL: &str = "a decimal in a string, from 0 up";
/// How much of a wrong text an error repeats.
const SHOWN_CHARS_MAX: usize = 40;

/// A decimal that is not below zero.
pub(super) fn unsigned(text: &str) -> Option<Decimal> {
    if text.starts_with('-') { None } else { decimal::exact(text) }
}

/// Times above this count microseconds: as milliseconds it would be the year 5138, as microseconds it is 1973.
const MILLISECONDS_MAX: u64 = 100_000_000_000_000;

/// The venue's time, in milliseconds or (with `timeUnit=MICROSECOND`) in microseconds.
pub(super) fn event_time(value: u64) -> Option<Time> {
    let unit = if value > MILLISECONDS_MAX { 1_000 } else { 1_000_000 };
    i64::try_from(value).ok()?.checked_mul(unit).map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_and_microseconds_are_told_apart() {
        assert_eq!(event_time(1_723_161_255_343), Some(Time(1_723_161_255_343_000_000)));
        assert_eq!(event_time(1_723_161_255_343_001), Some(Time(1_723_161_255_343_001_000)));
        assert_eq!(event_time(0), Some(Time(0)));
        assert_eq!(event_time(u64::MAX), None);
        assert_eq!(event_time(1 << 62), None);
    }
}
