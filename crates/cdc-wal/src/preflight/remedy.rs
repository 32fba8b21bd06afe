//! What to do, in the words of whoever runs the server.

use crate::control::Provider;

/// How many names a text lists before it only counts.
const LISTED_MAX: usize = 8;

/// How a server setting is changed. `restart` says whether a reload is not enough.
pub(super) fn set(provider: Provider, setting: &str, value: &str, restart: bool) -> String {
    match provider {
        Provider::SelfManaged => {
            let then = match restart {
                true => "then restart PostgreSQL",
                false => "then SELECT pg_reload_conf()",
            };
            format!("ALTER SYSTEM SET {setting} = '{value}'; {then}")
        }
        amazon => {
            let group = match amazon {
                Provider::Aurora => "DB cluster parameter group",
                _ => "DB parameter group",
            };
            let then = match restart {
                true => "then reboot the instance",
                false => "it takes effect without a reboot",
            };
            format!("set {setting} = {value} in the {group}; {then}")
        }
    }
}

/// How logical WAL is switched on.
pub(super) fn logical_wal(provider: Provider) -> String {
    match provider {
        Provider::SelfManaged => set(provider, "wal_level", "logical", true),
        amazon => set(amazon, "rds.logical_replication", "1", true),
    }
}

/// How the role gets the right to replicate.
pub(super) fn replication_role(provider: Provider, user: &str) -> String {
    let user = cdc_core::quote_ident(user);
    match provider {
        Provider::SelfManaged => format!("ALTER ROLE {user} REPLICATION"),
        _ => format!("GRANT rds_replication TO {user}"),
    }
}

/// Names as one text, cut off after some.
pub(super) fn listed(names: impl IntoIterator<Item = String>) -> String {
    let mut names: Vec<String> = names.into_iter().collect();
    let more = names.len().saturating_sub(LISTED_MAX);
    names.truncate(LISTED_MAX);
    let text = names.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}
