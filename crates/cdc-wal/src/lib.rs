//! PostgreSQL logical replication as ordered transactions.

mod conn;
mod control;
mod discover;
mod error;
mod pgoutput;
mod preflight;
mod publication;
mod session;
mod slot;
mod snapshot;
mod stream;

pub use conn::{
    Address, Conn, Connector, CredentialProvider, Endpoint, Established, Host, PINNED_SETTINGS,
    SqlConnection, SslMode, TargetSession, TlsPolicy, UrlCredentials, assert_pinned, dial,
    pinned_options,
};
pub use control::{
    Control, OldestTransaction, ParseProviderError, Provider, SlotLag, Source, SourceFacts,
    SourceOptions, Transport,
};
pub use error::{BoxError, Error, Result, ServerClass, ServerMessage};
pub use pgoutput::{
    Message, Oids, OldKind, Relation, RelationBody, RelationCache, RelationColumn,
    ReplicaIdentityKind, Tuples, decode,
};
pub use preflight::{Check, CheckStatus, PreflightReport, Want};
pub use publication::{EnsuredPublication, PublicationDifference, PublicationState, compare};
pub use slot::{SlotSnapshot, SlotSpec, SlotState, SnapshotLease, WalStatus};
pub use snapshot::{
    BlockRange, CopyBatch, CopyJob, CopyPlanOptions, CopyRows, CopyTable, SnapshotReader,
    block_ranges,
};
pub use stream::{
    AckToken, Acker, Block, Coalesce, Commit, Event, Events, IdleMark, Progress, ResumePoint,
    StreamOptions, WalStream,
};
