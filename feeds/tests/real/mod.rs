//! Where the recordings lie, and how a test without them says so.

#![allow(dead_code, reason = "every test takes the part that it needs")]

use std::io::Read;
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
    eprintln!("NOT RUN: {name} is not there; set TICKGATE_REAL_FEEDS to the folder of the recordings");
    None
}

/// A recording, unpacked: each line is its receive time in nanoseconds and its JSON.
pub(crate) fn lines(name: &str) -> Option<Vec<(i64, Vec<u8>)>> {
    let packed = std::fs::read(find(name)?).expect("a readable recording");
    let mut text = Vec::new();
    flate2::read::MultiGzDecoder::new(packed.as_slice()).read_to_end(&mut text).expect("gzip");
    let line = |line: &[u8]| {
        let space = line.iter().position(|b| *b == b' ').expect("a time and a message");
        let time = std::str::from_utf8(&line[..space]).expect("digits").parse().expect("nanoseconds");
        (time, line[space + 1..].to_vec())
    };
    Some(text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(line).collect())
}
