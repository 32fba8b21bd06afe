//! Where a stream starts and how it behaves.

use std::path::PathBuf;
use std::time::Duration;

use cdc_core::Lsn;

/// A position of one slot of one source, as the manifest stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// `system_identifier` of the cluster.
    pub system_id: u64,
    /// Timeline the position is on.
    pub timeline: u32,
    /// Slot.
    pub slot: String,
    /// End LSN of the last transaction that is held; after init the slot's consistent point.
    pub lsn: Lsn,
}

/// Whether reads are spaced so that the socket fills (see `conn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coalesce {
    /// On TCP, as long as measuring shows that it helps. Adds at most 5 ms to a row's way (10 ms
    /// under TLS), nothing on an idle stream.
    #[default]
    Auto,
    /// Every read at once.
    Off,
}

/// Where and how far transactions in progress are kept until they end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOptions {
    /// An existing directory, private to the process's user. Its files have no name and are gone
    /// with the process, however that ends.
    pub directory: PathBuf,
    /// Bound on the bytes of all of them in memory; more goes to disk.
    pub memory_bytes: usize,
    /// Bound on the bytes of all of them on disk (`limits.spool_bytes`); more ends the stream.
    pub disk_bytes: u64,
}

/// Settings of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamOptions {
    /// Publication to read, as PostgreSQL stores its name.
    pub publication: String,
    /// Oids of the tables that must be published as far as the source has them: of one that is left
    /// out the server would send nothing and say nothing.
    pub followed: Vec<u32>,
    /// The furthest position of which something is held, where that is beyond the resume point: a
    /// source that never reached it, or left it at a change of timeline, is refused.
    pub held: Lsn,
    /// Bound on the bytes between reader and consumer, blocks being consumed included. One row
    /// that is larger passes alone.
    pub buffer_bytes: usize,
    /// Read coalescing.
    pub coalesce: Coalesce,
    /// How long the socket may stay unread because the consumer has no room. A server that cannot
    /// send holds up its own checkpointer when it wants to invalidate the slot.
    pub stall_disconnect: Duration,
    /// Longest time between two status messages; a third of `wal_sender_timeout` if that is less.
    pub status_interval: Duration,
    /// How long a server that is shutting down is let wait for the acknowledgement.
    pub drain_grace: Duration,
    /// Asks the server for large transactions while they are open, which spares it from keeping
    /// them, and keeps them here. The events are the same; `None` leaves them to the server.
    pub spool: Option<SpoolOptions>,
}

impl StreamOptions {
    /// The defaults for a publication: 64 MiB, coalescing, 60 s to a stall, a status every 10 s,
    /// 5 s of drain, no spool.
    pub fn new(publication: impl Into<String>) -> Self {
        Self {
            publication: publication.into(),
            followed: Vec::new(),
            held: Lsn::ZERO,
            buffer_bytes: 64 * 1024 * 1024,
            coalesce: Coalesce::Auto,
            stall_disconnect: Duration::from_secs(60),
            status_interval: Duration::from_secs(10),
            drain_grace: Duration::from_secs(5),
            spool: None,
        }
    }
}

/// How far the stream is. Watch it to see lag, back-pressure and a server that wants to stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Highest position received.
    pub received: Lsn,
    /// Highest position acknowledged as durable.
    pub durable: Lsn,
    /// The server's own position in its last keepalive.
    pub server_wal_end: Lsn,
    /// The server is shutting down and waits for everything received to become durable: flush now.
    pub drain_requested: bool,
    /// The socket is unread because the consumer has no room.
    pub backpressured: bool,
    /// How often something was to be handed over and the consumer had no room.
    pub full_count: u64,
    /// How long the reader waited for that, in all.
    pub blocked: Duration,
    /// Bytes of transactions in progress that are kept, in memory and on disk, those included that
    /// have committed and are being handed over.
    pub spooled_bytes: u64,
}
