//! Every durable JSON of a lake, its layout, and compare-and-swap over object stores.
//!
//! The type to know is [`ManifestStore`]: `manifest.json` is the commit point, and a flush has
//! happened when [`ManifestStore::commit`] says [`Swap::Stored`].
//!
//! ```
//! use cdc_core::{Epoch, TableName};
//! use cdc_manifest::{LakeStore, ManifestStore, StorageSpec, layout};
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let lake = LakeStore::open(&StorageSpec::Memory).unwrap();
//! lake.probe_cas().await.unwrap();
//! assert!(ManifestStore::new(lake).load().await.unwrap().is_none());
//!
//! let orders = TableName::new("public", "orders");
//! assert_eq!(layout::delta_key(&orders, Epoch(3), 0), "public.orders/deltas/epoch=000003.parquet");
//! # });
//! ```

mod contract_diff;
mod error;
mod json;
pub mod layout;
mod live;
mod manifest;
mod refs;
mod store;
mod wire;

pub use cdc_core::{AzureSpec, Encryption, GcsSpec, KeyPrefix, S3Spec, StorageSpec, Transfer};
pub use contract_diff::{ColumnChange, ContractDiff, DiffStatus, TableDiff, Verdict};
pub use error::{Error, Result, object_kind};
pub use json::Extra;
pub use live::{LIVE_VERSION, Live, LiveSlot, LiveState};
pub use manifest::{
    CatalogInfo, ColumnEntry, CompactionInfo, Gap, MANIFEST_VERSION, Manifest, ManifestStore,
    NestedType, OmittedEntry, RoleColumns, RoleEntry, RoleTable, SchemaEntry, SourceInfo,
    TableEntry, TableState, TableStatus, TypeKind, Versioned, parse_schema_record, schema_record,
};
pub use refs::{
    AdvanceOptions, Advanced, Cut, CutResolver, CutSpec, MAIN, Pins, PromotionMode, REFS_VERSION,
    RawIndex, RawRetention, RawTag, Ref, RefColumn, RefKind, Refs, RefsStore, STAGING, TableRef,
};
pub use store::{DurableFs, LakeStore, ObjectVersion, Revalidated, Swap};
