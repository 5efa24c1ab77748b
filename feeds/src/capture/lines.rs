//! The lines of a capture file, plain or packed: `<nanoseconds> <message>`.
//!
//! In a plain file the beginning of a part is found by halving; a packed one is read through up to there.
//!
//! Bounds kept here: a line is at most [`LINE_BYTES_MAX`] long, a longer one is passed over; zstd windows beyond 100 MB
//! are refused by its decoder.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::part::Part;
use super::seek::{seek, time_of};
use crate::market::Time;

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
    /// Number of the newest line, from 1 at `begin`.
    number: u64,
    /// The byte of the file where reading began.
    begin: u64,
    /// Lines before this time are passed over; `None` once one of it or later was read.
    start: Option<Time>,
}

/// What reading a line led to.
pub(super) enum Line {
    /// Its time; the message is in [`Lines::message`].
    Message(Time),
    /// It cannot be used; why.
    Bad(String),
    /// It stands before the part that was asked for; its time, if it has one.
    Early(Option<Time>),
    /// The file cannot be read further; why.
    Broken(String),
    End,
}

impl Lines {
    /// Opens a capture to read the lines from `start` on; how it is packed is told by how it begins, not by its name.
    pub(super) fn open(path: &str, start: Time) -> Result<Self, String> {
        let failed = |error: io::Error| format!("capture {path}: {error}");
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(format!(
                "capture {path} is a folder; expected a file of lines `<nanoseconds> <json>`"
            ));
        }
        let mut file = BufReader::with_capacity(64 * 1024, file);
        let head = file.fill_buf().map_err(failed)?;
        let start = (start > Part::WHOLE.start).then_some(start);
        let mut begin = 0;
        let text: Box<dyn BufRead + Send> = if head.starts_with(&GZIP) {
            Box::new(BufReader::with_capacity(64 * 1024, MultiGzDecoder::new(file)))
        } else if head.starts_with(&ZSTD) || head.get(1..4) == Some(&ZSTD_SKIPPED) {
            Box::new(BufReader::with_capacity(64 * 1024, Zstd::new(file)))
        } else {
            if let Some(start) = start {
                begin = seek(&mut file, start).map_err(failed)?;
            }
            Box::new(file)
        };
        Ok(Self { text, line: Vec::new(), number: 0, begin, start })
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
                Err(error) => return Line::Broken(format!("{}: {error}", self.place())),
            }
            if self.line.len() > LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                let text = format!("{}: longer than {LINE_BYTES_MAX} bytes", self.place());
                let time = time_of(&self.line);
                return match self.text.skip_until(b'\n') {
                    Err(_) => Line::Broken(text),
                    Ok(_) if self.comes_early(time) => Line::Early(time),
                    Ok(_) => Line::Bad(text),
                };
            }
            self.line.truncate(self.line.trim_ascii_end().len());
            if !self.line.is_empty() {
                return self.kind();
            }
        }
    }

    /// What the newest line is.
    fn kind(&mut self) -> Line {
        let time = time_of(&self.line);
        if self.comes_early(time) {
            return Line::Early(time);
        }
        time.map_or_else(|| Line::Bad(self.no_time()), Line::Message)
    }

    /// Whether the newest line stands before the part, which begins with the first that does not.
    fn comes_early(&mut self, time: Option<Time>) -> bool {
        self.start = self.start.filter(|start| time.is_none_or(|time| time < *start));
        self.start.is_some()
    }

    /// Whether no line of the part was read yet.
    pub(super) fn is_early(&self) -> bool {
        self.start.is_some()
    }

    /// The newest line as errors name it.
    pub(super) fn place(&self) -> String {
        match self.begin {
            0 => format!("line {}", self.number),
            begin => format!("line {} counted from byte {begin}", self.number),
        }
    }

    /// The message of the newest line; decoding may rewrite it.
    pub(super) fn message(&mut self) -> &mut [u8] {
        let begin =
            self.line.iter().position(|byte| *byte == b' ').map_or(self.line.len(), |space| space + 1);
        &mut self.line[begin..]
    }

    fn no_time(&self) -> String {
        let head = String::from_utf8_lossy(&self.line[..self.line.len().min(40)]);
        format!("{}: {head:?} does not begin with nanoseconds since 1970 and a space", self.place())
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
