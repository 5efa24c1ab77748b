//! One more client, on a thread of its own, that asks for answers while the load runs: how long does a ping take?
//!
//! It sends by the clock and not after the last answer, so a slow server cannot hide (no coordinated omission).
//! Bound: `OPEN_MAX` unanswered questions of each kind; older ones count as lost.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::connection::READ_BYTES;
use super::plan::Plan;
use super::tally::{Times, times};
use super::walker::{self, Kind, Step};
use super::worker::{MEASURE, STOP, Shared};
use super::{handshake, head};
use crate::client::clock::instant;

/// A `ping` command each so often: eight a second, under the protocol's ten, which would be refused.
const COMMAND_EVERY: Duration = Duration::from_millis(125);

/// Questions that may be open: twenty seconds of pings at one each 20 ms.
const OPEN_MAX: usize = 1000;

/// How long the handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// One kind of question.
pub(super) struct Asked {
    pub(super) round_trip_us: Times,
    pub(super) lost: u64,
    open: VecDeque<(u64, Instant, bool)>,
}

/// What the probe found.
pub(super) struct Answers {
    pub(super) ping: Asked,
    pub(super) command: Asked,
}

impl Asked {
    fn new() -> Result<Asked, String> {
        Ok(Asked { round_trip_us: times()?, lost: 0, open: VecDeque::new() })
    }

    fn ask(&mut self, id: u64, measured: bool) {
        if self.open.len() == OPEN_MAX {
            self.lost += self.open.pop_front().map_or(0, |(_, _, measured)| u64::from(measured));
        }
        self.open.push_back((id, instant(), measured));
    }

    /// Answers come in order, and a server may answer the latest ping only (RFC 6455, 5.5.3): older ones are settled.
    fn answer(&mut self, id: u64) {
        let known = self.open.iter().any(|&(open, ..)| open == id);
        while known && let Some((open, asked, measured)) = self.open.pop_front() {
            if open == id {
                if measured {
                    self.round_trip_us.saturating_record(asked.elapsed().as_micros() as u64);
                }
                break;
            }
        }
    }

    /// What is still open after the load has ended will not be answered.
    fn settle(&mut self) {
        self.lost += self.open.drain(..).filter(|&(_, _, measured)| measured).count() as u64;
    }
}

/// Sends a WebSocket ping each `ping_every`, and commands, until the phase is `STOP`.
pub(super) fn run(plan: &Plan, shared: &Shared, ping_every: Duration) -> Result<Answers, String> {
    let text = |error: std::io::Error| format!("ping probe: {error}");
    let (mut socket, mut carry) = connect(plan)?;
    let mut poll = Poll::new().map_err(text)?;
    let mut events = Events::with_capacity(8);
    poll.registry().register(&mut socket, Token(0), Interest::READABLE).map_err(text)?;
    let mut answers = Answers { ping: Asked::new()?, command: Asked::new()? };
    let mut buffer = vec![0; READ_BYTES];
    let (mut ping_due, mut command_due) = (instant(), instant());
    let mut id = 0;
    loop {
        let phase = shared.phase.load(Ordering::Relaxed);
        if phase == STOP {
            break;
        }
        let mut out = Vec::new();
        let now = instant();
        if now >= ping_due {
            (id, ping_due) = (id + 1, ping_due + ping_every);
            answers.ping.ask(id, phase == MEASURE);
            walker::write_masked(&mut out, 0x9, id.to_string().as_bytes(), id as u32);
        }
        if now >= command_due {
            (id, command_due) = (id + 1, command_due + COMMAND_EVERY);
            answers.command.ask(id, phase == MEASURE);
            let command = format!("{{\"action\":\"ping\",\"id\":{id}}}");
            walker::write_masked(&mut out, 0x1, command.as_bytes(), id as u32);
        }
        // A handful of bytes each 20 ms: a socket that does not take them is as good as broken.
        socket.write_all(&out).map_err(text)?;
        let wait = ping_due.min(command_due).saturating_duration_since(instant());
        match poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(text(error)),
            _ => {}
        }
        read(&mut socket, &mut carry, &mut buffer, &mut answers)?;
    }
    answers.ping.settle();
    answers.command.settle();
    Ok(answers)
}

fn connect(plan: &Plan) -> Result<(mio::net::TcpStream, Vec<u8>), String> {
    let text = |error: std::io::Error| format!("ping probe: {error}");
    let mut socket = std::net::TcpStream::connect(plan.server).map_err(text)?;
    socket.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(text)?;
    socket.set_nodelay(true).map_err(text)?;
    let request = handshake::request(&plan.endpoint.authority, &plan.endpoint.path);
    socket.write_all(request.as_bytes()).map_err(text)?;
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        if let Some(end) = handshake::head_end(&head) {
            handshake::check(&head[..end]).map_err(|why| format!("ping probe: {why}"))?;
            socket.set_nonblocking(true).map_err(text)?;
            return Ok((mio::net::TcpStream::from_std(socket), head.split_off(end)));
        }
        let count = socket.read(&mut chunk).map_err(text)?;
        if count == 0 || head.len() > handshake::HEAD_BYTES_MAX {
            return Err("ping probe: the server hung up during the handshake".into());
        }
        head.extend_from_slice(&chunk[..count]);
    }
}

/// Reads until the socket is empty and notes the answers.
fn read(
    socket: &mut mio::net::TcpStream,
    carry: &mut Vec<u8>,
    buffer: &mut [u8],
    answers: &mut Answers,
) -> Result<(), String> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Err("ping probe: the server hung up".into()),
            Ok(count) => carry.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("ping probe: {error}")),
        }
        let mut at = 0;
        loop {
            let frame = match walker::step(carry, at, READ_BYTES) {
                Step::Whole(frame) => frame,
                Step::Partial => break,
                Step::Wrong(what) => return Err(format!("ping probe: {what}")),
            };
            at = frame.payload.end;
            let payload = &carry[frame.payload];
            match frame.kind {
                Kind::Pong => {
                    let id = std::str::from_utf8(payload).ok().and_then(|id| id.parse().ok());
                    answers.ping.answer(id.unwrap_or(0));
                }
                Kind::Text if head::type_of(payload) == "pong" => {
                    let answer: serde_json::Value = serde_json::from_slice(payload).unwrap_or_default();
                    answers.command.answer(answer["id"].as_u64().unwrap_or(0));
                }
                Kind::Close => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(format!("ping probe: the server closed the connection: {code} {reason:?}"));
                }
                _ => {}
            }
        }
        carry.drain(..at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_settles_older_questions() {
        let mut asked = Asked::new().unwrap();
        for id in 1..=4 {
            asked.ask(id, true);
        }
        asked.answer(9);
        asked.answer(3);
        assert_eq!((asked.round_trip_us.len(), asked.open.len(), asked.lost), (1, 1, 0));
        asked.settle();
        assert_eq!(asked.lost, 1);
    }
}
