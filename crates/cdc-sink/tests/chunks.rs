//! Chunks that were gathered while a table was copied, cut at the position of the copy.

use cdc_core::{Cell, ChangePosition, Epoch, Lsn, RowChange, UnrepresentablePolicy};
use cdc_sink::{ChangeBuffer, Chunk, DeltaOptions, chunks_after};

use crate::support::{Lake, by_key, empty_index, schema};

/// Transactions of the given numbers of rows, the `n`th of which ends at LSN `10 n`; a chunk is
/// taken behind each row whose number is in `cuts`.
fn chunks(transactions: &[usize], cuts: &[usize]) -> Vec<Chunk> {
    let mut buffer = ChangeBuffer::new(schema(by_key()), UnrepresentablePolicy::Error);
    let (mut chunks, mut row) = (Vec::new(), 0);
    for (number, rows) in transactions.iter().enumerate() {
        let end = Lsn(10 * (number as u64 + 1));
        for seq in 0..*rows {
            row += 1;
            let at = ChangePosition { lsn: end, commit_micros: 0, xid: 1, seq: seq as u64 };
            let id = row.to_string();
            let cells = [Cell::Text(id.as_bytes()), Cell::Null, Cell::Null];
            buffer.push(&RowChange::Insert { new: &cells }, &at, Epoch(1)).unwrap();
            if cuts.contains(&row) {
                chunks.push(buffer.take_chunk().unwrap());
            }
        }
        buffer.commit(end);
    }
    chunks.push(buffer.take_chunk().unwrap());
    chunks
}

fn rows(chunks: &[Chunk]) -> Vec<usize> {
    chunks.iter().map(Chunk::rows).collect()
}

#[test]
fn transactions_up_to_a_position_leave_the_chunks() {
    for (lsn, left) in [(0, 6), (9, 6), (10, 4), (20, 1), (30, 0)] {
        let kept = chunks_after(chunks(&[2, 3, 1], &[]), Lsn(lsn), Epoch(9)).unwrap();
        assert_eq!(rows(&kept), [left], "behind {lsn}");
    }
}

#[test]
fn a_transaction_over_several_chunks_leaves_as_a_whole() {
    // the second transaction lies in three chunks and its end is told in the last
    let cut = || chunks(&[2, 5, 1], &[4, 7]);
    assert_eq!(rows(&chunks_after(cut(), Lsn(20), Epoch(9)).unwrap()), [0, 0, 1]);
    assert_eq!(rows(&chunks_after(cut(), Lsn(19), Epoch(9)).unwrap()), [2, 3, 1]);
}

#[test]
fn what_is_kept_is_written_as_of_the_new_epoch() {
    let (lake, dir) = (Lake::new(), tempfile::tempdir().unwrap());
    let table = schema(by_key());
    let index = empty_index(dir.path(), &table);
    let mut writer = lake.writer(&table, index, DeltaOptions::default());
    writer.begin_epoch(Epoch(9), 0).unwrap();
    for chunk in chunks_after(chunks(&[2, 5, 1], &[4, 7]), Lsn(10), Epoch(9)).unwrap() {
        writer.append(chunk).unwrap();
    }
    let output = writer.finish_epoch().unwrap().unwrap();
    lake.runtime.block_on(output.upload(&lake.store)).unwrap();
    let batches = lake.rows(&output.files[0].key);
    let column = |name: &str| {
        let values = batches.iter().flat_map(|batch| {
            let column = batch.column_by_name(name).unwrap();
            let column = column.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
            column.values().to_vec()
        });
        values.collect::<Vec<i64>>()
    };
    assert_eq!(column("id"), [3, 4, 5, 6, 7, 8]);
    assert_eq!(column("__epoch"), [9; 6]);
    assert_eq!(column("__commit_lsn"), [20, 20, 20, 20, 20, 30]);
}
