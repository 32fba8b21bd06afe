//! The rules between keys, and the values that follow from other keys.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::Problem;
use super::model::*;

/// Longest emergency grant that may be configured.
const BREAK_GLASS_TTL_MAX_SECS: u64 = 24 * 3600;
/// Connections that init needs besides its COPY streams: the control and the replication one.
const CONTROL_CONNECTIONS: u32 = 2;

impl Config {
    /// Fills in what follows from other keys.
    pub(crate) fn resolve(&mut self) {
        if let Ok(prefix) = self.key_prefix() {
            self.storage.prefix = prefix.as_str().to_owned();
        }
        if self.catalog.acl_table.is_some() && self.governance.is_none() {
            self.governance = Some(GovernanceConfig::default());
        }
        let governed_by_glue = self.governance.as_ref().is_some_and(|g| g.catalog.is_some());
        let backend = match self.catalog.kind {
            CatalogType::Iceberg if governed_by_glue => CatalogBackend::Glue,
            _ => CatalogBackend::Sqlite,
        };
        self.catalog.backend.get_or_insert(backend);
        if self.catalog.region.is_none() {
            self.catalog.region = self.storage.region.clone();
        }
        let mut strict = false;
        if let Some(governance) = &mut self.governance {
            strict = governance.mode == GovernanceMode::Strict;
            governance.backend.get_or_insert(match self.catalog.acl_table {
                Some(_) => GovernanceBackend::Aws,
                None => GovernanceBackend::Sqlite,
            });
            governance.on_missing.get_or_insert(match governance.mode {
                GovernanceMode::Strict => OnMissing::Fail,
                GovernanceMode::Permissive => OnMissing::Warn,
            });
        }
        self.audit.required.get_or_insert(strict);
        let audit = self.state_dir().join("audit");
        self.audit.path.get_or_insert(audit);
    }

    /// The directory of the local state: that of `state.path`.
    pub fn state_dir(&self) -> PathBuf {
        match self.state.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory.to_path_buf(),
            _ => PathBuf::from("."),
        }
    }

    /// Checks the rules between keys. Call after [`Config::resolve`].
    pub(crate) fn check_rules(&self, now: DateTime<Utc>, problems: &mut Vec<Problem>) {
        let mut report = |path: &str, message: String| problems.push(Problem::new(path, message));
        self.check_storage(&mut report);
        self.check_catalog(&mut report);
        self.check_writing(&mut report);
        self.check_serving(&mut report);
        self.check_governance(now, &mut report);
    }

    fn check_storage(&self, report: &mut dyn FnMut(&str, String)) {
        let storage = &self.storage;
        let kind = storage.kind;
        let wanted: &[(&str, bool)] = match kind {
            StorageType::Filesystem => &[("path", storage.path.is_some())],
            StorageType::S3 => {
                &[("bucket", storage.bucket.is_some()), ("region", storage.region.is_some())]
            }
            StorageType::Gcs => &[("bucket", storage.bucket.is_some())],
            StorageType::Azure => &[
                ("account", storage.account.is_some()),
                ("container", storage.container.is_some()),
            ],
            StorageType::Memory => &[],
        };
        for (key, _) in wanted.iter().filter(|(_, given)| !given) {
            report(
                &format!("storage.{key}"),
                format!("required when storage.type is {}", kind.as_str()),
            );
        }
        let encryption = &storage.encryption;
        if encryption.kind != EncryptionType::None && kind != StorageType::S3 {
            report("storage.encryption.type", "needs storage.type s3".into());
        }
        if encryption.kms_key_id.is_some() && encryption.kind != EncryptionType::SseKms {
            report("storage.encryption.kms_key_id", "needs storage.encryption.type sse-kms".into());
        }
        if let Err(error) = self.key_prefix() {
            report("storage.prefix", error.to_string());
        }
        let endpoints =
            [("storage.endpoint", &storage.endpoint), ("aws.endpoint", &self.aws.endpoint)];
        for (key, endpoint) in endpoints {
            if endpoint.as_deref().is_some_and(|text| !is_http_url(text)) {
                report(key, "must be an http:// or https:// URL".into());
            }
        }
        if self.state.path.file_name().is_none() {
            report("state.path", "names no file; hint: such as .pgcdc/state.db".into());
        }
    }

    fn check_catalog(&self, report: &mut dyn FnMut(&str, String)) {
        let catalog = &self.catalog;
        let backend = catalog.backend.unwrap_or(CatalogBackend::Sqlite);
        let in_glue = catalog.kind == CatalogType::Glue || backend == CatalogBackend::Glue;
        if in_glue && catalog.database.is_none() {
            report("catalog.database", "required for glue".into());
        }
        if catalog.kind == CatalogType::Glue && backend == CatalogBackend::Glue {
            let message = "glue together with catalog.type glue would use each table name twice; hint: leave catalog.backend out, or set catalog.type: iceberg";
            report("catalog.backend", message.into());
        }
        if backend == CatalogBackend::Rest && catalog.uri.is_none() {
            report("catalog.uri", "required when catalog.backend is rest".into());
        }
        if let (Some(warehouse), true, Some(root)) =
            (&catalog.warehouse, backend != CatalogBackend::Rest, self.storage_root())
            && !same_place(warehouse, &root)
        {
            report("catalog.warehouse", format!("must be the storage root {root}"));
        }
    }

    fn check_writing(&self, report: &mut dyn FnMut(&str, String)) {
        if self.limits.buffer_bytes < self.flush.max_bytes {
            let message = format!("must be at least flush.max_bytes ({})", self.flush.max_bytes);
            report("limits.buffer_bytes", message);
        }
        if self.types.numeric_unconstrained.0 == cdc_core::StoredAs::List {
            let message = "a number is no list; hint: string, double or decimal(p,s)";
            report("types.numeric_unconstrained", message.into());
        }
        if self.tables.tags.contains_key("untagged") {
            report("tables.tags.untagged", "is reserved for tables without a tag".into());
        }
        let Some(source) = &self.source else { return };
        let least = self.init.parallel_workers + CONTROL_CONNECTIONS;
        if source.postgres.max_conns < least {
            let message = format!("must be at least init.parallel_workers + 2 ({least})");
            report("source.postgres.max_conns", message);
        }
    }

    fn check_serving(&self, report: &mut dyn FnMut(&str, String)) {
        let jwt = &self.rest.jwt;
        for (key, given) in
            [("audience", jwt.audience.is_some()), ("jwks_url", jwt.jwks_url.is_some())]
        {
            if jwt.issuer.is_some() && !given {
                report(&format!("rest.jwt.{key}"), "required with rest.jwt.issuer".into());
            } else if jwt.issuer.is_none() && given {
                report("rest.jwt.issuer", format!("required with rest.jwt.{key}"));
            }
        }
        let tls = &self.rest.tls;
        if tls.cert.is_some() && tls.key.is_none() {
            report("rest.tls.key", "required with rest.tls.cert".into());
        }
        if tls.cert.is_none() && (tls.key.is_some() || tls.client_ca.is_some()) {
            report("rest.tls.cert", "required with rest.tls.key and rest.tls.client_ca".into());
        }
    }

    fn check_governance(&self, now: DateTime<Utc>, report: &mut dyn FnMut(&str, String)) {
        let Some(governance) = &self.governance else { return };
        if governance.backend == Some(GovernanceBackend::Aws) && self.catalog.acl_table.is_none() {
            report("catalog.acl_table", "required when governance.backend is aws".into());
        }
        let longest = governance.break_glass_max_ttl.0.as_secs();
        if longest == 0 || longest > BREAK_GLASS_TTL_MAX_SECS {
            report("governance.break_glass_max_ttl", "must be above 0 and at most 24h".into());
        }
        for (at, emergency) in governance.emergency.iter().enumerate() {
            let expires = DateTime::parse_from_rfc3339(&emergency.expires_at);
            if expires.is_ok_and(|expires| expires <= now) {
                report(
                    &format!("governance.emergency[{at}].expires_at"),
                    "is in the past; hint: remove the entry".into(),
                );
            }
        }
    }
}

fn is_http_url(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'))
}

/// Whether two texts name one place; a file may be named by `file:` URI or by path.
fn same_place(warehouse: &str, root: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim_end_matches('/');
        let path = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:"));
        path.unwrap_or(text).to_owned()
    };
    plain(warehouse) == plain(root)
}
