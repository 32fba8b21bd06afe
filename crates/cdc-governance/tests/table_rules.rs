//! Table decisions, through the public interface.

use std::collections::BTreeMap;

use cdc_core::{
    Generated, PgType, ReplicaIdentity, SourceColumn, SourceTable, TableKind, TableName, oid,
};
use cdc_governance::{RuleText, TableDecision, TableRules, TagPolicy, decide, exclude_collisions};

fn table(name: &str) -> SourceTable {
    SourceTable {
        oid: 16384,
        name: name.parse().expect("a table name"),
        kind: TableKind::Table,
        partition_root: None,
        columns: vec![column("id")],
        primary_key: vec!["id".into()],
        replica_identity: ReplicaIdentity::Default,
        estimated_rows: -1,
        heap_bytes: 0,
    }
}

fn column(name: &str) -> SourceColumn {
    SourceColumn {
        name: name.into(),
        attnum: 1,
        pg_type: PgType::base(oid::INT8, "bigint"),
        nullable: false,
        generated: Generated::No,
    }
}

/// The name that bare naming gives.
fn bare(name: &TableName) -> String {
    match name.schema.as_str() {
        "public" => name.name.clone(),
        schema => format!("{schema}_{}", name.name),
    }
}

fn rules(exclude: &[&str], tags: &[(&str, &[&str])], policy: &[(&str, TagPolicy)]) -> TableRules {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    TableRules::new(&RuleText {
        exclude: owned(exclude),
        tags: tags.iter().map(|(tag, globs)| ((*tag).to_owned(), owned(globs))).collect(),
        policy: policy.iter().map(|(tag, policy)| ((*tag).to_owned(), *policy)).collect(),
    })
    .expect("good patterns")
}

fn line(decision: &TableDecision) -> String {
    let reason = decision.excluded.as_deref().unwrap_or("included");
    format!("{} [{}] {reason}", decision.table, decision.tags.join(","))
}

fn lines(rules: &TableRules, tables: &[SourceTable]) -> Vec<String> {
    let mut decisions = decide(tables, rules);
    exclude_collisions(&mut decisions, bare);
    decisions.iter().map(line).collect()
}

/// The reason for one table under no rules.
fn reason(table: SourceTable) -> String {
    let decisions = decide(&[table], &TableRules::default());
    decisions[0].excluded.clone().unwrap_or_else(|| "included".into())
}

#[test]
fn rules_apply_in_order_and_tags_come_sorted() {
    let rules = rules(
        &["public.tmp_?"],
        &[
            ("secret", &["hr.*", "public.tmp_*"]),
            ("pii", &["*.users", "hr.*"]),
            ("core", &["public.orders", "public.users"]),
        ],
        &[
            ("pii", TagPolicy::Exclude),
            ("secret", TagPolicy::Exclude),
            ("core", TagPolicy::Include),
            ("untagged", TagPolicy::Exclude),
        ],
    );
    let tables = ["public.users", "public.tmp_a", "public.orders", "hr.pay", "public.log"];
    assert_eq!(
        lines(&rules, &tables.map(table)),
        [
            "public.users [core,pii] policy:pii",
            "public.tmp_a [secret] explicit exclude",
            "public.orders [core] included",
            "hr.pay [pii,secret] policy:pii",
            "public.log [] policy:untagged",
        ]
    );
}

#[test]
fn an_untagged_table_is_included_without_a_policy_for_it() {
    let rules = rules(&[], &[("pii", &["x.*"])], &[("pii", TagPolicy::Exclude)]);
    assert_eq!(lines(&rules, &[table("public.a")]), ["public.a [] included"]);
}

#[test]
fn the_policy_of_the_untagged_spares_tagged_tables() {
    let rules = rules(&[], &[("core", &["*"])], &[("untagged", TagPolicy::Exclude)]);
    assert_eq!(lines(&rules, &[table("public.a")]), ["public.a [core] included"]);
}

#[test]
fn a_star_crosses_the_dot_and_patterns_see_the_quoted_form() {
    let rules = rules(&["*secret*", "\"a.b\".*"], &[], &[]);
    let tables = [table("my_secret.t"), table("public.t_secret"), table("\"a.b\".t")];
    for decision in decide(&tables, &rules) {
        assert_eq!(decision.excluded.as_deref(), Some("explicit exclude"));
    }
}

#[test]
fn what_postgresql_cannot_replicate_is_excluded_with_its_reason() {
    let with = |change: fn(&mut SourceTable)| {
        let mut table = table("public.a");
        change(&mut table);
        reason(table)
    };
    assert_eq!(with(|_| {}), "included");
    assert_eq!(with(|t| t.kind = TableKind::PartitionRoot), "included");
    assert_eq!(with(|t| t.kind = TableKind::Unlogged), "unlogged");
    assert_eq!(with(|t| t.kind = TableKind::Foreign), "foreign table");
    assert_eq!(
        with(|t| {
            t.kind = TableKind::Partition;
            t.partition_root = Some(TableName::new("public", "root"));
        }),
        "partition of public.root"
    );
    assert_eq!(with(|t| t.primary_key.clear()), "no replica identity");
    assert_eq!(with(|t| t.replica_identity = ReplicaIdentity::Nothing), "replica identity nothing");
    assert_eq!(
        with(|t| {
            t.primary_key.clear();
            t.replica_identity = ReplicaIdentity::Full;
        }),
        "included"
    );
    assert_eq!(with(|t| t.columns.push(column("__lsn"))), "reserved column name: __lsn");
}

#[test]
fn of_two_tables_with_one_catalog_name_the_later_is_excluded() {
    let none = TableRules::default();
    let cases: [(&[&str], &[&str]); 3] = [
        (
            &["public.billing_orders", "billing.orders"],
            &[
                "public.billing_orders [] name collision: billing.orders",
                "billing.orders [] included",
            ],
        ),
        (
            &["public.orders", "public.orders__changes"],
            &[
                "public.orders [] included",
                "public.orders__changes [] name collision: public.orders",
            ],
        ),
        (
            &["public.Orders", "public.orders", "public.\"or.ders\""],
            &[
                "public.Orders [] included",
                "public.orders [] name collision: public.Orders",
                "public.\"or.ders\" [] included",
            ],
        ),
    ];
    for (tables, expected) in cases {
        let tables: Vec<SourceTable> = tables.iter().map(|name| table(name)).collect();
        assert_eq!(lines(&none, &tables), expected);
    }
}

#[test]
fn an_excluded_table_claims_no_name() {
    let rules = rules(&["billing.orders"], &[], &[]);
    let tables = [table("public.billing_orders"), table("billing.orders")];
    assert_eq!(
        lines(&rules, &tables),
        ["public.billing_orders [] included", "billing.orders [] explicit exclude"]
    );
}

#[test]
fn a_malformed_pattern_is_an_error_that_names_it() {
    let text = RuleText { exclude: vec!["public.[a".into()], ..RuleText::default() };
    let error = TableRules::new(&text).unwrap_err();
    assert!(error.to_string().starts_with("`public.[a` is not a table pattern"), "{error}");
    let tags = BTreeMap::from([("t".to_owned(), vec!["a.{".to_owned()])]);
    assert!(TableRules::new(&RuleText { tags, ..RuleText::default() }).is_err());
}
