//! The limit program: what fan-out costs when user space does nothing but call `send`.
//!
//! It accepts N WebSocket clients and gives each the same ready-made frame, R times a second, from one thread and
//! without polling. The gateway's CPU per frame is stated as a ratio to this program's.
//! Bound: one pending remainder of one frame per client; what does not fit is skipped and counted, never queued.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which measures: nobody hands it the time"
)]

mod accept;
mod frame;
mod rounds;
mod usage;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::rounds::Summary;

/// The floor: accepts clients, then sends all of them a ready-made frame with plain non-blocking sends.
#[derive(Parser, Debug)]
#[command(name = "tickgate-limit", version)]
struct Args {
    /// Where to listen for WebSocket clients.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
    listen: SocketAddr,
    /// How many clients to wait for before the first round.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    clients: usize,
    /// Payload bytes of the frame.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    bytes: usize,
    /// Frames a second for each client.
    #[arg(long, value_name = "RATE", default_value_t = 10.0)]
    per_second: f64,
    /// How long to send.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    seconds: f64,
    /// Pause between the last handshake and the first round.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0)]
    settle: f64,
    /// Who gets a frame when.
    #[arg(long, value_enum, default_value_t = Mode::Broadcast)]
    mode: Mode,
    /// Pin the program to this core (asks `taskset`).
    #[arg(long, value_name = "CORE")]
    cpu: Option<usize>,
}

/// Who gets a frame when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// All clients at the start of each round (W1).
    Broadcast,
    /// Groups of 512, spread evenly over the interval (W3).
    Spread,
}

/// Clients that share one moment in spread mode: 3.4 ms of sends, the same as the gateway's phase groups.
const GROUP_CLIENTS: usize = 512;

/// Rounds a second: what a timer can keep and a schedule can hold.
const RATES: RangeInclusive<f64> = 0.01..=10_000.0;

/// Seconds of a run: a day at most.
const TIMES: RangeInclusive<f64> = 0.0..=86_400.0;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tickgate-limit: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), String> {
    let in_range = RATES.contains(&args.per_second)
        && TIMES.contains(&args.seconds)
        && TIMES.contains(&args.settle)
        && args.clients > 0;
    if !in_range {
        return Err(format!(
            "--clients: at least 1; --per-second: {RATES:?}; --seconds and --settle: {TIMES:?}"
        ));
    }
    if let Some(core) = args.cpu {
        pin(core)?;
    }
    let clients = accept::clients(args.listen, args.clients)?;
    std::thread::sleep(Duration::from_secs_f64(args.settle));
    let group = match args.mode {
        Mode::Broadcast => args.clients,
        Mode::Spread => GROUP_CLIENTS,
    };
    let summary = rounds::send(clients, group, args.bytes, args.per_second, args.seconds)?;
    print_summary(args, &summary);
    Ok(())
}

/// The standard library cannot set affinity and `unsafe` is forbidden, so the system's own tool does it.
fn pin(core: usize) -> Result<(), String> {
    let status = Command::new("taskset")
        .args(["-cp", &core.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run taskset: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("taskset refused core {core}")) }
}

fn print_summary(args: &Args, s: &Summary) {
    let mode = if args.mode == Mode::Broadcast { "broadcast" } else { "spread" };
    let per_frame = if s.frames == 0 { 0.0 } else { s.cpu.total_us / s.frames as f64 };
    println!(
        "{{\"program\":\"limit\",\"mode\":\"{mode}\",\"clients\":{},\"payload_bytes\":{},\"per_second\":{},\
         \"rounds\":{},\"late_rounds\":{},\"frames\":{},\"skipped\":{},\"lost_clients\":{},\"seconds\":{:.3},\
         \"cpu_s\":{:.3},\"cpu_user_s\":{:.2},\"cpu_system_s\":{:.2},\"cpu_us_per_frame\":{per_frame:.3},\
         \"round_us_p50\":{},\"round_us_p99\":{}}}",
        args.clients,
        args.bytes,
        args.per_second,
        s.rounds,
        s.late,
        s.frames,
        s.skipped,
        s.lost,
        s.seconds,
        s.cpu.total_us / 1e6,
        s.cpu.user_s,
        s.cpu.system_s,
        s.round_us_p50,
        s.round_us_p99,
    );
}
