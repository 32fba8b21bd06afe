//! Whether a chain is whole.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::chain::{Head, follow};
use crate::{Error, Result};

/// A chain that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// Records in it.
    pub records: u64,
    /// The hash of the last one; empty without records.
    pub head: String,
}

/// Computes every hash of a file anew.
///
/// # Errors
/// [`Error::BrokenChain`] naming the first line that does not follow from the one before;
/// [`Error::Audit`] if the file cannot be read.
pub fn verify_chain(path: &Path) -> Result<ChainReport> {
    let failed = |source| Error::audit(path, source);
    let file = BufReader::new(File::open(path).map_err(failed)?);
    let mut head = Head::default();
    for line in file.lines() {
        let line = line.map_err(failed)?;
        head = follow(&line, &head).ok_or_else(|| Error::BrokenChain {
            path: path.to_owned(),
            line: Some(head.seq + 1),
        })?;
    }
    Ok(ChainReport { records: head.seq, head: head.hash })
}

#[cfg(test)]
mod tests {
    use cdc_core::SystemClock;

    use super::*;
    use crate::audit::{AuditLog, AuditRecord, Decision, Event, Phase, Surface};

    fn record(reason: &str) -> AuditRecord {
        AuditRecord {
            phase: Phase::Outcome,
            event: Event::Promote,
            surface: Surface::Cli,
            endpoint: "promote".into(),
            principal: "user:ana".into(),
            request_id: "r1".into(),
            resources: Vec::new(),
            decision: Decision::Allow,
            reason_code: None,
            reason: Some(reason.into()),
            cut: Some("main".into()),
            epoch: Some(3),
            lsn: None,
            policy_version: None,
            break_glass_id: None,
            error: None,
        }
    }

    fn chain(dir: &Path) -> std::path::PathBuf {
        // two writers of one chain, as two processes would be
        for reason in ["first", "second", "third \"quoted\"\n"] {
            let log = AuditLog::open(dir, "cli").unwrap();
            log.append(&SystemClock, &record(reason)).unwrap();
        }
        dir.join("cli.ndjson")
    }

    #[test]
    fn a_chain_of_several_writers_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(verify_chain(&chain(dir.path())).unwrap().records, 3);
    }

    #[test]
    fn a_line_that_was_changed_removed_or_doubled_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = chain(dir.path());
        let sound = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = sound.lines().collect();
        let changed = sound.replacen("second", "2nd", 1);
        let removed = format!("{}\n{}\n", lines[0], lines[2]);
        let doubled = format!("{}\n{}\n{}\n", lines[0], lines[0], lines[1]);
        for text in [changed, removed, doubled] {
            std::fs::write(&path, text).unwrap();
            let error = verify_chain(&path).unwrap_err();
            assert!(matches!(error, Error::BrokenChain { line: Some(2), .. }), "{error}");
        }
    }

    #[test]
    fn a_torn_last_line_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = chain(dir.path());
        let mut torn = std::fs::read_to_string(&path).unwrap();
        torn.push_str("{\"v\":1,\"ts\":\"20");
        std::fs::write(&path, torn).unwrap();
        AuditLog::open(dir.path(), "cli").unwrap().append(&SystemClock, &record("x")).unwrap();
        assert_eq!(verify_chain(&path).unwrap().records, 4);
    }
}
