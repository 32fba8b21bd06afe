//! The refs after a commit. All of it can be derived again, so a failure never fails the flush.

use cdc_manifest::{AdvanceOptions, Manifest, PromotionMode};

use crate::lake::Lake;
use crate::settings::RefSettings;

/// Writes the raw tag of the newest cut, moves `staging` and `main` there, and removes the raw tags
/// that are no longer kept.
pub(crate) async fn advance_refs(lake: &Lake, manifest: &Manifest, settings: RefSettings) {
    let options = AdvanceOptions { mode: PromotionMode::Auto, inline_raw: settings.inline_raw };
    match lake.refs.advance(manifest, options).await {
        Ok(advanced) => tracing::debug!(raw = advanced.raw_tag, "refs advanced"),
        Err(error) => {
            let error = cdc_core::chain(&error);
            tracing::warn!(error, "refs write failed");
        }
    }
    match lake.refs.prune_raw(settings.retention).await {
        Ok(0) => {}
        Ok(removed) => tracing::debug!(removed, "raw tags pruned"),
        Err(error) => {
            let error = cdc_core::chain(&error);
            tracing::warn!(error, "raw tags not pruned");
        }
    }
}
