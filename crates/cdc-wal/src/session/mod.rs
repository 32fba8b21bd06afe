//! The replication session: a walsender spoken to natively, because the protocol's details decide
//! whether changes are lost (notices, acknowledgements, shutdown).
//!
//! ```text
//!  open ── login ── checks (system, settings, slot, publication) ── START_REPLICATION
//!    └─ the reader thread: read ─ frame ─ queue blocks │ status messages │ stall and drain clocks
//! ```

mod check;
pub(crate) mod frame;
mod login;
mod pulse;
mod query;
mod reader;
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

pub(crate) use check::{ServerFacts, start};
pub(crate) use login::connect;
pub(crate) use reader::{Queue, Reader};
#[cfg(test)]
pub(crate) use splitter::{Seen, Splitter};

/// A logged-in replication connection that is not streaming yet.
#[derive(Debug)]
pub(crate) struct Session {
    conn: Conn,
    buf: BytesMut,
    parameters: BTreeMap<String, String>,
}

impl Session {
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
        let read = self.conn.read_buf(&mut self.buf).await;
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
