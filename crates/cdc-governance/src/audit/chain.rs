//! How records hang together: each holds its number and the hash of the one before. The same in a
//! file and in the registry.

use serde_json::Value;

use super::record::{AuditRecord, Line};

/// Version of a record.
const RECORD_VERSION: u32 = 1;

/// Where a chain stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Number of the last record; 0 without any.
    pub(crate) seq: u64,
    /// Its hash; empty without any.
    pub(crate) hash: String,
}

/// A record in its place.
pub(crate) struct Sealed {
    /// The JSON line, without its end.
    pub(crate) line: String,
    /// Where the chain stands behind it.
    pub(crate) head: Head,
}

/// Puts a record behind the head of a chain.
pub(crate) fn seal(
    head: &Head,
    writer_id: &str,
    ts: &str,
    record: &AuditRecord,
) -> serde_json::Result<Sealed> {
    let seq = head.seq + 1;
    let line =
        Line { v: RECORD_VERSION, ts, writer_id, seq, prev_hash: &head.hash, audit: true, record };
    let mut line = serde_json::to_value(&line)?;
    let hash = hash_of(&line.to_string());
    line["hash"] = Value::String(hash.clone());
    Ok(Sealed { line: line.to_string(), head: Head { seq, hash } })
}

/// The head behind a line that follows from `before`; `None` if it does not follow.
pub(crate) fn follow(line: &str, before: &Head) -> Option<Head> {
    let mut record: Value = serde_json::from_str(line).ok()?;
    let fields = record.as_object_mut()?;
    let Some(Value::String(hash)) = fields.remove("hash") else { return None };
    let seq = fields.get("seq")?.as_u64()?;
    let is_next = seq == before.seq + 1;
    let is_linked = fields.get("prev_hash")?.as_str()? == before.hash;
    let is_whole = hash_of(&record.to_string()) == hash;
    (is_next && is_linked && is_whole).then_some(Head { seq, hash })
}

/// The head that a line claims.
pub(crate) fn head_of(line: &[u8]) -> Option<Head> {
    let line: Value = serde_json::from_slice(line).ok()?;
    Some(Head { seq: line["seq"].as_u64()?, hash: line["hash"].as_str()?.to_owned() })
}

/// The hash of a record as text: the canonical line without its own `hash`.
fn hash_of(canonical: &str) -> String {
    format!("b3:{}", blake3::hash(canonical.as_bytes()).to_hex())
}
