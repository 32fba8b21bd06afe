//! The stored form of a grant's target, columns and masks: JSON, the same in every backend.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Columns, Mask, PolicyLevel, Result, TagExpression, Target};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredTarget {
    Named { resource: String, columns: StoredColumns },
    TagPolicy { level: StoredLevel, expression: BTreeMap<String, BTreeSet<String>> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredColumns {
    Include(BTreeSet<String>),
    Exclude(BTreeSet<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredLevel {
    Database,
    Table,
}

/// The target as JSON text.
pub(crate) fn write_target(target: &Target) -> serde_json::Result<String> {
    let stored = match target {
        Target::Named { resource, columns } => StoredTarget::Named {
            resource: resource.to_string(),
            columns: match columns {
                Columns::Include(names) => StoredColumns::Include(names.clone()),
                Columns::Exclude(names) => StoredColumns::Exclude(names.clone()),
            },
        },
        Target::TagPolicy { level, expression } => StoredTarget::TagPolicy {
            level: match level {
                PolicyLevel::Database => StoredLevel::Database,
                PolicyLevel::Table => StoredLevel::Table,
            },
            expression: expression
                .keys()
                .iter()
                .map(|(key, values)| {
                    (key.to_string(), values.iter().map(ToString::to_string).collect())
                })
                .collect(),
        },
    };
    serde_json::to_string(&stored)
}

/// The target of a JSON text; `None` for one that this version does not understand.
pub(crate) fn read_target(text: &str) -> Option<Target> {
    Some(match serde_json::from_str(text).ok()? {
        StoredTarget::Named { resource, columns } => Target::Named {
            resource: resource.parse().ok()?,
            columns: match columns {
                StoredColumns::Include(names) => Columns::Include(names),
                StoredColumns::Exclude(names) => Columns::Exclude(names),
            },
        },
        StoredTarget::TagPolicy { level, expression } => {
            let words = |(key, values): (String, BTreeSet<String>)| {
                let values: Result<_> = values.iter().map(|value| value.parse()).collect();
                Ok((key.parse()?, values?))
            };
            let keys: Result<_> = expression.into_iter().map(words).collect();
            Target::TagPolicy {
                level: match level {
                    StoredLevel::Database => PolicyLevel::Database,
                    StoredLevel::Table => PolicyLevel::Table,
                },
                expression: TagExpression::new(keys.ok()?).ok()?,
            }
        }
    })
}

/// Masks as a JSON object.
pub(crate) fn write_masks(masks: &BTreeMap<String, Mask>) -> serde_json::Result<String> {
    let texts: BTreeMap<&String, String> =
        masks.iter().map(|(column, mask)| (column, mask.to_string())).collect();
    serde_json::to_string(&texts)
}

/// Masks of a JSON object; `None` for one that this version does not understand.
pub(crate) fn read_masks(text: &str) -> Option<BTreeMap<String, Mask>> {
    let texts: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
    texts.into_iter().map(|(column, mask)| Some((column, mask.parse().ok()?))).collect()
}
