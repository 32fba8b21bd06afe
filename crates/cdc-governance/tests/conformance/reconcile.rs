//! Intent against what is enforced, as far as the embedded backend has a part in it (S01, S11).

use crate::world::{TABLE, on_every_backend};

#[test]
fn s01_a_clean_deployment_has_no_drift_and_nothing_to_heal() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        world.tag(TABLE, &["sensitivity=pii"]).await;
        let plane = &world.backend.plane;
        assert!(plane.diff().await.unwrap().is_empty());
        let report = plane.sync().await.unwrap();
        assert!(report.healed.is_empty() && report.remaining.is_empty());
        assert!(plane.preflight().await.unwrap().iter().all(|check| check.passed));
    });
}

#[test]
fn s11_looking_for_drift_writes_nothing() {
    on_every_backend(|world| async move {
        world.table(TABLE, &["id"]).await;
        let registry = &world.backend.registry;
        let before =
            (registry.policy_version().await.unwrap(), registry.verify_audit().await.unwrap());
        world.backend.plane.diff().await.unwrap();
        let after =
            (registry.policy_version().await.unwrap(), registry.verify_audit().await.unwrap());
        assert_eq!(before, after);
    });
}

#[test]
fn an_outage_is_no_clean_deployment() {
    on_every_backend(|world| async move {
        std::fs::remove_file(world.path()).unwrap();
        assert!(world.backend.plane.diff().await.is_err());
        assert!(world.backend.plane.sync().await.is_err());
        assert!(world.backend.plane.preflight().await.is_err());
    });
}
