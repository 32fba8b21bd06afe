//! The proof that a store honours preconditions, made at init and preflight: a store that ignores
//! them would let two daemons overwrite each other's commits.

use bytes::Bytes;
use object_store::ObjectStoreExt;

use super::{LakeStore, ObjectVersion, Swap, object_path};
use crate::layout::PROBE_PREFIX;
use crate::{Error, Result};

/// Runs the probe on an object of its own and removes it whatever the outcome.
pub(super) async fn run(lake: &LakeStore) -> Result<()> {
    let key = format!("{PROBE_PREFIX}{}", uuid::Uuid::new_v4().simple());
    let outcome = conditions_hold(lake, &key).await;
    if let Err(error) = lake.store().delete(&object_path(&key)?).await {
        tracing::debug!(key, %error, "the object of the probe could not be removed");
    }
    outcome
}

async fn conditions_hold(lake: &LakeStore, key: &str) -> Result<()> {
    let ignored = |precondition| {
        let location = lake.location().root().to_owned();
        Err(Error::PreconditionIgnored { location, precondition })
    };
    let first = stored(lake, key, "1", None).await?;
    if let Swap::Stored(_) = swap(lake, key, "2", None).await? {
        return ignored("the object does not exist");
    }
    let second = stored(lake, key, "3", Some(&first)).await?;
    if second == first {
        return ignored("each write has a version of its own");
    }
    if let Swap::Stored(_) = swap(lake, key, "4", Some(&first)).await? {
        return ignored("the object is at the version read");
    }
    Ok(())
}

async fn swap(
    lake: &LakeStore,
    key: &str,
    content: &'static str,
    expected: Option<&ObjectVersion>,
) -> Result<Swap> {
    match lake.swap(key, Bytes::from_static(content.as_bytes()), expected).await? {
        Swap::Unknown(error) => Err(error),
        known => Ok(known),
    }
}

async fn stored(
    lake: &LakeStore,
    key: &str,
    content: &'static str,
    expected: Option<&ObjectVersion>,
) -> Result<ObjectVersion> {
    match swap(lake, key, content, expected).await? {
        Swap::Stored(version) => Ok(version),
        Swap::Conflict | Swap::Unknown(_) => {
            Err(Error::Contended { key: key.to_owned(), attempts: 1 })
        }
    }
}
