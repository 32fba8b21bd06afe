//! Running a sibling binary in place of this one, as git does: one command line has everything
//! while each binary links only its own plane.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::{Error, Result};

/// The path of a sibling: the directory of the running executable, never `PATH`.
pub fn sibling_path(binary: &str) -> Result<PathBuf> {
    let this = std::env::current_exe().map_err(|source| Error::CurrentExe { source })?;
    let directory = this.parent().map(PathBuf::from).unwrap_or_default();
    Ok(directory.join(format!("{binary}{}", std::env::consts::EXE_SUFFIX)))
}

/// Becomes the sibling on Unix and does not return; elsewhere waits for it and returns its code.
///
/// # Errors
/// [`Error::SiblingMissing`] when the file is absent, [`Error::SiblingStart`] when it cannot run.
pub fn exec_sibling(binary: &str, args: &[OsString]) -> Result<std::process::ExitCode> {
    let path = sibling_path(binary)?;
    if !path.is_file() {
        return Err(Error::SiblingMissing { path });
    }
    let mut command = Command::new(&path);
    command.args(args);
    run(command).map_err(|source| Error::SiblingStart { path, source })
}

#[cfg(unix)]
fn run(mut command: Command) -> std::io::Result<std::process::ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec())
}

#[cfg(not(unix))]
fn run(mut command: Command) -> std::io::Result<std::process::ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(std::process::ExitCode::from(code.unwrap_or(1)))
}
