//! Builds a gateway from its configuration, runs it, and ends it in good order.
//!
//! Bound kept here: one thread per shard and per feed, and the drain's deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tickgate_feeds::feed::Source;
use tickgate_feeds::market::FeedId;
use tickgate_feeds::symbols::Symbols;
use tickgate_feeds::tickgate::Retelling;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::admin::{self, Admin};
use super::config::Config;
use super::doors::{self, Doors, ShardDoor};
use super::ingest::{Ingest, Waker};
use super::life::Life;
use super::metrics::{FeedGauge, Metrics, Published};
use super::rest::listing::FeedNames;
use super::shard::{self, Identity, Shard};
use super::sources::{self, Failure, Opened};
use crate::base::clock::Clock;
use crate::base::limits::{Limits, Memory};
use crate::flow::adapter;
use crate::flow::adapter::link::Link;
use crate::flow::conflation::cut::Node;
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
    /// A topic that shows something: the first group, or all.
    pub first_topic: String,
    runtime: Runtime,
    signals: Signals,
    life: Arc<Life>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
}

/// Says whether a gateway could be built from this, short of opening its ports.
pub fn check(config: &Config) -> Result<(), Failure> {
    config.check().map_err(Failure::Usage)?;
    let symbols = Arc::new(Symbols::new(config.limits.symbols_max));
    let feeds = sources::open(config, &symbols)?;
    if feeds.iter().any(|(_, feed)| matches!(feed, Opened::Upstream(_))) {
        return Ok(());
    }
    sources::set_groups(config, &symbols).map_err(Failure::Usage)
}

/// Builds all parts and begins to serve.
pub fn start(config: &Config) -> Result<Gateway, Failure> {
    config.check().map_err(Failure::Usage)?;
    let symbols = Arc::new(Symbols::new(config.limits.symbols_max));
    let clock = Clock::start();
    let name = random_name(clock);
    let opened = sources::open(config, &symbols)?;
    let is_alone = opened.len() == 1;
    let mut feeds = Vec::new();
    for (at, (feed, opened)) in opened.into_iter().enumerate() {
        let ready = match opened {
            Opened::Source(source) => Ready::Source(source),
            Opened::Upstream(plan) => {
                let url = plan.url.clone();
                let retelling = (!is_alone).then(|| Retelling::new(Arc::clone(&symbols)));
                let link = Link::open(plan, FeedId(at as u16), name.clone(), retelling, clock);
                Ready::Upstream(link.map_err(|error| Failure::Unavailable(format!("{url}: {error}")))?.into())
            }
        };
        feeds.push((feed, ready));
    }
    build(config, symbols, feeds, &name, clock)
}

/// What updates come from, ready to run.
enum Ready {
    Source(Box<dyn Source>),
    Upstream(Box<Link>),
}

impl Ready {
    /// Whether its prices are made up.
    fn simulated(&self) -> bool {
        match self {
            Self::Source(source) => source.simulated(),
            Self::Upstream(link) => link.simulated(),
        }
    }
}

/// Feeds by the names that operators see; each has its position's number.
type Feeds = Vec<(String, Ready)>;

fn build(
    config: &Config,
    symbols: Arc<Symbols>,
    mut feeds: Feeds,
    name: &str,
    clock: Clock,
) -> Result<Gateway, Failure> {
    let limits = fit_descriptors(&config.limits);
    let names: FeedNames = feeds.iter().map(|(name, feed)| (name.clone(), feed.simulated())).collect();
    let names = Arc::new(names);
    let simulated = names.iter().any(|(_, simulated)| *simulated);
    let identity = Arc::new(Identity { simulated, limits });
    let count = config.shards.unwrap_or(std::thread::available_parallelism().map_or(1, usize::from));
    let systems = (0..count).map(|_| System::new(clock)).collect::<io::Result<Vec<_>>>();
    let systems = systems.map_err(|error| Failure::Unavailable(format!("shards: cannot poll: {error}")))?;
    let mailboxes: Vec<_> = systems.iter().map(System::mailbox).collect();
    let wakers = mailboxes.iter().map(waker).collect();
    // Who numbers updates itself is in an epoch of its own name.
    let ingest = Arc::new(Ingest::new(symbols, Node::new(name, name), &identity.limits, wakers));
    for (_, feed) in &mut feeds {
        if let Ready::Upstream(link) = feed {
            link.begin(&*ingest);
        }
    }
    sources::set_groups(config, ingest.symbols()).map_err(Failure::Usage)?;
    let parts = Parts { config, identity, ingest, names, feeds, clock };
    serve(parts, systems, mailboxes).map_err(Failure::Unavailable)
}

/// What a gateway is put together from.
struct Parts<'a> {
    config: &'a Config,
    identity: Arc<Identity>,
    ingest: Arc<Ingest>,
    names: Arc<FeedNames>,
    feeds: Feeds,
    clock: Clock,
}

/// Opens the ports and starts all threads.
fn serve(parts: Parts<'_>, systems: Vec<System>, mailboxes: Vec<Arc<Mailbox>>) -> Result<Gateway, String> {
    let Parts { config, identity, ingest, names, feeds, clock } = parts;
    let limits = identity.limits.clone();
    let runtime = runtime()?;
    // From here on a signal ends the gateway in good order.
    let signals = runtime.block_on(async { Signals::new() }).map_err(|error| format!("signals: {error}"))?;
    let (listener, address) = listen(&runtime, config.listen, "listen")?;
    let (admin_listener, admin_address) = listen(&runtime, config.admin, "admin")?;
    let groups = ingest.symbols().groups();
    let first_topic = groups.first().map_or_else(|| "*".to_owned(), |(group, _)| format!("@{group}"));
    let life = Arc::new(Life::default());
    let memory = limits.memory(limits.connections_max, limits.symbols_max, systems.len());
    let (shards, published) = start_shards(systems, &identity, &ingest, &life)?;
    let (threads, gauges) = start_feeds(feeds, clock, &ingest, &life)?;
    let doors = Arc::new(Doors {
        identity,
        ingest,
        feeds: Arc::clone(&names),
        shards: mailboxes.iter().map(ShardDoor::new).collect(),
        open: Arc::default(),
        answering: Arc::default(),
        clock,
        life: Arc::clone(&life),
        stats: doors::Stats::default(),
    });
    let started_s = clock.now().wall.0 as f64 / 1e9;
    let metrics = Metrics::new(Arc::clone(&doors), published, gauges, memory.process_bytes(), started_s);
    runtime.spawn(doors::serve(listener, doors));
    let admin = Arc::new(Admin { metrics, life: Arc::clone(&life) });
    runtime.spawn(admin::serve(admin_listener, admin, limits.clone()));
    Ok(Gateway {
        address,
        admin_address,
        memory,
        feeds: names.iter().map(|(name, _)| name.clone()).collect(),
        limits,
        first_topic,
        runtime,
        signals,
        life,
        mailboxes,
        threads: shards.into_iter().chain(threads).collect(),
    })
}

fn start_shards(
    systems: Vec<System>,
    identity: &Arc<Identity>,
    ingest: &Arc<Ingest>,
    life: &Arc<Life>,
) -> Result<(Vec<JoinHandle<()>>, Published), String> {
    let (mut threads, mut published) = (Vec::new(), Vec::new());
    for (index, system) in systems.into_iter().enumerate() {
        let shard = Shard::new(index, Arc::clone(identity), Arc::clone(ingest));
        let (stats, life) = (Arc::<Mutex<shard::Stats>>::default(), Arc::clone(life));
        published.push(Arc::clone(&stats));
        threads.push(spawn(format!("shard-{index}"), move || serve_shard(shard, system, &stats, &life))?);
    }
    Ok((threads, published))
}

/// What drives a feed on its thread, until it is told to stop.
type Run = Box<dyn FnOnce(&Ingest, &AtomicBool, &adapter::Gauge) + Send>;

fn start_feeds(
    feeds: Feeds,
    clock: Clock,
    ingest: &Arc<Ingest>,
    life: &Arc<Life>,
) -> Result<(Vec<JoinHandle<()>>, Vec<FeedGauge>), String> {
    let (mut threads, mut gauges) = (Vec::new(), Vec::new());
    let mut start = |name: String, run: Run| {
        let gauge = Arc::new(adapter::Gauge::default());
        gauges.push(FeedGauge { name: name.clone(), gauge: Arc::clone(&gauge) });
        let (ingest, life) = (Arc::clone(ingest), Arc::clone(life));
        threads.push(spawn(format!("feed-{name}"), move || run(&ingest, &life.draining, &gauge))?);
        Ok::<(), String>(())
    };
    for (at, (name, feed)) in feeds.into_iter().enumerate() {
        let id = FeedId(at as u16);
        let run: Run = match feed {
            Ready::Source(source) => Box::new(move |ingest, stop, gauge| {
                adapter::run(source, id, clock, ingest, stop, gauge);
            }),
            Ready::Upstream(link) => Box::new(move |ingest, stop, gauge| link.run(ingest, stop, gauge)),
        };
        start(name, run)?;
    }
    Ok((threads, gauges))
}

impl Gateway {
    /// Blocks until the operator asks for the end, by SIGINT or SIGTERM. The error is an end that nobody asked for.
    pub fn wait(&mut self) -> Result<(), String> {
        let (signals, life) = (&mut self.signals, &self.life);
        self.runtime.block_on(async {
            tokio::select! {
                () = signals.next() => Ok(()),
                () = life.broken.notified() => Err("a shard has died, see the message above".to_owned()),
            }
        })
    }

    /// Tells every client to come back, waits until they have gone or the deadline has passed, and ends all threads.
    /// A second signal ends the wait.
    pub fn shut_down(mut self) {
        self.life.draining.store(true, Ordering::SeqCst);
        self.mailboxes.iter().for_each(|mailbox| mailbox.wake());
        let (done, all_done) = tokio::sync::oneshot::channel();
        let threads = self.threads;
        std::thread::spawn(move || {
            for thread in threads {
                // A thread that panicked has said so already.
                let _ = thread.join();
            }
            let _ = done.send(());
        });
        self.runtime.block_on(async {
            tokio::select! {
                _ = tokio::time::timeout(self.limits.drain, all_done) => {}
                () = self.signals.next() => {}
            }
        });
        self.runtime.shutdown_background();
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// A shard's thread: turn, sleep, publish; until it has been drained.
fn serve_shard(mut shard: Shard<System>, mut system: System, published: &Mutex<shard::Stats>, life: &Life) {
    // Its clients would wait for ever and the doors would send it more: better that the whole process starts again.
    let _guard = life.guard();
    let mut published_ns = 0;
    loop {
        let wait = shard.turn(&mut system);
        if life.draining.load(Ordering::SeqCst) {
            shard.drain();
            // Who was left here meanwhile is let go by the mailbox.
            if shard.is_empty() && system.mailbox().close() {
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

/// Raises the process's limit of open files as far as it may be raised, and takes no more clients than that allows.
fn fit_descriptors(limits: &Limits) -> Limits {
    let wanted = limits.connections_max as u64 + DESCRIPTORS_OF_OUR_OWN;
    let allowed = raise_descriptors(wanted);
    let mut limits = limits.clone();
    limits.connections_max =
        limits.connections_max.min(allowed.saturating_sub(DESCRIPTORS_OF_OUR_OWN) as usize).max(1);
    limits
}

/// How many files may be open, raised to `wanted` as far as that goes.
fn raise_descriptors(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let has = current.unwrap_or(u64::MAX);
    let may_have = wanted.min(maximum.unwrap_or(u64::MAX));
    let raised = Rlimit { current: Some(may_have), maximum };
    if may_have > has && setrlimit(Resource::Nofile, raised).is_ok() { may_have } else { has }
}

fn runtime() -> Result<Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_io().enable_time().thread_name("doors");
    builder.build().map_err(|error| format!("cannot start threads: {error}"))
}

fn listen(runtime: &Runtime, address: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr), String> {
    let bind = || -> io::Result<(TcpListener, SocketAddr)> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let _runtime = runtime.enter();
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?;
        Ok((listener, address))
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

/// A name that no other gateway and no other run has: revisions of another run mean nothing here.
fn random_name(clock: Clock) -> String {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher is seeded by the system's randomness.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_i64(clock.now().wall.0);
    format!("{:016x}", hasher.finish())
}
