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
    let (head, head_len) = websocket::header(Opcode::Text, len);
    json!({ "about": about, "hex": hex(&head[..head_len]), "opcode": "text", "letter": "x", "times": len })
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
        let price = Some(exact("61400"));
        stage.push(&[Update::image(symbol, Channel::Quote, stage.time(), &[(quote::LAST, price)])]);
    }
    stage
}

/// A first picture for a client that agreed on compression, and its text.
fn compressed() -> Value {
    let picture = |form: Packing| {
        let mut stage = stage();
        let peer = stage.connect_as("symbols=*&fields=last,bid,ask", 1 << 20, form);
        (0..3).for_each(|_| stage.after_ms(10));
        let (mut bytes, mut last) = (peer.bytes(usize::MAX), Vec::new());
        while !bytes.is_empty() {
            last.clone_from(&bytes);
            next_frame(&mut bytes).expect("whole frames");
        }
        last
    };
    let mut frame = picture(Packing { window_bits: Some(15), ..Packing::default() });
    let (hex, mut plain) = (hex(&frame), picture(Packing::default()));
    let (opcode, _) = next_frame(&mut frame).expect("a frame");
    assert_eq!(opcode, COMPRESSED_TEXT);
    let (_, text) = next_frame(&mut plain).expect("a frame");
    let text = String::from_utf8(text).expect("text");
    json!({ "about": "a compressed message", "hex": hex, "opcode": "text", "compressed": true, "text": text })
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
