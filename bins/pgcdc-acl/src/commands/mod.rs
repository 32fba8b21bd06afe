//! One file per group of commands.

mod emergency;
mod grants;
mod posture;
mod resources;

use cdc_runtime::{BUILD_INFO, ExitCode};

use crate::cli::{Audit, BreakGlass, Cli, Command};
use crate::failure::Stop;
use crate::{Outcome, render, setup};

pub(crate) fn run(cli: Cli) -> Outcome {
    if let Command::Version { output } = cli.command {
        let text = if output.json {
            format!("{:#}\n", serde_json::to_value(BUILD_INFO)?)
        } else {
            format!("{}\n", BUILD_INFO.line("pgcdc-acl"))
        };
        render::print(&text)?;
        return Ok(ExitCode::Ok);
    }
    let registry = setup::open(&cli.common)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(answer(&registry, cli.command))
}

async fn answer(registry: &setup::Registry, command: Command) -> Outcome {
    match command {
        Command::Register { resource, sensitivity, adopt } => {
            resources::register(registry, &resource, sensitivity.as_deref(), adopt).await
        }
        Command::Get { resource, history, output } => {
            resources::get(registry, &resource, history, output).await
        }
        Command::Set(args) => resources::set(registry, &args).await,
        Command::List { unclassified, state, tag, output } => {
            let wanted = resources::Wanted { unclassified, state, tag };
            resources::list(registry, &wanted, output).await
        }
        Command::Grant(args) => grants::grant(registry, args).await,
        Command::Revoke { id, reason } => grants::revoke(registry, id, &reason).await,
        Command::Grants { principal, output } => {
            grants::list(registry, principal.as_deref(), output).await
        }
        Command::BreakGlass(BreakGlass::List { output }) => emergency::list(registry, output).await,
        Command::BreakGlass(BreakGlass::Revoke { id, reason }) => {
            emergency::revoke(registry, id, &reason).await
        }
        Command::BreakGlass(grant) => emergency::grant(registry, grant).await,
        Command::Diff { output } => posture::diff(registry, output).await,
        Command::Sync { dry_run, prune, max_ops, output } => {
            if prune || max_ops.is_some() {
                let words = "--prune and --max-ops have no meaning where the registry is the truth";
                return Err(Stop::usage(words).into());
            }
            match dry_run {
                true => posture::diff(registry, output).await,
                false => posture::sync(registry, output).await,
            }
        }
        Command::Audit(Audit::Verify { output }) => posture::verify(registry, output).await,
        Command::Audit(Audit::Tail { since }) => posture::tail(registry, since).await,
        Command::Preflight { output } => posture::preflight(registry, output).await,
        Command::Explain(_) => Err(Stop::usage("`pgcdc acl explain` is not available yet").into()),
        Command::Version { .. } => Ok(ExitCode::Ok),
    }
}
