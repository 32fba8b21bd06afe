//! One change of the registry inside its transaction: rows, history, audit record and policy version
//! are written together or not at all.

use std::collections::BTreeMap;

use cdc_core::rfc3339_nanos;
use chrono::{DateTime, TimeDelta, Utc};
use rusqlite::{OptionalExtension, Transaction, params};

use super::read::{self, write_identity};
use super::{Fault, WRITER_ID};
use crate::audit::{Head, seal, timestamp};
use crate::grant_json::{write_masks, write_target};
use crate::registry::check_emergency;
use crate::{
    AuditRecord, Decision, EmergencyGrant, EmergencyRequest, Error, Event, Grant, GrantTerms,
    Identity, Level, Phase, Provenance, Registered, Registration, Resource, ResourceId,
    ResourceState, Surface, TagChange, Tags, Target, Taxonomy,
};

/// Who ends an emergency grant whose time ran out.
const EXPIRY: &str = "expiry";

/// A change that is being made.
pub(super) struct Change<'t> {
    tx: &'t Transaction<'t>,
    by: &'t Provenance,
    taxonomy: &'t Taxonomy,
    at: DateTime<Utc>,
    /// The policy version that the change makes, if it changes anything.
    version: u64,
    is_effective: bool,
}

impl<'t> Change<'t> {
    pub(super) fn begin(
        tx: &'t Transaction<'t>,
        by: &'t Provenance,
        taxonomy: &'t Taxonomy,
        now: DateTime<Utc>,
    ) -> Result<Change<'t>, Fault> {
        let meta = read::meta(tx)?;
        let at = now.max(meta.time_high_water);
        let version = meta.policy_version + 1;
        Ok(Change { tx, by, taxonomy, at, version, is_effective: false })
    }

    /// Raises policy version and time; the caller commits.
    pub(super) fn finish(self) -> Result<(), Fault> {
        let version = if self.is_effective { self.version } else { self.version - 1 };
        let sql = "UPDATE meta SET policy_version = ?1, time_high_water = ?2";
        self.tx.execute(sql, params![version, rfc3339_nanos(self.at)])?;
        Ok(())
    }

    pub(super) fn register(&mut self, wanted: &Registration) -> Result<Registered, Fault> {
        self.taxonomy.check(wanted.tags.iter())?;
        for above in wanted.resource.ancestors() {
            if read::resource(self.tx, &above)?.is_none() {
                self.insert(above, None, Tags::default())?;
            }
        }
        let Some(item) = read::resource(self.tx, &wanted.resource)? else {
            let tags = match wanted.quarantine {
                true => wanted.tags.overlaid(&Tags::quarantine()),
                false => wanted.tags.clone(),
            };
            self.insert(wanted.resource.clone(), wanted.identity, tags)?;
            return Ok(Registered::New);
        };
        match (item.identity, wanted.identity) {
            (_, None) => Ok(Registered::Unchanged),
            (Some(bound), Some(seen)) if bound == seen => Ok(Registered::Unchanged),
            (None, Some(_)) => {
                let bound = Resource { identity: wanted.identity, ..item };
                self.update(&Resource { policy_changed_at: self.version, ..bound })?;
                self.record("register", Event::PolicySet, &wanted.resource, None)?;
                Ok(Registered::Bound)
            }
            (Some(_), Some(_)) if wanted.adopt => {
                let state = ResourceState::Active;
                let adopted = Resource { identity: wanted.identity, state, ..item };
                self.put(adopted, "register")?;
                Ok(Registered::Adopted)
            }
            (Some(_), Some(_)) => {
                self.quarantine(Resource { identity: wanted.identity, ..item })?;
                Ok(Registered::Quarantined)
            }
        }
    }

    /// A name that now stands for something else inherits nothing, and neither do the columns below.
    fn quarantine(&mut self, item: Resource) -> Result<(), Fault> {
        if item.id.level() == Level::Table {
            for column in read::below(self.tx, &item.id)? {
                let tags = Tags::quarantine();
                self.put(Resource { identity: None, tags, ..column }, "register")?;
            }
        }
        let (tags, state) = (Tags::quarantine(), ResourceState::Active);
        self.put(Resource { tags, state, ..item }, "register").map(drop)
    }

    pub(super) fn set(&mut self, wanted: &TagChange) -> Result<Resource, Fault> {
        self.by.check()?;
        self.taxonomy.check(wanted.set.iter())?;
        let item = self.known(&wanted.resource)?;
        if let Some(expected) = wanted.expect_version
            && expected != item.version
        {
            let (resource, found) = (item.id, item.version);
            return Err(Error::VersionConflict { resource, expected, found }.into());
        }
        let tags = item.tags.changed(&wanted.set, &wanted.remove)?;
        self.put(Resource { tags, ..item }, "set")
    }

    pub(super) fn set_state(
        &mut self,
        id: &ResourceId,
        state: ResourceState,
    ) -> Result<Resource, Fault> {
        let item = self.known(id)?;
        if item.state == state {
            return Ok(item);
        }
        self.put(Resource { state, ..item }, "state")
    }

    pub(super) fn grant(&mut self, terms: GrantTerms) -> Result<Grant, Fault> {
        self.by.check()?;
        terms.check()?;
        let about = match &terms.target {
            Target::Named { resource, .. } => Some(self.known(resource)?.id),
            Target::TagPolicy { expression, .. } => {
                self.taxonomy.check(expression.pairs())?;
                None
            }
        };
        let id = format!("g{}", self.version);
        let names: Vec<&str> = terms.permissions.iter().map(|p| p.as_str()).collect();
        let sql = "INSERT INTO grant_ (id, principal, permissions, target, row_filter, masks, \
             not_before, expires_at, created_at, created_by, created_reason) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let values = params![
            id,
            terms.principal.as_str(),
            serde_json::to_string(&names)?,
            write_target(&terms.target)?,
            terms.row_filter.as_ref().map(ToString::to_string),
            write_masks(&terms.masks)?,
            terms.not_before.map(rfc3339_nanos),
            terms.expires_at.map(rfc3339_nanos),
            rfc3339_nanos(self.at),
            self.by.by,
            self.by.reason,
        ];
        self.tx.execute(sql, values)?;
        let resources: Vec<String> =
            about.iter().map(ToString::to_string).chain([id.clone()]).collect();
        self.record_all("grant", Event::PolicySet, resources, None)?;
        Ok(Grant { id, terms, unsupported: None, emergency: false })
    }

    pub(super) fn revoke(&mut self, id: &str) -> Result<(), Fault> {
        self.by.check()?;
        self.end("grant_", id, &self.by.by)?;
        self.record_all("revoke", Event::PolicySet, vec![id.to_owned()], None)
    }

    pub(super) fn break_glass(
        &mut self,
        request: EmergencyRequest,
        ttl_max: TimeDelta,
    ) -> Result<EmergencyGrant, Fault> {
        check_emergency(&request, self.by, ttl_max)?;
        let resource = self.known(&request.resource)?.id;
        if resource.level() != Level::Table {
            return Err(Error::BreakGlass { reason: "it must be on a table" }.into());
        }
        let given = EmergencyGrant {
            id: format!("bg{}", self.version),
            principal: request.principal,
            resource,
            columns: request.columns,
            granted_at: self.at,
            expires_at: self.at + request.ttl,
            reason: self.by.reason.clone(),
            ticket: request.ticket,
            requester: self.by.by.clone(),
            approver: request.approver,
            ended: None,
        };
        let sql = "INSERT INTO break_glass (id, principal, resource_id, columns, granted_at, \
             expires_at, reason, ticket, requester, approver) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let values = params![
            given.id,
            given.principal.as_str(),
            given.resource.to_string(),
            serde_json::to_string(&given.columns)?,
            rfc3339_nanos(given.granted_at),
            rfc3339_nanos(given.expires_at),
            given.reason,
            given.ticket,
            given.requester,
            given.approver,
        ];
        self.tx.execute(sql, values)?;
        self.record("break-glass grant", Event::BreakGlass, &given.resource, Some(&given.id))?;
        Ok(given)
    }

    pub(super) fn end_break_glass(&mut self, id: &str) -> Result<(), Fault> {
        self.by.check()?;
        self.end("break_glass", id, &self.by.by)?;
        self.record_all("break-glass revoke", Event::BreakGlass, Vec::new(), Some(id))
    }

    /// Records the end of emergency grants whose time ran out. They had stopped to count by then.
    pub(super) fn end_expired(&mut self) -> Result<(), Fault> {
        let due = read::emergencies(self.tx)?;
        let at = self.at;
        let is_due = |e: &&EmergencyGrant| e.ended.is_none() && e.expires_at <= at;
        for grant in due.iter().filter(is_due) {
            self.end("break_glass", &grant.id, EXPIRY)?;
            self.record("break-glass end", Event::BreakGlass, &grant.resource, Some(&grant.id))?;
        }
        Ok(())
    }

    pub(super) fn replace_taxonomy(&mut self) -> Result<(), Fault> {
        self.tx.execute("DELETE FROM tag_taxonomy", [])?;
        for (key, value) in self.taxonomy.pairs() {
            let sql = "INSERT INTO tag_taxonomy (key, value) VALUES (?1, ?2)";
            self.tx.execute(sql, [key.as_str(), value.as_str()])?;
        }
        self.record_all("taxonomy", Event::Config, Vec::new(), None)
    }

    fn known(&self, id: &ResourceId) -> Result<Resource, Fault> {
        let unknown = || Error::UnknownResource { resource: id.clone() };
        Ok(read::resource(self.tx, id)?.ok_or_else(unknown)?)
    }

    fn insert(
        &mut self,
        id: ResourceId,
        identity: Option<Identity>,
        tags: Tags,
    ) -> Result<(), Fault> {
        let item = Resource {
            id,
            state: ResourceState::Active,
            identity,
            tags,
            version: 0,
            policy_changed_at: self.version,
            last_intent_at: self.at,
            last_intent_by: self.by.by.clone(),
            last_intent_reason: self.by.reason.clone(),
            last_applied_epoch: None,
        };
        let sql = "INSERT INTO resource (resource_id, database, level, state, tags, version, \
             policy_changed_at, quarantined, last_intent_at, last_intent_by, last_intent_reason) \
             VALUES (?1, ?2, ?3, 'active', '{}', 0, 0, 0, '', '', '')";
        let id = item.id.to_string();
        self.tx.execute(sql, params![id, item.id.database(), item.id.level().as_str()])?;
        self.update(&item)?;
        self.remember(&item)?;
        self.record("register", Event::PolicySet, &item.id, None)
    }

    /// Writes an entry as its next version.
    fn put(&mut self, item: Resource, endpoint: &str) -> Result<Resource, Fault> {
        let item = Resource {
            version: item.version + 1,
            policy_changed_at: self.version,
            last_intent_at: self.at,
            last_intent_by: self.by.by.clone(),
            last_intent_reason: self.by.reason.clone(),
            ..item
        };
        self.update(&item)?;
        self.remember(&item)?;
        self.record(endpoint, Event::PolicySet, &item.id, None)?;
        Ok(item)
    }

    fn update(&self, item: &Resource) -> Result<(), Fault> {
        let sql = "UPDATE resource SET state = ?2, identity = ?3, tags = ?4, version = ?5, \
             policy_changed_at = ?6, quarantined = ?7, last_intent_at = ?8, last_intent_by = ?9, \
             last_intent_reason = ?10 WHERE resource_id = ?1";
        let values = params![
            item.id.to_string(),
            item.state.as_str(),
            item.identity.map(write_identity),
            write_tags(&item.tags)?,
            item.version,
            item.policy_changed_at,
            item.is_quarantined(),
            rfc3339_nanos(item.last_intent_at),
            item.last_intent_by,
            item.last_intent_reason,
        ];
        self.tx.execute(sql, values)?;
        Ok(())
    }

    fn remember(&self, item: &Resource) -> Result<(), Fault> {
        let sql = "INSERT INTO resource_version \
             (resource_id, version, tags, state, at, by, reason, policy_version) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let values = params![
            item.id.to_string(),
            item.version,
            write_tags(&item.tags)?,
            item.state.as_str(),
            rfc3339_nanos(item.last_intent_at),
            item.last_intent_by,
            item.last_intent_reason,
            item.policy_changed_at,
        ];
        self.tx.execute(sql, values)?;
        Ok(())
    }

    fn end(&self, table: &str, id: &str, by: &str) -> Result<(), Fault> {
        let sql = format!(
            "UPDATE {table} SET revoked_at = ?2, revoked_by = ?3 \
             WHERE id = ?1 AND revoked_at IS NULL"
        );
        match self.tx.execute(&sql, params![id, rfc3339_nanos(self.at), by])? {
            0 => Err(Error::UnknownGrant { id: id.to_owned() }.into()),
            _ => Ok(()),
        }
    }

    fn record(
        &mut self,
        endpoint: &str,
        event: Event,
        about: &ResourceId,
        break_glass: Option<&str>,
    ) -> Result<(), Fault> {
        self.record_all(endpoint, event, vec![about.to_string()], break_glass)
    }

    /// Writes the audit record; from here on the change is one.
    fn record_all(
        &mut self,
        endpoint: &str,
        event: Event,
        resources: Vec<String>,
        break_glass: Option<&str>,
    ) -> Result<(), Fault> {
        self.is_effective = true;
        let record = AuditRecord {
            phase: Phase::Outcome,
            event,
            surface: self.by.surface,
            endpoint: format!("acl {endpoint}"),
            principal: self.by.by.clone(),
            request_id: self.by.request_id.clone(),
            resources,
            decision: Decision::Allow,
            reason_code: None,
            reason: Some(self.by.reason.clone()),
            cut: None,
            epoch: None,
            lsn: None,
            policy_version: Some(self.version),
            break_glass_id: break_glass.map(str::to_owned),
            error: None,
        };
        append(self.tx, &timestamp(self.at), &record)
    }
}

fn append(tx: &Transaction<'_>, ts: &str, record: &AuditRecord) -> Result<(), Fault> {
    let last = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let head = tx.query_row(last, [], |row| Ok(Head { seq: row.get(0)?, hash: row.get(1)? }));
    let head = head.optional()?.unwrap_or_default();
    let sealed = seal(&head, WRITER_ID, ts, record)?;
    let sql = "INSERT INTO audit (seq, writer_id, prev_hash, hash, ts, body) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![sealed.head.seq, WRITER_ID, head.hash, sealed.head.hash, ts, sealed.line];
    tx.execute(sql, values)?;
    Ok(())
}

fn write_tags(tags: &Tags) -> serde_json::Result<String> {
    let texts: BTreeMap<&str, &str> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    serde_json::to_string(&texts)
}

/// Who opens a registry, for the record of a taxonomy that changed.
pub(super) fn opener() -> Provenance {
    Provenance {
        by: "configuration".to_owned(),
        surface: Surface::Daemon,
        request_id: "open".to_owned(),
        reason: "governance.taxonomy changed".to_owned(),
    }
}

/// Who records that the time of emergency grants ran out.
pub(super) fn sweeper() -> Provenance {
    Provenance {
        by: EXPIRY.to_owned(),
        surface: Surface::Daemon,
        request_id: EXPIRY.to_owned(),
        reason: "the time of the emergency grant ran out".to_owned(),
    }
}
