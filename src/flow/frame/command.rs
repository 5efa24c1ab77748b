//! Commands of a client, from JSON text or from the URL.
//!
//! Bound kept here: the caller's bounds on message size and topics per command; JSON depth is the library's 128.
//! A key that nobody knows is an error that names the nearest known one: a typing error must not pass in silence.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tickgate_feeds::spec::nearest;

use super::answer::echo;
use crate::base::limits::{DEPTH_MAX, Limits};
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::dispatch::filter::{Filter, Slip};
use crate::flow::dispatch::wish::{Fields, Mode, Options, Rate};

/// What a client wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Topics from now on.
    Subscribe(Box<Subscribe>),
    /// Other topics or options for a subscription, from now on.
    Update(Box<Update>),
    /// No more of this subscription.
    Unsubscribe {
        /// The client's name for it.
        sub: String,
    },
    /// Its subscriptions.
    List,
    /// A pong.
    Ping,
}

/// A new subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    /// The client's own name; the session numbers those without.
    pub sub: Option<String>,
    /// As written.
    pub topics: Vec<String>,
    /// What was given of them.
    pub options: Options,
    /// Begin with a whole picture.
    pub snapshot: bool,
    /// It holds a picture from before and would go on from there.
    pub since: Option<Since>,
}

/// A change of a subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// The client's name for it.
    pub sub: String,
    /// All topics from now on, as written.
    pub topics: Option<Vec<String>>,
    /// Further topics.
    pub add: Vec<String>,
    /// Topics no more.
    pub remove: Vec<String>,
    /// What was given of them.
    pub options: Options,
}

/// Where a client left off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since {
    /// The run of revisions.
    pub epoch: String,
    /// The revision of the last frame.
    pub rev: Rev,
    /// The subscription's name, as it was given with it; without one the client vouches that it is the same.
    pub wish: Option<String>,
    /// The newest revision of any row, if that is above the last frame's.
    pub seen: Option<Rev>,
}

impl Since {
    /// Reads a cursor as URLs and events have it: `epoch:rev:wish`, or without the wish.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (epoch, rev) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        Some(Self { epoch, rev, wish: parts.next().map(str::to_owned), seen: None })
    }
}

/// A command with the client's id for the answer.
#[derive(Debug)]
pub struct Request {
    /// A JSON number or string, given back as it is.
    pub id: Option<Box<RawValue>>,
    /// What it wants, or what was wrong.
    pub command: Result<Command, Mistake>,
}

/// What was wrong and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `code` on the wire.
    pub code: Reason,
    /// For people.
    pub message: String,
    /// When the same would be taken, for mistakes that time mends.
    pub retry_after_ms: Option<u64>,
}

impl Mistake {
    /// For this reason, with words of its own.
    pub fn new(code: Reason, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None }
    }

    /// For this reason, in its own words.
    pub fn of(code: Reason) -> Self {
        Self::new(code, code.text())
    }

    /// Commands came too fast.
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Self { retry_after_ms: Some(retry_after_ms), ..Self::of(Reason::RateLimited) }
    }
}

fn mistake(message: impl Into<String>) -> Mistake {
    Mistake::new(Reason::BadRequest, message)
}

const ACTIONS: [&str; 5] = ["subscribe", "update", "unsubscribe", "list", "ping"];
/// The longest `sub` and `id`, in characters.
const SUB_CHARS_MAX: usize = 64;

impl Request {
    /// Reads a message of a client.
    pub fn parse(text: &str, limits: &Limits) -> Self {
        let parsed: Result<Value, _> = serde_json::from_str(text);
        let mut object = match parsed {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Self { id: None, command: Err(mistake("expected a JSON object")) },
            Err(error) => return Self { id: None, command: Err(mistake(format!("not JSON: {error}"))) },
        };
        let (id, wrong_id) = match object.remove("id") {
            None | Some(Value::Null) => (None, false),
            Some(id @ Value::Number(_)) => (serde_json::value::to_raw_value(&id).ok(), false),
            Some(Value::String(id)) if id.chars().count() <= SUB_CHARS_MAX => {
                (serde_json::value::to_raw_value(&id).ok(), false)
            }
            Some(_) => (None, true),
        };
        if wrong_id {
            return Self {
                id,
                command: Err(mistake("id: expected a number, or a string of at most 64 characters")),
            };
        }
        Self { id, command: command(object, limits) }
    }
}

fn command(mut object: Map<String, Value>, limits: &Limits) -> Result<Command, Mistake> {
    // `{"type":"ping"}` is how many articles on the subject write it.
    let action = object.remove("action").or_else(|| object.remove("type"));
    let action = match action {
        Some(Value::String(action)) => action,
        Some(_) => return Err(mistake("action: expected a string")),
        None => return Err(mistake(format!("action: missing, expected one of {}", ACTIONS.join(", ")))),
    };
    let command = match action.as_str() {
        "subscribe" => Command::Subscribe(Box::new(subscribe(&mut object, limits)?)),
        "update" => Command::Update(Box::new(update(&mut object, limits)?)),
        "unsubscribe" => {
            let sub =
                string(&mut object, "sub")?.ok_or_else(|| mistake("sub: missing, expected a string"))?;
            Command::Unsubscribe { sub }
        }
        "list" => Command::List,
        "ping" => Command::Ping,
        other => {
            let message =
                format!("unknown action \"{}\", expected one of {}", echo(other), ACTIONS.join(", "));
            return Err(Mistake::new(Reason::UnknownAction, message));
        }
    };
    let known: &[&str] = match command {
        Command::Subscribe(_) => &SUBSCRIBE_KEYS,
        Command::Update(_) => &UPDATE_KEYS,
        Command::Unsubscribe { .. } => &["sub", "id"],
        _ => &["id"],
    };
    object.keys().next().map_or(Ok(command), |key| Err(unknown_key(key, known)))
}

const SUBSCRIBE_KEYS: [&str; 15] = [
    "sub", "topics", "topic", "snapshot", "since", "mode", "rate", "fields", "delta", "depth", "decimals",
    "columns", "digest", "window", "filter",
];
const UPDATE_KEYS: [&str; 14] = [
    "sub", "topics", "add", "remove", "mode", "rate", "fields", "delta", "depth", "decimals", "columns",
    "digest", "window", "filter",
];

const QUERY_KEYS: [&str; 15] = [
    "symbols", "topics", "sub", "snapshot", "since", "mode", "rate", "fields", "delta", "depth", "decimals",
    "columns", "digest", "window", "filter",
];

fn subscribe(object: &mut Map<String, Value>, limits: &Limits) -> Result<Subscribe, Mistake> {
    let topics = match (object.remove("topics"), object.remove("topic")) {
        (Some(list), None) => strings(list, "topics")?,
        (None, Some(Value::String(topic))) => vec![topic],
        (None, Some(_)) => return Err(mistake("topic: expected a string")),
        (None, None) => return Err(mistake("topics: missing, expected a list of strings")),
        (Some(_), Some(_)) => return Err(mistake("topic: give either topic or topics")),
    };
    check_topics(&topics, limits)?;
    let options = options(object)?;
    let snapshot = boolean(object, "snapshot")?.unwrap_or(true);
    if options.mode == Some(Mode::Snapshot) && !snapshot {
        return Err(mistake("snapshot: expected true, or another mode than snapshot"));
    }
    let sub = sub_name(string(object, "sub")?)?;
    Ok(Subscribe { sub, topics, options, snapshot, since: since(object.remove("since"))? })
}

fn update(object: &mut Map<String, Value>, limits: &Limits) -> Result<Update, Mistake> {
    let sub = string(object, "sub")?.ok_or_else(|| mistake("sub: missing, expected a string"))?;
    let mut list = |key| match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(list) => strings(list, key).map(Some),
    };
    let (topics, add, remove) = (list("topics")?, list("add")?, list("remove")?);
    if topics.is_some() && (add.is_some() || remove.is_some()) {
        return Err(mistake("topics: give either topics, which sets the list, or add and remove"));
    }
    if let Some(topics) = &topics {
        check_topics(topics, limits)?;
    }
    let (add, remove) = (add.unwrap_or_default(), remove.unwrap_or_default());
    check_count("add", &add, limits)?;
    check_count("remove", &remove, limits)?;
    let options = options(object)?;
    if options.mode == Some(Mode::Snapshot) {
        return Err(mistake("mode: a running subscription cannot become a snapshot"));
    }
    Ok(Update { sub, topics, add, remove, options })
}

/// Takes the options that `subscribe` and `update` share.
fn options(object: &mut Map<String, Value>) -> Result<Options, Mistake> {
    let rate = match object.remove("rate") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(rate) => {
            let rate = rate.as_f64().ok_or_else(|| mistake("rate: expected frames per second, a number"))?;
            Some(Some(check_rate(rate)?))
        }
    };
    let fields = match object.remove("fields") {
        None => None,
        Some(Value::Null) => Some(Fields::ALL),
        Some(list) => Some(fields_named(&strings(list, "fields")?)?),
    };
    let given = |value: Option<Value>| value.filter(|value| !value.is_null());
    let depth = given(object.remove("depth")).map(|depth| check_depth(depth.as_u64().unwrap_or(0)));
    let digest = given(object.remove("digest")).map(|every| {
        let every = every.as_u64().and_then(|every| u32::try_from(every).ok());
        every.ok_or_else(|| mistake("digest: expected a whole number of frames, 0 for none"))
    });
    let filter = match object.remove("filter") {
        None => None,
        Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(filter(&text)?)),
        Some(_) => return Err(mistake("filter: expected a string such as \"last > 60000\"")),
    };
    let mode = string(object, "mode")?.map(|name| mode(&name));
    let strings = string(object, "decimals")?.map(|name| decimals_are_strings(&name));
    Ok(Options {
        mode: mode.transpose()?,
        rate,
        fields,
        delta: boolean(object, "delta")?,
        window: boolean(object, "window")?,
        depth: depth.transpose()?,
        strings: strings.transpose()?,
        columns: boolean(object, "columns")?,
        digest: digest.transpose()?,
        filter,
    })
}

/// Reads the subscription in a URL's query, if there is one; the keys are those of `subscribe`.
pub fn from_query(query: &str, limits: &Limits) -> Result<Option<Box<Subscribe>>, Mistake> {
    let mut values: Map<String, Value> = Map::new();
    for pair in pairs(query) {
        let (key, value) = pair?;
        let list = |value: &str| value.split(',').filter(|part| !part.is_empty()).map(Value::from).collect();
        // What is no number stays text, and is refused as such.
        let number = |value: &str| match value.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::from(number),
            _ => Value::from(value),
        };
        let value = match key.as_str() {
            "symbols" | "topics" => Value::Array(list(&value)),
            "fields" => Value::Array(list(&value)),
            "rate" => number(&value),
            "depth" | "digest" => value.parse::<u64>().map_or_else(|_| Value::from(value), Value::from),
            "delta" | "snapshot" | "columns" | "window" => match value.as_str() {
                "true" | "1" => Value::Bool(true),
                "false" | "0" => Value::Bool(false),
                _ => Value::from(value),
            },
            "mode" | "decimals" | "filter" | "sub" | "since" => Value::from(value),
            other => return Err(unknown_key(other, &QUERY_KEYS)),
        };
        // Nobody could tell which of two was meant.
        let (key, twice) = match key.as_str() {
            "symbols" | "topics" => {
                ("topics", "symbols and topics mean the same: expected one of them, once")
            }
            key => (key, "given twice, expected once"),
        };
        if values.insert(key.to_owned(), value).is_some() {
            return Err(mistake(format!("{key}: {twice}")));
        }
    }
    if values.is_empty() {
        return Ok(None);
    }
    if !values.contains_key("topics") {
        return Err(mistake("symbols: missing, expected a list of topics"));
    }
    Ok(Some(Box::new(subscribe(&mut values, limits)?)))
}

/// The keys of a URL's query with their values, both decoded.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), Mistake>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((percent_decode(key)?, percent_decode(value)?))
    })
}

/// Decodes %XX of a URL's query.
pub fn percent_decode(text: &str) -> Result<String, Mistake> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |at: usize| tail.get(at).and_then(|c| char::from(*c).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (b'%', ..) => return Err(mistake("URL: expected two hexadecimal digits after %")),
            (b'+', ..) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, ..) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).map_err(|_| mistake("URL: expected UTF-8"))
}

fn check_topics(topics: &[String], limits: &Limits) -> Result<(), Mistake> {
    if topics.is_empty() {
        return Err(mistake("topics: expected at least one"));
    }
    check_count("topics", topics, limits)
}

fn check_count(key: &str, topics: &[String], limits: &Limits) -> Result<(), Mistake> {
    let (count, max) = (topics.len(), limits.topics_per_command_max);
    if count > max {
        let message = format!("{key}: {count} in one command, expected at most {max}");
        return Err(Mistake::new(Reason::TopicLimit, message));
    }
    Ok(())
}

fn check_rate(rate: f64) -> Result<f64, Mistake> {
    if rate >= Rate::MIN.per_second() && rate.is_finite() {
        return Ok(rate);
    }
    Err(mistake(format!("rate: expected frames per second, at least {}", Rate::MIN.per_second())))
}

fn check_depth(depth: u64) -> Result<u16, Mistake> {
    if (1..=u64::from(DEPTH_MAX)).contains(&depth) {
        return Ok(depth as u16);
    }
    Err(mistake(format!("depth: expected a whole number from 1 to {DEPTH_MAX}")))
}

fn mode(name: &str) -> Result<Mode, Mistake> {
    let known = Mode::ALL.into_iter().find(|mode| mode.name() == name);
    known.ok_or_else(|| mistake(format!("mode: expected one of {}", Mode::ALL.map(Mode::name).join(", "))))
}

fn fields_named(names: &[String]) -> Result<Fields, Mistake> {
    if names.is_empty() {
        return Ok(Fields::ALL);
    }
    Fields::named(names.iter().map(String::as_str))
        .map_err(|name| mistake(format!("fields: no field \"{}\"", echo(name))))
}

/// Whether decimals are wanted as strings.
pub fn decimals_are_strings(decimals: &str) -> Result<bool, Mistake> {
    match decimals {
        "number" => Ok(false),
        "string" => Ok(true),
        _ => Err(mistake("decimals: expected \"number\" or \"string\"")),
    }
}

fn filter(text: &str) -> Result<Filter, Mistake> {
    Filter::parse(text).map_err(|Slip { column, expected, found }| {
        mistake(format!("filter: column {column}: expected {expected}, found {}", echo(&found)))
    })
}

/// A cursor: an object, or in a URL its parts with colons between them.
fn since(value: Option<Value>) -> Result<Option<Since>, Mistake> {
    let expected = || {
        let parts = "{\"epoch\":..,\"rev\":..,\"wish\":..,\"seen\":..}";
        mistake(format!("since: expected {parts}, in a URL epoch:rev:wish"))
    };
    let text = |key, part| match part {
        Value::String(text) => Ok(text),
        _ => Err(mistake(format!("since.{key}: expected a string"))),
    };
    let number = |key, part: Value| {
        part.as_u64().ok_or_else(|| mistake(format!("since.{key}: expected a whole number")))
    };
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Since::parse(&text).map(Some).ok_or_else(expected),
        Some(Value::Object(mut since)) => {
            let mut part = |key| since.remove(key).filter(|part| !part.is_null());
            let (epoch, rev, wish, seen) = (part("epoch"), part("rev"), part("wish"), part("seen"));
            if let Some(key) = since.keys().next() {
                return Err(unknown_key(key, &["epoch", "rev", "wish", "seen"]));
            }
            Ok(Some(Since {
                epoch: text("epoch", epoch.unwrap_or_default())?,
                rev: number("rev", rev.unwrap_or_default())?,
                wish: wish.map(|wish| text("wish", wish)).transpose()?,
                seen: seen.map(|seen| number("seen", seen)).transpose()?,
            }))
        }
        Some(_) => Err(expected()),
    }
}

fn sub_name(sub: Option<String>) -> Result<Option<String>, Mistake> {
    let fine = |sub: &str| {
        (1..=SUB_CHARS_MAX).contains(&sub.len())
            && sub.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:@*/-".contains(&b))
    };
    match sub {
        Some(sub) if !fine(&sub) => Err(mistake("sub: expected 1 to 64 characters of [A-Za-z0-9._:@*/-]")),
        sub => Ok(sub),
    }
}

fn string(object: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Mistake> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(mistake(format!("{key}: expected a string"))),
    }
}

fn boolean(object: &mut Map<String, Value>, key: &str) -> Result<Option<bool>, Mistake> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(yes)) => Ok(Some(yes)),
        Some(_) => Err(mistake(format!("{key}: expected true or false"))),
    }
}

fn strings(list: Value, key: &str) -> Result<Vec<String>, Mistake> {
    let expected = || mistake(format!("{key}: expected a list of strings"));
    let Value::Array(list) = list else { return Err(expected()) };
    let string = |value| if let Value::String(text) = value { Ok(text) } else { Err(expected()) };
    list.into_iter().map(string).collect()
}

/// A key is none of those known: names the nearest of them.
pub fn unknown_key(key: &str, known: &[&str]) -> Mistake {
    let nearest = nearest(key, known).map(|near| format!(", did you mean \"{near}\"?")).unwrap_or_default();
    mistake(format!("unknown key \"{}\"{nearest}", echo(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> String {
        let mistake = Request::parse(text, &Limits::default()).command.expect_err(text);
        format!("{}: {}", mistake.code.label(), mistake.message)
    }

    #[test]
    fn mistakes_say_what_was_wrong_and_what_was_expected() {
        for (text, expected) in [
            ("nonsense", "bad_request: not JSON: expected ident at line 1 column 2"),
            ("[]", "bad_request: expected a JSON object"),
            (
                "{}",
                "bad_request: action: missing, expected one of subscribe, update, unsubscribe, list, ping",
            ),
            (r#"{"action":7}"#, "bad_request: action: expected a string"),
            (
                r#"{"action":"sbuscribe"}"#,
                "unknown_action: unknown action \"sbuscribe\", expected one of subscribe, update, unsubscribe, list, ping",
            ),
            (r#"{"action":"subscribe"}"#, "bad_request: topics: missing, expected a list of strings"),
            (r#"{"action":"subscribe","topics":"VCB"}"#, "bad_request: topics: expected a list of strings"),
            (r#"{"action":"subscribe","topics":[1]}"#, "bad_request: topics: expected a list of strings"),
            (
                r#"{"action":"subscribe","topics":["A"],"rate":-1}"#,
                "bad_request: rate: expected frames per second, at least 0.1",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"rate":"fast"}"#,
                "bad_request: rate: expected frames per second, a number",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"fields":["lats"]}"#,
                "bad_request: fields: no field \"lats\"",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"depth":0}"#,
                "bad_request: depth: expected a whole number from 1 to 1000",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"filter":"last > 'abc'"}"#,
                "bad_request: filter: column 8: expected a number, found 'abc'",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"filter":7}"#,
                "bad_request: filter: expected a string such as \"last > 60000\"",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"feilds":[]}"#,
                "bad_request: unknown key \"feilds\", did you mean \"fields\"?",
            ),
            (
                r#"{"action":"subscribe","topics":["A"],"id":{}}"#,
                "bad_request: id: expected a number, or a string of at most 64 characters",
            ),
            (r#"{"action":"update","rate":5}"#, "bad_request: sub: missing, expected a string"),
            (
                r#"{"action":"update","sub":"1","topics":["A"],"add":["B"]}"#,
                "bad_request: topics: give either topics, which sets the list, or add and remove",
            ),
            (r#"{"action":"update","sub":"1","snapshot":true}"#, "bad_request: unknown key \"snapshot\""),
            (
                r#"{"action":"subscribe","topics":["A"],"digest":-1}"#,
                "bad_request: digest: expected a whole number of frames, 0 for none",
            ),
            (r#"{"action":"unsubscribe"}"#, "bad_request: sub: missing, expected a string"),
        ] {
            assert_eq!(wrong(text), expected);
        }
    }

    #[test]
    fn an_update_may_add_or_remove_nothing_but_not_too_much() {
        let limits = Limits { topics_per_command_max: 2, ..Limits::default() };
        let said = |lists: &str| {
            let text = format!(r#"{{"action":"update","sub":"x",{lists},"rate":5}}"#);
            Request::parse(&text, &limits).command.map_err(|mistake| (mistake.code, mistake.message))
        };
        for lists in [r#""add":[],"remove":[]"#, r#""add":[],"remove":["A","B"]"#, r#""add":["A"]"#] {
            assert!(matches!(said(lists), Ok(Command::Update(_))), "{lists}");
        }
        for (lists, code, expected) in [
            (r#""topics":[]"#, Reason::BadRequest, "topics: expected at least one"),
            (r#""topics":["A","B","C"]"#, Reason::TopicLimit, "topics: 3 in one command, expected at most 2"),
            (r#""add":["A","B","C"]"#, Reason::TopicLimit, "add: 3 in one command, expected at most 2"),
            (r#""remove":["A","B","C"]"#, Reason::TopicLimit, "remove: 3 in one command, expected at most 2"),
        ] {
            assert_eq!(said(lists), Err((code, expected.to_owned())));
        }
    }

    #[test]
    fn a_mistake_in_a_cursor_names_the_part_that_is_wrong() {
        for (since, expected) in [
            (
                "7",
                "since: expected {\"epoch\":..,\"rev\":..,\"wish\":..,\"seen\":..}, in a URL epoch:rev:wish",
            ),
            (r#"{"rev":1}"#, "since.epoch: expected a string"),
            (r#"{"epoch":"x"}"#, "since.rev: expected a whole number"),
            (r#"{"epoch":"x","rev":-1}"#, "since.rev: expected a whole number"),
            (r#"{"epoch":"x","rev":1,"wish":7}"#, "since.wish: expected a string"),
            (r#"{"epoch":"x","rev":1,"seen":"y"}"#, "since.seen: expected a whole number"),
            (r#"{"epoch":"x","rew":1}"#, "unknown key \"rew\", did you mean \"rev\"?"),
        ] {
            let said = wrong(&format!(r#"{{"action":"subscribe","topics":["A"],"since":{since}}}"#));
            assert_eq!(said, format!("bad_request: {expected}"));
        }
    }

    #[test]
    fn the_spellings_of_articles_are_understood() {
        let limits = Limits::default();
        assert_eq!(Request::parse(r#"{"type":"ping"}"#, &limits).command, Ok(Command::Ping));
        let request = Request::parse(r#"{"action":"subscribe","topic":"VN30","id":"x"}"#, &limits);
        assert_eq!(request.id.expect("an id").get(), "\"x\"");
        let Ok(Command::Subscribe(subscribe)) = request.command else { panic!("a subscription") };
        assert_eq!(subscribe.topics, ["VN30"]);
    }

    #[test]
    fn a_url_subscribes_like_a_message() {
        let query =
            from_query("symbols=VCB,%40VN30&rate=5&fields=last,bid&filter=last+%3E+5", &Limits::default());
        let subscribe = query.expect("valid").expect("a subscription");
        assert_eq!(subscribe.topics, ["VCB", "@VN30"]);
        assert_eq!(subscribe.options.rate, Some(Some(5.0)));
        assert_eq!(subscribe.options.filter, Some(Filter::parse("last > 5").ok()));
        assert_eq!(from_query("", &Limits::default()), Ok(None));
        assert!(from_query("symbols=A&rate=x", &Limits::default()).is_err());
        assert!(from_query("symbols=%4", &Limits::default()).is_err());
        let same = "topics: symbols and topics mean the same: expected one of them, once";
        for (query, expected) in [
            ("symbols=A&topics=B", same),
            ("topics=A&rate=1&symbols=A", same),
            ("symbols=A&symbols=B", same),
            ("symbols=A&rate=1&rate=2", "rate: given twice, expected once"),
            ("symbols=A&%72ate=1&rate=1", "rate: given twice, expected once"),
        ] {
            let mistake = from_query(query, &Limits::default()).expect_err(query);
            assert_eq!((mistake.code, mistake.message.as_str()), (Reason::BadRequest, expected));
        }
        assert!(
            from_query("symbol=VCB", &Limits::default()).is_err_and(|m| m.message.contains("\"symbols\""))
        );
    }
}
