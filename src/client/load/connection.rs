//! One client of the load: connects, shakes hands, subscribes, then counts what comes.
//!
//! Bound: between reads a client holds at most the beginning of one frame (`carry`, under `READ_BYTES`) and the
//! answers that its socket did not take; all clients of a thread share one read buffer.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use super::handshake;
use super::head::{self, Head, Text};
use super::plan::Plan;
use super::sample::{self, Continuity};
use super::tally::Tally;
use super::walker::{self, Frame, Kind, Step};
use crate::base::random::Random;
use crate::client::clock::wall_us;

/// The shared read buffer: four of the longest frames that the protocol allows.
pub(super) const READ_BYTES: usize = 256 * 1024;

/// Receive buffer of a client that stops reading, so that the server feels it at once and not after megabytes.
const STALLED_RECEIVE_BYTES: usize = 4096;

/// Bytes of an error text that are kept for the report.
const ERROR_TEXT_BYTES: usize = 160;

/// Bytes read from a stalled client at the end, to see whether the server has ended it.
const STALLED_DRAIN_BYTES: usize = 16 << 20;

/// Close code that stands for "ended without saying so" (RFC 6455, 7.4.1).
const ABNORMAL: u16 = 1006;

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Handshake,
    Open,
}

/// Why a client is no more.
#[derive(Debug)]
pub(super) enum End {
    /// It never got in.
    Failed(String),
    /// It was in, and was ended with this code.
    Closed(u16),
}

/// What a client needs of its thread while it handles an event.
pub(super) struct Desk<'a> {
    pub(super) plan: &'a Plan,
    pub(super) buffer: &'a mut [u8],
    pub(super) tally: &'a mut Tally,
    pub(super) random: &'a mut Random,
    /// Whether frames count now.
    pub(super) measuring: bool,
}

/// One client.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) stage: Stage,
    index: usize,
    /// When it was to connect, and when it began to.
    wanted_us: u64,
    began_us: u64,
    has_frame: bool,
    carry: Vec<u8>,
    out: Vec<u8>,
    /// Only in sampled clients.
    continuity: Option<Box<Continuity>>,
}

impl Connection {
    /// Begins to connect. A port that is still taken, as after a quick reconnect, is left to the kernel to choose.
    pub(super) fn open(plan: &Plan, index: usize, wanted_us: u64) -> std::io::Result<Connection> {
        let source = plan.source(index);
        let socket = match (dial(plan, index, source), source) {
            (Err(error), Some(source))
                if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) =>
            {
                dial(plan, index, Some(SocketAddr::new(source.ip(), 0)))?
            }
            (result, _) => result?,
        };
        Ok(Connection {
            socket: TcpStream::from_std(socket.into()),
            stage: Stage::Connecting,
            index,
            wanted_us,
            began_us: wall_us(),
            has_frame: false,
            carry: Vec::new(),
            out: Vec::new(),
            continuity: plan.is_sampled(index).then(Box::default),
        })
    }

    /// Handles what the poll said. `read_closed` asks for a read to the very end.
    pub(super) fn on_event(
        &mut self,
        readable: bool,
        read_closed: bool,
        desk: &mut Desk<'_>,
    ) -> Result<(), End> {
        if self.stage == Stage::Connecting {
            if let Ok(Some(error)) = self.socket.take_error() {
                return Err(End::Failed(error.to_string()));
            }
            let request = handshake::request(&desk.plan.endpoint.authority, &desk.plan.path(self.index));
            self.out.extend_from_slice(request.as_bytes());
            self.stage = Stage::Handshake;
        }
        if !self.out.is_empty() {
            self.flush()?;
        }
        if readable { self.read(read_closed, desk) } else { Ok(()) }
    }

    /// Whether all that this client has to say is said, and it is one of those that stop reading.
    pub(super) fn falls_silent(&self, plan: &Plan) -> bool {
        self.stage == Stage::Open && self.out.is_empty() && plan.is_stalled(self.index)
    }

    fn read(&mut self, read_closed: bool, desk: &mut Desk<'_>) -> Result<(), End> {
        loop {
            let held = self.carry.len();
            desk.buffer[..held].copy_from_slice(&self.carry);
            let room = desk.buffer.len() - held;
            match self.socket.read(&mut desk.buffer[held..]) {
                Ok(0) => return Err(self.end("the server hung up")),
                Ok(count) => {
                    self.carry.clear();
                    self.take(held + count, desk)?;
                    // A short read emptied the socket: what comes later is a new edge.
                    if count < room && !read_closed {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.end(&error.to_string())),
            }
        }
    }

    fn end(&self, why: &str) -> End {
        if self.stage == Stage::Open { End::Closed(ABNORMAL) } else { End::Failed(why.to_owned()) }
    }

    /// Goes through the first `length` bytes of the buffer and carries what is left over.
    fn take(&mut self, length: usize, desk: &mut Desk<'_>) -> Result<(), End> {
        let now_us = wall_us();
        let mut at = 0;
        if self.stage == Stage::Handshake {
            match handshake::head_end(&desk.buffer[..length]) {
                Some(end) => {
                    handshake::check(&desk.buffer[..end]).map_err(End::Failed)?;
                    self.opened(now_us, desk)?;
                    at = end;
                }
                None if length > handshake::HEAD_BYTES_MAX => {
                    return Err(End::Failed("the answer's head is too long".into()));
                }
                None => {
                    self.carry.extend_from_slice(&desk.buffer[..length]);
                    return Ok(());
                }
            }
        }
        loop {
            match walker::step(&desk.buffer[..length], at, READ_BYTES) {
                Step::Whole(frame) => {
                    let begin = at;
                    at = frame.payload.end;
                    self.on_frame(&frame, at - begin, now_us, desk)?;
                }
                Step::Partial => break,
                Step::Wrong(what) => {
                    desk.tally.error(what);
                    return Err(End::Closed(ABNORMAL));
                }
            }
        }
        self.carry.extend_from_slice(&desk.buffer[at..length]);
        if self.out.is_empty() { Ok(()) } else { self.flush() }
    }

    fn opened(&mut self, now_us: u64, desk: &mut Desk<'_>) -> Result<(), End> {
        self.stage = Stage::Open;
        desk.tally.handshake_us.saturating_record(now_us.saturating_sub(self.began_us));
        if let Some(command) = desk.plan.command(self.index) {
            walker::write_masked(&mut self.out, 0x1, command.as_bytes(), desk.random.bits() as u32);
            self.flush()?;
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: &Frame, size: usize, now_us: u64, desk: &mut Desk<'_>) -> Result<(), End> {
        let payload = &desk.buffer[frame.payload.clone()];
        match frame.kind {
            Kind::Text => match head::read(payload) {
                Text::Batch(Some(head)) => {
                    let tally = &mut *desk.tally;
                    if !self.has_frame {
                        self.has_frame = true;
                        tally.first_frame_us.saturating_record(now_us.saturating_sub(self.wanted_us));
                    }
                    if let Some(continuity) = &mut self.continuity {
                        let found = continuity.on_batch(&head);
                        tally.missing += found.missing;
                        tally.merged += found.merged;
                    }
                    tally.rounds.on_frame(head.stream, head.seq, head.ts_us, now_us);
                    if desk.measuring {
                        count_batch(tally, &head, payload, size, now_us, desk.plan.sample);
                    }
                }
                Text::Batch(None) => desk.tally.unreadable += 1,
                Text::Other => {
                    desk.tally.other_frames += u64::from(desk.measuring);
                    on_other(self.continuity.as_deref_mut(), payload, desk.tally);
                }
            },
            Kind::Binary | Kind::Continuation => desk.tally.other_frames += u64::from(desk.measuring),
            Kind::Ping => {
                desk.tally.server_pings += 1;
                walker::write_masked(&mut self.out, 0xa, payload, desk.random.bits() as u32);
            }
            Kind::Pong => {}
            Kind::Close => {
                let code = payload.first_chunk().map_or(ABNORMAL, |code| u16::from_be_bytes(*code));
                walker::write_masked(&mut self.out, 0x8, payload, desk.random.bits() as u32);
                // The other side has said why already; whether our answer still arrives changes nothing.
                let _ = self.flush();
                return Err(End::Closed(code));
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), End> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(count) => {
                    self.out.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.end(&error.to_string())),
            }
        }
        // A command is written once in a client's life; ten thousand kept buffers would be our own idle memory.
        self.out = Vec::new();
        Ok(())
    }

    /// Reads what a stalled client left lying; true when the server has ended the connection meanwhile.
    pub(super) fn was_ended(&mut self, buffer: &mut [u8]) -> bool {
        let mut taken = 0;
        while taken < STALLED_DRAIN_BYTES {
            match self.socket.read(buffer) {
                Ok(0) => return true,
                Ok(count) => taken += count,
                Err(error) => return error.kind() != ErrorKind::WouldBlock,
            }
        }
        false
    }
}

fn dial(plan: &Plan, index: usize, source: Option<SocketAddr>) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(plan.server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if plan.is_stalled(index) {
        socket.set_recv_buffer_size(STALLED_RECEIVE_BYTES)?;
    }
    if let Some(source) = source {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    match socket.connect(&plan.server.into()) {
        Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// The error number of a connect that goes on in the background; std has no `ErrorKind` for it.
const EINPROGRESS: i32 = 115;

fn count_batch(tally: &mut Tally, head: &Head, payload: &[u8], size: usize, now_us: u64, sample: usize) {
    tally.frames += 1;
    tally.bytes += size as u64;
    tally.frame_us.saturating_record(now_us.saturating_sub(head.ts_us));
    if tally.frames.is_multiple_of(sample as u64) {
        let tick_us = &mut tally.tick_us;
        match sample::rows(payload, |time_us| tick_us.saturating_record(now_us.saturating_sub(time_us))) {
            Some(rows) => {
                tally.sampled_frames += 1;
                tally.sampled_rows += rows;
            }
            None => tally.unreadable += 1,
        }
    }
}

fn on_other(continuity: Option<&mut Continuity>, payload: &[u8], tally: &mut Tally) {
    match head::type_of(payload) {
        "heartbeat" => {
            tally.missing += continuity.map_or(0, |continuity| continuity.on_heartbeat(payload));
        }
        "subscribed" => {
            tally.subscribed += 1;
            const REJECTED: &[u8] = b"\"rejected\":[{";
            if let Some(at) = payload.windows(REJECTED.len()).position(|window| window == REJECTED) {
                tally.error(&beginning(&payload[at..]));
            }
        }
        "error" => tally.error(&beginning(payload)),
        _ => {}
    }
}

fn beginning(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(&payload[..payload.len().min(ERROR_TEXT_BYTES)]);
    text.chars().filter(|character| !character.is_control()).collect()
}
