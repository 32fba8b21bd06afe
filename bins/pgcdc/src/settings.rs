//! The configuration as the plain settings of the write plane. What this version cannot do is
//! refused here, by the name of its key, before anything is touched.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cdc_core::{ArrayPolicy, NumericPolicy, StoredAs, TypePolicy, UnrepresentablePolicy};
use cdc_governance::{RuleText, TableRules, TagPolicy};
use cdc_iceberg::{DeleteEncoding, TableNaming};
use cdc_manifest::{PromotionMode, RawRetention};
use cdc_pipeline::{
    BreakerSettings, CompactSettings, CompactionSettings, Compression, DaemonSettings, Failover,
    FlushSettings, InitSettings, LakeSettings, OnError, ReconcileSettings, RefSettings,
    ReplicationSettings, Streaming, TableLabels, TableOpSettings, TruncateMode, TypeSettings,
    VerifySettings,
};
use cdc_runtime as conf;
use cdc_runtime::Config;
use globset::GlobBuilder;

use crate::failure::Stop;

/// Settings of `init`.
pub(crate) fn init(config: &Config) -> Result<InitSettings> {
    refuse_unsupported(config)?;
    Ok(InitSettings {
        lake: lake(config)?,
        replication: replication(config)?,
        parallel_workers: count(config.init.parallel_workers),
        refs: refs(config),
        changes_kept: config.changelog.retention.to_string(),
    })
}

/// Settings of `start`.
pub(crate) fn daemon(config: &Config) -> Result<DaemonSettings> {
    refuse_unsupported(config)?;
    let flush = &config.flush;
    let heartbeat = config.replication.heartbeat_interval_sec;
    let guardrail = config.guardrail.max_retained_wal_bytes;
    Ok(DaemonSettings {
        lake: lake(config)?,
        replication: replication(config)?,
        flush: FlushSettings {
            interval: Duration::from_secs_f64(flush.interval_sec),
            min_interval: Duration::from_millis(flush.min_interval_ms),
            max_rows: flush.max_rows,
            max_bytes: bytes(flush.max_bytes),
            parallel_workers: count(flush.parallel_workers),
            drain_timeout: Duration::from_secs(flush.drain_timeout_sec),
            schema_reconcile_interval: Some(Duration::from_secs(
                flush.schema_reconcile_interval_sec,
            )),
        },
        refs: refs(config),
        buffer_bytes_max: bytes(config.limits.buffer_bytes),
        spool_bytes_max: config.limits.spool_bytes,
        copy_workers: count(config.init.parallel_workers),
        live_interval: Duration::from_secs_f64(config.freshness.live_interval_sec),
        heartbeat_interval: (heartbeat > 0).then(|| Duration::from_secs(heartbeat)),
        guardrail_bytes: (guardrail > 0).then_some(guardrail),
        breaker: breaker(config),
        compaction: compaction(config),
    })
}

/// Settings of `compact`.
pub(crate) fn compact(config: &Config) -> Result<CompactSettings> {
    refuse_unsupported(config)?;
    Ok(CompactSettings {
        lake: lake(config)?,
        refs: refs(config),
        compaction: compaction(config),
        breaker: breaker(config),
        buffer_bytes_max: bytes(config.limits.buffer_bytes),
    })
}

fn compaction(config: &Config) -> CompactionSettings {
    let compaction = &config.compaction;
    let (interval, retention) = (compaction.interval_sec, config.changelog.retention.0);
    CompactionSettings {
        interval: (interval > 0).then(|| Duration::from_secs(interval)),
        target_file_bytes: compaction.target_file_bytes,
        max_delete_ratio: compaction.max_delete_ratio,
        orphan_grace: Duration::from_secs(compaction.orphan_grace_sec),
        retention: (!retention.is_zero()).then_some(retention),
        retention_text: config.changelog.retention.to_string(),
    }
}

fn breaker(config: &Config) -> BreakerSettings {
    let flush = &config.flush;
    BreakerSettings {
        threshold: flush.cas_breaker_threshold,
        window: Duration::from_secs(flush.cas_breaker_window_sec),
    }
}

/// How long `verify` may hold the daemon's intake while it makes its snapshot.
const VERIFY_HOLD: Duration = Duration::from_secs(10);

/// Settings of `verify`, over all tables and without a bound.
pub(crate) fn verify(config: &Config) -> Result<VerifySettings> {
    refuse_unsupported(config)?;
    Ok(VerifySettings {
        lake: lake(config)?,
        replication: replication(config)?,
        parallel_workers: count(config.init.parallel_workers),
        tables: Vec::new(),
        timeout: Duration::MAX,
        hold: VERIFY_HOLD,
    })
}

/// How long `reconcile --force` waits for the daemon.
const RECONCILE_PATIENCE: Duration = Duration::from_secs(60);

/// Settings of `reconcile`, over all tables and as a plan.
pub(crate) fn reconcile(config: &Config) -> Result<ReconcileSettings> {
    refuse_unsupported(config)?;
    Ok(ReconcileSettings {
        lake: lake(config)?,
        replication: replication(config)?,
        refs: refs(config),
        breaker: breaker(config),
        compaction: compaction(config),
        buffer_bytes_max: bytes(config.limits.buffer_bytes),
        tables: Vec::new(),
        force: false,
        patience: RECONCILE_PATIENCE,
    })
}

/// Settings of `table …`.
pub(crate) fn table_ops(config: &Config) -> Result<TableOpSettings> {
    refuse_unsupported(config)?;
    Ok(TableOpSettings { lake: lake(config)?, refs: refs(config), breaker: breaker(config) })
}

/// How tables appear in the labels of metrics.
pub(crate) fn table_labels(config: &Config) -> TableLabels {
    match config.metrics.table_labels {
        Some(conf::TableLabels::Hashed) => TableLabels::Hashed,
        Some(conf::TableLabels::Off) => TableLabels::Off,
        Some(conf::TableLabels::Full) | None => TableLabels::Full,
    }
}

/// Where the lake is.
pub(crate) fn lake(config: &Config) -> Result<LakeSettings> {
    Ok(LakeSettings {
        storage: config.storage_spec().context("storage: a required key is missing")?,
        state_dir: config.state_dir(),
        database: config.catalog.database.clone(),
        naming: naming(config),
        compression: match config.iceberg.compression {
            conf::Compression::Zstd => Compression::Zstd,
            conf::Compression::Snappy => Compression::Snappy,
            conf::Compression::None => Compression::None,
        },
        deletes: match config.iceberg.deletes {
            conf::DeleteMode::Vector => DeleteEncoding::Vector,
            // the third is refused before anything is written
            conf::DeleteMode::Position | conf::DeleteMode::CopyOnWrite => DeleteEncoding::Position,
        },
        promotion: match config.promotion.mode {
            conf::PromotionMode::Auto => PromotionMode::Auto,
            conf::PromotionMode::Manual => PromotionMode::Manual,
        },
    })
}

/// How Iceberg tables are named.
pub(crate) fn naming(config: &Config) -> TableNaming {
    match config.catalog.table_naming {
        conf::TableNaming::Bare => TableNaming::Bare,
        conf::TableNaming::Qualified => TableNaming::Qualified,
    }
}

/// What is replicated.
pub(crate) fn replication(config: &Config) -> Result<ReplicationSettings> {
    let replication = &config.replication;
    Ok(ReplicationSettings {
        schemas: schemas(config),
        publication: replication.publication.clone(),
        slot: replication.slot.clone(),
        failover: match replication.failover {
            conf::FailoverChoice::Auto => Failover::Auto,
            conf::FailoverChoice::On => Failover::On,
            conf::FailoverChoice::Off => Failover::Off,
        },
        rules: rules(config)?,
        types: types(config)?,
        truncate: match replication.truncate {
            conf::TruncateChoice::Apply => TruncateMode::Apply,
            conf::TruncateChoice::Ignore => TruncateMode::Ignore,
            conf::TruncateChoice::Halt => TruncateMode::Halt,
        },
        streaming: match replication.streaming {
            conf::StreamingChoice::Auto => Streaming::Auto,
            conf::StreamingChoice::Off => Streaming::Off,
        },
    })
}

/// The schemas to look for tables in.
pub(crate) fn schemas(config: &Config) -> Vec<String> {
    let postgres = config.source.as_ref().map(|source| source.postgres.clone());
    postgres.unwrap_or_default().schemas
}

/// Which tables are followed.
pub(crate) fn rules(config: &Config) -> Result<TableRules> {
    let texts = |globs: &[conf::Glob]| {
        globs.iter().map(|glob| glob.as_str().to_owned()).collect::<Vec<String>>()
    };
    let tables = &config.tables;
    let policy = tables.policy.iter().map(|(tag, policy)| {
        let policy = match policy {
            conf::TagPolicy::Include => TagPolicy::Include,
            conf::TagPolicy::Exclude => TagPolicy::Exclude,
        };
        (tag.clone(), policy)
    });
    Ok(TableRules::new(&RuleText {
        exclude: texts(&tables.exclude),
        tags: tables.tags.iter().map(|(tag, globs)| (tag.clone(), texts(globs))).collect(),
        policy: policy.collect(),
    })?)
}

/// How values are stored.
pub(crate) fn types(config: &Config) -> Result<TypeSettings> {
    let types = &config.types;
    let mut columns = Vec::with_capacity(types.columns.len());
    for column in &types.columns {
        let glob = GlobBuilder::new(column.pattern.as_str()).backslash_escape(true).build()?;
        columns.push((glob.compile_matcher(), column.form.0));
    }
    let policy = TypePolicy {
        numeric_unconstrained: match types.numeric_unconstrained.0 {
            StoredAs::Double => NumericPolicy::Double,
            StoredAs::Decimal(precision, scale) => NumericPolicy::Decimal(precision, scale),
            StoredAs::String | StoredAs::List => NumericPolicy::String,
        },
        array: match types.array {
            conf::ArrayChoice::List => ArrayPolicy::List,
            conf::ArrayChoice::String => ArrayPolicy::String,
        },
        unrepresentable: match types.unrepresentable {
            conf::UnrepresentableChoice::Error => UnrepresentablePolicy::Error,
            conf::UnrepresentableChoice::Null => UnrepresentablePolicy::Null,
            conf::UnrepresentableChoice::Clamp => UnrepresentablePolicy::Clamp,
        },
    };
    let on_error = match types.on_error {
        conf::OnTypeError::Pause => OnError::Pause,
        conf::OnTypeError::Halt => OnError::Halt,
    };
    Ok(TypeSettings { policy, on_error, columns })
}

/// Refuses what the configuration may say and this version cannot do.
fn refuse_unsupported(config: &Config) -> Result<()> {
    let catalog = &config.catalog;
    if catalog.kind == conf::CatalogType::Glue {
        bail!(unsupported("catalog.type", "glue", "iceberg"));
    }
    if let Some(backend) = catalog.backend.filter(|b| *b != conf::CatalogBackend::Sqlite) {
        bail!(unsupported("catalog.backend", backend.as_str(), "sqlite"));
    }
    if config.governance.is_some() {
        bail!(Stop::usage(
            "governance: not available yet; hint: remove the section, and catalog.acl_table, to run ungoverned"
        ));
    }
    match config.iceberg.deletes {
        conf::DeleteMode::Position | conf::DeleteMode::Vector => {}
        conf::DeleteMode::CopyOnWrite => {
            bail!(unsupported("iceberg.deletes", "copy_on_write", "position"))
        }
    }
    if config.profiles.source == conf::ProfileSource::PgAcl {
        bail!(unsupported("profiles.source", "pg_acl", "\"\""));
    }
    let switches = [
        ("storage.soft_delete", config.storage.soft_delete),
        ("tables.auto_add", config.tables.auto_add),
        ("source.postgres.iam_auth", config.source.as_ref().is_some_and(|s| s.postgres.iam_auth)),
    ];
    match switches.into_iter().find(|(_, on)| *on) {
        Some((key, _)) => bail!(unsupported(key, "true", "false")),
        None => Ok(()),
    }
}

fn unsupported(key: &str, value: &str, instead: &str) -> Stop {
    Stop::usage(format!("{key}: `{value}` is not available yet; hint: use {instead}"))
}

fn refs(config: &Config) -> RefSettings {
    let refstore = &config.refstore;
    RefSettings {
        snapshots_kept: count(config.catalog.snapshot_retain_count),
        inline_raw: count(refstore.inline_raw),
        retention: RawRetention {
            // -1 keeps all
            newest: usize::try_from(refstore.retain_raw).ok(),
            hourly: count(refstore.retain_hourly),
            daily: count(refstore.retain_daily),
        },
    }
}

fn count(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn bytes(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
