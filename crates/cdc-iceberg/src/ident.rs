//! The names that tables have in a catalog.

use std::fmt;

use cdc_core::TableName;

/// The suffix of the changelog's name and of nothing else.
pub const CHANGES_SUFFIX: &str = "__changes";

/// A table in a catalog: one namespace level and a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableIdent {
    /// Namespace (`catalog.database`).
    pub namespace: String,
    /// Table name.
    pub name: String,
}

impl TableIdent {
    /// An identifier from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The identifier that a text like `lake.orders` names; a namespace has one level.
    pub fn parse(text: &str) -> Option<Self> {
        text.split_once('.').map(|(namespace, name)| Self::new(namespace, name))
    }
}

impl fmt::Display for TableIdent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.namespace, self.name)
    }
}

/// How a source table's name becomes a catalog name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TableNaming {
    /// `orders` for `public.orders`, `billing_orders` for `billing.orders`.
    #[default]
    Bare,
    /// `public_orders`, `billing_orders`.
    Qualified,
}

impl TableNaming {
    /// The current-state table of a source table.
    pub fn current(self, namespace: &str, table: &TableName) -> TableIdent {
        let name = match self {
            TableNaming::Bare if table.schema == "public" => table.name.clone(),
            TableNaming::Bare | TableNaming::Qualified => {
                format!("{}_{}", table.schema, table.name)
            }
        };
        TableIdent::new(namespace, name)
    }

    /// The changelog of a source table.
    pub fn changes(self, namespace: &str, table: &TableName) -> TableIdent {
        let current = self.current(namespace, table);
        TableIdent::new(current.namespace, format!("{}{CHANGES_SUFFIX}", current.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_is_left_out_of_bare_names_only() {
        let (orders, bills) = (TableName::new("public", "orders"), TableName::new("billing", "b"));
        assert_eq!(TableNaming::Bare.current("lake", &orders).to_string(), "lake.orders");
        assert_eq!(TableNaming::Bare.current("lake", &bills).to_string(), "lake.billing_b");
        assert_eq!(
            TableNaming::Qualified.changes("lake", &orders).to_string(),
            "lake.public_orders__changes"
        );
    }
}
