//! Where in a plain capture a time begins, found by halving the file: the times of its lines ascend.
//!
//! Bound kept here: one look at the middle of what is left, until that is [`NEAR_BYTES`] long; a look reads to the end of
//! the line that it falls on, and on to the next line's time.

use std::io::{self, BufRead, Read, Seek, SeekFrom};

use crate::market::Time;

/// What lies this near is read through: about one block of the reader.
const NEAR_BYTES: u64 = 64 * 1024;
/// Of a line as much as its time takes: 19 digits and a space, and more to see that it goes on.
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

/// The first line with a time that begins after `at` and before `end`: where, and its time.
fn line_after<R: BufRead + Seek>(file: &mut R, at: u64, end: u64) -> io::Result<Option<(u64, Time)>> {
    file.seek(SeekFrom::Start(at))?;
    file.skip_until(b'\n')?;
    let mut head = Vec::new();
    loop {
        let begin = file.stream_position()?;
        if begin >= end {
            return Ok(None);
        }
        head.clear();
        file.take(HEAD_BYTES).read_until(b'\n', &mut head)?;
        if let Some(time) = time_of(&head) {
            return Ok(Some((begin, time)));
        }
        if head.last() != Some(&b'\n') {
            file.skip_until(b'\n')?;
        }
    }
}

/// The time that a line begins with.
pub(super) fn time_of(line: &[u8]) -> Option<Time> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let digits = std::str::from_utf8(&line[..space]).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(Time))?
}
