//! `pgcdc table add|remove|resync|pause|resume`.

use anyhow::{Context as _, Result};
use cdc_core::TableName;
use cdc_pipeline::{TableAction, TableChanged};
use cdc_runtime::{Config, ExitCode, SourceUse, shutdown_on_signal};

use crate::cli::TableCommand;
use crate::context::{self, Context, block_on};
use crate::failure::Stop;
use crate::{render, settings};

/// What the command line asks for.
struct Request {
    table: TableName,
    action: TableAction,
    waits: bool,
}

/// Runs the command.
pub(crate) fn run(context: &Context, command: &TableCommand) -> Result<ExitCode> {
    let request = request(command)?;
    let config = context.load(SourceUse::Needed)?;
    let text = block_on(change(&config, &request))?;
    render::print(&text)?;
    Ok(ExitCode::Ok)
}

fn request(command: &TableCommand) -> Result<Request> {
    let (name, action, waits) = match command {
        TableCommand::Add(args) => (&args.table, TableAction::Add, !args.no_wait),
        TableCommand::Resync(args) => (&args.table, TableAction::Resync, !args.no_wait),
        TableCommand::Pause(args) => (&args.table, TableAction::Pause, false),
        TableCommand::Resume(args) => (&args.table, TableAction::Resume, true),
        TableCommand::Remove(args) if args.purge => {
            let hint = "hint: remove the table without it; its files are below storage, in the directory of the table";
            return Err(Stop::usage(format!("--purge is not available yet; {hint}")).into());
        }
        TableCommand::Remove(args) => (&args.table, TableAction::Remove, false),
    };
    let table = name.parse::<TableName>();
    let table = table
        .map_err(|_| Stop::usage(format!("table `{name}`: hint: the form is schema.table")))?;
    Ok(Request { table, action, waits })
}

async fn change(config: &Config, request: &Request) -> Result<String> {
    let Request { table, action, waits } = request;
    let lake = settings::table_ops(config)?;
    if action.copies() {
        expect_wanted(config, table).await?;
    }
    let stop = shutdown_on_signal().context("signals")?;
    if *waits && action.copies() {
        eprintln!("{table}: {action} …");
    }
    let changed = cdc_pipeline::change_table(&lake, table, *action, waits.then_some(&stop)).await?;
    let mut out = text(table, *action, &changed);
    if *action == TableAction::Remove {
        out.push_str(&unpublish(config, table).await);
    }
    Ok(out)
}

/// A table that the configuration leaves out, or that cannot be followed, is refused before anybody is
/// asked: one that is followed goes on.
async fn expect_wanted(config: &Config, table: &TableName) -> Result<()> {
    let control = context::source(config)?.connect().await?;
    let discovered = control.discover(&settings::schemas(config)).await?;
    let publication = &config.replication.publication;
    let published = control.publication(publication).await?;
    control.close().await;
    if published.is_some_and(|published| published.partial.contains(table)) {
        let message = format!(
            "table {table}: publication {publication} has only a part of it; hint: publish it without row filter and column list"
        );
        return Err(Stop::refused(message).into());
    }
    let decisions = cdc_governance::decide(&discovered, &settings::rules(config)?);
    let decision = decisions.into_iter().find(|decision| decision.table == *table);
    let refused = |reason: String| {
        let message = format!(
            "table {table}: {reason}; hint: `pgcdc discover` tells of all tables, see `source.postgres.schemas` and `tables`"
        );
        Stop::refused(message).into()
    };
    match decision {
        None => Err(refused("it is not in the schemas that are followed".to_owned())),
        Some(decision) => match decision.excluded {
            Some(reason) => Err(refused(reason)),
            None => Ok(()),
        },
    }
}

/// Takes a table that is not followed any more out of the publication. It may stay there: its changes
/// are sent then, and not read.
async fn unpublish(config: &Config, table: &TableName) -> String {
    let publication = &config.replication.publication;
    let removed = async {
        let control = context::source(config)?.connect().await?;
        let published = control.publication(publication).await?;
        let is_published = published.is_some_and(|found| found.tables.contains(table));
        if is_published {
            control.remove_from_publication(publication, table).await?;
        }
        control.close().await;
        Ok::<bool, anyhow::Error>(is_published)
    };
    match removed.await {
        Ok(true) => format!("{table}: taken out of publication {publication}\n"),
        Ok(false) => String::new(),
        Err(error) => format!(
            "{table}: still in publication {publication}: {error:#}; hint: its owner may run ALTER PUBLICATION {publication} DROP TABLE ONLY {}\n",
            table.to_sql()
        ),
    }
}

fn text(table: &TableName, action: TableAction, changed: &TableChanged) -> String {
    let noted = match action {
        TableAction::Add => "being added",
        TableAction::Remove => "removed, its files stay",
        TableAction::Resync | TableAction::Resume => "being copied again",
        TableAction::Pause => "paused",
    };
    match changed {
        TableChanged::Active { epoch, rows } => {
            let rows = rows.map_or(String::new(), |rows| format!(" ({rows} rows)"));
            format!("{table}: active at epoch {}{rows}\n", epoch.0)
        }
        TableChanged::NotedForTheNextStart if action.copies() => {
            format!("{table}: no daemon is running, it copies the table when it starts\n")
        }
        TableChanged::Noted | TableChanged::NotedForTheNextStart => format!("{table}: {noted}\n"),
    }
}

#[cfg(test)]
mod tests {
    use cdc_core::Epoch;

    use super::*;

    #[test]
    fn one_line_says_what_became_of_the_table() {
        let table = TableName::new("public", "t");
        let shown = |action, changed| text(&table, action, &changed);
        let active = TableChanged::Active { epoch: Epoch(7), rows: Some(3) };
        assert_eq!(shown(TableAction::Add, active), "public.t: active at epoch 7 (3 rows)\n");
        assert_eq!(shown(TableAction::Pause, TableChanged::Noted), "public.t: paused\n");
        let later = shown(TableAction::Resync, TableChanged::NotedForTheNextStart);
        assert!(later.contains("when it starts"), "{later}");
    }
}
