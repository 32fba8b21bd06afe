//! What every command starts with: the checked configuration, logs and the source.

use std::path::Path;

use anyhow::Result;
use cdc_runtime::{Config, LogFlags, ProviderChoice, SourceUse};
use cdc_wal::{Connector, Endpoint, Provider, Source, SourceOptions};

use crate::cli::Common;

/// The flags of every command.
#[derive(Debug)]
pub(crate) struct Context {
    common: Common,
}

impl Context {
    pub(crate) fn new(common: Common) -> Self {
        Self { common }
    }

    pub(crate) fn config_flag(&self) -> Option<&Path> {
        self.common.config.as_deref()
    }

    /// The configuration of a command at a prompt, which logs warnings only unless asked.
    pub(crate) fn load(&self, source_use: SourceUse) -> Result<Config> {
        let config = Config::load(self.config_flag(), source_use)?;
        self.quiet_logs(&config)?;
        Ok(config)
    }

    /// Logs of a command at a prompt.
    pub(crate) fn quiet_logs(&self, config: &Config) -> Result<()> {
        Ok(cdc_runtime::init_quiet_logging(&self.log_flags(), &config.logging)?)
    }

    /// Logs of the daemon.
    pub(crate) fn daemon_logs(&self, config: &Config) -> Result<()> {
        cdc_runtime::init_logging(&self.log_flags().over(&config.logging)?);
        Ok(())
    }

    fn log_flags(&self) -> LogFlags {
        let level = self.common.log_level.clone();
        LogFlags { level, format: self.common.log_format.clone() }
    }
}

/// The source that a configuration names. Its URL is substituted again, and its passfile read again,
/// at every connection.
pub(crate) fn source(config: &Config) -> Result<Source> {
    let postgres = config.source.as_ref().map(|source| &source.postgres);
    let provider = match postgres.map(|postgres| postgres.provider) {
        Some(ProviderChoice::SelfManaged) => Some(Provider::SelfManaged),
        Some(ProviderChoice::Rds) => Some(Provider::Rds),
        Some(ProviderChoice::Aurora) => Some(Provider::Aurora),
        Some(ProviderChoice::Auto) | None => None,
    };
    let options = SourceOptions { provider, ..SourceOptions::default() };
    // what cannot be resolved or parsed now is an error of the configuration
    endpoint(config)?;
    let resolved = config.clone();
    let max_conns = postgres.map_or(u32::MAX, |postgres| postgres.max_conns);
    let connector = Connector::resolving(move || {
        endpoint(&resolved).map_err(|error| cdc_wal::Error::Url { reason: format!("{error:#}") })
    });
    Ok(Source::from_connector(connector.with_max_sessions(max_conns), options))
}

fn endpoint(config: &Config) -> Result<Endpoint> {
    let url = config.source_url()?;
    let timeout = config.source.as_ref().map(|source| source.postgres.connect_timeout.0);
    Ok(match timeout {
        Some(timeout) => Endpoint::parse_with_timeout(&url, timeout)?,
        None => Endpoint::parse(&url)?,
    })
}

/// Runs a future on a runtime with all threads.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(future)
}
