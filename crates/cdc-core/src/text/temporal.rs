//! Dates and times in PostgreSQL's ISO style to days and microseconds, proleptic Gregorian, BC and
//! five- and six-digit years included.

use super::{TextError, Unrepresentable};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// `YYYY-MM-DD[ BC]` to days since 1970-01-01.
pub fn date_days(text: &[u8]) -> Result<i32, TextError> {
    infinity(text)?;
    let (text, bc) = split_bc(text);
    let (days, rest) = read_date(text, bc).ok_or(TextError::Malformed("date"))?;
    if !rest.is_empty() {
        return Err(TextError::Malformed("date"));
    }
    i32::try_from(days).map_err(|_| out_of_range(days))
}

/// `HH:MM:SS[.ffffff]` to microseconds since midnight; `24:00:00` is unrepresentable.
pub fn time_micros(text: &[u8]) -> Result<i64, TextError> {
    match read_time(text) {
        Some((MICROS_PER_DAY, [])) => Err(TextError::Unrepresentable(Unrepresentable::EndOfDay)),
        Some((micros, [])) => Ok(micros),
        _ => Err(TextError::Malformed("time")),
    }
}

/// `YYYY-MM-DD HH:MM:SS[.ffffff][+00][ BC]` to microseconds since 1970-01-01 00:00:00. The zone is
/// `+00` (`TimeZone=UTC`) for `timestamptz` and absent for `timestamp`.
pub fn timestamp_micros(text: &[u8]) -> Result<i64, TextError> {
    infinity(text)?;
    let malformed = TextError::Malformed("timestamp");
    let (text, bc) = split_bc(text);
    let (days, rest) = read_date(text, bc).ok_or(malformed)?;
    let rest = rest.strip_prefix(b" ").ok_or(malformed)?;
    let (micros, rest) = read_time(rest).ok_or(malformed)?;
    if !matches!(rest, b"" | b"+00") {
        return Err(malformed);
    }
    let whole = i128::from(days) * i128::from(MICROS_PER_DAY) + i128::from(micros);
    i64::try_from(whole).map_err(|_| out_of_range(days))
}

fn infinity(text: &[u8]) -> Result<(), TextError> {
    match text {
        b"infinity" => Err(TextError::Unrepresentable(Unrepresentable::AboveRange)),
        b"-infinity" => Err(TextError::Unrepresentable(Unrepresentable::BelowRange)),
        _ => Ok(()),
    }
}

fn out_of_range(days: i64) -> TextError {
    TextError::Unrepresentable(if days < 0 {
        Unrepresentable::BelowRange
    } else {
        Unrepresentable::AboveRange
    })
}

fn split_bc(text: &[u8]) -> (&[u8], bool) {
    match text.strip_suffix(b" BC") {
        Some(rest) => (rest, true),
        None => (text, false),
    }
}

/// Days since 1970-01-01 and the text behind the date.
fn read_date(text: &[u8], bc: bool) -> Option<(i64, &[u8])> {
    let (year, rest) = read_number(text, 4, 7)?;
    let (month, rest) = read_number(rest.strip_prefix(b"-")?, 2, 2)?;
    let (day, rest) = read_number(rest.strip_prefix(b"-")?, 2, 2)?;
    if year == 0 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // there is no year zero: 1 BC is the astronomical year 0
    let year = if bc { 1 - year } else { year };
    Some((days_from_civil(year, month, day), rest))
}

/// Microseconds since midnight and the text behind the time. `24:00:00` gives a whole day.
fn read_time(text: &[u8]) -> Option<(i64, &[u8])> {
    let (hour, rest) = read_number(text, 2, 2)?;
    let (minute, rest) = read_number(rest.strip_prefix(b":")?, 2, 2)?;
    let (second, rest) = read_number(rest.strip_prefix(b":")?, 2, 2)?;
    let (fraction, rest) = match rest.strip_prefix(b".") {
        Some(digits) => read_fraction(digits)?,
        None => (0, rest),
    };
    let micros = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + fraction;
    (minute < 60 && second < 60 && micros <= MICROS_PER_DAY).then_some((micros, rest))
}

fn read_number(text: &[u8], least: usize, most: usize) -> Option<(i64, &[u8])> {
    let length = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    if length < least {
        return None;
    }
    let value = text[..length].iter().fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
    Some((value, &text[length..]))
}

/// One to six digits as microseconds.
fn read_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let (value, rest) = read_number(text, 1, 6)?;
    let length = text.len() - rest.len();
    Some((value * 10i64.pow(6 - u32::try_from(length).ok()?), rest))
}

/// Days since 1970-01-01 of a proleptic Gregorian date
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let cases = [
            ("1970-01-01", 0),
            ("2000-02-29", 11_016),
            ("1969-12-31", -1),
            ("0001-01-01", -719_162),
            ("0001-12-31 BC", -719_163),
            ("4714-11-24 BC", -2_440_588),
            ("5874897-12-31", 2_145_042_905),
        ];
        for (text, days) in cases {
            assert_eq!(date_days(text.as_bytes()), Ok(days), "{text}");
        }
        let unrepresentable = |text: &str, expected| {
            assert_eq!(date_days(text.as_bytes()), Err(TextError::Unrepresentable(expected)));
        };
        unrepresentable("infinity", Unrepresentable::AboveRange);
        unrepresentable("-infinity", Unrepresentable::BelowRange);
        for bad in ["", "1970-1-1", "1970-13-01", "1970-01-01x", "01/02/2003", "0000-01-01"] {
            assert_eq!(date_days(bad.as_bytes()), Err(TextError::Malformed("date")), "{bad}");
        }
    }

    #[test]
    fn times_and_timestamps() {
        assert_eq!(time_micros(b"00:00:00.000001"), Ok(1));
        assert_eq!(time_micros(b"23:59:59.999999"), Ok(MICROS_PER_DAY - 1));
        assert_eq!(
            time_micros(b"24:00:00"),
            Err(TextError::Unrepresentable(Unrepresentable::EndOfDay))
        );
        assert!(time_micros(b"24:00:01").is_err() && time_micros(b"12:60:00").is_err());
        assert_eq!(timestamp_micros(b"1970-01-01 00:00:00.5"), Ok(500_000));
        assert_eq!(timestamp_micros(b"1969-12-31 23:59:59.999999+00"), Ok(-1));
        assert_eq!(timestamp_micros(b"4714-11-24 00:00:00+00 BC"), Ok(-2_440_588 * MICROS_PER_DAY));
        assert_eq!(
            timestamp_micros(b"294276-12-31 23:59:59.999999"),
            Err(TextError::Unrepresentable(Unrepresentable::AboveRange))
        );
        assert!(timestamp_micros(b"2024-01-01 00:00:00+02").is_err());
    }
}
