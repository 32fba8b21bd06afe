//! Opens the encode side of a table: its key index, from disk where it is right, else rebuilt from
//! the key columns of the live files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cdc_core::{Epoch, TableName, TableSchema, UnrepresentablePolicy};
use cdc_iceberg::{LiveFile, live_files, load_position_deletes};
use cdc_manifest::layout;
use cdc_sink::index::{IdentityHasher, IndexBuilder, IndexOptions, IndexStamp, KeyIndex, Opened};
use cdc_sink::{
    DeltaContext, DeltaOptions, DeltaWriter, FileCompression, RebuildFile, rebuild_index,
};
use object_store::{ObjectStoreExt, path::Path as ObjectPath};

use crate::Error;
use crate::commit::CommittedTable;
use crate::compact::Moved;
use crate::lake::Lake;
use crate::lanes::index_stamp;

/// What opening a lane needs.
#[derive(Clone)]
pub(crate) struct LaneOpener {
    pub(crate) lake: Lake,
    pub(crate) lake_id: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) policy: UnrepresentablePolicy,
    pub(crate) compression: FileCompression,
    /// The byte budget of the daemon.
    pub(crate) buffer_bytes_max: usize,
}

/// Row group in progress, encoded row groups in memory, and remembered identities of one table: at
/// most this part of the byte budget each. What all tables hold together is bounded by the lanes.
const WRITER_PART: usize = 8;
/// Bytes of a remembered identity at worst.
const TRACKED_ROW_BYTES: usize = 100;

impl LaneOpener {
    /// What becomes of values that a stored type cannot hold.
    pub(crate) fn unrepresentable(&self) -> UnrepresentablePolicy {
        self.policy
    }

    /// The hasher of the key index that is on disk, if there is one.
    pub(crate) fn hasher(&self, table: &TableName) -> Option<IdentityHasher> {
        KeyIndex::hasher_in(&index_directory(&self.state_dir, table))
    }

    /// Tells the key index on disk of a table without a lane where its rows went.
    pub(crate) async fn repoint(
        &self,
        before: IndexStamp,
        after: IndexStamp,
        moved: Moved,
    ) -> Result<(), Error> {
        let directory = index_directory(&self.state_dir, &moved.table);
        repoint_on_disk(directory, before, after, moved).await
    }

    /// A writer for the table as committed, for changes of this schema, and the first free part number
    /// of the epoch to come.
    pub(crate) async fn open(
        &self,
        committed: &CommittedTable,
        schema: &Arc<TableSchema>,
        epoch: Epoch,
    ) -> Result<(DeltaWriter, u32), Error> {
        let table = &schema.table;
        let stamp = index_stamp(&self.lake_id, committed, schema);
        let directory = index_directory(&self.state_dir, table);
        let (dir, expected) = (directory.clone(), stamp.clone());
        let opened = blocking("index opening", move || {
            Ok(KeyIndex::open(&dir, &expected, IndexOptions::default())?)
        })
        .await?;
        let index = match opened {
            Opened::Ready(index) => index,
            Opened::Stale(_) | Opened::Absent => {
                self.rebuild(committed, schema, directory, stamp).await?
            }
        };
        let context = DeltaContext {
            table: table.clone(),
            lake: self.lake.store.clone(),
            runtime: tokio::runtime::Handle::current(),
        };
        let options = self.writer_options()?;
        let first_part = self.first_free_part(table, epoch).await?;
        Ok((DeltaWriter::new(index, context, options), first_part))
    }

    fn writer_options(&self) -> Result<DeltaOptions, Error> {
        let share = self.buffer_bytes_max / WRITER_PART;
        let most = DeltaOptions::default();
        Ok(DeltaOptions {
            compression: self.compression,
            spill_dir: Some(crate::spool::directory(&self.state_dir)?),
            group_bytes_max: most.group_bytes_max.min(share),
            staged_bytes_max: most.staged_bytes_max.min(share),
            tracked_rows_max: most.tracked_rows_max.min(share / TRACKED_ROW_BYTES),
            ..most
        })
    }

    /// The index anew, from the identity columns of the live rows.
    async fn rebuild(
        &self,
        committed: &CommittedTable,
        schema: &Arc<TableSchema>,
        directory: PathBuf,
        stamp: IndexStamp,
    ) -> Result<KeyIndex, Error> {
        let table = &schema.table;
        let wrong = || Error::iceberg(table);
        let current = &committed.pair.current;
        let files = match current.head_id(self.lake.branch) {
            None => Vec::new(),
            Some(snapshot) => {
                let lake_files = self.lake.tables.files();
                let live =
                    live_files(lake_files, &current.metadata, snapshot).await.map_err(wrong())?;
                let mut deleted = load_position_deletes(lake_files, &live).await.map_err(wrong())?;
                let rebuild = |file: LiveFile| RebuildFile {
                    deleted: deleted.remove(&file.location).unwrap_or_default(),
                    location: file.location,
                };
                live.data_files.into_iter().map(rebuild).collect()
            }
        };
        let began = Instant::now();
        let builder = blocking("index rebuild", move || {
            match std::fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::state(&directory, error));
                }
                _ => {}
            }
            Ok(IndexBuilder::create(&directory, IndexOptions::default())?)
        })
        .await?;
        let count = files.len();
        let index = rebuild_index(&self.lake.store, schema, files, builder, stamp).await?;
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%table, files = count, records = index.records(), duration_ms, "index rebuilt");
        Ok(index)
    }

    /// An object never changes under a name, so an epoch that a crash left half written goes on
    /// under the next free part number.
    pub(crate) async fn first_free_part(
        &self,
        table: &TableName,
        epoch: Epoch,
    ) -> Result<u32, Error> {
        let store = self.lake.store.store();
        let mut part = 0;
        loop {
            let path = ObjectPath::from(layout::delta_key(table, epoch, part));
            match store.head(&path).await {
                Ok(_) => part += 1,
                Err(object_store::Error::NotFound { .. }) => return Ok(part),
                Err(source) => {
                    let location = self.lake.store.location().uri(path.as_ref());
                    return Err(Error::Objects { location, source });
                }
            }
        }
    }
}

/// Where the key index of a table is.
pub(crate) fn index_directory(state_dir: &Path, table: &TableName) -> PathBuf {
    state_dir.join("index").join(table.key_segment())
}

/// Tells the index of a table without a lane where rows went. One that is not right for the state
/// before stays as it is, and is rebuilt by whoever opens it.
pub(crate) async fn repoint_on_disk(
    directory: PathBuf,
    before: IndexStamp,
    after: IndexStamp,
    moved: Moved,
) -> Result<(), Error> {
    let Some(patch) = moved.patch else { return Ok(()) };
    let removed = moved.removed;
    blocking("index change", move || {
        let opened = KeyIndex::open(&directory, &before, IndexOptions::default())?;
        if let Opened::Ready(mut index) = opened
            && index.adopt(patch)?
        {
            index.apply(Vec::new(), removed)?;
            index.commit(after)?;
        }
        Ok(())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|source| Error::Worker { task, source })?
}
