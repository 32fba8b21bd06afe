//! The kill matrix as a table, on the screen and in the docs.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::points::{POINTS, Point};
use super::{Cell, Column, Outcomes, splice_file};

/// The marks around the generated table.
const BEGIN: &str = "<!-- kill matrix: `cargo xtask e2e kill-matrix --write` -->";
const END: &str = "<!-- end of the kill matrix -->";

/// The table for people at a terminal.
pub(super) fn table(points: &[Point], columns: &[Column], outcomes: &Outcomes) -> String {
    let mut text = format!("{:<6}{:<42}", "point", "place");
    for (kind, store) in columns {
        let _ = write!(text, " {:<18}", format!("{kind} {}", store.word()));
    }
    text.push('\n');
    for point in points {
        let _ = write!(text, "{:<6}{:<42}", point.name, point.place);
        for column in columns {
            let cell = outcomes.get(&(point.name, *column)).map_or("-".to_owned(), cell);
            let _ = write!(text, " {cell:<18}");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The majors on which a cell is green, then those on which it is not.
fn cell(cell: &Cell) -> String {
    let majors = |is_failure: bool| {
        let mut found: Vec<_> =
            cell.iter().filter(|(_, why)| why.is_some() == is_failure).collect();
        found.sort_by_key(|(major, _)| *major);
        found.iter().map(|(major, _)| major.to_string()).collect::<Vec<_>>().join(" ")
    };
    let (green, red) = (majors(false), majors(true));
    match red.is_empty() {
        true => green,
        false => format!("{green} FAILED {red}").trim_start().to_owned(),
    }
}

/// Writes the table into a page, between its marks.
pub(super) fn write(page: &Path, columns: &[Column], outcomes: &Outcomes) -> Result<()> {
    let mut text = "\n| point | place |".to_owned();
    for (kind, store) in columns {
        let _ = write!(text, " {kind}, {} |", store.word());
    }
    text.push_str("\n|---|---|");
    columns.iter().for_each(|_| text.push_str("---|"));
    text.push('\n');
    for point in &POINTS {
        let _ = write!(text, "| {} | {} |", point.name, point.place);
        for column in columns {
            let cell = outcomes.get(&(point.name, *column)).map_or(String::new(), cell);
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text.push('\n');
    splice_file(page, BEGIN, END, &text)
}
