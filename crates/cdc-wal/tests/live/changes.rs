//! What changes look like: schema, TOAST, identity, truncate, partitions, types.

use expect_test::{Expect, expect};

use crate::fixture::{Postgres, Tail};

/// Runs each statement list as it stands and compares everything that the stream tells.
async fn check(name: &str, setup: &str, work: &str, transactions: usize, expected: Expect) {
    let postgres = Postgres::shared();
    let (client, at) = postgres.source(name, setup).await;
    let mut tail = Tail::new(postgres.open(&at).await.unwrap());
    for statements in work.split(";;") {
        client.batch_execute(statements).await.unwrap();
    }
    tail.commits(transactions).await;
    expected.assert_eq(&tail.take_lines());
    tail.stream.close().await.unwrap();
}

#[tokio::test]
async fn a_transaction_arrives_whole_and_in_order() {
    check(
        "happy",
        "CREATE TABLE orders (id int PRIMARY KEY, amount numeric(10,2), note text)",
        "BEGIN; INSERT INTO orders VALUES (1, 9.50, NULL), (2, 1, 'ü'); \
         UPDATE orders SET note = 'x' WHERE id = 1; DELETE FROM orders WHERE id = 2; COMMIT",
        1,
        expect![[r#"
            begin
            relation public.orders v1 id*:23 amount:1700(655366) note:25
            insert 1|9.50|null
            insert 2|1.00|ü
            update -> 1|9.50|x
            delete key 2|null|null
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_12_rows_arrive_only_while_the_table_is_published() {
    check(
        "membership",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY); \
         CREATE PUBLICATION pub FOR TABLE a",
        "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1);; \
         ALTER PUBLICATION pub ADD TABLE b;; INSERT INTO b VALUES (2);; \
         ALTER PUBLICATION pub DROP TABLE b;; INSERT INTO b VALUES (3);; INSERT INTO a VALUES (4)",
        3,
        expect![[r#"
            begin
            relation public.a v1 id*:23
            insert 1
            commit
            begin
            relation public.b v1 id*:23
            insert 2
            commit
            begin
            insert 4
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_13_alter_gives_a_new_version_before_the_next_row_even_in_one_transaction() {
    check(
        "alter_table",
        "CREATE TABLE t (id int PRIMARY KEY, v varchar(5))",
        "INSERT INTO t VALUES (1, 'a');; INSERT INTO t VALUES (2, 'b');; \
         BEGIN; INSERT INTO t VALUES (3, 'c'); ALTER TABLE t ADD COLUMN w int DEFAULT 7; \
         INSERT INTO t VALUES (4, 'd'); ALTER TABLE t ALTER COLUMN v TYPE varchar(9); \
         INSERT INTO t VALUES (5, 'e'); ALTER TABLE t RENAME COLUMN w TO x; \
         ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (6, 'f'); COMMIT;; \
         ALTER TABLE u DROP COLUMN x; INSERT INTO u VALUES (7, 'g')",
        4,
        expect![[r#"
            begin
            relation public.t v1 id*:23 v:1043(9)
            insert 1|a
            commit
            begin
            insert 2|b
            commit
            begin
            insert 3|c
            relation public.t v2 id*:23 v:1043(9) w:23
            insert 4|d|7
            relation public.t v3 id*:23 v:1043(13) w:23
            insert 5|e|7
            relation public.u v4 id*:23 v:1043(13) x:23
            insert 6|f|7
            commit
            begin
            relation public.u v5 id*:23 v:1043(13)
            insert 7|g
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_15_unchanged_toast_is_neither_null_nor_a_value() {
    check(
        "toast",
        "CREATE TABLE d (id int PRIMARY KEY, n int, big text); \
         CREATE TABLE f (id int PRIMARY KEY, n int, big text); \
         ALTER TABLE d ALTER COLUMN big SET STORAGE EXTERNAL; \
         ALTER TABLE f ALTER COLUMN big SET STORAGE EXTERNAL; \
         ALTER TABLE f REPLICA IDENTITY FULL",
        "INSERT INTO d VALUES (1, 1, repeat('x', 10000)); \
         INSERT INTO f VALUES (1, 1, repeat('y', 10000));; \
         UPDATE d SET n = 2;; UPDATE d SET id = 3;; UPDATE d SET big = big;; \
         UPDATE d SET big = NULL;; UPDATE f SET n = 2",
        6,
        expect![[r#"
            begin
            relation public.d v1 id*:23 n:23 big:25
            insert 1|1|10000 bytes
            relation public.f v1 id*:23 n*:23 big*:25
            insert 1|1|10000 bytes
            commit
            begin
            update -> 1|2|unchanged
            commit
            begin
            update key 1|null|null -> 3|2|unchanged
            commit
            begin
            update -> 3|2|unchanged
            commit
            begin
            update -> 3|2|null
            commit
            begin
            update full 1|1|10000 bytes -> 1|2|unchanged
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_16_the_old_row_is_what_the_identity_gives() {
    check(
        "identity",
        "CREATE TABLE d (id int PRIMARY KEY, v text); CREATE TABLE f (id int, v text); \
         ALTER TABLE f REPLICA IDENTITY FULL; CREATE TABLE i (a int NOT NULL, b int NOT NULL, v text); \
         CREATE UNIQUE INDEX i_ab ON i (b, a); ALTER TABLE i REPLICA IDENTITY USING INDEX i_ab",
        "INSERT INTO d VALUES (1, 'x'); INSERT INTO f VALUES (1, NULL); INSERT INTO i VALUES (1, 2, 'x');; \
         UPDATE d SET v = 'y'; UPDATE d SET id = 2; DELETE FROM d;; \
         UPDATE f SET v = 'y'; DELETE FROM f;; UPDATE i SET v = 'y'; UPDATE i SET a = 3; DELETE FROM i",
        4,
        expect![[r#"
            begin
            relation public.d v1 id*:23 v:25
            insert 1|x
            relation public.f v1 id*:23 v*:25
            insert 1|null
            relation public.i v1 a*:23 b*:23 v:25
            insert 1|2|x
            commit
            begin
            update -> 1|y
            update key 1|null -> 2|y
            delete key 2|null
            commit
            begin
            update full 1|null -> 1|y
            delete full 1|y
            commit
            begin
            update -> 1|2|y
            update key 1|2|null -> 3|2|y
            delete key 3|2|null
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_17_truncate_is_one_event_per_published_table() {
    check(
        "truncates",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a); \
         CREATE TABLE c (id int PRIMARY KEY); CREATE PUBLICATION pub FOR TABLE a, c",
        "TRUNCATE a, c RESTART IDENTITY CASCADE",
        1,
        expect![[r#"
            begin
            relation public.a v1 id*:23
            relation public.c v1 id*:23
            truncate
            truncate
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_17_truncating_a_leaf_published_through_its_root_is_not_sent() {
    check(
        "truncate_leaf",
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE PUBLICATION pub FOR TABLE p WITH (publish_via_partition_root = true)",
        "INSERT INTO p VALUES (1);; TRUNCATE p1;; INSERT INTO p VALUES (2);; TRUNCATE p",
        3,
        expect![[r#"
            begin
            relation public.p v1 id*:23
            relation public.p1 v1 id*:23
            insert 1
            commit
            begin
            insert 2
            commit
            begin
            truncate
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_18_partitions_come_as_leaf_or_as_root() {
    let tables = "CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE TABLE p2 (v text, id int NOT NULL); \
         ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20); ";
    let work = "INSERT INTO p VALUES (1, 'a'), (11, 'b');; UPDATE p SET id = 12 WHERE id = 1";
    check(
        "partition_leaf",
        &format!("{tables} CREATE PUBLICATION pub FOR TABLE p"),
        work,
        2,
        expect![[r#"
            begin
            relation public.p1 v1 id*:23 v:25
            insert 1|a
            relation public.p2 v1 v:25 id*:23
            insert b|11
            commit
            begin
            delete key 1|null
            insert a|12
            commit
        "#]],
    )
    .await;
    let root = "CREATE PUBLICATION pub FOR TABLE p WITH (publish_via_partition_root = true)";
    check(
        "partition_root",
        &format!("{tables} {root}"),
        work,
        2,
        expect![[r#"
        begin
        relation public.p v1 id*:23 v:25
        relation public.p1 v1 id*:23 v:25
        insert 1|a
        relation public.p2 v1 v:25 id*:23
        insert 11|b
        commit
        begin
        delete key 1|null
        insert 12|a
        commit
    "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_19_crossing_a_row_filter_becomes_insert_or_delete() {
    check(
        "row_filter",
        "CREATE TABLE t (id int PRIMARY KEY, v text); ALTER TABLE t REPLICA IDENTITY FULL; \
         CREATE PUBLICATION pub FOR TABLE t WHERE (v = 'in')",
        "INSERT INTO t VALUES (1, 'out'), (2, 'in');; UPDATE t SET v = 'in' WHERE id = 1;; \
         UPDATE t SET v = 'out' WHERE id = 2",
        3,
        expect![[r#"
            begin
            relation public.t v1 id*:23 v*:25
            insert 2|in
            commit
            begin
            insert 1|in
            commit
            begin
            delete full 2|in
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_20_a_domain_has_its_own_oid_and_no_modifier() {
    check(
        "domains",
        "CREATE DOMAIN price AS numeric(6,2); CREATE TYPE mood AS ENUM ('sad', 'ok'); \
         CREATE TYPE pair AS (a int, b text); \
         CREATE TABLE t (id int PRIMARY KEY, p price, q numeric(6,2), m mood, c pair, ms mood[])",
        "INSERT INTO t VALUES (1, 1.5, 2.5, 'ok', (1, 'x y'), '{sad,ok}')",
        1,
        expect![[r#"
            begin
            relation public.t v1 id*:23 p:own q:1700(393222) m:own c:own ms:own
            insert 1|1.50|2.50|ok|(1,"x y")|{sad,ok}
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_21_a_generated_column_is_not_among_the_columns() {
    check(
        "generated",
        "CREATE TABLE t (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, v int)",
        "INSERT INTO t (id, v) VALUES (1, 5)",
        1,
        expect![[r#"
            begin
            relation public.t v1 id*:23 v:23
            insert 1|5
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_23_settings_of_the_database_do_not_change_the_text_of_values() {
    let set = |setting: &str| format!("ALTER DATABASE pinned SET {setting}; ");
    let settings: String = [
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = 0",
        "TimeZone = 'Asia/Kolkata'",
    ]
    .map(set)
    .concat();
    check(
        "pinned",
        &format!(
            "{settings} CREATE TABLE t (id int PRIMARY KEY, ts timestamp, tz timestamptz, i interval, b bytea, f float8)"
        ),
        "INSERT INTO t VALUES (1, '2024-03-10 15:30:00.5', '2024-03-10 10:00:00.5+00', '1 mon 2 days 03:04:05', \
         '\\x00ff41', 0.1::float8 + 0.2::float8)",
        1,
        expect![[r#"
            begin
            relation public.t v1 id*:23 ts:1114 tz:1184 i:1186 b:17 f:701
            insert 1|2024-03-10 15:30:00.5|2024-03-10 10:00:00.5+00|P1M2DT3H4M5S|\x00ff41|0.30000000000000004
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_28_a_prepared_transaction_arrives_whole_when_it_is_committed() {
    check(
        "prepared",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'pgcdc-test';; \
         INSERT INTO t VALUES (2);; COMMIT PREPARED 'pgcdc-test'",
        2,
        expect![[r#"
            begin
            relation public.t v1 id*:23
            insert 2
            commit
            begin
            insert 1
            commit
        "#]],
    )
    .await;
}

#[tokio::test]
async fn trap_29_a_message_outside_transactions_survives_a_rollback() {
    check(
        "messages",
        "CREATE TABLE t (id int PRIMARY KEY)",
        "BEGIN; SELECT pg_logical_emit_message(false, 'heart', 'beat'), \
         pg_logical_emit_message(true, 'gone', 'x'); ROLLBACK;; \
         BEGIN; INSERT INTO t VALUES (1); SELECT pg_logical_emit_message(true, 'kept', 'y'); COMMIT",
        1,
        expect![[r#"
            message false heart beat
            begin
            relation public.t v1 id*:23
            insert 1
            message true kept y
            commit
        "#]],
    )
    .await;
}
