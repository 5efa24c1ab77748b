//! A conversation, message by message. Bound kept here: none, these are tests.

mod retelling;

use super::*;
use crate::market::{Phase, quote};
use crate::spec::Spec;
use rust_decimal::Decimal;

const WELCOME: &str = r#"{"type":"welcome","epoch":"e1","heartbeat_ms":3000,"simulated":true,"path":["e1"]}"#;
const ANSWER: &str = r#"{"type":"subscribed","sub":"edge","stream":7,"seq":1,"rev":10,"q":{"trade:VCB":4,"status:VCB":0},"rejected":[],"recovered":null}"#;

fn plan(text: &str) -> Result<Plan, String> {
    Plan::from_spec(&Spec::parse(text)?)
}

fn peer() -> Peer {
    Peer::new(plan("tickgate:ws://h").expect("a plan"), FeedId(0), "me".to_owned())
}

fn hear(peer: &mut Peer, text: &str) -> Heard {
    peer.hear(&mut text.as_bytes().to_vec()).expect(text)
}

fn batch(seq: u64, prev: Option<u64>, rev: u64, rest: &str) -> String {
    let prev = prev.map_or("null".to_owned(), |prev| prev.to_string());
    format!(r#"{{"type":"batch","stream":7,"seq":{seq},"prev":{prev},"rev":{rev},"ts_us":5,{rest}}}"#)
}

fn vcb(rev: u64, fields: &str) -> String {
    format!(r#"{{"symbol":"VCB","rev":{rev},"q":3,"time_us":1000,{fields}}}"#)
}

fn trade(rev: u64, q: u64) -> String {
    format!(
        r#"{{"symbol":"VCB","channel":"trade","rev":{rev},"q":{q},"time_us":1000,"price":"61.40","size":"100","side":"buy","kind":"new","trade_id":{q}}}"#
    )
}

/// One that holds a whole picture of revision 12.
fn following() -> Peer {
    let mut peer = peer();
    assert!(matches!(hear(&mut peer, WELCOME), Heard::Say(_)));
    assert_eq!(hear(&mut peer, ANSWER), Heard::Nothing);
    let row = vcb(
        11,
        r#""full":true,"state":"live","phase":"ato","last":"61.40","bid":null,"trading_date":"2026-11-22""#,
    );
    assert_eq!(
        hear(&mut peer, &batch(1, None, 12, &format!(r#""snapshot":true,"rows":[{row}]"#))),
        Heard::Whole
    );
    peer
}

fn revs_of_gaps(peer: &mut Peer) -> Vec<(u64, u64)> {
    let gaps = peer.told().items.iter().filter_map(|item| match item {
        Item::Gap(gap) => Some((gap.to, gap.rev)),
        Item::Row(_) => None,
    });
    gaps.collect()
}

#[test]
fn a_picture_is_told_exactly() {
    let mut peer = following();
    assert_eq!(revs_of_gaps(&mut peer), [(4, 10)], "trades before the answer are not to be had here");
    let told = peer.told();
    assert_eq!((&*told.epoch, told.rev, told.names.len()), ("e1", 12, 1));
    let Some(Item::Row(Row { rev: 11, q: 3, time, body: Body::Image(image), .. })) = told.items.last() else {
        panic!("{:?}", told.items)
    };
    assert_eq!(time.us(), 1_000);
    let value = |number| image.fields.iter().find(|(field, _)| *field == number).expect("a field").1;
    assert_eq!(value(quote::LAST).map(|last| last.to_string()).as_deref(), Some("61.40"), "every digit");
    assert_eq!(value(quote::PHASE), Some(Phase::Ato.decimal()));
    assert_eq!((value(quote::BID), value(quote::TRADING_DATE)), (None, Some(Decimal::from(20_261_122))));
}

#[test]
fn every_kind_of_row_is_read() {
    let mut peer = following();
    peer.told().items.clear();
    let key = r#""symbol":"VCB","rev":13,"q":5,"time_us":2000"#;
    let bar = r#""start_us":0,"open":"1","high":"3","low":"1","close":"2.5","volume":"7","trades":2"#;
    let rows = [
        format!(r#"{{{key},"channel":"book","full":true,"state":"live","bids":[["61.4","5"]],"asks":[]}}"#),
        trade(13, 5),
        format!(r#"{{{key},"channel":"status","phase":"break"}}"#),
        format!(r#"{{{key},"channel":"bar_1m","full":true,{bar},"final":true,"partial":true}}"#),
        format!(r#"{{{key},"channel":"weather","warm":true}}"#),
    ];
    assert_eq!(
        hear(&mut peer, &batch(2, Some(1), 13, &format!(r#""rows":[{}]"#, rows.join(",")))),
        Heard::Whole
    );
    let bodies: Vec<&Body> = peer
        .told
        .items
        .iter()
        .map(|item| match item {
            Item::Row(row) => &row.body,
            Item::Gap(gap) => panic!("{gap:?}"),
        })
        .collect();
    let [Body::Book { bids, asks }, Body::Trade(trade), Body::Phase(Phase::Break), Body::Bar(bar)] =
        bodies[..]
    else {
        panic!("{bodies:?}")
    };
    assert_eq!((bids.len(), asks.len(), trade.trade_id, bar.trades), (1, 0, 5, 2));
    assert!(bar.is_final && bar.is_partial && bar.prices()[3] == Decimal::new(25, 1));
    for bad in ["\"last\":1.5", "\"last\":\"x\"", "\"phase\":\"night\""] {
        let text = batch(3, Some(2), 14, &format!(r#""rows":[{}]"#, vcb(14, bad)));
        assert!(peer.hear(&mut text.into_bytes()).is_err(), "{bad}");
        peer.place.as_mut().expect("a place").seq = Some(2);
    }
}

#[test]
fn nothing_is_whole_before_a_revision_covers_every_row() {
    let mut peer = following();
    peer.told().items.clear();
    let part =
        |rows: &str, more: bool| format!(r#""rows":[{rows}]{}"#, if more { ",\"more\":true" } else { "" });
    assert_eq!(
        hear(&mut peer, &batch(9, Some(1), 12, &part(&vcb(14, "\"last\":\"1\""), true))),
        Heard::Nothing
    );
    assert_eq!(
        hear(&mut peer, &batch(9, Some(9), 13, &part(&trade(15, 5), false))),
        Heard::Nothing,
        "15 is not covered"
    );
    assert!(!peer.is_level());
    assert_eq!(hear(&mut peer, &batch(10, Some(9), 15, &part("", false))), Heard::Whole);
    assert_eq!((peer.told().rev, peer.told().items.len()), (15, 2));
    peer.told().items.clear();
    assert!(peer.is_level());
    // What was not whole is dropped with the connection, and the next one goes on from what was.
    assert_eq!(hear(&mut peer, &batch(11, Some(10), 15, &part(&trade(16, 6), true))), Heard::Nothing);
    peer.disconnected();
    assert!(peer.told().items.is_empty());
    let Heard::Say(command) = hear(&mut peer, WELCOME) else { panic!("a subscription") };
    assert!(command.contains(r#""since":{"epoch":"e1","rev":15}"#), "{command}");
    hear(&mut peer, &ANSWER.replace("\"recovered\":null", "\"recovered\":\"conflated\""));
    assert_eq!(hear(&mut peer, &batch(2, Some(1), 17, &part(&trade(16, 6), false))), Heard::Whole);
    assert_eq!(peer.told().items.len(), 1, "the numbers of the answer are no loss for who goes on");
}

#[test]
fn losses_lie_before_what_follows_them_and_each_has_a_revision() {
    let mut peer = following();
    peer.told().items.clear();
    let gap = |to: u64| format!(r#"{{"topic":"trade:VCB","from":null,"to":{to},"reason":"log_overrun"}}"#);
    let rows = format!(r#""rows":[{}],"gaps":[{},{}],"more":true"#, trade(20, 9), gap(7), gap(8));
    assert_eq!(hear(&mut peer, &batch(2, Some(1), 12, &rows)), Heard::Nothing);
    let rows = format!(r#""rows":[{}],"gaps":[{}]"#, vcb(21, "\"last\":\"1\""), gap(12));
    assert_eq!(hear(&mut peer, &batch(2, Some(2), 25, &rows)), Heard::Whole);
    assert_eq!(revs_of_gaps(&mut peer), [(7, 18), (8, 19), (12, 20)]);
    // Who holds 25 already must be told of them too.
    peer.told().items.clear();
    let rows = format!(r#""rows":[{}],"gaps":[{},{}]"#, trade(27, 15), gap(13), gap(14));
    assert_eq!(hear(&mut peer, &batch(3, Some(2), 28, &rows)), Heard::Whole);
    assert_eq!(revs_of_gaps(&mut peer), [(13, 26), (14, 26)]);
}

#[test]
fn a_missing_frame_and_a_new_epoch_need_a_new_connection() {
    let again = |text: String| match hear(&mut following(), &text) {
        Heard::Again(why) => why,
        other => panic!("{other:?}"),
    };
    assert!(again(batch(3, Some(2), 14, r#""rows":[]"#)).contains("missing"));
    assert!(
        again(r#"{"type":"heartbeat","ts_us":1,"streams":{"7":{"seq":2,"rev":3}}}"#.into())
            .contains("missing")
    );
    assert!(again(batch(2, Some(1), 3, r#""snapshot":true,"epoch":"e2","rows":[]"#)).contains("epoch"));
    assert!(again(r#"{"type":"error","code":"node_behind","message":"no"}"#.into()).contains("node_behind"));
    assert!(again(WELCOME.replace("true", "false")).contains("not simulated"));
    assert!(again(WELCOME.replace(r#"["e1"]"#, r#"["e1","me"]"#)).contains("a loop"));
    assert!(
        again(WELCOME.replace(r#"["e1"]"#, r#"["1","2","3","4","5","6","7","8"]"#)).contains("at most 8")
    );
    let refused = |topic: &str, code: &str| {
        let rejected = format!(r#""rejected":[{{"topic":"{topic}","code":"{code}","message":""}}]"#);
        hear(&mut following(), &ANSWER.replace(r#""rejected":[]"#, &rejected))
    };
    let Heard::Again(limit) = refused("trade:*", "topic_limit") else { panic!("nothing can go on without") };
    assert!(
        limit.starts_with("it refuses trade:* with topic_limit: its limits.topics_per_session_max must"),
        "{limit}"
    );
    assert_eq!(refused("book:*", "unknown_topic"), Heard::Nothing, "an index has no book");
    // Another epoch after a reconnect: nothing is gone on from.
    let mut peer = following();
    peer.disconnected();
    let Heard::Say(command) = hear(&mut peer, &WELCOME.replace("e1\",\"h", "e2\",\"h")) else {
        panic!("a subscription")
    };
    assert!(!command.contains("since") && &*peer.told().epoch == "e2", "{command}");
}

#[test]
fn who_hears_nothing_asks_where_it_stands() {
    let mut peer = following();
    let beat = r#"{"type":"heartbeat","ts_us":1,"streams":{"7":{"seq":1,"rev":12}}}"#;
    peer.told().items.clear();
    let Heard::Say(command) = hear(&mut peer, beat) else { panic!("a question") };
    assert!(command.starts_with(r#"{"action":"update","sub":"edge","digest":42949"#), "{command}");
    let answer = ANSWER.replace("subscribed", "updated").replace("\"stream\":7", "\"stream\":8");
    assert_eq!(hear(&mut peer, &answer), Heard::Nothing);
    assert_eq!(hear(&mut peer, &beat.replace("\"7\"", "\"8\"").replace("12", "19")), Heard::Whole);
    assert_eq!(peer.told().rev, 19);
    // Rows newer than their frame's revision may be covered by a heartbeat alone.
    let row = batch(2, Some(1), 19, &format!(r#""rows":[{}]"#, vcb(21, "\"last\":\"1\"")))
        .replace("\"stream\":7", "\"stream\":8");
    assert_eq!(hear(&mut peer, &row), Heard::Nothing);
    let beat = |rev| format!(r#"{{"type":"heartbeat","ts_us":1,"streams":{{"8":{{"seq":2,"rev":{rev}}}}}}}"#);
    assert!(matches!(hear(&mut peer, &beat(20)), Heard::Say(_)), "21 is not covered");
    assert_eq!((hear(&mut peer, &beat(21)), peer.told().items.len()), (Heard::Whole, 1));
    let elsewhere = r#"{"type":"heartbeat","ts_us":1,"streams":{}}"#;
    assert_eq!(hear(&mut peer, elsewhere), Heard::Nothing, "it has frames");
}

#[test]
fn what_is_asked_for_follows_from_the_spec() {
    let command =
        plan("tickgate:ws://h/ws?symbols=VN*,@VN30&books=0&bars=1m").expect("a plan").subscribe("s", "e", 0);
    let topics = r#"["VN*","@VN30","trade:VN*","trade:@VN30","status:VN*","status:@VN30","bar_1m:VN*","bar_1m:@VN30"]"#;
    assert!(command.contains(topics) && command.contains(r#""decimals":"string""#), "{command}");
    let carried = plan("tickgate:ws://h?books=20").expect("a plan").carried();
    assert!(carried.has(Channel::Book) && !carried.has(Channel::Bar1m) && carried.depth == 20);
    for (text, expected) in [
        ("tickgate:", "has no path"),
        ("tickgate:ws://h?books=1001", "expected a number from 0 to 1000"),
        ("tickgate:ws://h?symbols=a b", "expected symbols, @groups"),
        ("tickgate:ws://h?bars=2m", "expected some of 1s, 1m, 5m, 1h"),
        ("tickgate:ws://h?topics=x", "unknown option"),
    ] {
        let error = plan(text).expect_err(text);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn names_become_symbols_when_they_are_taken() {
    let symbols = Symbols::new(10);
    let mut peer = following();
    let mut listed =
        br#"{"symbols":[{"symbol":"VCB","steps":[["0","10"],["10000","50"]]},{"symbol":"NOSUCH"}]}"#.to_vec();
    let mut groups =
        br#"{"groups":[{"group":"VN30","symbols":["VCB","NOSUCH"]},{"group":"NONE","symbols":["NOSUCH"]}]}"#
            .to_vec();
    peer.told().directory = Some(Directory::read(&mut listed, &mut groups).expect("lists"));
    assert_eq!((symbols.len(), peer.told().find("VCB")), (0, None));
    peer.told().list(&symbols);
    let vcb = peer.told().find("VCB").expect("listed");
    let listing = symbols.listing(vcb).expect("listed");
    assert!(
        listing.carried.has(Channel::Book)
            && listing.steps.is_some_and(|steps| steps.at(Decimal::TEN) == Decimal::TEN)
    );
    assert_eq!(symbols.group("VN30").as_deref(), Some(&[vcb][..]));
    assert_eq!(symbols.groups().len(), 1, "a group of nothing known is none");
}
