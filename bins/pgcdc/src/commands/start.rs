//! `pgcdc start`: the daemon. Nothing on stdout; its words are log records.

use anyhow::Result;
use cdc_pipeline::Meters;
use cdc_runtime::{
    CommandKind, Config, ExitCode, SourceUse, metrics_registry, serve_metrics, shutdown_on_signal,
};
use tokio_util::sync::CancellationToken;

use crate::context::{self, Context, block_on};
use crate::{allocator, failure, settings};

pub(crate) fn run(context: &Context) -> ExitCode {
    let unbounded = allocator::restart_bounded();
    let prepared = Config::load(context.config_flag(), SourceUse::Needed)
        .map_err(anyhow::Error::from)
        .and_then(|config| context.daemon_logs(&config).map(|()| config));
    match prepared {
        // no logs yet: say it plainly
        Err(error) => failure::report(&error, CommandKind::Operator),
        Ok(config) => {
            allocator::report(unbounded);
            end_of(&config)
        }
    }
}

fn end_of(config: &Config) -> ExitCode {
    match block_on(async { follow(config, &shutdown_on_signal()?).await }) {
        Ok(()) => ExitCode::Ok,
        Err(error) => failure::report(&error, CommandKind::Daemon),
    }
}

/// Follows the source until a signal, then drains; serves its metrics meanwhile.
pub(crate) async fn follow(config: &Config, stop: &CancellationToken) -> Result<()> {
    let settings = settings::daemon(config)?;
    let source = context::source(config)?;
    let mut registry = metrics_registry();
    let meters = Meters::new(settings::table_labels(config), &mut registry);
    let served = tokio::spawn(serve_metrics(config.metrics.listen_addr.clone(), registry));
    let followed = cdc_pipeline::run(&settings, &source, stop, meters).await;
    served.abort();
    Ok(followed?)
}
