//! The lake as the write plane holds it: store, manifest, refs and catalog of one root.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use cdc_core::{Clock, SystemClock};
use cdc_iceberg::{Branch, Catalog, Committer, DeleteEncoding, LakeFiles, SqliteCatalog};
use cdc_manifest::{LakeStore, Manifest, ManifestStore, PromotionMode, RefsStore, StorageSpec};

use crate::Error;
use crate::metered_store::MeteredStore;
use crate::meters::Meters;
use crate::settings::LakeSettings;

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

/// The store and the manifest of a lake that exists; nothing is made or tidied up, a daemon may be at
/// work on it.
pub(crate) async fn existing(storage: &StorageSpec) -> Result<(LakeStore, Manifest), Error> {
    if let StorageSpec::Filesystem { path } = storage
        && !path.exists()
    {
        return Err(Error::NotInitialised { root: path.display().to_string() });
    }
    let store = LakeStore::open_read_only(storage)?;
    let manifest = ManifestStore::new(store.clone()).load().await?;
    let root = || store.location().root().to_owned();
    let manifest = manifest.ok_or_else(|| Error::NotInitialised { root: root() })?.value;
    Ok((store, manifest))
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
    /// What is counted.
    pub(crate) meters: Meters,
    /// The branch of the Iceberg tables that commits go to.
    pub(crate) branch: Branch,
    /// How deleted rows are recorded (`iceberg.deletes`).
    pub(crate) deletes: DeleteEncoding,
}

impl Lake {
    /// How `main` advances.
    pub(crate) fn promotion(&self) -> PromotionMode {
        match self.branch {
            Branch::Main => PromotionMode::Auto,
            Branch::Staging => PromotionMode::Manual,
        }
    }

    /// Opens the root and the embedded catalog, making what is missing. Blocks.
    pub(crate) fn open(settings: &LakeSettings) -> Result<Lake, Error> {
        Lake::open_metered(settings, Meters::default())
    }

    /// The same, with what is done to it counted in `meters`.
    pub(crate) fn open_metered(settings: &LakeSettings, meters: Meters) -> Result<Lake, Error> {
        create_state_dir(&settings.state_dir)?;
        let store = LakeStore::open(&settings.storage)?;
        let catalog = settings.state_dir.join(SqliteCatalog::FILE_NAME);
        let catalog = SqliteCatalog::open(&catalog).map_err(Error::catalog)?;
        let components = Components {
            store: store.behind(|inner| Arc::new(MeteredStore { inner, meters: meters.clone() })),
            catalog: Arc::new(catalog),
            clock: Arc::new(SystemClock),
        };
        let branch = match settings.promotion {
            PromotionMode::Auto => Branch::Main,
            PromotionMode::Manual => Branch::Staging,
        };
        let deletes = settings.deletes;
        Ok(Lake { branch, deletes, ..Lake::over(components, meters) })
    }

    /// A lake over components that are there already.
    pub(crate) fn over(components: Components, meters: Meters) -> Lake {
        let Components { store, catalog, clock } = components;
        let files = LakeFiles::new(Arc::clone(store.store()), store.location().clone());
        Lake {
            manifests: ManifestStore::new(store.clone()),
            refs: RefsStore::new(store.clone()),
            tables: Committer::new(files, catalog, Arc::clone(&clock)),
            store,
            clock,
            meters,
            branch: Branch::Main,
            deletes: DeleteEncoding::default(),
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
