//! How long one change of a book takes, on the changes of the real recordings: the book of this crate (trees by
//! whole-number ranks), trees by decimal prices, and sorted vectors with the best at their end.

#![allow(clippy::disallowed_methods, reason = "a bench is its own clock")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use rust_decimal::Decimal;
use tickgate_feeds::binance::{Binance, Market};
use tickgate_feeds::book::Book;
use tickgate_feeds::feed::Feed;
use tickgate_feeds::market::{Body, FeedId, Level, Side, Time};
use tickgate_feeds::symbols::Symbols;

#[path = "../tests/real/mod.rs"]
mod real;

/// Rounds over all changes, of which the quickest counts; as a test one is enough.
const ROUNDS: usize = if cfg!(debug_assertions) { 1 } else { 7 };

fn changes(name: &str, market: Market) -> Option<Vec<Level>> {
    let mut feed = Binance::new(market, Arc::new(Symbols::new(10)), FeedId(0), "");
    let (mut out, mut levels) = (Vec::new(), Vec::new());
    for (at, mut raw) in real::lines(name)? {
        out.clear();
        feed.decode(&mut raw, Time(at), &mut out).expect("a good message");
        levels.extend(out.iter().filter_map(|update| match update.body {
            Body::Level(level) => Some(level),
            _ => None,
        }));
    }
    Some(levels)
}

fn quickest(label: &str, levels: &[Level], mut round: impl FnMut(&[Level]) -> usize) {
    let mut best = f64::MAX;
    let mut left = 0;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        left = black_box(round(levels));
        best = best.min(begin.elapsed().as_nanos() as f64);
    }
    println!("  {label:<24} {:>7.1} ns a change, {left} levels at the end", best / levels.len() as f64);
}

fn trees(levels: &[Level]) -> usize {
    let mut sides = [BTreeMap::<Decimal, Decimal>::new(), BTreeMap::new()];
    for level in levels {
        if level.reset {
            sides.iter_mut().for_each(BTreeMap::clear);
        }
        let side = &mut sides[usize::from(level.side == Side::Sell)];
        if level.size.is_zero() {
            side.remove(&level.price)
        } else {
            side.insert(level.price, level.size)
        };
        black_box((sides[0].last_key_value(), sides[1].first_key_value()));
    }
    sides[0].len() + sides[1].len()
}

fn vectors(levels: &[Level]) -> usize {
    let mut sides = [Vec::<(Decimal, Decimal)>::new(), Vec::new()];
    for level in levels {
        if level.reset {
            sides.iter_mut().for_each(Vec::clear);
        }
        let side = &mut sides[usize::from(level.side == Side::Sell)];
        let found = side.binary_search_by(|(price, _)| match level.side {
            Side::Buy => price.cmp(&level.price),
            Side::Sell => level.price.cmp(price),
        });
        match found {
            Ok(at) if level.size.is_zero() => drop(side.remove(at)),
            Ok(at) => side[at].1 = level.size,
            Err(_) if level.size.is_zero() => {}
            Err(at) => side.insert(at, (level.price, level.size)),
        }
        black_box((sides[0].last(), sides[1].last()));
    }
    sides[0].len() + sides[1].len()
}

fn main() {
    for (name, market) in [
        ("binance-spot/btcusdt_20240808.ndjson.gz", Market::Spot),
        ("binance-usdm/btcusdt_20240808.ndjson.gz", Market::UsdM),
    ] {
        let Some(levels) = changes(name, market) else { continue };
        println!("{name}: {} changes", levels.len());
        quickest("Book", &levels, |levels| {
            let mut book = Book::new(10_000);
            for level in levels {
                book.apply(level);
                black_box((book.best(Side::Buy), book.best(Side::Sell)));
            }
            book.len(Side::Buy) + book.len(Side::Sell)
        });
        quickest("sorted Vec, Decimal keys", &levels, vectors);
        quickest("BTreeMap, Decimal keys", &levels, trees);
    }
}
