//! Builds the next snapshot of a table: which manifests it keeps, which it writes, and its summary.
//! Pure but for reading the parent's manifest list (and, where files leave the table, manifests).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataFile, ManifestContentType, ManifestFile, ManifestStatus, Snapshot, Summary, TableMetadata,
};
use uuid::Uuid;

use crate::avro::{
    Entry, ManifestEncoder, NewObject, RowIds, live_entries, read_list, read_manifest,
};
use crate::encoding::check_encoding;
use crate::expire::expired;
use crate::first_metadata::metadata_folder;
use crate::live::MANIFEST_READS_MAX;
use crate::summary::Tally;
use crate::{Branch, Error, LakeFiles, Remove, Result, Retention, TableChange, stamp};

/// So many small manifests of one content are merged into one by the next commit.
const SMALL_MANIFESTS_MAX: usize = 32;
/// A manifest of this length is not merged any further.
const MERGED_MANIFEST_BYTES_MAX: i64 = 1 << 20;

/// A snapshot, the metadata with it, and the objects that must be durable before it is committed.
pub(crate) struct Prepared {
    pub(crate) metadata: Arc<TableMetadata>,
    pub(crate) objects: Vec<NewObject>,
}

/// Prepares one change on top of `base`.
///
/// `base_location` is where `base` was read from, or `None` for a table that is being created.
pub(crate) async fn prepare(
    files: &LakeFiles,
    table: &str,
    base: &TableMetadata,
    base_location: Option<&str>,
    change: &TableChange,
    now: DateTime<Utc>,
) -> Result<Prepared> {
    let parent = head(base, change.branch);
    let kept = match &parent {
        Some(parent) => read_list(files, base, parent).await?,
        None => Vec::new(),
    };
    let format = base.format_version().max(change.encoding.format());
    check_encoding(table, format, &change.delete_files)?;
    let encoder = ManifestEncoder {
        table,
        format,
        snapshot_id: fresh_snapshot_id(base),
        sequence_number: base.next_sequence_number(),
        schema: base.current_schema().clone(),
    };
    let mut draft = Draft {
        folder: metadata_folder(base),
        tally: Tally::default(),
        manifests: Vec::with_capacity(kept.len() + 2),
        objects: Vec::new(),
    };
    draft.add(&encoder, ManifestContentType::Data, &change.data_files).await?;
    draft.add(&encoder, ManifestContentType::Deletes, &change.delete_files).await?;
    // a manifest whose entries are all DELETED only told the snapshot that deleted them
    let alive = kept.into_iter().filter(|m| m.has_added_files() || m.has_existing_files());
    draft.keep(files, &encoder, alive.collect(), &change.remove).await?;
    draft.merge(files, &encoder).await?;

    let list_location =
        format!("{}/snap-{}-{}.avro", draft.folder, encoder.snapshot_id, Uuid::new_v4());
    let parent_id = parent.map(Snapshot::snapshot_id);
    let manifests = std::mem::take(&mut draft.manifests);
    let (list, row_ids) =
        encoder.list(list_location.clone(), parent_id, base.next_row_id(), manifests).await?;
    draft.objects.push(list);

    let mut properties = HashMap::new();
    draft.tally.write(parent, &mut properties);
    change.stamp.write(stamp::newest_lsn_to(base, parent_id), &mut properties);
    let operation = draft.tally.operation(change.stamp.kind);
    let snapshot = Snapshot::builder()
        .with_snapshot_id(encoder.snapshot_id)
        .with_parent_snapshot_id(parent_id)
        .with_sequence_number(encoder.sequence_number)
        // a clock that was set back must not make the table's history run backwards
        .with_timestamp_ms(now.timestamp_millis().max(base.last_updated_ms()))
        .with_manifest_list(list_location)
        .with_summary(Summary { operation, additional_properties: properties })
        .with_schema_id(base.current_schema_id());
    let snapshot = match row_ids {
        Some(RowIds { first, count }) => snapshot.with_row_range(first, count).build(),
        None => snapshot.build(),
    };
    let forgotten = match &change.retention {
        Some(retention) => forgotten(table, base, parent_id, retention)?,
        None => Vec::new(),
    };
    let metadata = base
        .clone()
        .into_builder(base_location.map(str::to_owned))
        .upgrade_format_version(format)
        .and_then(|builder| builder.set_branch_snapshot(snapshot, change.branch.as_str()))
        .and_then(|builder| builder.remove_snapshots(&forgotten).build())
        .map_err(Error::build(table, "snapshot"))?
        .metadata;
    Ok(Prepared { metadata: Arc::new(metadata), objects: draft.objects })
}

/// The snapshots of `base` that leave with the commit of another one: the new one counts among
/// those that are kept, its parent stays for whoever has to find this commit again.
fn forgotten(
    table: &str,
    base: &TableMetadata,
    parent: Option<i64>,
    retention: &Retention,
) -> Result<Vec<i64>> {
    let before = Retention { keep: retention.keep.saturating_sub(1), ..retention.clone() };
    expired(table, base, &before, &BTreeSet::from_iter(parent))
}

/// The snapshot that a commit on `branch` builds on.
fn head(metadata: &TableMetadata, branch: Branch) -> Option<&Snapshot> {
    let head = metadata.snapshot_for_ref(branch.as_str());
    head.or_else(|| metadata.current_snapshot()).map(AsRef::as_ref)
}

/// A positive random id that the table does not have (Iceberg spec, snapshots).
fn fresh_snapshot_id(metadata: &TableMetadata) -> i64 {
    loop {
        let (high, low) = Uuid::new_v4().as_u64_pair();
        let id = ((high ^ low) & (i64::MAX as u64)).cast_signed();
        if id != 0 && metadata.snapshot_by_id(id).is_none() {
            return id;
        }
    }
}

/// The manifests of a snapshot in the making.
struct Draft {
    folder: String,
    tally: Tally,
    manifests: Vec<ManifestFile>,
    objects: Vec<NewObject>,
}

impl Draft {
    fn manifest_location(&self) -> String {
        format!("{}/{}-m{}.avro", self.folder, Uuid::new_v4(), self.objects.len())
    }

    /// Writes a manifest of new files, if there are any.
    async fn add(
        &mut self,
        encoder: &ManifestEncoder<'_>,
        content: ManifestContentType,
        files: &[DataFile],
    ) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        files.iter().for_each(|file| self.tally.add(file));
        let written = encoder.added(self.manifest_location(), content, files).await?;
        self.push(written);
        Ok(())
    }

    /// Takes over the parent's manifests, rewriting those that hold a file which leaves.
    async fn keep(
        &mut self,
        files: &LakeFiles,
        encoder: &ManifestEncoder<'_>,
        parents: Vec<ManifestFile>,
        remove: &Remove,
    ) -> Result<()> {
        for manifest in parents {
            if !remove.may_touch(manifest.content) {
                self.manifests.push(manifest);
                continue;
            }
            let entries = read_manifest(files, &manifest).await?;
            let mut entries = live_entries(&manifest, &entries)
                .map_err(Error::build(encoder.table, "manifest"))?;
            if !self.mark_removed(&mut entries, remove) {
                self.manifests.push(manifest);
                continue;
            }
            let location = self.manifest_location();
            let written = encoder.carried(location, manifest.content, &entries).await?;
            self.push(written);
        }
        Ok(())
    }

    /// Merges small manifests of one content into one, once there are many. Their entries keep
    /// their numbers; this snapshot's own manifests stay apart, for what they tell of it.
    async fn merge(&mut self, files: &LakeFiles, encoder: &ManifestEncoder<'_>) -> Result<()> {
        for content in [ManifestContentType::Data, ManifestContentType::Deletes] {
            let is_small = |manifest: &ManifestFile| {
                manifest.content == content
                    && manifest.added_snapshot_id != encoder.snapshot_id
                    && manifest.manifest_length < MERGED_MANIFEST_BYTES_MAX
            };
            if self.manifests.iter().filter(|manifest| is_small(manifest)).count()
                < SMALL_MANIFESTS_MAX
            {
                continue;
            }
            let (small, others) =
                std::mem::take(&mut self.manifests).into_iter().partition(is_small);
            self.manifests = others;
            let small: Vec<ManifestFile> = small;
            let reads: Vec<_> =
                small.iter().map(|manifest| read_manifest(files, manifest)).collect();
            // in order, so that the merged manifest does not depend on which read came first
            let reads = stream::iter(reads).buffered(MANIFEST_READS_MAX);
            let entries: Vec<Arc<[Entry]>> = reads.try_collect().await?;
            let live =
                small.iter().zip(&entries).map(|(file, entries)| live_entries(file, entries));
            let live: Vec<Vec<Entry>> =
                live.collect::<Result<_, _>>().map_err(Error::build(encoder.table, "manifest"))?;
            let live = live.concat();
            let written = encoder.carried(self.manifest_location(), content, &live).await?;
            self.push(written);
        }
        Ok(())
    }

    /// Marks what leaves as deleted and says whether anything does.
    fn mark_removed(&mut self, entries: &mut [Entry], remove: &Remove) -> bool {
        let mut any = false;
        for entry in entries {
            let leaves = remove.takes(&entry.file);
            if leaves {
                entry.status = ManifestStatus::Deleted;
                self.tally.remove(&entry.file);
                any = true;
            }
        }
        any
    }

    fn push(&mut self, (manifest, object): (ManifestFile, NewObject)) {
        self.manifests.push(manifest);
        self.objects.push(object);
    }
}
