//! The result of a preflight.

use std::fmt;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckStatus {
    /// Fine.
    Pass,
    /// It works, with a consequence to know of.
    Warn,
    /// Init would fail, or data would be missing.
    Fail,
}

impl CheckStatus {
    /// `PASS`, `WARN` or `FAIL`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

impl fmt::Display for CheckStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable name, such as `wal_level` or `select privilege`.
    pub name: &'static str,
    /// How it ended.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do; empty if nothing.
    pub remediation: String,
}

impl Check {
    pub(super) fn pass(name: &'static str, detail: impl Into<String>) -> Self {
        let status = CheckStatus::Pass;
        Self { name, status, detail: detail.into(), remediation: String::new() }
    }

    pub(super) fn warn(
        name: &'static str,
        detail: impl Into<String>,
        remediation: impl Into<String>,
    ) -> Self {
        let status = CheckStatus::Warn;
        Self { name, status, detail: detail.into(), remediation: remediation.into() }
    }

    pub(super) fn fail(
        name: &'static str,
        detail: impl Into<String>,
        remediation: impl Into<String>,
    ) -> Self {
        let status = CheckStatus::Fail;
        Self { name, status, detail: detail.into(), remediation: remediation.into() }
    }
}

/// All checks, in the order in which an operator would act on them.
#[derive(Clone, Debug, Default)]
pub struct PreflightReport {
    /// The checks.
    pub checks: Vec<Check>,
}

impl PreflightReport {
    /// The worst outcome; `Pass` if there are no checks.
    pub fn worst(&self) -> CheckStatus {
        self.checks.iter().map(|check| check.status).max().unwrap_or(CheckStatus::Pass)
    }

    /// Whether init may go on.
    pub fn is_ready(&self) -> bool {
        self.worst() < CheckStatus::Fail
    }
}
