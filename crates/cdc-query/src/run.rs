//! The three ways to rows: a structured request, the changelog, SQL. All end in the same session,
//! limits and stream.

use std::sync::Arc;

use cdc_core::{Epoch, TableName};
use cdc_manifest::{Cut, TableRef};
use datafusion::dataframe::DataFrame;
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use futures::future::try_join_all;

use crate::access::TableAccess;
use crate::deadline::Deadline;
use crate::files::{SnapshotRef, TableFiles};
use crate::lake::{Lake, TableSide, find_sql_table};
use crate::rows::Rows;
use crate::session::{Engine, NamedTable};
use crate::sql::{CheckedSql, SqlTableName, check_plan, unique};
use crate::table::{DeletedRows, GovernedTable};
use crate::table_query::TableQuery;
use crate::{Error, Result, changes};

/// Stack of the thread that plans SQL: planning recurses over the statement.
const PLANNER_STACK_BYTES: usize = 32 * 1024 * 1024;

/// Which state of a table a structured request reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableState {
    /// The cut's.
    #[default]
    AtCut,
    /// As of the newest complete base, without the deltas behind it.
    AtBase,
}

/// A request for rows of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableRequest {
    /// Columns, conditions, order, limit.
    pub query: TableQuery,
    /// Which state.
    pub state: TableState,
    /// Whether soft-deleted rows are shown.
    pub deleted: DeletedRows,
}

/// A table that a statement reads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlTable {
    /// The table.
    pub table: TableName,
    /// Its current state or its changelog.
    pub side: TableSide,
    name: SqlTableName,
}

impl std::fmt::Display for SqlTable {
    /// The name as the statement has it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.name.fmt(f)
    }
}

impl Engine {
    /// Rows of the table that `access` was decided for.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] if the cut does not have it; of the request; of reading the lake.
    pub async fn query(
        &self,
        lake: &Lake,
        cut: &Cut,
        access: TableAccess,
        request: &TableRequest,
    ) -> Result<Rows> {
        let deadline = Deadline::after(self.limits().timeout);
        let files = async {
            match request.state {
                TableState::AtCut => files(lake, cut, access.table(), TableSide::Current).await,
                TableState::AtBase => base_files(lake, cut, access.table()).await,
            }
        };
        let files = deadline.bound(files).await??;
        let table = Arc::new(GovernedTable::new(access, files, request.deleted));
        let session = self.session(Vec::new())?;
        let frame = request.query.build(&table, scan(&session, table.clone())?)?;
        stream(frame, request.query.limit, deadline).await
    }

    /// Rows of the changelog with an epoch above `since`, in commit order.
    ///
    /// # Errors
    /// As [`Engine::query`].
    pub async fn changes(
        &self,
        lake: &Lake,
        cut: &Cut,
        access: TableAccess,
        since: Epoch,
        query: &TableQuery,
    ) -> Result<Rows> {
        let deadline = Deadline::after(self.limits().timeout);
        let files = files(lake, cut, access.table(), TableSide::Changes);
        let files = deadline.bound(files).await??;
        let table = Arc::new(GovernedTable::new(access, files, DeletedRows::Shown));
        let session = self.session(Vec::new())?;
        let frame = changes::build(&table, scan(&session, table.clone())?, since, query)?;
        stream(frame, query.limit, deadline).await
    }

    /// Rows of a statement over the tables that [`sql_tables`] found in it, each with its decision.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Unplannable`]; as [`Engine::query`].
    pub async fn sql(
        &self,
        lake: &Lake,
        cut: &Cut,
        statement: CheckedSql,
        tables: Vec<(SqlTable, TableAccess)>,
        limit: usize,
    ) -> Result<Rows> {
        let deadline = Deadline::after(self.limits().timeout);
        let load = async |(wanted, access): (SqlTable, TableAccess)| {
            let files = files(lake, cut, &wanted.table, wanted.side).await?;
            let provider = GovernedTable::new(access, files, DeletedRows::Hidden);
            let SqlTableName { schema, name } = wanted.name;
            Ok::<_, Error>(NamedTable { schema, name, provider: Arc::new(provider) })
        };
        let loaded = deadline.bound(try_join_all(tables.into_iter().map(load))).await??;
        let planning = plan_on_own_stack(self.session(loaded)?, statement);
        let (session, plan) = deadline.bound(planning).await??;
        check_plan(&plan)?;
        let frame = unique(DataFrame::new(session.state(), plan))?
            .limit(0, Some(limit.saturating_add(1)))
            .map_err(|error| Error::engine("plan", error))?;
        stream(frame, limit, deadline).await
    }
}

async fn stream(frame: DataFrame, limit: usize, deadline: Deadline) -> Result<Rows> {
    let planned = deadline.bound(frame.execute_stream()).await?;
    let stream = planned.map_err(|error| Error::engine("plan", error))?;
    Ok(Rows::new(stream, limit, deadline))
}

/// The tables of the cut that a statement reads, each once per name it is written with.
///
/// # Errors
/// [`Error::NoSuchTable`], [`Error::AmbiguousTable`].
pub fn sql_tables(cut: &Cut, statement: &CheckedSql) -> Result<Vec<SqlTable>> {
    let find = |name: SqlTableName| {
        let (table, side) = find_sql_table(cut, &name)?;
        Ok(SqlTable { table, side, name })
    };
    statement.tables()?.into_iter().map(find).collect()
}

/// Plans over the session's tables. The future is driven on a thread with a deep stack; all tables
/// are in the session, so it waits for nothing.
async fn plan_on_own_stack(
    session: SessionContext,
    statement: CheckedSql,
) -> Result<(SessionContext, LogicalPlan)> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let plan = move || {
        let planning = async {
            let state = session.state();
            let plan = state.statement_to_plan(statement.into_statement()).await?;
            state.optimize(&plan)
        };
        let planned = futures::executor::block_on(planning);
        let _ = send.send(planned.map(|plan| (session, plan)));
    };
    let failed = |cause: String| Error::Engine {
        operation: "plan",
        source: datafusion::error::DataFusionError::Internal(cause),
    };
    std::thread::Builder::new()
        .name("sql-planner".into())
        .stack_size(PLANNER_STACK_BYTES)
        .spawn(plan)
        .map_err(|error| failed(error.to_string()))?;
    let planned = receive.await.map_err(|_| failed("the planner panicked".into()))?;
    planned.map_err(|error| Error::engine("plan", error))
}

fn scan(session: &SessionContext, table: Arc<GovernedTable>) -> Result<DataFrame> {
    let scan = LogicalPlanBuilder::scan("t", provider_as_source(table), None)
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| Error::engine("plan", error))?;
    Ok(DataFrame::new(session.state(), scan))
}

fn entry<'c>(cut: &'c Cut, table: &TableName) -> Result<&'c TableRef> {
    cut.tables.get(table).ok_or_else(|| Error::NoSuchTable(table.to_string()))
}

async fn files(lake: &Lake, cut: &Cut, table: &TableName, side: TableSide) -> Result<TableFiles> {
    let entry = entry(cut, table)?;
    let (location, snapshot_id) = match side {
        TableSide::Current => (&entry.metadata_location, entry.snapshot_id),
        TableSide::Changes => (&entry.changes_metadata_location, entry.changes_snapshot_id),
    };
    // a table whose first snapshot is still being taken
    let metadata_location =
        location.as_deref().ok_or_else(|| Error::NoSuchTable(table.to_string()))?;
    TableFiles::load(lake.files(), SnapshotRef { table, metadata_location, snapshot_id }).await
}

async fn base_files(lake: &Lake, cut: &Cut, table: &TableName) -> Result<TableFiles> {
    let manifest = lake.manifest().await?;
    let base = manifest.tables.get(table).and_then(|entry| entry.base_path.clone());
    let base = base.ok_or_else(|| Error::NoBase(table.to_string()))?;
    let entry = entry(cut, table)?;
    let metadata_location =
        entry.metadata_location.as_deref().ok_or_else(|| Error::NoBase(table.to_string()))?;
    let at = SnapshotRef { table, metadata_location, snapshot_id: entry.snapshot_id };
    TableFiles::load_base(lake.files(), at, &base).await
}
