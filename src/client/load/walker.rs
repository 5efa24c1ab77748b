//! WebSocket framing as a load client needs it: headers are read, payloads are only pointed at.
//!
//! Bound: nothing is copied; a frame longer than the caller's buffer is an error, not a bigger buffer.

use std::ops::Range;

/// What kind of frame it is (RFC 6455, 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text, or the first part of one.
    Text,
    /// Binary, or the first part of one.
    Binary,
    /// A later part of either.
    Continuation,
    Close,
    Ping,
    Pong,
}

/// One frame in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Where its payload is.
    pub(super) payload: Range<usize>,
}

/// What the bytes at hand begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Whole(Frame),
    /// The frame goes on after these bytes.
    Partial,
    /// Not a frame that a server may send to a client that offered no extension.
    Wrong(&'static str),
}

/// Reads the frame that begins at `from`; `longest` is the most bytes, header included, that the caller can hold.
pub(super) fn step(bytes: &[u8], from: usize, longest: usize) -> Step {
    let Some(&[first, second]) = bytes.get(from..from + 2) else { return Step::Partial };
    if second & 0x80 != 0 {
        return Step::Wrong("masked frame from a server");
    }
    let kind = match first & 0x7f {
        0x0 => Kind::Continuation,
        0x1 => Kind::Text,
        0x2 => Kind::Binary,
        0x8 => Kind::Close,
        0x9 => Kind::Ping,
        0xa => Kind::Pong,
        _ => return Step::Wrong("unknown opcode or reserved bit"),
    };
    let (header, length) = match second {
        126 => match bytes.get(from + 2..from + 4) {
            Some(&[a, b]) => (4, u64::from(u16::from_be_bytes([a, b]))),
            _ => return Step::Partial,
        },
        127 => match bytes.get(from + 2..from + 10).and_then(|raw| raw.try_into().ok()) {
            Some(raw) => (10, u64::from_be_bytes(raw)),
            None => return Step::Partial,
        },
        short => (2, u64::from(short)),
    };
    if length > (longest - header) as u64 {
        return Step::Wrong("frame longer than the read buffer");
    }
    let start = from + header;
    let end = start + length as usize;
    if end > bytes.len() { Step::Partial } else { Step::Whole(Frame { kind, payload: start..end }) }
}

/// Appends a masked client frame; `opcode` as on the wire.
pub(super) fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8], mask: u32) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = mask.to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_at_every_cut() {
        for length in [0usize, 1, 125, 126, 300, 65_535, 65_536] {
            let mut bytes = vec![0x81];
            match length {
                0..=125 => bytes.push(length as u8),
                126..=0xffff => bytes.extend([&[126], &(length as u16).to_be_bytes()[..]].concat()),
                _ => bytes.extend([&[127], &(length as u64).to_be_bytes()[..]].concat()),
            }
            let header = bytes.len();
            bytes.resize(header + length, b'x');
            for cut in [0, 1, 2, 3, header.saturating_sub(1), bytes.len() - 1] {
                if cut < bytes.len() {
                    assert_eq!(step(&bytes[..cut], 0, 1 << 20), Step::Partial, "{length} {cut}");
                }
            }
            let whole = Step::Whole(Frame { kind: Kind::Text, payload: header..header + length });
            assert_eq!(step(&bytes, 0, 1 << 20), whole);
        }
    }

    #[test]
    fn what_a_server_may_not_send_is_refused() {
        assert!(matches!(step(&[0x81, 0x80], 0, 100), Step::Wrong(_)));
        assert!(matches!(step(&[0xc1, 0x00], 0, 100), Step::Wrong(_)));
        assert!(matches!(step(&[0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0], 0, 100), Step::Wrong(_)));
    }

    #[test]
    fn a_masked_frame_unmasks_to_its_payload() {
        for length in [5usize, 200, 70_000] {
            let payload = vec![b'a'; length];
            let mut out = Vec::new();
            write_masked(&mut out, 1, &payload, 0x0102_0304);
            let body = out.len() - length;
            let plain: Vec<u8> =
                out[body..].iter().enumerate().map(|(at, byte)| byte ^ out[body - 4 + at % 4]).collect();
            assert_eq!(plain, payload);
        }
    }
}
