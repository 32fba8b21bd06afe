//! The values that older rows have in columns which their files lack.
//!
//! PostgreSQL keeps the constant of `ADD COLUMN … DEFAULT` in its catalog and sends it with no row. It
//! comes as text in the form of every other value, and is decoded as those are.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::error::ArrowError;
use cdc_core::{Cell, FieldId, Identity, TableSchema, UnrepresentablePolicy};

use crate::{Result, RowBuilder};

/// One value for each of some columns; NULL in every other one.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    values: BTreeMap<FieldId, ArrayRef>,
    lossy: Vec<String>,
}

impl Constants {
    /// Decodes constants, each the column of `schema` with that id and its text on the source.
    ///
    /// # Errors
    /// [`Error::Unrepresentable`](crate::Error::Unrepresentable) where the policy accepts no other
    /// value, [`Error::Malformed`](crate::Error::Malformed).
    pub fn parse(
        schema: &TableSchema,
        texts: &[(FieldId, &str)],
        policy: UnrepresentablePolicy,
    ) -> Result<Self> {
        let text = |id: FieldId| texts.iter().find(|(of, _)| *of == id).map(|(_, text)| *text);
        let (mut columns, mut cells) = (Vec::new(), Vec::new());
        for column in &schema.columns {
            if let Some(text) = text(column.field_id) {
                columns.push(column.clone());
                cells.push(Cell::Text(text.as_bytes()));
            }
        }
        let ids: Vec<FieldId> = columns.iter().map(|column| column.field_id).collect();
        let only = TableSchema { columns, identity: Identity::Full, ..schema.clone() };
        let mut row = RowBuilder::new(Arc::new(only), policy);
        row.push(&cells)?;
        let values = ids.into_iter().zip(row.finish()?.columns().to_vec()).collect();
        Ok(Self { values, lossy: row.take_lossy().into_iter().map(|(name, _)| name).collect() })
    }

    /// The columns whose constant was replaced as the policy declares.
    pub fn lossy(&self) -> &[String] {
        &self.lossy
    }

    /// Bytes that they add to a row.
    pub(crate) fn row_bytes(&self) -> usize {
        self.values.values().map(|value| value.to_data().get_slice_memory_size().unwrap_or(0)).sum()
    }

    /// The constant of a column, so many times; `None` if it has none.
    pub(crate) fn column(&self, id: FieldId, rows: usize) -> Option<Result<ArrayRef, ArrowError>> {
        let value = self.values.get(&id)?;
        Some(take(value, &UInt32Array::from_value(0, rows), None))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray as _;
    use cdc_core::{Column, PgType, StoredType, TableName, oid};

    use super::*;

    fn schema() -> TableSchema {
        let column = |name: &str, id, type_oid, stored| Column {
            name: name.into(),
            field_id: FieldId(id),
            element_id: None,
            attnum: 1,
            pg_type: PgType::base(type_oid, name),
            stored,
            nullable: true,
            lossy: false,
        };
        TableSchema {
            table: TableName::new("public", "t"),
            version: 2,
            columns: vec![
                column("id", 100, oid::INT8, StoredType::Int64),
                column("word", 101, oid::TEXT, StoredType::String),
                column("day", 102, oid::DATE, StoredType::Date),
            ],
            identity: Identity::PrimaryKey(vec!["id".into()]),
            next_field_id: FieldId(103),
            omitted: Vec::new(),
        }
    }

    #[test]
    fn a_constant_stands_in_its_column_only_and_as_often_as_there_are_rows() {
        let texts = [(FieldId(101), "it's \"so\"")];
        let constants = Constants::parse(&schema(), &texts, UnrepresentablePolicy::Error).unwrap();
        assert!(constants.column(FieldId(100), 3).is_none());
        let words = constants.column(FieldId(101), 3).unwrap().unwrap();
        let words: Vec<_> = words.as_string::<i32>().iter().flatten().collect();
        assert_eq!(words, ["it's \"so\""; 3]);
        assert!(constants.row_bytes() >= 9);
        assert!(constants.lossy().is_empty());
    }

    #[test]
    fn a_constant_that_the_lake_cannot_hold_is_an_error_or_replaced_as_declared() {
        let texts = [(FieldId(102), "infinity")];
        let parse = |policy| Constants::parse(&schema(), &texts, policy);
        let error = parse(UnrepresentablePolicy::Error).unwrap_err();
        assert!(error.is_table_local() && error.column() == Some("day"), "{error}");
        let replaced = parse(UnrepresentablePolicy::Null).unwrap();
        assert_eq!(replaced.lossy(), ["day"]);
        assert_eq!(replaced.column(FieldId(102), 2).unwrap().unwrap().null_count(), 2);
    }
}
