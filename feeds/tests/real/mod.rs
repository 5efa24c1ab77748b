//! Where the recordings lie, and how a test without them says so.

#![allow(dead_code, reason = "every test takes the part that it needs")]

use std::io::{Read, Write};
use std::path::PathBuf;

/// The file `name` of the recordings; none, said loudly, when they are not on this machine.
///
/// They are looked for where `TICKGATE_REAL_FEEDS` says, else beside the workspace: most may not be given away.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TICKGATE_REAL_FEEDS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/feeds-real"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.is_file() {
        return Some(path);
    }
    // Straight to stderr: what a passing test prints by macro is never shown.
    let text =
        format!("NOT RUN: {name} is not there; set TICKGATE_REAL_FEEDS to the folder of the recordings\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
    None
}

/// A recording, unpacked.
pub(crate) fn text(name: &str) -> Option<String> {
    let packed = std::fs::read(find(name)?).expect("a readable recording");
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_string(&mut text).expect("gzip");
    Some(text)
}

/// A recording line by line: receive time in nanoseconds and JSON.
pub(crate) fn lines(name: &str) -> Option<Vec<(i64, Vec<u8>)>> {
    let line = |line: &str| {
        let (time, json) = line.split_once(' ').expect("a time and a message");
        (time.parse().expect("nanoseconds"), json.as_bytes().to_vec())
    };
    Some(text(name)?.lines().map(line).collect())
}
