//! `status`: the manifest, the daemon's own words and, where it can be reached, the source.

use cdc_manifest::{Live, Manifest, Refs, RefsStore};
use cdc_wal::{OldestTransaction, Provider, SlotLag, SlotState, Source};

use crate::Error;
use crate::lake::existing;
use crate::lease::Lease;
use crate::settings::{LakeSettings, ReplicationSettings};

/// Everything that `status` shows. What could not be found out is `None`.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The manifest.
    pub manifest: Manifest,
    /// The refs.
    pub refs: Refs,
    /// `live.json`.
    pub live: Option<Live>,
    /// Root of the lake.
    pub root: String,
    /// Whether a daemon holds the lease of the state directory.
    pub daemon_running: bool,
    /// The source, if it is configured and answered.
    pub source: Option<SourceStatus>,
    /// Why the source was not asked successfully.
    pub source_error: Option<String>,
}

/// What the source says.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// Who runs it.
    pub provider: Provider,
    /// The slot; `None` if it does not exist.
    pub slot: Option<SlotState>,
    /// How far the slot is behind.
    pub lag: Option<SlotLag>,
    /// The oldest open transaction.
    pub oldest: Option<OldestTransaction>,
}

/// Reads the lake, and asks the source if there is one.
///
/// # Errors
/// [`Error::NotInitialised`], or when the lake cannot be read. A source that does not answer is not
/// an error.
pub async fn status(
    lake: &LakeSettings,
    replication: &ReplicationSettings,
    source: Option<&Source>,
) -> Result<StatusReport, Error> {
    let (store, manifest) = existing(&lake.storage).await?;
    let root = store.location().root().to_owned();
    let asked = match source {
        Some(source) => Some(ask(source, &replication.slot).await),
        None => None,
    };
    let (source, source_error) = match asked {
        Some(Ok(status)) => (Some(status), None),
        Some(Err(error)) => (None, Some(cdc_core::chain(&error))),
        None => (None, None),
    };
    Ok(StatusReport {
        manifest,
        refs: RefsStore::new(store.clone()).load().await?,
        live: Live::load(&store).await?,
        root,
        daemon_running: Lease::is_held(&lake.state_dir),
        source,
        source_error,
    })
}

async fn ask(source: &Source, slot: &str) -> Result<SourceStatus, cdc_wal::Error> {
    let control = source.connect().await?;
    let status = SourceStatus {
        provider: control.facts().await?.provider,
        slot: control.slot(slot).await?,
        lag: control.slot_lag(slot).await?,
        oldest: control.oldest_transaction().await?,
    };
    control.close().await;
    Ok(status)
}
