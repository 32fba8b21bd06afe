//! Tags, grants and the decisions they lead to.
//!
//! Two questions are answered here. *Which tables of a source are followed*: [`TableRules`] and
//! [`decide`]. *What may this caller see*: [`PolicyEngine`] over a [`Backend`], whose answer is a
//! [`Verdict`] made by the pure function [`effective`].
//!
//! ```
//! use std::collections::BTreeMap;
//! use cdc_core::{ReplicaIdentity, SourceTable, TableKind, TableName};
//! use cdc_governance::{RuleText, TableRules, decide};
//!
//! let rules = RuleText { exclude: vec!["public.audit_*".into()], ..RuleText::default() };
//! let rules = TableRules::new(&rules).unwrap();
//! let table = SourceTable {
//!     oid: 16384,
//!     name: TableName::new("public", "audit_log"),
//!     kind: TableKind::Table,
//!     partition_root: None,
//!     columns: vec![],
//!     primary_key: vec!["id".into()],
//!     replica_identity: ReplicaIdentity::Default,
//!     estimated_rows: -1,
//!     heap_bytes: 0,
//! };
//! assert_eq!(decide(&[table], &rules)[0].excluded.as_deref(), Some("explicit exclude"));
//! ```

mod access;
mod audit;
mod decision;
mod effective;
mod engine;
mod error;
mod filter;
mod grant;
mod grant_json;
mod mask;
mod policy;
mod principal;
mod registry;
mod resource;
mod rules;
mod shape;
mod sqlite;
mod tags;

pub use access::{CellRule, CellView, ColumnAccess, Hidden, TableAccess, Verdict};
pub use audit::{
    AuditLog, AuditRecord, ChainReport, Decision, Event, Phase, Surface, verify_chain,
};
pub use decision::TableDecision;
pub use effective::{Explanation, administers, effective, explain};
pub use engine::{Backend, CacheOptions, PolicyEngine};
pub use error::{Error, Result};
pub use filter::{Comparison, FILTER_CHARS_MAX, Literal, Predicate, RowFilter, Value};
pub use grant::{Columns, Grant, GrantTerms, Permission, PolicyLevel, TagExpression, Target};
pub use mask::{DateUnit, Mask};
pub use policy::{
    Enforced, Identity, Intent, Mode, Policy, PolicySettings, ResolvedTag, Resource, ResourceState,
};
pub use principal::{Caller, Principal};
pub use registry::{
    AuditLine, BREAK_GLASS_HOURS_MAX, Drift, EmergencyGrant, EmergencyRequest, EnforcementPlane,
    GrantRecord, IntentRegistry, PostureCheck, Provenance, REASON_CHARS_MIN, Registered,
    Registration, ResourceVersion, SyncReport, TagChange,
};
pub use resource::{Level, ResourceId};
pub use rules::{RuleText, TableRules, TagPolicy, UNTAGGED, decide, exclude_collisions};
pub use shape::{ColumnKind, ColumnShape, TableShape};
pub use sqlite::{RegistryOptions, SqliteRegistry};
pub use tags::{TAG_CHARS_MAX, TAGS_MAX, TagWord, Tags, Taxonomy};
