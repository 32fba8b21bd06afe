//! Tags and the decisions they lead to.
//!
//! The type to know is [`TableRules`]: which tables of a source are followed, and why the others
//! are not. [`TableRules::decide`] is a pure function of the tables and the rules.
//!
//! ```
//! use std::collections::BTreeMap;
//! use cdc_core::{ReplicaIdentity, SourceTable, TableKind, TableName};
//! use cdc_governance::{RuleText, TableRules};
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
//! let decisions = rules.decide(&[table], |name| name.name.clone());
//! assert_eq!(decisions[0].reason().unwrap().to_string(), "explicit exclude");
//! ```

mod decision;
mod error;
mod rules;

pub use decision::{Exclusion, TableDecision, Verdict};
pub use error::{Error, Result};
pub use rules::{RuleText, TableRules, TagPolicy, UNTAGGED};
