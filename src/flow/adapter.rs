//! Upstream in: drives a source on a thread of its own, stamps the arrival, and hands updates to a sink. Another gateway as
//! the source is [`link`]'s.
//!
//! It does not know who takes them. Bounds kept here: what one call of the source appends, and [`NAP`] between two looks
//! at the stop sign.

pub mod endpoint;
pub mod link;

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tickgate_feeds::feed::{Next, Source};
use tickgate_feeds::market::{FeedId, State, Update};
use tickgate_feeds::tickgate::Told;

use crate::base::clock::{Clock, Now};
use crate::base::histogram::Latency;

/// Where updates go.
pub trait Sink {
    /// Takes updates of a live feed: never waits, merges if it must.
    fn push(&self, updates: &[Update]);

    /// Takes updates of a pulled feed when there is room; false when `stop` was set meanwhile.
    fn push_when_room(&self, updates: &[Update], stop: &AtomicBool) -> bool;

    /// When somebody will look at what was pushed, on the monotonic clock; 0 for at once. A look between these two times has been
    /// spoken for: the one after that counts. Who should have looked already has not done so yet.
    fn look_ns(&self, now_ns: u64, spoken_for_ns: u64) -> u64;

    /// Says what time it is, so that symbols of the feed can be found silent.
    fn settle(&self, feed: FeedId, now_ns: u64);

    /// Says how far the feed can be trusted from now on; of an edge that is its link.
    fn set_state(&self, feed: FeedId, state: State);

    /// Takes over what another gateway has told.
    fn adopt(&self, told: &mut Told, arrival_ns: u64);
}

/// What the outside may ask of a running feed.
#[derive(Debug, Default)]
pub struct Gauge {
    /// Updates handed on.
    pub updates: AtomicU64,
    /// Messages that could not be decoded.
    pub errors: AtomicU64,
    /// Messages passed over on purpose.
    pub skipped: AtomicU64,
    /// Messages held back at the moment, until what they continue is known.
    pub held_back: AtomicU64,
    /// Breaks in the venue's own numbering.
    pub gaps: AtomicU64,
    /// Symbols that the table refused.
    pub refused: AtomicU64,
    /// Updates whose source time lay ahead of our clock: no latency can be told from them.
    pub clock_ahead: AtomicU64,
    /// Connections made to another gateway.
    pub connects: AtomicU64,
    /// How often it was silent for too long.
    pub silences: AtomicU64,
    /// Wall time of the last message in milliseconds, of use or not.
    pub last_ms: AtomicU64,
    /// From the source's own time to the arrival, for sources that run by today's clock.
    pub source_to_arrival: Mutex<Latency>,
}

/// How often symbols are looked at that may have fallen silent.
const SETTLE_NS: u64 = 250_000_000;

/// How often the latency is published.
const PUBLISH_NS: u64 = 1_000_000_000;

/// The longest sleep in one piece: how late a stop is noticed, and how late a source speaks where nobody looks.
const NAP: Duration = Duration::from_millis(50);

/// The shortest sleep: a source of 20,000 updates a second speaks a thousand or two thousand times a second, not 20,000. A
/// wake-up costs more than the updates it brings.
const BREATH: Duration = Duration::from_millis(1);

/// A source that had no more updates to tell speaks twice as often where somebody waits for each: its frames are few, and
/// the wait is most of their latency.
const FEW: u64 = 32;

/// A source is not silent for longer than it takes to have so many updates to tell, by its pace of late: they have to be
/// taken in before somebody looks.
const MANY: u64 = 1_000;

/// How long before somebody looks a source speaks: a thread may sleep longer than it wants to, by some tenths of a
/// millisecond. For who looks sooner it has spoken just now, and sleeps until before the look after that.
const LEAD: Duration = Duration::from_micros(300);

/// Updates that were due within this time, a millisecond, have arrived together: each arrival is timed by itself.
const TOGETHER_NS: u64 = 1 << 20;

/// How often an operator is told of the same trouble.
const TELL_NS: u64 = 10_000_000_000;

/// Runs a source until it ends or `stop` is set.
pub fn run(
    mut source: Box<dyn Source>,
    feed: FeedId,
    clock: Clock,
    sink: &dyn Sink,
    stop: &AtomicBool,
    gauge: &Gauge,
) {
    // Should the source panic, its rows must not look live for ever.
    let mut obituary = Obituary { sink, feed, last_state: Some(State::Suspect) };
    let pulled = source.pulled();
    let mut out = Vec::new();
    let mut lag = Latency::default();
    let mut now = clock.now();
    let mut last_ns = now.mono_ns;
    let (mut published_ns, mut settled_ns) = (0, last_ns);
    let mut silent = false;
    let mut trouble = Trouble::default();
    // How many updates there were since the source had told all that was due, and from when to when it slept then.
    let (mut told, mut slept) = (0, last_ns..=last_ns);
    while !stop.load(Ordering::Relaxed) {
        now = clock.now();
        out.clear();
        let next = source.next(now.wall, &mut out);
        // Also of what led to no update.
        trouble.note(gauge, source.as_ref(), feed, now, next == Next::Ended);
        if !out.is_empty() {
            told += out.len() as u64;
            stamp(&mut out, now, &slept);
            note(gauge, &out, now.wall.0);
            if !pulled {
                // The first of what came together has waited longest; one sample stands for all.
                let waited_ns = now.mono_ns - out[0].arrival_ns;
                let lag_ns = (now.wall.0 - out[0].time.0).max(0) as u64;
                lag.record(lag_ns.saturating_sub(waited_ns), out.len() as u64);
                if now.mono_ns - published_ns > PUBLISH_NS {
                    published_ns = now.mono_ns;
                    gauge.source_to_arrival.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&lag);
                }
            }
            if pulled {
                if !sink.push_when_room(&out, stop) {
                    break;
                }
            } else {
                sink.push(&out);
            }
            last_ns = now.mono_ns;
            if std::mem::take(&mut silent) {
                sink.set_state(feed, State::Live);
            }
        } else if !silent
            && source.silent_after().is_some_and(|after| now.mono_ns - last_ns > after.as_nanos() as u64)
        {
            silent = true;
            sink.set_state(feed, State::Stale);
        }
        if source.has_rhythm() && now.mono_ns - settled_ns >= SETTLE_NS {
            settled_ns = now.mono_ns;
            sink.settle(feed, now.mono_ns);
        }
        match next {
            Next::Now => {}
            Next::At(time) => {
                let now = clock.now();
                let wait = Duration::from_nanos((time.0 - now.wall.0).max(0) as u64);
                let pace = (std::mem::take(&mut told), now.mono_ns - slept.start());
                let look_ns = sink.look_ns(now.mono_ns, now.mono_ns + LEAD.as_nanos() as u64);
                std::thread::park_timeout(wait.max(breath(look_ns, now.mono_ns, pace)).min(NAP));
                slept = now.mono_ns..=clock.now().mono_ns;
            }
            Next::Ended => {
                obituary.last_state = Some(State::Closed);
                return;
            }
        }
    }
    // The gateway ends, not the feed: nothing is to be said of the rows.
    obituary.last_state = None;
}

/// Says when each update arrived: when it was due by today's clock, if that was while the source slept. That we let it wait for
/// somebody to look is our doing; what was due when it was awake, and comes now, the source was late with.
fn stamp(updates: &mut [Update], now: Now, slept: &RangeInclusive<u64>) {
    let mut arrival_ns = u64::MAX;
    // A usual breath, with what a sleep takes longer, is the source's own.
    let is_usual = slept.end() - slept.start() <= (BREATH + LEAD).as_nanos() as u64;
    for update in updates {
        let age_ns = now.wall.0.checked_sub(update.time.0).and_then(|age_ns| u64::try_from(age_ns).ok());
        let due_ns = age_ns.and_then(|age_ns| now.mono_ns.checked_sub(age_ns));
        let due_ns = due_ns.filter(|due_ns| !is_usual && slept.contains(due_ns)).unwrap_or(now.mono_ns);
        if due_ns.abs_diff(arrival_ns) >= TOGETHER_NS {
            arrival_ns = due_ns;
        }
        update.arrival_ns = arrival_ns;
    }
}

/// How long a source is silent at least, when somebody looks at `look_ns` for what it has said (0 for at once), and it had so
/// many updates to tell in so many nanoseconds.
fn breath(look_ns: u64, now_ns: u64, (told, in_ns): (u64, u64)) -> Duration {
    let left = Duration::from_nanos(look_ns.saturating_sub(now_ns)).saturating_sub(LEAD);
    match left {
        Duration::ZERO if look_ns == 0 && told <= FEW => BREATH / 2,
        // Who waits, or looks now, or is late; or it is not known how much there will be to tell.
        Duration::ZERO => BREATH,
        left if told == 0 => left.min(BREATH),
        left => left.min(Duration::from_nanos(in_ns.saturating_mul(MANY) / told).max(BREATH)),
    }
}

fn note(gauge: &Gauge, out: &[Update], wall_ns: i64) {
    gauge.updates.fetch_add(out.len() as u64, Ordering::Relaxed);
    let ahead = out.iter().filter(|update| update.time.0 > wall_ns).count();
    gauge.clock_ahead.fetch_add(ahead as u64, Ordering::Relaxed);
    gauge.last_ms.store((wall_ns / 1_000_000) as u64, Ordering::Relaxed);
}

/// What a source could not use, and how much of it an operator was told of.
#[derive(Debug, Default)]
struct Trouble {
    /// All messages and symbols counted so far.
    noted: u64,
    told: u64,
    told_ns: Option<u64>,
}

impl Trouble {
    /// Publishes the counts; says what is new among them, at once and then every [`TELL_NS`], and when the source ends.
    fn note(&mut self, gauge: &Gauge, source: &dyn Source, feed: FeedId, now: Now, is_over: bool) {
        let (skipped, errors) = (source.skipped(), source.errors());
        gauge.errors.store(errors, Ordering::Relaxed);
        gauge.skipped.store(skipped.unknown + skipped.old, Ordering::Relaxed);
        gauge.held_back.store(skipped.waiting, Ordering::Relaxed);
        gauge.gaps.store(skipped.gaps, Ordering::Relaxed);
        gauge.refused.store(skipped.refused, Ordering::Relaxed);
        // A feed that says what we cannot use is not silent.
        let noted = errors + skipped.unknown + skipped.old + skipped.waiting + skipped.gaps + skipped.refused;
        if std::mem::replace(&mut self.noted, noted) != noted {
            gauge.last_ms.store((now.wall.0 / 1_000_000) as u64, Ordering::Relaxed);
        }
        let is_quiet = self.told_ns.is_some_and(|told_ns| now.mono_ns - told_ns < TELL_NS);
        if errors + skipped.refused > self.told && (is_over || !is_quiet) {
            (self.told, self.told_ns) = (errors + skipped.refused, Some(now.mono_ns));
            let (feed, last) = (feed.0, source.last_error().unwrap_or("none"));
            tracing::warn!(
                feed,
                errors,
                last,
                refused = skipped.refused,
                "messages or symbols cannot be taken"
            );
        }
    }
}

/// Says the last word about a feed, however its thread ends.
struct Obituary<'a> {
    sink: &'a dyn Sink,
    feed: FeedId,
    last_state: Option<State>,
}

impl Drop for Obituary<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.last_state {
            self.sink.set_state(self.feed, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tickgate_feeds::feed::Skipped;
    use tickgate_feeds::market::{Body, Symbol, Time};

    /// A source of which nothing can be used.
    struct Useless;

    impl Source for Useless {
        fn next(&mut self, _: Time, _: &mut Vec<Update>) -> Next {
            Next::Ended
        }

        fn pulled(&self) -> bool {
            true
        }

        fn silent_after(&self) -> Option<Duration> {
            None
        }

        fn has_rhythm(&self) -> bool {
            false
        }

        fn simulated(&self) -> bool {
            false
        }

        fn skipped(&self) -> Skipped {
            Skipped { unknown: 1, old: 2, waiting: 4, gaps: 8, refused: 16 }
        }

        fn errors(&self) -> u64 {
            32
        }
    }

    /// Remembers the feed's last state.
    struct Nowhere(Mutex<Option<State>>);

    impl Sink for Nowhere {
        fn push(&self, _: &[Update]) {}

        fn push_when_room(&self, _: &[Update], _: &AtomicBool) -> bool {
            true
        }

        fn look_ns(&self, _: u64, _: u64) -> u64 {
            0
        }

        fn settle(&self, _: FeedId, _: u64) {}

        fn set_state(&self, _: FeedId, state: State) {
            *self.0.lock().expect("one thread") = Some(state);
        }

        fn adopt(&self, _: &mut Told, _: u64) {}
    }

    #[test]
    fn a_source_speaks_before_somebody_looks() {
        let ms = |ms: f64| Duration::from_nanos((ms * 1e6) as u64);
        const NOW_NS: u64 = 1_000_000_000;
        let slow = (20, 1_000_000);
        for (look_in_ms, expected_ms) in [(2.0, 1.7), (25.0, 24.7), (0.2, 1.0), (-3.0, 1.0)] {
            let look_ns = (NOW_NS as f64 + look_in_ms * 1e6) as u64;
            assert_eq!(breath(look_ns, NOW_NS, slow), ms(expected_ms), "in {look_in_ms} ms");
        }
        for (pace, expected_ms) in [((200, 1_000_000), 5.0), ((9_000, 1_000_000), 1.0), ((0, 1), 1.0)] {
            assert_eq!(breath(u64::MAX, NOW_NS, pace), ms(expected_ms), "{pace:?}");
        }
        let waited_for = [FEW, FEW + 1].map(|told| breath(0, NOW_NS, (told, 1_000_000)));
        assert_eq!(waited_for, [ms(0.5), ms(1.0)]);
    }

    #[test]
    fn what_waited_for_somebody_to_look_arrived_when_it_was_due() {
        const MS: i64 = 1_000_000;
        let now = Now { mono_ns: 100 * MS as u64, wall: Time(5_000 * MS) };
        let at = |ms: f64| Update::new(Symbol::at(0), Time((ms * 1e6) as i64), Body::Rewound);
        // It slept from 75 to 98 ms; what was due before or since it was late with, and some have clocks of their own.
        let mut updates = [4_980.0, 4_980.4, 4_981.5, 4_997.9, 4_999.5, 4_960.0, 5_001.0, 7.0].map(at);
        stamp(&mut updates, now, &(75_000_000..=98_000_000));
        let arrived = updates.map(|update| update.arrival_ns as f64 / 1e6);
        assert_eq!(arrived, [80.0, 80.0, 81.5, 97.9, 100.0, 100.0, 100.0, 100.0]);
        // In the process's first millisecond, too: none is "never".
        let mut updates = [Update::new(Symbol::at(0), Time(i64::MIN), Body::Rewound)];
        stamp(&mut updates, Now { mono_ns: 7, ..now }, &(1..=7));
        assert_eq!(updates[0].arrival_ns, 7);
    }

    #[test]
    fn what_could_not_be_used_is_counted_although_nothing_came_of_it() {
        let (sink, gauge) = (Nowhere(Mutex::new(None)), Gauge::default());
        run(Box::new(Useless), FeedId(0), Clock::start(), &sink, &AtomicBool::new(false), &gauge);
        let counts = [&gauge.skipped, &gauge.held_back, &gauge.gaps, &gauge.refused, &gauge.errors];
        assert_eq!(counts.map(|count| count.load(Ordering::Relaxed)), [3, 4, 8, 16, 32]);
        assert!(gauge.last_ms.into_inner() > 0, "it said something");
        assert_eq!(
            (gauge.updates.into_inner(), sink.0.into_inner().ok().flatten()),
            (0, Some(State::Closed))
        );
    }
}
