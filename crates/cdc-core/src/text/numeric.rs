//! `numeric` text to a scaled 128-bit integer, exactly or not at all.

use super::{TextError, Unrepresentable};

/// The value × 10^`scale` as an integer of at most `precision` digits.
///
/// Trailing zeros behind the scale are dropped, any other digit there is
/// [`Unrepresentable::TooManyDigits`]; nothing is rounded.
pub fn decimal(text: &[u8], precision: u8, scale: u8) -> Result<i128, TextError> {
    let too_many = TextError::Unrepresentable(Unrepresentable::TooManyDigits);
    let (negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if !unsigned.first().is_some_and(u8::is_ascii_digit) {
        return Err(not_a_number(unsigned));
    }
    let value = match short(unsigned, scale) {
        Some(value) => i128::from(value),
        None => long(unsigned, scale)?,
    };
    if value >= POWERS_OF_TEN[usize::from(precision.min(38))] {
        return Err(too_many);
    }
    Ok(if negative { -value } else { value })
}

/// Digits that surely fit into 64 bits.
const SHORT_DIGITS: usize = 18;

/// The scaled value of a text so short that nothing can overflow, as almost all are. `None` leaves
/// the text, good or bad, to [`long`].
fn short(unsigned: &[u8], scale: u8) -> Option<u64> {
    if unsigned.len() + usize::from(scale) > SHORT_DIGITS {
        return None;
    }
    let mut value = 0;
    let mut point = unsigned.len();
    for (at, &byte) in unsigned.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit <= 9 {
            value = value * 10 + u64::from(digit);
        } else if byte == b'.' && point == unsigned.len() {
            point = at;
        } else {
            return None;
        }
    }
    let behind_point = (unsigned.len() - point).saturating_sub(1);
    let missing = usize::from(scale).checked_sub(behind_point)?;
    u64::try_from(POWERS_OF_TEN[missing]).ok().map(|power| value * power)
}

/// The scaled value, digit by digit in 128 bits.
fn long(unsigned: &[u8], scale: u8) -> Result<i128, TextError> {
    let too_many = TextError::Unrepresentable(Unrepresentable::TooManyDigits);
    let mut value: i128 = 0;
    let mut behind_point: Option<u8> = None;
    for &byte in unsigned {
        if byte == b'.' && behind_point.is_none() {
            behind_point = Some(0);
            continue;
        }
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(TextError::Malformed("numeric"));
        }
        if let Some(count) = &mut behind_point {
            if *count == scale {
                if digit != 0 {
                    return Err(too_many);
                }
                continue;
            }
            *count += 1;
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(i128::from(digit)))
            .ok_or(too_many)?;
    }
    for _ in behind_point.unwrap_or(0)..scale {
        value = value.checked_mul(10).ok_or(too_many)?;
    }
    Ok(value)
}

fn not_a_number(unsigned: &[u8]) -> TextError {
    match unsigned {
        b"NaN" | b"Infinity" => TextError::Unrepresentable(Unrepresentable::NotFinite),
        _ => TextError::Malformed("numeric"),
    }
}

const POWERS_OF_TEN: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut index = 1;
    while index < 39 {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn edges() {
        let too_many = Err(TextError::Unrepresentable(Unrepresentable::TooManyDigits));
        let cases: [(&str, u8, u8, Result<i128, TextError>); 9] = [
            ("12.34", 10, 2, Ok(1234)),
            ("-0.5", 10, 2, Ok(-50)),
            ("7", 10, 2, Ok(700)),
            ("1.2000", 10, 1, Ok(12)),
            ("1.25", 10, 1, too_many),
            ("100", 2, 0, too_many),
            ("99999999999999999999999999999999999999", 38, 0, Ok(10i128.pow(38) - 1)),
            ("NaN", 10, 2, Err(TextError::Unrepresentable(Unrepresentable::NotFinite))),
            ("-Infinity", 10, 2, Err(TextError::Unrepresentable(Unrepresentable::NotFinite))),
        ];
        for (text, precision, scale, expected) in cases {
            assert_eq!(decimal(text.as_bytes(), precision, scale), expected, "{text}");
        }
        for bad in ["", "-", "1e5", "1..2", ".5", "x"] {
            assert!(
                matches!(decimal(bad.as_bytes(), 10, 2), Err(TextError::Malformed(_))),
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn short_and_long_texts_are_read_alike(text in "[0-9]{1,9}(\\.[0-9.]{0,8}|x)?", scale in 0u8..12) {
            if let Some(value) = short(text.as_bytes(), scale) {
                prop_assert_eq!(long(text.as_bytes(), scale), Ok(i128::from(value)));
            }
        }

        #[test]
        fn agrees_with_its_own_rendering(value in -10i128.pow(18)..10i128.pow(18), scale in 0u8..10) {
            let unsigned = format!("{:0>width$}", value.unsigned_abs(), width = usize::from(scale) + 1);
            let (whole, fraction) = unsigned.split_at(unsigned.len() - usize::from(scale));
            let sign = if value < 0 { "-" } else { "" };
            let point = if scale > 0 { "." } else { "" };
            let text = format!("{sign}{whole}{point}{fraction}");
            prop_assert_eq!(decimal(text.as_bytes(), 38, scale), Ok(value));
        }
    }
}
