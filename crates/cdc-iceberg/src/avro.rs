//! Manifests and manifest lists as bytes. The iceberg crate's writers write to its own storage
//! trait; here they write to memory, and the bytes go to the lake through [`crate::LakeFiles`].

use std::sync::Arc;

use bytes::Bytes;
use iceberg::io::{MemoryStorage, Storage};
use iceberg::spec::{
    DataFile, FormatVersion, Manifest, ManifestContentType, ManifestFile, ManifestList,
    ManifestListWriter, ManifestStatus, ManifestWriter, ManifestWriterBuilder, PartitionSpec,
    SchemaRef, Snapshot, TableMetadata,
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
            files.iter().try_for_each(|file| writer.add_file(file.clone(), -1))
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

    /// The manifest list of the new snapshot.
    pub(crate) async fn list(
        &self,
        location: String,
        parent_snapshot_id: Option<i64>,
        manifests: Vec<ManifestFile>,
    ) -> Result<NewObject> {
        const NAME: &str = "list";
        let memory = MemoryStorage::new();
        let encode = async {
            let output = memory.writer(NAME).await?;
            let (id, sequence) = (self.snapshot_id, self.sequence_number);
            let mut writer = ManifestListWriter::v2(output, id, parent_snapshot_id, sequence);
            writer.add_manifests(manifests.into_iter())?;
            writer.close().await?;
            memory.read(NAME).await
        };
        let bytes = encode.await.map_err(Error::build(self.table, "manifest list"))?;
        Ok(NewObject { location, bytes })
    }
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
