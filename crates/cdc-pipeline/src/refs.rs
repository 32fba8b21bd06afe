//! The refs after a commit. All of it can be derived again, so a failure never fails the flush.

use cdc_manifest::{AdvanceOptions, Manifest, PromotionMode};

use crate::lake::Lake;
use crate::settings::RefSettings;

/// Writes the raw tag of the newest cut and moves `staging` and `main` there.
pub(crate) async fn advance_refs(lake: &Lake, manifest: &Manifest, settings: RefSettings) {
    let options = AdvanceOptions { mode: PromotionMode::Auto, inline_raw: settings.inline_raw };
    match lake.refs.advance(manifest, options).await {
        Ok(advanced) => tracing::debug!(raw = advanced.raw_tag, "refs advanced"),
        Err(error) => {
            let error = cdc_core::chain(&error);
            tracing::warn!(error, "refs write failed");
        }
    }
}
