//! Files cut along their row groups into one group of about equal bytes per thread.

use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::datasource::listing::{FileRange, PartitionedFile};
use datafusion::datasource::physical_plan::FileGroup;

use super::footers::FOOTER_HINT_BYTES;
use super::pruning::statistics;
use crate::files::LakeFile;

/// Below this a group is not worth a thread of its own.
const GROUP_BYTES_MIN: u64 = 1024 * 1024;

/// A piece of a file that is never cut: one row group, or a file whose row groups are unknown.
struct Piece {
    file: usize,
    range: Option<(u64, u64)>,
    bytes: u64,
}

/// The groups, each a run of neighbouring pieces, so that few files are opened twice. Never empty.
pub(super) fn of(files: &[&LakeFile], threads: usize, schema: &Schema) -> Vec<FileGroup> {
    let pieces: Vec<Piece> =
        files.iter().enumerate().flat_map(|(at, file)| pieces(at, file)).collect();
    let total: u64 = pieces.iter().map(|piece| piece.bytes).sum();
    let groups = (threads as u64).min(total / GROUP_BYTES_MIN).max(1);
    let templates: Vec<PartitionedFile> =
        files.iter().map(|file| partitioned(file, schema)).collect();
    let mut out = vec![Vec::<PartitionedFile>::new(); usize::try_from(groups).unwrap_or(1)];
    let mut before = 0u64;
    for piece in pieces {
        // a piece belongs where its middle lies
        let middle = before + piece.bytes / 2;
        let group = (u128::from(middle) * u128::from(groups) / u128::from(total.max(1))) as usize;
        let last = out.len() - 1;
        push(&mut out[group.min(last)], &templates[piece.file], piece.range);
        before += piece.bytes;
    }
    out.retain(|group| !group.is_empty());
    if out.is_empty() {
        out.push(Vec::new());
    }
    out.into_iter().map(FileGroup::new).collect()
}

fn pieces(at: usize, file: &LakeFile) -> Vec<Piece> {
    let starts = &file.row_group_offsets;
    if starts.len() < 2 {
        return vec![Piece { file: at, range: None, bytes: file.bytes }];
    }
    let ends = starts.iter().skip(1).copied().chain([file.bytes]);
    let piece = |(start, end): (u64, u64)| Piece {
        file: at,
        range: Some((start, end)),
        bytes: end.saturating_sub(start),
    };
    starts.iter().copied().zip(ends).map(piece).collect()
}

fn partitioned(file: &LakeFile, schema: &Schema) -> PartitionedFile {
    PartitionedFile::new(file.path.to_string(), file.bytes)
        .with_statistics(Arc::new(statistics(file, schema)))
        .with_metadata_size_hint(FOOTER_HINT_BYTES)
}

/// Adds a piece, joining it to the one before where they touch.
fn push(group: &mut Vec<PartitionedFile>, template: &PartitionedFile, range: Option<(u64, u64)>) {
    let signed = |at: u64| i64::try_from(at).unwrap_or(i64::MAX);
    let Some((start, end)) = range.map(|(start, end)| (signed(start), signed(end))) else {
        group.push(template.clone());
        return;
    };
    if let Some(last) = group.last_mut()
        && last.path() == template.path()
        && let Some(before) = last.range.as_mut()
        && before.end == start
    {
        before.end = end;
        return;
    }
    let mut file = template.clone();
    file.range = Some(FileRange { start, end });
    group.push(file);
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::path::Path;

    fn file(name: &str, bytes: u64, row_group_offsets: &[u64]) -> LakeFile {
        LakeFile {
            path: Path::from(name),
            location: name.to_owned(),
            bytes,
            rows: 1,
            deletes_max: 0,
            row_group_offsets: row_group_offsets.to_vec(),
            bounds: Vec::new(),
        }
    }

    #[test]
    fn files_are_cut_along_row_groups_evenly() {
        const MIB: u64 = 1024 * 1024;
        let files = [
            file("a", 4 * MIB, &[4, MIB, 2 * MIB, 3 * MIB]),
            file("b", MIB, &[4]),
            file("c", MIB, &[4]),
        ];
        let files: Vec<&LakeFile> = files.iter().collect();
        let shown: Vec<Vec<String>> = of(&files, 2, &Schema::empty())
            .iter()
            .map(|group| {
                let show = |file: &PartitionedFile| match &file.range {
                    Some(range) => {
                        format!("{} {}-{}", file.path(), range.start, range.end)
                    }
                    None => file.path().to_string(),
                };
                group.iter().map(show).collect()
            })
            .collect();
        let expected = [
            vec!["a 4-3145728".to_owned()],
            vec!["a 3145728-4194304".to_owned(), "b".into(), "c".into()],
        ];
        assert_eq!(shown, expected);
    }
}
