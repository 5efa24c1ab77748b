//! What clients of the world ask for, by chance.

use fastrand::Rng;
use serde_json::Value;

use super::filter::FILTERS;

/// The first five are of images.
pub const TOPICS: [&str; 11] = [
    "*",
    "@THIRD",
    "A*",
    "A00",
    "B01",
    "trade:*",
    "trade:A02",
    "book:A00",
    "trade:@THIRD",
    "status:*",
    "bar_1s:*",
];
const RATES: [f64; 4] = [2.0, 5.0, 10.0, 50.0];

pub fn subscribe(random: &mut Rng) -> Value {
    let mut topics: Vec<&str> =
        (0..random.usize(1..4)).map(|_| TOPICS[random.usize(..TOPICS.len())]).collect();
    topics.dedup();
    let mut command = serde_json::json!({ "action": "subscribe", "topics": topics });
    if random.bool() {
        command["rate"] = RATES[random.usize(..RATES.len())].into();
    }
    let mode = ["conflate", "every", "trade_safe"][random.usize(..3)];
    command["mode"] = mode.into();
    if random.u8(..3) == 0 {
        command["fields"] = serde_json::json!(["last", "bid"]);
    }
    if random.u8(..4) == 0 {
        command["delta"] = false.into();
    }
    if random.u8(..3) == 0 {
        command["columns"] = true.into();
    }
    if random.bool() {
        command["digest"] = random.u32(1..4).into();
    }
    if random.u8(..3) == 0 {
        let of_images = mode == "conflate" || random.u8(..10) == 0;
        let filter = &FILTERS[if of_images { random.usize(..FILTERS.len()) } else { FILTERS.len() - 1 }];
        command["filter"] = filter.text.into();
        if filter.waits {
            command["digest"] = 0.into(); // what is held back cannot be told in one number
        }
    }
    command
}

pub fn update(random: &mut Rng) -> Value {
    let topic = TOPICS[random.usize(..TOPICS.len())];
    let mut command = serde_json::json!({ "action": "update" });
    match random.u8(..10) {
        9 => command["mode"] = ["conflate", "every", "trade_safe"][random.usize(..3)].into(),
        6 => command["filter"] = FILTERS[random.usize(..FILTERS.len())].text.into(),
        7 => command["filter"] = Value::Null,
        8 => command["columns"] = random.bool().into(),
        0 => command["add"] = serde_json::json!([topic]),
        1 => command["remove"] = serde_json::json!([topic]),
        2 => command["topics"] = serde_json::json!([topic, "A01"]),
        3 => command["rate"] = serde_json::json!(RATES[random.usize(..RATES.len())]),
        4 => command["rate"] = Value::Null,
        _ => command["fields"] = [serde_json::json!(["ask", "last"]), Value::Null][random.usize(..2)].clone(),
    }
    command
}
