//! PostgreSQL's text form of a value to the value itself, under the pinned session settings
//! (`client_encoding=UTF8, DateStyle=ISO, IntervalStyle=iso_8601, TimeZone=UTC,
//! extra_float_digits=3, bytea_output=hex`).
//!
//! Each function takes the bytes of one cell and gives the value exactly, or says why not:
//! [`TextError::Unrepresentable`] is a legal PostgreSQL value that the stored type cannot hold and
//! is decided by the declared policy; [`TextError::Malformed`] is not a value at all.

mod array;
mod numeric;
mod temporal;

pub use array::{ArrayItem, elements};
pub use numeric::decimal;
pub use temporal::{date_days, time_micros, timestamp_micros};

use std::borrow::Cow;

/// Why a cell has no value of the asked type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The bytes are not the text form of the type.
    #[error("not the text form of {0}")]
    Malformed(&'static str),
    /// A legal value outside the stored type.
    #[error("{0}")]
    Unrepresentable(Unrepresentable),
}

/// A legal PostgreSQL value that a stored type cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrepresentable {
    /// NaN or an infinity in a decimal column.
    #[error("NaN or infinity in a decimal column")]
    NotFinite,
    /// More digits than the decimal has.
    #[error("more digits than the decimal holds")]
    TooManyDigits,
    /// `-infinity`, or below the range.
    #[error("below the range of the stored type")]
    BelowRange,
    /// `infinity`, or above the range.
    #[error("above the range of the stored type")]
    AboveRange,
    /// `24:00:00`.
    #[error("time 24:00:00")]
    EndOfDay,
    /// More than one dimension, or a lower bound other than 1.
    #[error("array with several dimensions or a lower bound other than 1")]
    ArrayShape,
    /// Bytes that are not UTF-8.
    #[error("bytes that are not UTF-8")]
    NotUtf8,
}

/// `t` or `f`.
pub fn boolean(text: &[u8]) -> Result<bool, TextError> {
    match text {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(TextError::Malformed("boolean")),
    }
}

/// A decimal integer within 64 bits.
pub fn int64(text: &[u8]) -> Result<i64, TextError> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(TextError::Malformed("integer"));
    }
    let mut value: i64 = 0;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(TextError::Malformed("integer"));
        }
        // accumulate on the negative side, which holds one value more
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(digit)))
            .ok_or(TextError::Malformed("integer"))?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or(TextError::Malformed("integer")) }
}

/// A decimal integer within 32 bits.
pub fn int32(text: &[u8]) -> Result<i32, TextError> {
    i32::try_from(int64(text)?).map_err(|_| TextError::Malformed("integer"))
}

/// A double; `NaN`, `Infinity` and `-0` are kept.
pub fn float64(text: &[u8]) -> Result<f64, TextError> {
    let text = std::str::from_utf8(text).map_err(|_| TextError::Malformed("float"))?;
    text.parse().map_err(|_| TextError::Malformed("float"))
}

/// A float; `NaN`, `Infinity` and `-0` are kept.
pub fn float32(text: &[u8]) -> Result<f32, TextError> {
    let text = std::str::from_utf8(text).map_err(|_| TextError::Malformed("float"))?;
    text.parse().map_err(|_| TextError::Malformed("float"))
}

/// Any type kept as its text.
pub fn utf8(text: &[u8]) -> Result<&str, TextError> {
    std::str::from_utf8(text).map_err(|_| TextError::Unrepresentable(Unrepresentable::NotUtf8))
}

/// `\x` and hex digits (`bytea_output=hex`), appended to `out`.
pub fn bytea(text: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let malformed = TextError::Malformed("bytea");
    let hex = text.strip_prefix(b"\\x").ok_or(malformed)?;
    let (pairs, rest) = hex.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(malformed);
    }
    out.reserve(pairs.len());
    for [high, low] in pairs {
        let (high, low) = (NIBBLE[usize::from(*high)], NIBBLE[usize::from(*low)]);
        if (high | low) > 0x0F {
            return Err(malformed);
        }
        out.push(high << 4 | low);
    }
    Ok(())
}

/// 16 bytes from the usual form with four hyphens.
pub fn uuid(text: &[u8]) -> Result<[u8; 16], TextError> {
    let malformed = TextError::Malformed("uuid");
    if text.len() != 36 {
        return Err(malformed);
    }
    let mut out = [0u8; 16];
    let mut at = 0;
    for (index, slot) in out.iter_mut().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            if text[at] != b'-' {
                return Err(malformed);
            }
            at += 1;
        }
        let (high, low) = (NIBBLE[usize::from(text[at])], NIBBLE[usize::from(text[at + 1])]);
        if (high | low) > 0x0F {
            return Err(malformed);
        }
        *slot = high << 4 | low;
        at += 2;
    }
    Ok(out)
}

/// Value of a hex digit, 0xFF for any other byte.
const NIBBLE: [u8; 256] = {
    let mut table = [0xFF; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        table[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

/// The text of a COPY field (text format) with its escapes undone; borrowed where there are none.
/// The caller has already taken `\N` for NULL
/// (<https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format").
pub fn unescape_copy(field: &[u8]) -> Result<Cow<'_, [u8]>, TextError> {
    if !field.contains(&b'\\') {
        return Ok(Cow::Borrowed(field));
    }
    let mut out = Vec::with_capacity(field.len());
    unescape_copy_into(field, &mut out)?;
    Ok(Cow::Owned(out))
}

/// As [`unescape_copy`], appending to `out`.
pub fn unescape_copy_into(field: &[u8], out: &mut Vec<u8>) -> Result<(), TextError> {
    let mut bytes = field.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        // the server writes only these; octal and hex escapes occur in input alone
        out.push(match bytes.next() {
            Some(b'b') => 0x08,
            Some(b'f') => 0x0C,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 0x0B,
            Some(b'\\') => b'\\',
            _ => return Err(TextError::Malformed("COPY field")),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars() {
        assert_eq!(int64(b"-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(int64(b"9223372036854775807"), Ok(i64::MAX));
        assert!(int64(b"9223372036854775808").is_err());
        assert!(int64(b"").is_err() && int64(b"-").is_err() && int64(b"1a").is_err());
        assert!(float64(b"-0").unwrap().is_sign_negative());
        assert!(float64(b"NaN").unwrap().is_nan());
        assert_eq!(float32(b"-Infinity"), Ok(f32::NEG_INFINITY));
        let mut bytes = Vec::new();
        bytea(b"\\x00ffA1", &mut bytes).unwrap();
        assert_eq!(bytes, [0x00, 0xff, 0xa1]);
        assert!(bytea(b"\\x0", &mut bytes).is_err() && bytea(b"00", &mut bytes).is_err());
        let id = uuid(b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11").unwrap();
        assert_eq!((id[0], id[15]), (0xa0, 0x11));
        assert!(uuid(b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1x").is_err());
    }

    #[test]
    fn copy_escapes() {
        assert_eq!(unescape_copy(b"plain").unwrap(), b"plain".as_slice());
        assert_eq!(unescape_copy(b"a\\tb\\\\N\\n").unwrap(), b"a\tb\\N\n".as_slice());
        assert!(unescape_copy(b"\\").is_err());
    }
}
