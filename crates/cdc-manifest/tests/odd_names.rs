//! Tables whose names would hurt a file system or a parser, through the whole of the crate.

use cdc_core::{Epoch, TableName};
use cdc_manifest::{ManifestStore, Swap, layout};
use object_store::{ObjectStoreExt, PutPayload};

use crate::lake::{filesystem, manifest_of, schema_of};

fn odd_names() -> Vec<TableName> {
    [
        ("public", ".."),
        ("../../etc", "passwd"),
        ("a.b", "c"),
        ("a", "b.c"),
        ("public", "Order Items"),
        ("public", "say \"hi\""),
        ("public", "100% #1?"),
        ("public", "tab\tnewline\n"),
        ("Größe", "表"),
        ("public", "back\\slash:colon*"),
        ("public", "epoch=000001"),
        ("public", "!21"),
    ]
    .map(|(schema, name)| TableName::new(schema, name))
    .to_vec()
}

#[tokio::test]
async fn odd_names_are_stored_and_found_again() {
    let (dir, lake) = filesystem();
    let names = odd_names();
    layout::check_table_dirs(&names).unwrap();
    for table in &names {
        let key = layout::delta_key(table, Epoch(1), 0);
        let path = object_store::path::Path::parse(&key).unwrap();
        lake.store().put(&path, PutPayload::from(table.to_string())).await.unwrap();
        // the location in Iceberg metadata leads to the same bytes
        let uri = lake.location().uri(&key);
        let bytes = std::fs::read(uri.strip_prefix("file://").unwrap()).unwrap();
        assert_eq!(bytes, table.to_string().as_bytes());
        assert_eq!(lake.location().key(&uri), Some(key.as_str()));
    }
    let directories = std::fs::read_dir(dir.path()).unwrap().flatten();
    let directories = directories.filter(|entry| entry.path().is_dir()).count();
    assert_eq!(directories, names.len());
}

#[tokio::test]
async fn odd_names_survive_the_manifest() {
    let (_dir, lake) = filesystem();
    let names = odd_names();
    let manifest = manifest_of(&names);
    let store = ManifestStore::new(lake);
    assert!(matches!(store.create(&manifest).await.unwrap(), Swap::Stored(_)));
    let found = store.require().await.unwrap().value;
    assert_eq!(found, manifest);
    for table in &names {
        assert_eq!(found.table_schema(table).unwrap(), schema_of(table));
    }
}
