//! What was built, from which commit, by which compiler.

use serde::Serialize;

/// The build, as `version` prints it and `pgcdc_build_info` exposes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// Version of the workspace.
    pub version: &'static str,
    /// Commit, `unknown` when built outside a checkout.
    pub git_sha: &'static str,
    /// Compiler version.
    pub rustc: &'static str,
    /// Target triple.
    pub target: &'static str,
}

/// This build.
pub const BUILD_INFO: BuildInfo = BuildInfo {
    version: env!("CARGO_PKG_VERSION"),
    git_sha: env!("PGCDC_BUILD_GIT_SHA"),
    rustc: env!("PGCDC_BUILD_RUSTC"),
    target: env!("PGCDC_BUILD_TARGET"),
};

/// Version and commit, for `--version`.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (", env!("PGCDC_BUILD_GIT_SHA"), ")");

impl BuildInfo {
    /// The line that `version` prints: `<binary> <version> (<sha>, rustc <v>, <target>)`.
    pub fn line(&self, binary: &str) -> String {
        let Self { version, git_sha, rustc, target } = self;
        format!("{binary} {version} ({git_sha}, rustc {rustc}, {target})")
    }
}
