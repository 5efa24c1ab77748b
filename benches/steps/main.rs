//! How fast the steps between a feed and a frame are, each alone: a line of JSON for each.
//!
//! `steps 200` does each of them in 200 rounds of 20,000; without an argument it is a test that they run. What follows are
//! Binance captures to be played as fast as they go: `steps 200 btcusdt.ndjson.gz`; without one it makes its own.
//! `steps write PATH BYTES` makes one as long as that, and `steps seek PATH 100` begins to play it at a hundred times.

#![allow(clippy::disallowed_methods, reason = "a bench is its own clock")]

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rust_decimal::Decimal;
use tickgate::base::histogram::Latency;
use tickgate::base::limits::Limits;
use tickgate::flow::adapter::Sink;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::conflation::hub::Hub;
use tickgate::flow::conflation::images::Images;
use tickgate::gateway::ingest::Ingest;
use tickgate_feeds::binance::{Binance, Market};
use tickgate_feeds::capture::{Capture, NewFeed, Part, Plan, Speed};
use tickgate_feeds::feed::{DecodeError, Feed, Next, Skipped, Source, Want};
use tickgate_feeds::market::{Channel, FeedId, Symbol, Time, Update, quote};
use tickgate_feeds::symbols::Symbols;

const SYMBOLS: u32 = 10_000;
const ROUND: usize = 20_000;

fn main() {
    // cargo passes flags of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let first = arguments.next();
    let mut captures: Vec<String> = arguments.collect();
    if let Some("write" | "seek") = first.as_deref() {
        let [path, count] = &captures[..] else { panic!("expected a path and a number") };
        let count = count.parse().expect("a number");
        return if first.as_deref() == Some("write") { write(path, count) } else { seek(path, count) };
    }
    let rounds = first.map_or(2, |rounds| rounds.parse().expect("a number of rounds"));
    let updates = updates();
    say("image step", rounds, images(&updates, rounds));
    say("hub, all of it", rounds, hub(&updates, rounds));
    say("queue to cut, messages of 1", rounds, cuts(&updates, rounds, 1));
    say("queue to cut, messages of 16", rounds, cuts(&updates, rounds, 16));
    say("latency record", rounds, record(rounds));
    let own = captures.is_empty().then(own_capture);
    captures.extend(own.clone());
    for path in &captures {
        let messages = messages(path);
        let times = rounds.div_ceil(20);
        let kind =
            if own.as_ref() == Some(path) { "our own" } else { path.rsplit('.').next().unwrap_or_default() };
        let each = |step: &str, play: &dyn Fn() -> Duration| {
            say_of(&format!("{step}{kind}"), times * messages.len(), (0..times).map(|_| play()).sum());
        };
        each("decoder and hub, messages from memory that were in ", &|| ingest(&messages));
        each("decoder and hub, a capture as fast as it goes: ", &|| replay(path));
    }
    own.iter().for_each(|own| seek(own, 1));
    own.map(std::fs::remove_file).transpose().expect("our own file");
}

fn say(step: &str, rounds: usize, took: Duration) {
    say_of(step, rounds * ROUND, took);
}

fn say_of(step: &str, count: usize, took: Duration) {
    let each_ns = took.as_secs_f64() * 1e9 / count as f64;
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

/// The lines of a capture of our own making: best prices, each a tenth of a millisecond after the one before, and all lines
/// of one length.
fn line(at: u64) -> String {
    format!(
        r#"{} {{"stream":"sim@bookTicker","data":{{"u":{},"s":"SIM","b":"{}.01000000","B":"1.25869000","a":"{}.02000000","A":"2.44816000"}}}}{}"#,
        time(at).0,
        1_000_000_000 + at,
        60_000 + at % 100,
        60_000 + at % 100,
        '\n',
    )
}

fn time(at: u64) -> Time {
    Time(1_700_000_000_000_000_000 + at as i64 * 100_000)
}

fn write(path: &str, bytes: u64) {
    let mut file = BufWriter::new(File::create(path).expect("a file"));
    for at in 0..bytes.div_ceil(line(0).len() as u64) {
        file.write_all(line(at).as_bytes()).expect("room for a file");
    }
    file.flush().expect("room for a file");
}

fn own_capture() -> String {
    let path = std::env::temp_dir().join(format!("tickgate-steps-{}.ndjson", std::process::id()));
    let path = path.to_string_lossy().into_owned();
    write(&path, (ROUND * line(0).len()) as u64);
    path
}

/// How long it takes to open a capture of our own at some time in it and to play its first line.
fn seek(path: &str, count: u64) {
    let lines = std::fs::metadata(path).expect("a file").len() / line(0).len() as u64;
    for _ in 0..count {
        let start = time(fastrand::u64(..lines - 1)); // after the last there is no next
        let symbols = Arc::new(Symbols::new(1));
        let new_feed: NewFeed =
            Box::new(move || Box::new(Binance::new(Market::Spot, Arc::clone(&symbols), FeedId(0), "")));
        let begin = Instant::now();
        let part = Part { start, ..Part::WHOLE };
        let mut capture = capture(path, new_feed, Speed::Recorded { multiple: 1.0 }, part);
        let mut out = Vec::new();
        assert_eq!(capture.next(Time(0), &mut out), Next::At(Time(100_000)));
        println!("{{\"seek_ms\":{:.3}}}", begin.elapsed().as_secs_f64() * 1e3);
        assert_eq!(out.first().map(|update| update.time), Some(start));
    }
}

type Messages = Vec<(Vec<u8>, Time)>;

/// Keeps what it is to decode.
struct Tape(Arc<Mutex<Messages>>);

impl Feed for Tape {
    fn decode(&mut self, raw: &mut [u8], arrival: Time, _: &mut Vec<Update>) -> Result<(), DecodeError> {
        self.0.lock().expect("one thread").push((raw.to_vec(), arrival));
        Ok(())
    }

    fn wants(&mut self) -> Option<Want> {
        None
    }

    fn skipped(&self) -> Skipped {
        Skipped::default()
    }
}

/// All messages of a capture.
fn messages(path: &str) -> Messages {
    let tape = Arc::new(Mutex::new(Messages::new()));
    let kept = Arc::clone(&tape);
    let new_feed: NewFeed = Box::new(move || {
        kept.lock().expect("one thread").clear(); // the head was read before
        Box::new(Tape(Arc::clone(&kept)))
    });
    play(path, new_feed, |_| ());
    std::mem::take(&mut *tape.lock().expect("one thread"))
}

fn capture(path: &str, new_feed: NewFeed, speed: Speed, part: Part) -> Capture {
    let plan = Plan { path: path.to_owned(), new_feed, speed, looped: false, part };
    plan.open().expect("a capture")
}

/// Plays a capture as fast as it goes, and hands on what each call has brought.
fn play(path: &str, new_feed: NewFeed, mut take: impl FnMut(&[Update])) {
    let mut capture = capture(path, new_feed, Speed::Max, Part::WHOLE);
    let mut out = Vec::new();
    while capture.next(Time(0), &mut out) != Next::Ended {
        take(&out);
        out.clear();
    }
    take(&out);
}

fn new_hub() -> (Hub, Arc<Symbols>) {
    let symbols = Arc::new(Symbols::new(SYMBOLS as usize));
    (Hub::new(Arc::clone(&symbols), Node::default(), &Limits::default()), symbols)
}

fn replay(path: &str) -> Duration {
    let (mut hub, symbols) = new_hub();
    let new_feed: NewFeed =
        Box::new(move || Box::new(Binance::new(Market::Spot, Arc::clone(&symbols), FeedId(0), "")));
    let begin = Instant::now();
    play(path, new_feed, |updates| hub.apply(updates));
    assert!(hub.stats().changes > 0);
    begin.elapsed()
}

fn ingest(messages: &Messages) -> Duration {
    let (mut hub, symbols) = new_hub();
    let mut feed = Binance::new(Market::Spot, symbols, FeedId(0), "");
    let (mut raw, mut out) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    for (message, arrival) in messages {
        raw.clone_from(message);
        feed.decode(&mut raw, *arrival, &mut out).expect("what a venue said");
        while feed.wants().is_some() {}
        if out.len() >= 4_096 {
            hub.apply(&out);
            out.clear();
        }
    }
    hub.apply(&out);
    assert!(hub.stats().changes > 0);
    begin.elapsed()
}
