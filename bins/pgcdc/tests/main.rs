//! The command line through the real binary. Nothing here needs a PostgreSQL.

mod configuration;
mod dispatch;
mod help;
mod quickstart;

use std::path::Path;
use std::process::Command;

/// What a run left behind.
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    /// Exit code, stdout and stderr as one text.
    fn shown(&self) -> String {
        let code = self.code.map_or("signal".to_owned(), |code| code.to_string());
        format!("exit {code}\n{}{}", self.stdout, self.stderr)
    }
}

/// Runs `pgcdc` in a directory, with nothing of the developer's environment that it reads.
fn pgcdc(directory: &Path, args: &[&str]) -> Run {
    finish(Command::new(env!("CARGO_BIN_EXE_pgcdc")).args(args).current_dir(directory))
}

fn finish(command: &mut Command) -> Run {
    let output = command.env_remove("PGCDC_URL").output().expect("the binary was just built");
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is text"),
        stderr: String::from_utf8(output.stderr).expect("stderr is text"),
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// A directory with a `pgcdc.yml`.
fn directory_with(config: &str) -> tempfile::TempDir {
    let directory = directory();
    std::fs::write(directory.path().join("pgcdc.yml"), config).expect("the file is written");
    directory
}
