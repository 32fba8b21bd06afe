//! The session settings that decide how values look as text. Snapshot and stream pin the same
//! list, so the two cannot differ.

use std::collections::BTreeMap;

use crate::{Error, Result};

/// The pinned settings, sent in the startup packet of every session. Database and role defaults
/// (`ALTER DATABASE … SET`) do not override a startup parameter.
pub const PINNED_SETTINGS: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "iso_8601"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    // decides whether regclass and its like are written with their schema
    ("search_path", "pg_catalog"),
];

/// The pinned settings as the value of the startup parameter `options`, for clients that cannot
/// send startup parameters of their own (tokio-postgres).
pub fn pinned_options() -> String {
    PINNED_SETTINGS
        .iter()
        .filter(|(name, _)| *name != "client_encoding")
        .map(|(name, value)| format!("-c {name}={}", value.replace(' ', "\\ ")))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Compares what `SHOW` answered, by lower-case setting name, with the pinned values.
pub fn assert_pinned(shown: &BTreeMap<String, String>) -> Result<()> {
    for (name, expected) in PINNED_SETTINGS {
        let found = shown.get(&name.to_ascii_lowercase()).map(String::as_str).unwrap_or_default();
        if !same_value(found, expected) {
            return Err(Error::Setting {
                name: (*name).to_owned(),
                expected: (*expected).to_owned(),
                found: found.to_owned(),
            });
        }
    }
    Ok(())
}

fn same_value(found: &str, expected: &str) -> bool {
    let plain = |text: &str| text.replace(['-', '_'], "").to_ascii_lowercase();
    plain(found) == plain(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_differs_is_named() {
        let mut shown: BTreeMap<String, String> = PINNED_SETTINGS
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned()))
            .collect();
        assert!(assert_pinned(&shown).is_ok());
        shown.insert("timezone".into(), "Asia/Kolkata".into());
        let error = assert_pinned(&shown).unwrap_err();
        assert!(error.to_string().contains("TimeZone is `Asia/Kolkata`"), "{error}");
    }

    #[test]
    fn options_escape_blanks() {
        assert!(pinned_options().contains("-c DateStyle=ISO,\\ MDY -c IntervalStyle=iso_8601"));
    }
}
