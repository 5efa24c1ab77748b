//! The head of a batch frame, read without parsing JSON: stream, seq, prev and the time it was made.
//!
//! Bound: only the first `HEAD_BYTES` of a payload are looked at. What is not found there is absent.

/// Where the numbers of a batch must be: the protocol puts them before the rows, and they take under 150 bytes.
const HEAD_BYTES: usize = 192;

/// What every text frame that carries rows begins with.
const BATCH: &[u8] = b"{\"type\":\"batch\"";

/// The numbers of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) stream: u64,
    pub(super) seq: u64,
    /// `None` is the protocol's null: the first frame of a subscription.
    pub(super) prev: Option<u64>,
    /// When the frame was made, in microseconds since the epoch.
    pub(super) ts_us: u64,
}

/// What a text frame is, as far as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Batch(Option<Head>),
    Other,
}

/// Looks at the beginning of a text payload.
pub(super) fn read(payload: &[u8]) -> Text {
    if !payload.starts_with(BATCH) {
        return Text::Other;
    }
    let head = &payload[BATCH.len()..payload.len().min(HEAD_BYTES)];
    Text::Batch(numbers(head))
}

/// The first type word of a text frame, for those that are not batches.
pub(super) fn type_of(payload: &[u8]) -> &str {
    let rest = payload.strip_prefix(b"{\"type\":\"").unwrap_or_default();
    let end = rest.iter().position(|&byte| byte == b'"').unwrap_or(0);
    std::str::from_utf8(&rest[..end]).unwrap_or_default()
}

/// Walks the members in the order in which they stand, so one pass finds all.
fn numbers(mut rest: &[u8]) -> Option<Head> {
    let mut head = Head { stream: 0, seq: 0, prev: None, ts_us: 0 };
    let (mut stream, mut seq) = (false, false);
    while let Some(colon) = rest.iter().position(|&byte| byte == b':') {
        let (name, value) = (&rest[..colon], &rest[colon + 1..]);
        match name {
            b",\"stream\"" => (head.stream, stream) = (number(value)?, true),
            b",\"seq\"" => (head.seq, seq) = (number(value)?, true),
            b",\"prev\"" => head.prev = number(value),
            b",\"ts_us\"" => head.ts_us = number(value)?,
            b",\"rows\"" => break,
            _ => {}
        }
        let next = value.iter().position(|&byte| byte == b',')?;
        rest = &value[next..];
        if head.ts_us != 0 && stream && seq {
            break;
        }
    }
    (stream && seq && head.ts_us != 0).then_some(head)
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    // Nineteen digits always fit; a longer run is not one of the protocol's numbers.
    if digits == 0 || digits > 19 {
        return None;
    }
    Some(value[..digits].iter().fold(0, |sum, byte| sum * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_found() {
        let text = br#"{"type":"batch","stream":3,"seq":42,"prev":41,"rev":90211,"ts_us":1763787600123456,"rows":[{"symbol":"VCB"}]}"#;
        let head = Head { stream: 3, seq: 42, prev: Some(41), ts_us: 1_763_787_600_123_456 };
        assert_eq!(read(text), Text::Batch(Some(head)));
        let first =
            br#"{"type":"batch","stream":3,"seq":1,"prev":null,"rev":9,"snapshot":true,"ts_us":5,"rows":[]}"#;
        assert_eq!(read(first), Text::Batch(Some(Head { stream: 3, seq: 1, prev: None, ts_us: 5 })));
    }

    #[test]
    fn other_frames_are_named() {
        let text = br#"{"type":"heartbeat","ts_us":5}"#;
        assert_eq!(read(text), Text::Other);
        assert_eq!(type_of(text), "heartbeat");
        assert_eq!(type_of(b"{}"), "");
        assert_eq!(type_of(b"{\"type\":\"never ends"), "");
        assert_eq!(read(br#"{"type":"batch","stream":x}"#), Text::Batch(None));
        assert_eq!(read(br#"{"type":"batch""#), Text::Batch(None));
    }
}
