//! The fence in the tables: a generation that is raised in a table's properties before this daemon's
//! first data commit on it, so that an older daemon's swap there fails.

use cdc_core::TableName;
use cdc_iceberg::{Table, TablePair};
use futures::FutureExt;

use crate::Error;
use crate::commit::CommitState;

impl CommitState {
    /// Raises the generation in each table's property before its first data commit: from then on a
    /// daemon of an older one cannot commit to it.
    pub(crate) async fn fence_tables(
        &mut self,
        tables: impl Iterator<Item = &TableName>,
    ) -> Result<(), Error> {
        let generation = self.fence.generation;
        let is_open = |table: &Table| table.generation() < Some(generation);
        let this = &*self;
        let raising: Vec<_> = tables
            .filter_map(|table| Some((table, &this.tables.get(table)?.pair)))
            .filter(|(_, pair)| is_open(&pair.current) || is_open(&pair.changes))
            .map(|(table, pair)| this.raise_in_tables(table, pair).boxed())
            .collect();
        let raised = self.side_by_side(raising).await;
        self.keep(raised)
    }

    async fn raise_in_tables(
        &self,
        table: &TableName,
        pair: &TablePair,
    ) -> Result<(TableName, TablePair), Error> {
        let current = self.raise_in(table, &pair.current).await?;
        let changes = self.raise_in(table, &pair.changes).await?;
        Ok((table.clone(), TablePair { current, changes }))
    }

    async fn raise_in(&self, name: &TableName, table: &Table) -> Result<Table, Error> {
        let generation = self.fence.generation;
        let outcome = self.lake.tables.raise_generation(table, generation).await;
        match self.settle(name, outcome).await {
            // nobody else writes this number, so an earlier try of ours had landed
            Err(Error::ForeignCommit { found, .. })
                if found.generation() == Some(generation)
                    && found.head_id(self.lake.branch) == table.head_id(self.lake.branch) =>
            {
                Ok(*found)
            }
            Err(Error::ForeignCommit { table, .. }) => {
                self.lake.meters.foreign_commit(&table);
                Err(Error::TableMoved { table })
            }
            settled => settled,
        }
    }
}
