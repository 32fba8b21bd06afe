//! The write plane composed: init, ingest, flush, commit, confirm.
//!
//! [`init`] copies a source into a new lake at one position of its log; [`run`] follows the log from
//! there. Both take plain settings and a [`cdc_wal::Source`].
//!
//! ```text
//! init:  publication ─> slot + snapshot ─> COPY ─> base files ─> Iceberg tables ─> manifest
//! run:   stream ─> lanes ─> flush ─> Iceberg tables ─> manifest ─> refs ─> confirm
//! ```

mod batch;
mod commit;
#[cfg(test)]
mod commit_tests;
mod compact;
mod control;
mod copy;
mod cut;
mod daemon;
mod deletes;
mod error;
mod evolve;
mod evolve_tables;
mod fence;
mod fence_tables;
mod fill;
mod flush;
mod formats;
mod ingest;
mod init;
mod init_record;
mod lake;
mod lanes;
mod lease;
mod live;
mod manifest_swap;
mod metered_store;
mod meters;
mod open_lane;
mod plan;
mod preflight;
mod promotion;
mod quarantine;
mod reconcile;
mod recover;
mod refs;
mod register;
mod settings;
mod spool;
mod state_db;
mod status;
mod table_ops;
mod teardown;
mod undo;
mod upkeep;
mod verify;

pub use cdc_sink::FileCompression as Compression;
pub use compact::{
    CompactReport, CompactRequest, CompactSettings, CompactionSettings, TableOutcome, TableResult,
    compact,
};
pub use copy::InitProgress;
pub use daemon::{follow, run};
pub use error::Error;
pub use evolve::{OpenCatalog, SchemaCatalog};
pub use fence::BreakerSettings;
pub use formats::{TableFormat, table_formats};
pub use init::{InitReport, init};
pub use lake::Components;
pub use lease::Lease;
pub use meters::{Meters, TableLabels};
pub use preflight::preflight;
pub use reconcile::{ReconcileReport, ReconcileSettings, TablePlan, reconcile};
pub use register::{Registered, register};
pub use settings::{
    DaemonSettings, Failover, FlushSettings, InitSettings, LakeSettings, OnError, RefSettings,
    ReplicationSettings, Streaming, TruncateMode, TypeSettings,
};
pub use status::{SourceStatus, StatusReport, status};
pub use table_ops::{TableAction, TableChanged, TableOpSettings, change_table};
pub use teardown::{TeardownReport, teardown};
pub use verify::{
    BucketDifference, TableReport, Verdict, VerifyProgress, VerifyReport, VerifySettings, verify,
};
