//! Where the source is and how control sessions to it are opened.

use std::sync::Arc;
use std::time::Duration;

use cdc_core::SecretString;

use super::{Control, Provider};
use crate::conn::{Connector, CredentialProvider, Endpoint};
use crate::error::Result;

/// How control sessions behave.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Bound of one catalog query on the server; COPY and slot creation have bounds of their own.
    pub statement_timeout: Duration,
    /// Bound of waiting for a lock in a catalog query.
    pub lock_timeout: Duration,
    /// The provider, if the configuration names it; otherwise it is detected.
    pub provider: Option<Provider>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        Self {
            statement_timeout: Duration::from_secs(60),
            lock_timeout: Duration::from_secs(20),
            provider: None,
        }
    }
}

/// A source to read from. Cheap to clone; holds no connection.
///
/// The password is asked for at each connect: from the URL, its `passfile`, or the provider given
/// to [`Source::with_credentials`].
#[derive(Clone, Debug)]
pub struct Source {
    connector: Connector,
    options: SourceOptions,
}

impl Source {
    /// A source from a libpq URL; see [`Endpoint::parse`].
    pub fn new(url: &SecretString, options: SourceOptions) -> Result<Self> {
        Ok(Self::from_connector(Connector::new(Endpoint::parse(url)?), options))
    }

    /// A source over a connector that exists already.
    pub fn from_connector(connector: Connector, options: SourceOptions) -> Self {
        Self { connector, options }
    }

    /// Asks another provider for the password.
    pub fn with_credentials(self, credentials: Arc<dyn CredentialProvider>) -> Self {
        Self { connector: self.connector.with_credentials(credentials), ..self }
    }

    /// What sessions of either kind are opened with.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// How control sessions behave.
    pub fn options(&self) -> &SourceOptions {
        &self.options
    }

    /// Opens a control session: a supported server, with the pinned settings in force.
    ///
    /// Must be called within a tokio runtime, which then drives the socket.
    pub async fn connect(&self) -> Result<Control> {
        let (client, connection) = self.connector.connect_sql().await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        let control = Control::adopt(client, driver, self.options.provider).await?;
        let limits = format!(
            "SET statement_timeout = {}; SET lock_timeout = {}",
            self.options.statement_timeout.as_millis(),
            self.options.lock_timeout.as_millis(),
        );
        control.execute("limit the session", &limits).await?;
        Ok(control)
    }
}
