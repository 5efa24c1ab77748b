//! What the pure stages may not name: sockets, runtimes, threads, clocks and files. They are handed bytes and a `now`.

use super::source::{Source, finding};

/// Files and folders that are pure.
const PURE: &[&str] = &[
    "src/base",
    "src/flow/buffer",
    "src/flow/conflation",
    "src/flow/dispatch",
    "src/flow/frame",
    "src/flow/outbox",
    "src/flow/socket/inbound",
    "src/flow/socket/events",
    "src/gateway/ingest",
    "src/gateway/shard",
    "feeds/src/",
];

/// Paths that they may not name, wherever in a longer path they stand.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_stream",
    "tokio_tungstenite",
    "hyper",
    "hyper_util",
    "mio",
    "socket2",
    "std::net",
    "std::thread",
    "std::fs",
    "std::env",
    "std::process",
    "std::os",
    "Instant::now",
    "SystemTime::now",
];

/// An exception: a file, what it may name, and why.
pub(super) type Allowed = (&'static str, &'static str, &'static str);

/// The few exceptions. One that nobody needs is a finding too.
pub(super) const ALLOWED: &[Allowed] = &[
    ("src/base/clock.rs", "Instant::now", "the one place that reads the monotonic clock"),
    ("src/base/clock.rs", "SystemTime::now", "the one place that reads the wall clock"),
    ("src/base/process.rs", "std::fs", "the one place that reads /proc"),
    (
        "src/flow/socket/inbound.rs",
        "tokio_tungstenite::tungstenite::protocol::frame",
        "the header's parser and its words; no stream, no runtime",
    ),
    ("src/gateway/shard/session.rs", "std::net::SocketAddr", "an address is a value"),
    ("feeds/src/capture/lines.rs", "std::fs", "a recording is a file, read by whoever pulls the source"),
    ("feeds/src/capture/tests.rs", "std::fs", "writes the recordings that it reads"),
    ("feeds/src/capture/tests.rs", "std::env", "in the directory for such files"),
    ("feeds/src/capture/tests.rs", "std::process", "under a name that no other test has"),
    ("feeds/src/synthetic/tests.rs", "std::fs", "reads the real board"),
    ("feeds/src/synthetic/tests.rs", "std::env", "which lies where the environment says"),
];

/// What a pure stage names but may not, and exceptions that nobody needs.
pub(super) fn impure(sources: &[Source], allowed: &[Allowed]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut used = vec![false; allowed.len()];
    for source in sources.iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure))) {
        for named in source.paths() {
            let path = format!("::{}::", named.path.join("::"));
            let says = |what: &str| path.contains(&format!("::{what}::"));
            let Some(what) = IMPURE.iter().find(|what| says(what)) else { continue };
            let exception = allowed.iter().position(|(file, path, _)| *file == source.path && says(path));
            match exception {
                Some(exception) => used[exception] = true,
                None => findings.push(finding(
                    &source.path,
                    named.line,
                    &format!("a pure stage names `{what}`: take the bytes or a `Now` as an argument"),
                )),
            }
        }
    }
    for ((file, path, _), _) in allowed.iter().zip(used).filter(|(_, used)| !used) {
        findings.push(finding(file, 1, &format!("does not name `{path}` any more: remove the exception")));
    }
    findings
}

#[test]
fn impurity_is_found() {
    let check = |path: &str, text: &str| impure(&[Source::new(path, text)], &[]).len();
    for bad in [
        "use tokio::sync::mpsc;",
        "use std::{sync::Arc, net::TcpStream};",
        "fn f() { std::thread::sleep(d) }",
        "fn f() { let t = Instant::now(); }",
        "fn f() { say!(std::time::SystemTime::now()) }",
        "use ::std::fs;",
        "#[tokio::test] fn f() {}",
        "#[cfg(test)] mod tests { use std::fs::File; }",
    ] {
        for pure in ["src/flow/buffer.rs", "src/flow/frame/row.rs", "src/base/limits.rs", "feeds/src/a.rs"] {
            assert_eq!(check(pure, bad), 1, "{bad}");
        }
        assert_eq!(check("src/flow/adapter.rs", bad), 0, "{bad}");
    }
    for good in
        ["use std::sync::Arc;", "fn f(now: Instant) {}", "/// tokio::spawn, std::fs\nfn f() { \"mio\"; }"]
    {
        assert_eq!(check("src/flow/buffer.rs", good), 0, "{good}");
    }
    let allowed: Allowed = ("feeds/src/a.rs", "std::fs", "a test");
    let file = |text| impure(&[Source::new("feeds/src/a.rs", text)], &[allowed]).len();
    assert_eq!((file("use std::fs::File;"), file(""), file("use std::fs; use std::net;")), (0, 1, 1));
}
