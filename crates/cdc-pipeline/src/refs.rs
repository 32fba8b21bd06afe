//! The refs after a commit. All of it can be derived again, so a failure never fails the flush.

use cdc_core::failpoint;
use cdc_manifest::{AdvanceOptions, Manifest, STAGING};

use crate::lake::Lake;
use crate::settings::RefSettings;

/// Derives the refs of a committed cut again where the last process ended before it wrote them.
pub(crate) async fn make_up_refs(lake: &Lake, manifest: &Manifest, settings: RefSettings) {
    match lake.refs.load().await {
        Ok(refs) if refs.refs.get(STAGING).is_some_and(|at| at.epoch >= manifest.epoch) => {}
        Ok(_) => advance_refs(lake, manifest, settings).await,
        Err(error) => tracing::warn!(error = cdc_core::chain(&error), "refs not read"),
    }
}

/// Writes the raw tag of the newest cut, moves `staging` and `main` there, and removes the raw tags
/// that are no longer kept.
pub(crate) async fn advance_refs(lake: &Lake, manifest: &Manifest, settings: RefSettings) {
    if failpoint("s15") {
        tracing::warn!(error = "failpoint", "refs write failed");
        return;
    }
    let options = AdvanceOptions { mode: lake.promotion(), inline_raw: settings.inline_raw };
    match lake.refs.advance(manifest, options).await {
        Ok(advanced) => tracing::debug!(raw = advanced.raw_tag, "refs advanced"),
        Err(error) => {
            let error = cdc_core::chain(&error);
            tracing::warn!(error, "refs write failed");
        }
    }
    match lake.refs.prune_raw(settings.retention).await {
        Ok(0) => {}
        Ok(removed) => {
            lake.meters.raw_tags_pruned.inc_by(removed as u64);
            tracing::debug!(removed, "raw tags pruned");
        }
        Err(error) => {
            let error = cdc_core::chain(&error);
            tracing::warn!(error, "raw tags not pruned");
        }
    }
}
