//! Why the write plane could not go on, and what kind of failure it is.

use std::path::{Path, PathBuf};

use cdc_core::{ErrorKind, Lsn, TableName};

/// An error of the write plane.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The source failed.
    #[error("source")]
    Source(#[source] Box<cdc_wal::Error>),
    /// The manifest, the refs or the store failed.
    #[error("lake")]
    Manifest(#[source] Box<cdc_manifest::Error>),
    /// An Iceberg table or the catalog failed.
    #[error("table {table}")]
    Iceberg {
        /// The table.
        table: TableName,
        /// Why.
        source: Box<cdc_iceberg::Error>,
    },
    /// The catalog as a whole failed.
    #[error("catalog")]
    Catalog(#[source] Box<cdc_iceberg::Error>),
    /// Changes could not be turned into files.
    #[error("sink")]
    Sink(#[source] Box<cdc_sink::Error>),
    /// Objects could not be listed or removed.
    #[error("cannot list or remove objects below {location}")]
    Objects {
        /// The directory.
        location: String,
        /// Why.
        source: object_store::Error,
    },
    /// A file of the state directory failed.
    #[error("state file {}; hint: check that the directory of `state.path` exists and is writable", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The local database of the state directory failed.
    #[error("state database {}", path.display())]
    StateDatabase {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A control request or its answer has no readable form.
    #[error("a control request cannot be read; hint: use the same version of pgcdc as the daemon")]
    Request {
        /// Why.
        source: serde_json::Error,
    },
    /// The daemon refused a control request.
    #[error("the daemon refused: {reason}; hint: try again")]
    Refused {
        /// In the daemon's words.
        reason: String,
    },
    /// The daemon did not answer a control request.
    #[error("the daemon did not answer; hint: see its log, or whether it is just reconnecting")]
    NoAnswer,
    /// Without a daemon there are changes that the lake does not have.
    #[error(
        "the lake stands at {covered} and the source has changes behind it; hint: start the daemon, it closes a cut where both can be compared"
    )]
    Behind {
        /// The lake's position.
        covered: Lsn,
    },
    /// Without a daemon there are changes of rows that come before a change of their table.
    #[error(
        "the lake stands at {covered} and the source has changes behind it; hint: start the daemon, it applies a schema where it lies in the stream"
    )]
    BehindSchema {
        /// The lake's position.
        covered: Lsn,
    },
    /// The daemon did not apply a schema in time.
    #[error(
        "the schemas were not applied within {seconds} s; hint: see the daemon's log, it may be far behind the source"
    )]
    NotReconciled {
        /// The limit.
        seconds: u64,
    },
    /// A table that was asked for is not in the lake.
    #[error("table {table} is not in the lake; hint: `pgcdc status --json` lists its tables")]
    UnknownTable {
        /// The table.
        table: TableName,
    },
    /// What is asked for does not go with the state of the table.
    #[error("table {table}: {reason}; hint: {hint}")]
    NotNow {
        /// The table.
        table: TableName,
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A table could not be put into the publication.
    #[error(
        "table {table} cannot be put into publication {publication}; hint: as the owner of both run ALTER PUBLICATION {publication} ADD TABLE {}",
        table.to_sql()
    )]
    NotPublished {
        /// The table.
        table: TableName,
        /// The publication.
        publication: String,
        /// Why.
        source: Box<cdc_wal::Error>,
    },
    /// The copy of a table failed for good.
    #[error("table {table} was not copied: {reason}; hint: mend that and run the command again")]
    CopyFailed {
        /// The table.
        table: TableName,
        /// In the daemon's words.
        reason: String,
    },
    /// A table changes more while it is copied than may be kept.
    #[error(
        "table {table}: its changes during its copy take more than {bytes_max} bytes; hint: raise `limits.buffer_bytes`, or copy it when it changes less"
    )]
    DeferredFull {
        /// The table.
        table: TableName,
        /// The limit.
        bytes_max: usize,
    },
    /// A snapshot is not behind what the stream had brought before it was made.
    #[error(
        "the snapshot of table {table} is at {lsn}, the stream had come to {received} before; hint: source.postgres.url must lead to one server only"
    )]
    SnapshotBehind {
        /// The table.
        table: TableName,
        /// The snapshot's position.
        lsn: Lsn,
        /// The stream's.
        received: Lsn,
    },
    /// The daemon that copies a table ended.
    #[error(
        "the daemon ended before table {table} was copied; hint: start it, it copies the table then"
    )]
    CopyPending {
        /// The table.
        table: TableName,
    },
    /// A signal ended the waiting.
    #[error(
        "stopped waiting for the copy of table {table}; hint: the daemon goes on with it, `pgcdc status` tells"
    )]
    WaitStopped {
        /// The table.
        table: TableName,
    },
    /// A data file of the lake could not be read, and the store is why.
    #[error("cannot read {location}")]
    LakeFile {
        /// The file.
        location: String,
        /// Why.
        source: parquet::errors::ParquetError,
    },
    /// The comparison took too long.
    #[error(
        "verify did not end within {seconds} s; hint: raise --timeout-sec, or compare fewer tables with --table"
    )]
    VerifyTimeout {
        /// The limit.
        seconds: u64,
    },
    /// A signal ended the comparison.
    #[error("verify was stopped before it had compared everything")]
    VerifyStopped,
    /// The configuration names another slot or publication than the lake was made with.
    #[error(
        "{key} is `{found}`, but the lake was initialised with `{expected}`; hint: set {key} to `{expected}`"
    )]
    OtherName {
        /// Configuration key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What the manifest says.
        expected: String,
    },
    /// Another process holds the lease.
    #[error("{} is held by another process ({holder}); hint: only one daemon may write to a lake", path.display())]
    Leased {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself.
        holder: String,
    },
    /// There is no manifest yet.
    #[error("no manifest.json in {root}; hint: run `pgcdc init` first")]
    NotInitialised {
        /// Root of the lake.
        root: String,
    },
    /// There is a manifest already.
    #[error(
        "{root} already holds a lake (epoch {epoch}); hint: run `pgcdc start`, or `pgcdc teardown --yes` to begin anew"
    )]
    AlreadyInitialised {
        /// Root of the lake.
        root: String,
        /// Its newest epoch.
        epoch: u64,
    },
    /// The slot exists and no unfinished init of this state directory made it.
    #[error(
        "replication slot `{slot}` already exists; hint: run `pgcdc teardown`, or choose another `replication.slot`"
    )]
    SlotTaken {
        /// The slot.
        slot: String,
    },
    /// No table is left to replicate.
    #[error(
        "no table to replicate in schemas {schemas}; hint: see `pgcdc discover` for the reasons, then `source.postgres.schemas` and `tables`"
    )]
    NoTables {
        /// The schemas looked at.
        schemas: String,
    },
    /// A table was explicitly asked for, or is in scope, and cannot be replicated.
    #[error("table {table}: {reason}; hint: {hint}")]
    TableRefused {
        /// The table.
        table: TableName,
        /// Why.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A table's directory holds objects although the lake has no manifest.
    #[error(
        "{location} is not empty although there is no manifest.json; hint: choose an empty root, or remove the directory"
    )]
    NotEmpty {
        /// The directory.
        location: String,
    },
    /// A signal came while compact was at work.
    #[error("compact was interrupted; hint: what was committed stays, run it again for the rest")]
    CompactStopped,
    /// A signal came while older rows were written anew.
    #[error("{table}: older rows have no value for a new column yet; hint: the next start goes on")]
    FillStopped {
        /// The table.
        table: TableName,
    },
    /// A transaction in the middle of which a table changes must begin an epoch of its own.
    #[error("{table} changed inside a transaction; the epoch before it ends first")]
    CutNeeded {
        /// The table.
        table: TableName,
        /// The LSN of the transaction's commit record.
        final_lsn: Lsn,
    },
    /// A signal came while init was at work.
    #[error("init was interrupted; hint: nothing was left behind, run it again")]
    Interrupted,
    /// The first manifest may or may not have been written.
    #[error(
        "whether manifest.json was written could not be found out; hint: run `pgcdc init` again, it tells"
    )]
    ManifestUnknown,
    /// Two tables want the same name or directory.
    #[error(
        "tables {first} and {second} both map to `{name}`; hint: exclude one with `tables.exclude`, or set `catalog.table_naming: qualified`"
    )]
    NameCollision {
        /// One table.
        first: TableName,
        /// The other.
        second: TableName,
        /// The name both want.
        name: String,
    },
    /// A preflight check failed.
    #[error("preflight check `{check}` failed: {detail}; hint: {remediation}")]
    Preflight {
        /// The check.
        check: String,
        /// What was found.
        detail: String,
        /// What to do.
        remediation: String,
    },
    /// The source's position and the lake's do not fit together.
    #[error(
        "gap detected: {detail}; hint: changes may be missing from the lake; run `pgcdc teardown --yes` and `pgcdc init` to start from a new snapshot"
    )]
    Gap {
        /// What does not fit.
        detail: String,
    },
    /// A table's definition on the source is no longer the one in the manifest.
    #[error(
        "table {table}: {detail}; hint: `types.on_error: halt` stops here; set it to pause to quarantine this table and go on with the others"
    )]
    SchemaChanged {
        /// The table.
        table: TableName,
        /// What differs.
        detail: String,
    },
    /// The source's catalog did not answer.
    #[error("the catalog of the source did not answer within {seconds} s")]
    CatalogTimeout {
        /// The limit.
        seconds: u64,
    },
    /// `replication.truncate: halt` and a TRUNCATE arrived.
    #[error(
        "table {table} was truncated on the source at {lsn}; hint: `replication.truncate: halt` stops here; set it to apply or ignore to go on"
    )]
    Truncated {
        /// The table.
        table: TableName,
        /// Where.
        lsn: Lsn,
    },
    /// Somebody else committed to an Iceberg table in between.
    #[error(
        "table {table} was changed in the catalog by another program; hint: only pgcdc may commit to its tables; start again to go on from what is there"
    )]
    ForeignCommit {
        /// The table.
        table: TableName,
        /// The Iceberg table as it stands.
        found: Box<cdc_iceberg::Table>,
    },
    /// A table was committed to while this daemon took the lake over. The next session begins with
    /// what is there.
    #[error("table {table} was committed to while this daemon took over")]
    TableMoved {
        /// The table.
        table: TableName,
    },
    /// The manifest moved between its reading and the opening of the stream. The next session
    /// begins with what is there.
    #[error("manifest.json moved while the stream was opened")]
    LakeMoved,
    /// Another daemon took the lake over.
    #[error(
        "{holder} took this lake over with generation {found}, this process is generation {ours}; hint: only one daemon may write to a lake, stop one of the two"
    )]
    Fenced {
        /// The generation found.
        found: u64,
        /// The generation of this process.
        ours: u64,
        /// Who has the higher one.
        holder: String,
    },
    /// Other writers changed the manifest too often.
    #[error(
        "cas breaker tripped: another writer changed manifest.json {conflicts} times within {seconds} s; hint: two daemons write to this lake, stop one of them; see `flush.cas_breaker_threshold`"
    )]
    BreakerTripped {
        /// Conflicts in the window.
        conflicts: u32,
        /// The window.
        seconds: u64,
    },
    /// A commit may or may not have happened, and reading back gave no answer.
    #[error("the outcome of a commit on table {table} could not be found out")]
    OutcomeUnknown {
        /// The table.
        table: TableName,
    },
    /// An encoder ended without its part of an epoch.
    #[error("table {table} was not encoded")]
    NotEncoded {
        /// The table.
        table: TableName,
    },
    /// The stream ended although nobody asked for it.
    #[error("the replication stream ended")]
    StreamEnded,
    /// A change came outside a transaction.
    #[error("a change at {lsn} came outside a transaction")]
    OutsideTransaction {
        /// Its position.
        lsn: Lsn,
    },
    /// The manifest was changed by somebody else in between.
    #[error(
        "manifest.json was changed by another writer; hint: make sure that only one daemon writes to this lake"
    )]
    ManifestConflict,
    /// The manifest says something that cannot be acted on.
    #[error(
        "manifest.json: {detail}; hint: restore the file from a backup of the lake, or run init into a new root"
    )]
    BadManifest {
        /// What is wrong.
        detail: String,
    },
    /// The drain did not end in time.
    #[error(
        "drain did not end within {seconds} s; hint: nothing is lost, the changes are replayed at the next start; see `flush.drain_timeout_sec`"
    )]
    DrainTimeout {
        /// The limit.
        seconds: u64,
    },
    /// The daemon holds the lease, so the lake may not be taken down.
    #[error("a daemon is running on this state directory; hint: stop it first")]
    DaemonRunning,
    /// Reconnecting was given up.
    #[error(
        "gave up after {attempts} attempts to reconnect; hint: check that the server is up and the slot exists"
    )]
    ReconnectsExhausted {
        /// How many were made without progress.
        attempts: u32,
        /// The last failure.
        source: Box<cdc_wal::Error>,
    },
    /// A worker thread ended without a result.
    #[error("a worker of {task} ended without a result")]
    Worker {
        /// What it did.
        task: &'static str,
        /// Why.
        source: tokio::task::JoinError,
    },
}

impl Error {
    /// Whether another session with the source may do better. A server that refuses connections may
    /// be restarting, and while a failover is under way no host is the primary.
    pub(crate) fn is_retried(&self) -> bool {
        match self.kind() {
            ErrorKind::Transient => true,
            ErrorKind::Unreachable => matches!(self, Error::Source(_)),
            _ => {
                matches!(self, Error::Source(source) if matches!(**source, cdc_wal::Error::NoSuitableHost { .. }))
            }
        }
    }
}

impl From<cdc_wal::Error> for Error {
    fn from(source: cdc_wal::Error) -> Error {
        Error::Source(Box::new(source))
    }
}

impl From<cdc_manifest::Error> for Error {
    fn from(source: cdc_manifest::Error) -> Error {
        Error::Manifest(Box::new(source))
    }
}

impl From<cdc_sink::Error> for Error {
    fn from(source: cdc_sink::Error) -> Error {
        Error::Sink(Box::new(source))
    }
}

impl Error {
    pub(crate) fn catalog(source: cdc_iceberg::Error) -> Error {
        Error::Catalog(Box::new(source))
    }

    pub(crate) fn state(path: &Path, source: std::io::Error) -> Error {
        Error::State { path: path.to_owned(), source }
    }

    pub(crate) fn iceberg(table: &TableName) -> impl FnOnce(cdc_iceberg::Error) -> Error {
        let table = table.clone();
        move |source| Error::Iceberg { table, source: Box::new(source) }
    }

    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Source(error) | Error::ReconnectsExhausted { source: error, .. } => error.kind(),
            Error::Manifest(error) => error.kind(),
            Error::Iceberg { source, .. } | Error::Catalog(source) => source.kind(),
            Error::Sink(error) => error.kind(),
            Error::State { .. } | Error::StateDatabase { .. } | Error::LakeFile { .. } => {
                ErrorKind::Unreachable
            }
            Error::Objects { source, .. } => cdc_manifest::object_kind(source),
            Error::Request { .. } => ErrorKind::Invalid,
            Error::UnknownTable { .. } => ErrorKind::NotFound,
            Error::NotNow { .. } => ErrorKind::Denied,
            Error::NotPublished { source, .. } => source.kind(),
            Error::CopyFailed { .. } => ErrorKind::Internal,
            Error::CopyPending { .. }
            | Error::WaitStopped { .. }
            | Error::SnapshotBehind { .. } => ErrorKind::Transient,
            Error::Refused { .. }
            | Error::NoAnswer
            | Error::Behind { .. }
            | Error::BehindSchema { .. }
            | Error::NotReconciled { .. } => ErrorKind::Transient,
            Error::VerifyTimeout { .. }
            | Error::VerifyStopped
            | Error::CompactStopped
            | Error::FillStopped { .. }
            | Error::CutNeeded { .. } => ErrorKind::Transient,
            Error::Leased { .. }
            | Error::ManifestConflict
            | Error::Fenced { .. }
            | Error::BreakerTripped { .. }
            | Error::DaemonRunning => ErrorKind::Conflict,
            Error::NotInitialised { .. } => ErrorKind::NotFound,
            Error::Gap { .. } => ErrorKind::Gap,
            Error::BadManifest { .. } => ErrorKind::Corrupt,
            Error::Interrupted
            | Error::ManifestUnknown
            | Error::DrainTimeout { .. }
            | Error::OutcomeUnknown { .. }
            | Error::TableMoved { .. }
            | Error::LakeMoved
            | Error::CatalogTimeout { .. }
            | Error::StreamEnded => ErrorKind::Transient,
            Error::ForeignCommit { .. } => ErrorKind::Conflict,
            Error::Worker { .. } | Error::NotEncoded { .. } | Error::OutsideTransaction { .. } => {
                ErrorKind::Internal
            }
            Error::AlreadyInitialised { .. }
            | Error::SlotTaken { .. }
            | Error::NoTables { .. }
            | Error::NotEmpty { .. }
            | Error::OtherName { .. }
            | Error::TableRefused { .. }
            | Error::NameCollision { .. }
            | Error::Preflight { .. }
            | Error::SchemaChanged { .. }
            | Error::DeferredFull { .. }
            | Error::Truncated { .. } => ErrorKind::Invalid,
        }
    }
}
