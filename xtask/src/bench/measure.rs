//! What a run cost: wall time, CPU seconds and peak memory of one process, read from /proc.

use std::fs;
use std::io::Seek;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::lab::peak_rss;
use crate::shell;

/// How often a running process is looked at; the precision of its peak memory, not of its time.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(5);

/// The unit of CPU times in /proc: USER_HZ, 100 on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// The cost of one run.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Cost {
    /// From start to end.
    pub(super) seconds: f64,
    /// User and system time of the process, the server's not included.
    pub(super) cpu_seconds: f64,
    /// The most memory it had resident.
    pub(super) peak_rss_bytes: u64,
}

impl Cost {
    /// The run with the median time.
    pub(super) fn median(mut runs: Vec<Self>) -> Result<Self> {
        runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let middle = runs.len() / 2;
        runs.get(middle).copied().context("no run to take the median of")
    }
}

/// Runs a command to its end with its output thrown away, and fails unless it succeeds.
pub(super) fn cost_of(command: &mut Command) -> Result<Cost> {
    cost_with_input(command, Stdio::null())
}

/// The same for a command that reads its stdin.
pub(super) fn cost_with_input(command: &mut Command, input: Stdio) -> Result<Cost> {
    let line = shell::describe(command);
    // A file, not a pipe: nobody reads along, and a full pipe would stop the process.
    let mut said = tempfile::tempfile()?;
    command.stdin(input).stdout(Stdio::null()).stderr(said.try_clone()?);
    let started = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot start `{line}`"))?;
    let pid = child.id();
    let mut peak = 0;
    // The process is not reaped until it has been read: a zombie still tells its CPU time.
    let seconds = loop {
        peak = peak.max(peak_rss(pid).unwrap_or(0));
        if is_zombie(pid)? {
            break started.elapsed().as_secs_f64();
        }
        std::thread::sleep(SAMPLE_INTERVAL);
    };
    let cpu_seconds = cpu_seconds(pid)?;
    if !child.wait()?.success() {
        said.rewind()?;
        bail!("`{line}` failed: {}", std::io::read_to_string(said)?);
    }
    Ok(Cost { seconds, cpu_seconds, peak_rss_bytes: peak })
}

/// User and system time that a process has used.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let fields = stat_fields(pid)?;
    // Fields 14 and 15 of proc(5); the first here is field 3.
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    let total = ticks(11).zip(ticks(12)).map(|(user, system)| user + system);
    Ok(total.context("/proc has no CPU times")? / TICKS_PER_SECOND)
}

fn is_zombie(pid: u32) -> Result<bool> {
    Ok(stat_fields(pid)?.first().is_some_and(|state| state == "Z"))
}

/// The fields of /proc/pid/stat behind the name, which may hold anything.
fn stat_fields(pid: u32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("odd /proc/pid/stat")?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_costs_time_and_memory() -> Result<()> {
        let mut busy = Command::new("sh");
        busy.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
        let cost = cost_of(&mut busy)?;
        assert!(cost.seconds > 0.0 && cost.cpu_seconds > 0.0, "{cost:?}");
        assert!(cost.peak_rss_bytes > 100_000, "{cost:?}");
        Ok(())
    }

    #[test]
    fn a_failing_process_is_an_error_with_its_words() {
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo sorry >&2; exit 3"]);
        let error = cost_of(&mut failing).unwrap_err().to_string();
        assert!(error.contains("sorry"), "{error}");
    }
}
