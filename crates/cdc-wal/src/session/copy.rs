//! COPY TO STDOUT as it arrives: pieces of whole frames, one row in each
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>, "CopyData").

use bytes::BytesMut;
use futures::FutureExt;
use postgres_protocol::message::backend::Message;
use tokio::io::AsyncReadExt;

use super::frame::frame_len;
use super::room::{READ_BYTES_MIN, with_room};
use super::{Session, server_error};
use crate::{Error, Result};

/// TLS gives 16 KiB at a time; reads that need no waiting are joined up to this.
const JOIN_BYTES: usize = 256 * 1024;

/// Whole CopyData frames, headers included.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) frames: BytesMut,
    pub(crate) count: u64,
}

impl Rows {
    /// Rows as the server sends them: within values it escapes the newline, so each one ends a row.
    #[cfg(test)]
    pub(crate) fn of_lines(text: &[u8]) -> Self {
        use bytes::BufMut;
        let (mut frames, mut count) = (BytesMut::new(), 0);
        for row in text.split_inclusive(|byte| *byte == b'\n') {
            frames.put_u8(b'd');
            frames.put_u32(u32::try_from(row.len() + 4).unwrap_or(u32::MAX));
            frames.put_slice(row);
            count += 1;
        }
        Self { frames, count }
    }
}

impl Session {
    /// Lets the socket fill between the reads of rows, over all copies of this session: whether that
    /// helps is measured once, not for each.
    pub(crate) fn coalesce(&mut self) {
        self.conn.coalesce();
    }

    /// Starts a COPY TO STDOUT. `context` names it in errors.
    ///
    /// # Errors
    /// [`Error::Server`] if the server refuses the statement; the session can go on.
    pub(crate) async fn start_copy_out(&mut self, context: &str, sql: &str) -> Result<()> {
        self.skip_answer().await?;
        self.send_query(sql).await?;
        self.answering = true;
        loop {
            match self.receive().await? {
                Message::CopyOutResponse(_) => return Ok(()),
                message => {
                    if self.see_answer(context, message)? {
                        return Err(Error::protocol("an answer that is not COPY OUT"));
                    }
                }
            }
        }
    }

    /// The next rows, about `bytes` of them or what is left; `None` behind the last. Cancel safe.
    /// Sleeps between reads if it may [`coalesce`](Self::coalesce): for a thread on which nothing else
    /// runs.
    ///
    /// # Errors
    /// [`Error::Server`] if the server ends the COPY; the session can go on.
    pub(crate) async fn copy_rows(&mut self, context: &str, bytes: usize) -> Result<Option<Rows>> {
        let (mut whole, mut count) = (0, 0);
        self.buf.reserve(bytes + READ_BYTES_MIN);
        while self.answering {
            let rest = &self.buf[whole..];
            match frame_len(rest)?.filter(|length| *length <= rest.len()) {
                Some(length) if rest[0] == b'd' => {
                    whole += length;
                    count += 1;
                    if whole >= bytes {
                        break;
                    }
                }
                // what ends the copy comes behind the rows
                Some(_) if whole > 0 => break,
                Some(_) => {
                    let message = self.receive().await?;
                    self.see_answer(context, message)?;
                }
                None => self.fill_behind(whole).await?,
            }
        }
        let frames = self.buf.split_to(whole);
        Ok((count > 0).then_some(Rows { frames, count }))
    }

    /// Throws away what is left of an answer.
    pub(super) async fn skip_answer(&mut self) -> Result<()> {
        while self.answering {
            let message = self.receive().await?;
            // the error of a statement that nobody waits for any more
            let _ = self.see_answer("skip the rows of a copy", message);
        }
        Ok(())
    }

    /// Takes a message that is no row and tells whether it was the last one. After an error the
    /// rest of the answer is thrown away by the next statement.
    fn see_answer(&mut self, context: &str, message: Message) -> Result<bool> {
        match message {
            Message::ReadyForQuery(_) => {
                self.answering = false;
                return Ok(true);
            }
            Message::ErrorResponse(body) => return Err(server_error(context, &mut body.fields())),
            Message::ParameterStatus(status) => self.note_parameter(&status)?,
            _ => {}
        }
        Ok(false)
    }

    /// Reads more bytes behind whole frames.
    async fn fill_behind(&mut self, whole: usize) -> Result<()> {
        let mut read = self.conn.read_buf(with_room(&mut self.buf, whole)).await;
        let mut joined = 0;
        while let Ok(1..) = read
            && self.conn.is_tls()
            && joined < JOIN_BYTES
        {
            match self.conn.read_buf(with_room(&mut self.buf, whole)).now_or_never() {
                Some(Ok(more)) if more > 0 => joined += more,
                // an end or an error shows again at the next read
                _ => break,
            }
        }
        read = read.and_then(|bytes| match bytes {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok(bytes),
        });
        read.map_err(|source| self.broken("reading the rows of a copy", source))?;
        if let Some(nap) = self.conn.take_nap() {
            // blocking on purpose: nothing else runs on this thread, and while a timer runs the
            // socket would still wake it for every packet
            std::thread::sleep(nap);
        }
        Ok(())
    }
}
