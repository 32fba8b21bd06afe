//! The result of a benchmark: a table for people, JSON for programs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::measure::Cost;

/// Everything that one benchmark found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What was measured, in a line.
    pub(super) title: String,
    /// The sections, each with contenders on one piece of work.
    pub(super) sections: Vec<Section>,
}

/// Contenders on the same work.
#[derive(Debug, Serialize)]
pub(super) struct Section {
    /// The work.
    pub(super) name: String,
    /// Rows or changes that each contender handled.
    pub(super) rows: u64,
    /// Payload bytes that each contender handled; 0 where that means nothing.
    pub(super) bytes: u64,
    /// The contenders; the first is what the others are compared with.
    pub(super) contenders: Vec<Contender>,
    /// What else was measured, in words.
    pub(super) notes: Vec<String>,
}

/// One contender.
#[derive(Debug, Serialize)]
pub(super) struct Contender {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) cost: Cost,
    /// Rows per second, this one's over the first one's.
    pub(super) speed_ratio: f64,
    pub(super) rows_per_second: f64,
    pub(super) megabytes_per_second: f64,
}

impl Section {
    /// A section from median costs, the baseline first.
    pub(super) fn new(name: &str, rows: u64, bytes: u64, costs: Vec<(String, Cost)>) -> Self {
        let baseline = costs.first().map_or(0.0, |(_, cost)| cost.seconds);
        let contenders = costs
            .into_iter()
            .map(|(name, cost)| Contender {
                name,
                cost,
                speed_ratio: baseline / cost.seconds,
                rows_per_second: rows as f64 / cost.seconds,
                megabytes_per_second: bytes as f64 / 1e6 / cost.seconds,
            })
            .collect();
        Self { name: name.to_owned(), rows, bytes, contenders, notes: Vec::new() }
    }
}

impl Report {
    /// Prints the table.
    pub(super) fn print(&self) {
        println!("{}", self.title);
        for section in &self.sections {
            println!(
                "\n{}: {} rows, {:.0} MB",
                section.name,
                section.rows,
                section.bytes as f64 / 1e6
            );
            println!(
                "  {:<36} {:>8} {:>9} {:>7} {:>7} {:>9} {:>6}",
                "", "seconds", "krows/s", "MB/s", "CPU s", "RSS MiB", "ratio"
            );
            for one in &section.contenders {
                println!(
                    "  {:<36} {:>8.2} {:>9.0} {:>7.0} {:>7.2} {:>9.1} {:>6.2}",
                    one.name,
                    one.cost.seconds,
                    one.rows_per_second / 1e3,
                    one.megabytes_per_second,
                    one.cost.cpu_seconds,
                    one.cost.peak_rss_bytes as f64 / 1024.0 / 1024.0,
                    one.speed_ratio
                );
            }
            for note in &section.notes {
                println!("  {note}");
            }
        }
    }

    /// Writes the JSON.
    pub(super) fn write(&self, file: &Path) -> Result<()> {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        fs::write(file, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nwritten to {}", file.display());
        Ok(())
    }
}
