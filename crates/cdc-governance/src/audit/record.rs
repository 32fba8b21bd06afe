//! One audit record. It never holds a row value, a credential or a literal.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// Through which surface a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names are the surfaces")]
pub enum Surface {
    Mcp,
    Rest,
    Cli,
    Sync,
    Daemon,
}

/// Whether the record was written before the effect or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Before.
    Plan,
    /// After.
    Outcome,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A ref was moved.
    Promote,
    /// Tags, states or grants were changed.
    #[serde(rename = "policy.set")]
    PolicySet,
    /// An emergency grant was made, used or ended.
    #[serde(rename = "break_glass")]
    BreakGlass,
    /// The taxonomy was changed.
    Config,
}

/// How it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// It was let through.
    Allow,
    /// It was refused.
    Deny,
    /// It failed.
    Error,
}

/// One event; the log adds time, writer, sequence number and hashes.
#[derive(Clone, Debug, Serialize)]
pub struct AuditRecord {
    /// Before or after the effect.
    pub phase: Phase,
    /// What happened.
    pub event: Event,
    /// Through which surface.
    pub surface: Surface,
    /// The command, tool or route.
    pub endpoint: String,
    /// Who asked.
    pub principal: String,
    /// Names the request.
    pub request_id: String,
    /// What it was about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// How it was decided.
    pub decision: Decision,
    /// Why it was refused, or how it was forced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Why, in the words of who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The ref.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// Epoch of the cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Commit LSN of the cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lsn: Option<String>,
    /// The deployment's policy version behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<u64>,
    /// The emergency grant that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub break_glass_id: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A record in its place in a chain, in the order of its keys.
#[derive(Serialize)]
pub(crate) struct Line<'r> {
    pub(crate) v: u32,
    pub(crate) ts: &'r str,
    pub(crate) writer_id: &'r str,
    pub(crate) seq: u64,
    pub(crate) prev_hash: &'r str,
    /// Always true, so that records are found among other lines.
    pub(crate) audit: bool,
    #[serde(flatten)]
    pub(crate) record: &'r AuditRecord,
}

/// A time with nine digits, as all records have it.
pub(crate) fn timestamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}
