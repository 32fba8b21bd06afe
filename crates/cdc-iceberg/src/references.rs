//! Every object that a table's metadata refers to: what must not be removed from the store.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{ManifestFile, SnapshotRef, TableMetadata};

use crate::avro::{read_list, read_manifest_once};
use crate::live::MANIFEST_READS_MAX;
use crate::{Error, LakeFiles, Result};

/// Which snapshots of a metadata file count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfSnapshots {
    /// All that it has, and the metadata files before it that it logs.
    All,
    /// One alone: the metadata file is named for this snapshot only.
    One(i64),
}

/// The locations of manifest lists, manifests, data files, delete files, statistics and logged
/// metadata files. The metadata file itself is not among them: only the caller knows its name.
///
/// # Errors
/// [`Error::NoSnapshot`] if the one snapshot is not in the metadata; what cannot be read.
pub async fn referenced_files(
    files: &LakeFiles,
    metadata: &TableMetadata,
    of: OfSnapshots,
) -> Result<HashSet<String>> {
    let mut found = HashSet::new();
    let snapshots: Vec<&SnapshotRef> = match of {
        OfSnapshots::All => {
            found.extend(metadata.metadata_log().iter().map(|log| log.metadata_file.clone()));
            let statistics = metadata.statistics_iter().map(|file| file.statistics_path.clone());
            let partitions =
                metadata.partition_statistics_iter().map(|file| file.statistics_path.clone());
            found.extend(statistics.chain(partitions));
            metadata.snapshots().collect()
        }
        OfSnapshots::One(snapshot_id) => {
            let table = || metadata.location().to_owned();
            let snapshot = metadata.snapshot_by_id(snapshot_id);
            vec![snapshot.ok_or_else(|| Error::NoSnapshot { table: table(), snapshot_id })?]
        }
    };
    found.extend(snapshots.iter().map(|snapshot| snapshot.manifest_list().to_owned()));
    let lists: Vec<_> =
        snapshots.iter().map(|snapshot| read_list(files, metadata, snapshot)).collect();
    let mut lists = stream::iter(lists).buffer_unordered(MANIFEST_READS_MAX);
    let mut manifests: HashMap<String, ManifestFile> = HashMap::new();
    while let Some(list) = lists.try_next().await? {
        manifests.extend(list.into_iter().map(|file| (file.manifest_path.clone(), file)));
    }
    let reads: Vec<_> =
        manifests.values().map(|manifest| read_manifest_once(files, manifest)).collect();
    let mut entries = stream::iter(reads).buffer_unordered(MANIFEST_READS_MAX);
    while let Some(entries) = entries.try_next().await? {
        let live = entries.iter().filter(|entry| entry.is_live());
        found.extend(live.map(|entry| entry.file.file_path().to_owned()));
    }
    drop(entries);
    found.extend(manifests.into_keys());
    Ok(found)
}
