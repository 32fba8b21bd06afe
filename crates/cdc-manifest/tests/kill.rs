//! A writer that is killed at any moment leaves a manifest that parses and, after the next start,
//! no temporary file.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use cdc_manifest::{LakeStore, ManifestStore, StorageSpec, Swap};
use object_store::{ObjectStoreExt, PutPayload};

use crate::lake::{example, flushed};

const LAKE_VARIABLE: &str = "PGCDC_TEST_KILL_LAKE";
const KILLS: usize = 25;

#[test]
fn a_killed_writer_leaves_a_sound_lake() {
    match std::env::var_os(LAKE_VARIABLE) {
        Some(lake) => write_until_killed(Path::new(&lake)),
        None => kill_writers(),
    }
}

fn open(path: &Path) -> LakeStore {
    LakeStore::open(&StorageSpec::Filesystem { path: path.into() }).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Says a word after each commit.
fn write_until_killed(path: &Path) {
    let lake = open(path);
    let store = ManifestStore::new(lake.clone());
    runtime().block_on(async {
        loop {
            let base = store.require().await.unwrap();
            let next = flushed(&base.value);
            let delta = object_store::path::Path::from(format!("d/{}.parquet", next.epoch.0 % 7));
            let payload = PutPayload::from(Bytes::from(vec![7; 64 << 10]));
            lake.store().put(&delta, payload).await.unwrap();
            assert!(matches!(store.commit(&base, &next).await.unwrap(), Swap::Stored(_)));
            eprintln!("committed");
        }
    });
}

fn kill_writers() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = |lake: LakeStore| runtime().block_on(ManifestStore::new(lake).require());
    let created = runtime().block_on(ManifestStore::new(open(dir.path())).create(&example()));
    assert!(matches!(created.unwrap(), Swap::Stored(_)));
    let mut epoch = example().epoch;
    for kill in 0..KILLS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::a_killed_writer_leaves_a_sound_lake", "--nocapture"])
            .env(LAKE_VARIABLE, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let talk = BufReader::new(writer.stderr.take().unwrap());
        let committed = talk.lines().map_while(Result::ok).filter(|line| line == "committed");
        // how long the kill takes to arrive varies enough to hit every step of a write
        assert_eq!(committed.take(1 + kill % 3).count(), 1 + kill % 3);
        writer.kill().unwrap();
        writer.wait().unwrap();

        let found = manifest(open(dir.path())).unwrap().value;
        assert!(found.epoch > epoch);
        epoch = found.epoch;
        assert_eq!(temporary_files(dir.path()), Vec::<String>::new());
    }
}

fn temporary_files(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(temporary_files(&entry.path()));
        } else if name.contains("tmp") {
            found.push(name);
        }
    }
    found
}
