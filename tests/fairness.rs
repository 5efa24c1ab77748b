//! What a client gets whose connection takes less than the market has to say: everything in its turn.
//!
//! The measure is the round: the frames up to one without `more`. A symbol that is left behind by others shows as a
//! symbol that changed before a round began and is older after it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;
use tickgate::base::limits::{ADMISSIONS_AT_ONCE, COMMAND_TOPICS, Limits, TOPICS_PER_TURN};
use tickgate_feeds::market::{Body, Channel, Level, Side, Symbol, Update, quote};

use crate::stage::{Peer, Stage, trade};

const SYMBOLS: usize = 500;
/// Of them, those that change all the time.
const BUSY: usize = 5;
const TURN_MS: u64 = 10;
/// What the connection takes in a turn, and what the kernel holds of it.
const TAKEN_BYTES: usize = 200;
const KERNEL_BYTES: usize = 1_000;
const FRAME_BYTES_MAX: usize = 4_096;

/// Five symbols that change in each turn, and many that change now and then; each change has the next number.
struct Market {
    stage: Stage,
    symbols: Vec<Symbol>,
    /// For each symbol, when it had which number: in microseconds of the gateway's clock.
    numbers: Vec<Vec<(u64, u64)>>,
    /// How many of the quiet ones change in a turn.
    quiet: usize,
    next_quiet: usize,
}

impl Market {
    fn new(quiet: usize) -> Self {
        Self::with_log(quiet, 2_000)
    }

    fn with_log(quiet: usize, log_events_max: usize) -> Self {
        let limits = Limits { frame_bytes_max: FRAME_BYTES_MAX, log_events_max, ..Limits::default() };
        let stage = Stage::new(limits);
        let symbols: Vec<_> =
            (0..SYMBOLS).map(|at| stage.list(&format!("S{at:03}"), Channel::Quote)).collect();
        let mut market = Self { stage, symbols, numbers: vec![Vec::new(); SYMBOLS], quiet, next_quiet: 0 };
        (0..SYMBOLS).for_each(|at| market.change(at));
        market
    }

    /// A symbol's price and its book change.
    fn change(&mut self, at: usize) {
        let (symbol, time) = (self.symbols[at], self.stage.time());
        let number = self.numbers[at].len() as u64 + 1;
        self.numbers[at].push((time.us() as u64, number));
        let last = Update::image(symbol, Channel::Quote, time, &[(quote::LAST, Some(number.into()))]);
        let level = Level { price: Decimal::ONE, size: number.into(), side: Side::Buy, reset: false };
        self.stage.push(&[last, Update::new(symbol, time, Body::Level(level))]);
    }

    fn turn(&mut self) {
        (0..BUSY).for_each(|at| self.change(at));
        for _ in 0..self.quiet {
            self.change(BUSY + self.next_quiet);
            self.next_quiet = (self.next_quiet + 1) % (SYMBOLS - BUSY);
        }
        self.stage.after_ms(TURN_MS);
    }

    /// The number that a symbol had at a time.
    fn number_at(&self, name: &str, us: u64) -> u64 {
        let numbers = &self.numbers[name[1..].parse::<usize>().expect("a symbol of ours")];
        numbers[..numbers.partition_point(|(since, _)| *since <= us)].last().map_or(0, |(_, number)| *number)
    }
}

/// The rounds of one stream, as a client sees them.
#[derive(Default)]
struct Rounds {
    complete: usize,
    frames: usize,
    begun_us: Option<u64>,
    held: BTreeMap<String, u64>,
    rows: BTreeMap<String, usize>,
    /// Rows of busy symbols in complete rounds.
    busy_rows: usize,
}

impl Rounds {
    /// Takes a batch. `slot_us`: what a frame shows may be as old as its slot.
    fn take(&mut self, batch: &Value, market: &Market, slot_us: u64) {
        self.frames += 1;
        let begun_us = *self.begun_us.get_or_insert(batch["ts_us"].as_u64().expect("a time"));
        for row in batch["rows"].as_array().expect("rows") {
            let name = row["symbol"].as_str().expect("a symbol");
            let number = match row["channel"].as_str() {
                None => row["last"].as_u64(),
                Some("book") => row["bids"][0][1].as_u64(),
                Some(_) => continue,
            };
            *self.rows.entry(name.to_owned()).or_default() += 1;
            self.held.insert(name.to_owned(), number.expect("a number"));
        }
        if batch["more"] == true {
            return;
        }
        for (name, count) in std::mem::take(&mut self.rows) {
            assert_eq!(count, 1, "{name} is given once in a round");
            self.busy_rows += usize::from(market.number_at(&name, u64::MAX) > 50);
        }
        for (name, held) in &self.held {
            let due = market.number_at(name, begun_us - slot_us);
            assert!(*held >= due, "{name} had {due} when round {} began, and is {held}", self.complete);
        }
        self.complete += 1;
        self.begun_us = None;
    }
}

fn batches(peer: &mut Peer) -> impl Iterator<Item = Value> {
    sized_batches(peer, TAKEN_BYTES).map(|(_, batch)| batch)
}

/// The batches among the next so many bytes, each with its length.
fn sized_batches(peer: &mut Peer, bytes: usize) -> impl Iterator<Item = (usize, Value)> {
    let messages = peer.read(bytes).into_iter();
    messages
        .map(|(_, text)| (text.len(), serde_json::from_str(&text).expect("JSON")))
        .filter(|(_, message): &(usize, Value)| message["type"] == "batch")
}

/// How many of a crowd hear something in each turn, up to one in which nobody does.
fn heard_by_turn(stage: &mut Stage, crowd: &mut [Peer]) -> Vec<usize> {
    let mut by_turn = Vec::new();
    while by_turn.last() != Some(&0) {
        stage.after_ms(0);
        by_turn.push(crowd.iter_mut().filter_map(|peer| peer.read(1 << 16).first().cloned()).count());
    }
    by_turn
}

/// Nobody waits for all of a crowd: neither for its greetings nor for what it asks.
#[test]
fn a_crowd_is_served_some_at_a_time() {
    let mut stage = Stage::new(Limits::default());
    let count = 4 * ADMISSIONS_AT_ONCE;
    let mut crowd: Vec<Peer> = (0..count).map(|_| stage.connect("", 1 << 16)).collect();
    assert_eq!(heard_by_turn(&mut stage, &mut crowd), [[ADMISSIONS_AT_ONCE; 4].as_slice(), &[0]].concat());
    for peer in &crowd {
        peer.send(r#"{"action":"list"}"#);
    }
    let at_once = TOPICS_PER_TURN / COMMAND_TOPICS;
    assert_eq!(heard_by_turn(&mut stage, &mut crowd), [vec![at_once; count / at_once], vec![0]].concat());
}

/// Whoever cannot take what the market says gets every symbol once in a round, as it is then, and no round begins before
/// the one before it has ended.
#[test]
fn quiet_symbols_are_not_starved_by_busy_ones() {
    for (query, slot_us) in
        [("symbols=*&fields=last", TURN_MS * 1_000), ("symbols=*&fields=last&rate=10", 110_000)]
    {
        let mut market = Market::new(3);
        let mut peer = market.stage.connect(query, KERNEL_BYTES);
        let mut rounds = Rounds::default();
        for _ in 0..4_000 {
            market.turn();
            for batch in batches(&mut peer) {
                rounds.take(&batch, &market, slot_us);
            }
        }
        assert_eq!(rounds.held.len(), SYMBOLS);
        assert!(
            rounds.complete > 8 && rounds.frames > 5 * rounds.complete,
            "{query}: {} in {} frames",
            rounds.complete,
            rounds.frames
        );
        assert!(rounds.busy_rows >= BUSY * (rounds.complete - 1), "{query}: the busy ones are in each");
    }
}

/// Events that come faster than the connection takes them are lost with a gap; books and bars do not wait for them.
#[test]
fn events_do_not_keep_back_what_is_no_event() {
    let mut market = Market::new(3);
    let mut peer = market.stage.connect("symbols=book:*,trade:*&mode=every", KERNEL_BYTES);
    let mut rounds = Rounds::default();
    let mut gaps = 0;
    for number in 0..4_000 {
        let (symbol, time) = (market.symbols[0], market.stage.time());
        let updates: Vec<_> = (0..20).map(|at| trade(symbol, time, number * 20 + at + 1)).collect();
        market.stage.push(&updates);
        market.turn();
        for batch in batches(&mut peer) {
            gaps += batch["gaps"].as_array().map_or(0, Vec::len);
            rounds.take(&batch, &market, TURN_MS * 1_000);
        }
    }
    assert!(
        rounds.complete > 3 && gaps > 3,
        "{} rounds in {} frames, {gaps} gaps",
        rounds.complete,
        rounds.frames
    );
}

/// Two subscriptions of one session, each more than the connection takes, share it.
#[test]
fn no_subscription_starves_another() {
    let mut market = Market::new(3);
    let mut peer = market.stage.connect("symbols=*&sub=first", KERNEL_BYTES);
    for sub in ["second", "third"] {
        peer.send(&format!(r#"{{"action":"subscribe","sub":"{sub}","topics":["*"],"fields":["last"]}}"#));
    }
    let mut bytes: BTreeMap<u64, usize> = BTreeMap::new();
    for _ in 0..6_000 {
        market.turn();
        for batch in batches(&mut peer) {
            *bytes.entry(batch["stream"].as_u64().expect("a stream")).or_default() += batch.to_string().len();
        }
    }
    let (least, most) = (bytes.values().min(), bytes.values().max());
    assert!(
        bytes.len() == 3 && least.zip(most).is_some_and(|(least, most)| most < &(2 * least)),
        "{bytes:?}"
    );
}

/// Images whose changes fell out of the log come whole, each in its turn too.
#[test]
fn lost_images_that_are_quiet_are_not_starved_by_busy_ones() {
    const OFTEN: usize = 60;
    let mut market = Market::with_log(1, 300);
    let mut peer = market.stage.connect("symbols=*&fields=last&mode=every", KERNEL_BYTES);
    let (mut complete, mut quiet) = (0, 0);
    for turn in 0..4_000 {
        (BUSY..OFTEN).for_each(|at| market.change(at));
        market.turn();
        for batch in batches(&mut peer) {
            complete += usize::from(batch["more"] != true);
            let names = batch["rows"].as_array().expect("rows").iter().map(|row| row["symbol"].as_str());
            let is_quiet = |name: &Option<&str>| *name >= Some(&format!("S{OFTEN:03}"));
            quiet += if turn > 1_500 { names.filter(is_quiet).count() } else { 0 };
        }
    }
    assert!(complete > 3 && quiet > 500, "{complete} rounds, {quiet} rows of quiet symbols");
}

/// However many losses there are to tell, a frame has its bound, and each is told once.
#[test]
fn losses_are_told_in_frames_like_others_and_once() {
    let mut market = Market::new(0);
    let mut peer = market.stage.connect("symbols=book:*,trade:*&mode=every", KERNEL_BYTES);
    let (mut longest, mut count, mut told) = (0, 0, BTreeMap::new());
    for turn in 0..4_000 {
        // All of them trade, until one does alone.
        let trading = if turn < 700 { SYMBOLS } else { usize::from(turn % 100 == 0) };
        for at in 0..trading {
            let (symbol, time) = (market.symbols[at], market.stage.time());
            market.stage.push(&[trade(symbol, time, turn * SYMBOLS as u64 + at as u64 + 1)]);
            if trading == SYMBOLS {
                market.change(at);
            }
        }
        market.stage.after_ms(TURN_MS);
        for (bytes, batch) in sized_batches(&mut peer, TAKEN_BYTES) {
            longest = longest.max(bytes);
            for gap in batch["gaps"].as_array().into_iter().flatten() {
                count += 1;
                let before = told.insert(gap["topic"].to_string(), gap["to"].as_u64());
                assert!(before < Some(gap["to"].as_u64()), "{gap} after {before:?}");
            }
        }
    }
    assert!(count > SYMBOLS && longest <= FRAME_BYTES_MAX, "{count} losses, a frame of {longest} bytes");
}

/// What one frame has no room for is in the next ones, for all who share them.
#[test]
fn a_few_images_that_fit_no_frame_are_parts_of_a_flush() {
    const FEW: usize = 60;
    let mut market = Market::new(0);
    let names: Vec<_> = (0..FEW).map(|at| format!("S{at:03}")).collect();
    let query = format!("symbols={}", names.join(","));
    let mut peers = [0; 2].map(|_| market.stage.connect(&query, 1_000_000));
    market.stage.after_ms(TURN_MS);
    for turn in 0..50 {
        for peer in &mut peers {
            sized_batches(peer, usize::MAX).for_each(drop);
        }
        (0..FEW).for_each(|at| market.change(at));
        market.stage.after_ms(TURN_MS);
        for peer in &mut peers {
            let frames: Vec<_> = sized_batches(peer, usize::MAX).collect();
            let given = frames.iter().flat_map(|(_, batch)| batch["rows"].as_array().expect("rows"));
            assert!(
                given.map(|row| row["symbol"].as_str()).eq(names.iter().map(|name| Some(&**name))),
                "turn {turn}"
            );
            let goes_on: Vec<_> = frames.iter().map(|(_, batch)| batch["more"] == true).collect();
            assert!(goes_on.len() > 1 && goes_on.iter().rposition(|more| *more) == Some(goes_on.len() - 2));
            assert!(frames.iter().all(|(bytes, _)| *bytes <= FRAME_BYTES_MAX), "{} frames", frames.len());
        }
    }
}

/// Losses of one topic, one after the other, are no exception.
#[test]
fn losses_of_one_topic_are_told_in_frames_like_others() {
    const LOSSES: usize = 200;
    let mut market = Market::new(0);
    let mut peer = market.stage.connect("symbols=trade:S000&mode=every", 1_000_000);
    market.stage.after_ms(TURN_MS);
    sized_batches(&mut peer, usize::MAX).for_each(drop);
    for _ in 0..LOSSES {
        market.stage.push(&[Update::new(
            market.symbols[0],
            market.stage.time(),
            Body::Missing { channel: Channel::Trade, count: 1 },
        )]);
    }
    market.stage.after_ms(TURN_MS);
    let frames: Vec<_> = sized_batches(&mut peer, usize::MAX).collect();
    let gaps = frames.iter().flat_map(|(_, batch)| batch["gaps"].as_array().into_iter().flatten());
    assert!(gaps.map(|gap| gap["to"].as_u64()).eq((1..=LOSSES as u64).map(Some)));
    assert!(frames.iter().all(|(bytes, _)| *bytes <= FRAME_BYTES_MAX), "{} frames", frames.len());
}

/// A payment without a frame is nobody's frame of the slot.
#[test]
fn who_has_caught_up_is_as_early_as_the_others() {
    let mut market = Market::new(0);
    let mut connect = |room| market.stage.connect("symbols=*&fields=last&rate=1", room);
    let (mut slow, mut other) = (connect(20_000), connect(1_000_000));
    for turn in 0..4_000 {
        if turn < 500 {
            (0..SYMBOLS).for_each(|at| market.change(at));
        } else if turn % 330 == 0 {
            market.change(BUSY);
        }
        market.stage.after_ms(TURN_MS);
        // It reads nothing until the market is quiet.
        let ours = if turn < 750 { 0 } else { sized_batches(&mut slow, usize::MAX).count() };
        let theirs = sized_batches(&mut other, usize::MAX).count();
        assert!(turn <= 1_200 || ours == theirs, "turn {turn}: {ours} frames, the other has {theirs}");
    }
}
