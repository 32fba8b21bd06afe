//! PostgreSQL logical replication as ordered transactions.

mod conn;
mod error;
mod pgoutput;
mod session;
mod stream;

pub use conn::{
    Address, Conn, Connector, CredentialProvider, Endpoint, Established, Host, PINNED_SETTINGS,
    SqlConnection, SslMode, TargetSession, TlsPolicy, UrlCredentials, assert_pinned, dial,
    pinned_options,
};
pub use error::{BoxError, Error, Result, ServerClass, ServerMessage};
pub use pgoutput::{
    Message, Oids, OldKind, Relation, RelationBody, RelationCache, RelationColumn,
    ReplicaIdentityKind, Tuples, decode,
};
pub use stream::{
    AckToken, Acker, Block, Coalesce, Commit, Event, Events, IdleMark, Progress, ResumePoint,
    StreamOptions, WalStream,
};
