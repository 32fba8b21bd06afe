//! The file of one writer. Processes that share a writer take turns: each append locks the file and
//! goes on from its last line.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use cdc_core::Clock;

use super::chain::{Head, head_of, seal};
use super::record::{AuditRecord, timestamp};
use crate::{Error, Result};

/// The last line is looked for in the end of the file; a record is far shorter.
const TAIL_BYTES: u64 = 256 * 1024;

/// Appends to one chain.
#[derive(Clone, Debug)]
pub struct AuditLog {
    path: PathBuf,
    writer_id: String,
}

impl AuditLog {
    /// The chain of `writer_id` in a directory, which is made readable by its owner only. Blocks.
    ///
    /// # Errors
    /// [`Error::Audit`].
    pub fn open(directory: &Path, writer_id: &str) -> Result<AuditLog> {
        let path = directory.join(format!("{writer_id}.ndjson"));
        create_private(directory).map_err(|source| Error::audit(directory, source))?;
        Ok(AuditLog { path, writer_id: writer_id.to_owned() })
    }

    /// Adds a record; durable when it returns. Blocks.
    ///
    /// # Errors
    /// [`Error::Audit`]; [`Error::BrokenChain`] if the last line cannot be gone on from.
    pub fn append(&self, clock: &dyn Clock, record: &AuditRecord) -> Result<()> {
        let failed = |source| Error::audit(&self.path, source);
        let mut options = File::options();
        let mut file =
            options.create(true).append(true).read(true).open(&self.path).map_err(failed)?;
        // given back when the file is closed
        file.lock().map_err(failed)?;
        let head = self.head(&mut file)?;
        let ts = timestamp(clock.now());
        let sealed =
            seal(&head, &self.writer_id, &ts, record).map_err(|source| failed(source.into()))?;
        let line = sealed.line;
        file.write_all(format!("{line}\n").as_bytes()).map_err(failed)?;
        file.sync_data().map_err(failed)
    }

    /// The last line of the chain. A line without an end is of a process that died while it wrote:
    /// nothing was answered for it, so it is cut off.
    fn head(&self, file: &mut File) -> Result<Head> {
        let failed = |source| Error::audit(&self.path, source);
        let size = file.metadata().map_err(failed)?.len();
        let from = size.saturating_sub(TAIL_BYTES);
        file.seek(SeekFrom::Start(from)).map_err(failed)?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).map_err(failed)?;
        let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < tail.len() {
            file.set_len(from + whole as u64).map_err(failed)?;
        }
        let Some(last) = tail[..whole].split(|byte| *byte == b'\n').rfind(|line| !line.is_empty())
        else {
            return Ok(Head::default());
        };
        head_of(last).ok_or_else(|| Error::BrokenChain { path: self.path.clone(), line: None })
    }
}

fn create_private(directory: &Path) -> std::io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(directory)
}
