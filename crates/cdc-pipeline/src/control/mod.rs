//! The control channel: how another process of the operator asks the running daemon for something.
//!
//! ```text
//! client ── insert ──> control_request ── poll ──> server ── bounded channel ──> ingest loop
//!    ▲                  (state.db)  ▲                 ▲                              │
//!    └── poll status ───────┘       └──── answer ─────┴─────────── oneshot ──────────┘
//! ```
//! A database file needs no port, no socket path and no other permission than the state directory
//! has, and works alike on every platform. One request is handed on at a time.

mod client;
mod request;
mod server;
mod store;

pub(crate) use client::{Answered, ControlClient};
pub(crate) use request::{
    Command, CompactOrder, CompactState, Cut, Held, TableCut, TableOrder, VerifiedRecord,
};
pub(crate) use server::{ASKS_WAITING_MAX, Ask, ControlServer, Reply};

use crate::Error;

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|source| Error::Worker { task: "control requests", source })?
}
