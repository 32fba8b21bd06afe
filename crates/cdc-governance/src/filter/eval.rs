//! What a row filter means: the reference evaluation, in three-valued logic. A comparison that cannot
//! be made is unknown, never an error.

use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use super::literal::{date, time, timestamp};
use super::{Comparison, Literal, Predicate};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names are the kinds")]
pub enum Value {
    Null,
    Bool(bool),
    /// Decimal digits, of an integer or a decimal column.
    Number(String),
    Float(f64),
    /// Text, or a uuid in its lower-case form.
    Text(String),
    Date(NaiveDate),
    Time(NaiveTime),
    Timestamp(DateTime<Utc>),
    /// A value that filters cannot look into: binary, lists.
    Opaque,
}

/// Whether the predicate holds; `None` is unknown.
pub(super) fn eval(predicate: &Predicate, row: &dyn Fn(&str) -> Value) -> Option<bool> {
    match predicate {
        Predicate::Compare { column, comparison, literal } => {
            compare(&row(column), literal).map(|order| holds(*comparison, order))
        }
        Predicate::Between { column, low, high } => {
            let value = row(column);
            let from = compare(&value, low).map(Ordering::is_ge);
            both(from, compare(&value, high).map(Ordering::is_le))
        }
        Predicate::In { column, literals } => {
            let value = row(column);
            let equals =
                literals.iter().map(|literal| compare(&value, literal).map(Ordering::is_eq));
            equals.fold(Some(false), either)
        }
        Predicate::Like { column, pattern } => match row(column) {
            Value::Text(text) => Some(like(&text, pattern)),
            _ => None,
        },
        Predicate::IsNull { column } => Some(row(column) == Value::Null),
        Predicate::Not(inner) => eval(inner, row).map(|holds| !holds),
        Predicate::And(left, right) => both(eval(left, row), eval(right, row)),
        Predicate::Or(left, right) => either(eval(left, row), eval(right, row)),
    }
}

fn both(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

fn either(left: Option<bool>, right: Option<bool>) -> Option<bool> {
    match (left, right) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

fn holds(comparison: Comparison, order: Ordering) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

/// The order of value and literal, if they can be compared. Text is ordered by its bytes.
fn compare(value: &Value, literal: &Literal) -> Option<Ordering> {
    match (value, literal) {
        (Value::Bool(value), Literal::Bool(literal)) => Some(value.cmp(literal)),
        (Value::Number(value), Literal::Number(literal)) => {
            Decimal::parse(value)?.compare(&Decimal::parse(literal)?)
        }
        (Value::Float(value), Literal::Number(literal)) => {
            value.partial_cmp(&literal.parse::<f64>().ok()?)
        }
        (Value::Text(value), Literal::Text(literal)) => Some(value.cmp(literal)),
        (Value::Date(value), Literal::Text(literal)) => date(literal).map(|l| value.cmp(&l)),
        (Value::Time(value), Literal::Text(literal)) => time(literal).map(|l| value.cmp(&l)),
        (Value::Timestamp(value), Literal::Text(literal)) => {
            timestamp(literal).map(|l| value.cmp(&l))
        }
        _ => None,
    }
}

/// SQL's LIKE. A `\` makes the next character stand for itself.
fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let pattern = pattern_parts(pattern);
    let (mut t, mut p) = (0, 0);
    // the last `%` seen and where its stretch ends
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(Part::Many) => {
                star = Some((p, t));
                p += 1;
                continue;
            }
            Some(Part::One) => (t, p) = (t + 1, p + 1),
            Some(Part::Exact(c)) if *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => {
                let Some((at, end)) = star else { return false };
                star = Some((at, end + 1));
                (t, p) = (end + 1, at + 1);
            }
        }
    }
    pattern[p..].iter().all(|part| matches!(part, Part::Many))
}

enum Part {
    Many,
    One,
    Exact(char),
}

fn pattern_parts(pattern: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        parts.push(match c {
            '%' => Part::Many,
            '_' => Part::One,
            '\\' => Part::Exact(chars.next().unwrap_or('\\')),
            c => Part::Exact(c),
        });
    }
    parts
}

/// Digits and how many of them stand behind the point.
pub(super) struct Decimal {
    unscaled: i128,
    scale: u32,
}

impl Decimal {
    /// `None` for what is no number or has more digits than 128 bits hold.
    pub(super) fn parse(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{fraction}");
        Some(Decimal { unscaled: digits.parse().ok()?, scale: fraction.len().try_into().ok()? })
    }

    fn compare(&self, other: &Decimal) -> Option<Ordering> {
        let scale = self.scale.max(other.scale);
        let scaled =
            |n: &Decimal| n.unscaled.checked_mul(10_i128.checked_pow(scale.checked_sub(n.scale)?)?);
        Some(scaled(self)?.cmp(&scaled(other)?))
    }
}
