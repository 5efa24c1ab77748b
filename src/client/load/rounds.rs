//! Rounds: for every frame of a shared stream, when the last of its clients had it.
//!
//! Bound: `STREAMS_MAX` streams of `OPEN_ROUNDS` open rounds, and `ROUNDS_MAX` finished ones. With more streams the
//! load is no broadcast, the question has no meaning, and nothing is kept.

use std::collections::HashMap;

/// Streams that are followed: above the phase groups and shards that 20,000 clients of one wish can be split into.
const STREAMS_MAX: usize = 256;

/// Rounds of a stream that may be under way together: 0.6 s at the highest rate of 100 a second.
const OPEN_ROUNDS: usize = 64;

/// Finished rounds of one thread, 40 bytes each: 15 s of 256 streams at 100 a second.
const ROUNDS_MAX: usize = 400_000;

/// One frame of a stream and what is known of its arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) stream: u64,
    pub(super) seq: u64,
    pub(super) ts_us: u64,
    pub(super) last_us: u64,
    pub(super) clients: u64,
}

/// The rounds that one thread has seen.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    streams: HashMap<u64, usize>,
    open: Vec<[Round; OPEN_ROUNDS]>,
    finished: Vec<Round>,
    /// The stream of the last frame: those of a round come in runs, so it is nearly always the next one too.
    latest: Option<(u64, usize)>,
    too_many: bool,
}

impl Rounds {
    /// One client has frame `seq` of `stream`, made at `ts_us`, at `now_us`.
    pub(super) fn on_frame(&mut self, stream: u64, seq: u64, ts_us: u64, now_us: u64) {
        let Some(at) = self.slot(stream) else { return };
        let round = &mut self.open[at][seq as usize % OPEN_ROUNDS];
        if round.seq != seq || round.clients == 0 {
            if round.clients > 0 && self.finished.len() < ROUNDS_MAX {
                self.finished.push(*round);
            }
            *round = Round { stream, seq, ts_us, last_us: now_us, clients: 0 };
        }
        round.last_us = round.last_us.max(now_us);
        round.clients += 1;
    }

    fn slot(&mut self, stream: u64) -> Option<usize> {
        if let Some((latest, at)) = self.latest
            && latest == stream
        {
            return Some(at);
        }
        if self.too_many {
            return None;
        }
        let at = match self.streams.get(&stream) {
            Some(&at) => at,
            None if self.streams.len() == STREAMS_MAX => {
                *self = Rounds { too_many: true, ..Rounds::default() };
                return None;
            }
            None => {
                self.open.push([Round::default(); OPEN_ROUNDS]);
                self.streams.insert(stream, self.open.len() - 1);
                self.open.len() - 1
            }
        };
        self.latest = Some((stream, at));
        Some(at)
    }

    /// Everything seen, open rounds too.
    pub(super) fn take(&mut self) -> Vec<Round> {
        let mut all = std::mem::take(&mut self.finished);
        all.extend(self.open.drain(..).flatten().filter(|round| round.clients > 0));
        (self.streams, self.latest) = (HashMap::new(), None);
        all
    }
}

/// Joins what several threads saw of the same rounds, and keeps those made within `from_us..to_us`.
pub(super) fn join(mut all: Vec<Round>, from_us: u64, to_us: u64) -> Vec<Round> {
    all.retain(|round| (from_us..to_us).contains(&round.ts_us));
    all.sort_unstable_by_key(|round| (round.stream, round.seq));
    let mut joined: Vec<Round> = Vec::with_capacity(all.len());
    for round in all {
        match joined.last_mut() {
            Some(last) if (last.stream, last.seq) == (round.stream, round.seq) => {
                last.last_us = last.last_us.max(round.last_us);
                last.clients += round.clients;
            }
            _ => joined.push(round),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_client_makes_the_round() {
        let (mut one, mut two) = (Rounds::default(), Rounds::default());
        for seq in 0..200 {
            one.on_frame(1, seq, 1000 * seq, 1000 * seq + 5);
            one.on_frame(1, seq, 1000 * seq, 1000 * seq + 9);
            two.on_frame(1, seq, 1000 * seq, 1000 * seq + 7);
        }
        let all = join([one.take(), two.take()].concat(), 50_000, 150_000);
        assert_eq!(all.len(), 100);
        assert!(all.iter().all(|round| round.clients == 3 && round.last_us == round.ts_us + 9));
    }

    #[test]
    fn a_load_without_shared_streams_keeps_nothing() {
        let mut rounds = Rounds::default();
        for stream in 0..10_000 {
            rounds.on_frame(stream, 1, 1, 1);
        }
        assert!(rounds.take().is_empty());
    }
}
