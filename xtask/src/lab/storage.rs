//! Where a lab's lake is: in its directory, or in a bucket of an S3 server.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::files_below;
use crate::s3::{ACCESS_KEY, REGION, S3Server, SECRET_KEY};

/// The place of a lake, as the product is told and as the tests look at it.
#[derive(Clone)]
pub(crate) enum Storage {
    /// A directory.
    Directory(PathBuf),
    /// A bucket, or a prefix in one.
    S3(Bucket),
}

/// A place in a bucket. The product may be told of a proxy; the tests and the foreign readers always
/// talk to the server.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) server: Arc<S3Server>,
    /// The address that the product is told.
    pub(crate) endpoint: String,
    pub(crate) name: String,
    /// As configured, with or without slashes at its ends.
    pub(crate) prefix: String,
}

impl Bucket {
    /// The key in the bucket of a key of the lake.
    pub(crate) fn key(&self, key: &str) -> String {
        match self.prefix.trim_matches('/') {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }

    /// The keys of all objects of the lake, from the root of the bucket.
    pub(crate) fn list(&self) -> Result<Vec<String>> {
        self.server.list(&self.name, self.prefix.trim_matches('/'))
    }

    /// The root as a URI.
    pub(crate) fn uri(&self) -> String {
        format!("s3://{}/{}", self.name, self.key("")).trim_end_matches('/').to_owned()
    }
}

impl Storage {
    /// The `storage` section of the configuration.
    pub(super) fn config(&self) -> Value {
        match self {
            Storage::Directory(path) => json!({"type": "filesystem", "path": path}),
            Storage::S3(bucket) => json!({
                "type": "s3",
                "bucket": bucket.name,
                "prefix": bucket.prefix,
                "region": REGION,
                "endpoint": bucket.endpoint,
            }),
        }
    }

    /// What the product finds in its environment.
    pub(super) fn environment(&self) -> Vec<(&'static str, &'static str)> {
        match self {
            Storage::Directory(_) => Vec::new(),
            Storage::S3(_) => {
                vec![("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)]
            }
        }
    }

    /// What a foreign reader needs beside the URIs of the tables.
    pub(super) fn reader_settings(&self) -> Value {
        match self {
            Storage::Directory(_) => Value::Null,
            Storage::S3(bucket) => json!({
                "endpoint": bucket.server.endpoint(),
                "key": ACCESS_KEY,
                "secret": SECRET_KEY,
                "region": REGION,
            }),
        }
    }

    /// The root as foreign readers name it: a path, or a URI.
    pub(super) fn root(&self) -> String {
        match self {
            Storage::Directory(path) => path.display().to_string(),
            Storage::S3(bucket) => bucket.uri(),
        }
    }

    /// An object of the lake; `None` if it does not exist.
    pub(crate) fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        match self {
            Storage::Directory(path) => match std::fs::read(path.join(key)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error).with_context(|| format!("cannot read {key}")),
            },
            Storage::S3(bucket) => bucket.server.read(&bucket.name, &bucket.key(key)),
        }
    }

    /// The keys of all objects of the lake.
    pub(crate) fn keys(&self) -> Result<Vec<String>> {
        match self {
            Storage::Directory(path) => files_below(path)?
                .into_iter()
                .map(|file| Ok(file.strip_prefix(path)?.to_string_lossy().into_owned()))
                .collect(),
            Storage::S3(bucket) => {
                let root = bucket.key("");
                let keys = bucket.list()?.into_iter();
                Ok(keys.map(|key| key.trim_start_matches(&root).to_owned()).collect())
            }
        }
    }
}
