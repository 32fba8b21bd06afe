//! The deletes of a commit in the encoding that the lake is told, and the check that a table takes it.

use cdc_core::TableName;
use cdc_iceberg::{
    DataFile, DeleteEncoding, LiveFiles, PositionDeletes, Remove, Table, live_deletes,
    write_deletion_vectors, write_position_deletes,
};
use cdc_sink::DeltaOutput;

use crate::Error;
use crate::lake::Lake;

/// Deletes that are durable, for a commit.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) delete_files: Vec<DataFile>,
    pub(crate) remove: Remove,
}

impl Lake {
    /// A table's format is never lowered, so what has vectors needs a configuration that writes them.
    ///
    /// # Errors
    /// [`cdc_iceberg::Error::EncodingRefused`], before anything is written.
    pub(crate) fn check_encoding(&self, name: &TableName, table: &Table) -> Result<(), Error> {
        match (table.delete_encoding(), self.deletes) {
            (DeleteEncoding::Vector, DeleteEncoding::Position) => {
                let format = table.metadata.format_version();
                let table = table.ident.to_string();
                let refused = cdc_iceberg::Error::EncodingRefused { table, format };
                Err(Error::iceberg(name)(refused))
            }
            _ => Ok(()),
        }
    }

    /// Writes the deletes of an epoch on a table as it stands.
    pub(crate) async fn encode_deletes(
        &self,
        table: &Table,
        output: &DeltaOutput,
    ) -> cdc_iceberg::Result<Encoded> {
        let (files, name) = (self.tables.files(), &output.table);
        let mut deletes = PositionDeletes::new();
        for (location, rows) in output.delete_locations(&self.store) {
            deletes.extend(&location, rows.iter().map(|row| u64::from(*row)));
        }
        if self.deletes == DeleteEncoding::Position {
            let file = write_position_deletes(files, name, deletes).await?;
            let remove = if output.truncate { Remove::Everything } else { Remove::Nothing };
            return Ok(Encoded { delete_files: file.into_iter().collect(), remove });
        }
        // what was there before a truncate leaves with its vectors
        let head = table.head_id(self.branch).filter(|_| !output.truncate);
        let before = match head {
            Some(head) => live_deletes(files, &table.metadata, head).await?,
            None => LiveFiles::default(),
        };
        let vectors = write_deletion_vectors(files, name, &deletes, &before).await?;
        let remove = match output.truncate {
            true => Remove::Everything,
            false => Remove::Deletes(vectors.replaced),
        };
        Ok(Encoded { delete_files: vectors.delete_files, remove })
    }
}
