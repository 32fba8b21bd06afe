//! One position at which both sides stand: the exported snapshot of a temporary slot on the source,
//! and a version of the manifest that covers exactly what that snapshot sees.
//!
//! ```text
//! daemon runs:  hold intake ─> slot at L ─> "cut at L" ─> the daemon's batch ends there ─> its tables
//! no daemon:    take the lease ─> slot at L ─> read the stream to L: nothing of ours in it ─> manifest
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_core::{Lsn, TableName};
use cdc_manifest::Manifest;
use cdc_wal::{
    Event, RelationCache, ResumePoint, SlotSnapshot, SlotSpec, Source, StreamOptions, WalStream,
};
use uuid::Uuid;

use super::VerifySettings;
use crate::Error;
use crate::control::{Answered, Command, ControlClient, Cut, Held};
use crate::cut::cut_of;
use crate::lake::Lake;
use crate::lease::Lease;

/// How much earlier than the hold the creation of the slot is given up.
const HOLD_RESERVE: Duration = Duration::from_secs(2);
/// How long one transaction is waited for while intake is held.
const SLOT_WAIT: Duration = Duration::from_secs(5);
/// The same without a daemon, where nobody waits.
const SLOT_WAIT_ALONE: Duration = Duration::from_secs(30);

/// Who stands at the position with us.
pub(crate) enum Standing {
    /// A daemon, which goes on meanwhile.
    Daemon(ControlClient),
    /// Nobody else: the lease is ours. The lake is boxed for its size.
    Alone { lake: Box<Lake>, _lease: Lease },
}

/// Both sides at one position.
pub(crate) struct Position {
    pub(crate) slot: SlotSnapshot,
    pub(crate) epoch: u64,
    pub(crate) tables: BTreeMap<TableName, PinnedTable>,
    pub(crate) standing: Standing,
}

/// A table of the lake at the position. Later commits do not touch what it names.
#[derive(Clone, Debug)]
pub(crate) struct PinnedTable {
    pub(crate) metadata_location: String,
    pub(crate) snapshot_id: Option<i64>,
    pub(crate) schema_version: Option<u32>,
}

/// Brings both sides to one position. `oids` are the source's tables that will be copied.
pub(crate) async fn reach(
    settings: &VerifySettings,
    source: &Source,
    oids: Vec<u32>,
) -> Result<Position, Error> {
    match Lease::take(&settings.lake.state_dir) {
        Ok(lease) => alone(settings, source, oids, lease).await,
        Err(Error::Leased { .. }) => with_daemon(settings, source, oids).await,
        Err(error) => Err(error),
    }
}

async fn with_daemon(
    settings: &VerifySettings,
    source: &Source,
    oids: Vec<u32>,
) -> Result<Position, Error> {
    let client = ControlClient::open(&settings.lake.state_dir)?;
    let max_millis = u64::try_from(settings.hold.as_millis()).unwrap_or(u64::MAX);
    let held: Answered<Held> = client.ask(Command::Hold { max_millis }, settings.timeout).await?;
    let mut spec = slot_spec(oids, SLOT_WAIT);
    spec.limit = Some(settings.hold.saturating_sub(HOLD_RESERVE));
    let slot = match source.create_slot(&spec).await {
        Ok(slot) => slot,
        Err(error) => {
            let release = Command::Release { hold: held.id };
            if let Err(error) = client.ask::<()>(release, settings.hold).await {
                tracing::debug!(error = cdc_core::chain(&error), "hold not released");
            }
            return Err(error.into());
        }
    };
    let lsn = slot.consistent_point;
    if lsn <= held.value.received {
        // the daemon reads another server than we do
        let reason = format!("it has received {} and the slot is at {lsn}", held.value.received);
        return Err(Error::Refused { reason });
    }
    let command = Command::Cut { hold: held.id, lsn };
    let cut: Cut = client.ask(command, settings.timeout).await?.value;
    let tables = pinned(&cut);
    Ok(Position { slot, epoch: cut.epoch, tables, standing: Standing::Daemon(client) })
}

async fn alone(
    settings: &VerifySettings,
    source: &Source,
    oids: Vec<u32>,
    lease: Lease,
) -> Result<Position, Error> {
    let lake = Lake::open(&settings.lake)?;
    let manifest = lake.manifests.require().await?.value;
    let slot = source.create_slot(&slot_spec(oids, SLOT_WAIT_ALONE)).await?;
    expect_nothing_pending(source, &manifest, slot.consistent_point).await?;
    let cut = cut_of(&manifest);
    let standing = Standing::Alone { lake: Box::new(lake), _lease: lease };
    Ok(Position { slot, epoch: cut.epoch, tables: pinned(&cut), standing })
}

fn slot_spec(oids: Vec<u32>, wait: Duration) -> SlotSpec {
    let mut spec = SlotSpec::new(format!("pgcdc_verify_{}", Uuid::new_v4().simple()));
    (spec.temporary, spec.wait, spec.tables) = (true, wait, oids);
    spec
}

fn pinned(cut: &Cut) -> BTreeMap<TableName, PinnedTable> {
    let pin = |(name, table): (&String, &crate::control::TableCut)| {
        let pinned = PinnedTable {
            metadata_location: table.metadata_location.clone()?,
            snapshot_id: match &table.snapshot_id {
                Some(id) => Some(id.parse().ok()?),
                None => None,
            },
            schema_version: table.schema_version,
        };
        Some((name.parse().ok()?, pinned))
    };
    cut.tables.iter().filter_map(pin).collect()
}

/// Reads the stream of the lake's slot from where the lake stands to `until`, acknowledging nothing
/// new: a change in it is one that the lake does not have.
pub(crate) async fn expect_nothing_pending(
    source: &Source,
    manifest: &Manifest,
    until: Lsn,
) -> Result<(), Error> {
    let covered = manifest.covered_lsn;
    if covered > until {
        let detail = format!("the lake covers {covered}, the source stands at {until} only");
        return Err(Error::Gap { detail });
    }
    let at = ResumePoint {
        system_id: manifest.source.system_identifier,
        timeline: manifest.source.timeline,
        slot: manifest.source.slot.clone(),
        lsn: covered,
    };
    let options = StreamOptions::new(&manifest.source.publication);
    let mut stream = WalStream::open(source.connector(), at, options).await?;
    let pending = has_changes_below(&mut stream, until).await;
    stream.close().await?;
    if pending? { Err(Error::Behind { covered }) } else { Ok(()) }
}

async fn has_changes_below(stream: &mut WalStream, until: Lsn) -> Result<bool, Error> {
    let mut relations = RelationCache::new();
    loop {
        let mut block = stream.next_block().await?.ok_or(Error::StreamEnded)?;
        let mut events = block.events(&mut relations);
        while let Some(event) = events.next()? {
            match event {
                Event::Begin { final_lsn, .. } if final_lsn >= until => return Ok(false),
                Event::Change { .. } => return Ok(true),
                Event::Idle(mark) if mark.wal_end >= until => return Ok(false),
                _ => {}
            }
        }
    }
}
