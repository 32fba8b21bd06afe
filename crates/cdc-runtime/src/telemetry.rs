//! Logs on stderr: text for a person, one JSON object per line for a machine.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{Error, LogFormat, LogLevel, LoggingConfig, Result};

/// The keys of a JSON line that a field may not take; such a field gets the prefix `field_`.
const RESERVED: [&str; 4] = ["ts", "level", "target", "msg"];

/// Crates whose events follow the configured level. All others log warnings and errors only:
/// some of them print SQL with literals at lower levels.
const OUR_TARGETS: [&str; 2] = ["cdc", "pgcdc"];

/// `--log-level` and `--log-format`, which win over the configuration.
#[derive(Clone, Debug, Default)]
pub struct LogFlags {
    /// `--log-level`.
    pub level: Option<String>,
    /// `--log-format`.
    pub format: Option<String>,
}

impl LogFlags {
    /// The flags over the configured values.
    ///
    /// # Errors
    /// [`Error::LogFlag`] for an unknown word.
    pub fn over(&self, config: &LoggingConfig) -> Result<LoggingConfig> {
        let unknown = |flag, value: &str, choices| {
            Err(Error::LogFlag { flag, value: value.to_owned(), choices })
        };
        let level = match self.level.as_deref() {
            None => config.level,
            Some(text) => match LogLevel::parse(text) {
                Some(level) => level,
                None => return unknown("--log-level", text, LogLevel::CHOICES),
            },
        };
        let format = match self.format.as_deref() {
            None => config.format,
            Some(text) => match LogFormat::parse(text) {
                Some(format) => format,
                None => return unknown("--log-format", text, LogFormat::CHOICES),
            },
        };
        Ok(LoggingConfig { level, format })
    }
}

/// The same for a command at a prompt, which logs warnings only unless asked.
///
/// # Errors
/// [`Error::LogFlag`] for an unknown word.
pub fn init_quiet_logging(flags: &LogFlags, config: &LoggingConfig) -> Result<()> {
    let level = match config.level {
        LogLevel::Info => LogLevel::Warn,
        other => other,
    };
    init_logging(&flags.over(&LoggingConfig { level, format: config.format })?);
    Ok(())
}

/// Sends the process's logs to stderr. A second call has no effect.
pub fn init_logging(config: &LoggingConfig) {
    let level = match config.level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let others = level.min(LevelFilter::WARN);
    let filter =
        Targets::new().with_default(others).with_targets(OUR_TARGETS.map(|target| (target, level)));
    let terminal = std::io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(filter);
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    // an error means that a subscriber is already there
    let _ = if json {
        registry.with(layer.event_format(JsonLine)).try_init()
    } else {
        registry.with(layer.with_ansi(terminal).with_target(false)).try_init()
    };
}

/// `{"ts":…,"level":…,"target":…,"msg":…,…fields}`; fields of an event come as they are.
struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let line = json_line(event, &cdc_core::rfc3339_nanos(chrono::Utc::now()));
        writeln!(writer, "{line}")
    }
}

fn json_line(event: &Event<'_>, timestamp: &str) -> Value {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let mut line = Map::new();
    line.insert("ts".into(), timestamp.into());
    line.insert("level".into(), level_word(*event.metadata().level()).into());
    line.insert("target".into(), event.metadata().target().into());
    line.insert("msg".into(), fields.message.into());
    line.extend(fields.rest);
    Value::Object(line)
}

fn level_word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN",
        Level::INFO => "INFO",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // events of the log crate carry their origin in fields of this prefix
        if name.starts_with("log.") {
            return;
        }
        let name = if RESERVED.contains(&name) { format!("field_{name}") } else { name.to_owned() };
        self.rest.insert(name, value);
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.insert(field, format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message = value.to_owned();
        } else {
            self.insert(field, value.into());
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::Layer;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Lines {
        fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().unwrap().push(json_line(event, "T").to_string());
        }
    }

    #[test]
    fn a_json_line_has_the_fixed_keys_first_and_no_field_replaces_them() {
        let lines = Lines::default();
        tracing::subscriber::with_default(
            tracing_subscriber::registry().with(lines.clone()),
            || {
                tracing::info!(target: "cdc_x", epoch = 7_u64, level = "high", lag = 0.5, "epoch flushed");
            },
        );
        assert_eq!(
            *lines.0.lock().unwrap(),
            [
                r#"{"ts":"T","level":"INFO","target":"cdc_x","msg":"epoch flushed","epoch":7,"field_level":"high","lag":0.5}"#
            ]
        );
    }

    #[test]
    fn an_unknown_level_is_refused_with_the_choices() {
        let flags = LogFlags { level: Some("loud".into()), format: None };
        let error = flags.over(&LoggingConfig::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--log-level: `loud` is not one of trace, debug, info, warn, error"
        );
    }
}
