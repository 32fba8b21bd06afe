//! What may be asked for a table, in which state it may be asked, and what the manifest says then.

use std::fmt;

use cdc_core::{Epoch, Lsn, TableName};
use cdc_manifest::{Manifest, TableEntry, TableState, layout};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The reason of a table whose first copy is under way.
const ADDING: &str = "its first copy is not complete";
/// The reason of a table that is copied anew.
const RESYNC: &str = "resync";
/// The reason of a table that the operator paused.
const PAUSED: &str = "paused";
/// The reason of a table that the operator removed.
pub(crate) const REMOVED: &str = "removed";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableAction {
    /// Follow a table that is not followed.
    Add,
    /// Stop following it; its files stay.
    Remove,
    /// Copy it again.
    Resync,
    /// Write its changes no more.
    Pause,
    /// Copy it again behind a pause.
    Resume,
}

impl TableAction {
    /// Whether a copy follows, which takes its time.
    pub fn copies(self) -> bool {
        matches!(self, TableAction::Add | TableAction::Resync | TableAction::Resume)
    }
}

impl fmt::Display for TableAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TableAction::Add => "add",
            TableAction::Remove => "remove",
            TableAction::Resync => "resync",
            TableAction::Pause => "pause",
            TableAction::Resume => "resume",
        })
    }
}

/// What becomes of a table in the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// It is to be copied for the first time, or anew after it was removed.
    Add,
    /// It is to be copied anew.
    Resync,
    Pause,
    Remove,
    /// Its copy cannot be made.
    Failed {
        reason: String,
    },
}

/// A table that changes its state, on its way into the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateChange {
    pub(crate) table: TableName,
    pub(crate) transition: Transition,
}

impl StateChange {
    /// The change that an action is for a table as the manifest has it; `None` if the table has the
    /// state already.
    ///
    /// # Errors
    /// [`Error::UnknownTable`], [`Error::NotNow`], or of a directory that two tables would share.
    pub(crate) fn of(
        manifest: &Manifest,
        table: &TableName,
        action: TableAction,
    ) -> Result<Option<StateChange>, Error> {
        let entry = manifest.tables.get(table);
        let transition = match action {
            TableAction::Add => add(manifest, table, entry)?,
            TableAction::Remove if entry.is_some_and(is_removed) => None,
            other => {
                let known = entry.filter(|entry| entry.is_active() || is_being_added(entry));
                let entry = known.ok_or_else(|| Error::UnknownTable { table: table.clone() })?;
                of_known(table, entry, other)?
            }
        };
        Ok(transition.map(|transition| StateChange { table: table.clone(), transition }))
    }

    /// Whether a copy is to follow.
    pub(crate) fn wants_copy(&self) -> bool {
        matches!(self.transition, Transition::Add | Transition::Resync)
    }

    /// Puts the change into a manifest. The table has everything up to `lsn_from` and in the epochs
    /// up to `epoch_from`.
    pub(crate) fn record(&self, next: &mut Manifest, lsn_from: Lsn, epoch_from: Epoch) {
        let table = &self.table;
        if self.transition == Transition::Add {
            let entry = next.tables.entry(table.clone());
            let entry = entry.or_insert_with(|| TableEntry::excluded(table, ADDING));
            (entry.state, entry.reason) = (Some(TableState::Snapshotting), Some(ADDING.to_owned()));
            return;
        }
        let Some(entry) = next.tables.get_mut(table) else { return };
        match &self.transition {
            Transition::Add => {}
            Transition::Resync => {
                entry.stop(TableState::Resyncing, RESYNC, lsn_from, epoch_from);
            }
            Transition::Pause => entry.stop(TableState::Paused, PAUSED, lsn_from, epoch_from),
            Transition::Remove => entry.exclude(REMOVED, lsn_from, epoch_from),
            Transition::Failed { reason } if entry.is_active() => {
                entry.stop(TableState::Quarantined, reason, lsn_from, epoch_from);
            }
            Transition::Failed { reason } => {
                (entry.state, entry.reason) = (None, Some(reason.clone()));
            }
        }
    }

    /// The state that it leads to, in a word.
    pub(crate) fn word(&self) -> &'static str {
        match self.transition {
            Transition::Add => "snapshotting",
            Transition::Resync => "resyncing",
            Transition::Pause => "paused",
            Transition::Remove => "excluded",
            Transition::Failed { .. } => "failed",
        }
    }
}

/// The tables whose copy a session has to begin.
pub(crate) fn to_copy(manifest: &Manifest) -> impl Iterator<Item = &TableName> {
    let wants = |entry: &TableEntry| {
        is_being_added(entry) || entry.is_active() && entry.state == Some(TableState::Resyncing)
    };
    manifest.tables.iter().filter(move |(_, entry)| wants(entry)).map(|(table, _)| table)
}

/// Until its first copy is complete a table is not among those that readers are shown.
fn is_being_added(entry: &TableEntry) -> bool {
    !entry.is_active() && entry.state == Some(TableState::Snapshotting)
}

fn is_removed(entry: &TableEntry) -> bool {
    !entry.is_active() && entry.reason.as_deref() == Some(REMOVED)
}

fn add(
    manifest: &Manifest,
    table: &TableName,
    entry: Option<&TableEntry>,
) -> Result<Option<Transition>, Error> {
    match entry {
        Some(entry) if is_being_added(entry) => Ok(None),
        Some(entry) if entry.is_active() => {
            let hint = format!("`pgcdc table resync {table}` copies it again");
            Err(not_now(table, "it is followed already", hint))
        }
        _ => {
            let active = manifest.active_tables().map(|(table, _)| table);
            layout::check_table_dirs(active.chain([table]))?;
            Ok(Some(Transition::Add))
        }
    }
}

fn of_known(
    table: &TableName,
    entry: &TableEntry,
    action: TableAction,
) -> Result<Option<Transition>, Error> {
    use TableState::{Paused, Quarantined, Resyncing, Snapshotting};
    let remove = || format!("`pgcdc table remove {table}` ends that");
    let resync = || format!("`pgcdc table resync {table}` copies it again");
    Ok(match (action, entry.state) {
        (TableAction::Remove, _) => Some(Transition::Remove),
        (_, Some(Snapshotting)) => return Err(not_now(table, "it is being added", remove())),
        (TableAction::Resync | TableAction::Resume, Some(Resyncing)) => None,
        (TableAction::Resync, _) | (TableAction::Resume, Some(Paused)) => Some(Transition::Resync),
        (TableAction::Resume, _) => return Err(not_now(table, "it is not paused", resync())),
        (TableAction::Pause, Some(Paused)) => None,
        (TableAction::Pause, Some(Quarantined)) => {
            return Err(not_now(table, "it is quarantined and not written as it is", resync()));
        }
        (TableAction::Pause, _) => Some(Transition::Pause),
        (TableAction::Add, _) => None,
    })
}

fn not_now(table: &TableName, reason: &str, hint: String) -> Error {
    Error::NotNow { table: table.clone(), reason: reason.to_owned(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TableName {
        TableName::new("public", "t")
    }

    fn entry(state: TableState) -> TableEntry {
        TableEntry { state: Some(state), ..TableEntry::default() }
    }

    /// What an action is for a table in a state: the word of the change, nothing, or why not.
    fn decided(state: TableState, action: TableAction) -> String {
        match of_known(&table(), &entry(state), action) {
            Ok(Some(transition)) => StateChange { table: table(), transition }.word().to_owned(),
            Ok(None) => "as it is".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_action_goes_with_the_state_of_its_table() {
        use TableAction::{Pause, Remove, Resume, Resync};
        use TableState::{Paused, Quarantined, Resyncing, Snapshotting, Streaming};
        let cases = [
            (Streaming, Resync, "resyncing"),
            (Quarantined, Resync, "resyncing"),
            (Paused, Resync, "resyncing"),
            (Resyncing, Resync, "as it is"),
            (Paused, Resume, "resyncing"),
            (Resyncing, Resume, "as it is"),
            (Streaming, Pause, "paused"),
            (Resyncing, Pause, "paused"),
            (Paused, Pause, "as it is"),
            (Quarantined, Remove, "excluded"),
            (Snapshotting, Remove, "excluded"),
        ];
        for (state, action, expected) in cases {
            assert_eq!(decided(state, action), expected, "{action} of {state:?}");
        }
        let refused = [
            (Streaming, Resume, "table public.t: it is not paused; hint: `pgcdc table resync"),
            (Quarantined, Pause, "table public.t: it is quarantined"),
            (Snapshotting, Resync, "table public.t: it is being added; hint: `pgcdc table remove"),
        ];
        for (state, action, expected) in refused {
            let found = decided(state, action);
            assert!(found.starts_with(expected), "{action} of {state:?}: {found}");
        }
    }

    #[test]
    fn only_a_table_that_is_not_followed_is_added() {
        let change = |transition| StateChange { table: table(), transition };
        assert!(change(Transition::Add).wants_copy() && change(Transition::Resync).wants_copy());
        assert!(
            !change(Transition::Pause).wants_copy() && !change(Transition::Remove).wants_copy()
        );
        let excluded = TableEntry::excluded(&table(), "removed");
        assert!(!is_being_added(&excluded) && !is_being_added(&entry(TableState::Snapshotting)));
        let adding = TableEntry { state: Some(TableState::Snapshotting), ..excluded };
        assert!(is_being_added(&adding));
    }
}
