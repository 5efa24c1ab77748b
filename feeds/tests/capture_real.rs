//! A whole recording through the capture source: what a client would have been told by its end.

mod real;

use std::sync::Arc;

use rust_decimal::Decimal;
use tickgate_feeds::book::Book;
use tickgate_feeds::capture::{Capture, Plan, UPDATES_PER_CALL};
use tickgate_feeds::feed::{Next, Skipped, Source};
use tickgate_feeds::market::{Body, FeedId, Side, Symbol, Time};
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;

const SPOT: &str = "binance-spot/btcusdt_20240808.ndjson.gz";

fn open(options: &str) -> Option<(Capture, Arc<Symbols>)> {
    let spec = Spec::parse(&format!("capture:{}?{options}", real::find(SPOT)?.display())).expect("a spec");
    let symbols = Arc::new(Symbols::new(10));
    Some((Plan::from_spec(&spec, &symbols, FeedId(0)).and_then(Plan::open).expect("a capture"), symbols))
}

#[test]
fn at_full_speed_nothing_is_lost() {
    let Some((mut capture, symbols)) = open("speed=max&prefix=binance.") else { return };
    assert_eq!(symbols.find("binance.BTCUSDT"), Some(Symbol::at(0)));
    let (mut book, mut trades, mut volume, mut out) = (Book::default(), 0, Decimal::ZERO, Vec::new());
    let mut more = true;
    while more {
        out.clear();
        more = capture.next(Time(0), &mut out) == Next::Now;
        assert!(out.len() < UPDATES_PER_CALL + 4_096);
        for update in &out {
            match &update.body {
                Body::Level(level) => book.apply(level),
                Body::Trade(trade) => {
                    trades += 1;
                    volume += trade.size;
                }
                _ => {}
            }
        }
    }
    assert_eq!((trades, volume), (9_757, Decimal::new(21_203_315, 5)));
    assert_eq!((book.len(Side::Buy), book.len(Side::Sell), book.dropped()), (1_209, 2_196, 0));
    assert_eq!((capture.errors(), capture.skipped()), (0, Skipped { old: 2, ..Skipped::default() }));
}

#[test]
fn at_recorded_speed_every_second_has_its_own() {
    let Some((mut capture, _)) = open("speed=10x") else { return };
    let (mut now, mut out, mut tickers, mut seconds) = (Time(1_000), Vec::new(), 0, 0u64);
    let span = 1_723_161_599_999_231_384 - 1_723_161_253_937_085_768i64;
    while let Next::At(due) = capture.next(now, &mut out) {
        assert!(due > now);
        // A clock that ticks a hundred times a second, so a second of the recording in ten ticks.
        now = Time(now.0 + 10_000_000);
        tickers += out.iter().filter(|update| matches!(update.body, Body::Image { len: 4, .. })).count();
        seconds += u64::from(!out.is_empty());
        out.clear();
    }
    tickers += out.iter().filter(|update| matches!(update.body, Body::Image { len: 4, .. })).count();
    assert_eq!(tickers, 28_040);
    assert!((now.0 - 1_000 - span / 10).abs() <= 10_000_000, "{now:?}");
    assert!(seconds > 2_800, "{seconds} ticks had something to say");
}
