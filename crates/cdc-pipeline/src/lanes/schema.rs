//! The schemas of the lanes: which the changes that come now have, and how a lane goes from one to the
//! next. What is committed follows with the next epoch.

use std::sync::Arc;

use cdc_core::{
    Column, Epoch, FieldId, Identity, Lsn, PgType, RowChange, StoredType, TableName, TableSchema,
    oid,
};
use cdc_sink::{ChangeBuffer, index_identity};
use cdc_wal::{Relation, RelationColumn, ReplicaIdentityKind, TableShape};

use super::{FollowedTable, Lane, Lanes, Writer};
use crate::Error;
use crate::commit::{CommitState, CommittedTable};
use crate::evolve::{Known, KnownTable, OlderRows, same_type};

/// A relation that was described, and of which no row was taken since.
pub(super) struct Unsettled {
    pub(super) table: TableName,
    pub(super) relation: Relation,
}

impl Lanes {
    /// Notes a description, which waits for the first row that the lake does not have: rows that it has
    /// may be of any earlier shape. What looks as known waits too, since a column that was exchanged for
    /// another of its name and type looks the same.
    pub(crate) fn describe(&mut self, relation: &Relation) {
        self.described.insert(relation.oid, relation.clone());
        let Some(table) = self.owner(relation) else {
            if self.ignored.insert(relation.oid) {
                let table = relation.table();
                tracing::warn!(%table, "table is in the publication but not followed");
            }
            return;
        };
        let Some(followed) = self.tables.get(&table) else { return };
        self.unsettled.remove(&relation.oid);
        let is_written = followed.is_written;
        let buffer =
            ChangeBuffer::new(counted(&followed.schema, relation), self.opener.unrepresentable());
        self.unwritten.insert(relation.oid, buffer);
        if is_written {
            let relation = relation.clone();
            self.unsettled.insert(relation.oid, Unsettled { table, relation });
        }
    }

    /// Whether a change must wait until its relation is settled.
    pub(crate) fn is_unsettled(&self, oid: u32, final_lsn: Lsn) -> bool {
        let Some(unsettled) = self.unsettled.get(&oid) else { return false };
        let followed = self.tables.get(&unsettled.table);
        followed.is_some_and(|followed| final_lsn >= followed.covered)
    }

    /// The table and the description that wait to be settled.
    pub(crate) fn unsettled(&self, oid: u32) -> Option<(TableName, Relation)> {
        let unsettled = self.unsettled.get(&oid)?;
        Some((unsettled.table.clone(), unsettled.relation.clone()))
    }

    /// Whether a described relation has nothing that its table is not known to have.
    pub(crate) fn is_as_known(&self, table: &TableName, relation: &Relation) -> bool {
        self.tables.get(table).is_some_and(|followed| is_as_known(&followed.schema, relation))
    }

    /// Why a described relation cannot be the table of the lake, whatever its columns.
    pub(crate) fn refusal(&self, table: &TableName, relation: &Relation) -> Option<String> {
        refusal(table, self.tables.get(table)?, relation)
    }

    /// The relation is as its table is known now: the lane takes its rows.
    pub(crate) async fn settled(&mut self, oid: u32) -> Result<(), Error> {
        let Some(unsettled) = self.unsettled.remove(&oid) else { return Ok(()) };
        self.unwritten.remove(&oid);
        if let Some(followed) = self.tables.get_mut(&unsettled.table) {
            followed.oid = Some(oid);
        }
        if !self.by_oid.contains_key(&oid) {
            self.open(unsettled.table, oid).await?;
        }
        Ok(())
    }

    /// The schema of the changes that come now, and one that a crash left in the table ahead of it.
    pub(crate) fn schemas(
        &self,
        table: &TableName,
    ) -> Option<(Arc<TableSchema>, Option<Arc<TableSchema>>)> {
        let followed = self.tables.get(table).filter(|followed| followed.is_written)?;
        Some((Arc::clone(&followed.schema), followed.committed.ahead.clone()))
    }

    /// What is known of the rows that were there before a change which the catalog tells of.
    pub(crate) fn older_rows(&self, table: &TableName, shape: &TableShape) -> OlderRows {
        let Some(followed) = self.tables.get(table) else { return OlderRows::Unknown };
        let lane = self.lanes.iter().find(|lane| lane.table == *table);
        let has_open_rows = lane.is_some_and(|lane| lane.changes > 0 || lane.is_closed);
        if !has_open_rows && is_empty(&followed.committed) {
            return OlderRows::None;
        }
        match followed.filenode {
            Some(known) if known == shape.filenode => OlderRows::Untouched,
            Some(_) => OlderRows::Rewritten,
            None => OlderRows::Unknown,
        }
    }

    /// Whether the table has rows in the open epoch, or in the one being committed.
    pub(crate) fn has_open_rows(&self, table: &TableName) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.table == *table);
        lane.is_some_and(|lane| lane.changes > 0 || lane.is_closed)
    }

    /// Whether the open transaction has changed rows of the table.
    pub(crate) fn is_in_transaction(&self, table: &TableName) -> bool {
        self.lanes.iter().any(|lane| lane.table == *table && lane.open_changes > 0)
    }

    /// Whether rows under `next` are told apart by other columns than now, so that the key index must
    /// be made anew.
    pub(crate) fn needs_reindex(&self, table: &TableName, next: &TableSchema) -> bool {
        let followed = self.tables.get(table);
        followed.is_some_and(|followed| index_identity(&followed.schema) != index_identity(next))
    }

    /// Changes that come from now on have this schema. Rows so far end their file.
    pub(crate) async fn evolve(
        &mut self,
        table: &TableName,
        schema: Arc<TableSchema>,
    ) -> Result<(), Error> {
        let (epoch, policy) = (self.epoch, self.opener.unrepresentable());
        if let Some(followed) = self.tables.get_mut(table) {
            followed.schema = Arc::clone(&schema);
        }
        match self.lanes.iter_mut().find(|lane| lane.table == *table) {
            Some(lane) => {
                let next = ChangeBuffer::new(schema, policy);
                lane.evolve(next, epoch).await
            }
            None => Ok(()),
        }
    }

    /// The same where rows are told apart by other columns: the lane is opened again over an index of
    /// those. The table has no rows in the open epoch, and none on their way into the lake.
    pub(crate) async fn reindex(
        &mut self,
        table: &TableName,
        schema: Arc<TableSchema>,
    ) -> Result<(), Error> {
        if let Some(followed) = self.tables.get_mut(table) {
            followed.schema = schema;
        }
        let Some(index) = self.lanes.iter().position(|lane| lane.table == *table) else {
            return Ok(());
        };
        let mut lane = self.remove_lane(index);
        // its index is closed before another one is made in the same place
        drop(lane.take_writer().await?);
        self.open(lane.table, lane.oid).await
    }

    /// The schemas that are not committed yet.
    pub(crate) fn evolved(&self) -> Vec<Arc<TableSchema>> {
        let is_ahead = |followed: &&FollowedTable| {
            followed.is_written && followed.schema != followed.committed.schema
        };
        self.tables.values().filter(is_ahead).map(|f| Arc::clone(&f.schema)).collect()
    }

    /// What the source's files were when rows and schema were last found to fit, where the manifest
    /// does not say so yet.
    pub(crate) fn filenodes(&self) -> Vec<(TableName, Option<u64>)> {
        let is_new = |(_, followed): &(&TableName, &FollowedTable)| {
            followed.is_written && followed.filenode != followed.recorded_filenode
        };
        let tell =
            |(table, followed): (&TableName, &FollowedTable)| (table.clone(), followed.filenode);
        self.tables.iter().filter(is_new).map(tell).collect()
    }

    /// Notes what the source's files are.
    pub(crate) fn set_filenode(&mut self, table: &TableName, filenode: Option<u64>) {
        if let Some(followed) = self.tables.get_mut(table) {
            followed.filenode = filenode;
        }
    }

    /// Takes note of what a flush committed.
    pub(super) fn note_committed(&mut self, state: &CommitState) {
        for (table, followed) in &mut self.tables {
            if let Some(committed) = state.tables.get(table) {
                followed.committed = committed.clone();
            }
            let entry = state.manifest.value.tables.get(table);
            followed.recorded_filenode = entry.and_then(|entry| entry.source_filenode);
        }
    }

    /// The written tables, for the look at the catalog.
    pub(crate) fn known(&self) -> Known {
        let known = |(table, followed): (&TableName, &FollowedTable)| {
            let known = KnownTable {
                oid: followed.oid?,
                schema: Arc::clone(&followed.schema),
                filenode: followed.filenode,
            };
            Some((table.clone(), known))
        };
        self.tables.iter().filter(|(_, followed)| followed.is_written).filter_map(known).collect()
    }

    fn remove_lane(&mut self, index: usize) -> Lane {
        let lane = self.lanes.swap_remove(index);
        self.by_oid.remove(&lane.oid);
        if let Some(moved) = self.lanes.get(index) {
            self.by_oid.insert(moved.oid, index);
        }
        lane
    }

    /// From now on the table is not written. Its key index stays as the last commit left it, so it
    /// is rebuilt when the table is followed again. Gives the changes since the last epoch was
    /// closed.
    pub(crate) fn drop_lane(&mut self, table: &TableName) -> u64 {
        let Some(followed) = self.tables.get_mut(table) else { return 0 };
        followed.is_written = false;
        // what was not committed is lost with its rows
        followed.schema = Arc::clone(&followed.committed.schema);
        self.unsettled.retain(|_, unsettled| unsettled.table != *table);
        let Some(index) = self.lanes.iter().position(|lane| lane.table == *table) else { return 0 };
        let Lane { oid, buffer, writer, changes, .. } = self.remove_lane(index);
        let empty = ChangeBuffer::new(Arc::clone(buffer.schema()), self.opener.unrepresentable());
        self.unwritten.entry(oid).or_insert(empty);
        if let Writer::Busy(job) = writer {
            self.dropped.push(job);
        }
        changes
    }

    /// How many sequence numbers a change uses whose relation has no lane.
    pub(crate) fn unwritten_numbers(&self, oid: u32, change: &RowChange<'_>) -> u64 {
        self.unwritten.get(&oid).map_or(1, |buffer| buffer.sequence_numbers(change))
    }
}

impl Lane {
    /// `next` has the schema and nothing else.
    async fn evolve(&mut self, next: ChangeBuffer, epoch: Epoch) -> Result<(), Error> {
        let was_empty = self.buffer.is_empty();
        let schema = Arc::clone(next.schema());
        let (chunk, next) = std::mem::replace(&mut self.buffer, next).evolve(schema)?;
        self.buffer = next;
        if was_empty { Ok(()) } else { self.hand_over(chunk, epoch).await }
    }
}

/// Whether a table has certainly no live row.
fn is_empty(committed: &CommittedTable) -> bool {
    let live_rows = committed.pair.current.live_rows(committed.branch);
    committed.head_id().is_none() || live_rows == Some(0)
}

fn refusal(table: &TableName, followed: &FollowedTable, relation: &Relation) -> Option<String> {
    if relation.table() != *table {
        return Some(format!("it is now named {} on the source", relation.table()));
    }
    if followed.oid.is_some_and(|oid| oid != relation.oid) {
        return Some("it was dropped and created again on the source".into());
    }
    if relation.replica_identity == ReplicaIdentityKind::Nothing {
        return Some("its replica identity is now NOTHING".into());
    }
    None
}

/// Whether a relation has the columns and the identity of a schema, as far as the message tells.
pub(super) fn is_as_known(schema: &TableSchema, relation: &Relation) -> bool {
    let pairs = schema.columns.iter().zip(&relation.columns);
    let has_columns = schema.columns.len() == relation.columns.len()
        && pairs
            .into_iter()
            .all(|(known, found)| known.name == found.name && same_type(&known.pg_type, found));
    has_columns && has_identity(&schema.identity, relation)
}

/// Whether the message marks the columns of this identity. Under FULL it marks all of them, so that
/// the catalog must say whether the key is still the one that was known.
fn has_identity(identity: &Identity, relation: &Relation) -> bool {
    let marks = |columns: &[String]| {
        let marked = relation.columns.iter().filter(|column| column.is_key);
        marked.clone().count() == columns.len()
            && marked.into_iter().all(|column| columns.contains(&column.name))
    };
    match (relation.replica_identity, identity) {
        (ReplicaIdentityKind::Default, Identity::PrimaryKey(columns))
        | (ReplicaIdentityKind::Index, Identity::Index { columns, .. }) => marks(columns),
        (ReplicaIdentityKind::Full, Identity::Full) => true,
        _ => false,
    }
}

/// A schema under which changes of a relation are counted: its columns, and its identity as far as
/// the message tells it.
pub(super) fn counted(schema: &TableSchema, relation: &Relation) -> Arc<TableSchema> {
    let column = |found: &RelationColumn| Column {
        name: found.name.clone(),
        field_id: FieldId::FIRST_USER,
        element_id: None,
        attnum: 0,
        pg_type: PgType::base(oid::TEXT, "text"),
        stored: StoredType::String,
        nullable: true,
        lossy: false,
    };
    let marked = relation.columns.iter().filter(|column| column.is_key);
    let marked: Vec<String> = marked.map(|column| column.name.clone()).collect();
    let has = |name: &String| relation.columns.iter().any(|column| column.name == *name);
    let identity = match relation.replica_identity {
        ReplicaIdentityKind::Full => match &schema.identity {
            Identity::PrimaryKey(columns) if columns.iter().all(has) => schema.identity.clone(),
            _ => Identity::Full,
        },
        _ if marked.is_empty() => Identity::Full,
        _ => Identity::PrimaryKey(marked),
    };
    Arc::new(TableSchema {
        table: schema.table.clone(),
        version: schema.version,
        columns: relation.columns.iter().map(column).collect(),
        identity,
        next_field_id: schema.next_field_id,
        omitted: Vec::new(),
    })
}
