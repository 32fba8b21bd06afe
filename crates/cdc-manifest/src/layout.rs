//! Every key of the lake. Keys are relative to the root and always use `/`.
//!
//! ```text
//! manifest.json  refs.json  live.json  refs/raw/<ts>.json
//! <schema>.<table>/deltas/epoch=000001.parquet        epoch=000001-01.parquet …
//! <schema>.<table>/base/base_000000/part-00000.parquet   base_000000-01/ …
//! <schema>.<table>/metadata/   <schema>.<table>/changes_metadata/
//! ```

use std::collections::BTreeMap;

use cdc_core::{Epoch, TableName};
use chrono::{DateTime, SecondsFormat, Utc};

use crate::{Error, Result};

/// The commit point.
pub const MANIFEST_KEY: &str = "manifest.json";
/// Branches and the newest raw tags.
pub const REFS_KEY: &str = "refs.json";
/// What the daemon is doing, advisory.
pub const LIVE_KEY: &str = "live.json";
/// The raw tags, one object each.
pub const RAW_TAG_PREFIX: &str = "refs/raw/";
/// The directory of all refs that are objects of their own.
pub const REFS_DIR: &str = "refs";
/// What the names of the objects begin with by which a store is probed.
pub(crate) const PROBE_PREFIX: &str = ".pgcdc-probe-";
/// What a raw tag's name starts with.
pub const RAW_TAG_NAME_PREFIX: &str = "raw@";

/// Longest file name that the file systems in use allow, in bytes.
const SEGMENT_BYTES_MAX: usize = 255;

/// Whether an object at the top of a root, in no directory, is the lake's.
pub fn is_top_level(key: &str) -> bool {
    [MANIFEST_KEY, REFS_KEY, LIVE_KEY].contains(&key) || key.starts_with(PROBE_PREFIX)
}

/// The directory of a table, without a trailing slash.
pub fn table_dir(table: &TableName) -> String {
    table.key_segment()
}

/// A delta file; `part` 0 is the first file of the table in the epoch and has no suffix.
pub fn delta_key(table: &TableName, epoch: Epoch, part: u32) -> String {
    let segment = table.key_segment();
    if part == 0 {
        format!("{segment}/deltas/epoch={:06}.parquet", epoch.0)
    } else {
        format!("{segment}/deltas/epoch={:06}-{part:02}.parquet", epoch.0)
    }
}

/// A base directory with its trailing slash, as `base_path` in the manifest has it. A directory is
/// written by one operation only: `attempt` counts up while the name is taken, 0 has no suffix.
pub fn base_dir(table: &TableName, epoch: Epoch, attempt: u32) -> String {
    let segment = table.key_segment();
    if attempt == 0 {
        format!("{segment}/base/base_{:06}/", epoch.0)
    } else {
        format!("{segment}/base/base_{:06}-{attempt:02}/", epoch.0)
    }
}

/// One file of a base directory.
pub fn base_key(table: &TableName, epoch: Epoch, attempt: u32, part: u32) -> String {
    format!("{}part-{part:05}.parquet", base_dir(table, epoch, attempt))
}

/// Iceberg metadata of the current-state table, with a trailing slash.
pub fn metadata_dir(table: &TableName) -> String {
    format!("{}/metadata/", table.key_segment())
}

/// Iceberg metadata of the changelog, with a trailing slash.
pub fn changes_metadata_dir(table: &TableName) -> String {
    format!("{}/changes_metadata/", table.key_segment())
}

/// The object of the raw tag of this instant: `refs/raw/20260504T120000.123456789Z.json`.
pub fn raw_tag_key(time: DateTime<Utc>) -> String {
    format!("{RAW_TAG_PREFIX}{}.json", time.format("%Y%m%dT%H%M%S%.9fZ"))
}

/// The name of the raw tag of this instant: `raw@2026-05-04T12:00:00.123456789Z`.
pub fn raw_tag_name(time: DateTime<Utc>) -> String {
    format!("{RAW_TAG_NAME_PREFIX}{}", time.to_rfc3339_opts(SecondsFormat::Nanos, true))
}

/// The instant of a raw tag's name in any RFC 3339 spelling, `None` for another name.
pub fn raw_tag_time(name: &str) -> Option<DateTime<Utc>> {
    let text = name.strip_prefix(RAW_TAG_NAME_PREFIX)?;
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

/// The instant of a raw tag's key, `None` for another key.
pub fn raw_tag_key_time(key: &str) -> Option<DateTime<Utc>> {
    let text = key.strip_prefix(RAW_TAG_PREFIX)?.strip_suffix(".json")?;
    let naive = chrono::NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S%.fZ").ok()?;
    Some(naive.and_utc())
}

/// Refuses tables whose directories cannot stand beside each other on every file system: equal but
/// for case, or with a name that is too long.
///
/// # Errors
/// [`Error::NamesCollide`] or [`Error::NameTooLong`] for the first such table.
pub fn check_table_dirs<'t>(tables: impl IntoIterator<Item = &'t TableName>) -> Result<()> {
    let mut seen: BTreeMap<String, &TableName> = BTreeMap::new();
    for table in tables {
        let segment = table.key_segment();
        if segment.len() > SEGMENT_BYTES_MAX {
            let (length, max) = (segment.len(), SEGMENT_BYTES_MAX);
            return Err(Error::NameTooLong { table: table.clone(), length, max });
        }
        let folded = segment.to_ascii_lowercase();
        match seen.insert(folded.clone(), table) {
            Some(first) if first != table => {
                let (first, second) = (first.clone(), table.clone());
                return Err(Error::NamesCollide { first, second, segment: folded });
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_documented_form() {
        let table = TableName::new("public", "orders");
        let time: DateTime<Utc> = "2026-05-04T12:00:00.123456789Z".parse().unwrap();
        let cases = [
            (delta_key(&table, Epoch(1), 0), "public.orders/deltas/epoch=000001.parquet"),
            (delta_key(&table, Epoch(1), 1), "public.orders/deltas/epoch=000001-01.parquet"),
            (
                delta_key(&table, Epoch(12_345_678), 100),
                "public.orders/deltas/epoch=12345678-100.parquet",
            ),
            (base_dir(&table, Epoch(0), 0), "public.orders/base/base_000000/"),
            (base_key(&table, Epoch(7), 0, 3), "public.orders/base/base_000007/part-00003.parquet"),
            (
                base_key(&table, Epoch(7), 2, 3),
                "public.orders/base/base_000007-02/part-00003.parquet",
            ),
            (metadata_dir(&table), "public.orders/metadata/"),
            (changes_metadata_dir(&table), "public.orders/changes_metadata/"),
            (raw_tag_key(time), "refs/raw/20260504T120000.123456789Z.json"),
            (raw_tag_name(time), "raw@2026-05-04T12:00:00.123456789Z"),
        ];
        for (key, expected) in cases {
            assert_eq!(key, expected);
        }
        assert_eq!(raw_tag_key_time(&raw_tag_key(time)), Some(time));
        assert_eq!(raw_tag_time("raw@2026-05-04T14:00:00.123456789+02:00"), Some(time));
        assert_eq!(raw_tag_time("main"), None);
    }

    #[test]
    fn colliding_and_overlong_directories_are_refused() {
        let orders = TableName::new("public", "orders");
        let shouted = TableName::new("public", "Orders");
        let long = TableName::new("ö".repeat(31), "ü".repeat(31));
        check_table_dirs([&orders, &orders]).unwrap();
        assert!(matches!(check_table_dirs([&orders, &shouted]), Err(Error::NamesCollide { .. })));
        assert!(matches!(check_table_dirs([&long]), Err(Error::NameTooLong { .. })));
    }
}
