//! The gate behind the parser: which statements, clauses and sources of rows may be written.
//! Everything that is not on the list is refused, whatever the parser learns in a later version.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Query, Select, SetExpr, Statement, TableFactor, Visit, Visitor, With,
};

use super::gate::refused;
use crate::condition::IN_VALUES_MAX;
use crate::{Error, Result};

/// Most common table expressions of a statement.
pub(super) const SQL_CTES_MAX: usize = 8;
/// Most queries, subqueries included.
pub(super) const SQL_QUERIES_MAX: usize = 64;

/// Accepts a query made of SELECT, VALUES, set operations, WITH, joins and subqueries.
///
/// # Errors
/// [`Error::Refused`] naming the rule.
pub(crate) fn check(statement: &Statement) -> Result<()> {
    let Statement::Query(_) = statement else {
        return refused("select only", "only SELECT is available");
    };
    match statement.visit(&mut Shape::default()) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

#[derive(Default)]
struct Shape {
    queries: usize,
    ctes: usize,
}

impl Visitor for Shape {
    type Break = Error;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Error> {
        match statement {
            Statement::Query(_) => ControlFlow::Continue(()),
            _ => stop(refused("select only", "only SELECT is available")),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        stop(self.query(query))
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<Error> {
        stop(source_of_rows(factor))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::InList { list, .. } if list.len() > IN_VALUES_MAX => {
                stop(refused("in list", "an IN list has more than 1000 values"))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

impl Shape {
    fn query(&mut self, query: &Query) -> Result<()> {
        self.queries += 1;
        if self.queries > SQL_QUERIES_MAX {
            return refused("queries", "the SQL has more than 64 subqueries");
        }
        if let Some(with) = &query.with {
            self.with(with)?;
        }
        query_clauses(query)?;
        body(&query.body)
    }

    fn with(&mut self, with: &With) -> Result<()> {
        self.ctes += with.cte_tables.len();
        if with.recursive {
            return refused("recursive", "WITH RECURSIVE is not available");
        }
        if self.ctes > SQL_CTES_MAX {
            return refused("ctes", "the SQL has more than 8 common table expressions");
        }
        Ok(())
    }
}

fn stop(checked: Result<()>) -> ControlFlow<Error> {
    checked.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

fn query_clauses(query: &Query) -> Result<()> {
    if !query.locks.is_empty() {
        return refused("locks", "FOR UPDATE and FOR SHARE are not available");
    }
    let foreign = query.for_clause.is_some()
        || query.settings.is_some()
        || query.format_clause.is_some()
        || !query.pipe_operators.is_empty();
    if foreign {
        return refused("clauses", "a clause of another database is not available");
    }
    Ok(())
}

fn body(body: &SetExpr) -> Result<()> {
    match body {
        SetExpr::Select(select) => select_clauses(select),
        // its own visit checks it
        SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, right, .. } => {
            self::body(left)?;
            self::body(right)
        }
        _ => refused("select only", "only SELECT is available"),
    }
}

fn select_clauses(select: &Select) -> Result<()> {
    if select.into.is_some() {
        return refused("select only", "SELECT INTO is not available");
    }
    let foreign = select.top.is_some()
        || !select.lateral_views.is_empty()
        || select.prewhere.is_some()
        || !select.connect_by.is_empty()
        || !select.cluster_by.is_empty()
        || !select.distribute_by.is_empty()
        || !select.sort_by.is_empty()
        || select.value_table_mode.is_some();
    if foreign {
        return refused("clauses", "a clause of another database is not available");
    }
    Ok(())
}

fn source_of_rows(factor: &TableFactor) -> Result<()> {
    match factor {
        TableFactor::Table {
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
            ..
        } if with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => Ok(()),
        TableFactor::Derived { lateral: false, sample: None, .. }
        | TableFactor::NestedJoin { .. } => Ok(()),
        TableFactor::Table { sample: Some(_), .. } => {
            refused("tablesample", "TABLESAMPLE is not available")
        }
        _ => refused("table functions", "rows come from tables and subqueries only"),
    }
}
