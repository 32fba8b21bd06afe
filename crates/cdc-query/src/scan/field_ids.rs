//! Columns found by field id: an old file has other names, other types, or lacks a column.
//!
//! The engine asks for columns by their name in the table. For each file this adapter gives the
//! file's columns the table's names where the field ids agree, lets the engine's own adapter fill
//! in NULLs and casts, and then puts the file's real names back, which the reader needs.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// Makes an adapter per file. Holds the field id of each table column by name.
#[derive(Debug)]
pub(crate) struct ByFieldId {
    ids: HashMap<String, i32>,
}

impl ByFieldId {
    /// For a table with these columns.
    pub(crate) fn new<'c>(columns: impl IntoIterator<Item = (&'c str, i32)>) -> Self {
        Self { ids: columns.into_iter().map(|(name, id)| (name.to_owned(), id)).collect() }
    }

    /// The file's schema under the table's names. A column that the table does not have gets a name
    /// that no column can have, so that an equal name with another id is not mistaken for it.
    fn renamed(&self, file: &Schema) -> Schema {
        let names: HashMap<i32, &str> =
            self.ids.iter().map(|(name, id)| (*id, name.as_str())).collect();
        let rename = |(at, field): (usize, &Arc<Field>)| {
            let known = field_id(field).and_then(|id| names.get(&id).copied());
            let name = known.map_or_else(|| format!("\u{0}{at}"), str::to_owned);
            Arc::new(field.as_ref().clone().with_name(name))
        };
        Schema::new(file.fields().iter().enumerate().map(rename).collect::<Vec<_>>())
    }
}

/// The field id that the Parquet reader found in the file.
pub(crate) fn field_id(field: &Field) -> Option<i32> {
    field.metadata().get(PARQUET_FIELD_ID_META_KEY)?.parse().ok()
}

impl PhysicalExprAdapterFactory for ByFieldId {
    fn create(
        &self,
        logical: SchemaRef,
        physical: SchemaRef,
    ) -> datafusion::error::Result<Arc<dyn PhysicalExprAdapter>> {
        let renamed = Arc::new(self.renamed(&physical));
        let inner = DefaultPhysicalExprAdapterFactory.create(logical, renamed)?;
        Ok(Arc::new(Adapter { inner, physical }))
    }
}

#[derive(Debug)]
struct Adapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    physical: SchemaRef,
}

impl PhysicalExprAdapter for Adapter {
    fn rewrite(
        &self,
        expr: Arc<dyn PhysicalExpr>,
    ) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
        let adapted = self.inner.rewrite(expr)?;
        let real_name = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.as_any().downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let name = self.physical.field(column.index()).name();
            if name == column.name() {
                return Ok(Transformed::no(expr));
            }
            let column = Column::new(name, column.index());
            Ok(Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>))
        };
        adapted.transform(real_name).data()
    }
}
