//! Which tables the server decodes: the publication is created, or an existing one is compared with
//! what is wanted and never changed behind its owner's back.

mod compare;
mod state;

use cdc_core::{Identity, SourceTable, TableKind, TableName, quote_ident};

pub use compare::{PublicationDifference, compare};
pub use state::PublicationState;

use crate::control::Control;
use crate::error::{Error, Result};

/// The first server that can publish stored generated columns.
const PUBLISHES_GENERATED_FROM: u32 = 180_000;

/// What `ensure_publication` found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnsuredPublication {
    /// Whether it was created by this call.
    pub created: bool,
    /// Whether stored generated columns are sent.
    pub publishes_generated: bool,
}

impl Control {
    /// Creates the publication for exactly these tables, or checks that the existing one publishes
    /// them and nothing else, through their partition roots, with all four kinds of change.
    ///
    /// # Errors
    /// [`Error::SchemaConflict`] for a table that must not be published (a partition, or one whose
    /// rows have no identity: publishing it would make its updates fail on the source);
    /// [`Error::PublicationMismatch`] if an existing publication differs.
    pub async fn ensure_publication(
        &self,
        name: &str,
        tables: &[SourceTable],
    ) -> Result<EnsuredPublication> {
        for table in tables {
            publishable(table)?;
        }
        if let Some(state) = self.publication(name).await? {
            let difference = compare(&state, tables);
            return match difference.is_empty() {
                true => Ok(EnsuredPublication {
                    created: false,
                    publishes_generated: state.publishes_generated,
                }),
                false => Err(Error::PublicationMismatch {
                    publication: name.to_owned(),
                    reason: difference.to_string(),
                    hint: difference.remedy(name),
                }),
            };
        }
        let publishes_generated = self.server_version_num() >= PUBLISHES_GENERATED_FROM;
        let sql = create_sql(name, tables, publishes_generated);
        self.execute(&format!("create publication {name}"), &sql).await?;
        Ok(EnsuredPublication { created: true, publishes_generated })
    }

    /// Adds one table to the publication.
    ///
    /// # Errors
    /// [`Error::SchemaConflict`] if the table must not be published.
    pub async fn add_to_publication(&self, name: &str, table: &SourceTable) -> Result<()> {
        publishable(table)?;
        let sql = format!("ALTER PUBLICATION {} ADD TABLE {}", quote_ident(name), member(table));
        self.execute(&format!("add {} to publication {name}", table.name), &sql).await
    }

    /// Takes one table out of the publication.
    pub async fn remove_from_publication(&self, name: &str, table: &TableName) -> Result<()> {
        // each child of plain inheritance is a table of its own
        let (publication, table_sql) = (quote_ident(name), table.to_sql());
        let sql = format!("ALTER PUBLICATION {publication} DROP TABLE ONLY {table_sql}");
        self.execute(&format!("remove {table} from publication {name}"), &sql).await
    }

    /// Drops the publication; `false` if there was none.
    pub async fn drop_publication(&self, name: &str) -> Result<bool> {
        if self.publication(name).await?.is_none() {
            return Ok(false);
        }
        let sql = format!("DROP PUBLICATION IF EXISTS {}", quote_ident(name));
        self.execute(&format!("drop publication {name}"), &sql).await?;
        Ok(true)
    }
}

/// Whether the table may be in a publication of ours.
fn publishable(table: &SourceTable) -> Result<()> {
    let reason = match table.kind {
        TableKind::Table | TableKind::PartitionRoot if Identity::of(table).is_some() => {
            return Ok(());
        }
        TableKind::Table | TableKind::PartitionRoot => {
            "its rows have no replica identity; hint: add a primary key or set REPLICA IDENTITY FULL"
        }
        TableKind::Partition => "it is a partition; hint: it is replicated through its root",
        TableKind::Foreign => "foreign tables are not replicated",
        TableKind::Unlogged => "unlogged tables are not replicated; hint: ALTER TABLE … SET LOGGED",
    };
    Err(Error::SchemaConflict { table: table.name.clone(), reason: reason.to_owned() })
}

fn create_sql(name: &str, tables: &[SourceTable], publishes_generated: bool) -> String {
    let members: Vec<String> = tables.iter().map(member).collect();
    let for_tables = match members.is_empty() {
        true => String::new(),
        false => format!(" FOR TABLE {}", members.join(", ")),
    };
    let generated = match publishes_generated {
        true => ", publish_generated_columns = stored",
        false => "",
    };
    format!(
        "CREATE PUBLICATION {}{for_tables} WITH (publish = 'insert, update, delete, truncate', \
         publish_via_partition_root = true{generated})",
        quote_ident(name),
    )
}

/// ONLY keeps the children of plain inheritance out: each is a table of its own.
fn member(table: &SourceTable) -> String {
    match table.kind {
        TableKind::PartitionRoot => table.name.to_sql(),
        _ => format!("ONLY {}", table.name.to_sql()),
    }
}
