//! `pgcdc teardown`: gives the source back what init made there; with consent removes the lake.

use anyhow::Result;
use cdc_pipeline::TeardownReport;
use cdc_runtime::{ExitCode, SourceUse};

use crate::context::{self, Context, block_on};
use crate::{render, settings};

pub(crate) fn run(context: &Context, yes: bool) -> Result<ExitCode> {
    let config = context.load(SourceUse::Needed)?;
    let lake = settings::lake(&config)?;
    let replication = settings::replication(&config)?;
    let source = context::source(&config)?;
    let report =
        block_on(async { Ok(cdc_pipeline::teardown(&lake, &replication, &source, yes).await?) })?;
    render::print(&text(&report))?;
    Ok(ExitCode::Ok)
}

fn text(report: &TeardownReport) -> String {
    let dropped = |(name, existed): &(String, bool)| {
        if *existed { name.clone() } else { format!("{name} (was not there)") }
    };
    let mut out = format!("Dropping publication: {}\n", dropped(&report.publication));
    out.push_str(&format!("Dropping replication slot: {}\n", dropped(&report.slot)));
    for directory in &report.removed {
        out.push_str(&format!("removed: {directory}\n"));
    }
    for directory in &report.kept {
        out.push_str(&format!("kept: {directory}\n"));
    }
    out.push_str("Teardown complete\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_said() {
        let report = TeardownReport {
            publication: ("p".into(), true),
            slot: ("s".into(), false),
            removed: vec![],
            kept: vec!["/lake".into()],
        };
        assert_eq!(
            text(&report),
            "Dropping publication: p\n\
             Dropping replication slot: s (was not there)\n\
             kept: /lake\n\
             Teardown complete\n"
        );
    }
}
