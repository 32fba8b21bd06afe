//! One COPY worker: a session inside the exported snapshot, on a thread of its own.
//!
//! ```text
//! SnapshotReader ── asks ──> thread: session ── rows ──> CopyRows
//! ```

use cdc_core::quote_literal;
use tokio::sync::{mpsc, oneshot};

use super::batch::CopyBatch;
use super::plan::CopyJob;
use crate::conn::Connector;
use crate::control::Source;
use crate::error::{Error, Result};
use crate::session::{self, Backend, Session};

/// The first server that can bound a whole transaction.
const TRANSACTION_TIMEOUT_FROM: u32 = 170_000;
/// A batch is handed out once it holds this many bytes.
const BATCH_BYTES: usize = 512 * 1024;
/// Batches that wait for whoever takes them, besides the one that is being read.
const BATCHES_MAX: usize = 1;

impl Source {
    /// Opens a session that sees what the exported snapshot sees. The exporting session must still
    /// hold it; once this returns, it need not any more.
    ///
    /// # Errors
    /// [`Error::Server`] with 22023 or 42704 if the snapshot is gone.
    pub async fn open_snapshot(&self, snapshot_name: &str) -> Result<SnapshotReader> {
        let lock_timeout = self.options().lock_timeout.as_millis();
        let start = Start {
            connector: self.connector().clone(),
            limits: format!(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
                 SET lock_timeout = {lock_timeout}; SET row_security = off;"
            ),
            // a snapshot must be set before the first query of the transaction
            begin: format!(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
                quote_literal(snapshot_name)
            ),
        };
        let (asks, asked) = mpsc::channel(1);
        let (opened_out, opened) = oneshot::channel();
        let (ended_out, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("copy-reader".to_owned())
            .spawn(move || {
                read_on_this_thread(start, opened_out, asked);
                let _ = ended_out.send(());
            })
            .map_err(|source| Error::Io { context: "starting a copy".into(), source })?;
        opened.await.unwrap_or(Err(GONE))?;
        Ok(SnapshotReader { asks, ended })
    }
}

const GONE: Error = Error::TaskGone { task: "copy reader" };

/// A session inside an exported snapshot. It sees the same rows as long as it lives; dropping it
/// cuts the connection, also in the middle of a copy.
#[derive(Debug)]
pub struct SnapshotReader {
    asks: mpsc::Sender<Ask>,
    ended: oneshot::Receiver<()>,
}

impl SnapshotReader {
    /// Starts one job. The rows should be read to the end, or the reader be dropped: rows left
    /// unread are thrown away before the next job starts.
    ///
    /// # Errors
    /// [`Error::TaskGone`] if the session broke before.
    pub async fn copy(&mut self, job: &CopyJob) -> Result<CopyRows<'_>> {
        let (rows_out, rows) = mpsc::channel(BATCHES_MAX);
        self.ask(Ask::Copy { job: job.clone(), rows: rows_out }).await?;
        Ok(CopyRows { _reader: self, rows })
    }

    /// A query inside the snapshot that gives one text, for counts and checksums.
    ///
    /// # Errors
    /// [`Error::Server`]; the transaction is then aborted.
    pub async fn text(&mut self, context: &str, sql: &str) -> Result<Option<String>> {
        let (answer_out, answer) = oneshot::channel();
        let (context, sql) = (context.to_owned(), sql.to_owned());
        self.ask(Ask::Text { context, sql, answer: answer_out }).await?;
        answer.await.unwrap_or(Err(GONE))
    }

    /// Ends the transaction and the session.
    pub async fn close(self) {
        drop(self.asks);
        // without an answer the thread has ended as well
        let _ = self.ended.await;
    }

    async fn ask(&mut self, ask: Ask) -> Result<()> {
        self.asks.send(ask).await.map_err(|_| GONE)
    }
}

/// The rows of one job.
#[derive(Debug)]
pub struct CopyRows<'a> {
    _reader: &'a mut SnapshotReader,
    rows: mpsc::Receiver<Result<CopyBatch>>,
}

impl CopyRows<'_> {
    /// The next rows, `None` behind the last. The server is held back while nobody asks. Cancel
    /// safe: the next call goes on where a cancelled one stopped.
    ///
    /// # Errors
    /// [`Error::Server`] or [`Error::Io`]; the job is then over and the transaction aborted.
    pub async fn next_batch(&mut self) -> Result<Option<CopyBatch>> {
        self.rows.recv().await.transpose()
    }
}

/// What the session is asked for.
#[derive(Debug)]
enum Ask {
    Copy { job: CopyJob, rows: mpsc::Sender<Result<CopyBatch>> },
    Text { context: String, sql: String, answer: oneshot::Sender<Result<Option<String>>> },
}

struct Start {
    connector: Connector,
    limits: String,
    begin: String,
}

/// The whole life of a session, from its login until nobody can ask any more.
fn read_on_this_thread(
    start: Start,
    opened: oneshot::Sender<Result<()>>,
    mut asked: mpsc::Receiver<Ask>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(source) => {
            let error = Error::Io { context: "starting a copy".into(), source };
            let _ = opened.send(Err(error));
            return;
        }
    };
    runtime.block_on(async move {
        let mut session = match open(&start).await {
            Ok(session) => session,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            return;
        }
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Copy { job, rows } => copy(&mut session, job, rows).await,
                Ask::Text { context, sql, mut answer } => tokio::select! {
                    text = text(&mut session, &context, &sql) => {
                        let _ = answer.send(text);
                    }
                    () = answer.closed() => return,
                },
            }
        }
        session.close().await;
    });
}

async fn open(start: &Start) -> Result<Session> {
    let mut session = session::connect(&start.connector, Backend::Plain).await?;
    let settings = session::check_settings(&mut session).await?;
    // a row policy that would hide rows is an error instead
    session.query("lift the limits of the session", &start.limits).await?;
    if settings.version_num >= TRANSACTION_TIMEOUT_FROM {
        session.query("lift the transaction timeout", "SET transaction_timeout = 0").await?;
    }
    session.query("enter the exported snapshot", &start.begin).await?;
    session.coalesce();
    Ok(session)
}

/// Sends the rows until they end or nobody takes them any more.
async fn copy(session: &mut Session, job: CopyJob, rows: mpsc::Sender<Result<CopyBatch>>) {
    let context = format!("copy {}", job.relation);
    let columns = job.columns.len();
    let copied = async {
        session.start_copy_out(&context, &job.sql()).await?;
        while let Some(piece) = session.copy_rows(&context, BATCH_BYTES).await? {
            let batch = CopyBatch::new(job.table.clone(), columns, piece);
            if rows.send(Ok(batch)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = copied => ended,
        // what is unread is thrown away by the next statement, or goes with the connection
        () = rows.closed() => Ok(()),
    };
    if let Err(error) = ended {
        let _ = rows.send(Err(error)).await;
    }
}

async fn text(session: &mut Session, context: &str, sql: &str) -> Result<Option<String>> {
    let rows = session.query(context, sql).await?;
    Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
}
