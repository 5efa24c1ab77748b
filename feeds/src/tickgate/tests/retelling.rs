//! What an upstream told, as updates: the same values, and no loss or doubt of it forgotten.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::{ANSWER, WELCOME, batch, following, hear, trade, vcb};
use crate::market::{self, Channel, FeedId, Level, PHASE, Phase, STATE, Side, State, Time, Update, quote};
use crate::symbols::Symbols;
use crate::tickgate::{Directory, Heard, Peer, Retelling};

/// One that follows an upstream, and what it said since it was asked last.
struct Case {
    peer: Peer,
    retelling: Retelling,
    symbols: Arc<Symbols>,
    /// Of the last batch.
    seq: u64,
}

impl Case {
    /// Has heard a whole picture of VCB, and of four trades that were before it.
    fn following() -> (Self, Vec<Update>) {
        let symbols = Arc::new(Symbols::new(3));
        let retelling = Retelling::new(Arc::clone(&symbols));
        let mut case = Self { peer: following(), retelling, symbols, seq: 1 };
        let said = case.said();
        (case, said)
    }

    fn said(&mut self) -> Vec<Update> {
        let mut said = Vec::new();
        self.retelling.tell(self.peer.told(), &mut |updates| said.extend_from_slice(updates));
        said
    }

    fn hear(&mut self, rev: u64, rest: &str) -> Vec<Update> {
        let prev = self.seq;
        self.seq += 1;
        assert_eq!(hear(&mut self.peer, &batch(self.seq, Some(prev), rev, rest)), Heard::Whole);
        self.said()
    }

    /// Another connection, to a run of this name that has `trades` trades of VCB behind it and this row.
    fn reconnect(&mut self, epoch: &str, trades: u64, row: &str) -> Vec<Update> {
        self.peer.disconnected();
        hear(&mut self.peer, &WELCOME.replace("\"e1\",\"h", &format!("\"{epoch}\",\"h")));
        hear(&mut self.peer, &ANSWER.replace("\"trade:VCB\":4", &format!("\"trade:VCB\":{trades}")));
        self.seq = 1;
        let rest = format!(r#""snapshot":true,"rows":[{row}]"#);
        assert_eq!(hear(&mut self.peer, &batch(1, None, 12, &rest)), Heard::Whole);
        self.said()
    }
}

fn bodies(said: &[Update]) -> Vec<market::Body> {
    said.iter().map(|update| update.body).collect()
}

/// The fields of all images, by number.
fn fields(said: &[Update]) -> Vec<(u8, Option<String>)> {
    let mut fields = Vec::new();
    for update in said {
        if let market::Body::Image { len, nulls, numbers, values, .. } = update.body {
            let value = |at: usize| (nulls >> at & 1 == 0).then(|| values[at].to_string());
            fields.extend((0..usize::from(len)).map(|at| (numbers[at], value(at))));
        }
    }
    fields.sort_unstable();
    fields
}

#[test]
fn a_row_becomes_its_fields_with_every_digit_and_the_sources_time() {
    let (case, said) = Case::following();
    let vcb = case.symbols.find("VCB").expect("listed");
    assert!(said.iter().all(|update| update.symbol == vcb && update.time == Time(1_000_000)));
    let (phase, state) = (market::Body::Phase(Phase::Ato), market::Body::State(State::Live));
    assert_eq!(bodies(&said[..2]), [phase, state], "the doubt before the values");
    let (last, date) = (Some("61.40".to_owned()), Some("20261122".to_owned()));
    assert_eq!(fields(&said), [(quote::LAST, last), (quote::BID, None), (quote::TRADING_DATE, date)]);
    assert_eq!(said.len(), 3, "trades before the first picture are nobody's loss: {said:?}");
}

#[test]
fn what_is_no_image_is_said_as_it_is() {
    let (mut case, _) = Case::following();
    let key = r#""symbol":"VCB","q":5,"time_us":2000"#;
    let bar = r#""start_us":0,"open":"1","high":"3","low":"1","close":"2.5","volume":"7","trades":2"#;
    let rows = [
        format!(
            r#"{{{key},"rev":13,"channel":"book","bids":[["61.40","5"],["61.3","1"]],"asks":[["62","7.0"]]}}"#
        ),
        trade(14, 5),
        format!(r#"{{{key},"rev":15,"channel":"status","phase":"break"}}"#),
        format!(r#"{{{key},"rev":16,"channel":"bar_1m",{bar},"final":false}}"#),
    ];
    let said = case.hear(16, &format!(r#""rows":[{}]"#, rows.join(",")));
    let level = |side, price, size, reset| {
        let exact = |text| Decimal::from_str_exact(text).expect("a number");
        market::Body::Level(Level { price: exact(price), size: exact(size), side, reset })
    };
    let got = bodies(&said);
    let book = [
        level(Side::Buy, "61.40", "5", true),
        level(Side::Buy, "61.3", "1", false),
        level(Side::Sell, "62", "7.0", false),
    ];
    assert_eq!(got[..3], book);
    let [
        market::Body::Trade(trade),
        market::Body::Missing { channel: Channel::Status, count: 4 },
        phase,
        market::Body::Bar(bar),
    ] = got[3..]
    else {
        panic!("{got:?}")
    };
    assert_eq!((trade.trade_id, phase, bar.trades), (5, market::Body::Phase(Phase::Break), 2));
    // A book that is empty now says so; who never had one says nothing.
    let empty = |name: &str, rev| {
        format!(r#"{{"symbol":"{name}","channel":"book","rev":{rev},"q":6,"bids":[],"asks":[]}}"#)
    };
    let fpt = r#"{"symbol":"FPT","rev":17,"q":0,"time_us":0,"full":true,"state":"pending","last":null}"#;
    let said = case.hear(19, &format!(r#""rows":[{fpt},{},{}]"#, empty("VCB", 18), empty("FPT", 19)));
    let nothing = market::Body::State(State::Pending);
    assert_eq!(bodies(&said)[1..], [nothing, level(Side::Buy, "0", "0", true)]);
}

#[test]
fn losses_are_missing_and_repeats_are_not_said() {
    let (mut case, _) = Case::following();
    let gap = r#""gaps":[{"topic":"trade:VCB","from":5,"to":7,"reason":"ingest_overflow"}]"#;
    let said = case.hear(14, &format!(r#""rows":[{}],{gap}"#, trade(14, 8)));
    assert_eq!(bodies(&said)[0], market::Body::missing(Channel::Trade, 3));
    assert_eq!(said.len(), 2);
    let said = case.hear(16, &format!(r#""rows":[{},{}]"#, trade(15, 8), trade(16, 11)));
    assert_eq!(bodies(&said)[0], market::Body::missing(Channel::Trade, 2), "passed over in silence");
    assert_eq!(said.len(), 2, "number 8 was said");
    // The picture of the same run: only what is new in it, and the trades that this line did not bring.
    let row = vcb(11, r#""full":true,"state":"live","last":"61.40""#);
    let said = case.reconnect("e1", 13, &row);
    assert_eq!(bodies(&said), [market::Body::missing(Channel::Trade, 2)]);
}

#[test]
fn a_doubt_of_the_upstream_comes_before_the_values_and_ends_after_them() {
    let (mut case, _) = Case::following();
    for (rev, state) in [
        (13, State::Stale),
        (14, State::Closed),
        (15, State::Halted),
        (16, State::Suspect),
        (17, State::Live),
    ] {
        let said =
            case.hear(rev, &format!(r#""rows":[{}]"#, vcb(rev, &format!(r#""state":"{}""#, state.name()))));
        assert_eq!(bodies(&said), [market::Body::State(state)]);
    }
    let said =
        case.hear(18, &format!(r#""rows":[{}]"#, vcb(18, r#""state":"pending","phase":null,"last":null"#)));
    assert_eq!(fields(&said), [(PHASE, None), (quote::LAST, None)]);
    assert_eq!(said[2].body, market::Body::State(State::Pending), "that there is nothing comes last");
}

#[test]
fn another_run_of_the_upstream_is_no_run_of_ours() {
    let (mut case, _) = Case::following();
    let book = r#"{"symbol":"VCB","channel":"book","rev":13,"q":1,"time_us":1,"bids":[["1","1"]],"asks":[]}"#;
    case.hear(14, &format!(r#""rows":[{book},{}]"#, trade(14, 5)));
    let fpt = vcb(11, r#""full":true,"state":"live","last":"9.90""#).replace("VCB", "FPT");
    let said = case.reconnect("e2", 2, &fpt);
    let vcb = case.symbols.find("VCB").expect("listed");
    let of_vcb: Vec<Update> = said.iter().filter(|update| update.symbol == vcb).copied().collect();
    let lost = |count| market::Body::missing(Channel::Trade, count);
    assert_eq!(
        bodies(&of_vcb[..2]),
        [lost(1), lost(2)],
        "between the runs, and in the new one before we came"
    );
    let reset = |body: &market::Body| matches!(body, market::Body::Level(level) if level.reset && level.size.is_zero());
    assert!(reset(&of_vcb[2].body), "{of_vcb:?}");
    let emptied = fields(&of_vcb);
    assert!(emptied.iter().all(|(number, value)| *number != STATE && value.is_none()));
    assert_eq!(emptied.len(), quote::FIELDS.len() - 1);
    assert_eq!(of_vcb.last().map(|update| update.body), Some(market::Body::State(State::Pending)));
    assert_eq!(said.len() - of_vcb.len(), 2, "the other symbol's state and price");
    let said = case.hear(13, &format!(r#""rows":[{}]"#, trade(13, 3)));
    assert_eq!(said.len(), 1, "numbers begin anew");
}

#[test]
fn a_name_of_another_feed_is_refused_and_its_rows_are_not_said() {
    let symbols = Arc::new(Symbols::new(3));
    let own = symbols.list(FeedId(7), "VCB", Channel::Quote).expect("room");
    symbols.set_group("VN30", &[own]);
    let mut case =
        Case { peer: following(), retelling: Retelling::new(Arc::clone(&symbols)), symbols, seq: 1 };
    let groups = br#"{"groups":[{"group":"VN30","symbols":["VCB","FPT"]}]}"#;
    let directory = Directory::read(&mut br#"{"symbols":[]}"#.to_vec(), &mut groups.to_vec());
    case.peer.told().directory = Some(directory.expect("lists"));
    let fpt = vcb(13, r#""full":true,"state":"live","last":"9.90""#).replace("VCB", "FPT");
    let said = case.hear(14, &format!(r#""rows":[{fpt},{}]"#, trade(14, 5)));
    let fpt = case.symbols.find("FPT").expect("listed");
    assert!(said.len() == 2 && said.iter().all(|update| update.symbol == fpt), "{said:?}");
    assert_eq!(case.peer.told().refused(), 1);
    assert_eq!(case.symbols.group("VN30").as_deref(), Some(&[own, fpt][..]), "a group has members of both");
}
