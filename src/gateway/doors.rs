//! The clients' port: HTTP until a client is let in to a session, then the socket goes to a shard.
//!
//! Bounds kept here: connections in all, one permit each, from accept to the last byte; and answers in parts at once.
//! hyper's own upgrade machinery is not used: the connection itself gives the socket back.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{self, Body, KeepAlive, Parts, RETRY_AFTER_S, Reply, reply, text};
use super::ingest::Ingest;
use super::life::Life;
use super::rest::form::Form;
use super::rest::listing::{self, FeedNames};
use super::rest::{history, snapshot};
use super::shard::Identity;
use super::stream;
use crate::base::clock::Clock;
use crate::base::limits::ANSWERS_AT_ONCE_MAX;
use crate::base::reason::Reason;
use crate::flow::dispatch::wish::Packing;
use crate::flow::frame::command::{self, Mistake, Subscribe};
use crate::flow::frame::deflate;
use crate::flow::socket::wire::{Mailbox, Newcomer, Permit, Tcp};

/// The subprotocols spoken; the first also when a client asks for none.
const SUBPROTOCOLS: [&str; 2] = ["tickgate.v1.json", "tickgate.v1.msgpack"];
const NO_SUCH_PAGE: &str = "no such page; the doors are /ws, /stream, /v1/snapshot, /v1/symbols, /v1/groups, \
     /v1/history/{topic}, /";
/// The header that names the run which an answer belongs to.
const EPOCH: &str = "tickgate-epoch";
/// Connections beyond the limit that are still told so; further ones are dropped unheard.
const REFUSALS_AT_ONCE_MAX: usize = 256;

/// A shard as the doors see it.
#[derive(Debug)]
pub struct ShardDoor {
    /// Where clients are left for it.
    pub mailbox: Arc<Mailbox>,
    /// How many it has.
    pub open: Arc<AtomicUsize>,
}

impl ShardDoor {
    /// The door to the shard of this mailbox, which has no clients yet.
    pub fn new(mailbox: &Arc<Mailbox>) -> Self {
        Self { mailbox: Arc::clone(mailbox), open: Arc::default() }
    }
}

/// What the doors did so far.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Clients handed to shards as WebSockets.
    pub upgraded: AtomicU64,
    /// Clients handed to shards as event streams.
    pub streams: AtomicU64,
    /// Connections and handshakes refused for want of room.
    pub overloaded: AtomicU64,
    /// Requests refused because too many were being answered.
    pub busy: AtomicU64,
    /// Requests with an error in them.
    pub bad_requests: AtomicU64,
}

/// Everything a request may need.
pub struct Doors {
    /// The gateway's identity and bounds.
    pub identity: Arc<Identity>,
    /// Images of now.
    pub ingest: Arc<Ingest>,
    /// The feeds' names.
    pub feeds: Arc<FeedNames>,
    /// Who serves the clients.
    pub shards: Vec<ShardDoor>,
    /// Connections open now.
    pub open: Arc<AtomicUsize>,
    /// Answers in parts that are being taken now.
    pub answering: Arc<AtomicUsize>,
    /// The time.
    pub clock: Clock,
    /// Whether new clients may come.
    pub life: Arc<Life>,
    /// What was done so far.
    pub stats: Stats,
}

/// Accepts clients for as long as it is polled.
pub async fn serve(listener: TcpListener, doors: Arc<Doors>) {
    let refused = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, peer) = http::accept(&listener, &doors.identity.limits).await;
        doors.stats.accepted.fetch_add(1, Ordering::Relaxed);
        let permit = Permit::take(&doors.open, doors.identity.limits.connections_max);
        let refusal = if permit.is_some() { None } else { Permit::take(&refused, REFUSALS_AT_ONCE_MAX) };
        if permit.is_none() {
            doors.stats.overloaded.fetch_add(1, Ordering::Relaxed);
            if refusal.is_none() {
                continue;
            }
        }
        let doors = Arc::clone(&doors);
        tokio::spawn(async move {
            connection(stream, peer, permit, &doors).await;
            drop(refusal);
        });
    }
}

/// Serves one connection's requests; ends when it closes or has become a session.
async fn connection(stream: TcpStream, peer: SocketAddr, permit: Option<Permit>, doors: &Arc<Doors>) {
    let half_life_ns = doors.identity.limits.http_life.as_nanos() as u64 / 2;
    let service = Service {
        doors: Arc::clone(doors),
        has_room: permit.is_some(),
        last_ns: doors.clock.now().mono_ns + half_life_ns,
        let_in: Cell::default(),
    };
    let served = http::serve(stream, service, KeepAlive::Yes, &doors.identity.limits).await;
    let Some((parts, permit)) = served.zip(permit) else { return };
    let Some(LetIn { asked, listens, packing }) = parts.service.let_in.take() else { return };
    let Some(shard) = doors.shards.iter().min_by_key(|shard| shard.open.load(Ordering::Relaxed)) else {
        return;
    };
    let place = Permit::take(&shard.open, usize::MAX);
    match parts.io.into_inner().into_std() {
        Ok(stream) => {
            let wire = Tcp::new(stream, [Some(permit), place]);
            let (wire, count) = match listens {
                true => (wire.with_events(), &doors.stats.streams),
                false => (wire, &doors.stats.upgraded),
            };
            count.fetch_add(1, Ordering::Relaxed);
            shard.mailbox.leave(Newcomer { wire, peer, head: parts.read_buf.to_vec(), asked, packing });
        }
        Err(error) => tracing::debug!(%peer, %error, "socket lost on its way to a shard"),
    }
}

struct Service {
    doors: Arc<Doors>,
    has_room: bool,
    /// The first request after this is the connection's last, so that no answer is cut off by the end of its life.
    last_ns: u64,
    /// Who becomes a session when the answer is out.
    let_in: Cell<Option<LetIn>>,
}

/// A client on its way to a shard.
struct LetIn {
    asked: Result<Option<Box<Subscribe>>, Mistake>,
    /// It gets events, and says nothing.
    listens: bool,
    /// How messages will travel.
    packing: Packing,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Reply;
    type Error = Infallible;
    type Future = Ready<Result<Reply, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut reply = self.route(&request);
        let headers = reply.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::SERVER, HeaderValue::from_static("tickgate"));
        if is_for_all_pages(request.uri().path()) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EPOCH));
            // Numbers of another run mean nothing, and rows alone do not say which it is.
            if let Ok(epoch) = HeaderValue::from_str(&self.doors.ingest.node().epoch) {
                headers.insert(EPOCH, epoch);
            }
        }
        if self.doors.clock.now().mono_ns > self.last_ns && reply.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        ready(Ok(reply))
    }
}

impl Service {
    fn route(&self, request: &Request<Incoming>) -> Reply {
        let path = request.uri().path();
        let gives_up = path == "/stream" && stream::gives_up(request.headers());
        let not_now = if gives_up { stream::refusal } else { not_now };
        if !self.doors.life.takes_clients() {
            return not_now(Reason::Restart);
        }
        if !self.has_room {
            return not_now(Reason::Overloaded);
        }
        if *request.method() == Method::OPTIONS && is_for_all_pages(path) {
            return preflight();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "expected GET");
        }
        let query = request.uri().query().unwrap_or_default();
        match path {
            "/ws" | "/ws/market" if *request.method() == Method::GET => {
                self.upgrade(request.headers(), query)
            }
            "/stream" => self.listen(request, query),
            path => match (path.strip_prefix("/v1/"), super::page::file(path)) {
                (Some(what), _) => self.in_parts(request.headers(), query, what),
                (None, Some((kind, bytes))) => page(kind, bytes),
                (None, None) => text(StatusCode::NOT_FOUND, NO_SUCH_PAGE),
            },
        }
    }

    /// Answers in parts, if there is room for one more who may not read them.
    fn in_parts(&self, headers: &HeaderMap, query: &str, what: &str) -> Reply {
        let Some(permit) = Permit::take(&self.doors.answering, ANSWERS_AT_ONCE_MAX) else {
            self.doors.stats.busy.fetch_add(1, Ordering::Relaxed);
            return not_now(Reason::Overloaded);
        };
        let parts = Form::asked(query, headers)
            .and_then(|(form, query)| Ok((form.kind(), self.parts(what, &query, form).transpose()?)));
        match parts {
            Ok((kind, Some(parts))) => data(kind, Body::Parts(parts, permit)),
            Ok((_, None)) => text(StatusCode::NOT_FOUND, NO_SUCH_PAGE),
            Err(mistake) => self.refuse(&mistake),
        }
    }

    /// What there is under this path; `None` if there is nothing.
    fn parts(&self, what: &str, query: &str, form: Form) -> Option<Result<Parts, Mistake>> {
        let Doors { identity, ingest, feeds, clock, .. } = &*self.doors;
        let now = clock.now().wall;
        let parts = match what {
            "snapshot" => snapshot::snapshot(query, form, identity, ingest, now),
            "symbols" => listing::symbols(query, form, ingest.symbols(), feeds),
            "groups" => listing::groups(query, form, ingest.symbols()),
            other => history::history(other.strip_prefix("history/")?, query, form, ingest, now),
        };
        Some(parts)
    }

    /// RFC 6455 4.2: what a handshake must have, and what is answered.
    fn upgrade(&self, headers: &HeaderMap, query: &str) -> Reply {
        let said = |name: header::HeaderName| {
            headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok())
        };
        let has = |name: header::HeaderName, token: &str| {
            said(name).flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
        };
        if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
            let mut reply =
                text(StatusCode::UPGRADE_REQUIRED, "this door speaks WebSocket: expected Upgrade: websocket");
            reply.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            return reply;
        }
        if !has(header::SEC_WEBSOCKET_VERSION, "13") {
            let mut reply = text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Version: expected 13");
            reply.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return self.count_bad(reply);
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| is_nonce(key.as_bytes()));
        let Some(key) = key else {
            return self
                .count_bad(text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key: expected 16 bytes in base64"));
        };
        let offers = headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL);
        // The first in the client's order that is known.
        let spoken = said(header::SEC_WEBSOCKET_PROTOCOL)
            .flat_map(|value| value.split(','))
            .find_map(|offer| SUBPROTOCOLS.into_iter().find(|name| offer.trim().eq_ignore_ascii_case(name)));
        if offers && spoken.is_none() {
            let expected = format!("Sec-WebSocket-Protocol: expected one of {}", SUBPROTOCOLS.join(", "));
            return self.count_bad(text(StatusCode::BAD_REQUEST, &expected));
        }
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()));
        let headers = reply.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(accept) = accept {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(name) = spoken {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
        }
        let agreed = said(header::SEC_WEBSOCKET_EXTENSIONS).find_map(deflate::agree);
        let extension = agreed.and_then(|(bits, answer)| Some((bits, HeaderValue::try_from(answer).ok()?)));
        let packing = Packing {
            window_bits: extension.as_ref().map(|(bits, _)| *bits),
            is_binary: spoken == Some(SUBPROTOCOLS[1]),
        };
        if let Some((_, answer)) = extension {
            headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, answer);
        }
        let asked = command::from_query(query, &self.doors.identity.limits);
        self.let_in.set(Some(LetIn { asked, listens: false, packing }));
        reply
    }

    /// Begins an event stream.
    fn listen(&self, request: &Request<Incoming>, query: &str) -> Reply {
        let (symbols, limits) = (self.doors.ingest.symbols(), &self.doors.identity.limits);
        match stream::asked(query, request.headers(), symbols, limits) {
            Ok(asked) => {
                if *request.method() == Method::GET {
                    self.let_in.set(Some(LetIn {
                        asked: Ok(Some(asked)),
                        listens: true,
                        packing: Packing::default(),
                    }));
                }
                stream::head()
            }
            Err(mistake) => self.refuse(&mistake),
        }
    }

    fn refuse(&self, mistake: &Mistake) -> Reply {
        let error =
            serde_json::json!({ "error": { "code": mistake.code.label(), "message": mistake.message } });
        let mut reply = data(Form::Json.kind(), Body::Whole(error.to_string().into()));
        let is_unknown = mistake.code == Reason::UnknownTopic;
        *reply.status_mut() = if is_unknown { StatusCode::NOT_FOUND } else { StatusCode::BAD_REQUEST };
        self.count_bad(reply)
    }

    fn count_bad(&self, reply: Reply) -> Reply {
        self.doors.stats.bad_requests.fetch_add(1, Ordering::Relaxed);
        reply
    }
}

/// Prices are for every page, as they are over WebSocket; the board's own files are not.
fn is_for_all_pages(path: &str) -> bool {
    matches!(path.split('/').nth(1), Some("stream" | "v1"))
}

/// What a browser asks before it lets a page of another origin say where it was: whether it may.
fn preflight() -> Reply {
    let mut reply = Reply::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("last-event-id"));
    reply
}

/// 16 bytes in base64 are 22 characters and two signs of padding.
fn is_nonce(key: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(base64)
}

/// 503 in the words of a close frame, and the end of the connection.
fn not_now(reason: Reason) -> Reply {
    let mut reply = text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}:{}", reason.label(), reason.text()));
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn data(kind: &'static str, body: Body) -> Reply {
    let mut reply = reply(kind, body);
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn page(kind: &'static str, bytes: &'static [u8]) -> Reply {
    const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut reply = reply(kind, Body::Whole(Bytes::from_static(bytes)));
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}
