//! The deleted rows of a snapshot for a rewrite of its files: by data file, and which delete file
//! names which data files, so that the rewrite knows what it may leave behind.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use crate::deletes::{DELETE_READS_MAX, load_one};
use crate::{DeleteFile, EntryRef, LakeFiles, LiveFile, Result, RowSet};

/// What a set of delete files and deletion vectors says.
#[derive(Clone, Debug, Default)]
pub struct DeletedRows {
    /// Deleted rows by data file; files without any are not in it.
    pub by_file: BTreeMap<String, RowSet>,
    /// The data files that each delete file names.
    pub named_by: BTreeMap<EntryRef, BTreeSet<String>>,
}

impl DeletedRows {
    /// How many rows of a data file are deleted.
    pub fn count(&self, location: &str) -> u64 {
        self.by_file.get(location).map_or(0, RowSet::len)
    }
}

/// Reads delete files and deletion vectors, several at a time. Only deletes of `data_files` count, and only
/// where the delete file is not older than the data file (Iceberg spec, scan planning).
///
/// Memory: one bit for each row of a data file that has deletes, and the delete files being read.
pub async fn load_deleted_rows(
    files: &LakeFiles,
    data_files: &[LiveFile],
    delete_files: &[DeleteFile],
) -> Result<DeletedRows> {
    let sequence_of: BTreeMap<&str, i64> =
        data_files.iter().map(|file| (file.location.as_str(), file.sequence_number)).collect();
    let loads: Vec<_> = delete_files
        .iter()
        .map(|delete| async move { Ok((delete, load_one(files, delete).await?)) })
        .collect();
    let mut loaded = stream::iter(loads).buffer_unordered(DELETE_READS_MAX);
    let mut rows = DeletedRows::default();
    while let Some((delete, (sequence, deletes))) = loaded.try_next().await? {
        let named = rows.named_by.entry(delete.id()).or_default();
        for (location, positions) in deletes {
            if sequence_of.get(location.as_str()).is_some_and(|data| *data <= sequence) {
                rows.by_file.entry(location.clone()).or_default().extend(positions);
            }
            named.insert(location);
        }
    }
    Ok(rows)
}
