//! The identities of some rows of a lake file, by row number.

use std::sync::Arc;

use cdc_core::TableSchema;
use cdc_manifest::LakeStore;

use crate::Result;
use crate::index::IdentityHasher;
use crate::rebuild::Reader;

/// The identity hashes of these rows (ascending, no repetition) of a file, in their order. Only the
/// pages that hold them are read.
///
/// # Errors
/// [`Error::Parquet`](crate::Error::Parquet); [`Error::MissingValue`](crate::Error::MissingValue) if
/// the file lacks an identity column; [`Error::Unlocated`](crate::Error::Unlocated).
pub async fn read_identities(
    lake: &LakeStore,
    schema: &Arc<TableSchema>,
    location: &str,
    rows: &[u32],
    hasher: IdentityHasher,
) -> Result<Vec<u128>> {
    let reader = Reader { lake: lake.clone(), schema: Arc::clone(schema), hasher };
    reader.hashes_at(location, rows).await
}
