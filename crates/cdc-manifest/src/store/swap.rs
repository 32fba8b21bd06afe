//! Versioned reads and compare-and-swap, with certainty about what became of a write.
//!
//! ```text
//! put ─ stored ───────────────────────────────────────────────> Stored
//!  │
//!  └ conflict, timeout, reset, 5xx ─> read back ─ holds ours ──> Stored
//!      ^                                │         other ───────> Conflict
//!      └──── as before: wait, again <───┘         not readable > Unknown
//! ```
//! A conflict says little: a client sends a request again whose answer was lost, and its own write
//! is then in the way. So nothing but the object itself is believed.

use std::time::Duration;

use bytes::Bytes;
use object_store::{
    GetOptions, GetResult, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::{LakeStore, failpoints, object_path};
use crate::{Error, Result};

/// Puts of one swap while the object stays as it was.
const SWAP_TRIES_MAX: u32 = 5;
/// Delay before the second put; doubles.
const SWAP_DELAY: Duration = Duration::from_millis(50);

/// The version of an object that a conditional write compares: entity tag or generation. On S3 it
/// follows from the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion {
    e_tag: Option<String>,
    version: Option<String>,
}

/// What a conditional write did.
#[derive(Debug)]
#[must_use = "a conditional write may not have happened"]
pub enum Swap {
    /// The object holds what was written, at this version.
    Stored(ObjectVersion),
    /// The object is at another version and holds something else. It may be a version that followed
    /// what was written, so read it before anything else.
    Conflict,
    /// The write may or may not happen, now or later: the object was seen as it was before, or not
    /// at all. Write the same on the same base again, or read the object back; delete nothing.
    Unknown(Error),
}

/// What a revalidation found.
#[derive(Clone, Debug)]
pub enum Revalidated {
    /// The object still has the version asked about.
    Unchanged,
    /// The object has another version.
    Changed(Bytes, ObjectVersion),
    /// The object does not exist.
    Missing,
}

impl ObjectVersion {
    fn of(found: &GetResult) -> Self {
        Self { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() }
    }

    /// Whether both name one version; a store may tell more of it in one answer than in another.
    fn is(&self, other: &ObjectVersion) -> bool {
        let agree = |ours: &Option<String>, theirs: &Option<String>| match (ours, theirs) {
            (Some(ours), Some(theirs)) => Some(ours == theirs),
            _ => None,
        };
        let told = [agree(&self.e_tag, &other.e_tag), agree(&self.version, &other.version)];
        told.iter().any(Option::is_some) && !told.contains(&Some(false))
    }

    fn mode(expected: Option<&ObjectVersion>) -> PutMode {
        match expected {
            None => PutMode::Create,
            Some(ObjectVersion { e_tag, version }) => {
                PutMode::Update(UpdateVersion { e_tag: e_tag.clone(), version: version.clone() })
            }
        }
    }
}

impl LakeStore {
    /// Reads an object and its version; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub async fn load_versioned(&self, key: &str) -> Result<Option<(Bytes, ObjectVersion)>> {
        match self.get(key, GetOptions::default()).await? {
            Revalidated::Changed(bytes, version) => Ok(Some((bytes, version))),
            Revalidated::Unchanged | Revalidated::Missing => Ok(None),
        }
    }

    /// Reads an object only if it is no longer at the version known.
    ///
    /// # Errors
    /// [`Error::Object`].
    pub async fn revalidate(&self, key: &str, known: &ObjectVersion) -> Result<Revalidated> {
        let options = GetOptions { if_none_match: known.e_tag.clone(), ..GetOptions::default() };
        self.get(key, options).await
    }

    async fn get(&self, key: &str, options: GetOptions) -> Result<Revalidated> {
        let failed = |source| Error::object("read", key, source);
        let found = match self.store().get_opts(&object_path(key)?, options).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Revalidated::Missing),
            Err(object_store::Error::NotModified { .. }) => return Ok(Revalidated::Unchanged),
            Err(source) => return Err(failed(source)),
        };
        let version = ObjectVersion::of(&found);
        Ok(Revalidated::Changed(found.bytes().await.map_err(failed)?, version))
    }

    /// Writes an object if it is still at `expected`, or, with `None`, if it does not exist.
    ///
    /// Everything but a plain success is read back before it is reported. While the object stays as
    /// it was, the same write is sent again, a bounded number of times: a late first one can then
    /// only lose, or be found by the read-back.
    ///
    /// # Errors
    /// [`Error::Object`] when the store refused without writing: no permission, no conditional
    /// writes. Everything that may have landed is [`Swap::Unknown`].
    pub async fn swap(
        &self,
        key: &str,
        bytes: Bytes,
        expected: Option<&ObjectVersion>,
    ) -> Result<Swap> {
        let mut tries = 0;
        loop {
            let failure = match self.put_if(key, bytes.clone(), expected).await? {
                Ok(version) => return Ok(Swap::Stored(version)),
                Err(failure) => failure,
            };
            let found = match self.load_versioned(key).await {
                Ok(found) => found,
                Err(error) => return Ok(Swap::Unknown(error)),
            };
            match found {
                Some((content, version)) if content == bytes => return Ok(Swap::Stored(version)),
                found => {
                    let is_as_before = match (&found, expected) {
                        (Some((_, found)), Some(expected)) => found.is(expected),
                        (None, None) => true,
                        _ => false,
                    };
                    if !is_as_before {
                        return Ok(Swap::Conflict);
                    }
                }
            }
            tries += 1;
            if tries >= SWAP_TRIES_MAX {
                return Ok(Swap::Unknown(failure));
            }
            tokio::time::sleep(SWAP_DELAY * (1 << tries)).await;
        }
    }

    /// One conditional put: its version, or a failure that says nothing about the object.
    async fn put_if(
        &self,
        key: &str,
        bytes: Bytes,
        expected: Option<&ObjectVersion>,
    ) -> Result<std::result::Result<ObjectVersion, Error>> {
        use object_store::Error as E;
        let options = PutOptions::from(ObjectVersion::mode(expected));
        let payload = PutPayload::from_bytes(bytes);
        let reply = self.store().put_opts(&object_path(key)?, payload, options).await;
        match failpoints::put_reply(key, reply) {
            Ok(put) => Ok(Ok(ObjectVersion { e_tag: put.e_tag, version: put.version })),
            Err(
                source @ (E::PermissionDenied { .. }
                | E::Unauthenticated { .. }
                | E::NotSupported { .. }
                | E::NotImplemented { .. }
                | E::InvalidPath { .. }),
            ) => Err(Error::object("write", key, source)),
            Err(source) => match Error::object("write", key, source) {
                refused @ Error::Refused { .. } => Err(refused),
                failure => Ok(Err(failure)),
            },
        }
    }
}
