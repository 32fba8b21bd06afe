//! Where a lake is: the kinds of store and what each must be told, as plain data. The configuration
//! makes it, the store is opened from it, and both take the root's URI from here.

use std::path::PathBuf;

use crate::LakeLocation;

/// Where the lake is, as the `storage` section of the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageSpec {
    /// A directory of this machine.
    Filesystem {
        /// The root; created if missing.
        path: PathBuf,
    },
    /// The memory of this process, for tests.
    Memory,
    /// Amazon S3 or a compatible service.
    S3(S3Spec),
    /// Google Cloud Storage.
    Gcs(GcsSpec),
    /// Azure Blob Storage.
    Azure(AzureSpec),
}

impl StorageSpec {
    /// The configuration's word for the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            StorageSpec::Filesystem { .. } => "filesystem",
            StorageSpec::Memory => "memory",
            StorageSpec::S3(_) => "s3",
            StorageSpec::Gcs(_) => "gcs",
            StorageSpec::Azure(_) => "azure",
        }
    }

    /// The root as a URI for a store that is not a directory of this machine.
    pub fn remote_root(&self) -> Option<LakeLocation> {
        let (scheme, bucket, prefix) = match self {
            StorageSpec::Filesystem { .. } => return None,
            StorageSpec::Memory => return Some(LakeLocation::from_uri("memory://lake")),
            StorageSpec::S3(spec) => ("s3", &spec.bucket, &spec.prefix),
            StorageSpec::Gcs(spec) => ("gs", &spec.bucket, &spec.prefix),
            StorageSpec::Azure(spec) => ("az", &spec.container, &spec.prefix),
        };
        Some(LakeLocation::from_uri(&format!("{scheme}://{bucket}/{}", prefix.as_str())))
    }
}

/// A bucket of S3. Credentials come from the environment or the machine's role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Spec {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with.
    pub prefix: KeyPrefix,
    /// Its region.
    pub region: String,
    /// Another endpoint than Amazon's; implies path-style addressing, and plain HTTP if it says so.
    pub endpoint: Option<String>,
    /// Encryption at rest.
    pub encryption: Encryption,
    /// How requests are sent.
    pub transfer: Transfer,
}

/// A bucket of Google Cloud Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsSpec {
    /// The bucket.
    pub bucket: String,
    /// What every key begins with.
    pub prefix: KeyPrefix,
    /// Another endpoint than Google's.
    pub endpoint: Option<String>,
    /// Credentials file as `gcloud` writes it; the provider's chain without one.
    pub credentials_file: Option<PathBuf>,
    /// How requests are sent.
    pub transfer: Transfer,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureSpec {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// What every key begins with.
    pub prefix: KeyPrefix,
    /// Another endpoint than Azure's.
    pub endpoint: Option<String>,
    /// A service principal as `az ad sp create-for-rbac` prints it; the provider's chain without.
    pub credentials_file: Option<PathBuf>,
    /// How requests are sent.
    pub transfer: Transfer,
}

/// Encryption of objects at rest by S3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// The bucket's own setting.
    #[default]
    Bucket,
    /// Keys managed by S3.
    SseS3,
    /// Keys managed by KMS.
    SseKms {
        /// The key; the account's default key without one.
        key_id: Option<String>,
    },
}

/// How requests are sent to a store across the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Retries of one call (`aws.max_retries`).
    pub retries_max: u32,
    /// Size above which an object goes up in parts, and size of a part, in bytes.
    pub upload_part_bytes: u64,
    /// Parts and whole objects on their way at once.
    pub upload_concurrency: u32,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { retries_max: 5, upload_part_bytes: 8 << 20, upload_concurrency: 4 }
    }
}

/// What the keys of a lake begin with in a shared bucket: empty, or segments that end with a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPrefix(String);

/// A prefix that cannot be part of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{prefix}` has {what}; hint: a prefix is names with single slashes between, such as lake/prod"
)]
pub struct BadPrefix {
    prefix: String,
    what: &'static str,
}

impl KeyPrefix {
    /// Drops slashes at the start and adds one at the end: ``, `/a/b`, `a/b` and `a/b/` are the same
    /// prefix where they should be.
    ///
    /// # Errors
    /// [`BadPrefix`] for an empty segment, `.`, `..` or a control character.
    pub fn parse(text: &str) -> Result<KeyPrefix, BadPrefix> {
        let inner = text.trim_matches('/');
        let bad = |what| Err(BadPrefix { prefix: text.to_owned(), what });
        if inner.is_empty() {
            return Ok(KeyPrefix::default());
        }
        if inner.chars().any(char::is_control) {
            return bad("a control character");
        }
        for segment in inner.split('/') {
            match segment {
                "" => return bad("two slashes in a row"),
                "." | ".." => return bad("a segment of dots only"),
                _ => {}
            }
        }
        Ok(KeyPrefix(format!("{inner}/")))
    }

    /// Empty, or with a slash at the end and none at the start.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(prefix: &str) -> StorageSpec {
        StorageSpec::S3(S3Spec {
            bucket: "b".into(),
            prefix: KeyPrefix::parse(prefix).unwrap(),
            region: "eu-central-1".into(),
            endpoint: None,
            encryption: Encryption::Bucket,
            transfer: Transfer::default(),
        })
    }

    #[test]
    fn spellings_of_a_prefix_are_one_location() {
        for (prefix, root) in [
            ("", "s3://b"),
            ("/", "s3://b"),
            ("/a/b", "s3://b/a/b"),
            ("a/b", "s3://b/a/b"),
            ("a/b/", "s3://b/a/b"),
        ] {
            let location = s3(prefix).remote_root().unwrap();
            assert_eq!(location.root(), root, "{prefix:?}");
            assert_eq!(location.uri("manifest.json"), format!("{root}/manifest.json"));
        }
    }

    #[test]
    fn a_prefix_that_no_key_can_have_is_refused() {
        for prefix in ["a//b", "a/../b", "./a", "a\nb"] {
            let error = KeyPrefix::parse(prefix).unwrap_err().to_string();
            assert!(error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn each_store_has_its_scheme() {
        let prefix = KeyPrefix::parse("p").unwrap();
        let gcs = StorageSpec::Gcs(GcsSpec {
            bucket: "b".into(),
            prefix: prefix.clone(),
            endpoint: None,
            credentials_file: None,
            transfer: Transfer::default(),
        });
        assert_eq!(gcs.remote_root().unwrap().root(), "gs://b/p");
        let azure = StorageSpec::Azure(AzureSpec {
            account: "a".into(),
            container: "c".into(),
            prefix,
            endpoint: None,
            credentials_file: None,
            transfer: Transfer::default(),
        });
        assert_eq!(azure.remote_root().unwrap().root(), "az://c/p");
    }
}
