//! Many rows of COPY text in one buffer, and how they are taken apart
//! (<https://www.postgresql.org/docs/current/sql-copy.html>, "Text Format").
//!
//! Each row is one CopyData frame. The server writes a tab between columns and a newline behind
//! each row, escapes those and the backslash inside values, and writes NULL as `\N`. Almost no
//! value holds a backslash, so a cell is a slice of the buffer unless it does; then it is unescaped
//! in place.

use cdc_core::{Cell, TableName};

use crate::error::{Error, Result};
use crate::session::Rows;
use crate::session::frame;

/// Whole rows of one COPY.
#[derive(Debug)]
pub struct CopyBatch {
    table: TableName,
    columns: usize,
    rows: Rows,
}

impl CopyBatch {
    pub(crate) fn new(table: TableName, columns: usize, rows: Rows) -> Self {
        Self { table, columns, rows }
    }

    /// Bytes that the batch holds, for budgets.
    pub fn byte_len(&self) -> usize {
        self.rows.frames.len()
    }

    /// Rows, for progress.
    pub fn row_count(&self) -> u64 {
        self.rows.count
    }

    /// Hands each row to `take`, its cells in the order of the job's columns, and gives the number
    /// of rows. Cells are never [`Cell::Unchanged`]. The batch is spent afterwards, whether or not
    /// `take` stopped it with an error.
    ///
    /// # Errors
    /// The first error of `take`; [`Error::SchemaConflict`] if a row has another number of columns
    /// or the last one is cut short.
    pub fn rows<E: From<Error>>(
        &mut self,
        mut take: impl FnMut(&[Cell<'_>]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let Self { table, columns, rows } = self;
        let (mut frames, columns) = (std::mem::take(&mut rows.frames), *columns);
        let mut cells = Vec::with_capacity(columns);
        let mut rest: &mut [u8] = &mut frames;
        while let Some((row, others)) = frame::split_copy_data(rest)? {
            cells.clear();
            match split_row(row, columns, &mut cells) {
                Some([]) => take(&cells)?,
                _ => return Err(malformed(table, columns).into()),
            }
            rest = others;
        }
        Ok(std::mem::take(&mut rows.count))
    }
}

fn malformed(table: &TableName, columns: usize) -> Error {
    let reason = format!("a row of the copy does not have {columns} columns");
    Error::SchemaConflict { table: table.clone(), reason }
}

/// Takes the first row off `bytes` and gives what lies behind it; `None` if it does not have
/// exactly `columns` cells and a newline.
fn split_row<'a>(
    mut bytes: &'a mut [u8],
    columns: usize,
    cells: &mut Vec<Cell<'a>>,
) -> Option<&'a mut [u8]> {
    if columns == 0 {
        return bytes.strip_prefix_mut(b"\n");
    }
    for left in (0..columns).rev() {
        let mut end = memchr::memchr3(b'\t', b'\n', b'\\', bytes)?;
        let escaped = bytes[end] == b'\\';
        if escaped {
            end += memchr::memchr2(b'\t', b'\n', &bytes[end..])?;
        }
        let separator = if left == 0 { b'\n' } else { b'\t' };
        if bytes[end] != separator {
            return None;
        }
        let (cell, rest) = bytes.split_at_mut(end);
        cells.push(match (escaped, &*cell) {
            (false, _) => Cell::Text(cell),
            (true, b"\\N") => Cell::Null,
            (true, _) => Cell::Text(unescape(cell)),
        });
        bytes = rest.split_at_mut(1).1;
    }
    Some(bytes)
}

/// Undoes the escapes in place and gives the shorter value. The server writes only the six letters
/// and the character itself, never octal or hexadecimal digits (`CopyAttributeOutText`).
fn unescape(cell: &mut [u8]) -> &[u8] {
    let Some(first) = memchr::memchr(b'\\', cell) else { return cell };
    let (mut read, mut write) = (first, first);
    while read < cell.len() {
        let mut byte = cell[read];
        if byte == b'\\' && read + 1 < cell.len() {
            read += 1;
            byte = match cell[read] {
                b'b' => 0x08,
                b'f' => 0x0C,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 0x0B,
                other => other,
            };
        }
        cell[write] = byte;
        read += 1;
        write += 1;
    }
    &cell[..write]
}

trait StripPrefixMut {
    fn strip_prefix_mut(self, prefix: &[u8]) -> Option<Self>
    where
        Self: Sized;
}

impl StripPrefixMut for &mut [u8] {
    fn strip_prefix_mut(self, prefix: &[u8]) -> Option<Self> {
        self.starts_with(prefix).then(|| self.split_at_mut(prefix.len()).1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn batch(columns: usize, text: &[u8]) -> CopyBatch {
        CopyBatch::new(TableName::new("public", "t"), columns, Rows::of_lines(text))
    }

    /// Rows as owned values, NULL as `None`.
    fn read(columns: usize, text: &[u8]) -> Result<Vec<Vec<Option<Vec<u8>>>>> {
        let mut rows = Vec::new();
        batch(columns, text).rows(|cells| {
            rows.push(
                cells
                    .iter()
                    .map(|cell| match cell {
                        Cell::Text(text) => Some(text.to_vec()),
                        Cell::Null | Cell::Unchanged => None,
                    })
                    .collect(),
            );
            Ok::<(), Error>(())
        })?;
        Ok(rows)
    }

    fn escape(value: &Option<Vec<u8>>) -> Vec<u8> {
        let Some(value) = value else { return b"\\N".to_vec() };
        let mut out = Vec::new();
        for byte in value {
            match byte {
                b'\\' => out.extend(b"\\\\"),
                b'\t' => out.extend(b"\\t"),
                b'\n' => out.extend(b"\\n"),
                b'\r' => out.extend(b"\\r"),
                0x08 => out.extend(b"\\b"),
                0x0B => out.extend(b"\\v"),
                0x0C => out.extend(b"\\f"),
                other => out.push(*other),
            }
        }
        out
    }

    #[test]
    fn nulls_empty_texts_and_a_literal_backslash_n_differ() {
        let rows = read(3, b"\\N\t\t\\\\N\n1\t\\\\.\ta\\tb\\nc\\\\\n").unwrap();
        let text = |text: &[u8]| Some(text.to_vec());
        assert_eq!(rows[0], [None, text(b""), text(b"\\N")]);
        assert_eq!(rows[1], [text(b"1"), text(b"\\."), text(b"a\tb\nc\\")]);
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let rows = batch(0, b"\n\n\n").rows(|_| Ok::<(), Error>(())).unwrap();
        assert_eq!(rows, 3);
    }

    #[test]
    fn a_row_of_another_shape_is_refused() {
        for (columns, text) in [(2, &b"1\n"[..]), (1, b"1\t2\n"), (2, b"1\t2"), (0, b"1\n")] {
            let error = read(columns, text).unwrap_err();
            assert!(error.to_string().contains(&format!("{columns} columns")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_row_round_trips(rows in proptest::collection::vec(
            proptest::collection::vec(proptest::option::of(
                proptest::collection::vec(prop_oneof![
                    Just(b'\\'), Just(b'\t'), Just(b'\n'), Just(b'N'), any::<u8>(),
                ], 0..12)), 3), 0..8)) {
            let mut text = Vec::new();
            for row in &rows {
                text.extend(row.iter().map(escape).collect::<Vec<_>>().join(&b'\t'));
                text.push(b'\n');
            }
            prop_assert_eq!(read(3, &text).unwrap(), rows);
        }

        #[test]
        fn no_bytes_make_it_panic(columns in 0usize..4, text in any::<Vec<u8>>()) {
            let _ = read(columns, &text);
        }
    }
}
