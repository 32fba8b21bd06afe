//! The files of a snapshot: what a scan reads and what the key index is rebuilt from.

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{
    DataContentType, DataFile, DataFileFormat, ManifestContentType, ManifestFile, TableMetadata,
};

use crate::avro::{Entry, read_list, read_manifest};
use crate::{EntryRef, Error, LakeFiles, Result};

/// How many manifests are read at a time.
pub(crate) const MANIFEST_READS_MAX: usize = 16;

/// Field id of `file_path` in position delete files (Iceberg spec, reserved field ids).
pub(crate) const DELETE_PATH_ID: i32 = 2_147_483_546;
/// Field id of `pos` in position delete files.
pub(crate) const DELETE_POS_ID: i32 = 2_147_483_545;

/// A data file of a snapshot.
#[derive(Clone, Debug)]
pub struct LiveFile {
    /// URI, the exact text that position deletes use.
    pub location: String,
    /// Rows in the file, deleted ones included.
    pub record_count: u64,
    /// Bytes.
    pub size: u64,
    /// Data sequence number.
    pub sequence_number: i64,
    /// All that the manifest says, with column bounds.
    pub file: DataFile,
}

/// Deletes of a snapshot: a position delete file, or a deletion vector in a Puffin file.
#[derive(Clone, Debug)]
pub struct DeleteFile {
    /// URI. Several vectors may share a file; [`DeleteFile::id`] tells them apart.
    pub location: String,
    /// Deleted positions in it.
    pub record_count: u64,
    /// Bytes; of a vector those of its blob.
    pub size: u64,
    /// Data sequence number: the deletes reach data files up to this one.
    pub sequence_number: i64,
    /// The only data file it names, if the manifest says so.
    pub referenced: Option<String>,
    /// The least and greatest data file location it names, if the manifest says so.
    pub bounds: Option<(String, String)>,
    /// Where a deletion vector lies in the file; `None` for a position delete file.
    pub blob: Option<BlobRange>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRange {
    /// Byte at which it begins.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The live files of one snapshot, both lists in (sequence number, location) order.
#[derive(Clone, Debug, Default)]
pub struct LiveFiles {
    /// Data files.
    pub data_files: Vec<LiveFile>,
    /// Position delete files and deletion vectors.
    pub delete_files: Vec<DeleteFile>,
}

impl LiveFiles {
    /// The delete files that may hold deletes of `file`.
    pub fn deletes_of<'a>(&'a self, file: &'a LiveFile) -> impl Iterator<Item = &'a DeleteFile> {
        self.delete_files.iter().filter(move |delete| delete.may_touch(file))
    }

    /// Rows of all data files, deleted ones included.
    pub fn record_count(&self) -> u64 {
        self.data_files.iter().map(|file| file.record_count).sum()
    }
}

impl DeleteFile {
    /// What tells it from all others of the table.
    pub fn id(&self) -> EntryRef {
        let offset = self.blob.map(|blob| blob.offset.cast_signed());
        EntryRef { location: self.location.clone(), offset }
    }

    /// Whether it is a deletion vector.
    pub fn is_vector(&self) -> bool {
        self.blob.is_some()
    }

    fn may_touch(&self, file: &LiveFile) -> bool {
        let named = match (&self.referenced, &self.bounds) {
            (Some(only), _) => *only == file.location,
            (None, Some((least, greatest))) => {
                *least <= file.location && file.location <= *greatest
            }
            (None, None) => true,
        };
        named && self.sequence_number >= file.sequence_number
    }
}

/// Lists the live files of a snapshot. Needs no catalog: `metadata` may come from
/// [`LakeFiles::load_metadata`].
///
/// # Errors
/// [`Error::NoSnapshot`] if the snapshot is not in the metadata (any more);
/// [`Error::UnsupportedDeletes`] if another program wrote deletes that pgcdc does not apply.
pub async fn live_files(
    files: &LakeFiles,
    metadata: &TableMetadata,
    snapshot_id: i64,
) -> Result<LiveFiles> {
    let manifests = manifests_of(files, metadata, snapshot_id).await?;
    read_live(files, &manifests).await
}

async fn manifests_of(
    files: &LakeFiles,
    metadata: &TableMetadata,
    snapshot_id: i64,
) -> Result<Vec<ManifestFile>> {
    let snapshot = metadata
        .snapshot_by_id(snapshot_id)
        .ok_or_else(|| Error::NoSnapshot { table: metadata.location().to_owned(), snapshot_id })?;
    read_list(files, metadata, snapshot).await
}

/// The deletes of a snapshot without its data files, where all of them are deletion vectors: those
/// say themselves which file they are of. With position delete files the same as [`live_files`].
///
/// # Errors
/// As [`live_files`].
pub async fn live_deletes(
    files: &LakeFiles,
    metadata: &TableMetadata,
    snapshot_id: i64,
) -> Result<LiveFiles> {
    let manifests = manifests_of(files, metadata, snapshot_id).await?;
    let of_deletes: Vec<ManifestFile> = manifests
        .iter()
        .filter(|manifest| manifest.content == ManifestContentType::Deletes)
        .cloned()
        .collect();
    let deletes = read_live(files, &of_deletes).await?;
    match deletes.delete_files.iter().all(DeleteFile::is_vector) {
        true => Ok(deletes),
        false => read_live(files, &manifests).await,
    }
}

async fn read_live(files: &LakeFiles, manifests: &[ManifestFile]) -> Result<LiveFiles> {
    let reads: Vec<_> = manifests.iter().map(|manifest| read_manifest(files, manifest)).collect();
    let mut entries = stream::iter(reads).buffer_unordered(MANIFEST_READS_MAX);
    let mut live = LiveFiles::default();
    while let Some(entries) = entries.try_next().await? {
        for entry in entries.iter().filter(|entry| entry.is_live()) {
            live.push(entry)?;
        }
    }
    live.data_files
        .sort_by(|a, b| (a.sequence_number, &a.location).cmp(&(b.sequence_number, &b.location)));
    live.delete_files.sort_by_cached_key(|delete| (delete.sequence_number, delete.id()));
    Ok(live)
}

impl LiveFiles {
    fn push(&mut self, entry: &Entry) -> Result<()> {
        let Entry { sequence_number, file, .. } = entry;
        let sequence_number = *sequence_number;
        let location = file.file_path().to_owned();
        let (record_count, size) = (file.record_count(), file.file_size_in_bytes());
        match (file.content_type(), file.file_format()) {
            (DataContentType::Data, _) => self.data_files.push(LiveFile {
                location,
                record_count,
                size,
                sequence_number,
                file: file.clone(),
            }),
            (DataContentType::PositionDeletes, DataFileFormat::Parquet) => {
                self.delete_files.push(DeleteFile {
                    location,
                    record_count,
                    size,
                    sequence_number,
                    referenced: file.referenced_data_file(),
                    bounds: path_bounds(file),
                    blob: None,
                });
            }
            (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                let (Some(blob), Some(referenced)) =
                    (blob_range(file), file.referenced_data_file())
                else {
                    return Err(Error::UnsupportedDeletes { location });
                };
                self.delete_files.push(DeleteFile {
                    location,
                    record_count,
                    size: blob.length,
                    sequence_number,
                    referenced: Some(referenced),
                    bounds: None,
                    blob: Some(blob),
                });
            }
            _ => return Err(Error::UnsupportedDeletes { location }),
        }
        Ok(())
    }
}

/// Where a deletion vector lies, if the entry says so as it must.
fn blob_range(file: &DataFile) -> Option<BlobRange> {
    Some(BlobRange {
        offset: u64::try_from(file.content_offset()?).ok()?,
        length: u64::try_from(file.content_size_in_bytes()?).ok()?,
    })
}

/// The bounds of `file_path`. An upper bound may be a truncated and incremented prefix, so it is
/// only compared, never taken for a location.
fn path_bounds(file: &DataFile) -> Option<(String, String)> {
    use iceberg::spec::PrimitiveLiteral;
    let text = |bounds: &std::collections::HashMap<i32, iceberg::spec::Datum>| match bounds
        .get(&DELETE_PATH_ID)?
        .literal()
    {
        PrimitiveLiteral::String(text) => Some(text.clone()),
        _ => None,
    };
    Some((text(file.lower_bounds())?, text(file.upper_bounds())?))
}
