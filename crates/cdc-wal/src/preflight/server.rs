//! Checks of the server as a whole: its version, settings and room, and the role's privileges.

use super::Want;
use super::probe::ServerProbe;
use super::remedy;
use super::report::Check;
use crate::control::{SourceFacts, Transport};

/// The first server on whose standbys a logical slot can be made.
const STANDBY_SLOTS_FROM: u32 = 160_000;
/// The first server with failover slots.
const FAILOVER_FROM: u32 = 170_000;
/// The slot, and a temporary one for a table added later.
const SLOTS_NEEDED: i64 = 2;
/// The stream, and the creation of a slot beside it.
const SENDERS_NEEDED: i64 = 2;
/// A walsender that is given less time to answer is often cut off by a short stall.
const SENDER_TIMEOUT_MIN_MS: i64 = 5_000;

pub(super) fn checks(
    facts: &SourceFacts,
    probe: &ServerProbe,
    want: &Want,
    slot_exists: bool,
) -> Vec<Check> {
    let mut checks = vec![
        connection(facts),
        tls(facts),
        // a session whose settings are not the pinned ones is refused when it is opened
        Check::pass("session settings", "pinned and in force"),
        wal_level(facts),
        replication_privilege(facts, probe),
        slot_headroom(facts, probe, slot_exists),
        sender_headroom(facts, probe),
        session_headroom(facts, probe, want),
        retention(facts, probe),
    ];
    checks.extend(standby(facts));
    checks.extend(idle_slot_timeout(facts, probe));
    checks.extend(sender_timeout(facts, probe));
    checks.extend(encoding(facts));
    checks.extend(failover(facts, want));
    checks.extend(iam(facts, probe, want));
    checks
}

fn connection(facts: &SourceFacts) -> Check {
    let SourceFacts { version_text, provider, database, user, .. } = facts;
    let detail = format!("{version_text} ({provider}), database {database} as {user}");
    Check::pass("connection", detail)
}

fn tls(facts: &SourceFacts) -> Check {
    match &facts.transport {
        Transport::Tls(version) => Check::pass("tls", version.clone()),
        Transport::UnixSocket => Check::pass("tls", "not needed on a unix socket"),
        Transport::Loopback => Check::pass("tls", "off, within this machine"),
        Transport::Plain => Check::warn(
            "tls",
            "rows and credentials cross the network unencrypted",
            "add sslmode=verify-full&sslrootcert=… to source.postgres.url",
        ),
    }
}

fn wal_level(facts: &SourceFacts) -> Check {
    match facts.wal_level.as_str() {
        "logical" => Check::pass("wal_level", "logical"),
        other => Check::fail("wal_level", other, remedy::logical_wal(facts.provider)),
    }
}

fn replication_privilege(facts: &SourceFacts, probe: &ServerProbe) -> Check {
    let name = "replication privilege";
    if probe.superuser || probe.replication {
        return Check::pass(name, format!("{} may replicate", facts.user));
    }
    if probe.rds_replication {
        return Check::pass(name, format!("{} is a member of rds_replication", facts.user));
    }
    let remedy = remedy::replication_role(facts.provider, &facts.user);
    Check::fail(name, format!("{} may not replicate", facts.user), remedy)
}

fn slot_headroom(facts: &SourceFacts, probe: &ServerProbe, slot_exists: bool) -> Check {
    let name = "slot headroom";
    let total = probe.number("max_replication_slots").unwrap_or(0);
    let free = total - probe.slots_used;
    let needed = SLOTS_NEEDED - i64::from(slot_exists);
    let detail = format!("{free} of {total} free");
    let more = probe.slots_used + needed;
    let remedy = || remedy::set(facts.provider, "max_replication_slots", &more.to_string(), true);
    match free {
        0.. if free >= needed => Check::pass(name, detail),
        _ if free >= 1 || slot_exists => Check::warn(
            name,
            format!("{detail}: none is left for the temporary slot of table add and verify"),
            remedy(),
        ),
        _ => Check::fail(name, detail, remedy()),
    }
}

fn sender_headroom(facts: &SourceFacts, probe: &ServerProbe) -> Check {
    let name = "wal sender headroom";
    let total = probe.number("max_wal_senders").unwrap_or(0);
    let free = total - probe.senders_used;
    let detail = format!("{free} of {total} free");
    let more = (probe.senders_used + SENDERS_NEEDED).to_string();
    let remedy = || remedy::set(facts.provider, "max_wal_senders", &more, true);
    match free {
        SENDERS_NEEDED.. => Check::pass(name, detail),
        1 => Check::warn(name, detail, remedy()),
        _ => Check::fail(name, detail, remedy()),
    }
}

fn session_headroom(facts: &SourceFacts, probe: &ServerProbe, want: &Want) -> Check {
    let name = "connection headroom";
    let total = probe.number("max_connections").unwrap_or(0)
        - probe.number("superuser_reserved_connections").unwrap_or(0);
    let free = (total - probe.sessions_used).max(0);
    let detail = format!("{free} of {total} free, {} wanted", want.sessions);
    if free >= i64::from(want.sessions) {
        return Check::pass(name, detail);
    }
    let more = (probe.sessions_used + i64::from(want.sessions) + total - free).to_string();
    let remedy = remedy::set(facts.provider, "max_connections", &more, true);
    Check::warn(name, detail, format!("lower init.parallel_workers, or {remedy}"))
}

fn retention(facts: &SourceFacts, probe: &ServerProbe) -> Check {
    let name = "wal retention";
    match probe.number("max_slot_wal_keep_size") {
        None | Some(..0) => Check::pass(
            name,
            "unlimited: while pgcdc is stopped, WAL gathers on the server's disk until it is full",
        ),
        Some(megabytes) => Check::warn(
            name,
            format!("the slot is lost if it falls {megabytes} MB behind"),
            format!(
                "watch the lag, or {}",
                remedy::set(facts.provider, "max_slot_wal_keep_size", "-1", false)
            ),
        ),
    }
}

fn standby(facts: &SourceFacts) -> Option<Check> {
    let name = "standby";
    if !facts.in_recovery {
        return None;
    }
    Some(match facts.server_version_num {
        STANDBY_SLOTS_FROM.. => Check::warn(
            name,
            "the server is a standby: the publication must exist on the primary",
            "set hot_standby_feedback = on here, or connect to the primary",
        ),
        _ => Check::fail(
            name,
            "the server is a standby; logical slots on standbys need PostgreSQL 16",
            "connect to the primary (target_session_attrs=primary)",
        ),
    })
}

fn idle_slot_timeout(facts: &SourceFacts, probe: &ServerProbe) -> Option<Check> {
    let name = "idle slot timeout";
    Some(match probe.number("idle_replication_slot_timeout")? {
        0 => Check::pass(name, "off"),
        seconds => Check::warn(
            name,
            format!("the slot is lost if pgcdc is stopped for {seconds} s"),
            remedy::set(facts.provider, "idle_replication_slot_timeout", "0", false),
        ),
    })
}

fn sender_timeout(facts: &SourceFacts, probe: &ServerProbe) -> Option<Check> {
    let millis = probe.number("wal_sender_timeout")?;
    (1..SENDER_TIMEOUT_MIN_MS).contains(&millis).then(|| {
        Check::warn(
            "wal sender timeout",
            format!("{millis} ms: a short stall ends the stream"),
            remedy::set(facts.provider, "wal_sender_timeout", "60s", false),
        )
    })
}

fn encoding(facts: &SourceFacts) -> Option<Check> {
    (facts.server_encoding == "SQL_ASCII").then(|| {
        Check::warn(
            "encoding",
            "SQL_ASCII: texts may hold bytes that are not UTF-8",
            "choose types.unrepresentable for such values",
        )
    })
}

fn failover(facts: &SourceFacts, want: &Want) -> Option<Check> {
    (want.failover && facts.server_version_num < FAILOVER_FROM).then(|| {
        Check::warn(
            "failover slot",
            "needs PostgreSQL 17: after a failover the slot is gone",
            "set replication.failover to off, or upgrade",
        )
    })
}

fn iam(facts: &SourceFacts, probe: &ServerProbe, want: &Want) -> Option<Check> {
    let name = "iam authentication";
    if !want.iam_auth {
        return None;
    }
    let setting = "rds.iam_auth_for_replication";
    Some(match probe.settings.get(setting).map(String::as_str) {
        Some("1" | "on") => Check::pass(name, "allowed for replication"),
        _ => Check::fail(
            name,
            "replication logins with an IAM token are refused",
            remedy::set(facts.provider, setting, "1", true),
        ),
    })
}
