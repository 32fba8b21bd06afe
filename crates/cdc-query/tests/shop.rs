//! The lake of the tests, and how they look at answers.

use arrow::record_batch::RecordBatch;
use cdc_manifest::{Cut, CutSpec, LakeStore, PromotionMode, StorageSpec};
use cdc_query::{
    CheckedSql, Engine, Lake, QueryLimits, Result, Rows, TableAccess, TableQuery, TableRequest,
    find_table, sql_tables,
};

use crate::lake::{Op, TestLake, schema};

/// `public.orders` with three epochs and `sales."Line Items"` with one.
pub(crate) async fn shop() -> TestLake {
    let store = LakeStore::open(&StorageSpec::Memory).unwrap();
    let orders = schema(
        "public.orders",
        &[("id", "long"), ("amount", "decimal(10, 2)"), ("note", "string")],
    );
    let items = schema("sales.Line Items", &[("Key", "int"), ("order", "long")]);
    let tables: Vec<(_, &[&str])> = vec![
        (
            orders,
            &[
                r#"{"id": 1, "amount": "10.00", "note": "one"}"#,
                r#"{"id": 2, "amount": "20.00", "note": "two"}"#,
                r#"{"id": 3, "amount": "30.00", "note": null}"#,
                r#"{"id": 4, "amount": "40.00", "note": "four"}"#,
                r#"{"id": 5, "amount": "50.00", "note": "five"}"#,
                r#"{"id": 6, "amount": "60.00", "note": "six"}"#,
                r#"{"id": 7, "amount": "70.00", "note": "seven"}"#,
            ],
        ),
        (items, &[r#"{"Key": 1, "order": 2}"#]),
    ];
    let mut lake = TestLake::create(store, tables).await;
    lake.flush(&[(
        "public.orders",
        &[
            Op::Update(r#"{"id": 2, "amount": "21.00", "note": "two again"}"#),
            Op::Delete(r#"{"id": 3}"#),
            Op::Insert(r#"{"id": 8, "amount": "80.00", "note": "eight"}"#),
        ],
    )])
    .await;
    lake.flush(&[
        (
            "public.orders",
            &[
                Op::Insert(r#"{"id": 9, "amount": "90.00", "note": "brief"}"#),
                Op::Delete(r#"{"id": 9}"#),
                Op::Update(r#"{"id": 1, "amount": "11.00", "note": "one again"}"#),
            ],
        ),
        ("sales.Line Items", &[Op::Insert(r#"{"Key": 2, "order": 8}"#)]),
    ])
    .await;
    lake
}

/// A reader of a lake.
pub(crate) struct Reader {
    pub(crate) lake: Lake,
    pub(crate) engine: Engine,
}

impl Reader {
    pub(crate) fn of(lake: &TestLake) -> Reader {
        let limits = QueryLimits { parallelism: 2, ..QueryLimits::default() };
        Reader {
            lake: Lake::new(lake.store.clone(), PromotionMode::Auto),
            engine: Engine::new(limits).unwrap(),
        }
    }

    pub(crate) async fn main(&self) -> Cut {
        self.lake.cut(&CutSpec::Main).await.unwrap()
    }

    pub(crate) async fn query(&self, table: &str, query: TableQuery) -> Result<String> {
        self.request(table, TableRequest { query, ..TableRequest::default() }).await
    }

    pub(crate) async fn request(&self, table: &str, request: TableRequest) -> Result<String> {
        let cut = self.main().await;
        let access = TableAccess::full(find_table(&cut, table)?);
        show(self.engine.query(&self.lake, &cut, access, &request).await?).await
    }

    pub(crate) async fn sql(&self, sql: &str) -> Result<String> {
        self.sql_at(&CutSpec::Main, sql).await
    }

    pub(crate) async fn sql_at(&self, at: &CutSpec, sql: &str) -> Result<String> {
        let cut = self.lake.cut(at).await?;
        let statement = CheckedSql::parse(sql)?;
        let with_access = |table: cdc_query::SqlTable| {
            let access = TableAccess::full(table.table.clone());
            (table, access)
        };
        let tables = sql_tables(&cut, &statement)?.into_iter().map(with_access).collect();
        show(self.engine.sql(&self.lake, &cut, statement, tables, 100).await?).await
    }
}

/// The rows as text, one per line, `…` behind them if some were left out.
pub(crate) async fn show(mut rows: Rows) -> Result<String> {
    let mut out = Vec::new();
    while let Some(batch) = rows.next().await? {
        out.extend(lines(&batch));
    }
    if rows.truncated() {
        out.push("…".into());
    }
    Ok(out.join("\n"))
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let cell = |column: usize, row: usize| {
        let column = batch.column(column);
        if column.is_null(row) {
            return "NULL".to_owned();
        }
        arrow::util::display::array_value_to_string(column, row).unwrap()
    };
    let line = |row| (0..batch.num_columns()).map(|c| cell(c, row)).collect::<Vec<_>>().join(" | ");
    (0..batch.num_rows()).map(line).collect()
}
