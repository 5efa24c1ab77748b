//! Messages of recorded shape, one rule each; what whole recordings say is in `tests/binance_real.rs`.

use super::*;
use crate::market::{Side, State, Symbol};

const TRADE: &str = r#"{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}"#;
const AGGREGATE: &str = r#"{"e":"aggTrade","E":1672515782136,"s":"BTCUSDT","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782136,"m":false,"M":true}"#;
const TICKER: &str = r#"{"u":50093239212,"s":"BTCUSDT","b":"61837.63000000","B":"3.78826000","a":"61837.64000000","A":"1.54698000"}"#;
const DAY: &str = r#"{"e":"24hrMiniTicker","E":1672515782136,"s":"BNBBTC","c":"0.0025","o":"0.0010","h":"0.0026","l":"0.0009","v":"10000","q":"18.50"}"#;
const ARRIVAL: Time = Time(7);

struct Case {
    feed: Binance,
    symbols: Arc<Symbols>,
}

fn case(market: Market) -> Case {
    let symbols = Arc::new(Symbols::new(3));
    Case { feed: Binance::new(market, Arc::clone(&symbols), FeedId(1), ""), symbols }
}

impl Case {
    fn try_say(&mut self, text: &str) -> Result<Vec<Update>, String> {
        let mut out = vec![Update::new(Symbol::at(9), ARRIVAL, Body::State(State::Halted))];
        let done = self.feed.decode(&mut text.as_bytes().to_vec(), ARRIVAL, &mut out);
        assert_eq!(out[0].symbol, Symbol::at(9), "what was there before stays");
        out.remove(0);
        match done {
            Ok(()) => Ok(out),
            Err(error) => {
                assert!(out.is_empty(), "an error appends nothing");
                Err(error.to_string())
            }
        }
    }

    fn say(&mut self, text: &str) -> Vec<Update> {
        self.try_say(text).expect(text)
    }

    fn wrong(&mut self, text: &str) -> String {
        self.try_say(text).expect_err(text)
    }

    fn wants(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.feed.wants()).map(|Want::BookSnapshot(name)| name).collect()
    }
}

fn number(text: &str) -> Decimal {
    crate::decimal::exact(text).expect("a decimal")
}

fn image_of(update: &Update) -> Vec<(u8, String)> {
    let Body::Image { channel: Channel::Quote, len, nulls: 0, numbers, values } = update.body else {
        panic!("{update:?} is no image of a quote")
    };
    (0..usize::from(len)).map(|at| (numbers[at], values[at].to_string())).collect()
}

fn levels_of(updates: &[Update]) -> Vec<String> {
    let shown = |update: &Update| match update.body {
        Body::Level(Level { price, size, side, reset }) => {
            let (side, reset) = (if side == Side::Buy { "b" } else { "a" }, if reset { "!" } else { "" });
            format!("{reset}{side}{price}x{size}@{}", update.time.0 / 1_000_000)
        }
        _ => panic!("{update:?} is no level"),
    };
    updates.iter().map(shown).collect()
}

#[test]
fn a_trade_is_an_event_and_the_last_price() {
    let mut case = case(Market::Spot);
    let out = case.say(&format!(r#"{{"stream":"btcusdt@trade","data":{TRADE}}}"#));
    let [event, last] = out.as_slice() else { panic!("{out:?}") };
    let Body::Trade(trade) = event.body else { panic!("{event:?}") };
    assert_eq!((trade.price, trade.size), (number("61837.63"), number("0.02")));
    assert_eq!((trade.trade_id, trade.side, trade.kind), (3_735_683_259, Some(Side::Sell), TradeKind::New));
    assert_eq!(event.time, Time::from_ms(1_723_161_255_342));
    assert_eq!(image_of(last), [(quote::LAST, "61837.63".to_owned()), (quote::LAST_SIZE, "0.02".to_owned())]);
    assert_eq!(case.symbols.find("BTCUSDT"), Some(event.symbol));
    assert_eq!(case.say(TRADE), [], "the same number again");
    assert_eq!(case.feed.skipped(), Skipped { old: 1, ..Skipped::default() });
}

#[test]
fn missing_trade_numbers_are_lost_trades() {
    let mut case = case(Market::Spot);
    case.say(TRADE);
    let out = case.say(&TRADE.replace("3735683259", "3735683263"));
    assert_eq!((out.len(), out[0].body), (3, Body::missing(Channel::Trade, 3)));
}

#[test]
fn aggregates_count_until_single_trades_are_seen() {
    let mut case = case(Market::UsdM);
    let out = case.say(AGGREGATE);
    let Body::Trade(trade) = out[0].body else { panic!("{out:?}") };
    assert_eq!((trade.trade_id, trade.side), (12_345, Some(Side::Buy)));
    assert_eq!(case.say(TRADE).len(), 2, "numbered apart: nothing is lost or old");
    assert_eq!(case.say(&AGGREGATE.replace("12345", "12346")), []);
    assert_eq!(case.feed.skipped().old, 1);
}

#[test]
fn the_spot_ticker_has_neither_type_nor_time() {
    let mut case = case(Market::Spot);
    let shown = [
        (quote::BID, "61837.63"),
        (quote::BID_SIZE, "3.78826"),
        (quote::ASK, "61837.64"),
        (quote::ASK_SIZE, "1.54698"),
    ];
    let out = case.say(TICKER);
    assert_eq!((out.len(), out[0].time), (1, ARRIVAL));
    assert_eq!(image_of(&out[0]), shown.map(|(number, text)| (number, text.to_owned())));
    assert_eq!(case.say(&TICKER.replace("239212", "239211")), [], "older");
    assert_eq!(case.say(&format!(r#"{{"stream":"btcusdt@bookTicker","data":{TICKER}}}"#)), [], "the same");
    assert_eq!(case.feed.skipped().old, 2);
    let timed =
        TICKER.replace(r#"{"u":50093239212"#, r#"{"e":"bookTicker","T":1723161256313,"E":2,"u":60093239212"#);
    assert_eq!(case.say(&timed)[0].time, Time::from_ms(1_723_161_256_313));
}

#[test]
fn the_day_does_not_set_back_the_last_price() {
    let mut case = case(Market::Spot);
    let out = case.say(DAY);
    assert_eq!(out.len(), 2);
    let totals = [(quote::VOLUME, "10000"), (quote::TURNOVER, "18.5"), (quote::LAST, "0.0025")];
    let prices = [(quote::OPEN, "0.001"), (quote::HIGH, "0.0026"), (quote::LOW, "0.0009")];
    assert_eq!(image_of(&out[0]), prices.map(|(number, text)| (number, text.to_owned())));
    assert_eq!(image_of(&out[1]), totals.map(|(number, text)| (number, text.to_owned())));
    case.say(&TRADE.replace("BTCUSDT", "BNBBTC"));
    assert_eq!(image_of(&case.say(DAY)[1]).len(), 2);
}

#[test]
fn microseconds_are_understood() {
    let mut case = case(Market::Spot);
    let out = case.say(&TRADE.replace("1723161255342", "1723161255342123"));
    assert_eq!(out[0].time, Time(1_723_161_255_342_123_000));
}

#[test]
fn names_take_the_prefix_and_the_table_may_refuse_them() {
    let symbols = Arc::new(Symbols::new(1));
    let feed = Binance::new(Market::Spot, Arc::clone(&symbols), FeedId(1), "bn.");
    let mut case = Case { feed, symbols };
    assert_eq!(case.say(TRADE).len(), 2);
    assert!(case.symbols.find("bn.BTCUSDT").is_some());
    for _ in 0..2 {
        assert_eq!(case.say(DAY), []);
        assert_eq!(case.say(&TRADE.replace("BTCUSDT", "not a name")), []);
    }
    assert_eq!(case.feed.skipped().refused, 2, "each name once");
}

#[test]
fn a_kline_is_a_bar() {
    const KLINE: &str = r#"{"e":"kline","E":1672515782136,"s":"BNBBTC","k":{"t":1672515780000,"T":1672515839999,"s":"BNBBTC","i":"1m","o":"0.0010","c":"0.0020","h":"0.0025","l":"0.0015","v":"1000","n":100,"x":true}}"#;
    let updates = case(Market::Spot).say(KLINE);
    let [Update { body: Body::Bar(bar), .. }] = updates[..] else { panic!("one bar: {updates:?}") };
    assert_eq!(bar.prices().map(|price| price.to_string()), ["0.0010", "0.0025", "0.0015", "0.0020"]);
    assert_eq!((bar.start, bar.trades, bar.is_final), (Time::from_ms(1_672_515_780_000), 100, true));
}

#[test]
fn answers_and_unknown_kinds_are_counted() {
    let mut case = case(Market::Spot);
    let unknown = [
        r#"{"result":null,"id":1}"#,
        r#"{"result":["btcusdt@trade"],"id":3}"#,
        r#"{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}"#,
        r#"{"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1,"s":"BTCUSDT","k":{"t":1,"i":"3d","a":[{}]}}}"#,
        r#"{"stream":"btcusdt@depth5","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#,
        r#"{"stream":"!miniTicker@arr","data":[{"e":"24hrMiniTicker"}]}"#,
        "{}",
    ];
    for text in unknown {
        assert_eq!(case.say(text), [], "{text}");
    }
    assert_eq!(case.feed.skipped(), Skipped { unknown: unknown.len() as u64, ..Skipped::default() });
    assert!(case.symbols.is_empty());
    let refused = case.wrong(r#"{"code":2,"msg":"Invalid request: missing field `method`"}"#);
    assert_eq!(refused, "binance refused a request: Invalid request: missing field `method`");
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let mut case = case(Market::UsdM);
    let depth = depth(5, 6, Some(4), r#"["1","2"]"#);
    for (text, named) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("{\"e\":\"trade\"", "no JSON"),
        ("\u{0}", "no JSON"),
        ("[1]", "expected a JSON object"),
        ("7", "expected a JSON object"),
        (
            &TRADE.replace("\"61837.63000000\"", "61837.63"),
            "trade: \"p\" is 61837.63; expected a decimal in a string",
        ),
        (&TRADE.replace("0.02000000", "-1"), "trade: \"q\" is \"-1\"; expected a decimal"),
        (&TRADE.replace("true,\"M\"", "1,\"M\""), "trade: \"m\" is 1; expected true or false"),
        (&TRADE.replace("3735683259", "-3"), "trade: \"t\" is -3; expected a whole number"),
        (
            &TRADE.replace("1723161255342", "18446744073709551615"),
            "\"T\" is 18446744073709551615; expected milli",
        ),
        (&TICKER.replace("\"A\"", "\"AA\""), "bookTicker: \"A\" is missing"),
        (
            &TICKER.replace("\"s\":\"BTCUSDT\"", "\"s\":{}"),
            "bookTicker: \"s\" is an object; expected a string",
        ),
        (&DAY.replace("0.0025", "1e5"), "24hrMiniTicker: \"c\" is \"1e5\""),
        (&depth.replace("\"pu\":4,", ""), "depthUpdate: \"pu\" is missing"),
        (
            &depth.replace("\"2\"", "2"),
            "depthUpdate: \"b\" is an array; expected an array of [\"price\",\"size\"]",
        ),
        (&depth.replace("\"2\"", "\"x\""), "level [\"1\",\"x\"] in \"b\": expected a decimal"),
        (&depth.replace("[\"1\",\"2\"]", "[\"1\",[\"2\"]]"), "expected an array of [\"price\",\"size\"]"),
        (&depth.replace("[\"1\",\"2\"]", "[\"1\"],\"2\",\"3\""), "expected an array of [\"price\",\"size\"]"),
        (&depth.replace("\"u\":6", "\"u\":3"), "last number 3 is below its first 5"),
        (r#"{"lastUpdateId":1,"bids":[],"asks":[]}"#, "names no symbol, and of 0 symbols 0 wait for one"),
    ] {
        let error = case.wrong(text);
        assert!(error.starts_with("binance ") && error.contains(named), "{error} should say: {named}");
    }
    assert!(case.symbols.is_empty() && case.wants().is_empty());
    assert_eq!(case.feed.skipped(), Skipped::default());
    assert_eq!(case.say(&depth), [], "the next message is welcome");
    assert_eq!(case.wants(), ["BTCUSDT"]);
}

fn depth(first: u64, last: u64, previous: Option<u64>, bids: &str) -> String {
    let pu = previous.map(|pu| format!("\"pu\":{pu},")).unwrap_or_default();
    format!(
        r#"{{"e":"depthUpdate","E":{last},"s":"BTCUSDT","U":{first},"u":{last},{pu}"b":[{bids}],"a":[["9","{last}"]]}}"#
    )
}

fn picture(last: u64) -> String {
    format!(r#"{{"lastUpdateId":{last},"bids":[["5","1"],["4","1"]],"asks":[["6.0","1"]]}}"#)
}

#[test]
fn a_spot_book_waits_for_its_picture_and_joins_it() {
    let mut case = case(Market::Spot);
    for (first, last) in [(1, 2), (3, 5), (6, 8)] {
        assert_eq!(case.say(&depth(first, last, None, "")), []);
    }
    assert_eq!((case.wants(), case.feed.skipped().waiting), (vec!["BTCUSDT".to_owned()], 3));
    let out = case.say(&picture(4));
    assert_eq!(levels_of(&out), ["!b5x1@0", "b4x1@0", "a6x1@0", "a9x5@5", "a9x8@8"]);
    assert_eq!(case.feed.skipped(), Skipped { old: 1, ..Skipped::default() });
    assert_eq!(levels_of(&case.say(&depth(9, 9, None, r#"["5.00","0.000"]"#))), ["b5x0@9", "a9x9@9"]);
    assert_eq!(case.say(&depth(9, 9, None, "")), [], "an event twice");
    assert_eq!(case.say(&picture(9)), [], "a picture of what is known");
    assert_eq!((case.feed.skipped().old, case.wants().len()), (3, 0));
}

#[test]
fn a_gap_stops_the_levels_until_a_new_picture() {
    let mut case = case(Market::Spot);
    case.say(&depth(1, 2, None, ""));
    assert_eq!(case.wants().len(), 1);
    case.say(&picture(2));
    assert_eq!(levels_of(&case.say(&depth(3, 3, None, ""))), ["a9x3@3"]);
    assert_eq!(case.say(&depth(5, 6, None, "")), []);
    assert_eq!(case.say(&depth(7, 7, None, "")), []);
    assert_eq!((case.feed.skipped().gaps, case.wants()), (1, vec!["BTCUSDT".to_owned()]));
    assert_eq!(case.wants().len(), 0, "each want is said once");
    assert_eq!(case.say(&picture(3)), [], "too old: change 4 is missing");
    assert_eq!(case.wants(), ["BTCUSDT"], "so it is asked for again");
    let out = case.say(&picture(4));
    assert_eq!(levels_of(&out), ["!b5x1@0", "b4x1@0", "a6x1@0", "a9x6@6", "a9x7@7"]);
    assert_eq!(case.feed.skipped(), Skipped { gaps: 1, old: 2, ..Skipped::default() });
}

#[test]
fn a_break_among_what_is_held_drops_what_is_before_it() {
    let mut case = case(Market::Spot);
    case.say(&depth(1, 2, None, ""));
    case.say(&depth(8, 9, None, ""));
    assert_eq!(case.feed.skipped(), Skipped { gaps: 1, old: 1, waiting: 1, ..Skipped::default() });
    assert_eq!(case.say(&picture(2)), []);
    assert_eq!(levels_of(&case.say(&picture(9))).len(), 3);
    assert_eq!(levels_of(&case.say(&depth(10, 12, None, ""))), ["a9x12@12"]);
}

#[test]
fn a_usdm_book_follows_the_previous_number() {
    let mut case = case(Market::UsdM);
    for (first, last, previous) in [(10, 12, 3), (20, 25, 12), (31, 33, 25)] {
        assert_eq!(case.say(&depth(first, last, Some(previous), "")), []);
    }
    // 12 < L = 20 <= 25: the second event is the first that counts.
    assert_eq!(levels_of(&case.say(&picture(20)))[3..], ["a9x25@25", "a9x33@33"]);
    assert_eq!(levels_of(&case.say(&depth(70, 71, Some(33), ""))), ["a9x71@71"], "U may leap");
    assert_eq!(case.say(&depth(72, 73, Some(70), "")), []);
    assert_eq!((case.feed.skipped().gaps, case.wants().len()), (1, 1));
}

#[test]
fn a_picture_between_two_usdm_events_fits() {
    let mut case = case(Market::UsdM);
    case.say(&depth(10, 12, Some(3), ""));
    assert_eq!(levels_of(&case.say(&picture(15))).len(), 3);
    assert_eq!(levels_of(&case.say(&depth(20, 25, Some(12), ""))), ["a9x25@25"]);
}

#[test]
fn a_picture_without_a_name_needs_exactly_one_that_waits() {
    let mut case = case(Market::Spot);
    let other = |text: String| text.replace("BTCUSDT", "ETHUSDT");
    case.say(&depth(1, 2, None, ""));
    case.say(&other(depth(1, 2, None, "")));
    assert_eq!(case.wants(), ["BTCUSDT", "ETHUSDT"]);
    assert!(case.wrong(&picture(2)).contains("of 2 symbols 2 wait for one"));
    let mut out = Vec::new();
    case.feed.snapshot("ETHUSDT", &mut picture(2).into_bytes(), ARRIVAL, &mut out).expect("a picture");
    assert_eq!((out.len(), Some(out[0].symbol)), (3, case.symbols.find("ETHUSDT")));
    let out = case.say(&picture(2));
    assert_eq!((out.len(), Some(out[0].symbol)), (3, case.symbols.find("BTCUSDT")));
    let mut no_picture = TRADE.as_bytes().to_vec();
    let error =
        case.feed.snapshot("BTCUSDT", &mut no_picture, ARRIVAL, &mut Vec::new()).expect_err("a trade");
    assert!(error.0.contains("depth snapshot of BTCUSDT: expected an object with lastUpdateId"), "{error}");
}

#[test]
fn an_empty_picture_empties_the_book() {
    let mut case = case(Market::Spot);
    case.say(&depth(1, 2, None, ""));
    let out = case.say(r#"{"lastUpdateId":2,"bids":[],"asks":[]}"#);
    assert_eq!(levels_of(&out), ["!b0x0@0"]);
}

#[test]
fn what_is_held_back_is_bounded() {
    let mut case = case(Market::Spot);
    let many = vec![r#"["1","1"]"#; 20].join(",");
    let events = sync::EVENTS_HELD_MAX as u64 + 10;
    for number in 1..=events {
        case.say(&depth(number, number, None, &many));
    }
    let held = case.feed.skipped().waiting;
    assert_eq!(held, (sync::LEVELS_HELD_MAX / 21) as u64);
    assert_eq!(case.say(&picture(3)), [], "it would need what is gone");
    let out = case.say(&picture(events - held + 1));
    assert_eq!(out.len() as u64, 3 + (held - 1) * 21);
    for number in 1..=events {
        case.say(&depth(events + 10 + number, events + 10 + number, None, ""));
    }
    assert_eq!(case.feed.skipped().waiting, sync::EVENTS_HELD_MAX as u64);
}

#[test]
fn nothing_grows_once_warm() {
    let mut case = case(Market::Spot);
    let mut out = Vec::with_capacity(64);
    let mut sizes = Vec::new();
    for number in 1..2_000u64 {
        // A blank at the end sends every second trade the general way.
        let blank = if number % 2 == 0 { " " } else { "" };
        let trade = TRADE.replace("3735683259", &number.to_string()) + blank;
        for text in [trade, depth(number, number, None, r#"["1","1"]"#) + blank] {
            out.clear();
            case.feed.decode(&mut text.into_bytes(), ARRIVAL, &mut out).expect("good");
        }
        if number == 1 {
            case.say(&picture(1));
        }
        if number > 2 {
            sizes.push((case.feed.tape.0.capacity(), case.feed.levels.capacity(), out.capacity()));
        }
    }
    sizes.dedup();
    assert_eq!(sizes.len(), 1, "{sizes:?}");
}

/// One to three small accidents: a byte replaced, put in, left out, or a stretch said twice.
fn hurt(raw: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    const BYTES: &[u8] = b"{}[]\",:.-+0123456789eEtTuUsSbBaA \\\n\x00\x7f\xc3";
    for _ in 0..rng.usize(1..=3) {
        let (at, byte) = (rng.usize(..raw.len()), BYTES[rng.usize(..BYTES.len())]);
        match rng.u8(..5) {
            0 => raw[at] = byte,
            1 => raw.insert(at, byte),
            2 => drop(raw.remove(at)),
            3 => {
                let piece = raw[at..raw.len().min(at + rng.usize(1..20))].to_vec();
                raw.splice(at..at, piece);
            }
            _ => raw[at] = raw[rng.usize(..raw.len())],
        }
        if raw.is_empty() {
            raw.push(byte);
        }
    }
}

#[test]
fn the_quick_way_says_what_the_general_way_says_or_nothing() {
    let usdm_trade = r#"{"e":"trade","E":1723161256322,"T":1723161256321,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006","X":"MARKET","m":false}"#;
    let timed = TICKER.replace("}", r#","T":1723161256313,"E":1723161256314}"#);
    let levels = r#"["5.00","0.000"],["61837.64000000","12345678"]"#;
    let depths =
        [depth(157, 160, Some(149), levels), depth(157, 160, None, levels), depth(1, 1, Some(0), "")];
    let bare = [TRADE.to_owned(), usdm_trade.to_owned(), TICKER.to_owned(), timed, depths[1].clone()];
    let wrapped = bare.iter().chain(&depths).map(|text| format!(r#"{{"stream":"btcusdt@x","data":{text}}}"#));
    let seeds: Vec<String> = bare.iter().cloned().chain(wrapped).collect();
    let mut rng = fastrand::Rng::with_seed(2024);
    let (mut buffers, mut taken) = (Buffers::new(1024), 0u32);
    for round in 0..150_000 {
        let market = if round % 2 == 0 { Market::Spot } else { Market::UsdM };
        let mut raw = seeds[rng.usize(..seeds.len())].clone().into_bytes();
        if round >= 1_000 {
            hurt(&mut raw, &mut rng);
        }
        let (mut quick_levels, mut levels, mut copy) = (Vec::new(), Vec::new(), raw.clone());
        let Some(quick) = scan::read(&raw, market, &mut quick_levels) else { continue };
        taken += 1;
        let shown = String::from_utf8_lossy(&raw);
        let mut tape = Tape(Vec::new());
        simd_json::fill_tape(&mut copy, &mut buffers, &mut tape).unwrap_or_else(|e| panic!("{e}: {shown}"));
        let general = message::read(&tape.0, market, &mut levels).unwrap_or_else(|e| panic!("{e}: {shown}"));
        assert_eq!((quick, quick_levels), (general, levels), "{shown}");
    }
    assert!(taken > 10_000, "{taken} were taken by the quick way");
}
