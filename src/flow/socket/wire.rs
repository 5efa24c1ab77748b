//! What a shard needs of the world: sockets that never block, readiness, and the time. The machine's is here; tests
//! have one of their own.
//!
//! Bounds kept here: `KERNEL_UNSENT_BYTES` unsent per connection, and the stall limit for unacknowledged data.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::{Events, Interest, Poll, Token, Waker};
use rustix::net::{SendFlags, send};
use socket2::SockRef;

use super::events::EventStream;
use crate::base::clock::{Clock, Now};
use crate::base::limits::{KERNEL_UNSENT_BYTES, Limits};
use crate::flow::dispatch::wish::Packing;
use crate::flow::frame::command::{Mistake, Subscribe};

/// A client's socket that never blocks.
pub trait Wire: Read + Write {
    /// Says that nothing more will be written.
    fn shutdown_write(&mut self);
    /// Makes dropping it forget what the peer has not taken.
    fn reset(&mut self);

    /// Whether the peer only listens: it sends no commands, and answers no pings.
    fn listens(&self) -> bool {
        false
    }
}

/// A client that the doors have let in.
#[derive(Debug)]
pub struct Newcomer<W> {
    /// Its socket.
    pub wire: W,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What it had sent already behind its request.
    pub head: Vec<u8>,
    /// What its URL asks for.
    pub asked: Result<Option<Box<Subscribe>>, Mistake>,
    /// How messages travel.
    pub packing: Packing,
}

/// A socket that can be read or written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The session it was registered for.
    pub session: u32,
    /// Bytes, or the end, have come.
    pub readable: bool,
    /// There is room again.
    pub writable: bool,
}

/// The world of one shard.
pub trait Io {
    /// Its sockets.
    type Wire: Wire;

    /// The time. One reading serves a whole slice of work.
    fn now(&mut self) -> Now;

    /// The clients that have come since the last call.
    fn newcomers(&mut self) -> Vec<Newcomer<Self::Wire>>;

    /// From now on reports when this socket is ready.
    fn register(&mut self, wire: &mut Self::Wire, session: u32) -> io::Result<()>;

    /// Waits for readiness, at most `wait` (`None`: until woken), and appends what is ready.
    fn poll(&mut self, wait: Option<Duration>, ready: &mut Vec<Ready>);
}

/// A client's TCP connection.
#[derive(Debug)]
pub struct Tcp {
    stream: mio::net::TcpStream,
    /// What makes events of frames, for a client that only listens.
    events: Option<Box<EventStream>>,
    /// It counts as one of the gateway's and one of its shard's connections for as long as it lives.
    _permits: [Option<Permit>; 2],
}

/// One of the connections that the gateway may have.
#[derive(Debug)]
pub struct Permit(Arc<AtomicUsize>);

impl Permit {
    /// Takes one if fewer than `max` are taken.
    pub fn take(open: &Arc<AtomicUsize>, max: usize) -> Option<Self> {
        let one_more = |open| (open < max).then_some(open + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Self(Arc::clone(open)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tcp {
    /// Takes over an accepted, tuned, non-blocking socket.
    pub fn new(stream: std::net::TcpStream, permits: [Option<Permit>; 2]) -> Self {
        Self { stream: mio::net::TcpStream::from_std(stream), events: None, _permits: permits }
    }

    /// What is written comes as events.
    pub fn with_events(self) -> Self {
        Self { events: Some(Box::default()), ..self }
    }
}

/// Sets what the gateway relies on, of every socket that it accepts.
pub fn tune(socket: &impl AsFd, limits: &Limits) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES)?;
    // The kernel gives a peer up only after we have: it would take the goodbye with it, and the reason. A stall is noticed
    // when the heartbeat's wheel comes by.
    socket.set_tcp_user_timeout(Some(limits.write_stall + limits.heartbeat + limits.close_timeout))
}

/// Makes dropping this socket forget what the peer has not taken.
pub fn forget(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

impl Read for Tcp {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.read(bytes)
    }
}

impl Write for Tcp {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.events {
            // The kernel's call and nothing around it: the C library's is a point of cancellation, which takes 1 % of the CPU.
            None => Ok(send(&self.stream, bytes, SendFlags::NOSIGNAL)?),
            Some(events) => events.write(bytes, &mut self.stream),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Wire for Tcp {
    fn shutdown_write(&mut self) {
        // A socket that is gone already needs no goodbye.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    fn reset(&mut self) {
        // A socket that is gone already has nothing to forget.
        let _ = forget(&self.stream);
    }

    fn listens(&self) -> bool {
        self.events.is_some()
    }
}

const WAKE: Token = Token(usize::MAX);
/// Readiness reports taken from the kernel at once.
const EVENTS_MAX: usize = 1024;

/// Where the doors leave upgraded clients for a shard, and how anybody wakes it.
#[derive(Debug)]
pub struct Mailbox {
    /// `None` once the shard has ended.
    newcomers: Mutex<Option<Vec<Newcomer<Tcp>>>>,
    waker: Waker,
}

impl Mailbox {
    /// Leaves a client; its number is bounded by the permits.
    pub fn leave(&self, newcomer: Newcomer<Tcp>) {
        // After the shard's end the newcomer is dropped here, and its socket with it.
        if let Some(newcomers) = &mut *self.newcomers.lock().unwrap_or_else(PoisonError::into_inner) {
            newcomers.push(newcomer);
        }
        self.wake();
    }

    /// Takes no more clients, if none waits here; says whether it does so.
    pub fn close(&self) -> bool {
        let mut newcomers = self.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = newcomers.as_ref().is_none_or(Vec::is_empty);
        if empty {
            *newcomers = None;
        }
        empty
    }

    /// Ends the shard's wait.
    pub fn wake(&self) {
        // It fails only when the process is out of file descriptors for good; the shard's own timeout still ends its wait.
        let _ = self.waker.wake();
    }
}

/// The machine's sockets and clock.
#[derive(Debug)]
pub struct System {
    clock: Clock,
    poll: Poll,
    events: Events,
    mailbox: Arc<Mailbox>,
}

impl System {
    /// A poll of its own.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mailbox =
            Mailbox { newcomers: Mutex::new(Some(Vec::new())), waker: Waker::new(poll.registry(), WAKE)? };
        Ok(Self { clock, poll, events: Events::with_capacity(EVENTS_MAX), mailbox: Arc::new(mailbox) })
    }

    /// Where to leave clients for it.
    pub fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }
}

impl Io for System {
    type Wire = Tcp;

    fn now(&mut self) -> Now {
        self.clock.now()
    }

    fn newcomers(&mut self) -> Vec<Newcomer<Tcp>> {
        let mut newcomers = self.mailbox.newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        newcomers.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn register(&mut self, wire: &mut Tcp, session: u32) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut wire.stream, Token(session as usize), interest)
    }

    fn poll(&mut self, wait: Option<Duration>, ready: &mut Vec<Ready>) {
        // An interrupted wait is a short one.
        if self.poll.poll(&mut self.events, wait).is_err() {
            return;
        }
        for event in self.events.iter().filter(|event| event.token() != WAKE) {
            ready.push(Ready {
                session: event.token().0 as u32,
                readable: event.is_readable() || event.is_error() || event.is_read_closed(),
                writable: event.is_writable(),
            });
        }
    }
}
