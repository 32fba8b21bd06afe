//! A proxy before an S3 server that does what rules say to the calls that pass through it.
//!
//! ```text
//! client ─> read request ─> draw fault ─> forward, byte for byte ─> read answer ─> fault ─> client
//! ```
//! The host header passes unchanged: a client signs for the host that it talks to, and the server
//! checks against the header.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::faults::{Dice, Fault, Rule};
use super::frame::{self, Answer, Request};

/// Connections served at once.
const CONNECTIONS_MAX: usize = 512;

/// A running proxy; gone when dropped.
pub(crate) struct FaultProxy {
    port: u16,
    dice: Arc<Mutex<Dice>>,
    runtime: Option<Runtime>,
}

impl FaultProxy {
    /// A proxy before the server at this port of loopback, with no rule.
    pub(crate) fn start(upstream: u16, seed: u64) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start the proxy")?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        let dice = Arc::new(Mutex::new(Dice::new(seed)));
        runtime.spawn(accept(listener, upstream, Arc::clone(&dice)));
        Ok(Self { port, dice, runtime: Some(runtime) })
    }

    /// The address that clients are given.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Replaces the rules.
    pub(crate) fn set(&self, rules: Vec<Rule>) -> Result<()> {
        self.with(|dice| dice.set(rules))
    }

    /// Calls seen so far.
    pub(crate) fn calls(&self) -> Result<u64> {
        self.with(|dice| dice.calls)
    }

    /// What was done so far, by name of the fault.
    pub(crate) fn done(&self) -> Result<BTreeMap<String, u64>> {
        self.with(|dice| dice.done.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Dice) -> T) -> Result<T> {
        let mut dice = self.dice.lock().ok().context("a thread that held the rules panicked")?;
        Ok(work(&mut dice))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, upstream: u16, dice: Arc<Mutex<Dice>>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        let Ok((client, _)) = listener.accept().await else { continue };
        let dice = Arc::clone(&dice);
        tokio::spawn(async move {
            // a connection that breaks is what the proxy is for
            let _ = serve(client, upstream, &dice).await;
            drop(slot);
        });
    }
}

/// A connection whose heads are not read byte by byte from the system.
type Stream = BufReader<TcpStream>;

async fn serve(client: TcpStream, upstream: u16, dice: &Mutex<Dice>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut server: Option<Stream> = None;
    while let Some(request) = frame::read_request(&mut client).await? {
        let fault = match dice.lock() {
            Ok(mut dice) => dice.draw(&request.method, &request.target, request.is_conditional),
            Err(_) => return Ok(()),
        };
        match fault {
            Some(Fault::ResetBefore) => return reset(client),
            Some(Fault::Refuse(status)) => {
                client.write_all(&canned(status, &request.method)).await?;
                continue;
            }
            _ => {}
        }
        let answer = forward(&mut server, upstream, &request).await?;
        if answer.is_last {
            server = None;
        }
        match fault {
            Some(Fault::ResetAfter) => return reset(client),
            Some(Fault::SilentAfter(time)) => {
                tokio::time::sleep(time).await;
                return reset(client);
            }
            Some(Fault::ErrorAfter(status)) => {
                client.write_all(&canned(status, &request.method)).await?;
            }
            Some(Fault::Truncate) if answer.message.body.len() > 1 => {
                client.write_all(&answer.message.head).await?;
                let half = answer.message.body.len() / 2;
                client.write_all(&answer.message.body[..half]).await?;
                return client.shutdown().await;
            }
            Some(Fault::LieAboutConflict) if answer.status == 412 => {
                client.write_all(STORED).await?;
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                pass(&mut client, &answer).await?;
            }
            _ => pass(&mut client, &answer).await?,
        }
        if answer.is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// An answer that says a write was stored.
const STORED: &[u8] =
    b"HTTP/1.1 200 OK\r\nETag: \"00000000000000000000000000000000\"\r\nContent-Length: 0\r\n\r\n";

async fn pass(client: &mut Stream, answer: &Answer) -> io::Result<()> {
    client.write_all(&answer.message.head).await?;
    client.write_all(&answer.message.body).await
}

/// Sends the request on; a server that closed its idle connection is called anew.
async fn forward(
    server: &mut Option<Stream>,
    upstream: u16,
    request: &Request,
) -> io::Result<Answer> {
    if let Some(mut stream) = server.take()
        && let Ok(answer) = exchange(&mut stream, request).await
    {
        *server = Some(stream);
        return Ok(answer);
    }
    let stream = TcpStream::connect(("127.0.0.1", upstream)).await?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let answer = exchange(&mut stream, request).await?;
    *server = Some(stream);
    Ok(answer)
}

async fn exchange(stream: &mut Stream, request: &Request) -> io::Result<Answer> {
    stream.write_all(&request.message.head).await?;
    stream.write_all(&request.message.body).await?;
    frame::read_answer(stream, &request.method).await
}

/// Ends a connection with a reset where the system can.
fn reset(client: Stream) -> io::Result<()> {
    client.get_ref().set_zero_linger()
}

/// An answer as S3 gives it with this status.
fn canned(status: u16, method: &str) -> Vec<u8> {
    let code = match status {
        403 => "AccessDenied",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        500 => "InternalError",
        503 => "SlowDown",
        _ => "Unknown",
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code>\
         <Message>injected</Message></Error>"
    );
    let head = format!(
        "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let body = if method == "HEAD" { "" } else { body.as_str() };
    format!("{head}{body}").into_bytes()
}

/// How long a silent proxy must keep quiet to outlast every client of ours.
pub(crate) const LONGER_THAN_CLIENTS: Duration = Duration::from_secs(45);
