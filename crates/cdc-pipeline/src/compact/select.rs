//! Which files of a table are rewritten. Pure.

use std::collections::BTreeSet;

use cdc_iceberg::{DeletedRows, LiveFile, LiveFiles};

/// Small files that are worth a rewrite together; fewer would be rewritten again and again.
const SMALL_FILES_MIN: usize = 8;
/// A file below this part of the target size is small.
const SMALL_PART: u64 = 4;
/// So many delete files too many slow a scan down even if no data file is worth a rewrite.
const DELETE_FILES_MAX: usize = 32;

/// What is wanted of a table's files.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// All rows in one new directory.
    Complete,
    /// As little work as keeps scans fast.
    Worn(Thresholds),
}

/// When a file is worth a rewrite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thresholds {
    /// `compaction.target_file_bytes`.
    pub(crate) target_file_bytes: u64,
    /// `compaction.max_delete_ratio`.
    pub(crate) max_delete_ratio: f64,
}

/// What counts of a file.
#[derive(Clone, Copy, Debug)]
struct Facts {
    size: u64,
    rows: u64,
    deleted: u64,
}

impl Thresholds {
    /// Whether a file of this size is small.
    pub(crate) fn is_small(&self, size: u64) -> bool {
        size < self.target_file_bytes / SMALL_PART
    }

    fn is_worn(&self, file: &Facts) -> bool {
        file.deleted as f64 / file.rows.max(1) as f64 > self.max_delete_ratio
    }

    /// Whether each file is rewritten; `None` if nothing is worth it.
    fn choose(&self, files: &[Facts], delete_files: usize) -> Option<Vec<bool>> {
        let small = files.iter().filter(|file| self.is_small(file.size)).count();
        let has_many_small = small >= SMALL_FILES_MIN;
        let is_chosen =
            |file: &Facts| self.is_worn(file) || (has_many_small && self.is_small(file.size));
        let chosen: Vec<bool> = files.iter().map(is_chosen).collect();
        let is_worth_it = chosen.contains(&true) || delete_files > DELETE_FILES_MAX;
        is_worth_it.then_some(chosen)
    }
}

/// The files to rewrite and those that stay, both in the order of their names: base files then come
/// in the order of their keys. `None` if nothing is worth it.
pub(crate) fn select(
    live: &LiveFiles,
    deleted: &DeletedRows,
    wanted: Wanted,
) -> Option<(Vec<LiveFile>, Vec<LiveFile>)> {
    let mut files = live.data_files.clone();
    files.sort_by(|a, b| a.location.cmp(&b.location));
    let thresholds = match wanted {
        Wanted::Complete => return Some((files, Vec::new())),
        Wanted::Worn(thresholds) => thresholds,
    };
    let facts = |file: &LiveFile| Facts {
        size: file.size,
        rows: file.record_count,
        deleted: deleted.count(&file.location),
    };
    let facts: Vec<Facts> = files.iter().map(facts).collect();
    // one delete file for each data file is as few as there can be
    let own: BTreeSet<&str> =
        live.delete_files.iter().filter_map(|delete| delete.referenced.as_deref()).collect();
    let mut chosen = thresholds.choose(&facts, live.delete_files.len() - own.len())?.into_iter();
    Some(files.into_iter().partition(|_| chosen.next().unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Files of 100 rows: size in MiB, deleted rows.
    fn choose(files: &[(u64, u64)], delete_files: usize) -> Option<Vec<bool>> {
        let thresholds = Thresholds { target_file_bytes: 64 * MIB, max_delete_ratio: 0.2 };
        let facts =
            |(size, deleted): &(u64, u64)| Facts { size: size * MIB, rows: 100, deleted: *deleted };
        thresholds.choose(&files.iter().map(facts).collect::<Vec<_>>(), delete_files)
    }

    #[test]
    fn few_small_files_and_few_deletes_are_left_alone() {
        assert_eq!(choose(&[(64, 20), (1, 0), (1, 20)], DELETE_FILES_MAX), None);
    }

    #[test]
    fn a_file_with_many_deletes_is_rewritten_alone() {
        assert_eq!(choose(&[(64, 5), (64, 21), (1, 0)], 1), Some(vec![false, true, false]));
    }

    #[test]
    fn many_small_files_are_rewritten_together_and_the_large_ones_stay() {
        let mut files = vec![(1, 0); SMALL_FILES_MIN];
        files.push((16, 0));
        let mut expected = vec![true; SMALL_FILES_MIN];
        expected.push(false);
        assert_eq!(choose(&files, 0), Some(expected));
        assert_eq!(choose(&files[1..], 0), None);
    }

    #[test]
    fn many_delete_files_alone_are_worth_a_commit() {
        assert_eq!(choose(&[(64, 1)], DELETE_FILES_MAX + 1), Some(vec![false]));
    }
}
