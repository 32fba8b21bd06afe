//! A loaded table: an identifier, the metadata and where the metadata was read from.

use std::fmt;
use std::sync::Arc;

use cdc_core::Lsn;
use iceberg::spec::{MAIN_BRANCH, SnapshotRef, TableMetadata};
use uuid::Uuid;

use crate::first_metadata::{FILLED_PROPERTY, GENERATION_PROPERTY, SCHEMA_PROPERTY};
use crate::{DeleteEncoding, TableIdent, stamp};

/// The branch a commit goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Branch {
    /// What every engine reads.
    #[default]
    Main,
    /// Where commits wait for promotion.
    Staging,
}

impl Branch {
    /// The name of the Iceberg reference.
    pub fn as_str(self) -> &'static str {
        match self {
            Branch::Main => MAIN_BRANCH,
            Branch::Staging => "staging",
        }
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A table at one version of its metadata. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name in the catalog.
    pub ident: TableIdent,
    /// The metadata.
    pub metadata: Arc<TableMetadata>,
    /// The URI of the metadata file.
    pub metadata_location: String,
}

impl Table {
    /// The newest snapshot of a branch. A staging branch that does not exist yet stands where main
    /// stands.
    pub fn head(&self, branch: Branch) -> Option<&SnapshotRef> {
        let head = self.metadata.snapshot_for_ref(branch.as_str());
        head.or_else(|| self.metadata.current_snapshot())
    }

    /// The id of [`Table::head`].
    pub fn head_id(&self, branch: Branch) -> Option<i64> {
        self.head(branch).map(|snapshot| snapshot.snapshot_id())
    }

    /// The newest `pgcdc.lsn-to` of a branch. A batch that does not reach beyond it is in the table.
    pub fn newest_lsn_to(&self, branch: Branch) -> Option<Lsn> {
        stamp::newest_lsn_to(&self.metadata, self.head_id(branch))
    }

    /// The generation in the table's properties: daemons of a lower one cannot commit.
    pub fn generation(&self) -> Option<u64> {
        self.metadata.properties().get(GENERATION_PROPERTY)?.parse().ok()
    }

    /// How its deletes are recorded, as its format version says.
    pub fn delete_encoding(&self) -> DeleteEncoding {
        DeleteEncoding::of_format(self.metadata.format_version())
    }

    /// The schema as the last evolution left it, in the form in which it was handed over; none before
    /// the first.
    pub fn schema_record(&self) -> Option<&str> {
        self.metadata.properties().get(SCHEMA_PROPERTY).map(String::as_str)
    }

    /// The schema of the last commit that changed table and rows at once
    /// ([`NewSchema`](crate::NewSchema)), in the same form; none before the first.
    pub fn filled_record(&self) -> Option<&str> {
        self.metadata.properties().get(FILLED_PROPERTY).map(String::as_str)
    }

    /// Rows of a branch that are live: those of its data files less the deleted positions, as its
    /// newest snapshot's totals say. `None` if somebody committed without totals.
    pub fn live_rows(&self, branch: Branch) -> Option<u64> {
        let properties = &self.head(branch)?.summary().additional_properties;
        let total = |key: &str| -> Option<u64> { properties.get(key)?.parse().ok() };
        total("total-records")?.checked_sub(total("total-position-deletes")?)
    }

    /// The snapshot that committed a batch on a branch.
    pub fn find_batch(&self, branch: Branch, batch_id: Uuid) -> Option<&SnapshotRef> {
        stamp::find_batch(&self.metadata, self.head_id(branch), batch_id)
    }
}

/// The two tables of a source table.
#[derive(Clone, Debug)]
pub struct TablePair {
    /// The current state, `t`.
    pub current: Table,
    /// The changelog, `t__changes`.
    pub changes: Table,
}
