//! A client written from the contract alone: it shares no code with the server but the names of things.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use fastrand::Rng;
use serde_json::Value;
use serde_json::value::RawValue;
use tickgate::flow::socket::wire::Newcomer;
use tickgate_feeds::symbols::Symbols;

use super::history::{Fields, History};
use super::wire::{Pipe, SharedPipe, SimWire};

/// Keys of a row that are no fields.
pub const KEYS: [&str; 6] = ["symbol", "channel", "rev", "q", "time_us", "full"];

/// What clients met: the test looks whether the hard cases were among it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub frames: u64,
    pub rows: u64,
    pub merged: u64,
    pub more: u64,
    pub gaps: u64,
    pub added: u64,
    pub heartbeats: u64,
    pub events: u64,
    pub books: u64,
    pub bars: u64,
}

impl Seen {
    pub fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.rows += other.rows;
        self.merged += other.merged;
        self.more += other.more;
        self.gaps += other.gaps;
        self.added += other.added;
        self.heartbeats += other.heartbeats;
        self.events += other.events;
        self.books += other.books;
        self.bars += other.bars;
    }
}

#[derive(Debug, Default)]
struct Stream {
    sub: String,
    every: bool,
    slot_ns: Option<u64>,
    fields: Option<Vec<String>>,
    seq: Option<u64>,
    rev: u64,
    snapshot_done: bool,
    /// Image rows by symbol: revision and fields.
    rows: BTreeMap<String, (u64, Fields)>,
    books: BTreeMap<String, u64>,
    /// Event topics: the last number known.
    q: BTreeMap<String, u64>,
    first_us: Option<u64>,
    slots_used: u64,
}

pub struct Client {
    pipe: SharedPipe,
    query: String,
    stalled: bool,
    /// It reads at once, always.
    steady: bool,
    wanted: usize,
    streams: BTreeMap<u64, Stream>,
    pending: Vec<u8>,
    seen: Seen,
    hung_up: bool,
}

#[derive(serde::Deserialize)]
struct Batch {
    stream: u64,
    seq: u64,
    prev: Option<u64>,
    rev: u64,
    ts_us: u64,
    #[serde(default)]
    snapshot: bool,
    #[serde(default)]
    more: bool,
    rows: Vec<BTreeMap<String, Box<RawValue>>>,
    #[serde(default)]
    gaps: Vec<Gap>,
    #[serde(default)]
    added: Vec<String>,
}

#[derive(serde::Deserialize)]
struct Gap {
    topic: String,
    from: Option<u64>,
    to: u64,
}

const TOPICS: [&str; 11] = [
    "*",
    "@THIRD",
    "A*",
    "A00",
    "B01",
    "trade:*",
    "trade:A02",
    "book:A00",
    "trade:@THIRD",
    "status:*",
    "bar_1s:*",
];
const RATES: [f64; 4] = [2.0, 5.0, 10.0, 50.0];

impl Client {
    pub fn new(random: &mut Rng) -> Self {
        let steady = random.u8(..3) == 0;
        let room = if steady { 1 << 20 } else { [600, 3_000, 100_000][random.usize(..3)] };
        let pipe = Rc::new(RefCell::new(Pipe::new(room)));
        let query =
            if random.bool() { String::new() } else { format!("symbols={}", TOPICS[random.usize(..5)]) };
        Self {
            pipe,
            query,
            stalled: false,
            steady,
            wanted: random.usize(1..4),
            streams: BTreeMap::new(),
            pending: Vec::new(),
            seen: Seen::default(),
            hung_up: false,
        }
    }

    pub fn newcomer(&self) -> Newcomer<SimWire> {
        Newcomer {
            wire: SimWire(Rc::clone(&self.pipe)),
            peer: ([127, 0, 0, 1], 1).into(),
            head: Vec::new(),
            query: self.query.clone(),
        }
    }

    pub fn seen(&self) -> Seen {
        self.seen
    }

    pub fn is_gone(&self) -> bool {
        self.hung_up
    }

    /// Does something at random: stalls, asks for more, for less, or leaves.
    pub fn act(&mut self, random: &mut Rng) {
        if !self.steady && random.u8(..20) == 0 {
            self.stalled = !self.stalled;
        }
        if self.streams.len() < self.wanted && random.u8(..10) == 0 {
            let command = subscribe(random);
            self.send(&command);
        }
        if random.u8(..60) == 0
            && let Some(stream) = self.streams.values().next()
        {
            let command = format!(r#"{{"action":"unsubscribe","sub":"{}"}}"#, stream.sub);
            self.send(&command);
        }
        if random.u8(..40) == 0 {
            self.send(r#"{"action":"list","id":1}"#);
        }
        if random.u8(..200) == 0 {
            self.pipe.borrow_mut().close();
            self.hung_up = true;
        }
    }

    pub fn stop_acting(&mut self) {
        self.stalled = false;
    }

    fn send(&mut self, text: &str) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(&mask);
        frame.extend(text.bytes().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.pipe.borrow_mut().send(&frame);
    }

    /// Takes what has come, unless it is stalled.
    pub fn read(&mut self) -> Vec<u8> {
        if self.stalled { Vec::new() } else { self.pipe.borrow_mut().take(usize::MAX) }
    }

    /// Checks every frame that is complete.
    pub fn check(&mut self, bytes: &[u8], history: &History, symbols: &Symbols) {
        self.pending.extend_from_slice(bytes);
        while let Some((opcode, payload)) = self.next_frame() {
            match opcode {
                1 => self.hear(&payload, history, symbols),
                9 => {
                    let pong = [0x8a, 0x80, 0, 0, 0, 0];
                    self.pipe.borrow_mut().send(&pong);
                }
                other => panic!("unexpected opcode {other}: {}", String::from_utf8_lossy(&payload)),
            }
        }
    }

    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let bytes = &self.pending;
        let first = *bytes.first()?;
        assert_eq!(first & 0xf0, 0x80, "whole frames, no reserved bits");
        let (header, len) = match *bytes.get(1)? {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
            len => (2, usize::from(len)),
        };
        let payload = bytes.get(header..header + len)?.to_vec();
        self.pending.drain(..header + len);
        Some((first & 0x0f, payload))
    }

    fn hear(&mut self, text: &[u8], history: &History, symbols: &Symbols) {
        let message: Value = serde_json::from_slice(text).expect("JSON");
        match message["type"].as_str().expect("a type") {
            "welcome" => assert_eq!(message["epoch"], "world"),
            "subscribed" => self.subscribed(&message),
            "unsubscribed" => {
                let number = message["stream"].as_u64().expect("a stream");
                self.streams.remove(&number).expect("one of ours");
            }
            "batch" => {
                let batch: Batch = serde_json::from_slice(text).expect("a batch");
                self.batch(&batch, history, symbols);
            }
            "heartbeat" => {
                self.seen.heartbeats += 1;
                for (number, said) in message["streams"].as_object().expect("streams") {
                    let stream = &self.streams[&number.parse().expect("a number")];
                    assert_eq!(said["seq"].as_u64(), stream.seq, "a heartbeat names the last seq given");
                }
            }
            "list" => {}
            "error" => assert!(message["code"] == "unknown_sub", "{message}"),
            other => panic!("unexpected {other}"),
        }
    }

    fn subscribed(&mut self, message: &Value) {
        let strings = |value: &Value| {
            let list = value.as_array()?;
            Some(list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect())
        };
        let q = message["q"].as_object().expect("q").iter();
        let stream = Stream {
            sub: message["sub"].as_str().expect("a sub").to_owned(),
            every: message["mode"] == "every",
            slot_ns: message["rate"].as_f64().map(|rate| (1e9 / rate) as u64),
            fields: strings(&message["fields"]),
            q: q.map(|(topic, q)| (topic.clone(), q.as_u64().expect("a number"))).collect(),
            ..Stream::default()
        };
        let number = message["stream"].as_u64().expect("a stream");
        assert!(self.streams.insert(number, stream).is_none(), "a session is on a stream once");
    }

    fn batch(&mut self, batch: &Batch, history: &History, symbols: &Symbols) {
        let stream = self.streams.get_mut(&batch.stream).expect("frames come after their answer");
        self.seen.frames += 1;
        self.seen.more += u64::from(batch.more);
        self.seen.added += batch.added.len() as u64;
        // The gap rule.
        assert_eq!(batch.prev, stream.seq, "prev is what we hold");
        assert!(batch.seq >= batch.prev.unwrap_or(0));
        self.seen.merged += u64::from(batch.prev.is_some_and(|prev| batch.seq > prev + 1));
        assert_eq!(batch.snapshot, !stream.snapshot_done, "the first picture and only that");
        stream.snapshot_done |= !batch.more;
        stream.seq = Some(batch.seq);
        assert!(batch.rev >= stream.rev, "a frame's rev never falls");
        stream.rev = batch.rev;
        if self.steady {
            assert!(batch.prev.is_none_or(|prev| batch.seq <= prev + 1), "who reads at once is never merged");
        }
        if let (Some(slot_ns), false) = (stream.slot_ns, batch.snapshot || batch.more) {
            // One frame at most per slot, wherever the slots begin.
            let first_us = *stream.first_us.get_or_insert(batch.ts_us);
            stream.slots_used += 1;
            let slots = (batch.ts_us - first_us) * 1_000 / slot_ns;
            assert!(stream.slots_used <= slots + 2, "{} frames in {slots} slots", stream.slots_used);
        }
        for gap in &batch.gaps {
            self.seen.gaps += 1;
            // Of a topic that came while we watched, the first number seen begins the count.
            let held = stream.q.get(&gap.topic).copied();
            let joins = held.is_none_or(|held| gap.from.is_none_or(|from| from <= held + 1));
            assert!(joins, "{}: gap from {:?}, held {held:?}", gap.topic, gap.from);
            stream.q.insert(gap.topic.clone(), gap.to.max(held.unwrap_or(0)));
        }
        for row in &batch.rows {
            self.seen.rows += 1;
            stream.apply(row, history, symbols, &mut self.seen);
        }
        if !batch.more && stream.snapshot_done {
            stream.check_promise(history, symbols);
        }
    }

    /// In the end every stream holds the images of the hub, and every event up to the last.
    pub fn check_settled(&self, history: &History, symbols: &Symbols, trades: &[u64]) {
        for stream in self.streams.values() {
            assert!(stream.snapshot_done, "a picture under way after the market stood still");
            for name in stream.rows.keys() {
                let symbol = symbols.find(name).expect("listed");
                stream.agrees(name, history.at(symbol, u64::MAX).expect("an image"));
            }
            for (topic, q) in stream.q.iter().filter(|_| stream.every) {
                if let Some(name) = topic.strip_prefix("trade:") {
                    let symbol = symbols.find(name).expect("listed");
                    assert_eq!(
                        *q,
                        trades[symbol.index()],
                        "{topic}: every trade was given or announced as lost"
                    );
                }
            }
        }
    }
}

impl Stream {
    /// Events of a lossless topic come without holes.
    fn next_event(&mut self, topic: String, q: u64) {
        let held = self.q.entry(topic).or_insert(q - 1);
        assert_eq!(q, *held + 1, "the next event");
        *held = q;
    }

    fn apply(
        &mut self,
        row: &BTreeMap<String, Box<RawValue>>,
        history: &History,
        symbols: &Symbols,
        seen: &mut Seen,
    ) {
        let text = |key: &str| row.get(key).map(|value| value.get().trim_matches('"').to_owned());
        let number = |key: &str| text(key).and_then(|text| text.parse::<u64>().ok());
        let name = text("symbol").expect("a symbol");
        let (rev, q) = (number("rev").expect("a rev"), number("q").expect("a q"));
        match text("channel").as_deref() {
            Some("trade") => {
                seen.events += 1;
                assert_eq!(number("trade_id"), Some(q), "the n-th trade has the number n");
                let held = self.q.entry(format!("trade:{name}")).or_insert(q - 1);
                assert!(if self.every { q == *held + 1 } else { q >= *held }, "{name}: {q} after {held}");
                *held = q;
            }
            Some("status") => {
                seen.events += 1;
                self.next_event(format!("status:{name}"), q);
            }
            Some(bar) if bar.starts_with("bar_") => {
                let topic = format!("{bar}:{name}");
                if text("final").as_deref() == Some("true") {
                    seen.bars += 1;
                    self.next_event(topic, q);
                } else {
                    let held = self.q.get(&topic).copied();
                    assert!(held.is_none_or(|held| q > held), "{topic}: open bar {q} after final {held:?}");
                }
            }
            Some("book") => {
                seen.books += 1;
                let held = self.books.insert(name, rev);
                assert!(held.is_none_or(|held| held <= rev), "a book never goes back");
            }
            Some(other) => panic!("unexpected channel {other}"),
            None => {
                let fields = row.iter().filter(|(key, _)| !KEYS.contains(&key.as_str()));
                let fields = fields.map(|(key, value)| (key.clone(), value.get().to_owned()));
                let held = self.rows.entry(name.clone()).or_default();
                assert!(row.contains_key("full") || held.0 > 0, "{name}: the first row is whole");
                assert!(rev >= held.0, "{name}: a row never goes back");
                if row.contains_key("full") {
                    held.1.clear();
                }
                held.0 = rev;
                held.1.extend(fields);
                // Each selected field equals the image at its row's rev.
                let symbol = symbols.find(&name).expect("listed");
                self.agrees(&name, history.exactly(symbol, rev).expect("a rev at which a cut was made"));
            }
        }
    }

    /// No topic has an unsent change at or below the frame's rev.
    fn check_promise(&self, history: &History, symbols: &Symbols) {
        for (name, (rev, _)) in &self.rows {
            let symbol = symbols.find(name).expect("listed");
            self.agrees(name, history.at(symbol, self.rev.max(*rev)).expect("an image"));
        }
    }

    fn agrees(&self, name: &str, image: &Fields) {
        let (rev, held) = &self.rows[name];
        let selected = |key: &String| self.fields.as_ref().is_none_or(|fields| fields.contains(key));
        let any =
            image.keys().any(|key| self.fields.as_ref().is_some_and(|f| f.contains(key) && key != "state"));
        for (key, value) in image {
            if selected(key) || !any {
                assert_eq!(held.get(key), Some(value), "{name}.{key} at {rev}");
            }
        }
        for key in held.keys() {
            assert!(selected(key) || !any, "{name}.{key} was not selected");
        }
    }
}

fn subscribe(random: &mut Rng) -> String {
    let mut topics: Vec<&str> =
        (0..random.usize(1..4)).map(|_| TOPICS[random.usize(..TOPICS.len())]).collect();
    topics.dedup();
    let mut command = serde_json::json!({ "action": "subscribe", "topics": topics });
    if random.bool() {
        command["rate"] = RATES[random.usize(..RATES.len())].into();
    }
    if random.bool() {
        command["mode"] = "every".into();
    }
    if random.u8(..3) == 0 {
        command["fields"] = serde_json::json!(["last", "bid"]);
    }
    if random.u8(..4) == 0 {
        command["delta"] = false.into();
    }
    command.to_string()
}
