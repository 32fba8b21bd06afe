//! From what a reader asks for to one snapshot per table. Never a silent fallback: what is unknown
//! or pruned is not found.

use std::collections::BTreeMap;

use cdc_core::{Epoch, Lsn, TableName, rfc3339};
use chrono::{DateTime, Utc};

use super::{MAIN, PromotionMode, RawTag, Ref, RefKind, RefsStore, STAGING, TableRef};
use crate::layout::{self, RAW_TAG_NAME_PREFIX};
use crate::manifest::{Manifest, ManifestStore};
use crate::store::LakeStore;
use crate::{Error, Result};

/// The cut a reader asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CutSpec {
    /// What readers see unless they ask: the manifest, or the branch `main` under manual promotion.
    #[default]
    Main,
    /// A branch or a raw tag.
    Named(String),
    /// Exactly this epoch.
    Epoch(Epoch),
    /// The newest kept cut with a commit LSN at or below this.
    Lsn(Lsn),
    /// The newest kept cut with a commit time at or before this.
    AsOf(DateTime<Utc>),
}

impl CutSpec {
    /// The cut of a ref's name, where `""` is `main`.
    pub fn of_ref(name: &str) -> CutSpec {
        if name.is_empty() || name == MAIN {
            CutSpec::Main
        } else {
            CutSpec::Named(name.to_owned())
        }
    }
}

/// One snapshot per table for one commit LSN.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut {
    /// The ref really used: `main`, `staging` or a raw tag.
    pub name: String,
    /// Whether it moves with the lake; a pinned cut ages.
    pub is_live: bool,
    /// Epoch.
    pub epoch: Epoch,
    /// Commit LSN.
    pub commit_lsn: Lsn,
    /// Commit time of the last transaction in it.
    pub commit_ts: DateTime<Utc>,
    /// The active tables.
    pub tables: BTreeMap<TableName, TableRef>,
}

impl Cut {
    /// The cut that a manifest stands for, as `main`.
    pub fn of_manifest(manifest: &Manifest) -> Cut {
        Cut::of(MAIN, Ref::of(manifest, RefKind::Branch))
    }

    fn of(name: &str, found: Ref) -> Cut {
        Cut {
            name: name.to_owned(),
            is_live: found.kind == RefKind::Branch,
            epoch: found.epoch,
            commit_lsn: found.commit_lsn,
            commit_ts: found.commit_ts,
            tables: found.tables,
        }
    }

    fn of_tag(tag: RawTag) -> Cut {
        Cut::of(&tag.name, tag.cut)
    }
}

/// Resolves cuts of one lake.
#[derive(Clone, Debug)]
pub struct CutResolver {
    manifest: ManifestStore,
    refs: RefsStore,
    mode: PromotionMode,
}

impl CutResolver {
    /// A resolver for this lake; `mode` decides what `main` is.
    pub fn new(lake: LakeStore, mode: PromotionMode) -> Self {
        let (manifest, refs) = (ManifestStore::new(lake.clone()), RefsStore::new(lake));
        Self { manifest, refs, mode }
    }

    /// The cut asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a lake, ref or cut that does not exist or was pruned; otherwise why
    /// it cannot be read.
    pub async fn resolve(&self, spec: &CutSpec) -> Result<Cut> {
        match spec {
            CutSpec::Main => self.main().await,
            CutSpec::Named(name) if name.is_empty() || name == MAIN => self.main().await,
            CutSpec::Named(name) => self.named(name).await,
            CutSpec::Epoch(epoch) => {
                let found = self.newest(|cut| cut.epoch <= *epoch).await?;
                found.filter(|cut| cut.epoch == *epoch).ok_or_else(|| missing_cut("epoch", epoch))
            }
            CutSpec::Lsn(lsn) => {
                let found = self.newest(|cut| cut.commit_lsn <= *lsn).await?;
                found.ok_or_else(|| missing_cut("a cut at or before LSN", lsn))
            }
            CutSpec::AsOf(time) => {
                let found = self.newest(|cut| cut.commit_ts <= *time).await?;
                found.ok_or_else(|| missing_cut("a cut at or before", rfc3339(*time)))
            }
        }
    }

    async fn main(&self) -> Result<Cut> {
        match self.mode {
            PromotionMode::Auto => Ok(Cut::of_manifest(&self.manifest.require().await?.value)),
            PromotionMode::Manual => self.branch(MAIN).await,
        }
    }

    async fn named(&self, name: &str) -> Result<Cut> {
        if !name.starts_with(RAW_TAG_NAME_PREFIX) {
            return self.branch(name).await;
        }
        let missing = || missing_ref(name);
        let time = layout::raw_tag_time(name).ok_or_else(missing)?;
        let tag = self.refs.load_raw(&layout::raw_tag_key(time)).await?;
        tag.map(Cut::of_tag).ok_or_else(missing)
    }

    async fn branch(&self, name: &str) -> Result<Cut> {
        let mut refs = self.refs.load().await?;
        let found = refs.refs.remove(name).ok_or_else(|| missing_ref(name))?;
        Ok(Cut::of(name, found))
    }

    /// The newest kept cut that qualifies. Cuts in order of time qualify up to some point and then
    /// no longer, so a few tags are read, not all.
    async fn newest(&self, qualifies: impl Fn(&Cut) -> bool) -> Result<Option<Cut>> {
        let head = Cut::of_manifest(&self.manifest.require().await?.value);
        let mut keys = self.refs.list_raw().await?;
        let (mut found, mut from, mut to) = (None, 0, keys.len());
        while from < to {
            let middle = from + (to - from) / 2;
            match self.refs.load_raw(&keys[middle]).await?.map(Cut::of_tag) {
                Some(cut) if qualifies(&cut) => {
                    found = Some(cut);
                    from = middle + 1;
                }
                Some(_) => to = middle,
                // pruned since it was listed
                None => {
                    keys.remove(middle);
                    to -= 1;
                }
            }
        }
        let tag_is_newest = found.as_ref().is_some_and(|cut| cut.epoch >= head.epoch);
        if tag_is_newest || !qualifies(&head) {
            return Ok(found);
        }
        // the newest flush whose tag was not written yet; under manual promotion it is not `main`
        let name = if self.mode == PromotionMode::Auto { MAIN } else { STAGING };
        Ok(Some(Cut { name: name.to_owned(), ..head }))
    }
}

fn missing_ref(name: &str) -> Error {
    let what = format!("ref `{name}`");
    Error::NotFound { what, hint: "`pgcdc status` shows which are kept" }
}

fn missing_cut(what: &str, value: impl std::fmt::Display) -> Error {
    let what = format!("{what} {value}");
    Error::NotFound { what, hint: "`pgcdc status` shows which are kept" }
}
