//! DataFusion's Parquet source with two things added when a file is opened: the row selection that
//! leaves deleted rows out, and a guard for it.
//!
//! ```text
//! open(file) -> footer (once per request) -> deleted rows as row selection -> ParquetSource::open
//! ```
//! The guard: under a limit, DataFusion 53 replaces the access plan of row groups in which all rows
//! match the filter by a plain scan, and so brings deleted rows back
//! (`RowGroupAccessPlanFilter::prune_by_limit`). It does so only where order is not to be kept, so
//! files are always opened as if it were.

use std::any::Any;
use std::collections::HashMap;
use std::fmt::{self, Formatter};
use std::sync::Arc;

use datafusion::config::ConfigOptions;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileSource, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::error::Result;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use object_store::ObjectStore;
use object_store::path::Path;

use super::deletes::{DeletedRows, access_plan};
use super::footers::Footers;

/// The deleted rows of each file that has some.
pub(crate) type DeletesByFile = HashMap<Path, Arc<DeletedRows>>;

/// The file source of every scan of a lake table.
#[derive(Clone)]
pub(crate) struct LakeSource {
    inner: Arc<dyn FileSource>,
    footers: Arc<Footers>,
    deletes: Arc<DeletesByFile>,
}

impl LakeSource {
    /// Around a configured Parquet source.
    pub(crate) fn new(
        parquet: ParquetSource,
        footers: Arc<Footers>,
        deletes: Arc<DeletesByFile>,
    ) -> Self {
        Self { inner: Arc::new(parquet), footers, deletes }
    }

    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, ..self.clone() })
    }
}

impl FileSource for LakeSource {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let mut guarded = config.clone();
        guarded.preserve_order = true;
        let inner = self.inner.create_file_opener(store, &guarded, partition)?;
        let (footers, deletes) = (self.footers.clone(), self.deletes.clone());
        Ok(Arc::new(LakeOpener { inner, footers, deletes }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.around(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, format: DisplayFormatType, f: &mut Formatter<'_>) -> fmt::Result {
        self.inner.fmt_extra(format, f)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let mut pushed = self.inner.try_pushdown_filters(filters, config)?;
        pushed.updated_node = pushed.updated_node.map(|inner| self.around(inner));
        Ok(pushed)
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(match self.inner.try_pushdown_sort(order, properties)? {
            SortOrderPushdownResult::Exact { inner } => {
                SortOrderPushdownResult::Exact { inner: self.around(inner) }
            }
            SortOrderPushdownResult::Inexact { inner } => {
                SortOrderPushdownResult::Inexact { inner: self.around(inner) }
            }
            SortOrderPushdownResult::Unsupported => SortOrderPushdownResult::Unsupported,
        })
    }

    fn try_pushdown_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.inner.try_pushdown_projection(projection)?;
        Ok(pushed.map(|inner| self.around(inner)))
    }
}

struct LakeOpener {
    inner: Arc<dyn FileOpener>,
    footers: Arc<Footers>,
    deletes: Arc<DeletesByFile>,
}

impl FileOpener for LakeOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let Some(deleted) = self.deletes.get(file.path()).cloned() else {
            return self.inner.open(file);
        };
        let (inner, footers) = (self.inner.clone(), self.footers.clone());
        Ok(Box::pin(async move {
            let footer = footers.footer(file.path(), file.object_meta.size).await?;
            let groups = footer.row_groups().iter().map(|group| group.num_rows().cast_unsigned());
            let plan = access_plan(&deleted, groups);
            inner.open(file.with_extensions(Arc::new(plan)))?.await
        }))
    }
}
