//! Clients of S3, Google Cloud Storage and Azure: the one place that builds them.
//!
//! ```text
//! PrefixStore ─> LimitStore ─> Remote (names refusals) ─> client (signs, retries with back-off)
//! ```

use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use cdc_core::{AzureSpec, Encryption, GcsSpec, KeyPrefix, S3Spec, Transfer};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::limit::LimitStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use serde::Deserialize;

use super::refusal::Remote;
use crate::{Error, Result};

/// Requests on their way to one lake at once.
const REQUESTS_MAX: usize = 64;
/// How long one request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay before the first retry of a call; doubles, with jitter, up to [`BACKOFF_MAX`].
const BACKOFF: Duration = Duration::from_millis(100);
/// Longest delay between two retries of a call.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// No retry of a call begins later than this after its first try.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// What `object_store` calls the kind of encryption; it has no public name for it.
const ENCRYPTION_KEY: &str = "aws_server_side_encryption";

/// Opens a bucket of S3. Talks to nobody yet.
pub(super) fn s3(spec: &S3Spec) -> Result<Arc<dyn ObjectStore>> {
    let is_plain_http = spec.endpoint.as_deref().is_some_and(is_plain_http);
    // a name with dots fits no certificate for *.s3.amazonaws.com
    let is_virtual_hosted = spec.endpoint.is_none() && !spec.bucket.contains('.');
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&spec.bucket)
        .with_region(&spec.region)
        .with_virtual_hosted_style_request(is_virtual_hosted)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(retry(&spec.transfer))
        .with_client_options(client_options(is_plain_http));
    if let Some(endpoint) = &spec.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    let encryption: AmazonS3ConfigKey =
        ENCRYPTION_KEY.parse().map_err(|source| bad_setting("s3", source))?;
    builder = match &spec.encryption {
        Encryption::Bucket => builder,
        Encryption::SseS3 => builder.with_config(encryption, "AES256"),
        Encryption::SseKms { key_id: Some(key_id) } => builder.with_sse_kms_encryption(key_id),
        Encryption::SseKms { key_id: None } => builder.with_config(encryption, "aws:kms"),
    };
    let client = builder.build().map_err(|source| bad_setting("s3", source))?;
    Ok(rooted(client, &spec.prefix))
}

/// Opens a bucket of Google Cloud Storage. Talks to nobody yet.
pub(super) fn gcs(spec: &GcsSpec) -> Result<Arc<dyn ObjectStore>> {
    let is_plain_http = spec.endpoint.as_deref().is_some_and(is_plain_http);
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(&spec.bucket)
        .with_retry(retry(&spec.transfer))
        .with_client_options(client_options(is_plain_http));
    if let Some(endpoint) = &spec.endpoint {
        builder = builder.with_base_url(endpoint.trim_end_matches('/'));
    }
    if let Some(file) = &spec.credentials_file {
        read_credentials(file)?;
        builder = builder.with_application_credentials(file.to_string_lossy());
    }
    let client = builder.build().map_err(|source| bad_setting("gcs", source))?;
    Ok(rooted(client, &spec.prefix))
}

/// Opens a container of Azure. Talks to nobody yet.
pub(super) fn azure(spec: &AzureSpec) -> Result<Arc<dyn ObjectStore>> {
    let is_plain_http = spec.endpoint.as_deref().is_some_and(is_plain_http);
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_account(&spec.account)
        .with_container_name(&spec.container)
        .with_retry(retry(&spec.transfer))
        .with_client_options(client_options(is_plain_http));
    if let Some(endpoint) = &spec.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
    }
    if let Some(file) = &spec.credentials_file {
        let text = read_credentials(file)?;
        let principal: ServicePrincipal =
            serde_json::from_str(&text).map_err(|source| bad_credentials(file, source.into()))?;
        builder = builder.with_client_secret_authorization(
            principal.client_id,
            principal.client_secret,
            principal.tenant_id,
        );
    }
    let client = builder.build().map_err(|source| bad_setting("azure", source))?;
    Ok(rooted(client, &spec.prefix))
}

/// A service principal in any of the spellings that Azure's own tools print.
#[derive(Deserialize)]
struct ServicePrincipal {
    #[serde(alias = "clientId", alias = "appId")]
    client_id: String,
    #[serde(alias = "clientSecret", alias = "password")]
    client_secret: String,
    #[serde(alias = "tenantId", alias = "tenant")]
    tenant_id: String,
}

fn rooted(client: impl ObjectStore, prefix: &KeyPrefix) -> Arc<dyn ObjectStore> {
    let limited = LimitStore::new(Remote::new(client), REQUESTS_MAX);
    match Path::parse(prefix.as_str()) {
        Ok(prefix) if !prefix.as_ref().is_empty() => Arc::new(PrefixStore::new(limited, prefix)),
        _ => Arc::new(limited),
    }
}

fn retry(transfer: &Transfer) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: BACKOFF, max_backoff: BACKOFF_MAX, base: 2.0 },
        max_retries: usize::try_from(transfer.retries_max).unwrap_or(usize::MAX),
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn client_options(is_plain_http: bool) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(is_plain_http)
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
}

fn is_plain_http(endpoint: &str) -> bool {
    endpoint.starts_with("http://")
}

fn read_credentials(file: &FsPath) -> Result<String> {
    std::fs::read_to_string(file).map_err(|source| bad_credentials(file, source.into()))
}

fn bad_credentials(file: &FsPath, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
    Error::Credentials { path: file.to_owned(), source }
}

fn bad_setting(kind: &'static str, source: object_store::Error) -> Error {
    Error::Storage { kind, source }
}
