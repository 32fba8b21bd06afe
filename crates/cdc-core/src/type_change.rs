//! What a change of a column's type does to values that are already in files.
//!
//! PostgreSQL sends no row when a type changes, also where it rewrites the table. So a column keeps
//! its field id only where a reader finds the new values in the old files: the stored type is the
//! same or wider, and the cast that PostgreSQL used changes nothing that is stored.

use crate::pg_type::oid;
use crate::{PgType, PgTypeKind, StoredType};

/// How the values of older files relate to the column's new type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeFit {
    /// They are the values that the source has now.
    Kept,
    /// They can be read, but the cast may have changed what the source has: `text` to `jsonb`, fewer
    /// digits of a second. Certain only if the source did not rewrite the table.
    Unsure,
    /// They cannot be read as the new type. The column is retired and a new field id carries the
    /// new type.
    Retired,
}

impl TypeFit {
    /// How values of `from`, stored as `stored`, relate to `to`, stored as `wanted`.
    pub fn of(from: &PgType, stored: &StoredType, to: &PgType, wanted: &StoredType) -> TypeFit {
        match (promotes(stored, wanted), keeps_values(from, to)) {
            (false, _) => TypeFit::Retired,
            (true, true) => TypeFit::Kept,
            (true, false) => TypeFit::Unsure,
        }
    }
}

/// Whether files of one stored type are read as the other (Iceberg spec, schema evolution).
fn promotes(from: &StoredType, to: &StoredType) -> bool {
    match (from, to) {
        (StoredType::Int32, StoredType::Int64) | (StoredType::Float32, StoredType::Float64) => true,
        (
            StoredType::Decimal { precision: narrow, scale: before },
            StoredType::Decimal { precision: wide, scale: after },
        ) => narrow <= wide && before == after,
        (StoredType::List(from), StoredType::List(to)) => promotes(from, to),
        (from, to) => from == to,
    }
}

/// Whether PostgreSQL's own cast leaves every value as it is stored here. A `USING` expression is not
/// seen by anybody but the one who wrote it.
fn keeps_values(from: &PgType, to: &PgType) -> bool {
    let (from, to) = (from.undomained(), to.undomained());
    if let (PgTypeKind::Array(from), PgTypeKind::Array(to)) = (&from.kind, &to.kind) {
        return keeps_values(from, to);
    }
    if from.oid == to.oid {
        return from.typmod == to.typmod || loosens(from, to);
    }
    let is_any_length = to.oid == oid::TEXT || (to.oid == oid::VARCHAR && to.typmod < 0);
    match (from.oid, to.oid) {
        (oid::INT2, oid::INT4 | oid::INT8)
        | (oid::INT4, oid::INT2 | oid::INT8)
        | (oid::FLOAT4, oid::FLOAT8)
        | (oid::JSONB, oid::JSON) => true,
        (oid::TEXT | oid::VARCHAR | oid::NAME | oid::JSON | oid::JSONB | oid::XML, _) => {
            is_any_length
        }
        _ => from.kind == PgTypeKind::Enum && is_any_length,
    }
}

/// Whether the modifier of one type allows at least what the other's does.
fn loosens(from: &PgType, to: &PgType) -> bool {
    if from.oid == oid::NUMERIC {
        return match (from.numeric_precision_scale(), to.numeric_precision_scale()) {
            (Some((narrow, before)), Some((wide, after))) => narrow <= wide && before == after,
            (Some(_), None) => true,
            (None, _) => false,
        };
    }
    let has_length = [
        oid::VARCHAR,
        oid::VARBIT,
        oid::TIME,
        oid::TIMETZ,
        oid::TIMESTAMP,
        oid::TIMESTAMPTZ,
        oid::INTERVAL,
    ];
    let is_longer = from.oid != oid::INTERVAL && from.typmod >= 0 && to.typmod >= from.typmod;
    has_length.contains(&from.oid) && (to.typmod < 0 || is_longer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TypePolicy;

    fn modified(oid: u32, typmod: i32) -> PgType {
        PgType { typmod, ..PgType::base(oid, "x") }
    }

    fn numeric(precision: i32, scale: i32) -> PgType {
        modified(oid::NUMERIC, ((precision << 16) | (scale & 0x7FF)) + 4)
    }

    fn array(element: PgType) -> PgType {
        PgType { kind: PgTypeKind::Array(Box::new(element)), ..PgType::base(1, "x[]") }
    }

    fn domain(base: PgType) -> PgType {
        PgType { kind: PgTypeKind::Domain(Box::new(base)), ..PgType::base(20_000, "d") }
    }

    fn mood() -> PgType {
        PgType { kind: PgTypeKind::Enum, ..PgType::base(20_001, "mood") }
    }

    #[test]
    fn a_column_goes_on_only_where_old_files_read_as_the_new_type() {
        let base = |oid| PgType::base(oid, "x");
        let cases = [
            (base(oid::INT2), base(oid::INT4), TypeFit::Kept),
            (base(oid::INT4), base(oid::INT8), TypeFit::Kept),
            (base(oid::INT8), base(oid::INT4), TypeFit::Retired),
            (base(oid::INT4), base(oid::TEXT), TypeFit::Retired),
            (base(oid::INT4), base(oid::FLOAT8), TypeFit::Retired),
            (base(oid::FLOAT4), base(oid::FLOAT8), TypeFit::Kept),
            (base(oid::FLOAT8), base(oid::FLOAT4), TypeFit::Retired),
            (numeric(10, 2), numeric(12, 2), TypeFit::Kept),
            (numeric(10, 2), numeric(12, 4), TypeFit::Retired),
            (numeric(12, 2), numeric(10, 2), TypeFit::Retired),
            (numeric(10, 2), base(oid::NUMERIC), TypeFit::Retired),
            (modified(oid::VARCHAR, 14), modified(oid::VARCHAR, 24), TypeFit::Kept),
            (modified(oid::VARCHAR, 24), modified(oid::VARCHAR, 14), TypeFit::Unsure),
            (modified(oid::VARCHAR, 24), base(oid::TEXT), TypeFit::Kept),
            (base(oid::TEXT), modified(oid::VARCHAR, 24), TypeFit::Unsure),
            (base(oid::TEXT), base(oid::JSONB), TypeFit::Unsure),
            (base(oid::JSON), base(oid::JSONB), TypeFit::Unsure),
            (base(oid::JSONB), base(oid::TEXT), TypeFit::Kept),
            (base(oid::TIMESTAMP), base(oid::TIMESTAMPTZ), TypeFit::Retired),
            (modified(oid::TIMESTAMP, 3), base(oid::TIMESTAMP), TypeFit::Kept),
            (base(oid::TIMESTAMP), modified(oid::TIMESTAMP, 3), TypeFit::Unsure),
            (mood(), base(oid::TEXT), TypeFit::Kept),
            (base(oid::TEXT), mood(), TypeFit::Unsure),
            (array(base(oid::INT4)), array(base(oid::INT8)), TypeFit::Kept),
            (array(base(oid::INT4)), array(base(oid::TEXT)), TypeFit::Retired),
            (domain(base(oid::INT4)), base(oid::INT8), TypeFit::Kept),
        ];
        let policy = TypePolicy::default();
        for (from, to, expected) in cases {
            let stored = |pg_type: &PgType| policy.map(pg_type, None).stored;
            let fit = TypeFit::of(&from, &stored(&from), &to, &stored(&to));
            assert_eq!(fit, expected, "{from:?} to {to:?}");
        }
    }
}
