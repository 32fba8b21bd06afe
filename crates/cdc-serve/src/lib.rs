//! The read plane of a lake: one method per operation, used by every surface.
//!
//! The type to know is [`ReadPlane`]. It resolves the cut, asks the policy for a decision about each
//! table, runs the query and says with each [`Answer`] how fresh it is ([`Evidence`]). A
//! [`Renderer`] writes rows in the formats that surfaces offer.
//!
//! ```
//! use std::sync::Arc;
//! use cdc_manifest::{LakeStore, PromotionMode, StorageSpec};
//! use cdc_query::{Engine, Lake, QueryLimits};
//! use cdc_serve::{Caller, Code, LocalPolicy, ReadPlane};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let store = LakeStore::open(&StorageSpec::Memory).unwrap();
//! let lake = Lake::new(store, PromotionMode::Auto);
//! let engine = Engine::new(QueryLimits::default()).unwrap();
//! let clock = Arc::new(cdc_core::SystemClock);
//! let plane = ReadPlane::new(lake, engine, LocalPolicy::default(), clock);
//!
//! let caller = Caller { principal: "user:ana".into(), role: None, request_id: "r1".into() };
//! let error = plane.list_tables(&caller).await.unwrap_err();
//! assert_eq!(error.code(), Code::Unavailable);
//! # });
//! ```

mod caller;
mod diff;
mod error;
mod evidence;
mod plane;
mod render;
mod tables;

pub use arrow::array::RecordBatch;
pub use arrow::datatypes::Schema;
pub use caller::{Caller, LocalPolicy};
pub use diff::DiffAnswer;
pub use error::{Code, Error, Result};
pub use evidence::{Evidence, TableEvidence};
pub use plane::{Answer, CutRequest, DEFAULT_WAIT, ReadPlane};
pub use render::{Format, Renderer, Value};
pub use tables::{ColumnDescription, TableDescription, TableSummary, tables_batch};
