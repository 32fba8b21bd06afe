//! Dates and times as ISO 8601 text over the whole range of the stored types, which is wider than
//! that of any calendar library: PostgreSQL's dates reach the year 5874897.

/// Days since 1970-01-01 as `YYYY-MM-DD`; years outside 0–9999 have a sign and more digits.
pub(super) fn date(days: i64) -> String {
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:+07}-{month:02}-{day:02}"),
    }
}

/// Nanoseconds since midnight as `HH:MM:SS`, with three, six or nine digits where there is a
/// fraction.
pub(super) fn time(nanos: i64) -> String {
    let seconds = nanos.div_euclid(1_000_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let fraction = nanos.rem_euclid(1_000_000_000);
    let fraction = match fraction {
        0 => String::new(),
        f if f % 1_000_000 == 0 => format!(".{:03}", f / 1_000_000),
        f if f % 1_000 == 0 => format!(".{:06}", f / 1_000),
        f => format!(".{f:09}"),
    };
    format!("{hour:02}:{minute:02}:{second:02}{fraction}")
}

/// Nanoseconds since 1970 as `YYYY-MM-DDTHH:MM:SS[.fraction]`, without a zone.
pub(super) fn timestamp(nanos: i128) -> String {
    const DAY: i128 = 86_400_000_000_000;
    let within = |value: i128| i64::try_from(value).unwrap_or_default();
    format!("{}T{}", date(within(nanos.div_euclid(DAY))), time(within(nanos.rem_euclid(DAY))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_range_has_a_text() {
        let cases = [
            (0, "1970-01-01"),
            (20_577, "2026-05-04"),
            (11_016, "2000-02-29"),
            (-719_162, "0001-01-01"),
            (-719_163, "0000-12-31"),
            (-719_529, "-000001-12-31"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+010000-01-01"),
            (2_145_042_905, "+5874897-12-31"),
        ];
        for (days, expected) in cases {
            assert_eq!(date(days), expected);
        }
        assert_eq!(timestamp(-1_000), "1969-12-31T23:59:59.999999");
        assert_eq!(timestamp(1_500_000_000), "1970-01-01T00:00:01.500");
        assert_eq!(time(86_399_000_000_000), "23:59:59");
    }
}
