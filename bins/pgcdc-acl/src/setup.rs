//! From the configuration file to a registry, and who is at the prompt.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use cdc_core::SystemClock;
use cdc_governance::{
    Level, Provenance, RegistryOptions, ResourceId, SqliteRegistry, Surface, Tags, Taxonomy,
};
use cdc_runtime::{Config, GovernanceBackend, GovernanceConfig, LogFlags, SourceUse};
use chrono::TimeDelta;
use globset::GlobBuilder;

use crate::cli::Common;
use crate::failure::Stop;

/// A registry and the section it follows from.
pub(crate) struct Registry {
    pub(crate) registry: SqliteRegistry,
    pub(crate) config: GovernanceConfig,
}

pub(crate) fn open(common: &Common) -> Result<Registry> {
    let config = Config::load(common.config.as_deref(), SourceUse::Unused)?;
    let flags = LogFlags { level: common.log_level.clone(), format: common.log_format.clone() };
    cdc_runtime::init_quiet_logging(&flags, &config.logging)?;
    let state = config.state_dir();
    let Some(section) = config.governance else {
        let hint = "there is no governance section; hint: `governance: {}` switches it on";
        return Err(Stop::usage(hint).into());
    };
    if section.backend == Some(GovernanceBackend::Aws) {
        return Err(Stop::usage("governance.backend: aws is not available yet; hint: `sqlite` is the registry on this machine").into());
    }
    let options = RegistryOptions {
        taxonomy: Taxonomy::parse(&section.taxonomy)
            .map_err(|error| Stop::usage(format!("governance.taxonomy: {error}")))?,
        break_glass_ttl_max: TimeDelta::from_std(section.break_glass_max_ttl.0)
            .context("governance.break_glass_max_ttl")?,
    };
    make_private(&state)?;
    let path = state.join(SqliteRegistry::FILE_NAME);
    let registry = SqliteRegistry::open(&path, options, Arc::new(SystemClock))?;
    Ok(Registry { registry, config: section })
}

fn make_private(state: &std::path::Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(state).with_context(|| format!("state directory {}", state.display()))
}

/// Who is at the prompt, and why he does it.
pub(crate) fn provenance(reason: &str) -> Provenance {
    Provenance {
        by: cdc_runtime::user_at_prompt(),
        surface: Surface::Cli,
        request_id: uuid::Uuid::now_v7().to_string(),
        reason: reason.to_owned(),
    }
}

/// The tags that a resource starts with: for a table `governance.defaults`, then each of
/// `governance.overrides` whose pattern matches, in order; for a column what the overrides say of it.
pub(crate) fn default_tags(config: &GovernanceConfig, id: &ResourceId) -> Result<Tags> {
    let table = match id.level() {
        Level::Table => Some(id.clone()),
        Level::Column => id.parent(),
        Level::Database | Level::Schema => None,
    };
    let Some(table) = table else { return Ok(Tags::default()) };
    let schema = table.parent().map(|schema| schema.name().to_owned()).unwrap_or_default();
    let name = cdc_core::TableName::new(schema, table.name()).to_string();
    let is_table = id.level() == Level::Table;
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    if is_table {
        pairs.extend(config.defaults.clone());
    }
    for entry in &config.overrides {
        let pattern = GlobBuilder::new(entry.pattern.as_str()).backslash_escape(true).build()?;
        if !pattern.compile_matcher().is_match(&name) {
            continue;
        }
        let own = if is_table { Some(&entry.tags) } else { entry.columns.get(id.name()) };
        pairs.extend(own.cloned().unwrap_or_default());
    }
    Ok(Tags::parse(pairs)?)
}
