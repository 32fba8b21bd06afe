//! What tables the source has: read from the catalogs by OID in five queries, whatever the number
//! of tables, and put together by pure functions.
//!
//! A partition root stands for its leaves: sizes are summed, and its replica identity is what all
//! leaves share. Types are resolved through domains, because the stream names only the base type
//! and loses the domain's modifier.

mod assemble;
mod catalog;
mod resolve;
mod shape;

use cdc_core::SourceTable;

pub use shape::{Attribute, TableShape};

use crate::control::Control;
use crate::error::{Error, Result};

impl Control {
    /// The tables of the given schemas, partitions and foreign and unlogged tables included, in
    /// the order of their names. Views, sequences and temporary tables are left out.
    ///
    /// # Errors
    /// [`Error::NotFound`] names the schemas that do not exist.
    pub async fn discover(&self, schemas: &[String]) -> Result<Vec<SourceTable>> {
        let unknown = catalog::unknown_schemas(self, schemas).await?;
        if !unknown.is_empty() {
            return Err(Error::NotFound {
                what: "schema",
                name: unknown.join(", "),
                hint: "check source.postgres.schemas; names are case-sensitive".into(),
            });
        }
        let relations = catalog::relations(self, schemas).await?;
        let oids: Vec<u32> = relations.iter().map(|relation| relation.oid).collect();
        let parts = assemble::CatalogParts {
            relations,
            leaves: catalog::leaves(self, &oids, catalog::Sizes::Measured).await?,
            attributes: catalog::attributes(self, &oids).await?,
            indexes: catalog::indexes(self, &oids).await?,
            types: resolve::TypeTable::new(catalog::types(self, &oids).await?),
        };
        Ok(parts.assemble())
    }
}
