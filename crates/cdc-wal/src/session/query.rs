//! The simple query protocol.

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, Message};
use postgres_protocol::message::frontend;

use super::{Session, server_error};
use crate::{Error, Result};

/// One row of text values.
pub(crate) type Row = Vec<Option<String>>;

impl Session {
    /// Runs one command and returns its rows. `context` names it in errors.
    pub(crate) async fn query(&mut self, context: &str, sql: &str) -> Result<Vec<Row>> {
        self.skip_answer().await?;
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            match self.receive().await? {
                Message::DataRow(row) => rows.push(read_row(&row)?),
                Message::ErrorResponse(body) => {
                    failed = Some(server_error(context, &mut body.fields()));
                }
                Message::ParameterStatus(status) => self.note_parameter(&status)?,
                Message::ReadyForQuery(_) => return failed.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Starts COPY BOTH. Bytes of the stream that arrived already stay in the buffer.
    pub(super) async fn start_copy_both(&mut self, context: &str, command: &str) -> Result<()> {
        /// `CopyBothResponse`, which postgres-protocol does not know.
        const COPY_BOTH: u8 = b'W';
        self.send_query(command).await?;
        loop {
            if self.buf.first() == Some(&COPY_BOTH) {
                let length = super::frame::frame_len(&self.buf)?;
                if let Some(length) = length.filter(|length| self.buf.len() >= *length) {
                    bytes::Buf::advance(&mut self.buf, length);
                    return Ok(());
                }
                self.fill().await?;
                continue;
            }
            let parsed = Message::parse(&mut self.buf);
            match parsed.map_err(|error| Error::protocol(error.to_string()))? {
                None => self.fill().await?,
                Some(Message::ErrorResponse(body)) => {
                    return Err(server_error(context, &mut body.fields()));
                }
                Some(Message::ParameterStatus(status)) => self.note_parameter(&status)?,
                Some(Message::NoticeResponse(_)) => {}
                Some(_) => return Err(Error::protocol("an answer that is not COPY BOTH")),
            }
        }
    }

    pub(super) async fn send_query(&mut self, sql: &str) -> Result<()> {
        let mut out = BytesMut::new();
        frontend::query(sql, &mut out).map_err(|source| self.broken("writing a query", source))?;
        self.send(&out).await
    }
}

fn read_row(row: &DataRowBody) -> Result<Row> {
    let text = |range: Option<std::ops::Range<usize>>| {
        let bytes = range.and_then(|range| row.buffer().get(range));
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    };
    row.ranges().map(text).collect().map_err(|error| Error::protocol(error.to_string()))
}
