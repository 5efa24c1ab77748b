//! The WebSocket header of outgoing frames (RFC 6455 5.2): never masked, never fragmented.

use super::text::Backwards;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// UTF-8 text.
    Text = 1,
    /// Anything.
    Binary = 2,
    /// End of the conversation.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping with its payload.
    Pong = 10,
}

/// In the first byte of a header: this is the last frame of its message.
const FINAL: u8 = 0x80;
/// In the first byte of a header: the payload is compressed (RFC 7692 6).
pub const COMPRESSED: u8 = 0x40;
/// The longest header of a frame without a mask, in bytes.
pub const HEADER_BYTES_MAX: usize = 10;

/// Puts the header for `len` bytes of payload before them.
#[inline(always)]
pub fn put_header(out: &mut Backwards<'_>, opcode: Opcode, is_compressed: bool, len: usize) {
    let first = FINAL | opcode as u8 | if is_compressed { COMPRESSED } else { 0 };
    if len < 126 {
        out.put(&[first, len as u8]);
    } else if let Ok(len) = u16::try_from(len) {
        out.put(&len.to_be_bytes());
        out.put(&[first, 126]);
    } else {
        out.put(&(len as u64).to_be_bytes());
        out.put(&[first, 127]);
    }
}

/// A whole frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let mut before = Backwards::new(&mut header);
    put_header(&mut before, opcode, false, payload.len());
    let at = before.free();
    [&header[at..], payload].concat()
}

/// A close frame; `text` is at most 123 bytes.
pub fn close(code: u16, text: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&text.as_bytes()[..text.len().min(123)]);
    frame(Opcode::Close, &payload)
}
