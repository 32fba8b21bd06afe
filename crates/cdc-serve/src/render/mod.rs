//! Batches of an answer as bytes: JSON, NDJSON, CSV, Arrow IPC. Written as they come, so a long
//! answer is never held whole.

mod calendar;
mod value;

use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;

pub use self::value::Value;
use self::value::push_json_string;

/// The form of an answer's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One array of objects.
    Json,
    /// One object per line.
    Ndjson,
    /// RFC 4180 with a header; NULL is nothing, an empty text is `""`.
    Csv,
    /// An Arrow IPC stream; text as `utf8`, bytes as `binary`.
    Arrow,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Format::Json),
            "ndjson" => Ok(Format::Ndjson),
            "csv" => Ok(Format::Csv),
            "arrow" => Ok(Format::Arrow),
            _ => Err(format!("`{text}` is not one of json, ndjson, csv, arrow")),
        }
    }
}

/// Writes the batches of one answer. Call [`Renderer::finish`] after the last.
pub struct Renderer<W: Write>(Form<W>);

enum Form<W: Write> {
    Json { out: W, keys: Vec<String>, rows: u64 },
    Ndjson { out: W, keys: Vec<String> },
    Csv { out: W },
    Arrow { writer: Box<StreamWriter<W>>, schema: SchemaRef },
}

impl<W: Write> Renderer<W> {
    /// Writes what stands before the first row.
    ///
    /// # Errors
    /// Of the output.
    pub fn start(format: Format, schema: &Schema, mut out: W) -> io::Result<Renderer<W>> {
        let form = match format {
            Format::Json => {
                out.write_all(b"[")?;
                Form::Json { out, keys: keys(schema), rows: 0 }
            }
            Format::Ndjson => Form::Ndjson { out, keys: keys(schema) },
            Format::Csv => {
                let names = schema.fields().iter().map(|field| csv_field(Some(field.name())));
                writeln!(out, "{}", names.collect::<Vec<_>>().join(","))?;
                Form::Csv { out }
            }
            Format::Arrow => {
                let schema = Arc::new(plain_schema(schema));
                let writer = StreamWriter::try_new(out, &schema).map_err(io_error)?;
                Form::Arrow { writer: Box::new(writer), schema }
            }
        };
        Ok(Renderer(form))
    }

    /// Writes rows.
    ///
    /// # Errors
    /// Of the output.
    pub fn batch(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match &mut self.0 {
            Form::Json { out, keys, rows } => {
                let mut text = String::new();
                for row in 0..batch.num_rows() {
                    text.push_str(if *rows == 0 { "\n" } else { ",\n" });
                    push_object(&mut text, keys, batch, row);
                    *rows += 1;
                }
                out.write_all(text.as_bytes())
            }
            Form::Ndjson { out, keys } => {
                let mut text = String::new();
                for row in 0..batch.num_rows() {
                    push_object(&mut text, keys, batch, row);
                    text.push('\n');
                }
                out.write_all(text.as_bytes())
            }
            Form::Csv { out } => {
                let mut text = String::new();
                for row in 0..batch.num_rows() {
                    let cell = |column: &ArrayRef| csv_field(Value::at(column, row).text());
                    let cells: Vec<String> = batch.columns().iter().map(cell).collect();
                    text.push_str(&cells.join(","));
                    text.push('\n');
                }
                out.write_all(text.as_bytes())
            }
            Form::Arrow { writer, schema } => {
                let plain = plain_batch(batch, schema).map_err(io_error)?;
                writer.write(&plain).map_err(io_error)
            }
        }
    }

    /// Writes what stands behind the last row, and gives the output back.
    ///
    /// # Errors
    /// Of the output.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.0 {
            Form::Json { mut out, rows, .. } => {
                out.write_all(if rows == 0 { b"]\n" } else { b"\n]\n" })?;
                out
            }
            Form::Ndjson { out, .. } | Form::Csv { out } => out,
            Form::Arrow { mut writer, .. } => {
                writer.finish().map_err(io_error)?;
                writer.into_inner().map_err(io_error)?
            }
        };
        out.flush()?;
        Ok(out)
    }
}

/// The keys of objects as JSON text. A name that comes again, as after a join, gets a number.
fn keys(schema: &Schema) -> Vec<String> {
    let mut used: Vec<String> = Vec::new();
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut number = 2;
        while used.contains(&name) {
            name = format!("{}_{number}", field.name());
            number += 1;
        }
        used.push(name);
    }
    let json = |name: &String| {
        let mut out = String::new();
        push_json_string(name, &mut out);
        out
    };
    used.iter().map(json).collect()
}

fn push_object(out: &mut String, keys: &[String], batch: &RecordBatch, row: usize) {
    out.push('{');
    for (at, (key, column)) in keys.iter().zip(batch.columns()).enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(key);
        out.push(':');
        Value::at(column, row).push_json(out);
    }
    out.push('}');
}

/// A field of RFC 4180, with the difference between NULL and empty text that `COPY … CSV` makes.
fn csv_field(text: Option<&str>) -> String {
    match text {
        None => String::new(),
        Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text.to_owned(),
    }
}

/// The schema without view types, which older readers of IPC do not know.
fn plain_schema(schema: &Schema) -> Schema {
    let field = |field: &Arc<Field>| {
        Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())))
    };
    Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>())
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

fn plain_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| cast(column, field.data_type());
    let columns = batch.columns().iter().zip(schema.fields()).map(column);
    RecordBatch::try_new(schema.clone(), columns.collect::<Result<Vec<_>, _>>()?)
}

fn io_error(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => io::Error::other(other),
    }
}
