//! A PostgreSQL type, resolved through domains and arrays.

/// Type OIDs of the catalog that the type map names
/// (<https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_type.dat>).
#[expect(missing_docs, reason = "each constant is the OID of the type it is named for")]
pub mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const NAME: u32 = 19;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const XID: u32 = 28;
    pub const CID: u32 = 29;
    pub const JSON: u32 = 114;
    pub const XML: u32 = 142;
    pub const BOX: u32 = 603;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const MONEY: u32 = 790;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIME: u32 = 1083;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const INTERVAL: u32 = 1186;
    pub const TIMETZ: u32 = 1266;
    pub const VARBIT: u32 = 1562;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
    pub const XID8: u32 = 5069;
    /// The first OID that a database hands out itself: extension and user types.
    pub const FIRST_NORMAL: u32 = 16384;
}

/// A type as a column has it: the OID, the modifier, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgType {
    /// `pg_type.oid`.
    pub oid: u32,
    /// The type modifier, −1 for none. A domain's own modifier is on its base.
    pub typmod: i32,
    /// `format_type(oid, typmod)`: `numeric(10,2)`, `character varying(20)`, `mood`.
    pub name: String,
    /// What it is made of.
    pub kind: PgTypeKind,
}

/// What a type is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PgTypeKind {
    /// A base or extension type.
    Base,
    /// An enumeration.
    Enum,
    /// A row type.
    Composite,
    /// A range or multirange.
    Range,
    /// A domain over another type (with the modifier that the domain declares).
    Domain(Box<PgType>),
    /// An array; the column's modifier is on the element.
    Array(Box<PgType>),
}

impl PgType {
    /// A base type without modifier, for tests and fixed catalog columns.
    pub fn base(oid: u32, name: &str) -> Self {
        Self { oid, typmod: -1, name: name.to_owned(), kind: PgTypeKind::Base }
    }

    /// The type below all domains.
    pub fn undomained(&self) -> &PgType {
        match &self.kind {
            PgTypeKind::Domain(base) => base.undomained(),
            _ => self,
        }
    }

    /// Precision and scale of a constrained `numeric`, `None` without modifier. The scale may be
    /// negative or larger than the precision.
    pub fn numeric_precision_scale(&self) -> Option<(u16, i16)> {
        if self.oid != oid::NUMERIC || self.typmod < 4 {
            return None;
        }
        let packed = self.typmod - 4;
        let precision = u16::try_from((packed >> 16) & 0xFFFF).ok()?;
        // eleven bits, sign extended (numeric_typmod_scale in src/backend/utils/adt/numeric.c)
        let scale = i16::try_from(((packed & 0x7FF) ^ 1024) - 1024).ok()?;
        Some((precision, scale))
    }
}
