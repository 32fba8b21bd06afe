//! Who runs the server: it decides the words of a remediation and the names of privileges.

use std::fmt;
use std::str::FromStr;

/// Who runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provider {
    /// Whoever has the superuser and the configuration file.
    SelfManaged,
    /// Amazon RDS for PostgreSQL.
    Rds,
    /// Amazon Aurora PostgreSQL.
    Aurora,
}

impl Provider {
    /// The word in the configuration and in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SelfManaged => "self-managed",
            Self::Rds => "rds",
            Self::Aurora => "aurora",
        }
    }

    /// Whether Amazon runs it.
    pub fn is_amazon(self) -> bool {
        matches!(self, Self::Rds | Self::Aurora)
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a provider.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a provider; hint: use self-managed, rds or aurora")]
pub struct ParseProviderError(pub String);

impl FromStr for Provider {
    type Err = ParseProviderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::SelfManaged, Self::Rds, Self::Aurora]
            .into_iter()
            .find(|provider| provider.as_str() == text)
            .ok_or_else(|| ParseProviderError(text.to_owned()))
    }
}
