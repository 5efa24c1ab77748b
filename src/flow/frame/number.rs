//! Numbers as text: integers by a two-digit table, decimals straight from mantissa and scale.

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

/// Room for a sign, 20 digits, a point and a leading zero, with 28 decimal places in the worst case.
const TEXT_BYTES: usize = 32;

/// Writes the digits of `n` so that they end at `end` of `text`; returns where they begin.
fn digits(text: &mut [u8; TEXT_BYTES], end: usize, mut n: u64) -> usize {
    let mut at = end;
    while n >= 100 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[(n % 100) as usize]);
        n /= 100;
    }
    if n >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[n as usize]);
    } else {
        at -= 1;
        text[at] = b'0' + n as u8;
    }
    at
}

/// Appends an integer.
pub fn push_u64(out: &mut Vec<u8>, n: u64) {
    let mut text = [0; TEXT_BYTES];
    let at = digits(&mut text, TEXT_BYTES, n);
    out.extend_from_slice(&text[at..]);
}

/// Appends an integer that may be negative.
pub fn push_i64(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    push_u64(out, n.unsigned_abs());
}

/// Appends a decimal in plain notation, every digit that its scale keeps.
pub fn push_decimal(out: &mut Vec<u8>, decimal: Decimal) {
    let parts = decimal.unpack();
    let scale = parts.scale as usize;
    if parts.hi != 0 || scale > 18 {
        // Beyond 64 bits the library's own path is exact and rare enough.
        out.extend_from_slice(decimal.to_string().as_bytes());
        return;
    }
    let mantissa = u64::from(parts.mid) << 32 | u64::from(parts.lo);
    let mut text = [b'0'; TEXT_BYTES];
    let mut at = digits(&mut text, TEXT_BYTES, mantissa);
    if scale > 0 {
        // The fraction stands at the end already; zeros before short ones are there too. Make room for the point.
        let point = TEXT_BYTES - scale - 1;
        at = at.min(point);
        text.copy_within(at..point + 1, at - 1);
        text[point] = b'.';
        at -= 1;
    }
    if parts.negative && mantissa != 0 {
        at -= 1;
        text[at] = b'-';
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(decimal: Decimal) -> String {
        let mut out = Vec::new();
        push_decimal(&mut out, decimal);
        String::from_utf8(out).expect("digits")
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
            assert_eq!(text(decimal), expected, "{mantissa} scale {scale}");
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
            assert_eq!(text(Decimal::new(mantissa, scale)), expected);
        }
        let mut out = Vec::new();
        push_i64(&mut out, i64::MIN);
        push_u64(&mut out, u64::MAX);
        assert_eq!(out, b"-922337203685477580818446744073709551615");
    }
}
