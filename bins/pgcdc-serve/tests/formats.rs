//! Every type in every format, without loss.

use arrow::array::{Array, AsArray};
use arrow::ipc::reader::StreamReader;
use expect_test::expect;

use crate::shop::Shop;

#[tokio::test]
async fn json_ndjson_and_csv_agree_and_lose_nothing() {
    let shop = Shop::open().await;
    let kinds = ["-t", "public.kinds", "--order-by", "id", "-f"];
    let print = |format: &str| shop.query(&[&kinds[..], &[format]].concat());
    let ndjson = print("ndjson");
    expect![""].assert_eq(&ndjson);
    let json: Vec<serde_json::Value> = serde_json::from_str(&print("json")).unwrap();
    let lines: Vec<serde_json::Value> =
        ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json, lines);
    expect![""].assert_eq(&print("csv"));
}

#[tokio::test]
async fn tables_for_people_escape_what_terminals_obey() {
    let shop = Shop::open().await;
    let args = ["-t", "kinds", "-c", "id,flag,text,tags", "--order-by", "id"];
    expect![""].assert_eq(&shop.query(&args));
}

#[tokio::test]
async fn arrow_streams_have_the_types_of_the_lake() {
    let shop = Shop::open().await;
    let args = ["query", "-t", "public.kinds", "--order-by", "id", "-f", "arrow"];
    let output = shop.output(&args);
    let batches: Vec<_> =
        StreamReader::try_new(&output.stdout[..], None).unwrap().map(Result::unwrap).collect();
    let types: Vec<String> = batches[0]
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{}: {}", field.name(), field.data_type()))
        .collect();
    expect![""].assert_eq(&types.join("\n"));
    let text = batches[0].column_by_name("text").unwrap();
    assert_eq!(text.as_string::<i32>().value(1), "");
    assert!(batches[0].column_by_name("flag").unwrap().is_null(1));
}

#[tokio::test]
async fn an_answer_without_rows_is_still_an_answer() {
    let shop = Shop::open().await;
    let print = |format| shop.query(&["-t", "orders", "-w", "id:lt:0", "-f", format]);
    assert_eq!(print("json"), "[]\n");
    assert_eq!(print("ndjson"), "");
    assert_eq!(print("csv"), "id,amount,note\n");
}
