//! SQL of a caller, from text to rows.
//!
//! ```text
//! text -> gate (tokens) -> parse -> shape (syntax) -> tables wanted -> [policy decides per table]
//!      -> plan over those tables only -> plan allow-list -> run
//! ```
//! A [`CheckedSql`] exists only for text that passed the first three steps, and running it needs a
//! decision for every table it names.

mod gate;
mod names;
mod plan;
mod shape;

use datafusion::sql::TableReference;
use datafusion::sql::parser::{DFParserBuilder, Statement as ParsedStatement};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;

pub(crate) use names::unique;
pub(crate) use plan::check_plan;

use crate::{Error, Result};

/// Stack of the thread that parses: the depth that the gate lets through, with a wide margin.
const PARSER_STACK_BYTES: usize = 32 * 1024 * 1024;
/// Deepest recursion of the parser itself; each level of nesting takes several.
const PARSER_RECURSION_MAX: usize = 320;

/// One statement that may be planned.
#[derive(Clone, Debug)]
pub struct CheckedSql {
    statement: ParsedStatement,
    tables: Vec<TableReference>,
}

/// A table as the statement names it: parts are folded to lower case unless quoted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlTableName {
    /// Schema, where one was written.
    pub schema: Option<String>,
    /// Table, or `<table>__changes`.
    pub name: String,
}

impl std::fmt::Display for SqlTableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl CheckedSql {
    /// Reads a statement.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the rule, [`Error::Syntax`].
    pub fn parse(sql: &str) -> Result<CheckedSql> {
        gate::check(sql)?;
        let sql = sql.to_owned();
        std::thread::Builder::new()
            .name("sql-parser".into())
            .stack_size(PARSER_STACK_BYTES)
            .spawn(move || parse(&sql))
            .map_err(|error| thread_failed(error.into()))?
            .join()
            .map_err(|_| thread_failed("the parser panicked".into()))?
    }

    /// The tables that the statement reads, each once; common table expressions are not among them.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] for a name of more than two parts.
    pub fn tables(&self) -> Result<Vec<SqlTableName>> {
        let name = |table: &TableReference| match table {
            TableReference::Bare { table } => {
                Ok(SqlTableName { schema: None, name: table.to_string() })
            }
            TableReference::Partial { schema, table } => {
                Ok(SqlTableName { schema: Some(schema.to_string()), name: table.to_string() })
            }
            TableReference::Full { .. } => Err(Error::NoSuchTable(table.to_string())),
        };
        self.tables.iter().map(name).collect()
    }

    pub(crate) fn into_statement(self) -> ParsedStatement {
        self.statement
    }
}

fn parse(sql: &str) -> Result<CheckedSql> {
    let dialect = PostgreSqlDialect {};
    let parsed = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .with_recursion_limit(PARSER_RECURSION_MAX)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| Error::engine("plan", error))?;
    let mut statements = parsed.into_iter();
    let (Some(mut statement), None) = (statements.next(), statements.next()) else {
        return gate::refused("one statement", "the SQL has more than one statement");
    };
    match &mut statement {
        ParsedStatement::Statement(inner) => {
            shape::check(inner)?;
            names::tell_apart(inner);
        }
        _ => return gate::refused("select only", "only SELECT is available"),
    }
    let (tables, _ctes) =
        resolve_table_references(&statement, true).map_err(|error| Error::engine("plan", error))?;
    Ok(CheckedSql { statement, tables })
}

fn thread_failed(cause: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let source = datafusion::error::DataFusionError::External(cause);
    Error::Engine { operation: "parse", source }
}
