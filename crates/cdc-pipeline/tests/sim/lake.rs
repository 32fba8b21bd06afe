//! The lake as init leaves it: base files with the first rows, two Iceberg tables for each table, and
//! the first manifest.

use std::collections::BTreeMap;
use std::sync::Arc;

use cdc_core::{Cell, Clock, Epoch, Lsn, UnrepresentablePolicy};
use cdc_iceberg::{
    Branch, Catalog, CommitKind, Committer, DeleteEncoding, InitialContent, LakeFiles, Stamp,
    TableNaming, TablePair, TableSpec, current_schema, data_file_from_parquet,
};
use cdc_manifest::{
    CatalogInfo, CompactionInfo, LakeStore, MANIFEST_VERSION, Manifest, ManifestStore, SourceInfo,
    TableEntry, TableState, layout,
};
use cdc_sink::{BaseOptions, BaseTarget, BaseWriter, PartNumbers, RowBuilder};
use uuid::Uuid;

use crate::server::{PUBLICATION, SLOT, SYSTEM_ID};
use crate::tables::{Row, Table};
use crate::tape::Rows;

/// The consistent point of the simulated init.
pub(crate) const FIRST_LSN: u64 = 0x0100_0000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Makes the lake of these tables and rows.
pub(crate) async fn create(
    store: &LakeStore,
    catalog: Arc<dyn Catalog>,
    clock: Arc<dyn Clock>,
    tables: &[Table],
    rows: &Rows,
) -> Result<(), Failure> {
    let files = LakeFiles::new(Arc::clone(store.store()), store.location().clone());
    let committer = Committer::new(files, catalog, Arc::clone(&clock));
    let mut manifest = first_manifest(clock.as_ref());
    for (number, table) in tables.iter().enumerate().filter(|(_, table)| table.is_followed) {
        let pair = create_table(store, &committer, table, &rows.0[number]).await?;
        let schema = table.schema();
        let mut entry = TableEntry::active(&schema, TableState::Streaming);
        entry.base_path = Some(layout::base_dir(&schema.table, Epoch(0), 0));
        entry.lsn_to = Some(Lsn(FIRST_LSN));
        entry.iceberg_table = Some(pair.current.ident.to_string());
        entry.metadata_location = Some(pair.current.metadata_location.clone());
        entry.snapshot_id = pair.current.head_id(Branch::Main);
        entry.changes_iceberg_table = Some(pair.changes.ident.to_string());
        entry.changes_metadata_location = Some(pair.changes.metadata_location.clone());
        entry.changes_snapshot_id = pair.changes.head_id(Branch::Main);
        manifest.tables.insert(schema.table.clone(), entry);
        manifest.set_schema(&schema);
    }
    match ManifestStore::new(store.clone()).create(&manifest).await? {
        cdc_manifest::Swap::Stored(_) => Ok(()),
        other => Err(format!("the first manifest: {other:?}").into()),
    }
}

async fn create_table(
    store: &LakeStore,
    committer: &Committer,
    table: &Table,
    rows: &BTreeMap<Row, u64>,
) -> Result<TablePair, Failure> {
    let schema = Arc::new(table.schema());
    let target = BaseTarget {
        schema: Arc::clone(&schema),
        epoch: Epoch(0),
        attempt: 0,
        parts: PartNumbers::new(),
        hasher: None,
    };
    let mut writer = BaseWriter::new(target, BaseOptions::default())?;
    let mut builder = RowBuilder::new(Arc::clone(&schema), UnrepresentablePolicy::Error);
    for (row, count) in rows {
        let cells: Vec<Cell<'_>> = row
            .iter()
            .map(|cell| cell.as_ref().map_or(Cell::Null, |text| Cell::Text(text.as_bytes())))
            .collect();
        for _ in 0..*count {
            builder.push(&cells)?;
        }
    }
    let mut complete = Vec::new();
    if builder.rows() > 0 {
        complete.extend(writer.append(builder.finish()?)?.files);
    }
    complete.extend(writer.finish()?.files);
    let iceberg_schema = current_schema(&schema)?;
    let mut base_files = Vec::new();
    for file in complete {
        file.upload(store).await?;
        let location = store.location().uri(&file.key);
        let size = file.body.size();
        base_files.push(data_file_from_parquet(&location, size, &file.metadata, &iceberg_schema)?);
    }
    let spec = TableSpec {
        schema: &schema,
        namespace: "shop",
        naming: TableNaming::Bare,
        lake_id: "sim",
        codec: "zstd",
        generation: 0,
        deletes: DeleteEncoding::Position,
    };
    let stamp = Stamp {
        kind: CommitKind::Init,
        epoch: Epoch(0),
        lsn_from: Lsn::ZERO,
        lsn_to: Lsn(FIRST_LSN),
        commit_ts: None,
        batch_id: Uuid::now_v7(),
        generation: 0,
    };
    let content = InitialContent { stamp, branch: Branch::Main, base_files };
    Ok(committer.create_tables(&spec, &content).await?)
}

fn first_manifest(clock: &dyn Clock) -> Manifest {
    let now = clock.now();
    let at = Lsn(FIRST_LSN);
    Manifest {
        version: MANIFEST_VERSION,
        lake_id: "sim".into(),
        source: SourceInfo {
            name: SLOT.into(),
            postgres_version: "PostgreSQL 15.18".into(),
            init_lsn: at,
            init_timestamp: now,
            database: "shop".into(),
            system_identifier: SYSTEM_ID,
            timeline: 1,
            slot: SLOT.into(),
            publication: PUBLICATION.into(),
            extra: Default::default(),
        },
        epoch: Epoch(0),
        commit_lsn: at,
        commit_ts: now,
        covered_lsn: at,
        covered_at: now,
        batch_id: Uuid::now_v7().to_string(),
        generation: 0,
        catalog: CatalogInfo {
            kind: "iceberg".into(),
            backend: "memory".into(),
            database: "shop".into(),
            extra: Default::default(),
        },
        tables: BTreeMap::new(),
        schemas: BTreeMap::new(),
        roles: BTreeMap::new(),
        compaction: CompactionInfo::default(),
        updated_at: now,
        extra: Default::default(),
    }
}
