//! A catalog as a pointer swap: it knows, for each table, the location of its current metadata file
//! and replaces it only if nobody else did.

use async_trait::async_trait;

use crate::{Result, TableIdent};

/// What became of a pointer swap. It is a value, not an error: each outcome has its own next step.
#[derive(Debug)]
#[must_use]
pub enum SwapOutcome {
    /// The pointer is now the new location.
    Swapped,
    /// The pointer was not what the caller expected, and is as it was. After a request that was
    /// retried below this trait this may also mean that the first try succeeded, so the caller
    /// looks for its own commit before it believes it.
    Conflict,
    /// The request may or may not have been applied.
    Unknown(crate::Error),
}

/// What became of the creation of a table.
#[derive(Debug)]
#[must_use]
pub enum CreateOutcome {
    /// The table is in the catalog.
    Created,
    /// A table of this name was there already, with this metadata location.
    Exists(String),
    /// The request may or may not have been applied.
    Unknown(crate::Error),
}

/// A catalog of Iceberg tables.
///
/// Contract: [`Catalog::swap`] and [`Catalog::create`] are atomic and durable when they return, and
/// linearizable over all users of the catalog. An `Err` of any method means that nothing changed;
/// whatever leaves doubt is an `Unknown` outcome. Methods may be called concurrently. A cancelled
/// call has outcome unknown. Implementations do not retry a swap.
#[async_trait]
pub trait Catalog: std::fmt::Debug + Send + Sync {
    /// Makes sure that the namespace exists.
    async fn ensure_namespace(&self, namespace: &str) -> Result<()>;

    /// The location of the table's current metadata file, or `None` if there is no such table.
    async fn pointer(&self, ident: &TableIdent) -> Result<Option<String>>;

    /// Adds a table. The namespace must exist.
    async fn create(&self, ident: &TableIdent, metadata_location: &str) -> Result<CreateOutcome>;

    /// Replaces the pointer if it still is `expected`.
    async fn swap(&self, ident: &TableIdent, expected: &str, new: &str) -> Result<SwapOutcome>;

    /// The tables of a namespace in name order.
    async fn list(&self, namespace: &str) -> Result<Vec<TableIdent>>;

    /// Removes a table from the catalog and says whether it was there. Files stay.
    async fn drop_table(&self, ident: &TableIdent) -> Result<bool>;
}
