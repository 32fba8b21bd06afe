//! The control connection: catalog queries, privileges, publication and slot bookkeeping, COPY.
//!
//! It is an ordinary SQL session over the same sockets and TLS as the replication stream
//! ([`crate::Endpoint`]), with the same pinned settings, so that a value reads the same in a
//! snapshot and in the stream.

mod facts;
mod health;
mod provider;
mod session;
mod source;

pub(crate) use facts::parse_lsn;
pub use facts::{SourceFacts, Transport};
pub use health::{OldestTransaction, SlotLag};
pub use provider::{ParseProviderError, Provider};
pub use session::Control;
pub(crate) use session::get;
pub use source::{Source, SourceOptions};
