//! The server's frames as `watch` reads them: one shape for all types, every member optional, rows left as text.
//!
//! Bound: a frame is at most `FRAME_BYTES_MAX`; nothing outlives the text it was read from but what the view copies.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Longest message taken from a server: sixteen times what the protocol allows, so that only nonsense is refused.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;

/// Any frame of the server. Prices stay text (`RawValue`), so what was sent is what is shown.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Frame<'a> {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) id: Option<Value>,
    pub(super) sub: Option<String>,
    pub(super) stream: Option<u64>,
    pub(super) seq: Option<u64>,
    pub(super) prev: Option<u64>,
    pub(super) rev: Option<u64>,
    pub(super) ts_us: Option<u64>,
    pub(super) epoch: Option<String>,
    pub(super) wish: Option<String>,
    pub(super) snapshot: bool,
    pub(super) more: bool,
    pub(super) simulated: bool,
    pub(super) heartbeat_ms: Option<u64>,
    pub(super) reconnect_in_ms: Option<u64>,
    pub(super) retry_after_ms: Option<u64>,
    pub(super) recovered: Option<String>,
    pub(super) to: Option<String>,
    pub(super) state: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) streams: HashMap<String, Held>,
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    #[serde(borrow)]
    pub(super) rows: Vec<&'a RawValue>,
    #[serde(borrow)]
    pub(super) gaps: Vec<&'a RawValue>,
    #[serde(borrow)]
    pub(super) rejected: Vec<&'a RawValue>,
}

/// What a heartbeat says of one stream.
#[derive(Deserialize)]
pub(super) struct Held {
    pub(super) seq: u64,
}

/// Reads a frame.
pub(super) fn read(text: &str) -> Result<Frame<'_>, String> {
    serde_json::from_str(text).map_err(|error| format!("unreadable frame: {error}"))
}

/// Text from a server without what a terminal would obey (C0, DEL and C1 control characters) or what turns text
/// around (Unicode's directional marks).
pub(super) fn clean(text: &str) -> String {
    let obeyed = |character: char| {
        character.is_control()
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(|&character| !obeyed(character)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_text() {
        let frame =
            read(r#"{"type":"batch","stream":1,"prev":null,"rows":[{"last":27.350}],"unknown":{}}"#).unwrap();
        assert_eq!(frame.rows[0].get(), r#"{"last":27.350}"#);
        assert_eq!((frame.kind.as_str(), frame.stream, frame.prev), ("batch", Some(1), None));
        assert!(read("{").is_err());
    }

    #[test]
    fn a_terminal_is_not_told_what_to_do() {
        assert_eq!(clean("a\u{1b}[2Jb\u{9b}c\u{7f}\r\n\u{202e}d"), "a[2Jbcd");
        assert_eq!(clean("Việt Nam 30"), "Việt Nam 30");
    }
}
