//! Literals of row filters and masks, and whether one is a value of a column.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use super::eval::Decimal;
use crate::ColumnKind;

/// A literal as it was written; the column says what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// Digits with sign and fraction.
    Number(String),
    /// Text, also of a date, time, timestamp or uuid.
    Text(String),
    /// `TRUE` or `FALSE`.
    Bool(bool),
}

impl Literal {
    /// Whether it is a value of a column of this kind.
    pub fn fits(&self, kind: ColumnKind) -> bool {
        match (self, kind) {
            (Literal::Bool(_), ColumnKind::Boolean) | (Literal::Text(_), ColumnKind::Text) => true,
            (
                Literal::Number(number),
                ColumnKind::Integer | ColumnKind::Decimal | ColumnKind::Float,
            ) => Decimal::parse(number).is_some(),
            (Literal::Text(text), ColumnKind::Date) => date(text).is_some(),
            (Literal::Text(text), ColumnKind::Time) => time(text).is_some(),
            (Literal::Text(text), ColumnKind::Timestamp) => timestamp(text).is_some(),
            (Literal::Text(text), ColumnKind::Uuid) => is_uuid(text),
            _ => false,
        }
    }
}

pub(super) fn date(text: &str) -> Option<NaiveDate> {
    text.parse().ok()
}

pub(super) fn time(text: &str) -> Option<NaiveTime> {
    text.parse().ok()
}

/// RFC 3339, or without a zone and then in UTC.
pub(super) fn timestamp(text: &str) -> Option<DateTime<Utc>> {
    let with_zone = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"];
    let plain = || {
        let parse = |format| NaiveDateTime::parse_from_str(text, format).ok();
        formats.into_iter().find_map(parse).map(|time| time.and_utc())
    };
    with_zone.ok().or_else(plain)
}

/// Hyphenated and in lower case, as uuid values are shown.
fn is_uuid(text: &str) -> bool {
    let is_hyphen = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match is_hyphen(at) {
            true => byte == b'-',
            false => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}
