//! Which snapshots live refs name: what expiry leaves in a table whatever its age.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::TableName;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Ref, RefKind, RefsStore, TableRef};
use crate::Result;
use crate::layout::raw_tag_key;
use crate::manifest::Manifest;

/// Raw tags read at once.
const READS_MAX: usize = 8;

/// The snapshots that a ref names of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pinned {
    current: Option<i64>,
    changes: Option<i64>,
}

/// The snapshots that live refs name, by table. Raw tags never change, so each is read once.
#[derive(Clone, Debug, Default)]
pub struct Pins {
    branches: BTreeMap<String, BTreeMap<TableName, Pinned>>,
    /// By the key of the tag's object.
    tags: BTreeMap<String, BTreeMap<TableName, Pinned>>,
}

impl Pins {
    /// Adds the cut of a manifest, which gets its raw tag about now. Whether it did is seen at the
    /// next [`RefsStore::refresh_pins`].
    pub fn note(&mut self, manifest: &Manifest) {
        let cut = Ref::of(manifest, RefKind::Tag);
        self.tags.insert(raw_tag_key(manifest.updated_at), pinned(&cut));
    }

    /// The snapshots of a table's current state that are named.
    pub fn current(&self, table: &TableName) -> BTreeSet<i64> {
        self.of(table).filter_map(|pinned| pinned.current).collect()
    }

    /// The snapshots of a table's changelog that are named.
    pub fn changes(&self, table: &TableName) -> BTreeSet<i64> {
        self.of(table).filter_map(|pinned| pinned.changes).collect()
    }

    fn of(&self, table: &TableName) -> impl Iterator<Item = &Pinned> {
        let cuts = self.branches.values().chain(self.tags.values());
        cuts.filter_map(|tables| tables.get(table))
    }
}

impl RefsStore {
    /// Brings `pins` to what the refs name now: one read of `refs.json`, one listing, and the raw
    /// tags that were not known. On an error `pins` are as before.
    ///
    /// # Errors
    /// [`Error::Object`](crate::Error::Object), or why a ref cannot be read.
    pub async fn refresh_pins(&self, pins: &mut Pins) -> Result<()> {
        let refs = self.load().await?;
        let keys = self.list_raw().await?;
        let unknown: Vec<&String> =
            keys.iter().filter(|key| !pins.tags.contains_key(*key)).collect();
        let reads: Vec<_> = unknown
            .into_iter()
            .map(|key| async move { Ok::<_, crate::Error>((key, self.load_raw(key).await?)) })
            .collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS_MAX);
        let mut found = Vec::new();
        while let Some((key, tag)) = reads.try_next().await? {
            // a tag that is gone by now was pruned
            found.extend(tag.map(|tag| (key.clone(), pinned(&tag.cut))));
        }
        drop(reads);
        let listed: BTreeSet<&String> = keys.iter().collect();
        pins.tags.retain(|key, _| listed.contains(key));
        pins.tags.extend(found);
        let branches = refs.refs.iter().filter(|(_, cut)| cut.kind == RefKind::Branch);
        pins.branches = branches.map(|(name, cut)| (name.clone(), pinned(cut))).collect();
        Ok(())
    }

    /// Every ref that is live now: branches, and the raw tags. Each is given away as it is read.
    ///
    /// # Errors
    /// As [`RefsStore::refresh_pins`].
    pub async fn each_ref(&self, mut visit: impl FnMut(&Ref)) -> Result<()> {
        let refs = self.load().await?;
        refs.refs.values().for_each(&mut visit);
        let keys = self.list_raw().await?;
        let reads: Vec<_> = keys.iter().map(|key| self.load_raw(key)).collect();
        let mut reads = stream::iter(reads).buffer_unordered(READS_MAX);
        while let Some(tag) = reads.try_next().await? {
            if let Some(tag) = tag {
                visit(&tag.cut);
            }
        }
        Ok(())
    }
}

fn pinned(cut: &Ref) -> BTreeMap<TableName, Pinned> {
    let of = |(table, at): (&TableName, &TableRef)| {
        let pinned = Pinned { current: at.snapshot_id, changes: at.changes_snapshot_id };
        (table.clone(), pinned)
    };
    cut.tables.iter().map(of).collect()
}
