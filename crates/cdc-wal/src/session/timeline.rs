//! Whether a position survives a switch of the timeline: it does if the new one branched off behind
//! everything that is held, as the server's history file says.

use cdc_core::Lsn;

use super::Session;
use super::check::text;
use crate::{Error, Result};

/// Accepts a server on timeline `found` for what is held up to `held` on timeline `from`.
pub(super) async fn check_switch(
    session: &mut Session,
    from: u32,
    found: u32,
    held: Lsn,
) -> Result<()> {
    let differs = |found: String| Error::IdentityChanged {
        what: "timeline",
        expected: from.to_string(),
        found,
    };
    if found < from {
        return Err(differs(found.to_string()));
    }
    let command = format!("TIMELINE_HISTORY {found}");
    let rows = session.query("read the history of the timeline", &command).await?;
    let history = rows.first().map(|row| text(row, 1)).unwrap_or_default();
    match switch_point(history, from) {
        Some(switch) if switch >= held => {
            tracing::warn!(from, to = found, %switch, %held, "the source changed its timeline");
            Ok(())
        }
        Some(switch) => {
            let lost = format!("{found}, which branched off at {switch} and lacks up to {held}");
            Err(differs(lost))
        }
        None => Err(differs(format!("{found}, which does not descend from it"))),
    }
}

/// Where a history leaves a timeline: lines of `timeline, position, reason`
/// (<https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-TIMELINES>).
fn switch_point(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let parent: u32 = fields.next()?.parse().ok()?;
        let switch = fields.next()?.parse().ok()?;
        (parent == timeline).then_some(switch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_where_each_timeline_was_left() {
        let history = "# comment\n1\t0/3000148\tno recovery target specified\n\n\
                       2\t0/50000A0\tbefore 2026-05-04 12:00:00+00\n";
        assert_eq!(switch_point(history, 1), Some(Lsn(0x300_0148)));
        assert_eq!(switch_point(history, 2), Some(Lsn(0x500_00A0)));
        assert_eq!(switch_point(history, 3), None);
        assert_eq!(switch_point("", 1), None);
    }
}
