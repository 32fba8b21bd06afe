//! A private S3 for tests: SeaweedFS on loopback, gone when the value is dropped, and a proxy before
//! it that injects faults.

mod faults;
mod frame;
mod proxy;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use faults::{Fault, Rule, Which};
pub(crate) use proxy::{FaultProxy, LONGER_THAN_CLIENTS};

use crate::{pg, setup, shell};

/// How long the server may take to answer.
const SERVER_PATIENCE: Duration = Duration::from_secs(120);
/// How long one answer of the server may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// Objects that one listing shows at most.
const LISTING_MAX: usize = 100_000;

/// The one account of the server.
pub(crate) const ACCESS_KEY: &str = "admin";
/// Its secret, which is none.
pub(crate) const SECRET_KEY: &str = "adminsecret";
/// The region in which the tests say the server is.
pub(crate) const REGION: &str = "us-east-1";
/// The buckets that exist from the start.
pub(crate) const BUCKETS: [&str; 2] = ["lab", "whole"];

/// A running S3 server.
pub(crate) struct S3Server {
    port: u16,
    filer: u16,
    server: Child,
    dir: TempDir,
}

impl S3Server {
    /// Starts a server and waits until it answers and its buckets stand.
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("pgcdc-s3").tempdir()?;
        let log = std::fs::File::create(dir.path().join("server.log"))?;
        let data = dir.path().join("data");
        std::fs::create_dir(&data)?;
        let (port, filer) = (pg::free_port()?, pg::free_port()?);
        let mut command = dies_with_us(setup::weed()?);
        command.arg("mini").arg(format!("-dir={}", data.display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.preStopSeconds=0"]);
        command.args(["-webdav=false", "-admin.ui=false", "-master.telemetry=false"]);
        command.args(["-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.arg(format!("-bucket={}", BUCKETS.join(",")));
        command.arg(format!("-s3.port={port}")).arg(format!("-filer.port={filer}"));
        for name in OTHER_PORTS {
            command.arg(format!("-{name}={}", pg::free_port()?));
        }
        command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY).env("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.current_dir(dir.path()).process_group(0);
        let server = command.spawn().context("cannot start SeaweedFS")?;
        let mut started = Self { port, filer, server, dir };
        started.wait()?;
        Ok(started)
    }

    /// The address of S3 itself.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The port of S3 itself.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Reads an object past S3; `None` if it does not exist.
    pub(crate) fn read(&self, bucket: &str, key: &str) -> Result<Option<Vec<u8>>> {
        let (status, body) = self.ask("GET", &format!("/buckets/{bucket}/{key}"), &[])?;
        match status {
            200 => Ok(Some(body)),
            404 => Ok(None),
            other => bail!("the filer answered {other} for {bucket}/{key}"),
        }
    }

    /// Writes an object past S3.
    pub(crate) fn write(&self, bucket: &str, key: &str, body: &[u8]) -> Result<()> {
        let (status, _) = self.ask("PUT", &format!("/buckets/{bucket}/{key}"), body)?;
        ensure!((200..300).contains(&status), "the filer answered {status} for {bucket}/{key}");
        Ok(())
    }

    /// Removes an object past S3.
    pub(crate) fn remove(&self, bucket: &str, key: &str) -> Result<()> {
        let (status, _) = self.ask("DELETE", &format!("/buckets/{bucket}/{key}"), &[])?;
        ensure!((200..300).contains(&status), "the filer answered {status} for {bucket}/{key}");
        Ok(())
    }

    /// The keys of all objects below a directory of a bucket, which may be empty text for all of it.
    pub(crate) fn list(&self, bucket: &str, directory: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut open = vec![directory.trim_end_matches('/').to_owned()];
        let root = format!("/buckets/{bucket}/");
        while let Some(directory) = open.pop() {
            for entry in self.entries(&format!("{root}{directory}"))? {
                let path = entry["FullPath"].as_str().context("an entry without a path")?;
                let key = path.strip_prefix(&root).context("an entry elsewhere")?.to_owned();
                // the first letter of a directory's mode in Go
                let is_directory = entry["Mode"].as_u64().is_some_and(|mode| mode >> 31 == 1);
                match is_directory {
                    true if key.starts_with(".uploads") => {}
                    true => open.push(key),
                    false => keys.push(key),
                }
            }
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// How many uploads in parts of a bucket were begun and neither completed nor aborted.
    pub(crate) fn open_uploads(&self, bucket: &str) -> Result<usize> {
        Ok(self.entries(&format!("/buckets/{bucket}/.uploads"))?.len())
    }

    fn entries(&self, directory: &str) -> Result<Vec<Value>> {
        let path = format!("{}/?limit={LISTING_MAX}", directory.trim_end_matches('/'));
        let (status, body) = self.ask("GET", &path, &[])?;
        if status == 404 {
            return Ok(Vec::new());
        }
        ensure!(status == 200, "the filer answered {status} for {directory}");
        let listing: Value = serde_json::from_slice(&body).context("the listing is not JSON")?;
        Ok(listing["Entries"].as_array().cloned().unwrap_or_default())
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        ask(self.filer, method, path, body)
    }

    fn wait(&mut self) -> Result<()> {
        shell::wait_for("SeaweedFS to answer", SERVER_PATIENCE, || {
            if let Some(status) = self.server.try_wait()? {
                bail!("SeaweedFS ended with {status}:\n{}", self.log());
            }
            let is_up = matches!(ask(self.port, "GET", "/status", &[]), Ok((200, _)));
            let stands = |bucket: &&str| {
                matches!(self.ask("GET", &format!("/buckets/{bucket}/"), &[]), Ok((200, _)))
            };
            Ok((is_up && BUCKETS.iter().all(stands)).then_some(()))
        })
        .with_context(|| self.log())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Ports that the tests do not use but that must not meet those of another server.
const OTHER_PORTS: [&str; 7] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port.grpc",
    "s3.port.grpc",
    "admin.port",
];

/// A command that ends with this process, however this process ends.
fn dies_with_us(program: PathBuf) -> Command {
    match shell::find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

/// One question over a connection of its own, without encryption or signature.
fn ask(port: u16, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no answer")? + 4;
    let status = std::str::from_utf8(&answer[..end])?.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, answer.split_off(end)))
}
