//! The type map, on a real server: for each type the value that init copied, the value that the
//! stream brought, and the source's text are the same.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{Env, Scenario};
use crate::lab::{Expected, Lab, Oracle};

pub(super) const SCENARIOS: &[Scenario] = &[
    ("snapshot_value_equals_stream_value_equals_source_text", every_type),
    ("a_value_that_does_not_fit_stops_init_by_name", loud_init),
    ("a_declared_null_or_clamp_is_followed", declared_policies),
    ("declared_column_types_are_followed", declared_types),
];

/// A type, what the manifest must call it, and values at its edges as SQL literals.
struct Case {
    name: &'static str,
    sql: &'static str,
    parquet: &'static str,
    iceberg: &'static str,
    values: &'static [&'static str],
}

const fn case(
    name: &'static str,
    sql: &'static str,
    parquet: &'static str,
    iceberg: &'static str,
    values: &'static [&'static str],
) -> Case {
    Case { name, sql, parquet, iceberg, values }
}

/// A type that the lake holds as the text that PostgreSQL gives it.
const fn text(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Case {
    case(name, sql, "UTF8", "string", values)
}

const SETUP: &str = "
    CREATE EXTENSION IF NOT EXISTS citext; CREATE EXTENSION IF NOT EXISTS hstore;
    CREATE EXTENSION IF NOT EXISTS ltree;
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'Über');
    CREATE DOMAIN cents AS numeric(9,2) CHECK (VALUE > -1000000);
    CREATE DOMAIN nested AS cents NOT NULL;
    CREATE TYPE pair AS (a int, b text);";

const NUMBERS: &[Case] = &[
    case("bool", "bool", "BOOLEAN", "boolean", &["true", "false"]),
    case("int2", "int2", "INT32", "int", &["-32768", "32767", "0"]),
    case("int4", "int4", "INT32", "int", &["-2147483648", "2147483647"]),
    case("int8", "int8", "INT64", "long", &["-9223372036854775808", "9223372036854775807"]),
    case("oid", "oid", "INT64", "long", &["0", "4294967295"]),
    case("xid", "xid", "INT64", "long", &["'4294967295'", "'3'"]),
    case("cid", "cid", "INT64", "long", &["'4294967295'"]),
    case("xid8", "xid8", "DECIMAL", "decimal(20, 0)", &["'18446744073709551615'", "'0'"]),
    case(
        "float4",
        "float4",
        "FLOAT",
        "float",
        &["0.1", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "1e-45", "3.4028235e38"],
    ),
    case(
        "float8",
        "float8",
        "DOUBLE",
        "double",
        &["0.1", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'", "5e-324", "1.7976931348623157e308"],
    ),
    case(
        "numeric_9_2",
        "numeric(9,2)",
        "DECIMAL",
        "decimal(9, 2)",
        &["9999999.99", "-9999999.99", "0", "0.01", "-0.01"],
    ),
    case(
        "numeric_18_0",
        "numeric(18,0)",
        "DECIMAL",
        "decimal(18, 0)",
        &["999999999999999999", "-1"],
    ),
    case(
        "numeric_38_10",
        "numeric(38,10)",
        "DECIMAL",
        "decimal(38, 10)",
        &["9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999"],
    ),
    case(
        "numeric_38_38",
        "numeric(38,38)",
        "DECIMAL",
        "decimal(38, 38)",
        &["0.1", "-0.00000000000000000000000000000000000001"],
    ),
    text(
        "numeric",
        "numeric",
        &[
            "0",
            "-0.000",
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1e-20",
            "123456789012345678901234567890123456789012345678901234567890.1234567890",
        ],
    ),
    text(
        "numeric_50_3",
        "numeric(50,3)",
        &["12345678901234567890123456789012345678901234567.890", "0"],
    ),
    text("money", "money", &["'-1234.50'", "'92233720368547758.07'", "0::money"]),
];

const NUMBERS_15: &[Case] = &[
    case("numeric_3_m2", "numeric(3,-2)", "DECIMAL", "decimal(5, 0)", &["99900", "-100", "0"]),
    case("numeric_2_5", "numeric(2,5)", "DECIMAL", "decimal(5, 5)", &["0.00099", "-0.00001"]),
];

const TEXTS: &[Case] = &[
    text(
        "text",
        "text",
        &[
            "''",
            "'NULL'",
            r"E'tab\tnewline\ncarriage\rback\\slash'",
            "'Grüße 🐘'",
            r"'\N'",
            r"E'\x01\x7f'",
        ],
    ),
    text("varchar", "varchar(20)", &["'abc'", "''"]),
    text("citext", "citext", &["'MiXed'"]),
    text("name", "name", &["'some_name'"]),
    text("char1", "\"char\"", &["'a'", "''"]),
    text("bpchar", "char(8)", &["'ab'", "''"]),
    case("json", "json", "JSON", "string", &[r#"'{"b": 1,  "a": [1, 2.50, null]}'"#, "'null'"]),
    case(
        "jsonb",
        "jsonb",
        "JSON",
        "string",
        &[r#"'{"b": 1, "a": [1, 2.50, null], "ü": "\"q\""}'"#, "'\"\"'"],
    ),
    text("jsonpath", "jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    text("bit", "bit(5)", &["B'10101'"]),
    text("varbit", "varbit", &["B''", "B'1'"]),
    case(
        "bytea",
        "bytea",
        "BYTE_ARRAY",
        "binary",
        &["''", r"'\x00ff5c0a'", "decode(repeat('ab', 3000), 'hex')"],
    ),
    case(
        "uuid",
        "uuid",
        "UUID",
        "uuid",
        &["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-4fff-bfff-fffffffffffe'"],
    ),
    text("inet", "inet", &["'10.0.0.1'", "'10.1.2.3/8'", "'2001:db8::1/64'"]),
    text("cidr", "cidr", &["'10.0.0.0/8'", "'::/0'"]),
    text("macaddr", "macaddr", &["'08:00:2b:01:02:03'"]),
    text("macaddr8", "macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    text("tsvector", "tsvector", &["'a:1 b:2A ''it''''s'''", "''"]),
    text("tsquery", "tsquery", &["'a & !b'"]),
    text("mood", "mood", &["'so so'", "'Über'"]),
    text("pair", "pair", &["ROW(1, 'b c')", "ROW(NULL, '')", "ROW(2, 'q\"(),')"]),
    text("hstore", "hstore", &["'a=>1, \"b c\"=>NULL'", "''"]),
    text("ltree", "ltree", &["'Top.Science.Astronomy'"]),
];

const TIMES: &[Case] = &[
    case(
        "date",
        "date",
        "DATE",
        "date",
        &[
            "'1970-01-01'",
            "'0001-01-01'",
            "'9999-12-31'",
            "'2024-02-29'",
            "'0044-03-15 BC'",
            "'5874897-12-31'",
            "'4713-01-01 BC'",
        ],
    ),
    case(
        "time",
        "time",
        "TIME_MICROS",
        "time",
        &["'00:00:00'", "'23:59:59.999999'", "'12:00:00.5'"],
    ),
    text("timetz", "timetz", &["'23:59:59.999999+15:59'", "'00:00:00-08'"]),
    case(
        "timestamp",
        "timestamp",
        "TIMESTAMP_MICROS",
        "timestamp",
        &[
            "'1970-01-01 00:00:00'",
            "'0001-01-01 00:00:00.000001'",
            "'9999-12-31 23:59:59.999999'",
            "'0044-03-15 12:00:00 BC'",
            "'29999-01-01 00:00:00'",
            "'4713-01-01 00:00:00 BC'",
        ],
    ),
    case(
        "timestamptz",
        "timestamptz",
        "TIMESTAMP_MICROS",
        "timestamptz",
        &[
            "'1969-12-31 23:59:59.999999+00'",
            "'2026-03-29 02:30:00+05:45'",
            "'0001-01-01 00:00:00+00'",
            "'294247-01-09 00:00:00+00'",
            "'0100-01-01 00:00:00+00 BC'",
        ],
    ),
    text(
        "interval",
        "interval",
        &[
            "'1 year 2 mons 3 days 04:05:06.789'",
            "'-1 day'",
            "'0'",
            "'-1 year +2 days -00:00:00.000001'",
        ],
    ),
];

const OTHERS: &[Case] = &[
    text("point", "point", &["'(1.5,-2)'"]),
    text("lseg", "lseg", &["'[(0,0),(1,1)]'"]),
    text("path", "path", &["'((0,0),(1,1),(2,0))'", "'[(0,0),(1,1)]'"]),
    text("box", "box", &["'(1,1),(0,0)'"]),
    text("polygon", "polygon", &["'((0,0),(1,1),(2,0))'"]),
    text("line", "line", &["'{1,-1,0}'"]),
    text("circle", "circle", &["'<(0,0),2.5>'"]),
    text("int4range", "int4range", &["'[1,5)'", "'empty'", "'(,)'"]),
    text("int8range", "int8range", &["'[1,5)'"]),
    text("numrange", "numrange", &["'[1.5,2.50]'"]),
    text("tsrange", "tsrange", &["'[2026-01-01 00:00,2026-01-02 00:00)'"]),
    text("tstzrange", "tstzrange", &["'[2026-01-01 00:00+02,)'"]),
    text("daterange", "daterange", &["'[2026-01-01,infinity]'"]),
    text("int4multirange", "int4multirange", &["'{[1,3),[5,8)}'", "'{}'"]),
    text("nummultirange", "nummultirange", &["'{[1,3)}'"]),
    text("tstzmultirange", "tstzmultirange", &["'{[2026-01-01 00:00+00,2026-01-02 00:00+00)}'"]),
    text("datemultirange", "datemultirange", &["'{[2026-01-01,2026-01-05)}'"]),
    text("pg_lsn", "pg_lsn", &["'16/B374D848'", "'0/0'"]),
    text("tid", "tid", &["'(0,1)'"]),
    text("txid_snapshot", "txid_snapshot", &["'10:20:10,14,15'"]),
    text("pg_snapshot", "pg_snapshot", &["'10:20:10,14,15'"]),
    text("regclass", "regclass", &["'pg_class'"]),
    text("regtype", "regtype", &["'timestamp with time zone'"]),
    text("regproc", "regproc", &["'now'"]),
    text("refcursor", "refcursor", &["'c'"]),
    text("int2vector", "int2vector", &["'1 2 3'"]),
    text("oidvector", "oidvector", &["'1 2'"]),
    case("cents", "cents", "DECIMAL", "decimal(9, 2)", &["12.34", "-0.01"]),
    case("int4_array", "int4[]", "LIST", "list<int>", &["'{}'", "'{1,NULL,-3}'"]),
    case("int8_array", "int8[]", "LIST", "list<long>", &["'{9223372036854775807}'"]),
    case(
        "text_array",
        "text[]",
        "LIST",
        "list<string>",
        &[r#"ARRAY['', 'NULL', 'a,b', 'q"', '{}', E'b\\s', NULL, ' x ']"#],
    ),
    case("bool_array", "bool[]", "LIST", "list<boolean>", &["'{t,f,NULL}'"]),
    case("float8_array", "float8[]", "LIST", "list<double>", &["'{NaN,Infinity,-0,0.1}'"]),
    case(
        "numeric_array",
        "numeric(10,3)[]",
        "LIST",
        "list<decimal(10, 3)>",
        &["'{1.500,-2,NULL}'"],
    ),
    case(
        "uuid_array",
        "uuid[]",
        "LIST",
        "list<uuid>",
        &["'{ffffffff-ffff-4fff-bfff-fffffffffffe,NULL}'"],
    ),
    case(
        "bytea_array",
        "bytea[]",
        "LIST",
        "list<binary>",
        &[r#"ARRAY['\x00ff'::bytea, ''::bytea, NULL]"#],
    ),
    case("date_array", "date[]", "LIST", "list<date>", &["'{2026-01-01,NULL}'"]),
    case(
        "timestamptz_array",
        "timestamptz[]",
        "LIST",
        "list<timestamptz>",
        &["'{2026-01-01 00:00:00.5+02,NULL}'"],
    ),
    case(
        "jsonb_array",
        "jsonb[]",
        "LIST",
        "list<string>",
        &[r#"ARRAY['{"a": [1, 2]}'::jsonb, NULL]"#],
    ),
    case("mood_array", "mood[]", "LIST", "list<string>", &["'{sad,\"so so\"}'"]),
];

/// Rows with this number and above came by the stream.
const STREAMED_FROM: usize = 1000;

/// The cases of a server of `major`, without types that it lacks.
fn cases(env: &Env<'_>, lab: &Lab) -> Result<Vec<&'static Case>> {
    let newer: &[Case] = if env.cluster.major() >= 15 { NUMBERS_15 } else { &[] };
    let all = [NUMBERS, newer, TEXTS, TIMES, OTHERS].into_iter().flatten();
    let has_xml = lab.database().execute("SELECT '<a/>'::xml").is_ok();
    const XML: &Case = &text("xml", "xml", &["'<a b=\"1\">x &amp; y</a>'"]);
    Ok(all.chain(has_xml.then_some(XML)).collect())
}

fn every_type(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    lab.database().execute(SETUP)?;
    let cases = cases(env, &lab)?;
    let mut script = String::new();
    for case in &cases {
        script +=
            &format!("CREATE TABLE \"t_{}\" (id int PRIMARY KEY, v {});\n", case.name, case.sql);
        script += &inserts(case, 0);
    }
    lab.database().execute(&script)?;
    lab.init()?;
    super::verify::expect_equal(&lab)?;
    let oracle = Oracle::watch(lab.database())?;
    let daemon = lab.start()?;
    let streamed: String = cases.iter().map(|case| inserts(case, STREAMED_FROM)).collect();
    lab.database().execute(&streamed)?;
    lab.settle(&daemon)?;
    lab.expect_equal(Expected::Changes(&oracle.counts()?))?;
    for case in &cases {
        same_text_twice(&lab, case)?;
        expect_names(&lab, case)?;
    }
    super::verify::expect_equal(&lab)?;
    daemon.stop()
}

/// All values of a case and a null, numbered from `first`.
fn inserts(case: &Case, first: usize) -> String {
    let mut script = String::new();
    for (number, value) in case.values.iter().chain(&["NULL"]).enumerate() {
        let id = first + number;
        script += &format!("INSERT INTO \"t_{}\" VALUES ({id}, {value});\n", case.name);
    }
    script
}

/// The readers compare with the source; so both ways brought the same if the source has it twice.
fn same_text_twice(lab: &Lab, case: &Case) -> Result<()> {
    let differing = lab.database().number(&format!(
        "SELECT count(*) FROM \"t_{0}\" s FULL JOIN \"t_{0}\" d ON d.id = s.id + {STREAMED_FROM}
         WHERE least(s.id, d.id - {STREAMED_FROM}) < {STREAMED_FROM} AND s.id IS DISTINCT FROM NULL
           AND s.id < {STREAMED_FROM} AND s.v::text IS DISTINCT FROM d.v::text",
        case.name
    ))?;
    ensure!(differing == 0, "{}: the test inserted different values", case.name);
    Ok(())
}

fn expect_names(lab: &Lab, case: &Case) -> Result<()> {
    let manifest = lab.manifest()?;
    let columns = &manifest["schemas"][format!("public.t_{}", case.name)]["columns"];
    let column = &columns[1];
    let spelled = |text: &str| text.replace(' ', "");
    let iceberg = column["iceberg_type"].as_str().unwrap_or_default();
    ensure!(
        column["parquet_type"] == case.parquet && spelled(iceberg) == spelled(case.iceberg),
        "{}: the manifest says {column}, expected {} and {}",
        case.sql,
        case.parquet,
        case.iceberg
    );
    Ok(())
}

/// Values that the lake's type cannot hold, with the column type they appear in.
const MISFITS: &[(&str, &str)] = &[
    ("numeric(5,2)", "'NaN'"),
    ("date", "'infinity'"),
    ("timestamptz", "'-infinity'"),
    ("time", "'24:00:00'"),
    ("int4[]", "'{{1,2},{3,4}}'"),
    ("int4[]", "'[0:1]={1,2}'"),
];

fn loud_init(env: &Env<'_>) -> Result<()> {
    let lab = env.lab()?;
    for (sql, value) in MISFITS {
        lab.database().execute(&format!(
            "DROP TABLE IF EXISTS misfit;
             CREATE TABLE misfit (id int PRIMARY KEY, odd {sql}); INSERT INTO misfit VALUES (1, {value});"
        ))?;
        let init = lab.pgcdc(&["init"])?;
        ensure!(init.code == 1 || init.code == 2, "init with {value} ended with {}", init.code);
        init.expect_words(&["public.misfit", "odd", "hint"])?;
        lab.expect_nothing_on_source()?;
        ensure!(!lab.lake().join("manifest.json").exists(), "a failed init left a manifest");
    }
    Ok(())
}

fn declared_policies(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("types.unrepresentable", json!("null"))?;
    lab.database().execute(
        "CREATE TABLE misfit (id int PRIMARY KEY, day date, at timestamptz, n numeric(5,2), t time);
         INSERT INTO misfit VALUES (1, 'infinity', '-infinity', 'NaN', '24:00:00');",
    )?;
    lab.init()?;
    let daemon = lab.start()?;
    lab.database()
        .execute("INSERT INTO misfit VALUES (2, '-infinity', 'infinity', 'NaN', '24:00:00')")?;
    lab.settle(&daemon)?;
    let nulls = lab.query(&[
        "--sql",
        "SELECT count(*) AS r, count(day) + count(at) + count(n) + count(t) AS v FROM public.misfit",
        "-f",
        "csv",
    ])?;
    ensure!(nulls == "r,v\n2,0\n", "a declared null reads {nulls}");
    daemon.stop()
}

fn declared_types(env: &Env<'_>) -> Result<()> {
    let mut lab = env.lab()?;
    lab.set("types.numeric_unconstrained", json!("decimal(20,4)"))?;
    lab.set(
        "types.columns",
        json!([{"match": "public.items.price", "as": "decimal(12,2)"},
               {"match": "public.items.tags", "as": "string"}]),
    )?;
    lab.database().execute(
        "CREATE TABLE items (id int PRIMARY KEY, n numeric, price money, tags text[]);
         INSERT INTO items VALUES (1, 1.5, '-1234.50', '{a,b}');",
    )?;
    lab.init()?;
    let columns = lab.manifest()?["schemas"]["public.items"]["columns"].clone();
    let names: Vec<_> = (1..4).map(|i| columns[i]["iceberg_type"].as_str()).collect();
    let spelled: Vec<_> = names.iter().flatten().map(|name| name.replace(' ', "")).collect();
    ensure!(spelled == ["decimal(20,4)", "decimal(12,2)", "string"], "columns: {columns}");
    let row = lab.query(&["-t", "public.items", "-f", "csv"])?;
    ensure!(row == "id,n,price,tags\n1,1.5000,-1234.50,\"{a,b}\"\n", "the row reads {row}");
    Ok(())
}
