//! The door to event streams: what a request for one asks for, and what it is answered before a shard goes on with it.
//!
//! Bound kept here: none of its own. Its client is a connection and a session like any other.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{StatusCode, Version};
use tickgate_feeds::symbols::Symbols;

use super::http::{Body, RETRY_AFTER_S, Reply, reply};
use crate::base::limits::Limits;
use crate::base::reason::Reason;
use crate::flow::dispatch::topic::TopicName;
use crate::flow::frame::command::{self, Mistake, Since, Subscribe};
use crate::flow::frame::websocket;
use crate::flow::socket::events::EventStream;

const KIND: &str = "text/event-stream";

/// What the URL and `Last-Event-ID` ask for. A list of topics that are all unknown is refused here: who only listens could
/// not ask for others.
pub fn asked(
    query: &str,
    headers: &HeaderMap,
    symbols: &Symbols,
    limits: &Limits,
) -> Result<Box<Subscribe>, Mistake> {
    let missing = || Mistake::new(Reason::BadRequest, "symbols: missing, expected a list of topics");
    let mut asked = command::from_query(query, limits)?.ok_or_else(missing)?;
    // A browser comes back with the URL of its first time: what it holds by now is in the header.
    if let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
        let wrong = || Mistake::new(Reason::BadRequest, "Last-Event-ID: expected epoch:rev:wish");
        asked.since = Some(id.to_str().ok().and_then(Since::parse).ok_or_else(wrong)?);
    }
    let mut refusals = Vec::new();
    for text in &asked.topics {
        match TopicName::parse(text).and_then(|name| name.resolve(symbols, 1)) {
            Ok(_) => return Ok(asked),
            Err(refusal) => refusals.push(refusal),
        }
    }
    let (code, why) =
        refusals.pop().map_or((Reason::BadTopic, String::new()), |last| (last.code, last.message));
    Err(Mistake::new(code, format!("symbols: none could be taken, {why}")))
}

/// The head of an answer that a shard goes on with. It is one of HTTP/1.0: its end is that of the connection, so that events
/// can be written as they are.
pub fn head() -> Reply {
    let mut reply = answer(Body::Open);
    *reply.version_mut() = Version::HTTP_10;
    reply
}

/// Whether the client would give up for good at any status but 200: that is what a browser's `EventSource` does.
pub fn gives_up(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim().eq_ignore_ascii_case(KIND))
}

/// The refusal of such a client: a stream that says when to come back, and ends.
pub fn refusal(reason: Reason) -> Reply {
    let mut events = format!("retry: {}\n", RETRY_AFTER_S * 1000).into_bytes();
    let words = format!("{}:{}", reason.label(), reason.text());
    let close = websocket::close(reason.close_code().unwrap_or_default(), &words);
    // Writing to memory cannot fail.
    let _ = EventStream::default().write(&close, &mut events);
    answer(Body::Whole(events.into()))
}

fn answer(body: Body) -> Reply {
    let mut reply = reply(KIND, body);
    *reply.status_mut() = StatusCode::OK;
    let headers = reply.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    // nginx would keep events until it has a buffer full of them.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    reply
}
