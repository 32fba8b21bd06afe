//! Who sees what: inheritance, expressions, grants, filters, masks (G01–G28).

use cdc_core::{FieldId, ReplicaIdentity, SourceTable, TableKind, TableName};
use cdc_governance::{
    CellView, Columns, Enforced, Error, Grant, GrantTerms, Hidden, Identity, Intent, Mode,
    Permission, Policy, PolicySettings, Registered, RuleText, TableRules, Target, Value, Verdict,
    decide, effective, exclude_collisions,
};
use chrono::TimeDelta;

use crate::world::{
    TABLE, World, caller, on_every_backend, shape, start, terms, with_filter, with_mask,
};

#[test]
fn g01_without_grants_nothing_is_visible() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.tag(TABLE, &["sensitivity=public"]).await;
        assert_eq!(world.sees("user:ana", &users).await, "");
        world.select("user:eve", "where sensitivity=public").await;
        assert_eq!(world.sees("user:ana", &users).await, "");
        let engine = world.engine();
        let tables = [users];
        let visible = engine.visible_tables(&caller("user:ana"), &tables).await.unwrap();
        assert!(visible.is_empty());
        let visible = engine.visible_tables(&caller("user:eve"), &tables).await.unwrap();
        assert_eq!(visible.len(), 1);
    });
}

#[test]
fn g02_an_untagged_table_is_invisible_to_tag_grants() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.select("user:ana", "where sensitivity=public|internal|pii|phi").await;
        assert_eq!(world.sees("user:ana", &users).await, "");
    });
}

#[test]
fn g03_a_column_inherits_the_tags_of_its_database_and_schema() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.select("user:ana", "where sensitivity=internal,domain=sales").await;
        world.tag("app", &["sensitivity=internal"]).await;
        assert_eq!(world.sees("user:ana", &users).await, "");
        world.tag("app.public", &["domain=sales"]).await;
        assert_eq!(world.sees("user:ana", &users).await, "id,email");
    });
}

#[test]
fn g04_the_tag_of_a_table_overrides_that_of_its_database() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.tag("app", &["sensitivity=public", "domain=sales"]).await;
        world.tag("app.public", &["sensitivity=internal"]).await;
        world.tag(TABLE, &["sensitivity=pii"]).await;
        world.select("user:public", "where sensitivity=public").await;
        world.select("user:internal", "where sensitivity=internal").await;
        world.select("user:pii", "where sensitivity=pii,domain=sales").await;
        assert_eq!(world.sees("user:public", &users).await, "");
        assert_eq!(world.sees("user:internal", &users).await, "");
        // by key: the domain still comes from the database
        assert_eq!(world.sees("user:pii", &users).await, "id");
        let policy = world.engine().policy().await.unwrap();
        let resolved = policy.resolved_tags(&format!("{TABLE}.id").parse().unwrap());
        let origins: Vec<String> =
            resolved.iter().map(|(k, tag)| format!("{k}={} {}", tag.value, tag.origin)).collect();
        assert_eq!(origins, ["domain=sales app", "sensitivity=pii app.public.users"]);
    });
}

#[test]
fn g05_a_column_overrides_its_table_tighter_and_looser() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "name"]).await;
        world.tag(TABLE, &["sensitivity=internal"]).await;
        world.tag("app.public.users.email", &["sensitivity=pii"]).await;
        world.tag("app.public.users.name", &["sensitivity=public"]).await;
        for (principal, value, seen) in
            [("user:a", "internal", "id"), ("user:b", "pii", "email"), ("user:c", "public", "name")]
        {
            world.select(principal, &format!("where sensitivity={value}")).await;
            assert_eq!(world.sees(principal, &users).await, seen);
        }
        world.untag("app.public.users.email", "sensitivity").await;
        assert_eq!(world.sees("user:a", &users).await, "id,email");
    });
}

#[test]
fn g06_two_keys_of_an_expression_must_both_hold() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.tag(TABLE, &["sensitivity=internal"]).await;
        world.tag("app.public.users.id", &["domain=sales"]).await;
        world.select("user:ana", "where sensitivity=internal,domain=sales").await;
        assert_eq!(world.sees("user:ana", &users).await, "id");
    });
}

#[test]
fn g07_two_values_of_a_key_are_alternatives() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "name"]).await;
        world.tag(TABLE, &["sensitivity=phi"]).await;
        world.tag("app.public.users.id", &["sensitivity=public"]).await;
        world.tag("app.public.users.email", &["sensitivity=pii"]).await;
        world.select("user:ana", "where sensitivity=public|pii").await;
        assert_eq!(world.sees("user:ana", &users).await, "id,email");
    });
}

#[test]
fn g08_two_grants_are_alternatives() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "name"]).await;
        world.tag("app.public.users.id", &["sensitivity=public"]).await;
        world.tag("app.public.users.email", &["domain=hr"]).await;
        world.select("user:ana", "where sensitivity=public").await;
        world.select("user:ana", "where domain=hr").await;
        assert_eq!(world.sees("user:ana", &users).await, "id,email");
    });
}

#[test]
fn g09_an_expression_on_a_key_that_is_not_there_does_not_match() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.tag(TABLE, &["sensitivity=public"]).await;
        world.select("user:ana", "where sensitivity=public,retention=30d|7y").await;
        assert_eq!(world.sees("user:ana", &users).await, "");
    });
}

#[test]
fn g10_named_and_tag_grants_unite() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "name"]).await;
        world.tag("app.public.users.id", &["sensitivity=public"]).await;
        world.select("user:ana", "where sensitivity=public").await;
        world.select("user:ana", "on app.public.users (name)").await;
        assert_eq!(world.sees("user:ana", &users).await, "id,name");
        world.select("user:bob", "on app.public.users.email").await;
        assert_eq!(world.sees("user:bob", &users).await, "email");
        world.select("user:cyn", "on app").await;
        assert_eq!(world.sees("user:cyn", &users).await, "id,email,name");
    });
}

#[test]
fn g11_exclude_lists_stay_exclusive_and_a_wildcard_waits_for_quarantine() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id", "email"]).await;
        world.select("user:inc", "on app.public.users (id)").await;
        world.select("user:exc", "on app.public.users except (email,phone)").await;
        world.select("user:all", "on app.public.users").await;
        world.select("user:none", "on app.public.users ()").await;
        let wider = shape(TABLE, &["id", "email", "phone", "city"]);
        for name in ["user:inc", "user:exc"] {
            assert_eq!(world.sees(name, &wider).await, "id");
        }
        assert_eq!(world.sees("user:all", &wider).await, "id,email");
        assert_eq!(world.sees("user:none", &wider).await, "");
        world.register_shape(&wider, true, false).await;
        assert_eq!(world.sees("user:all", &wider).await, "id,email");
        for column in ["phone", "city"] {
            world.tag(&format!("{TABLE}.{column}"), &["sensitivity=public"]).await;
        }
        assert_eq!(world.sees("user:inc", &wider).await, "id");
        assert_eq!(world.sees("user:exc", &wider).await, "id,city");
        assert_eq!(world.sees("user:all", &wider).await, "id,email,phone,city");
    });
}

#[test]
fn g12_a_database_policy_shows_no_table_and_no_column() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.tag("app", &["sensitivity=public"]).await;
        let all = "SELECT+DESCRIBE+CHANGES+ADMIN";
        world.grant(terms("user:ana", all, "database where sensitivity=public")).await;
        assert_eq!(world.sees("user:ana", &users).await, "");
        assert!(!world.engine().administers(&caller("user:ana"), &"app".parse().unwrap()).await);
        // and it adds no feed to what another grant shows
        world.select("user:ana", "on app.public.users").await;
        assert!(!world.access("user:ana", &users).await.changes());
    });
}

#[test]
fn g13_case_and_form_of_tags_do_not_matter() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.tag(TABLE, &[" Sensitivity = PII "]).await;
        world.select("user:ana", "where SENSITIVITY=Pii").await;
        assert_eq!(world.sees("user:ana", &users).await, "id");
        let stored = world.backend.registry.get(&TABLE.parse().unwrap()).await.unwrap().unwrap();
        let tags: Vec<String> = stored.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(tags, ["sensitivity=pii"]);
        // é as one character and as two
        let one: cdc_governance::TagWord = "caf\u{e9}".parse().unwrap();
        assert_eq!(one, "CAFE\u{301}".parse().unwrap());
    });
}

#[test]
fn g14_a_key_or_value_of_51_characters_is_refused() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let long = "x".repeat(51);
        for tag in [format!("{long}=a"), format!("sensitivity={long}")] {
            let error = world.try_tag(TABLE, &[&tag]).await.unwrap_err();
            assert!(matches!(error, Error::TagWord { .. }), "{error}");
        }
        assert!("x".repeat(50).parse::<cdc_governance::TagWord>().is_ok());
        for word in ["", " ", "a\u{0}", "a,b", "a|b"] {
            assert!(word.parse::<cdc_governance::TagWord>().is_err(), "{word:?}");
        }
    });
}

#[test]
fn g15_the_51st_tag_is_refused() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let tags: Vec<String> = (0..50).map(|n| format!("k{n}=v")).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        world.tag(TABLE, &tags).await;
        world.tag(TABLE, &["k0=v"]).await;
        let error = world.try_tag(TABLE, &["k50=v"]).await.unwrap_err();
        assert!(matches!(error, Error::TooManyTags), "{error}");
    });
}

#[test]
fn g16_an_unknown_key_or_value_is_refused_before_any_write() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let registry = &world.backend.registry;
        let version = registry.policy_version().await.unwrap();
        let records = registry.verify_audit().await.unwrap().records;
        for tag in ["colour=red", "sensitivity=secret"] {
            let error = world.try_tag(TABLE, &["domain=hr", tag]).await.unwrap_err();
            assert!(matches!(error, Error::UnknownTag { .. }), "{error}");
        }
        let unknown = terms("user:ana", "SELECT", "where sensitivity=secret");
        let error = registry.grant(unknown, crate::world::by("user:admin")).await.unwrap_err();
        assert!(matches!(error, Error::UnknownTag { .. }), "{error}");
        let item = registry.get(&TABLE.parse().unwrap()).await.unwrap().unwrap();
        assert!(item.tags.is_empty() && item.version == 0);
        assert_eq!(registry.policy_version().await.unwrap(), version);
        assert_eq!(registry.verify_audit().await.unwrap().records, records);
    });
}

#[test]
fn g17_a_missing_required_tag_hides_in_strict_mode_and_only_there() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.select("user:ana", "on app.public.users").await;
        world.tag("app.public.users.id", &["sensitivity=public"]).await;
        let world = world.requiring(&["sensitivity"], Mode::Permissive);
        assert_eq!(world.sees("user:ana", &users).await, "id,email");
        let world = world.requiring(&["sensitivity"], Mode::Strict);
        assert_eq!(world.sees("user:ana", &users).await, "id");
        let engine = world.engine();
        let explained = engine.explain(&caller("user:ana"), &users).await.unwrap();
        let missing = Hidden::MissingTag("sensitivity".parse().unwrap());
        assert_eq!(explained.columns[1], ("email".to_owned(), Err(missing)));
        let world = world.requiring(&["sensitivity", "domain"], Mode::Strict);
        assert_eq!(world.sees("user:ana", &users).await, "");
    });
}

#[test]
fn g19_the_grants_of_a_caller_and_of_his_groups_unite() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "name"]).await;
        world.select("user:ana", "on app.public.users (id)").await;
        world.select("group:finance", "on app.public.users (email)").await;
        world.select("role:analyst", "on app.public.users (name)").await;
        let groups = || ["group:finance".parse().unwrap()];
        let ana = cdc_governance::Caller::new("user:ana".parse().unwrap(), groups());
        let seen = |verdict: std::sync::Arc<Verdict>| match &*verdict {
            Verdict::Allow(access) => access.columns().iter().map(|c| c.name.clone()).collect(),
            _ => Vec::new(),
        };
        let engine = world.engine();
        assert_eq!(seen(engine.resolve(&ana, Some(&users)).await), ["id", "email"]);
        // a role narrows: it counts alone
        let allowed = std::collections::BTreeSet::from(["analyst".to_owned()]);
        let analyst = ana.acting_as("analyst", &allowed).unwrap();
        assert_eq!(seen(engine.resolve(&analyst, Some(&users)).await), ["name"]);
    });
}

#[test]
fn g20_a_grant_counts_from_its_beginning_to_just_before_its_end() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        let at = |seconds| Some(start() + TimeDelta::seconds(seconds));
        world
            .grant(GrantTerms {
                not_before: at(10),
                expires_at: at(20),
                ..terms("user:ana", "SELECT", "on app.public.users")
            })
            .await;
        // one engine: a remembered decision must not outlive the boundary
        let engine = world.engine();
        for (second, seen) in [(0, false), (9, false), (10, true), (19, true), (20, false)] {
            world.set_clock(second);
            let verdict = engine.resolve(&caller("user:ana"), Some(&users)).await;
            assert_eq!(matches!(*verdict, Verdict::Allow(_)), seen, "at {second}");
            if let Verdict::Allow(access) = &*verdict {
                assert_eq!(access.not_after(), at(20));
            }
        }
        let backwards = GrantTerms {
            not_before: at(5),
            expires_at: at(5),
            ..terms("user:ana", "SELECT", "on app.public.users")
        };
        let refused = world.backend.registry.grant(backwards, crate::world::by("user:a")).await;
        assert!(matches!(refused, Err(Error::Grant { .. })));
    });
}

/// A policy in memory, for what a registry cannot be made to hold.
async fn policy_with(world: &World, change: impl FnOnce(&mut Intent, &mut Enforced)) -> Policy {
    let mut intent = world.backend.registry.load().await.expect("the suite is consistent");
    let mut enforced = world.backend.plane.read().await.expect("the suite is consistent");
    change(&mut intent, &mut enforced);
    Policy::new(intent, enforced)
}

fn visible(policy: &Policy, users: &cdc_governance::TableShape) -> Verdict {
    let settings = PolicySettings::default();
    effective(Some(policy), &settings, &caller("user:ana"), Some(users), start())
}

#[test]
fn g21_what_cannot_be_evaluated_denies() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        let first = world.select("user:ana", "on app.public.users (id)").await;
        // a condition: that grant counts as absent, the other one stays
        let conditional = |intent: &mut Intent| {
            let terms = terms("user:ana", "SELECT", "on app.public.users");
            let unsupported = Some("cedar".to_owned());
            intent.grants.push(Grant { id: "x".into(), terms, unsupported, emergency: false });
        };
        let policy = policy_with(&world, |intent, _| conditional(intent)).await;
        let Verdict::Allow(access) = visible(&policy, &users) else { panic!("hidden") };
        assert_eq!(access.columns().len(), 1);
        // a restriction on the table: denied whole
        let policy = policy_with(&world, |_, enforced| {
            enforced.unsupported.insert(TABLE.parse().unwrap());
        })
        .await;
        assert_eq!(visible(&policy, &users), Verdict::NotFound(Hidden::UnsupportedPolicy));
        // a filter that the table cannot answer, and a mask that its column cannot bear
        let registry = &world.backend.registry;
        registry.revoke(first.id, crate::world::by("user:a")).await.unwrap();
        let select = || terms("user:ana", "SELECT", "on app.public.users (id)");
        world.grant(with_filter(select(), "tenant = 'a'")).await;
        world.grant(with_filter(select(), "id = 'a'")).await;
        world.grant(with_mask(select(), "id", "partial:2")).await;
        assert_eq!(world.sees("user:ana", &users).await, "");
    });
}

fn row<'r>(cells: &'r [(&'r str, Value)]) -> impl Fn(&str) -> Value + 'r {
    move |name| {
        let cell = cells.iter().find(|(known, _)| *known == name);
        cell.map_or(Value::Null, |(_, value)| value.clone())
    }
}

#[test]
fn g22_row_filters_unite_cell_by_cell() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "tenant"]).await;
        let on = |columns: &str| terms("user:ana", "SELECT", &format!("on {TABLE} ({columns})"));
        world.grant(with_filter(on("id,email"), "tenant = 'a'")).await;
        world.grant(with_filter(on("id"), "age > 17 OR tenant = 'b'")).await;
        assert_eq!(world.sees("user:ana", &users).await, "id,email", "there is no column age");
        let users = world.table("app.public.people", &["id", "email", "tenant", "age"]).await;
        let on = |columns: &str| {
            terms("user:ana", "SELECT", &format!("on app.public.people ({columns})"))
        };
        world.grant(with_filter(on("id,email"), "tenant = 'a'")).await;
        world.grant(with_filter(on("id"), "age > 17")).await;
        let access = world.access("user:ana", &users).await;
        assert!(!access.direct_read());
        // tenant and age are read for the filters; id, of the merge key, is visible itself
        assert_eq!(access.hidden_reads(), [FieldId(102), FieldId(103)]);
        let shown = |tenant: &str, age: &str| {
            let cells =
                [("tenant", Value::Text(tenant.into())), ("age", Value::Number(age.into()))];
            let truths: Vec<Option<bool>> =
                access.filters().iter().map(|filter| filter.eval(&row(&cells))).collect();
            let cell = |name| access.column(name).unwrap().cell(&truths);
            (access.shows_row(&truths), cell("id"), cell("email"))
        };
        assert_eq!(shown("a", "3"), (true, CellView::Clear, CellView::Clear));
        assert_eq!(shown("b", "18"), (true, CellView::Clear, CellView::Hidden));
        assert_eq!(shown("b", "17"), (false, CellView::Hidden, CellView::Hidden));
    });
}

#[test]
fn a_filter_reads_no_column_but_the_one_that_was_registered() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "tenant"]).await;
        world
            .grant(with_filter(
                terms("user:ana", "SELECT", "on app.public.users (id)"),
                "tenant = 'a'",
            ))
            .await;
        assert_eq!(world.sees("user:ana", &users).await, "id", "a hidden column may be read");
        // the source gave its name to another column
        let mut renamed = users.clone();
        renamed.schema_version += 1;
        renamed.columns[1].field_id = FieldId(150);
        let verdict = world.verdict("user:ana", &renamed).await;
        assert!(matches!(verdict, Verdict::NotFound(_)), "{verdict:?}");
    });
}

#[test]
fn g23_a_filter_that_is_unknown_hides_the_row() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "tenant"]).await;
        let select = terms("user:ana", "SELECT", "on app.public.users");
        world.grant(with_filter(select, "NOT tenant = 'a'")).await;
        let access = world.access("user:ana", &users).await;
        let shows = |tenant: Value| {
            let cells = [("tenant", tenant)];
            let truth = access.filters()[0].eval(&row(&cells));
            access.shows_row(&[truth])
        };
        assert!(shows(Value::Text("b".into())));
        assert!(!shows(Value::Text("a".into())));
        assert!(!shows(Value::Null) && !shows(Value::Opaque) && !shows(Value::Bool(true)));
        // a filter for which there is no truth at all
        assert!(!access.shows_row(&[]));
    });
}

#[test]
fn g24_an_unmasked_grant_wins_and_then_the_most_revealing_mask() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email", "tenant"]).await;
        let on = || terms("user:ana", "SELECT", "on app.public.users (email)");
        for mask in ["null", "hash:x", "hash:y", "partial:4", "constant:x"] {
            world.grant(with_mask(on(), "email", mask)).await;
        }
        let access = world.access("user:ana", &users).await;
        let shown = |access: &cdc_governance::TableAccess, truths: &[Option<bool>]| match access
            .column("email")
            .unwrap()
            .cell(truths)
        {
            CellView::Masked(mask) => mask.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(shown(&access, &[]), "partial:4");
        assert!(!access.direct_read());
        world.grant(with_filter(on(), "tenant = 'a'")).await;
        let access = world.access("user:ana", &users).await;
        assert_eq!(shown(&access, &[Some(true)]), "Clear");
        assert_eq!(shown(&access, &[Some(false)]), "partial:4");
        assert_eq!(shown(&access, &[None]), "partial:4");
        // of two hashes the first grant's
        let on = || terms("user:bob", "SELECT", "on app.public.users (email)");
        for mask in ["hash:y", "hash:x"] {
            world.grant(with_mask(on(), "email", mask)).await;
        }
        assert_eq!(shown(&world.access("user:bob", &users).await, &[]), "hash:y");
    });
}

#[test]
fn g25_dotted_quoted_and_unicode_names_stay_distinct() {
    on_every_backend(|world| async move {
        let left = TableName::new("a.b", "c");
        let right = TableName::new("a", "b.c");
        let left = cdc_governance::ResourceId::table("app", &left).to_string();
        let right = cdc_governance::ResourceId::table("app", &right).to_string();
        assert_eq!((left.as_str(), right.as_str()), ("app.a%2Eb.c", "app.a.b%2Ec"));
        let left = world.table(&left, &["id"]).await;
        let right = world.table(&right, &["id"]).await;
        let upper = world.table("app.public.Größe", &["id", "ID", "größe", "a\"b"]).await;
        let lower = world.table("app.public.größe", &["id"]).await;
        world.select("user:ana", "on app.a%2Eb.c").await;
        world.select("user:ana", "on app.public.Größe (ID,größe,a\"b)").await;
        assert_eq!(world.sees("user:ana", &left).await, "id");
        assert_eq!(world.sees("user:ana", &right).await, "");
        assert_eq!(world.sees("user:ana", &upper).await, "ID,größe,a\"b");
        assert_eq!(world.sees("user:ana", &lower).await, "");
    });
}

fn source(name: &str, kind: TableKind, root: Option<TableName>) -> SourceTable {
    SourceTable {
        oid: 7,
        name: name.parse().expect("the suite is consistent"),
        kind,
        partition_root: root,
        columns: Vec::new(),
        primary_key: vec!["id".to_owned()],
        replica_identity: ReplicaIdentity::Default,
        estimated_rows: 0,
        heap_bytes: 0,
    }
}

#[test]
fn g26_a_collision_of_catalog_names_is_found() {
    let rules = TableRules::new(&RuleText::default()).unwrap();
    let tables = ["public.billing_invoices", "billing.invoices"];
    let tables = tables.map(|name| source(name, TableKind::Table, None));
    let mut decisions = decide(&tables, &rules);
    exclude_collisions(&mut decisions, |table| match table.schema.as_str() {
        "public" => table.name.clone(),
        schema => format!("{schema}_{}", table.name),
    });
    let reasons: Vec<Option<&str>> = decisions.iter().map(|d| d.excluded.as_deref()).collect();
    assert_eq!(reasons, [Some("name collision: billing.invoices"), None]);
}

#[test]
fn g27_a_partition_is_not_addressable_around_its_root() {
    on_every_backend(|world| async move {
        let rules = TableRules::new(&RuleText::default()).unwrap();
        let root = TableName::new("public", "users");
        let child = source("public.users_1", TableKind::Partition, Some(root));
        assert!(!decide(&[child], &rules)[0].included());
        // it never gets an entry, so even a grant on the database shows nothing of it
        world.table(TABLE, &["id"]).await;
        world.select("user:ana", "on app").await;
        let partition = shape("app.public.users_1", &["id"]);
        let verdict = world.verdict("user:ana", &partition).await;
        assert_eq!(verdict, Verdict::NotFound(Hidden::Unregistered));
    });
}

#[test]
fn g28_a_table_that_was_made_anew_inherits_nothing_unless_adopted() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.tag(TABLE, &["sensitivity=public"]).await;
        world.select("user:ana", "on app.public.users").await;
        world.select("user:tag", "where sensitivity=public").await;
        assert_eq!(world.sees("user:ana", &users).await, "id,email");
        // before anybody registers it
        let anew = cdc_governance::TableShape { relation: 8, ..users.clone() };
        let verdict = world.verdict("user:ana", &anew).await;
        assert_eq!(verdict, Verdict::NotFound(Hidden::OtherIdentity));
        let register = |adopt| world.try_register(TABLE, Some(Identity::Relation(8)), false, adopt);
        assert_eq!(register(false).await.unwrap(), Registered::Quarantined);
        world.register_shape(&anew, false, false).await;
        assert_eq!(world.sees("user:ana", &anew).await, "");
        world.untag(TABLE, "sensitivity").await;
        assert_eq!(world.sees("user:ana", &anew).await, "", "each column is quarantined itself");
        world.tag("app.public.users.id", &["sensitivity=public"]).await;
        assert_eq!(world.sees("user:ana", &anew).await, "id");
        // on purpose
        let other = world.table("app.public.orders", &["id"]).await;
        world.tag("app.public.orders", &["sensitivity=public"]).await;
        let other = cdc_governance::TableShape { relation: 9, ..other };
        world.register_shape(&other, true, true).await;
        assert_eq!(world.sees("user:tag", &other).await, "id");
    });
}

#[test]
fn the_pseudo_principal_everybody_cannot_be_granted_anything() {
    for text in ["IAM_ALLOWED_PRINCIPALS", "group:IAM_ALLOWED_PRINCIPALS"] {
        assert!(text.parse::<cdc_governance::Principal>().is_err());
    }
}

#[test]
fn describe_changes_and_admin_show_no_data() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id"]).await;
        world.grant(terms("user:ana", "DESCRIBE+CHANGES+ADMIN", "on app")).await;
        assert_eq!(world.sees("user:ana", &users).await, "");
        let engine = world.engine();
        let database = "app".parse().unwrap();
        assert!(engine.administers(&caller("user:ana"), &database).await);
        assert!(!engine.administers(&caller("user:bob"), &database).await);
        world.grant(terms("user:bob", "ADMIN", "on app.public")).await;
        world.grant(terms("user:bob", "SELECT", "on app")).await;
        assert!(!world.engine().administers(&caller("user:bob"), &database).await);
    });
}

#[test]
fn changes_need_a_grant_that_covers_the_table() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.tag(TABLE, &["sensitivity=internal"]).await;
        world.tag("app.public.users.email", &["sensitivity=pii"]).await;
        let cases = [
            ("user:a", "on app.public.users", true),
            ("user:b", "on app", true),
            ("user:c", "on app.public.users.id", false),
            ("user:d", "where sensitivity=internal", true),
            ("user:e", "where sensitivity=pii", false),
        ];
        for (name, target, feeds) in cases {
            world.select(name, "on app.public.users").await;
            assert!(!world.access(name, &users).await.changes());
            world.grant(terms(name, "CHANGES", target)).await;
            assert_eq!(world.access(name, &users).await.changes(), feeds, "{name}");
        }
    });
}

#[test]
fn files_may_be_read_as_they_are_only_if_nothing_is_withheld() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        let all = |name: &str| terms(name, "SELECT", "on app.public.users");
        world.grant(all("user:full")).await;
        world.grant(terms("user:part", "SELECT", "on app.public.users (id)")).await;
        world.grant(with_filter(all("user:rows"), "id > 3")).await;
        world.grant(with_mask(all("user:mask"), "email", "null")).await;
        for (name, direct) in
            [("user:full", true), ("user:part", false), ("user:rows", false), ("user:mask", false)]
        {
            assert_eq!(world.access(name, &users).await.direct_read(), direct, "{name}");
        }
        // the merge key is read for whoever does not see it
        world.grant(terms("user:nokey", "SELECT", "on app.public.users (email)")).await;
        assert_eq!(world.access("user:nokey", &users).await.hidden_reads(), [FieldId(100)]);
        assert!(world.access("user:full", &users).await.hidden_reads().is_empty());
    });
}

#[test]
fn what_is_enforced_elsewhere_must_admit_too() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.tag(TABLE, &["sensitivity=public"]).await;
        world.select("user:ana", "where sensitivity=public").await;
        let live = |pairs: &[(&str, &str)]| {
            let tags = pairs.iter().map(|(id, tag)| {
                let tags = cdc_governance::Tags::parse([tag.split_once('=').unwrap()]).unwrap();
                (id.parse().unwrap(), tags)
            });
            Some(tags.collect())
        };
        let seen = |policy: &Policy| match visible(policy, &users) {
            Verdict::Allow(access) => access.columns().len(),
            _ => 0,
        };
        for (tags, count) in [
            (&[(TABLE, "sensitivity=public")][..], 2),
            // somebody loosened or tightened it there, or nothing is there yet
            (&[(TABLE, "sensitivity=pii")], 0),
            (&[(TABLE, "sensitivity=public"), ("app.public.users.id", "sensitivity=pii")], 1),
            (&[], 0),
        ] {
            let policy = policy_with(&world, |_, enforced| enforced.live_tags = live(tags)).await;
            assert_eq!(seen(&policy), count, "{tags:?}");
        }
        // loosened there, not in the registry
        world.tag(TABLE, &["sensitivity=pii"]).await;
        let tags = live(&[(TABLE, "sensitivity=public")]);
        let policy = policy_with(&world, |_, enforced| enforced.live_tags = tags).await;
        assert_eq!(seen(&policy), 0);
    });
}

#[test]
fn grants_that_mean_nothing_are_refused() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let select = || terms("user:ana", "SELECT", "on app.public.users");
        let refuse = |terms: GrantTerms| {
            let registry = std::sync::Arc::clone(&world.backend.registry);
            async move { registry.grant(terms, crate::world::by("user:admin")).await.unwrap_err() }
        };
        let error = refuse(GrantTerms { permissions: Default::default(), ..select() }).await;
        assert!(matches!(error, Error::Grant { .. }), "{error}");
        let target =
            Target::Named { resource: "app.public.x".parse().unwrap(), columns: Columns::all() };
        let error = refuse(GrantTerms { target, ..select() }).await;
        assert!(matches!(error, Error::UnknownResource { .. }), "{error}");
        for text in
            ["", "a", "a=", "a=b,a=c", "sensitivity=public|Unclassified", "a=1,b=1,c=1,d=1,e=1,f=1"]
        {
            assert!(text.parse::<cdc_governance::TagExpression>().is_err(), "{text}");
        }
        assert_eq!(
            Permission::ALL.map(|p| Permission::from_name(p.as_str())),
            Permission::ALL.map(Some)
        );
    });
}
