//! The joint of buffer and hub: feeds push into the one, shards pull cuts from the other.
//!
//! There is no thread in between. Whoever pulls drains the queue into the hub first, so a busy gateway batches by itself
//! and a quiet one has no extra hand-over. Bound kept here: one mark per shard that says whether it sleeps.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tickgate_feeds::market::{FeedId, State, Update};
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::tickgate::Told;

use crate::base::limits::Limits;
use crate::flow::adapter::Sink;
use crate::flow::buffer::{self, Buffer};
use crate::flow::conflation::Rev;
use crate::flow::conflation::cut::{Cut, Node};
use crate::flow::conflation::hub::{self, Hub};
use crate::flow::conflation::wants::Want;

/// Wakes a sleeping shard.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// How a shard sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Sleep {
    /// It does not.
    Awake = 0,
    /// Until anything comes.
    Eager = 1,
    /// Until its own time, or until the queue is half full.
    Lazy = 2,
}

struct Bell {
    sleep: AtomicU8,
    /// When the shard wants to know what is new, and when again; 0 for at once.
    looks_ns: [AtomicU64; 2],
    waker: Waker,
}

struct HubSide {
    hub: Hub,
    /// The queue's other half: they are swapped at each drain.
    updates: Vec<Update>,
}

/// Buffer and hub.
pub struct Ingest {
    symbols: Arc<Symbols>,
    buffer: Mutex<Buffer>,
    hub: Mutex<HubSide>,
    room: Condvar,
    waiting: AtomicUsize,
    rev: AtomicU64,
    /// Of the node: its run, and how well it knows the market.
    version: AtomicU64,
    half_full: usize,
    bells: Vec<Bell>,
}

/// How long a pulled feed waits for room before it looks at the stop sign.
const ROOM_WAIT: Duration = Duration::from_millis(50);

impl Ingest {
    /// Empty, for as many shards as there are wakers.
    pub fn new(symbols: Arc<Symbols>, node: Node, limits: &Limits, wakers: Vec<Waker>) -> Self {
        let bell = |waker| Bell {
            sleep: AtomicU8::new(Sleep::Awake as u8),
            looks_ns: [AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)],
            waker,
        };
        let bells = wakers.into_iter().map(bell);
        let hub = Hub::new(Arc::clone(&symbols), node, limits);
        Self {
            symbols,
            buffer: Mutex::new(Buffer::new(limits.ingest_updates_max)),
            hub: Mutex::new(HubSide { hub, updates: Vec::new() }),
            room: Condvar::new(),
            waiting: AtomicUsize::new(0),
            rev: AtomicU64::new(0),
            version: AtomicU64::new(0),
            half_full: limits.ingest_updates_max / 2,
            bells: bells.collect(),
        }
    }

    /// The symbols of this gateway.
    pub fn symbols(&self) -> &Arc<Symbols> {
        &self.symbols
    }

    /// The run of revisions that the hub is in, and how well it knows the market.
    pub fn node(&self) -> Arc<Node> {
        self.with_hub(|hub| Arc::clone(hub.node()))
    }

    /// Everything that changed after `since` of a run, what waits in the queue included, after what the asker begins to
    /// want (`true`) or wants no more.
    pub fn pull(&self, run: u32, since: Rev, wants: &[(Want, bool)]) -> Arc<Cut> {
        self.with_hub(|hub| {
            for &(want, on) in wants {
                hub.want(want, on);
            }
            hub.cut(run, since)
        })
    }

    /// Looks into the hub after draining the queue. Everybody else waits meanwhile: keep it short.
    pub fn with_hub<T>(&self, look: impl FnOnce(&mut Hub) -> T) -> T {
        let mut side = lock(&self.hub);
        let HubSide { hub, updates } = &mut *side;
        if self.waiting.load(Ordering::SeqCst) > 0 {
            updates.clear();
            {
                let mut buffer = lock(&self.buffer);
                buffer.drain(updates);
                self.waiting.store(0, Ordering::SeqCst);
            }
            self.room.notify_all();
            hub.apply(updates);
        }
        let result = look(hub);
        self.rev.store(hub.rev(), Ordering::SeqCst);
        self.version.store(hub.node().version, Ordering::SeqCst);
        result
    }

    /// Whether somebody who holds `rev` and knows the node in this version has missed something.
    pub fn has_news(&self, rev: Rev, version: u64) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
            || self.rev.load(Ordering::SeqCst) != rev
            || self.version.load(Ordering::SeqCst) != version
    }

    /// Notes how a shard is about to sleep, or that it woke.
    pub fn set_sleep(&self, shard: usize, sleep: Sleep) {
        self.bells[shard].sleep.store(sleep as u8, Ordering::SeqCst);
    }

    /// Notes when a shard wants to know what is new, and when again; `None` for at once.
    pub fn set_looks(&self, shard: usize, looks_ns: Option<[u64; 2]>) {
        for (known, look_ns) in self.bells[shard].looks_ns.iter().zip(looks_ns.unwrap_or_default()) {
            known.store(look_ns, Ordering::Relaxed);
        }
    }

    /// What queue and hub did so far, and how many updates wait.
    pub fn stats(&self) -> (buffer::Stats, hub::Stats, usize) {
        let buffer = lock(&self.buffer);
        let (stats, waiting) = (buffer.stats(), buffer.len());
        drop(buffer);
        (stats, lock(&self.hub).hub.stats(), waiting)
    }

    fn ring(&self, waiting: usize) {
        for bell in &self.bells {
            let sleep = bell.sleep.load(Ordering::SeqCst);
            let wake = sleep == Sleep::Eager as u8 || sleep == Sleep::Lazy as u8 && waiting >= self.half_full;
            if wake && bell.sleep.swap(Sleep::Awake as u8, Ordering::SeqCst) != Sleep::Awake as u8 {
                (bell.waker)();
            }
        }
    }
}

impl Sink for Ingest {
    fn push(&self, updates: &[Update]) {
        let mut buffer = lock(&self.buffer);
        buffer.push(updates);
        let waiting = buffer.len();
        self.waiting.store(waiting, Ordering::SeqCst);
        drop(buffer);
        self.ring(waiting);
    }

    fn push_when_room(&self, updates: &[Update], stop: &AtomicBool) -> bool {
        let mut buffer = lock(&self.buffer);
        while !buffer.offer(updates) {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            drop(buffer);
            self.ring(usize::MAX);
            buffer = lock(&self.buffer);
            if buffer.len() + updates.len() > self.half_full * 2 && !buffer.is_empty() {
                buffer = self.room.wait_timeout(buffer, ROOM_WAIT).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        let waiting = buffer.len();
        self.waiting.store(waiting, Ordering::SeqCst);
        drop(buffer);
        self.ring(waiting);
        true
    }

    fn look_ns(&self, now_ns: u64, spoken_for_ns: u64) -> u64 {
        let look_ns =
            |bell: &Bell| match bell.looks_ns.each_ref().map(|look_ns| look_ns.load(Ordering::Relaxed)) {
                [first_ns, again_ns] if first_ns > now_ns && first_ns <= spoken_for_ns => again_ns,
                [first_ns, _] => first_ns,
            };
        self.bells.iter().map(look_ns).min().unwrap_or(u64::MAX)
    }

    fn settle(&self, feed: FeedId, now_ns: u64) {
        let before = self.rev.load(Ordering::SeqCst);
        self.with_hub(|hub| hub.settle(feed, now_ns));
        if self.rev.load(Ordering::SeqCst) != before {
            self.ring(0);
        }
    }

    fn set_state(&self, feed: FeedId, state: State) {
        self.with_hub(|hub| hub.set_feed_state(feed, state));
        self.ring(usize::MAX);
    }

    fn adopt(&self, told: &mut Told, arrival_ns: u64) {
        let before = self.version.load(Ordering::SeqCst);
        self.with_hub(|hub| hub.adopt(told, arrival_ns));
        // Another run is everybody's business at once.
        let is_same = self.version.load(Ordering::SeqCst) == before;
        self.ring(if is_same { 0 } else { usize::MAX });
    }
}

// A panic of another thread leaves queue and hub as consistent as any update does, so a poisoned lock is still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
