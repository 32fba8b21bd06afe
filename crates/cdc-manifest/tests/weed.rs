//! A SeaweedFS of the tests' own: the S3 that every run of the store's contract includes.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use cdc_manifest::{Encryption, KeyPrefix, LakeStore, S3Spec, StorageSpec, Transfer};

/// How long the server may take to store its first object.
const PATIENCE: Duration = Duration::from_secs(120);
/// The account of the server; the client takes it from the environment of the tests.
const ACCOUNT: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "admin"), ("AWS_SECRET_ACCESS_KEY", "adminsecret")];

/// Whether this process lacks the credentials, which a client finds in its environment only; then
/// the test has run by itself in a process that has them, and has passed.
pub(crate) fn runs_without_credentials(test: &str) -> bool {
    if ACCOUNT.iter().all(|(name, value)| std::env::var(name).is_ok_and(|found| found == *value)) {
        return false;
    }
    let mut itself = Command::new(std::env::current_exe().unwrap());
    let run = itself.args(["--exact", test]).envs(ACCOUNT).output().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
    true
}

/// A running server, shared by the tests that need one at the same time.
pub(crate) struct Weed {
    server: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Weed {
    pub(crate) fn shared() -> Arc<Weed> {
        static SHARED: OnceLock<Mutex<Weak<Weed>>> = OnceLock::new();
        let mut shared = SHARED.get_or_init(Mutex::default).lock().unwrap();
        if let Some(running) = shared.upgrade() {
            return running;
        }
        let started = Arc::new(Weed::start());
        *shared = Arc::downgrade(&started);
        started
    }

    fn start() -> Weed {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = Command::new(program());
        command.arg("mini").arg(format!("-dir={}", dir.path().display()));
        command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.preStopSeconds=0"]);
        command.args(["-webdav=false", "-admin.ui=false", "-master.telemetry=false"]);
        command.args(["-s3.autoCreateBucket=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.arg("-bucket=lake").arg(format!("-s3.port={port}"));
        for name in [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port.grpc",
            "admin.port",
        ] {
            command.arg(format!("-{name}={}", free_port()));
        }
        command.envs(ACCOUNT).current_dir(dir.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Weed { server: command.spawn().unwrap(), port, _dir: dir }
    }

    pub(crate) fn spec(&self, bucket: &str, prefix: &str) -> S3Spec {
        S3Spec {
            bucket: bucket.into(),
            prefix: KeyPrefix::parse(prefix).unwrap(),
            region: "us-east-1".into(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            encryption: Encryption::Bucket,
            transfer: Transfer { upload_part_bytes: 5 << 20, ..Transfer::default() },
        }
    }

    /// A lake at a prefix, once the server stores objects.
    pub(crate) async fn lake(&self, prefix: &str) -> LakeStore {
        let lake = LakeStore::open(&StorageSpec::S3(self.spec("lake", prefix))).unwrap();
        let began = Instant::now();
        while let Err(error) = lake.overwrite("ready", "yes".into()).await {
            assert!(began.elapsed() < PATIENCE, "SeaweedFS does not answer: {error:?}");
        }
        let ready = object_store::path::Path::from("ready");
        object_store::ObjectStoreExt::delete(lake.store(), &ready).await.unwrap();
        lake
    }
}

impl Drop for Weed {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The program that `cargo xtask setup` installs, or the one that the variable names.
fn program() -> PathBuf {
    let installed = || {
        let cache = match (std::env::var_os("PGCDC_CACHE"), std::env::var_os("XDG_CACHE_HOME")) {
            (Some(cache), _) => PathBuf::from(cache),
            (None, _) if Path::new("/var/cache/pgcdc").is_dir() => "/var/cache/pgcdc".into(),
            (None, Some(cache)) => PathBuf::from(cache).join("pgcdc"),
            (None, None) => {
                PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/pgcdc")
            }
        };
        cache.join("seaweedfs/bin/weed")
    };
    let weed = std::env::var_os("PGCDC_TEST_WEED").map_or_else(installed, PathBuf::from);
    assert!(
        weed.exists(),
        "no SeaweedFS at {}: run `cargo xtask setup`, or set PGCDC_TEST_WEED to the program",
        weed.display()
    );
    weed
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
