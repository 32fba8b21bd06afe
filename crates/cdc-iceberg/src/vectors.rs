//! The deletes of a commit as deletion vectors: each data file that loses rows gets one vector with
//! all of its deleted rows, in the place of the one before.
//!
//! ```text
//! new deletes ──────────────┐
//! vectors of those files ───┼─> one set of rows per data file ─> a Puffin file each ─> entries
//! position delete files ────┘   (all of them, wherever there are any)
//! ```
//! A table whose format was raised still has position delete files; the first commit with vectors
//! takes all of them over, so that a row is deleted by one entry alone and the totals stay exact.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::TableName;
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::DataFile;
use uuid::Uuid;

use crate::deletes::{DELETE_READS_MAX, load_one};
use crate::first_metadata::METADATA_FOLDER;
use crate::vector::{Vector, describe_vector, encode_puffin, encode_vectors};
use crate::{
    DeleteFile, EntryRef, Error, LakeFiles, LiveFiles, PositionDeletes, Result, RowSet,
    load_deleted_rows,
};

/// Vectors written at once.
const WRITES_MAX: usize = 8;

/// Vectors that are durable, and what they replace.
#[derive(Clone, Debug, Default)]
pub struct DeletionVectors {
    /// Entries for the commit's `delete_files`.
    pub delete_files: Vec<DataFile>,
    /// What the same commit must take out of the table.
    pub replaced: BTreeSet<EntryRef>,
}

/// Merges `deletes` with what deletes rows of the same files in `before`, and writes each vector
/// as a Puffin file into the metadata folder of the table. Nothing is written if nothing changes.
///
/// `before` are the live files that the commit builds on, less those that leave with it; of a table
/// that has vectors only, the delete files are enough ([`crate::live_deletes`]).
pub async fn write_deletion_vectors(
    files: &LakeFiles,
    table: &TableName,
    deletes: &PositionDeletes,
    before: &LiveFiles,
) -> Result<DeletionVectors> {
    let Merged { rows, replaced } = merge(files, deletes, before).await?;
    if rows.is_empty() {
        return Ok(DeletionVectors { delete_files: Vec::new(), replaced });
    }
    let folder = format!("{}/{METADATA_FOLDER}", table.key_segment());
    let commit = Uuid::new_v4();
    let place = files.location().uri(&folder);
    let encoded = tokio::task::spawn_blocking(move || encode_vectors(&place, rows)).await;
    let vectors = encoded.map_err(|_| Error::Cancelled { what: "deletion vector encoding" })??;
    let writes = vectors.iter().enumerate().map(|(number, vector)| {
        let location =
            files.location().uri(&format!("{folder}/{commit}-deletes-{number:05}.puffin"));
        write_one(files, location, vector)
    });
    let writes: Vec<_> = writes.collect();
    let delete_files = stream::iter(writes).buffered(WRITES_MAX).try_collect().await?;
    Ok(DeletionVectors { delete_files, replaced })
}

async fn write_one(files: &LakeFiles, location: String, vector: &Vector) -> Result<DataFile> {
    let (bytes, range) = encode_puffin(&location, vector).await?;
    let entry = describe_vector(&location, bytes.len() as u64, vector, range)?;
    files.write_new(&location, bytes).await?;
    Ok(entry)
}

struct Merged {
    rows: BTreeMap<String, RowSet>,
    replaced: BTreeSet<EntryRef>,
}

async fn merge(files: &LakeFiles, deletes: &PositionDeletes, before: &LiveFiles) -> Result<Merged> {
    let (vectors, positions): (Vec<DeleteFile>, Vec<DeleteFile>) =
        before.delete_files.iter().cloned().partition(DeleteFile::is_vector);
    let mut rows = load_deleted_rows(files, &before.data_files, &positions).await?.by_file;
    for (location, new) in deletes.iter() {
        rows.entry(location.to_owned()).or_default().extend(new.iter().copied());
    }
    let is_touched = |vector: &DeleteFile| {
        vector.referenced.as_ref().is_some_and(|file| rows.contains_key(file))
    };
    let former: Vec<DeleteFile> = vectors.into_iter().filter(is_touched).collect();
    let replaced = former.iter().chain(&positions).map(DeleteFile::id).collect();
    let loads: Vec<_> = former.iter().map(|vector| load_one(files, vector)).collect();
    let mut loaded = stream::iter(loads).buffer_unordered(DELETE_READS_MAX);
    while let Some((_, vectors)) = loaded.try_next().await? {
        for (file, former) in vectors {
            rows.entry(file).or_default().extend(former);
        }
    }
    Ok(Merged { rows, replaced })
}
