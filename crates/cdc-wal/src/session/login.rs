//! The start of a replication session: startup packet, authentication, parameters.

use bytes::BytesMut;
use cdc_core::{ExposeSecret, SecretString};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::Session;
use crate::conn::{Conn, Connector, Endpoint, Host, PINNED_SETTINGS, no_suitable_host};
use crate::{Error, Result};

/// Which backend the server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// One that sends the write-ahead log.
    WalSender,
    /// One that runs statements.
    Plain,
}

/// Opens a session on the first host that fits.
pub(crate) async fn connect(connector: &Connector, backend: Backend) -> Result<Session> {
    let endpoint = connector.endpoint()?;
    let mut failed = no_suitable_host(&endpoint);
    for host in &endpoint.hosts {
        match connect_to(connector, &endpoint, host, backend).await {
            Ok(Some(session)) => return Ok(session),
            Ok(None) => {}
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn connect_to(
    connector: &Connector,
    endpoint: &Endpoint,
    host: &Host,
    backend: Backend,
) -> Result<Option<Session>> {
    let conn = connector.dial(endpoint, host).await?;
    let password = connector.password(endpoint, host).await?;
    let login = log_in(conn, endpoint, backend, password.as_ref());
    let session = match tokio::time::timeout(endpoint.connect_timeout, login).await {
        Ok(done) => done?,
        Err(_) => {
            let source = std::io::ErrorKind::TimedOut.into();
            return Err(Error::Connect { target: host.to_string(), source });
        }
    };
    let on = |name: &str| session.parameters.get(name).is_some_and(|value| value == "on");
    let fits =
        endpoint.target_session.accepts(on("in_hot_standby"), on("default_transaction_read_only"));
    Ok(fits.then_some(session))
}

async fn log_in(
    conn: Conn,
    endpoint: &Endpoint,
    backend: Backend,
    password: Option<&SecretString>,
) -> Result<Session> {
    let mut session = Session::new(conn);
    let mut out = BytesMut::new();
    frontend::startup_message(startup_parameters(endpoint, backend), &mut out)
        .map_err(|source| session.broken("writing the startup packet", source))?;
    session.send(&out).await?;
    let mut login = Login { endpoint, password, scram: None };
    loop {
        let message = session.receive().await?;
        match message {
            Message::AuthenticationOk => {}
            Message::ParameterStatus(status) => session.note_parameter(&status)?,
            Message::BackendKeyData(_) | Message::NoticeResponse(_) => {}
            Message::ReadyForQuery(_) => return Ok(session),
            Message::ErrorResponse(body) => {
                let context = format!("log in to {} as {}", session.conn.peer(), endpoint.user);
                return Err(super::server_error(context, &mut body.fields()));
            }
            other => {
                out.clear();
                login.answer(other, &session.conn, &mut out)?;
                session.send(&out).await?;
            }
        }
    }
}

fn startup_parameters(endpoint: &Endpoint, backend: Backend) -> Vec<(&str, &str)> {
    let mut parameters = vec![
        ("user", endpoint.user.as_str()),
        ("database", endpoint.database.as_str()),
        ("application_name", endpoint.application_name.as_str()),
    ];
    if backend == Backend::WalSender {
        parameters.push(("replication", "database"));
    }
    if let Some(options) = &endpoint.options {
        parameters.push(("options", options));
    }
    parameters.extend_from_slice(PINNED_SETTINGS);
    parameters
}

/// One login under way.
struct Login<'a> {
    endpoint: &'a Endpoint,
    password: Option<&'a SecretString>,
    scram: Option<sasl::ScramSha256>,
}

impl Login<'_> {
    /// Writes the answer to an authentication request.
    fn answer(&mut self, request: Message, conn: &Conn, out: &mut BytesMut) -> Result<()> {
        let done = match request {
            Message::AuthenticationCleartextPassword => {
                if !conn.is_private() {
                    return Err(self.failed(
                        "the server asks for the password in clear over an unencrypted connection; hint: use sslmode=require",
                    ));
                }
                frontend::password_message(self.password()?, out)
            }
            Message::AuthenticationMd5Password(body) => {
                let user = self.endpoint.user.as_bytes();
                let hash = md5_hash(user, self.password()?, body.salt());
                frontend::password_message(hash.as_bytes(), out)
            }
            Message::AuthenticationSasl(body) => {
                let mechanisms: Vec<String> = body
                    .mechanisms()
                    .map(|name| Ok(name.to_owned()))
                    .collect()
                    .map_err(|error| self.failed(error))?;
                return self.start_scram(&mechanisms, conn, out);
            }
            Message::AuthenticationSaslContinue(body) => {
                let Some(scram) = &mut self.scram else {
                    return Err(self.failed("unexpected sasl"));
                };
                if let Err(error) = scram.update(body.data()) {
                    return Err(self.failed(error));
                }
                frontend::sasl_response(scram.message(), out)
            }
            Message::AuthenticationSaslFinal(body) => {
                let Some(scram) = &mut self.scram else {
                    return Err(self.failed("unexpected sasl"));
                };
                // the server proves here that it knows the password too
                return scram.finish(body.data()).map_err(|error| self.failed(error));
            }
            _ => {
                return Err(self
                    .failed("the server asks for an authentication method that is not supported"));
            }
        };
        done.map_err(|error| self.failed(error))
    }

    fn start_scram(
        &mut self,
        mechanisms: &[String],
        conn: &Conn,
        out: &mut BytesMut,
    ) -> Result<()> {
        let offered = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        let (mechanism, binding) = match conn.channel_binding() {
            Some(binding) if offered(sasl::SCRAM_SHA_256_PLUS) => (
                sasl::SCRAM_SHA_256_PLUS,
                sasl::ChannelBinding::tls_server_end_point(binding.to_vec()),
            ),
            Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
            None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
        };
        if !offered(mechanism) {
            return Err(self.failed("the server offers no SASL mechanism that is supported"));
        }
        let scram = sasl::ScramSha256::new(self.password()?, binding);
        let sent = frontend::sasl_initial_response(mechanism, scram.message(), out);
        self.scram = Some(scram);
        sent.map_err(|error| self.failed(error))
    }

    fn password(&self) -> Result<&[u8]> {
        match self.password {
            Some(password) => Ok(password.expose_secret().as_bytes()),
            None => Err(self.failed(
                "the server asks for a password and none is configured; hint: put it into the url or a passfile",
            )),
        }
    }

    fn failed(&self, reason: impl std::fmt::Display) -> Error {
        Error::Auth { user: self.endpoint.user.clone(), reason: reason.to_string() }
    }
}
