//! `promote`: moves `main` to another cut, for readers of refs.json and for every engine that reads
//! the branch `main` of the Iceberg tables.
//!
//! ```text
//! diff ─> blocked? ─> audit (plan) ─> branch main of each table ─> refs.json by CAS ─> audit (outcome)
//! ```
//! A promotion that ends in the middle is finished by promoting again: every step may be repeated.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cdc_core::{Clock as _, SystemClock, TableName};
use cdc_governance::{AuditLog, AuditRecord, Decision, Event, Phase, Surface};
use cdc_iceberg::{Branch, CommitOutcome, Committer, LakeFiles, SqliteCatalog, Table, TableIdent};
use cdc_manifest::{Cut, LakeStore, MAIN, Manifest, ManifestStore, RefsStore};
use cdc_runtime::Config;
use cdc_serve::Caller;

use crate::cli::{Common, PromoteArgs};
use crate::failure::{Blocked, Refused};
use crate::{diff, setup};

/// The audit chain that commands at a prompt share.
const AUDIT_WRITER: &str = "cli";
/// How often a branch is tried that the daemon's commits keep moving under us.
const TRIES_MAX: u32 = 50;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn run(common: &Common, args: &PromoteArgs) -> anyhow::Result<()> {
    let config = setup::config(common)?;
    check(args, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(promote(&config, args))
}

fn check(args: &PromoteArgs, config: &Config) -> anyhow::Result<()> {
    if args.to != MAIN {
        bail!(Refused::usage(format!(
            "--to {}: only `main` can be moved; hint: leave --to out",
            args.to
        )));
    }
    if args.reason.as_deref().is_some_and(|reason| reason.trim().is_empty()) {
        bail!(Refused::usage("--reason is empty; hint: say why, for the audit record".to_owned()));
    }
    if config.promotion.mode == cdc_runtime::PromotionMode::Auto && !args.dry_run {
        bail!(Refused::usage(
            "promotion.mode is `auto`: main follows every flush; hint: set it to `manual` to promote by hand"
                .to_owned()
        ));
    }
    Ok(())
}

async fn promote(config: &Config, args: &PromoteArgs) -> anyhow::Result<()> {
    let plane = setup::read_plane(config)?;
    let caller = setup::caller(None);
    let answer = plane.diff(&caller, &args.to, &args.from).await?;
    diff::print(&answer, args.json)?;
    if args.dry_run {
        return Ok(());
    }
    let audit = Audit::open(config, args, &caller)?;
    if !answer.diff.promote_safe && !args.force {
        audit.write(Phase::Outcome, Decision::Deny, None, None)?;
        return Err(Blocked::by(&answer.diff).into());
    }
    let mover = Mover::open(config)?;
    // what was compared, not what the ref has moved to since
    let cut = &answer.to;
    audit.write(Phase::Plan, Decision::Allow, Some(cut), None)?;
    let moved = mover.move_main(cut).await;
    let (decision, error) = match &moved {
        Ok(()) => (Decision::Allow, None),
        Err(error) => (Decision::Error, Some(format!("{error:#}"))),
    };
    audit.write(Phase::Outcome, decision, Some(cut), error)?;
    moved?;
    eprintln!("main is now {} (epoch {}, {})", cut.name, cut.epoch, cut.commit_lsn);
    Ok(())
}

/// Writes what is done, before and after.
struct Audit<'a> {
    log: AuditLog,
    args: &'a PromoteArgs,
    caller: &'a Caller,
}

impl<'a> Audit<'a> {
    fn open(config: &Config, args: &'a PromoteArgs, caller: &'a Caller) -> anyhow::Result<Self> {
        let log = AuditLog::open(&setup::audit_dir(config), AUDIT_WRITER)?;
        Ok(Audit { log, args, caller })
    }

    fn write(
        &self,
        phase: Phase,
        decision: Decision,
        cut: Option<&Cut>,
        error: Option<String>,
    ) -> anyhow::Result<()> {
        let reason_code = match decision {
            Decision::Deny => Some("verdict_blocks".to_owned()),
            _ if self.args.force => Some("forced".to_owned()),
            _ => None,
        };
        let record = AuditRecord {
            phase,
            event: Event::Promote,
            surface: Surface::Cli,
            endpoint: "promote".into(),
            principal: self.caller.principal.clone(),
            request_id: self.caller.request_id.clone(),
            resources: vec![self.args.to.clone()],
            decision,
            reason_code,
            reason: self.args.reason.clone(),
            cut: Some(cut.map_or_else(|| self.args.from.clone(), |cut| cut.name.clone())),
            epoch: cut.map(|cut| cut.epoch.0),
            lsn: cut.map(|cut| cut.commit_lsn.to_string()),
            policy_version: None,
            break_glass_id: None,
            error,
        };
        Ok(self.log.append(&SystemClock, &record)?)
    }
}

/// Moves `main`.
struct Mover {
    manifests: ManifestStore,
    refs: RefsStore,
    tables: Committer,
}

impl Mover {
    fn open(config: &Config) -> anyhow::Result<Mover> {
        let store = LakeStore::open_read_only(&setup::storage(config)?)?;
        let catalog = config.state_dir().join(SqliteCatalog::FILE_NAME);
        if !catalog.is_file() {
            bail!(Refused::usage(format!(
                "there is no catalog {}; hint: promote where the daemon keeps its state, or run `pgcdc catalog register`",
                catalog.display()
            )));
        }
        let catalog = SqliteCatalog::open(&catalog)?;
        let files = LakeFiles::new(Arc::clone(store.store()), store.location().clone());
        Ok(Mover {
            manifests: ManifestStore::new(store.clone()),
            refs: RefsStore::new(store),
            tables: Committer::new(files, Arc::new(catalog), Arc::new(SystemClock)),
        })
    }

    async fn move_main(&self, cut: &Cut) -> anyhow::Result<()> {
        let manifest = self.manifests.require().await?.value;
        let mut main = cut.clone();
        for (name, table) in &mut main.tables {
            let (current, changes) = idents(&manifest, name)?;
            let of_table = || format!("table {name}");
            // the ref names the metadata in which `main` stands there
            if let Some(snapshot) = table.snapshot_id {
                let at = self.point(&current, snapshot).await.with_context(of_table)?;
                table.metadata_location = Some(at);
            }
            if let Some(snapshot) = table.changes_snapshot_id {
                let at = self.point(&changes, snapshot).await.with_context(of_table)?;
                table.changes_metadata_location = Some(at);
            }
        }
        Ok(self.refs.promote(&main, SystemClock.now()).await?)
    }

    /// Points the branch `main` of a table at a snapshot, however often the daemon commits meanwhile,
    /// and gives the location of the metadata in which it does.
    async fn point(&self, ident: &TableIdent, snapshot: i64) -> anyhow::Result<String> {
        for _ in 0..TRIES_MAX {
            let table = self.tables.load(ident).await?;
            expect_snapshot(&table, snapshot)?;
            let mut outcome = self.tables.set_branch(&table, Branch::Main, snapshot).await?;
            if let CommitOutcome::Unknown(unresolved) = &outcome {
                outcome = self.tables.resolve(unresolved).await?;
            }
            if let CommitOutcome::Committed(moved) = outcome {
                return Ok(moved.metadata_location);
            }
            tokio::time::sleep(TRY_PAUSE).await;
        }
        bail!("{ident} keeps moving; hint: promote again, it goes on where it stopped")
    }
}

fn expect_snapshot(table: &Table, snapshot: i64) -> anyhow::Result<()> {
    if table.metadata.snapshot_by_id(snapshot).is_none() {
        bail!(
            "snapshot {snapshot} of {} has expired; hint: promote a newer cut, or raise catalog.snapshot_retain_count",
            table.ident
        );
    }
    Ok(())
}

/// The Iceberg names of a table of the cut.
fn idents(manifest: &Manifest, name: &TableName) -> anyhow::Result<(TableIdent, TableIdent)> {
    let ident = |name: &Option<String>| TableIdent::parse(name.as_deref()?);
    let entry = manifest.tables.get(name);
    let idents = entry
        .and_then(|entry| ident(&entry.iceberg_table).zip(ident(&entry.changes_iceberg_table)));
    idents.with_context(|| format!("table {name} of the cut is not in the manifest any more"))
}
