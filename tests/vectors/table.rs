//! What a client holds and how it takes a message: the rules of `docs/protocol.md` and nothing else. It shares no code with
//! the gateway.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// A value's JSON text, by name.
type Row = BTreeMap<String, String>;

/// Keys of a row that say what it is, or what became of it on its way.
const NOT_HELD: [&str; 6] = ["symbol", "channel", "full", "hi", "lo", "vol"];
/// Keys of a row that are integers; every other number is a decimal.
const INTEGERS: [&str; 8] =
    ["rev", "q", "time_us", "start_us", "trades", "trade_id", "ref_trade_id", "source_seq"];

/// What an array says by `null`, and an object leaves out.
const ABSENT: [&str; 3] = ["trade_id", "ref_trade_id", "source_seq"];

/// All subscriptions of a client, by name. They outlive a connection.
#[derive(Default)]
pub struct Table {
    subs: BTreeMap<String, Sub>,
    /// As the gateway greeted.
    epoch: String,
    /// How the gateway itself can be trusted, unless it is live.
    link: Option<String>,
    silence_ms: u64,
}

#[derive(Clone, Default)]
struct Sub {
    epoch: String,
    /// Nothing while there is no connection.
    stream: Option<u64>,
    mode: String,
    /// A filter leaves trades out.
    sparse: bool,
    columns: Vec<Option<Vec<String>>>,
    seq: Option<u64>,
    rev: u64,
    wish: String,
    rows: BTreeMap<String, Row>,
    /// Of topics of which every event is given: the last number, and how many were lost.
    q: BTreeMap<String, u64>,
    lost: BTreeMap<String, u64>,
}

/// What a message meant, besides what is held after it.
#[derive(Default)]
struct Meaning {
    verdict: &'static str,
    /// Frames that were merged into this one.
    merged: u64,
    /// The events in it that were not held: topic and number.
    events: Vec<(String, u64)>,
}

impl Meaning {
    fn of(verdict: &'static str) -> Self {
        Self { verdict, ..Self::default() }
    }
}

impl Table {
    /// Another connection: streams of the one before mean nothing.
    pub fn connect(&mut self) {
        self.subs.values_mut().for_each(|sub| (sub.stream, sub.seq) = (None, None));
        self.link = None;
    }

    /// Takes a message. Returns what a client must then hold, as JSON; nothing if the message changes nothing.
    pub fn take(&mut self, text: &str) -> Option<String> {
        let message: Value = serde_json::from_str(text).expect("JSON");
        let meaning = match message["type"].as_str().expect("a type") {
            "welcome" => {
                self.epoch = string(&message["epoch"]);
                // Two and a half intervals.
                self.silence_ms = message["heartbeat_ms"].as_u64().expect("a number") * 5 / 2;
                return None;
            }
            "subscribed" => self.subscribed(&message),
            "updated" => self.updated(&message),
            "unsubscribed" => {
                self.subs.remove(&string(&message["sub"]));
                Meaning::of("ok")
            }
            "batch" => self.batch(&message, text),
            "heartbeat" => self.heartbeat(&message),
            "link" => {
                self.link = Some(string(&message["state"])).filter(|state| state != "live");
                Meaning::of("ok")
            }
            _ => return None,
        };
        Some(self.show(&meaning))
    }

    /// Nothing is heard for a while.
    pub fn silent(&self, ms: u64) -> String {
        self.show(&Meaning::of(if ms > self.silence_ms { "stale" } else { "ok" }))
    }

    /// The cursor of a subscription, to go on from.
    pub fn since(&self, sub: &str) -> Value {
        let sub = &self.subs[sub];
        serde_json::json!({ "epoch": sub.epoch, "rev": sub.rev, "wish": sub.wish })
    }

    fn subscribed(&mut self, message: &Value) -> Meaning {
        let mut sub = Sub { epoch: self.epoch.clone(), ..Sub::answered(message) };
        let had = self.subs.remove(&string(&message["sub"]));
        let goes_on = matches!(message["recovered"].as_str(), Some("exact" | "conflated"));
        let drops = !goes_on && had.as_ref().is_some_and(|had| !had.rows.is_empty());
        if let Some(had) = had.filter(|_| goes_on) {
            sub.goes_on(had);
        }
        self.subs.insert(string(&message["sub"]), sub);
        Meaning::of(if drops { "reset" } else { "ok" })
    }

    fn updated(&mut self, message: &Value) -> Meaning {
        let had = self.subs.remove(&string(&message["sub"])).expect("a subscription");
        let mut sub = Sub::answered(message);
        if had.stream == sub.stream {
            sub = had;
        } else {
            sub.epoch.clone_from(&had.epoch);
            sub.goes_on(had);
            sub.narrow(message);
        }
        self.subs.insert(string(&message["sub"]), sub);
        Meaning::of("ok")
    }

    fn heartbeat(&mut self, message: &Value) -> Meaning {
        let mut verdict = "ok";
        for (stream, told) in message["streams"].as_object().expect("streams") {
            let stream = Some(stream.parse().expect("a number"));
            let sub = self.subs.values_mut().find(|sub| sub.stream == stream).expect("ours");
            if told["seq"].as_u64() == sub.seq {
                sub.rev = told["rev"].as_u64().expect("a rev");
            } else {
                verdict = "gap";
            }
        }
        Meaning::of(verdict)
    }

    fn batch(&mut self, message: &Value, text: &str) -> Meaning {
        let stream = message["stream"].as_u64();
        let sub = self.subs.values_mut().find(|sub| sub.stream == stream).expect("ours");
        let (seq, prev) = (message["seq"].as_u64(), message["prev"].as_u64());
        if prev.is_some() && prev != sub.seq {
            return Meaning::of("gap");
        }
        let mut meaning = Meaning::of("ok");
        let is_new_epoch = message["epoch"].as_str().is_some_and(|epoch| *epoch != sub.epoch);
        if is_new_epoch {
            sub.epoch = string(&message["epoch"]);
            sub.q.clear();
        }
        if is_new_epoch || prev.is_none() {
            let dropped = std::mem::take(&mut sub.rows);
            meaning.verdict = if dropped.is_empty() { "ok" } else { "reset" };
        }
        meaning.merged = prev.zip(seq).map_or(0, |(prev, seq)| (seq - prev).saturating_sub(1));
        (sub.seq, sub.rev) = (seq, message["rev"].as_u64().expect("a rev"));
        message["gaps"].as_array().into_iter().flatten().for_each(|gap| sub.lose(gap));
        let parts: BTreeMap<&str, &RawValue> = serde_json::from_str(text).expect("JSON");
        let rows: Vec<&RawValue> = serde_json::from_str(parts["rows"].get()).expect("rows");
        let news = rows.iter().filter(|row| sub.apply(row.get(), &mut meaning.events)).count();
        if news == 0 && !rows.is_empty() {
            meaning.verdict = "repeat";
        }
        meaning
    }

    fn show(&self, meaning: &Meaning) -> String {
        let mut out = format!(r#"{{"verdict":"{}""#, meaning.verdict);
        if meaning.merged > 0 {
            put(&mut out, format_args!(r#","merged":{}"#, meaning.merged));
        }
        if !meaning.events.is_empty() {
            put(&mut out, format_args!(r#","events":{}"#, serde_json::json!(meaning.events)));
        }
        if let Some(link) = &self.link {
            put(&mut out, format_args!(r#","link":"{link}""#));
        }
        let subs: Vec<_> =
            self.subs.iter().map(|(name, sub)| format!("\n  \"{name}\":{}", sub.show())).collect();
        put(&mut out, format_args!(r#","subs":{{{}}}}}"#, subs.join(",")));
        out
    }
}

impl Sub {
    fn answered(message: &Value) -> Self {
        let numbers = message["q"].as_object().into_iter().flatten();
        Self {
            stream: message["stream"].as_u64(),
            mode: string(&message["mode"]),
            sparse: message["q"] == "sparse",
            columns: Option::deserialize(&message["columns"]).expect("lists of names").unwrap_or_default(),
            // Who wants no picture goes on from here, the others begin with a batch whose `prev` is null.
            seq: message["seq"].as_u64(),
            wish: string(&message["wish"]),
            q: numbers.map(|(topic, q)| (topic.clone(), q.as_u64().expect("a number"))).collect(),
            ..Self::default()
        }
    }

    /// Keeps what was held before.
    fn goes_on(&mut self, had: Self) {
        (self.rows, self.lost, self.rev) = (had.rows, had.lost, had.rev);
        self.q.extend(had.q);
    }

    /// Drops what is in the subscription no more.
    fn narrow(&mut self, updated: &Value) {
        for topic in updated["removed"].as_array().into_iter().flatten() {
            let topic = topic.as_str().expect("a topic");
            self.rows.remove(topic);
            self.q.remove(topic);
            self.lost.remove(topic);
        }
        let selected: Option<Vec<String>> = Option::deserialize(&updated["fields"]).expect("names");
        let depth = updated["depth"].as_u64().expect("a number") as usize;
        for (topic, row) in &mut self.rows {
            if topic.starts_with("book:") {
                for side in ["bids", "asks"] {
                    let mut levels: Vec<&RawValue> = serde_json::from_str(&row[side]).expect("levels");
                    levels.truncate(depth);
                    let levels = serde_json::to_string(&levels).expect("levels");
                    row.insert(side.to_owned(), levels);
                }
            }
            let Some(selected) = selected.as_ref().filter(|_| !topic.contains(':')) else { continue };
            let is_selected = |name: &String| selected.contains(name);
            // A channel that has none of the names stays whole.
            if row.keys().any(|name| name != "state" && is_selected(name)) {
                row.retain(|name, _| INTEGERS.contains(&name.as_str()) || is_selected(name));
            }
        }
    }

    fn lose(&mut self, gap: &Value) {
        let (topic, to) = (string(&gap["topic"]), gap["to"].as_u64().expect("a number"));
        if !topic.contains(':') {
            return; // changes of an image: its full row follows
        }
        let next = self.q.get(&topic).map(|held| held + 1);
        // Who expects no number yet misses none before the first that it is told.
        let from = gap["from"].as_u64().or(next).unwrap_or(to + 1).max(next.unwrap_or(0));
        if from <= to {
            *self.lost.entry(topic.clone()).or_default() += to - from + 1;
        }
        let held = self.q.entry(topic).or_default();
        *held = to.max(*held);
    }

    /// Applies a row, unless it was held before; notes it if it is an event.
    fn apply(&mut self, text: &str, events: &mut Vec<(String, u64)>) -> bool {
        let row = self.read(text);
        let symbol = row["symbol"].trim_matches('"').to_owned();
        let channel = row.get("channel").map(|channel| channel.trim_matches('"'));
        let topic = channel.map_or(symbol.clone(), |channel| format!("{channel}:{symbol}"));
        if row.contains_key("out") {
            return self.rows.remove(&topic).is_some();
        }
        let number = |row: &Row, key: &str| row[key].parse::<u64>().expect("a number");
        let whole = channel.is_some() || row.contains_key("full");
        if self.is_every(channel, &row) {
            let (q, held) = (number(&row, "q"), self.q.get(&topic));
            if held.is_some_and(|held| q <= *held) {
                return false;
            }
            assert!(self.sparse || held.is_none_or(|held| q == held + 1), "{topic}: {held:?} and then {q}");
            self.q.insert(topic.clone(), q);
            events.push((topic.clone(), q));
        } else if channel.is_none() && !whole {
            if self.rows.get(&topic).is_some_and(|held| number(held, "rev") >= number(&row, "rev")) {
                return false;
            }
            if self.mode == "every" {
                events.push((topic.clone(), number(&row, "q")));
            }
        }
        let held = self.rows.entry(topic).or_default();
        if whole {
            held.clear();
        }
        held.extend(row.into_iter().filter(|(key, _)| !NOT_HELD.contains(&key.as_str())));
        true
    }

    /// A row by its names, also one that came as an array.
    fn read(&self, text: &str) -> Row {
        if text.starts_with('{') {
            let row: BTreeMap<String, &RawValue> = serde_json::from_str(text).expect("a row");
            return row.into_iter().map(|(key, value)| (key, value.get().to_owned())).collect();
        }
        let values: Vec<&RawValue> = serde_json::from_str(text).expect("a row");
        let mut values = values.iter().map(|value| value.get().to_owned());
        let list = values.next().and_then(|number| number.parse::<usize>().ok()).expect("a list's number");
        let names = self.columns[list].as_ref().expect("a list");
        let mut row = Row::new();
        // Which of the columns behind it follow, and where the first of those is.
        let mut mask: Option<(u64, usize)> = None;
        for (at, name) in names.iter().enumerate().skip(1) {
            if mask.is_some_and(|(mask, first)| mask >> (at - first) & 1 == 0) {
                continue;
            }
            let value = values.next().expect("a value");
            if name == "mask" {
                mask = Some((value.parse().expect("a mask"), at + 1));
            } else if !(value == "null" && ABSENT.contains(&name.as_str())
                || name == "partial" && value == "false")
            {
                row.insert(name.clone(), value);
            }
        }
        match mask {
            Some((mask, first)) if mask.count_ones() as usize == names.len() - first => {
                row.insert("full".to_owned(), "true".to_owned());
            }
            Some(_) => {}
            None => drop(row.insert("channel".to_owned(), names[0].clone())),
        }
        row
    }

    /// Whether every row of the topic is given, by the channel's numbers.
    fn is_every(&self, channel: Option<&str>, row: &Row) -> bool {
        match channel {
            Some("trade") => self.mode == "every" || self.mode == "trade_safe",
            Some("status") => true,
            Some("book") | None => false,
            Some(_) => row["final"] == "true",
        }
    }

    fn show(&self) -> String {
        let rows = self.rows.iter().map(|(topic, row)| format!("\n   \"{topic}\":{}", show_row(row)));
        let rows = rows.collect::<Vec<_>>().join(",");
        let [q, lost] = [&self.q, &self.lost].map(|map| serde_json::to_string(map).expect("numbers"));
        let seq = self.seq.map_or("null".to_owned(), |seq| seq.to_string());
        format!(r#"{{"seq":{seq},"rev":{},"q":{q},"lost":{lost},"rows":{{{rows}}}}}"#, self.rev)
    }
}

/// Decimals as strings: no parser spoils them. What every row has comes first.
fn show_row(row: &Row) -> String {
    let first = ["rev", "q", "time_us"];
    let rest = row.keys().map(String::as_str).filter(|key| !first.contains(key));
    let mut out = String::new();
    for key in first.into_iter().chain(rest) {
        let comma = if out.is_empty() { "{" } else { "," };
        put(&mut out, format_args!("{comma}\"{key}\":"));
        let text = &row[key];
        match key {
            "bids" | "asks" => {
                let levels: Vec<[&RawValue; 2]> = serde_json::from_str(text).expect("levels");
                let levels = levels.iter().map(|level| level.map(|value| value.get().trim_matches('"')));
                out += &serde_json::to_string(&levels.collect::<Vec<_>>()).expect("levels");
            }
            _ if INTEGERS.contains(&key) || !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                out += text;
            }
            _ => put(&mut out, format_args!("\"{text}\"")),
        }
    }
    out + "}"
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a string grows");
}

fn string(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
