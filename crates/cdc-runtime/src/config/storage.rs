//! The `storage` section, with `aws` where it is S3, as the place that every plane opens.

use std::path::Path;

use cdc_core::{
    AzureSpec, BadPrefix, Encryption, GcsSpec, KeyPrefix, S3Spec, StorageSpec, Transfer,
};

use super::model::*;

impl Config {
    /// Where the lake is; `None` while a key that the kind of store needs is missing or wrong, which
    /// a configuration that was checked never is.
    pub fn storage_spec(&self) -> Option<StorageSpec> {
        let storage = &self.storage;
        let prefix = self.key_prefix().ok()?;
        let endpoint = storage.endpoint.clone();
        Some(match storage.kind {
            StorageType::Filesystem => StorageSpec::Filesystem { path: storage.path.clone()? },
            StorageType::Memory => StorageSpec::Memory,
            StorageType::S3 => StorageSpec::S3(S3Spec {
                bucket: storage.bucket.clone()?,
                prefix,
                region: storage.region.clone()?,
                endpoint: endpoint.or_else(|| self.aws.endpoint.clone()),
                encryption: encryption(&storage.encryption),
                transfer: Transfer { retries_max: self.aws.max_retries, ..transfer(storage) },
            }),
            StorageType::Gcs => StorageSpec::Gcs(GcsSpec {
                bucket: storage.bucket.clone()?,
                prefix,
                endpoint,
                credentials_file: storage.credentials_file.clone(),
                transfer: transfer(storage),
            }),
            StorageType::Azure => StorageSpec::Azure(AzureSpec {
                account: storage.account.clone()?,
                container: storage.container.clone()?,
                prefix,
                endpoint,
                credentials_file: storage.credentials_file.clone(),
                transfer: transfer(storage),
            }),
        })
    }

    /// The storage root as an absolute URI without a trailing slash, or `None` while a key that
    /// it needs is missing or for memory.
    pub fn storage_root(&self) -> Option<String> {
        match self.storage_spec()? {
            StorageSpec::Filesystem { path } => Some(file_uri(&path)),
            StorageSpec::Memory => None,
            remote => Some(remote.remote_root()?.root().to_owned()),
        }
    }

    pub(super) fn key_prefix(&self) -> Result<KeyPrefix, BadPrefix> {
        KeyPrefix::parse(&self.storage.prefix)
    }
}

fn encryption(config: &EncryptionConfig) -> Encryption {
    match config.kind {
        EncryptionType::None => Encryption::Bucket,
        EncryptionType::SseS3 => Encryption::SseS3,
        EncryptionType::SseKms => Encryption::SseKms { key_id: config.kms_key_id.clone() },
    }
}

fn transfer(storage: &StorageConfig) -> Transfer {
    Transfer {
        upload_part_bytes: storage.upload_part_bytes,
        upload_concurrency: storage.upload_concurrency,
        ..Transfer::default()
    }
}

fn file_uri(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let text = absolute.to_string_lossy().replace('\\', "/");
    format!("file://{}", text.trim_end_matches('/'))
}
