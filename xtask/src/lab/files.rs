//! The files of a lab: what a process that is gone must not have left behind.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Lab;

impl Lab {
    /// Fails if a temporary or spill file, a half-made object or the record of an unfinished init
    /// is left. Call it when no process is at work.
    pub(crate) fn expect_no_leftovers(&self) -> Result<()> {
        let state = self.dir().join("state");
        let keys = self.storage().keys()?.into_iter().map(PathBuf::from);
        let mut left: Vec<_> = keys.filter(|key| is_temporary(key)).collect();
        for file in files_below(&state)? {
            let is_spill = ["tmp", "spool"].iter().any(|dir| file.starts_with(state.join(dir)));
            if is_spill || is_temporary(&file) || file.ends_with("init-pending.json") {
                left.push(file);
            }
        }
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    }
}

fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(".pgcdc-tmp") || name.starts_with(".pgcdc-probe") || name.ends_with(".tmp")
}

/// All files below a directory.
pub(crate) fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let into = if entry.file_type()?.is_dir() { &mut open } else { &mut files };
            into.push(entry.path());
        }
    }
    Ok(files)
}
