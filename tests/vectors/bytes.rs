//! Bytes on the wire: WebSocket frames of every length and kind, and the events of a stream.

use serde_json::{Value, json};
use tickgate::base::limits::Limits;
use tickgate::base::reason::Reason;
use tickgate::flow::dispatch::wish::Packing;
use tickgate::flow::frame::websocket::{self, Opcode};
use tickgate::flow::socket::events::EventStream;
use tickgate_feeds::market::{Channel, Update, quote};

use super::script::exact;
use crate::stage::Stage;
use crate::world::wire::{COMPRESSED_TEXT, next_frame};

/// The file.
pub fn text() -> String {
    let frames = [
        short(),
        long("the longest payload with a head of two bytes", 125),
        long("the shortest with a head of four", 126),
        long("the longest with a head of four", 65_535),
        long("the shortest with a head of ten", 65_536),
        control("a ping without payload", Opcode::Ping, b""),
        control("a pong gives back what the ping had", Opcode::Pong, b"hello"),
        close(Reason::Slow),
        close(Reason::Restart),
        compressed(),
        packed(false),
        packed(true),
    ];
    let lines = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>().join(",\n");
    let about = "WebSocket frames of the gateway, in hexadecimal, and an event stream. Of long payloads only the head is \
                 given: the text is one letter, repeated.";
    format!(
        "{{\"about\":{},\n\"frames\":[\n{}\n],\n\"events\":[\n{}\n]}}\n",
        json!(about),
        lines(&frames),
        lines(&events())
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn short() -> Value {
    let text = r#"{"type":"pong","ts_us":1700000001000000}"#;
    let frame = websocket::frame(Opcode::Text, text.as_bytes());
    json!({ "about": "a message", "hex": hex(&frame), "opcode": "text", "text": text })
}

fn long(about: &str, len: usize) -> Value {
    let frame = websocket::frame(Opcode::Text, &vec![b'x'; len]);
    let head = &frame[..frame.len() - len];
    json!({ "about": about, "hex": hex(head), "opcode": "text", "letter": "x", "times": len })
}

fn control(about: &str, opcode: Opcode, payload: &[u8]) -> Value {
    let name = if opcode == Opcode::Ping { "ping" } else { "pong" };
    let text = String::from_utf8_lossy(payload);
    json!({ "about": about, "hex": hex(&websocket::frame(opcode, payload)), "opcode": name, "text": text })
}

fn words(reason: Reason) -> String {
    format!("{}:{}", reason.label(), reason.text())
}

fn close(reason: Reason) -> Value {
    let code = reason.close_code().expect("a code");
    let frame = websocket::close(code, &words(reason));
    json!({ "about": "a goodbye", "hex": hex(&frame), "opcode": "close", "code": code, "reason": words(reason) })
}

/// A market that says enough for a picture to be compressed.
fn stage() -> Stage {
    let stage = Stage::new(Limits::default());
    for name in ["ACB", "FPT", "VCB"] {
        let symbol = stage.list(name, Channel::Quote);
        let fields = [(quote::LAST, Some(exact("61400"))), (quote::CHANGE, Some(exact("-0.50")))];
        stage.push(&[Update::image(symbol, Channel::Quote, stage.time(), &fields)]);
    }
    stage
}

/// The frame of a first picture, for a client that agreed on this.
fn picture(packing: Packing, query: &str) -> Vec<u8> {
    let mut stage = stage();
    let peer = stage.connect_as(query, 1 << 20, packing);
    (0..3).for_each(|_| stage.after_ms(10));
    let (mut bytes, mut last) = (peer.bytes(usize::MAX), Vec::new());
    while !bytes.is_empty() {
        last.clone_from(&bytes);
        next_frame(&mut bytes).expect("whole frames");
    }
    last
}

/// The same in JSON.
fn picture_text(query: &str) -> String {
    let (_, text) = next_frame(&mut picture(Packing::default(), query)).expect("a frame");
    String::from_utf8(text).expect("text")
}

fn compressed() -> Value {
    let query = "symbols=*&fields=last,bid,ask";
    let frame = picture(Packing { window_bits: Some(15), ..Packing::default() }, query);
    assert_eq!(next_frame(&mut frame.clone()).map(|(opcode, _)| opcode), Some(COMPRESSED_TEXT));
    let (about, text) = ("a compressed message", picture_text(query));
    json!({ "about": about, "hex": hex(&frame), "opcode": "text", "compressed": true, "text": text })
}

/// In MessagePack, with decimals as the market has them or as strings.
fn packed(strings: bool) -> Value {
    let form = if strings { "string" } else { "number" };
    let query = format!("symbols=*&fields=last,change,bid&decimals={form}");
    let frame = picture(Packing { is_binary: true, ..Packing::default() }, &query);
    let about = format!("MessagePack, decimals as {form}");
    json!({ "about": about, "hex": hex(&frame), "opcode": "binary", "text": picture_text(&query) })
}

/// A picture, a change and the end, as frames and as events.
fn events() -> Vec<Value> {
    let mut stage = stage();
    let mut peer = stage.connect("symbols=VCB&fields=last", 1 << 20);
    (0..3).for_each(|_| stage.after_ms(10));
    let mut frames = peer.frames(usize::MAX);
    stage.shard.drain();
    stage.after_ms(10);
    frames.extend(peer.frames(usize::MAX));
    let mut stream = EventStream::default();
    let event = |(opcode, payload): (u8, Vec<u8>)| {
        let is_text = opcode == Opcode::Text as u8;
        let frame = websocket::frame(if is_text { Opcode::Text } else { Opcode::Close }, &payload);
        let mut event = Vec::new();
        stream.write(&frame, &mut event).expect("memory takes all");
        let event = String::from_utf8(event).expect("text");
        let data = event.lines().find_map(|line| line.strip_prefix("data: ")).expect("a message");
        json!({ "event": event, "message": data })
    };
    frames.into_iter().map(event).collect()
}
