//! The swap of the manifest: three outcomes, a read-back before anything else happens, and a merge with
//! whoever came first.

use std::time::Instant;

use cdc_manifest::{Manifest, Swap, Versioned};

use crate::Error;
use crate::commit::CommitState;
use crate::fence::{CONFLICT_PAUSE, fenced};

/// Tries of one manifest write whose outcome is unknown, before the whole flush is tried again.
const UNKNOWN_TRIES_MAX: u32 = 3;

impl CommitState {
    /// Gives up if another daemon took the lake over, before any table is touched.
    pub(crate) async fn check_generation(&self) -> Result<(), Error> {
        match self.lake.manifests.reload(&self.manifest.version).await? {
            Some(found) if found.value.generation > self.fence.generation => {
                Err(fenced(&self.lake, found.value.generation, self.fence.generation).await)
            }
            _ => Ok(()),
        }
    }

    /// Writes a manifest that was made from the one known. Whoever came first is merged with, and
    /// the write is tried again with the precondition, until it wins or the breaker trips.
    pub(crate) async fn swap_manifest(&mut self, next: Manifest) -> Result<(), Error> {
        let mut next = next;
        let (mut unknown_tries, mut has_merged) = (0, false);
        loop {
            next.stretch_gaps();
            let unknown = match self.lake.manifests.commit(&self.manifest, &next).await? {
                Swap::Stored(version) => {
                    self.manifest = Versioned { value: next, version };
                    if has_merged {
                        self.lake.meters.conflicts_resolved.inc();
                    }
                    return Ok(());
                }
                Swap::Conflict => None,
                Swap::Unknown(error) => Some(error),
            };
            let found = self.lake.manifests.require().await?;
            self.check_found(&found.value, &next).await?;
            if is_in(&self.manifest.value, &next, &found.value)? {
                self.manifest = found;
                if unknown.is_some() {
                    self.lake.meters.resolved(true);
                }
                return Ok(());
            }
            let is_still_unknown = found.version == self.manifest.version;
            if unknown.is_some() && !is_still_unknown {
                self.lake.meters.resolved(false);
            }
            if let Some(error) = unknown.filter(|_| is_still_unknown) {
                // the write may still land: the same again on the same base, never beside it
                unknown_tries += 1;
                if unknown_tries >= UNKNOWN_TRIES_MAX {
                    return Err(error.into());
                }
            } else {
                has_merged = true;
                tracing::warn!(epoch = next.epoch.0, "manifest conflict");
                self.fence.breaker.conflict(Instant::now())?;
                next = Manifest::merge(&self.manifest.value, &next, &found.value)?;
                self.manifest = found;
            }
            tokio::time::sleep(CONFLICT_PAUSE).await;
        }
    }

    /// What stands there must be of our generation or below, and its epoch the one known or ours.
    async fn check_found(&self, found: &Manifest, next: &Manifest) -> Result<(), Error> {
        let (known, ours) = (&self.manifest.value, self.fence.generation);
        if found.generation > ours {
            return Err(fenced(&self.lake, found.generation, ours).await);
        }
        let is_known = found.epoch == known.epoch && found.batch_id == known.batch_id;
        let is_ours = found.epoch == next.epoch && found.batch_id == next.batch_id;
        if found.lake_id != known.lake_id || !(is_known || is_ours) {
            return Err(Error::ManifestConflict);
        }
        Ok(())
    }
}

/// Whether the change from `base` to `next` stands in `found` already: our own write, of which the
/// reply was lost, with or without somebody's later change.
fn is_in(base: &Manifest, next: &Manifest, found: &Manifest) -> Result<bool, Error> {
    if next.batch_id != base.batch_id {
        return Ok(found.batch_id == next.batch_id);
    }
    let mut merged = Manifest::merge(base, next, found)?;
    merged.updated_at = found.updated_at;
    Ok(merged == *found)
}
