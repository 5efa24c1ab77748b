//! The scenes: each shows one part of the contract, and is short enough to be read.

use std::sync::Arc;

use serde_json::json;
use tickgate::base::limits::Limits;
use tickgate::flow::adapter::Sink;
use tickgate_feeds::market::{
    Body, Channel, FeedId, Phase, STATE, Side, State, Time, Trade, TradeKind, index, quote,
};
use tickgate_feeds::tickgate::{Body as Says, Image, Item, Name, Row, Told};

use super::script::{Script, exact};

/// Each with the name of its file.
pub fn all() -> Vec<(&'static str, Script)> {
    vec![
        ("begin", begin()),
        ("conflate", conflate()),
        ("update", update()),
        ("options", options()),
        ("refusals", refusals()),
        ("twice", twice()),
        ("groups", groups()),
        ("filter", filter()),
        ("every", every()),
        ("trade_safe", trade_safe()),
        ("book", book()),
        ("bars", bars()),
        ("status", status()),
        ("columns", columns()),
        ("decimals", decimals()),
        ("window", window()),
        ("digest", digest()),
        ("resume", resume()),
        ("cut", cut()),
        ("gap", gap()),
        ("epoch", epoch()),
        ("end", end()),
    ]
}

fn begin() -> Script {
    let mut script =
        Script::new("Greeting, subscription, first picture, changes, heartbeats.", Limits::default());
    let vcb = script.list("VCB");
    let vn30 = script.stage.list("VN30", Channel::Index);
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::BID, "61300"), (quote::ASK, "61500")]);
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.70"), (index::ADVANCES, "17")]);
    script.connect("");
    script.turn(1);
    script.send(&json!({"action": "subscribe", "id": 1, "sub": "board", "topics": ["VCB", "VN30"],
        "fields": ["last", "bid", "ask"]}));
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61500"), (quote::LAST_SIZE, "300")]);
    script.turn(10);
    // An empty side, and an update of what was not selected: no frame.
    script.quote(vcb, &[(quote::ASK, "")]);
    script.turn(10);
    script.quote(vcb, &[(quote::VOLUME, "1200")]);
    script.turn(10);
    script.turn(3_000);
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.68")]);
    script.turn(10);
    script.turn(3_000);
    // A change of what was not selected moves the revision alone.
    script.quote(vcb, &[(quote::VOLUME, "1300")]);
    script.turn(3_000);
    script.turn(3_000);
    script.send(&json!({"action": "ping", "id": "p"}));
    script.send(&json!({"type": "ping"}));
    script.send(&json!({"action": "list", "id": 2}));
    script
}

fn conflate() -> Script {
    let limits = Limits { frame_bytes_max: 2_200, ..Limits::default() };
    let mut script = Script::new(
        "A client that reads too slowly: frames are merged into one, and what is owed comes in parts. Nothing is missing \
         but the steps in between.",
        limits,
    );
    let symbols: Vec<_> = (0..9).map(|at| script.list(&format!("S{at}"))).collect();
    let quote_all = |script: &Script, price: usize| {
        for (at, symbol) in symbols.iter().enumerate() {
            script.quote(*symbol, &[(quote::LAST, &(price + at).to_string())]);
        }
    };
    quote_all(&script, 100);
    script.connect_slow("symbols=S*&fields=last", 700);
    for _ in 0..8 {
        script.turn(10);
    }
    for price in 2..12 {
        quote_all(&script, price * 100);
        script.stage.after_ms(10);
    }
    for _ in 0..8 {
        script.turn(10);
    }
    script.quote(symbols[4], &[(quote::LAST, "7")]);
    script.turn(10);
    script.send(&json!({"action": "list"}));
    script
}

fn update() -> Script {
    let mut script = Script::new(
        "A running subscription changes its fields, its pace and its topics. What the client holds it keeps.",
        Limits { rate_max: Some(10.0), ..Limits::default() },
    );
    let [vcb, fpt] = ["VCB", "FPT"].map(|name| script.list(name));
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::BID, "61300")]);
    script.quote(fpt, &[(quote::LAST, "98500"), (quote::BID, "98400")]);
    script.connect("symbols=VCB&fields=last,bid&sub=a");
    script.turn(1);
    script.turn(10);
    script.send(&json!({"action": "update", "sub": "a", "rate": 50}));
    script.quote(vcb, &[(quote::LAST, "61500")]);
    script.turn(200);
    script.send(&json!({"action": "update", "sub": "a", "add": ["FPT"]}));
    script.turn(200);
    // Fewer fields: what is no longer selected is dropped. More: whole rows.
    script.send(&json!({"action": "update", "sub": "a", "fields": ["last"], "rate": null}));
    script.turn(200);
    script.quote(vcb, &[(quote::LAST, "61600"), (quote::BID, "61500")]);
    script.turn(200);
    script.send(&json!({"action": "update", "sub": "a", "fields": ["last", "ask"], "delta": false}));
    script.turn(200);
    script.quote(fpt, &[(quote::ASK, "98600")]);
    script.turn(200);
    // The same again changes nothing: the stream is that of before.
    script.send(&json!({"action": "update", "id": 5, "sub": "a", "rate": 10}));
    script.turn(200);
    script.send(&json!({"action": "update", "sub": "a", "topics": ["FPT", "NOSUCH"]}));
    script.turn(200);
    script.send(&json!({"action": "update", "sub": "a", "remove": ["FPT"]}));
    script
}

fn options() -> Script {
    let mut script = Script::new(
        "Options in the URL, changed one after the other; and a cursor in the URL.",
        Limits::default(),
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::BID, "61300.50")]);
    let topics = "topics=VCB,book:VCB&sub=a&fields=last,bid";
    let way = "delta=0&depth=1&decimals=string&columns=1&window=false";
    script.connect(&format!("{topics}&{way}&snapshot=false"));
    script.turn(1);
    script.level(vcb, Side::Buy, "61300.50", "900");
    script.quote(vcb, &[(quote::LAST, "61500")]);
    script.turn(10);
    script.send(&json!({"action": "update", "sub": "a", "columns": false, "digest": 1}));
    script.quote(vcb, &[(quote::LAST, "61600")]);
    script.turn(10);
    script.send(
        &json!({"action": "update", "sub": "a", "decimals": "number", "mode": "trade_safe", "digest": 0,
        "window": true, "delta": true}),
    );
    script.trade(vcb, "61600", "300", Some(Side::Buy));
    script.quote(vcb, &[(quote::LAST, "61700")]);
    script.turn(10);
    script.send(&json!({"action": "subscribe", "sub": "b", "topics": ["VCB"], "fields": ["last", "bid"],
        "digest": 1, "window": false, "delta": true, "columns": null}));
    script.quote(vcb, &[(quote::BID, "")]);
    script.turn(10);
    let since = script.since("a");
    let (epoch, rev, wish) = (since["epoch"].as_str(), &since["rev"], since["wish"].as_str());
    let cursor = format!("{}:{rev}:{}", epoch.expect("a name"), wish.expect("a name"));
    script.connect(&format!("{topics}&depth=1&mode=trade_safe&window=1&since={cursor}"));
    script.turn(1);
    script.quote(vcb, &[(quote::BID, "61400")]);
    script.turn(10);
    script
}

fn refusals() -> Script {
    let limits = Limits {
        topics_per_session_max: 2,
        streams_per_session_max: 2,
        commands_per_second: 1,
        commands_burst: 18,
        ..Limits::default()
    };
    let mut script = Script::new("What is refused, and how it is said. The session lives on.", limits);
    script.list("VCB");
    script.list("FPT");
    script.connect("symbol=VCB");
    script.turn(1);
    script.send_text("{\"action\":\"subscribe\"");
    script.send_text("[1]");
    script.send(&json!({"action": "sbscribe", "id": 1}));
    script.send(&json!({"action": "subscribe", "id": 2, "topics": ["VCB"], "feilds": ["last"]}));
    script.send(&json!({"action": "subscribe", "id": 3, "topics": ["VCB"], "fields": ["lost"]}));
    script.send(&json!({"action": "subscribe", "id": 4, "topics": ["VCB"], "filter": "last > abc"}));
    script.send(&json!({"action": "subscribe", "id": 5, "topics": ["NOSUCH", "trade:"]}));
    script
        .send(&json!({"action": "subscribe", "id": 6, "topics": ["VCB"], "filter": "move(last) >= 1 tick"}));
    script.send(&json!({"action": "unsubscribe", "id": 7, "sub": "nobody"}));
    // Some are taken: the others are named, the first hundred of them.
    let many: Vec<_> = (0..101).map(|at| format!("X{at}")).chain(["VCB".to_owned()]).collect();
    script.send(&json!({"action": "subscribe", "id": 8, "sub": "a", "topics": &many, "fields": ["last"]}));
    script.turn(10);
    script.send(&json!({"action": "update", "sub": "a", "add": many}));
    script.send(&json!({"action": "subscribe", "id": 9, "sub": "a", "topics": ["FPT"]}));
    script.send(&json!({"action": "subscribe", "id": 10, "sub": "b", "topics": ["*"], "fields": ["bid"]}));
    script.send(
        &json!({"action": "subscribe", "id": 11, "sub": "b", "topics": ["*", "FPT"], "fields": ["bid"]}),
    );
    script.turn(10);
    script.send(&json!({"action": "subscribe", "id": 12, "sub": "c", "topics": ["FPT"]}));
    let ahead = json!({"epoch": "stage", "rev": 3, "seen": 1_000_000});
    script.send(&json!({"action": "unsubscribe", "id": 13, "sub": "b"}));
    script.send(&json!({"action": "subscribe", "id": 14, "sub": "b", "topics": ["FPT"], "since": ahead}));
    script.send(&json!({"action": "ping", "id": 15}));
    script.send(&json!({"action": "ping", "id": 16}));
    script
}

fn twice() -> Script {
    let mut script = Script::new(
        "Two subscriptions with the same symbol: each has rows of its own. One ends, one is a single picture.",
        Limits::default(),
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::BID, "61300")]);
    script.connect("");
    script.turn(1);
    script.send(&json!({"action": "subscribe", "topics": ["VCB"], "fields": ["last"]}));
    script.send(&json!({"action": "subscribe", "topics": ["quote:VCB"], "fields": ["bid"]}));
    script.send(&json!({"action": "subscribe", "topic": "VCB", "fields": ["last"]}));
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61500"), (quote::BID, "61400")]);
    script.turn(10);
    script.send(&json!({"action": "unsubscribe", "id": 4, "sub": "1"}));
    script.quote(vcb, &[(quote::LAST, "61600")]);
    script.turn(10);
    script.send(&json!({"action": "subscribe", "sub": "once", "mode": "snapshot", "topics": ["VCB"],
        "fields": ["ask"]}));
    script.turn(10);
    script.send(&json!({"action": "subscribe", "sub": "news", "snapshot": false, "topics": ["VCB"],
        "fields": ["volume"]}));
    script.quote(vcb, &[(quote::VOLUME, "900")]);
    script.turn(10);
    script
}

fn groups() -> Script {
    let mut script = Script::new(
        "Groups and wildcards are followed: what joins is named in `added`, what has no room in `rejected`. What has no data \
         yet is pending.",
        Limits { topics_per_session_max: 4, ..Limits::default() },
    );
    let [vcb, vic] = ["VCB", "VIC"].map(|name| script.list(name));
    script.stage.symbols.set_group("BANKS", &[vcb]);
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.connect("symbols=V*&fields=last");
    script.turn(1);
    script.send(&json!({"action": "subscribe", "sub": "banks", "topics": ["@BANKS"], "fields": ["last"]}));
    script.turn(10);
    script.quote(vic, &[(quote::LAST, "95")]);
    script.turn(10);
    let vpb = script.list("VPB");
    script.quote(vpb, &[(quote::LAST, "20.05")]);
    script.turn(10);
    script.stage.symbols.set_group("BANKS", &[vcb, vpb]);
    script.turn(10);
    script.quote(vpb, &[(quote::LAST, "20.10")]);
    script.turn(10);
    script
}

fn filter() -> Script {
    let mut script = Script::new(
        "A filter: rows come in whole and go out, and trades that it does not let through leave holes.",
        Limits::default(),
    );
    let [vcb, fpt] = ["VCB", "FPT"].map(|name| script.list(name));
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::VOLUME, "100")]);
    script.quote(fpt, &[(quote::LAST, "98500"), (quote::VOLUME, "100")]);
    script.connect("symbols=VCB,FPT&fields=last,volume&filter=last+<+62000");
    script.turn(1);
    script.turn(10);
    script.quote(vcb, &[(quote::VOLUME, "200")]);
    script.quote(fpt, &[(quote::VOLUME, "200")]);
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "62000")]);
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61900"), (quote::VOLUME, "300")]);
    script.turn(10);
    script.send(&json!({"action": "subscribe", "sub": "blocks", "topics": ["trade:VCB"], "mode": "every",
        "filter": "size >= 1000"}));
    for (price, size) in [("61900", "100"), ("61900", "2000"), ("61800", "900"), ("61700", "1000")] {
        script.trade(vcb, price, size, Some(Side::Buy));
    }
    script.turn(10);
    script.send(&json!({"action": "update", "sub": "1", "filter": null}));
    script.turn(10);
    script
}

fn every() -> Script {
    let mut script = Script::new(
        "Every change and every trade, in their order. What is lost is said: by the source's numbers, and when the log is \
         too short for a client that reads slowly.",
        Limits { log_events_max: 8, frame_bytes_max: 2_400, ..Limits::default() },
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.trade(vcb, "61400", "100", None);
    script.connect_slow("symbols=VCB,trade:VCB&mode=every&fields=last", 1_400);
    script.turn(1);
    script.turn(10);
    for price in ["61500", "61600", "61500"] {
        script.quote(vcb, &[(quote::LAST, price)]);
        script.trade(vcb, price, "200", Some(Side::Buy));
    }
    script.turn(10);
    script.push(vcb, Body::missing(Channel::Trade, 2));
    script.trade_of_kind(vcb, "61400", "100", None, TradeKind::Cancel, 1);
    script.turn(10);
    script.trade_of_kind(vcb, "61500", "250", Some(Side::Sell), TradeKind::Correct, 2);
    script.turn(10);
    // The client does not read for a while, and the log holds eight events.
    for turn in 0..12 {
        script.quote(vcb, &[(quote::LAST, &(61_000 + turn).to_string())]);
        script.trade(vcb, "61000", &(turn + 1).to_string(), Some(Side::Sell));
        script.stage.after_ms(10);
    }
    for _ in 0..6 {
        script.turn(10);
    }
    script
}

fn trade_safe() -> Script {
    let mut script = Script::new(
        "Every trade at once, whatever the rate, each after the quote that it met; quotes at the rate.",
        Limits::default(),
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::BID, "61300"), (quote::ASK, "61500")]);
    script.connect("symbols=VCB&mode=trade_safe&rate=1&fields=last,bid,ask");
    script.turn(1);
    script.turn(1_000);
    for (bid, price) in [("61350", "61500"), ("61400", "61500"), ("61450", "61600")] {
        script.quote(vcb, &[(quote::BID, bid)]);
        script.quote(vcb, &[(quote::BID, &format!("{bid}.5"))]);
        script.trade(vcb, price, "100", Some(Side::Buy));
        script.quote(vcb, &[(quote::LAST, price)]);
    }
    script.turn(10);
    script.quote(vcb, &[(quote::ASK, "61700")]);
    script.turn(10);
    script.turn(1_000);
    script.trade(vcb, "61700", "500", Some(Side::Buy));
    script.turn(100);
    script.turn(1_000);
    script
}

fn book() -> Script {
    let mut script =
        Script::new("A book is sent whole whenever one of its best levels has changed.", Limits::default());
    let fpt = script.list("FPT");
    for (price, size) in [("98400", "1700"), ("98500", "200"), ("98600", "1700")] {
        script.level(fpt, Side::Buy, price, size);
    }
    script.level(fpt, Side::Sell, "98700", "33700");
    script.connect("");
    script.turn(1);
    script.send(&json!({"action": "subscribe", "topics": ["book:FPT"], "depth": 2}));
    script.turn(10);
    script.level(fpt, Side::Buy, "98400", "900"); // below the depth
    script.turn(10);
    script.level(fpt, Side::Buy, "98600", "0");
    script.level(fpt, Side::Sell, "98800", "50");
    script.turn(10);
    script.send(&json!({"action": "update", "sub": "1", "depth": 3}));
    script.turn(10);
    script.level(fpt, Side::Sell, "98700", "0");
    script.level(fpt, Side::Sell, "98800", "0");
    script.turn(10);
    script.send(&json!({"action": "update", "sub": "1", "depth": 1}));
    script.turn(10);
    script
}

fn bars() -> Script {
    let mut script = Script::new(
        "Bars: the open one is an image that changes, each final one an event. The first does not cover its whole time.",
        Limits::default(),
    );
    let fpt = script.list("FPT");
    script.quote(fpt, &[(quote::LAST, "98500")]);
    script.connect("symbols=bar_1s:FPT");
    script.turn(1);
    script.turn(400);
    for (price, size, ms) in [
        ("98500", "100", 100),
        ("98700", "200", 200),
        ("98300", "50", 500),
        ("98600", "10", 100),
        ("98600", "30", 1_500),
        ("98650", "20", 100),
    ] {
        script.trade(fpt, price, size, Some(Side::Buy));
        script.turn(ms);
    }
    script.push(fpt, Body::missing(Channel::Trade, 1));
    script.turn(10);
    script.trade(fpt, "98700", "1", None);
    script.turn(1_000);
    script.trade(fpt, "98800", "1", None);
    script.turn(10);
    script
}

fn status() -> Script {
    let mut script = Script::new(
        "Phases are events; `state` says how far an image can be trusted, whatever was selected.",
        Limits::default(),
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.phase(vcb, Phase::Ato);
    script.connect("symbols=VCB,status:VCB&fields=last");
    script.turn(1);
    script.turn(10);
    script.phase(vcb, Phase::Continuous);
    script.turn(10);
    script.phase(vcb, Phase::Break);
    script.phase(vcb, Phase::Continuous);
    script.turn(10);
    script.push(vcb, Body::State(State::Halted));
    script.turn(10);
    script.feed(State::Stale);
    script.turn(10);
    script.feed(State::Live);
    script.push(vcb, Body::State(State::Live));
    script.quote(vcb, &[(quote::LAST, "61500")]);
    script.turn(10);
    script.phase(vcb, Phase::Closed);
    script.turn(10);
    script
}

fn columns() -> Script {
    let mut script =
        Script::new("Rows as arrays: the names are said once, in the answer.", Limits::default());
    let vcb = script.list("VCB");
    let vn30 = script.stage.list("VN30", Channel::Index);
    script.quote(vcb, &[(quote::LAST, "61400"), (quote::BID, "61300"), (quote::ASK, "61500")]);
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.70")]);
    script.level(vcb, Side::Buy, "61300", "900");
    script.connect("");
    script.turn(1);
    script.send(&json!({"action": "subscribe", "columns": true, "mode": "trade_safe",
        "topics": ["VCB", "VN30", "book:VCB", "status:VCB", "bar_1s:VCB"], "fields": ["last", "bid", "ask"]}));
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61500"), (quote::ASK, "")]);
    script.turn(10);
    script.trade(vcb, "61500", "300", None);
    script.turn(10);
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.80")]);
    script.phase(vcb, Phase::Continuous);
    script.level(vcb, Side::Sell, "61600", "100");
    script.turn(10);
    script.turn(3_000);
    script.trade(vcb, "61600", "50", Some(Side::Sell));
    script.turn(10);
    script
}

fn decimals() -> Script {
    let mut script = Script::new(
        "Every digit that the source wrote, as numbers and as strings: zeros at the end, below zero, 28 digits.",
        Limits::default(),
    );
    let [a, b] = ["A", "B"].map(|name| script.list(name));
    script.quote(a, &[(quote::LAST, "27.350"), (quote::CHANGE, "-0.50"), (quote::CHANGE_PCT, "-1.8")]);
    script.quote(b, &[(quote::LAST, "7922816251426433759354395033.5"), (quote::TURNOVER, "0.00")]);
    script.quote(b, &[(quote::TRADING_DATE, "20261122")]);
    script.level(a, Side::Buy, "27.30", "0.00000001");
    script.connect("");
    script.turn(1);
    let topics = ["A", "B", "book:A"];
    let fields = ["last", "change", "change_pct", "turnover", "trading_date"];
    script.send(&json!({"action": "subscribe", "sub": "numbers", "topics": topics, "fields": fields}));
    script.send(&json!({"action": "subscribe", "sub": "strings", "decimals": "string", "topics": topics,
        "fields": fields}));
    script.turn(10);
    script.quote(a, &[(quote::LAST, "27.3500001"), (quote::CHANGE, "0")]);
    script.quote(b, &[(quote::LAST, "0.0000000000000000000000000001")]);
    script.turn(10);
    // A change of the scale alone is none.
    script.quote(a, &[(quote::LAST, "27.35000010")]);
    script.turn(10);
    script.quote(a, &[(quote::LAST, "-79228162514264337593543950.33")]);
    script.turn(10);
    script
}

fn window() -> Script {
    let mut script = Script::new(
        "What was merged into a row: the extremes of the price and what was traded, since the row before.",
        Limits::default(),
    );
    let vcb = script.list("VCB");
    let vn30 = script.stage.list("VN30", Channel::Index);
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.70")]);
    script.connect("symbols=VCB,VN30&fields=last,bid&window=true&rate=1");
    script.turn(1);
    script.turn(1_000);
    for price in ["61600", "61200", "61500"] {
        script.quote(vcb, &[(quote::LAST, price)]);
        script.trade(vcb, price, "100", Some(Side::Buy));
        script.turn(10);
    }
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.60")]);
    script.turn(1_000);
    script.quote(vcb, &[(quote::BID, "61400")]);
    script.turn(1_000);
    script.trade(vcb, "61500", "700", None);
    script.turn(1_000);
    script
}

fn digest() -> Script {
    let mut script =
        Script::new("A digest of what the client must hold, with every second frame.", Limits::default());
    let vcb = script.list("VCB");
    let vn30 = script.stage.list("VN30", Channel::Index);
    script.quote(vcb, &[(quote::LAST, "61400.50"), (quote::TRADING_DATE, "20261122")]);
    script.phase(vcb, Phase::Continuous);
    script.image(vn30, Channel::Index, &[(index::LAST, "1968.70"), (index::CHANGE, "-0.10")]);
    script.level(vcb, Side::Buy, "61300.0", "900");
    script.connect("symbols=VCB,VN30,book:VCB&digest=2");
    script.turn(1);
    script.turn(10);
    for (last, size) in [("61500", "800"), ("61600.10", "0"), ("", "5")] {
        script.quote(vcb, &[(quote::LAST, last)]);
        script.level(vcb, Side::Buy, "61300.0", size);
        script.turn(10);
    }
    script.image(vn30, Channel::Index, &[(index::LAST, "1969")]);
    script.turn(10);
    script
}

fn resume() -> Script {
    let mut script = Script::new(
        "Connections end, and the client goes on from its cursor: with every event, with merged values, and anew.",
        Limits { log_events_max: 4, ..Limits::default() },
    );
    let [vcb, fpt] = ["VCB", "FPT"].map(|name| script.list(name));
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.quote(fpt, &[(quote::LAST, "98500")]);
    let wish = |since: Option<serde_json::Value>| {
        json!({"action": "subscribe", "sub": "a", "topics": ["F*", "VCB", "trade:VCB"], "mode": "trade_safe",
            "fields": ["last"], "rate": 1, "since": since})
    };
    script.connect("");
    script.turn(1);
    script.send(&wish(None));
    script.turn(1_000);
    script.quote(vcb, &[(quote::LAST, "61500")]);
    script.turn(10);
    script.trade(vcb, "61500", "100", None);
    script.turn(10);
    // The trade came before its slot, with the revision of the frame before it: so it comes again.
    script.connect("");
    script.turn(1);
    script.send(&wish(Some(script.since("a"))));
    script.turn(1_000);
    script.connect("");
    script.quote(vcb, &[(quote::LAST, "61600")]);
    script.list("FTS");
    for size in ["1", "2", "3", "4", "5", "6"] {
        script.trade(vcb, "61500", size, Some(Side::Sell));
        script.stage.after_ms(1);
    }
    script.turn(1);
    script.send(&wish(Some(script.since("a"))));
    script.turn(1_000);
    script.connect("");
    script.turn(1);
    let mut since = script.since("a");
    since["epoch"] = "another".into();
    script.send(&wish(Some(since)));
    script.turn(1_000);
    script
}

fn cut() -> Script {
    let mut script = Script::new(
        "A connection ends in the middle of a catch-up in mode every: what came of it comes again, and is told by its numbers.",
        Limits { frame_bytes_max: 2_600, ..Limits::default() },
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.connect_slow("symbols=VCB,trade:VCB&mode=every&fields=last", 1_400);
    script.turn(1);
    script.turn(10);
    for step in 0..20 {
        script.quote(vcb, &[(quote::LAST, &(61_000 + step).to_string())]);
        script.trade(vcb, "61000", "10", Some(Side::Sell));
        script.stage.after_ms(10);
    }
    script.turn(10);
    script.stage.after_ms(10);
    script.hear(1_300);
    let since = script.since("1");
    script.connect("");
    script.turn(1);
    script.send(&json!({"action": "subscribe", "sub": "1", "mode": "every", "topics": ["VCB", "trade:VCB"],
        "fields": ["last"], "since": since}));
    script.turn(10);
    script
}

fn gap() -> Script {
    let mut script = Script::new(
        "A frame does not reach the client: the next one shows it, or a heartbeat does. The client subscribes again, or connects \
         again and goes on from its cursor.",
        Limits::default(),
    );
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.connect("symbols=VCB&fields=last&sub=a");
    script.turn(1);
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61500")]);
    script.lose();
    script.quote(vcb, &[(quote::LAST, "61600")]);
    script.turn(10);
    script.send(&json!({"action": "unsubscribe", "sub": "a"}));
    script.send(&json!({"action": "subscribe", "sub": "a", "topics": ["VCB"], "fields": ["last"]}));
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61700")]);
    script.lose();
    // The first heartbeat waits for a frame to go with.
    script.turn(3_000);
    script.turn(200);
    script.turn(3_000);
    let since = script.since("a");
    script.connect("");
    script.turn(1);
    script.send(
        &json!({"action": "subscribe", "sub": "a", "topics": ["VCB"], "fields": ["last"], "since": since}),
    );
    script.turn(10);
    script
}

fn epoch() -> Script {
    let mut script = Script::new(
        "An edge: its upstream falls silent and comes back, then is in another run. Nobody is disconnected.",
        Limits::default(),
    );
    let mut told = Told::default();
    (told.epoch, told.path) = (Arc::from("first"), vec!["source".to_owned()]);
    for text in ["VCB", "FPT"] {
        told.names.push(Name { text: text.into(), channel: Channel::Quote, symbol: None });
    }
    let time = Time(1_700_000_000_000_000_000);
    let adopt = |script: &Script, told: &mut Told, rev: u64, rows: &[(u32, &str, bool)]| {
        for &(name, last, is_full) in rows {
            let mut fields = vec![(quote::LAST, Some(exact(last)))];
            if is_full {
                fields.push((STATE, Some(State::Live.decimal())));
            }
            let body = Says::Image(Image { is_full, fields });
            told.items.push(Item::Row(Row {
                name,
                rev,
                q: rev,
                time: Time(1_700_000_000_000_000_000),
                body,
            }));
        }
        told.rev = rev;
        script.stage.ingest.adopt(told, 0);
    };
    let trade = |told: &mut Told, rev: u64, q: u64| {
        let (price, size, kind) = (exact("61400"), exact("100"), TradeKind::New);
        let trade = Trade { price, size, kind, side: None, trade_id: q, ref_trade_id: 0, source_seq: 0 };
        told.items.push(Item::Row(Row { name: 0, rev, q, time, body: Says::Trade(trade) }));
    };
    trade(&mut told, 80, 5);
    adopt(&script, &mut told, 90, &[(0, "61400", true), (1, "98500", true)]);
    script.connect("symbols=VCB,FPT&fields=last");
    script.turn(1);
    script
        .send(&json!({"action": "subscribe", "sub": "tape", "mode": "every", "topics": ["VCB", "trade:VCB"],
        "fields": ["last"]}));
    script.turn(10);
    script.stage.ingest.set_state(FeedId(0), State::Stale);
    script.turn(10);
    script.stage.ingest.set_state(FeedId(0), State::Live);
    adopt(&script, &mut told, 95, &[(0, "61500", false)]);
    script.turn(10);
    told.epoch = Arc::from("second");
    adopt(&script, &mut told, 12, &[(0, "61600", true)]);
    script.turn(10);
    trade(&mut told, 13, 2);
    adopt(&script, &mut told, 13, &[(0, "61700", false)]);
    script.turn(10);
    script.send(&json!({"action": "subscribe", "sub": "late", "topics": ["VCB"], "fields": ["bid"]}));
    script.turn(10);
    script
}

fn end() -> Script {
    let mut script =
        Script::new("Silence, another connection, and the end that the gateway gives it.", Limits::default());
    let vcb = script.list("VCB");
    script.quote(vcb, &[(quote::LAST, "61400")]);
    script.connect("symbols=VCB&fields=last&sub=a");
    script.turn(1);
    script.turn(10);
    script.silence(7_500);
    script.silence(7_501);
    script.connect("symbols=VCB&fields=last&sub=a");
    script.turn(1);
    script.turn(10);
    script.quote(vcb, &[(quote::LAST, "61500")]);
    script.turn(10);
    script.stage.shard.drain();
    script.turn(10);
    script
}
