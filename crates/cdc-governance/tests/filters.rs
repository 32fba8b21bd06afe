//! The language of row filters: what is refused, and what each part means.

use cdc_governance::{RowFilter, Value};

use crate::world::{TABLE, shape};

fn parse(text: &str) -> RowFilter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn what_is_not_in_the_language_is_refused() {
    for text in [
        "",
        "a",
        "a =",
        "a = b",
        "a = NULL",
        "NOT",
        "a = 1 OR",
        "a = 1 b = 2",
        "lower(a) = 'x'",
        "a = 1; DROP TABLE t",
        "a = 'x",
        "\"\" = 1",
        "a IN ()",
        "a IN (1,)",
        "a NOT = 1",
        "a IS 1",
        "a LIKE 1",
        "a BETWEEN 1 OR 2",
        "a = 1.",
        "a = 1.2.3",
        "a = 1e5",
        "a = --1",
        "(a = 1",
        "a = 1)",
        "a || 'x' = 'y'",
        "true = true",
    ] {
        assert!(text.parse::<RowFilter>().is_err(), "{text}");
    }
    let long = format!("a = '{}'", "x".repeat(2042));
    assert_eq!(long.chars().count(), 2048);
    assert!(long.parse::<RowFilter>().is_ok());
    assert!(format!("{long} ").parse::<RowFilter>().is_ok(), "space around it does not count");
    assert!(format!("b{long}").parse::<RowFilter>().is_err());
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(nested(32).parse::<RowFilter>().is_ok());
    assert!(nested(33).parse::<RowFilter>().is_err());
    assert!(format!("{}a = 1", "NOT ".repeat(400)).parse::<RowFilter>().is_err());
}

#[test]
fn each_part_means_what_sql_means() {
    let number = |text: &str| Value::Number(text.to_owned());
    let text = |text: &str| Value::Text(text.to_owned());
    let cases = [
        ("a = 1", number("1.00"), Some(true)),
        ("a <> 1", number("1"), Some(false)),
        ("a != 2", number("1"), Some(true)),
        ("a < 10", number("9"), Some(true)),
        ("a <= 9", number("9.0000001"), Some(false)),
        ("a > -1", number("0"), Some(true)),
        ("a >= +0.5", number("0.5"), Some(true)),
        ("a = 0.1", number("0.10000000000000000000000000001"), Some(false)),
        ("a = 1", number("170141183460469231731687303715884105728"), None),
        ("a = 1.5", Value::Float(1.5), Some(true)),
        ("a = 1", Value::Float(f64::NAN), None),
        ("A = 'x'", text("x"), Some(true)),
        ("\"a\" = 'it''s'", text("it's"), Some(true)),
        ("a = 'x'", number("1"), None),
        ("a BETWEEN 1 AND 3", number("3"), Some(true)),
        ("a NOT BETWEEN 1 AND 3", number("4"), Some(true)),
        ("a between 1 and 3", number("0"), Some(false)),
        ("a IN ('x', 'y')", text("y"), Some(true)),
        ("a NOT IN ('x', 'y')", text("z"), Some(true)),
        ("a IN ('x')", Value::Null, None),
        ("a LIKE '%b_d%'", text("abcde"), Some(true)),
        ("a LIKE 'a%c'", text("abcbc"), Some(true)),
        ("a LIKE 'a%c'", text("abcb"), Some(false)),
        ("a LIKE '_'", text("ä"), Some(true)),
        ("a LIKE ''", text(""), Some(true)),
        ("a LIKE '10\\%'", text("10x"), Some(false)),
        ("a LIKE '10\\%'", text("10%"), Some(true)),
        ("a NOT LIKE 'x%'", text("y"), Some(true)),
        ("a LIKE 'x'", Value::Null, None),
        ("a IS NULL", Value::Null, Some(true)),
        ("a IS NOT NULL", Value::Null, Some(false)),
        ("a IS NULL", Value::Opaque, Some(false)),
        ("a = true", Value::Bool(true), Some(true)),
        ("a = 1 AND a IS NULL", Value::Null, None),
        ("a = 1 AND a IS NOT NULL", Value::Null, Some(false)),
        ("a = 1 OR a IS NULL", Value::Null, Some(true)),
        ("a = 1 OR a IS NOT NULL", Value::Null, None),
        ("NOT a = 1", Value::Null, None),
        ("a = 1 OR a = 2 AND a = 3", number("1"), Some(true)),
        ("(a = 1 OR a = 2) AND a = 3", number("1"), Some(false)),
        ("a >= '2020-02-29'", Value::Date("2020-02-29".parse().unwrap()), Some(true)),
        ("a < '08:00:00'", Value::Time("07:59:59".parse().unwrap()), Some(true)),
        (
            "a = '2020-01-01 12:00:00'",
            Value::Timestamp("2020-01-01T12:00:00Z".parse().unwrap()),
            Some(true),
        ),
        (
            "a = '2020-01-01T12:00:00+02:00'",
            Value::Timestamp("2020-01-01T10:00:00Z".parse().unwrap()),
            Some(true),
        ),
    ];
    for (filter, value, expected) in cases {
        let row = |name: &str| if name == "a" { value.clone() } else { Value::Null };
        assert_eq!(parse(filter).eval(&row), expected, "{filter} for {value:?}");
    }
}

#[test]
fn literals_must_be_values_of_their_columns() {
    let users = shape(TABLE, &["id", "name", "born"]);
    for text in [
        "id = 7",
        "name LIKE 'a%'",
        "born BETWEEN '2000-01-01' AND '2001-01-01'",
        "born IS NULL",
        "NOT (id IN (1, 2) OR name = 'x')",
    ] {
        assert!(parse(text).check(&users).is_ok(), "{text}");
    }
    for text in [
        "id = 'x'",
        "id LIKE '7'",
        "name = 7",
        "name = true",
        "born = 'soon'",
        "born = '2001-02-29'",
        "other IS NULL",
        "id = 1 AND id IN (1, 'x')",
        "id BETWEEN 1 AND 'x'",
        "NOT other = 1",
    ] {
        assert!(parse(text).check(&users).is_err(), "{text}");
    }
    let read = parse("a = 1 OR NOT (b LIKE 'x' AND c IN (1)) OR d BETWEEN 1 AND 2 OR e IS NULL");
    assert_eq!(read.columns().into_iter().collect::<String>(), "abcde");
}
