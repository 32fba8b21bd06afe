//! A table that cannot go on while the others can: which errors stop one table only, how that is
//! told, and what the manifest says of the table from then on.
//!
//! ```text
//! row, description or encoder ──error of one table──> Stop (log) ──> lane dropped, changes ignored
//!                                                       └─> next commit: quarantined, gap opened
//! ```
//! The state is in the manifest and nowhere else. A crash before that commit meets the same error
//! again; after it, the table is not read any more until it is resynced.

use cdc_core::{Lsn, TableName};
use cdc_manifest::{Manifest, TableState};

use crate::Error;
use crate::settings::OnError;

/// A table that stopped, on its way into the manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// The table.
    pub(crate) table: TableName,
    /// Why, without any value.
    pub(crate) reason: String,
    /// Up to here the lake has all its changes.
    pub(crate) lsn_from: Lsn,
}

impl Stop {
    /// Turns an error that is about one table into its stop, and says so in the log. Every other
    /// error comes back, and all do under [`OnError::Halt`].
    pub(crate) fn of(
        table: &TableName,
        error: Error,
        lsn_from: Lsn,
        on_error: OnError,
    ) -> Result<Stop, Error> {
        if on_error == OnError::Halt || !is_of_one_table(&error) {
            return Err(error);
        }
        let (reason, remedy) = explain(table, &error);
        let column = match &error {
            Error::Sink(source) => source.column(),
            _ => None,
        };
        tracing::error!(
            %table,
            column,
            reason,
            %lsn_from,
            hint = remedy,
            runbook = "table-quarantined",
            "table quarantined"
        );
        Ok(Stop { table: table.clone(), reason, lsn_from })
    }
}

/// Puts stops into the manifest that follows `before`.
pub(crate) fn record(next: &mut Manifest, stops: &[Stop], before: &Manifest) {
    for stop in stops {
        if let Some(entry) = next.tables.get_mut(&stop.table) {
            entry.quarantine(&stop.reason, stop.lsn_from, before.epoch);
        }
    }
}

/// The quarantined tables in one line, for `live.json`.
pub(crate) fn summary(manifest: &Manifest) -> Option<String> {
    let of = |(table, entry): (&TableName, &cdc_manifest::TableEntry)| {
        let reason = entry.reason.as_deref().unwrap_or("no reason kept");
        (entry.state == Some(TableState::Quarantined)).then(|| format!("{table}: {reason}"))
    };
    let quarantined: Vec<String> = manifest.active_tables().filter_map(of).collect();
    let (first, others) = quarantined.split_first()?;
    let more = match others.len() {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    Some(format!("table quarantined: {first}{more}; hint: `pgcdc status --json` has all of them"))
}

fn is_of_one_table(error: &Error) -> bool {
    match error {
        Error::Sink(source) => source.is_table_local(),
        Error::SchemaChanged { .. } => true,
        _ => false,
    }
}

/// The reason, and what makes the table whole again.
pub(crate) fn explain(table: &TableName, error: &Error) -> (String, String) {
    let resync = format!("`pgcdc table resync {table}`");
    let (text, remedy) = match error {
        Error::SchemaChanged { detail, .. } => (detail.clone(), None),
        Error::Sink(source) => parted(source.to_string()),
        other => parted(cdc_core::chain(other)),
    };
    let own = format!("{table}: ");
    let reason = text.strip_prefix("table ").unwrap_or(&text);
    let reason = reason.strip_prefix(&own).unwrap_or(&text).to_owned();
    let remedy = match remedy {
        Some(hint) if hint.contains(&resync) => hint,
        Some(hint) => format!("{hint}, then {resync}"),
        None => resync,
    };
    (reason, remedy)
}

/// A message and its hint.
fn parted(text: String) -> (String, Option<String>) {
    match text.split_once("; hint: ") {
        Some((text, hint)) => (text.to_owned(), Some(hint.to_owned())),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use cdc_core::text::Unrepresentable;

    use super::*;

    fn table() -> TableName {
        TableName::new("public", "t")
    }

    fn misfit() -> Error {
        Error::from(cdc_sink::Error::Unrepresentable {
            table: table(),
            column: "odd".into(),
            value: Unrepresentable::NotFinite,
        })
    }

    #[test]
    fn a_value_stops_its_table_with_the_line_that_accepts_it() {
        let (reason, remedy) = explain(&table(), &misfit());
        assert_eq!(reason, "column odd: NaN or infinity in a decimal column");
        assert!(remedy.starts_with("set `types.columns:"), "{remedy}");
        assert!(remedy.ends_with(", then `pgcdc table resync public.t`"), "{remedy}");
        let stop = Stop::of(&table(), misfit(), Lsn(7), OnError::Pause).unwrap();
        assert_eq!(stop, Stop { table: table(), reason, lsn_from: Lsn(7) });
    }

    #[test]
    fn halt_and_errors_of_more_than_one_table_stop_everything() {
        assert!(Stop::of(&table(), misfit(), Lsn(7), OnError::Halt).is_err());
        for error in [Error::StreamEnded, Error::ManifestConflict] {
            assert!(Stop::of(&table(), error, Lsn(7), OnError::Pause).is_err());
        }
    }

    #[test]
    fn a_missing_row_names_the_remedy_once() {
        let error = Error::from(cdc_sink::Error::MissingRow { table: table() });
        let (reason, remedy) = explain(&table(), &error);
        assert_eq!(reason, "an update or delete names a row that the lake does not have");
        assert_eq!(remedy, "`pgcdc table resync public.t`");
    }
}
