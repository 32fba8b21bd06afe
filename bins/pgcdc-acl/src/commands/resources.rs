//! `register`, `get`, `set`, `list`.

use cdc_governance::{
    Enforced, EnforcementPlane, Error, IntentRegistry, Policy, Registered, Registration, Resource,
    ResourceId, TagChange, Tags,
};
use cdc_runtime::ExitCode;
use serde_json::{Map, Value, json};

use crate::cli::{Output, SetArgs};
use crate::failure::Stop;
use crate::setup::{Registry, default_tags, provenance};
use crate::{Outcome, render};

/// Entries read at a time.
const PAGE: usize = 500;

pub(crate) async fn register(
    registry: &Registry,
    resource: &str,
    sensitivity: Option<&str>,
    adopt: bool,
) -> Outcome {
    let resource: ResourceId = resource.parse()?;
    let own = Tags::parse(sensitivity.map(|value| ("sensitivity", value)))?;
    let tags = default_tags(&registry.config, &resource)?.overlaid(&own);
    let id = resource.to_string();
    let registration = Registration { resource, identity: None, tags, quarantine: false, adopt };
    let by = provenance("registered at the prompt");
    let done = match registry.registry.register(registration, by).await? {
        Registered::New => "registered",
        _ => "already registered",
    };
    render::print(&format!("{id}: {done}\n"))?;
    Ok(ExitCode::Ok)
}

pub(crate) async fn get(
    registry: &Registry,
    resource: &str,
    history: bool,
    output: Output,
) -> Outcome {
    let id: ResourceId = resource.parse()?;
    let Some(item) = registry.registry.get(&id).await? else {
        return Err(Error::UnknownResource { resource: id }.into());
    };
    let intent = registry.registry.load().await?;
    let enforced: Enforced = registry.registry.read().await?;
    let policy = Policy::new(intent, enforced);
    let mut shown = described(&item);
    let resolved = policy.resolved_tags(&id);
    let resolved: Map<String, Value> = resolved
        .iter()
        .map(|(key, tag)| {
            let origin = tag.origin.to_string();
            (key.to_string(), json!({"value": tag.value.as_str(), "origin": origin}))
        })
        .collect();
    shown["resolved_tags"] = Value::Object(resolved);
    if history {
        let versions = registry.registry.history(&id).await?;
        let versions = versions.iter().map(|version| {
            json!({
                "version": version.version,
                "tags": tags(&version.tags),
                "state": version.state.as_str(),
                "at": cdc_core::rfc3339(version.at),
                "by": version.by,
                "reason": version.reason,
                "policy_version": version.policy_version,
            })
        });
        shown["history"] = versions.collect();
    }
    if output.json {
        render::json(&shown)?;
    } else {
        let rows = shown.as_object().into_iter().flatten();
        let rows = rows.map(|(key, value)| match value {
            Value::String(text) => vec![key.clone(), text.clone()],
            other => vec![key.clone(), other.to_string()],
        });
        render::table(&["FIELD", "VALUE"], rows.collect())?;
    }
    Ok(ExitCode::Ok)
}

pub(crate) async fn set(registry: &Registry, args: &SetArgs) -> Outcome {
    let pair = |text: &'_ String| {
        let pair = text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        pair.ok_or_else(|| Stop::usage(format!("--tag {text}: expected k=v")))
    };
    let pairs: Result<Vec<(String, String)>, Stop> = args.tags.iter().map(pair).collect();
    let remove: Result<_, Error> = args.untags.iter().map(|key| key.parse()).collect();
    let change = TagChange {
        resource: args.resource.parse()?,
        set: Tags::parse(pairs?)?,
        remove: remove?,
        expect_version: args.expect_version,
    };
    let item = registry.registry.set(change, provenance(&args.reason)).await?;
    render::print(&format!("{}: version {}\n", item.id, item.version))?;
    Ok(ExitCode::Ok)
}

/// What `list` shows.
pub(crate) struct Wanted {
    pub(crate) unclassified: bool,
    pub(crate) state: Option<String>,
    pub(crate) tag: Option<String>,
}

pub(crate) async fn list(registry: &Registry, wanted: &Wanted, output: Output) -> Outcome {
    let tag = match &wanted.tag {
        None => None,
        Some(text) => {
            let pair = text.split_once('=');
            let pair = pair.ok_or_else(|| Stop::usage(format!("--tag {text}: expected k=v")))?;
            Some(Tags::parse([pair]).map_err(|error| Stop::usage(error.to_string()))?)
        }
    };
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = registry.registry.list(after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        found.extend(page.into_iter().filter(|item| is_wanted(item, wanted, tag.as_ref())));
    }
    if output.json {
        render::json(&found.iter().map(described).collect())?;
    } else {
        let rows = found.iter().map(|item| {
            let tags: Vec<String> = item.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
            vec![
                item.id.to_string(),
                item.id.level().as_str().to_owned(),
                item.state.as_str().to_owned(),
                item.version.to_string(),
                tags.join(","),
            ]
        });
        render::table(&["RESOURCE", "LEVEL", "STATE", "VERSION", "TAGS"], rows.collect())?;
    }
    Ok(ExitCode::Ok)
}

fn is_wanted(item: &Resource, wanted: &Wanted, tag: Option<&Tags>) -> bool {
    let is_open = item.version == 0 || item.is_quarantined();
    let has = |tags: &Tags| tags.iter().all(|(key, value)| item.tags.get(key) == Some(value));
    (is_open || !wanted.unclassified)
        && wanted.state.as_deref().is_none_or(|state| state == item.state.as_str())
        && tag.is_none_or(has)
}

fn described(item: &Resource) -> Value {
    json!({
        "resource_id": item.id.to_string(),
        "level": item.id.level().as_str(),
        "state": item.state.as_str(),
        "version": item.version,
        "quarantined": item.is_quarantined(),
        "direct_tags": tags(&item.tags),
        "last_intent_at": cdc_core::rfc3339_nanos(item.last_intent_at),
        "last_intent_by": item.last_intent_by,
        "last_intent_reason": item.last_intent_reason,
        "last_applied_epoch": item.last_applied_epoch,
    })
}

fn tags(tags: &Tags) -> Value {
    let pairs = tags.iter().map(|(key, value)| (key.to_string(), json!(value.as_str())));
    Value::Object(pairs.collect())
}
