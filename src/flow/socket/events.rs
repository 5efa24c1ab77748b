//! Frames as Server-Sent Events (HTML Standard, 9.2): what is written for a WebSocket becomes, on its way out, an event of
//! the same text. So a shard serves both alike, and who only listens shares frames with everybody else.
//!
//! Bound kept here: nothing is kept of a frame but what stands before its text in the event.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::ops::Range;

use crate::flow::frame::websocket::Opcode;

/// What ends every event; it begins with the last byte of the text, which is always an object.
const AFTER: &[u8; 3] = b"}\n\n";
/// When a browser comes back after a break, unless it is told otherwise, in milliseconds: sooner than by its own three to
/// five seconds, since going on costs little.
const RETRY_MS: u32 = 2_000;

/// The writer of one client's events.
#[derive(Debug, Default)]
pub struct EventStream {
    /// The run that revisions are of, as the client was told last.
    epoch: String,
    /// The subscription's name, once there is one: a cursor belongs to it.
    wish: String,
    /// What stands before the text of the event under way.
    before: Vec<u8>,
    /// How many bytes of the frame it has as its text.
    text: usize,
    /// How many bytes of the event are out; 0 when none is under way.
    out: usize,
}

impl EventStream {
    /// Writes frames, or what was left of them when the wire took no more. Returns how many bytes of them were taken: the
    /// last byte of a frame only when its whole event is out.
    pub fn write(&mut self, frames: &[u8], wire: &mut impl Write) -> io::Result<usize> {
        let mut taken = 0;
        while taken < frames.len() {
            let text_at = if self.out == 0 { self.begin(&frames[taken..])? } else { 0 };
            let had = self.text_out();
            let is_whole = self.go_on(&frames[taken + text_at..], wire)?;
            if self.out > 0 {
                taken += text_at + self.text_out() - had;
            }
            if !is_whole {
                break;
            }
            taken += 1;
            self.out = 0;
        }
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// How many bytes of the text are out.
    fn text_out(&self) -> usize {
        self.out.saturating_sub(self.before.len()).min(self.text)
    }

    /// Makes the event of the first of these frames; returns where in it the text begins.
    fn begin(&mut self, frames: &[u8]) -> io::Result<usize> {
        let (opcode, payload) = payload(frames).ok_or(ErrorKind::InvalidData)?;
        let said = &frames[payload.clone()];
        self.before.clear();
        if opcode == Opcode::Text as u8 {
            self.put_fields(said)?;
            self.before.extend_from_slice(b"data: ");
            self.text = payload.len() - 1;
            return Ok(payload.start);
        }
        // Pings and pongs are not for those who only listen.
        let (Some(code), true) = (said.first_chunk(), opcode == Opcode::Close as u8) else {
            return Err(ErrorKind::InvalidData.into());
        };
        // The words of a reason need no escaping.
        let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(&said[2..]));
        write!(self.before, "data: {{\"type\":\"close\",\"code\":{code},\"reason\":\"{reason}\"")?;
        self.text = 0;
        Ok(payload.end - 1)
    }

    /// What the event tells the client's own machinery: where to go on from, and when to come back.
    fn put_fields(&mut self, text: &[u8]) -> io::Result<()> {
        if text.starts_with(b"{\"type\":\"batch\"") {
            self.note_epoch(text);
            let (epoch, wish) = (&self.epoch, &self.wish);
            // Who has a part of something does not hold it yet.
            if !text.ends_with(b"\"more\":true}") {
                writeln!(self.before, "id: {epoch}:{}:{wish}", value(text, "\"rev\":"))?;
            }
        } else if text.starts_with(b"{\"type\":\"welcome\"") {
            self.epoch = value(text, "\"epoch\":\"").into_owned();
            // What an earlier connection was told holds no longer.
            writeln!(self.before, "retry: {RETRY_MS}")?;
        } else if text.starts_with(b"{\"type\":\"subscribed\"") {
            self.wish = value(text, "\"wish\":\"").into_owned();
        } else if text.starts_with(b"{\"type\":\"drain\"") {
            writeln!(self.before, "retry: {}", value(text, "\"reconnect_in_ms\":"))?;
        } else if text.starts_with(b"{\"type\":\"error\"") {
            let retry = value(text, "\"retry_after_ms\":");
            if !retry.is_empty() {
                writeln!(self.before, "retry: {retry}")?;
            }
        }
        Ok(())
    }

    /// A first picture may be that of another run.
    fn note_epoch(&mut self, batch: &[u8]) {
        let head_end = batch.iter().position(|byte| *byte == b'[').unwrap_or(0);
        if !value(&batch[..head_end], "\"snapshot\":").is_empty() {
            let epoch = value(batch, "\"epoch\":\"");
            if !epoch.is_empty() {
                self.epoch = epoch.into_owned();
            }
        }
    }

    /// Writes as much of the event as the wire takes; says whether that was the rest. `text` goes on where its text stopped.
    fn go_on(&mut self, text: &[u8], wire: &mut impl Write) -> io::Result<bool> {
        let had = self.text_out();
        loop {
            let before = &self.before[self.out.min(self.before.len())..];
            let text = &text[self.text_out() - had..self.text - had];
            let after = &AFTER[self.out.saturating_sub(self.before.len() + self.text)..];
            if after.is_empty() {
                return Ok(true);
            }
            match wire.write_vectored(&[before, text, after].map(IoSlice::new)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(part) => self.out += part,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The opcode of the first frame, and where its payload lies; `None` when it is not whole or has none.
fn payload(frame: &[u8]) -> Option<(u8, Range<usize>)> {
    let (at, len) = match frame.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(*frame.get(2..4)?.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*frame.get(2..10)?.first_chunk()?) as usize),
        len => (2, usize::from(*len)),
    };
    (len > 0 && frame.len() - at >= len).then(|| (frame[0] & 0xf, at..at + len))
}

/// The first value behind this key: a number, or the rest of a string without escapes.
fn value<'a>(text: &'a [u8], key: &str) -> Cow<'a, str> {
    let at = text.windows(key.len()).position(|window| window == key.as_bytes());
    let rest = at.map_or(&[][..], |at| &text[at + key.len()..]);
    let end = rest.iter().position(|byte| b",\"}".contains(byte));
    String::from_utf8_lossy(&rest[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::base::reason::Reason;
    use crate::flow::dispatch::wish::Packing;
    use crate::flow::frame::answer::Answer;
    use crate::flow::frame::batch::{Batch, Head};
    use crate::flow::frame::websocket;
    use crate::flow::outbox::{Offered, Outbox};

    /// A wire of events that takes a set number of bytes, then would block.
    struct Narrow {
        events: EventStream,
        room: usize,
        got: Vec<u8>,
    }

    struct Room<'a>(&'a mut usize, &'a mut Vec<u8>);

    impl Write for Room<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let part = bytes.len().min(*self.0);
            if part == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            *self.0 -= part;
            self.1.extend_from_slice(&bytes[..part]);
            Ok(part)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Write for Narrow {
        fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
            self.events.write(frames, &mut Room(&mut self.room, &mut self.got))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch(rev: u64, rows: usize, more: bool) -> Vec<u8> {
        let mut batch = Batch::new(&Limits::default());
        batch.open();
        for row in 0..rows {
            batch.rows().put_slice(format!("{{\"rev\":{row},\"more\":true}},").as_bytes());
        }
        let (ts_us, snapshot, digest) = (5, false, None);
        batch.finish(
            Head { stream: 3, seq: 4, prev: Some(3), rev, ts_us, snapshot, more, digest },
            Packing::default(),
        );
        batch.frame(0).to_vec()
    }

    fn text(frame: &[u8]) -> String {
        let (_, payload) = payload(frame).expect("a whole frame");
        String::from_utf8(frame[payload].to_vec()).expect("text")
    }

    #[test]
    fn whatever_the_wire_takes_at_once_the_same_events_come_out() {
        let subscribed =
            br#"{"type":"subscribed","sub":"1","rev":7,"wish":"5b1e","filter":"\"wish\":\"no\""}"#;
        let error = |retry_after_ms| {
            let (code, message, rejected) = ("node_behind", "\"retry_after_ms\":9", Vec::new());
            let error = Answer::Error { id: None, code, message, retry_after_ms, rejected };
            websocket::frame(Opcode::Text, &error.text())
        };
        let drain = Answer::Drain { reconnect_in_ms: 8300, to: None };
        let frames = [
            ("retry: 2000\n", websocket::frame(Opcode::Text, br#"{"type":"welcome","epoch":"9f2c"}"#)),
            ("", websocket::frame(Opcode::Text, subscribed)),
            ("id: 9f2c:90211:5b1e\n", batch(90_211, 0, false)),
            ("", batch(90_211, 9, true)),
            ("id: 9f2c:90300:5b1e\n", batch(90_300, 3_000, false)),
            ("", error(None)),
            ("retry: 500\n", error(Some(500))),
            ("retry: 8300\n", websocket::frame(Opcode::Text, &drain.text())),
        ];
        let events = frames.iter().map(|(fields, frame)| format!("{fields}data: {}\n\n", text(frame)));
        let close = "data: {\"type\":\"close\",\"code\":4001,\"reason\":\"slow:too slow\"}\n\n";
        let expected: String = events.chain([close.to_owned()]).collect();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for most in [1, 2, 3, 7, 50, 300, 5_000, 1 << 20] {
            let mut wire = Narrow { events: EventStream::default(), room: 0, got: Vec::new() };
            let mut outbox = Outbox::default();
            for two in frames.chunks(2) {
                // Shared frames come together, and may all be taken at once.
                let two: Vec<u8> = two.iter().flat_map(|(_, frame)| frame).copied().collect();
                wire.room = random.usize(1..=most);
                outbox.offer(&mut wire, &two, &mut None, 0).expect("room");
                while !outbox.is_idle() {
                    wire.room = random.usize(1..=most);
                    outbox.flush(&mut wire, 0).expect("room");
                }
            }
            outbox.close(websocket::close(4001, "slow:too slow"), 0);
            while !outbox.is_idle() {
                wire.room = random.usize(1..=most);
                outbox.flush(&mut wire, 0).expect("room");
            }
            assert_eq!(String::from_utf8_lossy(&wire.got), expected, "at most {most} bytes at once");
        }
    }

    #[test]
    fn a_frame_that_found_no_room_at_all_is_forgotten() {
        let mut wire = Narrow { events: EventStream::default(), room: 0, got: Vec::new() };
        let (mut outbox, frame) = (Outbox::default(), batch(1, 0, false));
        assert_eq!(outbox.offer(&mut wire, &frame, &mut None, 0).expect("no error"), Offered::Refused);
        wire.room = 1_000;
        outbox.flush(&mut wire, 0).expect("room");
        let frame = batch(2, 0, false);
        assert_eq!(outbox.offer(&mut wire, &frame, &mut None, 0).expect("room"), Offered::Taken(frame.len()));
        assert_eq!(String::from_utf8_lossy(&wire.got), format!("id: :2:\ndata: {}\n\n", text(&frame)));
    }

    #[test]
    fn the_words_of_every_close_are_json() {
        for reason in Reason::ALL.iter().filter(|reason| reason.close_code().is_some()) {
            let words = format!("{}:{}", reason.label(), reason.text());
            let mut wire = Narrow { events: EventStream::default(), room: 1_000, got: Vec::new() };
            let frame = websocket::close(reason.close_code().expect("a code"), &words);
            assert_eq!(wire.write(&frame).expect("room"), frame.len());
            let event = String::from_utf8(wire.got).expect("text");
            let data =
                event.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n")).expect("an event");
            let said: serde_json::Value = serde_json::from_str(data).expect("JSON");
            assert_eq!((&said["code"], &said["reason"]), (&reason.close_code().into(), &words.into()));
        }
    }
}
