//! The states of a table as commits write them, from its first copy to its removal.

use std::sync::Arc;

use cdc_core::{
    Column, Epoch, FieldId, Generated, Identity, Lsn, PgType, ReplicaIdentity, SourceColumn,
    SourceTable, TableKind, TableName, TableSchema, TypePolicy, oid,
};
use cdc_iceberg::{
    Branch, CommitKind, InitialContent, NewSchema, Stamp, TableChange, TableNaming, TablePair,
    TableSpec,
};
use cdc_manifest::{Manifest, TableEntry, TableState, TableStatus, schema_record};
use uuid::Uuid;

use super::{Handover, StateChange, TableAction};
use crate::commit::{CommitState, CommittedTable, EpochContent};
use crate::commit_tests::{Loss, batch, stored, taken_over};
use crate::recover::{committed_state, complete_fills};

const OID: u32 = 16_400;

fn table() -> TableName {
    TableName::new("public", "t")
}

fn schema() -> Arc<TableSchema> {
    let column = |name: &str, attnum| SourceColumn {
        name: name.to_owned(),
        attnum,
        pg_type: PgType::base(oid::INT4, "integer"),
        nullable: true,
        generated: Generated::No,
    };
    let source = SourceTable {
        oid: OID,
        name: table(),
        kind: TableKind::Table,
        partition_root: None,
        columns: vec![column("id", 1), column("n", 2)],
        primary_key: vec!["id".into()],
        replica_identity: ReplicaIdentity::Default,
        estimated_rows: -1,
        heap_bytes: 0,
    };
    let identity = Identity::PrimaryKey(vec!["id".into()]);
    Arc::new(TableSchema::first(&source, identity, &TypePolicy::default(), |_| None, false))
}

fn stamp(state: &CommitState, kind: CommitKind, lsn: Lsn) -> Stamp {
    Stamp {
        kind,
        epoch: state.manifest.value.epoch,
        lsn_from: Lsn::ZERO,
        lsn_to: lsn,
        commit_ts: Some(state.lake.clock.now()),
        batch_id: Uuid::now_v7(),
        generation: state.fence.generation,
    }
}

/// The Iceberg tables of a first copy without rows.
async fn first_copy(state: &CommitState, lsn: Lsn) -> TablePair {
    let schema = schema();
    let spec = TableSpec {
        schema: &schema,
        namespace: "d",
        naming: TableNaming::Bare,
        lake_id: &state.manifest.value.lake_id,
        codec: "zstd",
        generation: state.fence.generation,
        deletes: state.lake.deletes,
    };
    let stamp = stamp(state, CommitKind::Add, lsn);
    let content = InitialContent { stamp, branch: Branch::Main, base_files: Vec::new() };
    state.lake.tables.create_tables(&spec, &content).await.unwrap()
}

/// The same tables behind another copy without rows.
async fn next_copy(state: &CommitState, pair: TablePair, lsn: Lsn) -> TablePair {
    let stamp = stamp(state, CommitKind::Resync, lsn);
    let tables = &state.lake.tables;
    let rows = TableChange::replace_all(stamp.clone(), Branch::Main, Vec::new());
    let nothing = TableChange::append(stamp, Branch::Main, Vec::new());
    TablePair {
        current: tables.commit(&pair.current, &rows).await.unwrap().committed().unwrap(),
        changes: tables.commit(&pair.changes, &nothing).await.unwrap().committed().unwrap(),
    }
}

/// Commits an epoch in which something becomes of the table.
async fn commit(state: &mut CommitState, epoch: u64, content: EpochContent) -> Manifest {
    state.commit(&batch(epoch), &content).await.unwrap();
    let found = stored(state).await;
    assert_eq!(found, state.manifest.value);
    found
}

async fn change(state: &mut CommitState, epoch: u64, action: TableAction) -> TableEntry {
    let change = StateChange::of(&state.manifest.value, &table(), action).unwrap();
    let content = EpochContent { changes: change.into_iter().collect(), ..EpochContent::default() };
    commit(state, epoch, content).await.tables[&table()].clone()
}

async fn hand_over(state: &mut CommitState, epoch: u64, pair: TablePair, lsn: Lsn) -> TableEntry {
    let branch = Branch::Main;
    let committed = CommittedTable { schema: schema(), pair, branch, ahead: None };
    state.tables.insert(table(), committed.clone());
    let handover = Handover {
        table: table(),
        oid: OID,
        tags: vec!["pii".into()],
        committed,
        base_epoch: Epoch(epoch - 1),
        base_path: "public.t/base/base_000001/".into(),
        lsn,
        lossy: Vec::new(),
    };
    let content = EpochContent { handovers: vec![handover], ..EpochContent::default() };
    commit(state, epoch, content).await.tables[&table()].clone()
}

fn gap(entry: &TableEntry) -> (Lsn, Lsn, Option<Epoch>, Option<Epoch>) {
    let gap = entry.gaps.last().unwrap();
    (gap.lsn_from, gap.lsn_to, gap.epoch_from, gap.epoch_to)
}

#[tokio::test]
async fn a_table_comes_stands_still_goes_on_and_leaves() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    let init_lsn = state.manifest.value.source.init_lsn;

    let adding = change(&mut state, 1, TableAction::Add).await;
    assert_eq!(adding.status, TableStatus::Excluded);
    assert_eq!(adding.state, Some(TableState::Snapshotting));
    assert_eq!(super::to_copy(&state.manifest.value).collect::<Vec<_>>(), [&table()]);

    let pair = first_copy(&state, Lsn(0x2800)).await;
    let added = hand_over(&mut state, 2, pair.clone(), Lsn(0x2800)).await;
    assert!(added.is_written() && added.reason.is_none());
    assert_eq!((added.source_oid, added.lsn_to), (Some(OID), Some(Lsn(0x2800))));
    assert_eq!((added.base_epoch, added.latest_delta_epoch), (Epoch(1), Epoch(1)));
    assert_eq!(gap(&added), (init_lsn, Lsn(0x2800), Some(Epoch(0)), Some(Epoch(2))));
    assert_eq!(super::to_copy(&state.manifest.value).count(), 0);

    let paused = change(&mut state, 3, TableAction::Pause).await;
    assert_eq!(paused.state, Some(TableState::Paused));
    assert_eq!(gap(&paused), (Lsn(0x4000), Lsn(0x4000), Some(Epoch(3)), Some(Epoch(3))));

    let resuming = change(&mut state, 4, TableAction::Resume).await;
    assert_eq!(resuming.state, Some(TableState::Resyncing));
    assert_eq!(gap(&resuming), (Lsn(0x4000), Lsn(0x5000), Some(Epoch(3)), Some(Epoch(4))));
    assert_eq!(resuming.snapshot_id, added.snapshot_id);

    let pair = next_copy(&state, pair, Lsn(0x5800)).await;
    let resumed = hand_over(&mut state, 5, pair, Lsn(0x5800)).await;
    assert!(resumed.is_written());
    assert_eq!(gap(&resumed), (Lsn(0x4000), Lsn(0x5800), Some(Epoch(3)), Some(Epoch(5))));
    assert_ne!(resumed.snapshot_id, added.snapshot_id);

    let removed = change(&mut state, 6, TableAction::Remove).await;
    assert_eq!((removed.status, removed.state), (TableStatus::Excluded, None));
    assert!(state.tables.is_empty());
    let last = state.manifest.value.last_schema(&table()).unwrap();
    assert_eq!(last.as_ref(), Some(&*schema()));
    assert_eq!(removed.iceberg_table, added.iceberg_table);

    // nothing more is said of it
    let later = commit(&mut state, 7, EpochContent::default()).await;
    assert_eq!(later.tables[&table()], removed);
}

/// The schema, so many versions on, with a column more for each.
fn later(versions: u32) -> Arc<TableSchema> {
    let mut schema = (*schema()).clone();
    for version in 0..versions {
        let id = schema.next_field_id;
        let name = format!("c{version}");
        let attnum = 3 + i16::try_from(version).unwrap();
        schema.columns.push(Column { name, attnum, field_id: id, ..schema.columns[1].clone() });
        schema.next_field_id = FieldId(id.0 + 1);
        schema.version += 1;
    }
    Arc::new(schema)
}

/// The state as the next session finds it.
async fn found_again(state: &CommitState) -> CommitState {
    let manifest = state.lake.manifests.require().await.unwrap();
    let (lake, fence) = (state.lake.clone(), state.fence.clone());
    committed_state(lake, fence, manifest, state.refs, 1).await.unwrap()
}

#[tokio::test]
async fn a_crash_behind_a_fill_leaves_the_table_under_its_new_schema() {
    let (mut state, _) = taken_over(Loss::Request, 0).await;
    change(&mut state, 1, TableAction::Add).await;
    let pair = first_copy(&state, Lsn(0x2800)).await;
    let before = hand_over(&mut state, 2, pair.clone(), Lsn(0x2800)).await;

    // a schema that came without rows gives its ids only
    let (tables, two) = (state.lake.tables.clone(), later(1));
    let record = schema_record(&two).unwrap();
    let bare = tables.evolve_current(&pair.current, &two, &record).await.unwrap();
    let found = found_again(&state).await.tables.remove(&table()).unwrap();
    assert_eq!((&found.schema, found.ahead), (&schema(), Some(two.clone())));

    // one that came with all rows is the table's
    let change = TableChange {
        schema: Some(NewSchema { schema: two.clone(), record }),
        ..TableChange::replace_all(
            stamp(&state, CommitKind::Fill, Lsn(0x2800)),
            Branch::Main,
            Vec::new(),
        )
    };
    let filled = tables.commit(&bare.committed().unwrap(), &change).await.unwrap();
    let mut again = found_again(&state).await;
    let found = again.tables[&table()].clone();
    assert_eq!((&found.schema, found.ahead), (&two, None));
    assert_eq!(again.ahead_in_schema(), [table()]);

    // and the next one without rows is not, although it stands in the same table
    let three = later(2);
    let record = schema_record(&three).unwrap();
    let filled = filled.committed().unwrap();
    tables.evolve_current(&filled, &three, &record).await.unwrap().committed().unwrap();
    let found = found_again(&state).await.tables.remove(&table()).unwrap();
    assert_eq!((&found.schema, found.ahead), (&two, Some(three)));

    // the changelog and the manifest follow
    complete_fills(&mut again).await.unwrap();
    let changes = &again.tables[&table()].pair.changes;
    assert!(changes.metadata.current_schema().field_by_name("c0").is_some());
    let manifest = commit(&mut again, 3, EpochContent::default()).await;
    let entry = &manifest.tables[&table()];
    assert_eq!(manifest.table_schema(&table()).unwrap(), *two);
    assert_ne!(entry.snapshot_id, before.snapshot_id);
    assert_eq!((entry.lsn_to, entry.base_epoch), (before.lsn_to, before.base_epoch));
    assert_eq!(entry.latest_delta_epoch, before.latest_delta_epoch);
    assert!(found_again(&again).await.ahead_in_schema().is_empty());
}
