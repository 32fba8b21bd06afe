//! A catalog in memory, for lakes that live in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{Catalog, CreateOutcome, Error, Result, SwapOutcome, TableIdent};

/// A catalog that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryCatalog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    namespaces: BTreeSet<String>,
    pointers: BTreeMap<TableIdent, String>,
}

impl MemoryCatalog {
    /// An empty catalog.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // each update is one insert or remove, so a panic elsewhere leaves the maps whole
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Catalog for MemoryCatalog {
    async fn ensure_namespace(&self, namespace: &str) -> Result<()> {
        self.state().namespaces.insert(namespace.to_owned());
        Ok(())
    }

    async fn pointer(&self, ident: &TableIdent) -> Result<Option<String>> {
        Ok(self.state().pointers.get(ident).cloned())
    }

    async fn create(&self, ident: &TableIdent, metadata_location: &str) -> Result<CreateOutcome> {
        let mut state = self.state();
        if !state.namespaces.contains(&ident.namespace) {
            return Err(Error::NoNamespace(ident.namespace.clone()));
        }
        if let Some(existing) = state.pointers.get(ident) {
            return Ok(CreateOutcome::Exists(existing.clone()));
        }
        state.pointers.insert(ident.clone(), metadata_location.to_owned());
        Ok(CreateOutcome::Created)
    }

    async fn swap(&self, ident: &TableIdent, expected: &str, new: &str) -> Result<SwapOutcome> {
        match self.state().pointers.get_mut(ident) {
            Some(pointer) if pointer == expected => {
                *pointer = new.to_owned();
                Ok(SwapOutcome::Swapped)
            }
            _ => Ok(SwapOutcome::Conflict),
        }
    }

    async fn list(&self, namespace: &str) -> Result<Vec<TableIdent>> {
        let state = self.state();
        let of_namespace = state.pointers.keys().filter(|ident| ident.namespace == namespace);
        Ok(of_namespace.cloned().collect())
    }

    async fn drop_table(&self, ident: &TableIdent) -> Result<bool> {
        Ok(self.state().pointers.remove(ident).is_some())
    }
}
