//! From the files of a snapshot to a DataFusion scan.
//!
//! ```text
//! files of the snapshot -> pruned by bounds -> cut at row groups into one group per thread
//!   -> position deletes loaded -> LakeSource (row selections) over ParquetSource -> DataSourceExec
//! ```

mod deletes;
mod field_ids;
mod footers;
mod groups;
mod pruning;
mod source;

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{DFSchema, Statistics};
use datafusion::datasource::physical_plan::{FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use object_store::ObjectStore;
use object_store::path::Path;
use parquet::file::metadata::ParquetMetaData;

use self::field_ids::ByFieldId;
use self::footers::{Footers, ReaderFactory};
use self::source::{DeletesByFile, LakeSource};
use crate::Result;
use crate::files::{LakeFile, TableFiles};
use crate::session::store_url;

/// What of a table is wanted.
pub(crate) struct ScanSpec<'a> {
    /// The whole schema that the table shows, in the order of `TableFiles::columns`.
    pub(crate) schema: SchemaRef,
    /// Positions in it; `None` is all.
    pub(crate) projection: Option<&'a Vec<usize>>,
    /// What rows must fulfil to be of use; others may come too.
    pub(crate) filters: &'a [Expr],
    /// How many rows are of use.
    pub(crate) limit: Option<usize>,
}

/// The scan of a table's files.
///
/// # Errors
/// Of reading the delete files; of a filter that the engine cannot evaluate.
pub(crate) async fn plan(
    files: &TableFiles,
    session: &dyn Session,
    spec: ScanSpec<'_>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let engine = |error| crate::Error::engine("plan", error);
    let predicate = physical(session, &spec.schema, spec.filters).map_err(engine)?;
    let mut kept = pruning::prune(files, &spec.schema, predicate.as_ref());
    if let (Some(limit), None) = (spec.limit, &predicate) {
        kept.truncate(enough(&kept, limit));
    }
    let deletes = files.deletes(&kept).await?;
    let rows = kept.iter().map(|file| live_rows(file, &deletes)).sum::<u64>();

    let footers = Arc::new(Footers::new(files.store().clone(), predicate.is_some()));
    let mut options = session.table_options().parquet.clone();
    options.global = session.config_options().execution.parquet.clone();
    let parquet = ParquetSource::new(spec.schema.clone())
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(ReaderFactory(footers.clone())));
    let source = LakeSource::new(parquet, footers, Arc::new(deletes));
    let ids = files.columns.iter().map(|column| (column.name.as_str(), column.field_id.0));
    let threads = session.config().target_partitions();
    let config = FileScanConfigBuilder::new(store_url(), Arc::new(source))
        .with_file_groups(groups::of(&kept, threads, &spec.schema))
        .with_statistics(row_count(&spec.schema, rows))
        .with_expr_adapter(Some(Arc::new(ByFieldId::new(ids))))
        .with_limit(spec.limit)
        .with_projection_indices(spec.projection.cloned())
        .map_err(engine)?
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

fn physical(
    session: &dyn Session,
    schema: &Schema,
    filters: &[Expr],
) -> datafusion::error::Result<Option<Arc<dyn PhysicalExpr>>> {
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(None) };
    let schema = DFSchema::try_from(schema.clone())?;
    session.create_physical_expr(filter, &schema).map(Some)
}

/// How many files from the front surely hold `limit` live rows.
fn enough(files: &[&LakeFile], limit: usize) -> usize {
    let mut sure = 0u64;
    let reached = |file: &&LakeFile| {
        sure = sure.saturating_add(file.rows.saturating_sub(file.deletes_max));
        sure >= limit as u64
    };
    files.iter().position(reached).map_or(files.len(), |at| at + 1)
}

fn live_rows(file: &LakeFile, deletes: &DeletesByFile) -> u64 {
    let deleted = deletes.get(&file.path).map_or(0, |deleted| deleted.len() as u64);
    file.rows.saturating_sub(deleted)
}

/// The number of live rows, which is exact, and nothing about columns: their bounds count deleted
/// rows too.
fn row_count(schema: &Schema, rows: u64) -> Statistics {
    let num_rows = usize::try_from(rows).map_or(Precision::Absent, Precision::Exact);
    Statistics { num_rows, ..Statistics::new_unknown(schema) }
}

/// The footer of a file outside of a scan.
pub(crate) async fn footer(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    file_bytes: u64,
) -> parquet::errors::Result<Arc<ParquetMetaData>> {
    Footers::new(store.clone(), false).footer(path, file_bytes).await
}

/// Sorted deleted positions by object path.
pub(crate) fn deletes_by_path(by_path: HashMap<Path, Vec<u64>>) -> DeletesByFile {
    by_path.into_iter().map(|(path, deleted)| (path, Arc::new(deleted))).collect()
}

pub(crate) use self::source::DeletesByFile as Deletes;
