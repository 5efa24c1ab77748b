//! What filters say to a client that slipped, and random ones against an evaluator that takes no short cuts.

use std::fmt::Write as _;

use fastrand::Rng;
use tickgate_feeds::market::{Phase, STATE, Side, State, TradeKind, index, quote};

use super::*;

fn filter(text: &str) -> Filter {
    Filter::parse(text).unwrap_or_else(|slip| panic!("{text}: {slip:?}"))
}

fn decimal(text: &str) -> Decimal {
    tickgate_feeds::decimal::exact(text).expect("a decimal")
}

/// An image of these values.
fn images(channel: Channel, values: &[(u8, &str)]) -> (Images, Symbol) {
    let mut images = Images::default();
    let symbol = images.list(channel);
    for (number, value) in values {
        images.set(symbol, *number, Some(decimal(value)), 1);
    }
    (images, symbol)
}

#[test]
fn a_slip_is_told_by_its_column() {
    for (text, expected) in [
        ("last > 'abc'", "8: a number, 'abc'"),
        ("", "1: a field, move(..), changed(..), not, or (, the end"),
        ("lsat > 5", "1: a field such as last, lsat"),
        ("nonsense > 5", "1: a field of quote, index or trade, nonsense"),
        ("last = 5", "6: a field, a value, a parenthesis, or one of == != < <= > >=, ="),
        ("last 5", "6: one of == != < <= > >=, 5"),
        ("last > 5 bid < 3", "10: and, or, or the end, bid"),
        ("(last > 5", "10: and, or, or ), the end"),
        ("last > 5)", "9: and, or, or the end, )"),
        ("last > 1.2.3", "8: a number, 1.2.3"),
        ("last > 5x", "8: a number, 5x"),
        ("last > null", "6: == or !=, for null has no order, >"),
        ("phase > 'atc'", "7: == or !=, for phase has no order, >"),
        ("side == 'up'", "9: one of 'buy', 'sell', 'up'"),
        ("phase == 'atc", "10: a closing ', 'atc"),
        (
            "phase == 5",
            "10: one of 'pre_open', 'ato', 'continuous', 'break', 'atc', 'put_through', 'closed', 5",
        ),
        ("trading_date > '2026-02-30'", "16: a date such as '2026-11-23', '2026-02-30'"),
        ("trading_date > '+026-02-03'", "16: a date such as '2026-11-23', '+026-02-03'"),
        ("move(last) < 5", "12: >= or >, <"),
        ("move(last) >= 0", "15: a number above 0, 0"),
        ("move(phase) >= 1", "6: a field that holds a number, phase"),
        ("move(volume) >= 1 tick", "19: a plain number or %, for volume has no ticks, tick"),
        ("move(price) >= 1", "6: a field of quote or index, price"),
        ("not (last > 5 or changed(bid))", "5: a comparison after not, neither move nor changed, ("),
        ("„x“ == 1", "1: a field, a value, a parenthesis, or one of == != < <= > >=, „"),
        ("last > 5 and é", "14: a field, a value, a parenthesis, or one of == != < <= > >=, é"),
    ] {
        let slip = Filter::parse(text).expect_err(text);
        assert_eq!(format!("{}: {}, {}", slip.column, slip.expected, slip.found), expected, "{text}");
    }
}

#[test]
fn what_is_too_long_too_deep_or_too_much_is_refused() {
    let fits = |text: String| Filter::parse(&text).map(|_| ()).map_err(|slip| slip.expected);
    let deep = |depth: usize| format!("{}last > 1{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(fits(deep(16)), Ok(()));
    assert_eq!(fits(deep(17)), Err("at most 16 parentheses and nots in each other".into()));
    assert!(fits(format!("{}last > 1", "not ".repeat(17))).is_err());
    let wide = |count: usize| vec!["low>1"; count].join(" or ");
    assert_eq!(fits(wide(56)), Ok(()));
    assert_eq!(fits(wide(58)), Err("at most 512 characters".into()));
    let many = vec!["(low>1)"; 33].join("or");
    assert_eq!(fits(many), Err("at most 64 conditions, nots and parentheses".into()));
    let changes = |count: usize| vec!["changed(low)"; count].join(" or ");
    assert_eq!(fits(changes(4)), Ok(()));
    assert_eq!(fits(changes(5)), Err("at most 4 of move and changed".into()));
}

#[test]
fn an_image_is_compared_exactly_and_nothing_matches_only_null() {
    let values = [(quote::LAST, "60000.10"), (quote::PHASE, "2"), (quote::TRADING_DATE, "20261123")];
    let (images, symbol) = images(Channel::Quote, &values);
    for (text, expected) in [
        ("last == 60000.1", true),
        ("last > 60000.0999999999999999999", true),
        ("last != 60000.1", false),
        ("phase == 'continuous'", true),
        ("phase != \"break\"", true),
        ("trading_date >= '2026-11-23'", true),
        ("trading_date < '2026-11-23'", false),
        ("bid < 5", false),
        ("bid != 5", false),
        ("not bid < 5", true),
        ("bid == null and last != null", true),
        ("bid != null", false),
        ("advances > 5", false),
        // `and` binds more than `or`, `not` more than both.
        ("last > 1 or last > 1 and bid > 1", true),
        ("(last > 1 or last > 1) and bid > 1", false),
        ("not last > 1 or last > 1", true),
        ("move(last) >= 1 tick", true),
        ("advances > 5 and move(last) >= 1", false),
        ("move(advances) >= 1", false),
    ] {
        assert_eq!(filter(text).takes(&images, symbol), expected, "{text}");
    }
}

#[test]
fn a_trade_is_judged_by_itself() {
    let trade = Trade {
        price: decimal("60000"),
        size: decimal("100"),
        trade_id: 1,
        ref_trade_id: 0,
        source_seq: 0,
        side: None,
        kind: TradeKind::New,
    };
    let sold = Trade { side: Some(Side::Sell), ..trade };
    for (text, expected) in [
        ("size >= 100", true),
        ("size > 100", false),
        ("price == 60000 and kind == 'new'", true),
        ("side == 'buy'", false),
        ("side == null", true),
        ("last > 70000", true),
        ("last > 50000 and size > 1", false),
        ("changed(last) and size > 1", false),
    ] {
        assert_eq!(filter(text).takes_trade(&trade), expected, "{text}");
    }
    assert!(filter("side == 'sell'").takes_trade(&sold) && !filter("side == 'buy'").takes_trade(&sold));
    assert!(!filter("last > 5").concerns(Channel::Trade) && filter("side == 'buy'").concerns(Channel::Trade));
    assert!(!filter("bid > 5").concerns(Channel::Index) && !filter("volume > 5").concerns(Channel::Bar1m));
}

#[test]
fn a_move_is_measured_from_the_value_last_sent() {
    let made = |text: &str, before: Option<&str>, now: Option<&str>| {
        let filter = filter(text);
        let now: Vec<_> = now.into_iter().map(|now| (quote::LAST, now)).collect();
        let (images, symbol) = images(Channel::Quote, &now);
        let step =
            |price: Decimal| Some(if price < decimal("10000") { decimal("10") } else { decimal("50") });
        filter.is_due(&images, symbol, &[before.map(decimal)], &step)
    };
    for (text, before, now, expected) in [
        ("move(last) >= 1 tick", "9990", "10000", true),
        ("move(last) >= 1 tick", "10000", "10040", false),
        ("move(last) >= 1 tick", "10000", "9950", true),
        ("move(last) > 1 tick", "10000", "9950", false),
        ("move(last) >= 2 ticks", "10000", "10100", true),
        ("move(last) >= 0.5 %", "200", "201", true),
        ("move(last) >= 0.5 %", "-200", "-201", true),
        ("move(last) >= 0.5 %", "200", "200.99", false),
        ("move(last) >= 0.5 %", "0", "0.0", false),
        ("move(last) >= 0.5 %", "0", "0.1", true),
        ("move(last) >= 100", "1", "100.9", false),
        ("move(last) >= 100", "1", "101", true),
        ("move(last) >= 1", "79228162514264337593543950335", "-79228162514264337593543950335", true),
        ("changed(last)", "1", "1.0", false),
        ("changed(last)", "1", "1.1", true),
    ] {
        assert_eq!(made(text, Some(before), Some(now)), expected, "{text}: {before} to {now}");
    }
    assert!(made("move(last) >= 100", Some("1"), None) && made("move(last) >= 100", None, Some("1")));
    assert!(!made("changed(last)", None, None));
}

/// A filter as a tree of closures over text: everything is evaluated, by another way than the one under test.
struct Naive {
    text: String,
    holds: Box<dyn Fn(Values<'_>) -> bool>,
}

type Values<'a> = &'a dyn Fn(&str) -> Option<String>;

fn naive(random: &mut Rng, depth: u32) -> Naive {
    match random.u8(..if depth == 0 { 4 } else { 8 }) {
        0 => {
            let (field, code) = (["state", "phase"][random.usize(..2)], random.usize(..6));
            let name = if field == "state" { State::NAMES[code] } else { Phase::NAMES[code] };
            let equal = random.bool();
            let text = format!("{field} {} '{name}'", if equal { "==" } else { "!=" });
            let holds = move |value: Values<'_>| {
                value(field).is_some_and(|value| (value == code.to_string()) == equal)
            };
            Naive { text, holds: Box::new(holds) }
        }
        1 => {
            let field = ["last", "bid", "advances"][random.usize(..3)];
            let equal = random.bool();
            let text = format!("{field}{}null", if equal { "==" } else { "!=" });
            Naive { text, holds: Box::new(move |value| value(field).is_none() == equal) }
        }
        2..4 => {
            let field = ["last", "bid", "volume", "floors"][random.usize(..4)];
            let (sign, number) = (["<", "<=", "==", "!=", ">=", ">"][random.usize(..6)], random.i32(-3..4));
            let holds = move |value: Values<'_>| {
                let Some(value) = value(field).and_then(|value| value.parse::<i32>().ok()) else {
                    return false;
                };
                match sign {
                    "<" => value < number,
                    "<=" => value <= number,
                    "==" => value == number,
                    "!=" => value != number,
                    ">=" => value >= number,
                    _ => value > number,
                }
            };
            Naive { text: format!("{field} {sign} {number}.0"), holds: Box::new(holds) }
        }
        4 => {
            let one = naive(random, depth - 1);
            Naive { text: format!("not ({})", one.text), holds: Box::new(move |value| !(one.holds)(value)) }
        }
        joined => {
            let some: Vec<Naive> = (0..random.usize(2..4)).map(|_| naive(random, depth - 1)).collect();
            let all = joined < 7;
            let mut text = String::new();
            for (at, one) in some.iter().enumerate() {
                let joint = [" or ", " and "][usize::from(all)];
                let _ = write!(text, "{}({})", if at == 0 { "" } else { joint }, one.text);
            }
            let holds = move |value: Values<'_>| {
                let holding = some.iter().filter(|one| (one.holds)(value)).count();
                if all { holding == some.len() } else { holding > 0 }
            };
            Naive { text, holds: Box::new(holds) }
        }
    }
}

#[test]
fn random_filters_hold_where_a_naive_evaluator_says_so() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let (mut held, mut tried) = (0, 0);
    for _ in 0..3_000 {
        let naive = naive(&mut random, 3);
        let Ok(filter) = Filter::parse(&naive.text) else { continue };
        for _ in 0..10 {
            let channel = if random.bool() { Channel::Quote } else { Channel::Index };
            let (last, volume) = match channel {
                Channel::Index => (index::LAST, index::VOLUME),
                _ => (quote::LAST, quote::VOLUME),
            };
            let mut values = vec![(STATE, random.i32(0..6)), (last, random.i32(-3..4))];
            values.push((quote::PHASE, random.i32(0..7)));
            values.push((volume, random.i32(-3..4)));
            values.push((
                if channel == Channel::Quote { quote::BID } else { index::FLOORS },
                random.i32(-3..4),
            ));
            values.retain(|_| random.u8(..4) > 0);
            let (mut images, symbol) = images(channel, &[]);
            for (number, value) in &values {
                images.set(symbol, *number, Some(Decimal::from(*value)), 1);
            }
            let value = |name: &str| {
                let number = channel.fields().iter().position(|field| field.name == name)?;
                values
                    .iter()
                    .find(|(known, _)| usize::from(*known) == number)
                    .map(|(_, value)| value.to_string())
            };
            let expected = (naive.holds)(&value);
            assert_eq!(filter.takes(&images, symbol), expected, "{} on {values:?}", naive.text);
            (held, tried) = (held + u32::from(expected), tried + 1);
        }
    }
    assert!(held > tried / 10 && held < tried * 9 / 10 && tried > 10_000, "{held} of {tried}");
}
