//! `pgcdc status --compat`: which engines read which table, by what its Iceberg metadata says of the
//! format. What an engine reads is a fact that somebody saw, or a line of its documentation; nothing is
//! concluded from a version number.

use anyhow::Result;
use cdc_iceberg::DeleteEncoding;
use cdc_pipeline::{TableFormat, table_formats};
use cdc_runtime::{ExitCode, SourceUse};
use serde_json::{Value, json};

use crate::context::{Context, block_on};
use crate::{render, settings};

/// What an engine does with a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Yes,
    No(&'static str),
}
use Reads::{No, Yes};

/// Where a fact comes from.
#[derive(Clone, Copy, Debug)]
enum Basis {
    /// Tables of every encoding were read with this version.
    Tried,
    /// Its makers say so.
    Documented,
}

/// An engine, and what it reads.
struct Engine {
    name: &'static str,
    version: &'static str,
    basis: Basis,
    position: Reads,
    vector: Reads,
}

/// The engines, those that were tried first. The page docs/iceberg.md has the same table.
const ENGINES: [Engine; 9] = [
    tried("Spark", "3.5.9 with Iceberg 1.10.2", Yes),
    tried("DuckDB", "1.5.5", Yes),
    tried("pyiceberg", "0.12.0", Yes),
    tried("polars", "2.1.0", Yes),
    tried("ClickHouse", "26.9 (chdb 4.4.0)", No("refuses the table")),
    tried("daft", "0.7.26", No("fails on the vector file")),
    tried("icebird", "0.3.1", No("does not know vectors")),
    documented("Athena", "", No("supports format version 2")),
    documented("Trino", "", No("calls format version 3 experimental")),
];

const fn tried(name: &'static str, version: &'static str, vector: Reads) -> Engine {
    Engine { name, version, basis: Basis::Tried, position: Yes, vector }
}

const fn documented(name: &'static str, version: &'static str, vector: Reads) -> Engine {
    Engine { name, version, basis: Basis::Documented, position: Yes, vector }
}

impl Engine {
    fn reads(&self, encoding: DeleteEncoding) -> Reads {
        match encoding {
            DeleteEncoding::Position => self.position,
            DeleteEncoding::Vector => self.vector,
        }
    }

    fn title(&self) -> String {
        format!("{} {}", self.name, self.version).trim_end().to_owned()
    }
}

pub(crate) fn run(context: &Context, as_json: bool) -> Result<ExitCode> {
    let config = context.load(SourceUse::Unused)?;
    let formats = block_on(async { Ok(table_formats(&settings::lake(&config)?).await?) })?;
    match as_json {
        true => render::json(&to_json(&formats))?,
        false => render::print(&text(&formats))?,
    }
    Ok(ExitCode::Ok)
}

fn to_json(formats: &[TableFormat]) -> Value {
    let table = |format: &TableFormat| {
        json!({
            "name": format.table.to_string(),
            "iceberg_table": format.iceberg_table,
            "kind": if format.is_changelog { "changes" } else { "current" },
            "format_version": format.version,
            "delete_mode": format.deletes.as_str(),
            "engines": ENGINES.iter().map(|engine| engine_json(engine, format)).collect::<Vec<_>>(),
        })
    };
    json!({ "tables": formats.iter().map(table).collect::<Vec<_>>() })
}

fn engine_json(engine: &Engine, format: &TableFormat) -> Value {
    let mut value = json!({
        "name": engine.name,
        "version": Some(engine.version).filter(|version| !version.is_empty()),
        "basis": match engine.basis {
            Basis::Tried => "tried",
            Basis::Documented => "documented",
        },
        "reads": engine.reads(format.deletes) == Yes,
    });
    if let No(reason) = engine.reads(format.deletes) {
        value["reason"] = json!(reason);
    }
    value
}

/// One line a table, then one line an engine that does not read all of them.
fn text(formats: &[TableFormat]) -> String {
    let row = |format: &TableFormat| {
        let read = ENGINES.iter().filter(|engine| engine.reads(format.deletes) == Yes);
        let names: Vec<&str> = read.map(|engine| engine.name).collect();
        vec![
            format.iceberg_table.clone(),
            format.version.to_string(),
            if format.is_changelog { "none".into() } else { format.deletes.to_string() },
            names.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = formats.iter().map(row).collect();
    let mut out = render::columns(&["TABLE", "FORMAT", "DELETES", "READ BY"], &rows);
    let has_vectors = formats.iter().any(|format| format.deletes == DeleteEncoding::Vector);
    for engine in ENGINES.iter().filter(|_| has_vectors) {
        if let No(reason) = engine.vector {
            out.push_str(&format!("{} does not read vector: {reason}\n", engine.title()));
        }
    }
    out.push_str("Athena and Trino as documented, the others as tried.\n");
    out
}

#[cfg(test)]
mod tests {
    use cdc_core::TableName;
    use expect_test::expect;

    use super::*;

    fn formats() -> Vec<TableFormat> {
        let format = |name: &str, version, deletes, is_changelog| TableFormat {
            table: TableName::new("public", name),
            iceberg_table: format!("shop.{name}{}", if is_changelog { "__changes" } else { "" }),
            version,
            deletes,
            is_changelog,
        };
        vec![
            format("items", 2, DeleteEncoding::Position, false),
            format("orders", 3, DeleteEncoding::Vector, false),
            format("orders", 2, DeleteEncoding::Position, true),
        ]
    }

    #[test]
    fn each_table_is_shown_with_who_reads_it() {
        expect![[r#"
            TABLE                 FORMAT  DELETES   READ BY
            shop.items            2       position  Spark, DuckDB, pyiceberg, polars, ClickHouse, daft, icebird, Athena, Trino
            shop.orders           3       vector    Spark, DuckDB, pyiceberg, polars
            shop.orders__changes  2       none      Spark, DuckDB, pyiceberg, polars, ClickHouse, daft, icebird, Athena, Trino
            ClickHouse 26.9 (chdb 4.4.0) does not read vector: refuses the table
            daft 0.7.26 does not read vector: fails on the vector file
            icebird 0.3.1 does not read vector: does not know vectors
            Athena does not read vector: supports format version 2
            Trino does not read vector: calls format version 3 experimental
            Athena and Trino as documented, the others as tried.
        "#]]
        .assert_eq(&text(&formats()));
    }

    #[test]
    fn an_engine_that_does_not_read_says_why() {
        let json = to_json(&formats());
        let engines = json["tables"][1]["engines"].as_array().unwrap();
        let daft = engines.iter().find(|engine| engine["name"] == "daft").unwrap();
        assert_eq!(daft["reads"], false);
        assert_eq!(daft["reason"], "fails on the vector file");
        assert_eq!(json["tables"][1]["delete_mode"], "vector");
        assert!(json["tables"][0]["engines"][5].get("reason").is_none());
    }
}
