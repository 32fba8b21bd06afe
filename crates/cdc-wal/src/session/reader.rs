//! The reader: one task, alone on its thread, that owns the connection while it streams.
//!
//! Whatever the consumer does, status messages go out on time. The socket is left unread only
//! while the consumer has no room, and not for ever.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cdc_core::Lsn;
use futures::FutureExt;
use postgres_protocol::message::backend::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::check::classify;
use super::pulse::Pulse;
use super::splitter::{Seen, Splitter};
use super::{ServerFacts, Session, frame, server_error, server_message};
use crate::conn::Conn;
use crate::spool::Spool;
use crate::stream::{AckState, Block, Coalesce, Progress, ResumePoint, StreamOptions};
use crate::{Error, Result};

/// Blocks that may queue, whatever their size.
const QUEUE_BLOCKS: usize = 1024;
/// Bytes read ahead while the queue is full, so that small blocks become one.
const PENDING_BYTES_MAX: usize = 1024 * 1024;
/// TLS gives 16 KiB at a time; reads that need no waiting are joined up to this.
const JOIN_BYTES: usize = 256 * 1024;
/// Further behind than this, reads are spaced more widely.
const BEHIND_BYTES: u64 = 64 * 1024 * 1024;
/// A server that takes no status message for so long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A server is believed gone after so many of its own `wal_sender_timeout`s without a word, the
/// answers that it was asked for meanwhile included. TCP alone does not notice where a proxy or a
/// balancer keeps the connection open.
const SILENCE_TIMEOUTS: u32 = 2;
/// A wait for room is shown in steps of this.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// How long closing waits for the server to have read our last message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds from 1970 to 2000, PostgreSQL's epoch.
const PG_EPOCH: Duration = Duration::from_secs(946_684_800);

/// The way to the consumer, bounded in blocks and in bytes.
#[derive(Debug)]
pub(crate) struct Queue {
    blocks: mpsc::Sender<Block>,
    budget: Arc<Semaphore>,
    budget_bytes: u32,
}

impl Queue {
    pub(crate) fn new(budget_bytes: usize) -> (Self, mpsc::Receiver<Block>) {
        let (blocks, receiver) = mpsc::channel(QUEUE_BLOCKS);
        let budget_bytes = u32::try_from(budget_bytes.max(1)).unwrap_or(u32::MAX);
        let budget = Arc::new(Semaphore::new(budget_bytes as usize));
        (Self { blocks, budget, budget_bytes }, receiver)
    }

    /// The share of the budget of so many bytes; a block beyond it passes alone.
    fn share(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.budget_bytes)
    }

    /// Waits for room. `None` if the consumer is gone. Cancel safe.
    async fn room(&self, bytes: usize) -> Option<Room> {
        let share = Arc::clone(&self.budget).acquire_many_owned(self.share(bytes)).await.ok()?;
        let slot = self.blocks.clone().reserve_owned().await.ok()?;
        Some(Room { slot, share })
    }

    fn try_room(&self, bytes: usize) -> Option<Room> {
        let share = Arc::clone(&self.budget).try_acquire_many_owned(self.share(bytes)).ok()?;
        let slot = self.blocks.clone().try_reserve_owned().ok()?;
        Some(Room { slot, share })
    }
}

struct Room {
    slot: OwnedPermit<Block>,
    share: OwnedSemaphorePermit,
}

/// How often and how long what had arrived found no room.
#[derive(Default)]
struct Waits {
    count: u64,
    total: Duration,
    /// When the wait under way was last added to the total.
    since: Option<Instant>,
}

impl Waits {
    fn note(&mut self, is_waiting: bool, now: Instant) {
        match self.since {
            None if is_waiting => {
                self.count += 1;
                self.since = Some(now);
            }
            None => {}
            // whoever watches is not woken for less
            Some(since) if is_waiting && now - since < WAIT_STEP => {}
            Some(since) => {
                self.total += now - since;
                self.since = is_waiting.then_some(now);
            }
        }
    }
}

/// The state of the reader's loop.
pub(crate) struct Reader {
    conn: Conn,
    splitter: Splitter,
    pulse: Pulse,
    queue: Queue,
    ack: Arc<AckState>,
    progress: watch::Sender<Progress>,
    stop: oneshot::Receiver<()>,
    slot: String,
    options: StreamOptions,
    /// The end of the server's WAL when the stream began.
    start_wal_end: Lsn,
    received: Lsn,
    server_wal_end: Lsn,
    unread_since: Option<Instant>,
    waits: Waits,
    /// When something was last read, or the socket was last left unread on purpose.
    heard: Instant,
    /// A server that says nothing for so long, a request for a reply included, is gone.
    silence_max: Option<Duration>,
}

impl Reader {
    pub(crate) fn new(
        session: Session,
        facts: &ServerFacts,
        at: ResumePoint,
        options: StreamOptions,
        ends: (Queue, Arc<AckState>, watch::Sender<Progress>, oneshot::Receiver<()>),
    ) -> Self {
        let mut conn = session.conn;
        if options.coalesce == Coalesce::Auto {
            conn.coalesce();
        }
        let interval = match facts.wal_sender_timeout {
            Duration::ZERO => options.status_interval,
            timeout => options.status_interval.min(timeout / 3),
        };
        let (queue, ack, progress, stop) = ends;
        Self {
            conn,
            splitter: Splitter::new(session.buf, at.lsn, options.spool.clone().map(Spool::new)),
            pulse: Pulse::new(interval, at.lsn, Instant::now()),
            queue,
            ack,
            progress,
            stop,
            slot: at.slot,
            options,
            start_wal_end: facts.wal_end,
            received: at.lsn,
            server_wal_end: facts.wal_end,
            unread_since: None,
            waits: Waits::default(),
            heard: Instant::now(),
            // a server without this bound may be silent for as long as it likes
            silence_max: Some(facts.wal_sender_timeout * SILENCE_TIMEOUTS)
                .filter(|silence| !silence.is_zero()),
        }
    }

    /// Runs until the consumer stops it (`Ok`) or the stream ends (`Err`).
    pub(crate) async fn run(mut self) -> Result<()> {
        let ended = self.stream().await;
        if ended.is_err() {
            // what arrived whole before the end is still good; the first error is the one to tell
            let _ = self.offer();
        }
        ended
    }

    async fn stream(&mut self) -> Result<()> {
        let wake = tokio::time::sleep_until(Instant::now());
        tokio::pin!(wake);
        self.see_frames()?;
        loop {
            self.offer()?;
            let now = Instant::now();
            self.pulse.on_durable(self.ack.durable());
            if self.pulse.next_at() <= now {
                self.send_status(now).await?;
            }
            let is_replaying = self.splitter.is_replaying();
            let may_read = self.splitter.pending() < PENDING_BYTES_MAX && !is_replaying;
            self.note_unread(may_read, now);
            self.waits.note(self.splitter.has_block(), now);
            let wake_at = self.check_clocks(now)?;
            if wake.deadline() != wake_at {
                wake.as_mut().reset(wake_at);
            }
            self.publish_progress();
            let (next_len, has_block) = (self.splitter.next_len(), self.splitter.has_block());
            // every branch is cancel safe: bytes are in the buffer or still in the socket
            tokio::select! {
                biased;
                _ = &mut self.stop => return self.close().await,
                read = self.conn.read_buf(self.splitter.room()), if may_read => {
                    self.on_read(read)?;
                }
                room = self.queue.room(next_len), if has_block => {
                    match room {
                        Some(room) => self.push(room)?,
                        None => return self.close().await,
                    }
                }
                () = self.ack.raised.notified() => {}
                () = &mut wake => {}
            }
        }
    }

    fn on_read(&mut self, read: io::Result<usize>) -> Result<()> {
        match read {
            Ok(0) => return Err(self.broken(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(source) => return Err(self.broken(source)),
        }
        self.heard = Instant::now();
        let mut joined = 0;
        while self.conn.is_tls() && joined < JOIN_BYTES {
            match self.conn.read_buf(self.splitter.room()).now_or_never() {
                Some(Ok(more)) if more > 0 => joined += more,
                // an end or an error shows again at the next read
                _ => break,
            }
        }
        self.conn.set_behind(self.start_wal_end.0.saturating_sub(self.received.0) > BEHIND_BYTES);
        self.see_frames()?;
        if let Some(nap) = self.conn.take_nap() {
            self.offer()?;
            // blocking on purpose: nothing else runs on this thread, and while a timer runs the
            // socket would still wake it for every packet
            std::thread::sleep(nap);
        }
        Ok(())
    }

    /// Acts on every whole frame that has not been seen yet.
    fn see_frames(&mut self) -> Result<()> {
        while let Some(seen) = self.splitter.see()? {
            match seen {
                Seen::Data(position) => {
                    self.received = self.received.max(position);
                    self.pulse.on_data();
                }
                Seen::Keepalive { wal_end, reply_requested } => {
                    self.received = self.received.max(wal_end);
                    self.server_wal_end = wal_end;
                    self.pulse.on_keepalive(wal_end, reply_requested, Instant::now());
                }
                Seen::Other(message) => self.on_message(&message)?,
            }
        }
        self.splitter.discard_seen();
        Ok(())
    }

    /// A message beside the stream. None of them may pass unread: PostgreSQL 18 tells only by a
    /// warning that it skips a publication, and with it every change.
    fn on_message(&self, bytes: &[u8]) -> Result<()> {
        let parsed = Message::parse(&mut bytes.into());
        let closed = |reason: &str| Err(Error::Closed { reason: reason.to_owned() });
        match parsed.map_err(|error| Error::protocol(error.to_string()))? {
            Some(Message::NoticeResponse(body)) => {
                let notice = server_message(&mut body.fields())?;
                if notice.sqlstate == "55000" {
                    let publication = self.options.publication.clone();
                    tracing::error!(%notice, "the server skips the publication");
                    return Err(Error::PublicationMissing { publication });
                }
                tracing::warn!(%notice, "notice in the replication stream");
                Ok(())
            }
            Some(Message::ErrorResponse(body)) => {
                let context = format!("stream from slot {}", self.slot);
                let error = server_error(context, &mut body.fields());
                Err(classify(error, &self.slot, &self.options.publication))
            }
            Some(Message::ParameterStatus(status)) => self.check_parameter(status),
            Some(Message::CopyDone) => closed("copy done"),
            Some(Message::CommandComplete(_)) => closed("the server is shutting down"),
            Some(Message::ReadyForQuery(_)) => closed("ready for query"),
            _ => Err(Error::protocol("a message that does not belong into a stream")),
        }
    }

    /// A pinned setting cannot change under a running session; if a proxy reports one, stop.
    fn check_parameter(
        &self,
        status: postgres_protocol::message::backend::ParameterStatusBody,
    ) -> Result<()> {
        let malformed = |error: io::Error| Error::protocol(error.to_string());
        let name = status.name().map_err(malformed)?;
        let found = status.value().map_err(malformed)?;
        match crate::PINNED_SETTINGS.iter().find(|(pinned, _)| pinned.eq_ignore_ascii_case(name)) {
            Some((name, expected)) if !expected.eq_ignore_ascii_case(found) => {
                Err(Error::Setting {
                    name: (*name).to_owned(),
                    expected: (*expected).to_owned(),
                    found: found.to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Hands over to the consumer what there is room for at once.
    fn offer(&mut self) -> Result<()> {
        while self.splitter.has_block()
            && let Some(room) = self.queue.try_room(self.splitter.next_len())
        {
            self.push(room)?;
        }
        Ok(())
    }

    fn push(&mut self, room: Room) -> Result<()> {
        let (data, idle): (Bytes, Option<Lsn>) = self.splitter.take()?;
        room.slot.send(Block::new(data, idle, Some(room.share)));
        // a long replay leaves the socket unread, but as long as the consumer takes it, it moves
        self.unread_since = None;
        Ok(())
    }

    fn note_unread(&mut self, may_read: bool, now: Instant) {
        if !may_read {
            self.heard = now;
        }
        match (may_read, self.unread_since) {
            (true, _) => self.unread_since = None,
            (false, None) => self.unread_since = Some(now),
            (false, Some(_)) => {}
        }
    }

    /// Ends the stream if a bound is passed; else answers when to look again.
    fn check_clocks(&self, now: Instant) -> Result<Instant> {
        let mut wake_at = self.pulse.next_at();
        if let Some(since) = self.unread_since {
            let after = self.options.stall_disconnect;
            if since + after <= now {
                return Err(Error::Stalled { after });
            }
            wake_at = wake_at.min(since + after);
        }
        if let Some(silence) = self.silence_max {
            if self.heard + silence <= now {
                return Err(self.broken(io::ErrorKind::TimedOut.into()));
            }
            wake_at = wake_at.min(self.heard + silence);
        }
        if let Some((since, wal_end)) = self.pulse.draining() {
            let grace = self.options.drain_grace;
            if since + grace <= now {
                return Err(Error::Draining { wal_end, grace });
            }
            wake_at = wake_at.min(since + grace);
        }
        Ok(wake_at)
    }

    fn publish_progress(&self) {
        let now = Progress {
            received: self.received,
            durable: self.ack.durable().min(self.received),
            server_wal_end: self.server_wal_end,
            drain_requested: self.pulse.draining().is_some(),
            backpressured: self.unread_since.is_some(),
            full_count: self.waits.count,
            blocked: self.waits.total,
            spooled_bytes: self.splitter.spooled(),
        };
        self.progress.send_if_modified(|progress| {
            let modified = *progress != now;
            *progress = now;
            modified
        });
    }

    async fn send_status(&mut self, now: Instant) -> Result<()> {
        let durable = self.pulse.send(self.received, now);
        let mut out = Vec::with_capacity(64);
        let is_silent = self.silence_max.is_some_and(|silence| self.heard + silence / 2 <= now);
        frame::encode_status(&mut out, self.received, durable, pg_micros(), is_silent);
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let write = async {
            self.conn.write_all(bytes).await?;
            self.conn.flush().await
        };
        let written = tokio::time::timeout(WRITE_TIMEOUT, write).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|e| self.broken(e))
    }

    /// Sends the last position and waits, for a bounded time, until the server has taken it and
    /// released the slot.
    async fn close(&mut self) -> Result<()> {
        self.pulse.on_durable(self.ack.durable());
        self.send_status(Instant::now()).await?;
        // CopyDone, Terminate
        self.write(&[b'c', 0, 0, 0, 4, b'X', 0, 0, 0, 4]).await?;
        let mut scratch = vec![0; 64 * 1024];
        let drained = async { while matches!(self.conn.read(&mut scratch).await, Ok(1..)) {} };
        if tokio::time::timeout(CLOSE_TIMEOUT, drained).await.is_err() {
            tracing::debug!("the server was still sending when the stream was closed");
        }
        Ok(())
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Io { context: format!("streaming from {}", self.conn.peer()), source }
    }
}

/// Now, in microseconds since 2000-01-01; the server shows it as `reply_time`.
fn pg_micros() -> i64 {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since_2000 = since_1970.unwrap_or_default().saturating_sub(PG_EPOCH);
    i64::try_from(since_2000.as_micros()).unwrap_or_default()
}
