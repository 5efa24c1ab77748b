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
    let bytes = text.as_bytes();
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
