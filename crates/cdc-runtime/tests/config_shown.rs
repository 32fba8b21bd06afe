//! The effective configuration and the reference page.

use expect_test::{expect, expect_file};

use crate::parse;
use cdc_runtime::Config;

#[test]
fn defaults_are_those_of_the_contract() {
    let text = "{ storage: { path: /srv/lake }, source: {}, governance: {} }";
    expect![[r#"
        source:
          postgres:
            schemas:
            - public
            provider: auto
            iam_auth: false
            max_conns: 8
            connect_timeout: 10s
        storage:
          type: filesystem
          path: /srv/lake
          prefix: ''
          encryption:
            type: none
          upload_part_bytes: 8388608
          upload_concurrency: 4
          soft_delete: false
        state:
          type: sqlite
          path: .pgcdc/state.db
        replication:
          publication: pg_cdc_pub
          slot: pg_cdc_slot
          heartbeat_interval_sec: 0
          streaming: auto
          failover: auto
          truncate: apply
        flush:
          interval_sec: 10.0
          max_rows: 100000
          min_interval_ms: 100
          max_bytes: 134217728
          parallel_workers: 4
          drain_timeout_sec: 30
          schema_reconcile_interval_sec: 60
          cas_breaker_threshold: 10
          cas_breaker_window_sec: 60
        init:
          parallel_workers: 4
        limits:
          buffer_bytes: 268435456
          spool_bytes: 53687091200
        tables:
          exclude: []
          tags: {}
          policy: {}
          auto_add: false
        profiles:
          source: ''
          roles: []
          aliases: {}
          sync_interval: 1h
        catalog:
          type: iceberg
          backend: sqlite
          table_naming: bare
          snapshot_retain_count: 100
        iceberg:
          deletes: position
          compression: zstd
        changelog:
          retention: 30d
        compaction:
          interval_sec: 3600
          target_file_bytes: 268435456
          max_delete_ratio: 0.2
          orphan_grace_sec: 86400
        types:
          numeric_unconstrained: string
          unrepresentable: error
          on_error: pause
          array: list
          columns: []
        governance:
          backend: sqlite
          mode: permissive
          on_missing: warn
          require_tags: []
          taxonomy: {}
          defaults: {}
          overrides: []
          emergency: []
          new_columns: quarantine
          cache_ttl_sec: 60
          cache_grace_sec: 0
          cross_check: false
          aws:
            resolution: admin
          break_glass_max_ttl: 4h
          local_roles: []
        guardrail:
          max_retained_wal_bytes: 0
        refstore:
          retain_raw: 100
          retain_hourly: 24
          retain_daily: 30
          inline_raw: 10
        promotion:
          mode: auto
        freshness:
          stale_threshold_sec: 30.0
          refresh_interval_sec: 30.0
          live_interval_sec: 10.0
        rest:
          listen_addr: 127.0.0.1:8080
          jwt:
            principal_claim: sub
            roles_claim: roles
          trusted_proxies: []
          tls: {}
          allowed_hosts: []
          allowed_origins: []
          max_body_bytes: 1048576
          request_timeout_sec: 30
          header_timeout_sec: 10
          sse_max_clients: 64
          console: true
        query:
          max_rows: 10000
          max_bytes: 8388608
          timeout_sec: 30
          memory_bytes: 268435456
          max_concurrent: 8
          max_concurrent_per_principal: 4
          wait_timeout_max_ms: 30000
        rate_limit:
          rate_per_second: 0.0
          burst: 0
          max_principals: 10000
        audit:
          path: .pgcdc/audit
          retention: 365d
          required: false
          log_group: /pgcdc/audit
        aws:
          max_retries: 5
        metrics:
          listen_addr: 127.0.0.1:9090
          table_labels: full
        logging:
          level: info
          format: auto
        runs:
          retain: 20
    "#]]
    .assert_eq(&parse(text).unwrap().effective_yaml());
}

#[test]
fn secrets_are_never_shown() {
    let config = parse(
        "
storage: { path: /srv/lake }
source: { postgres: { url: 'postgresql://u:hunter2@h/d' } }
catalog: { token: hunter2, credential: 'id:hunter2' }
rest: { bearer_token: hunter2 }
",
    )
    .unwrap();
    let shown = config.effective_yaml();
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("url: '***'"), "{shown}");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn what_is_shown_can_be_read_again() {
    let config = parse("{ storage: { path: /srv/lake }, catalog: { type: glue, database: d } }");
    let shown = config.unwrap().effective_yaml();
    assert_eq!(parse(&shown).unwrap().effective_yaml(), shown);
}

#[test]
fn the_reference_page_matches_the_model() {
    expect_file!["../../../docs/reference/configuration.md"]
        .assert_eq(&Config::reference_markdown());
}
