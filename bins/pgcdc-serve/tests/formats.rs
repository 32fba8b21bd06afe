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
    expect![[r#"
        {"id":1,"flag":true,"big":"9007199254740993","price":"-12345678901234567890123456789012.0001","single":0.1,"double":1e+300,"day":"2026-05-04","at":"12:00:00.000001","local":"2026-05-04T12:00:00.000001","instant":"2026-05-04T12:00:00.123Z","ref":"0198f3c2-5b1e-7c3a-9f1d-2f6a0c9b1e77","raw":"AP8Q","text":"a \"b\"\n\u001b[31m","tags":["x",null,"y,z"]}
        {"id":2,"flag":null,"big":9007199254740991,"price":null,"single":"-Infinity","double":"NaN","day":null,"at":null,"local":null,"instant":null,"ref":null,"raw":null,"text":"","tags":[]}
    "#]].assert_eq(&ndjson);
    let json: Vec<serde_json::Value> = serde_json::from_str(&print("json")).unwrap();
    let lines: Vec<serde_json::Value> =
        ndjson.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json, lines);
    expect![[r#"
        id,flag,big,price,single,double,day,at,local,instant,ref,raw,text,tags
        1,true,9007199254740993,-12345678901234567890123456789012.0001,0.1,1e+300,2026-05-04,12:00:00.000001,2026-05-04T12:00:00.000001,2026-05-04T12:00:00.123Z,0198f3c2-5b1e-7c3a-9f1d-2f6a0c9b1e77,AP8Q,"a ""b""
        [31m","[""x"",null,""y,z""]"
        2,,9007199254740991,,-Infinity,NaN,,,,,,,"",[]
    "#]].assert_eq(&print("csv"));
}

#[tokio::test]
async fn tables_for_people_escape_what_terminals_obey() {
    let shop = Shop::open().await;
    let args = ["-t", "kinds", "-c", "id,flag,text,tags", "--order-by", "id"];
    expect![[r#"
        | id | flag | text              | tags             |
        |----|------|-------------------|------------------|
        |  1 | true | a "b"\n\u{1b}[31m | ["x",null,"y,z"] |
        |  2 | NULL |                   | []               |
    "#]]
    .assert_eq(&shop.query(&args));
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
    expect![[r#"
        id: Int32
        flag: Boolean
        big: Int64
        price: Decimal128(38, 4)
        single: Float32
        double: Float64
        day: Date32
        at: Time64(µs)
        local: Timestamp(µs)
        instant: Timestamp(µs, "UTC")
        ref: FixedSizeBinary(16)
        raw: Binary
        text: Utf8
        tags: List(Utf8, field: 'element')"#]]
    .assert_eq(&types.join("\n"));
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
