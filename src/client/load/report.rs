//! What a run found, as one JSON object, and that object as a table for people.
//!
//! The table is made from the object, so the two cannot disagree. Bound: a few dozen figures.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::Args;
use super::plan::Plan;
use super::probe::{Answers, Asked};
use super::rounds::{self, Round};
use super::tally::{Tally, Times};
use crate::base::process::Usage;

/// Columns of the names in the table.
const NAME_WIDTH: usize = 34;

/// The members of the report that are in the table, in the order in which a reader asks for them.
const ORDER: [&str; 26] = [
    "connected",
    "connect_s",
    "failed",
    "closed",
    "errors",
    "subscribed",
    "reconnects",
    "stalled_ended",
    "seconds",
    "frames",
    "frames_per_s",
    "bytes_per_frame",
    "rows_per_frame",
    "rows_estimated",
    "other_frames",
    "unreadable",
    "missing",
    "merged",
    "frame_to_client_us",
    "tick_to_client_us",
    "rounds",
    "handshake_us",
    "connect_to_first_frame_us",
    "probe",
    "server",
    "client_core_share",
];

/// The server's process at three moments.
pub(super) struct Server {
    /// Before the first client.
    pub(super) before: Usage,
    /// When the measurement began.
    pub(super) start: Usage,
    /// When it ended.
    pub(super) end: Usage,
}

/// What the leading thread knows of a run.
pub(super) struct Run {
    pub(super) connected: usize,
    pub(super) connect_s: f64,
    pub(super) from_us: u64,
    pub(super) to_us: u64,
    pub(super) server: Option<Server>,
    pub(super) own_cpu_s: f64,
    pub(super) probe: Option<Result<Answers, String>>,
}

/// The whole report.
pub(super) fn report(args: &Args, plan: &Plan, run: &Run, mut tally: Tally) -> Value {
    let seconds = run.to_us.saturating_sub(run.from_us) as f64 / 1e6;
    let rows_per_frame = ratio(tally.sampled_rows as f64, tally.sampled_frames as f64);
    let rows = rows_per_frame.unwrap_or(0.0) * tally.frames as f64;
    let rounds = rounds::join(std::mem::take(&mut tally.finished_rounds), run.from_us, run.to_us);
    json!({
        "program": "bench",
        "parameters": parameters(args, plan),
        "connected": run.connected,
        "connect_s": rounded(run.connect_s, 3),
        "failed": tally.failed,
        "closed": tally.closed,
        "errors": tally.errors,
        "subscribed": tally.subscribed,
        "reconnects": tally.reconnects,
        "stalled_ended": tally.stalled_ended,
        "seconds": rounded(seconds, 3),
        "frames": tally.frames,
        "other_frames": tally.other_frames,
        "unreadable": tally.unreadable,
        "bytes": tally.bytes,
        "frames_per_s": rounded(tally.frames as f64 / seconds.max(1e-9), 1),
        "bytes_per_frame": ratio(tally.bytes as f64, tally.frames as f64).map(|value| rounded(value, 1)),
        "rows_estimated": rows.round(),
        "rows_per_frame": rows_per_frame.map(|value| rounded(value, 2)),
        "sampled": {"frames": tally.sampled_frames, "rows": tally.sampled_rows},
        "missing": tally.missing,
        "merged": tally.merged,
        "server_pings": tally.server_pings,
        "frame_to_client_us": quantiles(&tally.frame_us),
        "tick_to_client_us": quantiles(&tally.tick_us),
        "handshake_us": quantiles(&tally.handshake_us),
        "connect_to_first_frame_us": quantiles(&tally.first_frame_us),
        "rounds": last_client(&rounds),
        "probe": probe(run.probe.as_ref()),
        "server": run.server.as_ref().map(|server| used(server, run, tally.frames as f64, rows, seconds)),
        "client_cpu_us_per_frame": ratio(run.own_cpu_s * 1e6, tally.frames as f64).map(|value| rounded(value, 3)),
        "client_core_share": rounded(run.own_cpu_s / seconds.max(1e-9), 3),
    })
}

fn parameters(args: &Args, plan: &Plan) -> Value {
    json!({
        "url": args.url,
        "clients": args.clients,
        "topics": plan.topics.len(),
        "pick": args.pick,
        "rate": args.rate,
        "subscribe": format!("{:?}", args.subscribe).to_lowercase(),
        "with": plan.with,
        "warmup_s": args.warmup,
        "seconds": args.seconds,
        "stalled": args.stalled,
        "churn_per_s": args.churn,
        "sample": plan.sample,
        "threads": args.threads,
        "seed": args.seed,
    })
}

/// For each frame of a shared stream: from its making until its last client had it.
fn last_client(rounds: &[Round]) -> Value {
    let mut spans: Vec<u64> = rounds.iter().map(|round| round.last_us.saturating_sub(round.ts_us)).collect();
    let mut clients: Vec<u64> = rounds.iter().map(|round| round.clients).collect();
    spans.sort_unstable();
    clients.sort_unstable();
    // A stream of one client has no last one.
    if clients.last().is_none_or(|&most| most < 2) {
        return Value::Null;
    }
    json!({
        "last_client_us": {
            "count": rounds.len(),
            "p50": sorted_quantile(&spans, 0.5),
            "p99": sorted_quantile(&spans, 0.99),
            "max": spans.last(),
        },
        "clients_min": clients.first(),
        "clients_p50": sorted_quantile(&clients, 0.5),
        "clients_max": clients.last(),
    })
}

fn probe(probe: Option<&Result<Answers, String>>) -> Value {
    let asked = |asked: &Asked| {
        let mut value = quantiles(&asked.round_trip_us);
        value["lost"] = asked.lost.into();
        value
    };
    match probe {
        None => Value::Null,
        Some(Ok(answers)) => json!({"ping_us": asked(&answers.ping), "command_us": asked(&answers.command)}),
        Some(Err(why)) => json!({"error": why}),
    }
}

fn used(server: &Server, run: &Run, frames: f64, rows: f64, seconds: f64) -> Value {
    let cpu_s = server.end.cpu_s_since(&server.start);
    let grown = server.end.rss_bytes as f64 - server.before.rss_bytes as f64;
    json!({
        "cpu_s": rounded(cpu_s, 3),
        "cpu_user_s": rounded(server.end.user_s - server.start.user_s, 3),
        "cpu_system_s": rounded(server.end.system_s - server.start.system_s, 3),
        "core_share": rounded(cpu_s / seconds.max(1e-9), 3),
        "cpu_us_per_frame": ratio(cpu_s * 1e6, frames).map(|value| rounded(value, 3)),
        "cpu_s_per_million_rows": ratio(cpu_s * 1e6, rows).map(|value| rounded(value, 3)),
        "rss_before_bytes": server.before.rss_bytes,
        "rss_after_bytes": server.end.rss_bytes,
        "rss_bytes_per_connection": ratio(grown, run.connected as f64).map(|value| rounded(value, 0)),
    })
}

fn quantiles(times: &Times) -> Value {
    if times.is_empty() {
        return json!({"count": 0});
    }
    json!({
        "count": times.len(),
        "p50": times.value_at_quantile(0.5),
        "p90": times.value_at_quantile(0.9),
        "p99": times.value_at_quantile(0.99),
        "p999": times.value_at_quantile(0.999),
        "max": times.max(),
    })
}

fn sorted_quantile(sorted: &[u64], q: f64) -> u64 {
    let at = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0)
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// The object as lines of name and value; times in milliseconds, empty parts left out.
pub(super) fn table(report: &Value) -> String {
    let mut text = String::new();
    for name in ORDER {
        lines(&mut text, name, &report[name]);
    }
    text
}

fn lines(text: &mut String, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Object(members) if members.is_empty() => {}
        Value::Object(members) if members.contains_key("count") && name.ends_with("_us") => {
            line(text, name.trim_end_matches("_us"), &spread(members));
        }
        Value::Object(members) => {
            for (inner, value) in members {
                lines(text, &format!("{name} {inner}"), value);
            }
        }
        Value::String(plain) => line(text, name, plain),
        other => line(text, name, &other.to_string()),
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{:NAME_WIDTH$} {value}", name.replace('_', " "));
}

fn spread(members: &Map<String, Value>) -> String {
    let quantile = |name: &str| {
        let us = members.get(name)?.as_f64()?;
        Some(format!("{} {:.3}", name.replace("p999", "p99.9"), us / 1e3))
    };
    let found: Vec<String> = ["p50", "p90", "p99", "p999", "max"].into_iter().filter_map(quantile).collect();
    let lost = members.get("lost").map_or_else(String::new, |lost| format!("; lost {lost}"));
    if found.is_empty() {
        format!("nothing measured{lost}")
    } else {
        format!("{} ms{lost}", found.join("  "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_the_object_says() {
        let report = json!({
            "program": "bench",
            "connected": 10,
            "failed": {},
            "probe": null,
            "frame_to_client_us": {"count": 5, "p50": 1500, "max": 2000},
            "server": {"cpu_s": 0.5},
        });
        let expected = "connected                          10\n\
                        frame to client                    p50 1.500  max 2.000 ms\n\
                        server cpu s                       0.5\n";
        assert_eq!(table(&report), expected);
    }

    #[test]
    fn the_last_client_of_each_round_counts() {
        let round = |seq, last_us, clients| Round { stream: 1, seq, ts_us: 100, last_us, clients };
        let value = last_client(&[round(1, 150, 3), round(2, 170, 3)]);
        assert_eq!(value["last_client_us"]["p50"], 50);
        assert_eq!(value["last_client_us"]["max"], 70);
        assert_eq!(last_client(&[round(1, 150, 1)]), Value::Null);
    }
}
