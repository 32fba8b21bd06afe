//! In which Iceberg format each table of a lake is, as its metadata says. Reads the lake alone: no
//! catalog is asked and nothing is written.

use std::sync::Arc;

use cdc_core::TableName;
use cdc_iceberg::{DeleteEncoding, LakeFiles};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Error;
use crate::lake::existing;
use crate::settings::LakeSettings;

/// Metadata files read at a time.
const READS_MAX: usize = 8;

/// The format of an Iceberg table.
#[derive(Clone, Debug)]
pub struct TableFormat {
    /// The source table.
    pub table: TableName,
    /// Its name in the catalog.
    pub iceberg_table: String,
    /// The Iceberg format version.
    pub version: u8,
    /// How its deletes are recorded.
    pub deletes: DeleteEncoding,
    /// Whether it is the changelog, which has no deletes.
    pub is_changelog: bool,
}

/// The formats of all tables that are followed, the changelog behind its table.
///
/// # Errors
/// [`Error::NotInitialised`], or when the lake cannot be read.
pub async fn table_formats(lake: &LakeSettings) -> Result<Vec<TableFormat>, Error> {
    let (store, manifest) = existing(&lake.storage).await?;
    let files = LakeFiles::new(Arc::clone(store.store()), store.location().clone());
    let named = manifest.active_tables().flat_map(|(table, entry)| {
        let current = (&entry.iceberg_table, &entry.metadata_location, false);
        let changes = (&entry.changes_iceberg_table, &entry.changes_metadata_location, true);
        [current, changes].map(|named| (table.clone(), named))
    });
    let reads = named.filter_map(|(table, (name, location, is_changelog))| {
        let (name, location) = (name.clone()?, location.clone()?);
        Some(read(&files, table, name, location, is_changelog))
    });
    stream::iter(reads.collect::<Vec<_>>()).buffered(READS_MAX).try_collect().await
}

async fn read(
    files: &LakeFiles,
    table: TableName,
    iceberg_table: String,
    location: String,
    is_changelog: bool,
) -> Result<TableFormat, Error> {
    let metadata = files.load_metadata(&location).await.map_err(Error::iceberg(&table))?;
    let format = metadata.format_version();
    Ok(TableFormat {
        table,
        iceberg_table,
        version: format as u8,
        deletes: DeleteEncoding::of_format(format),
        is_changelog,
    })
}
