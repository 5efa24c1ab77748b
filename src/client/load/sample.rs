//! What is checked in a sample only, because it costs a parse or memory: rows, and sequence numbers per client.
//!
//! Bound: `STREAMS_MAX` streams for each sampled client; a parsed frame lives as long as its check.

use serde::Deserialize;

use super::head::Head;

/// Streams that a session may have; more would be the server's error and is counted as missing nothing.
const STREAMS_MAX: usize = 32;

/// The part of a batch that the sample reads; the rest is skipped.
#[derive(Deserialize)]
struct Batch {
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    time_us: Option<u64>,
    #[serde(default)]
    full: bool,
}

/// The rows of a batch: how many, and the event time of each that is news (whole rows repeat an old time).
/// `None` when it is not the JSON that it should be.
pub(super) fn rows(payload: &[u8], mut on_time: impl FnMut(u64)) -> Option<u64> {
    let batch: Batch = serde_json::from_slice(payload).ok()?;
    batch.rows.iter().filter(|row| !row.full).filter_map(|row| row.time_us).for_each(&mut on_time);
    Some(batch.rows.len() as u64)
}

/// What a frame's numbers say about the ones before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Frames that should have come and did not.
    pub(super) missing: u64,
    /// Frames that the server merged into this one.
    pub(super) merged: u64,
}

/// The `seq` that one client holds for each of its streams.
#[derive(Debug, Default)]
pub(super) struct Continuity {
    held: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
struct Heartbeat {
    #[serde(default)]
    streams: std::collections::HashMap<String, HeartbeatStream>,
}

#[derive(Deserialize)]
struct HeartbeatStream {
    seq: u64,
}

impl Continuity {
    /// Applies the gap rule to a batch. A stream's first frame is taken as it is.
    pub(super) fn on_batch(&mut self, head: &Head) -> Found {
        let Some((_, held)) = self.held.iter_mut().find(|(stream, _)| *stream == head.stream) else {
            if self.held.len() < STREAMS_MAX {
                self.held.push((head.stream, head.seq));
            }
            return Found::default();
        };
        let missing = head.prev.map_or(0, |prev| prev.abs_diff(*held));
        let merged = head.prev.map_or(0, |prev| head.seq.saturating_sub(prev + 1));
        *held = head.seq;
        Found { missing, merged }
    }

    /// A heartbeat lists the `seq` last given to this client; a higher one than held is a lost frame.
    pub(super) fn on_heartbeat(&mut self, payload: &[u8]) -> u64 {
        let Ok(heartbeat) = serde_json::from_slice::<Heartbeat>(payload) else { return 0 };
        let lost = |(stream, held): &(u64, u64)| {
            heartbeat.streams.get(&stream.to_string()).map_or(0, |told| told.seq.abs_diff(*held))
        };
        self.held.iter().map(lost).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(stream: u64, seq: u64, prev: Option<u64>) -> Head {
        Head { stream, seq, prev, ts_us: 1 }
    }

    #[test]
    fn gaps_and_merges_are_told_apart() {
        let mut client = Continuity::default();
        let fine = Found::default();
        assert_eq!(client.on_batch(&head(1, 5, None)), fine);
        assert_eq!(client.on_batch(&head(1, 6, Some(5))), fine);
        assert_eq!(client.on_batch(&head(2, 9, Some(8))), fine, "a new stream starts where it starts");
        assert_eq!(client.on_batch(&head(1, 9, Some(6))), Found { missing: 0, merged: 2 });
        assert_eq!(client.on_batch(&head(1, 12, Some(11))), Found { missing: 2, merged: 0 });
        assert_eq!(client.on_heartbeat(br#"{"type":"heartbeat","streams":{"1":{"seq":12}}}"#), 0);
        assert_eq!(client.on_heartbeat(br#"{"type":"heartbeat","streams":{"1":{"seq":13}}}"#), 1);
    }

    #[test]
    fn rows_are_counted_and_news_timed() {
        let mut times = Vec::new();
        let text = br#"{"type":"batch","rows":[{"symbol":"A","time_us":5},{"symbol":"B","full":true,"time_us":4},{}]}"#;
        assert_eq!(rows(text, |time| times.push(time)), Some(3));
        assert_eq!(times, [5]);
        assert_eq!(rows(b"{", |_| ()), None);
    }
}
