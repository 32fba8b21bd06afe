//! Names of columns that a statement leaves unnamed. PostgreSQL lets two columns of a SELECT have one
//! name; the engine does not plan them, and no reader could tell them apart.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::Expr as PlanExpr;
use datafusion::sql::sqlparser::ast::{
    Ident, Query, SelectItem, SetExpr, Statement, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::{Error, Result};

/// Numbers the second and every later unnamed column of a SELECT that is written like one before it:
/// `count(*), count(*)` gives `count(*)` and `count(*)_2`.
pub(super) fn tell_apart(statement: &mut Statement) {
    let _: ControlFlow<()> = statement.visit(&mut Numbering);
}

/// The frame with the names of its columns told apart, as after a join of tables that share some.
///
/// # Errors
/// [`Error::Engine`] if the engine does not take the new names.
pub(crate) fn unique(frame: DataFrame) -> Result<DataFrame> {
    let names: Vec<String> =
        frame.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut taken = Names::of(names.iter().cloned());
    if taken.0.len() == names.len() {
        return Ok(frame);
    }
    let mut seen: HashSet<&String> = HashSet::new();
    let columns: Vec<PlanExpr> = names
        .iter()
        .zip(frame.schema().columns())
        .map(|(name, column)| match seen.insert(name) {
            true => PlanExpr::Column(column),
            false => PlanExpr::Column(column).alias(taken.numbered(name)),
        })
        .collect();
    frame.select(columns).map_err(|error| Error::engine("plan", error))
}

struct Numbering;

impl VisitorMut for Numbering {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        body(&mut query.body);
        ControlFlow::Continue(())
    }
}

/// Subqueries have their own visit.
fn body(set: &mut SetExpr) {
    match set {
        SetExpr::Select(select) => columns(&mut select.projection),
        SetExpr::SetOperation { left, right, .. } => {
            body(left);
            body(right);
        }
        _ => {}
    }
}

fn columns(items: &mut [SelectItem]) {
    let written: Vec<Option<String>> = items.iter().map(written).collect();
    let mut names = Names::of(written.iter().flatten().cloned());
    let mut seen: HashSet<&String> = HashSet::new();
    for (item, written) in items.iter_mut().zip(&written) {
        let Some(text) = written else { continue };
        if seen.insert(text) {
            continue;
        }
        if let SelectItem::UnnamedExpr(expr) = item {
            let alias = Ident::with_quote('"', names.numbered(text));
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// An unnamed column as it would be written without freedom of case.
fn written(item: &SelectItem) -> Option<String> {
    let SelectItem::UnnamedExpr(expr) = item else { return None };
    let text = expr.to_string();
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, &text).tokenize() else {
        return Some(text);
    };
    let folded = tokens.into_iter().map(|token| match token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_lowercase(),
        other => other.to_string(),
    });
    Some(folded.collect())
}

/// Names in use.
struct Names(HashSet<String>);

impl Names {
    fn of(names: impl Iterator<Item = String>) -> Names {
        Names(names.collect())
    }

    /// The first of `name_2`, `name_3`, … that is free, taken from now on.
    fn numbered(&mut self, name: &str) -> String {
        let mut number = 2;
        loop {
            let candidate = format!("{name}_{number}");
            if self.0.insert(candidate.clone()) {
                return candidate;
            }
            number += 1;
        }
    }
}
