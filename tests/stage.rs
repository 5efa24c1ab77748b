//! One shard whose clock, market and clients are moved by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use serde_json::Value;
use tickgate::base::limits::{Limits, SLICE_WRITES};
use tickgate::flow::adapter::Sink;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::dispatch::wish::Packing;
use tickgate::flow::frame::command;
use tickgate::flow::frame::deflate::Deflate;
use tickgate::flow::socket::wire::Newcomer;
use tickgate::gateway::ingest::Ingest;
use tickgate::gateway::shard::{Identity, Shard};
use tickgate_feeds::market::{Body, Channel, FeedId, Symbol, Time, Trade, TradeKind, Update, quote};
use tickgate_feeds::symbols::Symbols;

use crate::world::wire::{
    COMPRESSED_TEXT, PING, PONG, Pipe, SharedPipe, SimIo, SimWire, TEXT, client_frame, next_frame,
};

/// When a stage's time begins, in nanoseconds since the Unix epoch and on the monotonic clock.
const BEGIN_NS: i64 = 1_700_000_000_000_000_000;
const BEGIN_MONO_NS: u64 = 1_000_000_000;

pub struct Stage {
    pub symbols: Arc<Symbols>,
    pub ingest: Arc<Ingest>,
    pub shard: Shard<SimIo>,
    limits: Limits,
    io: SimIo,
    mono_ns: u64,
}

impl Stage {
    pub fn new(limits: Limits) -> Self {
        let symbols = Arc::new(Symbols::new(1_000));
        let ingest = Arc::new(Ingest::new(
            Arc::clone(&symbols),
            Node::new("stage", "stage"),
            &limits,
            vec![Box::new(|| ())],
        ));
        let identity = Identity { simulated: true, limits: limits.clone() };
        let shard = Shard::new(0, Arc::new(identity), Arc::clone(&ingest));
        Self { symbols, ingest, shard, limits, io: SimIo::default(), mono_ns: BEGIN_MONO_NS }
    }

    pub fn list(&self, name: &str, channel: Channel) -> Symbol {
        self.symbols.list(FeedId(0), name, channel).expect("room")
    }

    pub fn time(&self) -> Time {
        Time(BEGIN_NS + self.mono_ns as i64)
    }

    /// The source speaks.
    pub fn push(&self, updates: &[Update]) {
        let mut updates = updates.to_vec();
        updates.iter_mut().for_each(|update| update.arrival_ns = self.mono_ns);
        self.ingest.push(&updates);
    }

    /// Time passes, and the shard turns.
    pub fn after_ms(&mut self, ms: u64) {
        self.mono_ns += ms * 1_000_000;
        self.io.set_time(self.mono_ns);
        self.shard.turn(&mut self.io);
    }

    /// A client whose kernel holds so many bytes for it.
    pub fn connect(&mut self, query: &str, room: usize) -> Peer {
        self.connect_as(query, room, Packing::default())
    }

    /// The same, with what the handshake settled.
    pub fn connect_as(&mut self, query: &str, room: usize, packing: Packing) -> Peer {
        let pipe = Rc::new(RefCell::new(Pipe::new(room)));
        self.io.newcomers.push(Newcomer {
            wire: SimWire(Rc::clone(&pipe)),
            peer: ([127, 0, 0, 1], 1).into(),
            head: Vec::new(),
            asked: command::from_query(query, &self.limits),
            packing,
        });
        Peer { pipe, pending: Vec::new() }
    }
}

/// A trade of one at one.
pub fn trade(symbol: Symbol, time: Time, trade_id: u64) -> Update {
    let trade = Trade {
        price: Decimal::ONE,
        size: Decimal::ONE,
        trade_id,
        ref_trade_id: 0,
        source_seq: 0,
        side: None,
        kind: TradeKind::New,
    };
    Update::new(symbol, time, Body::Trade(trade))
}

/// A client's end of its connection.
pub struct Peer {
    pipe: SharedPipe,
    pending: Vec<u8>,
}

impl Peer {
    pub fn send(&self, text: &str) {
        self.pipe.borrow_mut().send(&client_frame(TEXT, text));
    }

    /// Reads at most so many bytes, and answers pings; the messages that are complete, each with its opcode.
    pub fn read(&mut self, bytes: usize) -> Vec<(u8, String)> {
        let frames = self.frames(bytes).into_iter();
        frames.map(|(opcode, payload)| (opcode, String::from_utf8_lossy(&payload).into_owned())).collect()
    }

    /// The same, with their payloads as they are.
    pub fn frames(&mut self, bytes: usize) -> Vec<(u8, Vec<u8>)> {
        let taken = self.bytes(bytes);
        self.pending.extend(taken);
        let mut messages = Vec::new();
        while let Some((opcode, payload)) = next_frame(&mut self.pending) {
            if opcode == PING {
                self.pipe.borrow_mut().send(&client_frame(PONG, ""));
            } else {
                messages.push((opcode, payload));
            }
        }
        messages
    }

    /// At most so many bytes, as they came.
    pub fn bytes(&self, bytes: usize) -> Vec<u8> {
        self.pipe.borrow_mut().take(bytes)
    }
}

/// Who follows a wildcard misses nothing of a symbol that is listed and trades between two turns.
#[test]
fn a_new_listing_is_told_from_its_first_trade() {
    let mut stage = Stage::new(Limits::default());
    let mut peer = stage.connect("symbols=trade:*&mode=every", 10_000);
    stage.after_ms(1);
    let symbol = stage.list("NEW", Channel::Quote);
    stage.push(&[trade(symbol, stage.time(), 1), trade(symbol, stage.time(), 2)]);
    stage.after_ms(1);
    let told = peer.read(usize::MAX);
    let (_, batch) = told.last().expect("a batch");
    let batch: Value = serde_json::from_str(batch).expect("JSON");
    let numbers: Vec<_> = batch["rows"].as_array().expect("rows").iter().map(|row| &row["q"]).collect();
    assert_eq!(numbers, [1, 2], "{batch}");
}

/// What is refused is not inflated but for its `id`: a shard must not work for who asks too much.
#[test]
fn a_refused_command_is_inflated_no_further_than_a_usual_one_is_long() {
    let mut stage = Stage::new(Limits { commands_burst: 2, ..Limits::default() });
    let packing = Packing { window_bits: Some(15), is_binary: false };
    let mut peer = stage.connect_as("", 10_000, packing);
    let mut deflate = Deflate::default();
    let mut ids = Vec::new();
    for (id, blanks) in [(1, 0), (2, 9_000), (3, 0), (4, 9_000)] {
        let command = format!(r#"{{"action":"ping","id":{id}{:blanks$}}}"#, "");
        let frame = client_frame(COMPRESSED_TEXT, deflate.message(command.as_bytes(), 15));
        peer.pipe.borrow_mut().send(&frame);
        stage.after_ms(1);
        let answer = peer.read(usize::MAX).pop().expect("an answer").1;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        ids.push((answer["type"].to_string(), answer["id"].as_u64()));
    }
    let [pong, error] = ["\"pong\"", "\"error\""].map(str::to_owned);
    assert_eq!(ids, [(pong.clone(), Some(1)), (pong, Some(2)), (error.clone(), Some(3)), (error, None)]);
}

/// What leads to a whole picture does not hide that this node is behind: it would be older than what the client has seen.
#[test]
fn a_cursor_ahead_of_the_node_is_told_so_whatever_comes_with_it() {
    let mut stage = Stage::new(Limits::default());
    let symbol = stage.list("A", Channel::Quote);
    stage.push(&[trade(symbol, stage.time(), 1)]);
    let mut peer = stage.connect("", 10_000);
    for rest in [
        r#""since":{"epoch":"stage","rev":99}"#,
        r#""since":{"epoch":"stage","rev":1,"seen":99}"#,
        r#""since":{"epoch":"stage","rev":1,"wish":"another","seen":99}"#,
        r#""filter":"last > 1","since":{"epoch":"stage","rev":99}"#,
    ] {
        peer.send(&format!(r#"{{"action":"subscribe","topics":["A"],{rest}}}"#));
        stage.after_ms(1);
        let answer = peer.read(usize::MAX).pop().expect("an answer").1;
        assert!(answer.contains(r#""code":"node_behind""#), "{rest}: {answer}");
    }
}

/// Where the last trade alone is given, its topic is an image like others: `added` names it.
#[test]
fn a_last_trade_of_a_new_listing_is_in_added() {
    let mut stage = Stage::new(Limits::default());
    let old = stage.list("OLD", Channel::Quote);
    stage.push(&[trade(old, stage.time(), 1)]);
    let mut peer = stage.connect("symbols=trade:*", 10_000);
    stage.after_ms(1);
    peer.read(usize::MAX);
    let symbol = stage.list("NEW", Channel::Quote);
    stage.push(&[trade(symbol, stage.time(), 1)]);
    stage.after_ms(1);
    let told = peer.read(usize::MAX);
    let batch: Value = serde_json::from_str(&told[0].1).expect("JSON");
    assert_eq!((&batch["added"][0], &batch["rows"][0]["symbol"]), (&"trade:NEW".into(), &"NEW".into()));
}

/// A tick is timed once for each row of it that went to a client, at the time at which that frame was made: whoever shares
/// the frame, in however many slices it goes out, and whoever could not take it and got it later.
#[test]
fn each_row_is_timed_once_for_each_client_that_got_it() {
    const SYMBOLS: usize = 90;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut stage = Stage::new(Limits::default());
    let names: Vec<String> = (0..SYMBOLS).map(|at| format!("S{at:02}")).collect();
    let symbols: Vec<Symbol> = names.iter().map(|name| stage.list(name, Channel::Quote)).collect();
    let change = |at: usize, field: u8, value: i64, time: Time| {
        Update::image(symbols[at], Channel::Quote, time, &[(field, Some(Decimal::from(value)))])
    };
    for at in 0..SYMBOLS {
        stage.push(&[change(at, quote::LAST, 0, stage.time())]);
    }
    let mut peers = Vec::new();
    for (query, count) in [
        ("symbols=S00,S01,S02&rate=10", 3 * SLICE_WRITES + 7),
        ("symbols=S00,S03", SLICE_WRITES + 1),
        ("symbols=*", 5),
        ("symbols=*&rate=20&fields=bid", 5),
        ("symbols=S04,trade:S04,trade:S05&mode=every&rate=5", 3),
    ] {
        peers.extend((0..count).map(|_| stage.connect(query, 300 + random.usize(..3_000))));
    }
    for _ in 0..40 {
        let mine: Vec<&str> = (0..9).map(|_| names[random.usize(..SYMBOLS)].as_str()).collect();
        peers.push(stage.connect(&format!("symbols={}", mine.join(",")), 600));
    }
    let (mut rows, mut waited_us) = (0, 0);
    let mut hear = |peer: &mut Peer, bytes: usize| {
        for (_, text) in peer.read(bytes) {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            for row in message["rows"].as_array().into_iter().flatten().filter(|row| row["full"] != true) {
                rows += 1;
                waited_us +=
                    message["ts_us"].as_u64().expect("a time") - row["time_us"].as_u64().expect("a time");
            }
        }
    };
    for turn in 0..400 {
        for _ in 0..random.usize(..6) {
            let among = if random.bool() { 6 } else { SYMBOLS };
            let (at, time) = (random.usize(..among), stage.time());
            let field = *random.choice([quote::LAST, quote::BID].iter()).expect("some");
            stage.push(&[change(at, field, random.i64(..1_000_000), time)]);
            stage.push(&[trade(symbols[at], time, turn + 1)]);
        }
        stage.after_ms(random.u64(1..20));
        for peer in &mut peers {
            hear(peer, if random.u32(..9) == 0 { usize::MAX } else { random.usize(..200) });
        }
    }
    // A turn brings a client no more than its kernel holds.
    for _ in 0..200 {
        stage.after_ms(100);
        peers.iter_mut().for_each(|peer| hear(peer, usize::MAX));
    }
    let timed = &stage.shard.stats().arrival_to_written;
    assert_eq!((timed.count(), (timed.sum_seconds() * 1e6).round() as u64), (rows, waited_us));
    let fell_behind = stage.shard.stats().fell_behind;
    assert!(rows > 50_000 && fell_behind > 300, "{rows} rows, {fell_behind} fell behind");
}

/// A source of its own pace is told until when it can wait with what it says.
#[test]
fn a_feed_knows_when_somebody_looks() {
    let mut stage = Stage::new(Limits::default());
    let symbol = stage.list("A", Channel::Quote);
    let look_in_ms = |stage: &mut Stage| {
        stage.after_ms(1);
        let awake_ns = stage.ingest.look_ns(0, 0);
        stage.shard.sleep(&mut stage.io, Some(Duration::ZERO));
        let asleep_ns = stage.ingest.look_ns(0, 0);
        assert_eq!(
            awake_ns, asleep_ns,
            "what is said before a turn's frames go out is what is said after it"
        );
        asleep_ns.checked_sub(stage.mono_ns).map(|ns| ns / 1_000_000)
    };
    assert!(look_in_ms(&mut stage) > Some(1_000_000), "nobody is here");
    let mut rated = stage.connect("symbols=A&rate=1", 10_000);
    assert_eq!(look_in_ms(&mut stage), None, "its slot has begun and is not used");
    stage.push(&[trade(symbol, stage.time(), 1)]);
    assert_eq!(look_in_ms(&mut stage), Some(997), "the next slot");
    let next_ns = stage.ingest.look_ns(0, 0);
    let after_it_ns = next_ns + 1_000_000_000;
    let looks_ns = [next_ns - 2, next_ns - 1, next_ns].map(|now_ns| stage.ingest.look_ns(now_ns, now_ns + 1));
    assert_eq!(looks_ns, [next_ns, after_it_ns, next_ns], "not yet spoken for, spoken for, and late");
    let mut unrated = stage.connect("symbols=A", 10_000);
    assert_eq!(look_in_ms(&mut stage), None);
    drop(unrated.read(usize::MAX));
    unrated.pipe.borrow_mut().close();
    assert_eq!(look_in_ms(&mut stage), Some(995), "it has gone");
    assert!(!rated.read(usize::MAX).is_empty());
    let _ahead = stage.connect("symbols=A,trade:A&mode=trade_safe&rate=1", 10_000);
    assert_eq!(look_in_ms(&mut stage), None, "its trades go between the slots");
}

/// A heartbeat goes with a frame where frames go, little later than it was due, and else by itself.
#[test]
fn heartbeats_go_with_frames() {
    let limits = Limits::default();
    let interval_ms = limits.heartbeat.as_millis() as u64;
    let mut stage = Stage::new(limits);
    let symbol = stage.list("A", Channel::Quote);
    // The second one's kernel never takes a frame and a heartbeat at once.
    let mut peers = [10_000, 200].map(|room| (stage.connect("symbols=A&rate=10", room), 0));
    let (mut beats, mut with_frames, mut of_quiet) = ([Vec::new(), Vec::new()], 0, 0);
    for at_ms in (0..20 * interval_ms).step_by(10) {
        let is_quiet = (8 * interval_ms..12 * interval_ms).contains(&at_ms);
        if !is_quiet {
            let last = Some(Decimal::from(at_ms));
            stage.push(&[Update::image(symbol, Channel::Quote, stage.time(), &[(quote::LAST, last)])]);
        }
        stage.after_ms(10);
        for (at, (peer, bytes)) in peers.iter_mut().enumerate() {
            let all = peer.pipe.borrow().to_client.len();
            *bytes += all;
            let said: Vec<_> = peer.read(all).into_iter().map(|(_, text)| text).collect();
            let Some(beat) = said.iter().find(|text| text.contains("\"heartbeat\"")) else { continue };
            beats[at].push(at_ms);
            if at == 0 {
                with_frames += usize::from(said[0].contains("\"batch\""));
                of_quiet += usize::from(beat.contains("\"seq\""));
            }
        }
    }
    for two in beats.iter().flat_map(|beats| beats.windows(2)) {
        let gap = (two[1] - two[0]) as f64 / interval_ms as f64;
        assert!((0.9..1.1).contains(&gap), "{gap} of an interval after {} ms", two[0]);
    }
    assert!(beats.iter().all(|beats| beats.len() >= 18), "{beats:?}");
    let expected = beats[0].len() - 4;
    assert!(with_frames >= expected && (2..=4).contains(&of_quiet), "{with_frames}, {of_quiet} of {beats:?}");
    for (peer, bytes) in &mut peers {
        *bytes += peer.bytes(usize::MAX).len();
    }
    stage.after_ms(1);
    let written: usize = peers.iter().map(|(peer, bytes)| bytes + peer.bytes(usize::MAX).len()).sum();
    assert_eq!(stage.shard.stats().bytes_written, written as u64, "each byte counts once");
}
