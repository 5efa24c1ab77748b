//! What the gateway says besides batches: the greeting, answers to commands, errors, heartbeats.
//!
//! Bound kept here: an error repeats at most `ECHO_CHARS_MAX` characters of what the client sent.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use super::msgpack;
use super::text::Text;
use super::websocket::{self, Opcode};
use crate::base::limits::{ECHO_CHARS_MAX, Limits};
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::dispatch::wish::Packing;

/// A message of the gateway, as `docs/protocol.md` defines it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/protocol.md is the reference of these names")]
pub enum Answer<'a> {
    Welcome {
        epoch: &'a str,
        session: &'a str,
        version: &'static str,
        heartbeat_ms: u64,
        simulated: bool,
        path: &'a [String],
        limits: AnnouncedLimits,
    },
    Subscribed(Subscription<'a>),
    Updated(Subscription<'a>),
    Unsubscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        sub: &'a str,
        stream: u32,
    },
    List {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        subs: Vec<Listed<'a>>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        ts_us: i64,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a RawValue>,
        code: &'static str,
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        rejected: Vec<Rejected>,
    },
    Link {
        state: &'static str,
        reason: Option<&'static str>,
    },
    Drain {
        reconnect_in_ms: u64,
        to: Option<&'a str>,
    },
}

/// A subscription with its effective options.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "docs/protocol.md is the reference of these names")]
pub struct Subscription<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a RawValue>,
    pub sub: &'a str,
    pub stream: u32,
    pub seq: u64,
    pub rev: Rev,
    pub wish: String,
    pub mode: &'static str,
    pub rate: Option<f64>,
    pub capped_by: Option<&'static str>,
    pub fields: Option<Vec<&'static str>>,
    pub delta: bool,
    pub depth: u16,
    pub decimals: &'static str,
    pub columns: Option<Vec<Option<Vec<&'static str>>>>,
    pub digest: u32,
    pub window: bool,
    pub filter: Option<String>,
    pub topics: usize,
    pub q: Numbers,
    pub rejected: Vec<Rejected>,
    /// How many more there were.
    #[serde(skip_serializing_if = "is_zero")]
    pub rejected_more: usize,
    /// Topics that an update took away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// What became of a cursor: `exact`, `conflated` or `reset`.
    pub recovered: Option<&'static str>,
}

/// Where the numbers of events stand when a subscription begins.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Numbers {
    /// By topic, of those of which every event is given.
    Each(BTreeMap<String, u64>),
    /// `"sparse"`: a filter leaves events out, so only `gaps` tell of losses.
    Sparse(&'static str),
}

/// A topic that was not taken.
#[derive(Debug, Serialize)]
pub struct Rejected {
    /// As the client wrote it, cut to 64 characters.
    pub topic: String,
    /// Why.
    pub code: &'static str,
    /// Why, in words.
    pub message: String,
    #[serde(skip)]
    pub(crate) reason: Reason,
}

impl Rejected {
    /// A rejection that repeats no more of the client's text than errors may.
    pub fn new(topic: &str, code: Reason, message: String) -> Self {
        Self { topic: echo(topic), code: code.label(), message, reason: code }
    }
}

/// One subscription in the answer to `list`.
#[derive(Debug, Serialize)]
pub struct Listed<'a> {
    /// Its effective options.
    #[serde(flatten)]
    pub subscription: Subscription<'a>,
    /// The last frame given to this client.
    pub held_seq: Option<u64>,
    /// This client has every change up to here.
    pub held_rev: Rev,
    /// Revisions of the gateway after that.
    pub lag_revs: u64,
    /// Frames that became part of a later one for this client.
    pub merged: u32,
    /// Rows in the stream's frames so far.
    pub rows: u64,
    /// Losses announced in them.
    pub gaps: u64,
}

/// The limits a client should know.
#[derive(Debug, Serialize)]
pub struct AnnouncedLimits {
    message_bytes: usize,
    topics_per_command: usize,
    topics: usize,
    streams: usize,
    commands_per_second: u32,
    commands_burst: u32,
    rate: Option<f64>,
}

impl From<&Limits> for AnnouncedLimits {
    fn from(limits: &Limits) -> Self {
        Self {
            message_bytes: limits.message_bytes_max,
            topics_per_command: limits.topics_per_command_max,
            topics: limits.topics_per_session_max,
            streams: limits.streams_per_session_max,
            commands_per_second: limits.commands_per_second,
            commands_burst: limits.commands_burst,
            rate: limits.rate_max,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Answer<'_> {
    /// The message as JSON.
    pub fn text(&self) -> Vec<u8> {
        // Strings, numbers and maps with string keys cannot fail to serialise.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// What may be repeated of a client's text: the first characters, those that command a terminal or turn the direction of
/// writing made visible.
pub fn echo(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if c.is_control() || turns(c) { '\u{fffd}' } else { c };
    text.chars().take(ECHO_CHARS_MAX).map(shown).collect()
}

/// A heartbeat with (stream, seq, rev) of the streams that were quiet since the last one.
pub fn heartbeat(ts_us: i64, quiet: &[(u32, u64, Rev)]) -> Text {
    let mut text = Text::default();
    text.put(b"{\"type\":\"heartbeat\",\"ts_us\":");
    text.put_i64(ts_us);
    text.put(b",\"streams\":{");
    for (at, (stream, seq, rev)) in quiet.iter().enumerate() {
        text.put_slice(if at == 0 { b"\"" } else { b",\"" });
        text.put_u64(u64::from(*stream));
        text.put(b"\":{\"seq\":");
        text.put_u64(*seq);
        text.put(b",\"rev\":");
        text.put_u64(*rev);
        text.put(b"}");
    }
    text.put(b"}}");
    text
}

/// The WebSocket frame of a message.
pub fn frame(text: &[u8], packing: Packing) -> Vec<u8> {
    if !packing.is_binary {
        return websocket::frame(Opcode::Text, text);
    }
    let mut packed = Vec::with_capacity(text.len());
    msgpack::pack(text, &mut packed);
    websocket::frame(Opcode::Binary, &packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_repeats_little_and_nothing_that_a_terminal_obeys() {
        let text = echo(&format!("\u{1b}[2J{}", "x".repeat(100)));
        assert_eq!(text.chars().count(), ECHO_CHARS_MAX);
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn a_heartbeat_lists_the_quiet_streams() {
        let text = heartbeat(5, &[(3, 42, 90), (7, 1, 0)]);
        let expected =
            br#"{"type":"heartbeat","ts_us":5,"streams":{"3":{"seq":42,"rev":90},"7":{"seq":1,"rev":0}}}"#;
        assert_eq!(text.as_bytes(), expected);
    }
}
