//! `teardown`: gives the source back what init made there, and with consent removes the lake.

use std::collections::BTreeSet;
use std::fs;
use std::future::ready;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cdc_core::TableName;
use cdc_manifest::{LakeStore, ManifestStore, StorageSpec, layout};
use cdc_wal::Source;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::Error;
use crate::init_record::InitRecord;
use crate::lease::Lease;
use crate::settings::{LakeSettings, ReplicationSettings};

/// What was dropped and what was kept.
#[derive(Clone, Debug)]
pub struct TeardownReport {
    /// The publication, and whether it existed.
    pub publication: (String, bool),
    /// The slot, and whether it existed.
    pub slot: (String, bool),
    /// Roots and directories removed.
    pub removed: Vec<String>,
    /// Roots and directories kept: consent was not given, or they hold what is not the lake's.
    pub kept: Vec<String>,
}

/// Drops publication and slot; with `remove_lake` also the root and the state directory.
///
/// # Errors
/// [`Error::DaemonRunning`]; else what could not be dropped.
pub async fn teardown(
    lake: &LakeSettings,
    replication: &ReplicationSettings,
    source: &Source,
    remove_lake: bool,
) -> Result<TeardownReport, Error> {
    if Lease::is_held(&lake.state_dir) {
        return Err(Error::DaemonRunning);
    }
    let control = source.connect().await?;
    let slot = control.drop_slot(&replication.slot).await?;
    let publication = control.drop_publication(&replication.publication).await?;
    control.close().await;
    let mut report = TeardownReport {
        publication: (replication.publication.clone(), publication),
        slot: (replication.slot.clone(), slot),
        removed: Vec::new(),
        kept: Vec::new(),
    };
    if remove_lake {
        match &lake.storage {
            StorageSpec::Filesystem { path } => remove_directory(path, &mut report)?,
            remote => purge(remote, &lake.state_dir, &mut report).await?,
        }
        remove_directory(&lake.state_dir, &mut report)?;
        return Ok(report);
    }
    if lake.state_dir.exists() {
        InitRecord::remove(&lake.state_dir)?;
    }
    report.kept = vec![root_name(&lake.storage), lake.state_dir.display().to_string()];
    Ok(report)
}

fn root_name(storage: &StorageSpec) -> String {
    match (storage, storage.remote_root()) {
        (StorageSpec::Filesystem { path }, _) => path.display().to_string(),
        (_, Some(location)) => location.root().to_owned(),
        (other, None) => other.kind().to_owned(),
    }
}

fn remove_directory(directory: &Path, report: &mut TeardownReport) -> Result<(), Error> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::state(directory, error))
        }
        _ => {
            report.removed.push(directory.display().to_string());
            Ok(())
        }
    }
}

/// Removes the objects of a lake in a bucket, the manifest last: until then a second run knows what
/// belongs to it. A prefix is the lake's as a directory would be; a whole bucket is not, so there
/// only what the lake made goes.
async fn purge(
    storage: &StorageSpec,
    state_dir: &Path,
    report: &mut TeardownReport,
) -> Result<(), Error> {
    let lake = LakeStore::open(storage)?;
    let owned = Owned::of(&lake, state_dir).await?;
    let root = lake.location().root().to_owned();
    let failed = |source| Error::Objects { location: root.clone(), source };
    let foreign = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&foreign);
    let objects = lake.store().list(None).map_ok(|object| object.location);
    let objects = objects.try_filter(move |path| {
        let is_owned = owned.has(path.as_ref());
        counter.fetch_add(u64::from(!is_owned), Ordering::Relaxed);
        ready(is_owned && path.as_ref() != layout::MANIFEST_KEY)
    });
    let deleted = lake.store().delete_stream(objects.boxed()).try_for_each(|_| ready(Ok(())));
    deleted.await.map_err(failed)?;
    match lake.store().delete(&ObjectPath::from(layout::MANIFEST_KEY)).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(source) => return Err(failed(source)),
    }
    report.removed.push(root.clone());
    match foreign.load(Ordering::Relaxed) {
        0 => {}
        count => report.kept.push(format!("{root} ({count} objects that are not the lake's)")),
    }
    Ok(())
}

/// What of a root belongs to the lake.
enum Owned {
    /// All of it.
    Everything,
    /// The files at the top and below these directories.
    Below(BTreeSet<String>),
}

impl Owned {
    async fn of(lake: &LakeStore, state_dir: &Path) -> Result<Owned, Error> {
        // a root with a path of its own, such as s3://bucket/lake
        if lake.location().root().splitn(4, '/').nth(3).is_some() {
            return Ok(Owned::Everything);
        }
        let mut directories = BTreeSet::from([layout::REFS_DIR.to_owned()]);
        if let Some(manifest) = ManifestStore::new(lake.clone()).load().await? {
            directories.extend(manifest.value.tables.keys().map(layout::table_dir));
        }
        if let Some(record) = InitRecord::load(state_dir)? {
            let tables = record.tables.iter().filter_map(|name| name.parse::<TableName>().ok());
            directories.extend(tables.map(|table| layout::table_dir(&table)));
        }
        Ok(Owned::Below(directories))
    }

    fn has(&self, key: &str) -> bool {
        match self {
            Owned::Everything => true,
            Owned::Below(directories) => match key.split_once('/') {
                Some((directory, _)) => directories.contains(directory),
                None => layout::is_top_level(key),
            },
        }
    }
}
