//! The script of changes that a table goes through while it is followed.

/// One step: what is done to the source, and the table that it is about.
pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) table: &'static str,
    pub(super) sql: &'static str,
}

pub(super) const fn step(name: &'static str, table: &'static str, sql: &'static str) -> Step {
    Step { name, table, sql }
}

/// The table that most steps are about.
pub(super) const ORDERS: &str = "
    CREATE TYPE mood AS ENUM ('glad', 'sad');
    CREATE TABLE orders (
        id int PRIMARY KEY, note text, n int, amount numeric(10,2), big text, ratio real,
        at timestamp(3), tags int[], label varchar(10), feeling mood, gone int);
    ALTER TABLE orders ALTER big SET STORAGE EXTERNAL;
    INSERT INTO orders SELECT i, 'note ' || i, i, i + 0.25, repeat('big' || i, 1500), i / 3.0,
        '2026-01-01'::timestamp + i * interval '1 min', ARRAY[i, NULL, -i], 'label' || i, 'glad', i
        FROM generate_series(1, 20) i;
    CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM (0) TO (100);
    CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM (100) TO (1000);
    INSERT INTO parts SELECT i * 10, 'v' || i FROM generate_series(1, 30) i;
    CREATE TABLE keyless (a int, b text);
    ALTER TABLE keyless REPLICA IDENTITY FULL;
    INSERT INTO keyless VALUES (1, 'x'), (1, 'x'), (2, 'y'), (3, NULL);";

pub(super) const STEPS: &[Step] = &[
    step(
        "a column is added",
        "orders",
        "ALTER TABLE orders ADD COLUMN c1 int;
         INSERT INTO orders (id, c1) VALUES (101, 1); UPDATE orders SET c1 = 2 WHERE id = 1;",
    ),
    step("a column is added and no row comes", "orders", "ALTER TABLE orders ADD COLUMN c2 text"),
    step(
        "a column is renamed",
        "orders",
        "INSERT INTO orders (id, note) VALUES (102, 'before'); ALTER TABLE orders RENAME note TO remark;
         INSERT INTO orders (id, remark) VALUES (103, 'behind'); DELETE FROM orders WHERE id = 2;",
    ),
    step(
        "a column is renamed and no row comes",
        "orders",
        "ALTER TABLE orders RENAME label TO caption",
    ),
    step(
        "a column is dropped",
        "orders",
        "ALTER TABLE orders DROP COLUMN gone; UPDATE orders SET n = n + 1 WHERE id < 5;",
    ),
    step("a column is dropped and no row comes", "orders", "ALTER TABLE orders DROP COLUMN c2"),
    step(
        "an integer is widened",
        "orders",
        "ALTER TABLE orders ALTER n TYPE bigint; INSERT INTO orders (id, n) VALUES (104, 5000000000);",
    ),
    step(
        "a float is widened",
        "orders",
        "ALTER TABLE orders ALTER ratio TYPE double precision;
         INSERT INTO orders (id, ratio) VALUES (105, 0.1); UPDATE orders SET n = 0 WHERE id = 3;",
    ),
    step(
        "a numeric gets more digits",
        "orders",
        "ALTER TABLE orders ALTER amount TYPE numeric(14,2);
         INSERT INTO orders (id, amount) VALUES (106, 123456789012.34);",
    ),
    step(
        "a varchar gets longer, then text",
        "orders",
        "ALTER TABLE orders ALTER caption TYPE varchar(40);
         INSERT INTO orders (id, caption) VALUES (107, 'a caption of more than ten letters');
         ALTER TABLE orders ALTER caption TYPE text; INSERT INTO orders (id, caption) VALUES (108, 'c');",
    ),
    step(
        "the elements of an array are widened",
        "orders",
        "ALTER TABLE orders ALTER tags TYPE bigint[];
         INSERT INTO orders (id, tags) VALUES (109, '{5000000000,NULL}'); DELETE FROM orders WHERE id = 4;",
    ),
    step(
        "a timestamp gets all its digits",
        "orders",
        "ALTER TABLE orders ALTER at TYPE timestamp;
         INSERT INTO orders (id, at) VALUES (110, '2026-05-05 05:05:05.123456');",
    ),
    step(
        "an enumeration gets a value and becomes text",
        "orders",
        "ALTER TYPE mood ADD VALUE 'calm'; INSERT INTO orders (id, feeling) VALUES (111, 'calm');
         ALTER TABLE orders ALTER feeling TYPE text USING feeling::text;
         INSERT INTO orders (id, feeling) VALUES (112, 'any');",
    ),
    step(
        "a column refuses NULL",
        "orders",
        "ALTER TABLE orders ADD COLUMN c3 int; UPDATE orders SET c3 = id;
         ALTER TABLE orders ALTER c3 SET NOT NULL; INSERT INTO orders (id, c3) VALUES (113, 1);",
    ),
    step(
        "a column allows NULL again",
        "orders",
        "ALTER TABLE orders ALTER c3 DROP NOT NULL; INSERT INTO orders (id) VALUES (114);",
    ),
    step(
        "a default comes and goes, for new rows only",
        "orders",
        "ALTER TABLE orders ALTER c3 SET DEFAULT 7; INSERT INTO orders (id) VALUES (115);
         ALTER TABLE orders ALTER c3 DROP DEFAULT; INSERT INTO orders (id) VALUES (116);",
    ),
    step(
        "several changes in one transaction, rows between them",
        "orders",
        "BEGIN; INSERT INTO orders (id, c3) VALUES (117, 1); ALTER TABLE orders ADD COLUMN d1 int;
         INSERT INTO orders (id, d1) VALUES (118, 1); UPDATE orders SET d1 = 5 WHERE id = 117;
         ALTER TABLE orders RENAME d1 TO d2; INSERT INTO orders (id, d2) VALUES (119, 2);
         ALTER TABLE orders DROP COLUMN c3; ALTER TABLE orders ADD COLUMN d3 text;
         INSERT INTO orders (id, d2, d3) VALUES (120, 3, 'three'); DELETE FROM orders WHERE id = 119;
         UPDATE orders SET d3 = 'x' WHERE id = 6; COMMIT;",
    ),
    step(
        "one statement adds, drops, renames and widens",
        "orders",
        "INSERT INTO orders (id, d2) VALUES (121, 4);
         ALTER TABLE orders ADD COLUMN e1 date, DROP COLUMN d3, ALTER d2 TYPE bigint;
         INSERT INTO orders (id, d2, e1) VALUES (122, 5000000000, '2026-02-03');",
    ),
    step(
        "two columns exchange their names",
        "orders",
        "UPDATE orders SET c1 = 11, d2 = 22 WHERE id = 7;
         BEGIN; ALTER TABLE orders RENAME remark TO swap; ALTER TABLE orders RENAME caption TO remark;
         ALTER TABLE orders RENAME swap TO caption; COMMIT;
         INSERT INTO orders (id, remark, caption) VALUES (123, 'r', 'c');",
    ),
    step(
        "a column is dropped and its name used for another type",
        "orders",
        "ALTER TABLE orders DROP COLUMN e1; ALTER TABLE orders ADD COLUMN e1 boolean;
         INSERT INTO orders (id, e1) VALUES (124, true);",
    ),
    step(
        "a change that is rolled back, and one in a savepoint",
        "orders",
        "BEGIN; ALTER TABLE orders ADD COLUMN f1 int; INSERT INTO orders (id, f1) VALUES (125, 1); ROLLBACK;
         BEGIN; INSERT INTO orders (id) VALUES (126); SAVEPOINT s; ALTER TABLE orders ADD COLUMN f2 int;
         INSERT INTO orders (id, f2) VALUES (127, 1); ROLLBACK TO s; ALTER TABLE orders ADD COLUMN f3 int;
         INSERT INTO orders (id, f3) VALUES (128, 3); COMMIT;",
    ),
    step(
        "the key's column is renamed and widened",
        "orders",
        "ALTER TABLE orders RENAME id TO order_id; UPDATE orders SET f3 = 9 WHERE order_id = 8;
         ALTER TABLE orders ALTER order_id TYPE bigint; UPDATE orders SET f3 = 10 WHERE order_id = 9;
         DELETE FROM orders WHERE order_id = 10; INSERT INTO orders (order_id) VALUES (6000000000);",
    ),
    step(
        "a truncate and a change in one transaction",
        "orders",
        "BEGIN; INSERT INTO orders (order_id) VALUES (130); TRUNCATE orders;
         ALTER TABLE orders ADD COLUMN g1 text; INSERT INTO orders (order_id, g1, remark)
         SELECT i, 'g', 'r' || i FROM generate_series(1, 10) i; COMMIT;",
    ),
    step(
        "a change in the middle of a large transaction",
        "orders",
        "BEGIN; INSERT INTO orders (order_id, g1) SELECT i, repeat('x', 50) FROM generate_series(1001, 9000) i;
         ALTER TABLE orders ADD COLUMN h1 bigint;
         INSERT INTO orders (order_id, h1) SELECT i, i FROM generate_series(9001, 20000) i;
         UPDATE orders SET h1 = -1 WHERE order_id % 100 = 0; ALTER TABLE orders DROP COLUMN g1;
         DELETE FROM orders WHERE order_id % 7 = 0; COMMIT;",
    ),
    step(
        "one column goes and another comes",
        "orders",
        "ALTER TABLE orders ADD COLUMN i1 int; ALTER TABLE orders DROP COLUMN h1;
         INSERT INTO orders (order_id, i1) VALUES (30001, 5);",
    ),
    step(
        "columns of a partitioned table",
        "parts",
        "ALTER TABLE parts ADD COLUMN w int; INSERT INTO parts VALUES (5, 'five', 5), (500, 'high', 6);
         ALTER TABLE parts RENAME v TO text_of; UPDATE parts SET id = id + 500 WHERE id = 10;
         ALTER TABLE parts DROP COLUMN w; DELETE FROM parts WHERE id = 20;",
    ),
    step(
        "columns of a table without a key",
        "keyless",
        "DELETE FROM keyless WHERE ctid IN (SELECT ctid FROM keyless WHERE a = 1 LIMIT 1);
         ALTER TABLE keyless ADD COLUMN c int; INSERT INTO keyless VALUES (4, 'z', 4);
         UPDATE keyless SET c = 1 WHERE a = 2; DELETE FROM keyless WHERE a = 1;",
    ),
    step(
        "a column of a table without a key is dropped and no row comes",
        "keyless",
        "ALTER TABLE keyless DROP COLUMN b",
    ),
    step(
        "rows of a table without a key behind that",
        "keyless",
        "UPDATE keyless SET a = 30 WHERE a = 3; DELETE FROM keyless WHERE a = 4;",
    ),
];
