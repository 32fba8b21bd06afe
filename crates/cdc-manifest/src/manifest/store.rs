//! Loading and committing the manifest by compare-and-swap.

use bytes::Bytes;

use super::{Manifest, invariants};
use crate::layout::MANIFEST_KEY;
use crate::store::{LakeStore, ObjectVersion, Revalidated, Swap};
use crate::{Error, Result};

/// A value as it was read, with the version that a swap must name.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Its version in the store.
    pub version: ObjectVersion,
}

/// The manifest of one lake.
#[derive(Clone, Debug)]
pub struct ManifestStore {
    lake: LakeStore,
}

impl ManifestStore {
    /// The manifest of this lake.
    pub fn new(lake: LakeStore) -> Self {
        Self { lake }
    }

    /// The lake.
    pub fn lake(&self) -> &LakeStore {
        &self.lake
    }

    /// Reads the manifest; `None` before init.
    ///
    /// # Errors
    /// [`Error::Object`], or of [`Manifest::parse`].
    pub async fn load(&self) -> Result<Option<Versioned<Manifest>>> {
        let found = self.lake.load_versioned(MANIFEST_KEY).await?;
        found.map(|(bytes, version)| versioned(&bytes, version)).transpose()
    }

    /// Reads the manifest of a lake that must exist.
    ///
    /// # Errors
    /// [`Error::NotFound`] naming the location, or of [`ManifestStore::load`].
    pub async fn require(&self) -> Result<Versioned<Manifest>> {
        self.load().await?.ok_or_else(|| Error::NotFound {
            what: format!("a lake at {}", self.lake.location().root()),
            hint: "run `pgcdc init`, or check the storage section of the configuration",
        })
    }

    /// Reads the manifest again only if it changed; `None` if it did not.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is gone, or of [`ManifestStore::load`].
    pub async fn reload(&self, known: &ObjectVersion) -> Result<Option<Versioned<Manifest>>> {
        match self.lake.revalidate(MANIFEST_KEY, known).await? {
            Revalidated::Unchanged => Ok(None),
            Revalidated::Changed(bytes, version) => versioned(&bytes, version).map(Some),
            Revalidated::Missing => Err(Error::NotFound {
                what: format!("{MANIFEST_KEY} at {}", self.lake.location().root()),
                hint: "somebody removed it while the lake was open",
            }),
        }
    }

    /// Writes the first manifest, if there is none.
    ///
    /// # Errors
    /// [`Error::Invariant`], or of [`LakeStore::swap`].
    pub async fn create(&self, manifest: &Manifest) -> Result<Swap> {
        invariants::check(manifest).map_err(refused)?;
        self.swap(manifest.to_bytes()?, None).await
    }

    /// Replaces the manifest read as `base`. This is the commit point of a flush.
    ///
    /// After a conflict load the manifest; if its `batch_id` is yours, your commit happened and
    /// somebody followed it. [`Swap::Unknown`] means the object was seen at `base` or not at all,
    /// and the write may still land: commit the same bytes on the same base again.
    ///
    /// # Errors
    /// [`Error::Invariant`] with nothing written, or of [`LakeStore::swap`].
    pub async fn commit(&self, base: &Versioned<Manifest>, new: &Manifest) -> Result<Swap> {
        invariants::check(new).map_err(refused)?;
        invariants::check_step(&base.value, new).map_err(refused)?;
        self.swap(new.to_bytes()?, Some(&base.version)).await
    }

    async fn swap(&self, bytes: Bytes, expected: Option<&ObjectVersion>) -> Result<Swap> {
        self.lake.swap(MANIFEST_KEY, bytes, expected).await
    }
}

fn versioned(bytes: &[u8], version: ObjectVersion) -> Result<Versioned<Manifest>> {
    Ok(Versioned { value: Manifest::parse(bytes)?, version })
}

fn refused(rule: String) -> Error {
    Error::Invariant { key: MANIFEST_KEY, rule }
}
