//! One SQL session and the task that drives its socket.

use std::collections::BTreeMap;

use tokio::task::JoinHandle;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Row};

use super::Provider;
use crate::conn::{PINNED_SETTINGS, assert_pinned};
use crate::error::{Error, Result};

/// The oldest server that is supported, as `server_version_num`.
pub(super) const VERSION_MIN: u32 = 140_000;

/// A control session. Its socket is driven by a task that this value owns: [`Control::close`] ends
/// the session in order, dropping it cuts the socket at once, also in the middle of a COPY.
///
/// Cancelling a call leaves the session usable; the server may still finish the statement, at the
/// latest after [`SourceOptions::statement_timeout`](crate::SourceOptions).
#[derive(Debug)]
pub struct Control {
    client: Option<Client>,
    driver: JoinHandle<()>,
    version: u32,
    pub(super) named_provider: Option<Provider>,
}

impl Control {
    /// Checks a fresh session: a supported server, and every pinned setting as it must be.
    pub(super) async fn adopt(
        client: Client,
        driver: JoinHandle<()>,
        named_provider: Option<Provider>,
    ) -> Result<Self> {
        let mut control = Self { client: Some(client), driver, version: 0, named_provider };
        let shown = control.show_settings().await?;
        let found = shown.get("server_version_num").cloned().unwrap_or_default();
        control.version = match found.parse() {
            Ok(version) if version >= VERSION_MIN => version,
            _ => {
                let found = shown.get("server_version").cloned().unwrap_or(found);
                return Err(Error::Version { found });
            }
        };
        assert_pinned(&shown)?;
        Ok(control)
    }

    async fn show_settings(&self) -> Result<BTreeMap<String, String>> {
        let names = PINNED_SETTINGS.iter().map(|(name, _)| name.to_ascii_lowercase());
        let names: Vec<String> =
            names.chain(["server_version_num".into(), "server_version".into()]).collect();
        let sql = "SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings \
                   WHERE pg_catalog.lower(name) = ANY($1)";
        let rows = self.query("read the session settings", sql, &[&names]).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect()
    }

    /// `server_version_num`, such as 150018.
    pub fn server_version_num(&self) -> u32 {
        self.version
    }

    /// The client; it is there until [`Control::close`] takes it.
    fn client(&self) -> Result<&Client> {
        self.client.as_ref().ok_or(Error::TaskGone { task: "control session" })
    }

    pub(crate) async fn query(
        &self,
        context: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let rows = self.client()?.query(sql, parameters).await;
        rows.map_err(|source| Error::from_query(context, source))
    }

    /// A query that gives exactly one row.
    pub(crate) async fn query_one(
        &self,
        context: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row> {
        let row = self.client()?.query_one(sql, parameters).await;
        row.map_err(|source| Error::from_query(context, source))
    }

    /// Statements without parameters and without an answer.
    pub(crate) async fn execute(&self, context: &str, sql: &str) -> Result<()> {
        let done = self.client()?.batch_execute(sql).await;
        done.map_err(|source| Error::from_query(context, source))
    }

    /// Whether the socket is gone.
    pub fn is_closed(&self) -> bool {
        self.client.as_ref().is_none_or(Client::is_closed)
    }

    /// Ends the session in order and waits until the socket is closed.
    pub async fn close(mut self) {
        self.client = None;
        // the task ends by itself once it has sent Terminate; an abort or a panic ends it as well
        if let Err(error) = (&mut self.driver).await {
            tracing::debug!(%error, "control session task ended early");
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// One value of an answer.
pub(crate) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|source| Error::from_query("read an answer of the server", source))
}
