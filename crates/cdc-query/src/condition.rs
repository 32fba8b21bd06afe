//! One condition `column:operator:value` of a structured request.

use std::str::FromStr;

use cdc_core::StoredType;
use datafusion::logical_expr::expr::Like;
use datafusion::logical_expr::{Expr, lit, not};
use datafusion::scalar::ScalarValue;

use crate::literal;
use crate::{Error, Result};

/// The operators of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal.
    Eq,
    /// Not equal; NULL is neither.
    Ne,
    /// Greater.
    Gt,
    /// Greater or equal.
    Gte,
    /// Less.
    Lt,
    /// Less or equal.
    Lte,
    /// SQL LIKE with `%`, `_` and backslash; text columns only.
    Like,
    /// One of several values, separated by `|`.
    In,
    /// IS NULL; takes no value.
    IsNull,
    /// IS NOT NULL; takes no value.
    NotNull,
}

const OPERATORS: [(&str, Operator); 10] = [
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("gt", Operator::Gt),
    ("gte", Operator::Gte),
    ("lt", Operator::Lt),
    ("lte", Operator::Lte),
    ("like", Operator::Like),
    ("in", Operator::In),
    ("isnull", Operator::IsNull),
    ("notnull", Operator::NotNull),
];

/// Most values of one `in`.
pub const IN_VALUES_MAX: usize = 1_000;

/// A condition as text; the value is given its type when the column is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Column name.
    pub column: String,
    /// Operator.
    pub operator: Operator,
    /// Value text; empty for operators without one.
    pub value: String,
}

impl FromStr for Condition {
    type Err = Error;

    /// Column and operator end at the first two colons; the value may hold colons.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ':');
        let (column, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let value = parts.next();
        let bad =
            |reason: String| Error::BadCondition { condition: format!("{column}:{name}"), reason };
        if column.is_empty() || name.is_empty() {
            return Err(bad("it has not the form column:operator:value".into()));
        }
        let Some((_, operator)) = OPERATORS.iter().find(|(known, _)| *known == name) else {
            let known = OPERATORS.map(|(known, _)| known).join(" ");
            return Err(bad(format!("unknown operator; hint: one of {known}")));
        };
        let takes_value = !matches!(operator, Operator::IsNull | Operator::NotNull);
        match (takes_value, value) {
            (true, None) => return Err(bad("the value is missing".into())),
            (false, Some(value)) if !value.is_empty() => {
                return Err(bad("the operator takes no value".into()));
            }
            _ => {}
        }
        Ok(Condition {
            column: column.to_owned(),
            operator: *operator,
            value: value.unwrap_or_default().to_owned(),
        })
    }
}

impl Condition {
    /// The condition over `column`, an expression of type `stored`.
    ///
    /// # Errors
    /// [`Error::BadCondition`] when the value is not of the type or the operator does not fit it.
    pub(crate) fn to_expr(&self, column: Expr, stored: &StoredType) -> Result<Expr> {
        let value = |text: &str| literal::parse(text, stored).map_err(|reason| self.bad(reason));
        Ok(match self.operator {
            Operator::IsNull => column.is_null(),
            Operator::NotNull => column.is_not_null(),
            Operator::Like if *stored != StoredType::String => {
                return Err(self.bad("like needs a text column"));
            }
            Operator::Like => {
                let pattern = lit(ScalarValue::Utf8View(Some(self.value.clone())));
                Expr::Like(Like::new(false, Box::new(column), Box::new(pattern), None, false))
            }
            Operator::In => {
                let values: Vec<&str> = self.value.split('|').collect();
                if values.len() > IN_VALUES_MAX {
                    return Err(self.bad("more than 1000 values"));
                }
                let parsed = values.into_iter().map(value).collect::<Result<Vec<_>>>()?;
                one_of(column, parsed)
            }
            operator => compare(column, operator, value(&self.value)?),
        })
    }

    fn bad(&self, reason: &str) -> Error {
        let name = OPERATORS.iter().find(|(_, op)| *op == self.operator).map_or("", |(n, _)| n);
        let condition = format!("{}:{name}", self.column);
        Error::BadCondition { condition, reason: reason.to_owned() }
    }
}

fn one_of(column: Expr, values: Vec<ScalarValue>) -> Expr {
    if !values.iter().any(is_zero) {
        return column.in_list(values.into_iter().map(lit).collect(), false);
    }
    let any = values.into_iter().map(|value| compare(column.clone(), Operator::Eq, value));
    any.reduce(Expr::or).unwrap_or_else(|| lit(false))
}

/// Compares as PostgreSQL does. The engine orders −0 below +0, so a comparison with zero names the
/// zero at the right end; NaN is above all numbers and equal to itself in both.
fn compare(column: Expr, operator: Operator, value: ScalarValue) -> Expr {
    if !is_zero(&value) {
        let value = lit(value);
        return match operator {
            Operator::Eq => column.eq(value),
            Operator::Ne => column.not_eq(value),
            Operator::Gt => column.gt(value),
            Operator::Gte => column.gt_eq(value),
            Operator::Lt => column.lt(value),
            _ => column.lt_eq(value),
        };
    }
    let (low, high) = zeros(&value);
    match operator {
        Operator::Eq => column.clone().gt_eq(low).and(column.lt_eq(high)),
        Operator::Ne => not(column.clone().gt_eq(low).and(column.lt_eq(high))),
        Operator::Gt => column.gt(high),
        Operator::Gte => column.gt_eq(low),
        Operator::Lt => column.lt(low),
        _ => column.lt_eq(high),
    }
}

fn is_zero(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float32(Some(value)) => *value == 0.0,
        ScalarValue::Float64(Some(value)) => *value == 0.0,
        _ => false,
    }
}

fn zeros(value: &ScalarValue) -> (Expr, Expr) {
    match value {
        ScalarValue::Float32(_) => (lit(-0.0f32), lit(0.0f32)),
        _ => (lit(-0.0f64), lit(0.0f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::logical_expr::col;

    #[test]
    fn conditions_read_and_say_what_is_wrong() {
        let long = StoredType::Int64;
        let cases = [
            ("amount:gt:100", &long, "amount > Int64(100)"),
            ("amount:in:1|2", &long, "amount IN ([Int64(1), Int64(2)])"),
            ("amount:isnull", &long, "amount IS NULL"),
            ("note:eq:a:b", &StoredType::String, "note = Utf8View(\"a:b\")"),
            ("note:like:a%", &StoredType::String, "note LIKE Utf8View(\"a%\")"),
            ("x:lt:0", &StoredType::Float64, "x < Float64(-0)"),
            ("x:eq:0", &StoredType::Float64, "x >= Float64(-0) AND x <= Float64(0)"),
            ("amount:gt:ten", &long, "condition `amount:gt`: the value is not a whole number"),
            ("amount:gt", &long, "condition `amount:gt`: the value is missing"),
            ("amount:like:1%", &long, "condition `amount:like`: like needs a text column"),
            ("amount", &long, "condition `amount:`: it has not the form column:operator:value"),
        ];
        for (text, stored, expected) in cases {
            let built = text
                .parse::<Condition>()
                .and_then(|condition| condition.to_expr(col(&condition.column), stored));
            let shown = built.map_or_else(|error| error.to_string(), |expr| expr.to_string());
            assert_eq!(shown, expected);
        }
    }
}
