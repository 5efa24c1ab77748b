//! The one list of metric names, and how the stages' plain counters become them.
//!
//! Hot stages know nothing of this: shards publish copies of their counts, and a scrape folds those. Bound kept here:
//! labels are feeds, shards and closed lists of reasons; never a client or a symbol.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tickgate_feeds::market::{FeedId, State};

use super::doors::Doors;
use super::shard;
use crate::base::histogram::Latency;
use crate::base::process::{self, Usage};
use crate::base::reason::{Kind, Reason};
use crate::flow::adapter;

/// Upper edges of the histograms, in nanoseconds.
const EDGES_NS: [u64; 16] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
];
/// The quantiles shown over the window.
const QUANTILES: [(&str, f64); 4] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999)];
/// The window of the quantiles: at least this long, or since the last scrape.
const WINDOW_NS: u64 = 10_000_000_000;

/// What shards publish: a copy of each one's counts.
pub type Published = Vec<Arc<Mutex<shard::Stats>>>;

/// A running feed as the metrics see it.
#[derive(Debug)]
pub struct FeedGauge {
    /// Its name.
    pub name: String,
    /// Its counts.
    pub gauge: Arc<adapter::Gauge>,
}

/// Everything that is measured.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    doors: Arc<Doors>,
    shards: Published,
    feeds: Vec<FeedGauge>,
    memory_bound: usize,
    started_s: f64,
    /// Copies of the folded latencies, oldest first, with the time they were taken.
    windows: Mutex<Vec<(u64, Latencies)>>,
    scrapes: AtomicU64,
}

/// Latencies of all feeds and shards together, in the order of [`LATENCIES`].
type Latencies = [Latency; 4];

const LATENCIES: [(&str, &str); 4] = [
    ("tickgate_source_to_arrival_seconds", "From the source's own time to the arrival, of live feeds."),
    ("tickgate_arrival_to_cut_seconds", "From a tick's arrival to the cut that took it to a shard."),
    ("tickgate_cut_to_written_seconds", "From the cut to the end of the slice that wrote the frame."),
    ("tickgate_arrival_to_written_seconds", "From a tick's arrival to the end of the slice that wrote it."),
];

impl Metrics {
    /// For these doors, shards and feeds. `memory_bound` is what the limits allow, in bytes.
    pub fn new(
        doors: Arc<Doors>,
        shards: Published,
        feeds: Vec<FeedGauge>,
        memory_bound: usize,
        started_s: f64,
    ) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let (windows, scrapes) = (Mutex::default(), AtomicU64::new(0));
        Self { recorder, handle, doors, shards, feeds, memory_bound, started_s, windows, scrapes }
    }

    /// The page that Prometheus scrapes.
    pub fn render(&self) -> String {
        self.scrapes.fetch_add(1, Ordering::Relaxed);
        // Zeros where there is no /proc.
        let process = process::usage("self").unwrap_or_default();
        let latencies = self.fold();
        self.fold_gateway(&process);
        let mut page = self.handle.render();
        render_cpu(&process, &mut page);
        self.render_latencies(&latencies, &mut page);
        page
    }

    /// Sums the shards' counts.
    fn fold(&self) -> Latencies {
        let mut sum = shard::Stats::default();
        for (index, shard) in self.shards.iter().enumerate() {
            let stats = shard.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let label = [("shard", index.to_string())];
            self.gauge("tickgate_sessions", "Client sessions open.", &label, stats.sessions as f64);
            self.gauge("tickgate_subscriptions", "Subscriptions open.", &label, stats.subscriptions as f64);
            self.gauge(
                "tickgate_streams",
                "Streams open: what is encoded once.",
                &label,
                stats.streams as f64,
            );
            self.count("tickgate_turns_total", "Turns of the shard.", &label, stats.turns);
            sum.add(&stats);
        }
        let none: &[(&'static str, String)] = &[];
        for (name, help, value) in [
            ("tickgate_frames_written_total", "Batch frames written, once per client.", sum.frames_written),
            ("tickgate_frames_private_total", "Of these: first pictures and catch-ups.", sum.frames_private),
            ("tickgate_bytes_written_total", "Bytes written to clients.", sum.bytes_written),
            ("tickgate_frames_encoded_total", "Batch frames encoded, for one or many.", sum.encoder.frames),
            ("tickgate_rows_encoded_total", "Rows in encoded frames.", sum.encoder.rows),
            ("tickgate_gaps_announced_total", "Losses announced in encoded frames.", sum.encoder.gaps),
            ("tickgate_messages_read_total", "Messages read from clients.", sum.messages_read),
            ("tickgate_fell_behind_total", "Frames a client could not take and was owed.", sum.fell_behind),
        ] {
            self.count(name, help, none, value);
        }
        self.fold_reasons(&sum);
        let mut source_to_arrival = Latency::default();
        for feed in &self.feeds {
            source_to_arrival
                .add(&feed.gauge.source_to_arrival.lock().unwrap_or_else(PoisonError::into_inner));
        }
        [source_to_arrival, sum.arrival_to_cut, sum.cut_to_written, sum.arrival_to_written]
    }

    /// Ends, refusals and losses: each reason is counted in one place.
    fn fold_reasons(&self, sum: &shard::Stats) {
        let label = |reason: Reason| [("reason", reason.label().to_owned())];
        for &reason in Reason::ALL {
            let (name, help, value) = match reason.kind() {
                Kind::End(_) => {
                    ("tickgate_disconnects_total", "Sessions that ended.", sum.ends[reason as usize])
                }
                Kind::Refusal => {
                    ("tickgate_refusals_total", "Messages and topics refused.", sum.refusals[reason as usize])
                }
                // Counted where they happen.
                Kind::Loss => continue,
            };
            self.count(name, help, &label(reason), value);
        }
        let (buffer, hub, _) = self.doors.ingest.stats();
        let refused = self.feeds.iter().map(|feed| feed.gauge.refused.load(Ordering::Relaxed)).sum();
        let silences = self.feeds.iter().map(|feed| feed.gauge.silences.load(Ordering::Relaxed)).sum();
        for (reason, value) in [
            (Reason::IngestMerged, buffer.merged),
            (Reason::IngestOverflow, buffer.trades_lost + hub.overflowed),
            (Reason::UpstreamGap, hub.missing),
            (Reason::LateTrade, hub.late_trades),
            (Reason::LogOverrun, sum.encoder.overruns),
            (Reason::UpstreamSilent, silences),
            (Reason::SymbolRefused, refused),
        ] {
            let help = "Updates merged, trades lost, missing or late for a bar, gaps told for want of log, symbols refused.";
            self.count("tickgate_losses_total", help, &label(reason), value);
        }
    }

    /// What is counted outside the shards.
    fn fold_gateway(&self, process: &Usage) {
        let none: &[(&'static str, String)] = &[];
        let (buffer, hub, waiting) = self.doors.ingest.stats();
        let (limits, doors) = (&self.doors.identity.limits, &self.doors.stats);
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("tickgate_ingest_updates_total", "Updates taken into the ingest queue.", buffer.accepted),
            ("tickgate_changes_total", "Updates that changed an image or were an event.", hub.changes),
            ("tickgate_repeats_total", "Updates that said what was known.", hub.repeats),
            ("tickgate_cuts_total", "Cuts made for shards.", hub.cuts),
            (
                "tickgate_book_levels_dropped_total",
                "Worst levels that books gave up for lack of room.",
                hub.book_levels_dropped,
            ),
            (
                "tickgate_symbols_silenced_total",
                "Times a symbol became stale by its own rhythm.",
                hub.silenced,
            ),
            ("tickgate_connections_accepted_total", "Connections accepted.", load(&doors.accepted)),
            ("tickgate_upgrades_total", "Connections that became WebSockets.", load(&doors.upgraded)),
            ("tickgate_event_streams_total", "Connections that became event streams.", load(&doors.streams)),
            (
                "tickgate_connections_refused_total",
                "Connections refused for want of room.",
                load(&doors.overloaded),
            ),
            (
                "tickgate_requests_refused_total",
                "HTTP requests refused because too many were being answered.",
                load(&doors.busy),
            ),
            (
                "tickgate_bad_requests_total",
                "HTTP requests with an error in them.",
                load(&doors.bad_requests),
            ),
            ("tickgate_scrapes_total", "Times this page was made.", load(&self.scrapes)),
        ] {
            self.count(name, help, none, value);
        }
        let open = |cell: &AtomicUsize| cell.load(Ordering::Relaxed) as f64;
        let (open_fds, max_fds) = process::descriptors().unwrap_or_default();
        for (name, help, value) in [
            ("tickgate_ingest_queue_updates", "Updates waiting in the ingest queue.", waiting as f64),
            ("tickgate_ingest_queue_max", "The queue's bound.", limits.ingest_updates_max as f64),
            ("tickgate_ingest_queue_peak", "The most updates that ever waited.", buffer.waiting_max as f64),
            ("tickgate_symbols", "Symbols listed.", self.doors.ingest.symbols().len() as f64),
            ("tickgate_symbols_silent", "Symbols stale by their own rhythm now.", hub.silent as f64),
            ("tickgate_symbols_max", "The bound on symbols.", limits.symbols_max as f64),
            ("tickgate_connections", "Connections open, requests included.", open(&self.doors.open)),
            ("tickgate_connections_max", "The bound on connections.", limits.connections_max as f64),
            ("tickgate_memory_bound_bytes", "What the limits allow in all.", self.memory_bound as f64),
            ("process_resident_memory_bytes", "Memory of the process in RAM.", process.rss_bytes as f64),
            ("process_open_fds", "File descriptors open.", open_fds as f64),
            ("process_max_fds", "File descriptors that the process may have open.", max_fds as f64),
            ("process_start_time_seconds", "When the process started.", self.started_s),
        ] {
            self.gauge(name, help, none, value);
        }
        let version = [("version", env!("CARGO_PKG_VERSION").to_owned())];
        self.gauge("tickgate_build_info", "Always 1; the version is a label.", &version, 1.0);
        for (at, feed) in self.feeds.iter().enumerate() {
            self.fold_feed(FeedId(at as u16), feed);
        }
    }

    fn fold_feed(&self, id: FeedId, feed: &FeedGauge) {
        let label = [("feed", feed.name.clone())];
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("tickgate_feed_updates_total", "Updates of the feed.", load(&feed.gauge.updates)),
            ("tickgate_feed_errors_total", "Messages that could not be decoded.", load(&feed.gauge.errors)),
            ("tickgate_feed_skipped_total", "Messages passed over on purpose.", load(&feed.gauge.skipped)),
            ("tickgate_feed_gaps_total", "Breaks in the venue's own numbering.", load(&feed.gauge.gaps)),
            (
                "tickgate_feed_connects_total",
                "Connections made to the gateway that is the feed.",
                load(&feed.gauge.connects),
            ),
            (
                "tickgate_feed_clock_ahead_total",
                "Updates whose time lay ahead of us.",
                load(&feed.gauge.clock_ahead),
            ),
        ] {
            self.count(name, help, &label, value);
        }
        let held_back = load(&feed.gauge.held_back) as f64;
        let help = "Messages held back until what they continue is known.";
        self.gauge("tickgate_feed_held_back", help, &label, held_back);
        let last_s = load(&feed.gauge.last_ms) as f64 / 1e3;
        let help = "When the feed last said something.";
        self.gauge("tickgate_feed_last_message_timestamp_seconds", help, &label, last_s);
        let state = self.doors.ingest.with_hub(|hub| hub.feed_state(id));
        for possible in [State::Live, State::Stale, State::Suspect, State::Closed] {
            let labels = [("feed", feed.name.clone()), ("state", possible.name().to_owned())];
            let is = f64::from(u8::from(possible == state));
            self.gauge("tickgate_feed_state", "1 for the state the feed is in.", &labels, is);
        }
    }

    /// Classic histograms since the start, and quantiles over the window as gauges.
    fn render_latencies(&self, latencies: &Latencies, page: &mut String) {
        let now_ns = self.doors.clock.now().mono_ns;
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        // The newest copy that is old enough begins the window; older ones have served.
        let begin = windows.iter().rposition(|(taken_ns, _)| now_ns.saturating_sub(*taken_ns) >= WINDOW_NS);
        windows.drain(..begin.unwrap_or(0));
        for (at, (name, help)) in LATENCIES.iter().enumerate() {
            let latency = &latencies[at];
            // Writing to a string cannot fail.
            let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} histogram");
            for (edge_ns, count) in EDGES_NS.iter().zip(latency.cumulative(&EDGES_NS)) {
                let _ = writeln!(page, "{name}_bucket{{le=\"{}\"}} {count}", *edge_ns as f64 / 1e9);
            }
            let _ = writeln!(page, "{name}_bucket{{le=\"+Inf\"}} {}", latency.count());
            let _ =
                writeln!(page, "{name}_sum {}\n{name}_count {}\n", latency.sum_seconds(), latency.count());
            let window =
                windows.first().map_or_else(|| latency.clone(), |(_, earlier)| latency.since(&earlier[at]));
            let gauge = format!("{}_quantile_seconds", name.trim_end_matches("_seconds"));
            let _ = writeln!(
                page,
                "# HELP {gauge} The same over the last 10 s, or since the scrape before if longer ago."
            );
            let _ = writeln!(page, "# TYPE {gauge} gauge");
            for (label, share) in QUANTILES.iter().filter(|_| window.count() > 0) {
                let seconds = window.quantile_ns(*share) as f64 / 1e9;
                let _ = writeln!(page, "{gauge}{{q=\"{label}\"}} {seconds}");
            }
            page.push('\n');
        }
        if windows.last().is_none_or(|(taken_ns, _)| now_ns.saturating_sub(*taken_ns) >= WINDOW_NS / 10) {
            windows.push((now_ns, latencies.clone()));
        }
    }

    fn count(&self, name: &'static str, help: &'static str, labels: &[(&'static str, String)], value: u64) {
        self.recorder.describe_counter(
            KeyName::from_const_str(name),
            None::<Unit>,
            SharedString::const_str(help),
        );
        let counter: Counter = self.recorder.register_counter(&key(name, labels), &METADATA);
        counter.absolute(value);
    }

    fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, String)], value: f64) {
        self.recorder.describe_gauge(
            KeyName::from_const_str(name),
            None::<Unit>,
            SharedString::const_str(help),
        );
        let gauge: Gauge = self.recorder.register_gauge(&key(name, labels), &METADATA);
        gauge.set(value);
    }
}

/// Seconds have fractions, and the recorder's counters are whole.
fn render_cpu(process: &Usage, page: &mut String) {
    let (name, seconds) = ("process_cpu_seconds_total", process.cpu_s());
    // Writing to a string cannot fail.
    let _ =
        writeln!(page, "# HELP {name} CPU time of the process.\n# TYPE {name} counter\n{name} {seconds}\n");
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, String)]) -> Key {
    let labels: Vec<Label> = labels.iter().map(|(label, value)| Label::new(*label, value.clone())).collect();
    Key::from_parts(name, labels)
}
