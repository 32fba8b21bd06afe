//! What is not a question about visible tables is refused, and says by which rule.

use std::time::Duration;

use cdc_core::Epoch;
use cdc_manifest::{CutSpec, LakeStore, PromotionMode, StorageSpec};
use cdc_query::{
    CheckedSql, Engine, Error, Lake, QueryLimits, TableAccess, TableQuery, TableRequest, find_table,
};

use crate::shop::{Reader, shop};

async fn refusal(reader: &Reader, sql: &str) -> String {
    match reader.sql(sql).await {
        Ok(rows) => format!("ran: {rows}"),
        Err(Error::Refused { rule, .. }) => rule.to_owned(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn sql_outside_of_the_list_is_refused() {
    let reader = Reader::of(&shop().await);
    let cases = [
        ("SELECT 1; SELECT 2", "one statement"),
        ("", "the SQL cannot be parsed: the statement is empty"),
        ("DROP TABLE orders", "select only"),
        ("CREATE TABLE x AS SELECT 1", "select only"),
        ("CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '/etc'", "select only"),
        ("INSERT INTO orders VALUES (1)", "select only"),
        ("DELETE FROM orders", "select only"),
        ("COPY orders TO 'x'", "select only"),
        ("copy\n(select 1) to 'x'", "select only"),
        ("SET a = 1", "select only"),
        ("SHOW TABLES", "select only"),
        ("EXPLAIN SELECT 1", "select only"),
        ("EXPLAIN ANALYZE SELECT 1", "select only"),
        ("DESCRIBE orders", "select only"),
        ("PREPARE p AS SELECT 1", "select only"),
        ("WITH x AS (INSERT INTO orders VALUES (1) RETURNING id) SELECT * FROM x", "select only"),
        ("SELECT 1 INTO x", "select only"),
        ("SELECT * FROM orders FOR UPDATE", "locks"),
        ("SELECT $1", "placeholders"),
        ("WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT 1 FROM x) SELECT * FROM x", "recursive"),
        ("SELECT * FROM generate_series(1, 10)", "table functions"),
        ("SELECT * FROM read_parquet('/etc/passwd')", "table functions"),
        ("SELECT * FROM orders, LATERAL (SELECT 1) x", "table functions"),
        ("SELECT * FROM unnest(ARRAY[1])", "table functions"),
        ("SELECT * FROM orders TABLESAMPLE SYSTEM (10)", "tablesample"),
        ("SELECT * FROM '/etc/passwd'", "no such table `/etc/passwd`"),
        ("SELECT * FROM \"s3://bucket/x.parquet\"", "no such table `s3://bucket/x.parquet`"),
        ("SELECT * FROM information_schema.tables", "no such table `information_schema.tables`"),
        ("SELECT * FROM \"orders$snapshots\"", "no such table `orders$snapshots`"),
        ("SELECT * FROM shop.public.orders", "no such table `shop.public.orders`"),
        ("SELECT * FROM nope", "no such table `nope`"),
        ("SELECT * FROM orders \0", "control characters"),
    ];
    for (sql, expected) in cases {
        assert_eq!(refusal(&reader, sql).await, expected, "{sql}");
    }
    // what only looks like it is let through
    assert_eq!(
        refusal(&reader, "SELECT 'please update; copy' AS set").await,
        "ran: please update; copy"
    );
}

#[tokio::test]
async fn functions_off_the_list_do_not_exist() {
    let reader = Reader::of(&shop().await);
    for call in [
        "input_file_name()",
        "version()",
        "random()",
        "uuid()",
        "repeat('x', 500000000)",
        "lpad('x', 500000000)",
        "range(1, 1000000000)",
        "generate_series(1, 1000000000)",
        "array_repeat(1, 1000000000)",
    ] {
        let found = refusal(&reader, &format!("SELECT {call} FROM orders")).await;
        assert!(found.starts_with("the SQL does not fit the tables: "), "{call}: {found}");
    }
}

#[tokio::test]
async fn deep_and_long_statements_are_refused_before_they_are_parsed() {
    let reader = Reader::of(&shop().await);
    let cases = [
        (format!("SELECT {}1", "1 + ".repeat(2_000)), "operators"),
        (format!("SELECT {}true", "true OR ".repeat(1_500)), "operators"),
        (format!("SELECT {}1{}", "(".repeat(1_000), ")".repeat(1_000)), "nesting"),
        (
            format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(100), " END".repeat(100)),
            "nesting",
        ),
        (format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(500)), "set operations"),
        (format!("SELECT 1 FROM orders{}", " JOIN orders ON true".repeat(20)), "joins"),
        (format!("SELECT id FROM orders WHERE id IN (1{})", ", 1".repeat(1_500)), "in list"),
        (format!("SELECT {}", "1,".repeat(9_000)), "length"),
        (format!("SELECT {}1", "1,".repeat(4_000)), "tokens"),
    ];
    for (sql, expected) in cases {
        assert_eq!(refusal(&reader, &sql).await, expected);
    }
    // the deepest that passes the gate is planned and dropped without trouble
    let deep = format!("SELECT {}1{}", "(".repeat(32), ")".repeat(32));
    assert_eq!(refusal(&reader, &deep).await, "ran: 1");
    let long = format!("SELECT {}1", "1 + ".repeat(127));
    assert_eq!(refusal(&reader, &long).await, "ran: 128");
}

#[tokio::test]
async fn a_query_that_takes_too_much_memory_is_stopped() {
    let lake = shop().await;
    let limits =
        QueryLimits { memory_bytes: 1024, timeout: Duration::from_secs(20), parallelism: 1 };
    let mut reader = Reader::of(&lake);
    reader.engine = Engine::new(limits).unwrap();
    let grouped = "SELECT note, count(*) FROM orders GROUP BY note ORDER BY 1";
    assert!(matches!(reader.sql(grouped).await, Err(Error::OutOfMemory)));
}

#[tokio::test]
async fn no_way_to_rows_outruns_a_time_limit_of_nothing() {
    let lake = shop().await;
    let mut reader = Reader::of(&lake);
    reader.engine =
        Engine::new(QueryLimits { timeout: Duration::ZERO, ..QueryLimits::default() }).unwrap();
    let is_timeout = |error: Error| matches!(error, Error::QueryTimeout { seconds: 0 });
    assert!(is_timeout(reader.sql("SELECT 1").await.unwrap_err()));
    let query = TableQuery::default();
    assert!(is_timeout(reader.query("public.orders", query.clone()).await.unwrap_err()));
    let cut = reader.main().await;
    let access = TableAccess::full(find_table(&cut, "public.orders").unwrap());
    let changes = reader.engine.changes(&reader.lake, &cut, access, Epoch(0), &query).await;
    assert!(is_timeout(changes.unwrap_err()));
}

#[tokio::test]
async fn rows_end_when_the_time_is_up_between_two_batches() {
    let lake = shop().await;
    let reader = Reader::of(&lake);
    let cut = reader.main().await;
    let access = TableAccess::full(find_table(&cut, "public.orders").unwrap());
    let request = TableRequest::default();
    let mut rows = reader.engine.query(&reader.lake, &cut, access, &request).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(reader.engine.limits().timeout).await;
    let stopped = rows.next().await;
    assert!(matches!(stopped, Err(Error::QueryTimeout { seconds: 30 })), "{stopped:?}");
}

#[tokio::test]
async fn without_a_lake_there_is_nothing_to_query() {
    let store = LakeStore::open(&StorageSpec::Memory).unwrap();
    let lake = Lake::new(store, PromotionMode::Auto);
    for at in [CutSpec::Main, CutSpec::Named("staging".into())] {
        assert!(matches!(lake.cut(&at).await, Err(Error::NoLake)));
    }
    assert!(CheckedSql::parse("SELECT 1").is_ok());
}

#[tokio::test]
async fn waiting_for_a_position_ends_when_it_is_covered_or_time_is_up() {
    let lake = shop().await;
    let reader = Reader::of(&lake);
    let wait = Duration::from_millis(50);
    let covered = reader.lake.cut_covering(&CutSpec::Main, "0/3000".parse().unwrap(), wait).await;
    assert_eq!(covered.unwrap().epoch.0, 2);
    let later = reader.lake.cut_covering(&CutSpec::Main, "0/3001".parse().unwrap(), wait).await;
    let Err(Error::WaitTimeout { reached, .. }) = later else { panic!("{later:?}") };
    assert_eq!(reached.to_string(), "0/3000");
}
