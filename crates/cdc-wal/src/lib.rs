//! PostgreSQL logical replication as ordered transactions.

mod conn;
mod error;

pub use conn::{
    Address, Conn, Connector, CredentialProvider, Endpoint, Established, Host, PINNED_SETTINGS,
    SqlConnection, SslMode, TargetSession, TlsPolicy, UrlCredentials, assert_pinned, dial,
    pinned_options,
};
pub use error::{BoxError, Error, Result, ServerClass, ServerMessage};
