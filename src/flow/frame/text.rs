//! Text of frames: appended in pieces whose length the compiler knows, numbers by a two-digit table, decimals straight
//! from mantissa and scale.
//!
//! Bound kept here: none of its own; it keeps the memory of the longest text it ever held.

use rust_decimal::Decimal;

const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + n as u8 / 10, b'0' + n as u8 % 10];
        n += 1;
    }
    pairs
};

const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut n = 1;
    while n < 20 {
        powers[n] = powers[n - 1] * 10;
        n += 1;
    }
    powers
};

/// A text under construction. What lies beyond its length is scratch, so that clearing costs nothing.
#[derive(Debug, Default)]
pub struct Text {
    bytes: Vec<u8>,
    len: usize,
}

impl Text {
    /// What was written.
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
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Leaves a gap to be filled later; what is in it until then is anything.
    pub fn skip(&mut self, bytes: usize) {
        self.room(bytes);
    }

    /// Appends a piece of known length.
    #[inline]
    pub fn put<const N: usize>(&mut self, piece: &[u8; N]) {
        self.room(N).copy_from_slice(piece);
    }

    /// Appends a piece.
    #[inline]
    pub fn put_slice(&mut self, piece: &[u8]) {
        self.room(piece.len()).copy_from_slice(piece);
    }

    /// Appends an integer.
    pub fn put_u64(&mut self, n: u64) {
        digits(self.room(digit_count(n)), n);
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
        if parts.hi != 0 || scale > 19 {
            // Beyond 64 bits the library's own path is exact and rare enough.
            self.put_slice(decimal.to_string().as_bytes());
            return;
        }
        let mantissa = u64::from(parts.mid) << 32 | u64::from(parts.lo);
        if parts.negative && mantissa != 0 {
            self.put(b"-");
        }
        let Some(&power) = POWERS.get(scale).filter(|_| scale > 0) else { return self.put_u64(mantissa) };
        self.put_u64(mantissa / power);
        let fraction = self.room(scale + 1);
        fraction[0] = b'.';
        digits(&mut fraction[1..], mantissa % power);
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

/// How many digits a number has.
pub fn digit_count(n: u64) -> usize {
    n.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Fills `text` with the last digits of `n`, zeros before them where it is longer.
pub fn digits(text: &mut [u8], mut n: u64) {
    let mut end = text.len();
    while end >= 2 {
        text[end - 2..end].copy_from_slice(&PAIRS[(n % 100) as usize]);
        n /= 100;
        end -= 2;
    }
    if end == 1 {
        text[0] = b'0' + (n % 10) as u8;
    }
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
