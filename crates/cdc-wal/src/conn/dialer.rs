//! How a connection is opened: over the network, or through a pipe to a server inside this process.

use futures::future::BoxFuture;

use super::endpoint::{Endpoint, Host};
use super::socket::{Conn, dial};
use crate::Result;

/// Opens connections to the hosts of an endpoint.
///
/// Contract: a failure to reach the host is [`crate::Error::Connect`]. The returned connection is at
/// its first byte, TLS negotiated where the endpoint asks for it. A cancelled call leaves nothing.
pub trait Dialer: Send + Sync {
    /// Opens one connection within the endpoint's connect timeout.
    fn dial<'a>(&'a self, endpoint: &'a Endpoint, host: &'a Host) -> BoxFuture<'a, Result<Conn>>;

    /// Whether the server lives on the caller's runtime. Then the stream's reader is a task there
    /// and no thread, so that both see the same clock.
    fn is_in_process(&self) -> bool {
        false
    }
}

/// TCP or a Unix socket, as the host says.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketDialer;

impl Dialer for SocketDialer {
    fn dial<'a>(&'a self, endpoint: &'a Endpoint, host: &'a Host) -> BoxFuture<'a, Result<Conn>> {
        Box::pin(dial(endpoint, host))
    }
}
