//! The stream as its consumer sees it: blocks of events in, tokens of durability out.

mod ack;
mod block;
mod event;
mod options;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::conn::Connector;
use crate::session::{self, Backend, Queue, Reader};
use crate::{Error, Result};

pub(crate) use ack::AckState;
pub use ack::{AckToken, Acker};
pub use block::{Block, Events};
pub use event::{Commit, Event, IdleMark};
pub use options::{Coalesce, Progress, ResumePoint, SpoolOptions, StreamOptions};

/// A running replication stream.
///
/// Its connection lives on a thread of its own, so keepalives are answered and acknowledgements
/// sent however long the consumer takes. Whole transactions come in commit order. Dropping it ends
/// the stream; [`WalStream::close`] also waits until the slot is free.
#[derive(Debug)]
pub struct WalStream {
    blocks: mpsc::Receiver<Block>,
    /// How the reader ended; taken once told.
    ended: Option<oneshot::Receiver<Result<()>>>,
    ack: Arc<AckState>,
    progress: watch::Receiver<Progress>,
    stop: Option<oneshot::Sender<()>>,
    server: OpenedServer,
}

/// What the server said when the stream was opened.
#[derive(Clone, Copy, Debug)]
struct OpenedServer {
    version_num: u32,
    timeline: u32,
}

impl WalStream {
    /// Connects, checks that source, slot and publication are the ones that the position belongs
    /// to, and starts the stream behind it.
    ///
    /// # Errors
    /// `IdentityChanged`, `SlotMissing`, `SlotLost` and `Gap` if changes would be lost;
    /// `PublicationMissing` and `SlotUnusable` if somebody must act; `SlotBusy` if another session
    /// reads the slot; connection and login errors.
    pub async fn open(
        connector: &Connector,
        at: ResumePoint,
        options: StreamOptions,
    ) -> Result<Self> {
        let (queue, blocks) = Queue::new(options.buffer_bytes);
        let ack = Arc::new(AckState::new(at.lsn));
        let initial = Progress { received: at.lsn, durable: at.lsn, ..Progress::default() };
        let (progress_out, progress) = watch::channel(initial);
        let (stop, stopped) = oneshot::channel();
        let (opened_out, opened) = oneshot::channel();
        let (ended_out, ended) = oneshot::channel();
        let ends = (queue, Arc::clone(&ack), progress_out, stopped);
        let start = Start { connector: connector.clone(), at, options };
        std::thread::Builder::new()
            .name("wal-reader".to_owned())
            .spawn(move || {
                let _ = ended_out.send(read_on_this_thread(start, ends, opened_out));
            })
            .map_err(|source| Error::Io { context: "starting the reader".into(), source })?;
        match opened.await {
            Ok(server) => {
                Ok(Self { blocks, ended: Some(ended), ack, progress, stop: Some(stop), server })
            }
            // the reader tells how it went only if it got as far as streaming
            Err(_) => match ended.await {
                Ok(Err(error)) => Err(error),
                _ => Err(Error::TaskGone { task: "wal reader" }),
            },
        }
    }

    /// The next block, or `None` once the stream has ended and its error has been told. Blocks
    /// that arrived before an error come first. Cancel safe.
    ///
    /// # Errors
    /// After an error open a new stream at the last durable position; `Error::kind` says whether
    /// that may help. After `Draining` wait at least 10 s before.
    pub async fn next_block(&mut self) -> Result<Option<Block>> {
        if let Some(block) = self.blocks.recv().await {
            return Ok(Some(block));
        }
        let Some(ended) = &mut self.ended else { return Ok(None) };
        let result = ended.await.unwrap_or(Err(Error::TaskGone { task: "wal reader" }));
        self.ended = None;
        result.map(|()| None)
    }

    /// The way to acknowledge; may be cloned and sent elsewhere.
    pub fn acker(&self) -> Acker {
        Acker::new(Arc::clone(&self.ack))
    }

    /// How far the stream is.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// `server_version_num` of the source.
    pub fn server_version_num(&self) -> u32 {
        self.server.version_num
    }

    /// The timeline that the source writes: that of the resume point, or a later one that holds
    /// everything up to it. Store it with the next position.
    pub fn timeline(&self) -> u32 {
        self.server.timeline
    }

    /// Sends the last acknowledged position, ends the stream and waits for the reader. Blocks not
    /// taken are dropped; they come again next time.
    ///
    /// # Errors
    /// The error that the stream had ended with, if it had and it was not told yet.
    pub async fn close(mut self) -> Result<()> {
        self.stop = None;
        self.blocks.close();
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Err(Error::TaskGone { task: "wal reader" })),
            None => Ok(()),
        }
    }
}

struct Start {
    connector: Connector,
    at: ResumePoint,
    options: StreamOptions,
}

type Ends = (Queue, Arc<AckState>, watch::Sender<Progress>, oneshot::Receiver<()>);

/// The whole life of the reader's thread. A current-thread runtime of its own takes half the
/// processor time of a task on a shared one.
fn read_on_this_thread(
    start: Start,
    ends: Ends,
    opened: oneshot::Sender<OpenedServer>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the reader".into(), source })?;
    runtime.block_on(async move {
        let mut session = session::connect(&start.connector, Backend::WalSender).await?;
        let facts = session::start(&mut session, &start.at, &start.options).await?;
        tracing::info!(slot = start.at.slot, lsn = %start.at.lsn, "replication stream started");
        let reader = Reader::new(session, &facts, start.at, start.options, ends);
        let server = OpenedServer { version_num: facts.version_num, timeline: facts.timeline };
        if opened.send(server).is_err() {
            return Ok(());
        }
        reader.run().await
    })
}
