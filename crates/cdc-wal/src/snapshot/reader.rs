//! One COPY worker: a session inside the exported snapshot.

use cdc_core::quote_literal;
use futures::stream::StreamExt;
use tokio_postgres::CopyOutStream;

use super::batch::CopyBatch;
use super::plan::CopyJob;
use crate::control::{Control, Source};
use crate::error::{Error, Result};

/// The first server that can bound a whole transaction.
const TRANSACTION_TIMEOUT_FROM: u32 = 170_000;
/// A batch is handed out once it holds this many bytes.
const BATCH_BYTES: usize = 512 * 1024;

impl Source {
    /// Opens a session that sees what the exported snapshot sees. The exporting session must still
    /// hold it; once this returns, it need not any more.
    ///
    /// # Errors
    /// [`Error::Server`] with 22023 or 42704 if the snapshot is gone.
    pub async fn open_snapshot(&self, snapshot_name: &str) -> Result<SnapshotReader> {
        let control = self.connect().await?;
        // a snapshot must be set before the first query of the transaction; a row policy that
        // would hide rows is an error instead
        let sql = format!(
            "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET row_security = off; \
             BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
            quote_literal(snapshot_name)
        );
        if control.server_version_num() >= TRANSACTION_TIMEOUT_FROM {
            control.execute("lift the transaction timeout", "SET transaction_timeout = 0").await?;
        }
        control.execute("enter the exported snapshot", &sql).await?;
        Ok(SnapshotReader { control })
    }
}

/// A session inside an exported snapshot. It sees the same rows as long as it lives.
#[derive(Debug)]
pub struct SnapshotReader {
    control: Control,
}

impl SnapshotReader {
    /// Starts one job. The rows must be read to the end, or the reader be dropped: rows left
    /// unread are thrown away before the next job starts.
    pub async fn copy(&mut self, job: &CopyJob) -> Result<CopyRows<'_>> {
        let context = format!("copy {}", job.relation);
        let stream = self.control.copy_out(&context, &job.sql()).await?;
        Ok(CopyRows {
            _reader: self,
            stream: Box::pin(stream),
            job: job.clone(),
            gathered: Vec::new(),
            ended: false,
        })
    }

    /// A query inside the snapshot that gives one text, for counts and checksums.
    pub async fn text(&mut self, context: &str, sql: &str) -> Result<Option<String>> {
        self.control.simple_value(context, sql).await
    }

    /// Ends the transaction and the session.
    pub async fn close(self) {
        self.control.close().await;
    }
}

/// The rows of one job.
pub struct CopyRows<'a> {
    _reader: &'a mut SnapshotReader,
    stream: std::pin::Pin<Box<CopyOutStream>>,
    job: CopyJob,
    gathered: Vec<u8>,
    ended: bool,
}

impl std::fmt::Debug for CopyRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyRows").field("job", &self.job).finish_non_exhaustive()
    }
}

impl CopyRows<'_> {
    /// The next rows, `None` behind the last. The server is held back while nobody asks. Cancel
    /// safe: the next call goes on where a cancelled one stopped.
    ///
    /// # Errors
    /// [`Error::Server`] or [`Error::Query`]; the job is then over and the transaction aborted.
    pub async fn next_batch(&mut self) -> Result<Option<CopyBatch>> {
        if self.ended {
            return Ok(None);
        }
        self.gathered.reserve(BATCH_BYTES + BATCH_BYTES / 4);
        while self.gathered.len() < BATCH_BYTES {
            match self.stream.next().await {
                Some(Ok(row)) => self.gathered.extend_from_slice(&row),
                Some(Err(source)) => {
                    self.ended = true;
                    return Err(Error::from_query(format!("copy {}", self.job.relation), source));
                }
                None => {
                    self.ended = true;
                    break;
                }
            }
        }
        let bytes = std::mem::take(&mut self.gathered);
        let batch = CopyBatch::new(self.job.table.clone(), self.job.columns.len(), bytes);
        Ok((batch.byte_len() > 0).then_some(batch))
    }
}
