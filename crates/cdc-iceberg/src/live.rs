//! The files of a snapshot: what a scan reads and what the key index is rebuilt from.

use futures::{StreamExt, TryStreamExt, stream};
use iceberg::spec::{DataContentType, DataFile, DataFileFormat, TableMetadata};

use crate::avro::{Entry, read_list, read_manifest};
use crate::{Error, LakeFiles, Result};

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

/// A position delete file of a snapshot.
#[derive(Clone, Debug)]
pub struct DeleteFile {
    /// URI.
    pub location: String,
    /// Deleted positions in the file.
    pub record_count: u64,
    /// Bytes.
    pub size: u64,
    /// Data sequence number: the deletes reach data files up to this one.
    pub sequence_number: i64,
    /// The only data file it names, if the manifest says so.
    pub referenced: Option<String>,
    /// The least and greatest data file location it names, if the manifest says so.
    pub bounds: Option<(String, String)>,
}

/// The live files of one snapshot, both lists in (sequence number, location) order.
#[derive(Clone, Debug, Default)]
pub struct LiveFiles {
    /// Data files.
    pub data_files: Vec<LiveFile>,
    /// Position delete files.
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
    let snapshot = metadata
        .snapshot_by_id(snapshot_id)
        .ok_or_else(|| Error::NoSnapshot { table: metadata.location().to_owned(), snapshot_id })?;
    let manifests = read_list(files, metadata, snapshot).await?;
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
    live.delete_files
        .sort_by(|a, b| (a.sequence_number, &a.location).cmp(&(b.sequence_number, &b.location)));
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
                });
            }
            _ => return Err(Error::UnsupportedDeletes { location }),
        }
        Ok(())
    }
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
