//! `tickgate watch`: topics as a live table in a terminal, or as NDJSON in a pipe.
//!
//! It follows the protocol's rules for clients to the letter (gaps, heartbeats, drain, close codes), so it is also
//! what an SDK's author may read. Bound: what is held is bounded in `table` and `view`; one connection at a time.

mod gap;
mod wire;
mod table;
mod view;
mod lines;
mod render;
mod screen;
mod session;

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;

use self::screen::Screen;
use self::session::{Desk, End};
use self::view::{Link, View, Wish};
use crate::base::backoff::Backoff;
use crate::flow::adapter::endpoint::Endpoint;
use crate::flow::dispatch::wish::Mode;

/// Ceiling of the longest wait before another connection.
const WAIT_MS_MAX: u64 = 30_000;

/// Watch topics: a live table in a terminal, one JSON object per line in a pipe.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// What to watch: symbols (VCB), groups (@VN30), prefixes (VN*), or with a channel (trade:FPT, bar_1m:FPT); with
    /// spaces between them, or commas as in a URL.
    #[arg(value_name = "TOPIC", required = true, value_delimiter = ',')]
    pub topics: Vec<String>,
    /// The gateway's WebSocket address.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/ws")]
    pub url: String,
    /// Frames a second at most; otherwise as fast as the gateway sends.
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f64>,
    /// Only these fields, with commas between: last,bid,ask.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    pub fields: Vec<String>,
    /// How changes become rows: the latest values, each event, or the values of now.
    #[arg(long, value_name = "MODE", value_parser = PossibleValuesParser::new(Mode::ALL.map(Mode::name)))]
    pub mode: Option<String>,
    /// Lines of JSON in a terminal too.
    #[arg(long)]
    pub json: bool,
}

/// Watches until Ctrl-C, a closed pipe or an end for good. The error is one line for people.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    Endpoint::parse(&args.url)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start: {error}"))?;
    match runtime.block_on(watch(args)) {
        End::Quit => Ok(ExitCode::SUCCESS),
        End::Fatal(why) | End::Again { why, .. } => Err(why),
    }
}

async fn watch(args: &Args) -> End {
    let screen = match Screen::new(args.json) {
        Ok(screen) => screen,
        Err(error) => return error.into(),
    };
    // The table shows a book's best level; whole rows spare it the merging of levels, which SDKs do.
    let whole = screen.is_table() && args.topics.iter().any(|topic| topic.starts_with("book:"));
    let wish = Wish {
        topics: args.topics.clone(),
        rate: args.rate,
        fields: args.fields.clone(),
        mode: args.mode.clone(),
        whole,
    };
    let mut desk = match Desk::new(View::new(wish), screen) {
        Ok(desk) => desk,
        Err(error) => return End::Fatal(format!("cannot watch for signals: {error}")),
    };
    match keep_following(&mut desk, &args.url).await {
        Ok(()) => End::Quit,
        Err(end) => end,
    }
}

/// Connects, follows, and connects again. A first connection that fails is the user's to know at once.
async fn keep_following(desk: &mut Desk, url: &str) -> Result<(), End> {
    let mut backoff = Backoff::new(RandomState::new().hash_one(url), WAIT_MS_MAX);
    let mut target = url.to_owned();
    let mut was_connected = false;
    loop {
        let end = match desk.connect(&target).await {
            Ok(mut socket) => {
                was_connected = true;
                match desk.follow(&mut socket, || backoff.reset()).await {
                    Err(end) => end,
                    Ok(()) => return Ok(()),
                }
            }
            Err(end) if was_connected => end,
            Err(end) => return Err(end),
        };
        let End::Again { after, to, why } = end else { return Err(end) };
        // An address that the server names is used only when it is one that we can speak to.
        target = to.filter(|to| Endpoint::parse(to).is_ok()).unwrap_or_else(|| url.to_owned());
        let wait = after.unwrap_or_else(|| Duration::from_millis(backoff.next_ms()));
        let until_ms = desk.now_ms() + wait.as_millis() as u64;
        desk.link(Link::Waiting { until_ms, why })?;
        desk.wait(wait).await?;
        desk.link(Link::Connecting)?;
    }
}

#[cfg(test)]
mod tests;
