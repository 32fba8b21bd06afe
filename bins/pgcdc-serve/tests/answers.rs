//! Each flag of `query`, with what it prints.

use expect_test::expect;

use crate::shop::Shop;

#[tokio::test]
async fn without_a_table_the_tables_are_listed() {
    let shop = Shop::open().await;
    expect![[r#"
        | table            | state     | row_count | base_epoch | latest_delta_epoch | schema_version |
        |------------------|-----------|-----------|------------|--------------------|----------------|
        | public.kinds     | streaming |         2 |          0 |                  0 |              1 |
        | public.orders    | streaming |         3 |          0 |                  1 |              1 |
        | sales.Line Items | streaming |         1 |          0 |                  0 |              1 |
    "#]].assert_eq(&shop.query(&[]));
    expect![[r#"
        {"table":"public.kinds","state":"streaming","row_count":2,"base_epoch":0,"latest_delta_epoch":0,"schema_version":1}
        {"table":"public.orders","state":"streaming","row_count":3,"base_epoch":0,"latest_delta_epoch":1,"schema_version":1}
        {"table":"sales.Line Items","state":"streaming","row_count":1,"base_epoch":0,"latest_delta_epoch":0,"schema_version":1}
    "#]].assert_eq(&shop.query(&["-f", "ndjson"]));
}

#[tokio::test]
async fn a_table_is_shown_with_its_columns_conditions_order_and_limit() {
    let shop = Shop::open().await;
    expect![[r#"
        | id | amount | note       |
        |----|--------|------------|
        |  1 | 10.00  | one        |
        |  2 | 21.00  | two, again |
        |  4 | 140.50 | NULL       |
    "#]]
    .assert_eq(&shop.query(&["-t", "public.orders", "--order-by", "id"]));
    let narrow = ["-t", "orders", "-c", "note,id", "-w", "amount:gt:15", "--order-by", "-amount"];
    expect![[r#"
        | note       | id |
        |------------|----|
        | NULL       |  4 |
        | two, again |  2 |
    "#]]
    .assert_eq(&shop.query(&narrow));
    let run = shop.run(&["query", "-t", "orders", "-c", "id", "--order-by", "id", "-n", "2"]);
    expect![[r#"
        | id |
        |----|
        |  1 |
        |  2 |
        note: these are the first 2 rows, there are more; hint: raise --limit
    "#]]
    .assert_eq(&format!("{}{}", run.stdout, run.stderr));
    let quoted = ["-t", "sales.Line Items", "-f", "csv"];
    expect![[r#"
        Key,order
        1,2
    "#]]
    .assert_eq(&shop.query(&quoted));
}

#[tokio::test]
async fn old_states_and_changes_are_one_flag_away() {
    let shop = Shop::open().await;
    let csv = |more: &[&str]| {
        let args: Vec<&str> =
            ["-t", "public.orders", "-f", "csv"].iter().chain(more).copied().collect();
        shop.query(&args)
    };
    let base = csv(&["--no-deltas", "--order-by", "id"]);
    expect![[r#"
        id,amount,note
        1,10.00,one
        2,20.00,two
        3,30.00,""
    "#]]
    .assert_eq(&base);
    for cut in [
        ["--epoch", "0"],
        ["--lsn", "0/1FFF"],
        ["--as-of", "2026-05-04T12:00:09Z"],
        ["--ref", "raw@2026-05-04T12:00:00.5Z"],
    ] {
        assert_eq!(csv(&[&cut[..], &["--order-by", "id"]].concat()), base, "{cut:?}");
    }
    expect![[r#"
        __op,__epoch,__commit_lsn,__commit_ts,__seq,id,amount,note,__xid,__lsn,__toast_unchanged
        U,1,8192,2026-05-04T12:00:10Z,0,2,21.00,"two, again",701,6144,[]
        D,1,8192,2026-05-04T12:00:10Z,1,3,,,701,6160,[]
        I,1,8192,2026-05-04T12:00:10Z,2,4,140.50,,701,6176,[]
    "#]]
    .assert_eq(&csv(&["--changes-since", "0"]));
    assert_eq!(
        csv(&["--changes-since", "1", "-c", "id"]),
        "__op,__epoch,__commit_lsn,__commit_ts,__seq,id\n"
    );
}

#[tokio::test]
async fn sql_reads_the_same_cut() {
    let shop = Shop::open().await;
    let sql = "SELECT count(*) AS n, sum(amount) AS total FROM orders";
    expect![[r#"
        | n | total  |
        |---|--------|
        | 3 | 171.50 |
    "#]]
    .assert_eq(&shop.query(&["--sql", sql]));
    assert_eq!(shop.query(&["--sql", sql, "-f", "csv", "--epoch", "0"]), "n,total\n3,60.00\n");
}

#[tokio::test]
async fn evidence_says_which_cut_it_was() {
    let shop = Shop::open().await;
    let run = shop.run(&["query", "-t", "orders", "-n", "1", "--evidence", "-f", "csv"]);
    let line = run.stderr.lines().last().unwrap();
    let mut evidence: serde_json::Value = serde_json::from_str(line).unwrap();
    assert!(evidence["staleness_seconds"].as_f64().unwrap() > 0.0);
    evidence["staleness_seconds"] = 0.into();
    assert!(evidence["request_id"].as_str().unwrap().len() > 20);
    evidence["request_id"] = "r".into();
    expect![[r#"
        {
          "epoch": 1,
          "ref": "main",
          "commit_lsn": "0/2000",
          "as_of": "2026-05-04T12:00:10Z",
          "staleness_seconds": 0,
          "schema_version": 1,
          "policy_version": 1,
          "masked_columns": [],
          "truncated": true,
          "request_id": "r",
          "governed": false
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&evidence).unwrap());
}

#[tokio::test]
async fn waiting_for_a_covered_position_is_no_wait() {
    let shop = Shop::open().await;
    let covered =
        shop.query(&["-t", "orders", "-c", "id", "-n", "9", "--min-lsn", "0/2000", "-f", "csv"]);
    assert_eq!(covered.lines().count(), 4);
    let late = shop.run(&["query", "-t", "orders", "--min-lsn", "0/2001", "--timeout-ms", "30"]);
    assert_eq!(late.code, Some(1));
    expect![[r#"
        error: waited in vain for 0/2001, the lake covers 0/2000; hint: is the daemon running?
    "#]]
    .assert_eq(&late.stderr);
}

#[tokio::test]
async fn a_role_sees_what_the_source_grants_it() {
    let shop = Shop::open().await;
    let run = shop.run(&["query", "-t", "orders", "--role", "analyst"]);
    assert_eq!(run.code, Some(4));
    expect![[r#"
        note: --role narrows what is shown; who may read the files is for the operating system to say
        error: no such table `orders`
    "#]].assert_eq(&run.stderr);
}
