//! The line to another gateway: connects, hears, hands on what is whole, and says when nothing came for too long.
//!
//! It is read as fast as what was told can be taken, and no faster: who is too slow for it is merged by the upstream,
//! and told what was lost. Bounds kept here: [`MESSAGE_BYTES_MAX`] of one message, [`ANSWER_BYTES_MAX`] of an answer over
//! HTTP, and the waits below.

use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tickgate_feeds::market::{FeedId, State, Update};
use tickgate_feeds::tickgate::{Directory, Heard, Item, Peer, Plan, Retelling};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, client::client_with_config};

use super::endpoint::{self, Endpoint};
use super::{Gauge, NAP, Sink};
use crate::base::backoff::Backoff;
use crate::base::clock::Clock;
use crate::base::reason::Reason;

/// The longest message taken: as long as a gateway may be configured to send.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// The longest answer taken over HTTP: 200,000 symbols of the longest name, with their price steps.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long a connection, and each read of its beginning, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The least of it, however soon the silence is too long.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// How long the whole first picture may take at the start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Ceiling of the longest wait before another connection: an edge is to be back soon after its upstream.
const WAIT_MS_MAX: u64 = 5_000;
/// The longest wait that an upstream that ends may ask for.
const DRAIN_MS_MAX: u64 = 60_000;
/// The path of a gateway's WebSocket door, where the address has none.
const DOOR: &str = "/ws";

/// The line.
pub struct Link {
    peer: Peer,
    /// Says again what the upstream told, where it is one feed of several; alone it is taken over as it is.
    retelling: Option<Retelling>,
    feed: FeedId,
    endpoint: Endpoint,
    clock: Clock,
    socket: Option<WebSocket<TcpStream>>,
    raw: Vec<u8>,
    backoff: Backoff,
    retry_ns: u64,
    /// When the last message came that was not old by then.
    fresh_ns: u64,
    /// The same, or when the connection was made: it has as long to say something.
    alive_ns: u64,
    /// The least difference of our clock and the upstream's on this connection: what counts is how much later things come.
    least_lag_us: i64,
    /// How well the upstream knows the market itself.
    upstream: State,
    connects: u64,
    errors: u64,
    /// When the last message came, by the wall clock.
    heard_ms: u64,
}

impl Link {
    /// Connects and waits for the whole first picture. `node` is this gateway's own name; without a `retelling` its
    /// revisions are the upstream's.
    pub fn open(
        plan: Plan,
        feed: FeedId,
        node: String,
        retelling: Option<Retelling>,
        clock: Clock,
    ) -> Result<Self, String> {
        let mut endpoint = Endpoint::parse(&plan.url)?;
        if endpoint.path == "/" {
            DOOR.clone_into(&mut endpoint.path);
        }
        let begun_ns = clock.now().mono_ns;
        let mut link = Self {
            peer: Peer::new(plan, feed, node),
            retelling,
            feed,
            endpoint,
            clock,
            socket: None,
            raw: Vec::new(),
            backoff: Backoff::new(RandomState::new().hash_one(begun_ns), WAIT_MS_MAX),
            retry_ns: 0,
            fresh_ns: begun_ns,
            alive_ns: begun_ns,
            least_lag_us: i64::MAX,
            upstream: State::Live,
            connects: 0,
            errors: 0,
            heard_ms: 0,
        };
        link.connect(CONNECT_TIMEOUT)?;
        while clock.now().mono_ns - begun_ns < START_TIMEOUT.as_nanos() as u64 {
            match link.hear()? {
                Heard::Whole => return Ok(link),
                Heard::Again(why) => return Err(why),
                Heard::Link(state) => link.upstream = state,
                Heard::Drain(_) => return Err("it is ending".to_owned()),
                Heard::Nothing | Heard::Say(_) => {}
            }
        }
        Err(format!("no whole picture came within {} s", START_TIMEOUT.as_secs()))
    }

    /// Whether the upstream's prices are made up.
    pub fn simulated(&self) -> bool {
        self.peer.simulated()
    }

    /// Hands on the first picture, before anybody can ask for it: there may be more of it than the queue has room for.
    pub fn begin(&mut self, sink: &dyn Sink) {
        self.tell(sink, &|updates| sink.push(updates));
    }

    /// Follows the upstream until `stop` is set.
    pub fn run(mut self, sink: &dyn Sink, stop: &AtomicBool, gauge: &Gauge) {
        let mut watch = Watch { sink, feed: self.feed, said: State::Live, is_over: false };
        self.count_refused(gauge);
        while !stop.load(Ordering::Relaxed) {
            if self.socket.is_none() && !self.dial() {
                std::thread::park_timeout(NAP);
            }
            let heard = if self.socket.is_some() { self.hear() } else { Ok(Heard::Nothing) };
            match heard {
                Ok(Heard::Whole) => {
                    self.backoff.reset();
                    self.hand_on(sink, stop, gauge);
                }
                Ok(Heard::Link(state)) => self.upstream = state,
                Ok(Heard::Drain(wait_ms)) => {
                    self.lose("it is ending", Some(wait_ms.min(DRAIN_MS_MAX)));
                }
                Ok(Heard::Nothing | Heard::Say(_)) => {}
                Ok(Heard::Again(why)) | Err(why) => self.lose(&why, None),
            }
            if self.socket.is_some() && self.is_over(self.alive_ns) {
                self.lose("nothing came for too long", None);
            }
            let state = if self.is_over(self.fresh_ns) { State::Stale } else { self.upstream };
            // What was missed in a silence is to come before the silence is over.
            if state == State::Stale || self.peer.is_level() {
                gauge.silences.fetch_add(watch.say(state), Ordering::Relaxed);
            }
            gauge.connects.store(self.connects, Ordering::Relaxed);
            gauge.errors.store(self.errors, Ordering::Relaxed);
            gauge.last_ms.store(self.heard_ms, Ordering::Relaxed);
        }
        // The gateway ends, not the line: nothing is to be said of the rows.
        watch.is_over = true;
    }

    /// Hands on what is whole, when there is room for it.
    fn hand_on(&mut self, sink: &dyn Sink, stop: &AtomicBool, gauge: &Gauge) {
        // What is not to be had here any more was no break of the venue's.
        let is_break =
            |item: &&Item| matches!(item, Item::Gap(gap) if gap.reason != Reason::LogOverrun.label());
        let gaps = self.peer.told().items.iter().filter(is_break).count();
        gauge.gaps.fetch_add(gaps as u64, Ordering::Relaxed);
        let count = self.tell(sink, &|updates| {
            // When there is none any more, the gateway ends.
            sink.push_when_room(updates, stop);
        });
        gauge.updates.fetch_add(count as u64, Ordering::Relaxed);
        self.count_refused(gauge);
    }

    /// Tells on what is whole, as it is or through `push`; returns how much that was.
    fn tell(&mut self, sink: &dyn Sink, push: &dyn Fn(&[Update])) -> usize {
        let arrival_ns = self.clock.now().mono_ns;
        let told = self.peer.told();
        let Some(retelling) = &mut self.retelling else {
            let count = told.items.len();
            sink.adopt(told, arrival_ns);
            return count;
        };
        let mut count = 0;
        retelling.tell(told, &mut |updates| {
            count += updates.len();
            for update in updates.iter_mut() {
                update.arrival_ns = arrival_ns;
            }
            push(updates);
        });
        count
    }

    fn count_refused(&mut self, gauge: &Gauge) {
        let refused = self.peer.told().refused() as u64 + self.peer.rejected();
        if gauge.refused.swap(refused, Ordering::Relaxed) < refused {
            tracing::warn!(upstream = self.endpoint.authority, refused, "symbols or topics were refused");
        }
    }

    /// How long the upstream may say nothing.
    fn silence_ns(&self) -> u64 {
        let usual = Duration::from_millis(self.peer.heartbeat_ms() * 5 / 2);
        self.peer.plan().silence.unwrap_or(usual).as_nanos() as u64
    }

    /// Whether the silence since then is too long.
    fn is_over(&self, since_ns: u64) -> bool {
        self.clock.now().mono_ns - since_ns > self.silence_ns()
    }

    /// Makes a new connection when it is time. Returns whether there is one.
    fn dial(&mut self) -> bool {
        let now_ns = self.clock.now().mono_ns;
        if now_ns < self.retry_ns {
            return false;
        }
        // The silence must not become too long behind an address that does not answer.
        let left = Duration::from_nanos((self.fresh_ns + self.silence_ns()).saturating_sub(now_ns));
        let timeout =
            if left.is_zero() { CONNECT_TIMEOUT } else { left.clamp(CONNECT_TIMEOUT_MIN, CONNECT_TIMEOUT) };
        match self.connect(timeout) {
            Ok(()) => true,
            Err(why) => {
                self.lose(&why, None);
                false
            }
        }
    }

    fn connect(&mut self, timeout: Duration) -> Result<(), String> {
        let of_io = |error: std::io::Error| error.to_string();
        let dial = |addresses: &[SocketAddr]| -> Result<TcpStream, String> {
            let stream = endpoint::connect(addresses, timeout)?;
            stream.set_read_timeout(Some(timeout)).map_err(of_io)?;
            stream.set_write_timeout(Some(timeout)).map_err(of_io)?;
            stream.set_nodelay(true).map_err(of_io)?;
            Ok(stream)
        };
        let first = dial(&self.endpoint.addresses()?)?;
        // A name may be that of several gateways: all is asked of one.
        let address = [first.peer_addr().map_err(of_io)?];
        // Groups are not told with the rows. What they name is looked up when the rows are here.
        let mut symbols = self.get(first, "/v1/symbols")?;
        let mut groups = self.get(dial(&address)?, "/v1/groups")?;
        let directory = Directory::read(&mut symbols, &mut groups).map_err(|error| error.to_string())?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let url = format!("ws://{}{}", self.endpoint.authority, self.endpoint.path);
        let (socket, _) = client_with_config(url, dial(&address)?, Some(config))
            .map_err(|error| format!("no WebSocket: {error}"))?;
        socket.get_ref().set_read_timeout(Some(NAP)).map_err(of_io)?;
        self.peer.told().directory = Some(directory);
        (self.socket, self.least_lag_us, self.upstream) = (Some(socket), i64::MAX, State::Live);
        self.alive_ns = self.clock.now().mono_ns;
        self.connects += 1;
        tracing::info!(upstream = self.endpoint.authority, "connected");
        Ok(())
    }

    /// The body of an answer over HTTP. HTTP/1.0: it ends with the connection, and comes in one piece.
    fn get(&self, mut stream: TcpStream, path: &str) -> Result<Vec<u8>, String> {
        let of_io = |error: std::io::Error| format!("{path}: {error}");
        let host = &self.endpoint.authority;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).map_err(of_io)?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(of_io)?;
        let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let head_end = head_end.ok_or_else(|| format!("{path}: the answer is no HTTP"))?;
        let status = answer[..head_end].split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if status != b"200" {
            return Err(format!("{path}: HTTP {}", String::from_utf8_lossy(status)));
        }
        Ok(answer.split_off(head_end + 4))
    }

    /// Waits a moment for a message and does what can be done here. The error is the end of the connection.
    fn hear(&mut self) -> Result<Heard, String> {
        let Some(socket) = &mut self.socket else { return Ok(Heard::Nothing) };
        let text = match socket.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Close(frame)) => {
                return Err(frame.map_or_else(|| "closed".to_owned(), |frame| format!("closed: {frame}")));
            }
            Ok(_) => return Ok(Heard::Nothing),
            Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Ok(Heard::Nothing);
            }
            Err(error) => return Err(error.to_string()),
        };
        self.raw.clear();
        self.raw.extend_from_slice(text.as_bytes());
        let heard = self.peer.hear(&mut self.raw).map_err(|error| {
            self.errors += 1;
            error.to_string()
        })?;
        self.note_age();
        if let (Heard::Say(command), Some(socket)) = (&heard, &mut self.socket) {
            socket.send(Message::text(command.as_str())).map_err(|error| error.to_string())?;
        }
        Ok(heard)
    }

    /// A message that was made long ago is no sign of life.
    fn note_age(&mut self) {
        let now = self.clock.now();
        self.heard_ms = (now.wall.0 / 1_000_000) as u64;
        if let Some(ts_us) = self.peer.take_ts_us() {
            let lag_us = now.wall.us() - ts_us;
            self.least_lag_us = self.least_lag_us.min(lag_us);
            if (lag_us - self.least_lag_us) as u64 * 1_000 <= self.silence_ns() {
                (self.fresh_ns, self.alive_ns) = (now.mono_ns, now.mono_ns);
            }
        }
    }

    /// The connection is over: another one after a while.
    fn lose(&mut self, why: &str, wait_ms: Option<u64>) {
        let wait_ms = wait_ms.unwrap_or_else(|| self.backoff.next_ms());
        tracing::warn!(upstream = self.endpoint.authority, wait_ms, "lost: {why}");
        self.socket = None;
        self.peer.disconnected();
        self.retry_ns = self.clock.now().after(Duration::from_millis(wait_ms));
    }
}

/// Says how far the upstream's symbols can be trusted, and has the last word however the thread ends.
struct Watch<'a> {
    sink: &'a dyn Sink,
    feed: FeedId,
    said: State,
    is_over: bool,
}

impl Watch<'_> {
    /// Says it if it is news; returns how many silences began.
    fn say(&mut self, state: State) -> u64 {
        if self.said == state {
            return 0;
        }
        self.said = state;
        self.sink.set_state(self.feed, state);
        u64::from(state == State::Stale)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.sink.set_state(self.feed, State::Suspect);
        }
    }
}
