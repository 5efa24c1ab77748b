//! The clients' port: HTTP until the upgrade, then the socket goes to a shard.
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

use super::http::{self, Body, KeepAlive, Parts, Reply, reply, text};
use super::ingest::Ingest;
use super::life::Life;
use super::rest::{self, FeedNames};
use super::shard::Identity;
use crate::base::clock::Clock;
use crate::base::limits::ANSWERS_AT_ONCE_MAX;
use crate::base::reason::Reason;
use crate::flow::dispatch::wish::Form;
use crate::flow::frame::command::Mistake;
use crate::flow::frame::deflate;
use crate::flow::socket::wire::{Mailbox, Newcomer, Permit, Tcp};

/// The subprotocol spoken, also when a client asks for none.
const SUBPROTOCOL: &str = "tickgate.v1.json";
/// Connections beyond the limit that are still told so; further ones are dropped unheard.
const REFUSALS_AT_ONCE_MAX: usize = 256;
/// When to try again where there was no room, or after a restart, in seconds.
const RETRY_AFTER_S: &str = "5";

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
    /// Clients handed to shards.
    pub upgraded: AtomicU64,
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

/// Serves one connection's requests; ends when it closes or has become a WebSocket.
async fn connection(stream: TcpStream, peer: SocketAddr, permit: Option<Permit>, doors: &Arc<Doors>) {
    let half_life_ns = doors.identity.limits.http_life.as_nanos() as u64 / 2;
    let service = Service {
        doors: Arc::clone(doors),
        has_room: permit.is_some(),
        last_ns: doors.clock.now().mono_ns + half_life_ns,
        upgraded: Cell::default(),
    };
    let served = http::serve(stream, service, KeepAlive::Yes, &doors.identity.limits).await;
    let Some((parts, permit)) = served.zip(permit) else { return };
    let Some((query, form)) = parts.service.upgraded.take() else { return };
    let Some(shard) = doors.shards.iter().min_by_key(|shard| shard.open.load(Ordering::Relaxed)) else {
        return;
    };
    let place = Permit::take(&shard.open, usize::MAX);
    match parts.io.into_inner().into_std() {
        Ok(stream) => {
            doors.stats.upgraded.fetch_add(1, Ordering::Relaxed);
            let wire = Tcp::new(stream, [Some(permit), place]);
            shard.mailbox.leave(Newcomer { wire, peer, head: parts.read_buf.to_vec(), query, form });
        }
        Err(error) => tracing::debug!(%peer, %error, "socket lost during the upgrade"),
    }
}

struct Service {
    doors: Arc<Doors>,
    has_room: bool,
    /// The first request after this is the connection's last, so that no answer is cut off by the end of its life.
    last_ns: u64,
    /// The query of the request that was upgraded, and how messages will travel.
    upgraded: Cell<Option<(String, Form)>>,
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
        if self.doors.clock.now().mono_ns > self.last_ns && reply.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        ready(Ok(reply))
    }
}

impl Service {
    fn route(&self, request: &Request<Incoming>) -> Reply {
        if !self.doors.life.takes_clients() {
            return not_now(Reason::Restart);
        }
        if !self.has_room {
            return not_now(Reason::Overloaded);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "expected GET");
        }
        let (doors, query) = (&self.doors, request.uri().query().unwrap_or_default());
        match request.uri().path() {
            "/ws" | "/ws/market" if *request.method() == Method::GET => {
                self.upgrade(request.headers(), query)
            }
            "/v1/snapshot" => self
                .in_parts(|| rest::snapshot(query, &doors.identity, &doors.ingest, doors.clock.now().wall)),
            "/v1/symbols" => self.in_parts(|| Ok(rest::symbols(doors.ingest.symbols(), &doors.feeds))),
            "/v1/groups" => self.in_parts(|| Ok(rest::groups(doors.ingest.symbols()))),
            path => match super::page::file(path) {
                Some((kind, bytes)) => page(kind, bytes),
                None => text(
                    StatusCode::NOT_FOUND,
                    "no such page; the doors are /ws, /v1/snapshot, /v1/symbols, /v1/groups, /",
                ),
            },
        }
    }

    /// Answers in parts, if there is room for one more who may not read them.
    fn in_parts(&self, make: impl FnOnce() -> Result<Parts, Mistake>) -> Reply {
        let Some(permit) = Permit::take(&self.doors.answering, ANSWERS_AT_ONCE_MAX) else {
            self.doors.stats.busy.fetch_add(1, Ordering::Relaxed);
            return not_now(Reason::Overloaded);
        };
        match make() {
            Ok(parts) => json(Body::Parts(parts, permit)),
            Err(mistake) => self.refuse(&mistake),
        }
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
        let speaks = has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        if offers && !speaks {
            let expected = "Sec-WebSocket-Protocol: expected tickgate.v1.json among those offered";
            return self.count_bad(text(StatusCode::BAD_REQUEST, expected));
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
        if speaks {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        let agreed = said(header::SEC_WEBSOCKET_EXTENSIONS).find_map(deflate::agree);
        let extension = agreed.and_then(|(bits, answer)| Some((bits, HeaderValue::try_from(answer).ok()?)));
        let form = Form { window_bits: extension.as_ref().map(|(bits, _)| *bits) };
        if let Some((_, answer)) = extension {
            reply.headers_mut().insert(header::SEC_WEBSOCKET_EXTENSIONS, answer);
        }
        self.upgraded.set(Some((query.to_owned(), form)));
        reply
    }

    fn refuse(&self, mistake: &Mistake) -> Reply {
        let error =
            serde_json::json!({ "error": { "code": mistake.code.label(), "message": mistake.message } });
        let mut reply = json(Body::Whole(error.to_string().into()));
        *reply.status_mut() = StatusCode::BAD_REQUEST;
        self.count_bad(reply)
    }

    fn count_bad(&self, reply: Reply) -> Reply {
        self.doors.stats.bad_requests.fetch_add(1, Ordering::Relaxed);
        reply
    }
}

/// 16 bytes in base64 are 22 characters and two signs of padding.
fn is_nonce(key: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(base64)
}

/// 503 in the words of a close frame, and the end of the connection.
fn not_now(reason: Reason) -> Reply {
    let mut reply = text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}:{}", reason.label(), reason.text()));
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
    reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    reply
}

fn json(body: Body) -> Reply {
    let mut reply = reply("application/json", body);
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
