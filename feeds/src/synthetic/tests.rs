//! Properties of the simulated markets, for several seeds and many steps; every failure names the spec to run again.
//!
//! Bound kept here: the whole set takes seconds.

mod board;

use std::io::Write as _;
use std::path::PathBuf;

use board::Board;

use super::*;
use crate::market::{Body, Phase, Side};

const START: Time = Time(1_763_787_600_123_456_789);
const SEEDS: [u64; 4] = [1, 7, 42, 20_261_122];

/// A file of real market data, or a loud line that says that the test was not run without it.
pub(super) fn real_feed(path: &str) -> Option<String> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let feeds = std::env::var_os("TICKGATE_REAL_FEEDS").map(PathBuf::from);
    let file = feeds.unwrap_or_else(|| workspace.join("../shared/feeds-real")).join(path);
    let text = std::fs::read_to_string(&file);
    // Straight to the stream: `eprintln!` would be held back by the test runner.
    text.inspect_err(|why| _ = writeln!(std::io::stderr(), "NOT RUN: {}: {why}", file.display())).ok()
}

fn source(text: &str, symbols: &Symbols) -> Synthetic {
    let spec = Spec::parse(text).expect(text);
    Synthetic::from_spec(&spec, symbols, FeedId(3)).unwrap_or_else(|why| panic!("{text}: {why}"))
}

/// Goes through `seconds` of the market, asking at every time that it names: what one call brings is one message.
fn walk(text: &str, seconds: i64, mut each: impl FnMut(&Symbols, &[Update], Time)) {
    eprintln!("{text}");
    let symbols = Symbols::new(2_000);
    let (mut source, mut out, mut now) = (source(text, &symbols), Vec::new(), START);
    while now.0 < START.0 + seconds * 1_000_000_000 {
        out.clear();
        now = match source.next(now, &mut out) {
            Next::At(time) => {
                assert!(time > now, "{text}: told to come back at {time:?} at {now:?}");
                each(&symbols, &out, now);
                time
            }
            other => panic!("{text}: {other:?} after one message"),
        };
    }
}

#[test]
fn everything_that_is_said_agrees_with_itself() {
    for seed in SEEDS {
        for (rate, day, seconds) in [(10, 60, 600), (200, 100, 300), (2_000, 60, 130), (50_000, 0, 3)] {
            let text = format!("synthetic:vn30?rate={rate}&day={day}&seed={seed}");
            let mut board = None;
            walk(&text, seconds, |symbols, updates, now| {
                assert!(updates.len() < 4_096, "{text}: {} updates of one call", updates.len());
                assert!(updates.iter().all(|update| update.time == now), "{text}: at {now:?}");
                board.get_or_insert_with(|| Board::new(symbols, &text)).take(updates);
            });
            let board = board.expect("a board");
            let days = if day == 0 { 1 } else { 1 + (seconds as u32).div_euclid(day) };
            assert_eq!(board.days, days, "{text}");
            assert!(board.trades > seconds as u64 * rate / 10, "{text}: only {} trades", board.trades);
        }
    }
}

#[test]
fn every_symbol_moves_within_five_seconds_of_continuous_trading() {
    for seed in SEEDS {
        for rate in [200, 500, 3_000] {
            let text = format!("synthetic:vn30?rate={rate}&seed={seed}&day=0");
            let mut board = None;
            walk(&text, 60, |symbols, updates, now| {
                let board = board.get_or_insert_with(|| Board::new(symbols, &text));
                board.take(updates);
                for &symbol in board.members.iter().chain([&board.index]) {
                    let still = now.0 - board.rows[symbol.index()].changed.0;
                    assert!(still <= 5_000_000_000, "{text}: {symbol:?} has not moved for {still} ns");
                }
            });
        }
    }
}

#[test]
fn members_move_in_auctions_and_nothing_is_said_in_the_break() {
    let text = "synthetic:vn30?rate=500&day=600&seed=3";
    let (mut board, mut phases, mut auction_prices) = (None, Vec::new(), 0);
    walk(text, 1_200, |symbols, updates, now| {
        let board = board.get_or_insert_with(|| Board::new(symbols, text));
        board.take(updates);
        let row = &board.rows[board.members[0].index()];
        let phase = row.phase.expect("a phase");
        assert!(board.rows.iter().all(|row| row.phase == Some(phase)), "{text}: not all are in {phase:?}");
        auction_prices += u32::from(row.value(crate::market::quote::AUCTION_PRICE).is_some());
        match phases.last() {
            Some((last, _)) if *last == phase => {
                assert!(!matches!(phase, Phase::Break | Phase::Closed | Phase::PreOpen), "{updates:?}");
            }
            _ => phases.push((phase, now)),
        }
    });
    let order: Vec<_> = phases.iter().map(|(phase, _)| *phase).collect();
    use Phase::{Atc, Ato, Break, Closed, Continuous, PreOpen, PutThrough};
    let day = [Continuous, Break, Continuous, Atc, PutThrough, Closed, PreOpen, Ato];
    let expected: Vec<_> = day.into_iter().cycle().take(order.len()).collect();
    assert_eq!(order, expected);
    assert!(order.len() > 14 && auction_prices > 100);
    let silent = phases.windows(2).filter(|pair| pair[0].0 == Break).map(|pair| pair[1].1.0 - pair[0].1.0);
    assert!(silent.into_iter().all(|ns| ns == 9_000_000_000), "1.5 % of 600 s: {phases:?}");
}

#[test]
fn the_sequence_is_the_same_however_it_is_asked_for() {
    let seconds = 70_000_000_000;
    for text in ["synthetic:vn30?rate=777&day=60&seed=5", "synthetic:load?rate=777&symbols=50&seed=5"] {
        let pattern = |mut wait: Box<dyn FnMut() -> i64>| {
            let symbols = Symbols::new(100);
            let (mut source, mut all, mut now) = (source(text, &symbols), Vec::new(), START);
            source.next(now, &mut all);
            while now.0 < START.0 + seconds {
                now = Time((now.0 + wait()).min(START.0 + seconds));
                while source.next(now, &mut all) == Next::Now {}
            }
            all
        };
        let mut rng = fastrand::Rng::with_seed(9);
        let often = pattern(Box::new(|| 100_000));
        let now_and_then = pattern(Box::new(move || rng.i64(1..4_000_000_000)));
        let once = pattern(Box::new(move || seconds));
        assert!(often.len() > 40_000, "{text}: {}", often.len());
        assert!(often == now_and_then && often == once, "{text}");
    }
}

#[test]
fn another_seed_is_another_market() {
    let updates = |text: &str| {
        let (symbols, mut out) = (Symbols::new(100), Vec::new());
        let mut source = source(text, &symbols);
        source.next(START, &mut out);
        source.next(Time(START.0 + 1_000_000_000), &mut out);
        out
    };
    for shape in ["vn30?rate=1000", "load?symbols=50"] {
        assert_eq!(
            updates(&format!("synthetic:{shape}&seed=1")),
            updates(&format!("synthetic:{shape}&seed=1"))
        );
        assert_ne!(
            updates(&format!("synthetic:{shape}&seed=1")),
            updates(&format!("synthetic:{shape}&seed=2"))
        );
    }
}

#[test]
fn a_stock_at_the_edge_of_its_band_still_trades_within_it() {
    let (mut out, mut rng) = (Vec::new(), fastrand::Rng::with_seed(4));
    for edge in [Side::Buy, Side::Sell] {
        let symbols = Symbols::new(100);
        drop(source("synthetic:vn30?", &symbols));
        let mut board = Board::new(&symbols, "edge");
        // SHB has the fewest rungs in its band.
        let profile = &members::MEMBERS[15];
        let mut member = member::Member::new(board.members[15], profile);
        let (time, symbol) = (START, member.symbol);
        member.open_day(crate::calendar::Date::from_days(0), &mut tape::Tape { out: &mut out, time, symbol });
        member.fair = f64::from(if edge == Side::Buy { member.band.ceiling } else { member.band.floor });
        flow::seed_book(&mut member, &mut rng, &mut tape::Tape { out: &mut out, time, symbol });
        let mut one_sided = 0;
        for step in 0..20_000 {
            flow::order(
                &mut member,
                &mut rng,
                step % 9 == 0,
                &mut tape::Tape { out: &mut out, time, symbol },
            );
            assert!(!out.is_empty(), "order {step} showed nothing");
            board.take(&out);
            out.clear();
            let other = if edge == Side::Buy { Side::Sell } else { Side::Buy };
            one_sided += u32::from(member.book.levels(other).is_empty());
        }
        assert!(
            one_sided > 0 && board.trades > 1_000,
            "{edge:?}: {one_sided} times, {} trades",
            board.trades
        );
    }
}

#[test]
fn the_index_starts_at_about_1970_and_the_group_is_the_index_with_its_members() {
    let symbols = Symbols::new(100);
    let (mut source, mut out) = (source("synthetic:vn30", &symbols), Vec::new());
    source.next(START, &mut out);
    let mut board = Board::new(&symbols, "start");
    board.take(&out);
    let last = board.rows[board.index.index()].value(crate::market::index::LAST).expect("an index");
    assert!(last > 1_969.into() && last < 1_971.into(), "{last}");
    let group = symbols.group("VN30").expect("a group");
    assert_eq!((group.len(), symbols.len()), (31, 31));
    assert!(group.contains(&board.index) && board.members.iter().all(|member| group.contains(member)));
    // Saturday 2025-11-22 in Vietnam: the first simulated day is the Monday after.
    let date = board.rows[board.members[0].index()].value(crate::market::quote::TRADING_DATE);
    assert_eq!(date, Some(20_251_124.into()));
    assert!(source.simulated() && !source.pulled());
}

#[test]
fn load_spreads_by_zipf_and_gives_every_symbol_its_own_row() {
    let symbols = Symbols::new(2_000);
    let (mut source, mut out) = (source("synthetic:load?rate=0&symbols=100&zipf=1", &symbols), Vec::new());
    assert!(source.pulled());
    while out.len() < 200_000 {
        assert_eq!(source.next(START, &mut out), Next::Now);
    }
    let mut counts = [0_u32; 100];
    for update in &out {
        assert!(matches!(update.body, Body::Image { .. }));
        counts[update.symbol.index()] += 1;
    }
    assert!((1.8..2.2).contains(&(f64::from(counts[0]) / f64::from(counts[1]))), "{counts:?}");
    assert!(counts.iter().all(|&count| count > 100));
    assert_eq!(symbols.find("L000").map(crate::market::Symbol::index), Some(0));
    assert_eq!(symbols.group("LOAD").map(|group| group.len()), Some(100));
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let wrong = |text: &str| {
        let spec = Spec::parse(text).expect(text);
        Synthetic::from_spec(&spec, &Symbols::new(10), FeedId(0)).expect_err(text)
    };
    for (text, expected) in [
        ("synthetic:vn30?rate=3", r#"option rate="3" of synthetic: expected a number from 10 to 10000000"#),
        ("synthetic:vn30?day=5", "expected 0 (never ends) or a number of seconds from 60 to 86400"),
        ("synthetic:vn30?sed=5", r#"did you mean "seed""#),
        ("synthetic:load?zipf=NaN", "expected a number from 0 to 4"),
        ("synthetic:load?symbols=0", "expected a number from 1 to 1000000"),
        ("synthetic:load?row_bytes=1000", "expected a number from 1 to 160"),
        ("synthetic:load?day=1", "unknown option"),
        ("synthetic:hnx", "synthetic:hnx: expected synthetic:vn30 or synthetic:load"),
        // The table of this test has room for ten.
        ("synthetic:vn30", "was refused: the table of symbols is full"),
        ("synthetic:load?symbols=11", "symbol L10 was refused: the table of symbols is full"),
    ] {
        let error = wrong(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
}
