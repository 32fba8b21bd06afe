//! What `PGCDC_FAILPOINT` asks of a build with failpoints: `s9:kill:3` ends the process by SIGKILL
//! when it reaches the point s9 for the third time. Several are separated by commas.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cdc_core::{ArmedFailpoint, arm_failpoints};

/// The variable.
const VARIABLE: &str = "PGCDC_FAILPOINT";
/// How long a step is held before its process dies late: longer than a confirmation waits.
const LATE: Duration = Duration::from_millis(1500);

/// Arms the failpoints that the environment names.
pub(crate) fn arm() -> Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
    let mut armed = Vec::new();
    for wish in text.split(',') {
        armed.push(parse(wish).with_context(|| {
            format!("{VARIABLE}: `{wish}` is not <point>:<action>[:<nth hit>]")
        })?);
    }
    ensure!(arm_failpoints(armed), "failpoints are armed once");
    Ok(())
}

fn parse(wish: &str) -> Result<ArmedFailpoint> {
    let mut parts = wish.split(':');
    let (Some(point), Some(action)) = (parts.next(), parts.next()) else { bail!("no action") };
    let hit: u64 = parts.next().unwrap_or("1").parse()?;
    ensure!(hit > 0 && parts.next().is_none(), "hits count from 1");
    let action: fn(&str) -> bool = match action {
        "kill" => |point| {
            say(point, "kill");
            signal("KILL");
            false
        },
        "late" => |point| {
            say(point, "late");
            std::thread::sleep(LATE);
            signal("KILL");
            false
        },
        "stop" => |point| {
            say(point, "stop");
            signal("STOP");
            false
        },
        "abort" => |point| {
            say(point, "abort");
            std::process::abort()
        },
        "error" => |point| {
            say(point, "error");
            true
        },
        other => bail!("unknown action `{other}`"),
    };
    Ok(ArmedFailpoint::new(point, hit, action))
}

/// The harness must know that the point was reached, also where a failure heals unseen.
fn say(point: &str, action: &str) {
    eprintln!("failpoint {point}: {action}");
}

/// Sends this process a signal that no handler sees; its threads end or stop where they are.
fn signal(name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(std::process::id().to_string()).stdin(Stdio::null());
    if let Err(error) = kill.status() {
        eprintln!("failpoint: cannot run kill: {error}");
        std::process::abort();
    }
    while name == "KILL" {
        // the point must not be passed while the signal is on its way
        std::thread::park();
    }
}
