//! The read plane: one method per operation, the same for every surface.
//!
//! ```text
//! caller -> role allowed? -> cut (waits for min_lsn) -> decision per table -> rows -> evidence
//! ```

use std::sync::Arc;
use std::time::Duration;

use cdc_core::{Clock, Epoch, Lsn, TableName};
use cdc_manifest::{Cut, CutSpec, Manifest};
use cdc_query::{
    CheckedSql, Engine, Lake, Rows, SqlTable, TableAccess, TableQuery, TableRequest, TableState,
    find_table, sql_tables,
};

use crate::caller::{Caller, Decisions, LocalPolicy};
use crate::evidence::Evidence;
use crate::{Error, Result};

/// How long an answer waits for `min_lsn` unless the caller says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_millis(5_000);

/// Which cut is asked for, and whether to wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRequest {
    /// The cut.
    pub at: CutSpec,
    /// Wait until the cut covers this position; with `main` and branches only.
    pub min_lsn: Option<Lsn>,
    /// How long to wait at most.
    pub wait: Duration,
}

impl Default for CutRequest {
    fn default() -> Self {
        Self { at: CutSpec::Main, min_lsn: None, wait: DEFAULT_WAIT }
    }
}

/// The rows of an answer and what is to be said of them.
#[derive(Debug)]
pub struct Answer {
    /// The rows.
    pub rows: Rows,
    evidence: Evidence,
}

impl Answer {
    /// The evidence; `truncated` is final once the rows are read.
    pub fn evidence(&self) -> Evidence {
        Evidence { truncated: self.rows.truncated(), ..self.evidence.clone() }
    }
}

/// The operations of the read plane on one lake.
#[derive(Clone)]
pub struct ReadPlane {
    lake: Lake,
    engine: Engine,
    policy: LocalPolicy,
    clock: Arc<dyn Clock>,
}

impl ReadPlane {
    /// Over a lake, with the policy of a deployment without governance.
    pub fn new(lake: Lake, engine: Engine, policy: LocalPolicy, clock: Arc<dyn Clock>) -> Self {
        Self { lake, engine, policy, clock }
    }

    /// Rows of one table.
    ///
    /// # Errors
    /// See [`Error::code`]; a table that is not visible is not found.
    pub async fn query(
        &self,
        caller: &Caller,
        table: &str,
        request: &TableRequest,
        at: &CutRequest,
    ) -> Result<Answer> {
        let manifest = self.manifest().await?;
        let decisions = self.policy.decide(caller, &manifest)?;
        let cut = self.cut(at).await?;
        let (table, access) = visible(&cut, table, &decisions)?;
        let rows = self.engine.query(&self.lake, &cut, access, request).await?;
        let mut evidence = self.evidence(&cut, std::slice::from_ref(&table), caller).await?;
        if request.state == TableState::AtBase {
            of_base(&mut evidence, &cut, &table);
        }
        Ok(Answer { rows, evidence })
    }

    /// Rows of a table's changelog behind an epoch, in commit order.
    ///
    /// # Errors
    /// See [`Error::code`].
    pub async fn changes(
        &self,
        caller: &Caller,
        table: &str,
        since: Epoch,
        query: &TableQuery,
        at: &CutRequest,
    ) -> Result<Answer> {
        let manifest = self.manifest().await?;
        let decisions = self.policy.decide(caller, &manifest)?;
        let cut = self.cut(at).await?;
        let (table, access) = visible(&cut, table, &decisions)?;
        // read after the cut, so that no gap of the cut is missing here
        expect_complete(&self.manifest().await?, &table, since, cut.epoch)?;
        let rows = self.engine.changes(&self.lake, &cut, access, since, query).await?;
        let evidence = self.evidence(&cut, &[table], caller).await?;
        Ok(Answer { rows, evidence })
    }

    /// Rows of a SELECT statement.
    ///
    /// # Errors
    /// See [`Error::code`]; a table that is not visible is not found.
    pub async fn sql(
        &self,
        caller: &Caller,
        sql: &str,
        limit: usize,
        at: &CutRequest,
    ) -> Result<Answer> {
        let statement = CheckedSql::parse(sql)?;
        let manifest = self.manifest().await?;
        let decisions = self.policy.decide(caller, &manifest)?;
        let cut = self.cut(at).await?;
        let with_access = |table: SqlTable| match decisions.access(&table.table) {
            Some(access) => Ok((table, access)),
            None => Err(cdc_query::Error::NoSuchTable(table.to_string())),
        };
        let tables = sql_tables(&cut, &statement)?;
        let named: Vec<TableName> = tables.iter().map(|table| table.table.clone()).collect();
        let tables = tables.into_iter().map(with_access).collect::<Result<_, _>>()?;
        let rows = self.engine.sql(&self.lake, &cut, statement, tables, limit).await?;
        let evidence = self.evidence(&cut, &named, caller).await?;
        Ok(Answer { rows, evidence })
    }

    pub(crate) async fn manifest(&self) -> Result<Manifest> {
        Ok(self.lake.manifest().await?)
    }

    pub(crate) fn policy(&self) -> &LocalPolicy {
        &self.policy
    }

    pub(crate) async fn cut(&self, request: &CutRequest) -> Result<Cut> {
        let Some(min_lsn) = request.min_lsn else { return Ok(self.lake.cut(&request.at).await?) };
        let moves = match &request.at {
            CutSpec::Main => true,
            CutSpec::Named(name) => !name.starts_with("raw@"),
            CutSpec::Epoch(_) | CutSpec::Lsn(_) | CutSpec::AsOf(_) => false,
        };
        if !moves {
            return Err(Error::BadRequest(
                "min-lsn cannot be combined with a cut that does not move".into(),
            ));
        }
        Ok(self.lake.cut_covering(&request.at, min_lsn, request.wait).await?)
    }

    pub(crate) async fn evidence(
        &self,
        cut: &Cut,
        tables: &[TableName],
        caller: &Caller,
    ) -> Result<Evidence> {
        let freshness = self.lake.freshness(cut).await?;
        Ok(Evidence::of(cut, freshness, tables, caller, self.clock.now()))
    }
}

fn visible(cut: &Cut, name: &str, decisions: &Decisions<'_>) -> Result<(TableName, TableAccess)> {
    let table = find_table(cut, name)?;
    match decisions.access(&table) {
        Some(access) => Ok((table, access)),
        None => Err(cdc_query::Error::NoSuchTable(name.to_owned()).into()),
    }
}

/// Refuses changes of the epochs above `since` up to `until` if the changelog lacks some of them.
fn expect_complete(
    manifest: &Manifest,
    table: &TableName,
    since: Epoch,
    until: Epoch,
) -> Result<()> {
    let entry = manifest.tables.get(table);
    let Some(gap) = entry.and_then(|entry| entry.gap_between(since, until)) else { return Ok(()) };
    let oldest_epoch = gap.epoch_to.unwrap_or(manifest.epoch).0;
    Err(cdc_query::Error::Expired { table: table.to_string(), oldest_epoch }.into())
}

/// The base stands for its own epoch, whose position the manifest does not keep, except that of the
/// cut when they are the same.
fn of_base(evidence: &mut Evidence, cut: &Cut, table: &TableName) {
    let Some(entry) = cut.tables.get(table) else { return };
    if entry.base_epoch != cut.epoch {
        evidence.epoch = entry.base_epoch.0;
        evidence.commit_lsn = None;
        evidence.as_of = None;
    }
}
