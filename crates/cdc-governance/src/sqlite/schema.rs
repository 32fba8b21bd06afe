//! The tables of `governance.db` and how an older file becomes a current one.

use rusqlite::Transaction;

/// The version that this program writes.
pub(super) const VERSION: u64 = MIGRATIONS.len() as u64;

/// Each step makes the version of its place plus one. Steps are never edited, only added.
const MIGRATIONS: [&str; 1] = ["
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    schema_version INTEGER NOT NULL CHECK (schema_version >= 0),
    policy_version INTEGER NOT NULL CHECK (policy_version >= 1),
    time_high_water TEXT NOT NULL,
    deployment_id TEXT NOT NULL
) STRICT;
INSERT INTO meta VALUES (1, 0, 1, '1970-01-01T00:00:00.000000000Z', lower(hex(randomblob(16))));
CREATE TABLE tag_taxonomy (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (key, value)
) STRICT;
CREATE TABLE resource (
    resource_id TEXT PRIMARY KEY,
    database TEXT NOT NULL,
    level TEXT NOT NULL CHECK (level IN ('database', 'schema', 'table', 'column')),
    state TEXT NOT NULL CHECK (state IN ('active', 'archived')),
    identity TEXT,
    tags TEXT NOT NULL CHECK (json_valid(tags)),
    version INTEGER NOT NULL CHECK (version >= 0),
    policy_changed_at INTEGER NOT NULL,
    quarantined INTEGER NOT NULL CHECK (quarantined IN (0, 1)),
    last_intent_at TEXT NOT NULL,
    last_intent_by TEXT NOT NULL,
    last_intent_reason TEXT NOT NULL,
    last_applied_epoch INTEGER,
    last_applied_version INTEGER
) STRICT;
CREATE TABLE resource_version (
    resource_id TEXT NOT NULL REFERENCES resource (resource_id),
    version INTEGER NOT NULL CHECK (version >= 0),
    tags TEXT NOT NULL CHECK (json_valid(tags)),
    state TEXT NOT NULL CHECK (state IN ('active', 'archived')),
    at TEXT NOT NULL,
    by TEXT NOT NULL,
    reason TEXT NOT NULL,
    policy_version INTEGER NOT NULL,
    PRIMARY KEY (resource_id, version)
) STRICT;
CREATE TABLE grant_ (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    permissions TEXT NOT NULL CHECK (json_valid(permissions)),
    target TEXT NOT NULL CHECK (json_valid(target)),
    row_filter TEXT,
    masks TEXT NOT NULL CHECK (json_valid(masks)),
    not_before TEXT,
    expires_at TEXT,
    created_at TEXT NOT NULL,
    created_by TEXT NOT NULL,
    created_reason TEXT NOT NULL,
    revoked_at TEXT,
    revoked_by TEXT
) STRICT;
CREATE TABLE break_glass (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL,
    resource_id TEXT NOT NULL,
    columns TEXT NOT NULL CHECK (json_valid(columns)),
    granted_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    reason TEXT NOT NULL,
    ticket TEXT NOT NULL,
    requester TEXT NOT NULL,
    approver TEXT,
    revoked_at TEXT,
    revoked_by TEXT
) STRICT;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    writer_id TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    ts TEXT NOT NULL,
    body TEXT NOT NULL CHECK (json_valid(body))
) STRICT;
CREATE TRIGGER resource_version_update BEFORE UPDATE ON resource_version
    BEGIN SELECT raise(ABORT, 'history is append-only'); END;
CREATE TRIGGER resource_version_delete BEFORE DELETE ON resource_version
    BEGIN SELECT raise(ABORT, 'history is append-only'); END;
CREATE TRIGGER audit_update BEFORE UPDATE ON audit
    BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_delete BEFORE DELETE ON audit
    BEGIN SELECT raise(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER meta_policy_version BEFORE UPDATE ON meta
    WHEN new.policy_version < old.policy_version
    BEGIN SELECT raise(ABORT, 'the policy version never goes back'); END;
"];

/// The version of the file: 0 for a new one.
pub(super) fn version(tx: &Transaction<'_>) -> rusqlite::Result<u64> {
    let has_meta = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'";
    match tx.query_row(has_meta, [], |row| row.get::<_, u64>(0))? {
        0 => Ok(0),
        _ => tx.query_row("SELECT schema_version FROM meta", [], |row| row.get(0)),
    }
}

/// Makes the steps from a version to the current one.
pub(super) fn migrate(tx: &Transaction<'_>, from: u64) -> rusqlite::Result<()> {
    for (at, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(from).unwrap_or(0)) {
        tx.execute_batch(step)?;
        tx.execute("UPDATE meta SET schema_version = ?1", [at as u64 + 1])?;
    }
    Ok(())
}
