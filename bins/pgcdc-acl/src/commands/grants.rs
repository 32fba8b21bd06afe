//! `grant`, `revoke`, `grants`.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::rfc3339;
use cdc_governance::{
    Columns, Error, GrantRecord, GrantTerms, IntentRegistry, Level, Mask, Permission, PolicyLevel,
    ResourceId, Target,
};
use cdc_runtime::{ExitCode, HumanDuration};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::cli::{GrantArgs, Output};
use crate::failure::Stop;
use crate::setup::{Registry, provenance};
use crate::{Outcome, render};

pub(crate) async fn grant(registry: &Registry, args: GrantArgs) -> Outcome {
    let expires_at = match &args.ttl {
        Some(ttl) => Some(end(Utc::now(), duration(ttl)?)?),
        None => None,
    };
    let row_filter = args.row_filter.as_deref().map(str::parse).transpose()?;
    let terms = GrantTerms {
        principal: args.principal.parse()?,
        permissions: permissions(&args),
        target: target(&args)?,
        row_filter,
        masks: masks(&args.masks)?,
        not_before: None,
        expires_at,
    };
    let grant = registry.registry.grant(terms, provenance(&args.reason)).await?;
    if args.output.json {
        render::json(&json!({"id": grant.id}))?;
    } else {
        render::print(&format!("granted {}\n", grant.id))?;
    }
    Ok(ExitCode::Ok)
}

pub(crate) async fn revoke(registry: &Registry, id: String, reason: &str) -> Outcome {
    registry.registry.revoke(id.clone(), provenance(reason)).await?;
    render::print(&format!("revoked {id}\n"))?;
    Ok(ExitCode::Ok)
}

pub(crate) async fn list(registry: &Registry, principal: Option<&str>, output: Output) -> Outcome {
    let mut found = registry.registry.grants().await?;
    found.retain(|record| principal.is_none_or(|p| p == record.grant.terms.principal.as_str()));
    if output.json {
        render::json(&found.iter().map(described).collect())?;
        return Ok(ExitCode::Ok);
    }
    let rows = found.iter().map(|record| {
        let terms = &record.grant.terms;
        let state = match &record.revoked {
            Some((at, _)) => format!("revoked {}", rfc3339(*at)),
            None => terms
                .expires_at
                .map_or("in force".to_owned(), |at| format!("until {}", rfc3339(at))),
        };
        vec![
            record.grant.id.clone(),
            terms.principal.to_string(),
            names(terms).join("+"),
            shown_target(&terms.target),
            terms.row_filter.as_ref().map(ToString::to_string).unwrap_or_default(),
            state,
        ]
    });
    let header = ["ID", "PRINCIPAL", "PERMISSIONS", "TARGET", "ROWS", "STATE"];
    render::table(&header, rows.collect())?;
    Ok(ExitCode::Ok)
}

/// A duration of the command line.
pub(crate) fn duration(text: &str) -> anyhow::Result<TimeDelta> {
    let parsed = HumanDuration::parse(text).map_err(|why| Stop::usage(format!("--ttl: {why}")))?;
    let delta = TimeDelta::from_std(parsed.0);
    Ok(delta.map_err(|_| Stop::usage("--ttl: that is too long"))?)
}

fn end(now: DateTime<Utc>, ttl: TimeDelta) -> anyhow::Result<DateTime<Utc>> {
    Ok(now.checked_add_signed(ttl).ok_or_else(|| Stop::usage("--ttl: that is too long"))?)
}

fn permissions(args: &GrantArgs) -> BTreeSet<Permission> {
    let asked = [
        (args.select, Permission::Select),
        (args.changes, Permission::Changes),
        (args.describe, Permission::Describe),
        (args.admin, Permission::Admin),
    ];
    asked.into_iter().filter(|(is_asked, _)| *is_asked).map(|(_, permission)| permission).collect()
}

fn target(args: &GrantArgs) -> anyhow::Result<Target> {
    if let Some(tags) = &args.where_tags {
        return Ok(Target::TagPolicy { level: PolicyLevel::Table, expression: tags.parse()? });
    }
    let resource: ResourceId = args.on.as_deref().unwrap_or_default().parse()?;
    let columns = match (args.columns.as_slice(), args.except.as_slice()) {
        ([all], _) if all == "*" => Columns::all(),
        ([], []) if resource.level() == Level::Column || !args.select => Columns::all(),
        ([], []) => {
            let hint = "--select needs columns; hint: --columns a,b, --except a,b or --columns '*'";
            return Err(Stop::usage(hint).into());
        }
        ([], except) => Columns::Exclude(except.iter().cloned().collect()),
        (columns, _) => Columns::Include(columns.iter().cloned().collect()),
    };
    Ok(Target::Named { resource, columns })
}

fn masks(texts: &[String]) -> anyhow::Result<BTreeMap<String, Mask>> {
    let mut masks = BTreeMap::new();
    for text in texts {
        let pair = text.split_once('=');
        let (column, mask) =
            pair.ok_or_else(|| Stop::usage(format!("--mask {text}: expected column=mask")))?;
        let mask: Result<Mask, Error> = mask.parse();
        masks.insert(column.to_owned(), mask?);
    }
    Ok(masks)
}

fn names(terms: &GrantTerms) -> Vec<&'static str> {
    terms.permissions.iter().map(|permission| permission.as_str()).collect()
}

fn shown_target(target: &Target) -> String {
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(",");
    match target {
        Target::Named { resource, columns: Columns::Include(names) } => {
            format!("{resource} ({})", list(names))
        }
        Target::Named { resource, columns: Columns::Exclude(names) } if names.is_empty() => {
            format!("{resource} (*)")
        }
        Target::Named { resource, columns: Columns::Exclude(names) } => {
            format!("{resource} except ({})", list(names))
        }
        Target::TagPolicy { level: PolicyLevel::Table, expression } => {
            format!("where {expression}")
        }
        Target::TagPolicy { level: PolicyLevel::Database, expression } => {
            format!("database where {expression}")
        }
    }
}

fn described(record: &GrantRecord) -> Value {
    let terms = &record.grant.terms;
    let masks: BTreeMap<&String, String> =
        terms.masks.iter().map(|(column, mask)| (column, mask.to_string())).collect();
    json!({
        "id": record.grant.id,
        "principal": terms.principal.as_str(),
        "permissions": names(terms),
        "target": shown_target(&terms.target),
        "row_filter": terms.row_filter.as_ref().map(ToString::to_string),
        "masks": masks,
        "expires_at": terms.expires_at.map(rfc3339),
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
        "reason": record.created_reason,
        "revoked_at": record.revoked.as_ref().map(|(at, _)| rfc3339(*at)),
        "revoked_by": record.revoked.as_ref().map(|(_, by)| by),
    })
}
