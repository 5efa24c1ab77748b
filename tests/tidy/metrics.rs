//! The one list of metric names, and the dashboards that use them: neither has a name that the other lacks.

use std::collections::BTreeSet;

use super::source::{File, Kind, Source, finding, repository};

/// What operators look at.
const BOARDS: &[&str] = &["dashboards/grafana/", "dashboards/prometheus/"];

/// The dashboards, recording rules and alerts of this repository.
pub(super) fn boards() -> Vec<File> {
    let mut files = repository();
    files.retain(|file| BOARDS.iter().any(|folder| file.path.starts_with(folder)));
    assert!(!files.is_empty(), "no dashboard in {BOARDS:?}");
    files
}

/// Metrics that nobody looks at, and names that nobody measures.
pub(super) fn strangers(list: &Source, boards: &[File]) -> Vec<String> {
    let (mut findings, mut used) = (Vec::new(), BTreeSet::new());
    let (named, histograms) = names(list);
    let mut known: BTreeSet<String> = named.iter().map(|(name, _)| name.clone()).collect();
    for histogram in &histograms {
        let quantiles = format!("{}_quantile_seconds", histogram.trim_end_matches("_seconds"));
        known.insert(quantiles);
    }
    for board in boards {
        for (line, query) in queries(board) {
            for word in words(&query) {
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
                let base = base.filter(|base| histograms.contains(*base)).unwrap_or(&word);
                if histograms.contains(word.as_str()) {
                    let text = format!("`{word}` is a histogram: use its _bucket, _sum or _count");
                    findings.push(finding(&board.path, line, &text));
                } else if !known.contains(base) {
                    let text = format!("`{word}` is not in {}: rename or remove it", list.path);
                    findings.push(finding(&board.path, line, &text));
                }
                used.insert(base.to_owned());
            }
        }
    }
    for (name, line) in named.iter().filter(|(name, _)| !used.contains(name)) {
        let text = format!("`{name}` is on no dashboard: show it, or do not measure it");
        findings.push(finding(&list.path, *line, &text));
    }
    findings
}

/// The names of the list with their lines, and which of them are histograms: those in `LATENCIES`.
fn names(list: &Source) -> (Vec<(String, usize)>, BTreeSet<String>) {
    let (mut named, mut histograms, mut in_latencies) = (Vec::new(), BTreeSet::new(), false);
    for (at, token) in list.tokens.iter().enumerate() {
        in_latencies |= token.text == "LATENCIES" && list.before(at) == "const";
        let in_type = in_latencies && token.text == ";" && list.before(at) == ")";
        in_latencies &= token.text != ";" || in_type;
        let name = token.text.trim_matches('"');
        if token.kind == Kind::Literal && words(name) == [name] {
            named.push((name.to_owned(), token.line));
            if in_latencies {
                histograms.insert(name.to_owned());
            }
        }
    }
    (named, histograms)
}

/// What a board asks for, with lines: the expressions of a dashboard, and whole lines of rules.
fn queries(board: &File) -> Vec<(usize, String)> {
    let text = String::from_utf8_lossy(&board.bytes);
    let is_json = board.path.ends_with(".json");
    let is_rules = board.path.ends_with(".yml") || board.path.ends_with(".yaml");
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let line = line.trim_start();
        let asks = ["\"expr\"", "\"query\"", "\"definition\""].iter().any(|key| line.starts_with(key));
        (is_json && asks) || (is_rules && !line.starts_with('#'))
    });
    lines.map(|(at, line)| (at + 1, line.to_owned())).collect()
}

/// The words that look like one of our metrics.
fn words(text: &str) -> Vec<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !is_word(c)).map(|word| word.trim_matches(':'));
    words
        .filter(|word| ["tickgate_", "process_"].iter().any(|start| word.starts_with(start)))
        .filter(|word| !word.contains(':'))
        .map(Into::into)
        .collect()
}

#[test]
fn strangers_are_found() {
    let list = Source::new(
        "src/gateway/metrics.rs",
        r#"const LATENCIES: [(&str, &str); 1] = [("tickgate_way_seconds", "How tickgate_x is.")];
           fn f() { count("tickgate_frames_total", "x"); gauge("process_open_fds"); "{name}_bucket"; }"#,
    );
    let expr = |expr: &str| format!("\"expr\": \"{expr}\",\n\"description\": \"tickgate_nothing\"\n");
    let all = "rate(tickgate_frames_total[5m]) + process_open_fds + tickgate_way_seconds_bucket";
    let check = |text: String| {
        strangers(&list, &[File { path: "dashboards/grafana/a.json".into(), bytes: text.into_bytes() }])
    };
    assert_eq!(check(expr(all)), [""; 0]);
    assert_eq!(check(expr(&format!("{all} + tickgate_way_quantile_seconds"))), [""; 0]);
    for (bad, word) in [
        (
            all.replace("process_open_fds", "1"),
            "src/gateway/metrics.rs:2: `process_open_fds` is on no dashboard",
        ),
        (format!("{all} + tickgate_old"), "dashboards/grafana/a.json:1: `tickgate_old` is not in"),
        (format!("{all} + tickgate_frames_total_bucket"), "`tickgate_frames_total_bucket` is not in"),
        (all.replace("_bucket", ""), "is a histogram"),
    ] {
        let findings = check(expr(&bad));
        assert!(findings.len() == 1 && findings[0].contains(word), "{bad}: {findings:?}");
    }
    let rules =
        File { path: "dashboards/prometheus/a.yml".into(), bytes: b"# tickgate_x\nexpr: tickgate_y".into() };
    assert!(strangers(&list, &[rules])[0].starts_with("dashboards/prometheus/a.yml:2: `tickgate_y`"));
}
