//! The type map: which stored type the values of a PostgreSQL type get.

use std::fmt;

use crate::pg_type::oid;
use crate::{PgType, PgTypeKind};

/// The type of a column in files. Arrow, Parquet and Iceberg types follow from it one to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoredType {
    /// Iceberg `boolean`.
    Boolean,
    /// Iceberg `int`.
    Int32,
    /// Iceberg `long`.
    Int64,
    /// Iceberg `float`.
    Float32,
    /// Iceberg `double`.
    Float64,
    /// Iceberg `decimal(precision, scale)`, 1 ≤ precision ≤ 38, 0 ≤ scale ≤ precision.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
    /// Iceberg `string`, UTF-8.
    String,
    /// Iceberg `binary`.
    Binary,
    /// Iceberg `date`, days since 1970.
    Date,
    /// Iceberg `time`, microseconds since midnight.
    Time,
    /// Iceberg `timestamp`, microseconds since 1970 without zone.
    Timestamp,
    /// Iceberg `timestamptz`, microseconds since 1970 UTC.
    TimestampTz,
    /// Iceberg `uuid`, 16 bytes.
    Uuid,
    /// Iceberg `list` with optional elements. Lists do not nest.
    List(Box<StoredType>),
}

impl StoredType {
    /// The type's name in the Iceberg specification, e.g. `decimal(10, 2)`, `list<int>`.
    pub fn iceberg_name(&self) -> String {
        match self {
            StoredType::Boolean => "boolean".into(),
            StoredType::Int32 => "int".into(),
            StoredType::Int64 => "long".into(),
            StoredType::Float32 => "float".into(),
            StoredType::Float64 => "double".into(),
            StoredType::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
            StoredType::String => "string".into(),
            StoredType::Binary => "binary".into(),
            StoredType::Date => "date".into(),
            StoredType::Time => "time".into(),
            StoredType::Timestamp => "timestamp".into(),
            StoredType::TimestampTz => "timestamptz".into(),
            StoredType::Uuid => "uuid".into(),
            StoredType::List(element) => format!("list<{}>", element.iceberg_name()),
        }
    }

    /// The stored type with this Iceberg name: the inverse of [`StoredType::iceberg_name`].
    pub fn from_iceberg_name(name: &str) -> Option<StoredType> {
        if let Some(inner) = name.strip_prefix("list<").and_then(|rest| rest.strip_suffix('>')) {
            return Some(StoredType::List(Box::new(StoredType::from_iceberg_name(inner)?)));
        }
        if let Some(inner) = name.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
            let (precision, scale) = inner.split_once(',')?;
            let (precision, scale) = (precision.trim().parse().ok()?, scale.trim().parse().ok()?);
            return Some(StoredType::Decimal { precision, scale });
        }
        Some(match name {
            "boolean" => StoredType::Boolean,
            "int" => StoredType::Int32,
            "long" => StoredType::Int64,
            "float" => StoredType::Float32,
            "double" => StoredType::Float64,
            "string" => StoredType::String,
            "binary" => StoredType::Binary,
            "date" => StoredType::Date,
            "time" => StoredType::Time,
            "timestamp" => StoredType::Timestamp,
            "timestamptz" => StoredType::TimestampTz,
            "uuid" => StoredType::Uuid,
            _ => return None,
        })
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.iceberg_name())
    }
}

/// What `types.numeric_unconstrained` chooses for numeric without modifier or above 38 digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumericPolicy {
    /// The exact text.
    #[default]
    String,
    /// A double, marked lossy.
    Double,
    /// A decimal of this precision and scale; values that do not fit are unrepresentable.
    Decimal(u8, u8),
}

/// What `types.array` chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArrayPolicy {
    /// A list of the element's stored type.
    #[default]
    List,
    /// PostgreSQL's array text.
    String,
}

/// What `types.unrepresentable` chooses for values that the stored type cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnrepresentablePolicy {
    /// Fail loudly, naming table and column.
    #[default]
    Error,
    /// Store NULL and count it.
    Null,
    /// Store the nearest value where there is one and count it.
    Clamp,
}

/// A declared stored form of one column (`types.columns[].as`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// The type's text.
    String,
    /// A double.
    Double,
    /// A decimal.
    Decimal(u8, u8),
    /// A list (for arrays, against `types.array: string`).
    List,
}

/// The `types` section of the configuration, without its per-column globs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypePolicy {
    /// For numeric without modifier or above 38 digits.
    pub numeric_unconstrained: NumericPolicy,
    /// For arrays.
    pub array: ArrayPolicy,
    /// For values that the stored type cannot hold.
    pub unrepresentable: UnrepresentablePolicy,
}

/// The outcome of the type map for one column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedType {
    /// The stored type.
    pub stored: StoredType,
    /// Whether a declared choice can change values (numeric as double).
    pub lossy: bool,
    /// Whether the type is not in the map and is kept as its text output; `discover` lists these.
    pub by_text: bool,
}

impl MappedType {
    fn exact(stored: StoredType) -> Self {
        Self { stored, lossy: false, by_text: false }
    }

    fn text() -> Self {
        Self { stored: StoredType::String, lossy: false, by_text: true }
    }
}

impl TypePolicy {
    /// Maps a column's type, honouring a declared form of the column.
    pub fn map(&self, pg_type: &PgType, declared: Option<StoredAs>) -> MappedType {
        let base = pg_type.undomained();
        match declared {
            Some(StoredAs::String) => return MappedType::exact(StoredType::String),
            Some(StoredAs::Double) => {
                return MappedType { stored: StoredType::Float64, lossy: true, by_text: false };
            }
            Some(StoredAs::Decimal(precision, scale)) => {
                return MappedType::exact(StoredType::Decimal { precision, scale });
            }
            Some(StoredAs::List) | None => {}
        }
        match &base.kind {
            PgTypeKind::Array(_) if self.array == ArrayPolicy::String && declared.is_none() => {
                MappedType::exact(StoredType::String)
            }
            PgTypeKind::Array(element) => {
                let element = self.map(element, None);
                // an array of a type that itself maps to a list (a domain over an array) has no
                // list form that readers share; it keeps its text
                if matches!(element.stored, StoredType::List(_)) {
                    return MappedType::text();
                }
                MappedType { stored: StoredType::List(Box::new(element.stored)), ..element }
            }
            PgTypeKind::Enum | PgTypeKind::Composite | PgTypeKind::Range => {
                MappedType::exact(StoredType::String)
            }
            PgTypeKind::Base | PgTypeKind::Domain(_) => self.map_base(base),
        }
    }

    fn map_base(&self, base: &PgType) -> MappedType {
        let stored = match base.oid {
            oid::BOOL => StoredType::Boolean,
            oid::INT2 | oid::INT4 => StoredType::Int32,
            oid::INT8 | oid::OID | oid::XID | oid::CID => StoredType::Int64,
            oid::XID8 => StoredType::Decimal { precision: 20, scale: 0 },
            oid::FLOAT4 => StoredType::Float32,
            oid::FLOAT8 => StoredType::Float64,
            oid::NUMERIC => return self.map_numeric(base),
            oid::BYTEA => StoredType::Binary,
            oid::DATE => StoredType::Date,
            oid::TIME => StoredType::Time,
            oid::TIMESTAMP => StoredType::Timestamp,
            oid::TIMESTAMPTZ => StoredType::TimestampTz,
            oid::UUID => StoredType::Uuid,
            other if other < oid::FIRST_NORMAL => StoredType::String,
            _ if base.name == "citext" || base.name.ends_with(".citext") => StoredType::String,
            _ => return MappedType::text(),
        };
        MappedType::exact(stored)
    }

    fn map_numeric(&self, base: &PgType) -> MappedType {
        let decimal = base.numeric_precision_scale().and_then(|(precision, scale)| {
            let (precision, scale) = match (i32::from(precision), i32::from(scale)) {
                (p, s) if s < 0 => (p - s, 0),
                (p, s) if s > p => (s, s),
                within => within,
            };
            let fits = (1..=38).contains(&precision);
            fits.then(|| Some((u8::try_from(precision).ok()?, u8::try_from(scale).ok()?)))?
        });
        match (decimal, self.numeric_unconstrained) {
            (Some((precision, scale)), _) | (None, NumericPolicy::Decimal(precision, scale)) => {
                MappedType::exact(StoredType::Decimal { precision, scale })
            }
            (None, NumericPolicy::String) => MappedType::exact(StoredType::String),
            (None, NumericPolicy::Double) => {
                MappedType { stored: StoredType::Float64, lossy: true, by_text: false }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numeric(precision: i32, scale: i32) -> PgType {
        let typmod = ((precision << 16) | (scale & 0x7FF)) + 4;
        PgType { typmod, ..PgType::base(oid::NUMERIC, "numeric") }
    }

    #[test]
    fn numerics_map_exactly_or_to_text() {
        let policy = TypePolicy::default();
        let cases = [
            (numeric(10, 2), "decimal(10, 2)"),
            (numeric(38, 10), "decimal(38, 10)"),
            (numeric(5, -2), "decimal(7, 0)"),
            (numeric(3, 5), "decimal(5, 5)"),
            (numeric(50, 2), "string"),
            (numeric(37, -5), "string"),
            (PgType::base(oid::NUMERIC, "numeric"), "string"),
        ];
        for (pg_type, expected) in cases {
            let stored = policy.map(&pg_type, None).stored;
            assert_eq!(stored.iceberg_name(), expected);
            assert_eq!(StoredType::from_iceberg_name(expected), Some(stored));
        }
    }

    #[test]
    fn domains_arrays_and_extensions() {
        let policy = TypePolicy::default();
        let array = |element: PgType| PgType {
            kind: PgTypeKind::Array(Box::new(element)),
            ..PgType::base(1, "x[]")
        };
        let domain = PgType {
            kind: PgTypeKind::Domain(Box::new(numeric(6, 2))),
            ..PgType::base(20000, "price")
        };
        assert_eq!(policy.map(&domain, None).stored.iceberg_name(), "decimal(6, 2)");
        assert_eq!(policy.map(&array(domain), None).stored.iceberg_name(), "list<decimal(6, 2)>");
        assert!(policy.map(&PgType::base(20001, "hstore"), None).by_text);
        assert!(!policy.map(&PgType::base(20002, "citext"), None).by_text);
    }
}
