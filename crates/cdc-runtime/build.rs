//! Records the commit, the compiler and the target for `version`; a missing git or checkout is
//! not an error, because release archives are built without either.

use std::process::Command;

fn main() {
    let sha = std::env::var("PGCDC_GIT_SHA")
        .ok()
        .or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]))
        .unwrap_or_else(|| "unknown".into());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let rustc = output(&rustc, &["--version"])
        .and_then(|line| line.split(' ').nth(1).map(str::to_owned))
        .unwrap_or_else(|| "unknown".into());
    let target = std::env::var("TARGET").unwrap_or_else(|_| "unknown".into());
    println!("cargo:rustc-env=PGCDC_BUILD_GIT_SHA={sha}");
    println!("cargo:rustc-env=PGCDC_BUILD_RUSTC={rustc}");
    println!("cargo:rustc-env=PGCDC_BUILD_TARGET={target}");
    println!("cargo:rerun-if-env-changed=PGCDC_GIT_SHA");
    println!("cargo:rerun-if-changed=build.rs");
    // the log of HEAD changes with each commit; only a release build is worth the rebuild
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let watched = if release { "logs/HEAD" } else { "HEAD" };
    if let Some(path) = output("git", &["rev-parse", "--git-path", watched]) {
        println!("cargo:rerun-if-changed={path}");
    }
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
