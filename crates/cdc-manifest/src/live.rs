//! `live.json`: what the daemon is doing. Advisory; correctness never needs it.

use cdc_core::{Epoch, Lsn};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::json::{self, Extra};
use crate::layout::LIVE_KEY;
use crate::store::LakeStore;
use crate::{Result, wire};

/// The version this build reads and writes.
pub const LIVE_VERSION: u32 = 1;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Live {
    /// [`LIVE_VERSION`].
    pub version: u32,
    /// Which daemon: host, process, start.
    pub instance: String,
    /// Its fencing number.
    pub generation: u64,
    /// What it does.
    pub state: LiveState,
    /// The slot as last seen.
    pub slot: LiveSlot,
    /// Newest position received.
    #[serde(with = "wire::text")]
    pub received_lsn: Lsn,
    /// As in the manifest, but up to the second.
    #[serde(with = "wire::text")]
    pub covered_lsn: Lsn,
    /// When that was known.
    #[serde(with = "wire::time")]
    pub covered_at: DateTime<Utc>,
    /// Newest epoch committed.
    #[serde(with = "wire::epoch")]
    pub epoch: Epoch,
    /// Distance to the source in WAL bytes.
    pub lag_bytes: u64,
    /// Distance to the source in time.
    pub lag_seconds: f64,
    /// Changes buffered.
    pub buffer_events: u64,
    /// Bytes buffered.
    pub buffer_bytes: u64,
    /// Age of the oldest open transaction on the source.
    pub oldest_xact_age_seconds: u64,
    /// Manifest writes lost to another writer since the daemon began.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cas_conflicts: u64,
    /// The last error, without secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Time of this write.
    #[serde(with = "wire::time")]
    pub written_at: DateTime<Utc>,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What the daemon does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LiveState {
    /// Connecting and recovering.
    Starting,
    /// Following the stream.
    Streaming,
    /// Flushing before it stops.
    Draining,
    /// Stopped in order.
    Stopped,
    /// Stopped by an error.
    Failed,
}

/// The replication slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveSlot {
    /// Name.
    pub name: String,
    /// Whether a connection uses it.
    pub active: bool,
    /// `confirmed_flush_lsn`.
    #[serde(with = "wire::text")]
    pub confirmed_lsn: Lsn,
    /// `restart_lsn`.
    #[serde(with = "wire::text")]
    pub restart_lsn: Lsn,
    /// WAL that the source keeps for it.
    pub retained_wal_bytes: u64,
    /// `wal_status`; `not found` where the source has no such slot.
    pub wal_status: String,
    /// Whether the slot keeps more WAL than `guardrail.max_retained_wal_bytes`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guardrail_breached: bool,
    /// Fields unknown to this build.
    #[serde(flatten)]
    pub extra: Extra,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Live {
    /// Reads the file; `None` if no daemon ever wrote it.
    ///
    /// # Errors
    /// [`Error::Object`](crate::Error::Object), or why it cannot be read.
    pub async fn load(lake: &LakeStore) -> Result<Option<Live>> {
        let Some((bytes, _)) = lake.load_versioned(LIVE_KEY).await? else { return Ok(None) };
        json::parse(LIVE_KEY, &bytes, LIVE_VERSION).map(Some)
    }

    /// Overwrites the file.
    ///
    /// # Errors
    /// [`Error::Object`](crate::Error::Object).
    pub async fn write(&self, lake: &LakeStore) -> Result<()> {
        lake.overwrite(LIVE_KEY, json::to_bytes(LIVE_KEY, self)?).await
    }
}
