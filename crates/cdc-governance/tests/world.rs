//! A deployment in miniature: a backend with its registry and enforcement, a clock that tests move,
//! and the words in which the suite speaks. A second backend is one more [`Kind`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cdc_core::{Clock, FieldId, TableName};
use cdc_governance::{
    Backend, CacheOptions, Caller, ColumnKind, ColumnShape, Columns, EmergencyGrant,
    EmergencyRequest, Error, Grant, GrantTerms, Identity, Mask, Mode, Permission, PolicyEngine,
    PolicyLevel, PolicySettings, Provenance, Registered, Registration, RegistryOptions, Resource,
    ResourceId, SqliteRegistry, Surface, TableAccess, TableShape, TagChange, TagWord, Tags, Target,
    Taxonomy, Verdict,
};
use chrono::{DateTime, TimeDelta, Utc};

/// The backends that the suite runs against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sqlite,
}

pub(crate) const KINDS: [Kind; 1] = [Kind::Sqlite];

/// Runs a case on every backend. Time stands still but for what the case lets pass.
pub(crate) fn on_every_backend<F: Future<Output = ()>>(case: impl Fn(World) -> F) {
    for kind in KINDS {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the suite is consistent");
        runtime.block_on(case(World::new(kind)));
    }
}

/// A clock that goes where it is told.
pub(crate) struct ManualClock(Mutex<DateTime<Utc>>);

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().expect("the suite is consistent")
    }
}

pub(crate) struct World {
    pub(crate) backend: Backend,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) settings: PolicySettings,
    directory: tempfile::TempDir,
}

pub(crate) fn start() -> DateTime<Utc> {
    "2026-05-04T12:00:00Z".parse().expect("the suite is consistent")
}

pub(crate) fn taxonomy() -> Taxonomy {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::from([
        ("sensitivity".to_owned(), words(&["public", "internal", "PII", "phi"])),
        ("domain".to_owned(), words(&["sales", "hr"])),
        ("retention".to_owned(), words(&["30d", "7y"])),
    ]);
    for n in 0..60 {
        keys.insert(format!("k{n}"), words(&["v"]));
    }
    Taxonomy::parse(&keys).expect("the suite is consistent")
}

pub(crate) fn options() -> RegistryOptions {
    RegistryOptions { taxonomy: taxonomy(), break_glass_ttl_max: TimeDelta::hours(4) }
}

/// The table that most cases are about: its relation is 7, its columns have ids from 100.
pub(crate) const TABLE: &str = "app.public.users";

pub(crate) fn shape(resource: &str, columns: &[&str]) -> TableShape {
    let id: ResourceId = resource.parse().expect("the suite is consistent");
    let schema = id.parent().expect("the suite is consistent");
    let kind = |name: &str| match name {
        "id" | "age" => ColumnKind::Integer,
        "born" => ColumnKind::Date,
        _ => ColumnKind::Text,
    };
    let columns = columns.iter().enumerate().map(|(at, name)| ColumnShape {
        name: (*name).to_owned(),
        field_id: FieldId(100 + at as i32),
        kind: kind(name),
    });
    TableShape {
        database: id.database().to_owned(),
        table: TableName::new(schema.name(), id.name()),
        relation: 7,
        schema_version: 1,
        columns: columns.collect(),
        merge_key: vec!["id".to_owned()],
    }
}

pub(crate) fn by(name: &str) -> Provenance {
    Provenance {
        by: name.to_owned(),
        surface: Surface::Cli,
        request_id: "r1".to_owned(),
        reason: "for the test of it".to_owned(),
    }
}

pub(crate) fn caller(principal: &str) -> Caller {
    Caller::new(principal.parse().expect("the suite is consistent"), [])
}

fn expression(text: &str, level: PolicyLevel) -> Target {
    Target::TagPolicy { level, expression: text.parse().expect("the suite is consistent") }
}

/// Terms in one line: `user:ana`, then `SELECT+CHANGES`, then a target: `where <expression>`,
/// `database where <expression>`, `on <resource> (a,b)`, `on <resource> except (a,b)`, `on <resource>`.
pub(crate) fn terms(principal: &str, permissions: &str, target: &str) -> GrantTerms {
    let names = |list: &str| -> BTreeSet<String> {
        let list = list.trim().trim_start_matches('(').trim_end_matches(')');
        list.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    };
    let target = if let Some(text) = target.strip_prefix("where ") {
        expression(text, PolicyLevel::Table)
    } else if let Some(text) = target.strip_prefix("database where ") {
        expression(text, PolicyLevel::Database)
    } else {
        let text = target.strip_prefix("on ").expect("the suite is consistent");
        let (resource, columns) = match text.split_once(' ') {
            None => (text, Columns::all()),
            Some((resource, list)) => match list.strip_prefix("except ") {
                Some(list) => (resource, Columns::Exclude(names(list))),
                None => (resource, Columns::Include(names(list))),
            },
        };
        Target::Named { resource: resource.parse().expect("the suite is consistent"), columns }
    };
    GrantTerms {
        principal: principal.parse().expect("the suite is consistent"),
        permissions: permissions
            .split('+')
            .map(|p| Permission::from_name(p).expect("the suite is consistent"))
            .collect(),
        target,
        row_filter: None,
        masks: BTreeMap::new(),
        not_before: None,
        expires_at: None,
    }
}

pub(crate) fn with_filter(terms: GrantTerms, filter: &str) -> GrantTerms {
    GrantTerms { row_filter: Some(filter.parse().expect("the suite is consistent")), ..terms }
}

pub(crate) fn with_mask(terms: GrantTerms, column: &str, mask: &str) -> GrantTerms {
    let mask: Mask = mask.parse().expect("the suite is consistent");
    GrantTerms { masks: BTreeMap::from([(column.to_owned(), mask)]), ..terms }
}

impl World {
    fn new(kind: Kind) -> World {
        let clock = Arc::new(ManualClock(Mutex::new(start())));
        let directory = tempfile::tempdir().expect("the suite is consistent");
        let path = directory.path().join(SqliteRegistry::FILE_NAME);
        let Kind::Sqlite = kind;
        let sqlite = SqliteRegistry::open(&path, options(), Arc::clone(&clock) as _)
            .expect("the suite is consistent");
        let backend = Backend { registry: Arc::new(sqlite.clone()), plane: Arc::new(sqlite) };
        World { backend, clock, settings: PolicySettings::default(), directory }
    }

    pub(crate) fn requiring(mut self, keys: &[&str], mode: Mode) -> World {
        let require_tags =
            keys.iter().map(|key| key.parse().expect("the suite is consistent")).collect();
        self.settings = PolicySettings { mode, require_tags };
        self
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join(SqliteRegistry::FILE_NAME)
    }

    /// Another process on the same registry.
    pub(crate) fn other_process(&self) -> SqliteRegistry {
        SqliteRegistry::open(&self.path(), options(), Arc::clone(&self.clock) as _)
            .expect("the suite is consistent")
    }

    pub(crate) fn set_clock(&self, seconds: i64) {
        *self.clock.0.lock().expect("the suite is consistent") =
            start() + TimeDelta::seconds(seconds);
    }

    /// An engine that looks at the policy version before each decision.
    pub(crate) fn engine(&self) -> PolicyEngine {
        self.engine_with(CacheOptions { poll: Duration::ZERO, ..CacheOptions::default() })
    }

    pub(crate) fn engine_with(&self, options: CacheOptions) -> PolicyEngine {
        let clock = Arc::clone(&self.clock) as _;
        PolicyEngine::new(self.backend.clone(), self.settings.clone(), options, clock)
    }

    pub(crate) async fn try_register(
        &self,
        resource: &str,
        identity: Option<Identity>,
        quarantine: bool,
        adopt: bool,
    ) -> Result<Registered, Error> {
        let resource = resource.parse()?;
        let tags = Tags::default();
        let registration = Registration { resource, identity, tags, quarantine, adopt };
        self.backend.registry.register(registration, by("daemon")).await
    }

    /// Registers a table with the columns of its shape, as `init` does.
    pub(crate) async fn table(&self, resource: &str, columns: &[&str]) -> TableShape {
        let shape = shape(resource, columns);
        self.register_shape(&shape, false, false).await;
        shape
    }

    pub(crate) async fn register_shape(&self, shape: &TableShape, quarantine: bool, adopt: bool) {
        let table = shape.resource();
        let identity = Some(Identity::Relation(shape.relation));
        self.try_register(&table.to_string(), identity, quarantine, adopt)
            .await
            .expect("the suite is consistent");
        for column in &shape.columns {
            let id = table.child(&column.name).expect("the suite is consistent").to_string();
            let identity = Some(Identity::Field(column.field_id));
            self.try_register(&id, identity, quarantine, adopt)
                .await
                .expect("the suite is consistent");
        }
    }

    pub(crate) async fn try_tag(&self, resource: &str, tags: &[&str]) -> Result<Resource, Error> {
        let pairs = tags.iter().map(|tag| tag.split_once('=').expect("the suite is consistent"));
        let change = TagChange {
            resource: resource.parse()?,
            set: Tags::parse(pairs)?,
            remove: BTreeSet::new(),
            expect_version: None,
        };
        self.backend.registry.set(change, by("user:admin")).await
    }

    pub(crate) async fn tag(&self, resource: &str, tags: &[&str]) {
        self.try_tag(resource, tags).await.expect("the suite is consistent");
    }

    pub(crate) async fn untag(&self, resource: &str, key: &str) {
        let change = TagChange {
            resource: resource.parse().expect("the suite is consistent"),
            set: Tags::default(),
            remove: BTreeSet::from([key.parse::<TagWord>().expect("the suite is consistent")]),
            expect_version: None,
        };
        self.backend.registry.set(change, by("user:admin")).await.expect("the suite is consistent");
    }

    pub(crate) async fn grant(&self, terms: GrantTerms) -> Grant {
        self.backend.registry.grant(terms, by("user:admin")).await.expect("the suite is consistent")
    }

    /// SELECT by tags or by name.
    pub(crate) async fn select(&self, principal: &str, target: &str) -> Grant {
        self.grant(terms(principal, "SELECT", target)).await
    }

    pub(crate) async fn break_glass(
        &self,
        ttl: TimeDelta,
        approver: Option<&str>,
    ) -> Result<EmergencyGrant, Error> {
        let request = EmergencyRequest {
            principal: "user:ana".parse()?,
            resource: TABLE.parse()?,
            columns: BTreeSet::from(["email".to_owned()]),
            ttl,
            ticket: "INC-1".to_owned(),
            approver: approver.map(str::to_owned),
        };
        self.backend.registry.break_glass(request, by("user:ana")).await
    }

    pub(crate) async fn verdict(&self, principal: &str, shape: &TableShape) -> Verdict {
        (*self.engine().resolve(&caller(principal), Some(shape)).await).clone()
    }

    pub(crate) async fn access(&self, principal: &str, shape: &TableShape) -> TableAccess {
        match self.verdict(principal, shape).await {
            Verdict::Allow(access) => access,
            other => panic!("{other:?}"),
        }
    }

    /// The names of the columns that a principal sees, joined by commas.
    pub(crate) async fn sees(&self, principal: &str, shape: &TableShape) -> String {
        match self.verdict(principal, shape).await {
            Verdict::Allow(access) => {
                let names: Vec<&str> = access.columns().iter().map(|c| c.name.as_str()).collect();
                names.join(",")
            }
            Verdict::NotFound(_) => String::new(),
            Verdict::Unavailable => panic!("the policy cannot be read"),
        }
    }
}
