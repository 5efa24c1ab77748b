//! `tickgate bench`: N raw WebSocket clients from a few threads, and what they saw of a server under load.
//!
//! Per frame the load does one header walk, one look at the first bytes and one histogram step; JSON is parsed in a
//! sample only, so that the client is not what is measured. Bound: `CLIENTS_MAX` clients; memory per client is one
//! small struct, see `connection`.

mod plan;
mod rounds;
mod tally;
mod handshake;
mod head;
mod sample;
mod walker;
mod connection;
mod worker;
mod probe;
mod report;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use self::plan::Plan;
pub use self::plan::Subscribe;
use self::report::Run;
use self::tally::Tally;
use self::worker::{LINGER, MEASURE, STOP, Shared, WARM, Worker};
use super::clock::{instant, wall_us};
use crate::base::process::{self, Usage};
use crate::flow::adapter::endpoint::{self, Endpoint};

/// Clients of one process; descriptors and ports end long before.
const CLIENTS_MAX: usize = 1_000_000;

/// Threads of one process: more than this is a wish for a second machine.
const THREADS_MAX: usize = 64;

/// The longest of the times that can be asked for: a day. A soak longer than that is started again.
const SECONDS_MAX: f64 = 86_400.0;

/// Reconnects a second: several times what one core can shake hands with.
const CHURN_MAX: f64 = 100_000.0;

/// After the measured time, frames that are under way may still arrive and complete their rounds.
const LINGER_TIME: Duration = Duration::from_millis(500);

/// How often the leading thread looks whether everybody is connected.
const LOOK: Duration = Duration::from_millis(5);

/// Put load on a gateway and measure it: many WebSocket clients from one process.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The gateway's WebSocket address.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub url: String,
    /// How many clients.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub clients: usize,
    /// What there is to subscribe to: names with commas, `load:1000` (the load feed's), `S{000..999}`, or `none`.
    #[arg(long, value_name = "LIST", default_value = "*")]
    pub symbols: String,
    /// The topics that every client subscribes to, instead of --symbols.
    #[arg(long, value_name = "TOPICS", conflicts_with_all = ["symbols", "pick"])]
    pub topic: Option<String>,
    /// Each client subscribes to this many of the symbols, picked by chance (see --seed); otherwise to all.
    #[arg(long, value_name = "N")]
    pub pick: Option<usize>,
    /// Frames a second that each client asks for; otherwise as many as the server likes to send.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    /// How to subscribe.
    #[arg(long, value_enum, default_value_t = Subscribe::Message)]
    pub subscribe: Subscribe,
    /// Further members of the subscribe command, as a JSON object: '{"mode":"every","fields":["last"]}'.
    #[arg(long, value_name = "JSON")]
    pub with: Option<String>,
    /// Time between the last handshake and the measurement.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    pub warmup: f64,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    pub seconds: f64,
    /// Give up on clients that are not connected by then.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    pub connect_timeout: f64,
    /// This share of the clients (0 to 1) never reads after subscribing.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    pub stalled: f64,
    /// This many clients a second, picked by chance, hang up and connect again.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.0)]
    pub churn: f64,
    /// Parse the JSON of every K-th frame, and check the sequence numbers of every K-th client.
    #[arg(long, value_name = "K", default_value_t = 100)]
    pub sample: usize,
    /// One more client sends pings and `ping` commands throughout, and times the answers.
    #[arg(long)]
    pub ping_probe: bool,
    /// Time between two WebSocket pings of the probe.
    #[arg(long, value_name = "MS", default_value_t = 20.0)]
    pub ping_every: f64,
    /// Threads that share the clients.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: usize,
    /// The same seed picks the same symbols.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Connect from this address, and from the next ones after 25,000 clients each.
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<Ipv4Addr>,
    /// Pin this program to one core (asks `taskset`).
    #[arg(long, value_name = "CORE")]
    pub cpu: Option<usize>,
    /// The server's process: its CPU and memory go into the report.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// Runs the load and prints the report. Fails when nobody could connect, or when the arguments make no sense.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let report = measure(args)?;
    if args.json {
        println!("{report}");
    } else {
        print!("{}", report::table(&report));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(args: &Args) -> Result<serde_json::Value, String> {
    let plan = Arc::new(plan(args)?);
    if let Some(core) = args.cpu {
        pin(core)?;
    }
    let shared = Arc::new(Shared::default());
    let before = usage(args.pid)?;
    let workers = spawn(&plan, &shared, args)?;
    let began = instant();
    if let Err(why) = wait_for_all(&plan, &shared, &workers, args.connect_timeout) {
        shared.phase.store(STOP, Ordering::Relaxed);
        let tally = collect(workers)?;
        let reasons: Vec<&str> = tally.failed.keys().map(String::as_str).collect();
        let reasons = if reasons.is_empty() { why } else { reasons.join("; ") };
        return Err(format!("no client could connect to {}: {reasons}", args.url));
    }
    let connect_s = began.elapsed().as_secs_f64();
    let connected = shared.connected.load(Ordering::Relaxed);
    eprintln!("tickgate bench: {connected} of {} clients connected in {connect_s:.2} s", plan.clients);

    let probe = args.ping_probe.then(|| {
        let (plan, shared) = (Arc::clone(&plan), Arc::clone(&shared));
        let ping_every = Duration::from_secs_f64(args.ping_every / 1e3);
        thread::spawn(move || probe::run(&plan, &shared, ping_every))
    });
    thread::sleep(Duration::from_secs_f64(args.warmup));
    let own_start = usage(Some(std::process::id()))?;
    let start = usage(args.pid)?;
    let from_us = wall_us();
    shared.phase.store(MEASURE, Ordering::Relaxed);
    thread::sleep(Duration::from_secs_f64(args.seconds));
    shared.phase.store(LINGER, Ordering::Relaxed);
    let to_us = wall_us();
    // A server that ended by itself, as the limit program does, has no figures any more; the rest still counts.
    let end = usage(args.pid).unwrap_or_default();
    let own_end = usage(Some(std::process::id()))?;
    thread::sleep(LINGER_TIME);
    shared.phase.store(STOP, Ordering::Relaxed);

    let tally = collect(workers)?;
    let probe = probe.map(|thread| thread.join().map_err(|_| "the ping probe panicked".to_owned())?);
    let server =
        before.zip(start).zip(end).map(|((before, start), end)| report::Server { before, start, end });
    let own_cpu_s = own_start.zip(own_end).map_or(0.0, |(start, end)| end.cpu_s_since(&start));
    let run = Run { connected, connect_s, from_us, to_us, server, own_cpu_s, probe };
    Ok(report::report(args, &plan, &run, tally))
}

fn plan(args: &Args) -> Result<Plan, String> {
    let within = |name: &str, value: f64, least: f64, most: f64| {
        if (least..=most).contains(&value) { Ok(()) } else { Err(format!("--{name}: {least} to {most}")) }
    };
    within("seconds", args.seconds, 0.1, SECONDS_MAX)?;
    within("warmup", args.warmup, 0.0, SECONDS_MAX)?;
    within("connect-timeout", args.connect_timeout, 0.1, SECONDS_MAX)?;
    within("ping-every", args.ping_every, 1.0, SECONDS_MAX)?;
    within("churn", args.churn, 0.0, CHURN_MAX)?;
    within("stalled", args.stalled, 0.0, 1.0)?;
    if !(1..=CLIENTS_MAX).contains(&args.clients) || !(1..=THREADS_MAX).contains(&args.threads) {
        return Err(format!("--clients: 1 to {CLIENTS_MAX}; --threads: 1 to {THREADS_MAX}"));
    }
    let endpoint = Endpoint::parse(&args.url)?;
    let with = match &args.with {
        None => serde_json::Map::new(),
        Some(text) => serde_json::from_str(text).map_err(|error| format!("--with: {error}"))?,
    };
    Ok(Plan {
        server: server(&endpoint, Duration::from_secs_f64(args.connect_timeout))?,
        endpoint,
        clients: args.clients,
        topics: plan::names(args.topic.as_deref().unwrap_or(&args.symbols))?,
        pick: args.pick,
        seed: args.seed,
        subscribe: args.subscribe,
        rate: args.rate,
        with,
        stalled: args.stalled,
        sample: args.sample.max(1),
        source: args.source,
    })
}

/// Where all clients go: the first address of the name where somebody is.
fn server(endpoint: &Endpoint, timeout: Duration) -> Result<SocketAddr, String> {
    match endpoint.addresses()?.as_slice() {
        [only] => Ok(*only),
        several => {
            let stream = endpoint::connect(several, timeout)?;
            stream.peer_addr().map_err(|error| format!("{}: {error}", endpoint.authority))
        }
    }
}

/// The standard library cannot set affinity and `unsafe` is forbidden, so the system's own tool does it, before there
/// are other threads.
fn pin(core: usize) -> Result<(), String> {
    let status = Command::new("taskset")
        .args(["-cp", &core.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("--cpu: cannot run taskset: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("--cpu: taskset refused core {core}")) }
}

fn usage(pid: Option<u32>) -> Result<Option<Usage>, String> {
    pid.map(|pid| process::usage(&pid.to_string())).transpose()
}

type Running = JoinHandle<Result<Tally, String>>;

fn spawn(plan: &Arc<Plan>, shared: &Arc<Shared>, args: &Args) -> Result<Vec<Running>, String> {
    shared.phase.store(WARM, Ordering::Relaxed);
    let churn = args.churn;
    (0..args.threads.min(plan.clients))
        .map(|number| {
            let threads = args.threads.min(plan.clients);
            let worker = Worker::new(Arc::clone(plan), Arc::clone(shared), threads, number)?;
            thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn(move || worker.run(churn))
                .map_err(|error| format!("cannot start a thread: {error}"))
        })
        .collect()
}

/// Waits until every client is in or has failed; an error when none is in.
fn wait_for_all(plan: &Plan, shared: &Shared, workers: &[Running], timeout: f64) -> Result<(), String> {
    let deadline = instant() + Duration::from_secs_f64(timeout);
    loop {
        let connected = shared.connected.load(Ordering::Relaxed);
        let settled = connected + shared.failed.load(Ordering::Relaxed);
        let over =
            settled >= plan.clients || instant() >= deadline || workers.iter().any(JoinHandle::is_finished);
        if over {
            return if connected > 0 { Ok(()) } else { Err("timed out".into()) };
        }
        thread::sleep(LOOK);
    }
}

fn collect(workers: Vec<Running>) -> Result<Tally, String> {
    let mut all = Tally::new()?;
    for worker in workers {
        all.add(worker.join().map_err(|_| "a load thread panicked".to_owned())??)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
