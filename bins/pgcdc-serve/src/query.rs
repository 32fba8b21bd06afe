//! `query`: rows on stdout, everything else on stderr.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::time::Duration;

use cdc_core::Epoch;
use cdc_manifest::CutSpec;
use cdc_query::{DeletedRows, TableQuery, TableRequest, TableState};
use cdc_runtime::Config;
use cdc_serve::{Answer, Caller, CutRequest, Format, ReadPlane, RecordBatch, Renderer, Schema};

use crate::cli::{Common, CutArgs, OutputFormat, QueryArgs};
use crate::setup;
use crate::table_format::TextTable;

/// Stack of the threads that run the query: expressions recurse.
const WORKER_STACK_BYTES: usize = 8 * 1024 * 1024;

pub(crate) fn run(common: &Common, args: &QueryArgs) -> anyhow::Result<()> {
    let config = setup::config(common)?;
    let plane = setup::read_plane(&config)?;
    let caller = setup::caller(args.role.as_deref());
    if caller.role.is_some() {
        eprintln!(
            "note: --role narrows what is shown; who may read the files is for the operating system to say"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build()?;
    runtime.block_on(async {
        if args.table.is_none() && args.sql.is_none() {
            return list(&plane, &caller, args).await;
        }
        let answer = ask(&plane, &caller, &config, args).await?;
        print(answer, args).await
    })
}

async fn list(plane: &ReadPlane, caller: &Caller, args: &QueryArgs) -> anyhow::Result<()> {
    let tables = plane.list_tables(caller).await?;
    let batch = cdc_serve::tables_batch(&tables)?;
    let mut output = Output::start(args.format, &batch.schema())?;
    output.batch(&batch)?;
    output.finish()?;
    Ok(())
}

async fn ask(
    plane: &ReadPlane,
    caller: &Caller,
    config: &Config,
    args: &QueryArgs,
) -> anyhow::Result<Answer> {
    let limit = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let longest = config.query.wait_timeout_max_ms;
    let at = CutRequest {
        at: cut(&args.cut),
        min_lsn: args.min_lsn,
        wait: Duration::from_millis(args.timeout_ms.min(longest)),
    };
    if let Some(sql) = &args.sql {
        return Ok(plane.sql(caller, sql, limit, &at).await?);
    }
    let query = TableQuery {
        columns: args.columns.clone(),
        conditions: args.parsed_conditions()?,
        order_by: args.order_keys()?,
        limit,
    };
    let table = args.table.as_deref().unwrap_or_default();
    if let Some(since) = args.changes_since {
        return Ok(plane.changes(caller, table, Epoch(since), &query, &at).await?);
    }
    let state = if args.no_deltas { TableState::AtBase } else { TableState::AtCut };
    let deleted = if args.include_deleted { DeletedRows::Shown } else { DeletedRows::Hidden };
    let request = TableRequest { query, state, deleted };
    Ok(plane.query(caller, table, &request, &at).await?)
}

fn cut(args: &CutArgs) -> CutSpec {
    match args {
        CutArgs { name: Some(name), .. } => CutSpec::of_ref(name),
        CutArgs { epoch: Some(epoch), .. } => CutSpec::Epoch(Epoch(*epoch)),
        CutArgs { lsn: Some(lsn), .. } => CutSpec::Lsn(*lsn),
        CutArgs { as_of: Some(time), .. } => CutSpec::AsOf(*time),
        _ => CutSpec::Main,
    }
}

async fn print(mut answer: Answer, args: &QueryArgs) -> anyhow::Result<()> {
    let mut output = Output::start(args.format, answer.rows.schema())?;
    let mut rows = 0;
    while let Some(batch) = answer.rows.next().await.map_err(cdc_serve::Error::from)? {
        rows += batch.num_rows();
        output.batch(&batch)?;
    }
    output.finish()?;
    if answer.rows.truncated() {
        eprintln!("note: these are the first {rows} rows, there are more; hint: raise --limit");
    }
    if args.evidence {
        eprintln!("{}", serde_json::to_string(&answer.evidence())?);
    }
    Ok(())
}

/// Rows on stdout in the form asked for.
enum Output {
    Table(TextTable),
    Bytes(Box<Renderer<BufWriter<StdoutLock<'static>>>>),
}

impl Output {
    fn start(format: OutputFormat, schema: &Schema) -> io::Result<Output> {
        let format = match format {
            OutputFormat::Table => return Ok(Output::Table(TextTable::new(schema))),
            OutputFormat::Json => Format::Json,
            OutputFormat::Ndjson => Format::Ndjson,
            OutputFormat::Csv => Format::Csv,
            OutputFormat::Arrow => Format::Arrow,
        };
        let out = BufWriter::new(io::stdout().lock());
        Ok(Output::Bytes(Box::new(Renderer::start(format, schema, out)?)))
    }

    fn batch(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match self {
            Output::Table(table) => {
                table.push(batch);
                Ok(())
            }
            Output::Bytes(renderer) => renderer.batch(batch),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Output::Table(table) => {
                let mut out = io::stdout().lock();
                writeln!(out, "{table}")?;
                out.flush()
            }
            Output::Bytes(renderer) => renderer.finish().map(|_| ()),
        }
    }
}
