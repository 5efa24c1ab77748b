//! `/v1/snapshot`: images of now.
//!
//! Bounds kept here: as many topics per request as a session may have, what a part holds, and how much of the hub is
//! copied while everybody else waits for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tickgate_feeds::market::{Channel, State, Symbol, Time};
use tickgate_feeds::symbols::Symbols;

use super::form::Form;
use crate::base::limits::Limits;
use crate::base::reason::Reason;
use crate::flow::conflation::cut::BookTop;
use crate::flow::conflation::images::Images;
use crate::flow::dispatch::filter::Filter;
use crate::flow::dispatch::topic::{Refusal, Topic, TopicName, too_deep};
use crate::flow::dispatch::wish::{Style, Wish};
use crate::flow::frame::answer::Rejected;
use crate::flow::frame::command::{self, Mistake};
use crate::flow::frame::row::{Shape, encode_book, encode_image};
use crate::flow::frame::text::Text;
use crate::gateway::http::Parts;
use crate::gateway::ingest::Ingest;
use crate::gateway::shard::Identity;

/// Topics copied from the hub at once: 64 quotes are 40 KiB and take the hub for 25 µs.
const TOPICS_AT_ONCE: usize = 64;
/// Levels of a side of books copied at once, so that deep books are copied one by one.
const LEVELS_AT_ONCE: usize = 640;

/// The images of now, as rows of a whole picture. `rev` is the revision at which it begins: rows of later parts may be newer.
pub fn snapshot(
    query: &str,
    form: Form,
    identity: &Identity,
    ingest: &Arc<Ingest>,
    now: Time,
) -> Result<Parts, Mistake> {
    let query = if query.is_empty() { "symbols=*" } else { query };
    let missing = || Mistake::new(Reason::BadRequest, "symbols: missing, expected a list of topics");
    let asked = command::from_query(query, &identity.limits)?.ok_or_else(missing)?;
    let (wish, _) = Wish::default().with(&asked.options, None);
    let (topics, rejected) = resolve(&asked.topics, wish.depth, ingest.symbols(), &identity.limits)?;
    if let (Form::Ndjson | Form::Csv, Some(first)) = (form, rejected.first()) {
        // Rows alone have no place where it could be said.
        return Err(Mistake::new(first.reason, format!("symbols: {}: {}", first.topic, first.message)));
    }
    let columns = if form == Form::Csv { columns(&topics, &wish)? } else { Vec::new() };
    // Whoever is listed has an image from here on.
    let (rev, node) = ingest.with_hub(|hub| {
        hub.list_new();
        (hub.rev(), Arc::clone(hub.node()))
    });
    let (epoch, ts_us) = (&node.epoch, now.us());
    let link = match node.link {
        State::Live => String::new(),
        state => format!("\"link\":\"{}\",", state.name()),
    };
    let begin = format!("{{\"epoch\":\"{epoch}\",\"rev\":{rev},\"ts_us\":{ts_us},{link}\"rows\":[");
    let end = format!("],\"rejected\":{}}}", serde_json::to_string(&rejected).unwrap_or_default());
    let at_once = (LEVELS_AT_ONCE / usize::from(wish.depth)).clamp(1, TOPICS_AT_ONCE);
    let ingest = Arc::clone(ingest);
    let rows = (0..topics.len())
        .step_by(at_once)
        .map(move |from| rows(&topics[from..topics.len().min(from + at_once)], &wish, &ingest));
    Ok(form.answer(begin, columns, rows, end))
}

/// The columns of these topics' rows: the selected fields, of both channels if there are both; or those of books.
fn columns(topics: &[Topic], wish: &Wish) -> Result<Vec<&'static str>, Mistake> {
    let has = |channel| topics.iter().any(|topic| topic.channel() == channel);
    let mut columns = vec!["symbol", "rev", "q", "time_us"];
    if has(Channel::Book) {
        columns.extend(["state", "side", "level", "price", "size"]);
    }
    for channel in [Channel::Quote, Channel::Index].into_iter().filter(|channel| has(*channel)) {
        if has(Channel::Book) {
            let message = "format: CSV has either quotes and indices or books, expected one of these";
            return Err(Mistake::new(Reason::BadRequest, message));
        }
        for (number, field) in channel.fields().iter().enumerate() {
            if wish.fields.mask(channel) >> number & 1 == 1 && !columns.contains(&field.name) {
                columns.push(field.name);
            }
        }
    }
    Ok(columns)
}

/// The topics that have images, each once, and the names that mean none.
fn resolve(
    names: &[String],
    depth: u16,
    symbols: &Symbols,
    limits: &Limits,
) -> Result<(Vec<Topic>, Vec<Rejected>), Mistake> {
    let topics_max = limits.topics_per_session_max;
    let (mut topics, mut rejected) = (BTreeSet::new(), Vec::new());
    for text in names {
        let found = TopicName::parse(text).and_then(|name| name.resolve(symbols, topics_max + 1));
        match found.and_then(|found| too_deep(&found, depth, symbols).map_or(Ok(found), Err)) {
            Ok(found) if found.iter().all(|topic| topic.channel() <= Channel::Book) => topics.extend(found),
            Ok(_) => {
                let message = "expected quotes, indices or books: events have no image".to_owned();
                rejected.push(Rejected::new(text, Reason::BadTopic, message));
            }
            Err(Refusal { code, message }) => rejected.push(Rejected::new(text, code, message)),
        }
        if topics.len() > topics_max {
            let message = format!("symbols: expected at most {topics_max} topics");
            return Err(Mistake::new(Reason::TopicLimit, message));
        }
    }
    Ok((topics.into_iter().collect(), rejected))
}

/// The rows of these topics, with a line feed behind each.
fn rows(topics: &[Topic], wish: &Wish, ingest: &Ingest) -> Vec<u8> {
    let (images, books) = copy(topics, wish.depth, ingest);
    // The columns would have to be announced.
    let style = Style { columns: false, ..wish.style };
    let mut out = Text::default();
    for (at, (topic, book)) in topics.iter().zip(books).enumerate() {
        let own = Symbol::at(at as u32);
        let Some(listing) = ingest.symbols().listing(topic.symbol()) else { continue };
        if topic.channel() == Channel::Book && book.is_none() {
            continue;
        }
        let passes = |filter: &Filter| !filter.concerns(topic.channel()) || filter.takes(&images, own);
        if !wish.filter.as_ref().is_none_or(passes) {
            continue;
        }
        match book {
            Some(book) => {
                let book = BookTop { symbol: Some(own), ..book };
                encode_book(&mut out, &images, &listing.name, &book, wish.depth, style);
            }
            None => {
                let shape = Shape { since: 0, fields: wish.fields.mask(topic.channel()), style };
                encode_image(&mut out, &images, &listing.name, own, shape);
            }
        }
        out.put(b"\n");
    }
    out.as_bytes().to_vec()
}

/// Copies what rows of these topics are made from, at the topics' own positions. Shards and feeds wait meanwhile, so
/// nothing else is done here.
fn copy(topics: &[Topic], depth: u16, ingest: &Ingest) -> (Images, Vec<Option<BookTop>>) {
    let mut images = Images::default();
    let mut books = Vec::with_capacity(topics.len());
    ingest.with_hub(|hub| {
        for topic in topics {
            let all = hub.images();
            let (head, rev) = (all.head(topic.symbol()), all.rev(topic.symbol()));
            let own = images.list(head.channel);
            for number in 0..head.channel.fields().len() as u8 {
                images.replace(own, number, all.value(topic.symbol(), number), rev);
            }
            images.touch(own, rev, head.q, head.time, head.arrival_ns);
            let is_book = topic.channel() == Channel::Book;
            books.push(if is_book { hub.book_top(topic.symbol(), depth) } else { None });
        }
    });
    (images, books)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::adapter::Sink;
    use crate::flow::conflation::cut::Node;
    use rust_decimal::Decimal;
    use tickgate_feeds::market::{FeedId, Update, quote};

    #[test]
    fn no_row_is_older_than_rev_and_later_parts_are_of_their_own_moment() {
        let (limits, table) = (Limits::default(), Arc::new(Symbols::new(200)));
        let listed = (0..200).map(|n| table.list(FeedId(0), &format!("L{n:03}"), Channel::Quote));
        let listed = listed.collect::<Result<Vec<_>, _>>().expect("room for all");
        let ingest = Arc::new(Ingest::new(table, Node::new("e", "e"), &limits, Vec::new()));
        let trade_all = |price: i64| {
            let last = [(quote::LAST, Some(Decimal::from(price)))];
            let update = |symbol: &Symbol| Update::image(*symbol, Channel::Quote, Time(1), &last);
            ingest.push(&listed.iter().map(update).collect::<Vec<_>>());
        };
        let identity = Identity { simulated: true, limits };
        trade_all(1);
        let answer = snapshot("symbols=*,NOSUCH&fields=last", Form::Json, &identity, &ingest, Time(7_000));
        let mut answer = answer.expect("a good query");
        let mut text: Vec<u8> = answer.by_ref().take(2).flatten().collect();
        trade_all(2);
        text.extend(answer.flatten());
        let answer: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        let rows = answer["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 200);
        for (at, row) in rows.iter().enumerate() {
            let is_newer = at >= TOPICS_AT_ONCE;
            assert_eq!(row["symbol"], format!("L{at:03}"));
            assert_eq!((&row["last"], &row["state"]), (&(1 + i64::from(is_newer)).into(), &"live".into()));
            assert_eq!(row["rev"].as_u64() > answer["rev"].as_u64(), is_newer, "{row}");
        }
        assert_eq!((&answer["epoch"], &answer["ts_us"]), (&"e".into(), &7.into()));
        assert_eq!(answer["rejected"][0]["code"], "unknown_topic");
    }
}
