//! Heartbeats, pings, stalls and goodbyes, spread over time so that ten thousand of them are no wall.
//!
//! Bounds kept here: one heartbeat interval is cut into [`SPOKES`] parts, and each looks at its share of the sessions; of a session
//! one heartbeat waits at a time, in 16 bytes.

use std::collections::VecDeque;
use std::time::Duration;

use super::Shard;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::dispatch::streams::SessionKey;
use crate::flow::frame::answer;
use crate::flow::frame::websocket::{self, Opcode};
use crate::flow::socket::wire::{Io, Wire};

/// Parts of a heartbeat interval: 47 ms each at the usual three seconds.
const SPOKES: usize = 64;
/// How long a heartbeat waits for a frame that it can go with, in parts of the interval, and up to one more: 141 to 188 ms at
/// the usual three seconds, which is more than the slot of ten frames a second.
const BEAT_SPOKES: u64 = 3;
/// Pings without an answer that end a session.
const PINGS_MISSED_MAX: u8 = 2;

/// Which sessions to look at next.
#[derive(Debug)]
pub(super) struct Wheel {
    spoke: usize,
    spoke_ns: u64,
    next_ns: u64,
    /// Sessions that are ending: looked at with every spoke.
    ending: Vec<SessionKey>,
    /// Sessions whose heartbeat waits for a frame, and until when; in order.
    beats: VecDeque<(u64, SessionKey)>,
}

impl Wheel {
    pub(super) fn new(heartbeat: Duration) -> Self {
        let spoke_ns = (heartbeat.as_nanos() as u64 / SPOKES as u64).max(1);
        Self { spoke: 0, spoke_ns, next_ns: 0, ending: Vec::new(), beats: VecDeque::new() }
    }

    pub(super) fn next_ns(&self) -> u64 {
        self.next_ns
    }

    pub(super) fn watch(&mut self, key: SessionKey) {
        self.ending.push(key);
    }
}

impl<I: Io> Shard<I> {
    /// Looks after the sessions whose time has come.
    pub(super) fn keep_alive(&mut self) {
        let now_ns = self.now.mono_ns;
        if now_ns < self.keepalive.next_ns {
            return;
        }
        // A late wheel turns on by as much as it is late, at most once around.
        let (late_ns, spoke_ns) = (now_ns - self.keepalive.next_ns, self.keepalive.spoke_ns);
        let spokes = (late_ns / spoke_ns + 1).min(SPOKES as u64);
        self.keepalive.next_ns = now_ns - late_ns % spoke_ns + spoke_ns;
        for _ in 0..spokes {
            self.keepalive.spoke = (self.keepalive.spoke + 1) % SPOKES;
            let mut key = self.keepalive.spoke;
            while key < self.sessions.capacity() {
                if self.sessions.contains(key) {
                    self.look_after(key as SessionKey);
                }
                key += SPOKES;
            }
        }
        self.end_waits();
        self.end_goodbyes();
    }

    fn look_after(&mut self, key: SessionKey) {
        let now_ns = self.now.mono_ns;
        let limits = &self.identity.limits;
        let session = &mut self.sessions[key as usize];
        if session.ending.is_some() {
            return;
        }
        if session.outbox.stalled_ns(now_ns) >= limits.write_stall.as_nanos() as u64 {
            self.doomed.push((key, Reason::Slow));
            return;
        }
        let mut ping = false;
        // Who only listens cannot answer: of such a client the heartbeats find out whether it is there.
        if !session.wire.listens() && now_ns - session.pinged_ns >= limits.ping.as_nanos() as u64 {
            if session.pings_missed >= PINGS_MISSED_MAX {
                self.doomed.push((key, Reason::NoPong));
                return;
            }
            // Whatever is heard before the next ping sets this back to 0.
            session.pings_missed += 1;
            session.pinged_ns = now_ns;
            ping = true;
        }
        // The wheel comes by once per interval, give or take a spoke: a session that is younger than half waits.
        let due = now_ns - session.beat_ns >= limits.heartbeat.as_nanos() as u64 / 2;
        if due && session.outbox.is_idle() {
            self.begin_beat(key);
        }
        if ping {
            self.say(key, websocket::frame(Opcode::Ping, b""));
        }
    }

    /// A client to which frames go gets its heartbeat with the next of them, if one goes soon: it costs as much as a frame
    /// when it goes by itself.
    fn begin_beat(&mut self, key: SessionKey) {
        let has_frames = self.quiet(key).is_empty();
        let session = &mut self.sessions[key as usize];
        if has_frames && session.subs.len() == 1 {
            if !std::mem::replace(&mut session.beat_waits, true) {
                self.let_wait(key);
            }
        } else {
            self.beat(key);
        }
    }

    fn let_wait(&mut self, key: SessionKey) {
        let until_ns = self.now.mono_ns + BEAT_SPOKES * self.keepalive.spoke_ns;
        self.keepalive.beats.push_back((until_ns, key));
    }

    /// Sends the heartbeats that no frame has taken along.
    fn end_waits(&mut self) {
        while let Some(&(until_ns, key)) = self.keepalive.beats.front()
            && until_ns <= self.now.mono_ns
        {
            self.keepalive.beats.pop_front();
            match self.sessions.get_mut(key as usize) {
                Some(session) if session.beat_waits && session.outbox.is_idle() => {
                    session.beat_waits = false;
                    self.beat(key);
                }
                // It will not stand behind bytes that the client does not take, but come when they are gone.
                Some(session) if session.beat_waits && session.ending.is_none() => self.let_wait(key),
                _ => {}
            }
        }
    }

    fn beat(&mut self, key: SessionKey) {
        let quiet = self.quiet(key);
        let session = &mut self.sessions[key as usize];
        // Behind bytes that the client does not take, a heartbeat would only be old news.
        if session.outbox.is_idle() {
            session.beat_ns = self.now.mono_ns;
            self.answer(key, answer::heartbeat(self.now.wall.us(), &quiet).as_bytes());
        }
    }

    /// The streams of which the client had no frame since its last heartbeat, or not all, with what it holds of them.
    fn quiet(&self, key: SessionKey) -> Vec<(u32, u64, Rev)> {
        let session = &self.sessions[key as usize];
        let mut quiet = Vec::new();
        for sub in &session.subs {
            let stream = self.streams.get(sub.place.stream);
            let member = &stream.members[sub.place.member as usize];
            match &member.debt {
                None if stream.frame_ns <= session.beat_ns => {
                    quiet.push((stream.number, stream.seq, stream.rev));
                }
                None => {}
                Some(debt) => quiet.extend(debt.seq.map(|seq| (stream.number, seq, debt.held))),
            }
        }
        quiet
    }

    fn end_goodbyes(&mut self) {
        for key in std::mem::take(&mut self.keepalive.ending) {
            match self.sessions.get(key as usize).and_then(|session| session.ending.as_ref()) {
                Some(ending) if ending.deadline_ns <= self.now.mono_ns || ending.discard_left == 0 => {
                    self.forget(key);
                }
                Some(_) => self.keepalive.ending.push(key),
                None => {}
            }
        }
    }
}
