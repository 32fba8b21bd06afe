//! `break-glass grant`, `list`, `revoke`.

use cdc_core::rfc3339;
use cdc_governance::{EmergencyGrant, EmergencyRequest, IntentRegistry};
use cdc_runtime::ExitCode;
use serde_json::{Value, json};

use super::grants::duration;
use crate::cli::{BreakGlass, Output};
use crate::setup::{Registry, provenance};
use crate::{Outcome, render};

pub(crate) async fn grant(registry: &Registry, args: BreakGlass) -> Outcome {
    let BreakGlass::Grant { principal, resource, columns, ttl, reason, ticket, approver, output } =
        args
    else {
        return Ok(ExitCode::Ok);
    };
    let request = EmergencyRequest {
        principal: principal.parse()?,
        resource: resource.parse()?,
        columns: columns.into_iter().collect(),
        ttl: duration(&ttl)?,
        ticket,
        approver,
    };
    let given = registry.registry.break_glass(request, provenance(&reason)).await?;
    if output.json {
        render::json(&described(&given))?;
    } else {
        render::print(&format!("granted {} until {}\n", given.id, rfc3339(given.expires_at)))?;
    }
    Ok(ExitCode::Ok)
}

pub(crate) async fn revoke(registry: &Registry, id: String, reason: &str) -> Outcome {
    registry.registry.end_break_glass(id.clone(), provenance(reason)).await?;
    render::print(&format!("revoked {id}\n"))?;
    Ok(ExitCode::Ok)
}

pub(crate) async fn list(registry: &Registry, output: Output) -> Outcome {
    let found = registry.registry.emergency_grants().await?;
    if output.json {
        render::json(&found.iter().map(described).collect())?;
        return Ok(ExitCode::Ok);
    }
    let rows = found.iter().map(|grant| {
        let columns: Vec<&str> = grant.columns.iter().map(String::as_str).collect();
        let state = match &grant.ended {
            Some((at, by)) => format!("ended {} by {by}", rfc3339(*at)),
            None => format!("until {}", rfc3339(grant.expires_at)),
        };
        let target = format!("{} ({})", grant.resource, columns.join(","));
        vec![grant.id.clone(), grant.principal.to_string(), target, grant.ticket.clone(), state]
    });
    render::table(&["ID", "PRINCIPAL", "TARGET", "TICKET", "STATE"], rows.collect())?;
    Ok(ExitCode::Ok)
}

fn described(grant: &EmergencyGrant) -> Value {
    json!({
        "id": grant.id,
        "principal": grant.principal.as_str(),
        "resource": grant.resource.to_string(),
        "columns": grant.columns,
        "granted_at": rfc3339(grant.granted_at),
        "expires_at": rfc3339(grant.expires_at),
        "reason": grant.reason,
        "ticket": grant.ticket,
        "requester": grant.requester,
        "approver": grant.approver,
        "ended_at": grant.ended.as_ref().map(|(at, _)| rfc3339(*at)),
        "ended_by": grant.ended.as_ref().map(|(_, by)| by),
    })
}
