//! An endpoint and its credentials: what a session of either kind is opened with.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use cdc_core::{ExposeSecret, SecretString};
use tokio_postgres::config::{SslMode as PgSslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::credential::{CredentialProvider, UrlCredentials};
use super::dialer::{Dialer, SocketDialer};
use super::endpoint::{Endpoint, Host};
use super::settings::pinned_options;
use super::socket::Conn;
use crate::{Error, Result};

/// Opens sessions to one source. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    endpoint: Arc<Endpoint>,
    credentials: Arc<dyn CredentialProvider>,
    dialer: Arc<dyn Dialer>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector with the password of the URL or its passfile.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            credentials: Arc::new(UrlCredentials),
            dialer: Arc::new(SocketDialer),
        }
    }

    /// Asks another provider for the password.
    pub fn with_credentials(self, credentials: Arc<dyn CredentialProvider>) -> Self {
        Self { credentials, ..self }
    }

    /// Opens connections in another way than over the network.
    pub fn with_dialer(self, dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, ..self }
    }

    /// Where it connects to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens a connection to one of the endpoint's hosts.
    pub(crate) async fn dial(&self, host: &Host) -> Result<Conn> {
        self.dialer.dial(&self.endpoint, host).await
    }

    /// Whether the server lives on the caller's runtime.
    pub(crate) fn is_in_process(&self) -> bool {
        self.dialer.is_in_process()
    }

    /// The password for a login to this host now.
    pub(crate) async fn password(&self, host: &Host) -> Result<Option<SecretString>> {
        self.credentials.password(&self.endpoint, host).await
    }

    /// Opens a SQL session by tokio-postgres with the pinned settings. The caller drives the
    /// returned connection on a task of its own.
    pub async fn connect_sql(&self) -> Result<(tokio_postgres::Client, SqlConnection)> {
        let mut failed = self.no_suitable_host();
        for host in &self.endpoint.hosts {
            match self.connect_sql_to(host).await {
                Ok(Some(session)) => return Ok(session),
                Ok(None) => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    pub(crate) fn no_suitable_host(&self) -> Error {
        Error::NoSuitableHost { wanted: self.endpoint.target_session.as_str().to_owned() }
    }

    async fn connect_sql_to(
        &self,
        host: &Host,
    ) -> Result<Option<(tokio_postgres::Client, SqlConnection)>> {
        let conn = self.dial(host).await?;
        let context = format!("log in to {} as {}", conn.peer(), self.endpoint.user);
        let config = self.sql_config(&conn, self.password(host).await?);
        let login = config.connect_raw(conn, Established);
        let (client, connection) =
            match tokio::time::timeout(self.endpoint.connect_timeout, login).await {
                Ok(done) => done.map_err(|error| Error::from_query(context, error))?,
                Err(_) => {
                    let source = std::io::ErrorKind::TimedOut.into();
                    return Err(Error::Connect { target: host.to_string(), source });
                }
            };
        let on = |name| connection.parameter(name) == Some("on");
        let fits = self
            .endpoint
            .target_session
            .accepts(on("in_hot_standby"), on("default_transaction_read_only"));
        Ok(fits.then_some((client, connection)))
    }

    fn sql_config(&self, conn: &Conn, password: Option<SecretString>) -> tokio_postgres::Config {
        let endpoint = &self.endpoint;
        let mut config = tokio_postgres::Config::new();
        config.user(&endpoint.user).dbname(&endpoint.database);
        config.application_name(&endpoint.application_name);
        // the last of two equal options wins, so the pinned ones come last
        let own = endpoint.options.as_deref().map(|own| format!("{own} ")).unwrap_or_default();
        config.options(own + &pinned_options());
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        if conn.is_tls() {
            // the handshake is done: "direct" makes tokio-postgres ask us for it at once
            config.ssl_mode(PgSslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            config.ssl_mode(PgSslMode::Disable);
        }
        config
    }
}

/// The connection half of a SQL session.
pub type SqlConnection = tokio_postgres::Connection<Conn, Conn>;

/// Hands a [`Conn`] to tokio-postgres as the TLS stream that it is already.
#[derive(Clone, Copy, Debug)]
pub struct Established;

impl TlsConnect<Conn> for Established {
    type Stream = Conn;
    type Error = Infallible;
    type Future = Ready<Result<Conn, Infallible>>;

    fn connect(self, stream: Conn) -> Self::Future {
        ready(Ok(stream))
    }
}

impl TlsStream for Conn {
    fn channel_binding(&self) -> ChannelBinding {
        match Conn::channel_binding(self) {
            Some(binding) => ChannelBinding::tls_server_end_point(binding.to_vec()),
            None => ChannelBinding::none(),
        }
    }
}
