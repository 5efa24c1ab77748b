//! The simulated world of a shard: pipes instead of sockets, and a clock that somebody sets.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use tickgate::base::clock::Now;
use tickgate::flow::socket::wire::{Io, Newcomer, Ready, Wire};
use tickgate_feeds::market::Time;

/// Both directions of a connection. The client's end is the test's.
#[derive(Debug, Default)]
pub struct Pipe {
    pub to_client: Vec<u8>,
    pub to_server: Vec<u8>,
    /// How many bytes the "kernel" holds for the client before it would block.
    pub room: usize,
    pub server_closed: bool,
    pub client_closed: bool,
    wants_room: bool,
    has_news: bool,
}

pub type SharedPipe = Rc<RefCell<Pipe>>;

impl Pipe {
    pub fn new(room: usize) -> Self {
        Self { room, ..Self::default() }
    }

    /// The client sends.
    pub fn send(&mut self, bytes: &[u8]) {
        self.to_server.extend_from_slice(bytes);
        self.has_news = true;
    }

    /// The client reads at most `bytes`.
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        let bytes = bytes.min(self.to_client.len());
        self.to_client.drain(..bytes).collect()
    }

    /// The client hangs up.
    pub fn close(&mut self) {
        self.client_closed = true;
        self.has_news = true;
    }
}

/// Opcodes of frames.
pub const TEXT: u8 = 1;
pub const COMPRESSED_TEXT: u8 = 0x41;
pub const BINARY: u8 = 2;
pub const COMPRESSED_BINARY: u8 = 0x42;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A frame as a client sends it.
pub fn client_frame(opcode: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mask = [1, 2, 3, 4];
    let mut frame = vec![0x80 | opcode, 0x80 | 126];
    if opcode <= BINARY {
        frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    } else {
        frame[1] = 0x80 | payload.len() as u8; // control frames have the short form alone
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Takes the first frame off what the server sent, if it is complete: its opcode, with the bit of compression, and payload.
pub fn next_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let first = *bytes.first()?;
    assert_eq!(first & 0xb0, 0x80, "whole frames, no reserved bits but that of compression");
    let (header, len) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    let payload = bytes.get(header..header + len)?.to_vec();
    bytes.drain(..header + len);
    Some((first & 0x4f, payload))
}

#[derive(Debug)]
pub struct SimWire(pub SharedPipe);

impl Read for SimWire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.to_server.is_empty() {
            return if pipe.client_closed { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        let len = bytes.len().min(pipe.to_server.len());
        bytes[..len].copy_from_slice(&pipe.to_server[..len]);
        pipe.to_server.drain(..len);
        Ok(len)
    }
}

impl Write for SimWire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut pipe = self.0.borrow_mut();
        if pipe.client_closed {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let len = bytes.len().min(pipe.room.saturating_sub(pipe.to_client.len()));
        if len < bytes.len() {
            pipe.wants_room = true;
        }
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        pipe.to_client.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for SimWire {
    fn shutdown_write(&mut self) {
        self.0.borrow_mut().server_closed = true;
    }

    fn reset(&mut self) {}
}

impl Drop for SimWire {
    fn drop(&mut self) {
        self.0.borrow_mut().server_closed = true;
    }
}

#[derive(Default)]
pub struct SimIo {
    pub newcomers: Vec<Newcomer<SimWire>>,
    registered: Vec<(u32, SharedPipe)>,
    mono_ns: u64,
}

impl SimIo {
    pub fn set_time(&mut self, mono_ns: u64) {
        self.mono_ns = mono_ns;
    }
}

impl Io for SimIo {
    type Wire = SimWire;

    fn now(&mut self) -> Now {
        Now { mono_ns: self.mono_ns, wall: Time(1_700_000_000_000_000_000 + self.mono_ns as i64) }
    }

    fn newcomers(&mut self) -> Vec<Newcomer<SimWire>> {
        std::mem::take(&mut self.newcomers)
    }

    fn register(&mut self, wire: &mut SimWire, session: u32) -> io::Result<()> {
        self.registered.push((session, Rc::clone(&wire.0)));
        Ok(())
    }

    /// Edge-triggered, as the machine's poll is: each change is reported once.
    fn poll(&mut self, _wait: Option<Duration>, ready: &mut Vec<Ready>) {
        self.registered.retain(|(_, pipe)| !pipe.borrow().server_closed);
        for (session, pipe) in &self.registered {
            let mut pipe = pipe.borrow_mut();
            let readable = std::mem::take(&mut pipe.has_news);
            let writable = pipe.wants_room && pipe.to_client.len() < pipe.room;
            pipe.wants_room &= !writable;
            if readable || writable {
                ready.push(Ready { session: *session, readable, writable });
            }
        }
    }
}
