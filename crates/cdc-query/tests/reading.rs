//! Rows are those of the cut, whichever way they are asked for.

use cdc_core::Epoch;
use cdc_manifest::CutSpec;
use cdc_query::{
    CheckedSql, Error, SqlTable, TableAccess, TableQuery, TableRequest, TableState, find_table,
    sql_tables,
};
use expect_test::expect;

use crate::lake::Op;
use crate::shop::{Reader, shop, show};

fn query(columns: &[&str], conditions: &[&str], order: &[&str], limit: usize) -> TableQuery {
    TableQuery {
        columns: columns.iter().map(|name| (*name).to_owned()).collect(),
        conditions: conditions.iter().map(|text| text.parse().unwrap()).collect(),
        order_by: order.iter().map(|text| text.parse().unwrap()).collect(),
        limit,
    }
}

#[tokio::test]
async fn current_state_leaves_out_deleted_and_superseded_rows() {
    let reader = Reader::of(&shop().await);
    let all = reader.query("public.orders", query(&[], &[], &["id"], 100)).await.unwrap();
    expect![[r#"
        1 | 11.00 | one again
        2 | 21.00 | two again
        4 | 40.00 | four
        5 | 50.00 | five
        6 | 60.00 | six
        7 | 70.00 | seven
        8 | 80.00 | eight"#]]
    .assert_eq(&all);
    let count = reader.sql("SELECT count(*), sum(amount) FROM public.orders").await.unwrap();
    assert_eq!(count, "7 | 332.00");
}

#[tokio::test]
async fn conditions_and_limits_never_bring_deleted_rows_back() {
    let reader = Reader::of(&shop().await);
    // every row of a row group matches, so the engine would like to scan it whole under the limit
    for limit in 1..=8 {
        let request = query(&["id"], &["id:gt:0"], &[], limit);
        let rows = reader.query("public.orders", request).await.unwrap();
        let ids: Vec<&str> = rows.lines().filter(|line| *line != "…").collect();
        assert_eq!(ids.len(), limit.min(7), "{rows}");
        assert!(!ids.contains(&"3") && !ids.contains(&"9"), "{rows}");
        assert_eq!(rows.ends_with('…'), limit < 7);
    }
}

#[tokio::test]
async fn conditions_compare_in_the_column_type() {
    let reader = Reader::of(&shop().await);
    let cases: [(&[&str], &str); 8] = [
        (&["amount:gt:50"], "6 7 8"),
        (&["amount:gte:50", "id:lt:7"], "5 6"),
        (&["amount:eq:21"], "2"),
        (&["amount:lt:11.001"], "1"),
        (&["note:like:%again"], "1 2"),
        (&["note:in:four|six|none"], "4 6"),
        (&["note:isnull"], ""),
        (&["id:ne:1", "note:notnull"], "2 4 5 6 7 8"),
    ];
    for (conditions, expected) in cases {
        let request = query(&["id"], conditions, &["id"], 100);
        let rows = reader.query("orders", request).await.unwrap();
        assert_eq!(rows.replace('\n', " "), expected, "{conditions:?}");
    }
}

#[tokio::test]
async fn columns_and_orders_are_those_asked_for() {
    let reader = Reader::of(&shop().await);
    let request = query(&["note", "id"], &[], &["-amount"], 2);
    let rows = reader.query("public.orders", request).await.unwrap();
    assert_eq!(rows, "eight | 8\nseven | 7\n…");
    let error = reader.query("public.orders", query(&["ID"], &[], &[], 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown column `ID` of table `public.orders`");
}

#[tokio::test]
async fn changes_come_in_commit_order_with_their_metadata() {
    let reader = Reader::of(&shop().await);
    let cut = reader.main().await;
    let access = TableAccess::full(find_table(&cut, "public.orders").unwrap());
    let wanted = query(&["id", "note"], &[], &[], 100);
    let engine = &reader.engine;
    let rows = engine.changes(&reader.lake, &cut, access.clone(), Epoch(0), &wanted).await;
    expect![[r#"
        U | 1 | 8192 | 2026-05-04T12:00:10Z | 0 | 2 | two again
        D | 1 | 8192 | 2026-05-04T12:00:10Z | 1 | 3 | NULL
        I | 1 | 8192 | 2026-05-04T12:00:10Z | 2 | 8 | eight
        I | 2 | 12288 | 2026-05-04T12:00:20Z | 0 | 9 | brief
        D | 2 | 12288 | 2026-05-04T12:00:20Z | 1 | 9 | NULL
        U | 2 | 12288 | 2026-05-04T12:00:20Z | 2 | 1 | one again"#]]
    .assert_eq(&show(rows.unwrap()).await.unwrap());
    let wanted = query(&[], &["__op:eq:I"], &[], 100);
    let rows = engine.changes(&reader.lake, &cut, access, Epoch(1), &wanted).await.unwrap();
    let names: Vec<String> = rows.columns().into_iter().map(|column| column.name).collect();
    expect![
        "__op __epoch __commit_lsn __commit_ts __seq id amount note __xid __lsn __toast_unchanged"
    ]
    .assert_eq(&names.join(" "));
    assert_eq!(
        show(rows).await.unwrap(),
        "I | 2 | 12288 | 2026-05-04T12:00:20Z | 0 | 9 | 90.00 | brief | 702 | 10240 | []"
    );
}

#[tokio::test]
async fn the_base_is_read_as_it_was_written() {
    let reader = Reader::of(&shop().await);
    let request = TableRequest {
        query: query(&["id", "note"], &["id:lt:4"], &["id"], 100),
        state: TableState::AtBase,
        ..TableRequest::default()
    };
    let rows = reader.request("public.orders", request).await.unwrap();
    assert_eq!(rows, "1 | one\n2 | two\n3 | NULL");
}

#[tokio::test]
async fn old_cuts_stay_readable() {
    let reader = Reader::of(&shop().await);
    let count =
        "SELECT count(*), (SELECT count(*) FROM sales.\"Line Items\") AS lines FROM public.orders";
    let cases = [
        (CutSpec::Epoch(Epoch(0)), "7 | 1"),
        (CutSpec::Epoch(Epoch(1)), "7 | 1"),
        (CutSpec::Epoch(Epoch(2)), "7 | 2"),
        (CutSpec::Lsn("0/2FFF".parse().unwrap()), "7 | 1"),
        (CutSpec::AsOf("2026-05-04T12:00:10Z".parse().unwrap()), "7 | 1"),
        (CutSpec::Named("staging".into()), "7 | 2"),
        (CutSpec::Named("raw@2026-05-04T12:00:00.5Z".into()), "7 | 1"),
    ];
    for (at, expected) in cases {
        assert_eq!(reader.sql_at(&at, count).await.unwrap(), expected, "{at:?}");
    }
    let eight = "SELECT id FROM orders WHERE id = 8";
    assert_eq!(reader.sql_at(&CutSpec::Epoch(Epoch(0)), eight).await.unwrap(), "");
    for missing in [CutSpec::Epoch(Epoch(3)), CutSpec::Named("nope".into())] {
        let error = reader.sql_at(&missing, eight).await.unwrap_err();
        assert!(matches!(error, Error::NoSuchCut(_)), "{error}");
    }
}

#[tokio::test]
async fn columns_are_found_by_field_id_after_renames_and_reuse() {
    let mut lake = shop().await;
    lake.evolve("public.orders", |schema| {
        // note -> remark; amount dropped; a new column takes the old name `note`
        schema.columns[2].name = "remark".into();
        let mut new = schema.columns[2].clone();
        new.name = "note".into();
        new.field_id = schema.next_field_id;
        schema.next_field_id = cdc_core::FieldId(schema.next_field_id.0 + 1);
        schema.columns.remove(1);
        schema.columns.push(new);
    })
    .await;
    lake.flush(&[(
        "public.orders",
        &[Op::Insert(r#"{"id": 10, "remark": "ten", "note": "new ten"}"#)],
    )])
    .await;
    let reader = Reader::of(&lake);
    let rows = reader
        .sql("SELECT id, remark, note FROM orders WHERE id IN (1, 8, 10) ORDER BY id")
        .await
        .unwrap();
    assert_eq!(rows, "1 | one again | NULL\n8 | eight | NULL\n10 | ten | new ten");
    let by_new_name = "SELECT id FROM orders WHERE remark LIKE 'ei%' OR note = 'new ten'";
    assert_eq!(reader.sql(by_new_name).await.unwrap(), "8\n10");
    let before = reader.sql_at(&CutSpec::Epoch(Epoch(2)), "SELECT max(amount) FROM orders").await;
    assert_eq!(before.unwrap(), "80.00");
}

#[tokio::test]
async fn sql_joins_tables_and_changelogs_of_one_cut() {
    let reader = Reader::of(&shop().await);
    let joined = r#"
        WITH big AS (SELECT id, note FROM orders WHERE amount > 20)
        SELECT b.note, i."Key" FROM big b JOIN sales."Line Items" i ON i."order" = b.id
        ORDER BY 2"#;
    assert_eq!(reader.sql(joined).await.unwrap(), "two again | 1\neight | 2");
    let changes = r#"SELECT "__op", count(*) FROM public.orders__changes GROUP BY 1 ORDER BY 1"#;
    assert_eq!(reader.sql(changes).await.unwrap(), "D | 2\nI | 2\nU | 2");
    assert_eq!(reader.sql("SELECT id FROM orders ORDER BY id DESC LIMIT 2").await.unwrap(), "8\n7");
    assert_eq!(reader.sql("SELECT 1 + 1").await.unwrap(), "2");
}

/// PostgreSQL lets columns share a name; here each has its own.
#[tokio::test]
async fn columns_without_a_name_are_told_apart() {
    let reader = Reader::of(&shop().await);
    let named = async |sql: &str| {
        let cut = reader.main().await;
        let statement = CheckedSql::parse(sql).unwrap();
        let tables = sql_tables(&cut, &statement).unwrap();
        let full = |table: SqlTable| (table.clone(), TableAccess::full(table.table));
        let tables = tables.into_iter().map(full).collect();
        let rows = reader.engine.sql(&reader.lake, &cut, statement, tables, 100).await.unwrap();
        let names: Vec<String> = rows.columns().into_iter().map(|column| column.name).collect();
        format!("{}: {}", names.join(" "), show(rows).await.unwrap().replace('\n', ", "))
    };
    let cases = [
        ("SELECT count(*), COUNT(*) FROM orders", "count(*) count(*)_2: 7 | 7"),
        (
            "SELECT count(*), count(*), count(*) FROM orders",
            "count(*) count(*)_2 count(*)_3: 7 | 7 | 7",
        ),
        ("SELECT id, id FROM orders WHERE id = 4", "id id_2: 4 | 4"),
        ("SELECT 1, 1", "Int64(1) 1_2: 1 | 1"),
        (
            "SELECT (SELECT count(*) FROM (SELECT id, id FROM orders) x) AS n, \
             max(id) AS \"count(*)\" FROM orders",
            "n count(*): 7 | 8",
        ),
        (
            "SELECT a.id, b.id, b.note FROM orders a JOIN orders b ON a.id = b.id WHERE a.id = 4",
            "id id_2 note: 4 | 4 | four",
        ),
        (
            "SELECT count(*), count(*) FROM orders GROUP BY id HAVING count(*) > 0 \
             ORDER BY count(*) LIMIT 1",
            "count(*) count(*)_2: 1 | 1",
        ),
    ];
    for (sql, expected) in cases {
        assert_eq!(named(sql).await, expected, "{sql}");
    }
}
