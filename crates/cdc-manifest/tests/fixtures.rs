//! Files of each format and version, read for ever and written back byte for byte; and files that
//! must be refused.

use cdc_core::{ErrorKind, Identity, TableName};
use cdc_manifest::{Live, Manifest, RawTag, Refs};
use expect_test::expect;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::lake::{MANIFEST_FIXTURE, example};

const FULL_MANIFEST_FIXTURE: &str = include_str!("fixtures/manifest-v1-full.json");

fn round_trips<T: Serialize + DeserializeOwned>(text: &str) {
    let value: T = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string_pretty(&value).unwrap(), text);
}

#[test]
fn golden_files_round_trip_byte_for_byte() {
    for text in [MANIFEST_FIXTURE, FULL_MANIFEST_FIXTURE] {
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!(manifest.to_bytes().unwrap(), text.as_bytes());
    }
    round_trips::<Refs>(include_str!("fixtures/refs-v1.json"));
    round_trips::<RawTag>(include_str!("fixtures/raw-tag-v1.json"));
    round_trips::<Live>(include_str!("fixtures/live-v1.json"));
}

#[test]
fn unknown_fields_survive_a_change_of_known_ones() {
    let mut manifest = Manifest::parse(FULL_MANIFEST_FIXTURE.as_bytes()).unwrap();
    let table = TableName::new("Größe", "a.b");
    let mut schema = manifest.table_schema(&table).unwrap();
    schema.version += 1;
    schema.columns.pop();
    manifest.set_schema(&schema);
    let text = String::from_utf8(manifest.to_bytes().unwrap().to_vec()).unwrap();
    for field in [
        "later_field",
        "later_source_field",
        "later_table_field",
        "later_schema_field",
        "later_column_field",
        "ticket",
    ] {
        assert!(text.contains(field), "{field}");
    }
}

#[test]
fn a_schema_survives_the_manifest() {
    let table = TableName::new("Größe", "a.b");
    let mut manifest = Manifest::parse(FULL_MANIFEST_FIXTURE.as_bytes()).unwrap();
    let schema = manifest.table_schema(&table).unwrap();
    assert_eq!(
        schema.identity,
        Identity::Index { name: "u_key".into(), columns: vec!["k".into()] }
    );
    let before = manifest.clone();
    manifest.set_schema(&schema);
    assert_eq!(manifest, before);
    let key = &schema.columns[0].pg_type;
    assert_eq!(key.undomained().numeric_precision_scale(), Some((6, 2)));

    let orders = TableName::new("public", "orders");
    let mut manifest = example();
    let before = manifest.clone();
    manifest.set_schema(&manifest.table_schema(&orders).unwrap());
    // the contract's example leaves the modifier out
    for schema in manifest.schemas.values_mut() {
        schema.columns.iter_mut().for_each(|column| column.typmod = None);
    }
    assert_eq!(manifest, before);
}

#[test]
fn roles_without_columns_have_none() {
    let manifest = Manifest::parse(FULL_MANIFEST_FIXTURE.as_bytes()).unwrap();
    let table = TableName::new("Größe", "a.b");
    let allows = |role: &str, column| manifest.roles[role].tables[&table].allows(column);
    assert!(allows("all", "k") && allows("all", "mood"));
    assert!(allows("some", "k") && !allows("some", "mood"));
    assert!(!allows("none", "k"));

    let null = FULL_MANIFEST_FIXTURE.replace("\"columns\": \"*\"", "\"columns\": null");
    let manifest = Manifest::parse(null.as_bytes()).unwrap();
    assert!(!manifest.roles["all"].tables[&table].allows("k"));
}

#[test]
fn unreadable_manifests_say_what_is_wrong() {
    let example = MANIFEST_FIXTURE;
    let cases = [
        (String::new(), ErrorKind::Corrupt),
        ("\0\0\0\0".to_owned(), ErrorKind::Corrupt),
        (example[..example.len() / 2].to_owned(), ErrorKind::Corrupt),
        (example.replacen("\"version\": 1", "\"version\": 2", 1), ErrorKind::Invalid),
        (example.replacen("\"version\": 1", "\"version\": 0", 1), ErrorKind::Invalid),
        (example.replacen("\"epoch\": 2", "\"epoch\": 2,\n  \"epoch\": 3", 1), ErrorKind::Corrupt),
        (example.replacen("\"public.audit_tmp\"", "\"public.orders\"", 1), ErrorKind::Corrupt),
        (example.replacen("\"0/1A2C100\"", "\"yesterday\"", 1), ErrorKind::Corrupt),
    ];
    let mut messages = String::new();
    for (text, kind) in cases {
        let error = Manifest::parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        messages.push_str(&format!("{}\n", cdc_core::chain(&error)));
    }
    expect![[r#"
        manifest.json is empty; hint: restore it from a backup or a version of the store, nothing was changed
        manifest.json is filled with NUL bytes; hint: restore it from a backup or a version of the store, nothing was changed
        manifest.json is not well-formed; hint: restore it from a backup or a version of the store: EOF while parsing a value at line 57 column 35
        manifest.json has version 2, this build reads version 1; hint: a newer pgcdc wrote it, use that one
        manifest.json has version 0, this build reads version 1; hint: pgcdc never writes this version, restore the file
        manifest.json has the key `epoch` twice; hint: restore it, pgcdc never writes this
        manifest.json has the key `tables.public.orders` twice; hint: restore it, pgcdc never writes this
        manifest.json is not well-formed; hint: restore it from a backup or a version of the store: `yesterday` is not an LSN of the form X/Y at line 16 column 27
    "#]]
    .assert_eq(&messages);
}
