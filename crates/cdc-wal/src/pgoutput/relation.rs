//! What the server said about each relation, with a version that moves only when it said something
//! new.

use std::collections::HashMap;

use cdc_core::TableName;

use super::message::{RelationBody, Tuples};
use crate::{Error, Result};

/// One column as the Relation message has it. Generated columns that are not published are absent;
/// a domain's modifier is lost here and must come from the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationColumn {
    /// Name.
    pub name: String,
    /// `pg_type.oid`; for a domain the domain's own.
    pub type_oid: u32,
    /// The type modifier, −1 for none.
    pub typmod: i32,
    /// Whether it belongs to the replica identity.
    pub is_key: bool,
}

/// `pg_class.relreplident` as the Relation message has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentityKind {
    /// The primary key, if there is one.
    Default,
    /// A unique index.
    Index,
    /// The whole row.
    Full,
    /// Nothing.
    Nothing,
}

impl ReplicaIdentityKind {
    pub(super) fn from_byte(byte: u8) -> Result<Self> {
        Ok(match byte {
            b'd' => Self::Default,
            b'i' => Self::Index,
            b'f' => Self::Full,
            b'n' => Self::Nothing,
            other => {
                let reason = format!("replica identity {:?} is unknown", char::from(other));
                return Err(Error::protocol(reason));
            }
        })
    }
}

/// A relation as the stream describes it: the only truth about the cells that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// `pg_class.oid`.
    pub oid: u32,
    /// Schema.
    pub schema: String,
    /// Name; a rename keeps the OID.
    pub name: String,
    /// What identifies a row.
    pub replica_identity: ReplicaIdentityKind,
    /// Columns in the order of the cells.
    pub columns: Vec<RelationColumn>,
    /// 1 for the first description of this OID, one more for each that differs from the last.
    pub version: u32,
}

impl Relation {
    /// The name as the rest of the program writes it.
    pub fn table(&self) -> TableName {
        TableName::new(&self.schema, &self.name)
    }
}

#[derive(Debug)]
struct Cached {
    relation: Relation,
    bytes: Box<[u8]>,
}

/// The relations of one stream and the buffers that decoding reuses. Start a new one with each
/// stream: the server repeats its descriptions on every connection.
#[derive(Debug, Default)]
pub struct RelationCache {
    slots: Vec<Cached>,
    by_oid: HashMap<u32, usize>,
    /// The slot asked for last; changes come in runs of one relation.
    last: Option<(u32, usize)>,
    tuples: Tuples<'static>,
}

impl RelationCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current description of a relation.
    pub fn get(&self, oid: u32) -> Option<&Relation> {
        self.by_oid.get(&oid).map(|slot| &self.slots[*slot].relation)
    }

    /// Takes a Relation message in; answers the slot if it says something new.
    pub(crate) fn learn(&mut self, body: RelationBody<'_>) -> Result<Option<usize>> {
        let known = self.by_oid.get(&body.oid).copied();
        if let Some(slot) = known
            && *self.slots[slot].bytes == *body.bytes
        {
            return Ok(None);
        }
        let mut relation = body.decode()?;
        let bytes = body.bytes.into();
        let slot = match known {
            Some(slot) => {
                relation.version = self.slots[slot].relation.version + 1;
                self.slots[slot] = Cached { relation, bytes };
                slot
            }
            None => {
                relation.version = 1;
                self.slots.push(Cached { relation, bytes });
                self.by_oid.insert(body.oid, self.slots.len() - 1);
                self.slots.len() - 1
            }
        };
        Ok(Some(slot))
    }

    pub(crate) fn relation(&self, slot: usize) -> &Relation {
        &self.slots[slot].relation
    }

    /// The number of columns of a relation that must be known.
    #[inline]
    pub(crate) fn column_count(&mut self, oid: u32) -> Result<usize> {
        let slot = match self.last {
            Some((last, slot)) if last == oid => slot,
            _ => {
                let slot = *self.by_oid.get(&oid).ok_or(Error::UnknownRelation { oid })?;
                self.last = Some((oid, slot));
                slot
            }
        };
        Ok(self.slots[slot].relation.columns.len())
    }

    pub(crate) fn take_tuples<'a>(&mut self) -> Tuples<'a> {
        std::mem::take(&mut self.tuples).recycle()
    }

    pub(crate) fn return_tuples(&mut self, tuples: Tuples<'_>) {
        self.tuples = tuples.recycle();
    }
}
