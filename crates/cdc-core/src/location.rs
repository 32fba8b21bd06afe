//! The one place that turns object keys into the absolute URIs which Iceberg metadata holds.
//!
//! A position delete names its data file by exact text: `file:/x` and `file:///x` are different
//! files to a reader, so no other code builds a location.

/// The root of a lake as an absolute URI without a trailing slash, such as `file:///srv/lake` or
/// `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LakeLocation {
    root: String,
}

impl LakeLocation {
    /// A location from an absolute directory path with `/` separators.
    pub fn from_directory(absolute_path: &str) -> Self {
        Self { root: format!("file://{}", absolute_path.trim_end_matches('/')) }
    }

    /// A location from a URI; trailing slashes are dropped.
    pub fn from_uri(uri: &str) -> Self {
        Self { root: uri.trim_end_matches('/').to_owned() }
    }

    /// The root itself.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The URI of an object below the root. `key` never starts with a slash.
    pub fn uri(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    /// The key of a URI below the root, or `None` for a URI elsewhere.
    pub fn key<'u>(&self, uri: &'u str) -> Option<&'u str> {
        uri.strip_prefix(self.root.as_str())?.strip_prefix('/')
    }
}
