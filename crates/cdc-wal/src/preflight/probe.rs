//! What the checks need to know of the server, read in three queries.

use std::collections::BTreeMap;

use cdc_core::{SourceTable, TableName};
use tokio_postgres::Row;

use crate::control::{Control, get};
use crate::error::Result;

/// Settings, privileges and use of the server.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerProbe {
    /// `pg_settings.setting` by name, in the setting's own unit; absent if the server lacks it.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) superuser: bool,
    pub(super) replication: bool,
    pub(super) rds_replication: bool,
    pub(super) create_on_database: bool,
    pub(super) slots_used: i64,
    pub(super) senders_used: i64,
    pub(super) sessions_used: i64,
}

impl ServerProbe {
    pub(super) fn number(&self, setting: &str) -> Option<i64> {
        self.settings.get(setting)?.parse().ok()
    }
}

/// A relation that will be read: a wanted table or a leaf of one.
#[derive(Clone, Debug)]
pub(super) struct RelationProbe {
    /// OID of the wanted table.
    pub(super) root: u32,
    pub(super) name: TableName,
    pub(super) foreign: bool,
    /// Whether it is the wanted table itself.
    pub(super) is_root: bool,
    pub(super) owner: String,
    pub(super) owned: bool,
    pub(super) select: bool,
    pub(super) schema_usage: bool,
    pub(super) hides_rows: bool,
}

const SETTINGS: &str = "\
SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ('max_replication_slots', \
  'max_wal_senders', 'max_connections', 'superuser_reserved_connections', \
  'max_slot_wal_keep_size', 'idle_replication_slot_timeout', 'wal_sender_timeout', \
  'rds.iam_auth_for_replication')";

const ROLE: &str = "\
SELECT r.rolsuper, r.rolreplication, \
  EXISTS (SELECT FROM pg_catalog.pg_roles g WHERE g.rolname = 'rds_replication' \
    AND pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER')), \
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
  (SELECT count(*) FROM pg_catalog.pg_replication_slots), \
  (SELECT count(*) FROM pg_catalog.pg_stat_replication), \
  (SELECT coalesce(sum(numbackends), 0)::int8 FROM pg_catalog.pg_stat_database) \
FROM pg_catalog.pg_roles r WHERE r.rolname = current_user";

const RELATIONS: &str = "\
SELECT w.oid, n.nspname::text, c.relname::text, c.relkind = 'f', c.oid = w.oid, \
  pg_catalog.pg_get_userbyid(c.relowner)::text, pg_catalog.pg_has_role(c.relowner, 'USAGE'), \
  pg_catalog.has_table_privilege(c.oid, 'SELECT'), \
  pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.row_security_active(c.oid) \
FROM unnest($1::oid[]) w(oid) \
JOIN pg_catalog.pg_class r ON r.oid = w.oid \
CROSS JOIN LATERAL (SELECT w.oid AS relid \
  UNION SELECT t.relid::oid FROM pg_catalog.pg_partition_tree(w.oid) t \
    WHERE r.relkind = 'p' AND t.isleaf) member \
JOIN pg_catalog.pg_class c ON c.oid = member.relid \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
ORDER BY n.nspname, c.relname";

pub(super) async fn server(control: &Control) -> Result<ServerProbe> {
    let settings = control.query("read the settings", SETTINGS, &[]).await?;
    let role = control.query_one("read the privileges of the role", ROLE, &[]).await?;
    let pair = |row: &Row| -> Result<(String, String)> { Ok((get(row, 0)?, get(row, 1)?)) };
    Ok(ServerProbe {
        settings: settings.iter().map(pair).collect::<Result<_>>()?,
        superuser: get(&role, 0)?,
        replication: get(&role, 1)?,
        rds_replication: get(&role, 2)?,
        create_on_database: get(&role, 3)?,
        slots_used: get(&role, 4)?,
        senders_used: get(&role, 5)?,
        sessions_used: get(&role, 6)?,
    })
}

pub(super) async fn relations(
    control: &Control,
    tables: &[SourceTable],
) -> Result<Vec<RelationProbe>> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let rows = control.query("read the privileges on the tables", RELATIONS, &[&oids]).await?;
    let read = |row: &Row| -> Result<RelationProbe> {
        Ok(RelationProbe {
            root: get(row, 0)?,
            name: TableName::new(get::<String>(row, 1)?, get::<String>(row, 2)?),
            foreign: get(row, 3)?,
            is_root: get(row, 4)?,
            owner: get(row, 5)?,
            owned: get(row, 6)?,
            select: get(row, 7)?,
            schema_usage: get(row, 8)?,
            hides_rows: get(row, 9)?,
        })
    };
    rows.iter().map(read).collect()
}
