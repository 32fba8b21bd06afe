//! The frames of one transaction as one long text: the front on disk, the rest in memory, appended
//! and cut at the end, read once from the front.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::Bytes;

use crate::stream::SpoolOptions;
use crate::{Error, Result};

/// A piece is closed at this size; a frame that is larger is a piece of its own.
const PIECE_BYTES: usize = 512 * 1024;
/// A frame of this size goes to disk at once instead of being copied in memory first.
const LARGE_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// The bytes that all texts of a stream hold.
#[derive(Debug)]
pub(crate) struct Budget {
    options: SpoolOptions,
    memory: usize,
    disk: u64,
}

impl Budget {
    pub(super) fn new(options: SpoolOptions) -> Self {
        Self { options, memory: 0, disk: 0 }
    }

    pub(super) fn is_memory_over(&self) -> bool {
        self.memory > self.options.memory_bytes
    }

    pub(super) fn held_bytes(&self) -> u64 {
        self.memory as u64 + self.disk
    }

    /// Notes that something besides the texts has grown or shrunk.
    pub(super) fn recharge(&mut self, before: usize, now: usize) {
        self.memory = self.memory + now - before;
    }

    /// Takes disk space, or fails if there is none left.
    fn take_disk(&mut self, bytes: usize) -> Result<()> {
        let limit = self.options.disk_bytes;
        let disk = self.disk + bytes as u64;
        if disk > limit {
            return Err(Error::Budget {
                what: "the spool of transactions in progress".to_owned(),
                limit,
                setting: "limits.spool_bytes, or end the transaction on the source",
            });
        }
        self.disk = disk;
        Ok(())
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> Error {
        let directory = self.options.directory.clone();
        move |source| Error::Spool { operation, directory, source }
    }
}

/// Pieces of whole frames. Its bytes must be given back by reading them all or by `clear`.
#[derive(Debug, Default)]
pub(crate) struct Text {
    /// An unnamed temporary file, and the pieces in it that are not read yet.
    file: Option<File>,
    disk: VecDeque<usize>,
    disk_len: u64,
    /// How far the file has been read.
    read: u64,
    memory: VecDeque<Bytes>,
    memory_len: usize,
    /// The last piece, still growing.
    tail: Vec<u8>,
}

impl Text {
    /// Bytes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory_len + self.tail.len()
    }

    /// Where the next frame will stand.
    pub(super) fn len(&self) -> u64 {
        self.disk_len + self.memory_bytes() as u64
    }

    /// Appends one frame, given in parts.
    pub(super) fn append(&mut self, parts: &[&[u8]], budget: &mut Budget) -> Result<()> {
        let length = parts.iter().map(|part| part.len()).sum();
        if length >= LARGE_FRAME_BYTES {
            self.move_to_disk(budget)?;
            return self.write(parts, length, budget);
        }
        if self.tail.len() + length > PIECE_BYTES && !self.tail.is_empty() {
            self.close_tail();
        }
        parts.iter().for_each(|part| self.tail.extend_from_slice(part));
        budget.memory += length;
        Ok(())
    }

    fn close_tail(&mut self) {
        let piece = Bytes::from(std::mem::take(&mut self.tail).into_boxed_slice());
        self.memory_len += piece.len();
        self.memory.push_back(piece);
    }

    /// Moves everything in memory behind what is on disk.
    pub(super) fn move_to_disk(&mut self, budget: &mut Budget) -> Result<()> {
        if !self.tail.is_empty() {
            self.close_tail();
        }
        while let Some(piece) = self.memory.pop_front() {
            self.memory_len -= piece.len();
            budget.memory -= piece.len();
            self.write(&[&piece], piece.len(), budget)?;
        }
        Ok(())
    }

    fn write(&mut self, parts: &[&[u8]], length: usize, budget: &mut Budget) -> Result<()> {
        budget.take_disk(length)?;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let directory = &budget.options.directory;
                let made =
                    tempfile::tempfile_in(directory).map_err(budget.failed("make a file in"))?;
                self.file.insert(made)
            }
        };
        let written = file
            .seek(SeekFrom::Start(self.disk_len))
            .and_then(|_| parts.iter().try_for_each(|part| file.write_all(part)));
        written.map_err(budget.failed("write to"))?;
        self.disk.push_back(length);
        self.disk_len += length as u64;
        Ok(())
    }

    /// Drops everything from `offset` on, which is the start of a frame.
    pub(super) fn cut(&mut self, offset: u64, budget: &mut Budget) -> Result<()> {
        if offset >= self.disk_len {
            let keep = usize::try_from(offset - self.disk_len).unwrap_or(usize::MAX);
            self.cut_memory(keep, budget);
            return Ok(());
        }
        self.cut_memory(0, budget);
        budget.disk -= self.disk_len - offset;
        while self.disk_len > offset {
            let Some(last) = self.disk.pop_back() else { break };
            let start = self.disk_len - last as u64;
            self.disk_len = start.max(offset);
            if offset > start {
                self.disk.push_back(usize::try_from(offset - start).unwrap_or(last));
            }
        }
        match &self.file {
            Some(file) => file.set_len(offset).map_err(budget.failed("cut a file in")),
            None => Ok(()),
        }
    }

    /// Keeps the first `keep` bytes of what is in memory.
    fn cut_memory(&mut self, keep: usize, budget: &mut Budget) {
        let before = self.memory_bytes();
        self.tail.truncate(keep.saturating_sub(self.memory_len));
        while self.memory_len > keep {
            let Some(mut last) = self.memory.pop_back() else { break };
            let start = self.memory_len - last.len();
            self.memory_len = start;
            if keep > start {
                last.truncate(keep - start);
                self.memory_len = keep;
                self.memory.push_back(last);
            }
        }
        budget.memory -= before - self.memory_bytes();
    }

    /// Drops everything.
    pub(super) fn clear(&mut self, budget: &mut Budget) {
        budget.memory -= self.memory_bytes();
        budget.disk -= self.disk_len;
        *self = Self::default();
    }

    /// The size of the next piece; 0 at the end.
    pub(super) fn next_len(&self) -> usize {
        let in_memory = || self.memory.front().map_or(self.tail.len(), Bytes::len);
        self.disk.front().copied().unwrap_or_else(in_memory)
    }

    /// Takes the next piece from the front.
    pub(super) fn next(&mut self, budget: &mut Budget) -> Result<Option<Bytes>> {
        if let Some(length) = self.disk.pop_front() {
            return self.read(length, budget).map(Some);
        }
        if let Some(file) = self.file.take() {
            drop(file);
            budget.disk -= std::mem::take(&mut self.disk_len);
        }
        if self.memory.is_empty() && !self.tail.is_empty() {
            self.close_tail();
        }
        let piece = self.memory.pop_front();
        let length = piece.as_ref().map_or(0, Bytes::len);
        self.memory_len -= length;
        budget.memory -= length;
        Ok(piece)
    }

    fn read(&mut self, length: usize, budget: &Budget) -> Result<Bytes> {
        let failed = budget.failed("read from");
        let Some(file) = &mut self.file else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let mut piece = Vec::with_capacity(length);
        let read = file
            .seek(SeekFrom::Start(self.read))
            .and_then(|_| file.take(length as u64).read_to_end(&mut piece))
            .and_then(|read| match read == length {
                true => Ok(()),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            });
        read.map_err(failed)?;
        self.read += length as u64;
        Ok(Bytes::from(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append(usize),
        Cut(prop::sample::Index),
        Spill,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (1usize..200_000).prop_map(Step::Append),
            1 => any::<prop::sample::Index>().prop_map(Step::Cut),
            1 => Just(Step::Spill),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_text_reads_as_it_was_written_wherever_it_lies(
            steps in prop::collection::vec(step(), 1..60),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let options = SpoolOptions {
                directory: directory.path().to_owned(),
                memory_bytes: 0,
                disk_bytes: u64::MAX,
            };
            let mut budget = Budget::new(options);
            let (mut text, mut model, mut starts) = (Text::default(), Vec::new(), vec![0]);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Append(length) => {
                        let frame = vec![u8::try_from(number).unwrap(); length];
                        let (head, rest) = frame.split_at(length / 2);
                        text.append(&[head, rest], &mut budget).unwrap();
                        model.extend_from_slice(&frame);
                        starts.push(model.len());
                    }
                    Step::Cut(at) => {
                        let keep = at.index(starts.len());
                        model.truncate(starts[keep]);
                        starts.truncate(keep + 1);
                        text.cut(model.len() as u64, &mut budget).unwrap();
                    }
                    Step::Spill => text.move_to_disk(&mut budget).unwrap(),
                }
                prop_assert_eq!(text.len(), model.len() as u64);
                prop_assert_eq!(budget.held_bytes(), model.len() as u64);
            }
            let mut read = Vec::new();
            loop {
                let expected = text.next_len();
                let Some(piece) = text.next(&mut budget).unwrap() else { break };
                prop_assert_eq!(piece.len(), expected);
                read.extend_from_slice(&piece);
            }
            prop_assert!(read == model);
            prop_assert_eq!(budget.held_bytes(), 0);
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_full_spool_says_which_setting_bounds_it() {
        let directory = std::env::temp_dir();
        let options = SpoolOptions { directory, memory_bytes: 0, disk_bytes: 100 };
        let mut budget = Budget::new(options);
        let mut text = Text::default();
        text.append(&[&[0; 60]], &mut budget).unwrap();
        text.move_to_disk(&mut budget).unwrap();
        text.append(&[&[0; 60]], &mut budget).unwrap();
        let error = text.move_to_disk(&mut budget).unwrap_err().to_string();
        assert!(error.contains("100 bytes") && error.contains("limits.spool_bytes"), "{error}");
    }
}
