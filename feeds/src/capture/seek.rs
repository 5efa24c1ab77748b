//! Where in a plain capture a time begins, found by halving the file: the times of its lines ascend.
//!
//! Bound kept here: one look at the middle of what is left, until that is [`NEAR_BYTES`] long; a look reads at most
//! [`LOOK_BYTES`].

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use crate::market::Time;

/// What lies this near is read through: about one block of the reader.
const NEAR_BYTES: u64 = 64 * 1024;
/// The rest of the longest line, and then some. A look that finds no time by then is one that finds a late one: that costs
/// looks, and leads nowhere wrong.
const LOOK_BYTES: u64 = 8 * 1024 * 1024;
/// Of a line as much as its time takes, 19 digits and a space, and some more.
const HEAD_BYTES: u64 = 32;

/// Moves to the beginning of the file, or of a line before `start` that is near the first line of `start` or later, and
/// returns where that is.
pub(super) fn seek<R: BufRead + Seek>(file: &mut R, start: Time) -> io::Result<u64> {
    let (mut low, mut high) = (0, file.seek(SeekFrom::End(0))?);
    while high - low > NEAR_BYTES {
        let middle = low + (high - low) / 2;
        match line_after(file, middle, high)? {
            Some((begin, time)) if time < start => low = begin,
            _ => high = middle,
        }
    }
    file.seek(SeekFrom::Start(low))
}

/// The first line with a time that begins after `at` and before `end`, if it is found: where, and its time.
fn line_after<R: BufRead + Seek>(file: &mut R, at: u64, end: u64) -> io::Result<Option<(u64, Time)>> {
    file.seek(SeekFrom::Start(at))?;
    let mut look = file.take(LOOK_BYTES.min(end - at));
    let mut begin = at + look.skip_until(b'\n')? as u64;
    let mut head = Vec::new();
    loop {
        head.clear();
        let read = (&mut look).take(HEAD_BYTES).read_until(b'\n', &mut head)?;
        if read == 0 {
            return Ok(None);
        }
        if let Some(time) = time_of(&head) {
            return Ok(Some((begin, time)));
        }
        let rest = if head.ends_with(b"\n") { 0 } else { look.skip_until(b'\n')? };
        begin += (read + rest) as u64;
    }
}

/// The time that a line begins with.
pub(super) fn time_of(line: &[u8]) -> Option<Time> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&line[..space]).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Time)
}
