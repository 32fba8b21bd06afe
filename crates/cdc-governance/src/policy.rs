//! The policy of a deployment at one version, in memory: what a decision reads.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cdc_core::FieldId;
use chrono::{DateTime, Utc};

use crate::{Grant, Level, Principal, ResourceId, TagWord, Tags};

/// Whether a column that lacks a required tag is visible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    #[default]
    Strict,
    /// If it is granted.
    Permissive,
}

/// What the configuration says about decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicySettings {
    /// What a missing required tag does.
    pub mode: Mode,
    /// The required tags.
    pub require_tags: BTreeSet<TagWord>,
}

/// What a registry entry is bound to besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A table: the OID of the source relation.
    Relation(u32),
    /// A column: the Iceberg field id.
    Field(FieldId),
}

/// Whether a resource is there or was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceState {
    /// It is there.
    Active,
    /// It was dropped at the source; its entry still governs time travel.
    Archived,
}

impl ResourceState {
    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            ResourceState::Active => "active",
            ResourceState::Archived => "archived",
        }
    }
}

/// An entry of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub id: ResourceId,
    /// Whether it is there.
    pub state: ResourceState,
    /// What it is bound to; `None` until the source has been seen.
    pub identity: Option<Identity>,
    /// Its direct tags; what follows from above is always computed.
    pub tags: Tags,
    /// 0 after registering, one more with each change.
    pub version: u64,
    /// The deployment's policy version of the last change.
    pub policy_changed_at: u64,
    /// When it was changed last.
    pub last_intent_at: DateTime<Utc>,
    /// By whom.
    pub last_intent_by: String,
    /// Why.
    pub last_intent_reason: String,
    /// Unix seconds of the sync that last proved the enforced tags equal.
    pub last_applied_epoch: Option<i64>,
}

impl Resource {
    /// Whether it waits for somebody to classify it.
    pub fn is_quarantined(&self) -> bool {
        self.tags.is_unclassified()
    }
}

/// What a registry holds, at one version.
#[derive(Clone, Debug)]
pub struct Intent {
    /// The deployment's policy version.
    pub policy_version: u64,
    /// The latest time that was ever seen.
    pub time_high_water: DateTime<Utc>,
    /// All entries, archived ones included.
    pub resources: Vec<Resource>,
    /// Grants that were not revoked, emergency ones included.
    pub grants: Vec<Grant>,
}

/// What another system enforces beside the registry.
#[derive(Clone, Debug, Default)]
pub struct Enforced {
    /// Direct tags as they are there. A column must then be visible under these *and* under the
    /// registry's. `None` where the registry itself is the truth.
    pub live_tags: Option<HashMap<ResourceId, Tags>>,
    /// Grants made there.
    pub grants: Vec<Grant>,
    /// Tables with a restriction that cannot be evaluated.
    pub unsupported: BTreeSet<ResourceId>,
}

/// A tag as it holds for a resource, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedTag {
    /// The value.
    pub value: TagWord,
    /// The resource that has it as a direct tag.
    pub origin: ResourceId,
}

/// The policy of a deployment at one version.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) version: u64,
    pub(crate) time_high_water: DateTime<Utc>,
    resources: HashMap<ResourceId, Resource>,
    grants: HashMap<Principal, Vec<Grant>>,
    live_tags: Option<HashMap<ResourceId, Tags>>,
    unsupported: BTreeSet<ResourceId>,
    /// Latest change of each database, schema and table, the table's columns included.
    changed: HashMap<ResourceId, u64>,
}

impl Policy {
    /// Puts together what the registry holds and what is enforced elsewhere.
    pub fn new(intent: Intent, enforced: Enforced) -> Policy {
        let mut grants: HashMap<Principal, Vec<Grant>> = HashMap::new();
        for grant in intent.grants.into_iter().chain(enforced.grants) {
            grants.entry(grant.terms.principal.clone()).or_default().push(grant);
        }
        let mut changed: HashMap<ResourceId, u64> = HashMap::new();
        for resource in &intent.resources {
            let owner = match (resource.id.level(), resource.id.parent()) {
                (Level::Column, Some(table)) => table,
                _ => resource.id.clone(),
            };
            let latest = changed.entry(owner).or_default();
            *latest = resource.policy_changed_at.max(*latest);
        }
        let resources =
            intent.resources.into_iter().map(|resource| (resource.id.clone(), resource));
        Policy {
            version: intent.policy_version,
            time_high_water: intent.time_high_water,
            resources: resources.collect(),
            grants,
            live_tags: enforced.live_tags,
            unsupported: enforced.unsupported,
            changed,
        }
    }

    /// The deployment's policy version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The policy version at the last change of the table, its columns or what lies above it; 1 for
    /// one that was never registered.
    pub fn table_version(&self, table: &ResourceId) -> u64 {
        let mut path = table.ancestors();
        path.push(table.clone());
        path.iter().filter_map(|id| self.changed.get(id)).max().copied().unwrap_or(1)
    }

    /// An entry of the registry.
    pub fn resource(&self, id: &ResourceId) -> Option<&Resource> {
        self.resources.get(id)
    }

    /// The tags that hold for a resource, with their origins.
    pub fn resolved_tags(&self, id: &ResourceId) -> BTreeMap<TagWord, ResolvedTag> {
        let mut path = id.ancestors();
        path.push(id.clone());
        let mut resolved = BTreeMap::new();
        for origin in path {
            let Some(resource) = self.resources.get(&origin) else { continue };
            for (key, value) in resource.tags.iter() {
                let tag = ResolvedTag { value: value.clone(), origin: origin.clone() };
                resolved.insert(key.clone(), tag);
            }
        }
        resolved
    }

    /// The grants of some principals, in the order of their ids.
    pub(crate) fn grants_of(&self, principals: &[&Principal]) -> Vec<&Grant> {
        let lists = principals.iter().filter_map(|principal| self.grants.get(*principal));
        let mut found: Vec<&Grant> = lists.flatten().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    }

    pub(crate) fn is_unsupported(&self, table: &ResourceId) -> bool {
        self.unsupported.contains(table)
    }

    /// The tags that a resource has by the registry and, where another system enforces them, by that
    /// one: whatever is decided must hold for each.
    pub(crate) fn views_of(&self, id: &ResourceId) -> Vec<Tags> {
        let mut path = id.ancestors();
        path.push(id.clone());
        let merged = |direct: &dyn Fn(&ResourceId) -> Option<Tags>| {
            let tags = path.iter().filter_map(direct);
            tags.fold(Tags::default(), |above, nearer| above.overlaid(&nearer))
        };
        let mut views = vec![merged(&|id| self.resources.get(id).map(|item| item.tags.clone()))];
        if let Some(live) = &self.live_tags {
            views.push(merged(&|id| live.get(id).cloned()));
        }
        views
    }

    /// The views of a column below a table whose views are known.
    pub(crate) fn column_views(&self, inherited: &[Tags], column: &Resource) -> Vec<Tags> {
        let none = Tags::default();
        let live = self.live_tags.as_ref().map(|live| live.get(&column.id).unwrap_or(&none));
        let nearer = std::iter::once(&column.tags).chain(live);
        inherited.iter().zip(nearer).map(|(above, nearer)| above.overlaid(nearer)).collect()
    }
}
