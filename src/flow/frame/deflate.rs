//! permessage-deflate (RFC 7692): what is agreed on, frames compressed for all who share them, messages of clients inflated.
//!
//! Neither side keeps a window from one message to the next: so a shared frame can go to everybody, and an idle client costs
//! nothing. The compressor is ours: a general one spends longer on forgetting the message before than on a short frame.
//! Bounds kept here: a compressor's table; an inflated message is at most as long as the caller says.

use flate2::{Decompress, FlushDecompress, Status};

use crate::base::reason::Reason;

/// The widest window there is, in bits.
const WINDOW_BITS_MAX: u8 = 15;
/// Places in the table of what was seen, in bits: 16 KiB, half of a core's nearest cache.
const SEEN_BITS: u32 = 12;
/// Spreads what differs in few bits (Knuth's multiplicative hash).
const GOLDEN: u32 = 0x9e37_79b1;
/// The longest repetition that has a code.
const REPEATED_MAX: usize = 258;
/// The least room for what comes out, in bytes: most commands fit when they are inflated, and a short frame with the ends that
/// compressing puts to it.
const ROOM_MIN: usize = 256;
/// What every message compressed by a flush ends with; it is not sent (RFC 7692 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Reads the offers of a `Sec-WebSocket-Extensions` header: the window that frames may be compressed for, in bits, and what
/// to answer. `None` when no offer can be taken: then nothing is compressed.
pub fn agree(offers: &str) -> Option<(u8, String)> {
    offers.split(',').find_map(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        if parts.next()? != "permessage-deflate" {
            return None;
        }
        let (mut window_bits, mut seen) = (None, Vec::new());
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(unquoted(value.trim())?)),
                None => (part, None),
            };
            let bits = value.map(|value| match value.as_bytes() {
                [b'8'..=b'9'] | [b'1', b'0'..=b'5'] => value.parse::<u8>().ok(),
                _ => None,
            });
            match (name, bits) {
                _ if seen.contains(&name) => return None,
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                // How far a client looks back is its own affair: what it sends is inflated with the widest window.
                ("client_max_window_bits", None | Some(Some(_))) => {}
                ("server_max_window_bits", Some(Some(bits))) => window_bits = Some(bits),
                _ => return None,
            }
            seen.push(name);
        }
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        Some(match window_bits {
            Some(bits) => (bits, format!("{answer}; server_max_window_bits={bits}")),
            None => (WINDOW_BITS_MAX, answer.to_owned()),
        })
    })
}

/// A parameter's value: a token, or one in quotes (RFC 6455 9.1).
fn unquoted(value: &str) -> Option<&str> {
    let bare = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    (!bare.contains('"')).then_some(bare)
}

/// Compresses messages: repetitions as the length and distance that one look at a table finds, in the code that the format
/// itself has (RFC 1951 3.2.6). A code made for each message would make it a fifth shorter and take several times as long.
#[derive(Debug, Default)]
pub struct Deflate {
    /// Where four bytes of this hash stood last, counted through all messages, so that none has to empty it.
    seen: Vec<u32>,
    /// Where the next message begins in that count.
    next: u32,
    out: Vec<u8>,
}

impl Deflate {
    /// The payload of a compressed message, for a window that was agreed on. It may be longer than the text, by an eighth.
    pub fn message(&mut self, text: &[u8], window_bits: u8) -> &[u8] {
        debug_assert!(text.len() <= i32::MAX as usize, "places are counted in 32 bits");
        if self.seen.is_empty() || self.next > u32::MAX - text.len() as u32 {
            (self.seen, self.next) = (vec![0; 1 << SEEN_BITS], 1);
        }
        let (begin, window) = (self.next, 1 << window_bits);
        self.next += text.len() as u32;
        self.out.clear();
        self.out.reserve(text.len() + text.len() / 8 + ROOM_MIN);
        let mut bits = Bits { out: &mut self.out, waiting: 0, len: 0 };
        bits.put(FIXED_BLOCK);
        let mut at = 0;
        while let Some(four) = four_bytes(text, at) {
            let seen = &mut self.seen[(four.wrapping_mul(GOLDEN) >> (u32::BITS - SEEN_BITS)) as usize];
            let before = seen.checked_sub(begin).map(|before| before as usize);
            *seen = begin + at as u32;
            match before.filter(|before| at - before <= window && four_bytes(text, *before) == Some(four)) {
                Some(before) => {
                    let end = text.len().min(at + REPEATED_MAX);
                    let len = 4 + common(&text[before + 4..], &text[at + 4..end]);
                    bits.put(LENGTHS[len]);
                    bits.put(Code::distance((at - before) as u32));
                    at += len;
                }
                None => {
                    bits.put(LITERALS[usize::from(text[at])]);
                    at += 1;
                }
            }
        }
        for byte in &text[at..] {
            bits.put(LITERALS[usize::from(*byte)]);
        }
        bits.put(END_OF_BLOCK);
        bits.put(EMPTY_BLOCK);
        bits.end();
        &self.out
    }
}

fn four_bytes(text: &[u8], at: usize) -> Option<u32> {
    text.get(at..)?.first_chunk().map(|four| u32::from_le_bytes(*four))
}

/// How many bytes both begin with.
fn common(one: &[u8], other: &[u8]) -> usize {
    let (ones, others) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
    let mut len = 0;
    for (one, other) in ones.iter().zip(others) {
        let differs = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differs != 0 {
            return len + (differs.trailing_zeros() / 8) as usize;
        }
        len += 8;
    }
    len + one[len..].iter().zip(&other[len..]).take_while(|(one, other)| one == other).count()
}

/// Bits on their way out, the first one lowest.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    waiting: u64,
    len: u32,
}

impl Bits<'_> {
    #[inline]
    fn put(&mut self, code: Code) {
        self.waiting |= u64::from(code.bits) << self.len;
        self.len += code.len;
        if self.len >= u32::BITS {
            self.out.extend_from_slice(&(self.waiting as u32).to_le_bytes());
            self.waiting >>= u32::BITS;
            self.len -= u32::BITS;
        }
    }

    /// Fills the last byte.
    fn end(self) {
        self.out.extend_from_slice(&self.waiting.to_le_bytes()[..self.len.div_ceil(8) as usize]);
    }
}

/// At most 25 bits that stand for something.
#[derive(Clone, Copy)]
struct Code {
    bits: u32,
    len: u32,
}

/// A block in the format's own code, and not the last.
const FIXED_BLOCK: Code = Code { bits: 0b010, len: 3 };
const END_OF_BLOCK: Code = Code::literal(256);
/// The beginning of a block of no bytes, whose rest is the tail.
const EMPTY_BLOCK: Code = Code { bits: 0, len: 3 };
const LITERALS: [Code; 256] = {
    let (mut codes, mut byte) = ([END_OF_BLOCK; 256], 0);
    while byte < 256 {
        codes[byte] = Code::literal(byte as u32);
        byte += 1;
    }
    codes
};
/// By length; below 3 there are none.
const LENGTHS: [Code; REPEATED_MAX + 1] = {
    let (mut codes, mut len) = ([END_OF_BLOCK; REPEATED_MAX + 1], 3);
    while len < REPEATED_MAX {
        codes[len] = Code::length(len as u32);
        len += 1;
    }
    codes[REPEATED_MAX] = Code::literal(285);
    codes
};
/// Of distances, without the bits that follow.
const DISTANCES: [Code; 30] = {
    let (mut codes, mut symbol) = ([END_OF_BLOCK; 30], 0);
    while symbol < 30 {
        codes[symbol] = Code { bits: (symbol as u32).reverse_bits() >> (u32::BITS - 5), len: 5 };
        symbol += 1;
    }
    codes
};

impl Code {
    /// Of a byte, of the block's end, or of a length without the bits that follow.
    const fn literal(symbol: u32) -> Self {
        let (code, len) = match symbol {
            0..144 => (0b0011_0000 + symbol, 8),
            144..256 => (0b1_1001_0000 + symbol - 144, 9),
            256..280 => (symbol - 256, 7),
            _ => (0b1100_0000 + symbol - 280, 8),
        };
        // Codes begin with their highest bit, numbers with their lowest.
        Self { bits: code.reverse_bits() >> (u32::BITS - len), len }
    }

    const fn length(len: u32) -> Self {
        let more = len - 3;
        let extra = (more | 4).ilog2() - 2;
        Self::literal(257 + 4 * extra + (more >> extra)).with(more, extra)
    }

    fn distance(distance: u32) -> Self {
        let more = distance - 1;
        let extra = (more | 2).ilog2() - 1;
        DISTANCES[(2 * extra + (more >> extra)) as usize].with(more, extra)
    }

    /// Followed by the lowest bits of a number.
    const fn with(self, number: u32, len: u32) -> Self {
        Self { bits: self.bits | (number & ((1 << len) - 1)) << self.len, len: self.len + len }
    }
}

/// Inflates messages.
#[derive(Debug, Default)]
pub struct Inflate {
    decompress: Option<Box<Decompress>>,
    out: Vec<u8>,
}

impl Inflate {
    /// What a compressed message says, if that is at most `bytes_max` long. Of one that is cut off comes what there is of it, and
    /// nothing that stands behind a last block counts: neither is told from a message that ends there.
    pub fn message(&mut self, compressed: &[u8], bytes_max: usize) -> Result<&[u8], Reason> {
        let decompress = self.decompress.get_or_insert_with(|| Box::new(Decompress::new(false)));
        decompress.reset(false);
        let mut len = 0;
        for mut piece in [compressed, &TAIL] {
            loop {
                // Room grows with what comes out: a short message must not cost the longest one's memory.
                if len == self.out.len() {
                    let room = (2 * len.max(compressed.len())).max(ROOM_MIN).min(bytes_max + 1);
                    self.out.reserve_exact(room - len);
                    self.out.resize(room, 0);
                }
                let end = self.out.len().min(bytes_max + 1);
                let before = (decompress.total_in(), decompress.total_out());
                let status = decompress.decompress(piece, &mut self.out[len..end], FlushDecompress::Sync);
                let after = (decompress.total_in(), decompress.total_out());
                piece = &piece[(after.0 - before.0) as usize..];
                len += (after.1 - before.1) as usize;
                if len > bytes_max {
                    return Err(Reason::MessageTooBig);
                }
                match status {
                    Err(_) => return Err(Reason::ProtocolError),
                    // A last block: nothing that follows counts.
                    Ok(Status::StreamEnd) => return Ok(&self.out[..len]),
                    Ok(_) if after != before => {}
                    Ok(_) if piece.is_empty() => break,
                    Ok(_) => return Err(Reason::ProtocolError),
                }
            }
        }
        Ok(&self.out[..len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_taken_or_declined_as_the_standard_says() {
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for (offers, taken) in [
            ("permessage-deflate", Some((15, ""))),
            ("permessage-deflate; client_max_window_bits", Some((15, ""))),
            ("permessage-deflate; server_no_context_takeover;client_max_window_bits=\"9\"", Some((15, ""))),
            (
                "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
                Some((12, "; server_max_window_bits=12")),
            ),
            ("x-webkit-deflate-frame, permessage-deflate", Some((15, ""))),
            (
                "permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=\"8\"",
                Some((8, "; server_max_window_bits=8")),
            ),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=\"9", None),
            ("permessage-deflate; server_max_window_bits=9\"", None),
            ("permessage-deflate; server_max_window_bits=\"\"9\"\"", None),
            ("permessage-deflate; server_max_window_bits=\"", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=09", None),
            ("permessage-deflate; client_max_window_bits=7", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_no_context_takeover; client_no_context_takeover", None),
            ("permessage-deflate; mux", None),
            ("permessage-bzip2", None),
            ("", None),
        ] {
            let expected = taken.map(|(bits, more)| (bits, format!("{answer}{more}")));
            assert_eq!(agree(offers), expected, "{offers}");
        }
    }

    /// Repetitions near and far, short and long, and noise.
    fn texts() -> Vec<Vec<u8>> {
        let rows: String =
            (0..4_000).map(|at| format!("{{\"symbol\":\"A{at}\",\"last\":{}}},", at * 7)).collect();
        let mut random = fastrand::Rng::with_seed(7);
        let mut texts = vec![rows.clone().into_bytes(), rows.as_bytes()[17..40_000].to_vec(), Vec::new()];
        texts.extend((1..600).map(|len| rows.as_bytes()[..len].to_vec()));
        texts.extend((1..600).map(|len| vec![b' '; len]));
        texts.extend((1..600).map(|len| std::iter::repeat_with(|| random.u8(..)).take(len).collect()));
        // A repetition at every distance that has a code of its own, and at those beside it.
        for distance in
            (0..15).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1, 3 << power >> 1])
        {
            let noise: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(distance).collect();
            texts.push([&noise[..], &noise[..distance.min(400)]].concat());
        }
        texts
    }

    #[test]
    fn what_was_compressed_for_any_window_comes_out_again() {
        let (mut deflate, mut inflate) = (Deflate::default(), Inflate::default());
        for text in texts() {
            for window_bits in 8..=WINDOW_BITS_MAX {
                let compressed = deflate.message(&text, window_bits);
                assert!(compressed.len() <= text.len() + text.len() / 8 + 2);
                let inflated = inflate.message(compressed, 1 << 20);
                assert!(inflated == Ok(&text[..]), "{} bytes, {window_bits} bits of window", text.len());
            }
        }
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(300).collect();
        let twice = [&noise[..], &noise[..]].concat();
        assert!(deflate.message(&twice, 8).len() > 600, "the first is out of sight");
        assert!(deflate.message(&twice, 9).len() < 400);
        assert!(deflate.message(&texts()[0], 15).len() < texts()[0].len() / 2);
    }

    #[test]
    fn places_are_counted_anew_before_they_are_too_many() {
        let (mut deflate, mut inflate) = (Deflate::default(), Inflate::default());
        let text = "0123456789".repeat(10);
        let first = deflate.message(text.as_bytes(), 15).to_vec();
        deflate.next = u32::MAX - 150;
        for _ in 0..3 {
            assert_eq!(deflate.message(text.as_bytes(), 15), first);
        }
        assert_eq!((deflate.next, inflate.message(&first, 100)), (201, Ok(text.as_bytes())));
    }

    #[test]
    fn a_message_is_inflated_no_further_than_the_limit() {
        let (mut deflate, mut inflate) = (Deflate::default(), Inflate::default());
        let blanks = vec![b' '; 1 << 20];
        let bomb = deflate.message(&blanks, 15).to_vec();
        assert!(bomb.len() < blanks.len() / 100);
        assert_eq!(inflate.message(&bomb, 1_000), Err(Reason::MessageTooBig));
        assert!(inflate.out.capacity() <= 1_001);
        assert_eq!(inflate.message(&bomb, blanks.len()).map(<[u8]>::len), Ok(blanks.len()));
        assert_eq!(inflate.message(&bomb, 1_000), Err(Reason::MessageTooBig));
        let inflated = inflate.decompress.as_ref().map(|decompress| decompress.total_out());
        assert_eq!(inflated, Some(1_001), "though there was room for more");
        assert_eq!(inflate.message(&[0x00], 10), Ok(&b""[..]), "an empty message");
        assert_eq!(inflate.message(&[0xff; 20], 1_000), Err(Reason::ProtocolError));
        // Three bytes at a distance of one, before any byte was said: those of the message before are another client's.
        assert_eq!(inflate.message(&[0x02, 0x02, 0x00], 10), Err(Reason::ProtocolError));
        // The last block of a stream, as some clients send it (RFC 7692 7.2.3.4).
        assert_eq!(inflate.message(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], 10), Ok(&b"Hello"[..]));
    }
}
