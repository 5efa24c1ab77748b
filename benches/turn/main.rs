//! Turns of one shard on wires that take everything: what user space costs per frame, without the kernel.
//!
//! Under callgrind the counts repeat to the digit. `turn broadcast 1000 200` serves 1,000 clients of one stream 200 ticks;
//! `turn market 500 100` serves 500 clients of 30 random symbols each, 100 slots of a tenth of a second, `turn shared` the
//! same 30 to all, and in `turn tape` each tick is a trade too. A fourth argument is put behind each client's query. What
//! follows is how frames travel, `msgpack` and the window that they are compressed for, in bits:
//! `turn market 500 100 columns=true msgpack 15`.

use std::hint::black_box;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use rust_decimal::Decimal;
use tickgate::base::clock::Now;
use tickgate::base::limits::Limits;
use tickgate::flow::adapter::Sink;
use tickgate::flow::conflation::cut::Node;
use tickgate::flow::dispatch::wish::Packing;
use tickgate::flow::frame::command;
use tickgate::flow::socket::wire::{Io, Newcomer, Ready, Wire};
use tickgate::gateway::ingest::Ingest;
use tickgate::gateway::shard::{Identity, Shard};
use tickgate_feeds::market::{Body, Channel, FeedId, Side, Symbol, Time, Trade, TradeKind, Update, quote};
use tickgate_feeds::symbols::Symbols;

struct Void;

impl Read for Void {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Void {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(black_box(bytes).len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Void {
    fn shutdown_write(&mut self) {}
    fn reset(&mut self) {}
}

#[derive(Default)]
struct Nowhere {
    newcomers: Vec<Newcomer<Void>>,
    mono_ns: u64,
}

impl Io for Nowhere {
    type Wire = Void;

    fn now(&mut self) -> Now {
        Now { mono_ns: self.mono_ns, wall: Time(1_763_787_600_000_000_000 + self.mono_ns as i64) }
    }

    fn newcomers(&mut self) -> Vec<Newcomer<Void>> {
        std::mem::take(&mut self.newcomers)
    }

    fn register(&mut self, _: &mut Void, _: u32) -> io::Result<()> {
        Ok(())
    }

    fn poll(&mut self, _: Option<Duration>, _: &mut Vec<Ready>) {}
}

struct Bench {
    ingest: Arc<Ingest>,
    shard: Shard<Nowhere>,
    io: Nowhere,
    random: fastrand::Rng,
    symbols: u32,
    packing: Packing,
}

impl Bench {
    fn new(symbols: u32, packing: Packing) -> Self {
        let table = Arc::new(Symbols::new(symbols as usize));
        for at in 0..symbols {
            table.list(FeedId(0), &format!("L{at:04}"), Channel::Quote).expect("there is room");
        }
        // Heartbeats and pings are not what is counted here.
        let limits = Limits {
            heartbeat: Duration::from_secs(3_600),
            ping: Duration::from_secs(3_600),
            ..Limits::default()
        };
        let ingest =
            Arc::new(Ingest::new(table, Node::new("bench", "bench"), &limits, vec![Box::new(|| ())]));
        let identity = Arc::new(Identity { simulated: true, limits });
        let shard = Shard::new(0, identity, Arc::clone(&ingest));
        let io = Nowhere { newcomers: Vec::new(), mono_ns: 1_000_000_000 };
        Self { ingest, shard, io, random: fastrand::Rng::with_seed(7), symbols, packing }
    }

    fn connect(&mut self, query: &str) {
        self.io.newcomers.push(Newcomer {
            wire: Void,
            peer: ([127, 0, 0, 1], 1).into(),
            head: Vec::new(),
            asked: command::from_query(query, &Limits::default()),
            packing: self.packing,
        });
    }

    fn tick(&mut self, symbol: u32) {
        let update = self.price(symbol);
        self.push(&mut [update]);
    }

    /// A symbol by Zipf's law with exponent 1, near enough.
    fn popular(&mut self) -> u32 {
        let share = self.random.f64();
        ((f64::from(self.symbols)).powf(share) as u32).min(self.symbols - 1)
    }

    fn price(&mut self, symbol: u32) -> Update {
        let price = Decimal::new(100_000 + self.random.i64(0..900_000), 2);
        Update::image(Symbol::at(symbol), Channel::Quote, Time(0), &[(quote::LAST, Some(price))])
    }

    fn trade(&mut self, symbol: u32) -> Update {
        let trade = Trade {
            price: Decimal::new(100_000 + self.random.i64(0..900_000), 2),
            size: Decimal::from(self.random.u32(1..100) * 100),
            trade_id: self.random.u64(0..1_000_000_000),
            ref_trade_id: 0,
            source_seq: 0,
            side: Some(Side::Buy),
            kind: TradeKind::New,
        };
        Update::new(Symbol::at(symbol), Time(0), Body::Trade(trade))
    }

    /// Thirty of all, by chance.
    fn some_symbols(&mut self) -> String {
        let symbols: Vec<String> = (0..30).map(|_| format!("L{:04}", self.random.u32(0..1_000))).collect();
        symbols.join(",")
    }

    /// Pushes these now.
    fn push(&mut self, updates: &mut [Update]) {
        for update in &mut *updates {
            update.time = Time(1_763_787_600_000_000_000 + self.io.mono_ns as i64);
            update.arrival_ns = self.io.mono_ns;
        }
        self.ingest.push(updates);
    }

    /// Turns until everybody has the first picture.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.io.mono_ns += 1_000_000;
            self.shard.turn(&mut self.io);
        }
    }
}

fn main() {
    // cargo passes flags of its own.
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let number = |at: usize, default: u64| arguments.get(at).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (clients, rounds) = (number(1, 100), number(2, 20));
    let option = arguments.get(3).map(|option| format!("&{option}")).unwrap_or_default();
    let travels = arguments.get(4..).unwrap_or_default();
    let packing = Packing {
        window_bits: travels.iter().find_map(|bits| bits.parse().ok()),
        is_binary: travels.iter().any(|name| name == "msgpack"),
    };
    match arguments.first().map_or("broadcast", String::as_str) {
        "broadcast" => broadcast(clients, rounds, &option, packing),
        world => market(world, clients, rounds, &option, packing),
    }
}

fn broadcast(clients: u64, ticks: u64, option: &str, packing: Packing) {
    let mut bench = Bench::new(1, packing);
    for _ in 0..clients {
        bench.connect(&format!("symbols=*{option}"));
    }
    bench.tick(0);
    bench.settle();
    let before = bench.shard.stats().clone();
    for _ in 0..ticks {
        bench.io.mono_ns += 100_000_000;
        bench.tick(0);
        bench.shard.turn(&mut bench.io);
    }
    report(&mut bench, &before);
}

fn market(world: &str, clients: u64, slots: u64, option: &str, packing: Packing) {
    let mut bench = Bench::new(1_000, packing);
    for symbol in 0..1_000 {
        bench.tick(symbol);
    }
    let mut symbols = String::new();
    for _ in 0..clients {
        if world != "shared" || symbols.is_empty() {
            symbols = bench.some_symbols();
        }
        bench.connect(&format!("symbols={symbols}&rate=10{option}"));
    }
    bench.settle();
    // Two seconds of ticks, over and over, so that making them up is no part of what is counted.
    let mut ticks = Vec::new();
    for _ in 0..40_000 {
        let symbol = bench.popular();
        ticks.push(bench.price(symbol));
        if world == "tape" {
            ticks.push(bench.trade(symbol));
        }
    }
    let in_a_ms = ticks.len() / 2_000;
    let before = bench.shard.stats().clone();
    // 20,000 ticks a second in steps of a millisecond; the shard turns when it said it would.
    let mut due_ns = 0;
    for ms in 0..slots as usize * 100 {
        bench.io.mono_ns += 1_000_000;
        bench.push(&mut ticks[ms % 2_000 * in_a_ms..][..in_a_ms]);
        if bench.io.mono_ns >= due_ns {
            let wait = bench.shard.turn(&mut bench.io).unwrap_or_default();
            due_ns = bench.io.mono_ns + wait.as_nanos() as u64;
        }
    }
    report(&mut bench, &before);
}

fn report(bench: &mut Bench, before: &tickgate::gateway::shard::Stats) {
    bench.shard.settle_stats();
    let after = bench.shard.stats();
    let frames = after.frames_written - before.frames_written;
    let bytes = after.bytes_written - before.bytes_written;
    let rows = after.encoder.rows - before.encoder.rows;
    println!("frames {frames} bytes {bytes} rows encoded {rows} turns {}", after.turns - before.turns);
}
