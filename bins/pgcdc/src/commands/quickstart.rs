//! `pgcdc quickstart`: from a URL to a followed lake in one command. It writes a configuration
//! without the URL's secret, and then does what preflight, init and start do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use cdc_core::TableName;
use cdc_iceberg::SqliteCatalog;
use cdc_manifest::{Manifest, TableEntry, TableStatus};
use cdc_runtime::{Config, ExitCode, Secret, SourceUse, shutdown_on_signal, sibling_path};
use cdc_wal::CheckStatus;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, block_on};
use crate::failure::Stop;
use crate::{allocator, commands, render, settings};

/// The variable that the written configuration takes the URL from.
const URL_VARIABLE: &str = "PGCDC_URL";

/// From a URL to a followed lake.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// URL of the source, such as postgresql://me@localhost:5432/shop
    #[arg(long, env = URL_VARIABLE, hide_env_values = true)]
    url: Option<String>,
    /// Directory of configuration, lake and state
    #[arg(long, default_value = "./pgcdc", value_name = "DIR")]
    dir: PathBuf,
    /// Schemas to follow
    #[arg(long, value_delimiter = ',', default_value = "public", value_name = "A,B")]
    schemas: Vec<String>,
    /// Also serve the lake over HTTP on loopback
    #[arg(long)]
    serve: bool,
    /// Stop after the copy
    #[arg(long)]
    no_start: bool,
}

/// Places of a quickstart.
struct Places {
    file: PathBuf,
    lake: PathBuf,
    state: PathBuf,
}

pub(crate) fn run(context: &Context, args: &QuickstartArgs) -> Result<ExitCode> {
    // it becomes a daemon; should this fail, the daemon only needs more memory
    let unbounded = allocator::restart_bounded();
    let dir = std::path::absolute(&args.dir)?;
    let places = Places {
        file: context.config_flag().map_or_else(|| dir.join("pgcdc.yml"), Path::to_path_buf),
        lake: dir.join("lake"),
        state: dir.join("state").join("state.db"),
    };
    write_config(args, &places)?;
    let variables: BTreeMap<String, Secret> =
        args.url.iter().map(|url| (URL_VARIABLE.to_owned(), Secret(url.clone().into()))).collect();
    let config = Config::load_with(Some(&places.file), SourceUse::Needed, &variables)?;
    if args.no_start {
        context.quiet_logs(&config)?;
    } else {
        context.daemon_logs(&config)?;
    }
    allocator::report(unbounded);
    block_on(steps(args, &places, &config))
}

/// A line for whoever watches.
fn say(line: &str) -> std::io::Result<()> {
    render::print(&format!("{line}\n"))
}

async fn steps(args: &QuickstartArgs, places: &Places, config: &Config) -> Result<ExitCode> {
    let stop = shutdown_on_signal()?;
    let manifest = match manifest(config).await? {
        Some(manifest) => {
            say(&format!("lake: found at epoch {}", manifest.epoch.0))?;
            manifest
        }
        None => {
            if !preflight(config).await? {
                return Ok(ExitCode::Failure);
            }
            copy(config, &stop).await?
        }
    };
    render::print(&reading(places, config, &manifest))?;
    if args.no_start {
        return Ok(ExitCode::Ok);
    }
    let server = if args.serve { Some(serve(places)?) } else { None };
    say("\nstart: following the log; Ctrl-C drains and stops")?;
    let followed = commands::start::follow(config, &stop).await;
    if let Some(mut server) = server {
        // it got the same Ctrl-C; what is still there has nothing to lose
        let _ = server.kill();
        let _ = server.wait();
    }
    followed.map(|()| ExitCode::Ok)
}

fn write_config(args: &QuickstartArgs, places: &Places) -> Result<()> {
    if places.file.exists() {
        say(&format!("configuration: using {}", places.file.display()))?;
        return Ok(());
    }
    if args.url.is_none() {
        bail!(Stop::usage(format!(
            "no source; hint: give --url postgresql://user@host:5432/database, or set {URL_VARIABLE}"
        )));
    }
    if let Some(parent) = places.file.parent() {
        std::fs::create_dir_all(parent).map_err(|error| {
            Stop::usage(format!(
                "cannot make {}: {error}; hint: choose another --dir",
                parent.display()
            ))
        })?;
    }
    std::fs::write(&places.file, config_text(args, places)).map_err(|error| {
        Stop::usage(format!(
            "cannot write {}: {error}; hint: choose another --dir",
            places.file.display()
        ))
    })?;
    say(&format!("configuration: wrote {}", places.file.display()))?;
    Ok(())
}

/// JSON strings are YAML strings, so that any path or schema name is safe.
fn config_text(args: &QuickstartArgs, places: &Places) -> String {
    let quoted = |path: &Path| escape(&path.display().to_string());
    let schemas: Vec<String> = args.schemas.iter().map(|schema| escape(schema)).collect();
    format!(
        "# Written by `pgcdc quickstart`. The URL comes from the environment, so that no secret is\n\
         # in this file: export {URL_VARIABLE}=postgresql://user:password@host:5432/database\n\
         # All keys: pgcdc config show\n\
         source:\n  postgres:\n    url: \"${{{URL_VARIABLE}}}\"\n    schemas: [{}]\n\
         storage:\n  type: filesystem\n  path: {}\n\
         state:\n  path: {}\n",
        schemas.join(", "),
        quoted(&places.lake),
        quoted(&places.state),
    )
}

/// A quoted scalar in which nothing is substituted.
fn escape(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}

/// The manifest, if init was done.
async fn manifest(config: &Config) -> Result<Option<Manifest>> {
    let lake = settings::lake(config)?;
    let replication = settings::replication(config)?;
    match cdc_pipeline::status(&lake, &replication, None).await {
        Ok(report) => Ok(Some(report.manifest)),
        Err(cdc_pipeline::Error::NotInitialised { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Shows what is not fine; false if init would fail.
async fn preflight(config: &Config) -> Result<bool> {
    let report = commands::preflight::check(config).await?;
    let odd = || report.checks.iter().filter(|check| check.status != CheckStatus::Pass);
    say(&format!(
        "preflight: {} of {} checks passed",
        report.checks.len() - odd().count(),
        report.checks.len()
    ))?;
    if odd().next().is_some() {
        render::print(&commands::preflight::table(odd()))?;
    }
    Ok(report.is_ready())
}

async fn copy(config: &Config, stop: &CancellationToken) -> Result<Manifest> {
    say("init: copying all tables at one position of the log")?;
    let report = commands::init::init(config, stop).await?;
    render::print(&commands::init::text(&report))?;
    manifest(config).await?.context("init left no manifest")
}

/// The commands that read the lake, with the largest table that has a name easy to type.
fn reading(places: &Places, config: &Config, manifest: &Manifest) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "pgcdc".into());
    let file = places.file.display();
    let active = manifest.tables.iter().filter(|(_, entry)| entry.status == TableStatus::Active);
    let preference = |(table, entry): &(&TableName, &TableEntry)| {
        (!table.to_string().contains(['"', '\'', '$']), entry.row_count)
    };
    let Some((table, entry)) = active.max_by_key(preference) else {
        return String::new();
    };
    let iceberg = entry.iceberg_table.clone().unwrap_or_default();
    let metadata = format!("{}/manifest.json", places_root(config, places).display());
    let catalog = config.state_dir().join(SqliteCatalog::FILE_NAME);
    format!(
        "\nRead the lake, in another terminal:\n\
         \n  {program} --config {file} query\
         \n  {program} --config {file} query -t '{table}' -n 10\
         \n  {program} --config {file} query -t '{table}' --changes-since 0\n\
         \nwith DuckDB:\n\
         \n  duckdb -c \"INSTALL iceberg; LOAD iceberg; SET VARIABLE lake = (SELECT json_extract_string(content, '\\$.tables.\\\"{table}\\\".metadata_location') FROM read_text('{metadata}')); SELECT * FROM iceberg_scan(getvariable('lake')) LIMIT 10\"\n\
         \nwith pyiceberg:\n\
         \n  python3 -c \"from pyiceberg.catalog.sql import SqlCatalog; print(SqlCatalog('pgcdc', uri='sqlite:///{}').load_table('{iceberg}').scan(limit=10).to_arrow())\"\n",
        catalog.display()
    )
}

fn places_root(config: &Config, places: &Places) -> PathBuf {
    config.storage.path.clone().unwrap_or_else(|| places.lake.clone())
}

/// Starts the read plane, which gets no way to the source.
fn serve(places: &Places) -> Result<Child> {
    let binary = sibling_path("pgcdc-serve")?;
    let file = places.file.display().to_string();
    let child = Command::new(&binary)
        .args(["--config", &file, "serve", "--http"])
        .env_remove(URL_VARIABLE)
        .spawn()
        .map_err(|error| Stop::usage(format!("cannot run {}: {error}", binary.display())))?;
    let snippet = serde_json::json!({
        "mcpServers": {
            "pgcdc": {
                "command": binary.display().to_string(),
                "args": ["--config", file, "serve", "--mcp"],
            }
        }
    });
    say(&format!("\nserve: HTTP on loopback; for an MCP client:\n{snippet:#}"))?;
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_configuration_is_valid_and_holds_no_secret() {
        let args = QuickstartArgs {
            url: Some("postgresql://u:hunter2@h/d".into()),
            dir: "x".into(),
            schemas: vec!["public".into(), "a\"b".into()],
            serve: false,
            no_start: false,
        };
        let places = Places {
            file: "/x/pgcdc.yml".into(),
            lake: "/x ${y}/lake".into(),
            state: "/x/state/state.db".into(),
        };
        let text = config_text(&args, &places);
        assert!(!text.contains("hunter2"), "{text}");
        let options = cdc_runtime::ParseOptions {
            file: &places.file,
            env: &|name| (name == URL_VARIABLE).then(|| "postgresql://u@h/d".to_owned()),
            now: chrono::DateTime::UNIX_EPOCH,
            source_use: SourceUse::Needed,
        };
        let config = Config::parse(&text, &options).unwrap();
        assert_eq!(config.storage.path.as_deref(), Some(places.lake.as_path()));
        assert_eq!(config.source.unwrap().postgres.schemas, args.schemas);
    }
}
