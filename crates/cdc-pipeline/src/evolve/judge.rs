//! Whether the rows that the lake has are, under a changed schema, the rows that the source has.
//!
//! PostgreSQL sends no row for a change of a table, also where it gives older rows a value or writes
//! them all anew. One constant for all of them is in the catalog, and becomes a [`Fill`]. What is
//! nowhere cannot be known here, and a table whose older rows would read differently from the source is
//! quarantined instead.

use cdc_core::{Column, FieldId, Generated, SchemaStep, SourceColumn, TableSchema, TypeFit};
use cdc_wal::TableShape;

/// What is known of the rows that were there before a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OlderRows {
    /// There are none.
    None,
    /// They lie on the source as they were written.
    Untouched,
    /// The source has written them anew since they were last seen untouched.
    Rewritten,
    /// Nothing is known.
    Unknown,
}

/// The value that older rows have in a column which they were written without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) column: FieldId,
    /// As PostgreSQL writes it.
    pub(crate) text: String,
}

/// What older rows need so that they read as on the source; nothing, mostly. An error is the reason
/// why that cannot be told.
pub(crate) fn judge(
    before: &TableSchema,
    next: &TableSchema,
    shape: &TableShape,
    older: OlderRows,
) -> Result<Vec<Fill>, String> {
    let mut fills = Vec::new();
    if older == OlderRows::None {
        return Ok(fills);
    }
    let steps = before.steps_to(next);
    let facts =
        Facts { before, next, shape, older, is_explained: is_explained(before, next, shape) };
    for step in &steps {
        match step {
            SchemaStep::Retyped { column, from, to, fit } => {
                facts.retyped(column, from, to, *fit)?
            }
            SchemaStep::Added { column } => fills.extend(facts.added(column)?),
            _ => {}
        }
    }
    Ok(fills)
}

/// Whether a rewrite has another cause than columns that were added: a change of type, now or in what the
/// catalog has already, a column that comes later, or one that is computed. It then says nothing about
/// those of now.
fn is_explained(before: &TableSchema, next: &TableSchema, shape: &TableShape) -> bool {
    let is_other = |columns: &[Column], attnum: i16, type_oid: u32| {
        let same = columns.iter().find(|column| column.attnum == attnum);
        same.is_some_and(|column| column.pg_type.oid != type_oid)
    };
    let last = next.columns.iter().map(|column| column.attnum).max().unwrap_or(0);
    let is_later = |attnum: i16| {
        attnum > last && shape.attribute(attnum).is_some_and(|attribute| attribute.has_default)
    };
    let is_computed = |column: &SourceColumn| {
        column.generated == Generated::Stored
            && before.omitted.iter().all(|omitted| omitted.name != column.name)
    };
    next.columns.iter().any(|c| is_other(&before.columns, c.attnum, c.pg_type.oid))
        || shape.table.columns.iter().any(is_computed)
        || shape.table.columns.iter().any(|column| {
            let (attnum, type_oid) = (column.attnum, column.pg_type.oid);
            is_other(&next.columns, attnum, type_oid) || is_later(attnum)
        })
}

struct Facts<'a> {
    before: &'a TableSchema,
    next: &'a TableSchema,
    shape: &'a TableShape,
    older: OlderRows,
    is_explained: bool,
}

impl Facts<'_> {
    fn retyped(&self, column: &str, from: &str, to: &str, fit: TypeFit) -> Result<(), String> {
        match fit {
            TypeFit::Kept => Ok(()),
            TypeFit::Unsure if self.older == OlderRows::Untouched => Ok(()),
            TypeFit::Unsure => {
                Err(format!("column {column}: older rows may differ since it is {to}, not {from}"))
            }
            TypeFit::Retired => Err(format!(
                "column {column} is no longer {from} but {to}, and what older rows have now is not sent"
            )),
        }
    }

    fn added(&self, name: &str) -> Result<Option<Fill>, String> {
        let Some(column) = self.next.columns.iter().find(|column| column.name == name) else {
            return Ok(None);
        };
        let was_omitted = self.before.omitted.iter().any(|omitted| omitted.name == name);
        let last = self.before.columns.iter().map(|column| column.attnum).max().unwrap_or(0);
        if was_omitted || column.attnum < last {
            return Err(format!("column {name} was not replicated before, but older rows have it"));
        }
        let Some(attribute) = self.shape.attribute(column.attnum) else { return Ok(None) };
        if attribute.missing_differs {
            return Err(format!("column {name} has another value in older rows of each partition"));
        }
        if let Some(text) = &attribute.missing {
            return Ok(Some(Fill { column: column.field_id, text: text.clone() }));
        }
        let unknown =
            || format!("column {name} was added with values for older rows that are not sent");
        let may_have_value = attribute.has_default || !column.nullable;
        match self.older {
            OlderRows::None | OlderRows::Untouched => Ok(None),
            OlderRows::Rewritten if !self.is_explained => Err(unknown()),
            OlderRows::Rewritten | OlderRows::Unknown if may_have_value => Err(unknown()),
            OlderRows::Rewritten | OlderRows::Unknown => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use cdc_core::{
        Identity, PgType, ReplicaIdentity, SchemaRules, SourceTable, TableKind, TableName,
        TypePolicy, oid,
    };
    use cdc_wal::Attribute;

    use super::*;

    fn column(name: &str, attnum: i16, type_oid: u32) -> SourceColumn {
        SourceColumn {
            name: name.to_owned(),
            attnum,
            pg_type: PgType::base(type_oid, &format!("type{type_oid}")),
            nullable: name != "id" && name != "must",
            generated: Generated::No,
        }
    }

    fn source(columns: Vec<SourceColumn>) -> SourceTable {
        SourceTable {
            oid: 16_400,
            name: TableName::new("public", "t"),
            kind: TableKind::Table,
            partition_root: None,
            columns,
            primary_key: vec!["id".into()],
            replica_identity: ReplicaIdentity::Default,
            estimated_rows: -1,
            heap_bytes: 0,
        }
    }

    fn key() -> Identity {
        Identity::PrimaryKey(vec!["id".into()])
    }

    /// A table of `id` and `a` that has these columns now.
    fn judged(
        columns: Vec<SourceColumn>,
        changed: &[Attribute],
        older: OlderRows,
    ) -> Option<String> {
        let policy = TypePolicy::default();
        let first = source(vec![column("id", 1, oid::INT4), column("a", 2, oid::TEXT)]);
        let before = TableSchema::first(&first, key(), &policy, |_| None, false);
        let rules =
            SchemaRules { policy: &policy, declared: &|_| None, publishes_generated: false };
        let table = source(columns);
        let next = before.evolved(&table, key(), rules, None);
        let plain = |c: &SourceColumn| Attribute {
            attnum: c.attnum,
            dropped: false,
            missing: None,
            missing_differs: false,
            has_default: false,
        };
        let attribute = |c: &SourceColumn| {
            changed.iter().find(|a| a.attnum == c.attnum).cloned().unwrap_or_else(|| plain(c))
        };
        let attributes = table.columns.iter().map(attribute).collect();
        let shape = TableShape { table, attributes, filenode: 2 };
        match judge(&before, &next, &shape, older) {
            Ok(fills) => fills.first().map(|fill| format!("fill {}", fill.text)),
            Err(reason) => Some(reason),
        }
    }

    #[test]
    fn a_new_column_is_null_in_older_rows_only_where_that_is_certain() {
        use OlderRows::{None as Nobody, Rewritten, Unknown, Untouched};
        let with = |name: &str| vec![column("id", 1, 23), column("a", 2, 25), column(name, 3, 25)];
        let attribute = |missing: Option<&str>, has_default| Attribute {
            attnum: 3,
            dropped: false,
            missing: missing.map(str::to_owned),
            missing_differs: false,
            has_default,
        };
        let unsent = Some("column c was added with values for older rows that are not sent");
        let cases = [
            (with("c"), attribute(None, false), Untouched, None),
            (with("c"), attribute(None, false), Unknown, None),
            (with("c"), attribute(None, false), Rewritten, unsent),
            (with("c"), attribute(None, true), Untouched, None),
            (with("c"), attribute(None, true), Unknown, unsent),
            (with("c"), attribute(None, true), Nobody, None),
            (with("c"), attribute(Some("7"), true), Untouched, Some("fill 7")),
            (with("c"), attribute(Some("7"), true), Nobody, None),
        ];
        for (columns, attribute, older, expected) in cases {
            let found = judged(columns, std::slice::from_ref(&attribute), older);
            assert_eq!(found.as_deref(), expected, "{attribute:?} {older:?}");
        }
        let widened = vec![column("id", 1, 20), column("a", 2, 25), column("c", 3, 25)];
        assert_eq!(judged(widened.clone(), &[attribute(None, false)], Rewritten), None);
        let found = judged(widened, &[attribute(None, true)], Rewritten);
        assert_eq!(found.as_deref(), unsent);
    }

    #[test]
    fn a_type_is_followed_only_where_older_rows_read_right() {
        use OlderRows::{None as Nobody, Rewritten, Untouched};
        let with = |id, a| vec![column("id", 1, id), column("a", 2, a)];
        assert_eq!(judged(with(oid::INT8, oid::TEXT), &[], Rewritten), None);
        assert_eq!(judged(with(oid::INT4, oid::JSONB), &[], Untouched), None);
        let found = judged(with(oid::INT4, oid::JSONB), &[], Rewritten).unwrap();
        assert!(found.contains("column a: older rows may differ"), "{found}");
        let found = judged(with(oid::INT4, oid::INT8), &[], Untouched).unwrap();
        assert!(found.contains("column a is no longer type25 but type20"), "{found}");
        assert_eq!(judged(with(oid::INT4, oid::INT8), &[], Nobody), None);
    }
}
