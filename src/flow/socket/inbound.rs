//! Reads what a client sends: WebSocket frames to messages (RFC 6455 5). The header is tungstenite's to parse; unmasking
//! and reassembly are ours, because an idle client must cost one pointer and not a codec.
//!
//! Bound kept here: a message, whole or in parts, compressed and inflated, is at most `message_bytes_max`; its announced
//! length is checked before a byte of it is kept.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::base::reason::Reason;
use crate::flow::frame::deflate::Inflate;

/// What a client said.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// One of these two, compressed: whether it is worth inflating is not decided here.
    Compressed {
        /// It is a text message.
        is_text: bool,
        /// As it came.
        payload: &'a [u8],
    },
    /// A part of a message: it costs as much as a message.
    Part,
    /// To be answered with the same payload.
    Ping(&'a [u8]),
    /// An answer to our ping.
    Pong,
    /// The client ends the conversation with this code, if any.
    Close(Option<u16>),
}

/// The reader of one client.
#[derive(Debug, Default)]
pub struct Inbound {
    rest: Option<Box<Rest>>,
    /// The conversation is over: what still comes is not understood any more.
    stopped: bool,
}

#[derive(Debug, Default)]
struct Rest {
    /// The beginning of a frame whose end has not come, still masked.
    frame: Vec<u8>,
    message: Option<Message>,
}

/// The parts of a message so far.
#[derive(Debug, Default)]
struct Message {
    kind: Kind,
    bytes: Vec<u8>,
}

/// What the first frame of a message says of it.
#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    is_text: bool,
    is_compressed: bool,
}

/// What reading a client's bytes takes.
#[derive(Clone, Copy, Debug)]
pub struct Means {
    /// The longest message, in bytes.
    pub message_bytes_max: usize,
    /// Whether the handshake agreed on compressed messages.
    pub compression: bool,
}

/// The longest header: 2 bytes, 8 of length, 4 of mask.
const HEADER_BYTES_MAX: usize = 14;

impl Inbound {
    /// Reads bytes as they came; hands every message to `sink`, which says whether it listens on. If not, or after an error,
    /// nothing is understood any more.
    pub fn feed(
        &mut self,
        bytes: &mut [u8],
        means: Means,
        sink: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<(), Reason> {
        let read = self.read(bytes, means, sink);
        if read.is_err() {
            (self.rest, self.stopped) = (None, true);
        }
        read
    }

    fn read(
        &mut self,
        mut bytes: &mut [u8],
        means: Means,
        sink: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<(), Reason> {
        while !bytes.is_empty() && !self.stopped {
            let unfinished = self.rest.as_ref().is_some_and(|rest| !rest.frame.is_empty());
            if unfinished {
                bytes = self.continue_frame(bytes, means, sink)?;
                continue;
            }
            let Some((header, header_len, len)) = self.header(bytes, means)? else {
                self.keep(bytes);
                break;
            };
            if bytes.len() < header_len + len {
                self.keep(bytes);
                break;
            }
            let (frame, after) = bytes.split_at_mut(header_len + len);
            self.frame(&header, &mut frame[header_len..], sink)?;
            bytes = after;
        }
        self.settle();
        Ok(())
    }

    /// Completes the unfinished frame from `bytes`; returns what comes after it.
    fn continue_frame<'b>(
        &mut self,
        bytes: &'b mut [u8],
        means: Means,
        sink: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<&'b mut [u8], Reason> {
        let mut frame = self.rest.as_mut().map(|rest| std::mem::take(&mut rest.frame)).unwrap_or_default();
        let before = frame.len();
        // First as much as any header can need, then as much as this frame needs.
        let head = bytes.len().min(HEADER_BYTES_MAX.saturating_sub(before));
        frame.extend_from_slice(&bytes[..head]);
        let mut used = head;
        if let Some((header, header_len, len)) = self.header(&frame, means)? {
            let whole = header_len + len;
            if frame.len() < whole {
                let more = (whole - frame.len()).min(bytes.len() - used);
                frame.extend_from_slice(&bytes[used..used + more]);
                used += more;
            }
            if frame.len() >= whole {
                // The header's allowance may have taken bytes of the next frame: they stay in `bytes`.
                used = whole - before;
                frame.truncate(whole);
                self.frame(&header, &mut frame[header_len..], sink)?;
                return Ok(&mut bytes[used..]);
            }
        }
        self.rest.get_or_insert_default().frame = frame;
        Ok(&mut bytes[used..])
    }

    /// The frame's header, its length and the payload's, once they are complete; refuses what is not allowed.
    fn header(&self, bytes: &[u8], means: Means) -> Result<Option<(FrameHeader, usize, usize)>, Reason> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Reason::ProtocolError)?;
        let Some((header, len)) = parsed else { return Ok(None) };
        let message = self.rest.as_ref().and_then(|rest| rest.message.as_ref());
        let control = matches!(header.opcode, OpCode::Control(_));
        let allowed = match header.opcode {
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => false,
            OpCode::Control(_) => header.is_final && len <= 125,
            OpCode::Data(Data::Continue) => message.is_some(),
            OpCode::Data(_) => message.is_none(),
        };
        // Only the first frame of a message says that it is compressed.
        let begins = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
        let allowed = allowed && (!header.rsv1 || begins && means.compression);
        if !allowed || header.rsv2 || header.rsv3 || header.mask.is_none() {
            return Err(Reason::ProtocolError);
        }
        let before = if control { 0 } else { message.map_or(0, |message| message.bytes.len()) };
        match usize::try_from(len) {
            Ok(len) if len <= means.message_bytes_max.saturating_sub(before) => {
                Ok(Some((header, cursor.position() as usize, len)))
            }
            _ => Err(Reason::MessageTooBig),
        }
    }

    fn frame(
        &mut self,
        header: &FrameHeader,
        payload: &mut [u8],
        sink: &mut impl FnMut(Incoming<'_>) -> bool,
    ) -> Result<(), Reason> {
        unmask(payload, header.mask.unwrap_or_default());
        let listens = match header.opcode {
            OpCode::Control(Control::Ping) => sink(Incoming::Ping(payload)),
            OpCode::Control(Control::Pong) => sink(Incoming::Pong),
            OpCode::Control(_) => sink(Incoming::Close(close_code(payload)?)),
            OpCode::Data(Data::Continue) => {
                let rest = self.rest.get_or_insert_default();
                let mut message = rest.message.take().unwrap_or_default();
                message.bytes.extend_from_slice(payload);
                if header.is_final {
                    sink(message.kind.of(&message.bytes)?)
                } else {
                    rest.message = Some(message);
                    sink(Incoming::Part)
                }
            }
            OpCode::Data(data) => {
                let kind = Kind { is_text: data == Data::Text, is_compressed: header.rsv1 };
                if header.is_final {
                    sink(kind.of(payload)?)
                } else {
                    let message = Message { kind, bytes: payload.to_vec() };
                    self.rest.get_or_insert_default().message = Some(message);
                    sink(Incoming::Part)
                }
            }
        };
        if !listens {
            (self.rest, self.stopped) = (None, true);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.rest.get_or_insert_default().frame.extend_from_slice(bytes);
    }

    /// Gives memory back as soon as nothing is unfinished.
    fn settle(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.frame.is_empty() && rest.message.is_none()) {
            self.rest = None;
        }
    }
}

impl Kind {
    fn of(self, payload: &[u8]) -> Result<Incoming<'_>, Reason> {
        match self {
            Self { is_compressed: true, is_text } => Ok(Incoming::Compressed { is_text, payload }),
            Self { is_text, .. } => Incoming::message(is_text, payload),
        }
    }
}

impl<'a> Incoming<'a> {
    /// The same, or what was compressed in it, if that is at most `bytes_max` long.
    pub fn inflated(self, inflate: &'a mut Inflate, bytes_max: usize) -> Result<Self, Reason> {
        let Self::Compressed { is_text, payload } = self else { return Ok(self) };
        Self::message(is_text, inflate.message(payload, bytes_max)?)
    }

    /// A whole message of these bytes; text must be UTF-8.
    fn message(is_text: bool, bytes: &'a [u8]) -> Result<Self, Reason> {
        if !is_text {
            return Ok(Self::Binary(bytes));
        }
        std::str::from_utf8(bytes).map(Self::Text).map_err(|_| Reason::InvalidUtf8)
    }
}

/// RFC 6455 5.5.1 and 7.4: nothing, or an allowed code and UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Reason> {
    let Some((code, text)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Reason::ProtocolError) };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(Reason::ProtocolError);
    }
    std::str::from_utf8(text).map_err(|_| Reason::InvalidUtf8)?;
    Ok(Some(code))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let (words, rest) = payload.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [7, 99, 0, 250];
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | len as u8),
            len => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(len as u16).to_be_bytes());
            }
        }
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// What is read when the bytes come in pieces of at most `piece`.
    fn read(bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), Reason>) {
        read_with(false, bytes, piece)
    }

    fn read_with(compression: bool, bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), Reason>) {
        let (mut inbound, mut said) = (Inbound::default(), Vec::new());
        for piece in bytes.to_vec().chunks_mut(piece) {
            let means = Means { message_bytes_max: 1000, compression };
            let result = inbound.feed(piece, means, &mut |incoming| {
                said.push(format!("{incoming:?}"));
                !matches!(incoming, Incoming::Close(_))
            });
            if result.is_err() {
                return (said, result);
            }
        }
        assert!(inbound.rest.is_none(), "an idle reader holds nothing");
        (said, Ok(()))
    }

    #[test]
    fn messages_come_out_the_same_however_the_bytes_are_cut() {
        let mut bytes = frame(0x81, "xin chào".as_bytes());
        bytes.extend(frame(0x01, b"first "));
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x80, &[b'x'; 300]));
        bytes.extend(frame(0x81, b""));
        bytes.extend(frame(0x8a, b""));
        bytes.extend(frame(0x82, &[1, 2]));
        bytes.extend(frame(0x88, &[3, 232]));
        bytes.extend(frame(0x81, b"nobody listens any more"));
        let whole = read(&bytes, usize::MAX);
        assert_eq!(whole.0.len(), 8);
        assert_eq!(whole.0[0], "Text(\"xin chào\")");
        assert_eq!(whole.0[7], "Close(Some(1000))");
        for piece in 1..40 {
            assert_eq!(read(&bytes, piece), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn compressed_messages_come_out_where_they_were_agreed_on() {
        let mut bytes = frame(0xc1, b"packed");
        bytes.extend(frame(0x42, b"pa"));
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x80, b"cked"));
        bytes.extend(frame(0x81, b"raw"));
        for piece in [1, 5, usize::MAX] {
            let (said, read) = read_with(true, &bytes, piece);
            assert_eq!(read, Ok(()));
            let said: Vec<&str> = said.iter().map(String::as_str).collect();
            let packed = |is_text| format!("Compressed {{ is_text: {is_text}, payload: {:?} }}", b"packed");
            let expected =
                [&packed(true), "Part", "Ping([112, 105, 110, 103])", &packed(false), "Text(\"raw\")"];
            assert_eq!(said, expected);
        }
        assert_eq!(read(&bytes, 100).1, Err(Reason::ProtocolError), "nothing was agreed on");
        for bytes in [frame(0xc9, b"x"), [frame(0x41, b"x"), frame(0xc0, b"x")].concat()] {
            assert_eq!(read_with(true, &bytes, usize::MAX).1, Err(Reason::ProtocolError), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_allowed_ends_the_conversation() {
        let cases: [(Vec<u8>, Reason); 10] = [
            (frame(0xc1, b"x"), Reason::ProtocolError),
            (frame(0x80, b"x"), Reason::ProtocolError),
            (frame(0x83, b"x"), Reason::ProtocolError),
            (frame(0x09, b"x"), Reason::ProtocolError),
            (frame(0x89, &[0; 126]), Reason::ProtocolError),
            (frame(0x88, &[1]), Reason::ProtocolError),
            (frame(0x88, &1005u16.to_be_bytes()), Reason::ProtocolError),
            (frame(0x81, &[0xff]), Reason::InvalidUtf8),
            (frame(0x81, &[0; 1001]), Reason::MessageTooBig),
            (vec![0x81, 0x01, b'x'], Reason::ProtocolError),
        ];
        for (bytes, reason) in cases {
            for piece in [1, 3, usize::MAX] {
                assert_eq!(read(&bytes, piece).1, Err(reason), "{bytes:?}");
            }
        }
        // A length near 2^64 behind a first part must not wrap around the limit.
        let mut huge = frame(0x01, b"12345678");
        huge.extend([0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        assert_eq!(read(&huge, 7).1, Err(Reason::MessageTooBig));
        let mut parts = frame(0x01, &[b'a'; 600]);
        parts.extend(frame(0x80, &[b'a'; 600]));
        assert_eq!(read(&parts, 50).1, Err(Reason::MessageTooBig), "the sum of the parts counts");
    }
}
