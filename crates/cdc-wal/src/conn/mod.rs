//! How a connection to the source is made: the URL, the credential, TLS, the socket and the
//! settings that every session pins.

mod cleartext;
mod connector;
mod credential;
mod dialer;
mod endpoint;
mod pace;
mod settings;
mod socket;
mod tls;
mod url;

pub(crate) use connector::no_suitable_host;
pub use connector::{Connector, Established, SqlConnection};
pub use credential::{CredentialProvider, UrlCredentials};
pub use dialer::{Dialer, SocketDialer};
pub use endpoint::{Address, Endpoint, Host, SslMode, TargetSession, TlsPolicy};
pub use settings::{PINNED_SETTINGS, assert_pinned, pinned_options};
pub use socket::{Conn, dial};
