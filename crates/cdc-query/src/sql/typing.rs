//! A text literal beside a typed expression is a value of that type, as in PostgreSQL:
//! `id = '5'`, `day >= '2026-05-04'`, `ref IN ('0198…')`. The engine alone would compare texts.

use cdc_core::StoredType;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, InList};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::literal;

/// Types literals in comparisons while they are planned, and in IN and BETWEEN behind that.
#[derive(Debug)]
pub(crate) struct TypedLiterals;

impl ExprPlanner for TypedLiterals {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let compares = matches!(
            expr.op,
            BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        );
        if compares {
            expr.right = typed(expr.right, &expr.left, schema)?;
            expr.left = typed(expr.left, &expr.right, schema)?;
        }
        Ok(PlannerResult::Original(expr))
    }
}

impl AnalyzerRule for TypedLiterals {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let schema = merge_schema(&plan.inputs());
            let names = NamePreserver::new(&plan);
            let rewritten = plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let typed = expr.transform_up(|expr| within(expr, &schema))?;
                Ok(typed.update_data(|expr| name.restore(expr)))
            })?;
            rewritten.map_data(LogicalPlan::recompute_schema)
        })
        .data()
    }

    fn name(&self) -> &str {
        "typed_literals"
    }
}

fn within(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::InList(InList { expr, list, negated }) => {
            let list = list.into_iter().map(|item| typed(item, &expr, schema));
            let list = list.collect::<Result<Vec<_>>>()?;
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::Between(Between { expr, negated, low, high }) => {
            let low = Box::new(typed(*low, &expr, schema)?);
            let high = Box::new(typed(*high, &expr, schema)?);
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        other => Transformed::no(other),
    })
}

/// `expr` in the type of `beside`, if it is a text literal and that has a type of another kind.
fn typed(expr: Expr, beside: &Expr, schema: &DFSchema) -> Result<Expr> {
    let text = match &expr {
        Expr::Literal(
            ScalarValue::Utf8(Some(text))
            | ScalarValue::LargeUtf8(Some(text))
            | ScalarValue::Utf8View(Some(text)),
            _,
        ) => text.trim(),
        _ => return Ok(expr),
    };
    let Some(stored) = beside.get_type(schema).ok().as_ref().and_then(stored_type) else {
        return Ok(expr);
    };
    match literal::parse(text, &stored) {
        Ok(value) => Ok(lit(value)),
        Err(_) => plan_err!("'{text}' is not a value of type {stored}"),
    }
}

/// The stored type with this Arrow type; none for text, which needs no typing, and for types that
/// only expressions have.
fn stored_type(data_type: &DataType) -> Option<StoredType> {
    Some(match data_type {
        DataType::Boolean => StoredType::Boolean,
        DataType::Int8 | DataType::Int16 | DataType::Int32 => StoredType::Int32,
        DataType::Int64 => StoredType::Int64,
        DataType::Float32 => StoredType::Float32,
        DataType::Float64 => StoredType::Float64,
        DataType::Decimal128(precision, scale) => {
            StoredType::Decimal { precision: *precision, scale: u8::try_from(*scale).ok()? }
        }
        DataType::Date32 => StoredType::Date,
        DataType::Time64(TimeUnit::Microsecond) => StoredType::Time,
        DataType::Timestamp(TimeUnit::Microsecond, None) => StoredType::Timestamp,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => StoredType::TimestampTz,
        DataType::FixedSizeBinary(16) => StoredType::Uuid,
        DataType::Binary | DataType::BinaryView => StoredType::Binary,
        _ => return None,
    })
}
