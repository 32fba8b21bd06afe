//! An endpoint and its credentials: what a session of either kind is opened with.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;

use cdc_core::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use tokio_postgres::config::{SslMode as PgSslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::cleartext::CleartextRefused;
use super::credential::{CredentialProvider, UrlCredentials};
use super::dialer::{Dialer, SocketDialer};
use super::endpoint::{Endpoint, Host};
use super::settings::pinned_options;
use super::socket::Conn;
use crate::{Error, Result};

/// Gives the endpoint of the next connect.
type Resolve = dyn Fn() -> Result<Endpoint> + Send + Sync;

/// Opens sessions to one source. Cheap to clone; clones share the bound on open sessions.
#[derive(Clone)]
pub struct Connector {
    resolve: Arc<Resolve>,
    credentials: Arc<dyn CredentialProvider>,
    sessions: Option<SessionLimit>,
    dialer: Arc<dyn Dialer>,
}

/// How many sessions may be open at once. A connection holds one permit until it is closed.
#[derive(Clone, Debug)]
struct SessionLimit {
    permits: Arc<Semaphore>,
    limit: u32,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("sessions", &self.sessions).finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector to a fixed endpoint, with the password of its URL or its passfile.
    pub fn new(endpoint: Endpoint) -> Self {
        Self::resolving(move || Ok(endpoint.clone()))
    }

    /// A connector that asks for the endpoint at every connect, so that a URL whose parts rotate is
    /// read again.
    pub fn resolving(resolve: impl Fn() -> Result<Endpoint> + Send + Sync + 'static) -> Self {
        let credentials = Arc::new(UrlCredentials);
        let dialer = Arc::new(SocketDialer);
        Self { resolve: Arc::new(resolve), credentials, sessions: None, dialer }
    }

    /// Asks another provider for the password.
    pub fn with_credentials(self, credentials: Arc<dyn CredentialProvider>) -> Self {
        Self { credentials, ..self }
    }

    /// Opens connections in another way than over the network.
    pub fn with_dialer(self, dialer: Arc<dyn Dialer>) -> Self {
        Self { dialer, ..self }
    }

    /// Lets at most `limit` sessions be open at once, whatever their kind. One more waits for the
    /// connect timeout and fails then with [`Error::TooManySessions`].
    pub fn with_max_sessions(self, limit: u32) -> Self {
        let permits = Arc::new(Semaphore::new(usize::try_from(limit).unwrap_or(usize::MAX)));
        Self { sessions: Some(SessionLimit { permits, limit }), ..self }
    }

    /// Where it connects to now.
    ///
    /// # Errors
    /// When the URL cannot be resolved any more.
    pub fn endpoint(&self) -> Result<Endpoint> {
        (self.resolve)()
    }

    /// Opens a connection to one host within the bound on open sessions.
    pub(crate) async fn dial(&self, endpoint: &Endpoint, host: &Host) -> Result<Conn> {
        let Some(SessionLimit { permits, limit }) = &self.sessions else {
            return self.dialer.dial(endpoint, host).await;
        };
        let permit = Arc::clone(permits).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(endpoint.connect_timeout, permit).await else {
            return Err(Error::TooManySessions { limit: *limit });
        };
        let mut conn = self.dialer.dial(endpoint, host).await?;
        conn.hold(permit);
        Ok(conn)
    }

    /// Whether the server lives on the caller's runtime.
    pub(crate) fn is_in_process(&self) -> bool {
        self.dialer.is_in_process()
    }

    /// The password for a login to this host now.
    pub(crate) async fn password(
        &self,
        endpoint: &Endpoint,
        host: &Host,
    ) -> Result<Option<SecretString>> {
        self.credentials.password(endpoint, host).await
    }

    /// Opens a SQL session by tokio-postgres with the pinned settings. The caller drives the
    /// returned connection on a task of its own.
    pub async fn connect_sql(&self) -> Result<(tokio_postgres::Client, SqlConnection)> {
        let endpoint = self.endpoint()?;
        let mut failed = no_suitable_host(&endpoint);
        for host in &endpoint.hosts {
            match self.connect_sql_to(&endpoint, host).await {
                Ok(Some(session)) => return Ok(session),
                Ok(None) => {}
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_sql_to(
        &self,
        endpoint: &Endpoint,
        host: &Host,
    ) -> Result<Option<(tokio_postgres::Client, SqlConnection)>> {
        let mut conn = self.dial(endpoint, host).await?;
        let context = format!("log in to {} as {}", conn.peer(), endpoint.user);
        let config = sql_config(endpoint, &conn, self.password(endpoint, host).await?);
        // tokio-postgres would answer a request for the password in clear on any connection
        conn.refuse_cleartext_unless_private();
        let login = config.connect_raw(conn, Established);
        let (client, connection) = match tokio::time::timeout(endpoint.connect_timeout, login).await
        {
            Ok(done) => done.map_err(|error| login_failed(endpoint, context, error))?,
            Err(_) => {
                let source = std::io::ErrorKind::TimedOut.into();
                return Err(Error::Connect { target: host.to_string(), source });
            }
        };
        let on = |name| connection.parameter(name) == Some("on");
        let target = endpoint.target_session;
        let fits = target.accepts(on("in_hot_standby"), on("default_transaction_read_only"));
        Ok(fits.then_some((client, connection)))
    }
}

pub(crate) fn no_suitable_host(endpoint: &Endpoint) -> Error {
    Error::NoSuitableHost { wanted: endpoint.target_session.as_str().to_owned() }
}

fn sql_config(
    endpoint: &Endpoint,
    conn: &Conn,
    password: Option<SecretString>,
) -> tokio_postgres::Config {
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

/// Tells our own refusal to send a password in clear from a connection that broke.
fn login_failed(endpoint: &Endpoint, context: String, error: tokio_postgres::Error) -> Error {
    let source = std::error::Error::source(&error);
    let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
    match io.and_then(std::io::Error::get_ref).and_then(|inner| inner.downcast_ref()) {
        Some(refused @ CleartextRefused) => {
            Error::Auth { user: endpoint.user.clone(), reason: refused.to_string() }
        }
        None => Error::from_query(context, error),
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
