//! Removes what an unfinished init made: slot, publication, catalog entries, files. Everything named
//! by its record is its own: the slot did not exist and the directories were empty before.

use std::path::Path;

use cdc_core::TableName;
use cdc_manifest::layout;
use cdc_wal::Control;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, path::Path as ObjectPath};

use crate::Error;
use crate::init_record::InitRecord;
use crate::lake::Lake;

/// Undoes an init and removes its record. Repeating it is harmless.
pub(crate) async fn unfinished(
    lake: &Lake,
    control: &Control,
    record: &InitRecord,
    state_dir: &Path,
) -> Result<(), Error> {
    let found = lake.manifests.load().await?;
    if found.as_ref().is_some_and(|found| found.value.lake_id == record.lake_id) {
        // it was finished after all: what it made belongs to the lake now
        return InitRecord::remove(state_dir);
    }
    control.drop_slot(&record.slot).await?;
    if record.publication_made {
        control.drop_publication(&record.publication).await?;
    }
    if found.is_some() {
        // a lake stands there, made by another init at the same time: its files are not ours
        tracing::warn!("another init made a lake at this root; its files are left alone");
        return InitRecord::remove(state_dir);
    }
    lake.store.abort_unfinished().await;
    remove_catalog_entries(lake, &record.namespace).await?;
    for table in &record.tables {
        let table: TableName = table.parse().map_err(|_| Error::BadManifest {
            detail: format!("the record of the unfinished init names `{table}`"),
        })?;
        remove_objects(lake, &table).await?;
    }
    InitRecord::remove(state_dir)
}

/// Without a manifest no table of the embedded catalog belongs to a lake.
async fn remove_catalog_entries(lake: &Lake, namespace: &str) -> Result<(), Error> {
    let catalog = lake.tables.catalog();
    for ident in catalog.list(namespace).await.map_err(Error::catalog)? {
        catalog.drop_table(&ident).await.map_err(Error::catalog)?;
    }
    Ok(())
}

/// Removes all objects below a table's directory.
pub(crate) async fn remove_objects(lake: &Lake, table: &TableName) -> Result<(), Error> {
    let store = lake.store.store();
    let prefix = ObjectPath::from(layout::table_dir(table));
    let wrong =
        |source| Error::Objects { location: lake.store.location().uri(prefix.as_ref()), source };
    let found = store.list(Some(&prefix)).map_ok(|object| object.location).boxed();
    store.delete_stream(found).try_for_each(|_| async { Ok(()) }).await.map_err(wrong)
}

/// A table's directory must not hold anything: what is there would not be ours.
pub(crate) async fn check_empty(lake: &Lake, table: &TableName) -> Result<(), Error> {
    let prefix = ObjectPath::from(layout::table_dir(table));
    let location = lake.store.location().uri(prefix.as_ref());
    let mut objects = lake.store.store().list(Some(&prefix));
    match objects.next().await {
        None => Ok(()),
        Some(Ok(_)) => Err(Error::NotEmpty { location }),
        Some(Err(source)) => Err(Error::Objects { location, source }),
    }
}
