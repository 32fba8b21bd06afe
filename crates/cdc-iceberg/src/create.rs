//! Creates the two tables of a source table, each with its first snapshot, so that no reader ever
//! sees a table without content.

use std::sync::Arc;

use cdc_core::failpoint;
use futures::future::join;
use iceberg::spec::{DataFile, TableMetadata};

use crate::avro::NewObject;
use crate::commit::encode_metadata;
use crate::first_metadata::next_metadata_location;
use crate::snapshot::prepare;
use crate::{
    Branch, Committer, CreateOutcome, Error, Result, Stamp, Table, TableChange, TableIdent,
    TablePair, TableSpec,
};

/// How often a creation whose outcome is unknown is tried again.
const CREATE_TRIES_MAX: u32 = 3;

/// The rows that a table starts with.
#[derive(Clone, Debug)]
pub struct InitialContent {
    /// Kind init, add or resync; `lsn_to` is the LSN of the copy.
    pub stamp: Stamp,
    /// The branch that gets the first snapshot.
    pub branch: Branch,
    /// The base files of `t`. The changelog starts empty.
    pub base_files: Vec<DataFile>,
}

impl Committer {
    /// Makes the namespace if needed, and both tables with one snapshot each.
    ///
    /// # Errors
    /// [`Error::TableExists`] if the catalog has one of them; the other may have been created.
    pub async fn create_tables(
        &self,
        spec: &TableSpec<'_>,
        content: &InitialContent,
    ) -> Result<TablePair> {
        self.catalog.ensure_namespace(spec.namespace).await?;
        let (lake, now) = (self.files.location(), self.clock.now());
        let InitialContent { stamp, branch, base_files } = content;
        let rows = TableChange::append(stamp.clone(), *branch, base_files.clone());
        let no_rows = TableChange::append(stamp.clone(), *branch, Vec::new());
        let current = self.create(spec.current_ident(), spec.current_metadata(lake, now)?, &rows);
        let changes =
            self.create(spec.changes_ident(), spec.changes_metadata(lake, now)?, &no_rows);
        let (current, changes) = join(current, changes).await;
        Ok(TablePair { current: current?, changes: changes? })
    }

    async fn create(
        &self,
        ident: TableIdent,
        empty: TableMetadata,
        first: &TableChange,
    ) -> Result<Table> {
        let name = ident.to_string();
        let prepared = prepare(&self.files, &name, &empty, None, first, self.clock.now()).await?;
        let location = next_metadata_location(&prepared.metadata, None);
        let bytes = encode_metadata(&ident, &prepared.metadata)?;
        let mut objects = prepared.objects;
        objects.push(NewObject { location: location.clone(), bytes });
        self.write_all(objects).await?;
        if failpoint("i7") {
            return Err(Error::lost(&location));
        }
        self.register(&ident, &location).await?;
        if failpoint("i8") {
            return Err(Error::lost(&location));
        }
        let metadata = Arc::clone(&prepared.metadata);
        Ok(Table { ident, metadata, metadata_location: location })
    }

    /// Enters a table whose first metadata file is durable.
    async fn register(&self, ident: &TableIdent, location: &str) -> Result<()> {
        for _ in 0..CREATE_TRIES_MAX {
            match self.catalog.create(ident, location).await? {
                CreateOutcome::Created => return Ok(()),
                CreateOutcome::Exists(existing) if existing == location => return Ok(()),
                CreateOutcome::Exists(_) => return Err(Error::TableExists(ident.clone())),
                // the next try finds out: it creates the table or meets our own
                CreateOutcome::Unknown(_) => {}
            }
        }
        Err(Error::CreateUnknown(ident.clone()))
    }
}
