//! One immutable sorted run on disk: its format, writing and opening.
//!
//! ```text
//! blocks   4096 bytes each: 146 records of 28 bytes, 8 bytes checksum; the last one zero-filled
//! fences   first 8 bytes of the hash of every <stride>-th block's first record
//! footer   magic, seed, records, stride, checksum of the fences, checksum of the footer
//! ```
//! Checksums are seeded by the run and the block, so a block of another run or place is noticed.
//! They are checked with every block read: no torn or overwritten file gives a wrong answer.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::record::{Entry, RECORD_BYTES};
use super::stamp::RunEntry;
use crate::{Error, Result};

pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const BLOCK_RECORDS: usize = 146;
const BLOCK_BODY: usize = BLOCK_RECORDS * RECORD_BYTES;
const FOOTER_BYTES: usize = 48;
const MAGIC: u64 = u64::from_be_bytes(*b"pgcdcix1");
const FENCE_BYTES: usize = 8;
/// Writes are gathered up to this many bytes.
const WRITE_BYTES: usize = 256 << 10;

/// An open run. Reading needs no lock: each read names its place.
#[derive(Debug)]
pub(super) struct Run {
    number: u64,
    seed: u64,
    records: u64,
    stride: u64,
    fences: Vec<u64>,
    file: PositionedFile,
    path: PathBuf,
}

impl Run {
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn blocks(&self) -> u64 {
        self.records.div_ceil(BLOCK_RECORDS as u64)
    }

    pub(super) fn fence_bytes(&self) -> usize {
        self.fences.len() * FENCE_BYTES
    }

    pub(super) fn entry(&self) -> RunEntry {
        RunEntry { number: self.number, seed: self.seed, records: self.records }
    }

    /// The blocks among which is the first that can hold `hash`, as a half-open range: the first of
    /// them, or the one behind the range, holds the first record that is not below it.
    pub(super) fn candidates(&self, hash: u128) -> (u64, u64) {
        let prefix = (hash >> 64) as u64;
        let above = self.fences.partition_point(|&fence| fence < prefix) as u64;
        let from = above.saturating_sub(1) * self.stride;
        (from, (above * self.stride).clamp(from, self.blocks()))
    }

    /// Reads and checks a block; returns how many records it holds.
    pub(super) fn read(&self, block: u64, into: &mut [u8; BLOCK_BYTES]) -> Result<usize> {
        let read = self.file.read_exact_at(into, block * BLOCK_BYTES as u64);
        read.map_err(|source| io("read", &self.path, source))?;
        let (body, sum) = into.split_at(BLOCK_BODY);
        if checksum(self.seed, block, body).to_be_bytes() != *sum {
            return Err(damaged(&self.path, "a block has another checksum"));
        }
        let before = block * BLOCK_RECORDS as u64;
        Ok((self.records - before).min(BLOCK_RECORDS as u64) as usize)
    }
}

/// The directory of the runs and the next free number.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
    next: u64,
    fence_bytes_max: usize,
}

impl RunDir {
    pub(super) fn new(path: &Path, next: u64, fence_bytes_max: usize) -> Self {
        Self { path: path.to_owned(), next, fence_bytes_max }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next
    }

    fn run_path(&self, number: u64) -> PathBuf {
        self.path.join(format!("run-{number:06}.idx"))
    }

    /// Writes a run from entries in ascending order, each record once.
    pub(super) fn write(&mut self, entries: impl Iterator<Item = Result<Entry>>) -> Result<Run> {
        let number = self.next;
        self.next += 1;
        let path = self.run_path(number);
        let written = self.write_file(&path, entries);
        let (seed, records) = written.inspect_err(|_| remove_file(&path))?;
        self.open(&RunEntry { number, seed, records })
    }

    fn write_file(
        &self,
        path: &Path,
        entries: impl Iterator<Item = Result<Entry>>,
    ) -> Result<(u64, u64)> {
        let failed = |source| io("write", path, source);
        let file = File::create(path).map_err(failed)?;
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let mut writer = RunWriter::new(file, seed, self.fence_bytes_max);
        for entry in entries {
            writer.push(entry?).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        Ok((seed, writer.records))
    }

    /// Moves a run of another directory, on the same file system, into this one.
    pub(super) fn adopt(&mut self, run: Run) -> Result<Run> {
        let number = self.next;
        self.next += 1;
        let path = self.run_path(number);
        std::fs::rename(&run.path, &path).map_err(|source| io("move", &path, source))?;
        Ok(Run { number, path, ..run })
    }

    /// Opens the run that index.json names.
    pub(super) fn open(&self, entry: &RunEntry) -> Result<Run> {
        let path = self.run_path(entry.number);
        let failed = |source| io("read", &path, source);
        let file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let file = PositionedFile::new(file);
        let blocks = entry.records.div_ceil(BLOCK_RECORDS as u64);
        let fences_at = blocks * BLOCK_BYTES as u64;
        let footer_at = length.saturating_sub(FOOTER_BYTES as u64);
        if footer_at < fences_at {
            return Err(damaged(&path, "the file is too short"));
        }
        let mut footer = [0; FOOTER_BYTES];
        file.read_exact_at(&mut footer, footer_at).map_err(failed)?;
        let footer = Footer::decode(&footer).ok_or_else(|| damaged(&path, "it has no footer"))?;
        let count = blocks.div_ceil(footer.stride.max(1));
        let expected = (entry.seed, entry.records, fences_at + count * FENCE_BYTES as u64);
        if (footer.seed, footer.records, footer_at) != expected {
            return Err(damaged(&path, "it is another run than the one named"));
        }
        let mut bytes = vec![0; (footer_at - fences_at) as usize];
        file.read_exact_at(&mut bytes, fences_at).map_err(failed)?;
        if checksum(footer.seed, blocks, &bytes) != footer.fences_sum {
            return Err(damaged(&path, "its fences have another checksum"));
        }
        let (fences, _) = bytes.as_chunks::<FENCE_BYTES>();
        let fences = fences.iter().map(|fence| u64::from_be_bytes(*fence)).collect();
        let RunEntry { number, seed, records } = *entry;
        Ok(Run { number, seed, records, stride: footer.stride, fences, file, path })
    }

    /// Removes the files of runs that are no longer needed. What cannot be removed now is removed
    /// at the next open.
    pub(super) fn remove(&self, runs: impl IntoIterator<Item = Run>) {
        for run in runs {
            remove_file(&run.path);
        }
    }

    /// Removes every run file but those of these numbers.
    pub(super) fn remove_others(&mut self, keep: impl Iterator<Item = u64>) -> Result<()> {
        let keep: Vec<PathBuf> = keep.map(|number| self.run_path(number)).collect();
        let entries = std::fs::read_dir(&self.path);
        for entry in entries.map_err(|source| io("list", &self.path, source))?.flatten() {
            let path = entry.path();
            let is_run = path.extension().is_some_and(|extension| extension == "idx");
            if is_run && !keep.contains(&path) {
                remove_file(&path);
            }
        }
        Ok(())
    }
}

fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(path = %path.display(), %error, "a run of the key index stays until the next open");
    }
}

/// Writes blocks as records come, keeping fences within their budget by dropping every other one.
struct RunWriter {
    out: BufWriter<File>,
    seed: u64,
    block: Vec<u8>,
    blocks: u64,
    records: u64,
    fences: Vec<u64>,
    fences_max: usize,
    stride: u64,
}

impl RunWriter {
    fn new(file: File, seed: u64, fence_bytes_max: usize) -> Self {
        Self {
            out: BufWriter::with_capacity(WRITE_BYTES, file),
            seed,
            block: Vec::with_capacity(BLOCK_BYTES),
            blocks: 0,
            records: 0,
            fences: Vec::new(),
            fences_max: (fence_bytes_max / FENCE_BYTES).max(2),
            stride: 1,
        }
    }

    fn push(&mut self, entry: Entry) -> std::io::Result<()> {
        if self.block.is_empty() && self.blocks.is_multiple_of(self.stride) {
            self.fence((entry.record.hash >> 64) as u64);
        }
        entry.encode(&mut self.block);
        self.records += 1;
        if self.block.len() == BLOCK_BODY { self.flush_block() } else { Ok(()) }
    }

    fn fence(&mut self, prefix: u64) {
        if self.fences.len() == self.fences_max {
            let mut index = 0;
            self.fences.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.stride *= 2;
        }
        if self.blocks.is_multiple_of(self.stride) {
            self.fences.push(prefix);
        }
    }

    fn flush_block(&mut self) -> std::io::Result<()> {
        self.block.resize(BLOCK_BODY, 0);
        let sum = checksum(self.seed, self.blocks, &self.block);
        self.out.write_all(&self.block)?;
        self.out.write_all(&sum.to_be_bytes())?;
        self.block.clear();
        self.blocks += 1;
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        if !self.block.is_empty() {
            self.flush_block()?;
        }
        let fences: Vec<u8> = self.fences.iter().flat_map(|fence| fence.to_be_bytes()).collect();
        self.out.write_all(&fences)?;
        let footer = Footer {
            seed: self.seed,
            records: self.records,
            stride: self.stride,
            fences_sum: checksum(self.seed, self.blocks, &fences),
        };
        self.out.write_all(&footer.encode())?;
        self.out.flush()
    }
}

struct Footer {
    seed: u64,
    records: u64,
    stride: u64,
    fences_sum: u64,
}

impl Footer {
    fn encode(&self) -> Vec<u8> {
        let words = [MAGIC, self.seed, self.records, self.stride, self.fences_sum];
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend_from_slice(&checksum(self.seed, 0, &bytes).to_be_bytes());
        bytes
    }

    /// `None` if it is not one.
    fn decode(bytes: &[u8; FOOTER_BYTES]) -> Option<Footer> {
        let (words, _) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_be_bytes(*word)).collect();
        let &[magic, seed, records, stride, fences_sum, sum] = words.as_slice() else {
            return None;
        };
        let is_sound = magic == MAGIC && sum == checksum(seed, 0, &bytes[..FOOTER_BYTES - 8]);
        is_sound.then_some(Footer { seed, records, stride, fences_sum })
    }
}

/// Tells torn, misplaced and overwritten bytes. Not against malice: the directory is ours.
fn checksum(seed: u64, place: u64, bytes: &[u8]) -> u64 {
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(MULTIPLIER);
    let start = mix(mix(seed, place), bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(start, |sum, word| mix(sum, u64::from_be_bytes(*word)));
    let sum = rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)));
    sum ^ (sum >> 32)
}

/// A file that is read at given places.
#[derive(Debug)]
struct PositionedFile {
    #[cfg(unix)]
    file: File,
    /// Elsewhere the place is a state of the file.
    #[cfg(not(unix))]
    file: std::sync::Mutex<File>,
}

impl PositionedFile {
    #[cfg(unix)]
    fn new(file: File) -> Self {
        Self { file }
    }

    #[cfg(not(unix))]
    fn new(file: File) -> Self {
        Self { file: std::sync::Mutex::new(file) }
    }

    #[cfg(unix)]
    fn read_exact_at(&self, into: &mut [u8], at: u64) -> std::io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, into, at)
    }

    #[cfg(not(unix))]
    fn read_exact_at(&self, into: &mut [u8], at: u64) -> std::io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = self.file.lock().map_err(|_| std::io::Error::other("a reader panicked"))?;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(into)
    }
}

pub(super) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { operation, path: path.display().to_string(), source }
}

pub(super) fn damaged(path: &Path, detail: &'static str) -> Error {
    Error::IndexDamaged { path: path.display().to_string(), detail }
}
