//! Sessions spoken natively: a walsender, because the protocol's details decide whether changes are
//! lost (notices, acknowledgements, shutdown), and a plain backend whose COPY is taken as it
//! arrives, many rows at a time.
//!
//! ```text
//!  open ── login ┬─ checks (system, settings, slot, publication) ── START_REPLICATION
//!                │    └─ the reader thread: read ─ frame ─ queue blocks │ status messages │ clocks
//!                └─ checks (settings) ── statements ── COPY: read ─ frame ─ pieces of rows
//! ```

mod check;
mod copy;
pub(crate) mod frame;
mod login;
mod pulse;
mod query;
mod reader;
mod room;
mod splitter;
mod timeline;

use std::collections::BTreeMap;
use std::io;

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{ErrorFields, Message, ParameterStatusBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::conn::Conn;
use crate::{Error, Result, ServerMessage};

pub(crate) use check::{ServerFacts, check_settings, start};
pub(crate) use copy::Rows;
pub(crate) use login::{Backend, connect};
pub(crate) use reader::{Queue, Reader};
#[cfg(test)]
pub(crate) use splitter::{Seen, Splitter};

/// A logged-in connection that is not streaming yet.
#[derive(Debug)]
pub(crate) struct Session {
    conn: Conn,
    buf: BytesMut,
    parameters: BTreeMap<String, String>,
    /// Whether the answer to the last statement has not been read to its end.
    answering: bool,
}

impl Session {
    fn new(conn: Conn) -> Self {
        Self { conn, buf: BytesMut::new(), parameters: BTreeMap::new(), answering: false }
    }

    /// Says goodbye; the server ends the session as soon as it has read it.
    pub(crate) async fn close(mut self) {
        /// `Terminate`.
        const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];
        if let Err(error) = self.send(&TERMINATE).await {
            tracing::debug!(%error, "a session was gone before it was closed");
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = async {
            self.conn.write_all(bytes).await?;
            self.conn.flush().await
        };
        sent.await.map_err(|source| self.broken("sending", source))
    }

    /// The next message of the simple protocol.
    async fn receive(&mut self) -> Result<Message> {
        loop {
            let parsed = Message::parse(&mut self.buf);
            if let Some(message) = parsed.map_err(|error| Error::protocol(error.to_string()))? {
                return Ok(message);
            }
            self.fill().await?;
        }
    }

    /// Reads more bytes; the end of the connection is an error.
    async fn fill(&mut self) -> Result<()> {
        let room = room::with_room(&mut self.buf, 0);
        let read = self.conn.read_buf(room).await;
        match read {
            Ok(0) => Err(self.broken("waiting for an answer", io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(()),
            Err(source) => Err(self.broken("waiting for an answer", source)),
        }
    }

    fn note_parameter(&mut self, status: &ParameterStatusBody) -> Result<()> {
        let (name, value) = status
            .name()
            .and_then(|name| Ok((name, status.value()?)))
            .map_err(|error| Error::protocol(error.to_string()))?;
        self.parameters.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn broken(&self, context: &str, source: io::Error) -> Error {
        Error::Io { context: format!("{context} ({})", self.conn.peer()), source }
    }
}

/// The fields of an ErrorResponse or NoticeResponse.
fn server_message(fields: &mut ErrorFields<'_>) -> Result<ServerMessage> {
    let mut message = ServerMessage {
        severity: String::new(),
        sqlstate: String::new(),
        message: String::new(),
        detail: None,
        hint: None,
    };
    while let Some(field) = fields.next().map_err(|error| Error::protocol(error.to_string()))? {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'V' => message.severity = value,
            b'C' => message.sqlstate = value,
            b'M' => message.message = value,
            b'D' => message.detail = Some(value),
            b'H' => message.hint = Some(value),
            _ => {}
        }
    }
    Ok(message)
}

fn server_error(context: impl Into<String>, fields: &mut ErrorFields<'_>) -> Error {
    match server_message(fields) {
        Ok(message) => Error::Server { context: context.into(), message: Box::new(message) },
        Err(error) => error,
    }
}
