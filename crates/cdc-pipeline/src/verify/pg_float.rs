//! Floating-point numbers as PostgreSQL prints them with `extra_float_digits` above 0: the fewest
//! digits that lie strictly within the rounding interval
//! (`double_to_shortest_decimal_buf` in `src/common/d2s.c`, `float_to_shortest_decimal_buf` in `f2s.c`).
//!
//! Rust prints the fewest digits that read back, which may lie exactly between two numbers and then
//! rely on rounding to even (1e23). PostgreSQL does not take those, so they are told apart exactly.

/// The decimal exponents that are printed without one.
const FIXED_FLOAT8: std::ops::Range<i32> = -4..15;
const FIXED_FLOAT4: std::ops::Range<i32> = -4..6;

/// A `float8`.
pub(crate) fn write_float8(value: f64, out: &mut Vec<u8>) {
    if let Some(word) = word(value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        out.extend_from_slice(word);
        return;
    }
    let number = Binary::of_f64(value);
    let shortest = format!("{:e}", value.abs());
    let decimal = strictly_within(&number, &shortest, |digits| {
        let text = format!("{:.*e}", digits - 1, value.abs());
        (text.parse::<f64>() == Ok(value.abs())).then_some(text)
    });
    write(value.is_sign_negative(), &decimal, FIXED_FLOAT8, out);
}

/// A `float4`.
pub(crate) fn write_float4(value: f32, out: &mut Vec<u8>) {
    if let Some(word) = word(value.is_nan(), value.is_infinite(), value.is_sign_negative()) {
        out.extend_from_slice(word);
        return;
    }
    let number = Binary::of_f32(value);
    let shortest = format!("{:e}", value.abs());
    let decimal = strictly_within(&number, &shortest, |digits| {
        let text = format!("{:.*e}", digits - 1, value.abs());
        (text.parse::<f32>() == Ok(value.abs())).then_some(text)
    });
    write(value.is_sign_negative(), &decimal, FIXED_FLOAT4, out);
}

fn word(nan: bool, infinite: bool, negative: bool) -> Option<&'static [u8]> {
    match (nan, infinite, negative) {
        (true, ..) => Some(b"NaN"),
        (_, true, false) => Some(b"Infinity"),
        (_, true, true) => Some(b"-Infinity"),
        _ => None,
    }
}

/// A positive finite number: `mantissa` × 2^`exponent`.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// Whether the next number below is only half as far away as the next above.
    is_lowest_of_its_exponent: bool,
}

impl Binary {
    fn of_f64(value: f64) -> Binary {
        Binary::of_bits(value.to_bits() & (u64::MAX >> 1), 52, 1075)
    }

    fn of_f32(value: f32) -> Binary {
        Binary::of_bits(u64::from(value.to_bits() & (u32::MAX >> 1)), 23, 150)
    }

    fn of_bits(bits: u64, fraction_bits: u32, bias: i32) -> Binary {
        let fraction = bits & ((1 << fraction_bits) - 1);
        let biased = i32::try_from(bits >> fraction_bits).unwrap_or(0);
        match biased {
            0 => {
                Binary { mantissa: fraction, exponent: 1 - bias, is_lowest_of_its_exponent: false }
            }
            _ => Binary {
                mantissa: fraction | 1 << fraction_bits,
                exponent: biased - bias,
                is_lowest_of_its_exponent: fraction == 0 && biased > 1,
            },
        }
    }

    /// Whether the decimal number lies exactly between this and a neighbour.
    fn is_bounded_by(&self, decimal: &Decimal) -> bool {
        let upper = odd(u128::from(self.mantissa) * 2 + 1, self.exponent - 1);
        let lower = match self.is_lowest_of_its_exponent {
            true => odd(u128::from(self.mantissa) * 4 - 1, self.exponent - 2),
            false if self.mantissa == 0 => return false,
            false => odd(u128::from(self.mantissa) * 2 - 1, self.exponent - 1),
        };
        decimal.odd().is_some_and(|value| value == upper || value == lower)
    }
}

/// `digits` × 10^`exponent`.
struct Decimal {
    digits: u64,
    exponent: i32,
}

impl Decimal {
    /// From Rust's `{:e}`: `1.25e-7`.
    fn parse(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = text.split_once('e')?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}").parse().ok()?;
        let exponent: i32 = exponent.parse().ok()?;
        Some(Decimal { digits, exponent: exponent - i32::try_from(fraction.len()).ok()? })
    }

    /// As an odd integer × 2^n; `None` if it is no such number, or one with more digits than the
    /// middle between two numbers can have.
    fn odd(&self) -> Option<(u128, i32)> {
        /// 5^27 × 2^64 is below 2^128; a middle has at most 55 bits, so that 5^24 is above it.
        const FIVES_MAX: u32 = 27;
        let fives = self.exponent.unsigned_abs();
        if fives > FIVES_MAX {
            return None;
        }
        let power = 5u128.pow(fives);
        let digits = u128::from(self.digits);
        match self.exponent >= 0 {
            true => Some(odd(digits * power, self.exponent)),
            false if digits % power == 0 => Some(odd(digits / power, self.exponent)),
            false => None,
        }
    }
}

/// `value` × 2^`exponent` with an odd value.
fn odd(value: u128, exponent: i32) -> (u128, i32) {
    let zeros = if value == 0 { 0 } else { value.trailing_zeros() };
    (value >> zeros, exponent + i32::try_from(zeros).unwrap_or(0))
}

/// The fewest digits strictly within the interval: `shortest` if it is, else the nearest number of as
/// many or more digits. `nearest` gives the number of so many digits, if it reads back.
fn strictly_within(
    number: &Binary,
    shortest: &str,
    nearest: impl Fn(usize) -> Option<String>,
) -> String {
    const DIGITS_MAX: usize = 17;
    let is_bound =
        |text: &str| Decimal::parse(text).is_some_and(|decimal| number.is_bounded_by(&decimal));
    let digits =
        shortest.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
    // of two that are equally near PostgreSQL takes the even one, as exact formatting does
    if let Some(even) = nearest(digits).filter(|text| !is_bound(text)) {
        return even;
    }
    if !is_bound(shortest) {
        return shortest.to_owned();
    }
    let mut candidates = (digits + 1..=DIGITS_MAX).filter_map(nearest);
    candidates.find(|text| !is_bound(text)).unwrap_or_else(|| shortest.to_owned())
}

/// Writes the digits of `1.25e-7` the way PostgreSQL lays them out.
fn write(negative: bool, decimal: &str, fixed: std::ops::Range<i32>, out: &mut Vec<u8>) {
    let (mantissa, exponent) = decimal.split_once('e').unwrap_or((decimal, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mut digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    if negative {
        out.push(b'-');
    }
    if !fixed.contains(&exponent) {
        write_scientific(&digits, exponent, out);
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', exponent.unsigned_abs() as usize - 1));
        out.extend_from_slice(&digits);
    } else {
        let whole = exponent as usize + 1;
        out.extend_from_slice(&digits[..whole.min(digits.len())]);
        out.extend(std::iter::repeat_n(b'0', whole.saturating_sub(digits.len())));
        if digits.len() > whole {
            out.push(b'.');
            out.extend_from_slice(&digits[whole..]);
        }
    }
}

fn write_scientific(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    out.extend_from_slice(format!("e{sign}{:02}", exponent.unsigned_abs()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float8(value: f64) -> String {
        let mut out = Vec::new();
        write_float8(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn float4(value: f32) -> String {
        let mut out = Vec::new();
        write_float4(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// Expected texts as PostgreSQL 15 and 18 print them.
    #[test]
    fn doubles() {
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (9_007_199_254_740_993.0, "9.007199254740992e+15"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (1e22, "1e+22"),
            (1e23, "9.999999999999999e+22"),
            (8.41e21, "8.409999999999999e+21"),
            (2.225_073_858_507_201_4e-308, "2.2250738585072014e-308"),
            (9.5e-7, "9.5e-07"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
            (-1.5e100, "-1.5e+100"),
        ];
        for (value, expected) in cases {
            assert_eq!(float8(value), expected);
        }
    }

    #[test]
    fn floats() {
        let cases = [
            (0.1, "0.1"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (16_777_216.0, "1.6777216e+07"),
            (397_063.0 / 16.0, "24816.438"),
            (3_554_369.0 / 8.0, "444296.12"),
            (f32::MAX, "3.4028235e+38"),
            (1e-45, "1e-45"),
            (5e-45, "6e-45"),
            (1.175_494_4e-38, "1.1754944e-38"),
            (9.860_761_3e-32, "9.8607613e-32"),
            (0.0001, "0.0001"),
            (0.00012345, "0.00012345"),
        ];
        for (value, expected) in cases {
            assert_eq!(float4(value), expected);
        }
    }

    #[test]
    fn every_text_reads_back() {
        let mut bits = 0x9E37_79B9_7F4A_7C15u64;
        for _ in 0..200_000 {
            bits ^= bits << 13;
            bits ^= bits >> 7;
            bits ^= bits << 17;
            let double = f64::from_bits(bits);
            if double.is_finite() {
                assert_eq!(float8(double).parse(), Ok(double));
            }
            let float = f32::from_bits((bits >> 32) as u32);
            if float.is_finite() {
                assert_eq!(float4(float).parse(), Ok(float));
            }
        }
    }
}
