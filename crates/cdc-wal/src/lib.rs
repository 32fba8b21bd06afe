//! PostgreSQL logical replication as ordered transactions.
//!
//! [`Source`] is the type to know: from a libpq URL it opens [`Control`] sessions (discovery,
//! preflight, publication, slots) and [`SnapshotReader`]s (COPY at the slot's consistent point);
//! [`WalStream`] goes on from there.
//!
//! ```no_run
//! # async fn run() -> cdc_wal::Result<()> {
//! use cdc_wal::{ResumePoint, SlotSpec, Source, SourceOptions, StreamOptions, WalStream};
//!
//! let url = "postgresql://cdc@db.example/shop?sslmode=verify-full".to_owned();
//! let source = Source::new(&url.into(), SourceOptions::default())?;
//! let control = source.connect().await?;
//! let tables = control.discover(&["public".to_owned()]).await?;
//! control.ensure_publication("shop_pub", &tables).await?;
//! let slot = source.create_slot(&SlotSpec::new("shop_slot")).await?;
//! let at = ResumePoint {
//!     system_id: slot.system_identifier,
//!     timeline: slot.timeline,
//!     slot: slot.slot,
//!     lsn: slot.consistent_point,
//! };
//! let stream = WalStream::open(source.connector(), at, StreamOptions::new("shop_pub")).await?;
//! # drop(stream);
//! # Ok(())
//! # }
//! ```

mod conn;
mod control;
mod discover;
mod error;
#[cfg(test)]
mod fuzz;
mod pgoutput;
mod preflight;
mod publication;
mod session;
mod slot;
mod snapshot;
mod spool;
mod stream;

pub use conn::{
    Address, Conn, Connector, CredentialProvider, Dialer, Endpoint, Established, Host,
    PINNED_SETTINGS, SocketDialer, SqlConnection, SslMode, TargetSession, TlsPolicy,
    UrlCredentials, assert_pinned, dial, pinned_options,
};
pub use control::{
    Control, OldestTransaction, ParseProviderError, Provider, SlotLag, Source, SourceFacts,
    SourceOptions, Transport,
};
pub use discover::{Attribute, TableShape};
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
    SpoolOptions, StreamOptions, WalStream,
};
