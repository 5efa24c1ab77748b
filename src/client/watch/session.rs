//! One connection of `watch`, from the handshake to its end: reads, answers gaps, notices silence, draws by the clock.
//!
//! Bound: one frame at a time; writes and handshakes have the time limits below.

use std::io;
use std::time::Duration;

use futures_util::SinkExt;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::screen::Screen;
use super::view::{Link, Reaction, View};
use super::wire::{FRAME_BYTES_MAX, clean, read};

/// A redraw takes a moment that the eye does not need more often.
const REDRAW: Duration = Duration::from_millis(100);

/// How long connecting and the handshake may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a command may wait for the socket: a server that does not read is gone.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// A second gap within this time is a server that cannot keep its word: a new connection is better than a loop.
const RESUBSCRIBE_EVERY: Duration = Duration::from_secs(1);

/// The longest wait that a server may ask for, before another connection or another subscription.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The shortest before another subscription, lest one that is refused at once be asked for in a loop.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// tungstenite's read buffer: one frame of the protocol, where its default would be twice that.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Close codes after which connecting again is pointless (the protocol's 4500 to 4999).
const FINAL_CODES: std::ops::RangeInclusive<u16> = 4500..=4999;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How a connection, or the wait for one, ended.
pub(super) enum End {
    /// The user has had enough, or nobody reads stdout any more.
    Quit,
    /// There is no use in another attempt.
    Fatal(String),
    /// Connect again: after so long, or after the usual wait.
    Again { after: Option<Duration>, to: Option<String>, why: String },
}

impl End {
    fn lost(why: impl Into<String>) -> End {
        End::Again { after: None, to: None, why: why.into() }
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        match error.kind() {
            io::ErrorKind::BrokenPipe => End::Quit,
            _ => End::Fatal(format!("cannot write: {error}")),
        }
    }
}

/// What outlives a connection.
pub(super) struct Desk {
    pub(super) view: View,
    pub(super) screen: Screen,
    began: Instant,
    /// When the table is to be drawn next. Kept here, since waiting begins anew with every message.
    redraw: Instant,
    interrupt: Signal,
    terminate: Signal,
    resize: Signal,
}

impl Desk {
    /// Takes over the signals.
    pub(super) fn new(view: View, screen: Screen) -> io::Result<Desk> {
        Ok(Desk {
            view,
            screen,
            began: Instant::now(),
            redraw: Instant::now(),
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            resize: signal(SignalKind::window_change())?,
        })
    }

    /// Milliseconds since `watch` began: the clock of the view.
    pub(super) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// Says how the connection stands.
    pub(super) fn link(&mut self, link: Link) -> Result<(), End> {
        self.view.link = link;
        Ok(self.screen.link(&self.view)?)
    }

    /// Waits for the user, the window or the clock, and redraws. Only a signal ends it.
    async fn attend(&mut self) -> End {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return End::Quit,
                _ = self.terminate.recv() => return End::Quit,
                _ = self.resize.recv() => self.screen.resized(),
                () = sleep_until(self.redraw), if self.screen.is_table() => {}
            }
            self.redraw = Instant::now() + REDRAW;
            if let Err(error) = self.screen.draw(&self.view, self.now_ms()) {
                return error.into();
            }
        }
    }

    /// Sits out the time until the next attempt.
    pub(super) async fn wait(&mut self, wait: Duration) -> Result<(), End> {
        let until = Instant::now() + wait;
        tokio::select! {
            end = self.attend() => Err(end),
            () = sleep_until(until) => Ok(()),
        }
    }

    /// Opens a connection. The error is for people.
    pub(super) async fn connect(&mut self, url: &str) -> Result<Socket, End> {
        let mut config = WebSocketConfig::default();
        config.max_message_size = Some(FRAME_BYTES_MAX);
        config.max_frame_size = Some(FRAME_BYTES_MAX);
        config.read_buffer_size = READ_BUFFER_BYTES;
        let connecting = timeout(CONNECT_TIMEOUT, connect_async_with_config(url, Some(config), true));
        let answer = tokio::select! {
            end = self.attend() => return Err(end),
            answer = connecting => answer,
        };
        match answer {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => Err(refused(url, &error)),
            Err(_) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                Err(End::lost(format!("cannot connect to {url}: no answer within {seconds} s")))
            }
        }
    }

    /// Follows the topics on `socket` until it ends. `on_data` is called when a frame has brought rows.
    pub(super) async fn follow(&mut self, socket: &mut Socket, mut on_data: impl FnMut()) -> Result<(), End> {
        for command in self.view.subscribe(false) {
            send(socket, command).await?;
        }
        let mut heard = Instant::now();
        let mut retry: Option<Instant> = None;
        let mut resubscribed: Option<Instant> = None;
        let mut drain: Option<(Instant, Option<String>)> = None;
        loop {
            let silence = Duration::from_millis(self.view.silence_ms());
            let message = tokio::select! {
                end = self.attend() => return Err(end),
                message = socket.next() => message,
                () = sleep_until(heard + silence) => {
                    let why = format!("silent for {:.1} s", silence.as_secs_f64());
                    self.link(Link::Stale(why.clone()))?;
                    return Err(End::lost(why));
                }
                () = sleep_until(retry.unwrap_or(heard)), if retry.is_some() => {
                    retry = None;
                    for command in self.view.subscribe(false) {
                        send(socket, command).await?;
                    }
                    continue;
                }
                () = sleep_until(drain.as_ref().map_or(heard, |(due, _)| *due)), if drain.is_some() => {
                    let to = drain.and_then(|(_, to)| to);
                    return Err(End::Again { after: Some(Duration::ZERO), to, why: "the server is going down".into() });
                }
            };
            heard = Instant::now();
            let text = match message {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => return Err(closed(frame, drain)),
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(ended(format!("connection lost: {error}"), drain)),
                None => return Err(ended("closed by the server".to_owned(), drain)),
            };
            let reaction = self.take(&text)?;
            self.judge()?;
            match reaction {
                Reaction::Done { show } => {
                    if show {
                        on_data();
                    }
                }
                Reaction::Resubscribe => {
                    if resubscribed.is_some_and(|last| last.elapsed() < RESUBSCRIBE_EVERY) {
                        return Err(End::lost("frames are missing again and again"));
                    }
                    resubscribed = Some(Instant::now());
                    self.link(Link::Stale("frames are missing".into()))?;
                    for command in self.view.subscribe(true) {
                        send(socket, command).await?;
                    }
                }
                Reaction::Retry { wait_ms } => {
                    retry = Some(Instant::now() + Duration::from_millis(wait_ms).clamp(RETRY_MIN, WAIT_MAX));
                }
                // Who looks at a table sees why it stands still; whoever reads lines would wait for ever.
                Reaction::Refused { .. } | Reaction::Over if self.screen.is_table() => {}
                Reaction::Over => return Ok(()),
                Reaction::Refused { why } => return Err(End::Fatal(why)),
                Reaction::Drain { wait_ms, to } => {
                    drain = Some((Instant::now() + Duration::from_millis(wait_ms).min(WAIT_MAX), to));
                }
            }
        }
    }

    /// Says whether what is held is live, when that has changed. Of a doubt that goes on only the table says the latest.
    fn judge(&mut self) -> Result<(), End> {
        let is_live = self.view.link == Link::Live;
        match self.view.doubt() {
            Some(doubt) if matches!(self.view.link, Link::Stale(_)) => self.view.link = Link::Stale(doubt),
            Some(doubt) => self.link(Link::Stale(doubt))?,
            None if self.view.is_current() && !is_live => self.link(Link::Live)?,
            None => {}
        }
        Ok(())
    }

    fn take(&mut self, text: &str) -> Result<Reaction, End> {
        let now_ms = self.now_ms();
        match read(text) {
            Ok(frame) => {
                let reaction = self.view.apply(&frame, now_ms);
                if !matches!(reaction, Reaction::Done { show: false } | Reaction::Resubscribe) {
                    self.screen.frame(text, &frame)?;
                }
                Ok(reaction)
            }
            Err(why) => {
                self.view.note(&why);
                Ok(Reaction::Done { show: false })
            }
        }
    }
}

async fn send(socket: &mut Socket, command: String) -> Result<(), End> {
    match timeout(SEND_TIMEOUT, socket.send(Message::text(command))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(End::lost(format!("connection lost: {error}"))),
        Err(_) => Err(End::lost("the server does not read")),
    }
}

fn closed(frame: Option<CloseFrame>, drain: Option<(Instant, Option<String>)>) -> End {
    let Some(frame) = frame else { return ended("closed by the server".to_owned(), drain) };
    let code = u16::from(frame.code);
    let why = format!("closed by the server: {code} {}", clean(&frame.reason));
    if FINAL_CODES.contains(&code) { End::Fatal(why) } else { ended(why, drain) }
}

/// A server that announced its end said when to come back: the moment is chosen so that not all come together.
fn ended(why: String, drain: Option<(Instant, Option<String>)>) -> End {
    match drain {
        Some((due, to)) => End::Again { after: Some(due.saturating_duration_since(Instant::now())), to, why },
        None => End::lost(why),
    }
}

/// One line that says what was tried, what happened and what may help.
fn refused(url: &str, error: &Error) -> End {
    let why = match error {
        Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => {
            format!("cannot connect to {url}: connection refused; is `tickgate serve` running?")
        }
        Error::Io(io) => format!("cannot connect to {url}: {io}"),
        Error::Http(response) => {
            let status = response.status().as_u16();
            let why = format!("cannot connect to {url}: the server answered HTTP {status}");
            // Asking again will not give another answer to these.
            if (400..500).contains(&status) && status != 408 && status != 429 {
                return End::Fatal(why);
            }
            why
        }
        other => format!("cannot connect to {url}: {}", clean(&other.to_string())),
    };
    End::lost(why)
}
