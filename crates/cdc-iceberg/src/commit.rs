//! The commit layer: every change of a table goes through here and ends as committed, not committed
//! or unknown.
//!
//! ```text
//! prepare snapshot ─> write manifests, list, metadata (durable) ─> swap the pointer
//!                                                                   │
//!      Swapped ─────────────> Committed                             │
//!      Conflict, Unknown ───> read back: our metadata or batch in the history? ─> Committed
//!                             else, pointer unmoved ─> swap again (bounded) ─> Unknown
//!                             else ──────────────────────────────> NotCommitted
//! ```
//! No path deletes a file: what a failed commit wrote is an orphan and goes by age.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use cdc_core::{Clock, TableSchema, failpoint};
use futures::future::{join, try_join_all};
use iceberg::spec::{
    Schema, SnapshotReference, SnapshotRetention, TableMetadata, TableMetadataBuilder,
};
use uuid::Uuid;

use crate::avro::NewObject;
use crate::first_metadata::{
    FILLED_PROPERTY, GENERATION_PROPERTY, IDENTITY_PROPERTY, SCHEMA_PROPERTY, identity_text,
    next_metadata_location,
};
use crate::schema::{changes_schema, current_schema};
use crate::snapshot::prepare;
use crate::{
    Branch, Catalog, CommitOutcome, Conflict, Error, FlushChange, LakeFiles, NewSchema, Result,
    SwapOutcome, Table, TableChange, TableIdent, TablePair, Unresolved,
};

/// How often a commit is built anew on a table of which only another branch has moved.
const REBASES_MAX: u32 = 10;

/// How often a swap whose outcome is unknown is tried again on the same base.
const SWAP_TRIES_MAX: u32 = 3;

/// Commits to the tables of one lake through one catalog.
#[derive(Clone)]
pub struct Committer {
    pub(crate) files: LakeFiles,
    pub(crate) catalog: Arc<dyn Catalog>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Committer {
    /// A committer over a lake and its catalog.
    pub fn new(files: LakeFiles, catalog: Arc<dyn Catalog>, clock: Arc<dyn Clock>) -> Self {
        Self { files, catalog, clock }
    }

    /// The lake's objects.
    pub fn files(&self) -> &LakeFiles {
        &self.files
    }

    /// The catalog.
    pub fn catalog(&self) -> &Arc<dyn Catalog> {
        &self.catalog
    }

    /// Loads a table as the catalog has it now.
    pub async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let pointer = self.catalog.pointer(ident).await?;
        let metadata_location = pointer.ok_or_else(|| Error::NoTable(ident.clone()))?;
        let metadata = Arc::new(self.files.load_metadata(&metadata_location).await?);
        Ok(Table { ident: ident.clone(), metadata, metadata_location })
    }

    /// The table as the catalog has it now; reads the metadata only if the pointer moved.
    pub async fn refresh(&self, table: &Table) -> Result<Table> {
        match self.catalog.pointer(&table.ident).await? {
            Some(pointer) if pointer == table.metadata_location => Ok(table.clone()),
            _ => self.load(&table.ident).await,
        }
    }

    /// Commits one change: one snapshot, one pointer swap. A batch that is in the table already is
    /// not looked for here before the swap; see [`Committer::commit_flush`]. Whoever only moved
    /// another branch meanwhile is no conflict.
    ///
    /// # Errors
    /// [`Error::Fenced`] if the table belongs to a newer generation; else nothing was committed.
    pub async fn commit(&self, table: &Table, change: &TableChange) -> Result<CommitOutcome> {
        let mut outcome = self.commit_on(table, change).await?;
        for _ in 0..REBASES_MAX {
            match outcome {
                CommitOutcome::NotCommitted(Conflict { current })
                    if is_same_on(change.branch, table, &current) =>
                {
                    outcome = self.commit_on(&current, change).await?;
                }
                ended => return Ok(ended),
            }
        }
        Ok(outcome)
    }

    async fn commit_on(&self, table: &Table, change: &TableChange) -> Result<CommitOutcome> {
        check_generation(table, change.stamp.generation)?;
        if failpoint("s9") {
            return Err(Error::lost(&table.metadata_location));
        }
        let name = table.ident.to_string();
        let location = Some(table.metadata_location.as_str());
        let now = self.clock.now();
        let base = match &change.schema {
            Some(new) => Arc::new(under(table, new)?),
            None => Arc::clone(&table.metadata),
        };
        let prepared = prepare(&self.files, &name, &base, location, change, now).await?;
        let metadata = prepared.metadata;
        let search = Search { batch_id: Some(change.stamp.batch_id), branch: change.branch };
        self.publish(table, metadata, prepared.objects, search).await
    }

    /// Commits a flush on both tables at once. A table that has the batch already, or stands
    /// beyond its `lsn_to`, is left alone and counts as committed.
    pub async fn commit_flush(&self, pair: &TablePair, flush: FlushChange) -> Result<FlushOutcome> {
        let FlushChange { stamp, branch, current_files, delete_files, remove, changes_files } =
            flush;
        let changes = TableChange::append(stamp.clone(), branch, changes_files);
        let current = TableChange {
            remove,
            ..TableChange::row_delta(stamp, branch, current_files, delete_files)
        };
        // both run to their end, so that neither is cut off by the other's failure
        let (current, changes) = join(
            self.commit_unless_covered(&pair.current, &current),
            self.commit_unless_covered(&pair.changes, &changes),
        )
        .await;
        Ok(FlushOutcome { current: current?, changes: changes? })
    }

    /// Commits a change unless the table already covers it (the replay rule).
    pub async fn commit_unless_covered(
        &self,
        table: &Table,
        change: &TableChange,
    ) -> Result<CommitOutcome> {
        let covered = table.newest_lsn_to(change.branch);
        if covered.is_some_and(|covered| covered >= change.stamp.lsn_to) {
            return Ok(CommitOutcome::Committed(table.clone()));
        }
        self.commit(table, change).await
    }

    /// Finds out how a commit of unknown outcome ended, and finishes it if it can.
    pub async fn resolve(&self, unresolved: &Unresolved) -> Result<CommitOutcome> {
        let Unresolved { ident, base_location, new_location, .. } = unresolved;
        let search = Search { batch_id: unresolved.batch_id, branch: unresolved.branch };
        let current = self.load(ident).await?;
        if search.finds(&current, new_location) {
            return Ok(CommitOutcome::Committed(current));
        }
        if current.metadata_location != *base_location {
            return Ok(CommitOutcome::NotCommitted(Conflict { current }));
        }
        let metadata = Arc::new(self.files.load_metadata(new_location).await?);
        self.swap(&current, Attempt { metadata, location: new_location.clone(), search }).await
    }

    /// Gives a current-state table the columns and the identity of `schema`, and keeps `record`, the
    /// schema in the caller's own form, beside them ([`Table::schema_record`]). Snapshots stay, and a
    /// table that has all this already is left alone.
    pub async fn evolve_current(
        &self,
        table: &Table,
        schema: &TableSchema,
        record: &str,
    ) -> Result<CommitOutcome> {
        self.evolve(table, current_schema(schema)?, identity_text(schema), record).await
    }

    /// The same for a changelog.
    pub async fn evolve_changes(
        &self,
        table: &Table,
        schema: &TableSchema,
        record: &str,
    ) -> Result<CommitOutcome> {
        self.evolve(table, changes_schema(schema)?, identity_text(schema), record).await
    }

    async fn evolve(
        &self,
        table: &Table,
        schema: Schema,
        identity: String,
        record: &str,
    ) -> Result<CommitOutcome> {
        let known = &table.metadata;
        let is_same = known.current_schema().as_struct() == schema.as_struct()
            && known.properties().get(IDENTITY_PROPERTY) == Some(&identity)
            // ids that were given to columns which are gone again are in the record alone
            && known.properties().get(SCHEMA_PROPERTY).map(String::as_str) == Some(record);
        if is_same {
            return Ok(CommitOutcome::Committed(table.clone()));
        }
        let properties = HashMap::from([
            (IDENTITY_PROPERTY.to_owned(), identity),
            (SCHEMA_PROPERTY.to_owned(), record.to_owned()),
        ]);
        let change = |builder: TableMetadataBuilder| {
            builder.add_current_schema(schema)?.set_properties(properties)
        };
        self.update(table, change).await
    }

    /// Points a branch at a snapshot of the table: fast-forward and restore.
    pub async fn set_branch(
        &self,
        table: &Table,
        branch: Branch,
        snapshot_id: i64,
    ) -> Result<CommitOutcome> {
        let reference =
            SnapshotReference::new(snapshot_id, SnapshotRetention::branch(None, None, None));
        self.update(table, |builder| builder.set_ref(branch.as_str(), reference)).await
    }

    /// Puts `main` where `staging` stands, and drops `staging`: commits do not wait any more.
    pub async fn adopt_staging(&self, table: &Table) -> Result<CommitOutcome> {
        let staging = table.metadata.snapshot_for_ref(Branch::Staging.as_str());
        let Some(staging) = staging.map(|snapshot| snapshot.snapshot_id()) else {
            return Ok(CommitOutcome::Committed(table.clone()));
        };
        let main = SnapshotReference::new(staging, SnapshotRetention::branch(None, None, None));
        self.update(table, |builder| {
            Ok(builder.set_ref(Branch::Main.as_str(), main)?.remove_ref(Branch::Staging.as_str()))
        })
        .await
    }

    /// Raises the generation in the table's properties, which fences daemons of older ones.
    pub async fn raise_generation(&self, table: &Table, generation: u64) -> Result<CommitOutcome> {
        check_generation(table, generation)?;
        let property = (GENERATION_PROPERTY.to_owned(), generation.to_string());
        self.update(table, |builder| builder.set_properties([property].into())).await
    }

    /// Commits a change of the metadata that adds no snapshot.
    pub(crate) async fn update(
        &self,
        table: &Table,
        change: impl FnOnce(TableMetadataBuilder) -> iceberg::Result<TableMetadataBuilder>,
    ) -> Result<CommitOutcome> {
        let builder = (*table.metadata).clone().into_builder(Some(table.metadata_location.clone()));
        let built = change(builder)
            .and_then(TableMetadataBuilder::build)
            .map_err(Error::build(&table.ident, "metadata"))?;
        if built.changes.is_empty() {
            return Ok(CommitOutcome::Committed(table.clone()));
        }
        let search = Search { batch_id: None, branch: Branch::Main };
        self.publish(table, Arc::new(built.metadata), Vec::new(), search).await
    }

    /// Makes all objects of a commit durable, then swaps.
    async fn publish(
        &self,
        base: &Table,
        metadata: Arc<TableMetadata>,
        mut objects: Vec<NewObject>,
        search: Search,
    ) -> Result<CommitOutcome> {
        let location = next_metadata_location(&metadata, Some(&base.metadata_location));
        let bytes = encode_metadata(&base.ident, &metadata)?;
        objects.push(NewObject { location: location.clone(), bytes });
        self.write_all(objects).await?;
        if failpoint("s10") {
            return Err(Error::lost(&location));
        }
        self.swap(base, Attempt { metadata, location, search }).await
    }

    /// Writes objects side by side: nothing refers to any of them before the swap.
    pub(crate) async fn write_all(&self, objects: Vec<NewObject>) -> Result<()> {
        let writes = objects
            .into_iter()
            .map(async |object| self.files.write_new(&object.location, object.bytes).await);
        try_join_all(writes).await.map(drop)
    }

    async fn swap(&self, base: &Table, attempt: Attempt) -> Result<CommitOutcome> {
        let ident = &base.ident;
        let mut last = None;
        for _ in 0..SWAP_TRIES_MAX {
            let swapped = self.catalog.swap(ident, &base.metadata_location, &attempt.location);
            let mut swapped = swapped.await?;
            if failpoint("s11") {
                swapped = SwapOutcome::Unknown(Error::lost(&attempt.location));
            }
            let source = match swapped {
                SwapOutcome::Swapped => return Ok(attempt.committed(ident)),
                SwapOutcome::Conflict => None,
                SwapOutcome::Unknown(source) => Some(source),
            };
            match self.load(ident).await {
                Ok(current) if attempt.search.finds(&current, &attempt.location) => {
                    return Ok(CommitOutcome::Committed(current));
                }
                Ok(current) if current.metadata_location != base.metadata_location => {
                    return Ok(CommitOutcome::NotCommitted(Conflict { current }));
                }
                // the pointer has not moved: a late first request can only lose against this one
                Ok(_) => last = source,
                Err(error) => {
                    last = Some(error);
                    break;
                }
            }
        }
        tracing::warn!(table = %ident, "commit outcome unknown");
        Ok(CommitOutcome::Unknown(Box::new(Unresolved {
            ident: ident.clone(),
            batch_id: attempt.search.batch_id,
            branch: attempt.search.branch,
            base_location: base.metadata_location.clone(),
            new_location: attempt.location,
            source: last.unwrap_or(Error::Contradiction(ident.clone())),
        })))
    }
}

/// How the two commits of a pair ended.
#[derive(Debug)]
#[must_use]
pub struct FlushOutcome {
    /// On `t`.
    pub current: CommitOutcome,
    /// On `t__changes`.
    pub changes: CommitOutcome,
}

impl FlushOutcome {
    /// The pair after the flush, if both are committed; else the outcome.
    pub fn into_pair(self) -> std::result::Result<TablePair, Box<FlushOutcome>> {
        match self {
            FlushOutcome {
                current: CommitOutcome::Committed(current),
                changes: CommitOutcome::Committed(changes),
            } => Ok(TablePair { current, changes }),
            other => Err(Box::new(other)),
        }
    }
}

/// How one's own commit is recognised in a table.
#[derive(Clone, Copy)]
struct Search {
    batch_id: Option<Uuid>,
    branch: Branch,
}

impl Search {
    /// Others may have committed on top, so the history is searched, not the head.
    fn finds(&self, table: &Table, location: &str) -> bool {
        let log = table.metadata.metadata_log();
        table.metadata_location == location
            || log.iter().any(|entry| entry.metadata_file == location)
            || self.batch_id.is_some_and(|id| table.find_batch(self.branch, id).is_some())
    }
}

struct Attempt {
    metadata: Arc<TableMetadata>,
    location: String,
    search: Search,
}

impl Attempt {
    fn committed(self, ident: &TableIdent) -> CommitOutcome {
        CommitOutcome::Committed(Table {
            ident: ident.clone(),
            metadata: self.metadata,
            metadata_location: self.location,
        })
    }
}

/// The metadata of a current-state table under the schema that the next snapshot brings.
fn under(table: &Table, new: &NewSchema) -> Result<TableMetadata> {
    let schema = current_schema(&new.schema)?;
    let properties = HashMap::from([
        (IDENTITY_PROPERTY.to_owned(), identity_text(&new.schema)),
        (SCHEMA_PROPERTY.to_owned(), new.record.clone()),
        (FILLED_PROPERTY.to_owned(), new.record.clone()),
    ]);
    // the file that it is made from is entered in the log with the snapshot
    let builder = (*table.metadata).clone().into_builder(None);
    let built = builder
        .add_current_schema(schema)
        .and_then(|builder| builder.set_properties(properties))
        .and_then(TableMetadataBuilder::build);
    Ok(built.map_err(Error::build(&table.ident, "metadata"))?.metadata)
}

pub(crate) fn encode_metadata(ident: &TableIdent, metadata: &TableMetadata) -> Result<Bytes> {
    let json = serde_json::to_vec(metadata).map_err(|source| Error::Build {
        table: ident.to_string(),
        what: "metadata",
        source: Box::new(source),
    })?;
    Ok(json.into())
}

/// Whether a change that was built for one version of a table is right for another one too.
fn is_same_on(branch: Branch, before: &Table, now: &Table) -> bool {
    before.head_id(branch) == now.head_id(branch)
        && before.generation() == now.generation()
        && before.metadata.current_schema_id() == now.metadata.current_schema_id()
}

fn check_generation(table: &Table, ours: u64) -> Result<()> {
    match table.generation() {
        Some(found) if found > ours => {
            Err(Error::Fenced { table: table.ident.to_string(), found, ours })
        }
        _ => Ok(()),
    }
}
