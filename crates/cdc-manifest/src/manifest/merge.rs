//! Merging two changes of one manifest: what a writer does after it lost a compare-and-swap, so that
//! it writes its own change over what it found and never over what somebody else changed.
//!
//! Done on the JSON form, field by field, so that fields this build does not know are merged by the
//! same rules as those it knows.

use cdc_core::Lsn;
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::Manifest;
use crate::layout::MANIFEST_KEY;
use crate::{Error, Result};

/// Fields that only grow, each with the fields that go with it: of two changes the greater stands.
const GROWING: &[&[&str]] = &[
    &["covered_lsn", "covered_at"],
    &["verified_through", "verified_at"],
    &["last_compacted_at"],
    &["updated_at"],
];
/// Lists to which writers add entries: both additions stand.
const COLLECTED: &str = "gaps";

impl Manifest {
    /// `theirs` with everything that differs between `base` and `ours`; both were made from `base`.
    ///
    /// A field that one side changed is taken from there, a field that both changed alike stands.
    /// Of two positions of coverage or verification the higher one stands, with its time.
    ///
    /// # Errors
    /// [`Error::Diverged`] naming the field if both changed it in ways that exclude each other.
    pub fn merge(base: &Manifest, ours: &Manifest, theirs: &Manifest) -> Result<Manifest> {
        let (base, ours, theirs) = (json(base)?, json(ours)?, json(theirs)?);
        let merged = merge_objects("", &base, &ours, &theirs)?;
        serde_json::from_value(Value::Object(merged)).map_err(malformed)
    }
}

fn json(manifest: &Manifest) -> Result<Map<String, Value>> {
    match serde_json::to_value(manifest).map_err(malformed)? {
        Value::Object(fields) => Ok(fields),
        _ => Ok(Map::new()),
    }
}

fn malformed(source: serde_json::Error) -> Error {
    let hint = "this is a defect of pgcdc, nothing was written";
    Error::Malformed { key: MANIFEST_KEY.to_owned(), hint, source }
}

fn merge_objects(
    path: &str,
    base: &Map<String, Value>,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
) -> Result<Map<String, Value>> {
    let mut merged = Map::new();
    // our order, which is that of the struct, then what only they have
    for key in ours.keys().chain(theirs.keys().filter(|key| !ours.contains_key(*key))) {
        let (base, ours, theirs) = match winner(key, ours, theirs, base) {
            // a field that goes with a growing one is taken from the same side
            Some(Side::Ours) => (None, ours.get(key), None),
            Some(Side::Theirs) => (None, None, theirs.get(key)),
            None => (base.get(key), ours.get(key), theirs.get(key)),
        };
        let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Some(value) = merge_values(&below, key, base, ours, theirs)? {
            merged.insert(key.clone(), value);
        }
    }
    Ok(merged)
}

fn merge_values(
    path: &str,
    key: &str,
    base: Option<&Value>,
    ours: Option<&Value>,
    theirs: Option<&Value>,
) -> Result<Option<Value>> {
    if ours == base {
        return Ok(theirs.cloned());
    }
    if theirs == base || theirs == ours {
        return Ok(ours.cloned());
    }
    let none = Map::new();
    match (base, ours, theirs) {
        (Some(Value::Object(_)) | None, Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let base = base.and_then(Value::as_object).unwrap_or(&none);
            merge_objects(path, base, ours, theirs).map(|merged| Some(Value::Object(merged)))
        }
        (Some(Value::Array(_)) | None, Some(Value::Array(ours)), Some(Value::Array(theirs)))
            if key == COLLECTED =>
        {
            Ok(Some(collect(ours, theirs)))
        }
        _ => Err(Error::Diverged { key: MANIFEST_KEY, at: path.to_owned() }),
    }
}

/// Theirs, then what only we have. The same gap is stretched by whoever writes: of two ends the one
/// that lies further stands.
fn collect(ours: &[Value], theirs: &[Value]) -> Value {
    let same = |a: &Value, b: &Value| a["lsn_from"] == b["lsn_from"] && a["reason"] == b["reason"];
    let mut merged = theirs.to_vec();
    for entry in ours {
        match merged.iter_mut().find(|found| same(found, entry)) {
            Some(found) if size(&entry["lsn_to"]) > size(&found["lsn_to"]) => {
                *found = entry.clone()
            }
            Some(_) => {}
            None => merged.push(entry.clone()),
        }
    }
    Value::Array(merged)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Ours,
    Theirs,
}

/// The side that a growing field and what goes with it are taken from, where both changed it.
fn winner(
    key: &str,
    ours: &Map<String, Value>,
    theirs: &Map<String, Value>,
    base: &Map<String, Value>,
) -> Option<Side> {
    let lead = GROWING.iter().find(|group| group.contains(&key)).and_then(|group| group.first())?;
    let (base, ours, theirs) = (base.get(*lead), ours.get(*lead)?, theirs.get(*lead)?);
    if Some(ours) == base || Some(theirs) == base {
        // one side moved it: that side's whole group
        return match (Some(ours) == base, Some(theirs) == base) {
            (false, true) => Some(Side::Ours),
            (true, false) => Some(Side::Theirs),
            _ => None,
        };
    }
    Some(if size(ours)? >= size(theirs)? { Side::Ours } else { Side::Theirs })
}

/// How great a position or a time is; positions and times are never compared with each other.
fn size(value: &Value) -> Option<i128> {
    let text = value.as_str()?;
    if let Ok(lsn) = text.parse::<Lsn>() {
        return Some(i128::from(lsn.0));
    }
    let time: DateTime<Utc> = text.parse().ok()?;
    Some(i128::from(time.timestamp()) * 1_000_000_000 + i128::from(time.timestamp_subsec_nanos()))
}
