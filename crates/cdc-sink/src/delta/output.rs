//! What one table contributes to one epoch.

use std::collections::BTreeMap;

use cdc_core::{Epoch, TableName};
use cdc_manifest::LakeStore;

use crate::Result;
use crate::encoded::EncodedFile;
use crate::index::FileRef;

/// The files of one table and epoch and the rows they supersede. It stays valid until the epoch is
/// committed or given up: a flush that failed is tried again with the same output.
#[derive(Clone, Debug)]
pub struct DeltaOutput {
    /// Table.
    pub table: TableName,
    /// Epoch.
    pub epoch: Epoch,
    /// The delta files in order of their rows.
    pub files: Vec<EncodedFile>,
    /// Rows that are not live, by file, ascending: superseded versions in older files and in these,
    /// and the `D` and `T` rows of these.
    pub deletes: BTreeMap<FileRef, Vec<u32>>,
    /// Locations of the files in `deletes` that pgcdc did not name.
    pub foreign: BTreeMap<FileRef, String>,
    /// Whether the table was truncated: all files that were live before this epoch leave the
    /// current state in the same commit. `deletes` then names files of this epoch only.
    pub truncate: bool,
    /// Changes by kind.
    pub counts: OpCounts,
    /// Replaced values by column name (`pgcdc_lossy_values_total`).
    pub lossy: BTreeMap<String, u64>,
    /// Values carried over (`pgcdc_toast_carried_columns_total`).
    pub carried: u64,
}

/// Changes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// `I` rows.
    pub inserts: u64,
    /// `U` rows.
    pub updates: u64,
    /// `D` rows.
    pub deletes: u64,
    /// `T` rows.
    pub truncates: u64,
}

impl OpCounts {
    pub(super) fn add(&mut self, ops: &[u8]) {
        for op in ops {
            match op {
                b'I' => self.inserts += 1,
                b'U' => self.updates += 1,
                b'D' => self.deletes += 1,
                _ => self.truncates += 1,
            }
        }
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.inserts + self.updates + self.deletes + self.truncates
    }
}

impl DeltaOutput {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.body.size()).sum()
    }

    /// Writes all files into the lake, one after the other. Harmless when called again.
    ///
    /// # Errors
    /// As [`EncodedFile::upload`].
    pub async fn upload(&self, lake: &LakeStore) -> Result<()> {
        for file in &self.files {
            file.upload(lake).await?;
        }
        Ok(())
    }

    /// The absolute locations of `deletes` with their rows, as position deletes name them.
    pub fn delete_locations<'a>(
        &'a self,
        lake: &'a LakeStore,
    ) -> impl Iterator<Item = (String, &'a [u32])> {
        self.deletes.iter().filter_map(|(file, rows)| {
            let ours = file.key(&self.table).map(|key| lake.location().uri(&key));
            let location = ours.or_else(|| self.foreign.get(file).cloned())?;
            Some((location, rows.as_slice()))
        })
    }
}
