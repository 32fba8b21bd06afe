//! What every backend does: keep what people intend ([`IntentRegistry`]), and say what is enforced
//! elsewhere ([`EnforcementPlane`]). One suite of tests runs against each backend.

use std::collections::BTreeSet;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    ChainReport, Enforced, Error, Grant, GrantTerms, Identity, Intent, Principal, Resource,
    ResourceId, ResourceState, Result, Surface, TagWord, Tags,
};

/// Characters of a reason.
pub const REASON_CHARS_MIN: usize = 8;
/// No emergency grant lasts longer, whatever the configuration says.
pub const BREAK_GLASS_HOURS_MAX: i64 = 24;

/// Who changes something, through what, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    /// Who.
    pub by: String,
    /// Through which surface.
    pub surface: Surface,
    /// Names the request.
    pub request_id: String,
    /// Why, at least [`REASON_CHARS_MIN`] characters.
    pub reason: String,
}

impl Provenance {
    /// Checks the reason.
    ///
    /// # Errors
    /// [`Error::Reason`].
    pub fn check(&self) -> Result<()> {
        let is_enough = self.reason.trim().chars().count() >= REASON_CHARS_MIN;
        if is_enough { Ok(()) } else { Err(Error::Reason) }
    }
}

/// A resource that is to have an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its name.
    pub resource: ResourceId,
    /// What it is bound to, where the source was seen.
    pub identity: Option<Identity>,
    /// Its direct tags if it is new.
    pub tags: Tags,
    /// Whether it starts in quarantine if it is new.
    pub quarantine: bool,
    /// Whether it takes over the classification of another resource that had its name.
    pub adopt: bool,
}

/// What registering did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// There is a new entry.
    New,
    /// There was one, and it fits.
    Unchanged,
    /// There was one without an identity, and now it has one.
    Bound,
    /// There was one of another resource with this name; it starts anew, in quarantine.
    Quarantined,
    /// There was one of another resource with this name; its tags were taken over.
    Adopted,
}

/// A change of direct tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagChange {
    /// The resource.
    pub resource: ResourceId,
    /// Tags to set.
    pub set: Tags,
    /// Keys to remove.
    pub remove: BTreeSet<TagWord>,
    /// The version that the change is meant for; any when absent.
    pub expect_version: Option<u64>,
}

/// An emergency grant that is asked for. It gives SELECT on named columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmergencyRequest {
    /// To whom.
    pub principal: Principal,
    /// On which table.
    pub resource: ResourceId,
    /// On which columns; never empty.
    pub columns: BTreeSet<String>,
    /// For how long.
    pub ttl: TimeDelta,
    /// The ticket it belongs to.
    pub ticket: String,
    /// Who approved it; never who asks.
    pub approver: Option<String>,
}

/// An emergency grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmergencyGrant {
    /// Its id.
    pub id: String,
    /// To whom.
    pub principal: Principal,
    /// On which table.
    pub resource: ResourceId,
    /// On which columns.
    pub columns: BTreeSet<String>,
    /// Since when.
    pub granted_at: DateTime<Utc>,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// Why.
    pub reason: String,
    /// The ticket it belongs to.
    pub ticket: String,
    /// Who asked.
    pub requester: String,
    /// Who approved it.
    pub approver: Option<String>,
    /// When and by whom it was ended; by `expiry` when its time ran out.
    pub ended: Option<(DateTime<Utc>, String)>,
}

/// A grant with its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRecord {
    /// The grant.
    pub grant: Grant,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// By whom.
    pub created_by: String,
    /// Why.
    pub created_reason: String,
    /// When and by whom it was taken back.
    pub revoked: Option<(DateTime<Utc>, String)>,
}

/// A resource as it was at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVersion {
    /// The version.
    pub version: u64,
    /// Direct tags.
    pub tags: Tags,
    /// Whether it was there.
    pub state: ResourceState,
    /// When the version was made.
    pub at: DateTime<Utc>,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The deployment's policy version then.
    pub policy_version: u64,
}

/// One record of the registry's audit chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Its place in the chain.
    pub seq: u64,
    /// The record, one JSON line.
    pub line: String,
}

/// Where intent is kept.
///
/// Every change is one transaction: the change, its version and history, the audit record and the
/// policy version, or nothing of it. The policy version never goes back, and a reader that sees it
/// sees the change. Changes are checked before anything is written. A dropped future may still have
/// its effect; read again to know.
#[async_trait]
pub trait IntentRegistry: Send + Sync {
    /// The deployment's policy version, read from where it is written, never from a copy.
    async fn policy_version(&self) -> Result<u64>;

    /// Everything that decisions need, of one policy version.
    async fn load(&self) -> Result<Intent>;

    /// Remembers that this time was reached, so that a clock which is set back later extends nothing.
    async fn advance_time(&self, reached: DateTime<Utc>) -> Result<()>;

    /// Gives a resource an entry of version 0, and what lies above it too. Again, it changes nothing.
    async fn register(&self, registration: Registration, by: Provenance) -> Result<Registered>;

    /// Changes direct tags; the version rises by one.
    ///
    /// # Errors
    /// [`Error::UnknownResource`], [`Error::UnknownTag`], [`Error::TooManyTags`], [`Error::Reason`],
    /// [`Error::VersionConflict`].
    async fn set(&self, change: TagChange, by: Provenance) -> Result<Resource>;

    /// Archives a resource that was dropped at the source, or takes it back.
    ///
    /// # Errors
    /// [`Error::UnknownResource`].
    async fn set_state(
        &self,
        resource: ResourceId,
        state: ResourceState,
        by: Provenance,
    ) -> Result<Resource>;

    /// An entry, archived or not.
    async fn get(&self, resource: &ResourceId) -> Result<Option<Resource>>;

    /// At most `limit` entries in the order of their texts, from behind `after`.
    async fn list(&self, after: Option<ResourceId>, limit: usize) -> Result<Vec<Resource>>;

    /// All versions of an entry, the oldest first.
    async fn history(&self, resource: &ResourceId) -> Result<Vec<ResourceVersion>>;

    /// Makes a grant. A named resource must be registered, tags must exist.
    ///
    /// # Errors
    /// [`Error::Grant`], [`Error::UnknownResource`], [`Error::UnknownTag`], [`Error::Reason`].
    async fn grant(&self, terms: GrantTerms, by: Provenance) -> Result<Grant>;

    /// Takes a grant back.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], also for one that was taken back before.
    async fn revoke(&self, id: String, by: Provenance) -> Result<()>;

    /// All grants but emergency ones, revoked ones included, the oldest first.
    async fn grants(&self) -> Result<Vec<GrantRecord>>;

    /// Makes an emergency grant; who asks is `by`.
    ///
    /// # Errors
    /// [`Error::BreakGlass`], [`Error::UnknownResource`], [`Error::Reason`].
    async fn break_glass(
        &self,
        request: EmergencyRequest,
        by: Provenance,
    ) -> Result<EmergencyGrant>;

    /// Ends an emergency grant before its time.
    ///
    /// # Errors
    /// [`Error::UnknownGrant`], also for one that has ended.
    async fn end_break_glass(&self, id: String, by: Provenance) -> Result<()>;

    /// All emergency grants, the oldest first. Records the end of those whose time ran out.
    async fn emergency_grants(&self) -> Result<Vec<EmergencyGrant>>;

    /// At most `limit` records of the audit chain behind a sequence number.
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditLine>>;

    /// Computes the audit chain anew.
    ///
    /// # Errors
    /// [`Error::BrokenChain`].
    async fn verify_audit(&self) -> Result<ChainReport>;
}

/// A difference between intent and what is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The resource.
    pub resource: ResourceId,
    /// What differs, in words.
    pub difference: String,
}

/// What a sync did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// Differences that it removed.
    pub healed: Vec<Drift>,
    /// Differences that were still there after it.
    pub remaining: Vec<Drift>,
}

/// One check of the backend's posture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostureCheck {
    /// What was looked at.
    pub check: &'static str,
    /// Whether it is as it must be.
    pub passed: bool,
    /// What was found, and what to do.
    pub detail: String,
}

/// Where tags and grants are enforced.
///
/// Reading never changes anything. `diff` makes no write call.
#[async_trait]
pub trait EnforcementPlane: Send + Sync {
    /// What is enforced now.
    async fn read(&self) -> Result<Enforced>;

    /// How it differs from the intent.
    async fn diff(&self) -> Result<Vec<Drift>>;

    /// Makes it agree with the intent, what tightens first.
    async fn sync(&self) -> Result<SyncReport>;

    /// Looks at the posture of the backend.
    async fn preflight(&self) -> Result<Vec<PostureCheck>>;
}

/// Checks what every backend must check of an emergency grant.
///
/// # Errors
/// [`Error::BreakGlass`], [`Error::Reason`].
pub(crate) fn check_emergency(
    request: &EmergencyRequest,
    by: &Provenance,
    ttl_max: TimeDelta,
) -> Result<()> {
    by.check()?;
    let longest = ttl_max.min(TimeDelta::hours(BREAK_GLASS_HOURS_MAX));
    let reason = if request.columns.is_empty() {
        "the columns must be named"
    } else if request.approver.as_ref() == Some(&by.by) {
        "who asks cannot approve"
    } else if request.ttl <= TimeDelta::zero() {
        "its time must be above zero"
    } else if request.ttl > longest {
        "its time is longer than governance.break_glass_max_ttl"
    } else {
        return Ok(());
    };
    Err(Error::BreakGlass { reason })
}
