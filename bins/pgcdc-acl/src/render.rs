//! Answers as tables and as JSON. A reader that has gone away (`| head`) is no failure of ours.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// Rows under a header, as wide as their cells.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> std::io::Result<()> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|cell| (*cell).to_owned()));
    for row in rows {
        table.add_row(row);
    }
    print(&format!("{}\n", table.trim_fmt()))
}

/// One JSON document.
pub(crate) fn json(value: &Value) -> std::io::Result<()> {
    print(&format!("{value:#}\n"))
}

pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
