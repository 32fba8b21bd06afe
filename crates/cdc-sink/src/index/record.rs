//! What a run holds: one position of one identity, added or removed.

use super::FileRef;

/// Bytes of a record on disk.
pub(super) const RECORD_BYTES: usize = 28;
/// Marks a removal in the file field, whose value has 63 bits.
const TOMBSTONE: u64 = 1 << 63;

/// A row of a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The file.
    pub file: FileRef,
    /// The row in it, from 0.
    pub row: u32,
}

/// The position of one version of a row under the hash of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// Hash of the identity, from [`IdentityHasher`](super::IdentityHasher).
    pub hash: u128,
    /// Where the version is.
    pub position: Position,
}

/// A record as it stands in a run. Ordered by record; a run has each record once, added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) removed: bool,
}

impl Entry {
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        let Entry { record: Record { hash, position: Position { file, row } }, removed } = self;
        out.extend_from_slice(&hash.to_be_bytes());
        out.extend_from_slice(&(file.0 | if removed { TOMBSTONE } else { 0 }).to_be_bytes());
        out.extend_from_slice(&row.to_be_bytes());
    }

    pub(super) fn decode(bytes: &[u8; RECORD_BYTES]) -> Entry {
        let hash = hash_of(bytes);
        let (mut file, mut row) = ([0; 8], [0; 4]);
        file.copy_from_slice(&bytes[16..24]);
        row.copy_from_slice(&bytes[24..28]);
        let (file, row) = (u64::from_be_bytes(file), u32::from_be_bytes(row));
        let position = Position { file: FileRef(file & !TOMBSTONE), row };
        Entry { record: Record { hash, position }, removed: file & TOMBSTONE != 0 }
    }
}

/// The hash of an encoded record.
pub(super) fn hash_of(bytes: &[u8; RECORD_BYTES]) -> u128 {
    let mut hash = [0; 16];
    hash.copy_from_slice(&bytes[..16]);
    u128::from_be_bytes(hash)
}
