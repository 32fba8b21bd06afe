//! Tags and the decisions they lead to.
//!
//! The type to know is [`TableRules`]: which tables of a source are followed, and why the others
//! are not. [`decide`] is a pure function of the tables and the rules.
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

mod audit;
mod decision;
mod error;
mod rules;

pub use audit::{
    AuditLog, AuditRecord, ChainReport, Decision, Event, Phase, Surface, verify_chain,
};
pub use decision::TableDecision;
pub use error::{Error, Result};
pub use rules::{RuleText, TableRules, TagPolicy, UNTAGGED, decide, exclude_collisions};
