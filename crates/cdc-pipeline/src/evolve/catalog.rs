//! The questions to the source's catalog, over a session of their own that is opened when it is needed.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdc_core::{Lsn, PgType};
use cdc_wal::{Control, RelationColumn, Source, TableShape};

use crate::Error;

/// Longest time that one question may take. The stream waits meanwhile, and the server with it.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The catalog of a source, as schema evolution asks it.
#[async_trait]
pub trait SchemaCatalog: Send {
    /// The tables with these OIDs as they are now, those that are gone left out.
    async fn shapes(&mut self, oids: &[u32]) -> Result<Vec<TableShape>, Error>;

    /// One table once a transaction that the stream brought is visible; `None` if it is gone.
    async fn shape_behind(&mut self, oid: u32, xid: u32) -> Result<Option<TableShape>, Error>;

    /// One table with the position at which it is exactly so; `None` if it is gone.
    async fn shape_at(&mut self, oid: u32) -> Result<Option<(TableShape, Lsn)>, Error>;

    /// The types of a relation's columns, `None` for those that are gone.
    async fn types(&mut self, columns: &[RelationColumn]) -> Result<Vec<Option<PgType>>, Error>;

    /// Whether stored generated columns are in the stream.
    async fn publishes_generated(&mut self) -> Result<bool, Error>;
}

/// Opens the catalog as it is with a publication of this name.
pub type OpenCatalog = Arc<dyn Fn(&str) -> Box<dyn SchemaCatalog> + Send + Sync>;

/// The catalog of a server.
pub(crate) struct SourceCatalog {
    source: Source,
    publication: String,
    control: Option<Control>,
}

#[async_trait]
impl SchemaCatalog for SourceCatalog {
    async fn shapes(&mut self, oids: &[u32]) -> Result<Vec<TableShape>, Error> {
        let control = self.take().await?;
        let asked = within(control.shapes(oids)).await?;
        self.control = Some(control);
        Ok(asked)
    }

    async fn shape_behind(&mut self, oid: u32, xid: u32) -> Result<Option<TableShape>, Error> {
        let control = self.take().await?;
        let asked = within(control.shape_behind(oid, xid)).await?;
        self.control = Some(control);
        Ok(asked)
    }

    async fn shape_at(&mut self, oid: u32) -> Result<Option<(TableShape, Lsn)>, Error> {
        let control = self.take().await?;
        let asked = within(control.shape_at(oid)).await?;
        self.control = Some(control);
        Ok(asked)
    }

    async fn types(&mut self, columns: &[RelationColumn]) -> Result<Vec<Option<PgType>>, Error> {
        let asked: Vec<(u32, i32)> = columns.iter().map(|c| (c.type_oid, c.typmod)).collect();
        let control = self.take().await?;
        let types = within(control.types(&asked)).await?;
        self.control = Some(control);
        Ok(types)
    }

    async fn publishes_generated(&mut self) -> Result<bool, Error> {
        let control = self.take().await?;
        let state = within(control.publication(&self.publication)).await?;
        self.control = Some(control);
        Ok(state.is_some_and(|state| state.publishes_generated))
    }
}

impl SourceCatalog {
    /// Opens nothing yet.
    pub(crate) fn new(source: Source, publication: &str) -> SourceCatalog {
        SourceCatalog { source, publication: publication.to_owned(), control: None }
    }

    /// The catalogs of one server.
    pub(crate) fn of(source: &Source) -> OpenCatalog {
        let source = source.clone();
        Arc::new(move |publication| Box::new(SourceCatalog::new(source.clone(), publication)))
    }

    /// The session, out of its place: one whose question failed or was given up is not asked again.
    async fn take(&mut self) -> Result<Control, Error> {
        match self.control.take().filter(|control| !control.is_closed()) {
            Some(control) => Ok(control),
            None => within(self.source.connect()).await,
        }
    }
}

async fn within<T>(question: impl Future<Output = cdc_wal::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(QUESTION_TIMEOUT, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::CatalogTimeout { seconds: QUESTION_TIMEOUT.as_secs() }),
    }
}
