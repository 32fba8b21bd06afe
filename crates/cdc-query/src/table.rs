//! A table of one request: the columns and rows that the caller's access shows, at one snapshot.

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use cdc_core::{StoredType, meta};
use cdc_iceberg::ReadColumn;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::datasource::TableType;
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, col};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::access::TableAccess;
use crate::files::{TableFiles, position};
use crate::scan::{self, ScanSpec};

/// The provider of one table for one request. Only a [`TableAccess`] can make one, and it is thrown
/// away with the request.
#[derive(Debug)]
pub struct GovernedTable {
    access: TableAccess,
    files: TableFiles,
    /// What the caller sees.
    shown: SchemaRef,
    /// What can be read, `shown` first. Columns that the access hides are in neither.
    readable: SchemaRef,
    /// Position in `readable` of the column that is NULL in rows which are not deleted.
    live_marker: Option<usize>,
}

/// Whether soft-deleted rows are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeletedRows {
    /// They do not exist, nor does `__deleted_at`.
    #[default]
    Hidden,
    /// They are rows with `__deleted_at` set.
    Shown,
}

impl GovernedTable {
    /// The table as `access` shows it.
    pub(crate) fn new(access: TableAccess, mut files: TableFiles, deleted: DeletedRows) -> Self {
        files.keep_columns(|column| access.shows(column.field_id));
        let marker = position(&files.columns, meta::DELETED_AT.field_id)
            .filter(|_| deleted == DeletedRows::Hidden);
        if let Some(marker) = marker {
            files.move_last(marker);
        }
        let fields: Vec<Field> = files.columns.iter().map(field).collect();
        let shown = fields.len() - usize::from(marker.is_some());
        GovernedTable {
            access,
            shown: Arc::new(Schema::new(fields[..shown].to_vec())),
            readable: Arc::new(Schema::new(fields)),
            live_marker: marker.map(|_| shown),
            files,
        }
    }

    /// The decision it was made by.
    pub fn access(&self) -> &TableAccess {
        &self.access
    }

    /// The columns that the caller sees.
    pub(crate) fn columns(&self) -> &[ReadColumn] {
        &self.files.columns[..self.shown.fields().len()]
    }

    /// A column that the caller sees.
    pub(crate) fn column(&self, name: &str) -> crate::Result<&ReadColumn> {
        self.columns().iter().find(|column| column.name == name).ok_or_else(|| {
            crate::Error::NoSuchColumn {
                table: self.access.table().to_string(),
                column: name.to_owned(),
            }
        })
    }

    /// Rows whose marker is NULL, without the marker.
    async fn scan_live(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        marker: usize,
    ) -> crate::Result<Arc<dyn ExecutionPlan>> {
        let shown: Vec<usize> = match projection {
            Some(positions) => positions.clone(),
            None => (0..self.shown.fields().len()).collect(),
        };
        let mut read = shown.clone();
        read.push(marker);
        let name = self.readable.field(marker).name();
        let live = Expr::IsNull(Box::new(col(datafusion::common::Column::from_name(name))));
        let mut all = filters.to_vec();
        all.push(live.clone());
        let spec = ScanSpec {
            schema: self.readable.clone(),
            projection: Some(&read),
            filters: &all,
            limit: None,
        };
        let scan = scan::plan(&self.files, session, spec).await?;
        let only_shown = || -> EngineResult<Arc<dyn ExecutionPlan>> {
            let schema = DFSchema::try_from(scan.schema().as_ref().clone())?;
            let live = session.create_physical_expr(live, &schema)?;
            let filtered = Arc::new(FilterExec::try_new(live, scan)?);
            let column = |(at, position): (usize, &usize)| {
                let name = self.readable.field(*position).name();
                let column: Arc<dyn datafusion::physical_expr::PhysicalExpr> =
                    Arc::new(Column::new(name, at));
                (column, name.clone())
            };
            let columns: Vec<_> = shown.iter().enumerate().map(column).collect();
            Ok(Arc::new(ProjectionExec::try_new(columns, filtered)?))
        };
        only_shown().map_err(|error| crate::Error::engine("plan", error))
    }
}

#[async_trait]
impl TableProvider for GovernedTable {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn schema(&self) -> SchemaRef {
        self.shown.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        if let Some(marker) = self.live_marker {
            return Ok(self.scan_live(session, projection, filters, marker).await?);
        }
        let spec = ScanSpec { schema: self.readable.clone(), projection, filters, limit };
        Ok(scan::plan(&self.files, session, spec).await?)
    }

    /// Files are left out by filters; rows are left out by the scan only where the engine later
    /// gives it the same filters to evaluate.
    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> EngineResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

/// A column for the engine, without its field id: text and bytes in the form in which the Parquet
/// reader need not copy them.
fn field(column: &ReadColumn) -> Field {
    Field::new(&column.name, arrow_type(&column.stored), true)
}

fn arrow_type(stored: &StoredType) -> DataType {
    match stored {
        StoredType::String => DataType::Utf8View,
        StoredType::Binary => DataType::BinaryView,
        other => cdc_iceberg::arrow_type(other, None),
    }
}
