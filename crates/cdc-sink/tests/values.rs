//! Every stored type and every policy, from PostgreSQL's text to the value read back.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cdc_core::UnrepresentablePolicy::{Clamp, Error as Refuse, Null};
use cdc_core::*;
use cdc_sink::{Error, RowBuilder};

use crate::support::column;

fn array(element: PgType) -> PgType {
    PgType { kind: PgTypeKind::Array(Box::new(element)), ..PgType::base(1000, "x[]") }
}

fn list(element: StoredType) -> StoredType {
    StoredType::List(Box::new(element))
}

const DECIMAL: StoredType = StoredType::Decimal { precision: 10, scale: 2 };

/// A table with one column `c` of this type.
fn builder(pg_type: PgType, stored: StoredType, policy: UnrepresentablePolicy) -> RowBuilder {
    let schema = TableSchema {
        table: TableName::new("public", "t"),
        version: 1,
        columns: vec![column(0, "c", pg_type, stored)],
        identity: Identity::Full,
        next_field_id: FieldId(200),
        omitted: Vec::new(),
    };
    RowBuilder::new(Arc::new(schema), policy)
}

/// The value as Arrow shows it, or the error.
fn stored(
    pg_type: &PgType,
    stored: &StoredType,
    policy: UnrepresentablePolicy,
    text: &[u8],
) -> Result<String, Error> {
    let mut rows = builder(pg_type.clone(), stored.clone(), policy);
    rows.push(&[Cell::Null])?;
    rows.push(&[Cell::Text(text)])?;
    let batch = rows.finish()?;
    assert!(batch.column(0).is_null(0) && batch.num_rows() == 2);
    let options = FormatOptions::default().with_null("NULL");
    // Arrow shows zones by offset only
    let shown = match batch.column(0).data_type() {
        DataType::Timestamp(_, Some(zone)) => {
            assert_eq!(zone.as_ref(), "UTC");
            let array = batch.column(0).as_primitive::<TimestampMicrosecondType>().clone();
            Arc::new(array.with_timezone("+00:00"))
        }
        _ => Arc::clone(batch.column(0)),
    };
    Ok(ArrayFormatter::try_new(&shown, &options).unwrap().value(1).to_string())
}

#[test]
fn every_stored_type_keeps_its_value() {
    let base = |oid| PgType::base(oid, "x");
    let cases: Vec<(PgType, StoredType, &str, &str)> = vec![
        (base(oid::BOOL), StoredType::Boolean, "t", "true"),
        (base(oid::INT2), StoredType::Int32, "-32768", "-32768"),
        (base(oid::INT8), StoredType::Int64, "9223372036854775807", "9223372036854775807"),
        (
            base(oid::XID8),
            StoredType::Decimal { precision: 20, scale: 0 },
            "18446744073709551615",
            "18446744073709551615",
        ),
        (base(oid::FLOAT4), StoredType::Float32, "-0", "-0.0"),
        (base(oid::FLOAT8), StoredType::Float64, "NaN", "NaN"),
        (base(oid::FLOAT8), StoredType::Float64, "5e-324", "5e-324"),
        (base(oid::NUMERIC), DECIMAL, "-12.30", "-12.30"),
        (base(oid::NUMERIC), StoredType::String, "1.000", "1.000"),
        (base(oid::MONEY), DECIMAL, "-$1,234.50", "-1234.50"),
        (base(oid::TEXT), StoredType::String, "", ""),
        (base(oid::TEXT), StoredType::String, "grün", "grün"),
        (base(oid::BYTEA), StoredType::Binary, "\\x00ff", "00ff"),
        (base(oid::DATE), StoredType::Date, "2024-02-29", "2024-02-29"),
        (base(oid::TIME), StoredType::Time, "23:59:59.999999", "23:59:59.999999"),
        (
            base(oid::TIMESTAMP),
            StoredType::Timestamp,
            "2024-01-02 03:04:05.6",
            "2024-01-02T03:04:05.600",
        ),
        (
            base(oid::TIMESTAMPTZ),
            StoredType::TimestampTz,
            "1969-12-31 23:59:59+00",
            "1969-12-31T23:59:59Z",
        ),
        (
            base(oid::UUID),
            StoredType::Uuid,
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        ),
        (array(base(oid::INT4)), list(StoredType::Int32), "{1,NULL,3}", "[1, NULL, 3]"),
        (array(base(oid::INT4)), list(StoredType::Int32), "{}", "[]"),
        (
            array(base(oid::TEXT)),
            list(StoredType::String),
            r#"{"a,b",NULL,"NULL"}"#,
            "[a,b, NULL, NULL]",
        ),
        (
            array(base(oid::BOX)),
            list(StoredType::String),
            "{(1,1),(0,0);(2,2),(1,1)}",
            "[(1,1),(0,0), (2,2),(1,1)]",
        ),
        (
            array(base(oid::UUID)),
            list(StoredType::Uuid),
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "[a0eebc999c0b4ef8bb6d6bb9bd380a11]",
        ),
    ];
    for (pg_type, stored_type, text, expected) in cases {
        let shown = stored(&pg_type, &stored_type, Refuse, text.as_bytes());
        assert_eq!(shown.unwrap(), expected, "{text} as {stored_type}");
    }
}

#[test]
fn policies_decide_what_a_type_cannot_hold() {
    let base = |oid| PgType::base(oid, "x");
    // value, and what clamp makes of it; `None` where clamping is not allowed
    let cases: Vec<(PgType, StoredType, &[u8], Option<&str>)> = vec![
        (base(oid::NUMERIC), DECIMAL, b"NaN", None),
        (base(oid::NUMERIC), DECIMAL, b"-Infinity", None),
        (base(oid::NUMERIC), DECIMAL, b"1.234", None),
        (base(oid::DATE), StoredType::Date, b"infinity", Some("9999-12-31")),
        (base(oid::DATE), StoredType::Date, b"-infinity", Some("0001-01-01")),
        (
            base(oid::TIMESTAMP),
            StoredType::Timestamp,
            b"infinity",
            Some("9999-12-31T23:59:59.999999"),
        ),
        (
            base(oid::TIMESTAMPTZ),
            StoredType::TimestampTz,
            b"-infinity",
            Some("0001-01-01T00:00:00Z"),
        ),
        (
            base(oid::TIMESTAMP),
            StoredType::Timestamp,
            b"294276-01-01 00:00:00",
            Some("9999-12-31T23:59:59.999999"),
        ),
        (base(oid::TIME), StoredType::Time, b"24:00:00", Some("23:59:59.999999")),
        (array(base(oid::INT4)), list(StoredType::Int32), b"{{1},{2}}", None),
        (array(base(oid::INT4)), list(StoredType::Int32), b"[0:1]={1,2}", None),
        (base(oid::TEXT), StoredType::String, b"\xff", None),
    ];
    for (pg_type, stored_type, text, clamped) in cases {
        let shown = String::from_utf8_lossy(text);
        let refused = stored(&pg_type, &stored_type, Refuse, text);
        assert!(matches!(refused, Err(Error::Unrepresentable { .. })), "{shown}");
        assert_eq!(stored(&pg_type, &stored_type, Null, text).unwrap(), "NULL", "{shown}");
        match (stored(&pg_type, &stored_type, Clamp, text), clamped) {
            (Ok(value), Some(expected)) => assert_eq!(value, expected, "{shown}"),
            (Err(Error::Unrepresentable { .. }), None) => {}
            (other, _) => panic!("{shown}: {other:?}"),
        }
    }
}

#[test]
fn a_policy_reaches_the_elements_of_a_list() {
    let dates = array(PgType::base(oid::DATE, "date"));
    let text = b"{2024-01-01,infinity}";
    let stored_type = list(StoredType::Date);
    assert_eq!(stored(&dates, &stored_type, Null, text).unwrap(), "[2024-01-01, NULL]");
    assert_eq!(stored(&dates, &stored_type, Clamp, text).unwrap(), "[2024-01-01, 9999-12-31]");
    assert!(stored(&dates, &stored_type, Refuse, text).is_err());
}

#[test]
fn malformed_text_is_an_error_under_every_policy() {
    for policy in [Refuse, Null, Clamp] {
        let outcome = stored(&PgType::base(oid::INT4, "x"), &StoredType::Int32, policy, b"1x");
        assert!(matches!(outcome, Err(Error::Malformed { .. })));
    }
}

#[test]
fn replaced_values_are_counted_by_column() {
    let mut rows = builder(PgType::base(oid::DATE, "date"), StoredType::Date, Clamp);
    for text in [&b"infinity"[..], b"2024-01-01", b"-infinity"] {
        rows.push(&[Cell::Text(text)]).unwrap();
    }
    assert_eq!(rows.take_lossy(), [("c".to_owned(), 2)]);
    assert_eq!(rows.take_lossy(), []);
}

#[test]
fn a_row_that_fails_in_a_late_column_leaves_no_trace() {
    let mut columns = vec![
        column(0, "a", PgType::base(oid::TEXT, "text"), StoredType::String),
        column(1, "b", array(PgType::base(oid::TEXT, "text")), list(StoredType::String)),
        column(2, "c", PgType::base(oid::BYTEA, "bytea"), StoredType::Binary),
        column(3, "d", PgType::base(oid::UUID, "uuid"), StoredType::Uuid),
        column(4, "e", PgType::base(oid::BOOL, "bool"), StoredType::Boolean),
    ];
    columns.push(column(5, "f", PgType::base(oid::INT4, "integer"), StoredType::Int32));
    let schema = TableSchema {
        table: TableName::new("public", "t"),
        version: 1,
        columns,
        identity: Identity::Full,
        next_field_id: FieldId(200),
        omitted: Vec::new(),
    };
    let mut rows = RowBuilder::new(Arc::new(schema), Refuse);
    let row = |last: &'static [u8]| {
        let id = b"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        [&b"text"[..], b"{x,y}", b"\\x0102", id, b"t", last].map(Cell::Text)
    };
    rows.push(&row(b"1")).unwrap();
    assert!(rows.push(&row(b"no number")).is_err());
    rows.push(&row(b"2")).unwrap();
    let batch = rows.finish().unwrap();
    assert_eq!(batch.num_rows(), 2);
    for column in batch.columns() {
        column.to_data().validate_full().unwrap();
    }
    let shown = |at: usize| {
        let formatter = ArrayFormatter::try_new(batch.column(at), &FormatOptions::default());
        formatter.unwrap().value(1).to_string()
    };
    assert_eq!([shown(0), shown(1), shown(2), shown(5)], ["text", "[x, y]", "0102", "2"]);
}
