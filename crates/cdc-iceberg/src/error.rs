//! What can go wrong with an Iceberg table, and what the caller does next.

use cdc_core::ErrorKind;

use crate::DeleteEncoding;

/// The result of this crate's operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate. The text never prints its source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An object could not be read.
    #[error("cannot read `{location}`")]
    Read {
        /// URI of the object.
        location: String,
        /// The store's error.
        source: object_store::Error,
    },
    /// An object could not be written.
    #[error("cannot write `{location}`")]
    Write {
        /// URI of the object.
        location: String,
        /// The store's error.
        source: object_store::Error,
    },
    /// The store reports a conflict over an object and holds none.
    #[error("the store reports a conflict over `{location}` and holds no such object")]
    Undecided {
        /// URI of the object.
        location: String,
        /// The store's error.
        source: Box<Error>,
    },
    /// A URI that does not lie below the lake's root.
    #[error("`{location}` is not below the root `{root}` of the lake")]
    OutsideLake {
        /// The URI.
        location: String,
        /// The lake's root.
        root: String,
    },
    /// Stored bytes are not what the Iceberg specification says.
    #[error("`{location}` is not a valid Iceberg {what}")]
    Format {
        /// URI of the object.
        location: String,
        /// metadata file, manifest list, manifest, delete file.
        what: &'static str,
        /// The parser's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part of a table's metadata could not be built.
    #[error("cannot build the {what} of table `{table}`")]
    Build {
        /// Name of the table.
        table: String,
        /// schema, snapshot, manifest, manifest list, metadata.
        what: &'static str,
        /// The builder's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A Parquet delete file could not be encoded or decoded.
    #[error("cannot process the delete file `{location}`")]
    DeleteFile {
        /// URI of the file.
        location: String,
        /// The codec's error.
        source: parquet::errors::ParquetError,
    },
    /// A deletion vector cannot be read.
    #[error("cannot read the deletion vector at byte {offset} of `{location}`")]
    Vector {
        /// URI of the Puffin file.
        location: String,
        /// Where it begins.
        offset: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A table holds deletes of a form that pgcdc never writes, such as equality deletes.
    #[error(
        "deletes in `{location}` are neither positions in Parquet nor deletion vectors; hint: another program wrote to the table, run `pgcdc table resync`"
    )]
    UnsupportedDeletes {
        /// URI of the delete file.
        location: String,
    },
    /// A table's format does not take the deletes that it would get. The format is never lowered.
    #[error(
        "table `{table}` is of Iceberg format {format} and takes no {}; hint: set `iceberg.deletes: vector`, it cannot go back",
        DeleteEncoding::of_format(*format).others()
    )]
    EncodingRefused {
        /// Name of the table.
        table: String,
        /// The format version.
        format: iceberg::spec::FormatVersion,
    },
    /// The catalog failed in a way that certainly left it as it was.
    #[error("catalog `{catalog}` cannot {operation} `{object}`")]
    Catalog {
        /// Which catalog.
        catalog: String,
        /// The operation in words.
        operation: &'static str,
        /// Table, namespace or file.
        object: String,
        /// Whether another try may help.
        transient: bool,
        /// The backend's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The catalog does not have the namespace.
    #[error("namespace `{0}` is not in the catalog")]
    NoNamespace(String),
    /// The catalog does not have the table.
    #[error("table `{0}` is not in the catalog; hint: run `pgcdc catalog register`")]
    NoTable(crate::TableIdent),
    /// The catalog has the table already.
    #[error("table `{0}` is in the catalog already")]
    TableExists(crate::TableIdent),
    /// The catalog reports conflicts although the pointer stands where it stood.
    #[error("catalog refuses the commit to `{0}` although nobody else committed")]
    Contradiction(crate::TableIdent),
    /// Whether the catalog has taken the table is not known.
    #[error("whether table `{0}` was created is not known")]
    CreateUnknown(crate::TableIdent),
    /// The metadata does not have the snapshot.
    #[error("table `{table}` has no snapshot {snapshot_id}")]
    NoSnapshot {
        /// Name of the table.
        table: String,
        /// The snapshot asked for.
        snapshot_id: i64,
    },
    /// A newer daemon owns the table.
    #[error(
        "table `{table}` belongs to generation {found}, this process is generation {ours}; hint: another daemon took over, stop this one"
    )]
    Fenced {
        /// Name of the table.
        table: String,
        /// The generation in the table's properties.
        found: u64,
        /// The generation of this process.
        ours: u64,
    },
    /// A task that was moved to a blocking thread did not come back.
    #[error("background work of `{what}` was cancelled")]
    Cancelled {
        /// What was going on.
        what: &'static str,
    },
}

impl Error {
    /// What the caller does next.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Read { source, .. } | Error::Write { source, .. } => object_kind(source),
            Error::Catalog { transient: true, .. } => ErrorKind::Transient,
            Error::Catalog { .. } => ErrorKind::Unreachable,
            Error::OutsideLake { .. }
            | Error::UnsupportedDeletes { .. }
            | Error::EncodingRefused { .. } => ErrorKind::Invalid,
            Error::Format { .. } | Error::DeleteFile { .. } | Error::Vector { .. } => {
                ErrorKind::Corrupt
            }
            Error::NoNamespace(_) | Error::NoTable(_) | Error::NoSnapshot { .. } => {
                ErrorKind::NotFound
            }
            Error::TableExists(_) | Error::Fenced { .. } => ErrorKind::Conflict,
            Error::CreateUnknown(_) | Error::Contradiction(_) | Error::Undecided { .. } => {
                ErrorKind::Transient
            }
            Error::Build { .. } | Error::Cancelled { .. } => ErrorKind::Internal,
        }
    }

    /// The error of a write whose reply a failpoint lost.
    pub(crate) fn lost(location: &str) -> Error {
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut).into();
        let source = object_store::Error::Generic { store: "failpoint", source };
        Error::Write { location: location.to_owned(), source }
    }

    pub(crate) fn build(
        table: impl std::fmt::Display,
        what: &'static str,
    ) -> impl FnOnce(iceberg::Error) -> Error {
        move |source| Error::Build { table: table.to_string(), what, source: Box::new(source) }
    }

    pub(crate) fn format<E>(location: &str, what: &'static str) -> impl FnOnce(E) -> Error
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |source| Error::Format {
            location: location.to_owned(),
            what,
            source: Box::new(source),
        }
    }
}

/// The class of an object store's error: what is not known to last may pass.
fn object_kind(error: &object_store::Error) -> ErrorKind {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => ErrorKind::NotFound,
        E::AlreadyExists { .. } => ErrorKind::Conflict,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Denied,
        E::NotSupported { .. } | E::NotImplemented { .. } | E::InvalidPath { .. } => {
            ErrorKind::Invalid
        }
        _ => ErrorKind::Transient,
    }
}
