//! Dates and times in PostgreSQL's ISO style, from counts since 1970
//! (`EncodeDateOnly`, `EncodeDateTime` in `src/backend/utils/adt/datetime.c`).

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A date, from days since 1970-01-01.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let is_bc = write_calendar(days, out);
    write_era(is_bc, out);
}

/// A time of day, from microseconds since midnight.
pub(crate) fn write_time(micros: i64, out: &mut Vec<u8>) {
    let seconds = micros.div_euclid(MICROS_PER_SECOND);
    write_padded(seconds / 3600, 2, out);
    out.push(b':');
    write_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    write_padded(seconds % 60, 2, out);
    let fraction = micros.rem_euclid(MICROS_PER_SECOND);
    if fraction > 0 {
        out.push(b'.');
        write_padded(fraction, 6, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// A timestamp, from microseconds since 1970-01-01 00:00:00; with `zoned` in UTC.
pub(crate) fn write_timestamp(micros: i64, zoned: bool, out: &mut Vec<u8>) {
    let is_bc = write_calendar(micros.div_euclid(MICROS_PER_DAY), out);
    out.push(b' ');
    write_time(micros.rem_euclid(MICROS_PER_DAY), out);
    if zoned {
        out.extend_from_slice(b"+00");
    }
    write_era(is_bc, out);
}

/// Year, month and day; says whether the year is before Christ.
fn write_calendar(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = civil(days);
    // there is no year zero: the astronomical year 0 is 1 BC
    let is_bc = year <= 0;
    write_padded(if is_bc { 1 - year } else { year }, 4, out);
    out.push(b'-');
    write_padded(month, 2, out);
    out.push(b'-');
    write_padded(day, 2, out);
    is_bc
}

fn write_era(is_bc: bool, out: &mut Vec<u8>) {
    if is_bc {
        out.extend_from_slice(b" BC");
    }
}

fn write_padded(value: i64, width: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{value:0width$}").as_bytes());
}

/// Year, month and day of a day count, in the proleptic Gregorian calendar: by whole cycles of 400,
/// 100, 4 and 1 years, each of which starts on 1 March so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    const CYCLE_400: i64 = 146_097;
    const CYCLE_100: i64 = 36_524;
    const CYCLE_4: i64 = 1_461;
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: i64 = 719_468;
    const MONTH_LENGTHS: [i64; 12] = [31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29];
    let days = days + EPOCH;
    let (cycles_400, rest) = (days.div_euclid(CYCLE_400), days.rem_euclid(CYCLE_400));
    // the last day of a cycle is a leap day that its last part has in addition
    let cycles_100 = (rest / CYCLE_100).min(3);
    let rest = rest - cycles_100 * CYCLE_100;
    let cycles_4 = rest / CYCLE_4;
    let rest = rest - cycles_4 * CYCLE_4;
    let years = (rest / 365).min(3);
    let mut rest = rest - years * 365;
    let mut month = 0;
    while rest >= MONTH_LENGTHS[month] && month < 11 {
        rest -= MONTH_LENGTHS[month];
        month += 1;
    }
    let year = cycles_400 * 400 + cycles_100 * 100 + cycles_4 * 4 + years;
    match month as i64 + 3 {
        month if month > 12 => (year + 1, month - 12, rest + 1),
        month => (year, month, rest + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_core::text;

    fn date(days: i64) -> String {
        let mut out = Vec::new();
        write_date(days, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (-719_162, "0001-01-01"),
            (-719_163, "0001-12-31 BC"),
            (-2_440_588, "4714-11-24 BC"),
            (2_145_042_905, "5874897-12-31"),
        ];
        for (days, expected) in cases {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn every_day_of_a_cycle_reads_back() {
        for days in -800_000..300_000 {
            let text = date(days);
            assert_eq!(text::date_days(text.as_bytes()).map(i64::from), Ok(days), "{text}");
        }
    }

    #[test]
    fn times_and_timestamps() {
        let time = |micros| {
            let mut out = Vec::new();
            write_time(micros, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(time(0), "00:00:00");
        assert_eq!(time(1), "00:00:00.000001");
        assert_eq!(time(43_200_500_000), "12:00:00.5");
        assert_eq!(time(MICROS_PER_DAY - 1), "23:59:59.999999");
        let timestamp = |micros, zoned| {
            let mut out = Vec::new();
            write_timestamp(micros, zoned, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(timestamp(-1, true), "1969-12-31 23:59:59.999999+00");
        assert_eq!(timestamp(500_000, false), "1970-01-01 00:00:00.5");
        assert_eq!(timestamp(-2_440_588 * MICROS_PER_DAY, true), "4714-11-24 00:00:00+00 BC");
    }
}
