//! The one error of this crate, and what a caller does about each variant.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cdc_core::{ErrorKind, Lsn, TableName};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A boxed foreign error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What an error of the server means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerClass {
    /// May succeed if tried again: shutdown, too many connections, a cut link.
    Transient,
    /// The slot no longer holds the position: a new snapshot is needed.
    SlotLost,
    /// Somebody else is reading the slot.
    SlotBusy,
    /// An object, a setting or a privilege is missing; somebody must act.
    Config,
    /// The login was refused.
    Auth,
    /// Anything else.
    Fatal,
}

impl ServerClass {
    /// The class of an SQLSTATE
    /// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>) with the message, which
    /// alone tells a lost slot from a busy one.
    pub fn of(sqlstate: &str, message: &str) -> Self {
        match sqlstate {
            "55006" => Self::SlotBusy,
            "55000" if is_lost_slot(message) => Self::SlotLost,
            "42704" if message.contains("replication slot") => Self::SlotLost,
            "58P01" if message.contains("requested WAL segment") => Self::SlotLost,
            // 57P0x shutdown and crash, 53xxx resources, 08xxx connection, 40xxx rollback
            "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "55P03" | "25P03" => Self::Transient,
            "28000" | "28P01" => Self::Auth,
            _ => match sqlstate.get(..2) {
                Some("08" | "53" | "40") => Self::Transient,
                Some("0A" | "22" | "28" | "3D" | "3F" | "42" | "55" | "F0") => Self::Config,
                _ => Self::Fatal,
            },
        }
    }

    fn kind(self) -> ErrorKind {
        match self {
            Self::Transient | Self::SlotBusy => ErrorKind::Transient,
            Self::SlotLost => ErrorKind::Gap,
            Self::Config => ErrorKind::Invalid,
            Self::Auth => ErrorKind::Denied,
            Self::Fatal => ErrorKind::Internal,
        }
    }
}

fn is_lost_slot(message: &str) -> bool {
    ["invalidated", "can no longer get changes", "can no longer access replication slot"]
        .iter()
        .any(|part| message.contains(part))
}

/// An ErrorResponse or NoticeResponse of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `WARNING` …, never localised.
    pub severity: String,
    /// The five characters of the SQLSTATE.
    pub sqlstate: String,
    /// Primary message.
    pub message: String,
    /// Detail, if any.
    pub detail: Option<String>,
    /// Hint, if any.
    pub hint: Option<String>,
}

impl ServerMessage {
    /// What it means.
    pub fn class(&self) -> ServerClass {
        ServerClass::of(&self.sqlstate, &self.message)
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)?;
        if let Some(detail) = &self.detail {
            write!(f, ": {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that can go wrong between us and the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection URL cannot be used. Never holds the URL: it may contain a password.
    #[error(
        "the connection url is not usable: {reason}; hint: the form is postgresql://user@host:port/database?sslmode=require"
    )]
    Url {
        /// What is wrong with it.
        reason: String,
    },
    /// No connection to the server.
    #[error("cannot connect to {target}")]
    Connect {
        /// `host:port` or the socket's path.
        target: String,
        /// Cause.
        source: std::io::Error,
    },
    /// No host of the URL is of the kind that `target_session_attrs` asks for.
    #[error("no host is {wanted}; hint: check target_session_attrs in the connection url")]
    NoSuitableHost {
        /// The wanted session attributes.
        wanted: String,
    },
    /// The TLS session cannot be set up.
    #[error(
        "tls with {target} failed: {reason}; hint: check sslmode, sslrootcert, sslcert and sslkey"
    )]
    Tls {
        /// `host:port`, or the file at fault.
        target: String,
        /// What failed.
        reason: String,
    },
    /// A file named by the connection URL cannot be read.
    #[error("cannot read {}; hint: check the path and its permissions", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The login failed before or without an answer of the server.
    #[error("cannot log in as {user}: {reason}")]
    Auth {
        /// Role name.
        user: String,
        /// What failed.
        reason: String,
    },
    /// A credential provider failed.
    #[error("cannot get a credential for {user}")]
    Credential {
        /// Role name.
        user: String,
        /// Cause.
        source: BoxError,
    },
    /// The server refused.
    #[error("{context}: {message}")]
    Server {
        /// What was being done, such as `start replication from slot "a"`.
        context: String,
        /// The server's words.
        message: Box<ServerMessage>,
    },
    /// A control query failed without an answer of the server.
    #[error("{context}")]
    Query {
        /// What was being done.
        context: String,
        /// Cause.
        source: tokio_postgres::Error,
    },
    /// The connection broke.
    #[error("the connection to the source broke while {context}")]
    Io {
        /// What was being done.
        context: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The server ended the stream without an error.
    #[error("the server ended the replication stream: {reason}")]
    Closed {
        /// What it said.
        reason: String,
    },
    /// The server is shutting down and waits for us; the position was not confirmed in time.
    #[error(
        "the server is shutting down and what it sent up to {wal_end} was not made durable within {grace:?}; hint: wait at least 10 s before connecting again"
    )]
    Draining {
        /// The position it waits for.
        wal_end: Lsn,
        /// How long it was let wait.
        grace: Duration,
    },
    /// The consumer left the stream unread for too long; it was closed so that the server can
    /// remove the slot's hold on its checkpointer. Open it again once the consumer has room.
    #[error("the replication stream was left unread for {after:?} and was closed")]
    Stalled {
        /// How long it was unread.
        after: Duration,
    },
    /// Bytes that the protocol does not allow here.
    #[error("unexpected bytes from the server: {reason}")]
    Protocol {
        /// What was wrong.
        reason: String,
    },
    /// A row of a relation whose description the server has not sent.
    #[error("the server sent a change of relation {oid} without describing it first")]
    UnknownRelation {
        /// `pg_class.oid`.
        oid: u32,
    },
    /// A session setting that decides how values look is not what it must be.
    #[error(
        "session setting {name} is `{found}` instead of `{expected}`; hint: a proxy or ALTER ROLE … SET must not override it"
    )]
    Setting {
        /// Setting.
        name: String,
        /// The pinned value.
        expected: String,
        /// The server's value.
        found: String,
    },
    /// The server is too old or too new.
    #[error("PostgreSQL {found} is not supported; hint: pgcdc needs PostgreSQL 14 or newer")]
    Version {
        /// `server_version_num`, or what was there instead.
        found: String,
    },
    /// The source is not the one that the position belongs to.
    #[error(
        "gap detected: {what} of the source is {found}, but the position belongs to {expected}; hint: the source was restored or replaced, start over with init"
    )]
    IdentityChanged {
        /// `system identifier` or `timeline`.
        what: &'static str,
        /// Of the position.
        expected: String,
        /// Of the source.
        found: String,
    },
    /// The slot does not exist.
    #[error("gap detected: replication slot {slot} does not exist; hint: table resync or init")]
    SlotMissing {
        /// Slot.
        slot: String,
    },
    /// The slot exists but its WAL is gone.
    #[error("gap detected: replication slot {slot} is lost ({reason}); hint: table resync or init")]
    SlotLost {
        /// Slot.
        slot: String,
        /// The server's reason.
        reason: String,
    },
    /// The slot exists but is not a pgoutput slot of this database, so it is not ours.
    #[error(
        "gap detected: replication slot {slot} is not the one that was made for this lake: {reason}; hint: table resync or init"
    )]
    SlotUnusable {
        /// Slot.
        slot: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The slot is being read by another session.
    #[error("replication slot {slot} is in use by process {pid} of the server")]
    SlotBusy {
        /// Slot.
        slot: String,
        /// Backend process, 0 if unknown.
        pid: i32,
    },
    /// A slot of this name exists already.
    #[error(
        "replication slot {slot} exists already; hint: remove it with teardown, or choose another name in replication.slot"
    )]
    SlotExists {
        /// Slot.
        slot: String,
    },
    /// The creation of the slot waited too long for a transaction that has written to end.
    #[error(
        "creating replication slot {slot} waited {waited:?} for {blocker}; hint: end that transaction and try again"
    )]
    SlotBlocked {
        /// Slot.
        slot: String,
        /// How long it was waited for.
        waited: Duration,
        /// The transaction, by process or prepared name.
        blocker: String,
    },
    /// A table was rewritten or truncated just when the snapshot was made.
    #[error("table {table} was rewritten while its snapshot was made; hint: try again")]
    TableRewritten {
        /// Table or partition.
        table: TableName,
    },
    /// The slot has moved past the position: what lies between is gone.
    #[error(
        "gap detected: replication slot {slot} was confirmed up to {confirmed}, behind which lies the wanted position {resume}; hint: table resync or init"
    )]
    Gap {
        /// Slot.
        slot: String,
        /// `confirmed_flush_lsn`.
        confirmed: Lsn,
        /// The position asked for.
        resume: Lsn,
    },
    /// Tables that are followed were taken out of the publication.
    #[error(
        "gap detected: publication {publication} leaves out {tables}, changes made meanwhile are not in the stream; hint: add them again with ALTER PUBLICATION … ADD TABLE, then `pgcdc verify` tells whether changes were lost"
    )]
    Unpublished {
        /// The publication.
        publication: String,
        /// The tables, joined by commas.
        tables: String,
    },
    /// The publication does not exist, now or at the position being read: what was committed
    /// without it is not in the stream.
    #[error(
        "gap detected: publication {publication} does not exist at the position of the slot; hint: changes made without it cannot be read, start over with init, and never drop it while the slot is in use"
    )]
    PublicationMissing {
        /// Publication.
        publication: String,
    },
    /// All sessions that may be open at once are in use.
    #[error(
        "{limit} sessions are open already, the most that may be; hint: raise source.postgres.max_conns"
    )]
    TooManySessions {
        /// The limit.
        limit: u32,
    },
    /// The publication exists but publishes something else than wanted.
    #[error("publication {publication} does not fit: {reason}; hint: {hint}")]
    PublicationMismatch {
        /// Publication.
        publication: String,
        /// What differs.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// A named object of the source does not exist.
    #[error("{what} {name} does not exist; hint: {hint}")]
    NotFound {
        /// `schema`, `table` …
        what: &'static str,
        /// Its name.
        name: String,
        /// What to do.
        hint: String,
    },
    /// A table does not have the shape it must have.
    #[error("table {table} cannot be read: {reason}")]
    SchemaConflict {
        /// Table.
        table: TableName,
        /// What is wrong.
        reason: String,
    },
    /// A named limit was reached.
    #[error("{what} exceeds the limit of {limit} bytes; hint: raise {setting}")]
    Budget {
        /// What is too big.
        what: String,
        /// The limit.
        limit: u64,
        /// The setting that holds it.
        setting: &'static str,
    },
    /// Transactions in progress cannot be kept on disk.
    #[error("cannot {operation} the spool directory {}", directory.display())]
    Spool {
        /// `make a file in`, `write to` …
        operation: &'static str,
        /// The directory.
        directory: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The thread or task that owned the connection is gone.
    #[error("the {task} ended unexpectedly")]
    TaskGone {
        /// Its name.
        task: &'static str,
    },
}

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } => ErrorKind::Unreachable,
            Self::Io { .. }
            | Self::Closed { .. }
            | Self::Draining { .. }
            | Self::Stalled { .. }
            | Self::Spool { .. }
            | Self::SlotBusy { .. }
            | Self::SlotBlocked { .. }
            | Self::TooManySessions { .. }
            | Self::TableRewritten { .. } => ErrorKind::Transient,
            Self::SlotExists { .. } => ErrorKind::Conflict,
            Self::Query { source, .. } => query_kind(source),
            Self::Url { .. }
            | Self::NoSuitableHost { .. }
            | Self::Tls { .. }
            | Self::File { .. }
            | Self::Setting { .. }
            | Self::Version { .. }
            | Self::PublicationMismatch { .. }
            | Self::SchemaConflict { .. }
            | Self::Budget { .. } => ErrorKind::Invalid,
            Self::Auth { .. } | Self::Credential { .. } => ErrorKind::Denied,
            Self::Server { message, .. } => message.class().kind(),
            Self::Protocol { .. } | Self::UnknownRelation { .. } => ErrorKind::Corrupt,
            Self::IdentityChanged { .. }
            | Self::SlotMissing { .. }
            | Self::SlotLost { .. }
            | Self::SlotUnusable { .. }
            | Self::PublicationMissing { .. }
            | Self::Unpublished { .. }
            | Self::Gap { .. } => ErrorKind::Gap,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::TaskGone { .. } => ErrorKind::Internal,
        }
    }

    /// An error of a control query: the server's answer if there is one.
    pub fn from_query(context: impl Into<String>, source: tokio_postgres::Error) -> Self {
        let context = context.into();
        match source.as_db_error() {
            Some(db) => Self::Server {
                context,
                message: Box::new(ServerMessage {
                    severity: db.severity().to_owned(),
                    sqlstate: db.code().code().to_owned(),
                    message: db.message().to_owned(),
                    detail: db.detail().map(str::to_owned),
                    hint: db.hint().map(str::to_owned),
                }),
            },
            None => Self::Query { context, source },
        }
    }

    pub(crate) fn protocol(reason: impl Into<String>) -> Self {
        Self::Protocol { reason: reason.into() }
    }
}

fn query_kind(source: &tokio_postgres::Error) -> ErrorKind {
    let io = std::error::Error::source(source).is_some_and(|cause| cause.is::<std::io::Error>());
    if source.is_closed() || io { ErrorKind::Transient } else { ErrorKind::Internal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_have_the_class_that_decides_the_next_step() {
        let cases = [
            (
                "57P01",
                "terminating connection due to administrator command",
                ServerClass::Transient,
            ),
            ("55006", "replication slot \"s\" is active for PID 12", ServerClass::SlotBusy),
            ("42704", "replication slot \"s\" does not exist", ServerClass::SlotLost),
            ("42704", "publication \"p\" does not exist", ServerClass::Config),
            (
                "55000",
                "can no longer get changes from replication slot \"s\"",
                ServerClass::SlotLost,
            ),
            ("55000", "can no longer access replication slot \"s\"", ServerClass::SlotLost),
            ("0A000", "client sent proto_version=4", ServerClass::Config),
            ("28P01", "password authentication failed for user \"u\"", ServerClass::Auth),
            ("53300", "too many clients", ServerClass::Transient),
            ("XX000", "internal", ServerClass::Fatal),
        ];
        for (sqlstate, message, class) in cases {
            assert_eq!(ServerClass::of(sqlstate, message), class, "{sqlstate} {message}");
        }
    }
}
