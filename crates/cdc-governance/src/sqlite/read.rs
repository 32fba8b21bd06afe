//! Rows of the registry to values. A resource that cannot be read is an error, for it might hide
//! something; a grant that cannot be read counts as absent.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use cdc_core::FieldId;
use chrono::{DateTime, Utc};
use rusqlite::types::FromSql;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Fault;
use crate::grant_json::{read_masks, read_target};
use crate::{
    AuditLine, Columns, EmergencyGrant, Grant, GrantRecord, GrantTerms, Identity, Intent,
    Permission, Resource, ResourceId, ResourceState, ResourceVersion, Tags, Target,
};

const RESOURCE: &str = "SELECT resource_id, state, identity, tags, version, policy_changed_at, \
     last_intent_at, last_intent_by, last_intent_reason, last_applied_epoch FROM resource";
const GRANT: &str = "SELECT id, principal, permissions, target, row_filter, masks, not_before, \
     expires_at, created_at, created_by, created_reason, revoked_at, revoked_by FROM grant_";
const EMERGENCY: &str = "SELECT id, principal, resource_id, columns, granted_at, expires_at, \
     reason, ticket, requester, approver, revoked_at, revoked_by FROM break_glass";

/// The row of `meta` that every change starts from.
pub(super) struct Meta {
    pub(super) policy_version: u64,
    pub(super) time_high_water: DateTime<Utc>,
}

pub(super) fn meta(db: &Connection) -> Result<Meta, Fault> {
    let sql = "SELECT policy_version, time_high_water FROM meta";
    db.query_row(sql, [], |row| Ok(Cells(row, "meta").meta()))?
}

pub(super) fn policy_version(db: &Connection) -> Result<u64, Fault> {
    Ok(db.query_row("SELECT policy_version FROM meta", [], |row| row.get(0))?)
}

/// Everything that decisions need, in one transaction.
pub(super) fn intent(db: &mut Connection) -> Result<Intent, Fault> {
    let tx = db.transaction()?;
    let meta = meta(&tx)?;
    let resources = all(&tx, &format!("{RESOURCE} ORDER BY resource_id"), [], |row| {
        Cells(row, "resource").resource()
    })?;
    let sql = format!("{GRANT} WHERE revoked_at IS NULL ORDER BY created_at, id");
    let granted = all(&tx, &sql, [], |row| Cells(row, "grant_").grant())?;
    let sql = format!("{EMERGENCY} WHERE revoked_at IS NULL");
    let emergencies = all(&tx, &sql, [], |row| Cells(row, "break_glass").emergency())?;
    let grants = granted.into_iter().flatten().map(|record| record.grant);
    let grants = grants.chain(emergencies.into_iter().map(EmergencyGrant::into_grant)).collect();
    Ok(Intent {
        policy_version: meta.policy_version,
        time_high_water: meta.time_high_water,
        resources,
        grants,
    })
}

pub(super) fn resource(db: &Connection, id: &ResourceId) -> Result<Option<Resource>, Fault> {
    let sql = format!("{RESOURCE} WHERE resource_id = ?1");
    let found = db.query_row(&sql, [id.to_string()], |row| Ok(Cells(row, "resource").resource()));
    found.optional()?.transpose()
}

/// The columns of a table.
pub(super) fn below(db: &Connection, id: &ResourceId) -> Result<Vec<Resource>, Fault> {
    // a canonical text has a dot only between parts, and `/` is the character behind it
    let sql = format!("{RESOURCE} WHERE resource_id > ?1 AND resource_id < ?2");
    let bounds = [format!("{id}."), format!("{id}/")];
    all(db, &sql, bounds, |row| Cells(row, "resource").resource())
}

pub(super) fn resources(
    db: &Connection,
    after: Option<&ResourceId>,
    limit: usize,
) -> Result<Vec<Resource>, Fault> {
    let sql = format!("{RESOURCE} WHERE resource_id > ?1 ORDER BY resource_id LIMIT ?2");
    let after = after.map(ToString::to_string).unwrap_or_default();
    all(db, &sql, params![after, limit as i64], |row| Cells(row, "resource").resource())
}

pub(super) fn history(db: &Connection, id: &ResourceId) -> Result<Vec<ResourceVersion>, Fault> {
    let sql = "SELECT version, tags, state, at, by, reason, policy_version FROM resource_version \
         WHERE resource_id = ?1 ORDER BY version";
    all(db, sql, [id.to_string()], |row| Cells(row, "resource_version").version())
}

/// Every grant; those that cannot be read are left out.
pub(super) fn grants(db: &Connection) -> Result<Vec<GrantRecord>, Fault> {
    let sql = format!("{GRANT} ORDER BY created_at, id");
    let found = all(db, &sql, [], |row| Cells(row, "grant_").grant())?;
    Ok(found.into_iter().flatten().collect())
}

pub(super) fn emergencies(db: &Connection) -> Result<Vec<EmergencyGrant>, Fault> {
    let sql = format!("{EMERGENCY} ORDER BY granted_at, id");
    all(db, &sql, [], |row| Cells(row, "break_glass").emergency())
}

pub(super) fn audit(db: &Connection, after: u64, limit: usize) -> Result<Vec<AuditLine>, Fault> {
    let sql = "SELECT seq, body FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";
    all(db, sql, params![after as i64, limit as i64], |row| {
        Ok(AuditLine { seq: row.get(0)?, line: row.get(1)? })
    })
}

/// The tags that resources and grants in force name, with who names them.
pub(super) fn used_tags(db: &mut Connection) -> Result<Vec<(String, String, String)>, Fault> {
    let intent = intent(db)?;
    let mut used = Vec::new();
    for resource in &intent.resources {
        let tags = resource.tags.iter();
        used.extend(tags.map(|(k, v)| (k.to_string(), v.to_string(), resource.id.to_string())));
    }
    for grant in &intent.grants {
        if let Target::TagPolicy { expression, .. } = &grant.terms.target {
            let pairs = expression.pairs();
            used.extend(pairs.map(|(k, v)| (k.to_string(), v.to_string(), grant.id.clone())));
        }
    }
    Ok(used)
}

fn all<T>(
    db: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

/// The cells of a row and the table it is of, for errors.
struct Cells<'r, 's>(&'r Row<'s>, &'static str);

impl Cells<'_, '_> {
    fn raw<T: FromSql>(&self, column: &str) -> Result<T, Fault> {
        Ok(self.0.get(column)?)
    }

    fn broken(&self, column: &str) -> Fault {
        Fault::Row(format!("column {column} of table {}", self.1))
    }

    fn parsed<T: FromStr>(&self, column: &str) -> Result<T, Fault> {
        let text: String = self.raw(column)?;
        text.parse().map_err(|_| self.broken(column))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T, Fault> {
        let text: String = self.raw(column)?;
        serde_json::from_str(&text).map_err(|_| self.broken(column))
    }

    fn time(&self, column: &str) -> Result<DateTime<Utc>, Fault> {
        self.optional_time(column)?.ok_or_else(|| self.broken(column))
    }

    fn optional_time(&self, column: &str) -> Result<Option<DateTime<Utc>>, Fault> {
        let text: Option<String> = self.raw(column)?;
        let time = text.map(|text| DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc()));
        time.transpose().map_err(|_| self.broken(column))
    }

    fn tags(&self) -> Result<Tags, Fault> {
        Tags::parse(self.json::<BTreeMap<String, String>>("tags")?).map_err(|_| self.broken("tags"))
    }

    fn state(&self) -> Result<ResourceState, Fault> {
        match self.raw::<String>("state")?.as_str() {
            "active" => Ok(ResourceState::Active),
            "archived" => Ok(ResourceState::Archived),
            _ => Err(self.broken("state")),
        }
    }

    fn meta(&self) -> Result<Meta, Fault> {
        Ok(Meta {
            policy_version: self.raw("policy_version")?,
            time_high_water: self.time("time_high_water")?,
        })
    }

    fn resource(&self) -> Result<Resource, Fault> {
        let identity: Option<String> = self.raw("identity")?;
        let read = |text: String| read_identity(&text).ok_or_else(|| self.broken("identity"));
        Ok(Resource {
            id: self.parsed("resource_id")?,
            state: self.state()?,
            identity: identity.map(read).transpose()?,
            tags: self.tags()?,
            version: self.raw("version")?,
            policy_changed_at: self.raw("policy_changed_at")?,
            last_intent_at: self.time("last_intent_at")?,
            last_intent_by: self.raw("last_intent_by")?,
            last_intent_reason: self.raw("last_intent_reason")?,
            last_applied_epoch: self.raw("last_applied_epoch")?,
        })
    }

    fn version(&self) -> Result<ResourceVersion, Fault> {
        Ok(ResourceVersion {
            version: self.raw("version")?,
            tags: self.tags()?,
            state: self.state()?,
            at: self.time("at")?,
            by: self.raw("by")?,
            reason: self.raw("reason")?,
            policy_version: self.raw("policy_version")?,
        })
    }

    /// A grant; `None` for one whose principal, permissions, target, masks or times this version does
    /// not understand. One whose row filter it does not understand is kept as unsupported.
    fn grant(&self) -> Result<Option<GrantRecord>, Fault> {
        let Some((terms, unsupported)) = self.terms()? else { return Ok(None) };
        let id = self.raw("id")?;
        Ok(Some(GrantRecord {
            grant: Grant { id, terms, unsupported, emergency: false },
            created_at: self.time("created_at")?,
            created_by: self.raw("created_by")?,
            created_reason: self.raw("created_reason")?,
            revoked: self.end()?,
        }))
    }

    fn terms(&self) -> Result<Option<(GrantTerms, Option<String>)>, Fault> {
        let permissions: Vec<String> = self.json("permissions")?;
        let permissions: Option<BTreeSet<Permission>> =
            permissions.iter().map(|name| Permission::from_name(name)).collect();
        let target = read_target(&self.raw::<String>("target")?);
        let masks = read_masks(&self.raw::<String>("masks")?);
        let principal = self.raw::<String>("principal")?.parse().ok();
        let (Some(permissions), Some(target), Some(masks), Some(principal)) =
            (permissions, target, masks, principal)
        else {
            return Ok(None);
        };
        let filter = self.raw::<Option<String>>("row_filter")?.map(|text| text.parse());
        let (row_filter, unsupported) = match filter.transpose() {
            Ok(row_filter) => (row_filter, None),
            Err(_) => (None, Some("row filter".to_owned())),
        };
        let not_before = self.optional_time("not_before")?;
        let expires_at = self.optional_time("expires_at")?;
        let terms = GrantTerms {
            principal,
            permissions,
            target,
            row_filter,
            masks,
            not_before,
            expires_at,
        };
        Ok(Some((terms, unsupported)))
    }

    fn emergency(&self) -> Result<EmergencyGrant, Fault> {
        Ok(EmergencyGrant {
            id: self.raw("id")?,
            principal: self.parsed("principal")?,
            resource: self.parsed("resource_id")?,
            columns: self.json("columns")?,
            granted_at: self.time("granted_at")?,
            expires_at: self.time("expires_at")?,
            reason: self.raw("reason")?,
            ticket: self.raw("ticket")?,
            requester: self.raw("requester")?,
            approver: self.raw("approver")?,
            ended: self.end()?,
        })
    }

    fn end(&self) -> Result<Option<(DateTime<Utc>, String)>, Fault> {
        let at = self.optional_time("revoked_at")?;
        Ok(at.zip(self.raw::<Option<String>>("revoked_by")?))
    }
}

impl EmergencyGrant {
    fn into_grant(self) -> Grant {
        let terms = GrantTerms {
            principal: self.principal,
            permissions: BTreeSet::from([Permission::Select]),
            target: Target::Named {
                resource: self.resource,
                columns: Columns::Include(self.columns),
            },
            row_filter: None,
            masks: BTreeMap::new(),
            not_before: None,
            expires_at: Some(self.expires_at),
        };
        Grant { id: self.id, terms, unsupported: None, emergency: true }
    }
}

/// `relation:<oid>` or `field:<id>`.
fn read_identity(text: &str) -> Option<Identity> {
    match text.split_once(':')? {
        ("relation", oid) => oid.parse().ok().map(Identity::Relation),
        ("field", id) => id.parse().ok().map(|id| Identity::Field(FieldId(id))),
        _ => None,
    }
}

pub(super) fn write_identity(identity: Identity) -> String {
    match identity {
        Identity::Relation(oid) => format!("relation:{oid}"),
        Identity::Field(FieldId(id)) => format!("field:{id}"),
    }
}
