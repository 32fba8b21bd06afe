//! Manifests and manifest lists as bytes. The iceberg crate's writers write to its own storage
//! trait; here they write to memory, and the bytes go to the lake through [`crate::LakeFiles`].

use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::{MemoryStorage, Storage};
use iceberg::spec::{
    DataFile, DataFileBuilder, FormatVersion, Manifest, ManifestContentType, ManifestFile,
    ManifestList, ManifestListWriter, ManifestStatus, ManifestWriter, ManifestWriterBuilder,
    PartitionSpec, SchemaRef, Snapshot, TableMetadata,
};

use crate::{Error, LakeFiles, Result};

/// An object that is to be written before the commit that names it.
#[derive(Debug)]
pub(crate) struct NewObject {
    pub(crate) location: String,
    pub(crate) bytes: Bytes,
}

/// A file of a snapshot with everything inherited from its manifest filled in.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) status: ManifestStatus,
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
    pub(crate) file_sequence_number: i64,
    pub(crate) file: DataFile,
}

impl Entry {
    pub(crate) fn is_live(&self) -> bool {
        self.status != ManifestStatus::Deleted
    }
}

/// What all manifests of one new snapshot have in common.
pub(crate) struct ManifestEncoder<'a> {
    pub(crate) table: &'a str,
    pub(crate) format: FormatVersion,
    pub(crate) snapshot_id: i64,
    pub(crate) sequence_number: i64,
    pub(crate) schema: SchemaRef,
}

impl ManifestEncoder<'_> {
    /// A manifest of files that this snapshot adds. Their sequence number is left to inheritance.
    pub(crate) async fn added(
        &self,
        location: String,
        content: ManifestContentType,
        files: &[DataFile],
    ) -> Result<(ManifestFile, NewObject)> {
        self.encode(location, content, |writer| {
            // a negative number stands for "inherit the snapshot's"
            // nor has a new file row ids before the commit; one of another table brings its own
            files.iter().try_for_each(|file| writer.add_file(with_row_ids(file, None)?, -1))
        })
        .await
    }

    /// A manifest of entries that are in the table already: live ones become EXISTING, the others
    /// DELETED, with the numbers they have.
    pub(crate) async fn carried(
        &self,
        location: String,
        content: ManifestContentType,
        entries: &[Entry],
    ) -> Result<(ManifestFile, NewObject)> {
        self.encode(location, content, |writer| {
            entries.iter().try_for_each(|entry| {
                let file_sequence = Some(entry.file_sequence_number);
                let file = entry.file.clone();
                if entry.is_live() {
                    let (id, sequence) = (entry.snapshot_id, entry.sequence_number);
                    writer.add_existing_file(file, id, sequence, file_sequence)
                } else {
                    writer.add_delete_file(file, entry.sequence_number, file_sequence)
                }
            })
        })
        .await
    }

    async fn encode(
        &self,
        location: String,
        content: ManifestContentType,
        fill: impl FnOnce(&mut ManifestWriter) -> iceberg::Result<()>,
    ) -> Result<(ManifestFile, NewObject)> {
        const NAME: &str = "manifest";
        let memory = MemoryStorage::new();
        let encode = async {
            let builder = ManifestWriterBuilder::new(
                memory.new_output(NAME)?,
                Some(self.snapshot_id),
                self.schema.clone(),
                PartitionSpec::unpartition_spec(),
            );
            let mut writer = match (self.format, content) {
                (FormatVersion::V3, ManifestContentType::Data) => builder.build_v3_data(),
                (FormatVersion::V3, ManifestContentType::Deletes) => builder.build_v3_deletes(),
                (_, ManifestContentType::Data) => builder.build_v2_data(),
                (_, ManifestContentType::Deletes) => builder.build_v2_deletes(),
            };
            fill(&mut writer)?;
            let file = writer.write_manifest_file().await?;
            Ok((file, memory.read(NAME).await?))
        };
        let (mut file, bytes) = encode.await.map_err(Error::build(self.table, "manifest"))?;
        file.manifest_path.clone_from(&location);
        file.sequence_number = self.sequence_number;
        if file.min_sequence_number < 0 {
            file.min_sequence_number = self.sequence_number;
        }
        Ok((file, NewObject { location, bytes }))
    }

    /// The manifest list of the new snapshot. Data manifests without row ids get theirs from
    /// `next_row_id` on, which is that of the table; how many are taken is in the answer (Iceberg
    /// spec, first row id assignment). Before format version 3 there are none.
    pub(crate) async fn list(
        &self,
        location: String,
        parent_snapshot_id: Option<i64>,
        next_row_id: u64,
        manifests: Vec<ManifestFile>,
    ) -> Result<(NewObject, Option<RowIds>)> {
        const NAME: &str = "list";
        let memory = MemoryStorage::new();
        let encode = async {
            let output = memory.writer(NAME).await?;
            let (id, sequence, parent) =
                (self.snapshot_id, self.sequence_number, parent_snapshot_id);
            let mut writer = match self.format {
                FormatVersion::V3 => {
                    ManifestListWriter::v3(output, id, parent, sequence, Some(next_row_id))
                }
                FormatVersion::V1 | FormatVersion::V2 => {
                    ManifestListWriter::v2(output, id, parent, sequence)
                }
            };
            writer.add_manifests(manifests.into_iter())?;
            let ids = writer
                .next_row_id()
                .map(|next| RowIds { first: next_row_id, count: next.saturating_sub(next_row_id) });
            writer.close().await?;
            Ok((memory.read(NAME).await?, ids))
        };
        let encoded: iceberg::Result<_> = encode.await;
        let (bytes, ids) = encoded.map_err(Error::build(self.table, "manifest list"))?;
        Ok((NewObject { location, bytes }, ids))
    }
}

/// The row ids that a snapshot gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowIds {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

/// The live entries of a data manifest with the row ids that they inherit from it (Iceberg spec, first
/// row id inheritance). The ids depend on the snapshot that names the manifest, so they are filled in
/// where an entry moves to another manifest, and not where a manifest is read.
pub(crate) fn live_entries(
    manifest: &ManifestFile,
    entries: &[Entry],
) -> iceberg::Result<Vec<Entry>> {
    let mut live: Vec<Entry> = entries.iter().filter(|entry| entry.is_live()).cloned().collect();
    let Some(first) = manifest.first_row_id else { return Ok(live) };
    let mut next = first.cast_signed();
    for entry in live.iter_mut().filter(|entry| entry.file.first_row_id().is_none()) {
        entry.file = with_row_ids(&entry.file, Some(next))?;
        next += entry.file.record_count().cast_signed();
    }
    Ok(live)
}

/// A data file with other row ids; the iceberg crate has no setter.
fn with_row_ids(file: &DataFile, first_row_id: Option<i64>) -> iceberg::Result<DataFile> {
    if file.first_row_id() == first_row_id {
        return Ok(file.clone());
    }
    let mut builder = DataFileBuilder::default();
    builder
        .content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(first_row_id)
        .partition_spec_id(0)
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        builder.sort_order_id(order);
    }
    builder.build().map_err(|source| {
        iceberg::Error::new(iceberg::ErrorKind::DataInvalid, "data file").with_source(source)
    })
}

/// Reads the manifest list of a snapshot.
pub(crate) async fn read_list(
    files: &LakeFiles,
    metadata: &TableMetadata,
    snapshot: &Snapshot,
) -> Result<Vec<ManifestFile>> {
    let location = snapshot.manifest_list();
    let bytes = files.read(location).await?;
    let list = ManifestList::parse_with_version(&bytes, metadata.format_version())
        .map_err(Error::format(location, "manifest list"))?;
    Ok(list.consume_entries().into_iter().collect())
}

/// Reads a manifest, or takes it from the cache. Entries have what they inherit filled in (Iceberg
/// spec, sequence number inheritance).
pub(crate) async fn read_manifest(
    files: &LakeFiles,
    manifest: &ManifestFile,
) -> Result<Arc<[Entry]>> {
    let location = manifest.manifest_path.as_str();
    let entries = read_manifest_once(files, manifest).await?;
    files.manifests().put(location, Arc::clone(&entries));
    Ok(entries)
}

/// The same without keeping what was read: for whoever looks at all manifests of a table.
pub(crate) async fn read_manifest_once(
    files: &LakeFiles,
    manifest: &ManifestFile,
) -> Result<Arc<[Entry]>> {
    let location = manifest.manifest_path.as_str();
    if let Some(entries) = files.manifests().get(location) {
        return Ok(entries);
    }
    let bytes = files.read(location).await?;
    let (owner, sequence_number) = (manifest.added_snapshot_id, manifest.sequence_number);
    let parse = move || parse_manifest(&bytes, owner, sequence_number);
    let parsed = tokio::task::spawn_blocking(parse).await;
    parsed
        .map_err(|_| Error::Cancelled { what: "manifest decoding" })?
        .map_err(Error::format(location, "manifest"))
}

fn parse_manifest(bytes: &[u8], owner: i64, sequence_number: i64) -> iceberg::Result<Arc<[Entry]>> {
    let (entries, _) = Manifest::parse_avro(bytes)?.into_parts();
    let entries = entries.into_iter().map(|entry| {
        let entry = Arc::unwrap_or_clone(entry);
        Entry {
            status: entry.status,
            snapshot_id: entry.snapshot_id.unwrap_or(owner),
            sequence_number: entry.sequence_number.unwrap_or(sequence_number),
            file_sequence_number: entry.file_sequence_number.unwrap_or(sequence_number),
            file: entry.data_file,
        }
    });
    Ok(entries.collect())
}
