//! Column types through domains and arrays, from rows of `pg_type`.

use std::collections::HashMap;

use cdc_core::{PgType, PgTypeKind};

/// How deep domains and arrays may nest. A catalog that goes deeper is damaged; the type is then
/// taken as a base type, which keeps its text.
const NESTING_MAX: u8 = 32;

/// A row of `pg_type`.
#[derive(Clone, Debug)]
pub(super) struct TypeRow {
    pub(super) oid: u32,
    /// `b`, `c`, `d`, `e`, `p`, `r` or `m`.
    pub(super) kind: String,
    pub(super) domain_base: u32,
    pub(super) domain_typmod: i32,
    /// The base of a domain with the domain's modifier, as `format_type` writes it.
    pub(super) domain_base_name: Option<String>,
    /// The element, if the type is a true array.
    pub(super) element: Option<u32>,
}

/// The types of all columns, by OID.
#[derive(Debug, Default)]
pub(super) struct TypeTable {
    rows: HashMap<u32, TypeRow>,
}

impl TypeTable {
    pub(super) fn new(rows: Vec<TypeRow>) -> Self {
        Self { rows: rows.into_iter().map(|row| (row.oid, row)).collect() }
    }

    /// The type of a column with its modifier and its `format_type` name.
    pub(super) fn resolve(&self, oid: u32, typmod: i32, name: &str) -> PgType {
        self.resolve_within(oid, typmod, name, NESTING_MAX)
    }

    fn resolve_within(&self, oid: u32, typmod: i32, name: &str, depth: u8) -> PgType {
        let kind = match self.rows.get(&oid) {
            Some(row) if depth > 0 => self.kind(row, typmod, name, depth - 1),
            _ => PgTypeKind::Base,
        };
        PgType { oid, typmod, name: name.to_owned(), kind }
    }

    fn kind(&self, row: &TypeRow, typmod: i32, name: &str, depth: u8) -> PgTypeKind {
        if let Some(element) = row.element {
            // format_type puts one `[]` behind the element's own name, modifier included
            let element_name = name.strip_suffix("[]").unwrap_or(name);
            let element = self.resolve_within(element, typmod, element_name, depth);
            return PgTypeKind::Array(Box::new(element));
        }
        match row.kind.as_str() {
            "d" => {
                let base_name = row.domain_base_name.as_deref().unwrap_or(name);
                let base =
                    self.resolve_within(row.domain_base, row.domain_typmod, base_name, depth);
                PgTypeKind::Domain(Box::new(base))
            }
            "e" => PgTypeKind::Enum,
            "c" => PgTypeKind::Composite,
            "r" | "m" => PgTypeKind::Range,
            _ => PgTypeKind::Base,
        }
    }
}
