//! What a session's messages are made of on their way: MessagePack and compressed ones, as the JSON that says the same.

use rust_decimal::Decimal;
use serde_json::Value;

/// A MessagePack message as the JSON that says the same: numbers that are not whole came as strings.
pub fn unpack(payload: &[u8]) -> String {
    let value: Value = rmp_serde::from_slice(payload).expect("MessagePack");
    let mut text = String::new();
    put(&value, &mut text);
    text
}

fn put(value: &Value, out: &mut String) {
    let is_number = |text: &str| text.contains('.') && text.parse::<Decimal>().is_ok();
    match value {
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                put(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (at, (key, value)) in members.iter().enumerate() {
                out.push_str(if at == 0 { "\"" } else { ",\"" });
                out.push_str(key);
                out.push_str("\":");
                put(value, out);
            }
            out.push('}');
        }
        Value::String(text) if is_number(text) => out.push_str(text),
        other => out.push_str(&other.to_string()),
    }
}

/// A compressed message by itself, without the end that is not sent.
pub fn inflate(payload: &[u8]) -> Vec<u8> {
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut text = Vec::with_capacity(1 << 20);
    let inflated =
        flate2::Decompress::new(false).decompress_vec(&whole, &mut text, flate2::FlushDecompress::Sync);
    assert!(inflated.is_ok() && !text.is_empty() && text.len() < text.capacity(), "{inflated:?}");
    text
}
