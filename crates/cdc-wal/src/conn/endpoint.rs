//! Where the source is: hosts, role, database and TLS policy, read from a libpq URL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cdc_core::{ExposeSecret, SecretString};

use super::url::{self, Parameters};
use crate::{Error, Result};

const DEFAULT_PORT: u16 = 5432;
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What stands for no limit.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// How to reach it.
    pub address: Address,
    /// Port; on a Unix socket part of the file name.
    pub port: u16,
}

/// How a host is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A name or an IP address.
    Tcp(String),
    /// The directory of a Unix socket.
    Unix(PathBuf),
}

impl Host {
    /// The path of the Unix socket, or `None` for TCP.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match &self.address {
            Address::Unix(directory) => Some(directory.join(format!(".s.PGSQL.{}", self.port))),
            Address::Tcp(_) => None,
        }
    }

    /// The name that `.pgpass` files and certificates use.
    pub fn name(&self) -> &str {
        match &self.address {
            Address::Tcp(name) => name,
            Address::Unix(_) => "localhost",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Address::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Address::Tcp(name) => write!(f, "{name}:{}", self.port),
            Address::Unix(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
        }
    }
}

/// libpq's `sslmode` (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// Never.
    Disable,
    /// If the server offers it.
    #[default]
    Prefer,
    /// Always, without verifying who answers unless `sslrootcert` is given.
    Require,
    /// Always, and the certificate comes from a trusted authority.
    VerifyCa,
    /// Always, and the certificate is the host's.
    VerifyFull,
}

/// How the connection is encrypted and whom it trusts. Files are read at every connect, so
/// rotated certificates take effect at the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsPolicy {
    /// What is demanded.
    pub mode: SslMode,
    /// PEM file with the trusted authorities; the system's if absent or `system`.
    pub root_cert: Option<PathBuf>,
    /// PEM file with the client certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file with the client key.
    pub key: Option<PathBuf>,
}

/// libpq's `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetSession {
    /// The first host that answers.
    #[default]
    Any,
    /// One that accepts writes by default.
    ReadWrite,
    /// One that does not.
    ReadOnly,
    /// One that is not in recovery.
    Primary,
    /// One that is.
    Standby,
}

impl TargetSession {
    /// Whether a server fits that reported these parameters (PostgreSQL 14+ reports both).
    pub(crate) fn accepts(self, in_hot_standby: bool, read_only: bool) -> bool {
        match self {
            Self::Any => true,
            Self::ReadWrite => !in_hot_standby && !read_only,
            Self::ReadOnly => in_hot_standby || read_only,
            Self::Primary => !in_hot_standby,
            Self::Standby => in_hot_standby,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
        }
    }
}

/// A source to connect to. `Debug` never shows the password.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Servers, tried in this order; never empty.
    pub hosts: Vec<Host>,
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Encryption.
    pub tls: TlsPolicy,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Bound on reaching one host, TLS handshake and login included.
    pub connect_timeout: Duration,
    /// Which of the hosts will do.
    pub target_session: TargetSession,
    /// Further startup options (`-c name=value`). The pinned settings win.
    pub options: Option<String>,
    /// A file in `.pgpass` form, read again at every connect.
    pub passfile: Option<PathBuf>,
    /// The password in the URL.
    pub password: Option<SecretString>,
}

impl Endpoint {
    /// Reads a libpq URL: `postgresql://user:password@host:port,host2:port2/database?sslmode=…`.
    ///
    /// The role is required; the host defaults to `localhost`, the database to the role's name. A
    /// parameter that we do not honour is an error rather than silently ignored.
    pub fn parse(url: &SecretString) -> Result<Self> {
        Self::parse_with_timeout(url, DEFAULT_CONNECT_TIMEOUT)
    }

    /// Reads a URL as [`Endpoint::parse`] does, with this connect timeout if it names none; zero is
    /// no limit, as in the URL.
    pub fn parse_with_timeout(url: &SecretString, otherwise: Duration) -> Result<Self> {
        let mut parsed = url::split(url.expose_secret())?;
        let parameters = &mut parsed.parameters;
        let user =
            parameters.take("user").or(parsed.user).ok_or_else(|| url_error("it names no role"))?;
        let database = parameters.take("dbname").or(parsed.database);
        let endpoint = Self {
            hosts: hosts(parsed.hosts, parameters)?,
            database: database.unwrap_or_else(|| user.clone()),
            user,
            tls: tls_policy(parameters)?,
            application_name: parameters
                .take("application_name")
                .or_else(|| parameters.take("fallback_application_name"))
                .unwrap_or_else(|| "pgcdc".to_owned()),
            connect_timeout: connect_timeout(parameters, otherwise)?,
            target_session: target_session(parameters)?,
            options: parameters.take("options"),
            passfile: parameters.take("passfile").map(PathBuf::from),
            password: parameters.take("password").or(parsed.password).map(SecretString::from),
        };
        parameters.finish()?;
        Ok(endpoint)
    }

    /// The hosts as one text for messages.
    pub fn describe(&self) -> String {
        self.hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(", ")
    }
}

fn hosts(authority: Vec<(String, String)>, parameters: &mut Parameters) -> Result<Vec<Host>> {
    let (mut names, mut ports): (Vec<String>, Vec<String>) = authority.into_iter().unzip();
    let list = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
    if let Some(given) = parameters.take("host").map(list) {
        names = given;
    }
    if let Some(given) = parameters.take("port").map(list) {
        ports = given;
    }
    if names.is_empty() {
        names.push(String::new());
    }
    if ports.len() > 1 && ports.len() != names.len() {
        return Err(url_error("the number of ports differs from the number of hosts"));
    }
    let single_port = ports.first().cloned().unwrap_or_default();
    names
        .into_iter()
        .enumerate()
        .map(|(at, name)| {
            let port = ports.get(at).unwrap_or(&single_port);
            let port = match port.as_str() {
                "" => DEFAULT_PORT,
                text => text.parse().map_err(|_| url_error(format!("`{text}` is not a port")))?,
            };
            let address = match name.as_str() {
                "" => Address::Tcp("localhost".to_owned()),
                path if path.starts_with('/') => Address::Unix(PathBuf::from(path)),
                _ => Address::Tcp(name),
            };
            Ok(Host { address, port })
        })
        .collect()
}

fn tls_policy(parameters: &mut Parameters) -> Result<TlsPolicy> {
    let mode = match parameters.take("sslmode").as_deref() {
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(other) => return Err(url_error(format!("sslmode `{other}` is not supported"))),
    };
    let root_cert = parameters.take("sslrootcert").filter(|path| path != "system");
    let policy = TlsPolicy {
        mode,
        root_cert: root_cert.map(PathBuf::from),
        cert: parameters.take("sslcert").map(PathBuf::from),
        key: parameters.take("sslkey").map(PathBuf::from),
    };
    if policy.cert.is_some() != policy.key.is_some() {
        return Err(url_error("sslcert and sslkey belong together"));
    }
    Ok(policy)
}

fn connect_timeout(parameters: &mut Parameters, otherwise: Duration) -> Result<Duration> {
    let timeout = match parameters.take("connect_timeout").map(|text| text.parse()) {
        None => otherwise,
        Some(Ok(seconds)) => Duration::from_secs(seconds),
        Some(Err(_)) => return Err(url_error("connect_timeout is not a number of seconds")),
    };
    Ok(if timeout.is_zero() { CONNECT_TIMEOUT_MAX } else { timeout.min(CONNECT_TIMEOUT_MAX) })
}

fn target_session(parameters: &mut Parameters) -> Result<TargetSession> {
    Ok(match parameters.take("target_session_attrs").as_deref() {
        None | Some("any") => TargetSession::Any,
        Some("read-write") => TargetSession::ReadWrite,
        Some("read-only") => TargetSession::ReadOnly,
        Some("primary") => TargetSession::Primary,
        Some("standby") => TargetSession::Standby,
        Some(other) => {
            return Err(url_error(format!("target_session_attrs `{other}` is not supported")));
        }
    })
}

pub(super) fn url_error(reason: impl Into<String>) -> Error {
    Error::Url { reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint> {
        Endpoint::parse(&SecretString::from(url.to_owned()))
    }

    #[test]
    fn the_usual_url_is_read() {
        let endpoint =
            parse("postgres://cdc:p%40ss@db.example:6432/shop?sslmode=verify-full").unwrap();
        assert_eq!(endpoint.hosts[0].to_string(), "db.example:6432");
        assert_eq!((endpoint.user.as_str(), endpoint.database.as_str()), ("cdc", "shop"));
        assert_eq!(endpoint.tls.mode, SslMode::VerifyFull);
        assert_eq!(endpoint.password.as_ref().unwrap().expose_secret(), "p@ss");
        assert!(!format!("{endpoint:?}").contains("p@ss"));
    }

    #[test]
    fn hosts_come_from_authority_or_parameters() {
        let cases = [
            ("postgres://u@/d", "localhost:5432"),
            ("postgres://u@a:1,b:2,c/d", "a:1, b:2, c:5432"),
            ("postgres://u@[::1]:7/d", "[::1]:7"),
            ("postgres://u@%2Frun%2Fpg:7/d", "/run/pg/.s.PGSQL.7"),
            ("postgres:///d?user=u&host=/tmp&port=7", "/tmp/.s.PGSQL.7"),
            ("postgres://u@/d?host=a,b&port=9", "a:9, b:9"),
        ];
        for (url, expected) in cases {
            assert_eq!(parse(url).unwrap().describe(), expected, "{url}");
        }
    }

    #[test]
    fn the_url_knows_better_how_long_to_wait() {
        let cases = [
            ("", 7, 7),
            ("?connect_timeout=2", 7, 2),
            ("?connect_timeout=0", 7, 3600),
            ("", 0, 3600),
        ];
        for (parameters, otherwise, expected) in cases {
            let url = SecretString::from(format!("postgres://u@h/d{parameters}"));
            let otherwise = Duration::from_secs(otherwise);
            let endpoint = Endpoint::parse_with_timeout(&url, otherwise).unwrap();
            assert_eq!(endpoint.connect_timeout.as_secs(), expected, "{parameters}");
        }
    }

    #[test]
    fn what_is_not_honoured_is_refused_without_showing_the_url() {
        for (url, word) in [
            ("mysql://u@h/d", "scheme"),
            ("postgres://h/d", "role"),
            ("postgres://u:s3cret@h/d?sslmode=maybe", "maybe"),
            ("postgres://u:s3cret@h/d?sslcrl=x", "sslcrl"),
            ("postgres://u:s3cret@h:port/d", "port"),
            ("postgres://u:s3cret@h/d?sslcert=x", "sslkey"),
            ("postgres://u:%zz@h/d", "percent"),
        ] {
            let message = parse(url).unwrap_err().to_string();
            assert!(message.contains(word), "{url}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
    }
}
