//! PostgreSQL logical replication as ordered transactions.

mod conn;
mod error;

pub use conn::{PINNED_SETTINGS, assert_pinned, pinned_options};
pub use error::{BoxError, Error, Result, ServerClass, ServerMessage};
