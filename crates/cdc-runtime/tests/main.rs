//! The configuration through its public interface.

mod config_errors;
mod config_shown;
mod samples;

use cdc_runtime::{Config, Error, ParseOptions, SourceUse};

/// Parses with the variables `V=value`, `PGCDC_PASSWORD=s3cret` at the epoch of Unix.
fn parse_as(text: &str, source_use: SourceUse) -> Result<Config, Error> {
    let env = |name: &str| match name {
        "V" => Some("value".to_owned()),
        "YAML" => Some("[a, b]".to_owned()),
        "PGCDC_PASSWORD" => Some("s3cret".to_owned()),
        _ => None,
    };
    let now = chrono::DateTime::UNIX_EPOCH;
    Config::parse(text, &ParseOptions { file: "pgcdc.yml".as_ref(), env: &env, now, source_use })
}

fn parse(text: &str) -> Result<Config, Error> {
    parse_as(text, SourceUse::Checked)
}

/// The problems of a text, one a line.
fn problems(text: &str) -> String {
    match parse(text) {
        Ok(_) => "no problem".into(),
        Err(Error::ConfigInvalid { problems, .. }) => {
            problems.iter().map(|problem| format!("{problem}\n")).collect()
        }
        Err(other) => other.to_string(),
    }
}
