//! Builds a gateway from its configuration, runs it, and ends it in good order.
//!
//! Bound kept here: one thread per shard and per feed, and the drain's deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tickgate_feeds::capture::Capture;
use tickgate_feeds::feed::Source;
use tickgate_feeds::market::FeedId;
use tickgate_feeds::spec::Spec;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::synthetic::Synthetic;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::admin::{self, Admin};
use super::config::Config;
use super::doors::{self, Doors, ShardDoor};
use super::ingest::{Ingest, Waker};
use super::metrics::{FeedGauge, Metrics};
use super::shard::{self, Identity, Shard};
use crate::base::clock::Clock;
use crate::base::limits::{Limits, Memory};
use crate::flow::adapter;
use crate::flow::socket::wire::{Mailbox, System};

/// Handshakes the kernel may hold for us: a reconnect storm must not meet a full queue. The kernel caps it at somaxconn.
const BACKLOG: i32 = 4096;
/// File descriptors besides those of clients: listeners, polls, feeds, files.
const DESCRIPTORS_OF_OUR_OWN: u64 = 256;
/// How often a shard publishes its counts.
const PUBLISH: Duration = Duration::from_secs(1);

/// A gateway that serves.
pub struct Gateway {
    /// Where clients come.
    pub address: SocketAddr,
    /// Where operators come.
    pub admin_address: SocketAddr,
    /// What the limits allow.
    pub memory: Memory,
    /// The feeds' names.
    pub feeds: Vec<String>,
    /// The bounds, fitted to this machine.
    pub limits: Limits,
    runtime: Runtime,
    stop_feeds: Arc<AtomicBool>,
    draining: Arc<AtomicBool>,
    mailboxes: Vec<Arc<Mailbox>>,
    shards: Vec<JoinHandle<()>>,
    sources: Vec<JoinHandle<()>>,
    drain: Duration,
}

/// Builds all parts and begins to serve. The error is one line for the operator.
pub fn start(config: &Config) -> Result<Gateway, String> {
    config.check()?;
    let limits = fit_descriptors(&config.limits);
    let clock = Clock::start();
    let symbols = Arc::new(Symbols::new(config.limits.symbols_max));
    let sources = open_feeds(config, &symbols)?;
    set_groups(config, &symbols)?;
    let runtime = runtime()?;
    let listener = listen(&runtime, config.listen, "listen")?;
    let admin_listener = listen(&runtime, config.admin, "admin")?;
    let address = listener.local_addr().map_err(|error| format!("listen: {error}"))?;
    let admin_address = admin_listener.local_addr().map_err(|error| format!("admin: {error}"))?;

    let identity = Arc::new(Identity {
        epoch: epoch(clock),
        simulated: sources.iter().any(|(_, source)| source.simulated()),
        limits: limits.clone(),
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = config.shards.unwrap_or(cores);
    let systems = (0..count).map(|_| System::new(clock)).collect::<io::Result<Vec<_>>>();
    let systems = systems.map_err(|error| format!("shards: cannot poll: {error}"))?;
    let mailboxes: Vec<_> = systems.iter().map(System::mailbox).collect();
    let wakers = mailboxes.iter().map(|mailbox| waker(mailbox)).collect();
    let ingest = Arc::new(Ingest::new(symbols, &limits, wakers));
    let draining = Arc::new(AtomicBool::new(false));
    let published: Vec<_> = (0..count).map(|_| Arc::new(Mutex::new(shard::Stats::default()))).collect();
    let mut shards = Vec::new();
    for (index, system) in systems.into_iter().enumerate() {
        let shard = Shard::new(index, Arc::clone(&identity), Arc::clone(&ingest));
        let (published, draining) = (Arc::clone(&published[index]), Arc::clone(&draining));
        let run = move || serve_shard(shard, system, &published, &draining);
        shards.push(spawn(format!("shard-{index}"), run)?);
    }
    let stop_feeds = Arc::new(AtomicBool::new(false));
    let names: Vec<(String, bool)> =
        sources.iter().map(|(name, source)| (name.clone(), source.simulated())).collect();
    let mut gauges = Vec::new();
    let mut threads = Vec::new();
    for (at, (name, source)) in sources.into_iter().enumerate() {
        let gauge = Arc::new(adapter::Gauge::default());
        gauges.push(FeedGauge { name: name.clone(), gauge: Arc::clone(&gauge) });
        let (ingest, stop) = (Arc::clone(&ingest), Arc::clone(&stop_feeds));
        let run = move || adapter::run(source, FeedId(at as u16), clock, &*ingest, &stop, &gauge);
        threads.push(spawn(format!("feed-{name}"), run)?);
    }

    let doors = Arc::new(Doors {
        identity,
        ingest,
        feeds: names.clone(),
        shards: mailboxes
            .iter()
            .map(|mailbox| ShardDoor { mailbox: Arc::clone(mailbox), open: Arc::default() })
            .collect(),
        open: Arc::new(AtomicUsize::new(0)),
        clock,
        stats: doors::Stats::default(),
    });
    let memory = limits.memory(limits.connections_max, limits.symbols_max, count);
    let started_s = clock.now().wall.0 as f64 / 1e9;
    let metrics = Metrics::new(Arc::clone(&doors), published, gauges, memory.process_bytes(), started_s);
    let admin = Arc::new(Admin { metrics, draining: Arc::clone(&draining) });
    runtime.spawn(doors::serve(listener, doors));
    runtime.spawn(admin::serve(admin_listener, admin, limits.clone()));
    Ok(Gateway {
        address,
        admin_address,
        memory,
        feeds: names.into_iter().map(|(name, _)| name).collect(),
        runtime,
        stop_feeds,
        draining,
        mailboxes,
        shards,
        sources: threads,
        drain: limits.drain,
        limits,
    })
}

impl Gateway {
    /// Blocks until the operator asks for the end: SIGINT or SIGTERM.
    pub fn wait_for_signal(&self) -> io::Result<()> {
        self.runtime.block_on(signal())
    }

    /// Tells every client to come back, waits until they have gone or the deadline has passed, and ends all threads.
    /// A second signal ends the wait.
    pub fn shut_down(self) {
        self.draining.store(true, Ordering::SeqCst);
        self.stop_feeds.store(true, Ordering::SeqCst);
        self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
        let (done, all_done) = tokio::sync::oneshot::channel();
        let (shards, sources) = (self.shards, self.sources);
        std::thread::spawn(move || {
            for thread in shards.into_iter().chain(sources) {
                // A thread that panicked has said so already.
                let _ = thread.join();
            }
            let _ = done.send(());
        });
        self.runtime.block_on(async {
            tokio::select! {
                _ = tokio::time::timeout(self.drain, all_done) => {}
                _ = signal() => {}
            }
        });
        self.runtime.shutdown_background();
    }
}

/// A shard's thread: turn, sleep, publish; until it has been drained.
fn serve_shard(
    mut shard: Shard<System>,
    mut system: System,
    published: &Mutex<shard::Stats>,
    draining: &AtomicBool,
) {
    let mut published_ns = 0;
    loop {
        let wait = shard.turn(&mut system);
        if draining.load(Ordering::SeqCst) {
            shard.drain();
            if shard.is_empty() {
                return;
            }
        }
        let now_ns = shard.now_ns();
        if now_ns - published_ns >= PUBLISH.as_nanos() as u64 {
            published_ns = now_ns;
            shard.settle_stats();
            published.lock().unwrap_or_else(PoisonError::into_inner).clone_from(shard.stats());
        }
        shard.sleep(&mut system, Some(wait.map_or(PUBLISH, |wait| wait.min(PUBLISH))));
    }
}

/// A source under the name that operators see.
type Named = (String, Box<dyn Source>);

fn open_feeds(config: &Config, symbols: &Arc<Symbols>) -> Result<Vec<Named>, String> {
    let mut sources: Vec<Named> = Vec::new();
    for (at, text) in config.feeds.iter().enumerate() {
        let id = FeedId(u16::try_from(at).map_err(|_| "feeds: expected at most 65,536".to_owned())?);
        let spec = Spec::parse(text)?;
        let source: Box<dyn Source> = match spec.kind.as_str() {
            "synthetic" => Box::new(Synthetic::from_spec(&spec, symbols, id)?),
            "capture" => Box::new(Capture::from_spec(&spec, symbols, id)?),
            other => return Err(format!("feed kind {other:?} in {text:?}: expected synthetic or capture")),
        };
        let short = spec.path.rsplit('/').next().unwrap_or_default();
        let name = format!("{}:{short}", spec.kind);
        let taken = sources.iter().filter(|(other, _)| other.starts_with(&name)).count();
        sources.push((if taken == 0 { name } else { format!("{name}#{}", taken + 1) }, source));
    }
    Ok(sources)
}

fn set_groups(config: &Config, symbols: &Symbols) -> Result<(), String> {
    for (group, members) in &config.groups {
        let mut found = Vec::new();
        for name in members {
            found.push(
                symbols.find(name).ok_or_else(|| format!("groups.{group}: no feed has a symbol {name:?}"))?,
            );
        }
        symbols.set_group(group, &found);
    }
    Ok(())
}

/// Raises the process's limit of open files as far as it may be raised, and takes no more clients than that allows.
fn fit_descriptors(limits: &Limits) -> Limits {
    let wanted = limits.connections_max as u64 + DESCRIPTORS_OF_OUR_OWN;
    let allowed = rlimit::increase_nofile_limit(wanted).unwrap_or(u64::MAX);
    let mut limits = limits.clone();
    limits.connections_max =
        limits.connections_max.min(allowed.saturating_sub(DESCRIPTORS_OF_OUR_OWN) as usize).max(1);
    limits
}

fn runtime() -> Result<Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_io().enable_time().thread_name("doors");
    builder.build().map_err(|error| format!("cannot start threads: {error}"))
}

fn listen(runtime: &Runtime, address: SocketAddr, what: &str) -> Result<TcpListener, String> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let _runtime = runtime.enter();
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{what}: {address} is in use; is another tickgate running? choose another with --{what}")
        }
        _ => format!("{what}: cannot listen on {address}: {error}"),
    })
}

fn waker(mailbox: &Arc<Mailbox>) -> Waker {
    let mailbox = Arc::clone(mailbox);
    Box::new(move || mailbox.wake())
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, String> {
    std::thread::Builder::new()
        .name(name)
        .spawn(run)
        .map_err(|error| format!("cannot start a thread: {error}"))
}

/// Names this run: revisions of another run mean nothing here.
fn epoch(clock: Clock) -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher is seeded by the system's randomness.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_i64(clock.now().wall.0);
    format!("{:016x}", hasher.finish())
}

async fn signal() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
