//! One thread of the load: a poll, its share of the clients, and what they counted.
//!
//! Bound: `HANDSHAKES_MAX` clients on their way in at a time over all threads, `EVENTS` events a turn, one read
//! buffer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::connection::{Connection, Desk, End, READ_BYTES, Stage};
use super::plan::Plan;
use super::tally::Tally;
use crate::base::random::Random;
use crate::client::clock::{instant, wall_us};

/// Handshakes under way together: far below the backlog of 4096, so that none is dropped and retried after a second.
pub(super) const HANDSHAKES_MAX: usize = 512;

/// Events a turn: enough to empty a full broadcast in ten turns, few enough to notice a change of phase within 5 ms.
const EVENTS: usize = 1024;

/// The longest sleep without events: how late a thread may notice that the phase has changed.
const TURN: Duration = Duration::from_millis(10);

/// Connecting and warming up: frames are read, checked and not counted.
pub(super) const WARM: u8 = 0;
/// Frames count.
pub(super) const MEASURE: u8 = 1;
/// Frames do not count any more, but complete the rounds that were under way.
pub(super) const LINGER: u8 = 2;
/// The threads end.
pub(super) const STOP: u8 = 3;

/// What the threads and the one that leads them tell each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) phase: AtomicU8,
    pub(super) connected: AtomicUsize,
    pub(super) failed: AtomicUsize,
}

/// One thread's clients: those whose index leaves `number` when divided by `threads`.
pub(super) struct Worker {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    threads: usize,
    number: usize,
    poll: Poll,
    slots: Vec<Option<Connection>>,
    /// Slots that wait to be opened, and since when: who waits for a place waits like the others.
    waiting: VecDeque<(usize, u64)>,
    in_flight: usize,
    tally: Tally,
    random: Random,
    buffer: Vec<u8>,
}

impl Worker {
    /// Makes the thread's state; nothing is connected yet.
    pub(super) fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        threads: usize,
        number: usize,
    ) -> Result<Worker, String> {
        let count = (plan.clients + threads - 1 - number) / threads;
        Ok(Worker {
            poll: Poll::new().map_err(|error| format!("epoll: {error}"))?,
            slots: (0..count).map(|_| None).collect(),
            waiting: (0..count).map(|slot| (slot, wall_us())).collect(),
            in_flight: 0,
            tally: Tally::new()?,
            random: Random::new(plan.seed ^ number as u64),
            buffer: vec![0; READ_BYTES],
            plan,
            shared,
            threads,
            number,
        })
    }

    /// Runs until the phase is `STOP`; `churn` clients a second leave and come back.
    pub(super) fn run(mut self, churn: f64) -> Result<Tally, String> {
        let mut events = Events::with_capacity(EVENTS);
        let churn_step = (churn > 0.0).then(|| Duration::from_secs_f64(self.threads as f64 / churn));
        let mut churn_due = None;
        loop {
            let phase = self.shared.phase.load(Ordering::Relaxed);
            if phase == STOP {
                break;
            }
            self.open_some();
            if let Some(step) = churn_step
                && phase != LINGER
                && (churn_due.is_some() || (self.waiting.is_empty() && self.in_flight == 0))
            {
                churn_due = Some(self.churn(churn_due.unwrap_or_else(instant), step));
            }
            match self.poll.poll(&mut events, Some(TURN)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("epoll: {error}"));
                }
                _ => {}
            }
            for event in &events {
                let readable = event.is_readable() || event.is_error();
                self.on_event(event.token().0, readable, event.is_read_closed(), phase == MEASURE);
            }
        }
        for slot in self.slots.iter_mut().flatten() {
            if slot.falls_silent(&self.plan) && slot.was_ended(&mut self.buffer) {
                self.tally.stalled_ended += 1;
            }
        }
        Ok(self.tally)
    }

    fn open_some(&mut self) {
        let bound = (HANDSHAKES_MAX / self.threads).max(1);
        while self.in_flight < bound
            && let Some((slot, wanted_us)) = self.waiting.pop_front()
        {
            match self.open(slot, wanted_us) {
                Ok(()) => self.in_flight += 1,
                Err(error) => {
                    let files = error.raw_os_error() == Some(EMFILE);
                    let hint = if files { " (raise the limit with `ulimit -n`)" } else { "" };
                    self.failed(&format!("{error}{hint}"));
                }
            }
        }
    }

    fn open(&mut self, slot: usize, wanted_us: u64) -> std::io::Result<()> {
        let index = slot * self.threads + self.number;
        let mut connection = Connection::open(&self.plan, index, wanted_us)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.socket, Token(slot), interest)?;
        self.slots[slot] = Some(connection);
        Ok(())
    }

    fn failed(&mut self, why: &str) {
        self.tally.fail(why);
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn on_event(&mut self, slot: usize, readable: bool, read_closed: bool, measuring: bool) {
        let Some(connection) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let before = connection.stage;
        let mut desk = Desk {
            plan: &self.plan,
            buffer: &mut self.buffer,
            tally: &mut self.tally,
            random: &mut self.random,
            measuring,
        };
        let result = connection.on_event(readable, read_closed, &mut desk);
        if before != Stage::Open && connection.stage == Stage::Open {
            self.in_flight -= 1;
            self.shared.connected.fetch_add(1, Ordering::Relaxed);
        }
        match result {
            Ok(()) if connection.falls_silent(&self.plan) => {
                // From here on nobody reads: the poll need not tell of what piles up.
                let _ = self.poll.registry().deregister(&mut connection.socket);
            }
            Ok(()) => {}
            Err(End::Failed(why)) => {
                self.slots[slot] = None;
                self.in_flight -= 1;
                self.failed(&why);
            }
            Err(End::Closed(code)) => {
                self.slots[slot] = None;
                *self.tally.closed.entry(code).or_default() += 1;
            }
        }
    }

    /// Lets those go whose time has come, and says when the next one is due.
    fn churn(&mut self, mut due: Instant, step: Duration) -> Instant {
        let now = instant();
        while due <= now {
            due += step;
            let slot = self.random.below(self.slots.len() as u64) as usize;
            let leaves = |connection: &Connection| {
                connection.stage == Stage::Open && !connection.falls_silent(&self.plan)
            };
            if self.slots[slot].as_ref().is_some_and(leaves) {
                self.slots[slot] = None;
                self.shared.connected.fetch_sub(1, Ordering::Relaxed);
                self.tally.reconnects += 1;
                self.waiting.push_back((slot, wall_us()));
            }
        }
        due
    }
}

/// The error number for "this process has no descriptor left"; std has no `ErrorKind` for it.
const EMFILE: i32 = 24;
