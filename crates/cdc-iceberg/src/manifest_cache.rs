//! Parsed manifests, kept for the next commit or scan. A manifest never changes under its name, so
//! a kept one is never stale.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::avro::Entry;

/// Entries in each of the two generations; an entry of a wide table takes some kilobytes.
const GENERATION_ENTRIES_MAX: usize = 2048;

/// A cache in two generations: when the young one is full, it becomes the old one, and what was not
/// asked for since is forgotten.
#[derive(Debug, Default)]
pub(crate) struct ManifestCache {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Arc<[Entry]>>,
    young_entries: usize,
    old: HashMap<String, Arc<[Entry]>>,
}

impl ManifestCache {
    /// The entries of a manifest, if they are kept.
    pub(crate) fn get(&self, location: &str) -> Option<Arc<[Entry]>> {
        // every update leaves the maps usable, so a panic elsewhere does no harm
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = generations.young.get(location) {
            return Some(Arc::clone(entries));
        }
        let (location, entries) = generations.old.remove_entry(location)?;
        generations.keep(location, Arc::clone(&entries));
        Some(entries)
    }

    /// Keeps the entries of a manifest.
    pub(crate) fn put(&self, location: &str, entries: Arc<[Entry]>) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.keep(location.to_owned(), entries);
    }
}

impl Generations {
    fn keep(&mut self, location: String, entries: Arc<[Entry]>) {
        if entries.len() > GENERATION_ENTRIES_MAX {
            return;
        }
        if self.young_entries + entries.len() > GENERATION_ENTRIES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_entries = 0;
        }
        self.young_entries += entries.len();
        if let Some(before) = self.young.insert(location, entries) {
            self.young_entries -= before.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use iceberg::spec::{DataContentType, DataFileBuilder, DataFileFormat, ManifestStatus};

    use super::*;

    fn entries(count: usize) -> Arc<[Entry]> {
        let file = DataFileBuilder::default()
            .content(DataContentType::Data)
            .file_path("mem://lake/f".to_owned())
            .file_format(DataFileFormat::Parquet)
            .record_count(1)
            .file_size_in_bytes(1)
            .build()
            .unwrap();
        let entry = Entry {
            status: ManifestStatus::Added,
            snapshot_id: 1,
            sequence_number: 1,
            file_sequence_number: 1,
            file,
        };
        vec![entry; count].into()
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_goes() {
        let cache = ManifestCache::default();
        let half = GENERATION_ENTRIES_MAX / 2;
        for name in ["a", "b", "c"] {
            cache.put(name, entries(half));
        }
        assert!(cache.get("a").is_some(), "asked for while it is old");
        cache.put("d", entries(half));
        cache.put("e", entries(half));
        assert!(cache.get("b").is_none());
        assert!(cache.get("a").is_some());
        cache.put("huge", entries(GENERATION_ENTRIES_MAX + 1));
        assert!(cache.get("huge").is_none());
    }
}
