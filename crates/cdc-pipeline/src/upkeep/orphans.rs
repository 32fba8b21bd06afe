//! The sweep: objects of a table that nothing refers to, for the grace time, are removed.
//!
//! What may be needed is read first: both Iceberg tables with every snapshot they have, the metadata
//! files and snapshots that live refs name, the manifest's base directory. Then the table's objects
//! are listed. One that is in none of them is only noted the first time; it goes when it is found so
//! again after the grace time, and is older than that itself.
//!
//! The state of the tables comes from the owner of the commits, taken while no flush was under way
//! and no rewrite: whatever is unreferenced then will not be referred to later.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{TableName, failpoint};
use cdc_iceberg::{OfSnapshots, Table, TablePair, referenced_files};
use cdc_manifest::{Manifest, Ref, layout};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio_util::sync::CancellationToken;

use super::sightings::{Sightings, due};
use crate::Error;
use crate::lake::Lake;

/// Keys that are noted, and removed, at a time.
const KEYS_AT_ONCE: usize = 1000;

/// One sweep over the tables of a lake.
pub(crate) struct Sweep {
    pub(crate) lake: Lake,
    pub(crate) manifest: Manifest,
    /// The tables as last committed; the catalog is asked for them again.
    pub(crate) pairs: BTreeMap<TableName, TablePair>,
    pub(crate) state_dir: PathBuf,
    /// `compaction.orphan_grace_sec`.
    pub(crate) grace: Duration,
    /// When the state of the tables was taken.
    pub(crate) began: DateTime<Utc>,
    pub(crate) stop: CancellationToken,
}

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Objects removed.
    pub(crate) removed: u64,
    /// Objects without a reference whose grace time is not over.
    pub(crate) waiting: u64,
}

/// What a ref names of a table, besides what the table itself has.
#[derive(Default)]
struct Named {
    /// Metadata file and snapshot, of either Iceberg table.
    snapshots: BTreeSet<(String, Option<i64>)>,
}

impl Sweep {
    /// Runs it. A table that cannot be read is left alone, with a warning.
    pub(crate) async fn run(self) -> Result<Swept, Error> {
        let mut named: BTreeMap<TableName, Named> = BTreeMap::new();
        self.lake.refs.each_ref(|cut| note(&mut named, cut)).await?;
        let mut swept = Swept::default();
        for (table, pair) in &self.pairs {
            if self.stop.is_cancelled() {
                break;
            }
            let named = named.remove(table).unwrap_or_default();
            match self.table(table, pair, named).await {
                Ok(of_table) => {
                    swept.removed += of_table.removed;
                    swept.waiting += of_table.waiting;
                }
                Err(error) => {
                    let error = cdc_core::chain(&error);
                    tracing::warn!(%table, error, "objects without a reference not removed");
                }
            }
        }
        self.lake.meters.orphans_removed.inc_by(swept.removed);
        Ok(swept)
    }

    async fn table(
        &self,
        table: &TableName,
        pair: &TablePair,
        named: Named,
    ) -> Result<Swept, Error> {
        let referenced = self.referenced(table, pair, named).await?;
        if failpoint("c6") {
            return Err(failed_at("c6"));
        }
        let base = self.manifest.tables.get(table).and_then(|entry| entry.base_path.clone());
        let prefix = layout::table_dir(table);
        let oldest_kept = due(self.began, self.grace);
        let state_dir = self.state_dir.clone();
        let began = self.began;
        let mut sightings = blocking(move || Sightings::open(&state_dir, began)).await?;
        let objects = self.lake.store.store();
        let failed = |source| Error::Objects { location: prefix.clone(), source };
        let path = Path::parse(&prefix).map_err(|error| failed(error.into()))?;
        let candidates = objects.list(Some(&path)).try_filter_map(|object| {
            let key = object.location.to_string();
            let is_needed = referenced.contains(&self.lake.store.location().uri(&key))
                || base.as_ref().is_some_and(|base| key.starts_with(base))
                || object.last_modified > oldest_kept;
            std::future::ready(Ok((!is_needed).then_some(key)))
        });
        let mut candidates = candidates.boxed().chunks(KEYS_AT_ONCE);
        let mut swept = Swept::default();
        while let Some(chunk) = candidates.next().await {
            let chunk: Vec<String> = chunk.into_iter().collect::<Result<_, _>>().map_err(failed)?;
            swept.waiting += chunk.len() as u64;
            let (back, ripe) = blocking(move || {
                let ripe = sightings.note(&chunk, oldest_kept)?;
                Ok((sightings, ripe))
            })
            .await?;
            sightings = back;
            for ripe in ripe.chunks(KEYS_AT_ONCE) {
                self.remove(ripe).await?;
                swept.removed += ripe.len() as u64;
                swept.waiting -= ripe.len() as u64;
                let removed = ripe.to_vec();
                sightings = blocking(move || {
                    sightings.removed(&removed)?;
                    Ok(sightings)
                })
                .await?;
            }
        }
        drop(candidates);
        let prefix = prefix.clone();
        blocking(move || sightings.forget_unseen(&prefix)).await?;
        Ok(swept)
    }

    /// The locations of everything that may be needed of a table.
    async fn referenced(
        &self,
        table: &TableName,
        pair: &TablePair,
        named: Named,
    ) -> Result<HashSet<String>, Error> {
        let wrong = || Error::iceberg(table);
        let files = self.lake.tables.files();
        let mut referenced = HashSet::new();
        let mut known: Vec<Table> = Vec::new();
        for committed in [&pair.current, &pair.changes] {
            // another program may have committed since; both versions count
            let found = self.lake.tables.refresh(committed).await.map_err(wrong())?;
            if found.metadata_location != committed.metadata_location {
                known.push(found);
            }
            known.push(committed.clone());
        }
        for version in &known {
            referenced.insert(version.metadata_location.clone());
            let all = referenced_files(files, &version.metadata, OfSnapshots::All).await;
            referenced.extend(all.map_err(wrong())?);
        }
        if let Some(entry) = self.manifest.tables.get(table) {
            referenced.extend(entry.metadata_location.clone());
            referenced.extend(entry.changes_metadata_location.clone());
        }
        for (location, snapshot) in named.snapshots {
            let is_known = snapshot.is_none_or(|id| {
                known.iter().any(|version| version.metadata.snapshot_by_id(id).is_some())
            });
            if let Some(id) = snapshot.filter(|_| !is_known) {
                let metadata = Arc::new(files.load_metadata(&location).await.map_err(wrong())?);
                let one = referenced_files(files, &metadata, OfSnapshots::One(id)).await;
                referenced.extend(one.map_err(wrong())?);
            }
            referenced.insert(location);
        }
        Ok(referenced)
    }

    /// Removes objects; one that is gone already counts as removed.
    async fn remove(&self, keys: &[String]) -> Result<(), Error> {
        for (number, key) in keys.iter().enumerate() {
            let path = Path::from(key.as_str());
            if number == 1 && failpoint("c6") {
                return Err(failed_at(key));
            }
            match self.lake.store.store().delete(&path).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => {
                    let location = self.lake.store.location().uri(key);
                    return Err(Error::Objects { location, source });
                }
            }
        }
        Ok(())
    }
}

/// The error of a removal that a failpoint made fail.
fn failed_at(location: &str) -> Error {
    let source = std::io::Error::other("failpoint").into();
    let source = object_store::Error::Generic { store: "failpoint", source };
    Error::Objects { location: location.to_owned(), source }
}

fn note(named: &mut BTreeMap<TableName, Named>, cut: &Ref) {
    for (table, at) in &cut.tables {
        let pairs = [
            (&at.metadata_location, at.snapshot_id),
            (&at.changes_metadata_location, at.changes_snapshot_id),
        ];
        for (location, snapshot) in pairs {
            if let Some(location) = location {
                let named = named.entry(table.clone()).or_default();
                named.snapshots.insert((location.clone(), snapshot));
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|source| Error::Worker { task: "sweep", source })?
}
