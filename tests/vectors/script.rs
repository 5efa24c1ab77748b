//! How a vector is written: the market moves, the client speaks, and everything that is heard is noted with what the client
//! then holds.

use std::fmt::Write;

use rust_decimal::Decimal;
use serde_json::{Value, json};
use tickgate::base::limits::Limits;
use tickgate::flow::adapter::Sink;
use tickgate_feeds::market::{
    Body, Channel, FeedId, Level, Phase, Side, State, Symbol, Trade, TradeKind, Update,
};

use super::table::Table;
use crate::stage::{Peer, Stage};
use crate::world::wire::{CLOSE, TEXT};

/// A vector under way.
pub struct Script {
    pub stage: Stage,
    about: &'static str,
    peer: Option<Peer>,
    table: Table,
    steps: Vec<String>,
    trades: u64,
}

impl Script {
    pub fn new(about: &'static str, limits: Limits) -> Self {
        let stage = Stage::new(limits);
        Self { stage, about, peer: None, table: Table::default(), steps: Vec::new(), trades: 0 }
    }

    /// A client with this query; its kernel takes all that comes.
    pub fn connect(&mut self, query: &str) {
        self.connect_slow(query, 1 << 20);
    }

    /// A client whose kernel holds so many bytes for it.
    pub fn connect_slow(&mut self, query: &str, room: usize) {
        self.peer = Some(self.stage.connect(query, room));
        self.table.connect();
        self.note(&json!({ "connect": query }), None);
    }

    /// The client sends a command, which is answered.
    pub fn send(&mut self, command: &Value) {
        self.send_text(&command.to_string());
    }

    pub fn send_text(&mut self, text: &str) {
        self.client().send(text);
        self.note(&json!({ "send": text }), None);
        self.turn(1);
    }

    /// The cursor of a subscription as the client holds it.
    pub fn since(&self, sub: &str) -> Value {
        self.table.since(sub)
    }

    /// Time passes, the gateway speaks, and the client hears all of it.
    pub fn turn(&mut self, ms: u64) {
        self.stage.after_ms(ms);
        self.hear(usize::MAX);
    }

    /// The client hears at most so many bytes of what has come.
    pub fn hear(&mut self, bytes: usize) {
        for (opcode, payload) in self.client().frames(bytes) {
            if opcode == CLOSE {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                let close = json!({ "code": code, "reason": String::from_utf8_lossy(&payload[2..]) });
                self.note(&json!({ "close": close }), None);
                continue;
            }
            assert_eq!(opcode, TEXT);
            let text = String::from_utf8(payload).expect("text");
            let hold = self.table.take(&text);
            self.note(&json!({ "receive": text }), hold);
        }
    }

    /// What the gateway says now the client does not get.
    pub fn lose(&mut self) {
        self.stage.after_ms(10);
        for (_, text) in self.client().read(usize::MAX) {
            self.note(&json!({ "lose": text }), None);
        }
    }

    /// The client hears nothing for so long, whatever the gateway does.
    pub fn silence(&mut self, ms: u64) {
        let hold = self.table.silent(ms);
        self.note(&json!({ "silent_ms": ms }), Some(hold));
    }

    fn client(&mut self) -> &mut Peer {
        self.peer.as_mut().expect("a client")
    }

    fn note(&mut self, step: &Value, hold: Option<String>) {
        let mut text = step.to_string();
        if let Some(hold) = hold {
            text.pop();
            write!(text, ",\n \"hold\":{hold}}}").expect("a string grows");
        }
        self.steps.push(text);
    }

    /// The file.
    pub fn text(&self) -> String {
        assert!(self.steps.len() > 3, "{}", self.about);
        format!("{{\"about\":{},\n\"steps\":[\n{}\n]}}\n", json!(self.about), self.steps.join(",\n"))
    }
}

/// The market.
impl Script {
    pub fn list(&self, name: &str) -> Symbol {
        self.stage.list(name, Channel::Quote)
    }

    /// Fields of a quote change; an empty text empties a field.
    pub fn quote(&self, symbol: Symbol, fields: &[(u8, &str)]) {
        self.image(symbol, Channel::Quote, fields);
    }

    pub fn image(&self, symbol: Symbol, channel: Channel, fields: &[(u8, &str)]) {
        let fields: Vec<_> =
            fields.iter().map(|(number, text)| (*number, (!text.is_empty()).then(|| exact(text)))).collect();
        self.stage.push(&[Update::image(symbol, channel, self.stage.time(), &fields)]);
    }

    /// A trade, by the next number of the venue.
    pub fn trade(&mut self, symbol: Symbol, price: &str, size: &str, side: Option<Side>) {
        self.trade_of_kind(symbol, price, size, side, TradeKind::New, 0);
    }

    pub fn trade_of_kind(
        &mut self,
        symbol: Symbol,
        price: &str,
        size: &str,
        side: Option<Side>,
        kind: TradeKind,
        ref_trade_id: u64,
    ) {
        self.trades += 1;
        let (price, size) = (exact(price), exact(size));
        let (trade_id, source_seq) = (self.trades, 1_000 + self.trades);
        let trade = Trade { price, size, trade_id, ref_trade_id, source_seq, side, kind };
        self.push(symbol, Body::Trade(trade));
    }

    /// A level of the book changes; the size 0 removes it.
    pub fn level(&self, symbol: Symbol, side: Side, price: &str, size: &str) {
        let (price, size) = (exact(price), exact(size));
        self.push(symbol, Body::Level(Level { price, size, side, reset: false }));
    }

    pub fn phase(&self, symbol: Symbol, phase: Phase) {
        self.push(symbol, Body::Phase(phase));
    }

    pub fn push(&self, symbol: Symbol, body: Body) {
        self.stage.push(&[Update::new(symbol, self.stage.time(), body)]);
    }

    /// How the feed is doing.
    pub fn feed(&self, state: State) {
        self.stage.ingest.set_state(FeedId(0), state);
    }
}

pub fn exact(text: &str) -> Decimal {
    Decimal::from_str_exact(text).expect("a decimal")
}
