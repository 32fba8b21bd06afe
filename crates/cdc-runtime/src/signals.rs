//! The signals that end a process: the first asks for a drain, the second ends it at once.

use tokio_util::sync::CancellationToken;

use crate::{Error, ExitCode, Result};

/// Installs the handlers and returns the token that the first SIGTERM or SIGINT cancels. The
/// second one exits with [`ExitCode::Failure`] at once; what was not confirmed is replayed.
/// SIGHUP is ignored. Call inside a runtime.
///
/// # Errors
/// When the operating system refuses a handler.
pub fn shutdown_on_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut signals = Signals::install().map_err(|source| Error::Signal { source })?;
    let cancel = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!(signal = first, "shutdown requested");
        cancel.cancel();
        let second = signals.next().await;
        tracing::warn!(signal = second, "second signal, stopping at once");
        std::process::exit(ExitCode::Failure as i32);
    });
    Ok(token)
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Held so that SIGHUP has a handler and does not end the process.
    _hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn install() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Cancel safe: a signal that arrives between two calls is kept by tokio.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn install() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> &'static str {
        // a handler that cannot be installed leaves the default, which ends the process
        let _ = tokio::signal::ctrl_c().await;
        "Ctrl-C"
    }
}
