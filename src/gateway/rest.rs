//! One-off answers over HTTP: images of now, symbols, groups.
//!
//! Bound kept here: as many topics per request as a session may have.

use serde::Serialize;
use serde_json::value::RawValue;
use tickgate_feeds::market::{Channel, Time};

use super::ingest::Ingest;
use super::shard::Identity;
use crate::base::reason::Reason;
use crate::flow::dispatch::topic::{Refusal, Topic, TopicName};
use crate::flow::frame::answer::Rejected;
use crate::flow::frame::command::{self, Mistake, Subscribe};
use crate::flow::frame::row::{Shape, encode_book, encode_image};
use crate::flow::frame::text::Text;

/// What the feeds of a gateway are called and whether their prices are made up; at the position of their id.
pub type FeedNames = Vec<(String, bool)>;

#[derive(Serialize)]
struct Snapshot<'a> {
    epoch: &'a str,
    rev: u64,
    ts_us: i64,
    rows: Box<RawValue>,
    rejected: Vec<Rejected>,
}

/// `/v1/snapshot?symbols=..`: the images of now, as rows of a whole picture.
pub fn snapshot(query: &str, identity: &Identity, ingest: &Ingest, now: Time) -> Result<Vec<u8>, Mistake> {
    let query = if query.is_empty() { "symbols=*" } else { query };
    let missing = || Mistake::new(Reason::BadRequest, "symbols: missing, expected a list of topics");
    let asked = command::from_query(query, &identity.limits)?.ok_or_else(missing)?;
    let topics_max = identity.limits.topics_per_session_max;
    let mut rejected = Vec::new();
    let mut topics: Vec<Topic> = Vec::new();
    for text in &asked.topics {
        let found = TopicName::parse(text).and_then(|name| name.resolve(ingest.symbols(), topics_max + 1));
        match found {
            Ok(found) if found.iter().all(|topic| topic.channel <= Channel::Book) => topics.extend(found),
            Ok(_) => {
                let message = "expected quotes, indices or books: events have no image".to_owned();
                rejected.push(Rejected::new(text, Reason::BadTopic, message));
            }
            Err(Refusal { code, message }) => rejected.push(Rejected::new(text, code, message)),
        }
    }
    topics.sort_unstable();
    topics.dedup();
    if topics.len() > topics_max {
        let message = format!("symbols: {} topics, expected at most {topics_max}", topics.len());
        return Err(Mistake::new(Reason::TopicLimit, message));
    }
    let (rev, rows) = rows(&topics, &asked, ingest);
    let rows = RawValue::from_string(rows).unwrap_or_default();
    let answer = Snapshot { epoch: &identity.epoch, rev, ts_us: now.us(), rows, rejected };
    Ok(serde_json::to_vec(&answer).unwrap_or_default())
}

fn rows(topics: &[Topic], asked: &Subscribe, ingest: &Ingest) -> (u64, String) {
    let names: Vec<_> = ingest.symbols().listings_from(0).into_iter().map(|listing| listing.name).collect();
    let mut out = Text::default();
    out.put(b"[");
    let rev = ingest.with_hub(|hub| {
        for topic in topics {
            let Some(name) = names.get(topic.symbol.index()) else { continue };
            let before = out.len();
            match topic.channel {
                Channel::Quote | Channel::Index if topic.symbol.index() < hub.images().len() => {
                    let shape =
                        Shape { since: 0, fields: asked.fields.mask(topic.channel), strings: asked.strings };
                    encode_image(&mut out, hub.images(), name, topic.symbol, shape);
                }
                Channel::Book => {
                    if let Some(book) = hub.book_top(topic.symbol, asked.depth) {
                        encode_book(&mut out, hub.images(), name, &book, asked.depth, asked.strings);
                    }
                }
                _ => {}
            }
            if out.len() > before {
                out.put(b",");
            }
        }
        hub.rev()
    });
    if out.len() > 1 {
        out.truncate(out.len() - 1);
    }
    out.put(b"]");
    (rev, String::from_utf8_lossy(out.as_bytes()).into_owned())
}

/// `/v1/symbols`: what there is to subscribe to.
pub fn symbols(ingest: &Ingest, feeds: &FeedNames) -> Vec<u8> {
    #[derive(Serialize)]
    struct Row<'a> {
        symbol: &'a str,
        channel: &'static str,
        feed: &'a str,
        simulated: bool,
    }
    let listings = ingest.symbols().listings_from(0);
    let row = |listing: &'_ tickgate_feeds::symbols::Listing| {
        let (feed, simulated) =
            feeds.get(usize::from(listing.feed.0)).map_or(("", false), |(name, s)| (name, *s));
        serde_json::to_value(Row { symbol: &listing.name, channel: listing.channel.name(), feed, simulated })
    };
    let rows: Vec<_> = listings.iter().filter_map(|listing| row(listing).ok()).collect();
    serde_json::json!({ "symbols": rows }).to_string().into_bytes()
}

/// `/v1/groups`: what `@name` means today.
pub fn groups(ingest: &Ingest) -> Vec<u8> {
    let listings = ingest.symbols().listings_from(0);
    let group =
        |(name, members): &(std::sync::Arc<str>, std::sync::Arc<[tickgate_feeds::market::Symbol]>)| {
            let symbols: Vec<&str> = members
                .iter()
                .filter_map(|symbol| listings.get(symbol.index()))
                .map(|listing| &*listing.name)
                .collect();
            serde_json::json!({ "group": &**name, "symbols": symbols })
        };
    let groups: Vec<_> = ingest.symbols().groups().iter().map(group).collect();
    serde_json::json!({ "groups": groups }).to_string().into_bytes()
}
