//! How long the Binance decoder takes per message, beside simd-json alone on the same messages in the same run.
//!
//! "simd-json alone" parses into a struct that borrows its texts, which is where any decoder would begin. The tick of
//! this house is the ratio of the two: `ingest ratio` = simd-json's time / the decoder's time; the goal is 0.7.

#![allow(clippy::disallowed_methods, reason = "a bench is its own clock")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;
use tickgate_feeds::binance::{Binance, Market};
use tickgate_feeds::capture::Plan;
use tickgate_feeds::feed::{Feed, Next, Source};
use tickgate_feeds::market::{FeedId, Time, Update};
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;

#[path = "../tests/real/mod.rs"]
mod real;

/// Rounds over all messages; the quickest counts, the others met with other work on the machine. As a test one is enough.
const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 15 };

#[derive(Deserialize)]
struct Combined<'a, T> {
    #[serde(borrow)]
    stream: &'a str,
    data: T,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsing is what is measured")]
struct Trade<'a> {
    #[serde(rename = "E")]
    sent: u64,
    s: &'a str,
    t: u64,
    p: &'a str,
    q: &'a str,
    #[serde(rename = "T")]
    time: u64,
    m: bool,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsing is what is measured")]
struct Ticker<'a> {
    u: u64,
    s: &'a str,
    b: &'a str,
    #[serde(rename = "B")]
    bid_size: &'a str,
    a: &'a str,
    #[serde(rename = "A")]
    ask_size: &'a str,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "parsing is what is measured")]
struct Depth<'a> {
    #[serde(rename = "E")]
    sent: u64,
    s: &'a str,
    #[serde(rename = "U")]
    first: u64,
    u: u64,
    #[serde(borrow)]
    b: Vec<[&'a str; 2]>,
    #[serde(borrow)]
    a: Vec<[&'a str; 2]>,
}

type Lines = Vec<(i64, Vec<u8>)>;

/// simd-json alone, by the kind that the stream's name tells.
fn alone(raw: &mut [u8], kind: Kind, buffers: &mut simd_json::Buffers) {
    fn parse<'a, T: Deserialize<'a>>(raw: &'a mut [u8], buffers: &mut simd_json::Buffers) {
        let parsed: Combined<'a, T> = simd_json::serde::from_slice_with_buffers(raw, buffers).expect("json");
        black_box((parsed.stream, parsed.data));
    }
    match kind {
        Kind::Trade => parse::<Trade<'_>>(raw, buffers),
        Kind::Ticker => parse::<Ticker<'_>>(raw, buffers),
        Kind::Depth => parse::<Depth<'_>>(raw, buffers),
        Kind::Other => {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Trade,
    Ticker,
    Depth,
    Other,
}

fn kind(raw: &[u8]) -> Kind {
    let text = std::str::from_utf8(&raw[..raw.len().min(60)]).unwrap_or("");
    match text {
        _ if text.contains("@trade") => Kind::Trade,
        _ if text.contains("@bookTicker") => Kind::Ticker,
        _ if text.contains("@depth") => Kind::Depth,
        _ => Kind::Other,
    }
}

/// Nanoseconds that `round` takes over a fresh copy of all messages: parsing rewrites its input.
fn timed(lines: &Lines, mut round: impl FnMut(&mut [Vec<u8>])) -> f64 {
    let mut copies: Vec<Vec<u8>> = lines.iter().map(|(_, raw)| raw.clone()).collect();
    let begin = Instant::now();
    round(&mut copies);
    begin.elapsed().as_nanos() as f64
}

fn compare(label: &str, market: Market, lines: &Lines) {
    let kinds: Vec<Kind> = lines.iter().map(|(_, raw)| kind(raw)).collect();
    let mut buffers = simd_json::Buffers::new(16 * 1024);
    let (mut updates, mut out) = (0, Vec::<Update>::new());
    let (mut alone_ns, mut decode_ns) = (f64::MAX, f64::MAX);
    // By turns, so that whatever else the machine does meets both.
    for _ in 0..ROUNDS {
        alone_ns = alone_ns.min(timed(lines, |copies| {
            for (raw, kind) in copies.iter_mut().zip(&kinds) {
                alone(raw, *kind, &mut buffers);
            }
        }));
        decode_ns = decode_ns.min(timed(lines, |copies| {
            let mut feed = Binance::new(market, Arc::new(Symbols::new(10)), FeedId(0), "");
            updates = 0;
            for (raw, (at, _)) in copies.iter_mut().zip(lines) {
                out.clear();
                feed.decode(raw, Time(*at), &mut out).expect("a good message");
                updates += black_box(&out).len();
            }
        }));
    }
    (alone_ns, decode_ns) = (alone_ns / lines.len() as f64, decode_ns / lines.len() as f64);
    println!(
        "{label:<22} {:>6} messages {updates:>7} updates  simd-json {alone_ns:>7.1} ns  decoder {decode_ns:>7.1} ns  ingest ratio {:.2}",
        lines.len(),
        alone_ns / decode_ns
    );
}

/// The whole file through the capture source at full speed, unpacking included.
fn play(name: &str, venue: &str, lines: usize) {
    let Some(path) = real::find(name) else { return };
    let market = if venue.ends_with("usdm") { "binance-usdm" } else { "binance" };
    let spec = Spec::parse(&format!("capture:{}?speed=max&venue={market}", path.display())).expect("a spec");
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let mut capture = Plan::from_spec(&spec, &Arc::new(Symbols::new(10)), FeedId(0))
            .and_then(Plan::open)
            .expect("a capture");
        let mut out = Vec::new();
        let begin = Instant::now();
        while capture.next(Time(0), &mut out) == Next::Now {
            black_box(&out);
            out.clear();
        }
        best = best.min(begin.elapsed().as_nanos() as f64);
    }
    println!("{venue:<13} capture, gzip {:>7.1} ns a message", best / lines as f64);
}

fn main() {
    for (name, market) in [
        ("binance-spot/btcusdt_20240808.ndjson.gz", Market::Spot),
        ("binance-usdm/btcusdt_20240808.ndjson.gz", Market::UsdM),
    ] {
        let Some(lines) = real::lines(name) else { continue };
        let venue = name.split('/').next().unwrap_or_default();
        let of =
            |wanted: Kind| lines.iter().filter(|(_, raw)| kind(raw) == wanted).cloned().collect::<Lines>();
        compare(&format!("{venue} trade"), market, &of(Kind::Trade));
        compare(&format!("{venue} bookTicker"), market, &of(Kind::Ticker));
        let with_picture = lines.iter().filter(|(_, raw)| matches!(kind(raw), Kind::Depth | Kind::Other));
        compare(&format!("{venue} depth"), market, &with_picture.cloned().collect());
        compare(&format!("{venue} all"), market, &lines);
        play(name, venue, lines.len());
    }
}
