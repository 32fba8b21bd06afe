//! A lake on disk, a configuration without a source, and a way to run the binary there.

use std::path::Path;
use std::process::{Command, Output};

use cdc_manifest::{LakeStore, StorageSpec};
use tempfile::TempDir;

use crate::lake::{Op, TestLake, schema};

pub(crate) struct Shop {
    pub dir: TempDir,
}

/// The end of a run.
pub(crate) struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Shop {
    /// `public.orders` with two epochs, `sales."Line Items"`, and `public.kinds` with every type.
    pub(crate) async fn open() -> Shop {
        let dir = TempDir::new().unwrap();
        let spec = StorageSpec::Filesystem { path: dir.path().join("lake") };
        let store = LakeStore::open(&spec).unwrap();
        let mut lake = TestLake::create(store, tables()).await;
        lake.flush(&[(
            "public.orders",
            &[
                Op::Update(r#"{"id": 2, "amount": "21.00", "note": "two, again"}"#),
                Op::Delete(r#"{"id": 3}"#),
                Op::Insert(r#"{"id": 4, "amount": "140.50", "note": null}"#),
            ],
        )])
        .await;
        let shop = Shop { dir };
        shop.write_config("");
        shop
    }

    /// A directory with a configuration and no lake.
    pub(crate) fn empty() -> Shop {
        let dir = TempDir::new().unwrap();
        std::fs::create_dir(dir.path().join("lake")).unwrap();
        let shop = Shop { dir };
        shop.write_config("");
        shop
    }

    pub(crate) fn write_config(&self, more: &str) {
        let text = format!("storage: {{ type: filesystem, path: lake }}\n{more}");
        std::fs::write(self.path().join("pgcdc.yml"), text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        let Output { status, stdout, stderr } = self.output(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pgcdc-serve"))
            .args(args)
            .current_dir(self.path())
            .env("USER", "ana")
            .output()
            .unwrap()
    }

    /// stdout of a run that must succeed in silence.
    pub(crate) fn query(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["query"].iter().chain(args).copied().collect();
        let run = self.run(&args);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{args:?}");
        run.stdout
    }
}

fn tables() -> Vec<(cdc_core::TableSchema, &'static [&'static str])> {
    let orders = schema(
        "public.orders",
        &[("id", "long"), ("amount", "decimal(10, 2)"), ("note", "string")],
    );
    let items = schema("sales.Line Items", &[("Key", "int"), ("order", "long")]);
    let kinds = schema(
        "public.kinds",
        &[
            ("id", "int"),
            ("flag", "boolean"),
            ("big", "long"),
            ("price", "decimal(38, 4)"),
            ("single", "float"),
            ("double", "double"),
            ("day", "date"),
            ("at", "time"),
            ("local", "timestamp"),
            ("instant", "timestamptz"),
            ("ref", "uuid"),
            ("raw", "binary"),
            ("text", "string"),
            ("tags", "list<string>"),
        ],
    );
    vec![
        (
            orders,
            &[
                r#"{"id": 1, "amount": "10.00", "note": "one"}"#,
                r#"{"id": 2, "amount": "20.00", "note": "two"}"#,
                r#"{"id": 3, "amount": "30.00", "note": ""}"#,
            ],
        ),
        (items, &[r#"{"Key": 1, "order": 2}"#]),
        (
            kinds,
            &[
                r#"{"id": 1, "flag": true, "big": 9007199254740993, "price": "-12345678901234567890123456789012.0001", "single": 0.1, "double": 1e300, "day": "2026-05-04", "at": "12:00:00.000001", "local": "2026-05-04T12:00:00.000001", "instant": "2026-05-04T12:00:00.123Z", "ref": "0198f3c25b1e7c3a9f1d2f6a0c9b1e77", "raw": "00ff10", "text": "a \"b\"\n\u001b[31m", "tags": ["x", null, "y,z"]}"#,
                r#"{"id": 2, "flag": null, "big": 9007199254740991, "double": "NaN", "single": "-Infinity", "text": "", "tags": []}"#,
            ],
        ),
    ]
}
