//! How fast changes become delta files and rows become base files, on one core, with the memory it
//! takes: `cargo run --release -p cdc-sink --example encode_rate [rows] [directory for the files]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use cdc_core::*;
use cdc_manifest::{LakeStore, StorageSpec};
use cdc_sink::index::{IndexBuilder, IndexOptions, IndexStamp};
use cdc_sink::{
    BaseOptions, BaseTarget, BaseWriter, ChangeBuffer, DeltaContext, DeltaOptions, DeltaOutput,
    DeltaWriter, EncodedFile, PartNumbers, RowBuilder, index_identity,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let keep: Option<PathBuf> = arguments.next().map(PathBuf::from);
    let schema = orders();
    let texts: Vec<Vec<String>> = (0..rows.min(200_000)).map(row).collect();
    println!("input ready, {} MiB resident", resident("VmRSS"));

    let scratch = tempfile::tempdir()?;
    let mut builder = IndexBuilder::create(scratch.path(), IndexOptions::default())?;
    let started = Started::now();
    let files = base(&schema, &texts, rows, &mut builder)?;
    report("base", rows, started, &files);
    save(&files, keep.as_deref())?;
    let stamp = IndexStamp {
        lake_id: "bench".into(),
        identity: index_identity(&schema),
        snapshot_id: None,
        lsn_to: Lsn::ZERO,
        epoch: Epoch(0),
    };
    let index = builder.finish(stamp.clone())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let context = DeltaContext {
        table: schema.table.clone(),
        lake: LakeStore::open(&StorageSpec::Memory)?,
        runtime: runtime.handle().clone(),
    };
    let options =
        DeltaOptions { spill_dir: Some(scratch.path().to_owned()), ..DeltaOptions::default() };
    let mut writer = DeltaWriter::new(index, context, options);
    for (epoch, (name, change)) in
        [("inserts", Kind::Insert), ("updates", Kind::Update)].into_iter().enumerate()
    {
        let epoch = Epoch(epoch as u64 + 1);
        let started = Started::now();
        let output = delta(&mut writer, &schema, &texts, rows, epoch, change)?;
        report(name, rows, started, &output.files);
        save(&output.files, keep.as_deref())?;
        writer.committed(IndexStamp { epoch, ..stamp.clone() })?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Kind {
    Insert,
    Update,
}

fn base(
    schema: &Arc<TableSchema>,
    texts: &[Vec<String>],
    rows: usize,
    builder: &mut IndexBuilder,
) -> Result<Vec<EncodedFile>, Failure> {
    let target = BaseTarget {
        schema: Arc::clone(schema),
        epoch: Epoch(0),
        attempt: 0,
        parts: PartNumbers::new(),
        hasher: Some(builder.hasher()),
    };
    let mut writer = BaseWriter::new(target, BaseOptions::default())?;
    let mut batch = RowBuilder::new(Arc::clone(schema), UnrepresentablePolicy::Error);
    let mut files = Vec::new();
    for number in 0..rows {
        let id = number.to_string();
        batch.push(&cells(&id, &texts[number % texts.len()]))?;
        if batch.is_full() || number + 1 == rows {
            let step = writer.append(batch.finish()?)?;
            step.index_into(builder)?;
            files.extend(step.files);
        }
    }
    let step = writer.finish()?;
    step.index_into(builder)?;
    files.extend(step.files);
    Ok(files)
}

/// One transaction of all rows: inserts of new keys, or updates of the base's.
fn delta(
    writer: &mut DeltaWriter,
    schema: &Arc<TableSchema>,
    texts: &[Vec<String>],
    rows: usize,
    epoch: Epoch,
    kind: Kind,
) -> Result<DeltaOutput, Failure> {
    let mut buffer = ChangeBuffer::new(Arc::clone(schema), UnrepresentablePolicy::Error);
    writer.begin_epoch(epoch, 0)?;
    for number in 0..rows {
        let (id, text) = match kind {
            Kind::Insert => ((rows + number).to_string(), &texts[number % texts.len()]),
            // far apart in the base, as updates of a live table are
            Kind::Update => {
                ((number * 7919 % rows).to_string(), &texts[(number + 1) % texts.len()])
            }
        };
        let new = cells(&id, text);
        let change = match kind {
            Kind::Insert => RowChange::Insert { new: &new },
            Kind::Update => RowChange::Update { old: OldTuple::None, new: &new },
        };
        let at = ChangePosition {
            lsn: Lsn(1 << 32 | (number as u64 * 120)),
            commit_micros: 1_700_000_000_000_000,
            xid: 4711,
            seq: number as u64,
        };
        buffer.push(&change, &at, epoch)?;
        if buffer.is_full() {
            writer.append(buffer.take_chunk()?)?;
        }
    }
    buffer.commit(Lsn(2 << 32));
    writer.append(buffer.take_chunk()?)?;
    Ok(writer.finish_epoch()?.ok_or("no rows")?)
}

/// A point in time on the wall and on the processor.
struct Started {
    wall: Instant,
    cpu_seconds: f64,
}

impl Started {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu_seconds: cpu_seconds() }
    }
}

fn report(name: &str, rows: usize, started: Started, files: &[EncodedFile]) {
    let (wall, cpu) = (started.wall.elapsed().as_secs_f64(), cpu_seconds() - started.cpu_seconds);
    let mib = files.iter().map(|file| file.body.size()).sum::<u64>() >> 20;
    println!(
        "{name}: {wall:.2} s wall, {cpu:.2} s CPU, {:.0}k rows per CPU second, {} files, {mib} MiB, \
         {} MiB resident, peak {} MiB",
        rows as f64 / cpu / 1000.0,
        files.len(),
        resident("VmRSS"),
        resident("VmHWM"),
    );
}

/// User and system time of this process; 0 where there is no /proc.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS_PER_SECOND
}

fn save(files: &[EncodedFile], dir: Option<&std::path::Path>) -> Result<(), Failure> {
    let Some(dir) = dir else { return Ok(()) };
    for file in files {
        let bytes = file.body.range(0, usize::try_from(file.body.size())?)?;
        std::fs::write(dir.join(file.key.replace('/', "_")), bytes)?;
    }
    Ok(())
}

/// `VmRSS` or `VmHWM` of this process in MiB; 0 where there is no /proc.
fn resident(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<usize>().ok());
    kib.unwrap_or(0) / 1024
}

fn cells<'a>(id: &'a str, texts: &'a [String]) -> Vec<Cell<'a>> {
    let rest = texts.iter().map(|text| match text.as_str() {
        "\\N" => Cell::Null,
        text => Cell::Text(text.as_bytes()),
    });
    std::iter::once(Cell::Text(id.as_bytes())).chain(rest).collect()
}

/// Everything but the id; numbers scattered by a multiplicative hash.
fn row(number: usize) -> Vec<String> {
    let mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let cents = mixed % 10_000_000;
    vec![
        (mixed >> 40).to_string(),
        (mixed % 50).to_string(),
        format!("{}.{:02}", cents / 100, cents % 100),
        ["new", "paid", "packed", "shipped", "returned"][(mixed % 5) as usize].to_owned(),
        if number.is_multiple_of(3) {
            "\\N".to_owned()
        } else {
            format!("note {mixed:x} of order {number}")
        },
        format!(
            "2024-{:02}-{:02} 12:{:02}:{:02}.{:06}+00",
            number % 12 + 1,
            number % 28 + 1,
            number % 60,
            mixed % 60,
            mixed % 1_000_000
        ),
        format!("{{\"k\": {}, \"tags\": [\"a\", \"b{}\"]}}", mixed % 1000, mixed % 7),
        if mixed.is_multiple_of(2) { "t" } else { "f" }.to_owned(),
        format!("{:08x}-{:04x}-4000-8000-{:012x}", mixed as u32, number & 0xFFFF, mixed >> 16),
    ]
}

/// `orders`: bigint key, two integers, numeric(12,2), two texts, timestamptz, jsonb, bool, uuid.
fn orders() -> Arc<TableSchema> {
    let types = [
        ("id", oid::INT8, StoredType::Int64),
        ("customer", oid::INT4, StoredType::Int32),
        ("quantity", oid::INT4, StoredType::Int32),
        ("amount", oid::NUMERIC, StoredType::Decimal { precision: 12, scale: 2 }),
        ("status", oid::VARCHAR, StoredType::String),
        ("note", oid::TEXT, StoredType::String),
        ("created_at", oid::TIMESTAMPTZ, StoredType::TimestampTz),
        ("payload", oid::JSONB, StoredType::String),
        ("ok", oid::BOOL, StoredType::Boolean),
        ("token", oid::UUID, StoredType::Uuid),
    ];
    let column = |(at, (name, oid, stored)): (usize, (&str, u32, StoredType))| Column {
        name: name.to_owned(),
        field_id: FieldId(100 + at as i32),
        element_id: None,
        attnum: at as i16 + 1,
        pg_type: PgType::base(oid, name),
        stored,
        nullable: true,
        lossy: false,
    };
    Arc::new(TableSchema {
        table: TableName::new("public", "orders"),
        version: 1,
        columns: types.into_iter().enumerate().map(column).collect(),
        identity: Identity::PrimaryKey(vec!["id".into()]),
        next_field_id: FieldId(110),
        omitted: Vec::new(),
    })
}
