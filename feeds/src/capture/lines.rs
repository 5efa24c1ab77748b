//! The lines of a capture file, plain or packed: `<nanoseconds> <message>`.
//!
//! Bounds kept here: a line is at most [`LINE_BYTES_MAX`] long, a longer one is passed over; zstd windows beyond 100 MB
//! are refused by its decoder.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The longest line that is read; a book of 5,000 levels a side takes a tenth of it.
pub const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Zstandard frames to be passed over begin with 0x184D2A5?, written with the low byte first.
const ZSTD_SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];

/// Reads line after line on one buffer.
pub(super) struct Lines {
    text: Box<dyn BufRead + Send>,
    line: Vec<u8>,
    /// Number of the newest line, from 1.
    pub(super) number: u64,
}

/// What reading a line led to.
pub(super) enum Line {
    /// Its time in nanoseconds; the message is in [`Lines::message`].
    Message(i64),
    /// It cannot be used; why.
    Bad(String),
    /// The file cannot be read further; why.
    Broken(String),
    End,
}

impl Lines {
    /// Opens a capture; how it is packed is told by how it begins, not by its name.
    pub(super) fn open(path: &str) -> Result<Self, String> {
        let failed = |error: io::Error| format!("capture {path}: {error}");
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(format!(
                "capture {path} is a folder; expected a file of lines `<nanoseconds> <json>`"
            ));
        }
        let mut file = BufReader::with_capacity(64 * 1024, file);
        let head = file.fill_buf().map_err(failed)?;
        let text: Box<dyn BufRead + Send> = if head.starts_with(&GZIP) {
            Box::new(BufReader::with_capacity(64 * 1024, MultiGzDecoder::new(file)))
        } else if head.starts_with(&ZSTD) || head.get(1..4) == Some(&ZSTD_SKIPPED) {
            Box::new(BufReader::with_capacity(64 * 1024, Zstd::new(file)))
        } else {
            Box::new(file)
        };
        Ok(Self { text, line: Vec::new(), number: 0 })
    }

    /// Reads the next line that is not blank.
    pub(super) fn read(&mut self) -> Line {
        loop {
            self.line.clear();
            self.number += 1;
            let limit = LINE_BYTES_MAX as u64 + 1;
            match (&mut self.text).take(limit).read_until(b'\n', &mut self.line) {
                Ok(0) => return Line::End,
                Ok(_) => {}
                Err(error) => return Line::Broken(format!("line {}: {error}", self.number)),
            }
            if self.line.len() > LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                let skipped = self.text.skip_until(b'\n');
                let text = format!("line {}: longer than {LINE_BYTES_MAX} bytes", self.number);
                return if skipped.is_ok() { Line::Bad(text) } else { Line::Broken(text) };
            }
            self.line.truncate(self.line.trim_ascii_end().len());
            if !self.line.is_empty() {
                return self.time().map_or_else(Line::Bad, Line::Message);
            }
        }
    }

    /// The message of the newest line; decoding may rewrite it.
    pub(super) fn message(&mut self) -> &mut [u8] {
        let begin =
            self.line.iter().position(|byte| *byte == b' ').map_or(self.line.len(), |space| space + 1);
        &mut self.line[begin..]
    }

    fn time(&self) -> Result<i64, String> {
        let digits = self.line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let time =
            std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        time.filter(|_| digits.len() < self.line.len()).and_then(|digits| digits.parse().ok()).ok_or_else(
            || {
                let head = String::from_utf8_lossy(&self.line[..self.line.len().min(40)]);
                format!(
                    "line {}: {head:?} does not begin with nanoseconds since 1970 and a space",
                    self.number
                )
            },
        )
    }
}

/// Unpacks a file of one or many zstd frames: ruzstd's own reader stops after the first.
struct Zstd<R> {
    packed: R,
    frame: FrameDecoder,
    begun: bool,
}

impl<R: BufRead> Zstd<R> {
    fn new(packed: R) -> Self {
        Self { packed, frame: FrameDecoder::new(), begun: false }
    }

    /// Begins the next frame; false at the end of the file.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.frame.reset(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.packed).take(length.into()), &mut io::sink())?;
                    if skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(invalid(&error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        loop {
            if self.begun {
                let read = self.frame.read(to)?;
                if read > 0 {
                    return Ok(read);
                }
            }
            if !self.begun || self.frame.is_finished() {
                self.begun = self.begin()?;
                if !self.begun {
                    return Ok(0);
                }
            }
            let enough = BlockDecodingStrategy::UptoBytes(to.len());
            self.frame.decode_blocks(&mut self.packed, enough).map_err(|error| invalid(&error))?;
        }
    }
}

fn invalid(error: &FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {error}"))
}
