//! The slot and its snapshot.

use std::time::Duration;

use cdc_core::ErrorKind;
use cdc_wal::{Error, SlotSpec, WalStatus};

use super::{Database, backend_pid};
use crate::fixture::{Postgres, within};

#[tokio::test]
async fn trap_32_the_snapshot_outlives_further_commands_of_its_session() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "slot_lease",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
    )
    .await;
    let source = db.source();
    let mut slot = source.create_slot(&SlotSpec::new("slot_lease")).await.unwrap();
    db.sql.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    slot.lease.check().await.unwrap();
    let count = "SELECT count(*) FROM public.t";
    let mut first = source.open_snapshot(&slot.snapshot_name).await.unwrap();
    slot.lease.check().await.unwrap();
    let mut second = source.open_snapshot(&slot.snapshot_name).await.unwrap();
    slot.lease.release().await.unwrap();
    for reader in [&mut first, &mut second] {
        assert_eq!(reader.text("count", count).await.unwrap().as_deref(), Some("1"));
    }
    let gone = source.open_snapshot(&slot.snapshot_name).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Invalid, "{gone}");
    let control = db.control().await;
    let state = control.slot("slot_lease").await.unwrap().unwrap();
    assert_eq!(state.confirmed_flush, slot.consistent_point);
    assert_eq!((state.plugin.as_str(), state.temporary), ("pgoutput", false));
    assert!(control.drop_slot("slot_lease").await.unwrap());
}

#[tokio::test]
async fn trap_31_slot_states_are_typed() {
    let server = Postgres::shared();
    let db = Database::create(&server, "slot_states", "").await;
    let (source, control) = (db.source(), db.control().await);
    assert!(control.slot("slot_states").await.unwrap().is_none());
    assert!(control.slot_lag("slot_states").await.unwrap().is_none());
    assert!(!control.drop_slot("slot_states").await.unwrap());
    let slot = source.create_slot(&SlotSpec::new("slot_states")).await.unwrap();
    slot.lease.release().await.unwrap();
    let state = control.slot("slot_states").await.unwrap().unwrap();
    assert_eq!((state.active, state.wal_status), (false, WalStatus::Reserved));
    assert!(!state.is_lost() && !state.failover);
    let again = source.create_slot(&SlotSpec::new("slot_states")).await.unwrap_err();
    assert!(matches!(&again, Error::SlotExists { slot } if slot == "slot_states"), "{again}");
    let message = control.heartbeat().await.unwrap();
    // it is a commit, so nothing else has to write it out
    let lag = control.slot_lag("slot_states").await.unwrap().unwrap();
    assert!(lag.current >= message && lag.lag_bytes > 0 && lag.retained_bytes >= lag.lag_bytes);
    assert!(control.drop_slot("slot_states").await.unwrap());
}

#[tokio::test]
async fn a_temporary_slot_ends_with_its_lease() {
    let server = Postgres::shared();
    let db = Database::create(&server, "slot_temporary", "").await;
    let control = db.control().await;
    let spec = SlotSpec { temporary: true, ..SlotSpec::new("slot_temporary") };
    let slot = db.source().create_slot(&spec).await.unwrap();
    assert!(control.slot("slot_temporary").await.unwrap().unwrap().temporary);
    drop(slot);
    within("the slot to go", async {
        while control.slot("slot_temporary").await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_waiting_slot_names_the_transaction_and_leaves_nothing_behind() {
    let server = Postgres::start(&[]);
    let db = Database::create(&server, "slot_blocked", "CREATE TABLE t (id int PRIMARY KEY)").await;
    let spec = SlotSpec { wait: Duration::from_millis(300), ..SlotSpec::new("slot_blocked") };
    let writer = server.session("slot_blocked").await;
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
    let pid = backend_pid(&writer).await;
    let error = db.source().create_slot(&spec).await.unwrap_err();
    assert!(error.to_string().contains(&format!("transaction of process {pid};")), "{error}");
    assert_eq!(error.kind(), ErrorKind::Transient);
    writer.batch_execute("PREPARE TRANSACTION 'forgotten'").await.unwrap();
    let error = db.source().create_slot(&spec).await.unwrap_err();
    assert!(error.to_string().contains("prepared transaction forgotten"), "{error}");
    assert!(db.control().await.slot("slot_blocked").await.unwrap().is_none());
    writer.batch_execute("COMMIT PREPARED 'forgotten'").await.unwrap();
    db.source().create_slot(&spec).await.unwrap().lease.release().await.unwrap();
}

#[tokio::test]
async fn tables_to_be_copied_are_held_against_a_rewrite_until_the_lease_ends() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "slot_holds",
        "CREATE TABLE \"T\" (id int PRIMARY KEY);
         CREATE TABLE root (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE leaf PARTITION OF root FOR VALUES FROM (0) TO (10)",
    )
    .await;
    let tables = vec![db.table("T").await.oid, db.table("root").await.oid];
    let spec = SlotSpec { tables, temporary: true, ..SlotSpec::new("slot_holds") };
    let slot = db.source().create_slot(&spec).await.unwrap();
    db.sql.batch_execute("SET lock_timeout = '200ms'; INSERT INTO root VALUES (1)").await.unwrap();
    for table in ["\"T\"", "leaf", "root"] {
        let rewrite = format!("ALTER TABLE {table} ADD COLUMN c int");
        let refused = db.sql.batch_execute(&rewrite).await.unwrap_err();
        let code = refused.code().map(|code| code.code());
        assert!(matches!(code, Some("55P03" | "42809")), "{table}: {refused:?}");
    }
    slot.lease.release().await.unwrap();
    db.sql.batch_execute("ALTER TABLE \"T\" ALTER id TYPE bigint").await.unwrap();
}

/// The creation waits for the rewriting transaction, whose rows the snapshot then cannot see.
#[tokio::test]
async fn a_rewrite_that_comes_first_is_noticed_and_leaves_no_slot() {
    let server = Postgres::start(&[]);
    let setup = "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)";
    let db = Database::create(&server, "slot_rewrite", setup).await;
    let tables = vec![db.table("t").await.oid];
    db.sql.batch_execute("BEGIN; ALTER TABLE t ALTER id TYPE bigint").await.unwrap();
    let (source, control) = (db.source(), db.control().await);
    let creation = tokio::spawn(async move {
        source.create_slot(&SlotSpec { tables, ..SlotSpec::new("slot_rewrite") }).await.map(drop)
    });
    let observer = server.session("postgres").await;
    within("the creation to wait", async {
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE backend_type = 'walsender' AND wait_event_type = 'Lock'";
        while observer.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    db.sql.batch_execute("COMMIT").await.unwrap();
    let error = within("the creation", creation).await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::TableRewritten { table } if table.name == "t"), "{error}");
    assert!(control.slot("slot_rewrite").await.unwrap().is_none());
}
