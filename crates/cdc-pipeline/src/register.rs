//! `catalog register`: makes the catalog agree with the manifest, so that a lost catalog is made anew
//! from the lake alone. May be repeated; a catalog that is right is left as it is.

use cdc_core::TableName;
use cdc_iceberg::{CreateOutcome, SwapOutcome, TableIdent};
use cdc_manifest::{Manifest, TableEntry};

use crate::Error;
use crate::lake::Lake;
use crate::recover::iceberg_idents;
use crate::settings::LakeSettings;

/// Tries of one catalog entry whose outcome is unknown or contested.
const TRIES_MAX: u32 = 5;

/// What the catalog holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// `catalog.backend`.
    pub backend: String,
    /// Iceberg namespace.
    pub database: String,
    /// Source tables, each with its two Iceberg tables.
    pub tables: usize,
    /// Iceberg tables that were not in the catalog, or pointed elsewhere.
    pub changed: usize,
}

/// Enters every followed table of the manifest into the catalog.
///
/// A catalog entry that is ahead of the manifest stays: it is a commit that a crash kept from the
/// manifest, and readers must not see the table move backwards. Safe beside a running daemon.
///
/// # Errors
/// [`Error::NotInitialised`] without a manifest; else what the lake or the catalog said.
pub async fn register(settings: &LakeSettings) -> Result<Registered, Error> {
    let lake = Lake::open(settings)?;
    let manifest =
        lake.manifests.load().await?.ok_or_else(|| Error::NotInitialised {
            root: lake.store.location().root().to_owned(),
        })?;
    let Manifest { catalog, .. } = &manifest.value;
    let namespace = catalog.database.as_str();
    lake.tables.catalog().ensure_namespace(namespace).await.map_err(Error::catalog)?;
    let (mut tables, mut changed) = (0, 0);
    for (table, entry) in manifest.value.active_tables() {
        changed += register_pair(&lake, table, entry).await?;
        tables += 1;
    }
    let (backend, database) = (catalog.backend.clone(), catalog.database.clone());
    tracing::info!(backend, database, tables, changed, "catalog registered");
    Ok(Registered { backend, database, tables, changed })
}

/// Both Iceberg tables of a source table; how many entries were changed.
async fn register_pair(lake: &Lake, table: &TableName, entry: &TableEntry) -> Result<usize, Error> {
    let (current, changes) = iceberg_idents(table, entry)?;
    let location = |location: &Option<String>| {
        location.clone().ok_or_else(|| Error::BadManifest {
            detail: format!("table {table} has no metadata_location"),
        })
    };
    let pairs = [
        (current, location(&entry.metadata_location)?),
        (changes, location(&entry.changes_metadata_location)?),
    ];
    let mut changed = 0;
    for (ident, location) in pairs {
        changed += usize::from(register_one(lake, table, &ident, &location).await?);
    }
    Ok(changed)
}

async fn register_one(
    lake: &Lake,
    table: &TableName,
    ident: &TableIdent,
    location: &str,
) -> Result<bool, Error> {
    let (catalog, files) = (lake.tables.catalog(), lake.tables.files());
    let wrong = || Error::iceberg(table);
    // an entry must name metadata that is there and reads
    files.load_metadata(location).await.map_err(wrong())?;
    for _ in 0..TRIES_MAX {
        let Some(pointer) = catalog.pointer(ident).await.map_err(wrong())? else {
            match catalog.create(ident, location).await.map_err(wrong())? {
                CreateOutcome::Created => return Ok(true),
                CreateOutcome::Exists(_) | CreateOutcome::Unknown(_) => continue,
            }
        };
        if pointer == location || is_ahead(lake, &pointer, location).await {
            return Ok(false);
        }
        match catalog.swap(ident, &pointer, location).await.map_err(wrong())? {
            SwapOutcome::Swapped => return Ok(true),
            SwapOutcome::Conflict | SwapOutcome::Unknown(_) => {}
        }
    }
    Err(Error::OutcomeUnknown { table: table.clone() })
}

/// Whether the metadata that the catalog names was made from the one that the manifest names.
async fn is_ahead(lake: &Lake, pointer: &str, location: &str) -> bool {
    match lake.tables.files().load_metadata(pointer).await {
        Ok(metadata) => metadata.metadata_log().iter().any(|entry| entry.metadata_file == location),
        Err(error) => {
            let error = cdc_core::chain(&error);
            tracing::warn!(pointer, error, "the catalog names metadata that cannot be read");
            false
        }
    }
}
