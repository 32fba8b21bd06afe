//! Row filters: a small language of comparisons between a column and literals, whose meaning is
//! three-valued and whose evaluation cannot fail.
//!
//! ```text
//! filter     = and { OR and }
//! and        = not { AND not }
//! not        = NOT not | "(" filter ")" | test
//! test       = column ( "=" | "<>" | "!=" | "<" | "<=" | ">" | ">=" ) literal
//!            | column [NOT] BETWEEN literal AND literal
//!            | column [NOT] IN "(" literal { "," literal } ")"
//!            | column [NOT] LIKE text
//!            | column IS [NOT] NULL
//! literal    = number | 'text' | TRUE | FALSE
//! ```

mod eval;
mod lex;
mod literal;
mod parse;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::{ColumnKind, Error, Result, TableShape};

pub use eval::Value;
pub use literal::Literal;

/// Characters of a filter, as in Lake Formation.
pub const FILTER_CHARS_MAX: usize = 2048;

/// How a column and a literal are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`, `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// The structure of a filter, for those who compile it for an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the operands, in the order of the text")]
pub enum Predicate {
    /// `column op literal`.
    Compare { column: String, comparison: Comparison, literal: Literal },
    /// `column BETWEEN low AND high`, both included.
    Between { column: String, low: Literal, high: Literal },
    /// `column IN (…)`; at least one literal.
    In { column: String, literals: Vec<Literal> },
    /// `column LIKE pattern`, with `%`, `_` and `\` as escape.
    Like { column: String, pattern: String },
    /// `column IS NULL`.
    IsNull { column: String },
    /// Not; unknown stays unknown.
    Not(Box<Predicate>),
    /// Both.
    And(Box<Predicate>, Box<Predicate>),
    /// One or both.
    Or(Box<Predicate>, Box<Predicate>),
}

/// A row filter that was parsed. Equal texts are equal filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFilter {
    text: String,
    predicate: Predicate,
}

impl RowFilter {
    /// The structure.
    pub fn predicate(&self) -> &Predicate {
        &self.predicate
    }

    /// The columns it reads.
    pub fn columns(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        collect_columns(&self.predicate, &mut found);
        found
    }

    /// Whether every column exists and every literal is a value of its column, so that evaluation
    /// cannot fail.
    ///
    /// # Errors
    /// [`Error::RowFilter`].
    pub fn check(&self, table: &TableShape) -> Result<()> {
        check(&self.predicate, table).map_err(|reason| Error::RowFilter { reason })
    }

    /// Whether it holds for a row; `None` is unknown, for which the row is hidden too. The reference
    /// that every engine must agree with.
    pub fn eval(&self, row: &dyn Fn(&str) -> Value) -> Option<bool> {
        eval::eval(&self.predicate, row)
    }
}

impl FromStr for RowFilter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let predicate = parse::parse(text).map_err(|reason| Error::RowFilter { reason })?;
        Ok(RowFilter { text: text.to_owned(), predicate })
    }
}

impl fmt::Display for RowFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn collect_columns<'p>(predicate: &'p Predicate, found: &mut BTreeSet<&'p str>) {
    match predicate {
        Predicate::Compare { column, .. }
        | Predicate::Between { column, .. }
        | Predicate::In { column, .. }
        | Predicate::Like { column, .. }
        | Predicate::IsNull { column } => {
            found.insert(column);
        }
        Predicate::Not(inner) => collect_columns(inner, found),
        Predicate::And(left, right) | Predicate::Or(left, right) => {
            collect_columns(left, found);
            collect_columns(right, found);
        }
    }
}

fn check(predicate: &Predicate, table: &TableShape) -> Result<(), String> {
    let kind = |column: &str| {
        let found = table.column(column).map(|column| column.kind);
        found.ok_or_else(|| format!("there is no column `{column}`"))
    };
    let fits = |column: &str, literals: &[&Literal]| {
        let kind = kind(column)?;
        match literals.iter().all(|literal| literal.fits(kind)) {
            true => Ok(()),
            false => Err(format!("a literal is no value of column `{column}`")),
        }
    };
    match predicate {
        Predicate::Compare { column, literal, .. } => fits(column, &[literal]),
        Predicate::Between { column, low, high } => fits(column, &[low, high]),
        Predicate::In { column, literals } => fits(column, &literals.iter().collect::<Vec<_>>()),
        Predicate::Like { column, .. } => match kind(column)? {
            ColumnKind::Text => Ok(()),
            _ => Err(format!("LIKE needs text, and column `{column}` is not")),
        },
        Predicate::IsNull { column } => kind(column).map(drop),
        Predicate::Not(inner) => check(inner, table),
        Predicate::And(left, right) | Predicate::Or(left, right) => {
            check(left, table)?;
            check(right, table)
        }
    }
}
