//! The simulated PostgreSQL: one database, one slot, and walsenders that speak the real protocol over
//! pipes.
//!
//! ```text
//! dial ─> connection task:  startup ─ queries ─ START_REPLICATION ─┬─ send what was committed
//!                                                                  └─ take status messages
//! ```
//! A status message is judged when it arrives: what it confirms must be in the committed manifest.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cdc_core::Lsn;
use cdc_wal::{Conn, Dialer, Endpoint, Host};
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use crate::check::Watch;
use crate::rng::Rng;
use crate::wire;
use crate::workload::Database;
use crate::world::{Life, START_MICROS, World, sleep_ms};

/// `system_identifier`.
pub(crate) const SYSTEM_ID: u64 = 7_301_234_567_890;
pub(crate) const SLOT: &str = "sim_slot";
pub(crate) const PUBLICATION: &str = "Sim Publication";

/// The server, shared by all connections.
pub(crate) struct Postgres {
    pub(crate) world: Arc<World>,
    watch: Arc<Watch>,
    state: Mutex<State>,
    /// Signalled at each commit and when the server goes down.
    changed: Notify,
}

pub(crate) struct State {
    pub(crate) db: Database,
    pub(crate) slot: Slot,
    rng: Rng,
    is_up: bool,
    /// Raised by each crash: connections of an older one are cut.
    boot: u64,
    connections: u64,
    /// PostgreSQL 14 sends transactions in which nothing of the publication changed.
    sends_empty: bool,
}

pub(crate) struct Slot {
    pub(crate) confirmed: u64,
    /// What a crash of the server goes back to.
    persisted: u64,
    active: Option<u64>,
}

impl Postgres {
    pub(crate) fn new(
        world: Arc<World>,
        watch: Arc<Watch>,
        db: Database,
        mut rng: Rng,
    ) -> Arc<Postgres> {
        let start = db.insert_at;
        let state = State {
            sends_empty: rng.percent(50),
            rng,
            slot: Slot { confirmed: start, persisted: start, active: None },
            db,
            is_up: true,
            boot: 0,
            connections: 0,
        };
        Arc::new(Postgres { world, watch, state: Mutex::new(state), changed: Notify::new() })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workload: steps of sessions until so many transactions are committed.
    pub(crate) async fn work(self: Arc<Postgres>, transactions: usize, mut rng: Rng) {
        loop {
            // bursts, and now and then nobody at work
            let pause = match rng.below(100) {
                0..70 => rng.between(0, 15),
                70..98 => rng.between(20, 200),
                _ => rng.between(1_000, 12_000),
            };
            sleep_ms(pause).await;
            let micros = START_MICROS + i64::try_from(self.world.millis()).unwrap_or(0) * 1000;
            let mut state = self.state();
            if !state.is_up {
                continue;
            }
            state.db.step(micros);
            let done = state.db.tape.len() >= transactions;
            drop(state);
            self.changed.notify_waiters();
            if done {
                return;
            }
        }
    }

    /// Sometimes writes down what the slot has confirmed, sometimes goes down.
    pub(crate) async fn go_down_sometimes(self: Arc<Postgres>, mean_ms: u64, mut rng: Rng) {
        loop {
            sleep_ms(rng.between(mean_ms / 2, mean_ms * 3 / 2)).await;
            let is_crash = rng.percent(60);
            {
                let mut state = self.state();
                if is_crash {
                    state.slot.confirmed = state.slot.persisted;
                }
                state.is_up = false;
                state.boot += 1;
                state.slot.active = None;
                state.db.crash();
                let confirmed = Lsn(state.slot.confirmed);
                self.world.log(format_args!("server down, crash {is_crash}, slot at {confirmed}"));
            }
            self.changed.notify_waiters();
            sleep_ms(rng.between(10, 4_000)).await;
            self.state().is_up = true;
            self.world.log(format_args!("server up"));
        }
    }

    /// Whoever has work to do finds the server running.
    pub(crate) fn come_up(&self) {
        self.state().is_up = true;
    }

    fn is_current(&self, boot: u64) -> bool {
        let state = self.state();
        state.is_up && state.boot == boot
    }
}

/// One daemon's way to the server.
pub(crate) struct SimDialer {
    pub(crate) server: Arc<Postgres>,
    pub(crate) life: Arc<Life>,
}

impl Dialer for SimDialer {
    fn dial<'a>(&'a self, _: &'a Endpoint, host: &'a Host) -> BoxFuture<'a, cdc_wal::Result<Conn>> {
        Box::pin(async move {
            self.life.pass().await;
            let (delay, room) = {
                let mut state = self.server.state();
                (state.rng.between(1, 30), [512, 4096, 65_536][state.rng.index(3)])
            };
            sleep_ms(delay).await;
            self.life.pass().await;
            let (boot, number) = {
                let mut state = self.server.state();
                if !state.is_up {
                    let source = io::ErrorKind::ConnectionRefused.into();
                    return Err(cdc_wal::Error::Connect { target: host.to_string(), source });
                }
                state.connections += 1;
                (state.boot, state.connections)
            };
            let (ours, theirs) = tokio::io::duplex(room);
            let (reader, writer) = tokio::io::split(theirs);
            let connection = Connection {
                server: Arc::clone(&self.server),
                life: Arc::clone(&self.life),
                boot,
                number,
            };
            tokio::spawn(connection.serve(reader, writer));
            Ok(Conn::piped(ours, host.to_string()))
        })
    }

    fn is_in_process(&self) -> bool {
        true
    }
}

/// The server's end of a connection.
struct Connection {
    server: Arc<Postgres>,
    life: Arc<Life>,
    boot: u64,
    number: u64,
}

type Input = ReadHalf<DuplexStream>;
type Output = WriteHalf<DuplexStream>;

async fn receive(input: &mut Input) -> io::Result<(u8, Vec<u8>)> {
    let tag = input.read_u8().await?;
    let length = input.read_u32().await?;
    let mut body = vec![0; (length as usize).saturating_sub(4)];
    input.read_exact(&mut body).await?;
    Ok((tag, body))
}

impl Connection {
    async fn serve(self, mut input: Input, mut output: Output) {
        let ended = tokio::select! {
            biased;
            () = self.life.died() => Err(io::ErrorKind::ConnectionReset.into()),
            ended = self.talk(&mut input, &mut output) => ended,
        };
        let (number, life) = (self.number, self.life.number);
        let how = ended.err().map_or_else(|| "closed".to_owned(), |error| error.kind().to_string());
        self.server.world.log(format_args!("connection {number} of {life} ended: {how}"));
        drop((input, output));
        // the walsender of a client that has gone notices after a while
        let delay = {
            let mut state = self.server.state();
            if state.rng.percent(30) { state.rng.between(100, 3_000) } else { 0 }
        };
        sleep_ms(delay).await;
        let mut state = self.server.state();
        if state.slot.active == Some(number) {
            state.slot.active = None;
        }
    }

    async fn talk(&self, input: &mut Input, output: &mut Output) -> io::Result<()> {
        let length = input.read_u32().await?;
        let mut startup = vec![0; (length as usize).saturating_sub(4)];
        input.read_exact(&mut startup).await?;
        output.write_all(&wire::welcome()).await?;
        loop {
            let (tag, body) = receive(input).await?;
            if tag != b'Q' {
                return Ok(());
            }
            let sql = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
            if !self.server.is_current(self.boot) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if sql.starts_with("START_REPLICATION") {
                return self.start(&sql, input, output).await;
            }
            let mut answer: Vec<u8> = Vec::new();
            for row in self.answer(&sql) {
                answer.extend(wire::data_row(&row));
            }
            answer.extend(wire::message(b'C', b"SELECT\0"));
            answer.extend(wire::message(b'Z', b"I"));
            output.write_all(&answer).await?;
        }
    }

    fn answer(&self, sql: &str) -> Vec<Vec<String>> {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let state = self.server.state();
        if sql.starts_with("IDENTIFY_SYSTEM") {
            let end = Lsn(state.db.insert_at).to_string();
            return vec![row(&[&SYSTEM_ID.to_string(), "1", &end, "shop"])];
        }
        if sql.contains("pg_settings") {
            let pinned = cdc_wal::PINNED_SETTINGS;
            let mut rows: Vec<Vec<String>> =
                pinned.iter().map(|(name, value)| row(&[&name.to_lowercase(), value])).collect();
            rows.push(row(&["server_version_num", "150018"]));
            rows.push(row(&["wal_sender_timeout", "60000"]));
            return rows;
        }
        if sql.contains("pg_replication_slots") {
            let pid = state.slot.active.unwrap_or(0).to_string();
            let confirmed = Lsn(state.slot.confirmed).to_string();
            return vec![row(&["pgoutput", "shop", "reserved", &confirmed, &pid])];
        }
        vec![row(&["1"])]
    }

    async fn start(&self, sql: &str, input: &mut Input, output: &mut Output) -> io::Result<()> {
        let asked = sql.split_whitespace().nth(4).and_then(|text| text.parse::<Lsn>().ok());
        let asked = asked.ok_or(io::ErrorKind::InvalidData)?.0;
        let Some(from) = self.take_slot(asked) else {
            let busy = "replication slot \"sim_slot\" is active for PID 1";
            return output.write_all(&wire::error("55006", busy)).await;
        };
        self.server.world.log(format_args!(
            "connection {} of {} streams from {} (asked {})",
            self.number,
            self.life.number,
            Lsn(from),
            Lsn(asked)
        ));
        output.write_all(&wire::message(b'W', &[0, 0, 0])).await?;
        let sent = Mutex::new(asked.max(from));
        tokio::select! {
            biased;
            ended = self.take_statuses(input, &sent) => ended,
            ended = self.send(from, output, &sent) => ended,
        }
    }

    /// Where the stream begins; `None` if another connection has the slot.
    fn take_slot(&self, asked: u64) -> Option<u64> {
        let mut state = self.server.state();
        if state.slot.active.is_some_and(|active| active != self.number) {
            return None;
        }
        state.slot.active = Some(self.number);
        // a server never goes below what is asked for; sending more must do no harm
        let confirmed = state.slot.confirmed;
        Some(if state.rng.percent(20) { confirmed } else { asked.max(confirmed) })
    }

    /// Judges each status message and moves the slot.
    async fn take_statuses(&self, input: &mut Input, sent: &Mutex<u64>) -> io::Result<()> {
        loop {
            let (tag, body) = receive(input).await?;
            if tag != b'd' {
                return Ok(());
            }
            if !self.server.is_current(self.boot) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let flush = body.get(9..17).and_then(|bytes| bytes.try_into().ok());
            let flush = flush.map(u64::from_be_bytes).ok_or(io::ErrorKind::InvalidData)?;
            let world = &self.server.world;
            let covered = self.server.watch.covered();
            if Lsn(flush) > covered {
                world.violation(format!(
                    "I1: {} is confirmed while the manifest covers {covered}",
                    Lsn(flush)
                ));
            }
            let sent = *sent.lock().unwrap_or_else(PoisonError::into_inner);
            if flush > sent {
                world.violation(format!("{} is confirmed, {} was sent", Lsn(flush), Lsn(sent)));
            }
            let mut state = self.server.state();
            if flush > state.slot.confirmed {
                state.slot.confirmed = flush;
                world.log(format_args!("slot confirmed {}", Lsn(flush)));
            }
            if state.rng.percent(20) {
                state.slot.persisted = state.slot.confirmed;
            }
        }
    }

    async fn send(&self, from: u64, output: &mut Output, sent: &Mutex<u64>) -> io::Result<()> {
        let mut known = vec![false; self.server.state().db.tables.len()];
        // the first transaction whose commit record is not below the start
        let mut next = {
            let state = self.server.state();
            state.db.tape.partition_point(|txn| txn.commit_lsn < from)
        };
        loop {
            let changed = self.server.changed.notified();
            if !self.server.is_current(self.boot) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let ready = {
                let state = self.server.state();
                state.db.tape.get(next).map(|txn| {
                    let is_sent = state.sends_empty || !txn.changes.is_empty();
                    let frames = wire::transaction(txn, &state.db.tables, &mut known);
                    (if is_sent { frames } else { Vec::new() }, txn.end_lsn)
                })
            };
            if let Some((frames, end)) = ready {
                next += 1;
                self.send_frames(frames, output).await?;
                let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                *sent = (*sent).max(end);
                continue;
            }
            let (wal_end, keepalive, wants_reply) = {
                let mut state = self.server.state();
                (state.db.insert_at, state.rng.percent(30), state.rng.percent(10))
            };
            if keepalive {
                {
                    let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
                    *sent = (*sent).max(wal_end);
                }
                output.write_all(&wire::keepalive(wal_end, wants_reply)).await?;
            }
            let _ = tokio::time::timeout(Duration::from_secs(5), changed).await;
        }
    }

    /// Frames in pieces of any size, unless the connection is cut between two of them.
    async fn send_frames(&self, frames: Vec<Vec<u8>>, output: &mut Output) -> io::Result<()> {
        let cut = self.server.world.faults().cut;
        for frame in frames {
            let (is_cut, piece) = {
                let mut state = self.server.state();
                (state.rng.ppm(cut), state.rng.between(1, 400))
            };
            if is_cut {
                let half = &frame[..frame.len() / 2];
                output.write_all(half).await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if piece < 40 {
                for piece in frame.chunks(usize::try_from(piece).unwrap_or(1)) {
                    output.write_all(piece).await?;
                }
            } else {
                output.write_all(&frame).await?;
            }
        }
        Ok(())
    }
}
