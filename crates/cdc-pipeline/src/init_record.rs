//! The record of an init under way. It is written before the publication and the slot are made and
//! removed when the manifest stands, so that a later run can tell its own half-made objects from
//! somebody else's.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;

/// What an unfinished init may have left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InitRecord {
    /// Lake id of the attempt.
    pub lake_id: String,
    /// Slot it makes.
    pub slot: String,
    /// Publication it uses.
    pub publication: String,
    /// Whether it made the publication.
    pub publication_made: bool,
    /// The catalog's namespace that it fills.
    pub namespace: String,
    /// The tables whose directories it fills; they were empty before.
    pub tables: Vec<String>,
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("init-pending.json")
}

impl InitRecord {
    /// The record of an unfinished init, if there is one.
    pub(crate) fn load(state_dir: &Path) -> Result<Option<InitRecord>, Error> {
        let path = path(state_dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::state(&path, source)),
        };
        // a torn record is from a crash before anything was made: the rename below is atomic
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::state(&path, source.into()))
    }

    /// Makes the record durable.
    pub(crate) fn store(&self, state_dir: &Path) -> Result<(), Error> {
        let path = path(state_dir);
        let temporary = path.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            fs::File::open(state_dir)?.sync_all()
        };
        write().map_err(|source| Error::state(&path, source))
    }

    /// Removes the record; none is fine.
    pub(crate) fn remove(state_dir: &Path) -> Result<(), Error> {
        let path = path(state_dir);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::state(&path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_survives_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(InitRecord::load(dir.path()).unwrap(), None);
        let record = InitRecord {
            lake_id: "l".into(),
            slot: "s".into(),
            publication: "p".into(),
            publication_made: true,
            namespace: "n".into(),
            tables: vec!["public.t".into()],
        };
        record.store(dir.path()).unwrap();
        assert_eq!(InitRecord::load(dir.path()).unwrap(), Some(record));
        InitRecord::remove(dir.path()).unwrap();
        InitRecord::remove(dir.path()).unwrap();
        assert_eq!(InitRecord::load(dir.path()).unwrap(), None);
    }
}
