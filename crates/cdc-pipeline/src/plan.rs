//! What init will do: the tables that are in, with their first schemas, and those that are out, with
//! reasons. Decided before anything is made on the source.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Identity, SourceTable, TableName, TableSchema};
use cdc_governance::{TableDecision, decide};

use crate::Error;
use crate::settings::{LakeSettings, ReplicationSettings};

/// A table that is in.
#[derive(Clone, Debug)]
pub(crate) struct PlannedTable {
    pub(crate) source: SourceTable,
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) tags: Vec<String>,
}

/// All tables of the schemas.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) included: Vec<PlannedTable>,
    /// Reason and tags by table.
    pub(crate) excluded: BTreeMap<TableName, (String, Vec<String>)>,
}

impl Plan {
    /// Decides over the discovered tables.
    pub(crate) fn new(
        discovered: Vec<SourceTable>,
        lake: &LakeSettings,
        replication: &ReplicationSettings,
        publishes_generated: bool,
    ) -> Result<Plan, Error> {
        let decisions = decide(&discovered, &replication.rules);
        let mut plan = Plan { included: Vec::new(), excluded: BTreeMap::new() };
        for (source, decision) in discovered.into_iter().zip(decisions) {
            let TableDecision { table, tags, excluded } = decision;
            if let Some(reason) = excluded {
                plan.excluded.insert(table, (reason, tags));
                continue;
            }
            let schema = first_schema(&source, replication, publishes_generated)?;
            plan.included.push(PlannedTable { source, schema: Arc::new(schema), tags });
        }
        if plan.included.is_empty() {
            return Err(Error::NoTables { schemas: replication.schemas.join(", ") });
        }
        plan.check_names(lake)?;
        Ok(plan)
    }

    /// The tables to publish.
    pub(crate) fn sources(&self) -> Vec<SourceTable> {
        self.included.iter().map(|table| table.source.clone()).collect()
    }

    /// Two tables may share neither a catalog name nor a directory.
    fn check_names(&self, lake: &LakeSettings) -> Result<(), Error> {
        let mut taken: BTreeMap<String, &TableName> = BTreeMap::new();
        for table in self.included.iter().map(|table| &table.source.name) {
            let names = [lake.naming.current("", table), lake.naming.changes("", table)];
            for name in names.into_iter().map(|ident| ident.name) {
                if let Some(first) = taken.insert(name.to_lowercase(), table) {
                    let (first, second) = (first.clone(), table.clone());
                    return Err(Error::NameCollision { first, second, name });
                }
            }
        }
        cdc_manifest::layout::check_table_dirs(self.included.iter().map(|t| &t.source.name))?;
        Ok(())
    }
}

/// The first schema of a table, or why it cannot be followed.
pub(crate) fn first_schema(
    source: &SourceTable,
    replication: &ReplicationSettings,
    publishes_generated: bool,
) -> Result<TableSchema, Error> {
    let refused = |reason: String, hint: &str| Error::TableRefused {
        table: source.name.clone(),
        reason,
        hint: hint.to_owned(),
    };
    let identity = Identity::of(source).ok_or_else(|| {
        refused(
            "no replica identity".into(),
            "add a primary key, or ALTER TABLE … REPLICA IDENTITY USING INDEX or FULL",
        )
    })?;
    let types = &replication.types;
    let declared = |column: &str| types.declared(&source.name, column);
    let schema = TableSchema::first(source, identity, &types.policy, declared, publishes_generated);
    let has_whole_key = schema.identity_positions().len() == schema.identity.columns().len();
    if !has_whole_key {
        return Err(refused(
            "a column of its identity is not replicated".into(),
            "choose another replica identity, or exclude the table with `tables.exclude`",
        ));
    }
    Ok(schema)
}
