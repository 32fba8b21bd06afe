//! A second opinion on what changed: a slot of PostgreSQL's own `test_decoding` plugin.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::pg::Database;

/// Changes by table (`schema.table`) and operation (`I`, `U`, `D`, `T`).
pub(crate) type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// A slot that sees every change from its creation on.
pub(crate) struct Oracle {
    database: Database,
    slot: String,
}

impl Oracle {
    /// Starts to watch; make it when nothing is being written.
    pub(crate) fn watch(database: &Database) -> Result<Self> {
        let slot = format!("oracle_{}", database.name());
        database.execute(&format!(
            "SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')"
        ))?;
        Ok(Self { database: database.clone(), slot })
    }

    /// The changes since the slot was made, as the changelog should hold them: partitions count
    /// for their root, and an update that changes the key is a delete and an insert.
    pub(crate) fn counts(&self) -> Result<Counts> {
        // With REPLICA IDENTITY DEFAULT and INDEX an old key is printed only when it changed.
        let query = format!(
            "WITH change AS (
               SELECT regexp_match(left(data, 200), '^table ([^:]+): ([A-Z]+):( old-key:)?') AS m
               FROM pg_logical_slot_peek_changes('{}', NULL, NULL)
               WHERE data LIKE 'table %'
             ), named AS (
               SELECT to_regclass(trim(part)) AS leaf, m[2] AS op, m[3] IS NOT NULL AS old_key
               FROM change, unnest(string_to_array(m[1], ',')) AS part
             ), rooted AS (
               SELECT coalesce(pg_partition_root(leaf), leaf) AS root, op,
                      old_key AND c.relreplident <> 'f' AS key_changed
               FROM named JOIN pg_class c ON c.oid = leaf
             )
             SELECT n.nspname || '.' || c.relname, o, count(*)
             FROM rooted JOIN pg_class c ON c.oid = root JOIN pg_namespace n ON n.oid = relnamespace,
                  unnest(CASE WHEN op = 'UPDATE' AND key_changed THEN ARRAY['D', 'I']
                         ELSE ARRAY[left(op, 1)] END) AS o
             GROUP BY 1, 2",
            self.slot
        );
        let mut counts = Counts::new();
        for line in self.database.execute(&query)?.lines() {
            let mut cells = line.split('|');
            let mut next =
                || cells.next().with_context(|| format!("odd line of the oracle: {line}"));
            let (table, op, count) = (next()?, next()?, next()?);
            counts.entry(table.to_owned()).or_default().insert(op.to_owned(), count.parse()?);
        }
        Ok(counts)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let drop = format!("SELECT pg_drop_replication_slot('{}')", self.slot);
        let _ = self.database.execute(&drop);
    }
}
