//! A running `pgcdc start`: how tests watch it, stop it and kill it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::shell;

/// The default of `flush.drain_timeout_sec`, and some for the end of the process.
const DRAIN_LIMIT: Duration = Duration::from_secs(40);

/// How much of the end of a log an error message shows.
const LOG_END_BYTES: usize = 4000;

/// The daemon of a [`super::Lab`]; killed when dropped.
pub(crate) struct Daemon {
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
    /// Where this process's part of the log begins.
    log_start: usize,
}

impl Daemon {
    pub(super) fn spawn(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log)?;
        let log_start = usize::try_from(file.metadata()?.len())?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().context("cannot start the daemon")?;
        Ok(Self { pid: child.id(), child: Mutex::new(child), log, log_start })
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails with the end of the log when the daemon is gone.
    pub(crate) fn expect_alive(&self) -> Result<()> {
        match self.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the daemon ended with {status}:\n{}", self.log_end()),
        }
    }

    /// Waits until the daemon ends by itself and returns its exit code; -1 for a signal.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> Result<i32> {
        let status = shell::wait_for("the daemon to end", limit, || self.try_wait())
            .with_context(|| format!("end of its log:\n{}", self.log_end()))?;
        Ok(status.code().unwrap_or(-1))
    }

    /// Waits until the daemon ends by itself; fails unless with exit 1 and each of `words` in what
    /// this process has written.
    pub(crate) fn expect_failure(&self, limit: Duration, words: &[&str]) -> Result<()> {
        let code = self.wait_for_end(limit)?;
        let log = self.log_end();
        ensure!(code == 1, "the daemon ended with {code}, not 1:\n{log}");
        for word in words {
            ensure!(log.contains(word), "the log does not mention {word:?}:\n{log}");
        }
        Ok(())
    }

    /// SIGTERM; fails unless the daemon drains and ends with 0.
    pub(crate) fn stop(self) -> Result<()> {
        self.signal("TERM")?;
        let code = self.wait_for_end(DRAIN_LIMIT)?;
        ensure!(code == 0, "the daemon drained with exit {code}:\n{}", self.log_end());
        Ok(())
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill(self) -> Result<()> {
        self.signal("KILL")?;
        self.wait_for_end(DRAIN_LIMIT).map(|_| ())
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        shell::run(Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()))
    }

    /// The peak of the resident memory so far, in bytes.
    pub(crate) fn peak_rss(&self) -> Result<u64> {
        peak_rss(self.pid)
    }

    /// All that the daemon has written, those before it on the same lake left out.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.log_start..).unwrap_or_default()).into_owned()
    }

    /// The last lines of the log.
    pub(crate) fn log_end(&self) -> String {
        let log = self.log();
        let mut from = log.len().saturating_sub(LOG_END_BYTES);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        log[from..].to_owned()
    }

    /// How the process ended; `None` while it lives.
    pub(crate) fn try_wait(&self) -> Result<Option<ExitStatus>> {
        let mut child = self.child.lock().ok().context("a thread that held the daemon panicked")?;
        Ok(child.try_wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a process is stopped by a signal.
pub(crate) fn is_stopped(pid: u32) -> Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    Ok(status.lines().any(|line| line.starts_with("State:\tT")))
}

/// The peak of the resident memory of a process, in bytes.
pub(crate) fn peak_rss(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|text| text.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.context("no VmHWM in /proc")?.trim().parse()?;
    Ok(kilobytes * 1024)
}
