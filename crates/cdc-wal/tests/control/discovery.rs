//! Tables as the catalogs have them.

use cdc_core::{Generated, Identity, PgTypeKind, ReplicaIdentity, TableKind, TypePolicy};
use cdc_wal::Error;

use super::{Database, column_names};
use crate::fixture::Postgres;

#[tokio::test]
async fn odd_names_survive() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "odd_names",
        r#"CREATE SCHEMA "Odd ""S";
           CREATE TABLE "Odd ""S"."Größe.Table" ("Ident 1" int, "a""b" text, "select" int,
             dropped int, PRIMARY KEY ("select", "Ident 1"));
           ALTER TABLE "Odd ""S"."Größe.Table" DROP COLUMN dropped;
           ALTER TABLE "Odd ""S"."Größe.Table" ADD COLUMN "last" bool"#,
    )
    .await;
    let tables = db.tables("Odd \"S").await;
    assert_eq!(tables.len(), 1);
    let table = &tables[0];
    assert_eq!(table.name.name, "Größe.Table");
    assert_eq!(column_names(table), ["Ident 1", "a\"b", "select", "last"]);
    assert_eq!(table.columns.iter().map(|c| c.attnum).collect::<Vec<_>>(), [1, 2, 3, 5]);
    assert_eq!(table.primary_key, ["select", "Ident 1"]);
    assert_eq!(table.replica_identity, ReplicaIdentity::Default);
    assert!(!table.columns[0].nullable && table.columns[1].nullable);
}

#[tokio::test]
async fn unknown_schemas_are_named() {
    let server = Postgres::shared();
    let db = Database::create(&server, "no_schema", "").await;
    let schemas = ["public".to_owned(), "Nope".to_owned(), "gone".to_owned()];
    let error = db.control().await.discover(&schemas).await.unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }));
    assert!(error.to_string().contains("schema Nope, gone does not exist"), "{error}");
}

#[tokio::test]
async fn trap_20_domains_arrays_and_enums_are_resolved_with_their_modifiers() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "typed",
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE pair AS (a int, b text);
         CREATE DOMAIN price AS numeric(6,2); CREATE DOMAIN net_price AS price;
         CREATE DOMAIN tags AS varchar(9)[];
         CREATE TABLE t (a net_price, b numeric(10,3)[], c mood, d mood[], e pair, f int4range,
           g tags, h price[], i int2vector, j varchar(7), k int4multirange, l name, m text[][])",
    )
    .await;
    let table = db.table("t").await;
    let policy = TypePolicy::default();
    let mapped: Vec<String> = table
        .columns
        .iter()
        .map(|column| policy.map(&column.pg_type, None).stored.iceberg_name())
        .collect();
    assert_eq!(
        mapped,
        [
            "decimal(6, 2)",
            "list<decimal(10, 3)>",
            "string",
            "list<string>",
            "string",
            "string",
            "list<string>",
            "list<decimal(6, 2)>",
            "string",
            "string",
            "string",
            "string",
            "list<string>"
        ]
    );
    let kind = |at: usize| &table.columns[at].pg_type.kind;
    assert!(matches!(kind(0), PgTypeKind::Domain(_)));
    let PgTypeKind::Array(element) = kind(1) else { panic!("{:?}", kind(1)) };
    assert_eq!(element.name, "numeric(10,3)");
    assert!(matches!(kind(2), PgTypeKind::Enum));
    assert!(matches!(kind(4), PgTypeKind::Composite));
    assert!(matches!(kind(5), PgTypeKind::Range));
    assert!(matches!(kind(8), PgTypeKind::Base));
    assert!(matches!(kind(10), PgTypeKind::Range));
    assert_eq!(table.columns[9].pg_type.name, "character varying(7)");
}

#[tokio::test]
async fn trap_16_replica_identities_are_what_the_server_will_use() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "identities",
        "CREATE TABLE by_key (id int PRIMARY KEY);
         CREATE TABLE no_key (id int);
         CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE);
         CREATE TABLE whole (id int); ALTER TABLE whole REPLICA IDENTITY FULL;
         CREATE TABLE nothing (id int PRIMARY KEY); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
         CREATE TABLE by_index (id int PRIMARY KEY, b int NOT NULL, a int NOT NULL, c int);
         CREATE UNIQUE INDEX \"Idx\" ON by_index (b, a) INCLUDE (c);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX \"Idx\";
         CREATE TABLE lost_index (id int PRIMARY KEY, a int NOT NULL UNIQUE);
         ALTER TABLE lost_index REPLICA IDENTITY USING INDEX lost_index_a_key;
         ALTER TABLE lost_index DROP CONSTRAINT lost_index_a_key",
    )
    .await;
    let labels: Vec<(String, String)> = db
        .tables("public")
        .await
        .iter()
        .map(|table| {
            let label = Identity::of(table).map_or("none".into(), |identity| {
                format!("{} {}", identity.label(), identity.columns().join(","))
            });
            (table.name.name.clone(), label)
        })
        .collect();
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(table, label)| (table.as_str(), label.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("by_index", "index:Idx b,a"),
            ("by_key", "primary_key id"),
            ("deferred", "none"),
            ("lost_index", "none"),
            ("no_key", "none"),
            ("nothing", "none"),
            ("whole", "full "),
        ]
    );
}

#[tokio::test]
async fn trap_18_a_partition_root_stands_for_its_leaves() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "partitioned",
        "CREATE SCHEMA parts;
         CREATE TABLE root (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
         CREATE TABLE low PARTITION OF root FOR VALUES FROM (0) TO (10);
         CREATE TABLE parts.high PARTITION OF root FOR VALUES FROM (10) TO (20)
           PARTITION BY LIST (at);
         CREATE TABLE parts.ten PARTITION OF parts.high FOR VALUES IN (10);
         INSERT INTO root SELECT i, i % 11 FROM generate_series(1, 2000) i; ANALYZE;
         CREATE TABLE mixed (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE mixed_1 PARTITION OF mixed FOR VALUES FROM (0) TO (10);
         CREATE TABLE mixed_2 PARTITION OF mixed FOR VALUES FROM (10) TO (20);
         ALTER TABLE mixed_2 REPLICA IDENTITY NOTHING;
         CREATE TABLE whole (id int) PARTITION BY RANGE (id);
         CREATE TABLE whole_1 PARTITION OF whole FOR VALUES FROM (0) TO (10);
         ALTER TABLE whole_1 REPLICA IDENTITY FULL;
         CREATE TABLE leaf_keys (id int) PARTITION BY RANGE (id);
         CREATE TABLE leaf_keys_1 PARTITION OF leaf_keys (PRIMARY KEY (id))
           FOR VALUES FROM (0) TO (10);
         CREATE TABLE empty (id int PRIMARY KEY) PARTITION BY RANGE (id)",
    )
    .await;
    let root = db.table("root").await;
    assert_eq!(root.kind, TableKind::PartitionRoot);
    assert_eq!(root.replica_identity, ReplicaIdentity::Default);
    assert_eq!(root.estimated_rows, 2000);
    assert!(root.heap_bytes > 8192);
    let low = db.table("low").await;
    assert_eq!((low.kind, low.partition_root.as_ref()), (TableKind::Partition, Some(&root.name)));
    let ten = &db.tables("parts").await[1];
    assert_eq!((ten.name.name.as_str(), ten.kind), ("ten", TableKind::Partition));
    assert_eq!(ten.partition_root.as_ref(), Some(&root.name));
    assert_eq!(db.table("mixed").await.replica_identity, ReplicaIdentity::Nothing);
    assert_eq!(Identity::of(&db.table("whole").await), Some(Identity::Full));
    assert_eq!(Identity::of(&db.table("leaf_keys").await), None);
    assert!(Identity::of(&db.table("empty").await).is_some());
}

#[tokio::test]
async fn kinds_and_generated_columns_are_told_apart() {
    let server = Postgres::shared();
    let db = Database::create(
        &server,
        "kinds",
        "CREATE TABLE plain (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED);
         CREATE UNLOGGED TABLE fast (id int PRIMARY KEY);
         CREATE TABLE none (); CREATE VIEW v AS SELECT 1; CREATE SEQUENCE s;
         CREATE MATERIALIZED VIEW m AS SELECT 1; CREATE TEMP TABLE temporary (id int);
         CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;
         CREATE FOREIGN TABLE away (id int) SERVER far",
    )
    .await;
    let tables = db.tables("public").await;
    let kinds: Vec<(&str, TableKind)> =
        tables.iter().map(|table| (table.name.name.as_str(), table.kind)).collect();
    assert_eq!(
        kinds,
        [
            ("away", TableKind::Foreign),
            ("fast", TableKind::Unlogged),
            ("none", TableKind::Table),
            ("plain", TableKind::Table),
        ]
    );
    assert!(tables[2].columns.is_empty());
    assert_eq!(tables[3].columns[1].generated, Generated::Stored);
    assert_eq!((tables[3].estimated_rows, tables[3].heap_bytes), (-1, 0));
}
