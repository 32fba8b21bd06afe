//! From a cut of the lake and a decision about access to rows.
//!
//! The type to know is [`Engine`]: a request, a [`Cut`](cdc_manifest::Cut) and a [`TableAccess`] go
//! in, [`Rows`] come out. A table is scanned through a [`GovernedTable`], which exists for one
//! request and only by way of a `TableAccess`; SQL passes a gate before it is planned.
//!
//! ```
//! use cdc_query::{CheckedSql, Condition, Error, Operator};
//!
//! let condition: Condition = "amount:gt:100".parse().unwrap();
//! assert_eq!(condition.operator, Operator::Gt);
//!
//! let sql = CheckedSql::parse("SELECT count(*) FROM public.orders").unwrap();
//! assert_eq!(sql.tables().unwrap()[0].to_string(), "public.orders");
//! assert!(matches!(CheckedSql::parse("DROP TABLE orders"), Err(Error::Refused { .. })));
//! ```

mod access;
mod changes;
mod condition;
mod deadline;
mod error;
mod files;
mod functions;
mod lake;
mod literal;
mod rows;
mod run;
mod scan;
mod session;
mod sql;
mod table;
mod table_query;

pub use access::TableAccess;
pub use condition::{Condition, IN_VALUES_MAX, Operator};
pub use error::{Error, Result};
pub use lake::{Freshness, Lake, TableSide, find_table};
pub use rows::{ColumnHeader, Rows};
pub use run::{SqlTable, TableRequest, TableState, sql_tables};
pub use session::{Engine, QueryLimits};
pub use sql::{CheckedSql, SqlTableName};
pub use table::{DeletedRows, GovernedTable};
pub use table_query::{OrderKey, TableQuery};
