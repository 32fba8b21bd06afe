//! What happens to entries, and how changes reach readers (L01–L13).

use std::collections::BTreeSet;
use std::time::Duration;

use cdc_core::FieldId;
use cdc_governance::{
    CacheOptions, Error, Hidden, Identity, IntentRegistry, Registered, ResourceState, TableShape,
    TagChange, Tags, Verdict,
};

use crate::world::{TABLE, World, by, caller, on_every_backend, shape};

async fn item(world: &World, resource: &str) -> cdc_governance::Resource {
    world
        .backend
        .registry
        .get(&resource.parse().expect("the suite is consistent"))
        .await
        .expect("the suite is consistent")
        .expect("the suite is consistent")
}

#[test]
fn l01_registering_twice_changes_nothing() {
    on_every_backend(|world| async move {
        let identity = Some(Identity::Relation(7));
        let register = || world.try_register(TABLE, identity, false, false);
        assert_eq!(register().await.expect("the suite is consistent"), Registered::New);
        let registry = &world.backend.registry;
        let before = (item(&world, TABLE).await, registry.policy_version().await.unwrap());
        let records = registry.verify_audit().await.unwrap();
        assert_eq!(register().await.unwrap(), Registered::Unchanged);
        let unseen = world.try_register(TABLE, None, true, true).await.unwrap();
        assert_eq!(unseen, Registered::Unchanged);
        assert_eq!(before, (item(&world, TABLE).await, registry.policy_version().await.unwrap()));
        assert_eq!(records, registry.verify_audit().await.unwrap());
        assert_eq!(before.0.version, 0);
        // what lies above it has entries too
        assert_eq!(item(&world, "app.public").await.version, 0);
    });
}

#[test]
fn an_entry_without_an_identity_is_bound_by_the_first_sighting() {
    on_every_backend(|world| async move {
        let users = shape(TABLE, &["id"]);
        world.try_register("app.public.users.id", None, false, false).await.unwrap();
        world.tag(TABLE, &["sensitivity=public"]).await;
        world.select("user:ana", "where sensitivity=public").await;
        assert_eq!(world.sees("user:ana", &users).await, "");
        let bind = |name, identity| world.try_register(name, Some(identity), true, false);
        let bound = bind(TABLE, Identity::Relation(7)).await.unwrap();
        assert_eq!(bound, Registered::Bound);
        assert_eq!(world.sees("user:ana", &users).await, "");
        bind("app.public.users.id", Identity::Field(FieldId(100))).await.unwrap();
        assert_eq!(world.sees("user:ana", &users).await, "id");
    });
}

#[test]
fn l02_a_set_writes_version_history_audit_and_policy_version_together() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let registry = &world.backend.registry;
        let before = registry.policy_version().await.unwrap();
        let records = registry.verify_audit().await.unwrap().records;
        world.tag(TABLE, &["sensitivity=pii"]).await;
        let entry = item(&world, TABLE).await;
        assert_eq!((entry.version, entry.policy_changed_at), (1, before + 1));
        assert_eq!(
            (entry.last_intent_by.as_str(), entry.last_intent_reason.as_str()),
            ("user:admin", "for the test of it")
        );
        assert_eq!(registry.policy_version().await.unwrap(), before + 1);
        let history = registry.history(&TABLE.parse().unwrap()).await.unwrap();
        let versions: Vec<(u64, bool)> =
            history.iter().map(|version| (version.version, version.tags.is_empty())).collect();
        assert_eq!(versions, [(0, true), (1, false)]);
        assert_eq!(history[1].policy_version, before + 1);
        let lines = registry.audit(records, 10).await.unwrap();
        assert_eq!(lines.len(), 1);
        let record: serde_json::Value = serde_json::from_str(&lines[0].line).unwrap();
        assert_eq!(record["event"], "policy.set");
        assert_eq!(record["endpoint"], "acl set");
        assert_eq!(record["principal"], "user:admin");
        assert_eq!(record["resources"][0], TABLE);
        assert_eq!(record["policy_version"], before + 1);
        assert_eq!(registry.verify_audit().await.unwrap().records, records + 1);
        // what is refused leaves nothing of it
        let change = TagChange {
            resource: TABLE.parse().unwrap(),
            set: Tags::parse([("domain", "hr")]).unwrap(),
            remove: BTreeSet::new(),
            expect_version: None,
        };
        let hasty = cdc_governance::Provenance { reason: "1234567".into(), ..by("user:admin") };
        let error = registry.set(change, hasty).await.unwrap_err();
        assert!(matches!(error, Error::Reason), "{error}");
        assert_eq!(registry.policy_version().await.unwrap(), before + 1);
        let error = world.try_tag("app.public.x", &["domain=hr"]).await.unwrap_err();
        assert!(matches!(error, Error::UnknownResource { .. }), "{error}");
    });
}

#[test]
fn the_policy_version_of_a_table_follows_itself_its_columns_and_what_is_above() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        world.table("app.other.t", &["id"]).await;
        let version = |resource: &'static str| {
            let engine = world.engine();
            async move { engine.policy().await.unwrap().table_version(&resource.parse().unwrap()) }
        };
        let deployment = || async { world.backend.registry.policy_version().await.unwrap() };
        for changed in [TABLE, "app.public.users.id", "app.public", "app"] {
            world.tag(changed, &["domain=hr"]).await;
            assert_eq!(version(TABLE).await, deployment().await, "{changed}");
        }
        let before = version(TABLE).await;
        world.tag("app.other.t", &["domain=hr"]).await;
        world.tag("app.other", &["domain=hr"]).await;
        world.select("user:ana", "on app").await;
        assert_eq!(version(TABLE).await, before);
        assert!(deployment().await > before);
        assert_eq!(version("nowhere.s.t").await, 1);
    });
}

#[test]
fn l03_of_concurrent_sets_one_wins() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let change = TagChange {
            resource: TABLE.parse().unwrap(),
            set: Tags::parse([("domain", "hr")]).unwrap(),
            remove: BTreeSet::new(),
            expect_version: Some(0),
        };
        let (one, two) = (world.other_process(), world.other_process());
        let (a, b) = tokio::join!(
            one.set(change.clone(), by("user:a")),
            two.set(change.clone(), by("user:b"))
        );
        assert!(a.is_ok() != b.is_ok());
        let error = a.and(b).unwrap_err();
        assert!(matches!(error, Error::VersionConflict { expected: 0, found: 1, .. }), "{error}");
        assert_eq!(item(&world, TABLE).await.version, 1);
    });
}

#[test]
fn l05_a_renamed_column_stays_hidden() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.select("user:ana", "on app.public.users").await;
        let mut renamed = users.clone();
        renamed.columns[1].name = "mail".to_owned();
        assert_eq!(world.sees("user:ana", &renamed).await, "id");
        world.register_shape(&renamed, true, false).await;
        assert_eq!(world.sees("user:ana", &renamed).await, "id");
        // the old name with another column behind it
        let mut swapped = users;
        swapped.columns[1].field_id = FieldId(140);
        assert_eq!(world.sees("user:ana", &swapped).await, "id");
        world.register_shape(&swapped, true, false).await;
        assert_eq!(world.sees("user:ana", &swapped).await, "id");
        assert!(item(&world, "app.public.users.email").await.is_quarantined());
    });
}

#[test]
fn l06_an_added_column_is_quarantined_until_set_without_a_restart() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.select("user:ana", "on app.public.users").await;
        let engine = world.engine();
        let wider = shape(TABLE, &["id", "email"]);
        let seen = || async {
            match &*engine.resolve(&caller("user:ana"), Some(&wider)).await {
                Verdict::Allow(access) => access.columns().len(),
                _ => 0,
            }
        };
        assert_eq!(world.sees("user:ana", &users).await, "id");
        assert_eq!(seen().await, 1);
        world.register_shape(&wider, true, false).await;
        assert_eq!(seen().await, 1);
        let explained = engine.explain(&caller("user:ana"), &wider).await.unwrap();
        assert_eq!(explained.columns[1].1, Err(Hidden::Unclassified));
        world.tag("app.public.users.email", &["domain=hr"]).await;
        assert_eq!(seen().await, 1, "another key does not end quarantine");
        world.tag("app.public.users.email", &["sensitivity=internal"]).await;
        assert_eq!(seen().await, 2);
    });
}

#[test]
fn l07_a_dropped_column_still_governs_old_snapshots() {
    on_every_backend(|world| async move {
        let old = world.table(TABLE, &["id", "email"]).await;
        world.tag(TABLE, &["sensitivity=internal"]).await;
        world.tag("app.public.users.email", &["sensitivity=pii"]).await;
        world.select("user:ana", "where sensitivity=internal").await;
        world.select("user:dpo", "where sensitivity=pii|internal").await;
        let archive = ResourceState::Archived;
        let email = "app.public.users.email".parse().unwrap();
        world.backend.registry.set_state(email, archive, by("daemon")).await.unwrap();
        assert_eq!(world.sees("user:ana", &old).await, "id");
        assert_eq!(world.sees("user:dpo", &old).await, "id,email");
        assert_eq!(world.sees("user:dpo", &shape(TABLE, &["id"])).await, "id");
    });
}

#[test]
fn l08_a_change_by_another_process_acts_within_a_second() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        let grant = world.select("user:ana", "on app.public.users").await;
        let options = CacheOptions::default();
        assert!(options.poll < Duration::from_secs(1));
        let engine = world.engine_with(options);
        let sees = || async {
            let verdict = engine.resolve(&caller("user:ana"), Some(&users)).await;
            matches!(*verdict, Verdict::Allow(_))
        };
        assert!(sees().await);
        world.other_process().revoke(grant.id, by("user:admin")).await.unwrap();
        let revoked = std::time::Instant::now();
        while sees().await {
            assert!(revoked.elapsed() < Duration::from_secs(1), "still visible");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn l09_an_outage_denies_known_and_unknown_names_alike() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.select("user:ana", "on app.public.users").await;
        let engine = world.engine();
        let ttl = CacheOptions {
            ttl: Duration::from_millis(200),
            poll: Duration::ZERO,
            ..CacheOptions::default()
        };
        let short = world.engine_with(ttl);
        let ana = caller("user:ana");
        let allowed = |verdict: &Verdict| matches!(verdict, Verdict::Allow(_));
        assert!(allowed(&*engine.resolve(&ana, Some(&users)).await));
        assert!(allowed(&*short.resolve(&ana, Some(&users)).await));
        std::fs::remove_file(world.path()).unwrap();
        let fresh = world.engine();
        let other = shape("app.public.nothing", &["id"]);
        for table in [Some(&users), Some(&other), None] {
            assert_eq!(*fresh.resolve(&ana, table).await, Verdict::Unavailable);
        }
        assert!(fresh.visible_tables(&ana, &[]).await.is_err());
        assert!(!fresh.administers(&ana, &"app".parse().unwrap()).await);
        // what was confirmed lately is used until its time is over
        assert!(allowed(&*engine.resolve(&ana, Some(&users)).await));
        let began = std::time::Instant::now();
        while allowed(&*short.resolve(&ana, Some(&users)).await) {
            assert!(began.elapsed() < Duration::from_secs(5), "used beyond its time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for table in [Some(&users), Some(&other), None] {
            assert_eq!(*short.resolve(&ana, table).await, Verdict::Unavailable);
        }
    });
}

#[test]
fn l10_a_reader_catches_up_or_denies() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let slow = CacheOptions {
            poll: Duration::from_secs(3600),
            ttl: Duration::from_secs(7200),
            ..CacheOptions::default()
        };
        let engine = world.engine_with(slow);
        let before = engine.policy_version().await.unwrap();
        world.tag(TABLE, &["domain=hr"]).await;
        assert_eq!(engine.policy_version().await.unwrap(), before);
        engine.catch_up(before + 1).await.unwrap();
        assert_eq!(engine.policy_version().await.unwrap(), before + 1);
        let error = engine.catch_up(before + 2).await.unwrap_err();
        assert!(matches!(error, Error::StalePolicy { .. }), "{error}");
    });
}

#[test]
fn l11_archiving_can_be_taken_back() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let set =
            |state| world.backend.registry.set_state(TABLE.parse().unwrap(), state, by("daemon"));
        let archived = set(ResourceState::Archived).await.unwrap();
        assert_eq!((archived.state, archived.version), (ResourceState::Archived, 1));
        let again = set(ResourceState::Archived).await.unwrap();
        assert_eq!(again.version, 1);
        let active = set(ResourceState::Active).await.unwrap();
        assert_eq!((active.state, active.version), (ResourceState::Active, 2));
    });
}

#[test]
fn l13_paging_through_the_list_is_complete() {
    on_every_backend(|world| async move {
        let columns: Vec<String> = (0..23).map(|n| format!("c{n}")).collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        world.table(TABLE, &columns).await;
        world.tag("app.public.users.c7", &["sensitivity=public"]).await;
        let mut after = None;
        let mut unclassified = BTreeSet::new();
        let mut seen = 0;
        loop {
            let page = world.backend.registry.list(after, 10).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.id.clone());
            seen += page.len();
            let open = page.iter().filter(|item| item.version == 0 || item.is_quarantined());
            unclassified.extend(open.map(|item| item.id.to_string()));
        }
        assert_eq!((seen, unclassified.len()), (26, 25));
        assert!(!unclassified.contains("app.public.users.c7"));
    });
}

#[test]
fn an_access_that_narrowed_no_longer_includes_the_old_one() {
    on_every_backend(|world| async move {
        let users: TableShape = world.table(TABLE, &["id", "email"]).await;
        let first = world.select("user:ana", "on app.public.users (id)").await;
        let narrow = world.access("user:ana", &users).await;
        world.select("user:ana", "on app.public.users").await;
        let wide = world.access("user:ana", &users).await;
        assert!(wide.includes(&narrow) && wide.includes(&wide) && !narrow.includes(&wide));
        world.backend.registry.revoke(first.id, by("user:admin")).await.unwrap();
        assert!(
            world.access("user:ana", &users).await.includes(&wide),
            "the other one shows as much"
        );
        let feed = crate::world::terms("user:ana", "CHANGES", "on app");
        world.grant(feed).await;
        let fed = world.access("user:ana", &users).await;
        assert!(fed.includes(&wide) && !wide.includes(&fed));
    });
}
