//! A client of the shard, from its first byte to its last.
//!
//! Bounds kept here: connection-wide rates of messages, and how long a goodbye may take. An idle session is small: what
//! is needed only now and then is behind a pointer.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use tickgate_feeds::market::State;

use super::Shard;
use crate::base::clock::Now;
use crate::base::limits::{ADMISSIONS_AT_ONCE, Limits, REQUESTS_WAITING_MAX};
use crate::base::reason::Reason;
use crate::flow::dispatch::streams::{Place, SessionKey};
use crate::flow::dispatch::wish::Packing;
use crate::flow::frame::answer::{self, Answer, echo};
use crate::flow::frame::command::{Command, Mistake, Request};
use crate::flow::frame::msgpack;
use crate::flow::frame::websocket::{self, Opcode};
use crate::flow::outbox::{Offered, Outbox};
use crate::flow::socket::inbound::{Inbound, Incoming, Means};
use crate::flow::socket::wire::{Io, Newcomer, Wire};

/// A subscription of a session.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) name: Box<str>,
    pub(super) place: Place,
    /// The limit of rates lowered (or set) its rate.
    pub(super) capped: bool,
}

/// A session that is ending.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) deadline_ns: u64,
    /// What is still read and thrown away, in bytes: a peer that goes on sending must not keep us.
    pub(super) discard_left: usize,
    /// The close frame is out and the write side is shut.
    pub(super) said: bool,
}

/// One client.
#[derive(Debug)]
pub(super) struct Session<W> {
    pub(super) wire: W,
    pub(super) outbox: Outbox,
    pub(super) inbound: Inbound,
    pub(super) subs: Vec<Sub>,
    pub(super) ending: Option<Box<Ending>>,
    pub(super) opened_ns: u64,
    pub(super) heard_ns: u64,
    pub(super) pinged_ns: u64,
    pub(super) beat_ns: u64,
    /// Its heartbeat is due, and goes with the next frame.
    pub(super) beat_waits: bool,
    pub(super) commands: Rate,
    pub(super) controls: Rate,
    pub(super) refusals_since_ns: u64,
    pub(super) refusals: u32,
    pub(super) next_sub: u32,
    pub(super) pings_missed: u8,
    /// Which of the subscriptions was paid last.
    pub(super) paid_sub: u16,
    /// Which of the shard's it was, counted from 1; after four billion from 0 again.
    number: u32,
    pub(super) peer: SocketAddr,
    pub(super) packing: Packing,
}

/// A rate with a burst, in one number: the generic cell rate algorithm (ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// When the next message would be due if all came evenly.
    due_ns: u64,
}

impl Rate {
    /// Counts a message if it is within the rate: `burst` at once, then `per_second`. The error is the wait, in nanoseconds.
    fn take(&mut self, now_ns: u64, per_second: u32, burst: u32) -> Result<(), u64> {
        let step_ns = 1_000_000_000 / u64::from(per_second.max(1));
        let due_ns = self.due_ns.max(now_ns) + step_ns;
        match due_ns.saturating_sub(now_ns + step_ns * u64::from(burst)) {
            0 => {
                self.due_ns = due_ns;
                Ok(())
            }
            wait_ns => Err(wait_ns),
        }
    }
}

/// Pings, pongs and parts of messages that may come in the place of one command: a browser sends none, a prober a few a second.
const CONTROLS_PER_COMMAND: u32 = 10;
/// How far a refused message is inflated, in bytes, to find the `id` that the refusal names: the usual command fits, and a flood
/// of long ones in a few bytes each costs no more than one of short ones.
const REFUSED_BYTES_MAX: usize = 1 << 10;
/// What is read and thrown away at most while a session ends, in bytes: a client that is in the middle of sending 10 MB
/// must still learn that this was too much, and a reset would eat our close frame. The close timeout bounds it too.
const DISCARD_BYTES_MAX: usize = 16 << 20;
/// Buffers read from one socket before the others get a turn.
const READS_AT_ONCE: usize = 4;
/// The window in which refused messages are counted.
const REFUSALS_WINDOW_NS: u64 = 10_000_000_000;

impl<I: Io> Shard<I> {
    /// Takes in clients that the doors have left, some at a time.
    pub(super) fn admit(&mut self, io: &mut I) {
        self.newcomers.extend(io.newcomers());
        for _ in 0..ADMISSIONS_AT_ONCE {
            let Some(newcomer) = self.newcomers.pop_front() else {
                // A crowd is rare: its place is given back.
                self.newcomers = VecDeque::new();
                return;
            };
            self.admit_one(io, newcomer);
        }
    }

    fn admit_one(&mut self, io: &mut I, newcomer: Newcomer<I::Wire>) {
        let now_ns = self.now.mono_ns;
        let key = self.sessions.vacant_key() as SessionKey;
        let mut wire = newcomer.wire;
        if io.register(&mut wire, key).is_err() {
            let reason = Reason::Overloaded;
            self.stats.ends[reason as usize] += 1;
            // One try, nothing waits for it: there is no room to wait in.
            let _ = wire.write(&websocket::close(reason.close_code().unwrap_or_default(), reason.text()));
            return;
        }
        self.sessions_ever += 1;
        self.sessions.insert(Session {
            wire,
            outbox: Outbox::default(),
            inbound: Inbound::default(),
            subs: Vec::new(),
            ending: None,
            opened_ns: now_ns,
            heard_ns: now_ns,
            pinged_ns: now_ns,
            beat_ns: now_ns,
            beat_waits: false,
            commands: Rate::default(),
            controls: Rate::default(),
            refusals_since_ns: now_ns,
            refusals: 0,
            next_sub: 1,
            pings_missed: 0,
            paid_sub: 0,
            number: self.sessions_ever as u32,
            peer: newcomer.peer,
            packing: newcomer.packing,
        });
        let limits = &self.identity.limits;
        let name = self.session_name(key);
        tracing::debug!(session = name, peer = %newcomer.peer, "session begins");
        let node = &self.encoder.replica.node;
        let welcome = Answer::Welcome {
            epoch: &node.epoch,
            session: &name,
            version: env!("CARGO_PKG_VERSION"),
            heartbeat_ms: limits.heartbeat.as_millis() as u64,
            simulated: self.identity.simulated,
            path: &node.path,
            limits: limits.into(),
        };
        let welcome = welcome.text();
        self.answer(key, &welcome);
        if self.encoder.replica.node.link != State::Live {
            self.answer(key, &self.link());
        }
        match newcomer.asked {
            Ok(None) => {}
            Ok(Some(subscribe)) => {
                self.requests.push((key, Request { id: None, command: Ok(Command::Subscribe(subscribe)) }));
            }
            Err(mistake) => self.requests.push((key, Request { id: None, command: Err(mistake) })),
        }
        if self.draining {
            self.doomed.push((key, Reason::Restart));
        }
        let mut head = newcomer.head;
        self.hear(key, &mut head);
        // Bytes that came before the registration may be reported only with the next ones.
        self.read(key);
    }

    /// Reads a socket until it would block: readiness is reported once, and an end may stand behind the bytes.
    pub(super) fn read(&mut self, key: SessionKey) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let mut reads = 0;
        while let Some(session) = self.sessions.get_mut(key as usize) {
            if reads == READS_AT_ONCE || self.requests.len() >= REQUESTS_WAITING_MAX {
                // It goes on with the next look at the sockets, after everybody else has had a turn.
                self.unread.push(key);
                break;
            }
            reads += 1;
            match session.wire.read(&mut buffer) {
                Ok(0) => {
                    self.doomed.push((key, Reason::Disconnected));
                    break;
                }
                Ok(len) => self.hear(key, &mut buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.doomed.push((key, Reason::Disconnected));
                    break;
                }
            }
        }
        self.read_buffer = buffer;
    }

    /// Takes bytes of a client apart and notes what it wants.
    fn hear(&mut self, key: SessionKey, bytes: &mut [u8]) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        (session.heard_ns, session.pings_missed) = (self.now.mono_ns, 0);
        if let Some(ending) = &mut session.ending {
            ending.discard_left = ending.discard_left.saturating_sub(bytes.len());
            return;
        }
        if session.wire.listens() {
            if !bytes.is_empty() {
                self.doomed.push((key, Reason::ProtocolError));
            }
            return;
        }
        let limits = &self.identity.limits;
        let (now_ns, requests, stats) = (self.now.mono_ns, &mut self.requests, &mut self.stats);
        let (mut end, mut pings) = (None, Vec::new());
        let mut inbound = std::mem::take(&mut session.inbound);
        let compression = session.packing.window_bits.is_some();
        let means = Means { message_bytes_max: limits.message_bytes_max, compression };
        let inflate = &mut self.inflate;
        let heard = inbound.feed(bytes, means, &mut |incoming| {
            stats.messages_read += 1;
            if let Incoming::Close(_) = incoming {
                end = Some(Reason::ClientClosed);
                return false;
            }
            let counted = session.count_message(&incoming, now_ns, limits);
            let bytes_max = counted.map_or(REFUSED_BYTES_MAX, |()| limits.message_bytes_max);
            let incoming = match incoming.inflated(inflate, bytes_max) {
                Ok(incoming) => incoming,
                // It is refused unread, as if nothing stood in it.
                Err(Reason::MessageTooBig) if counted.is_err() => Incoming::Text(""),
                Err(reason) => {
                    end = Some(reason);
                    return false;
                }
            };
            if let Err(wait_ns) = counted {
                stats.refusals[Reason::RateLimited as usize] += 1;
                if session.refuse(now_ns) > limits.refusals_max {
                    end = Some(Reason::Flood);
                } else if let Some(request) = request(&incoming, session.packing, limits) {
                    // Counted here, answered in its turn: so the client knows which of its commands it was.
                    let command = Err(Mistake::rate_limited(wait_ns.div_ceil(1_000_000)));
                    requests.push((key, Request { command, ..request }));
                }
                return end.is_none();
            }
            if let Some(request) = request(&incoming, session.packing, limits) {
                let is_next = requests.iter().all(|(asker, _)| *asker != key);
                match request.command {
                    // It needs nothing that frames on their way out have taken, so it does not wait for their end.
                    Ok(Command::Ping) if is_next => pings.push(request.id),
                    _ => requests.push((key, request)),
                }
                return true;
            }
            match incoming {
                Incoming::Binary(_) => end = Some(Reason::UnexpectedBinary),
                Incoming::Ping(payload) => {
                    session.outbox.pong(websocket::frame(Opcode::Pong, payload), now_ns);
                }
                _ => {}
            }
            end.is_none()
        });
        session.inbound = inbound;
        if let Some(reason) = end.or(heard.err()) {
            self.doomed.push((key, reason));
        }
        if session.outbox.has_bytes() {
            self.write_waiting(key);
        }
        for id in pings {
            let pong = Answer::Pong { id: id.as_deref(), ts_us: self.now.wall.us() };
            self.answer(key, &pong.text());
        }
    }

    /// Says a message to one client.
    pub(super) fn answer(&mut self, key: SessionKey, text: &[u8]) {
        let Some(session) = self.sessions.get(key as usize) else { return };
        let frame = answer::frame(text, session.packing);
        self.say(key, frame);
    }

    /// Queues a frame for one client and writes what it can.
    pub(super) fn say(&mut self, key: SessionKey, frame: Vec<u8>) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.ending.is_some() {
            return;
        }
        let bytes_max = self.identity.limits.outbox_bytes_max;
        match session.outbox.answer(frame, bytes_max, self.now.mono_ns) {
            Ok(()) => self.write_waiting(key),
            Err(_) => self.doomed.push((key, Reason::Slow)),
        }
    }

    /// Writes what waits for a client; when all is out and there is room, its debts can be paid.
    pub(super) fn write_waiting(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.outbox.is_idle() {
            return;
        }
        match session.outbox.flush(&mut session.wire, self.now.mono_ns) {
            Ok(bytes) => self.stats.bytes_written += bytes as u64,
            Err(_) => {
                self.doomed.push((key, Reason::Disconnected));
                return;
            }
        }
        if !session.outbox.is_idle() {
            return;
        }
        if let Some(ending) = &mut session.ending {
            ending.said = true;
            session.wire.shutdown_write();
            return;
        }
        self.drained.push(key);
    }

    /// Ends the session of a client that only listens when it has no subscription: it cannot ask for another.
    pub(super) fn let_go(&mut self, key: SessionKey, reason: Reason) {
        let session = self.sessions.get(key as usize);
        if session.is_some_and(|session| session.wire.listens() && session.subs.is_empty()) {
            self.doomed.push((key, reason));
        }
    }

    /// Ends the sessions that were found to be over while others walked over them.
    pub(super) fn bury(&mut self) {
        while !self.doomed.is_empty() {
            // In the order in which they were found: the first reason is the reason.
            for (key, reason) in std::mem::take(&mut self.doomed) {
                self.end(key, reason);
            }
        }
    }

    /// Ends a session: says why if it can still hear, and forgets it when it has heard.
    pub(super) fn end(&mut self, key: SessionKey, reason: Reason) {
        let Some(session) = self.sessions.get_mut(key as usize) else { return };
        if session.ending.is_some() {
            // A goodbye under way: only a lost connection ends it sooner.
            if reason == Reason::Disconnected {
                self.forget(key);
            }
            return;
        }
        self.stats.ends[reason as usize] += 1;
        let open_ms = (self.now.mono_ns - session.opened_ns) / 1_000_000;
        let peer = session.peer;
        tracing::debug!(session = self.session_name(key), %peer, reason = reason.label(), open_ms, "session ends");
        while !self.sessions[key as usize].subs.is_empty() {
            self.leave(key, 0);
        }
        let Some(code) = reason.close_code() else {
            self.forget(key);
            return;
        };
        let (now, timeout) = (self.now, self.identity.limits.close_timeout);
        let session = &mut self.sessions[key as usize];
        let text = format!("{}:{}", reason.label(), reason.text());
        session.outbox.close(websocket::close(code, &text), now.mono_ns);
        session.ending = Some(Box::new(Ending {
            deadline_ns: now.after(timeout),
            discard_left: DISCARD_BYTES_MAX,
            said: false,
        }));
        self.keepalive.watch(key);
        self.write_waiting(key);
    }

    /// The session's name, for `welcome` and the log.
    fn session_name(&self, key: SessionKey) -> String {
        format!("{}-{}", self.index, self.sessions[key as usize].number)
    }

    /// Forgets a session for good.
    pub(super) fn forget(&mut self, key: SessionKey) {
        // The place may be another client's soon: it must not inherit what this one asked for, or its end.
        self.requests.retain(|(asker, _)| *asker != key);
        self.doomed.retain(|(found, _)| *found != key);
        if let Some(mut session) = self.sessions.try_remove(key as usize)
            && !session.outbox.is_idle()
        {
            // What the peer did not take in time must not linger in the kernel.
            session.wire.reset();
        }
    }
}

/// The command that a message is, if it can be one. Text is JSON, whatever was agreed on.
fn request(incoming: &Incoming<'_>, packing: Packing, limits: &Limits) -> Option<Request> {
    match incoming {
        Incoming::Text(text) => Some(Request::parse(text, limits)),
        Incoming::Binary(bytes) if packing.is_binary => Some(match msgpack::unpack(bytes) {
            Ok(text) => Request::parse(&text, limits),
            Err(why) => Request {
                id: None,
                command: Err(Mistake::new(
                    Reason::BadRequest,
                    format!("expected a command in MessagePack: {}", echo(&why)),
                )),
            },
        }),
        _ => None,
    }
}

impl<W: Wire> Session<W> {
    /// Reads of all parts that a frame needs, for nothing but to have them at hand.
    pub(super) fn touch(&self) -> u64 {
        self.heard_ns ^ u64::from(self.outbox.is_idle()) ^ u64::from(self.ending.is_some())
    }

    /// Offers a frame and the heartbeat that waits for one, in one write.
    #[cold]
    pub(super) fn offer_with_beat(&mut self, frame: &[u8], now: Now) -> io::Result<Offered> {
        // It is subscribed to nothing else, so that no stream is quiet.
        let beat = answer::frame(answer::heartbeat(now.wall.us(), &[]).as_bytes(), self.packing);
        let offered = self.outbox.offer(&mut self.wire, &[frame, &beat].concat(), &mut None, now.mono_ns)?;
        if offered != Offered::Refused {
            (self.beat_ns, self.beat_waits) = (now.mono_ns, false);
        }
        Ok(offered)
    }

    /// Counts a message against its rate; the error says in how many nanoseconds it would be taken.
    fn count_message(&mut self, incoming: &Incoming<'_>, now_ns: u64, limits: &Limits) -> Result<(), u64> {
        let (per_second, burst) = (limits.commands_per_second, limits.commands_burst);
        let (rate, factor) = match incoming {
            Incoming::Text(_) | Incoming::Binary(_) | Incoming::Compressed { .. } => (&mut self.commands, 1),
            _ => (&mut self.controls, CONTROLS_PER_COMMAND),
        };
        rate.take(now_ns, per_second * factor, burst * factor)
    }

    /// Counts a refused message; returns how many there were within the window.
    pub(super) fn refuse(&mut self, now_ns: u64) -> u32 {
        if now_ns - self.refusals_since_ns > REFUSALS_WINDOW_NS {
            (self.refusals_since_ns, self.refusals) = (now_ns, 0);
        }
        self.refusals += 1;
        self.refusals
    }
}
