//! How a table records its deleted rows, which decides its Iceberg format version.

use std::fmt;

use iceberg::spec::{DataFile, DataFileFormat, FormatVersion};

use crate::{Error, Result};

/// How deleted rows of a table are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteEncoding {
    /// Position delete files in Parquet, format version 2.
    #[default]
    Position,
    /// Deletion vectors in Puffin files, format version 3.
    Vector,
}

impl DeleteEncoding {
    /// The word of the configuration and of `manifest.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            DeleteEncoding::Position => "position",
            DeleteEncoding::Vector => "vector",
        }
    }

    /// What a table of a format version takes: version 3 knows no new position delete files.
    pub fn of_format(format: FormatVersion) -> DeleteEncoding {
        match format {
            FormatVersion::V1 | FormatVersion::V2 => DeleteEncoding::Position,
            FormatVersion::V3 => DeleteEncoding::Vector,
        }
    }

    /// The encoding of delete files that are about to be added.
    pub(crate) fn of(delete_files: &[DataFile]) -> DeleteEncoding {
        match delete_files.iter().any(|file| file.file_format() == DataFileFormat::Puffin) {
            true => DeleteEncoding::Vector,
            false => DeleteEncoding::Position,
        }
    }

    /// What a table of this encoding does not take, in words.
    pub(crate) fn others(self) -> &'static str {
        match self {
            DeleteEncoding::Position => "deletion vectors",
            DeleteEncoding::Vector => "position delete files",
        }
    }

    /// The format version of a new table.
    pub(crate) fn format(self) -> FormatVersion {
        match self {
            DeleteEncoding::Position => FormatVersion::V2,
            DeleteEncoding::Vector => FormatVersion::V3,
        }
    }
}

impl fmt::Display for DeleteEncoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a table of a format version may get these delete files.
pub(crate) fn check_encoding(
    table: &str,
    format: FormatVersion,
    delete_files: &[DataFile],
) -> Result<()> {
    let takes = match DeleteEncoding::of_format(format) {
        DeleteEncoding::Position => DataFileFormat::Parquet,
        DeleteEncoding::Vector => DataFileFormat::Puffin,
    };
    match delete_files.iter().all(|file| file.file_format() == takes) {
        true => Ok(()),
        false => Err(Error::EncodingRefused { table: table.to_owned(), format }),
    }
}
