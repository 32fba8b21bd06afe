//! What is checked before the first byte of the stream: the right system, pinned settings, a slot
//! that still holds the position, a publication that exists.

use std::collections::BTreeMap;
use std::time::Duration;

use cdc_core::{Lsn, TableName, quote_ident, quote_literal};

use super::query::Row;
use super::{Session, timeline};
use crate::conn::assert_pinned;
use crate::stream::{ResumePoint, StreamOptions};
use crate::{Error, Result, ServerClass};

const OLDEST_VERSION: u32 = 140_000;

/// What the server said about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFacts {
    pub(crate) version_num: u32,
    /// The timeline it writes, the position's own or a successor that holds it.
    pub(crate) timeline: u32,
    pub(crate) wal_sender_timeout: Duration,
    /// The end of its WAL when the stream was opened.
    pub(crate) wal_end: Lsn,
}

/// Checks everything and starts the stream at the resume point.
pub(crate) async fn start(
    session: &mut Session,
    at: &ResumePoint,
    options: &StreamOptions,
) -> Result<ServerFacts> {
    // what is held may reach beyond the position to resume from
    let held = options.held.max(at.lsn);
    let Identity { timeline, wal_end, database } = check_identity(session, at, held).await?;
    if held > wal_end {
        // a source restored from an older backup: acknowledging the position would make the server
        // skip everything it commits until it gets there
        return Err(Error::IdentityChanged {
            what: "end of the wal",
            expected: format!("a source that has reached {held}"),
            found: wal_end.to_string(),
        });
    }
    let Settings { version_num, wal_sender_timeout } = check_settings(session).await?;
    check_publication(session, &options.publication).await?;
    check_followed(session, options, version_num).await?;
    check_slot(session, at, &database).await?;
    start_replication(session, at, options, version_num).await?;
    Ok(ServerFacts { version_num, timeline, wal_sender_timeout, wal_end })
}

/// What `IDENTIFY_SYSTEM` says, found to fit.
struct Identity {
    timeline: u32,
    wal_end: Lsn,
    database: String,
}

/// Compares the cluster with the one that the position belongs to. Another timeline is accepted
/// only if it branched off behind everything that is held.
async fn check_identity(session: &mut Session, at: &ResumePoint, held: Lsn) -> Result<Identity> {
    let rows = session.query("identify the system", "IDENTIFY_SYSTEM").await?;
    let field = |at: usize| rows.first().map(|row| text(row, at)).unwrap_or_default();
    let differs = |what, expected: String, found: &str| Error::IdentityChanged {
        what,
        expected,
        found: found.to_owned(),
    };
    if field(0).parse() != Ok(at.system_id) {
        return Err(differs("system identifier", at.system_id.to_string(), field(0)));
    }
    let timeline: u32 =
        field(1).parse().map_err(|_| Error::protocol("IDENTIFY_SYSTEM has no timeline"))?;
    let wal_end =
        field(2).parse().map_err(|_| Error::protocol("IDENTIFY_SYSTEM has no position"))?;
    let identity = Identity { timeline, wal_end, database: field(3).to_owned() };
    if timeline != at.timeline {
        timeline::check_switch(session, at.timeline, timeline, held).await?;
    }
    Ok(identity)
}

/// What matters of the settings of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) version_num: u32,
    wal_sender_timeout: Duration,
}

/// Checks that the server is one that is supported and every pinned setting as it must be.
pub(crate) async fn check_settings(session: &mut Session) -> Result<Settings> {
    let mut settings = read_settings(session).await?;
    assert_pinned(&settings)?;
    let mut number = |name: &str| settings.remove(name).unwrap_or_default();
    let version = number("server_version_num");
    let version_num = version.parse().unwrap_or_default();
    if version_num < OLDEST_VERSION {
        return Err(Error::Version { found: version });
    }
    let millis = number("wal_sender_timeout").parse().unwrap_or_default();
    Ok(Settings { version_num, wal_sender_timeout: Duration::from_millis(millis) })
}

async fn read_settings(session: &mut Session) -> Result<BTreeMap<String, String>> {
    let names: Vec<String> = crate::PINNED_SETTINGS
        .iter()
        .map(|(name, _)| *name)
        .chain(["server_version_num", "wal_sender_timeout"])
        .map(|name| quote_literal(&name.to_ascii_lowercase()))
        .collect();
    let sql = format!(
        "SELECT pg_catalog.lower(name), setting FROM pg_catalog.pg_settings WHERE pg_catalog.lower(name) IN ({})",
        names.join(", ")
    );
    let rows = session.query("read the session settings", &sql).await?;
    Ok(rows.iter().map(|row| (text(row, 0).to_owned(), text(row, 1).to_owned())).collect())
}

async fn check_publication(session: &mut Session, publication: &str) -> Result<()> {
    let name = quote_literal(publication);
    let sql = format!("SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = {name}");
    let rows = session.query("look for the publication", &sql).await?;
    match rows.is_empty() {
        true => Err(Error::PublicationMissing { publication: publication.to_owned() }),
        false => Ok(()),
    }
}

/// Looks for tables that are followed and that the publication leaves out, by the names they have
/// now.
async fn check_followed(
    session: &mut Session,
    options: &StreamOptions,
    version_num: u32,
) -> Result<()> {
    if options.followed.is_empty() {
        return Ok(());
    }
    let sql = unpublished(&options.followed, &options.publication, version_num);
    let rows = session.query("read the tables of the publication", &sql).await?;
    if rows.is_empty() {
        return Ok(());
    }
    let tables: Vec<String> =
        rows.iter().map(|row| TableName::new(text(row, 0), text(row, 1)).to_string()).collect();
    let publication = options.publication.clone();
    Err(Error::Unpublished { publication, tables: tables.join(", ") })
}

/// The query for tables that a publication leaves out. It reads catalogs only: `pg_publication_tables`
/// opens the tables, and what the session has cached of a table before it decodes is not what the
/// table was like at the changes to come, which would then be described as it is today.
fn unpublished(oids: &[u32], publication: &str, version_num: u32) -> String {
    let oids: Vec<String> = oids.iter().map(u32::to_string).collect();
    let lineage = "SELECT c.oid UNION ALL SELECT a.relid::oid FROM pg_catalog.pg_partition_ancestors(c.oid) a";
    let by_schema = if version_num < 150_000 {
        String::new()
    } else {
        format!(
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s \
             JOIN pg_catalog.pg_class l ON l.relnamespace = s.pnnspid \
             WHERE s.pnpubid = p.oid AND l.oid IN ({lineage}))"
        )
    };
    format!(
        "SELECT n.nspname, c.relname FROM pg_catalog.pg_publication p, pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE p.pubname = {} AND c.oid IN ({}) AND (c.relkind = 'p' AND NOT p.pubviaroot \
           OR NOT p.puballtables AND NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r \
             WHERE r.prpubid = p.oid AND r.prrelid IN ({lineage})){by_schema})",
        quote_literal(publication),
        oids.join(", ")
    )
}

async fn check_slot(session: &mut Session, at: &ResumePoint, database: &str) -> Result<()> {
    let sql = format!(
        "SELECT coalesce(plugin, ''), coalesce(database, ''), coalesce(wal_status, ''), \
         coalesce(confirmed_flush_lsn::text, ''), coalesce(active_pid, 0), \
         coalesce(pg_catalog.to_jsonb(s)->>'invalidation_reason', '') \
         FROM pg_catalog.pg_replication_slots s WHERE slot_name = {}",
        quote_literal(&at.slot)
    );
    let rows = session.query("look for the slot", &sql).await?;
    let slot = at.slot.clone();
    let Some(row) = rows.first() else { return Err(Error::SlotMissing { slot }) };
    if text(row, 0) != "pgoutput" {
        let reason = format!("its plugin is `{}`, not pgoutput", text(row, 0));
        return Err(Error::SlotUnusable { slot, reason });
    }
    if text(row, 1) != database {
        let reason = format!("it belongs to database {}, not {database}", text(row, 1));
        return Err(Error::SlotUnusable { slot, reason });
    }
    if text(row, 2) == "lost" || !text(row, 5).is_empty() {
        // PostgreSQL 17 and newer say why; before, removed WAL was the only reason there was
        let reason = match text(row, 5) {
            "" | "wal_removed" => "its wal was removed".to_owned(),
            "idle_timeout" => "idle_replication_slot_timeout".to_owned(),
            other => other.to_owned(),
        };
        return Err(Error::SlotLost { slot, reason });
    }
    let confirmed = text(row, 3).parse().unwrap_or(Lsn::ZERO);
    if confirmed > at.lsn {
        return Err(Error::Gap { slot, confirmed, resume: at.lsn });
    }
    match text(row, 4).parse() {
        Ok(0) | Err(_) => Ok(()),
        Ok(pid) => Err(Error::SlotBusy { slot, pid }),
    }
}

async fn start_replication(
    session: &mut Session,
    at: &ResumePoint,
    options: &StreamOptions,
    version_num: u32,
) -> Result<()> {
    let command = start_command(at, options, version_num);
    let context = format!("start replication from slot {}", at.slot);
    session
        .start_copy_both(&context, &command)
        .await
        .map_err(|error| classify(error, &at.slot, &options.publication))
}

/// Protocol 2 is the newest of PostgreSQL 14 and 15 that we use, 4 that of 16 and later. Messages
/// are asked for, and transactions in progress if there is a place for them; two-phase commit is
/// not, nor `streaming 'parallel'`, which interleaves no less and says nothing more that is needed.
fn start_command(at: &ResumePoint, options: &StreamOptions, version_num: u32) -> String {
    let proto = if version_num >= 160_000 { 4 } else { 2 };
    // the option holds a list of identifiers: unquoted, the server would fold upper case
    let names = quote_ident(&options.publication).replace('\'', "''");
    let streaming = if options.spool.is_some() { ", streaming 'on'" } else { "" };
    format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '{proto}', publication_names '{names}', messages 'true'{streaming})",
        quote_ident(&at.slot),
        at.lsn
    )
}

/// Gives the server's errors about slot and publication their own variants.
pub(super) fn classify(error: Error, slot: &str, publication: &str) -> Error {
    let Error::Server { message, .. } = &error else { return error };
    let slot = || slot.to_owned();
    match (message.class(), message.sqlstate.as_str()) {
        (ServerClass::SlotBusy, _) => Error::SlotBusy { slot: slot(), pid: 0 },
        (ServerClass::SlotLost, "42704") => Error::SlotMissing { slot: slot() },
        (ServerClass::SlotLost, _) => {
            let reason = message.detail.clone().unwrap_or_else(|| message.message.clone());
            Error::SlotLost { slot: slot(), reason }
        }
        (_, "42704") if message.message.contains(publication) => {
            Error::PublicationMissing { publication: publication.to_owned() }
        }
        _ => error,
    }
}

pub(super) fn text(row: &Row, at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::SpoolOptions;

    fn at() -> ResumePoint {
        ResumePoint { system_id: 1, timeline: 1, slot: "s".into(), lsn: Lsn(0x16_0000_00AB) }
    }

    #[test]
    fn trap_11_publication_names_keep_their_case_and_quotes() {
        let options = StreamOptions::new("My \"Pub\"'s");
        let command = start_command(&at(), &options, 150_000);
        assert_eq!(
            command,
            "START_REPLICATION SLOT \"s\" LOGICAL 16/AB (proto_version '2', publication_names '\"My \"\"Pub\"\"''s\"', messages 'true')"
        );
    }

    #[test]
    fn trap_27_the_protocol_follows_the_server_version() {
        for (version, proto) in
            [(140_023, "'2'"), (150_018, "'2'"), (160_014, "'4'"), (180_004, "'4'")]
        {
            let mut options = StreamOptions::new("p");
            let command = start_command(&at(), &options, version);
            assert!(command.contains(&format!("proto_version {proto}")), "{command}");
            assert!(!command.contains("streaming") && !command.contains("two_phase"), "{command}");
            let directory = std::path::PathBuf::from("/spool");
            options.spool = Some(SpoolOptions { directory, memory_bytes: 1, disk_bytes: 1 });
            let command = start_command(&at(), &options, version);
            assert!(command.contains(&format!("proto_version {proto}")), "{command}");
            assert!(command.ends_with(", streaming 'on')"), "{command}");
        }
    }
}
