//! Each flag of `query`, with what it prints.

use expect_test::expect;

use crate::shop::Shop;

#[tokio::test]
async fn without_a_table_the_tables_are_listed() {
    let shop = Shop::open().await;
    expect![""].assert_eq(&shop.query(&[]));
    expect![""].assert_eq(&shop.query(&["-f", "ndjson"]));
}

#[tokio::test]
async fn a_table_is_shown_with_its_columns_conditions_order_and_limit() {
    let shop = Shop::open().await;
    expect![""].assert_eq(&shop.query(&["-t", "public.orders", "--order-by", "id"]));
    let narrow = ["-t", "orders", "-c", "note,id", "-w", "amount:gt:15", "--order-by", "-amount"];
    expect![""].assert_eq(&shop.query(&narrow));
    let run = shop.run(&["query", "-t", "orders", "-c", "id", "--order-by", "id", "-n", "2"]);
    expect![""].assert_eq(&format!("{}{}", run.stdout, run.stderr));
    let quoted = ["-t", "sales.Line Items", "-f", "csv"];
    expect![""].assert_eq(&shop.query(&quoted));
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
    expect![""].assert_eq(&base);
    for cut in [
        ["--epoch", "0"],
        ["--lsn", "0/1FFF"],
        ["--as-of", "2026-05-04T12:00:09Z"],
        ["--ref", "raw@2026-05-04T12:00:00.5Z"],
    ] {
        assert_eq!(csv(&[&cut[..], &["--order-by", "id"]].concat()), base, "{cut:?}");
    }
    expect![""].assert_eq(&csv(&["--changes-since", "0"]));
    assert_eq!(
        csv(&["--changes-since", "1", "-c", "id"]),
        "__op,__epoch,__commit_lsn,__commit_ts,__seq,id\n"
    );
}

#[tokio::test]
async fn sql_reads_the_same_cut() {
    let shop = Shop::open().await;
    let sql = "SELECT count(*) AS n, sum(amount) AS total FROM orders";
    expect![""].assert_eq(&shop.query(&["--sql", sql]));
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
    expect![""].assert_eq(&serde_json::to_string_pretty(&evidence).unwrap());
}

#[tokio::test]
async fn waiting_for_a_covered_position_is_no_wait() {
    let shop = Shop::open().await;
    let covered =
        shop.query(&["-t", "orders", "-c", "id", "-n", "9", "--min-lsn", "0/2000", "-f", "csv"]);
    assert_eq!(covered.lines().count(), 4);
    let late = shop.run(&["query", "-t", "orders", "--min-lsn", "0/2001", "--timeout-ms", "30"]);
    assert_eq!(late.code, Some(1));
    expect![""].assert_eq(&late.stderr);
}

#[tokio::test]
async fn a_role_sees_what_the_source_grants_it() {
    let shop = Shop::open().await;
    let run = shop.run(&["query", "-t", "orders", "--role", "analyst"]);
    assert_eq!(run.code, Some(4));
    expect![""].assert_eq(&run.stderr);
}
