//! Decimal numbers out of a venue's text, exact and without their trailing zeros.
//!
//! Bound kept here: what a [`Decimal`] can hold exactly (28 decimals, 96 bits); anything beyond is refused, never rounded.

use rust_decimal::Decimal;

/// As many digits as always fit a `u64`.
const QUICK_DIGITS_MAX: usize = 19;

/// Reads `digits`, `digits.digits` or either with a minus sign before it; `None` for anything else.
///
/// Zeros at the end of the fraction are left out ("61837.63000000" becomes 61837.63): a venue pads all its numbers to
/// one length, and the padding would be sent on to every client.
pub fn exact(text: &str) -> Option<Decimal> {
    match leading(text.as_bytes()) {
        Some((value, used)) if used == text.len() => Some(value),
        _ => unusual(text.as_bytes()),
    }
}

/// Reads the decimal that `bytes` begin with, and says how many of them it took, if it has no sign, at most eleven
/// digits before its point and at most eight after it. `None` says nothing about what else it may be.
pub(crate) fn leading(bytes: &[u8]) -> Option<(Decimal, usize)> {
    let (units, before) = digits(bytes)?;
    if before > QUICK_DIGITS_MAX - Digits::MAX {
        return None;
    }
    if bytes.get(before) != Some(&b'.') {
        return Some((Decimal::from_parts(units as u32, (units >> 32) as u32, 0, false, 0), before));
    }
    let fraction = Digits::at(bytes, before + 1);
    let used = before + 1 + fraction.count;
    if fraction.count == 0 || bytes.get(used).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let kept = fraction.without_zeros();
    let value = units * TENS[kept] + fraction.first(kept);
    let value = Decimal::from_parts(value as u32, (value >> 32) as u32, 0, false, kept as u32);
    Some((value, used))
}

/// Reads the whole number that `bytes` begin with, as JSON writes it, and says how many of them it took; `None` beyond
/// fifteen digits or with a zero before others.
pub(crate) fn leading_whole(bytes: &[u8]) -> Option<(u64, usize)> {
    digits(bytes).filter(|(_, used)| *used == 1 || bytes[0] != b'0')
}

/// The number that the digits at the beginning make, and how many they are: 1 to 15.
fn digits(bytes: &[u8]) -> Option<(u64, usize)> {
    let head = Digits::at(bytes, 0);
    let value = head.first(head.count);
    if head.count < Digits::MAX {
        return (head.count > 0).then_some((value, head.count));
    }
    let tail = Digits::at(bytes, Digits::MAX);
    let used = Digits::MAX + tail.count;
    (tail.count < Digits::MAX).then(|| (value * TENS[tail.count] + tail.first(tail.count), used))
}

const TENS: [u64; 9] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// Up to eight digits, looked at all at once: one in each byte of a word, the first in the lowest.
struct Digits {
    /// Values from 0 to 9 in the first `count` bytes; what comes after them is of no meaning.
    values: u64,
    count: usize,
}

impl Digits {
    const MAX: usize = 8;

    /// The digits that stand in `bytes` from `at` on.
    fn at(bytes: &[u8], at: usize) -> Self {
        let values = word(bytes, at) ^ 0x3030_3030_3030_3030;
        // The high bit of a byte is set where it is over 9. A carry only reaches bytes after the first of those.
        let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
        Self { values, count: (others.trailing_zeros() / 8) as usize }
    }

    /// The digits moved up so that the `count`th is in the highest byte and zeros come before the first.
    const fn moved(&self, count: usize) -> u64 {
        match count {
            0 => 0,
            _ => self.values << (64 - 8 * count),
        }
    }

    /// How many digits are left without the zeros at their end.
    const fn without_zeros(&self) -> usize {
        let zeros = (self.moved(self.count).leading_zeros() / 8) as usize;
        self.count.saturating_sub(zeros)
    }

    /// The number that the first `count` digits make.
    const fn first(&self, count: usize) -> u64 {
        let digits = self.moved(count);
        // Pairs, then pairs of pairs, then the two halves: each step is one multiplication for all of them.
        let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
        let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
        fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff
    }
}

/// The eight bytes from `at` on, the first in the lowest place, and zeros where there are fewer. Copying a handful of
/// bytes into a padded word would take longer than all the rest, so they are cut out of whole words.
fn word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    if let Some(word) = rest.first_chunk() {
        return u64::from_le_bytes(*word);
    }
    if let Some(last) = bytes.last_chunk() {
        return u64::from_le_bytes(*last).checked_shr(64 - 8 * rest.len() as u32).unwrap_or(0);
    }
    let all = match (bytes.first_chunk(), bytes.last_chunk()) {
        // The two halves may share bytes: both have them in the same places.
        (Some(low), Some(high)) => {
            let high = u64::from(u32::from_le_bytes(*high)) << (8 * (bytes.len() - 4));
            u64::from(u32::from_le_bytes(*low)) | high
        }
        _ => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    };
    all >> (8 * at.min(7))
}

/// [`exact`] for what [`leading`] leaves: signs, long numbers, and all that is no decimal.
fn unusual(bytes: &[u8]) -> Option<Decimal> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    let (whole, padded) = match digits.iter().position(|&b| b == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &b"0"[..]),
    };
    if whole.is_empty() || padded.is_empty() {
        return None;
    }
    let mut fraction = padded;
    while let [rest @ .., b'0'] = fraction {
        fraction = rest;
    }
    if whole.len() + fraction.len() > QUICK_DIGITS_MAX {
        return long(negative, whole, fraction);
    }
    let value = append(append(0, whole)?, fraction)?;
    Some(Decimal::from_parts(value as u32, (value >> 32) as u32, 0, negative, fraction.len() as u32))
}

/// The number that has these digits after those of `value`; the caller sees to it that they fit.
fn append(mut value: u64, digits: &[u8]) -> Option<u64> {
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// The same for more digits: slower, and the only one that can find a number too long to be exact.
fn long(negative: bool, whole: &[u8], fraction: &[u8]) -> Option<Decimal> {
    let scale = u32::try_from(fraction.len()).ok().filter(|scale| *scale <= Decimal::MAX_SCALE)?;
    let mut value: i128 = 0;
    for &byte in whole.iter().chain(fraction) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    Decimal::try_from_i128_with_scale(if negative { -value } else { value }, scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_goes_and_the_value_stays() {
        for (text, shown) in [
            ("61837.63000000", "61837.63"),
            ("0.00000000", "0"),
            ("100", "100"),
            ("100.0", "100"),
            ("0.10", "0.1"),
            ("-5.50", "-5.5"),
            ("007.1", "7.1"),
            ("0.00000001", "0.00000001"),
            ("9999999999999999999", "9999999999999999999"),
            ("123456789012345678901234.5600", "123456789012345678901234.56"),
            ("79228162514264337593543950335", "79228162514264337593543950335"),
            ("-79228162514264337593543950335", "-79228162514264337593543950335"),
            ("0.0000000000000000000000000001", "0.0000000000000000000000000001"),
        ] {
            assert_eq!(exact(text).map(|d| d.to_string()).as_deref(), Some(shown), "{text}");
        }
        assert!(!exact("-0").expect("zero").is_sign_negative(), "there is one zero");
    }

    #[test]
    fn what_is_no_exact_decimal_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "1.",
            ".5",
            "+1",
            "1e5",
            "1_000",
            "1,5",
            " 1",
            "1 ",
            "--1",
            "1.2.3",
            "NaN",
            "٣",
            "1.-2",
            "79228162514264337593543950336",
            "0.00000000000000000000000000001",
            "0.1111111111111111111111111111x",
        ] {
            assert_eq!(exact(text), None, "{text}");
        }
        assert_eq!(exact(&"9".repeat(100)), None);
    }

    #[test]
    fn the_quick_way_and_the_slow_one_agree() {
        let mut rng = fastrand::Rng::with_seed(11);
        for _ in 0..300_000 {
            let bytes = b"01234567890123456789.00\"x";
            let text: String =
                (0..rng.usize(1..24)).map(|_| char::from(bytes[rng.usize(..bytes.len())])).collect();
            let Some((value, used)) = leading(text.as_bytes()) else { continue };
            let slow = unusual(&text.as_bytes()[..used]).expect(&text);
            assert_eq!((value, value.scale()), (slow, slow.scale()), "{text}");
            assert!(!text[used..].starts_with(|c: char| c.is_ascii_digit()), "{text}");
        }
        for number in [0, 7, 12_345_678, 123_456_789, 999_999_999_999_999] {
            let text = format!("{number},");
            assert_eq!(leading_whole(text.as_bytes()), Some((number, text.len() - 1)));
        }
        for text in ["", "x", "01", "-1", "1234567890123456"] {
            assert_eq!(leading_whole(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn it_agrees_with_the_library() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let (whole, decimals) = (rng.u64(..) >> rng.u32(0..64), rng.usize(1..=9));
            let text = format!("{whole}.{:0decimals$}", rng.u64(..10u64.pow(decimals as u32)));
            let expected = Decimal::from_str_exact(&text).expect("a decimal").normalize();
            let got = exact(&text).expect(&text);
            assert_eq!((got, got.scale()), (expected, expected.scale()), "{text}");
        }
    }
}
