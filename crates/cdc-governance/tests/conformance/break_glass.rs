//! Emergency grants, as far as they need no surface (B01–B07).

use cdc_governance::{Error, Mode, Verdict};
use chrono::TimeDelta;

use crate::world::{TABLE, World, by, caller, on_every_backend};

async fn endpoints(world: &World) -> Vec<String> {
    let lines = world.backend.registry.audit(0, 1000).await.expect("the suite is consistent");
    let records = lines.iter().map(|line| {
        serde_json::from_str::<serde_json::Value>(&line.line).expect("the suite is consistent")
    });
    let about = records.filter(|record| record["event"] == "break_glass");
    about
        .map(|r| {
            format!(
                "{} {}",
                r["endpoint"].as_str().expect("the suite is consistent"),
                r["break_glass_id"].as_str().expect("the suite is consistent")
            )
        })
        .collect()
}

#[test]
fn b01_an_emergency_grant_shows_and_ends() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        let given = world.break_glass(TimeDelta::seconds(60), Some("user:bob")).await.unwrap();
        let engine = world.engine();
        let ana = caller("user:ana");
        let Verdict::Allow(access) = &*engine.resolve(&ana, Some(&users)).await else {
            panic!("hidden")
        };
        assert_eq!(access.columns().len(), 1);
        assert_eq!(access.not_after(), Some(given.expires_at));
        assert_eq!(access.break_glass(), std::slice::from_ref(&given.id));
        assert!(!access.direct_read());
        world.set_clock(60);
        let verdict = engine.resolve(&ana, Some(&users)).await;
        assert!(matches!(*verdict, Verdict::NotFound(_)));
        // the end is recorded once
        for _ in 0..2 {
            let listed = world.backend.registry.emergency_grants().await.unwrap();
            assert_eq!(listed[0].ended.as_ref().unwrap().1, "expiry");
        }
        let id = given.id;
        assert_eq!(
            endpoints(&world).await,
            [format!("acl break-glass grant {id}"), format!("acl break-glass end {id}")]
        );
    });
}

#[test]
fn b02_a_clock_that_is_set_back_extends_nothing() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.break_glass(TimeDelta::seconds(60), None).await.unwrap();
        let engine = world.engine();
        let ana = caller("user:ana");
        let sees = |verdict: &Verdict| matches!(verdict, Verdict::Allow(_));
        assert!(sees(&*engine.resolve(&ana, Some(&users)).await));
        world.set_clock(120);
        assert!(!sees(&*engine.resolve(&ana, Some(&users)).await));
        world.set_clock(0);
        assert!(!sees(&*engine.resolve(&ana, Some(&users)).await));
        // nor does a new process: the registry remembers
        let fresh = world.engine();
        assert!(!sees(&*fresh.resolve(&ana, Some(&users)).await));
    });
}

#[test]
fn b03_who_asks_cannot_approve() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id", "email"]).await;
        let error = world.break_glass(TimeDelta::hours(1), Some("user:ana")).await.unwrap_err();
        assert!(matches!(error, Error::BreakGlass { .. }), "{error}");
        assert!(world.backend.registry.emergency_grants().await.unwrap().is_empty());
    });
}

#[test]
fn b04_a_time_above_the_maximum_is_refused() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id", "email"]).await;
        for ttl in [TimeDelta::hours(5), TimeDelta::zero(), TimeDelta::seconds(-1)] {
            let error = world.break_glass(ttl, None).await.unwrap_err();
            assert!(matches!(error, Error::BreakGlass { .. }), "{error}");
        }
        world.break_glass(TimeDelta::hours(4), None).await.unwrap();
    });
}

#[test]
fn b06_revoking_ends_it_at_once() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        let given = world.break_glass(TimeDelta::hours(1), None).await.unwrap();
        let engine = world.engine();
        let ana = caller("user:ana");
        assert!(matches!(*engine.resolve(&ana, Some(&users)).await, Verdict::Allow(_)));
        let registry = &world.backend.registry;
        registry.end_break_glass(given.id.clone(), by("user:bob")).await.unwrap();
        assert!(matches!(*engine.resolve(&ana, Some(&users)).await, Verdict::NotFound(_)));
        let again = registry.end_break_glass(given.id, by("user:bob")).await.unwrap_err();
        assert!(matches!(again, Error::UnknownGrant { .. }), "{again}");
    });
}

#[test]
fn an_emergency_grant_ends_neither_quarantine_nor_required_tags() {
    on_every_backend(|world| async move {
        let users = world.table(TABLE, &["id", "email"]).await;
        world.break_glass(TimeDelta::hours(1), None).await.unwrap();
        assert_eq!(world.sees("user:ana", &users).await, "email");
        let world = world.requiring(&["sensitivity"], Mode::Strict);
        assert_eq!(world.sees("user:ana", &users).await, "");
        world.tag("app.public.users.email", &["sensitivity=unclassified"]).await;
        assert_eq!(world.sees("user:ana", &users).await, "");
    });
}
