//! How fast the steps between a feed and a frame are, each alone: a line of JSON for each.
//!
//! `steps 200` does each of them in 200 rounds of 20,000; without an argument it is a test that they run.

#![allow(clippy::disallowed_methods, reason = "a bench is its own clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use tickgate::base::histogram::Latency;
use tickgate::base::limits::Limits;
use tickgate::flow::adapter::Sink;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::conflation::hub::Hub;
use tickgate::flow::conflation::images::Images;
use tickgate::gateway::ingest::Ingest;
use tickgate_feeds::market::{Channel, FeedId, Symbol, Time, Update, quote};
use tickgate_feeds::symbols::Symbols;

const SYMBOLS: u32 = 10_000;
const ROUND: usize = 20_000;

fn main() {
    // cargo passes flags of its own.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(2);
    let updates = updates();
    say("image step", rounds, images(&updates, rounds));
    say("hub, all of it", rounds, hub(&updates, rounds));
    say("queue to cut, messages of 1", rounds, cuts(&updates, rounds, 1));
    say("queue to cut, messages of 16", rounds, cuts(&updates, rounds, 16));
    say("latency record", rounds, record(rounds));
}

fn say(step: &str, rounds: usize, took: Duration) {
    let each_ns = took.as_secs_f64() * 1e9 / (rounds * ROUND) as f64;
    println!("{{\"step\":\"{step}\",\"each_ns\":{each_ns:.2},\"millions_per_s\":{:.2}}}", 1e3 / each_ns);
}

/// Two rounds of updates of symbols by chance, which go by turns: each changes what the one before said.
fn updates() -> [Vec<Update>; 2] {
    let mut random = fastrand::Rng::with_seed(7);
    let symbols: Vec<u32> = (0..ROUND).map(|_| random.u32(..SYMBOLS)).collect();
    [0, 500_000].map(|base| {
        let prices =
            symbols.iter().enumerate().map(|(at, symbol)| (symbol, Decimal::new(base + at as i64, 2)));
        let update = |(symbol, price)| {
            Update::image(Symbol::at(symbol), Channel::Quote, Time(1), &[(quote::LAST, Some(price))])
        };
        prices.map(|(symbol, price)| update((*symbol, price))).collect()
    })
}

fn table() -> Arc<Symbols> {
    let table = Arc::new(Symbols::new(SYMBOLS as usize));
    for at in 0..SYMBOLS {
        table.list(FeedId(0), &format!("L{at:04}"), Channel::Quote).expect("there is room");
    }
    table
}

fn images(updates: &[Vec<Update>; 2], rounds: usize) -> Duration {
    let (mut images, mut rev) = (Images::default(), 0);
    for _ in 0..SYMBOLS {
        images.list(Channel::Quote);
    }
    // As the hub's step has them: a symbol, a field's number and its value.
    let prices = [0, 1].map(|at| {
        let price =
            |(of, update): (usize, &Update)| (update.symbol, Decimal::new((at * 500_000 + of) as i64, 2));
        updates[at].iter().enumerate().map(price).collect::<Vec<_>>()
    });
    let begin = Instant::now();
    for round in 0..rounds {
        for (symbol, price) in &prices[round % 2] {
            rev += 1;
            assert!(images.set(*symbol, quote::LAST, Some(*price), rev));
            images.touch(*symbol, rev, rev, Time(1), 1);
        }
    }
    begin.elapsed()
}

fn hub(updates: &[Vec<Update>; 2], rounds: usize) -> Duration {
    let mut hub = Hub::new(table(), Node::default(), &Limits::default());
    hub.list_new();
    let before = hub.rev();
    let begin = Instant::now();
    for round in 0..rounds {
        hub.apply(&updates[round % 2]);
    }
    let took = begin.elapsed();
    assert!(hub.rev() >= before + (rounds * ROUND) as u64);
    took
}

/// One thread offers messages to the queue, another pulls cuts as fast as it can.
fn cuts(updates: &[Vec<Update>; 2], rounds: usize, message: usize) -> Duration {
    let ingest = Ingest::new(table(), Node::default(), &Limits::default(), Vec::new());
    let end = ingest.pull(0, 0, &[]).rev + (rounds * ROUND) as u64;
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                for message in updates[round % 2].chunks(message) {
                    assert!(ingest.push_when_room(message, &stop));
                }
            }
        });
        let mut rev = 0;
        while rev < end {
            rev = black_box(ingest.pull(0, rev, &[])).rev;
        }
    });
    begin.elapsed()
}

fn record(rounds: usize) -> Duration {
    let mut random = fastrand::Rng::with_seed(7);
    let samples: Vec<u64> = (0..ROUND).map(|_| random.u64(1_000..100_000_000)).collect();
    let mut latency = Latency::default();
    let begin = Instant::now();
    for _ in 0..rounds {
        samples.iter().for_each(|ns| latency.record(*ns, 1));
    }
    let took = begin.elapsed();
    assert_eq!(latency.count(), (rounds * ROUND) as u64);
    took
}
