//! From the configuration file to a read plane.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cdc_core::{StorageSpec, SystemClock};
use cdc_manifest::{LakeStore, PromotionMode};
use cdc_query::{Engine, Lake, QueryLimits};
use cdc_runtime::{Config, LogFlags, SourceUse};
use cdc_serve::{Caller, LocalPolicy, ReadPlane};

use crate::cli::Common;

/// The checked configuration, with logs started: warnings and errors only unless asked.
pub(crate) fn config(common: &Common) -> anyhow::Result<Config> {
    let config = Config::load(common.config.as_deref(), SourceUse::Unused)?;
    let flags = LogFlags { level: common.log_level.clone(), format: common.log_format.clone() };
    cdc_runtime::init_quiet_logging(&flags, &config.logging)?;
    Ok(config)
}

/// The read plane that the configuration describes.
pub(crate) fn read_plane(config: &Config) -> anyhow::Result<ReadPlane> {
    if config.governance.is_some() {
        return Err(cdc_serve::Error::GovernanceUnavailable.into());
    }
    let store = LakeStore::open_read_only(&storage(config)?)?;
    let limits = QueryLimits {
        memory_bytes: config.query.memory_bytes,
        timeout: Duration::from_secs(config.query.timeout_sec),
        ..QueryLimits::default()
    };
    let engine = Engine::new(limits)?;
    let lake = Lake::new(store, promotion(config));
    Ok(ReadPlane::new(lake, engine, LocalPolicy::default(), Arc::new(SystemClock)))
}

/// Where the lake is.
pub(crate) fn storage(config: &Config) -> anyhow::Result<StorageSpec> {
    config.storage_spec().context("storage: a required key is missing")
}

/// How `main` advances.
pub(crate) fn promotion(config: &Config) -> PromotionMode {
    match config.promotion.mode {
        cdc_runtime::PromotionMode::Auto => PromotionMode::Auto,
        cdc_runtime::PromotionMode::Manual => PromotionMode::Manual,
    }
}

/// Where audit records go.
pub(crate) fn audit_dir(config: &Config) -> PathBuf {
    let path = config.audit.path.clone();
    path.unwrap_or_else(|| config.state_dir().join("audit"))
}

/// The person at the prompt.
pub(crate) fn caller(role: Option<&str>) -> Caller {
    Caller {
        principal: cdc_runtime::user_at_prompt(),
        role: role.map(str::to_owned),
        request_id: uuid::Uuid::now_v7().to_string(),
    }
}
