//! `init`: a source into a new lake, at one position of its log.
//!
//! ```text
//! check everything ─> record ─> publication ─> slot + snapshot ─> COPY ─> tables ─> manifest ─> refs
//!                       └────────────── undone in this order's reverse on failure ──────────┘
//! ```
//! The exported snapshot dies with its session, so an init that was killed is never continued: the
//! next one removes what the record names and copies again.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Epoch, Lsn, TableName, failpoint};
use cdc_iceberg::{Branch, current_schema, data_file_from_parquet};
use cdc_iceberg::{CommitKind, InitialContent, Stamp, TablePair, TableSpec};
use cdc_manifest::{
    CatalogInfo, CompactionInfo, Manifest, SourceInfo, Swap, TableEntry, TableState,
};
use cdc_sink::FileCompression;
use cdc_wal::{
    CheckStatus, Control, CopyPlanOptions, CopyTable, SlotSnapshot, SlotSpec, Source, SourceFacts,
};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::commit::point_at;
use crate::copy::{
    Base, BaseFile, Copied, CopySettings, CopyTarget, InitProgress, RUN_BYTES_MAX, copy_tables,
};
use crate::init_record::InitRecord;
use crate::lake::Lake;
use crate::lease::Lease;
use crate::plan::Plan;
use crate::refs::advance_refs;
use crate::settings::{Failover, InitSettings};
use crate::{Error, undo};

/// Heap bytes of one COPY job, when there are several workers.
const COPY_JOB_BYTES: u64 = 256 * 1024 * 1024;
/// The first server that sends stored generated columns.
const PUBLISHES_GENERATED_FROM: u32 = 180_000;

/// What init made.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// The slot.
    pub slot: String,
    /// The publication, and whether it was made now.
    pub publication: (String, bool),
    /// The position of the copy.
    pub lsn: Lsn,
    /// Rows by table.
    pub tables: BTreeMap<TableName, u64>,
    /// Tables left out, with reasons.
    pub excluded: BTreeMap<TableName, String>,
    /// Root of the lake.
    pub root: String,
}

/// Copies the source into a new lake. An error, or a stop, leaves nothing of it behind.
///
/// # Errors
/// See [`Error`]; nothing is made on the source before everything was checked.
pub async fn init(
    settings: &InitSettings,
    source: &Source,
    progress: &dyn InitProgress,
    stop: &CancellationToken,
) -> Result<InitReport, Error> {
    let state_dir = &settings.lake.state_dir;
    let lake = Lake::open(&settings.lake)?;
    let _lease = Lease::take(state_dir)?;
    if let Some(found) = lake.manifests.load().await? {
        return complete(settings, &lake, &found.value).await;
    }
    lake.store.probe_cas().await?;
    let control = source.connect().await?;
    if let Some(record) = InitRecord::load(state_dir)? {
        tracing::info!(slot = record.slot, "removing what an unfinished init left");
        undo::unfinished(&lake, &control, &record, state_dir).await?;
    }
    let (facts, plan) = check(settings, &control, &lake).await?;
    let record = InitRecord {
        lake_id: Uuid::now_v7().to_string(),
        slot: settings.replication.slot.clone(),
        publication: settings.replication.publication.clone(),
        publication_made: control.publication(&settings.replication.publication).await?.is_none(),
        namespace: database(settings, &facts),
        tables: plan.included.iter().map(|table| table.source.name.to_string()).collect(),
    };
    interrupt_at("i3")?;
    record.store(state_dir)?;
    let attempt = Attempt { settings, source, control: &control, lake: &lake, facts, plan };
    match attempt.run(&record, progress, stop).await {
        Ok(report) => {
            InitRecord::remove(state_dir)?;
            Ok(report)
        }
        // the manifest may stand: nothing may be removed, the next run finds out
        Err(error @ Error::ManifestUnknown) => Err(error),
        Err(error) => {
            if let Err(second) = undo::unfinished(&lake, &control, &record, state_dir).await {
                let error = cdc_core::chain(&second);
                tracing::error!(error, "init could not be undone; its next run tries again");
            }
            Err(error)
        }
    }
}

/// With a manifest init is done. One that died between its manifest and its last word is given that
/// word here, so that running init again is always the right answer to its death.
async fn complete(
    settings: &InitSettings,
    lake: &Lake,
    manifest: &Manifest,
) -> Result<InitReport, Error> {
    let root = lake.store.location().root().to_owned();
    let refused = Error::AlreadyInitialised { root: root.clone(), epoch: manifest.epoch.0 };
    let record = InitRecord::load(&settings.lake.state_dir)?;
    let Some(record) = record.filter(|record| record.lake_id == manifest.lake_id) else {
        return Err(refused);
    };
    InitRecord::remove(&settings.lake.state_dir)?;
    if manifest.generation > 0 {
        // a daemon has taken over from there
        return Err(refused);
    }
    advance_refs(lake, manifest, settings.refs).await;
    let rows = |(table, entry): (&TableName, &TableEntry)| {
        (table.clone(), entry.row_count.unwrap_or_default())
    };
    let excluded = |(table, entry): (&TableName, &TableEntry)| {
        entry.reason.as_ref().map(|reason| (table.clone(), reason.clone()))
    };
    Ok(InitReport {
        slot: manifest.source.slot.clone(),
        publication: (record.publication, record.publication_made),
        lsn: manifest.source.init_lsn,
        tables: manifest.active_tables().map(rows).collect(),
        excluded: manifest.tables.iter().filter_map(excluded).collect(),
        root,
    })
}

/// Everything that can be known before something is made.
async fn check(
    settings: &InitSettings,
    control: &Control,
    lake: &Lake,
) -> Result<(SourceFacts, Plan), Error> {
    let replication = &settings.replication;
    let facts = control.facts().await?;
    if control.slot(&replication.slot).await?.is_some() {
        return Err(Error::SlotTaken { slot: replication.slot.clone() });
    }
    let publishes_generated = match control.publication(&replication.publication).await? {
        Some(existing) => existing.publishes_generated,
        None => facts.server_version_num >= PUBLISHES_GENERATED_FROM,
    };
    let discovered = control.discover(&replication.schemas).await?;
    // before the plan: a table that would be left out may be one that nobody meant to leave out
    let want = crate::preflight::want(replication, &discovered);
    let report = control.preflight(&want).await?;
    if let Some(failed) = report.checks.iter().find(|check| check.status == CheckStatus::Fail) {
        return Err(Error::Preflight {
            check: failed.name.to_owned(),
            detail: failed.detail.clone(),
            remediation: failed.remediation.clone(),
        });
    }
    let plan = Plan::new(discovered, &settings.lake, replication, publishes_generated)?;
    for table in &plan.included {
        undo::check_empty(lake, &table.source.name).await?;
    }
    Ok((facts, plan))
}

/// The Iceberg namespace: configured, or the source database in lower case.
fn database(settings: &InitSettings, facts: &SourceFacts) -> String {
    settings.lake.database.clone().unwrap_or_else(|| facts.database.to_lowercase())
}

/// The name of a compression in Iceberg's table properties.
pub(crate) fn codec(compression: FileCompression) -> &'static str {
    match compression {
        FileCompression::Zstd => "zstd",
        FileCompression::Snappy => "snappy",
        FileCompression::None => "uncompressed",
    }
}

/// A failpoint of init: what fails there is the run as a whole.
fn interrupt_at(point: &str) -> Result<(), Error> {
    if failpoint(point) { Err(Error::Interrupted) } else { Ok(()) }
}

/// One try, behind all checks.
struct Attempt<'a> {
    settings: &'a InitSettings,
    source: &'a Source,
    control: &'a Control,
    lake: &'a Lake,
    facts: SourceFacts,
    plan: Plan,
}

impl Attempt<'_> {
    async fn run(
        &self,
        record: &InitRecord,
        progress: &dyn InitProgress,
        stop: &CancellationToken,
    ) -> Result<InitReport, Error> {
        let replication = &self.settings.replication;
        let sources = self.plan.sources();
        let ensured = self.control.ensure_publication(&replication.publication, &sources).await?;
        interrupt_at("i1")?;
        let slot = tokio::select! {
            slot = async { self.source.create_slot(&self.slot_spec()).await } => slot?,
            () = stop.cancelled() => return Err(Error::Interrupted),
        };
        interrupt_at("i2")?;
        let now = self.lake.clock.now();
        let copied = self.copy(&slot, progress, stop).await?;
        let pairs = self.create_tables(record, &slot, &copied, now).await?;
        let rows = copied.iter().map(|(table, copied)| (table.clone(), copied.rows()));
        let rows: BTreeMap<TableName, u64> = rows.collect();
        let mut manifest = self.manifest(record, &slot, now, &pairs, &rows);
        for (table, copied) in &copied {
            for column in manifest.mark_lossy(table, &copied.lossy) {
                tracing::warn!(%table, column, "values replaced as declared");
            }
        }
        interrupt_at("i9")?;
        match self.lake.manifests.create(&manifest).await? {
            Swap::Stored(_) => {}
            Swap::Conflict => return Err(Error::ManifestConflict),
            Swap::Unknown(error) => {
                tracing::error!(error = cdc_core::chain(&error), "manifest write unknown");
                return Err(Error::ManifestUnknown);
            }
        }
        let session_is_lost = failpoint("i10");
        advance_refs(self.lake, &manifest, self.settings.refs).await;
        tracing::info!(lsn = %slot.consistent_point, tables = rows.len(), "snapshot complete");
        if session_is_lost {
            drop(slot.lease);
        } else if let Err(error) = slot.lease.release().await {
            tracing::warn!(error = cdc_core::chain(&error), "snapshot session ended early");
        }
        Ok(InitReport {
            slot: slot.slot,
            publication: (replication.publication.clone(), ensured.created),
            lsn: slot.consistent_point,
            tables: rows,
            excluded: self
                .plan
                .excluded
                .iter()
                .map(|(t, (why, _))| (t.clone(), why.clone()))
                .collect(),
            root: self.lake.store.location().root().to_owned(),
        })
    }

    fn slot_spec(&self) -> SlotSpec {
        let mut spec = SlotSpec::new(&self.settings.replication.slot);
        spec.failover = self.settings.replication.failover != Failover::Off;
        // a table that is rewritten or truncated during the copy would be seen empty
        spec.tables = self.plan.included.iter().map(|table| table.source.oid).collect();
        spec
    }

    async fn copy(
        &self,
        slot: &SlotSnapshot,
        progress: &dyn InitProgress,
        stop: &CancellationToken,
    ) -> Result<BTreeMap<TableName, Copied>, Error> {
        let columns: Vec<Vec<String>> = self
            .plan
            .included
            .iter()
            .map(|table| table.schema.columns.iter().map(|column| column.name.clone()).collect())
            .collect();
        let copies: Vec<CopyTable<'_>> = self
            .plan
            .included
            .iter()
            .zip(&columns)
            .map(|(table, columns)| CopyTable { table: &table.source, columns })
            .collect();
        let workers = self.settings.parallel_workers;
        let options = CopyPlanOptions { workers, target_bytes: COPY_JOB_BYTES };
        let jobs = self.control.plan_copy(&copies, options).await?;
        let estimates: Vec<(TableName, i64)> = self
            .plan
            .included
            .iter()
            .map(|table| (table.source.name.clone(), table.source.estimated_rows))
            .collect();
        progress.planned(&estimates);
        let targets = self
            .plan
            .included
            .iter()
            .map(|table| (table.source.name.clone(), CopyTarget::new(Arc::clone(&table.schema))))
            .collect();
        let spill_dir = self.settings.lake.state_dir.join("tmp");
        crate::lake::create_state_dir(&spill_dir)?;
        let settings = CopySettings {
            spill_dir: &spill_dir,
            source: self.source,
            snapshot: &slot.snapshot_name,
            store: &self.lake.store,
            workers,
            run_bytes_max: RUN_BYTES_MAX,
            base: Base::default(),
            policy: self.settings.replication.types.policy.unrepresentable,
            compression: self.settings.lake.compression,
            progress,
            // a worker that fails ends the others, not whoever asked for init
            stop: stop.child_token(),
        };
        copy_tables(&settings, &targets, jobs).await
    }

    async fn create_tables(
        &self,
        record: &InitRecord,
        slot: &SlotSnapshot,
        copied: &BTreeMap<TableName, Copied>,
        now: DateTime<Utc>,
    ) -> Result<BTreeMap<TableName, TablePair>, Error> {
        let stamp = Stamp {
            kind: CommitKind::Init,
            epoch: Epoch(0),
            lsn_from: Lsn::ZERO,
            lsn_to: slot.consistent_point,
            commit_ts: Some(now),
            batch_id: Uuid::now_v7(),
            generation: 0,
        };
        let namespace = record.namespace.as_str();
        stream::iter(&self.plan.included)
            .map(|planned| {
                let stamp = stamp.clone();
                async move {
                    let table = &planned.source.name;
                    let spec = TableSpec {
                        schema: &planned.schema,
                        namespace,
                        naming: self.settings.lake.naming,
                        lake_id: &record.lake_id,
                        codec: codec(self.settings.lake.compression),
                        generation: 0,
                        deletes: self.lake.deletes,
                    };
                    let parts = copied.get(table).map_or(&[][..], |copied| &copied.files);
                    let create = async {
                        let schema = current_schema(&planned.schema)?;
                        let describe = |part: &BaseFile| {
                            let location = self.lake.store.location().uri(&part.key);
                            data_file_from_parquet(&location, part.size, &part.metadata, &schema)
                        };
                        let base_files = parts.iter().map(describe).collect::<Result<_, _>>()?;
                        let content = InitialContent { stamp, branch: Branch::Main, base_files };
                        self.lake.tables.create_tables(&spec, &content).await
                    };
                    let pair = create.await.map_err(Error::iceberg(table))?;
                    Ok((table.clone(), pair))
                }
            })
            .buffer_unordered(self.settings.parallel_workers.max(1))
            .try_collect()
            .await
    }

    fn manifest(
        &self,
        record: &InitRecord,
        slot: &SlotSnapshot,
        now: DateTime<Utc>,
        pairs: &BTreeMap<TableName, TablePair>,
        rows: &BTreeMap<TableName, u64>,
    ) -> Manifest {
        let mut manifest = Manifest {
            version: cdc_manifest::MANIFEST_VERSION,
            lake_id: record.lake_id.clone(),
            source: SourceInfo {
                name: slot.slot.clone(),
                postgres_version: self.facts.version_text.clone(),
                init_lsn: slot.consistent_point,
                init_timestamp: now,
                database: self.facts.database.clone(),
                system_identifier: slot.system_identifier,
                timeline: slot.timeline,
                slot: slot.slot.clone(),
                publication: record.publication.clone(),
                extra: Default::default(),
            },
            epoch: Epoch(0),
            commit_lsn: slot.consistent_point,
            commit_ts: now,
            covered_lsn: slot.consistent_point,
            covered_at: now,
            batch_id: Uuid::now_v7().to_string(),
            generation: 0,
            catalog: CatalogInfo {
                kind: "iceberg".into(),
                backend: "sqlite".into(),
                database: record.namespace.clone(),
                extra: Default::default(),
            },
            tables: BTreeMap::new(),
            schemas: BTreeMap::new(),
            roles: BTreeMap::new(),
            compaction: CompactionInfo {
                tombstone_retention: Some(self.settings.changes_kept.clone()),
                ..CompactionInfo::default()
            },
            updated_at: now,
            extra: Default::default(),
        };
        for (table, (reason, tags)) in &self.plan.excluded {
            let mut entry = TableEntry::excluded(table, reason);
            entry.tags = (!tags.is_empty()).then(|| tags.clone());
            manifest.tables.insert(table.clone(), entry);
        }
        for planned in &self.plan.included {
            let table = &planned.source.name;
            let mut entry = TableEntry::active(&planned.schema, TableState::Streaming);
            entry.tags = (!planned.tags.is_empty()).then(|| planned.tags.clone());
            entry.source_oid = Some(planned.source.oid);
            entry.base_path = Some(cdc_manifest::layout::base_dir(table, Epoch(0), 0));
            entry.row_count = rows.get(table).copied();
            entry.lsn_to = Some(slot.consistent_point);
            if let Some(pair) = pairs.get(table) {
                point_at(&mut entry, pair, Branch::Main);
            }
            manifest.tables.insert(table.clone(), entry);
            manifest.set_schema(&planned.schema);
        }
        manifest
    }
}
