//! Where things are: the checkout, the built binaries, the cache outside the checkout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;

/// The root of the checkout that this xtask was built from.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies one level below the root")
}

/// The directory that holds everything `setup` installs, shared by all checkouts of a user.
///
/// `PGCDC_CACHE`, else `XDG_CACHE_HOME/pgcdc`, else `~/.cache/pgcdc`. For root it is
/// `/var/cache/pgcdc`: PostgreSQL refuses to run as root, and the account that runs it instead
/// cannot look into root's home.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PGCDC_CACHE") {
        return std::path::absolute(dir).context("PGCDC_CACHE is not a usable path");
    }
    if shell::is_root() {
        return Ok(PathBuf::from("/var/cache/pgcdc"));
    }
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("pgcdc"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set; hint: set PGCDC_CACHE")?;
    Ok(PathBuf::from(home).join(".cache/pgcdc"))
}

/// The cargo that runs this task, so that a pinned toolchain stays pinned.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// The build profile whose binaries a task drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What `cargo build` makes; tests use it.
    Dev,
    /// What `cargo build --release` makes; benchmarks use it.
    Release,
}

/// Builds the binaries of the workspace and returns the directory they lie in.
///
/// `PGCDC_BIN_DIR` names a directory with binaries that were built before; then nothing is built.
pub(crate) fn build_binaries(profile: Profile) -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PGCDC_BIN_DIR") {
        return std::path::absolute(dir).context("PGCDC_BIN_DIR is not a usable path");
    }
    let mut build = shell::command(cargo());
    // the whole workspace, so that features unify as in its tests and nothing is built twice
    build.current_dir(root()).args(["build", "--quiet", "--bins", "--workspace"]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    shell::run(&mut build)?;
    Ok(binaries(profile))
}

/// Where binaries lie once they are built.
pub(crate) fn binaries(profile: Profile) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |dir| root().join(dir));
    target.join(if profile == Profile::Release { "release" } else { "debug" })
}

/// Builds `pgcdc` with failpoints and returns a directory that holds it and nothing else. Only our
/// own crates differ from the ordinary build, so only they are compiled again.
pub(crate) fn build_with_failpoints() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PGCDC_FAILPOINT_BIN_DIR") {
        return std::path::absolute(dir).context("PGCDC_FAILPOINT_BIN_DIR is not a usable path");
    }
    let mut build = shell::command(cargo());
    build.current_dir(root()).args(["build", "--quiet", "--workspace", "--bin", "pgcdc"]);
    build.args(["--features", "pgcdc/failpoints"]);
    shell::run(&mut build)?;
    let built = binaries(Profile::Dev);
    let own = built.with_file_name("failpoints");
    std::fs::create_dir_all(&own)?;
    std::fs::copy(built.join("pgcdc"), own.join("pgcdc")).context("cannot copy pgcdc")?;
    // nothing that is taken from the usual place may have failpoints
    build_binaries(Profile::Dev)?;
    Ok(own)
}

/// Builds an example; it lies in `examples/` below the binaries.
pub(crate) fn build_example(name: &str, profile: Profile) -> Result<()> {
    if std::env::var_os("PGCDC_BIN_DIR").is_some() {
        return Ok(());
    }
    let mut build = shell::command(cargo());
    build.current_dir(root()).args(["build", "--quiet", "--workspace", "--example", name]);
    if profile == Profile::Release {
        build.arg("--release");
    }
    shell::run(&mut build)
}
