//! Positions: the log sequence number, the epoch and the field id, each a type of its own so that
//! one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, in PostgreSQL's `X/Y` text form
/// (<https://www.postgresql.org/docs/current/datatype-pg-lsn.html>).
///
/// Zero means "no position" wherever PostgreSQL sends it (Relation messages carry `0/0`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The "no position" value.
    pub const ZERO: Lsn = Lsn(0);

    /// The value as the signed 64-bit number that the metadata columns hold.
    pub fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }

    /// Whether this is the "no position" value.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text is not of the form `X/Y` with two hexadecimal numbers of at most 32 bits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN of the form X/Y")]
pub struct ParseLsnError(pub String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(Lsn(u64::from(high) << 32 | u64::from(low)))
        };
        parse().ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

/// The number of a flush, global to a lake; 0 is init, each flush adds one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An Iceberg field id. User columns start at [`FieldId::FIRST_USER`]; ids are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(pub i32);

impl FieldId {
    /// The first id of a user column; lower ones belong to the metadata columns.
    pub const FIRST_USER: FieldId = FieldId(100);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_round_trips() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for bad in ["", "0", "0/", "/1", "g/1", "1/1FFFFFFFFF"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }
}
