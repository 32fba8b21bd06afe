//! What may be asked of the daemon, and what it answers: the JSON in `args` and `result`.

use std::collections::BTreeMap;

use cdc_core::Lsn;
use serde::{Deserialize, Serialize};

use crate::compact::CompactReport;
use crate::table_ops::TableAction;

/// A request, by its `command` with its `args`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", content = "args", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Take nothing more from the stream until a cut is told. Answered by [`Held`].
    Hold {
        /// When intake goes on by itself, whatever became of the one who asked.
        max_millis: u64,
    },
    /// Go on, and close a batch exactly at `lsn`. Answered by [`Cut`].
    Cut {
        /// The request that holds intake.
        hold: i64,
        /// All transactions whose commit record lies below it are in the cut, no others.
        #[serde(with = "text")]
        lsn: Lsn,
    },
    /// Go on without a cut. Answered by null.
    Release {
        /// The request that holds intake.
        hold: i64,
    },
    /// Compare the tables with the source's catalog now. Answered by null, before that is done.
    Reconcile,
    /// Write into the manifest what was found equal. Answered by null.
    RecordVerified(VerifiedRecord),
    /// Compact as soon as nothing else is being compacted. Answered at once, by null.
    Compact(CompactOrder),
    /// Change the state of a table. Answered by null, once the manifest says so; a copy goes on from
    /// there.
    Table(TableOrder),
    /// How a run stands. Answered by [`CompactState`].
    CompactState {
        /// The request that asked for it.
        request: i64,
    },
}

/// A table operation that is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableOrder {
    /// The table, as the manifest spells it.
    pub(crate) table: String,
    /// What to do.
    pub(crate) action: TableAction,
}

/// A run that is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CompactOrder {
    /// The tables, as the manifest spells them; all if there are none.
    pub(crate) tables: Vec<String>,
    /// How long changes are kept; for ever without.
    pub(crate) retention_millis: Option<u64>,
}

/// The answer to [`Command::CompactState`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CompactState {
    /// What was done, once it is.
    pub(crate) report: Option<CompactReport>,
}

/// The answer to [`Command::Hold`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The furthest position that was received; a cut must lie above it.
    #[serde(with = "text")]
    pub(crate) received: Lsn,
}

/// The answer to [`Command::Cut`]: one committed version of the lake.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cut {
    /// The manifest's covered position.
    #[serde(with = "text")]
    pub(crate) lsn: Lsn,
    /// The newest epoch.
    pub(crate) epoch: u64,
    /// What the manifest names, by table.
    pub(crate) tables: BTreeMap<String, TableCut>,
}

/// One table of a [`Cut`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TableCut {
    /// Iceberg metadata file of the current state.
    pub(crate) metadata_location: Option<String>,
    /// Its snapshot; as text, because 64 bits do not pass through every JSON reader.
    pub(crate) snapshot_id: Option<String>,
    /// The schema that its rows have.
    pub(crate) schema_version: Option<u32>,
}

/// Tables that were equal to their source at a position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VerifiedRecord {
    /// The position.
    #[serde(with = "text")]
    pub(crate) lsn: Lsn,
    /// When they were compared.
    #[serde(with = "text")]
    pub(crate) at: chrono::DateTime<chrono::Utc>,
    /// The tables, as the manifest spells them.
    pub(crate) tables: Vec<String>,
}

/// Values as the text that they print.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub(super) fn serialize<T: Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
