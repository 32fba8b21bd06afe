//! A lake as readers see it: its cuts, and what of them is known about freshness.

use std::time::Duration;

use cdc_core::{Lsn, TableName};
use cdc_iceberg::{CHANGES_SUFFIX, LakeFiles};
use cdc_manifest::{
    Cut, CutResolver, CutSpec, LakeStore, Live, Manifest, ManifestStore, PromotionMode,
};
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::sql::SqlTableName;
use crate::{Error, Result};

/// First pause between two looks for a newer cut; doubled up to [`POLL_MAX`].
const POLL_MIN: Duration = Duration::from_millis(20);
/// Longest pause between two looks for a newer cut.
const POLL_MAX: Duration = Duration::from_millis(250);

/// A lake opened for reading. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lake {
    manifest: ManifestStore,
    resolver: CutResolver,
    files: LakeFiles,
    mode: PromotionMode,
}

/// Which of the two tables of a source table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableSide {
    /// The current state, `t`.
    Current,
    /// The changelog, `t__changes`.
    Changes,
}

/// How fresh a cut is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Freshness {
    /// Up to here nothing of ours is missing from the cut.
    pub covered_lsn: Lsn,
    /// When that was known; for a pinned cut its commit time.
    pub covered_at: DateTime<Utc>,
}

impl Freshness {
    /// Seconds from the moment the cut stands for until now, not below 0.
    pub fn lag_seconds(&self, now: DateTime<Utc>) -> f64 {
        (now - self.covered_at).as_seconds_f64().max(0.0)
    }
}

impl Lake {
    /// Opens the lake of a store; `mode` decides what `main` is.
    pub fn new(store: LakeStore, mode: PromotionMode) -> Lake {
        let files = LakeFiles::new(store.store().clone(), store.location().clone());
        let resolver = CutResolver::new(store.clone(), mode);
        Lake { manifest: ManifestStore::new(store), resolver, files, mode }
    }

    /// The cut asked for.
    ///
    /// # Errors
    /// [`Error::NoLake`], [`Error::NoSuchCut`], or why the lake cannot be read.
    pub async fn cut(&self, spec: &CutSpec) -> Result<Cut> {
        match self.resolver.resolve(spec).await {
            Ok(cut) => Ok(cut),
            Err(error @ cdc_manifest::Error::NotFound { .. }) => {
                // without a lake every cut is missing; say the nearer thing
                self.manifest().await?;
                let cdc_manifest::Error::NotFound { what, .. } = error else {
                    return Err(error.into());
                };
                Err(Error::NoSuchCut(what))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The manifest as it is now.
    ///
    /// # Errors
    /// [`Error::NoLake`], or why it cannot be read.
    pub async fn manifest(&self) -> Result<Manifest> {
        Ok(self.manifest.load().await?.ok_or(Error::NoLake)?.value)
    }

    /// The newest cut of `spec` once it covers `min_lsn`, by its own commit LSN or because nothing
    /// of ours lies between that and a position the daemon has seen since.
    ///
    /// # Errors
    /// [`Error::WaitTimeout`] with the position reached; of [`Lake::cut`].
    pub async fn cut_covering(
        &self,
        spec: &CutSpec,
        min_lsn: Lsn,
        timeout: Duration,
    ) -> Result<Cut> {
        let deadline = Instant::now() + timeout;
        let mut pause = POLL_MIN;
        loop {
            // before the cut, so that a covered position is never newer than the cut it is about
            let live = self.live().await;
            let cut = self.cut(spec).await?;
            let reached = self.covered(&cut, live.as_ref()).await?.covered_lsn;
            if reached >= min_lsn {
                return Ok(cut);
            }
            let wait_until = Instant::now() + pause;
            if wait_until >= deadline {
                return Err(Error::WaitTimeout { wanted: min_lsn, reached });
            }
            tokio::time::sleep_until(wait_until).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// How fresh a cut is now.
    ///
    /// # Errors
    /// Why the manifest cannot be read.
    pub async fn freshness(&self, cut: &Cut) -> Result<Freshness> {
        let live = if cut.is_live { self.live().await } else { None };
        self.covered(cut, live.as_ref()).await
    }

    /// A covered position is about the newest epoch, so it says something of a cut at that epoch
    /// only: not of a pinned one, nor of `main` while it waits for promotion.
    async fn covered(&self, cut: &Cut, live: Option<&Live>) -> Result<Freshness> {
        let own = Freshness { covered_lsn: cut.commit_lsn, covered_at: cut.commit_ts };
        if !cut.is_live {
            return Ok(own);
        }
        let manifest = self.manifest().await?;
        let of_manifest = (manifest.epoch, manifest.covered_lsn, manifest.covered_at);
        let of_live = live.map(|live| (live.epoch, live.covered_lsn, live.covered_at));
        let known = [Some(of_manifest), of_live].into_iter().flatten();
        Ok(known.filter(|(epoch, ..)| *epoch == cut.epoch).fold(own, |best, (_, lsn, at)| {
            Freshness {
                covered_lsn: best.covered_lsn.max(lsn),
                covered_at: best.covered_at.max(at),
            }
        }))
    }

    /// Advisory: unreadable is the same as absent.
    async fn live(&self) -> Option<Live> {
        Live::load(self.manifest.lake()).await.ok().flatten()
    }

    /// How `main` advances.
    pub fn promotion(&self) -> PromotionMode {
        self.mode
    }

    pub(crate) fn files(&self) -> &LakeFiles {
        &self.files
    }
}

/// The table of a cut that a caller names: `schema.table`, or a table alone where one schema has it.
///
/// # Errors
/// [`Error::NoSuchTable`], [`Error::AmbiguousTable`].
pub fn find_table(cut: &Cut, name: &str) -> Result<TableName> {
    if let Ok(table) = name.parse::<TableName>()
        && cut.tables.contains_key(&table)
    {
        return Ok(table);
    }
    only(cut, name, name)?.ok_or_else(|| Error::NoSuchTable(name.to_owned()))
}

/// The table that SQL names. `orders__changes` is the changelog of `orders`, unless a table has that
/// name itself.
///
/// # Errors
/// [`Error::NoSuchTable`], [`Error::AmbiguousTable`].
pub(crate) fn find_sql_table(cut: &Cut, name: &SqlTableName) -> Result<(TableName, TableSide)> {
    let find = |part: &str| match &name.schema {
        Some(schema) => {
            let table = TableName::new(schema, part);
            Ok(cut.tables.contains_key(&table).then_some(table))
        }
        None => only(cut, part, part),
    };
    if let Some(table) = find(&name.name)? {
        return Ok((table, TableSide::Current));
    }
    if let Some(base) = name.name.strip_suffix(CHANGES_SUFFIX)
        && let Some(table) = find(base)?
    {
        return Ok((table, TableSide::Changes));
    }
    Err(Error::NoSuchTable(name.to_string()))
}

/// The table of this name in whichever schema, if one has it.
fn only(cut: &Cut, name: &str, asked: &str) -> Result<Option<TableName>> {
    let mut found = cut.tables.keys().filter(|table| table.name == name);
    let first = found.next().cloned();
    match found.next() {
        Some(_) => Err(Error::AmbiguousTable(asked.to_owned())),
        None => Ok(first),
    }
}
