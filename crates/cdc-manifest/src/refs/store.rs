//! Moving the refs after a flush. All of it can be derived again from the manifest, so a failure
//! here never fails a flush.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;

use super::{Cut, MAIN, REFS_VERSION, RawIndex, RawRetention, RawTag, Ref, RefKind, Refs, STAGING};
use crate::json::{self, Extra};
use crate::layout::{self, RAW_TAG_PREFIX, REFS_KEY};
use crate::manifest::{Manifest, Versioned};
use crate::store::{LakeStore, ObjectVersion, Swap, object_path};
use crate::{Error, Result};

/// Swaps tried before a caller is told that somebody else keeps winning.
const SWAP_ATTEMPTS_MAX: u32 = 10;

/// Tags removed by one call of [`RefsStore::prune_raw`]; the next one goes on.
const PRUNED_TAGS_MAX: usize = 256;
/// Tag objects removed at once.
const REMOVALS_MAX: usize = 8;

/// `promotion.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PromotionMode {
    /// `main` follows every flush.
    #[default]
    Auto,
    /// `main` moves by `promote` only.
    Manual,
}

/// How [`RefsStore::advance`] moves refs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvanceOptions {
    /// Whether `main` follows.
    pub mode: PromotionMode,
    /// Newest raw tags repeated in `refs.json`.
    pub inline_raw: usize,
}

impl Default for AdvanceOptions {
    fn default() -> Self {
        Self { mode: PromotionMode::Auto, inline_raw: 10 }
    }
}

/// What [`RefsStore::advance`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Name of the cut's raw tag.
    pub raw_tag: String,
    /// Whether `main` now is this cut.
    pub main_moved: bool,
}

/// The refs of one lake.
#[derive(Clone, Debug)]
pub struct RefsStore {
    lake: LakeStore,
}

impl RefsStore {
    /// The refs of this lake.
    pub fn new(lake: LakeStore) -> Self {
        Self { lake }
    }

    /// Reads the refs; a missing file is no refs.
    ///
    /// # Errors
    /// [`Error::Object`], or why the file cannot be read as refs.
    pub async fn load(&self) -> Result<Refs> {
        Ok(self.load_versioned().await?.map(|found| found.value).unwrap_or_default())
    }

    async fn load_versioned(&self) -> Result<Option<Versioned<Refs>>> {
        let Some((bytes, version)) = self.lake.load_versioned(REFS_KEY).await? else {
            return Ok(None);
        };
        Ok(Some(Versioned { value: json::parse(REFS_KEY, &bytes, REFS_VERSION)?, version }))
    }

    /// Reads a raw tag by the key of its object; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Object`], or why the object cannot be read as a tag.
    pub async fn load_raw(&self, key: &str) -> Result<Option<RawTag>> {
        let Some((bytes, _)) = self.lake.load_versioned(key).await? else { return Ok(None) };
        json::parse(key, &bytes, REFS_VERSION).map(Some)
    }

    /// The keys of all raw tags, oldest first.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub async fn list_raw(&self) -> Result<Vec<String>> {
        let failed = |source| Error::object("list", RAW_TAG_PREFIX, source);
        let prefix = object_path(RAW_TAG_PREFIX.trim_end_matches('/'))?;
        let listed = self.lake.store().list(Some(&prefix)).map_ok(|meta| meta.location.to_string());
        let mut keys: Vec<String> = listed.try_collect().await.map_err(failed)?;
        keys.retain(|key| layout::raw_tag_key_time(key).is_some());
        keys.sort_unstable();
        Ok(keys)
    }

    /// After a commit of `manifest`: writes its raw tag, then moves `staging`, then `main` if
    /// promotion is automatic or `main` was never set. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Object`], [`Error::Contended`]; the next call makes up for it.
    pub async fn advance(&self, manifest: &Manifest, options: AdvanceOptions) -> Result<Advanced> {
        let raw_tag = layout::raw_tag_name(manifest.updated_at);
        self.write_raw(manifest, &raw_tag).await?;
        let main_moved = self.change(|refs| apply(refs, manifest, &raw_tag, options)).await?;
        Ok(Advanced { raw_tag, main_moved })
    }

    /// Changes `refs.json`, made where it is missing, however often somebody else is faster.
    async fn change<T>(&self, change: impl Fn(&mut Refs) -> T) -> Result<T> {
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let (mut refs, version) = match self.load_versioned().await? {
                Some(found) => (found.value, Some(found.version)),
                None => (Refs::default(), None),
            };
            let changed = change(&mut refs);
            if self.swap(&refs, version.as_ref()).await? {
                return Ok(changed);
            }
        }
        Err(Error::Contended { key: REFS_KEY.to_owned(), attempts: SWAP_ATTEMPTS_MAX })
    }

    /// Removes raw tags that are no longer kept, at most [`PRUNED_TAGS_MAX`] of them and the oldest
    /// first, and gives their number. `refs.json` stops naming them before they go, so a crash in
    /// between leaves objects that the next call finds.
    ///
    /// # Errors
    /// [`Error::Object`], [`Error::Contended`]; the next call makes up for it.
    pub async fn prune_raw(&self, retention: RawRetention) -> Result<usize> {
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let Some(Versioned { value: mut refs, version }) = self.load_versioned().await? else {
                return Ok(0);
            };
            if refs.raw.as_ref().is_none_or(|index| retention.keeps_all(index.count)) {
                return Ok(0);
            }
            let keys = self.list_raw().await?;
            let times: Vec<_> =
                keys.iter().filter_map(|key| layout::raw_tag_key_time(key)).collect();
            let mut expired = retention.expired(&times);
            expired.truncate(PRUNED_TAGS_MAX);
            let before = refs.clone();
            forget_tags(&mut refs, &times, &expired);
            if refs == before || self.swap(&refs, Some(&version)).await? {
                self.remove_tags(&expired).await?;
                return Ok(expired.len());
            }
        }
        Err(Error::Contended { key: REFS_KEY.to_owned(), attempts: SWAP_ATTEMPTS_MAX })
    }

    async fn remove_tags(&self, times: &[DateTime<Utc>]) -> Result<()> {
        let remove = |time: &DateTime<Utc>| {
            let key = layout::raw_tag_key(*time);
            async move {
                match self.lake.store().delete(&object_path(&key)?).await {
                    // another pruner was faster
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                    Err(source) => Err(Error::object("remove", &key, source)),
                }
            }
        };
        let removals: Vec<_> = times.iter().map(|time| remove(time).boxed()).collect();
        stream::iter(removals).buffer_unordered(REMOVALS_MAX).try_collect().await
    }

    /// Counts the raw tags again, after one may have been written without its index.
    ///
    /// # Errors
    /// As [`RefsStore::advance`].
    pub async fn reindex_raw(&self) -> Result<()> {
        for _ in 0..SWAP_ATTEMPTS_MAX {
            let Some(found) = self.load_versioned().await? else { return Ok(()) };
            let keys = self.list_raw().await?;
            let name =
                |key: Option<&String>| Some(layout::raw_tag_name(layout::raw_tag_key_time(key?)?));
            let (mut refs, version) = (found.value, found.version);
            let before = refs.raw.clone();
            let index = refs.raw.get_or_insert_with(RawIndex::empty);
            index.count = keys.len() as u64;
            (index.oldest, index.newest) = (name(keys.first()), name(keys.last()));
            if refs.raw == before || self.swap(&refs, Some(&version)).await? {
                return Ok(());
            }
        }
        Err(Error::Contended { key: REFS_KEY.to_owned(), attempts: SWAP_ATTEMPTS_MAX })
    }

    /// Moves `main` to a cut, whatever was there.
    ///
    /// # Errors
    /// As [`RefsStore::advance`].
    pub async fn promote(&self, cut: &Cut, at: DateTime<Utc>) -> Result<()> {
        let main = Ref {
            kind: RefKind::Branch,
            created_at: at,
            epoch: cut.epoch,
            commit_lsn: cut.commit_lsn,
            commit_ts: cut.commit_ts,
            tables: cut.tables.clone(),
            extra: Extra::new(),
        };
        self.change(|refs| drop(refs.refs.insert(MAIN.to_owned(), main.clone()))).await
    }

    async fn write_raw(&self, manifest: &Manifest, name: &str) -> Result<()> {
        let key = layout::raw_tag_key(manifest.updated_at);
        let tag = RawTag {
            version: REFS_VERSION,
            name: name.to_owned(),
            cut: Ref::of(manifest, RefKind::Tag),
            extra: Extra::new(),
        };
        match self.lake.swap(&key, json::to_bytes(&key, &tag)?, None).await? {
            // a conflict is the same tag, written before: its name is the manifest's own time
            Swap::Stored(_) | Swap::Conflict => Ok(()),
            Swap::Unknown(error) => Err(error),
        }
    }

    async fn swap(&self, refs: &Refs, version: Option<&ObjectVersion>) -> Result<bool> {
        let bytes: Bytes = json::to_bytes(REFS_KEY, refs)?;
        match self.lake.swap(REFS_KEY, bytes, version).await? {
            Swap::Stored(_) => Ok(true),
            Swap::Conflict => Ok(false),
            Swap::Unknown(error) => Err(error),
        }
    }
}

/// Puts the manifest's cut into the refs; returns whether `main` is it now. Never moves a branch
/// back: a slower caller may come with an older manifest.
fn apply(refs: &mut Refs, manifest: &Manifest, raw_tag: &str, options: AdvanceOptions) -> bool {
    let branch = Ref::of(manifest, RefKind::Branch);
    let mut follows = vec![STAGING];
    if options.mode == PromotionMode::Auto || !refs.refs.contains_key(MAIN) {
        follows.push(MAIN);
    }
    for name in follows {
        let is_newer = refs.refs.get(name).is_none_or(|old| old.created_at <= branch.created_at);
        if is_newer {
            refs.refs.insert(name.to_owned(), branch.clone());
        }
    }
    let main_moved = refs.refs.get(MAIN).is_some_and(|main| main.created_at == branch.created_at);
    let index = refs.raw.get_or_insert_with(RawIndex::empty);
    if index.newest.as_deref().is_none_or(|newest| newest < raw_tag) {
        index.count += 1;
        index.oldest.get_or_insert_with(|| raw_tag.to_owned());
        index.newest = Some(raw_tag.to_owned());
    }
    refs.refs.insert(raw_tag.to_owned(), Ref { kind: RefKind::Tag, ..branch });
    keep_newest_tags(&mut refs.refs, options.inline_raw);
    main_moved
}

/// Takes expired tags out of the file and of its index, which counts the objects anew.
fn forget_tags(refs: &mut Refs, times: &[DateTime<Utc>], expired: &[DateTime<Utc>]) {
    let left: Vec<&DateTime<Utc>> =
        times.iter().filter(|time| expired.binary_search(time).is_err()).collect();
    let index = refs.raw.get_or_insert_with(RawIndex::empty);
    let name = |time: Option<&&DateTime<Utc>>| time.map(|time| layout::raw_tag_name(**time));
    index.count = left.len() as u64;
    (index.oldest, index.newest) = (name(left.first()), name(left.last()));
    for time in expired {
        refs.refs.remove(&layout::raw_tag_name(*time));
    }
}

/// Tag names sort by time.
fn keep_newest_tags(refs: &mut BTreeMap<String, Ref>, keep: usize) {
    let tags: Vec<String> =
        refs.keys().filter(|name| layout::raw_tag_time(name).is_some()).cloned().collect();
    let excess = tags.len().saturating_sub(keep);
    for name in tags.into_iter().take(excess) {
        refs.remove(&name);
    }
}
