//! What a commit does to a table, and how a commit can end.

use std::collections::BTreeSet;
use std::sync::Arc;

use cdc_core::TableSchema;
use iceberg::spec::{DataFile, ManifestContentType};
use uuid::Uuid;

use crate::{Branch, DeleteEncoding, Error, Retention, Stamp, Table, TableIdent};

/// One commit on one table: exactly one new snapshot.
#[derive(Clone, Debug)]
pub struct TableChange {
    /// Which batch, for the snapshot's summary.
    pub stamp: Stamp,
    /// The branch that moves.
    pub branch: Branch,
    /// New data files. They and `delete_files` get the same sequence number, so the position
    /// deletes reach rows of these files too.
    pub data_files: Vec<DataFile>,
    /// New position delete files, or deletion vectors.
    pub delete_files: Vec<DataFile>,
    /// How deletes are recorded from here on. [`DeleteEncoding::Vector`] raises the format of a table
    /// that is older; [`DeleteEncoding::Position`] leaves it as it is.
    pub encoding: DeleteEncoding,
    /// What leaves the table.
    pub remove: Remove,
    /// Which older snapshots the table keeps besides the new one and its parent; all of them
    /// without. To forget in the commit itself costs no metadata file of its own.
    pub retention: Option<Retention>,
    /// What a current-state table becomes in the same commit. All its rows must be in `data_files`,
    /// under this schema.
    pub schema: Option<NewSchema>,
}

/// A schema that comes with rows which fit no other: table and rows change in one commit or not at
/// all.
#[derive(Clone, Debug)]
pub struct NewSchema {
    /// The columns and the identity.
    pub schema: Arc<TableSchema>,
    /// The same in the caller's own form, kept as [`Table::schema_record`] and as
    /// [`Table::filled_record`].
    pub record: String,
}

/// The files that a commit takes out of a table. No object is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Remove {
    /// None.
    #[default]
    Nothing,
    /// All that the parent snapshot has, delete files included.
    Everything,
    /// These data and delete files, and deletes that name only one of these data files.
    Files(BTreeSet<EntryRef>),
    /// These delete files and deletion vectors; all data files stay.
    Deletes(BTreeSet<EntryRef>),
}

impl Remove {
    /// Whether a manifest of this content may have an entry that leaves.
    pub(crate) fn may_touch(&self, content: ManifestContentType) -> bool {
        match self {
            Remove::Nothing => false,
            Remove::Everything | Remove::Files(_) => true,
            Remove::Deletes(gone) => !gone.is_empty() && content == ManifestContentType::Deletes,
        }
    }

    /// Whether the file of an entry leaves.
    pub(crate) fn takes(&self, file: &DataFile) -> bool {
        match self {
            Remove::Nothing => false,
            Remove::Everything => true,
            Remove::Deletes(gone) => gone.contains(&EntryRef::of(file)),
            Remove::Files(gone) => {
                let named = file.referenced_data_file();
                gone.contains(&EntryRef::of(file))
                    || named.is_some_and(|named| gone.contains(&EntryRef::from(named)))
            }
        }
    }
}

/// What tells a file of a table from all others: deletion vectors may share one location.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryRef {
    /// URI.
    pub location: String,
    /// Where a deletion vector begins; `None` for a whole file.
    pub offset: Option<i64>,
}

impl EntryRef {
    /// The file of a manifest entry.
    pub(crate) fn of(file: &DataFile) -> EntryRef {
        EntryRef { location: file.file_path().to_owned(), offset: file.content_offset() }
    }
}

impl From<String> for EntryRef {
    fn from(location: String) -> EntryRef {
        EntryRef { location, offset: None }
    }
}

impl TableChange {
    /// Adds data files.
    pub fn append(stamp: Stamp, branch: Branch, data_files: Vec<DataFile>) -> Self {
        Self::row_delta(stamp, branch, data_files, Vec::new())
    }

    /// Adds data files and deletes.
    pub fn row_delta(
        stamp: Stamp,
        branch: Branch,
        data_files: Vec<DataFile>,
        delete_files: Vec<DataFile>,
    ) -> Self {
        let encoding = DeleteEncoding::of(&delete_files);
        let remove = Remove::Nothing;
        let (retention, schema) = (None, None);
        Self { stamp, branch, data_files, delete_files, encoding, remove, retention, schema }
    }

    /// Puts data files in the place of everything that was there.
    pub fn replace_all(stamp: Stamp, branch: Branch, data_files: Vec<DataFile>) -> Self {
        Self { remove: Remove::Everything, ..Self::append(stamp, branch, data_files) }
    }

    /// The same with a bound on the snapshots that the table keeps.
    #[must_use]
    pub fn keeping(self, retention: Retention) -> Self {
        Self { retention: Some(retention), ..self }
    }
}

/// One flush of one source table: a row delta on `t` and an append on `t__changes`.
#[derive(Clone, Debug)]
pub struct FlushChange {
    /// Which batch.
    pub stamp: Stamp,
    /// The branch of `t` that moves. The changelog moves on the same branch.
    pub branch: Branch,
    /// The delta files as data files of `t`.
    pub current_files: Vec<DataFile>,
    /// Position deletes or deletion vectors on `t`.
    pub delete_files: Vec<DataFile>,
    /// What leaves `t` (a truncate takes everything).
    pub remove: Remove,
    /// The same delta files as data files of `t__changes`.
    pub changes_files: Vec<DataFile>,
}

/// How a commit ended.
#[derive(Debug)]
#[must_use]
pub enum CommitOutcome {
    /// The commit is in the table: just now, or by an earlier try of the same batch.
    Committed(Table),
    /// The commit is not in the table, and somebody else's is. Nothing was deleted.
    NotCommitted(Conflict),
    /// Whether it is in the table could not be found out. No file may be removed; ask again with
    /// [`crate::Committer::resolve`].
    Unknown(Box<Unresolved>),
}

/// Somebody else moved the table.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The table as it stands.
    pub current: Table,
}

/// A commit that may or may not have been applied.
#[derive(Debug)]
pub struct Unresolved {
    /// The table.
    pub ident: TableIdent,
    /// The batch, where the commit has a snapshot.
    pub batch_id: Option<Uuid>,
    /// The branch it was for.
    pub branch: Branch,
    /// The metadata the commit was built on.
    pub base_location: String,
    /// The metadata file of the commit; it is complete and durable.
    pub new_location: String,
    /// What went wrong.
    pub source: Error,
}

impl CommitOutcome {
    /// The table after a commit, or `None`.
    pub fn committed(self) -> Option<Table> {
        match self {
            CommitOutcome::Committed(table) => Some(table),
            CommitOutcome::NotCommitted(_) | CommitOutcome::Unknown(_) => None,
        }
    }
}
