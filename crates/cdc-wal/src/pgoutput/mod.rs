//! The pgoutput decoder: bytes of one message to borrowed cells, and the relations they belong to.

mod message;
mod reader;
mod relation;

pub use message::{Message, Oids, OldKind, RelationBody, Tuples, decode};
pub use relation::{Relation, RelationCache, RelationColumn, ReplicaIdentityKind};
