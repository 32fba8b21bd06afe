//! Names of columns that the statement does not name, as PostgreSQL gives them: `count`, not
//! `count(*)`. They go to people and programs, so they hold nothing of the engine's own notation.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, Select, SelectItem, SetExpr, Statement};

/// Names what the outermost SELECT leaves unnamed. A name that is taken gets a number behind it.
pub(super) fn name_outputs(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        query_outputs(query);
    }
}

fn query_outputs(query: &mut Query) {
    body_outputs(&mut query.body);
}

/// The first SELECT of a set operation gives the names.
fn body_outputs(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => select_outputs(select),
        SetExpr::Query(query) => query_outputs(query),
        SetExpr::SetOperation { left, .. } => body_outputs(left),
        _ => {}
    }
}

fn select_outputs(select: &mut Select) {
    let mut taken: HashSet<String> = select.projection.iter().filter_map(given_name).collect();
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else { continue };
        if given_name_of(expr).is_some() {
            continue;
        }
        let base = made_name(expr).unwrap_or_else(|| "?column?".to_owned());
        let mut name = base.clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            name = format!("{base}_{number}");
            number += 1;
        }
        let alias = Ident::with_quote('"', name);
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
}

fn given_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(expr) => given_name_of(expr),
        SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
        SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => None,
    }
}

/// The name of a plain column.
fn given_name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(folded(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(folded),
        _ => None,
    }
}

fn made_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => given_name_of(expr),
        Expr::Nested(inner) => made_name(inner),
        Expr::CompoundFieldAccess { root, .. } => made_name(root),
        Expr::Cast { expr, data_type, .. } => {
            made_name(expr).or_else(|| Some(data_type.to_string().to_lowercase()))
        }
        Expr::Function(function) => {
            function.name.0.last().and_then(|part| part.as_ident()).map(folded)
        }
        Expr::Case { .. } => Some("case".into()),
        Expr::Exists { .. } => Some("exists".into()),
        Expr::Extract { .. } => Some("extract".into()),
        Expr::Substring { .. } => Some("substring".into()),
        Expr::Position { .. } => Some("position".into()),
        Expr::Trim { .. } => Some("btrim".into()),
        Expr::Overlay { .. } => Some("overlay".into()),
        Expr::Ceil { .. } => Some("ceil".into()),
        Expr::Floor { .. } => Some("floor".into()),
        Expr::AtTimeZone { .. } => Some("timezone".into()),
        Expr::Array(_) => Some("array".into()),
        _ => None,
    }
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_lowercase() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    #[test]
    fn unnamed_outputs_are_named_as_postgresql_does() {
        let cases = [
            ("SELECT a, b.c, *", "SELECT a, b.c, *"),
            (
                "SELECT count(*), Count(x), 1 + 1",
                r#"SELECT count(*) AS "count", Count(x) AS "count_2", 1 + 1 AS "?column?""#,
            ),
            ("SELECT x::TEXT, x", r#"SELECT x::TEXT AS "x_2", x"#),
            ("SELECT (SELECT max(a)) AS m", "SELECT (SELECT max(a)) AS m"),
            ("SELECT sum(a) UNION SELECT min(a)", r#"SELECT sum(a) AS "sum" UNION SELECT min(a)"#),
        ];
        for (sql, expected) in cases {
            let mut parsed = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
            name_outputs(&mut parsed);
            assert_eq!(parsed.to_string(), expected);
        }
    }
}
