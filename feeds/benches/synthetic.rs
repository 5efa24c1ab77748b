//! How many messages a second the simulated markets make on one core, whoever takes them.
//!
//! Bound kept here: a few seconds in all; the output buffer is cleared after every call, as a gateway does.

#![allow(clippy::disallowed_methods, reason = "a bench is where the wall clock is read")]

use std::time::Instant;

use tickgate_feeds::feed::{Next, Source};
use tickgate_feeds::market::{FeedId, Time};
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::synthetic::Synthetic;

const START: Time = Time(1_763_787_600_000_000_000);

fn main() -> Result<(), String> {
    for (text, rate) in [
        ("synthetic:vn30?rate=5000000&day=0", 5_000_000),
        ("synthetic:vn30?rate=5000000&day=60", 5_000_000),
        ("synthetic:load?rate=10000000", 10_000_000),
        ("synthetic:load?rate=10000000&symbols=100000", 10_000_000),
        ("synthetic:load?rate=10000000&row_bytes=140", 10_000_000),
    ] {
        measure(text, rate)?;
    }
    Ok(())
}

/// Runs two seconds of the market's time at `rate`, the first of them to warm up, and prints what the second took.
fn measure(text: &str, rate: u64) -> Result<(), String> {
    let spec = Spec::parse(text)?;
    let mut source = Synthetic::from_spec(&spec, &Symbols::new(1 << 20), FeedId(0))?;
    let mut out = Vec::with_capacity(8_192);
    let mut second = |end: i64| {
        let (begin, mut updates) = (Instant::now(), 0_u64);
        while source.next(Time(START.0 + end), &mut out) == Next::Now {
            updates += out.len() as u64;
            out.clear();
        }
        updates += out.len() as u64;
        out.clear();
        (begin.elapsed().as_secs_f64(), updates)
    };
    // The first call only sets the start.
    second(0);
    second(1_000_000_000);
    let (seconds, updates) = second(2_000_000_000);
    let (messages, per_message) = (rate as f64 / seconds, updates as f64 / rate as f64);
    println!(
        "{text}: {:.2} M messages/s, {:.1} M updates/s ({per_message:.2} a message), {:.0} ns a message",
        messages / 1e6,
        updates as f64 / seconds / 1e6,
        1e9 / messages
    );
    Ok(())
}
