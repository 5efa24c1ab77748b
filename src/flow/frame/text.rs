//! Text of frames: appended in pieces whose length the compiler knows, numbers eight digits at a time, decimals straight
//! from mantissa and scale.
//!
//! Bound kept here: none of its own; it keeps the memory of the longest text it ever held.

use rust_decimal::Decimal;

const POWERS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];
const EIGHT_DIGITS: u64 = POWERS[8];
const ASCII_ZEROS: u64 = 0x3030_3030_3030_3030;

/// A piece of this length or less is copied as if it had this length.
pub const SHORT: usize = 96;

/// A text under construction. What lies beyond its length is scratch, so that clearing costs nothing.
#[derive(Debug)]
pub struct Text {
    bytes: Vec<u8>,
    len: usize,
    /// The first eight digits of a time in microseconds, which stay for a hundred seconds, and their text.
    first_digits: (u64, [u8; 8]),
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: Vec::new(), len: 0, first_digits: (u64::MAX, [0; 8]) }
    }
}

impl Text {
    /// What was written.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// What was written, to be changed in place.
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }

    /// How much was written, in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all beyond the first `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Leaves a gap to be filled later; what is in it until then is anything.
    #[inline]
    pub fn skip(&mut self, bytes: usize) {
        self.room(bytes);
    }

    /// Appends a piece of known length.
    #[inline]
    pub fn put<const N: usize>(&mut self, piece: &[u8; N]) {
        match self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut) {
            Some(to) => {
                *to = *piece;
                self.len += N;
            }
            None => self.put_slice(piece),
        }
    }

    /// Appends the first `len` bytes of a piece.
    #[inline]
    pub fn put_first<const N: usize>(&mut self, piece: &[u8; N], len: usize) {
        self.put(piece);
        self.len -= N - len;
    }

    /// Appends a piece.
    #[inline]
    pub fn put_slice(&mut self, piece: &[u8]) {
        self.room(piece.len()).copy_from_slice(piece);
    }

    /// So many bytes of scratch behind what was written.
    #[inline]
    pub fn spare(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.len + bytes;
        if end > self.bytes.len() {
            self.grow(end);
        }
        &mut self.bytes[self.len..end]
    }

    /// What was put into the first bytes of the scratch was written.
    #[inline]
    pub fn claim(&mut self, bytes: usize) {
        self.len = (self.len + bytes).min(self.bytes.len());
    }

    /// The bytes from `start` on, with scratch behind them, unless there are not so many.
    #[inline]
    pub fn short(&self, start: u32) -> Option<&[u8; SHORT]> {
        self.bytes.get(start as usize..start as usize + SHORT)?.first_chunk()
    }

    /// Appends a piece that stands in another text, its bytes from `start` on. Short ones take no call: what is copied
    /// beyond `len` is scratch on both sides.
    #[inline]
    pub fn put_from(&mut self, other: &Self, start: u32, len: usize) {
        match (other.short(start), self.bytes.get_mut(self.len..).and_then(<[u8]>::first_chunk_mut)) {
            (Some(from), Some(to)) if len <= SHORT => {
                *to = *from;
                self.len += len;
            }
            _ => self.put_slice(&other.bytes[start as usize..start as usize + len]),
        }
    }

    /// Appends an integer.
    #[inline(always)]
    pub fn put_u64(&mut self, n: u64) {
        if n < EIGHT_DIGITS {
            let digits = eight_digits(n as u32);
            // The last digit stays, be it zero.
            let zeros = (digits | 1 << 56).trailing_zeros() / 8;
            self.put_eight(digits >> (8 * zeros), 8 - zeros as usize);
        } else {
            self.put_u64_long(n);
        }
    }

    fn put_u64_long(&mut self, n: u64) {
        self.put_u64(n / EIGHT_DIGITS);
        self.put_eight(eight_digits((n % EIGHT_DIGITS) as u32), 8);
    }

    /// Appends a time in microseconds; the first half of its digits is that of the time before, for a hundred seconds.
    #[inline(always)]
    pub fn put_us(&mut self, us: i64) {
        let (first, rest) = (us as u64 / EIGHT_DIGITS, us as u64 % EIGHT_DIGITS);
        if first != self.first_digits.0 {
            self.first_digits = match first {
                10_000_000..EIGHT_DIGITS => (first, (eight_digits(first as u32) | ASCII_ZEROS).to_le_bytes()),
                _ => return self.put_i64(us),
            };
        }
        self.put(&{ self.first_digits.1 });
        self.put_eight(eight_digits(rest as u32), 8);
    }

    /// Appends an integer that may be negative.
    pub fn put_i64(&mut self, n: i64) {
        if n < 0 {
            self.put(b"-");
        }
        self.put_u64(n.unsigned_abs());
    }

    /// Appends a decimal in plain notation, every digit that its scale keeps.
    pub fn put_decimal(&mut self, decimal: Decimal) {
        let parts = decimal.unpack();
        let scale = parts.scale as usize;
        if parts.hi != 0 || scale > 8 {
            // Rare, and the library's own path is exact.
            let exact = decimal.to_string();
            self.put_slice(if decimal.is_zero() { exact.trim_start_matches('-') } else { &exact }.as_bytes());
            return;
        }
        let mantissa = u64::from(parts.mid) << 32 | u64::from(parts.lo);
        if parts.negative && mantissa != 0 {
            self.put(b"-");
        }
        if scale == 0 {
            return self.put_u64(mantissa);
        }
        if mantissa < EIGHT_DIGITS && scale < 8 {
            let (digits, whole) = (eight_digits(mantissa as u32), 8 - scale);
            // The last digit before the point stays, be it zero.
            let zeros = (digits | 1 << (8 * (whole - 1))).trailing_zeros() as usize / 8;
            self.put_eight(digits >> (8 * zeros), whole - zeros);
            self.put(b".");
            return self.put_eight(digits >> (8 * whole), scale);
        }
        let power = POWERS[scale];
        self.put_u64(mantissa / power);
        self.put(b".");
        self.put_eight(eight_digits((mantissa % power * POWERS[8 - scale]) as u32), scale);
    }

    /// Appends the first `len` of eight digits.
    #[inline]
    fn put_eight(&mut self, digits: u64, len: usize) {
        self.put_first(&(digits | ASCII_ZEROS).to_le_bytes(), len);
    }

    #[inline]
    fn room(&mut self, bytes: usize) -> &mut [u8] {
        let (at, end) = (self.len, self.len + bytes);
        if end > self.bytes.len() {
            self.grow(end);
        }
        self.len = end;
        &mut self.bytes[at..end]
    }

    #[cold]
    fn grow(&mut self, end: usize) {
        self.bytes.resize(end.next_power_of_two(), 0);
    }
}

/// A stretch that is filled from its end: what stands last is known first.
#[derive(Debug)]
pub struct Backwards<'a> {
    free: &'a mut [u8],
}

impl<'a> Backwards<'a> {
    /// Fills this.
    pub fn new(free: &'a mut [u8]) -> Self {
        Self { free }
    }

    /// How many bytes are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Puts a piece before all others.
    #[inline]
    pub fn put<const N: usize>(&mut self, piece: &[u8; N]) {
        self.put_end(piece, N);
    }

    /// Puts the last `len` bytes of a piece before all others; those before them are scratch, and need room too.
    #[inline]
    pub fn put_end<const N: usize>(&mut self, piece: &[u8; N], len: usize) {
        debug_assert!(self.free.len() >= N, "{N} bytes where {} are free", self.free.len());
        if let Some(to) = self.free.last_chunk_mut() {
            *to = *piece;
        }
        let free = self.free.len() - len;
        self.free = &mut std::mem::take(&mut self.free)[..free];
    }

    /// Puts an integer before all others; it needs room for eight digits at a time.
    #[inline(always)]
    pub fn put_u64(&mut self, mut n: u64) {
        while n >= EIGHT_DIGITS {
            self.put(&(eight_digits((n % EIGHT_DIGITS) as u32) | ASCII_ZEROS).to_le_bytes());
            n /= EIGHT_DIGITS;
        }
        let digits = eight_digits(n as u32);
        // The last digit stays, be it zero.
        let zeros = (digits | 1 << 56).trailing_zeros() / 8;
        self.put_end(&(digits | ASCII_ZEROS).to_le_bytes(), 8 - zeros as usize);
    }
}

/// The eight digits of a number below 10^8 as the bytes of a word, the first digit lowest. All at once: halves of four
/// digits, then pairs, then digits are divided side by side, by multiplication with a rounded reciprocal.
#[inline]
fn eight_digits(n: u32) -> u64 {
    let halves = u64::from(n / 10_000) | u64::from(n % 10_000) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (pairs - tens * 10) << 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Text)) -> String {
        let mut text = Text::default();
        write(&mut text);
        String::from_utf8(text.as_bytes().to_vec()).expect("digits")
    }

    #[test]
    fn decimals_read_as_the_library_writes_them() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200_000 {
            let bits = random.u32(1..=96);
            let mantissa = (random.u128(..) >> (128 - bits)) as i128;
            let scale = random.u32(0..=28);
            let decimal =
                Decimal::from_i128_with_scale(if random.bool() { mantissa } else { -mantissa }, scale);
            let expected = decimal.to_string();
            let expected = if decimal.is_zero() { expected.trim_start_matches('-') } else { &expected };
            assert_eq!(text(|text| text.put_decimal(decimal)), expected, "{mantissa} scale {scale}");
        }
    }

    #[test]
    fn integers_read_as_the_library_writes_them() {
        let every = (0..100_000_000).step_by(997).chain(99_990_000..100_010_000);
        let wide = (0..64).flat_map(|bits| [1u64 << bits, (1 << bits) - 1]);
        for n in every.chain(wide) {
            assert_eq!(text(|text| text.put_u64(n)), n.to_string());
            let (mut bytes, expected) = ([0; 24], n.to_string());
            let mut backwards = Backwards::new(&mut bytes);
            backwards.put_u64(n);
            let at = backwards.free();
            assert_eq!(String::from_utf8_lossy(&bytes[at..]), expected);
        }
    }

    #[test]
    fn times_read_as_integers() {
        let mut both = (Text::default(), Text::default());
        for us in [0, 1, 1_763_787_600_000_000, 1_763_787_699_999_999, 1_763_787_700_000_000, 99_999_999, -1]
            .into_iter()
            .chain([i64::MIN, i64::MAX, 999_999_999_999_999, 1_000_000_000_000_000, 10_000_000_000_000_000])
        {
            both.0.put_us(us);
            both.1.put_i64(us);
            assert_eq!(both.0.as_bytes(), both.1.as_bytes(), "{us}");
        }
    }

    #[test]
    fn the_edges() {
        for (mantissa, scale, expected) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 3, "0.005"),
            (-5, 1, "-0.5"),
            (123, 3, "0.123"),
            (61_500, 0, "61500"),
        ] {
            assert_eq!(text(|text| text.put_decimal(Decimal::new(mantissa, scale))), expected);
        }
        let numbers = text(|text| {
            text.put_i64(i64::MIN);
            text.put(b",");
            text.put_u64(u64::MAX);
            text.put_u64(0);
        });
        assert_eq!(numbers, "-9223372036854775808,184467440737095516150");
    }
}
