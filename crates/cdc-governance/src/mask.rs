//! Masks: what is shown instead of a value, from the most revealing to the least.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::filter::Literal;
use crate::{ColumnKind, Error, Result};

/// The unit to which a date or timestamp is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the units")]
pub enum DateUnit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
}

const UNITS: [(DateUnit, &str); 6] = [
    (DateUnit::Year, "year"),
    (DateUnit::Quarter, "quarter"),
    (DateUnit::Month, "month"),
    (DateUnit::Week, "week"),
    (DateUnit::Day, "day"),
    (DateUnit::Hour, "hour"),
];

/// A mask. The text form is that of the command line and of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// `partial:<n>`: the last n characters of a text.
    Partial(u32),
    /// `date_trunc:<unit>`.
    DateTrunc(DateUnit),
    /// `bucket:<width>`: the lower end of the number's bucket.
    Bucket(NonZeroU64),
    /// `hash` or `hash:<domain>`: HMAC-SHA-256. Without a domain it is the column's own, so equal
    /// values of two columns do not look equal.
    Hash(Option<String>),
    /// `constant:<value>`.
    Constant(String),
    /// `null`.
    Null,
}

impl Mask {
    /// The place in the order: the lower one reveals more, and wins.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Mask::Partial(_) => 0,
            Mask::DateTrunc(_) => 1,
            Mask::Bucket(_) => 2,
            Mask::Hash(_) => 3,
            Mask::Constant(_) => 4,
            Mask::Null => 5,
        }
    }

    /// Whether what it shows is a value of a column of this kind.
    pub fn fits(&self, kind: ColumnKind) -> bool {
        match self {
            Mask::Partial(_) => kind == ColumnKind::Text,
            Mask::DateTrunc(_) => matches!(kind, ColumnKind::Date | ColumnKind::Timestamp),
            Mask::Bucket(_) => {
                matches!(kind, ColumnKind::Integer | ColumnKind::Decimal | ColumnKind::Float)
            }
            Mask::Hash(_) => {
                matches!(kind, ColumnKind::Text | ColumnKind::Uuid | ColumnKind::Binary)
            }
            Mask::Constant(value) => {
                let literals = [
                    Literal::Text(value.clone()),
                    Literal::Number(value.clone()),
                    Literal::Bool(value == "true"),
                ];
                let usable = match value.as_str() {
                    "true" | "false" => &literals[..],
                    _ => &literals[..2],
                };
                usable.iter().any(|literal| literal.fits(kind))
            }
            Mask::Null => true,
        }
    }
}

impl FromStr for Mask {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, argument) = match text.split_once(':') {
            Some((name, argument)) => (name, Some(argument)),
            None => (text, None),
        };
        let unit = |text: &str| UNITS.iter().find(|(_, name)| *name == text).map(|(unit, _)| *unit);
        let mask = match (name, argument) {
            ("partial", Some(keep)) => keep.parse().ok().map(Mask::Partial),
            ("date_trunc", Some(text)) => unit(text).map(Mask::DateTrunc),
            ("bucket", Some(width)) => width.parse().ok().map(Mask::Bucket),
            ("hash", None) => Some(Mask::Hash(None)),
            ("hash", Some(domain)) if !domain.is_empty() => {
                Some(Mask::Hash(Some(domain.to_owned())))
            }
            ("constant", Some(value)) => Some(Mask::Constant(value.to_owned())),
            ("null", None) => Some(Mask::Null),
            _ => None,
        };
        mask.ok_or_else(|| Error::Mask { text: text.to_owned() })
    }
}

impl fmt::Display for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mask::Partial(keep) => write!(f, "partial:{keep}"),
            Mask::DateTrunc(unit) => {
                let name =
                    UNITS.iter().find(|(known, _)| known == unit).map_or("", |(_, name)| name);
                write!(f, "date_trunc:{name}")
            }
            Mask::Bucket(width) => write!(f, "bucket:{width}"),
            Mask::Hash(None) => f.write_str("hash"),
            Mask::Hash(Some(domain)) => write!(f, "hash:{domain}"),
            Mask::Constant(value) => write!(f, "constant:{value}"),
            Mask::Null => f.write_str("null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_one_text_and_keep_to_their_kinds() {
        use ColumnKind::*;
        let cases = [
            ("partial:4", Text, Integer),
            ("date_trunc:quarter", Timestamp, Text),
            ("bucket:10", Decimal, Date),
            ("hash", Uuid, Integer),
            ("hash:customers", Text, Boolean),
            ("constant:a:b", Text, Integer),
            ("constant:0", Integer, Date),
            ("constant:true", Boolean, Integer),
            ("constant:2020-01-01", Date, Boolean),
        ];
        for (text, fits, fits_not) in cases {
            let mask: Mask = text.parse().unwrap();
            assert_eq!(mask.to_string(), text);
            assert!(mask.fits(fits) && !mask.fits(fits_not), "{text}");
        }
        assert!(Mask::Null.fits(List));
        for text in
            ["", "partial", "partial:-1", "bucket:0", "date_trunc:age", "hash:", "null:1", "x"]
        {
            assert!(text.parse::<Mask>().is_err(), "{text}");
        }
    }
}
