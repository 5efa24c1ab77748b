//! One shard whose clock, market and clients are moved by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::Value;
use tickgate::base::limits::Limits;
use tickgate::flow::adapter::Sink;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::dispatch::wish::Packing;
use tickgate::flow::frame::command;
use tickgate::flow::frame::deflate::Deflate;
use tickgate::flow::socket::wire::Newcomer;
use tickgate::gateway::ingest::Ingest;
use tickgate::gateway::shard::{Identity, Shard};
use tickgate_feeds::market::{Body, Channel, FeedId, Symbol, Time, Trade, TradeKind, Update};
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
