//! The bytes of a Parquet file in the making or waiting to be uploaded: in memory, or in an
//! unnamed temporary file that is gone with its last handle.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

use crate::{Error, Result};

/// Immutable bytes, cheap to clone. A handle is read by one thread at a time.
#[derive(Clone, Debug)]
pub struct Body(Place);

#[derive(Clone, Debug)]
enum Place {
    Memory(Bytes),
    Disk { file: Arc<File>, len: u64 },
}

impl Body {
    /// Bytes in memory.
    pub fn memory(bytes: Bytes) -> Self {
        Self(Place::Memory(bytes))
    }

    /// Moves bytes into an unnamed temporary file in `dir`.
    pub(crate) fn spill(bytes: &[u8], dir: &Path) -> Result<Self> {
        let failed = |source| Error::Io {
            operation: "write a temporary file in",
            path: dir.display().to_string(),
            source,
        };
        let mut file = tempfile::tempfile_in(dir).map_err(failed)?;
        file.write_all(bytes).map_err(failed)?;
        Ok(Self::disk(file, bytes.len() as u64))
    }

    /// The content of a temporary file.
    pub(crate) fn disk(file: File, len: u64) -> Self {
        Self(Place::Disk { file: Arc::new(file), len })
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match &self.0 {
            Place::Memory(bytes) => bytes.len() as u64,
            Place::Disk { len, .. } => *len,
        }
    }

    /// Bytes of memory held.
    pub fn memory_bytes(&self) -> usize {
        match &self.0 {
            Place::Memory(bytes) => bytes.len(),
            Place::Disk { .. } => 0,
        }
    }

    /// A part of the bytes.
    ///
    /// # Errors
    /// [`Error::Io`] if the temporary file cannot be read.
    pub fn range(&self, start: u64, length: usize) -> Result<Bytes> {
        self.get_bytes(start, length).map_err(|error| Error::Io {
            operation: "read a temporary file:",
            path: "unnamed".to_owned(),
            source: std::io::Error::other(error),
        })
    }
}

impl Length for Body {
    fn len(&self) -> u64 {
        self.size()
    }
}

impl ChunkReader for Body {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        match &self.0 {
            Place::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                Ok(Box::new(bytes.slice(start..).reader()))
            }
            Place::Disk { file, .. } => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(start))?;
                Ok(Box::new(std::io::BufReader::new(file)))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match &self.0 {
            Place::Memory(bytes) => bytes.get_bytes(start, length),
            Place::Disk { file, .. } => file.get_bytes(start, length),
        }
    }
}
