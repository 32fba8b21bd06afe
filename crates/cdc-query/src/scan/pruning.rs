//! Files that cannot hold a wanted row, told from the bounds in the snapshot's manifests, before
//! any of their bytes or of their deletes is read.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::pruning::PrunableStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::scalar::ScalarValue;

use crate::files::{FileBounds, LakeFile, TableFiles};

/// The files that may hold rows for which the predicate is true. Without a predicate, or with one
/// that says nothing about bounds, all of them.
pub(super) fn prune<'f>(
    files: &'f TableFiles,
    schema: &SchemaRef,
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Vec<&'f LakeFile> {
    let all = || files.files.iter().collect();
    let Some(predicate) = predicate else { return all() };
    let Ok(predicate) = PruningPredicate::try_new(predicate.clone(), schema.clone()) else {
        return all();
    };
    let statistics = files.files.iter().map(|file| Arc::new(statistics(file, schema))).collect();
    let statistics = PrunableStatistics::new(statistics, schema.clone());
    match predicate.prune(&statistics) {
        Ok(keep) => {
            files.files.iter().zip(keep).filter(|(_, keep)| *keep).map(|(file, _)| file).collect()
        }
        Err(_) => all(),
    }
}

/// The bounds of a file for the engine. They hold for the live rows too, being fewer; the number of
/// rows is that of the file, deleted ones included, as the number of NULLs is.
pub(super) fn statistics(file: &LakeFile, schema: &Schema) -> Statistics {
    let exact =
        |value: &Option<ScalarValue>| value.clone().map_or(Precision::Absent, Precision::Exact);
    let count = |value: u64| usize::try_from(value).map_or(Precision::Absent, Precision::Exact);
    let column = |bounds: &FileBounds| ColumnStatistics {
        min_value: exact(&bounds.lower),
        max_value: exact(&bounds.upper),
        null_count: bounds.nulls.map_or(Precision::Absent, count),
        ..ColumnStatistics::new_unknown()
    };
    Statistics {
        num_rows: count(file.rows),
        column_statistics: file.bounds.iter().map(column).collect(),
        ..Statistics::new_unknown(schema)
    }
}
