//! The control plane against a real PostgreSQL: discovery, preflight, publication, slot, snapshot.

mod discovery;
mod preflight;
mod publications;
mod sessions;
mod slots;
mod snapshots;

use cdc_core::SourceTable;
use cdc_wal::{Control, Source, SourceOptions, Want};

use crate::fixture::Postgres;

/// A database of the test's own in a server.
pub(crate) struct Database<'a> {
    pub(crate) server: &'a Postgres,
    pub(crate) name: &'a str,
    pub(crate) sql: tokio_postgres::Client,
}

impl<'a> Database<'a> {
    pub(crate) async fn create(server: &'a Postgres, name: &'a str, setup: &str) -> Self {
        let admin = server.session("postgres").await;
        admin.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let sql = server.session(name).await;
        sql.batch_execute(setup).await.unwrap();
        Self { server, name, sql }
    }

    pub(crate) fn source(&self) -> Source {
        Source::from_connector(self.server.connector(self.name), SourceOptions::default())
    }

    /// The source as another role sees it.
    pub(crate) fn source_as(&self, role: &str) -> Source {
        let rest = format!("{role}@127.0.0.1:{}/{}?sslmode=disable", self.server.port, self.name);
        Source::from_connector(self.server.connector_with(&rest), SourceOptions::default())
    }

    pub(crate) async fn control(&self) -> Control {
        self.source().connect().await.unwrap()
    }

    pub(crate) async fn tables(&self, schema: &str) -> Vec<SourceTable> {
        self.control().await.discover(&[schema.to_owned()]).await.unwrap()
    }

    pub(crate) async fn table(&self, name: &str) -> SourceTable {
        let tables = self.tables("public").await;
        let found = tables.into_iter().find(|table| table.name.name == name);
        found.unwrap_or_else(|| panic!("no table {name}"))
    }
}

pub(crate) fn column_names(table: &SourceTable) -> Vec<String> {
    table.columns.iter().map(|column| column.name.clone()).collect()
}

pub(crate) fn want(tables: Vec<SourceTable>, name: &str) -> Want {
    Want {
        tables,
        publication: format!("{name}_pub"),
        slot: format!("{name}_slot"),
        failover: false,
        iam_auth: false,
        sessions: 4,
        types: cdc_core::TypePolicy::default(),
    }
}

pub(crate) async fn backend_pid(client: &tokio_postgres::Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}
