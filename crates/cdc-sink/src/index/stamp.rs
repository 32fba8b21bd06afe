//! `index.json`: which runs make up the index, and for which state of the table it is right.

use std::path::Path;

use cdc_core::{Epoch, Lsn};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

const FILE_NAME: &str = "index.json";
const TEMPORARY_NAME: &str = "index.json.new";
const VERSION: u32 = 1;

/// The state of the table for which an index is right. Two equal stamps name the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexStamp {
    /// The lake.
    pub lake_id: String,
    /// The identity, its columns by field id, such as `primary_key:100,101`.
    pub identity: String,
    /// Snapshot of the current-state table; none while it has none.
    pub snapshot_id: Option<i64>,
    /// The table's `pgcdc.lsn-to`.
    pub lsn_to: Lsn,
    /// Epoch of that.
    pub epoch: Epoch,
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct IndexFile {
    version: u32,
    /// Key of the identity hashes, 32 hexadecimal digits.
    hash_key: String,
    stamp: StampFields,
    next_run: u64,
    /// Oldest first.
    pub(super) runs: Vec<RunEntry>,
    /// Locations of files whose names pgcdc did not choose, by number.
    pub(super) foreign: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct StampFields {
    lake_id: String,
    identity: String,
    snapshot_id: Option<String>,
    lsn_to: String,
    epoch: u64,
}

/// A run as the file names it. The seed tells it from another file of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunEntry {
    pub(super) number: u64,
    pub(super) seed: u64,
    pub(super) records: u64,
}

impl IndexFile {
    pub(super) fn new(
        hash_key: [u8; 16],
        stamp: &IndexStamp,
        next_run: u64,
        runs: Vec<RunEntry>,
        foreign: Vec<String>,
    ) -> IndexFile {
        let stamp = StampFields {
            lake_id: stamp.lake_id.clone(),
            identity: stamp.identity.clone(),
            snapshot_id: stamp.snapshot_id.map(|id| id.to_string()),
            lsn_to: stamp.lsn_to.to_string(),
            epoch: stamp.epoch.0,
        };
        let hash_key = format!("{:032x}", u128::from_be_bytes(hash_key));
        IndexFile { version: VERSION, hash_key, stamp, next_run, runs, foreign }
    }

    /// Reads the file; `None` if it is missing, torn or of another version: all the same to a
    /// caller that rebuilds.
    pub(super) fn load(dir: &Path) -> Option<IndexFile> {
        let bytes = std::fs::read(dir.join(FILE_NAME)).ok()?;
        let file: IndexFile = serde_json::from_slice(&bytes).ok()?;
        (file.version == VERSION && file.key().is_some() && file.stamp().is_some()).then_some(file)
    }

    /// Replaces the file in one step.
    pub(super) fn store(&self, dir: &Path) -> Result<()> {
        let (temporary, target) = (dir.join(TEMPORARY_NAME), dir.join(FILE_NAME));
        let failed =
            |source| Error::Io { operation: "write", path: target.display().to_string(), source };
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        std::fs::write(&temporary, bytes).map_err(failed)?;
        std::fs::rename(&temporary, &target).map_err(failed)
    }

    /// Removes the file, so that the index no longer exists.
    pub(super) fn remove(dir: &Path) -> Result<()> {
        let path = dir.join(FILE_NAME);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { operation: "remove", path: path.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn key(&self) -> Option<[u8; 16]> {
        Some(u128::from_str_radix(&self.hash_key, 16).ok()?.to_be_bytes())
    }

    pub(super) fn stamp(&self) -> Option<IndexStamp> {
        let snapshot_id = self.stamp.snapshot_id.as_ref().map(|id| id.parse().ok());
        Some(IndexStamp {
            lake_id: self.stamp.lake_id.clone(),
            identity: self.stamp.identity.clone(),
            snapshot_id: match snapshot_id {
                Some(parsed) => Some(parsed?),
                None => None,
            },
            lsn_to: self.stamp.lsn_to.parse().ok()?,
            epoch: Epoch(self.stamp.epoch),
        })
    }

    pub(super) fn next_run(&self) -> u64 {
        self.next_run
    }
}
