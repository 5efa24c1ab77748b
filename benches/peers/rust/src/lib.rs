//! What the Rust peers share: the two workloads, and the frames that the load client times.
//!
//!     PEER broadcast|market PORT CLIENTS
//!
//! One task makes the rounds and tells all clients' tasks of each over a broadcast channel. Rounds begin when CLIENTS
//! have subscribed: a busy peer would let nobody in. Bound: one row for each symbol, `ROUNDS_MAX` rounds that a client
//! may be behind, and for each client the symbols it asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::broadcast::{Receiver, Sender, channel, error::RecvError};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A tenth of a second, as in both workloads.
const ROUND: Duration = Duration::from_millis(100);
/// Between two looks at what ticks are due.
const FEED: Duration = Duration::from_millis(5);
/// What a client that is further behind misses.
const ROUNDS_MAX: usize = 16;
const PAYLOAD_BYTES: usize = 200;
const SYMBOLS: usize = 1_000;
const TICKS_PER_S: u64 = 20_000;

/// What a round has for the clients.
pub enum Round {
    /// W1: the same text for everybody.
    All(Utf8Bytes),
    /// W3: the rows of what has changed; each client takes those that it asked for.
    Rows { rev: u64, ts_us: u64, rows: Vec<Option<String>> },
}

/// Where the rounds come from.
pub struct Rounds {
    sender: Sender<Arc<Round>>,
    /// Clients that have subscribed so far, of those that are expected.
    joined: AtomicU64,
    expected: u64,
    all_here: Notify,
}

/// Listens, and makes rounds once everybody is here.
pub async fn start() -> io::Result<(TcpListener, Arc<Rounds>)> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().unwrap_or_default();
    let (workload, port, clients) = (argument(), argument(), argument());
    let expected = clients.parse().map_err(|_| io::Error::other("CLIENTS: expected a number"))?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let (sender, joined) = (channel(ROUNDS_MAX).0, AtomicU64::new(0));
    let rounds = Arc::new(Rounds { sender, joined, expected, all_here: Notify::new() });
    let maker = Arc::clone(&rounds);
    tokio::spawn(async move {
        maker.all_here.notified().await;
        if workload == "broadcast" { broadcast(&maker.sender).await } else { conflate(&maker.sender).await }
    });
    Ok((listener, rounds))
}

/// A schedule that does not drift; what was missed altogether is left out.
fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

async fn broadcast(sender: &Sender<Arc<Round>>) {
    let mut due = every(ROUND);
    for seq in 1.. {
        due.tick().await;
        let (bare, ts_us) = (r#"{"symbol":"VCB","pad":""}"#, now_us());
        let pad = "x".repeat(PAYLOAD_BYTES.saturating_sub(frame(1, seq, seq, ts_us, bare).len()));
        let text = frame(1, seq, seq, ts_us, &bare.replace(r#""""#, &format!("\"{pad}\"")));
        // All may have left.
        let _ = sender.send(Arc::new(Round::All(text.into())));
    }
}

async fn conflate(sender: &Sender<Arc<Round>>) {
    let mut market = Market::new();
    let (mut feed, mut due) = (every(FEED), every(ROUND));
    loop {
        tokio::select! {
            _ = feed.tick() => market.feed(),
            _ = due.tick() => {
                market.feed();
                let round = Round::Rows { rev: market.rev, ts_us: now_us(), rows: market.rows() };
                // All may have left.
                let _ = sender.send(Arc::new(round));
            }
        }
    }
}

/// Ticks over all symbols by Zipf's law, the latest of each symbol kept.
struct Market {
    weights: Vec<f64>,
    q: Vec<u64>,
    /// The revision of each symbol that has changed; 0 for the others.
    changed: Vec<u64>,
    rev: u64,
    begun_us: u64,
}

impl Market {
    fn new() -> Self {
        let sum = |sum: &mut f64, rank: usize| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        };
        let weights = (1..=SYMBOLS).scan(0.0, sum).collect();
        Self { weights, q: vec![0; SYMBOLS], changed: vec![0; SYMBOLS], rev: 0, begun_us: now_us() }
    }

    /// Takes the ticks that are due by now.
    fn feed(&mut self) {
        let due = now_us().saturating_sub(self.begun_us) * TICKS_PER_S / 1_000_000;
        while self.rev < due {
            self.rev += 1;
            let at = fastrand::f64() * self.weights[SYMBOLS - 1];
            let symbol = self.weights.partition_point(|&weight| weight <= at).min(SYMBOLS - 1);
            self.q[symbol] += 1;
            self.changed[symbol] = self.rev;
        }
    }

    /// What has changed since the last call: each row is encoded once.
    fn rows(&mut self) -> Vec<Option<String>> {
        let changed = std::mem::replace(&mut self.changed, vec![0; SYMBOLS]);
        changed
            .into_iter()
            .enumerate()
            .map(|(symbol, rev)| (rev > 0).then(|| self.row(symbol, rev)))
            .collect()
    }

    fn row(&self, symbol: usize, rev: u64) -> String {
        let time_us = self.begun_us + rev * 1_000_000 / TICKS_PER_S;
        let (q, last) = (self.q[symbol], rev % 9 + 1);
        format!(r#"{{"symbol":"L{symbol:04}","rev":{rev},"q":{q},"time_us":{time_us},"last":{last}}}"#)
    }
}

/// What one client gets.
pub struct Frames {
    receiver: Receiver<Arc<Round>>,
    symbols: Vec<usize>,
    stream: u64,
    seq: u64,
}

impl Frames {
    /// The frames for a client that has sent this command; `None` when it is not JSON.
    pub fn new(command: &str, rounds: &Rounds) -> Option<Self> {
        let command: serde_json::Value = serde_json::from_str(command).ok()?;
        let topics = command["topics"].as_array().into_iter().flatten();
        let symbols = topics.filter_map(|topic| topic.as_str()?.strip_prefix('L')?.parse().ok()).collect();
        let receiver = rounds.sender.subscribe();
        let stream = rounds.joined.fetch_add(1, Ordering::Relaxed) + 1;
        if stream == rounds.expected {
            rounds.all_here.notify_one();
        }
        Some(Self { receiver, symbols, stream, seq: 0 })
    }

    /// Waits for the next one; `None` when there will be no more. Nothing is lost if the wait is given up.
    pub async fn next(&mut self) -> Option<Utf8Bytes> {
        loop {
            match self.receiver.recv().await {
                Ok(round) => {
                    if let Some(text) = self.text(&round) {
                        return Some(text);
                    }
                }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn text(&mut self, round: &Round) -> Option<Utf8Bytes> {
        let (rev, ts_us, rows) = match round {
            Round::All(text) => return Some(text.clone()),
            Round::Rows { rev, ts_us, rows } => (*rev, *ts_us, rows),
        };
        let mine: Vec<&str> =
            self.symbols.iter().filter_map(|&symbol| rows.get(symbol)?.as_deref()).collect();
        if mine.is_empty() {
            return None;
        }
        self.seq += 1;
        Some(frame(self.stream, self.seq, rev, ts_us, &mine.join(",")).into())
    }
}

/// What the load client reads a frame's number and age from.
fn frame(stream: u64, seq: u64, rev: u64, ts_us: u64, rows: &str) -> String {
    let prev = seq - 1;
    format!(
        r#"{{"type":"batch","stream":{stream},"seq":{seq},"prev":{prev},"rev":{rev},"ts_us":{ts_us},"rows":[{rows}]}}"#
    )
}

#[expect(clippy::disallowed_methods, reason = "a program of its own: nobody hands it the time")]
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
