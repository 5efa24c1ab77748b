//! Each symbol's own rhythm: who usually speaks every second and has said nothing for a minute is silent.
//!
//! The rule: a symbol is silent when nothing came of it for longer than `symbol_silence` and longer than
//! `symbol_silence_intervals` times its typical interval. That is the mean of its last intervals or so; updates that come
//! closely together are one beat, so that a quiet symbol that speaks in bursts counts as quiet. Who has not spoken often
//! enough has no rhythm, and who rests (a break, an auction, a halt) is not expected to keep it.
//!
//! It is handed the arrivals of updates and, now and then, the time. A feed's symbols stand in a queue by the time at
//! which each could be silent at the earliest; an update moves none of them, and who has spoken meanwhile goes back.
//! Bound kept here: one place in a queue for each symbol.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tickgate_feeds::market::{FeedId, Symbol};

use crate::base::limits::Limits;

/// Beats before a symbol has a rhythm, and over how many its typical interval is the mean, about.
const BEATS: u64 = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    /// The newest update.
    last_ns: u64,
    /// When the present beat began.
    beat_ns: u64,
    /// The typical interval.
    interval_ns: u64,
    /// Intervals counted so far, at most [`BEATS`].
    beats: u64,
    is_queued: bool,
    is_silent: bool,
    is_resting: bool,
}

/// The rhythms of all symbols.
#[derive(Debug)]
pub struct Rhythm {
    silence_ns: u64,
    intervals: u64,
    /// Updates closer than this are one beat: a shorter typical interval makes no difference.
    beat_ns: u64,
    pulses: Vec<Pulse>,
    /// For each feed when to look at which of its symbols.
    queues: Vec<BinaryHeap<Reverse<(u64, Symbol)>>>,
    silent: usize,
    silenced: u64,
}

impl Rhythm {
    /// Of no symbols yet.
    pub fn new(limits: &Limits) -> Self {
        let silence_ns = limits.symbol_silence.as_nanos() as u64;
        let intervals = u64::from(limits.symbol_silence_intervals);
        let (pulses, queues) = (Vec::new(), Vec::new());
        Self {
            silence_ns,
            intervals,
            beat_ns: silence_ns / intervals,
            pulses,
            queues,
            silent: 0,
            silenced: 0,
        }
    }

    /// Makes room for one more symbol.
    pub fn list(&mut self) {
        self.pulses.push(Pulse::default());
    }

    /// Whether the symbol has been found silent and has not spoken since.
    pub fn is_silent(&self, symbol: Symbol) -> bool {
        self.pulses[symbol.index()].is_silent
    }

    /// How many symbols are silent, and how often one was found so.
    pub fn counts(&self) -> (usize, u64) {
        (self.silent, self.silenced)
    }

    /// Notes an update of a symbol. Returns whether that ended its silence.
    #[inline]
    pub fn beat(&mut self, feed: FeedId, symbol: Symbol, arrival_ns: u64) -> bool {
        let pulse = &mut self.pulses[symbol.index()];
        pulse.last_ns = arrival_ns;
        // A silent symbol's last beat is long ago.
        arrival_ns.saturating_sub(pulse.beat_ns) >= self.beat_ns && self.begin_beat(feed, symbol, arrival_ns)
    }

    fn begin_beat(&mut self, feed: FeedId, symbol: Symbol, arrival_ns: u64) -> bool {
        let pulse = &mut self.pulses[symbol.index()];
        let interval_ns = arrival_ns - std::mem::replace(&mut pulse.beat_ns, arrival_ns);
        // Neither the time before the first update nor silence nor rest is an interval.
        if pulse.interval_ns > 0 && !pulse.is_silent && !pulse.is_resting {
            pulse.beats = (pulse.beats + 1).min(BEATS);
            let rest = pulse.interval_ns * (pulse.beats - 1) / pulse.beats;
            pulse.interval_ns = rest + interval_ns / pulse.beats;
        }
        pulse.interval_ns = pulse.interval_ns.max(1);
        let spoke_again = std::mem::take(&mut pulse.is_silent);
        self.silent -= usize::from(spoke_again);
        self.queue(feed, symbol);
        spoke_again
    }

    /// Notes that from now on a symbol need not speak, or that it has to again. Who rests is not silent.
    pub fn rest(&mut self, feed: FeedId, symbol: Symbol, rests: bool, arrival_ns: u64) {
        let pulse = &mut self.pulses[symbol.index()];
        let changed = std::mem::replace(&mut pulse.is_resting, rests) != rests;
        if changed && !rests {
            (pulse.last_ns, pulse.beat_ns) = (arrival_ns, arrival_ns);
            self.queue(feed, symbol);
        } else if rests {
            self.silent -= usize::from(std::mem::take(&mut pulse.is_silent));
        }
    }

    /// Finds out which of the feed's symbols have fallen silent by `now_ns`.
    pub fn settle(&mut self, feed: FeedId, now_ns: u64, silent: &mut Vec<Symbol>) {
        let Some(queue) = self.queues.get_mut(usize::from(feed.0)) else { return };
        while let Some(Reverse((due_ns, symbol))) = queue.peek().copied()
            && due_ns <= now_ns
        {
            queue.pop();
            let pulse = &mut self.pulses[symbol.index()];
            let allowed_ns = self.silence_ns.max(self.intervals.saturating_mul(pulse.interval_ns));
            let due_ns = pulse.last_ns.saturating_add(allowed_ns);
            pulse.is_queued = !pulse.is_resting && due_ns > now_ns;
            if pulse.is_queued {
                // Should it speak again, and faster from then on, it cannot be silent before that either.
                queue.push(Reverse((due_ns.min(now_ns + self.silence_ns), symbol)));
            } else if !pulse.is_resting {
                pulse.is_silent = true;
                self.silent += 1;
                self.silenced += 1;
                silent.push(symbol);
            }
        }
    }

    /// Puts a symbol with a rhythm into its feed's queue, unless it stands there.
    fn queue(&mut self, feed: FeedId, symbol: Symbol) {
        let pulse = &mut self.pulses[symbol.index()];
        if pulse.beats < BEATS || pulse.is_resting || std::mem::replace(&mut pulse.is_queued, true) {
            return;
        }
        let feed = usize::from(feed.0);
        if self.queues.len() <= feed {
            self.queues.resize_with(feed + 1, BinaryHeap::new);
        }
        self.queues[feed].push(Reverse((pulse.last_ns + self.silence_ns, symbol)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FEED: FeedId = FeedId(1);
    const SYMBOL: Symbol = Symbol::at(0);
    const SECOND: u64 = 1_000_000_000;

    /// One symbol, silent after 10 s and 20 intervals.
    fn rhythm() -> Rhythm {
        let limits = Limits {
            symbol_silence: Duration::from_secs(10),
            symbol_silence_intervals: 20,
            ..Limits::default()
        };
        let mut rhythm = Rhythm::new(&limits);
        rhythm.list();
        rhythm
    }

    /// A hundred updates so far apart, in nanoseconds; returns when the last one came.
    fn speak(rhythm: &mut Rhythm, from_ns: u64, apart_ns: u64) -> u64 {
        for at in 1..=100 {
            rhythm.beat(FEED, SYMBOL, from_ns + at * apart_ns);
        }
        from_ns + 100 * apart_ns
    }

    fn settle(rhythm: &mut Rhythm, now_ns: u64) -> Vec<Symbol> {
        let mut silent = Vec::new();
        rhythm.settle(FEED, now_ns, &mut silent);
        silent
    }

    #[test]
    fn silence_is_long_by_the_symbols_own_measure() {
        for (apart_ns, silent_after) in [(SECOND / 10, 10), (SECOND, 20), (30 * SECOND, 600)] {
            let mut rhythm = rhythm();
            let last_ns = speak(&mut rhythm, SECOND, apart_ns);
            let due_ns = last_ns + silent_after * SECOND;
            // The mean is taken in whole nanoseconds.
            assert_eq!(settle(&mut rhythm, due_ns - SECOND / 100), [], "{apart_ns}");
            assert_eq!(settle(&mut rhythm, due_ns + SECOND / 100), [SYMBOL], "{apart_ns}");
            assert_eq!(
                (settle(&mut rhythm, due_ns + SECOND), rhythm.counts()),
                (vec![], (1, 1)),
                "told once"
            );
            assert!(rhythm.is_silent(SYMBOL) && rhythm.beat(FEED, SYMBOL, due_ns + 2 * SECOND));
            assert!(!rhythm.is_silent(SYMBOL) && rhythm.counts() == (0, 1), "the next update ends it");
            assert_eq!(settle(&mut rhythm, due_ns + 3 * SECOND), [], "{apart_ns}");
        }
    }

    #[test]
    fn who_speaks_seldom_or_in_bursts_is_quiet_and_not_silent() {
        let mut rhythm = rhythm();
        for at in 1..BEATS {
            rhythm.beat(FEED, SYMBOL, at * SECOND);
        }
        assert_eq!(settle(&mut rhythm, 10_000 * SECOND), [], "no rhythm yet");
        let mut rhythm = self::rhythm();
        for minute in 1..40 {
            for tick in 0..50 {
                rhythm.beat(FEED, SYMBOL, minute * 60 * SECOND + tick * SECOND / 1_000);
            }
            assert_eq!(settle(&mut rhythm, minute * 60 * SECOND + 59 * SECOND), []);
        }
    }

    #[test]
    fn who_rests_is_not_expected_and_has_its_time_when_it_goes_on() {
        let mut rhythm = rhythm();
        let last_ns = speak(&mut rhythm, SECOND, SECOND);
        rhythm.rest(FEED, SYMBOL, true, last_ns + SECOND);
        assert_eq!(settle(&mut rhythm, last_ns + 5_400 * SECOND), []);
        let again_ns = last_ns + 5_401 * SECOND;
        rhythm.beat(FEED, SYMBOL, again_ns);
        rhythm.rest(FEED, SYMBOL, false, again_ns);
        assert_eq!(settle(&mut rhythm, again_ns + 19 * SECOND), [], "the break is no interval either");
        assert_eq!(settle(&mut rhythm, again_ns + 21 * SECOND), [SYMBOL]);
        rhythm.rest(FEED, SYMBOL, true, again_ns + 22 * SECOND);
        assert_eq!(rhythm.counts(), (0, 1), "a break ends silence");
    }

    /// The rule, from all that ever happened to one symbol.
    #[derive(Default)]
    struct Naive {
        beats: Vec<u64>,
        intervals: Vec<f64>,
        last_ns: u64,
        has_spoken: bool,
        is_resting: bool,
        is_silent: bool,
    }

    impl Naive {
        fn beat(&mut self, now_ns: u64) {
            self.last_ns = now_ns;
            let since = now_ns - self.beats.last().copied().unwrap_or(0);
            if since >= SECOND / 2 {
                if self.has_spoken && !self.is_silent && !self.is_resting {
                    self.intervals.push(since as f64);
                }
                self.has_spoken = true;
                self.beats.push(now_ns);
            }
            self.is_silent = false;
        }

        fn rest(&mut self, rests: bool, now_ns: u64) {
            if self.is_resting && !rests {
                self.beats.push(now_ns);
                self.last_ns = now_ns;
            }
            self.is_silent &= !rests;
            self.is_resting = rests;
        }

        fn settle(&mut self, now_ns: u64) {
            let weighed = self.intervals.iter().enumerate().fold(0.0, |mean, (at, interval)| {
                let weight = 1.0 / (at + 1).min(BEATS as usize) as f64;
                mean + (interval - mean) * weight
            });
            let allowed = (20.0 * weighed).max(10.0 * SECOND as f64);
            let has_rhythm = self.intervals.len() as u64 >= BEATS;
            self.is_silent |= has_rhythm && !self.is_resting && (now_ns - self.last_ns) as f64 >= allowed;
        }
    }

    #[test]
    fn the_queue_finds_what_a_look_at_everything_finds() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rhythm = rhythm();
        let mut naive: Vec<Naive> = Vec::new();
        for _ in 0..20 {
            rhythm.list();
            naive.push(Naive::default());
        }
        let (mut now_ns, mut found) = (SECOND, 0);
        for _ in 0..40_000 {
            now_ns += random.u64(1..SECOND / 2);
            // Some speak often, some seldom, and for a while nobody does.
            let at = random.usize(..20).min(random.usize(..20));
            let symbol = Symbol::at(at as u32);
            let pause = now_ns / (600 * SECOND) % 3 == 1 && at > 3;
            match random.u8(..100) {
                0 => {
                    let rests = random.u8(..4) == 0;
                    rhythm.rest(FEED, symbol, rests, now_ns);
                    naive[at].rest(rests, now_ns);
                }
                1..5 => {
                    found += settle(&mut rhythm, now_ns).len();
                    naive.iter_mut().for_each(|naive| naive.settle(now_ns));
                }
                _ if pause => {}
                _ => {
                    let spoke_again = rhythm.beat(FEED, symbol, now_ns);
                    assert_eq!(spoke_again, naive[at].is_silent);
                    naive[at].beat(now_ns);
                }
            }
            for (at, naive) in naive.iter().enumerate() {
                assert_eq!(rhythm.is_silent(Symbol::at(at as u32)), naive.is_silent, "{at} at {now_ns}");
            }
        }
        assert!(found > 30, "{found} silences");
    }
}
