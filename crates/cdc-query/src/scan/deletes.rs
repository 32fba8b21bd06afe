//! Deleted positions of a file as the rows that a Parquet reader has to visit.

use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

/// Which rows of a file are deleted: positions in the file, ascending, each once.
pub(crate) type DeletedRows = Vec<u64>;

/// Everything but the deleted rows. `group_rows` are the rows of each row group in file order.
///
/// A row group without a deleted row is read whole, one without a live row is not read at all.
pub(crate) fn access_plan(
    deleted: &[u64],
    group_rows: impl IntoIterator<Item = u64>,
) -> ParquetAccessPlan {
    let mut rest = deleted;
    let mut start = 0u64;
    let mut groups = Vec::new();
    for rows in group_rows {
        let end = start + rows;
        let (here, behind) = rest.split_at(rest.partition_point(|position| *position < end));
        groups.push(group_access(here, start, rows));
        (rest, start) = (behind, end);
    }
    ParquetAccessPlan::new(groups)
}

fn group_access(deleted: &[u64], start: u64, rows: u64) -> RowGroupAccess {
    if deleted.is_empty() {
        return RowGroupAccess::Scan;
    }
    if deleted.len() as u64 == rows {
        return RowGroupAccess::Skip;
    }
    RowGroupAccess::Selection(selection(deleted, start, rows))
}

/// Alternating runs of live and deleted rows over one row group.
fn selection(deleted: &[u64], start: u64, rows: u64) -> RowSelection {
    let count = |rows: u64| usize::try_from(rows).unwrap_or(usize::MAX);
    let mut selectors = Vec::new();
    let mut next = start;
    for run in deleted.chunk_by(|a, b| a + 1 == *b) {
        let first = run[0];
        if first > next {
            selectors.push(RowSelector::select(count(first - next)));
        }
        selectors.push(RowSelector::skip(run.len()));
        next = first + run.len() as u64;
    }
    if next < start + rows {
        selectors.push(RowSelector::select(count(start + rows - next)));
    }
    RowSelection::from(selectors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_rows_are_selected_by_row_group() {
        let plan = access_plan(&[1, 2, 5, 6, 7, 8, 9, 12], [5, 5, 3, 4]);
        let selected = RowSelection::from(vec![
            RowSelector::select(1),
            RowSelector::skip(2),
            RowSelector::select(2),
        ]);
        let last = RowSelection::from(vec![RowSelector::select(2), RowSelector::skip(1)]);
        let expected = ParquetAccessPlan::new(vec![
            RowGroupAccess::Selection(selected),
            RowGroupAccess::Skip,
            RowGroupAccess::Selection(last),
            RowGroupAccess::Scan,
        ]);
        assert_eq!(plan, expected);
    }
}
