//! The WebSocket header of outgoing frames (RFC 6455 5.2): never masked, never fragmented.

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

/// In the first byte of a header: the payload is compressed (RFC 7692 6).
pub const COMPRESSED: u8 = 0x40;
/// The longest header of a frame without a mask, in bytes.
pub const HEADER_BYTES_MAX: usize = 10;

/// The header for `len` bytes of payload: the bytes and how many of them count.
pub fn header(opcode: Opcode, len: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut header = [0; HEADER_BYTES_MAX];
    header[0] = 0x80 | opcode as u8;
    if len < 126 {
        header[1] = len as u8;
        (header, 2)
    } else if let Ok(len) = u16::try_from(len) {
        header[1] = 126;
        header[2..4].copy_from_slice(&len.to_be_bytes());
        (header, 4)
    } else {
        header[1] = 127;
        header[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        (header, 10)
    }
}

/// A whole frame.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let (header, len) = header(opcode, payload.len());
    let mut frame = Vec::with_capacity(len + payload.len());
    frame.extend_from_slice(&header[..len]);
    frame.extend_from_slice(payload);
    frame
}

/// A close frame; `text` is at most 123 bytes.
pub fn close(code: u16, text: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(&text.as_bytes()[..text.len().min(123)]);
    frame(Opcode::Close, &payload)
}
