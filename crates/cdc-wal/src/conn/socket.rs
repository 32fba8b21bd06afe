//! The byte stream to the server: TCP or Unix socket, TLS on top, and below it a look at every
//! read for the sake of coalescing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_rustls::client::TlsStream;

use super::cleartext::LoginWatch;
use super::endpoint::{Address, Endpoint, Host, SslMode};
use super::pace::{Naps, Pacer};
use super::tls;
use crate::{Error, Result};

/// Bytes read from the socket at once below TLS, whose own reads are too small to pace.
const READ_AHEAD: usize = 256 * 1024;
/// SSLRequest: length and code (<https://www.postgresql.org/docs/current/protocol-message-formats.html>).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];
/// A peer that vanished is noticed within `IDLE + INTERVAL * RETRIES`.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// An open connection on which nothing but TLS was negotiated.
///
/// For tokio-postgres it is both the stream and, through [`Established`], the finished TLS stream.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    peer: String,
    binding: Option<Vec<u8>>,
    /// While a login is under way that must not send the password in clear.
    login: Option<LoginWatch>,
    /// The share of the sessions that may be open at once.
    permit: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum Stream {
    Plain(Box<Paced>),
    Tls(Box<TlsStream<Paced>>),
}

/// Connects to one host within the endpoint's connect timeout and negotiates TLS by its policy.
pub async fn dial(endpoint: &Endpoint, host: &Host) -> Result<Conn> {
    let peer = host.to_string();
    match tokio::time::timeout(endpoint.connect_timeout, connect(endpoint, host)).await {
        Ok(done) => done,
        Err(_) => Err(Error::Connect { target: peer, source: io::ErrorKind::TimedOut.into() }),
    }
}

async fn connect(endpoint: &Endpoint, host: &Host) -> Result<Conn> {
    let peer = host.to_string();
    let failed = |source| Error::Connect { target: peer.clone(), source };
    let name = match &host.address {
        Address::Unix(_) => {
            let path = host.socket_path().unwrap_or_default();
            let socket = Socket::Unix(UnixStream::connect(path).await.map_err(failed)?);
            return Ok(Conn::new(Stream::Plain(Box::new(Paced::new(socket))), peer, None));
        }
        Address::Tcp(name) => name,
    };
    let tcp = TcpStream::connect((name.as_str(), host.port)).await.map_err(failed)?;
    tune(&tcp).map_err(failed)?;
    let mut paced = Paced::new(Socket::Tcp(tcp));
    if endpoint.tls.mode == SslMode::Disable {
        return Ok(Conn::new(Stream::Plain(Box::new(paced)), peer, None));
    }
    paced.write_all(&SSL_REQUEST).await.map_err(failed)?;
    match paced.read_u8().await.map_err(failed)? {
        b'S' => start_tls(endpoint, name, peer, paced).await,
        b'N' if endpoint.tls.mode == SslMode::Prefer => {
            Ok(Conn::new(Stream::Plain(Box::new(paced)), peer, None))
        }
        b'N' => Err(Error::Tls { target: peer, reason: "the server does not offer it".into() }),
        _ => Err(Error::Protocol { reason: format!("{peer} does not answer as PostgreSQL") }),
    }
}

fn tune(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

async fn start_tls(
    endpoint: &Endpoint,
    name: &str,
    peer: String,
    mut paced: Paced,
) -> Result<Conn> {
    let failed = |reason: String| Error::Tls { target: peer.clone(), reason };
    let server_name = rustls::pki_types::ServerName::try_from(name.to_owned())
        .map_err(|error| failed(error.to_string()))?;
    let config = tls::client_config(&endpoint.tls)?;
    paced.read_ahead();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream =
        connector.connect(server_name, paced).await.map_err(|error| failed(error.to_string()))?;
    let certificates = stream.get_ref().1.peer_certificates();
    let binding = certificates
        .and_then(|chain| chain.first())
        .and_then(|certificate| tls::end_point_binding(certificate.as_ref()));
    Ok(Conn::new(Stream::Tls(Box::new(stream)), peer, binding))
}

impl Conn {
    fn new(stream: Stream, peer: String, binding: Option<Vec<u8>>) -> Self {
        Self { stream, peer, binding, login: None, permit: None }
    }

    /// A connection to a server inside this process, through the other end of `pipe`.
    pub fn piped(pipe: DuplexStream, peer: impl Into<String>) -> Conn {
        let paced = Paced::new(Socket::Pipe(pipe));
        Conn::new(Stream::Plain(Box::new(paced)), peer.into(), None)
    }

    /// Gives the permit back when the connection is closed.
    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// From now on reading fails where the server asks for the password in clear, unless nobody
    /// can listen.
    pub(super) fn refuse_cleartext_unless_private(&mut self) {
        self.login = (!self.is_private()).then(LoginWatch::default);
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Whether nobody between the ends can listen.
    pub(crate) fn is_private(&self) -> bool {
        match &self.stream {
            Stream::Tls(_) => true,
            Stream::Plain(paced) => !matches!(paced.socket, Socket::Tcp(_)),
        }
    }

    /// `host:port` or the socket's path.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The `tls-server-end-point` channel binding for SCRAM, if the certificate has one.
    pub(crate) fn channel_binding(&self) -> Option<&[u8]> {
        self.binding.as_deref()
    }

    /// Lets the socket fill between reads from now on; without effect unless it is TCP.
    pub(crate) fn coalesce(&mut self) {
        let naps = if self.is_tls() { Naps::TLS } else { Naps::PLAIN };
        let paced = self.paced();
        if matches!(paced.socket, Socket::Tcp(_)) {
            paced.pacer = Pacer::new(naps);
        }
    }

    /// How long to leave the socket alone after what was just read.
    pub(crate) fn take_nap(&mut self) -> Option<Duration> {
        self.paced().nap.take()
    }

    pub(crate) fn set_behind(&mut self, behind: bool) {
        self.paced().pacer.set_behind(behind);
    }

    fn paced(&mut self) -> &mut Paced {
        match &mut self.stream {
            Stream::Plain(paced) => paced,
            Stream::Tls(tls) => tls.get_mut().0,
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(match &mut this.stream {
            Stream::Plain(paced) => Pin::new(paced.as_mut()).poll_read(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        })?;
        if let Some(login) = &mut this.login {
            login.see(&buf.filled()[before..]).map_err(io::Error::other)?;
            if login.is_done() {
                this.login = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(paced) => Pin::new(paced.as_mut()).poll_write(cx, buf),
            Stream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(paced) => Pin::new(paced.as_mut()).poll_flush(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(paced) => Pin::new(paced.as_mut()).poll_shutdown(cx),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Pipe(DuplexStream),
}

/// A socket whose reads a [`Pacer`] watches.
#[derive(Debug)]
struct Paced {
    socket: Socket,
    pacer: Pacer,
    nap: Option<Duration>,
    ahead: Option<ReadAhead>,
}

#[derive(Debug)]
struct ReadAhead {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Paced {
    fn new(socket: Socket) -> Self {
        Self { socket, pacer: Pacer::off(), nap: None, ahead: None }
    }

    fn read_ahead(&mut self) {
        let bytes = vec![0; READ_AHEAD].into_boxed_slice();
        self.ahead = Some(ReadAhead { bytes, start: 0, end: 0 });
    }

    fn note_read(&mut self, bytes: usize) {
        self.nap = self.pacer.after_read(bytes, Instant::now());
    }
}

fn poll_socket(
    socket: &mut Socket,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    match socket {
        Socket::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
        Socket::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
        Socket::Pipe(pipe) => Pin::new(pipe).poll_read(cx, buf),
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(ahead) = &mut this.ahead else {
            let before = buf.filled().len();
            ready!(poll_socket(&mut this.socket, cx, buf))?;
            this.note_read(buf.filled().len() - before);
            return Poll::Ready(Ok(()));
        };
        let mut filled = None;
        if ahead.start == ahead.end {
            let mut inner = ReadBuf::new(&mut ahead.bytes);
            ready!(poll_socket(&mut this.socket, cx, &mut inner))?;
            (ahead.start, ahead.end) = (0, inner.filled().len());
            filled = Some(ahead.end);
        }
        let take = buf.remaining().min(ahead.end - ahead.start);
        buf.put_slice(&ahead.bytes[ahead.start..ahead.start + take]);
        ahead.start += take;
        if let Some(bytes) = filled {
            this.note_read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Socket::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Socket::Pipe(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_flush(cx),
            Socket::Pipe(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().socket {
            Socket::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Socket::Pipe(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
