//! The program: arguments, log, configuration, build, print addresses, run, drain, exit code.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tickgate::client::{load, watch};
use tickgate::gateway::config::Config;
use tickgate::gateway::run;
use tickgate::gateway::sources::Failure;

/// Market-data fan-out gateway: conflated, sequence-numbered batch frames over WebSocket.
///
/// Without a command it serves the simulated VN30 market on 127.0.0.1:8080.
#[derive(Debug, Parser)]
#[command(name = "tickgate", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve feeds to clients.
    Serve(Serve),
    /// Show topics as they change: a live table in a terminal, NDJSON in a pipe.
    Watch(watch::Args),
    /// Put a gateway (or any WebSocket server) under load and measure what its clients get.
    Bench(load::Args),
    /// Read a configuration file and say what is wrong with it.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// Where clients come [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Where operators come: /metrics, /livez, /readyz [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// A feed; may be given several times [default: synthetic:vn30]
    ///
    /// synthetic:vn30?rate=2000&seed=7                a simulated market
    /// synthetic:load?symbols=1000&rate=20000         a plain load
    /// capture:PATH?venue=binance&speed=max           a recording: speed=1, 10x, max; loop=true;
    ///                                                only a part: start=2024-08-09T09:15:00Z&end=...
    /// tickgate:ws://HOST:PORT?symbols=*&books=10     another gateway: this one is its edge, and takes over its
    ///                                                revisions; bars=1s,1m; silence_ms=1000
    #[arg(long, value_name = "SPEC", verbatim_doc_comment)]
    feed: Vec<String>,
    /// A TOML file; flags win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Threads that serve clients [default: one per core]
    #[arg(long, value_name = "N")]
    shards: Option<usize>,
    /// What is logged: error, warn, info, debug (sessions as they begin and end) or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: tracing::Level,
}

impl Default for Serve {
    fn default() -> Self {
        Self {
            listen: None,
            admin: None,
            feed: Vec::new(),
            config: None,
            shards: None,
            log: tracing::Level::INFO,
        }
    }
}

/// Wrong arguments or configuration (EX_USAGE of sysexits.h).
const EXIT_USAGE: u8 = 64;
/// The gateway could not be built: a port is taken, a file is missing.
const EXIT_UNAVAILABLE: u8 = 69;
/// The gateway broke (EX_SOFTWARE).
const EXIT_BROKEN: u8 = 70;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, and are no errors.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command.unwrap_or_else(|| Command::Serve(Serve::default())) {
        Command::Serve(arguments) => serve(arguments),
        Command::Watch(arguments) => {
            watch::run(&arguments).unwrap_or_else(|error| fail(&error, EXIT_UNAVAILABLE))
        }
        Command::Bench(arguments) => {
            load::run(&arguments).unwrap_or_else(|error| fail(&error, EXIT_UNAVAILABLE))
        }
        Command::CheckConfig { file } => {
            match read_config(&file).map_err(Failure::Usage).and_then(|c| run::check(&c)) {
                Ok(()) => {
                    say(&format!("{}: good\n", file.display()));
                    ExitCode::SUCCESS
                }
                Err(failure) => give_up(failure),
            }
        }
    }
}

fn serve(arguments: Serve) -> ExitCode {
    let log = tracing_subscriber::fmt().with_max_level(arguments.log).with_target(false);
    log.with_writer(std::io::stderr).init();
    let config = match effective_config(arguments) {
        Ok(config) => config,
        Err(error) => return fail(&error, EXIT_USAGE),
    };
    let mut gateway = match run::start(&config) {
        Ok(gateway) => gateway,
        Err(failure) => return give_up(failure),
    };
    say(&greeting(&gateway));
    let asked = gateway.wait();
    say("draining\n");
    gateway.shut_down();
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, EXIT_BROKEN),
    }
}

fn greeting(gateway: &run::Gateway) -> String {
    let (version, feeds) = (env!("CARGO_PKG_VERSION"), gateway.feeds.join(", "));
    let (clients, symbols) = (gateway.limits.connections_max, gateway.limits.symbols_max);
    format!(
        "tickgate {version} serves {feeds}\n  page     http://{address}/\n  \
         clients  ws://{address}/ws?symbols={topic}\n  metrics  http://{admin}/metrics\n  \
         memory   at most {memory} with {clients} slow clients and {symbols} symbols\n",
        address = gateway.address,
        topic = gateway.first_topic,
        admin = gateway.admin_address,
        memory = gateway.memory,
    )
}

/// Writes to stdout. Whoever closed it does not want to hear, and that is no reason to end.
fn say(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn give_up(failure: Failure) -> ExitCode {
    match failure {
        Failure::Usage(error) => fail(&error, EXIT_USAGE),
        Failure::Unavailable(error) => fail(&error, EXIT_UNAVAILABLE),
    }
}

fn effective_config(arguments: Serve) -> Result<Config, String> {
    let mut config = arguments.config.as_deref().map_or_else(|| Ok(Config::default()), read_config)?;
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.admin = arguments.admin.unwrap_or(config.admin);
    config.shards = arguments.shards.or(config.shards);
    if !arguments.feed.is_empty() {
        config.feeds = arguments.feed;
    }
    Ok(config)
}

fn read_config(file: &Path) -> Result<Config, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Config::from_toml(&text).map_err(|error| format!("{}: {error}", file.display()))
}

fn fail(error: &str, code: u8) -> ExitCode {
    eprintln!("tickgate: {error}");
    ExitCode::from(code)
}
