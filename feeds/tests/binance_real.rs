//! The Binance decoder on real recordings, held against figures that were computed without it.

mod real;

use std::fmt::Write;
use std::sync::Arc;

use rust_decimal::Decimal;
use sha2::{Digest, Sha256};
use tickgate_feeds::binance::{Binance, Market};
use tickgate_feeds::book::Book;
use tickgate_feeds::feed::{Feed, Skipped, Want};
use tickgate_feeds::market::{Body, FeedId, Side, Symbol, Time, Update, quote};
use tickgate_feeds::symbols::Symbols;

const SPOT_8: &str = "binance-spot/btcusdt_20240808.ndjson.gz";
const SPOT_9: &str = "binance-spot/btcusdt_20240809.ndjson.gz";
const USDM: &str = "binance-usdm/btcusdt_20240808.ndjson.gz";

fn number(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}

/// A decoder and everything that can be counted of what it says.
struct Run {
    feed: Binance,
    symbols: Arc<Symbols>,
    book: Book,
    /// Messages that changed the book, without the snapshot.
    depth_applied: u64,
    resets: u64,
    crossed: u64,
    trades: u64,
    sells: u64,
    volume: Decimal,
    notional: Decimal,
    last_trade: u64,
    ticker: [Decimal; 4],
    wants: Vec<Want>,
    out: Vec<Update>,
}

impl Run {
    fn new(market: Market) -> Self {
        let symbols = Arc::new(Symbols::new(10));
        Self {
            feed: Binance::new(market, Arc::clone(&symbols), FeedId(0), ""),
            symbols,
            // Wide enough that nothing is cut: the recorded futures book has more than 5,000 bids.
            book: Book::new(10_000),
            depth_applied: 0,
            resets: 0,
            crossed: 0,
            trades: 0,
            sells: 0,
            volume: Decimal::ZERO,
            notional: Decimal::ZERO,
            last_trade: 0,
            ticker: [Decimal::ZERO; 4],
            wants: Vec::new(),
            out: Vec::new(),
        }
    }

    fn line(&mut self, at: i64, raw: &[u8]) {
        self.out.clear();
        let mut raw = raw.to_vec();
        self.feed.decode(&mut raw, Time(at), &mut self.out).expect("a good message");
        while let Some(want) = self.feed.wants() {
            self.wants.push(want);
        }
        let (mut levels, mut reset) = (0, false);
        for update in &self.out {
            assert_eq!(update.symbol, Symbol::at(0));
            match update.body {
                Body::Level(level) => {
                    levels += 1;
                    reset |= level.reset;
                    self.book.apply(&level);
                }
                Body::Trade(trade) => {
                    self.trades += 1;
                    self.sells += u64::from(trade.side == Some(Side::Sell));
                    self.volume += trade.size;
                    self.notional += trade.price * trade.size;
                    self.last_trade = trade.trade_id;
                }
                Body::Image { numbers, values, .. } if numbers[0] == quote::BID => self.ticker = values,
                Body::Image { numbers, values, len, nulls, .. } => {
                    assert_eq!((numbers[0], numbers[1], len, nulls), (quote::LAST, quote::LAST_SIZE, 2, 0));
                    assert!(values[0] > Decimal::ZERO);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        self.resets += u64::from(reset);
        self.depth_applied += u64::from(levels > 0 && !reset);
        if let (Some(bid), Some(ask)) = (self.book.best(Side::Buy), self.book.best(Side::Sell)) {
            self.crossed += u64::from(levels > 0 && bid.0 >= ask.0);
        }
    }

    fn best(&self) -> [Decimal; 4] {
        let (bid, ask) =
            (self.book.best(Side::Buy).expect("a bid"), self.book.best(Side::Sell).expect("an ask"));
        [bid.0, bid.1, ask.0, ask.1]
    }

    fn levels(&self) -> (usize, usize) {
        (self.book.len(Side::Buy), self.book.len(Side::Sell))
    }

    fn sha256(&self) -> String {
        let mut text = String::new();
        for (mark, side) in [('b', Side::Buy), ('a', Side::Sell)] {
            for (price, size) in self.book.levels(side) {
                writeln!(text, "{mark} {price} {size}").expect("memory");
            }
        }
        Sha256::digest(text).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }
}

#[test]
fn spot_trades_tickers_and_book_are_those_of_the_recording() {
    let (Some(first), Some(second)) = (real::lines(SPOT_8), real::lines(SPOT_9)) else { return };
    let mut run = Run::new(Market::Spot);
    for (at, raw) in &first {
        run.line(*at, raw);
    }
    assert_eq!(first.len(), 41_249);
    assert_eq!(run.symbols.listings_from(0).iter().map(|l| &*l.name).collect::<Vec<_>>(), ["BTCUSDT"]);
    assert_eq!((run.trades, run.sells, run.last_trade), (9_757, 5_654, 3_735_693_015));
    assert_eq!((run.volume, run.notional), (number("212.03315"), number("13084074.1123886")));
    assert_eq!(run.ticker, ["61685.99", "1.25869", "61686", "2.44807"].map(number));
    assert_eq!(run.best(), ["61685.99", "1.0087", "61686", "2.29327"].map(number));
    // Of 3,451 events two are older than the picture and one is applied along with it.
    assert_eq!((run.depth_applied + 1, run.resets, run.crossed), (3_449, 1, 0));
    assert_eq!(run.levels(), (1_209, 2_196));
    assert_eq!(run.sha256(), "7145c0b7167706651f18386a9ae136f6e958ec3556ff3c5896c3539b5b4a30ce");
    assert_eq!(run.wants, [Want::BookSnapshot("BTCUSDT".to_owned())]);
    assert_eq!(run.feed.skipped(), Skipped { old: 2, ..Skipped::default() });

    (run.trades, run.sells, run.volume, run.notional) = (0, 0, Decimal::ZERO, Decimal::ZERO);
    for (at, raw) in &second {
        run.line(*at, raw);
    }
    assert_eq!((run.trades, run.sells, run.last_trade), (10_147, 5_157, 3_735_703_162));
    assert_eq!((run.volume, run.notional), (number("225.88237"), number("13922855.4786462")));
    assert_eq!((run.depth_applied + 1, run.resets, run.crossed), (6_493, 1, 0));
    assert_eq!(run.levels(), (1_971, 2_962));
    assert_eq!(run.best(), ["61602.01", "1.67177", "61602.02", "2.66795"].map(number));
    assert_eq!(run.ticker, run.best());
    assert_eq!(run.sha256(), "1c49adbccd208ab0c5a7b5e8051c23834b6b6292fd5861e951ff00d97a25cd5f");
    assert_eq!(run.feed.skipped(), Skipped { old: 2, ..Skipped::default() });
}

#[test]
fn usdm_trades_tickers_and_book_are_those_of_the_recording() {
    let Some(lines) = real::lines(USDM) else { return };
    let mut run = Run::new(Market::UsdM);
    for (at, raw) in &lines {
        run.line(*at, raw);
    }
    assert_eq!((lines.len(), run.trades, run.last_trade), (93_954, 21_313, 5_266_605_247));
    assert_eq!((run.volume, run.notional), (number("2429.366"), number("149845680.8898")));
    // Of 6,551 events four are older than the picture and two are applied along with it.
    assert_eq!((run.depth_applied + 2, run.resets, run.crossed), (6_547, 1, 0));
    assert_eq!(run.levels(), (5_018, 4_578));
    assert_eq!(run.best(), ["61659.7", "1.486", "61659.8", "0.981"].map(number));
    assert_eq!(run.ticker, run.best());
    assert_eq!(run.sha256(), "aeb7d1bc894a381b1cdd057b87d474a5199f08c6429ab54cfe542c4434d0fb05");
    assert_eq!(run.feed.skipped(), Skipped { old: 4, ..Skipped::default() });
}

/// The number after `"key":`, for looking into a raw message without the decoder.
fn field(raw: &[u8], key: &str) -> u64 {
    let text = std::str::from_utf8(raw).expect("text");
    let digits = text.split(&format!("\"{key}\":")).nth(1).expect("the key");
    digits.split(|c: char| !c.is_ascii_digit()).next().expect("digits").parse().expect("a number")
}

#[test]
fn after_every_change_the_book_agrees_with_the_newest_ticker_before_it() {
    let Some(lines) = real::lines(SPOT_8) else { return };
    let mut run = Run::new(Market::Spot);
    let mut tickers: Vec<(u64, [Decimal; 4])> = Vec::new();
    let (mut compared, mut compared_ticker) = (0, None);
    for (at, raw) in &lines {
        run.line(*at, raw);
        let text = std::str::from_utf8(raw).expect("text");
        if text.contains("@bookTicker") {
            tickers.push((field(raw, "u"), run.ticker));
        } else if text.contains("depthUpdate") && run.resets > 0 {
            let last = field(raw, "u");
            let newest = tickers.iter().rev().find(|(u, _)| *u <= last).expect("a ticker").to_owned();
            assert_eq!(run.best(), newest.1, "after the change numbered {last}");
            // Events that leave the top alone have no ticker of their own and are not counted again.
            compared += u64::from(compared_ticker.replace(newest.0) != Some(newest.0));
        }
    }
    assert_eq!(compared, 2_893);
}

#[test]
fn a_lost_change_is_noticed_and_a_new_picture_mends_it() {
    let Some(lines) = real::lines(SPOT_8) else { return };
    let (mut whole, mut run) = (Run::new(Market::Spot), Run::new(Market::Spot));
    let mut events = 0;
    for (at, raw) in &lines {
        whole.line(*at, raw);
        let depth = std::str::from_utf8(raw).expect("text").contains("depthUpdate");
        events += u64::from(depth);
        if depth && events == 1_000 {
            continue;
        }
        run.line(*at, raw);
        if depth && events == 1_010 {
            assert_eq!(
                (run.feed.skipped().gaps, run.feed.skipped().waiting, run.depth_applied),
                (1, 10, 996)
            );
            assert_eq!(run.wants.len(), 2);
            let mut picture = format!("{{\"lastUpdateId\":{}", field(raw, "u"));
            for (key, side) in [("bids", Side::Buy), ("asks", Side::Sell)] {
                let rows: Vec<_> =
                    whole.book.levels(side).map(|(p, s)| format!("[\"{p}\",\"{s}\"]")).collect();
                write!(picture, ",\"{key}\":[{}]", rows.join(",")).expect("memory");
            }
            run.line(*at, (picture + "}").as_bytes());
            assert_eq!((run.sha256(), run.resets), (whole.sha256(), 2));
        }
    }
    assert_eq!(run.sha256(), "7145c0b7167706651f18386a9ae136f6e958ec3556ff3c5896c3539b5b4a30ce");
    assert_eq!((run.feed.skipped().gaps, run.feed.skipped().waiting, run.wants.len()), (1, 0, 2));
}

#[test]
fn the_quick_way_and_the_general_way_agree_on_hurt_recordings() {
    for (name, market) in [(SPOT_8, Market::Spot), (USDM, Market::UsdM)] {
        let Some(lines) = real::lines(name) else { return };
        let (mut quick, mut general) = (Run::new(market), Run::new(market));
        let mut rng = fastrand::Rng::with_seed(8);
        let (mut good, mut bad) = (0, 0);
        for (at, raw) in lines.iter().take(30_000) {
            let mut raw = raw.clone();
            if rng.u8(..4) == 0 {
                let (one, two) = (rng.usize(..raw.len()), rng.usize(..raw.len()));
                raw[one] = if rng.bool() { raw[two] } else { rng.u8(b' '..=b'~') };
            }
            // A blank at the end is the same message, and nothing that the quick way expects.
            let mut blank = [raw.as_slice(), b" "].concat();
            quick.out.clear();
            general.out.clear();
            let shown = String::from_utf8_lossy(&raw).into_owned();
            let took = quick.feed.decode(&mut raw, Time(*at), &mut quick.out);
            let other = general.feed.decode(&mut blank, Time(*at), &mut general.out);
            assert_eq!(took.is_ok(), other.is_ok(), "{took:?} {other:?} {shown}");
            assert_eq!((&quick.out, quick.feed.skipped()), (&general.out, general.feed.skipped()), "{shown}");
            assert_eq!(quick.feed.wants(), general.feed.wants(), "{shown}");
            if took.is_ok() { good += 1 } else { bad += 1 }
        }
        assert!(good > 20_000 && bad > 1_000, "{good} good, {bad} bad");
    }
}

/// The messages of a recording of cryptofeed: `<seconds>: <json>` among lines of its own.
fn received(name: &str) -> Option<Vec<Vec<u8>>> {
    let text = real::text(name)?;
    let json = |line: &str| {
        line.split_once(": ").filter(|(at, _)| at.parse::<f64>().is_ok()).map(|(_, json)| json.into())
    };
    Some(text.lines().filter_map(json).collect())
}

#[test]
fn four_spot_books_are_fetched_by_name() {
    let Some(lines) = received("cryptofeed/BINANCE.ws.1.0.gz") else { return };
    let Some(pictures) = real::text("cryptofeed/BINANCE.http.0.0.gz") else { return };
    let symbols = Arc::new(Symbols::new(10));
    let mut feed = Binance::new(Market::Spot, Arc::clone(&symbols), FeedId(0), "");
    let (mut books, mut out, mut fetched) = (vec![Book::default(); 4], Vec::new(), 0);
    for mut raw in lines.clone() {
        feed.decode(&mut raw, Time(0), &mut out).expect("a good message");
        while let Some(Want::BookSnapshot(name)) = feed.wants() {
            let url = format!("symbol={name}&");
            let picture =
                pictures.lines().find(|line| line.contains(&url)).expect("a picture of each symbol");
            let (_, json) = picture.split_once('{').expect("json");
            let mut json = format!("{{{json}").into_bytes();
            feed.snapshot(&name, &mut json, Time(0), &mut out).expect("a good picture");
            fetched += 1;
        }
        for update in out.drain(..) {
            if let Body::Level(level) = update.body {
                books[update.symbol.index()].apply(&level);
            }
        }
    }
    assert_eq!((lines.len(), fetched, symbols.len()), (265, 4, 4));
    let skipped = feed.skipped();
    assert_eq!(
        (skipped.gaps, skipped.waiting, skipped.refused, skipped.unknown),
        (0, 0, 0, 0),
        "every message is understood, the 2 candles too"
    );
    for (index, book) in books.iter().enumerate() {
        let (Some(bid), Some(ask)) = (book.best(Side::Buy), book.best(Side::Sell)) else {
            panic!("book {index}")
        };
        assert!(bid.0 < ask.0 && book.len(Side::Buy) > 100 && book.len(Side::Sell) > 100, "book {index}");
    }
}

#[test]
fn four_usdm_symbols_have_aggregates_and_candles_too() {
    let Some(lines) = received("cryptofeed/BINANCE_FUTURES.ws.1.0.gz") else { return };
    let symbols = Arc::new(Symbols::new(10));
    let mut feed = Binance::new(Market::UsdM, Arc::clone(&symbols), FeedId(0), "");
    let (mut trades, mut tickers, mut bars, mut out) = (0, 0, 0, Vec::new());
    for mut raw in lines.clone() {
        feed.decode(&mut raw, Time(0), &mut out).expect("a good message");
        for update in out.drain(..) {
            match update.body {
                Body::Trade(_) => trades += 1,
                Body::Bar(_) => bars += 1,
                Body::Image { len: 4, .. } => tickers += 1,
                Body::Image { len: 2, .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert_eq!((lines.len(), trades, tickers, bars, symbols.len()), (1_535, 91, 613, 67, 4));
    let skipped = feed.skipped();
    assert_eq!((skipped.unknown, skipped.gaps, skipped.old), (0, 0, 0));
    assert_eq!(skipped.waiting, 764, "no pictures were recorded: all changes are held back");
}
