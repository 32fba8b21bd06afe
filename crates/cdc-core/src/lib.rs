//! The words every crate of pgcdc shares, and nothing that does I/O.
//!
//! The type to know is [`TableSchema`]: what one table looks like in the lake, each column with its
//! PostgreSQL type, its field id and the [`StoredType`] its values have in files. Rows travel as
//! slices of [`Cell`]s, borrowed from the bytes PostgreSQL sent, and [`text`] turns a cell into a
//! value. Snapshot and stream both use it, so they cannot differ.
//!
//! ```
//! use cdc_core::{Lsn, TableName};
//!
//! let lsn: Lsn = "16/B374D848".parse().unwrap();
//! assert_eq!(lsn.to_string(), "16/B374D848");
//! let table: TableName = r#"public."Order.Items""#.parse().unwrap();
//! assert_eq!(table.key_segment(), "public.Order!2eItems");
//! ```

mod cell;
mod clock;
mod error_kind;
mod evolution;
mod failpoint;
mod ident;
mod location;
mod lsn;
pub mod meta;
mod pg_type;
mod schema;
mod source_table;
mod storage;
mod stored_type;
mod table_name;
pub mod text;
mod type_change;

pub use cell::{Cell, ChangePosition, OldTuple, RowChange};
pub use clock::{Clock, SystemClock, pg_micros_to_unix, rfc3339, rfc3339_nanos, unix_micros_to_pg};
pub use error_kind::{ErrorKind, chain};
pub use evolution::{SchemaRules, SchemaStep};
pub use failpoint::failpoint;
#[cfg(feature = "failpoints")]
pub use failpoint::{ArmedFailpoint, arm_failpoints};
pub use ident::{quote_ident, quote_literal};
pub use location::LakeLocation;
pub use lsn::{Epoch, FieldId, Lsn, ParseLsnError};
pub use pg_type::{PgType, PgTypeKind, oid};
pub use schema::{Column, Identity, OmittedColumn, TableSchema};
pub use secrecy::{ExposeSecret, SecretString};
pub use source_table::{Generated, ReplicaIdentity, SourceColumn, SourceTable, TableKind};
pub use storage::{
    AzureSpec, BadPrefix, Encryption, GcsSpec, KeyPrefix, S3Spec, StorageSpec, Transfer,
};
pub use stored_type::{
    ArrayPolicy, MappedType, NumericPolicy, StoredAs, StoredType, TypePolicy, UnrepresentablePolicy,
};
pub use table_name::{ParseTableNameError, TableName};
pub use type_change::TypeFit;
