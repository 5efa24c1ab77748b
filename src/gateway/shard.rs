//! A shard: some of the clients, a copy of the images, and the turn in which they meet.
//!
//! Nothing in it is locked, async or reads a clock: it is handed an [`Io`], which on the machine is a poll and sockets and
//! in tests a simulated world. Bounds kept here: writes per slice, payments per turn, and what a session may hold.

mod session;
mod deliver;
mod resume;
mod commands;
mod keepalive;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tickgate_feeds::market::State;

use crate::base::clock::Now;
use crate::base::histogram::Latency;
use crate::base::limits::Limits;
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::cut::{Cut, Node};
use crate::flow::conflation::replica::Replica;
use crate::flow::conflation::wants::Want;
use crate::flow::dispatch::streams::{SessionKey, StreamKey, Streams};
use crate::flow::frame::answer::Answer;
use crate::flow::frame::batch::Batch;
use crate::flow::frame::command::Request;
use crate::flow::frame::deflate::Inflate;
use crate::flow::frame::encoder::{self, Encoder};
use crate::flow::frame::ticks::Ticks;
use crate::flow::socket::wire::{Io, Newcomer, Ready};
use crate::gateway::ingest::{Ingest, Sleep};
use session::Session;

/// What a gateway tells all its shards.
#[derive(Debug)]
pub struct Identity {
    /// Whether any feed's prices are made up.
    pub simulated: bool,
    /// The bounds.
    pub limits: Limits,
}

/// What a shard did so far. Plain cells: only the shard writes them, and others get copies.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Sessions open now.
    pub sessions: u64,
    /// Subscriptions open now.
    pub subscriptions: u64,
    /// Streams open now.
    pub streams: u64,
    /// Clients beside a stream now and then: how often one could not take a frame and was owed it instead.
    pub fell_behind: u64,
    /// Frames written to clients, each counted once per client.
    pub frames_written: u64,
    /// Of these, frames that were made for one client: first pictures and catch-ups.
    pub frames_private: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Messages read.
    pub messages_read: u64,
    /// Turns.
    pub turns: u64,
    /// Ends of sessions, by reason.
    pub ends: [u64; Reason::ALL.len()],
    /// Refused messages and topics, by reason.
    pub refusals: [u64; Reason::ALL.len()],
    /// What the encoder did.
    pub encoder: encoder::Stats,
    /// From a tick's arrival to the cut that took it here.
    pub arrival_to_cut: Latency,
    /// From the cut to the end of the slice that wrote the frame.
    pub cut_to_written: Latency,
    /// From a tick's arrival to the end of the slice that wrote it.
    pub arrival_to_written: Latency,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            sessions: 0,
            subscriptions: 0,
            streams: 0,
            fell_behind: 0,
            frames_written: 0,
            frames_private: 0,
            bytes_written: 0,
            messages_read: 0,
            turns: 0,
            ends: [0; Reason::ALL.len()],
            refusals: [0; Reason::ALL.len()],
            encoder: encoder::Stats::default(),
            arrival_to_cut: Latency::default(),
            cut_to_written: Latency::default(),
            arrival_to_written: Latency::default(),
        }
    }
}

impl Stats {
    /// Adds the counts of another shard.
    pub fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.subscriptions += other.subscriptions;
        self.streams += other.streams;
        self.fell_behind += other.fell_behind;
        self.frames_written += other.frames_written;
        self.frames_private += other.frames_private;
        self.bytes_written += other.bytes_written;
        self.messages_read += other.messages_read;
        self.turns += other.turns;
        self.encoder.frames += other.encoder.frames;
        self.encoder.rows += other.encoder.rows;
        self.encoder.gaps += other.encoder.gaps;
        self.encoder.overruns += other.encoder.overruns;
        for (mine, others) in [(&mut self.ends, &other.ends), (&mut self.refusals, &other.refusals)] {
            for (mine, others) in mine.iter_mut().zip(others) {
                *mine += others;
            }
        }
        self.arrival_to_cut.add(&other.arrival_to_cut);
        self.cut_to_written.add(&other.cut_to_written);
        self.arrival_to_written.add(&other.arrival_to_written);
    }
}

/// What was written in this slice, to be timed at its end with one reading of the clock.
#[derive(Debug, Default)]
struct Slice {
    writes: usize,
    frames: u64,
}

/// When clients of a gateway that ends are told to come back, in milliseconds: a restart takes a moment.
const RECONNECT_MS_MIN: u64 = 500;
const RECONNECT_MS_SPREAD: u64 = 9_500;

/// Some of the clients and all that serves them.
pub struct Shard<I: Io> {
    index: usize,
    identity: Arc<Identity>,
    ingest: Arc<Ingest>,
    sessions: Slab<Session<I::Wire>>,
    sessions_ever: u64,
    streams: Streams,
    encoder: Encoder,
    /// The frames of the flush under way; absent while it is.
    shared: Option<Box<Batch>>,
    private: Batch,
    /// The rest of each frame of the flush that somebody could not take at once, kept once for all of them.
    rests: Vec<Option<Bytes>>,
    /// Read while frames were going out; they take effect between turns.
    requests: Vec<(SessionKey, Request)>,
    /// Topics that commands had looked up in this turn.
    looked_up: usize,
    /// Sessions that must end, once nobody walks over them.
    doomed: Vec<(SessionKey, Reason)>,
    /// Clients that have come and were not admitted yet.
    newcomers: VecDeque<Newcomer<I::Wire>>,
    /// Clients that had more to say than was read at once.
    unread: Vec<SessionKey>,
    /// Clients whose sockets have room again.
    drained: Vec<SessionKey>,
    /// Clients that can be paid now, once for each of their debts.
    debtors: VecDeque<SessionKey>,
    keepalive: keepalive::Wheel,
    slice: Slice,
    cut_ns: u64,
    /// The newest ticks of the images that the last cut brought.
    arrived: Ticks,
    /// The time as of this slice.
    now: Now,
    stats: Stats,
    ready: Vec<Ready>,
    due: Vec<StreamKey>,
    read_buffer: Vec<u8>,
    inflate: Inflate,
    draining: bool,
}

impl<I: Io> Shard<I> {
    /// A shard without clients.
    pub fn new(index: usize, identity: Arc<Identity>, ingest: Arc<Ingest>) -> Self {
        let limits = &identity.limits;
        let replica = Replica::new(Arc::clone(ingest.symbols()), ingest.node(), limits.log_events_max);
        Self {
            index,
            sessions: Slab::new(),
            sessions_ever: 0,
            streams: Streams::default(),
            encoder: Encoder::new(replica),
            shared: Some(Box::new(Batch::new(limits))),
            private: Batch::new(limits),
            rests: Vec::new(),
            requests: Vec::new(),
            looked_up: 0,
            doomed: Vec::new(),
            newcomers: VecDeque::new(),
            unread: Vec::new(),
            drained: Vec::new(),
            debtors: VecDeque::new(),
            keepalive: keepalive::Wheel::new(limits.heartbeat),
            slice: Slice::default(),
            cut_ns: 0,
            arrived: Ticks::default(),
            now: Now::default(),
            stats: Stats::default(),
            ready: Vec::new(),
            due: Vec::new(),
            read_buffer: vec![0; crate::base::limits::READ_BYTES],
            inflate: Inflate::default(),
            draining: false,
            identity,
            ingest,
        }
    }

    /// One turn: everything that can be done now. Returns how long there will be nothing to do unless woken.
    pub fn turn(&mut self, io: &mut I) -> Option<Duration> {
        self.now = io.now();
        self.stats.turns += 1;
        self.look_at_sockets(io, Some(Duration::ZERO));
        self.bury();
        self.obey();
        self.pull();
        self.flush_due(io);
        self.pay(io);
        self.keep_alive();
        self.end_slice(io);
        // What was found to be over meanwhile is buried by the next turn, before its requests are obeyed.
        self.next_wait()
    }

    /// Waits for sockets, for a wake-up, or for `wait`, and reads what has come.
    pub fn sleep(&mut self, io: &mut I, wait: Option<Duration>) {
        let sleep = if self.streams.any_open() { Sleep::Eager } else { Sleep::Lazy };
        self.ingest.set_sleep(self.index, sleep);
        // News that came before the mark was set rang no bell.
        let news = sleep == Sleep::Eager && self.has_news();
        let wait = if news { Some(Duration::ZERO) } else { wait };
        self.look_at_sockets(io, wait);
        self.ingest.set_sleep(self.index, Sleep::Awake);
    }

    /// Says when this shard will want to know what is new: when the next slots begin, if it can wait that long.
    fn tell_looks(&self, can_wait: bool) {
        self.ingest.set_looks(self.index, can_wait.then(|| self.streams.next_dues_ns()));
    }

    /// What the shard did so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Copies the counts of now into the stats.
    pub fn settle_stats(&mut self) {
        self.stats.sessions = self.sessions.len() as u64;
        self.stats.streams = self.streams.len() as u64;
        self.stats.subscriptions = self.sessions.iter().map(|(_, session)| session.subs.len() as u64).sum();
        self.stats.encoder = self.encoder.stats;
    }

    /// When the turn or slice under way began, on the monotonic clock.
    pub fn now_ns(&self) -> u64 {
        self.now.mono_ns
    }

    /// Sends every client away with a time to come back, once.
    pub fn drain(&mut self) {
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let keys: Vec<SessionKey> = self.sessions.iter().map(|(key, _)| key as SessionKey).collect();
        for key in keys {
            // Spread by a prime, so that ten thousand clients do not come back at once.
            let reconnect_in_ms = RECONNECT_MS_MIN + u64::from(key) * 7_919 % RECONNECT_MS_SPREAD;
            self.answer(key, &Answer::Drain { reconnect_in_ms, to: None }.text());
            self.end(key, Reason::Restart);
        }
    }

    /// Whether every session has ended, and none is about to begin.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.newcomers.is_empty()
    }

    /// Polls, admits newcomers, reads what clients sent and writes what waited for room.
    fn look_at_sockets(&mut self, io: &mut I, wait: Option<Duration>) {
        for key in std::mem::take(&mut self.unread) {
            self.read(key);
        }
        let mut ready = std::mem::take(&mut self.ready);
        io.poll(wait, &mut ready);
        if wait != Some(Duration::ZERO) {
            self.now = io.now();
        }
        for ready in ready.drain(..) {
            if ready.readable {
                self.read(ready.session);
            }
            if ready.writable {
                self.write_waiting(ready.session);
            }
        }
        self.ready = ready;
        self.admit(io);
    }

    /// Takes what changed into the replica, and finds out who wants it.
    fn pull(&mut self) {
        let before = Arc::clone(&self.encoder.replica.node);
        if !self.streams.has_changed_wants() && !self.has_news() && self.knows_all_symbols() {
            self.encoder.begin_turn();
            return;
        }
        loop {
            let known = self.encoder.replica.len();
            let cut = self.pull_once();
            if self.streams.is_news(cut.directory) {
                self.follow(known, cut.rev);
            }
            // What a new topic needs must be here before its stream's next frame.
            if !self.streams.has_changed_wants() {
                break;
            }
        }
        self.cut_ns = self.now.mono_ns;
        self.encoder.begin_turn();
        if self.encoder.replica.node.version != before.version {
            self.meet_node(&before);
        }
    }

    fn has_news(&self) -> bool {
        let replica = &self.encoder.replica;
        self.ingest.has_news(replica.rev, replica.node.version)
    }

    /// The node is in another run of revisions, or knows the market better or worse than `before`: everybody is told.
    fn meet_node(&mut self, before: &Node) {
        let node = Arc::clone(&self.encoder.replica.node);
        if node.run != before.run {
            for Want { channel, symbol, .. } in self.streams.all_wants() {
                self.encoder.replica.want(channel, symbol);
            }
            for (session, place) in self.streams.begin_run(self.encoder.replica.rev) {
                self.encoder.judge(self.streams.get_mut(place.stream), false);
                self.queue_debt(session, place);
            }
        }
        if node.link != before.link {
            let keys: Vec<SessionKey> = self.sessions.iter().map(|(key, _)| key as SessionKey).collect();
            for key in keys {
                self.answer(key, &self.link());
            }
        }
    }

    /// How far everything here can be trusted.
    fn link(&self) -> Vec<u8> {
        let state = self.encoder.replica.node.link;
        let reason = (state != State::Live).then_some(Reason::UpstreamSilent.label());
        Answer::Link { state: state.name(), reason }.text()
    }

    fn pull_once(&mut self) -> Arc<Cut> {
        let wants = self.streams.take_changed_wants();
        let cut = self.ingest.pull(self.encoder.replica.node.run, self.encoder.replica.rev, &wants);
        let replica = &mut self.encoder.replica;
        replica.apply(&cut, |channel, symbol| self.streams.wants(channel, symbol));
        for (Want { channel, symbol, .. }, _) in wants {
            if self.streams.wants(channel, symbol) {
                replica.want(channel, symbol);
            } else {
                replica.forget(channel, symbol);
            }
        }
        self.arrived.begin_turn();
        for changed in &cut.changed {
            let tick = self.arrived.number(changed.arrival_ns);
            self.arrived.count(tick, 1);
        }
        let (now_ns, arrival_to_cut) = (self.now.mono_ns, &mut self.stats.arrival_to_cut);
        self.arrived.take(|arrival_ns, ticks| {
            arrival_to_cut.record(now_ns.saturating_sub(arrival_ns), ticks);
        });
        if self.streams.any_open() {
            let symbols = cut.changed.iter().map(|changed| changed.symbol);
            let symbols = symbols.chain(cut.books.iter().filter_map(|book| book.symbol));
            let symbols = symbols.chain(cut.bars.iter().map(|bar| bar.symbol));
            for symbol in symbols {
                self.streams.mark(symbol, false);
            }
            for event in &cut.events {
                self.streams.mark(event.symbol, event.is_apart());
            }
        }
        cut
    }

    /// Lets groups and wildcards mean what they mean since `rev`, as far as their clients have room for more topics. Symbols
    /// from `known` on were not known before.
    fn follow(&mut self, known: usize, rev: Rev) {
        let topics_max = self.identity.limits.topics_per_session_max;
        let (sessions, news) = (&self.sessions, known..self.encoder.replica.len());
        let room = |key: SessionKey, sizes: &[usize]| {
            let subs = sessions.get(key as usize).map_or(&[][..], |session| &session.subs);
            topics_max.saturating_sub(subs.iter().map(|sub| sizes[sub.place.stream as usize]).sum())
        };
        self.streams.follow(self.ingest.symbols(), news, rev, room);
    }

    fn knows_all_symbols(&self) -> bool {
        self.encoder.replica.len() == self.ingest.symbols().len()
    }

    /// Reads the clock once for all writes of the slice and records how old their ticks were.
    fn end_slice(&mut self, io: &mut I) {
        let Slice { writes, frames } = std::mem::take(&mut self.slice);
        if writes == 0 {
            return;
        }
        self.now = io.now();
        let (now_ns, stats) = (self.now.mono_ns, &mut self.stats);
        self.encoder.take_times(|arrival_ns, times| {
            stats.arrival_to_written.record(now_ns.saturating_sub(arrival_ns), times);
        });
        if frames > 0 {
            stats.cut_to_written.record(now_ns.saturating_sub(self.cut_ns), frames);
        }
    }

    fn next_wait(&self) -> Option<Duration> {
        let clients = !self.debtors.is_empty() || !self.drained.is_empty() || !self.requests.is_empty();
        if clients
            || !self.newcomers.is_empty()
            || !self.unread.is_empty()
            || !self.doomed.is_empty()
            || self.streams.has_changed_wants()
        {
            return Some(Duration::ZERO);
        }
        let wheel = (!self.sessions.is_empty()).then(|| self.keepalive.next_ns());
        let next = [self.streams.next_due_ns(), wheel].into_iter().flatten().min()?;
        Some(Duration::from_nanos(next.saturating_sub(self.now.mono_ns)))
    }
}
