//! Grants: who may do what with which columns, under which filter, behind which masks, and when.
//! Grants only add; there is none that takes away.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};

use crate::{Error, Mask, Principal, ResourceId, Result, RowFilter, TagWord, Tags};

/// Keys of one tag expression, as in Lake Formation.
const EXPRESSION_KEYS_MAX: usize = 5;

/// What a grant permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// Reading columns.
    Select,
    /// Kept for Lake Formation; alone it shows nothing here.
    Describe,
    /// The feed of changes, of the columns that SELECT shows.
    Changes,
    /// Explaining, audit, drift and policies; it shows no data.
    Admin,
}

impl Permission {
    /// All of them.
    pub const ALL: [Permission; 4] =
        [Permission::Select, Permission::Describe, Permission::Changes, Permission::Admin];

    /// The permission's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Permission::Select => "SELECT",
            Permission::Describe => "DESCRIBE",
            Permission::Changes => "CHANGES",
            Permission::Admin => "ADMIN",
        }
    }

    /// The permission of this name.
    pub fn from_name(name: &str) -> Option<Permission> {
        Permission::ALL.into_iter().find(|permission| permission.as_str() == name)
    }
}

/// Which columns of a named resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Columns {
    /// These; an empty list is none.
    Include(BTreeSet<String>),
    /// All but these, those that are added later included.
    Exclude(BTreeSet<String>),
}

impl Columns {
    /// Every column.
    pub fn all() -> Columns {
        Columns::Exclude(BTreeSet::new())
    }

    /// Whether the column is one of them.
    pub fn admit(&self, column: &str) -> bool {
        match self {
            Columns::Include(names) => names.contains(column),
            Columns::Exclude(names) => !names.contains(column),
        }
    }
}

/// On what a tag expression is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyLevel {
    /// On the database; shows its name and nothing else.
    Database,
    /// On each column of each table.
    Table,
}

/// One to five keys, all of which must hold; of a key, one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagExpression(BTreeMap<TagWord, BTreeSet<TagWord>>);

impl TagExpression {
    /// An expression from its keys and values.
    ///
    /// # Errors
    /// [`Error::Expression`] for too few or too many keys, a key without a value, or the reserved
    /// value `sensitivity=unclassified`.
    pub fn new(keys: BTreeMap<TagWord, BTreeSet<TagWord>>) -> Result<TagExpression> {
        let reason = if keys.is_empty() || keys.len() > EXPRESSION_KEYS_MAX {
            "it needs one to five keys"
        } else if keys.values().any(BTreeSet::is_empty) {
            "a key has no value"
        } else if keys
            .get(&TagWord::sensitivity())
            .is_some_and(|values| values.contains(&TagWord::unclassified()))
        {
            "sensitivity=unclassified is reserved for what nobody may see"
        } else {
            return Ok(TagExpression(keys));
        };
        Err(Error::Expression { reason })
    }

    /// Whether tags satisfy it. A key that the tags lack is not satisfied.
    pub fn matches(&self, tags: &Tags) -> bool {
        self.0.iter().all(|(key, values)| tags.get(key).is_some_and(|value| values.contains(value)))
    }

    /// Keys with their values.
    pub fn keys(&self) -> &BTreeMap<TagWord, BTreeSet<TagWord>> {
        &self.0
    }

    /// All pairs of key and value.
    pub fn pairs(&self) -> impl Iterator<Item = (&TagWord, &TagWord)> {
        self.0.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)))
    }
}

impl FromStr for TagExpression {
    type Err = Error;

    /// `k=v1|v2,k2=v`.
    fn from_str(text: &str) -> Result<Self> {
        let mut keys: BTreeMap<TagWord, BTreeSet<TagWord>> = BTreeMap::new();
        for part in text.split(',') {
            let (key, values) = part
                .split_once('=')
                .ok_or(Error::Expression { reason: "each key needs a value: k=v1|v2,k2=v" })?;
            let values: Result<BTreeSet<TagWord>> = values.split('|').map(str::parse).collect();
            if keys.insert(key.parse()?, values?).is_some() {
                return Err(Error::Expression { reason: "a key comes twice" });
            }
        }
        TagExpression::new(keys)
    }
}

impl fmt::Display for TagExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (key, values)) in self.0.iter().enumerate() {
            let values: Vec<&str> = values.iter().map(TagWord::as_str).collect();
            write!(f, "{}{key}={}", if at > 0 { "," } else { "" }, values.join("|"))?;
        }
        Ok(())
    }
}

/// To what a grant applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A resource and all below it.
    Named {
        /// The resource.
        resource: ResourceId,
        /// Which of its columns.
        columns: Columns,
    },
    /// Whatever bears these tags.
    TagPolicy {
        /// On what they are tested.
        level: PolicyLevel,
        /// The tags.
        expression: TagExpression,
    },
}

/// What was granted to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTerms {
    /// To whom.
    pub principal: Principal,
    /// What; never empty.
    pub permissions: BTreeSet<Permission>,
    /// On what.
    pub target: Target,
    /// For which rows; all when absent.
    pub row_filter: Option<RowFilter>,
    /// Behind which masks, by column.
    pub masks: BTreeMap<String, Mask>,
    /// From when.
    pub not_before: Option<DateTime<Utc>>,
    /// Until when, that moment not included.
    pub expires_at: Option<DateTime<Utc>>,
}

impl GrantTerms {
    /// Checks what needs no registry.
    ///
    /// # Errors
    /// [`Error::Grant`].
    pub fn check(&self) -> Result<()> {
        let ends_before_it_begins =
            self.not_before.zip(self.expires_at).is_some_and(|(from, until)| until <= from);
        let reason = if self.permissions.is_empty() {
            "it permits nothing"
        } else if ends_before_it_begins {
            "it ends before it begins"
        } else {
            return Ok(());
        };
        Err(Error::Grant { reason })
    }
}

/// A grant as a decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its id, unique in the deployment.
    pub id: String,
    /// What was granted.
    pub terms: GrantTerms,
    /// A condition that cannot be evaluated; the grant then counts as absent.
    pub unsupported: Option<String>,
    /// Whether it is an emergency grant.
    pub emergency: bool,
}
