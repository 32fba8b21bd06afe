//! The lake as the write plane holds it: store, manifest, refs and catalog of one root.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cdc_core::{Clock, SystemClock};
use cdc_iceberg::{Catalog, Committer, LakeFiles, SqliteCatalog};
use cdc_manifest::{LakeStore, ManifestStore, RefsStore};

use crate::Error;
use crate::settings::LakeSettings;

/// File name of the embedded catalog below the state directory.
const CATALOG_FILE: &str = "catalog.db";

/// What a lake is made of, for whoever brings parts of their own.
#[derive(Clone)]
pub struct Components {
    /// The objects; a write is durable when it returns.
    pub store: LakeStore,
    /// The catalog of the Iceberg tables.
    pub catalog: Arc<dyn Catalog>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

/// The handles of one lake. Cheap to clone; all state is in the objects.
#[derive(Clone)]
pub(crate) struct Lake {
    /// Objects and their location.
    pub(crate) store: LakeStore,
    /// `manifest.json`.
    pub(crate) manifests: ManifestStore,
    /// `refs.json` and the raw tags.
    pub(crate) refs: RefsStore,
    /// Iceberg tables.
    pub(crate) tables: Committer,
    /// The time of day.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Lake {
    /// Opens the root and the embedded catalog, making what is missing. Blocks.
    pub(crate) fn open(settings: &LakeSettings) -> Result<Lake, Error> {
        create_state_dir(&settings.state_dir)?;
        let store = LakeStore::open(&settings.storage)?;
        let catalog =
            SqliteCatalog::open(&settings.state_dir.join(CATALOG_FILE)).map_err(Error::catalog)?;
        Ok(Lake::over(Components {
            store,
            catalog: Arc::new(catalog),
            clock: Arc::new(SystemClock),
        }))
    }

    /// A lake over components that are there already.
    pub(crate) fn over(components: Components) -> Lake {
        let Components { store, catalog, clock } = components;
        let files = LakeFiles::new(Arc::clone(store.store()), store.location().clone());
        Lake {
            manifests: ManifestStore::new(store.clone()),
            refs: RefsStore::new(store.clone()),
            tables: Committer::new(files, catalog, Arc::clone(&clock)),
            store,
            clock,
        }
    }
}

/// Makes the state directory, readable by its owner only: it holds positions and, later, policies.
pub(crate) fn create_state_dir(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).map_err(|source| Error::state(path, source))
}
