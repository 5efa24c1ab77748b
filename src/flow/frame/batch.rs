//! Batch frames: rows are appended as they come, and the head, whose numbers are known last, is put before them.
//!
//! Bound kept here: `frame_bytes_max` of payload per frame; the caller splits when told that a frame is full. Only a
//! single row that is longer than the bound by itself exceeds it.

use std::ops::Range;

use super::deflate::Deflate;
use super::msgpack;
use super::text::{Backwards, Text};
use super::websocket::{HEADER_BYTES_MAX, Opcode, put_header};
use crate::base::limits::{Limits, ROW_BYTES_MAX};
use crate::flow::conflation::Rev;
use crate::flow::dispatch::wish::Packing;

/// The longest head: the fixed text and five numbers of 20 digits.
const HEAD_BYTES_MAX: usize = 224;
const HEADROOM: usize = HEADER_BYTES_MAX + HEAD_BYTES_MAX;
/// The longest stamp: `,"rev":`, `,"ts_us":` and two numbers.
const STAMP_BYTES_MAX: usize = 56;

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
    /// Of what the client then holds.
    pub digest: Option<u32>,
}

/// Frames ready for the socket.
#[derive(Debug)]
pub struct Batch {
    bytes: Text,
    /// The finished frames.
    frames: Vec<Range<usize>>,
    /// Where the rows of the open frame begin.
    rows_at: usize,
    frame_bytes_max: usize,
    compress_bytes_min: usize,
    /// The part of the head that most frames of a turn have in common, how much of its end counts, and what it says.
    stamp: [u8; STAMP_BYTES_MAX],
    stamp_len: usize,
    stamped: Option<(Rev, i64)>,
    deflate: Deflate,
    packed: Vec<u8>,
    /// Losses that the open frame announces, each with a comma after it.
    pub gaps: Text,
    /// Topics that came to the stream with the open frame, each with a comma after it.
    pub added: Text,
    /// Topics that came but had no room, each with a comma after it.
    pub rejected: Text,
    /// The name of the run of revisions, where the open frame belongs to a picture that begins one.
    pub epoch: Text,
}

impl Batch {
    /// An empty one.
    pub fn new(limits: &Limits) -> Self {
        Self {
            bytes: Text::default(),
            frames: Vec::new(),
            rows_at: 0,
            frame_bytes_max: limits.frame_bytes_max,
            compress_bytes_min: limits.compress_bytes_min,
            stamp: [0; STAMP_BYTES_MAX],
            stamp_len: 0,
            stamped: None,
            deflate: Deflate::default(),
            packed: Vec::new(),
            gaps: Text::default(),
            added: Text::default(),
            rejected: Text::default(),
            epoch: Text::default(),
        }
    }

    /// Forgets all frames.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.truncate(0);
        self.frames.clear();
    }

    /// Opens the next frame.
    #[inline]
    pub fn open(&mut self) {
        self.bytes.skip(HEADROOM);
        self.rows_at = self.bytes.len();
        self.gaps.truncate(0);
        self.added.truncate(0);
        self.rejected.truncate(0);
        self.epoch.truncate(0);
    }

    /// Where to append a row, with a comma after it.
    pub fn rows(&mut self) -> &mut Text {
        &mut self.bytes
    }

    /// Whether the open frame has neither rows nor anything else.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.rows_at
            && self.gaps.is_empty()
            && self.added.is_empty()
            && self.rejected.is_empty()
    }

    /// Whether a row of `bytes` might not fit any more. An empty frame has room for any row.
    pub fn is_full(&self, bytes: usize) -> bool {
        !self.is_empty() && self.bytes.len() + bytes >= self.rows_end()
    }

    /// How long [`Batch::rows`] may become before the next image row might not fit.
    pub fn rows_end(&self) -> usize {
        let others =
            self.gaps.len() + self.added.len() + self.rejected.len() + HEAD_BYTES_MAX + ROW_BYTES_MAX;
        self.rows_at + self.frame_bytes_max.saturating_sub(others)
    }

    /// Finishes the open frame; begins the next if `more` says that there is one.
    pub fn finish(&mut self, head: Head, packing: Packing) {
        if self.bytes.len() > self.rows_at {
            self.bytes.truncate(self.bytes.len() - 1); // the comma after the last row
        }
        let extras = self.gaps.len() + self.added.len() + self.rejected.len() + self.epoch.len();
        if extras == 0 && !head.more && head.digest.is_none() {
            self.bytes.put(b"]}");
        } else {
            self.put_tail(&head);
        }
        let text_at = self.put_head(head);
        self.seal(text_at, packing);
        if head.more {
            self.open();
        }
    }

    /// What follows the rows of a frame that has more to say.
    #[cold]
    fn put_tail(&mut self, head: &Head) {
        self.bytes.put(b"]");
        if !self.gaps.is_empty() {
            self.bytes.put(b",\"gaps\":[");
            put_list(&mut self.bytes, &mut self.gaps);
        }
        if !self.added.is_empty() {
            self.bytes.put(b",\"added\":[");
            put_list(&mut self.bytes, &mut self.added);
        }
        if !self.rejected.is_empty() {
            self.bytes.put(b",\"rejected\":[");
            put_list(&mut self.bytes, &mut self.rejected);
        }
        if !self.epoch.is_empty() {
            self.bytes.put(b",\"epoch\":\"");
            self.bytes.put_slice(self.epoch.as_bytes());
            self.bytes.put(b"\"");
        }
        if head.more {
            self.bytes.put(b",\"more\":true");
        }
        if let Some(digest) = head.digest {
            self.bytes.put(b",\"digest\":");
            self.bytes.put_u64(u64::from(digest));
        }
        self.bytes.put(b"}");
    }

    /// Puts the WebSocket header before the payload, which is MessagePack or compressed where that was agreed on, the
    /// latter only if it is worth it.
    fn seal(&mut self, text_at: usize, packing: Packing) {
        let opcode = if packing.is_binary { self.pack(text_at) } else { Opcode::Text };
        let is_long = self.bytes.len() - text_at >= self.compress_bytes_min;
        let is_compressed = is_long && packing.window_bits.is_some_and(|bits| self.compress(text_at, bits));
        let end = self.bytes.len();
        let mut before = Backwards::new(&mut self.bytes.as_mut_bytes()[..text_at]);
        put_header(&mut before, opcode, is_compressed, end - text_at);
        self.frames.push(before.free()..end);
    }

    /// Turns all from `text_at` on into MessagePack, which is never longer. Cold, as is compressing: what neither is wanted of
    /// should not have to step around them.
    #[cold]
    fn pack(&mut self, text_at: usize) -> Opcode {
        self.packed.clear();
        msgpack::pack(&self.bytes.as_bytes()[text_at..], &mut self.packed);
        let end = text_at + self.packed.len();
        self.bytes.as_mut_bytes()[text_at..end].copy_from_slice(&self.packed);
        self.bytes.truncate(end);
        Opcode::Binary
    }

    /// Compresses all from `text_at` on, if that makes it shorter.
    #[cold]
    fn compress(&mut self, text_at: usize, window_bits: u8) -> bool {
        let text = &self.bytes.as_bytes()[text_at..];
        let deflated = self.deflate.message(text, window_bits);
        if deflated.len() >= text.len() {
            return false;
        }
        let end = text_at + deflated.len();
        self.bytes.as_mut_bytes()[text_at..end].copy_from_slice(deflated);
        self.bytes.truncate(end);
        true
    }

    /// How many frames are finished.
    pub fn count(&self) -> usize {
        self.frames.len()
    }

    /// The finished frame of this number, counted from 0; nothing if there is none.
    #[inline]
    pub fn frame(&self, at: usize) -> &[u8] {
        self.frames.get(at).map_or(&[], |range| &self.bytes.as_bytes()[range.clone()])
    }

    /// Writes the head so that it ends where the rows begin; returns where it begins.
    fn put_head(&mut self, head: Head) -> usize {
        if self.stamped != Some((head.rev, head.ts_us)) {
            self.stamp(head.rev, head.ts_us);
        }
        let mut out = Backwards::new(&mut self.bytes.as_mut_bytes()[..self.rows_at]);
        out.put(b",\"rows\":[");
        if head.snapshot {
            out.put(b",\"snapshot\":true");
        }
        out.put_end(&self.stamp, self.stamp_len);
        match head.prev {
            Some(prev) => out.put_u64(prev),
            None => out.put(b"null"),
        }
        out.put(b",\"prev\":");
        out.put_u64(head.seq);
        out.put(b",\"seq\":");
        out.put_u64(u64::from(head.stream));
        out.put(b"{\"type\":\"batch\",\"stream\":");
        out.free()
    }

    #[cold]
    fn stamp(&mut self, rev: Rev, ts_us: i64) {
        let mut out = Backwards::new(&mut self.stamp);
        out.put_u64(ts_us.max(0) as u64);
        out.put(b",\"ts_us\":");
        out.put_u64(rev);
        out.put(b",\"rev\":");
        self.stamp_len = STAMP_BYTES_MAX - out.free();
        self.stamped = Some((rev, ts_us));
    }
}

/// Appends the elements of a list, each with a comma after it, and empties it.
fn put_list(text: &mut Text, list: &mut Text) {
    text.put_slice(&list.as_bytes()[..list.len() - 1]);
    text.put(b"]");
    list.truncate(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::frame::deflate::Inflate;

    const HEAD: Head =
        Head { stream: 3, seq: 42, prev: None, rev: 9, ts_us: 5, snapshot: true, more: true, digest: None };

    #[test]
    fn frames_stand_one_after_the_other_with_their_own_headers() {
        let mut batch = Batch::new(&Limits::default());
        for round in 0..2 {
            batch.clear();
            batch.open();
            let mut head = HEAD;
            batch.rows().put(b"{\"a\":1},{\"b\":2},");
            batch.finish(head, Packing::default());
            batch.gaps.put(b"{},");
            (head.seq, head.prev, head.snapshot, head.more) = (43, Some(42), false, false);
            head.digest = Some(7);
            batch.finish(head, Packing::default());
            let first = br#"{"type":"batch","stream":3,"seq":42,"prev":null,"rev":9,"ts_us":5,"snapshot":true,"rows":[{"a":1},{"b":2}],"more":true}"#;
            let second =
                br#"{"type":"batch","stream":3,"seq":43,"prev":42,"rev":9,"ts_us":5,"rows":[],"gaps":[{}],"digest":7}"#;
            assert_eq!(batch.count(), 2, "round {round}");
            for (at, text) in [&first[..], second].into_iter().enumerate() {
                let expected = [&[0x81, text.len() as u8], text].concat();
                assert_eq!(String::from_utf8_lossy(batch.frame(at)), String::from_utf8_lossy(&expected));
            }
        }
    }
    #[test]
    fn a_frame_is_compressed_where_it_was_agreed_on_and_gets_shorter() {
        let (mut batch, mut inflate) = (Batch::new(&Limits::default()), Inflate::default());
        let compressed = Packing { window_bits: Some(15), is_binary: false };
        let rows = |count: usize| b"{\"symbol\":\"VCB\",\"rev\":9},".repeat(count);
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1_000).collect();
        batch.open();
        for (rows, packing) in [
            (rows(30), Packing::default()),
            (rows(30), compressed),
            (rows(2), compressed),
            (noise, compressed),
        ] {
            batch.rows().put_slice(&rows);
            batch.finish(HEAD, packing);
        }
        let (raw, packed) = (&batch.frame(0)[4..], &batch.frame(1)[4..]);
        assert_eq!(inflate.message(packed, 10_000), Ok(raw));
        assert!(packed.len() < raw.len() / 3);
        assert_eq!([0, 1, 2, 3].map(|at| batch.frame(at)[0]), [0x81, 0xc1, 0x81, 0x81]);
    }
}
