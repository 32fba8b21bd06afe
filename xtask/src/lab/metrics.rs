//! What a daemon shows on `/metrics`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Daemon;
use crate::shell;

/// How long a daemon may take to open its listener, and to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// One answer of `/metrics`.
pub(crate) struct Metrics {
    text: String,
}

impl Daemon {
    /// Asks for the metrics; waits until they are served.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let addr = shell::wait_for("the metrics to be served", LIMIT, || {
            self.expect_alive()?;
            Ok(served_at(&self.log()))
        })?;
        let mut stream = TcpStream::connect(&addr).with_context(|| addr.clone())?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (_, text) = answer.split_once("\r\n\r\n").context("no body")?;
        Ok(Metrics { text: text.to_owned() })
    }
}

/// The address in the record of the listener.
fn served_at(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("\"metrics served\""))?;
    let record: serde_json::Value = serde_json::from_str(line).ok()?;
    record["addr"].as_str().map(str::to_owned)
}

impl Metrics {
    /// The value of a series, labels included as they are printed; 0 where there is none.
    pub(crate) fn get(&self, series: &str) -> f64 {
        let values = self.text.lines().filter_map(|line| line.rsplit_once(' '));
        let value = values.filter(|(name, _)| *name == series).find_map(|(_, v)| v.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Fails unless each of `names` is there with its type.
    pub(crate) fn expect_types(&self, names: &[(&str, &str)]) -> Result<()> {
        for (name, kind) in names {
            let line = format!("# TYPE {name} {kind}");
            ensure!(self.text.lines().any(|found| found == line), "no {line:?} in\n{}", self.text);
        }
        Ok(())
    }
}
