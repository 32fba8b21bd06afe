//! The rules of the `tables` section and their order: exclude, policies of tags, policy of the
//! untagged, then what PostgreSQL or the lake cannot do.

use std::collections::{BTreeMap, BTreeSet};

use cdc_core::{Identity, ReplicaIdentity, SourceTable, TableKind, TableName, meta};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::decision::Exclusion;
use crate::{Error, Result, TableDecision};

/// The reserved tag that stands for tables without one.
pub const UNTAGGED: &str = "untagged";
/// What the name of a changelog adds to the name of its table.
const CHANGES_SUFFIX: &str = "__changes";

/// What a tag does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagPolicy {
    /// The table is followed.
    Include,
    /// The table is left out; wins over every include.
    Exclude,
}

/// The rules as the configuration has them; patterns over `schema.table` with `*` and `?`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleText {
    /// Tables left out.
    pub exclude: Vec<String>,
    /// Tags and the tables that bear them.
    pub tags: BTreeMap<String, Vec<String>>,
    /// What each tag does.
    pub policy: BTreeMap<String, TagPolicy>,
}

/// The rules, ready to be applied.
#[derive(Clone, Debug, Default)]
pub struct TableRules {
    exclude: GlobSet,
    tags: BTreeMap<String, GlobSet>,
    policy: BTreeMap<String, TagPolicy>,
}

impl TableRules {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a malformed one: it must never be taken for one that matches nothing.
    pub fn new(text: &RuleText) -> Result<Self> {
        let tags = text.tags.iter().map(|(tag, patterns)| Ok((tag.clone(), compile(patterns)?)));
        Ok(Self {
            exclude: compile(&text.exclude)?,
            tags: tags.collect::<Result<_>>()?,
            policy: text.policy.clone(),
        })
    }

    /// The tags of a table, sorted.
    pub fn tags_of(&self, table: &TableName) -> Vec<String> {
        let name = table.to_string();
        let bears = self.tags.iter().filter(|(_, patterns)| patterns.is_match(&name));
        bears.map(|(tag, _)| tag.clone()).collect()
    }

    fn decide_one(&self, table: &SourceTable) -> TableDecision {
        let tags = self.tags_of(&table.name);
        let reason = self.ruled_out(&table.name, &tags).or_else(|| not_replicable(table));
        let excluded = reason.map(|reason| reason.to_string());
        TableDecision { table: table.name.clone(), tags, excluded }
    }

    fn ruled_out(&self, table: &TableName, tags: &[String]) -> Option<Exclusion> {
        if self.exclude.is_match(table.to_string()) {
            return Some(Exclusion::Explicit);
        }
        let excludes = |tag: &str| self.policy.get(tag) == Some(&TagPolicy::Exclude);
        if tags.is_empty() {
            return excludes(UNTAGGED).then(|| Exclusion::Policy(UNTAGGED.to_owned()));
        }
        tags.iter().find(|tag| excludes(tag)).cloned().map(Exclusion::Policy)
    }
}

/// Decides about each table, in the order given.
pub fn decide(tables: &[SourceTable], rules: &TableRules) -> Vec<TableDecision> {
    tables.iter().map(|table| rules.decide_one(table)).collect()
}

/// Excludes, of two followed tables that claim one catalog name, the one whose own name is later.
///
/// Each table claims its name, as `catalog_name` gives it, and that of its changelog. Names are
/// compared as Glue would store them, the narrowest of the catalogs.
pub fn exclude_collisions(
    decisions: &mut [TableDecision],
    catalog_name: impl Fn(&TableName) -> String,
) {
    let mut followed: Vec<&mut TableDecision> =
        decisions.iter_mut().filter(|decision| decision.included()).collect();
    followed.sort_by(|a, b| a.table.cmp(&b.table));
    let mut claimed: BTreeMap<String, TableName> = BTreeMap::new();
    for decision in followed {
        let current = catalog_name(&decision.table);
        let names: BTreeSet<String> =
            [current.clone(), current + CHANGES_SUFFIX].iter().map(|name| narrow(name)).collect();
        if let Some(first) = names.iter().find_map(|name| claimed.get(name)) {
            decision.excluded = Some(Exclusion::NameCollision(first.clone()).to_string());
            continue;
        }
        claimed.extend(names.into_iter().map(|name| (name, decision.table.clone())));
    }
}

fn compile(patterns: &[String]) -> Result<GlobSet> {
    let wrong = |pattern: &str| {
        let pattern = pattern.to_owned();
        move |source| Error::Pattern { pattern, source }
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).backslash_escape(true).build();
        set.add(glob.map_err(wrong(pattern))?);
    }
    set.build().map_err(wrong(&patterns.join(", ")))
}

fn not_replicable(table: &SourceTable) -> Option<Exclusion> {
    match (table.kind, &table.partition_root) {
        (TableKind::Partition, root) => {
            let root = root.clone().unwrap_or_else(|| table.name.clone());
            return Some(Exclusion::PartitionOf(root));
        }
        (TableKind::Foreign, _) => return Some(Exclusion::Foreign),
        (TableKind::Unlogged, _) => return Some(Exclusion::Unlogged),
        (TableKind::Table | TableKind::PartitionRoot, _) => {}
    }
    if let Some(column) = table.columns.iter().find(|column| meta::is_reserved(&column.name)) {
        return Some(Exclusion::ReservedColumn(column.name.clone()));
    }
    match (Identity::of(table), &table.replica_identity) {
        (Some(_), _) => None,
        (None, ReplicaIdentity::Nothing) => Some(Exclusion::ReplicaIdentityNothing),
        (None, _) => Some(Exclusion::NoReplicaIdentity),
    }
}

/// A name as Glue stores it: lower case, everything outside `[a-z0-9_]` an underscore.
fn narrow(name: &str) -> String {
    let narrow_char =
        |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.chars().map(narrow_char).collect()
}
