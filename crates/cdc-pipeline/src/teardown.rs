//! `teardown`: gives the source back what init made there, and with consent removes the lake.

use std::fs;

use cdc_wal::Source;

use crate::Error;
use crate::init_record::InitRecord;
use crate::lease::Lease;
use crate::settings::{LakeSettings, ReplicationSettings};

/// What was dropped and what was kept.
#[derive(Clone, Debug)]
pub struct TeardownReport {
    /// The publication, and whether it existed.
    pub publication: (String, bool),
    /// The slot, and whether it existed.
    pub slot: (String, bool),
    /// Directories removed.
    pub removed: Vec<String>,
    /// Directories kept, because consent was not given.
    pub kept: Vec<String>,
}

/// Drops publication and slot; with `remove_lake` also the root and the state directory.
///
/// # Errors
/// [`Error::DaemonRunning`]; else what could not be dropped.
pub async fn teardown(
    lake: &LakeSettings,
    replication: &ReplicationSettings,
    source: &Source,
    remove_lake: bool,
) -> Result<TeardownReport, Error> {
    if Lease::is_held(&lake.state_dir) {
        return Err(Error::DaemonRunning);
    }
    let control = source.connect().await?;
    let slot = control.drop_slot(&replication.slot).await?;
    let publication = control.drop_publication(&replication.publication).await?;
    control.close().await;
    if lake.state_dir.exists() {
        InitRecord::remove(&lake.state_dir)?;
    }
    let mut report = TeardownReport {
        publication: (replication.publication.clone(), publication),
        slot: (replication.slot.clone(), slot),
        removed: Vec::new(),
        kept: Vec::new(),
    };
    let mut directories = vec![lake.state_dir.clone()];
    if let cdc_manifest::StorageSpec::Filesystem { path } = &lake.storage {
        directories.insert(0, path.clone());
    }
    for directory in directories {
        let name = directory.display().to_string();
        if !remove_lake {
            report.kept.push(name);
            continue;
        }
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::state(&directory, error));
            }
            _ => report.removed.push(name),
        }
    }
    Ok(report)
}
