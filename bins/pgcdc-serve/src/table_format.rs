//! Rows as a table for people. Values are data, not instructions to the terminal: what would move
//! the cursor, change colours or turn the direction of text is shown escaped.

use std::fmt;

use cdc_serve::{RecordBatch, Schema, Value};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

/// A table that is printed whole.
pub(crate) struct TextTable(Table);

impl TextTable {
    pub(crate) fn new(schema: &Schema) -> TextTable {
        let mut table = Table::new();
        table.load_preset(presets::ASCII_MARKDOWN);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(schema.fields().iter().map(|field| escaped(field.name())));
        TextTable(table)
    }

    pub(crate) fn push(&mut self, batch: &RecordBatch) {
        for row in 0..batch.num_rows() {
            self.0.add_row(batch.columns().iter().map(|column| cell(&Value::at(column, row))));
        }
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::new("NULL"),
        Value::Bare(text) => Cell::new(text).set_alignment(CellAlignment::Right),
        Value::Text(text) | Value::Json(text) => Cell::new(escaped(text)),
    }
}

fn escaped(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() && !is_invisible(c);
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    let show = |c: char| if is_plain(c) { c.to_string() } else { c.escape_default().to_string() };
    text.chars().map(show).collect()
}

/// Zero-width characters and those that turn the direction of text.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_nothing_by_values() {
        let cases = [
            ("plain ü €", "plain ü €"),
            ("red \u{1b}[31m", "red \\u{1b}[31m"),
            ("two\nlines", "two\\nlines"),
            ("abc\u{202E}cba", "abc\\u{202e}cba"),
        ];
        for (text, expected) in cases {
            assert_eq!(escaped(text), expected);
        }
    }
}
