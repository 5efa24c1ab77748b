//! The client queue: what waits for one client besides its debts.
//!
//! Bounds kept here: one half-written frame, `outbox_bytes_max` of answers, one pong (the latest wins, RFC 6455 5.5.3) and
//! one close frame. Batches never queue: a client that cannot take one now is owed what changed, and that is a number.
//! An idle outbox is one pointer.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

use bytes::Bytes;

/// What became of frames that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The socket took them all: so many bytes.
    Taken(usize),
    /// The socket took so many bytes; the rest is kept and will follow.
    Kept(usize),
    /// The socket took nothing, or other bytes are still waiting; nothing was kept.
    Refused,
}

/// The answers that wait are more than the bound.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// What waits for one client.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// A frame of which a part may be written.
    current: Bytes,
    pong: Option<Vec<u8>>,
    answers: VecDeque<Bytes>,
    answers_bytes: usize,
    close: Option<Vec<u8>>,
    /// When the socket last took something.
    progress_ns: u64,
}

impl Outbox {
    /// Whether nothing waits, for bytes to go or for room to send more.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_none()
    }

    /// Whether there is something to write, not only a wait for room.
    pub fn has_bytes(&self) -> bool {
        let has = |w: &Waiting| {
            !w.current.is_empty() || w.pong.is_some() || !w.answers.is_empty() || w.close.is_some()
        };
        self.waiting.as_deref().is_some_and(has)
    }

    /// How long the socket has taken nothing although bytes wait.
    pub fn stalled_ns(&self, now_ns: u64) -> u64 {
        self.waiting.as_ref().map_or(0, |waiting| now_ns.saturating_sub(waiting.progress_ns))
    }

    /// Writes whole frames that many clients share. `shared` is filled by the first client that keeps a part, so the
    /// rest is kept once for all of them.
    #[inline(always)] // a call would be a third of what a client of a broadcast costs here
    pub fn offer(
        &mut self,
        wire: &mut impl Write,
        frames: &[u8],
        shared: &mut Option<Bytes>,
        now_ns: u64,
    ) -> io::Result<Offered> {
        if !self.is_idle() {
            return Ok(Offered::Refused);
        }
        match write(wire, frames)? {
            0 => {
                // Nothing is kept, but the wait counts: a client that takes nothing is slow, whatever it owes or is owed.
                self.waiting(now_ns);
                Ok(Offered::Refused)
            }
            all if all == frames.len() => Ok(Offered::Taken(all)),
            part => {
                let frames = shared.get_or_insert_with(|| Bytes::copy_from_slice(frames));
                let waiting = self.waiting(now_ns);
                waiting.current = frames.slice(part..);
                waiting.progress_ns = now_ns;
                Ok(Offered::Kept(part))
            }
        }
    }

    /// Queues an answer or heartbeat.
    pub fn answer(&mut self, frame: Vec<u8>, bytes_max: usize, now_ns: u64) -> Result<(), Full> {
        let waiting = self.waiting(now_ns);
        if waiting.answers_bytes + frame.len() > bytes_max && !waiting.answers.is_empty() {
            return Err(Full);
        }
        waiting.answers_bytes += frame.len();
        waiting.answers.push_back(frame.into());
        Ok(())
    }

    /// Queues a pong; a later one replaces it.
    pub fn pong(&mut self, frame: Vec<u8>, now_ns: u64) {
        self.waiting(now_ns).pong = Some(frame);
    }

    /// Queues the close frame: the last thing this client gets.
    pub fn close(&mut self, frame: Vec<u8>, now_ns: u64) {
        self.waiting(now_ns).close.get_or_insert(frame);
    }

    /// Writes what waits, as far as the socket takes it; to be called when there are bytes or the socket has room.
    /// Returns how many bytes it took.
    pub fn flush(&mut self, wire: &mut impl Write, now_ns: u64) -> io::Result<usize> {
        let mut total = 0;
        while let Some(waiting) = &mut self.waiting {
            if waiting.current.is_empty() && !waiting.advance() {
                self.waiting = None;
                break;
            }
            match write(wire, &waiting.current)? {
                0 => break,
                part => {
                    waiting.current = waiting.current.slice(part..);
                    waiting.progress_ns = now_ns;
                    total += part;
                }
            }
        }
        Ok(total)
    }

    fn waiting(&mut self, now_ns: u64) -> &mut Waiting {
        self.waiting.get_or_insert_with(|| Box::new(Waiting { progress_ns: now_ns, ..Waiting::default() }))
    }
}

impl Waiting {
    /// Makes the next frame the current one; false when there is none.
    fn advance(&mut self) -> bool {
        if let Some(pong) = self.pong.take() {
            self.current = pong.into();
        } else if let Some(answer) = self.answers.pop_front() {
            self.answers_bytes -= answer.len();
            self.current = answer;
        } else if let Some(close) = self.close.take() {
            self.current = close.into();
        } else {
            return false;
        }
        true
    }
}

/// How many bytes the socket takes now: 0 when it would block.
fn write(wire: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match wire.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(part) => return Ok(part),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a set number of bytes, then would block.
    struct Narrow {
        room: usize,
        got: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let part = bytes.len().min(self.room);
            if part == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= part;
            self.got.extend_from_slice(&bytes[..part]);
            Ok(part)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_half_written_frame_is_finished_before_anything_else() {
        let (mut outbox, mut shared) = (Outbox::default(), None);
        let mut wire = Narrow { room: 3, got: Vec::new() };
        assert_eq!(outbox.offer(&mut wire, b"batch!", &mut shared, 1).expect("io"), Offered::Kept(3));
        outbox.close(b"[close]".to_vec(), 2);
        outbox.answer(b"[answer]".to_vec(), 100, 2).expect("room");
        outbox.pong(b"[old]".to_vec(), 2);
        outbox.pong(b"[pong]".to_vec(), 2);
        assert_eq!(outbox.offer(&mut wire, b"next", &mut None, 3).expect("io"), Offered::Refused);
        assert_eq!(outbox.stalled_ns(31), 30);
        wire.room = 100;
        outbox.flush(&mut wire, 40).expect("io");
        assert_eq!(wire.got, b"batch![pong][answer][close]");
        assert!(outbox.is_idle() && outbox.stalled_ns(99) == 0);
    }

    #[test]
    fn answers_are_bounded() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.answer(vec![0; 150], 100, 0), Ok(()), "one answer always fits");
        assert_eq!(outbox.answer(vec![0; 1], 100, 0), Err(Full));
    }

    #[test]
    fn an_idle_outbox_is_one_pointer() {
        assert_eq!(size_of::<Outbox>(), size_of::<usize>());
    }
}
