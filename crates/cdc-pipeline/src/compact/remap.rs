//! Rows that were deleted while their files were rewritten: where they are in the new files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cdc_core::{TableName, TableSchema};
use cdc_iceberg::{DeletedRows, PositionDeletes};
use cdc_manifest::LakeStore;
use cdc_sink::index::{IndexPatch, Record};
use cdc_sink::read_identities;

use crate::Error;

/// Deletes in the words of the table after the replacement.
pub(super) struct Remapped {
    /// All of them: rows of files that stay as they were, rows of the inputs where they are now.
    pub(super) deletes: PositionDeletes,
    /// Rows of the new files that are not live, for the key index.
    pub(super) removed: Vec<Record>,
    pub(super) patch: IndexPatch,
}

/// Translates deletes that are younger than the rewrite. `None` if a row of an input is in no new
/// file: the rewrite is not of these files then.
pub(super) async fn remap(
    store: &LakeStore,
    table: &TableName,
    schema: &Arc<TableSchema>,
    inputs: &BTreeSet<String>,
    patch: IndexPatch,
    since: &DeletedRows,
) -> Result<Option<Remapped>, Error> {
    let mut deletes = PositionDeletes::new();
    let mut hashes = Vec::new();
    for (location, rows) in &since.by_file {
        if !inputs.contains(location) {
            deletes.extend(location, rows.iter());
            continue;
        }
        let rows: Vec<u32> =
            rows.iter().map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        hashes.extend(read_identities(store, schema, location, &rows, patch.hasher()).await?);
    }
    let found = tokio::task::spawn_blocking(move || {
        // rows without a key may be equal: as many of them are wanted as were deleted
        let mut asked: BTreeMap<u128, usize> = BTreeMap::new();
        for hash in &hashes {
            *asked.entry(*hash).or_default() += 1;
        }
        let most = asked.values().copied().max().unwrap_or(0);
        let wanted: Vec<u128> = asked.keys().copied().collect();
        let found = patch.lookup_many(&wanted, most)?;
        let mut removed = Vec::with_capacity(hashes.len());
        for (hash, positions) in wanted.iter().zip(found.iter()) {
            let Some(taken) = positions.get(..asked[hash]) else { return Ok((patch, None)) };
            removed
                .extend(taken.iter().map(|position| Record { hash: *hash, position: *position }));
        }
        Ok::<_, Error>((patch, Some(removed)))
    })
    .await;
    let (patch, removed) =
        found.map_err(|source| Error::Worker { task: "compaction", source })??;
    let Some(removed) = removed else { return Ok(None) };
    for record in &removed {
        let Some(key) = record.position.file.key(table) else { return Ok(None) };
        deletes.add(&store.location().uri(&key), record.position.row.into());
    }
    Ok(Some(Remapped { deletes, removed, patch }))
}
