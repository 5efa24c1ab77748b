//! Batch frames: rows are appended as they come, and the head, whose numbers are known last, is put before them.
//!
//! Bound kept here: `frame_bytes_max` of payload per frame; the caller splits when told that a frame is full. Only a
//! single row that is longer than the bound by itself exceeds it.

use super::number::{push_i64, push_u64};
use super::websocket::{HEADER_BYTES_MAX, Opcode, header};
use crate::flow::conflation::Rev;

/// The longest head: the fixed text and five numbers of 20 digits.
const HEAD_BYTES_MAX: usize = 224;
const HEADROOM: usize = HEADER_BYTES_MAX + HEAD_BYTES_MAX;
/// Room left for one more image row: 27 fields with their names and values.
const ROW_BYTES: usize = 1536;

/// The numbers of a batch frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The stream's number.
    pub stream: u32,
    /// This frame's number.
    pub seq: u64,
    /// The frame the client must hold; `None` for the first.
    pub prev: Option<u64>,
    /// Every change up to here has been sent, with this frame or before.
    pub rev: Rev,
    /// When it was made.
    pub ts_us: i64,
    /// It is (a part of) the first whole picture.
    pub snapshot: bool,
    /// The picture or catch-up goes on in the next frame.
    pub more: bool,
}

/// One or several frames back to back, ready for the socket.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the first frame begins.
    start: usize,
    /// Where the last finished frame ends; equals `start` when there is none.
    end: usize,
    /// Where the rows of the open frame begin.
    rows_at: usize,
    frame_bytes_max: usize,
    /// Losses that the open frame announces, each with a comma after it.
    pub gaps: Vec<u8>,
    /// Topics that came to the stream with the open frame, each with a comma after it.
    pub added: Vec<u8>,
}

impl Batch {
    /// An empty one.
    pub fn new(frame_bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            rows_at: 0,
            frame_bytes_max,
            gaps: Vec::new(),
            added: Vec::new(),
        }
    }

    /// Forgets all frames and begins the first.
    pub fn restart(&mut self) {
        self.bytes.clear();
        self.gaps.clear();
        self.added.clear();
        (self.start, self.end) = (0, 0);
        self.open();
    }

    /// Where to append a row, with a comma after it.
    pub fn rows(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether the open frame has neither rows nor anything else.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.rows_at && self.gaps.is_empty() && self.added.is_empty()
    }

    /// Whether a row of `bytes` might not fit any more.
    pub fn is_full(&self, bytes: usize) -> bool {
        let used = self.bytes.len() - self.rows_at + self.gaps.len() + self.added.len() + HEAD_BYTES_MAX;
        used > HEAD_BYTES_MAX && used + bytes.max(ROW_BYTES) > self.frame_bytes_max
    }

    /// Finishes the open frame and begins the next.
    pub fn finish(&mut self, head: Head) {
        if self.bytes.len() > self.rows_at {
            self.bytes.pop(); // the comma after the last row
        }
        self.bytes.push(b']');
        for (key, list) in [(&b",\"gaps\":["[..], &mut self.gaps), (b",\"added\":[", &mut self.added)] {
            if list.pop().is_some() {
                self.bytes.extend_from_slice(key);
                self.bytes.append(list);
                self.bytes.push(b']');
            }
        }
        if head.more {
            self.bytes.extend_from_slice(b",\"more\":true");
        }
        self.bytes.push(b'}');
        let text = head_text(head);
        let (header, header_len) = header(Opcode::Text, text.len() + self.bytes.len() - self.rows_at);
        let text_at = self.rows_at - text.len();
        self.bytes[text_at..self.rows_at].copy_from_slice(&text);
        let frame_at = text_at - header_len;
        self.bytes[frame_at..text_at].copy_from_slice(&header[..header_len]);
        if self.end == 0 {
            self.start = frame_at;
        } else {
            // A further frame: close the headroom between it and the one before.
            self.bytes.copy_within(frame_at.., self.end);
            self.bytes.truncate(self.bytes.len() - (frame_at - self.end));
        }
        self.end = self.bytes.len();
        self.open();
    }

    /// The finished frames.
    pub fn frames(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn open(&mut self) {
        self.rows_at = self.bytes.len() + HEADROOM;
        self.bytes.resize(self.rows_at, 0);
    }
}

fn head_text(head: Head) -> Vec<u8> {
    let mut text = Vec::with_capacity(HEAD_BYTES_MAX);
    text.extend_from_slice(b"{\"type\":\"batch\",\"stream\":");
    push_u64(&mut text, u64::from(head.stream));
    text.extend_from_slice(b",\"seq\":");
    push_u64(&mut text, head.seq);
    text.extend_from_slice(b",\"prev\":");
    match head.prev {
        Some(prev) => push_u64(&mut text, prev),
        None => text.extend_from_slice(b"null"),
    }
    text.extend_from_slice(b",\"rev\":");
    push_u64(&mut text, head.rev);
    text.extend_from_slice(b",\"ts_us\":");
    push_i64(&mut text, head.ts_us);
    if head.snapshot {
        text.extend_from_slice(b",\"snapshot\":true");
    }
    text.extend_from_slice(b",\"rows\":[");
    debug_assert!(text.len() <= HEAD_BYTES_MAX);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_stand_back_to_back_with_their_own_headers() {
        let mut batch = Batch::new(64 << 10);
        for round in 0..2 {
            batch.restart();
            let mut head =
                Head { stream: 3, seq: 42, prev: None, rev: 9, ts_us: 5, snapshot: true, more: true };
            batch.rows().extend_from_slice(b"{\"a\":1},{\"b\":2},");
            batch.finish(head);
            batch.gaps.extend_from_slice(b"{},");
            (head.seq, head.prev, head.snapshot, head.more) = (43, Some(42), false, false);
            batch.finish(head);
            let first = br#"{"type":"batch","stream":3,"seq":42,"prev":null,"rev":9,"ts_us":5,"snapshot":true,"rows":[{"a":1},{"b":2}],"more":true}"#;
            let second =
                br#"{"type":"batch","stream":3,"seq":43,"prev":42,"rev":9,"ts_us":5,"rows":[],"gaps":[{}]}"#;
            let mut expected = vec![0x81, first.len() as u8];
            expected.extend_from_slice(first);
            expected.extend_from_slice(&[0x81, second.len() as u8]);
            expected.extend_from_slice(second);
            assert_eq!(
                String::from_utf8_lossy(batch.frames()),
                String::from_utf8_lossy(&expected),
                "round {round}"
            );
            assert!(batch.is_empty());
        }
    }
}
