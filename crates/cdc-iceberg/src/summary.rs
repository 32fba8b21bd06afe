//! The standard keys of a snapshot summary: what a commit added and removed, and the totals carried
//! forward from its parent (Iceberg spec, appendix F).

use std::collections::HashMap;

use iceberg::spec::{DataContentType, DataFile, Operation, Snapshot};

use crate::CommitKind;

/// What a commit did, in files, rows and bytes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    added: Count,
    removed: Count,
}

#[derive(Debug, Default)]
struct Count {
    data_files: u64,
    records: u64,
    bytes: u64,
    delete_files: u64,
    vectors: u64,
    position_deletes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, file: &DataFile) {
        self.added.count(file);
    }

    pub(crate) fn remove(&mut self, file: &DataFile) {
        self.removed.count(file);
    }

    /// The operation of the snapshot, so that engines that read incrementally know appends.
    pub(crate) fn operation(&self, kind: CommitKind) -> Operation {
        let added = &self.added;
        let removes_rows = added.delete_files > 0 || self.removed.data_files > 0;
        match kind {
            CommitKind::Compact => Operation::Replace,
            _ if !removes_rows => Operation::Append,
            _ if added.data_files == 0 => Operation::Delete,
            _ => Operation::Overwrite,
        }
    }

    /// Writes the keys of this commit and the totals after it.
    pub(crate) fn write(&self, parent: Option<&Snapshot>, summary: &mut HashMap<String, String>) {
        let (added, removed) = (&self.added, &self.removed);
        let total = |key: &str, plus: u64, minus: u64| {
            let before = parent.map_or(Some(0), |parent| {
                parent.summary().additional_properties.get(key)?.parse::<u64>().ok()
            });
            // a foreign commit may have left a total out; then it stays out
            Some((key.to_owned(), (before? + plus).saturating_sub(minus).to_string()))
        };
        let totals = [
            total("total-data-files", added.data_files, removed.data_files),
            total("total-delete-files", added.delete_files, removed.delete_files),
            total("total-records", added.records, removed.records),
            total("total-files-size", added.bytes, removed.bytes),
            total("total-position-deletes", added.position_deletes, removed.position_deletes),
            total("total-equality-deletes", 0, 0),
        ];
        summary.extend(totals.into_iter().flatten());
        let counts = [
            ("added-data-files", added.data_files),
            ("added-records", added.records),
            ("added-files-size", added.bytes),
            ("added-delete-files", added.delete_files),
            ("added-position-delete-files", added.delete_files - added.vectors),
            ("added-dvs", added.vectors),
            ("added-position-deletes", added.position_deletes),
            ("deleted-data-files", removed.data_files),
            ("deleted-records", removed.records),
            ("removed-files-size", removed.bytes),
            ("removed-delete-files", removed.delete_files),
            ("removed-position-delete-files", removed.delete_files - removed.vectors),
            ("removed-dvs", removed.vectors),
            ("removed-position-deletes", removed.position_deletes),
        ];
        let seen = counts.into_iter().filter(|(_, count)| *count > 0);
        summary.extend(seen.map(|(key, count)| (key.to_owned(), count.to_string())));
    }
}

impl Count {
    fn count(&mut self, file: &DataFile) {
        // vectors share a file, so each counts its own part of it
        let part = file.content_size_in_bytes().and_then(|part| u64::try_from(part).ok());
        self.bytes += part.unwrap_or(file.file_size_in_bytes());
        if file.content_type() == DataContentType::Data {
            self.data_files += 1;
            self.records += file.record_count();
        } else {
            self.delete_files += 1;
            self.vectors += u64::from(part.is_some());
            self.position_deletes += file.record_count();
        }
    }
}
