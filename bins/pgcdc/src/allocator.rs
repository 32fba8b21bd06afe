//! The C library's allocator, told to give back what is freed. glibc keeps it otherwise, in an arena
//! per thread: after rows of 5 MB a daemon that needs 120 MiB holds 500 (decision 0014).
//!
//! Its bounds are read from the environment when a process begins, so the process begins once more.

use std::io;

/// Two arenas, and a mapping of its own for each allocation of 128 KiB and more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const BOUNDS: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072")];

/// Replaces this process by itself with the allocator bounded; returns if it is bounded already, by
/// us or by whoever set one of the variables.
///
/// # Errors
/// When the executable cannot be started again; the process may go on as it is.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) fn restart_bounded() -> io::Result<()> {
    use std::os::unix::process::CommandExt;

    if BOUNDS.iter().any(|(name, _)| std::env::var_os(name).is_some()) {
        return Ok(());
    }
    let mut args = std::env::args_os();
    let mut again = std::process::Command::new(std::env::current_exe()?);
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    Err(again.args(args).envs(BOUNDS).exec())
}

/// Other allocators have no such bounds to set.
///
/// # Errors
/// None.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn restart_bounded() -> io::Result<()> {
    Ok(())
}

/// Tells, once there are logs, that the process goes on unbounded.
pub(crate) fn report(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "allocator not bounded, memory may stay above the budget");
    }
}
