//! `/v1/history/{topic}`: the events of a topic that are still in the log, oldest first.
//!
//! Bounds kept here: `HISTORY_EVENTS_MAX` events in an answer, and how far the log is walked while everybody else waits.

use std::collections::VecDeque;
use std::sync::Arc;

use tickgate_feeds::market::{Channel, Time};
use tickgate_feeds::symbols::Symbols;

use super::form::Form;
use crate::base::limits::{ANSWER_BYTES, HISTORY_EVENTS_MAX};
use crate::base::reason::Reason;
use crate::flow::conflation::Rev;
use crate::flow::conflation::log::{self, Event, What};
use crate::flow::dispatch::topic::{Target, Topic, TopicName};
use crate::flow::dispatch::wish::Style;
use crate::flow::frame::command::{self, Mistake};
use crate::flow::frame::row::{encode_event, push_gap, push_topic};
use crate::flow::frame::text::Text;
use crate::gateway::http::Parts;
use crate::gateway::ingest::Ingest;

/// Events walked over in the hub at once: 2 µs where they lie close together, and a miss of the cache for each where not.
const STEPS_AT_ONCE: usize = 256;
/// Events in a part of an answer: 64 KiB of text.
const EVENTS_AT_ONCE: usize = 256;
/// Events of an answer when the client does not say.
const LIMIT_DEFAULT: usize = 100;
const KEYS: [&str; 3] = ["limit", "since_q", "decimals"];

// An answer holds its events while it is taken.
const _: () = assert!(HISTORY_EVENTS_MAX * size_of::<Event>() + (64 << 10) <= ANSWER_BYTES);

/// What a client wants of a topic's events.
struct Asked {
    limit: usize,
    /// Those after this number, from the first on; without it the last ones.
    since_q: Option<u64>,
    strings: bool,
}

/// What the log has of them.
struct Taken {
    /// Oldest first.
    events: VecDeque<Event>,
    /// Later ones were left out.
    has_more: bool,
    known: log::Topic,
    rev: Rev,
    epoch: Arc<str>,
}

/// The last events of the topic of this name, or those that a client lacks.
pub fn history(name: &str, query: &str, form: Form, ingest: &Ingest, now: Time) -> Result<Parts, Mistake> {
    let topic = resolve(&command::percent_decode(name)?, ingest.symbols())?;
    let asked = Asked::parse(query)?;
    let Taken { events, has_more, known, rev, epoch } = take(topic, &asked, ingest);
    if asked.since_q.is_some_and(|since_q| since_q > known.q) {
        let message = format!("since_q: expected at most {}; numbers begin anew with each epoch", known.q);
        return Err(Mistake::new(Reason::BadRequest, message));
    }
    let symbol = ingest.symbols().listing(topic.symbol()).map(|listing| listing.name).unwrap_or_default();
    let (ts_us, last_q) = (now.us(), known.q);
    let first_q = (known.q > known.gone_q).then_some(known.gone_q + 1);
    let first_q = first_q.map_or_else(|| "null".to_owned(), |q| q.to_string());
    let (mut name, mut gaps) = (Text::default(), Text::default());
    push_topic(&mut name, topic.channel(), &symbol);
    let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
    let begin = format!(
        "{{\"epoch\":\"{epoch}\",\"rev\":{rev},\"ts_us\":{ts_us},\"topic\":\"{name}\",\
         \"first_q\":{first_q},\"last_q\":{last_q},\"rows\":["
    );
    events.iter().for_each(|event| put_gap(&mut gaps, event, &symbol));
    let gaps = String::from_utf8_lossy(gaps.as_bytes()).trim_end_matches(',').to_owned();
    let end = format!("],\"gaps\":[{gaps}],\"more\":{has_more}}}");
    let rows = (0..events.len()).step_by(EVENTS_AT_ONCE).map(move |from| {
        let events = events.range(from..events.len().min(from + EVENTS_AT_ONCE));
        lines(events, &symbol, form == Form::Ndjson, asked.strings)
    });
    Ok(form.answer(begin, columns(topic.channel()), rows, end))
}

/// The one topic of this name, if it has events.
fn resolve(name: &str, symbols: &Symbols) -> Result<Topic, Mistake> {
    let refuse = |code, message: &str| Mistake::new(code, format!("topic: {message}"));
    let parsed = TopicName::parse(name).map_err(|refusal| refuse(refusal.code, &refusal.message))?;
    if !matches!(parsed.target, Target::Symbol(_)) {
        return Err(refuse(Reason::BadTopic, "expected one symbol, no group and no pattern"));
    }
    let topics = parsed.resolve(symbols, 1).map_err(|refusal| refuse(refusal.code, &refusal.message))?;
    let kept = "no history is kept of images, expected trade, status, bar_1s, bar_1m, bar_5m or bar_1h";
    let topic = topics.first().filter(|topic| topic.channel() > Channel::Book);
    topic.copied().ok_or_else(|| refuse(Reason::BadTopic, kept))
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Mistake> {
        let wrong = |message: String| Mistake::new(Reason::BadRequest, message);
        let (mut limit, mut since_q, mut strings) = (None, None, None);
        for pair in command::pairs(query) {
            let (key, value) = pair?;
            let is_twice = match key.as_str() {
                "limit" => {
                    let count = value.parse().ok().filter(|count| (1..=HISTORY_EVENTS_MAX).contains(count));
                    let expected =
                        || wrong(format!("limit: expected a whole number from 1 to {HISTORY_EVENTS_MAX}"));
                    limit.replace(count.ok_or_else(expected)?).is_some()
                }
                "since_q" => {
                    let number =
                        value.parse().map_err(|_| wrong("since_q: expected a whole number".into()))?;
                    since_q.replace(number).is_some()
                }
                "decimals" => strings.replace(command::decimals_are_strings(&value)?).is_some(),
                other => return Err(command::unknown_key(other, &KEYS)),
            };
            if is_twice {
                return Err(wrong(format!("{key}: given twice, expected once")));
            }
        }
        let (limit, strings) = (limit.unwrap_or(LIMIT_DEFAULT), strings.unwrap_or_default());
        Ok(Self { limit, since_q, strings })
    }
}

/// Copies the events from the log, some of them at a time: shards and feeds wait meanwhile.
fn take(topic: Topic, asked: &Asked, ingest: &Ingest) -> Taken {
    let (channel, symbol) = (topic.channel(), topic.symbol());
    let since_q = asked.since_q.unwrap_or(0);
    let (events, known, epoch) = (VecDeque::new(), log::Topic::default(), Arc::default());
    let mut taken = Taken { events, has_more: false, known, rev: 0, epoch };
    let mut chain = None;
    let mut goes_on = true;
    while goes_on {
        goes_on = ingest.with_hub(|hub| {
            if chain.is_none() {
                hub.list_new();
                (taken.known, taken.rev) = (*hub.log().topic(channel, symbol), hub.rev());
                taken.epoch = Arc::clone(&hub.node().epoch);
            }
            if hub.node().epoch != taken.epoch {
                return false; // another run's log
            }
            let chain = chain.get_or_insert_with(|| hub.log().chain(channel, symbol));
            (0..STEPS_AT_ONCE).all(|_| match hub.log().older(chain).filter(|event| event.q > since_q) {
                Some(event) => taken.take(*event, asked),
                None => false,
            })
        });
    }
    if let Some(since_q) = asked.since_q {
        taken.begin_after(since_q, topic);
    }
    taken
}

impl Taken {
    /// Takes the next older event; false when there is no need for more.
    fn take(&mut self, event: Event, asked: &Asked) -> bool {
        if self.events.len() == asked.limit {
            if asked.since_q.is_none() {
                return false;
            }
            // Who goes on from a number gets the first ones after it.
            self.events.pop_back();
            self.has_more = true;
        }
        self.events.push_front(event);
        true
    }

    /// Says what is missing between this number and the first event: the log no longer has it.
    fn begin_after(&mut self, since_q: u64, topic: Topic) {
        let first_q = match self.events.front_mut() {
            None => self.known.gone_q + 1,
            Some(Event { what: What::Gap { from, .. }, .. }) => {
                *from.insert(from.unwrap_or(0).max(since_q + 1))
            }
            Some(event) => event.q,
        };
        if first_q > since_q + 1 {
            let gone = self.known.gone(topic.channel(), topic.symbol());
            let what =
                What::Gap { channel: topic.channel(), from: Some(since_q + 1), reason: Reason::LogOverrun };
            self.events.push_front(Event { q: first_q - 1, what, ..gone });
        }
    }
}

/// The events' rows, with a line feed behind each; with `gaps` also what is missing between them.
fn lines<'a>(events: impl Iterator<Item = &'a Event>, symbol: &str, gaps: bool, strings: bool) -> Vec<u8> {
    let style = Style { strings, columns: false };
    let mut out = Text::default();
    for event in events {
        if !matches!(event.what, What::Gap { .. }) {
            encode_event(&mut out, symbol, event, style);
        } else if gaps {
            put_gap(&mut out, event, symbol);
            out.truncate(out.len() - 1); // the comma
        } else {
            continue;
        }
        out.put(b"\n");
    }
    out.as_bytes().to_vec()
}

/// Appends what this event says is missing, if it does, with a comma behind it.
fn put_gap(out: &mut Text, event: &Event, symbol: &str) {
    if let What::Gap { channel, from, reason } = event.what {
        push_gap(out, channel, symbol, from, event.q, reason.label());
    }
}

/// The columns of a channel's rows.
fn columns(channel: Channel) -> Vec<&'static str> {
    let mut columns = vec!["symbol", "rev", "q", "time_us"];
    columns.extend_from_slice(match channel {
        Channel::Trade => &["price", "size", "side", "kind", "trade_id", "ref_trade_id", "source_seq"],
        Channel::Status => &["phase"],
        _ => &["start_us", "open", "high", "low", "close", "volume", "trades", "partial"],
    });
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::Limits;
    use crate::flow::adapter::Sink;
    use crate::flow::conflation::cut::Node;
    use rust_decimal::Decimal;
    use serde_json::Value;
    use tickgate_feeds::market::{Body, FeedId, Side, Symbol, Trade, TradeKind, Update};

    struct World {
        ingest: Ingest,
    }

    impl World {
        /// A, with trades of which the fifth is missing, and B; the log holds so many events.
        fn new(log_events_max: usize, trades: u32) -> Self {
            let limits = Limits { log_events_max, ..Limits::default() };
            let table = Arc::new(Symbols::new(2));
            let list = |name| table.list(FeedId(0), name, Channel::Quote).expect("room");
            let (a, b) = (list("A"), list("B"));
            let ingest = Ingest::new(Arc::clone(&table), Node::new("e", "e"), &limits, Vec::new());
            let trade = |symbol: Symbol, number: u32| {
                let (price, side, kind) = (Decimal::new(number.into(), 2), Some(Side::Buy), TradeKind::New);
                let (trade_id, ref_trade_id, source_seq) = (number.into(), 0, 0);
                let trade =
                    Trade { price, size: Decimal::ONE, trade_id, ref_trade_id, source_seq, side, kind };
                Update::new(symbol, Time(1_000 * i64::from(number)), Body::Trade(trade))
            };
            for number in (1..=trades).filter(|number| *number != 5) {
                if number == 6 {
                    ingest.push(&[Update::new(a, Time(6_000), Body::missing(Channel::Trade, 1))]);
                }
                ingest.push(&[trade(a, number), trade(b, number)]);
            }
            Self { ingest }
        }

        fn ask(&self, name: &str, query: &str, form: Form) -> Result<String, String> {
            let parts = history(name, query, form, &self.ingest, Time(7_000));
            let bytes: Vec<u8> = parts.map_err(|mistake| mistake.message)?.flatten().collect();
            Ok(String::from_utf8(bytes).expect("text"))
        }

        /// The numbers of the trades, the gaps, and whether there are more.
        fn page(&self, query: &str) -> (Vec<u64>, Vec<(u64, u64)>, bool) {
            let page: Value =
                serde_json::from_str(&self.ask("trade:A", query, Form::Json).expect(query)).expect("JSON");
            let list = |key: &str| page[key].as_array().expect("a list").clone();
            let number = |value: &Value| value.as_u64().expect("a number");
            (
                list("rows").iter().map(|row| number(&row["q"])).collect(),
                list("gaps").iter().map(|gap| (number(&gap["from"]), number(&gap["to"]))).collect(),
                page["more"] == true,
            )
        }
    }

    #[test]
    fn pages_follow_each_other_without_a_hole() {
        let world = World::new(100, 10);
        assert_eq!(world.page(""), (vec![1, 2, 3, 4, 6, 7, 8, 9, 10], vec![(5, 5)], false));
        assert_eq!(world.page("limit=2"), (vec![9, 10], vec![], false), "the last ones");
        assert_eq!(world.page("limit=2&since_q=0"), (vec![1, 2], vec![], true), "the first ones");
        assert_eq!(world.page("limit=3&since_q=2"), (vec![3, 4], vec![(5, 5)], true));
        assert_eq!(world.page("limit=900&since_q=5"), (vec![6, 7, 8, 9, 10], vec![], false));
        assert_eq!(world.page("since_q=10"), (vec![], vec![], false));
    }

    #[test]
    fn what_fell_out_of_the_log_is_a_gap() {
        // Of 1,000 trades of each the last 300 are there.
        let world = World::new(600, 1_000);
        let (rows, gaps, has_more) = world.page("limit=1000&since_q=600");
        assert_eq!((rows.first(), rows.last(), rows.len()), (Some(&701), Some(&1_000), 300));
        assert_eq!((gaps, has_more), (vec![(601, 700)], false));
        assert_eq!(world.page("limit=2&since_q=0"), (vec![701, 702], vec![(1, 700)], true));
        assert_eq!(world.page("limit=1000").1, [], "who asks for the last ones holds nothing yet");
        let page = world.ask("trade:A", "limit=1", Form::Json).expect("a page");
        assert!(page.contains(r#""topic":"trade:A","first_q":701,"last_q":1000,"#), "{page}");
        let page = world.ask("bar_1m:A", "", Form::Json).expect("no bars yet");
        assert!(page.contains(r#""first_q":null,"last_q":0,"rows":[],"gaps":[],"more":false}"#), "{page}");
    }

    #[test]
    fn a_loss_without_a_beginning_is_one_gap() {
        let topic = Topic::new(Channel::Trade, Symbol::at(0));
        let known = log::Topic::default();
        let gap = Event { q: 10, ..known.gone(topic.channel(), topic.symbol()) };
        let (events, epoch) = (VecDeque::from([gap]), Arc::default());
        let mut taken = Taken { events, has_more: false, known, rev: 9, epoch };
        taken.begin_after(3, topic);
        let (from, reason) = (Some(4), Reason::LogOverrun);
        let what = What::Gap { channel: topic.channel(), from, reason };
        assert_eq!(taken.events, [Event { what, ..gap }]);
    }

    #[test]
    fn rows_alone_say_what_is_missing_in_its_place() {
        let world = World::new(100, 6);
        let lines = world.ask("trade%3AA", "since_q=3&decimals=string", Form::Ndjson).expect("lines");
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(
            lines.iter().map(|line| &line["q"]).collect::<Vec<_>>(),
            [&Value::from(4), &Value::Null, &6.into()]
        );
        assert_eq!((&lines[1]["from"], &lines[1]["reason"]), (&5.into(), &"upstream_gap".into()));
        assert_eq!(lines[2]["price"], "0.06");
        let table = world.ask("trade:A", "since_q=3", Form::Csv).expect("a table");
        let names = "symbol,rev,q,time_us,price,size,side,kind,trade_id,ref_trade_id,source_seq";
        let expected: Vec<&str> =
            vec![names, "A,9,4,4,0.04,1,buy,new,4,,", "A,12,6,6,0.06,1,buy,new,6,,", ""];
        assert_eq!(table.split("\r\n").collect::<Vec<_>>(), expected);
    }

    #[test]
    fn mistakes_say_what_was_wrong_and_what_was_expected() {
        let world = World::new(100, 1);
        let kept =
            "topic: no history is kept of images, expected trade, status, bar_1s, bar_1m, bar_5m or bar_1h";
        for (name, query, expected) in [
            ("A", "", kept),
            ("book:A", "", kept),
            ("trade:C", "", "topic: no such symbol"),
            ("trade:*", "", "topic: expected one symbol, no group and no pattern"),
            ("trade:@X", "", "topic: expected one symbol, no group and no pattern"),
            ("trade:A", "limit=0", "limit: expected a whole number from 1 to 1000"),
            ("trade:A", "limit=1001", "limit: expected a whole number from 1 to 1000"),
            ("trade:A", "since_q=-1", "since_q: expected a whole number"),
            ("trade:A", "since_q=2", "since_q: expected at most 1; numbers begin anew with each epoch"),
            ("trade:A", "since=1", "unknown key \"since\", did you mean \"since_q\"?"),
            ("trade:A", "limit=1&limit=2", "limit: given twice, expected once"),
        ] {
            assert_eq!(world.ask(name, query, Form::Json), Err(expected.to_owned()), "{name}?{query}");
        }
    }
}
