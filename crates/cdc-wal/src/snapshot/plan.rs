//! How the tables are divided among COPY workers: one job per leaf, and several block ranges of a
//! big heap.

use cdc_core::{SourceTable, TableKind, TableName, quote_ident};

use crate::control::{Control, get};
use crate::error::{Error, Result};

/// How many ranges one relation is divided into at most, whatever its size.
const RANGES_MAX: u32 = 4096;

/// Blocks `from..to` of a heap; without `to` up to its end, wherever that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRange {
    /// First block.
    pub from: u32,
    /// The block behind the last one.
    pub to: Option<u32>,
}

/// A table to copy.
#[derive(Clone, Copy, Debug)]
pub struct CopyTable<'a> {
    /// The table or partition root.
    pub table: &'a SourceTable,
    /// The wanted columns, in the order that cells shall have.
    pub columns: &'a [String],
}

/// How finely tables are divided.
#[derive(Clone, Copy, Debug)]
pub struct CopyPlanOptions {
    /// Jobs that will run at once.
    pub workers: usize,
    /// Heap bytes of one job; a heap is not divided below this, nor if there is one worker.
    pub target_bytes: u64,
}

impl Default for CopyPlanOptions {
    fn default() -> Self {
        Self { workers: 4, target_bytes: 64 * 1024 * 1024 }
    }
}

/// One COPY: a relation, or a range of its blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyJob {
    /// The table that the rows belong to.
    pub table: TableName,
    /// The relation that is read: the table itself or one of its leaves.
    pub relation: TableName,
    /// The columns, in the order of the cells.
    pub columns: Vec<String>,
    /// The blocks, `None` for all.
    pub range: Option<BlockRange>,
    /// Heap bytes to read, for ordering and progress.
    pub heap_bytes: u64,
}

impl CopyJob {
    /// The statement. ONLY, because the children of plain inheritance are tables of their own.
    pub(super) fn sql(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| quote_ident(name)).collect();
        let mut select =
            format!("SELECT {} FROM ONLY {}", columns.join(", "), self.relation.to_sql());
        if let Some(BlockRange { from, to }) = self.range {
            select.push_str(&format!(" WHERE ctid >= '({from},0)'::tid"));
            if let Some(to) = to {
                select.push_str(&format!(" AND ctid < '({to},0)'::tid"));
            }
        }
        format!("COPY ({select}) TO STDOUT")
    }
}

/// The ranges that divide a heap of `blocks` blocks into parts of about `blocks_per_range`. They
/// cover every block once; the last has no end, so that it does not matter when `blocks` was read.
pub fn block_ranges(blocks: u32, blocks_per_range: u32) -> Vec<BlockRange> {
    let count = blocks.div_ceil(blocks_per_range.max(1)).clamp(1, RANGES_MAX);
    let start = |n: u32| {
        let block = u64::from(blocks) * u64::from(n) / u64::from(count);
        u32::try_from(block).unwrap_or(u32::MAX)
    };
    (0..count)
        .map(|n| BlockRange { from: start(n), to: (n + 1 < count).then(|| start(n + 1)) })
        .collect()
}

/// A relation that holds rows.
struct HeapRow {
    root: u32,
    relation: TableName,
    kind: String,
    heap_bytes: u64,
    block_bytes: u64,
    /// Whether blocks can be asked for by `ctid`.
    by_blocks: bool,
}

const HEAPS: &str = "\
SELECT w.oid, n.nspname::text, c.relname::text, c.relkind::text, \
  coalesce(pg_catalog.pg_relation_size(c.oid), 0), \
  pg_catalog.current_setting('block_size')::int8, coalesce(am.amname = 'heap', false) \
FROM unnest($1::oid[]) w(oid) \
JOIN pg_catalog.pg_class r ON r.oid = w.oid \
CROSS JOIN LATERAL (SELECT w.oid AS relid WHERE r.relkind <> 'p' \
  UNION ALL SELECT t.relid FROM pg_catalog.pg_partition_tree(w.oid) t WHERE r.relkind = 'p' \
    AND t.isleaf) leaf \
JOIN pg_catalog.pg_class c ON c.oid = leaf.relid AND c.relkind <> 'p' \
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
LEFT JOIN pg_catalog.pg_am am ON am.oid = c.relam \
ORDER BY w.oid, c.oid";

impl Control {
    /// The COPY jobs of these tables, the biggest first.
    ///
    /// # Errors
    /// [`Error::SchemaConflict`] if a table has a foreign table among its partitions (its rows are
    /// not replicated) or is gone.
    pub async fn plan_copy(
        &self,
        tables: &[CopyTable<'_>],
        options: CopyPlanOptions,
    ) -> Result<Vec<CopyJob>> {
        let oids: Vec<u32> = tables.iter().map(|wanted| wanted.table.oid).collect();
        let rows = self.query("measure the tables", HEAPS, &[&oids]).await?;
        let mut heaps = Vec::with_capacity(rows.len());
        for row in &rows {
            let (bytes, block): (i64, i64) = (get(row, 4)?, get(row, 5)?);
            heaps.push(HeapRow {
                root: get(row, 0)?,
                relation: TableName::new(get::<String>(row, 1)?, get::<String>(row, 2)?),
                kind: get(row, 3)?,
                heap_bytes: u64::try_from(bytes).unwrap_or(0),
                block_bytes: u64::try_from(block).unwrap_or(8192).max(1),
                by_blocks: get(row, 6)?,
            });
        }
        let mut jobs = Vec::new();
        for wanted in tables {
            let own: Vec<&HeapRow> =
                heaps.iter().filter(|heap| heap.root == wanted.table.oid).collect();
            if own.is_empty() && wanted.table.kind != TableKind::PartitionRoot {
                return Err(conflict(wanted.table, "it does not exist any more"));
            }
            for heap in own {
                jobs.extend(heap_jobs(wanted, heap, options)?);
            }
        }
        jobs.sort_by_key(|job| std::cmp::Reverse(job.heap_bytes));
        Ok(jobs)
    }
}

fn conflict(table: &SourceTable, reason: &str) -> Error {
    Error::SchemaConflict { table: table.name.clone(), reason: reason.to_owned() }
}

fn heap_jobs(
    wanted: &CopyTable<'_>,
    heap: &HeapRow,
    options: CopyPlanOptions,
) -> Result<Vec<CopyJob>> {
    if heap.kind == "f" {
        let reason = format!("its partition {} is a foreign table", heap.relation);
        return Err(conflict(wanted.table, &reason));
    }
    let blocks = u32::try_from(heap.heap_bytes / heap.block_bytes).unwrap_or(u32::MAX);
    let per_range =
        u32::try_from((options.target_bytes / heap.block_bytes).max(1)).unwrap_or(u32::MAX);
    let ranges = match heap.by_blocks && options.workers > 1 {
        true => block_ranges(blocks, per_range),
        false => Vec::new(),
    };
    let job = |range: Option<BlockRange>, heap_bytes: u64| CopyJob {
        table: wanted.table.name.clone(),
        relation: heap.relation.clone(),
        columns: wanted.columns.to_vec(),
        range,
        heap_bytes,
    };
    if ranges.len() < 2 {
        return Ok(vec![job(None, heap.heap_bytes)]);
    }
    let bytes = |range: &BlockRange| {
        u64::from(range.to.unwrap_or(blocks).saturating_sub(range.from)) * heap.block_bytes
    };
    Ok(ranges.iter().map(|range| job(Some(*range), bytes(range))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_quoted_and_ranges_are_half_open() {
        let job = CopyJob {
            table: TableName::new("public", "t"),
            relation: TableName::new("Odd \"s", "T"),
            columns: vec!["a b".into(), "C".into()],
            range: Some(BlockRange { from: 7, to: Some(9) }),
            heap_bytes: 0,
        };
        assert_eq!(
            job.sql(),
            "COPY (SELECT \"a b\", \"C\" FROM ONLY \"Odd \"\"s\".\"T\" \
             WHERE ctid >= '(7,0)'::tid AND ctid < '(9,0)'::tid) TO STDOUT"
        );
    }

    proptest! {
        #[test]
        fn ranges_cover_every_block_once(blocks in any::<u32>(), per_range in any::<u32>()) {
            let ranges = block_ranges(blocks, per_range);
            prop_assert_eq!(ranges[0].from, 0);
            prop_assert!(ranges.len() <= RANGES_MAX as usize);
            prop_assert_eq!(ranges[ranges.len() - 1].to, None);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].to, Some(pair[1].from));
                prop_assert!(pair[0].from < pair[1].from);
            }
        }
    }
}
