//! What `PGCDC_FAILPOINT` asks of a build with failpoints: `s9:kill:3` ends the process by SIGKILL
//! when it reaches the point s9 for the third time. Several are separated by commas.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};

/// The variable.
const VARIABLE: &str = "PGCDC_FAILPOINT";

/// Arms the failpoints that the environment names.
pub(crate) fn arm() -> Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
    text.split(',').try_for_each(|wish| {
        arm_one(wish)
            .with_context(|| format!("{VARIABLE}: `{wish}` is not <point>:<action>[:<nth hit>]"))
    })
}

fn arm_one(wish: &str) -> Result<()> {
    let mut parts = wish.split(':');
    let (Some(point), Some(action)) = (parts.next(), parts.next()) else { bail!("no action") };
    let hit: u64 = parts.next().unwrap_or("1").parse()?;
    ensure!(hit > 0 && parts.next().is_none(), "hits count from 1");
    let act: fn() = match action {
        "kill" => || signal("KILL"),
        "stop" => || signal("STOP"),
        "abort" => || std::process::abort(),
        "error" => {
            let actions = format!("{}*off->1*return->off", hit - 1);
            return fail::cfg(point, &actions).map_err(anyhow::Error::msg);
        }
        other => bail!("unknown action `{other}`"),
    };
    let (name, action) = (point.to_owned(), action.to_owned());
    let hits = AtomicU64::new(0);
    let reached = move || {
        if hits.fetch_add(1, Ordering::Relaxed) + 1 == hit {
            eprintln!("failpoint {name}: {action}");
            act();
        }
    };
    fail::cfg_callback(point, reached).map_err(anyhow::Error::msg)
}

/// Sends this process a signal that no handler sees; its threads end or stop where they are.
fn signal(name: &str) {
    let mut kill = Command::new("kill");
    kill.arg(format!("-{name}")).arg(std::process::id().to_string()).stdin(Stdio::null());
    if let Err(error) = kill.status() {
        eprintln!("failpoint: cannot run kill: {error}");
        std::process::abort();
    }
    if name == "KILL" {
        // the point must not be passed while the signal is on its way
        std::thread::park();
    }
}
