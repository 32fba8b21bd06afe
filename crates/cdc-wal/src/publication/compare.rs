//! An existing publication against the wanted tables. Pure.

use std::collections::BTreeSet;
use std::fmt;

use cdc_core::{SourceTable, TableKind, TableName, quote_ident};

use super::state::PublicationState;

/// How many tables a message lists before it only counts.
const LISTED_MAX: usize = 10;

/// How a publication differs from what is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicationDifference {
    /// Wanted and not published.
    pub missing: BTreeSet<TableName>,
    /// Published and not wanted.
    pub extra: BTreeSet<TableName>,
    /// Published with a row filter or a column list.
    pub partial: BTreeSet<TableName>,
    /// Kinds of change that are left out.
    pub missing_actions: Vec<String>,
    /// Whether `publish_via_partition_root` must be switched on.
    pub via_root_off: bool,
}

/// What differs between a publication and the wanted tables; empty if nothing.
///
/// `publish_via_partition_root` matters only where a partition root is wanted.
pub fn compare(state: &PublicationState, wanted: &[SourceTable]) -> PublicationDifference {
    let names: BTreeSet<TableName> = wanted.iter().map(|table| table.name.clone()).collect();
    let roots = wanted.iter().any(|table| table.kind == TableKind::PartitionRoot);
    PublicationDifference {
        missing: names.difference(&state.tables).cloned().collect(),
        extra: state.tables.difference(&names).cloned().collect(),
        partial: state.partial.intersection(&names).cloned().collect(),
        missing_actions: state.missing_actions.clone(),
        via_root_off: roots && !state.via_root,
    }
}

impl PublicationDifference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Statements that the owner of the publication may run.
    pub fn remedy(&self, publication: &str) -> String {
        let alter = format!("ALTER PUBLICATION {}", quote_ident(publication));
        let mut steps = Vec::new();
        if self.via_root_off {
            steps.push(format!("{alter} SET (publish_via_partition_root = true)"));
        }
        if !self.missing_actions.is_empty() {
            steps.push(format!("{alter} SET (publish = 'insert, update, delete, truncate')"));
        }
        // leaves and roots trade places when via_root changes: the table lists are then moot
        if !self.via_root_off {
            if !self.missing.is_empty() {
                steps.push(format!("{alter} ADD TABLE {}", sql_list(&self.missing)));
            }
            if !self.extra.is_empty() {
                steps.push(format!(
                    "{alter} DROP TABLE {}, or include them in the configuration",
                    sql_list(&self.extra)
                ));
            }
        }
        if !self.partial.is_empty() {
            steps.push(format!(
                "publish {} again without row filter and column list",
                listed(&self.partial, TableName::to_string)
            ));
        }
        steps.join("; ")
    }
}

impl fmt::Display for PublicationDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let names = |tables| listed(tables, TableName::to_string);
        if !self.missing.is_empty() {
            parts.push(format!("it does not publish {}", names(&self.missing)));
        }
        if !self.extra.is_empty() {
            parts.push(format!("it publishes {} beyond the wanted tables", names(&self.extra)));
        }
        if !self.partial.is_empty() {
            parts.push(format!("it publishes only a part of {}", names(&self.partial)));
        }
        if !self.missing_actions.is_empty() {
            parts.push(format!("it leaves out {}", self.missing_actions.join(", ")));
        }
        if self.via_root_off {
            parts.push("publish_via_partition_root is off".to_owned());
        }
        f.write_str(&parts.join("; "))
    }
}

/// All names as SQL: a statement to copy must be complete.
fn sql_list(tables: &BTreeSet<TableName>) -> String {
    tables.iter().map(TableName::to_sql).collect::<Vec<_>>().join(", ")
}

fn listed(tables: &BTreeSet<TableName>, show: impl Fn(&TableName) -> String) -> String {
    let mut names: Vec<String> = tables.iter().take(LISTED_MAX).map(show).collect();
    if tables.len() > LISTED_MAX {
        names.push(format!("and {} more", tables.len() - LISTED_MAX));
    }
    names.join(", ")
}
