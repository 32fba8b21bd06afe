//! Fuzz targets for everything that reads bytes from outside: plain functions that must not panic
//! and must hold what they assert, whatever they are given.
//!
//! `cargo test` replays the corpora in `testdata/fuzz/<target>/` and mutates them a bounded number
//! of times, the same way each time; `PGCDC_FUZZ_ITERATIONS=1000000 cargo test -p cdc-wal fuzz`
//! takes longer. An input that once failed is added to the corpus before it is repaired.

mod mutate;
mod targets;

use std::path::PathBuf;

use mutate::Mutator;

/// Mutated inputs per target, unless the environment says otherwise.
const ITERATIONS: u64 = 3000;
/// An input grows no further than this by mutation.
const INPUT_BYTES_MAX: usize = 1 << 16;

type Target = fn(&[u8]);

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/fuzz").join(target);
    let entries =
        std::fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", root.display());
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn run(name: &str, target: Target) {
    let corpus = corpus(name);
    for (path, input) in &corpus {
        println!("{}", path.display());
        target(input);
    }
    let wanted = std::env::var("PGCDC_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let seeds: Vec<&[u8]> = corpus.iter().map(|(_, input)| input.as_slice()).collect();
    let mut mutator = Mutator::new(name);
    for number in 0..wanted.unwrap_or(ITERATIONS) {
        let input = mutator.next(&seeds, INPUT_BYTES_MAX);
        let outcome = std::panic::catch_unwind(|| target(&input));
        if let Err(panic) = outcome {
            let path = std::env::temp_dir().join(format!("pgcdc-fuzz-{name}-{number}"));
            std::fs::write(&path, &input).unwrap();
            println!("the input is in {}", path.display());
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn fuzz_pgoutput_message() {
    run("pgoutput_message", targets::pgoutput_message);
}

#[test]
fn fuzz_message_sequence() {
    run("message_sequence", targets::message_sequence);
}

#[test]
fn fuzz_frame_splitter() {
    run("frame_splitter", targets::frame_splitter);
}

#[test]
fn fuzz_copy_rows() {
    run("copy_rows", targets::copy_rows);
}

#[test]
fn fuzz_array_text() {
    run("array_text", targets::array_text);
}

#[test]
fn fuzz_numeric_text() {
    run("numeric_text", targets::numeric_text);
}

#[test]
fn fuzz_temporal_text() {
    run("temporal_text", targets::temporal_text);
}
