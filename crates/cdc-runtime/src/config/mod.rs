//! The configuration file `pgcdc.yml`: found, parsed, substituted, checked, all problems at once.
//!
//! ```text
//! YAML ─parse─> Node ─substitute─> Node ─check against the schema─> JSON ─serde─> Config
//!                                                              resolve, rules between keys ─┘
//! ```

mod check;
mod model;
mod node;
mod reference;
mod rules;
mod show;
mod source_url;
mod storage;
mod substitute;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use cdc_core::{Clock, ExposeSecret, SystemClock};
use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{Error, Result};
use node::Node;

pub use model::*;
pub use value::{Glob, HumanDuration, Secret, StoredForm};

/// The file names looked for in the working directory, in this order.
pub const DEFAULT_FILES: [&str; 2] = ["pgcdc.yml", "pg-cdc.yml"];

/// Where variables come from.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Full path of the key, such as `flush.interval_sec`; empty for the file as a whole.
    pub path: String,
    /// What is wrong, never with a secret in it.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(path: &str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What a command wants with `source.postgres.url`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceUse {
    /// It connects: the URL must be there and its variables set.
    Needed,
    /// It may connect: if the URL is there, its variables must be set.
    Checked,
    /// It never connects, as in the read plane: variables of the URL may be unset.
    Unused,
}

/// What a text is parsed with; [`Config::load`] takes the process's own.
pub struct ParseOptions<'a> {
    /// The file's name, for messages.
    pub file: &'a Path,
    /// Variables.
    pub env: Env<'a>,
    /// The present, for dates that must not be past.
    pub now: DateTime<Utc>,
    /// What the command wants with the source.
    pub source_use: SourceUse,
}

impl Config {
    /// The file that `--config` names, or the first of [`DEFAULT_FILES`] in the working directory.
    ///
    /// # Errors
    /// [`Error::NoConfigFile`] when there is none.
    pub fn find(flag: Option<&Path>) -> Result<PathBuf> {
        if let Some(path) = flag {
            return Ok(path.to_path_buf());
        }
        let default = DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists());
        default.ok_or(Error::NoConfigFile)
    }

    /// Finds, reads and checks the configuration with the environment and clock of the process.
    ///
    /// # Errors
    /// [`Error::NoConfigFile`], [`Error::ConfigRead`], or [`Error::ConfigInvalid`] with all
    /// problems.
    pub fn load(flag: Option<&Path>, source_use: SourceUse) -> Result<Config> {
        Config::load_with(flag, source_use, &BTreeMap::new())
    }

    /// As [`Config::load`], with variables that win over those of the environment, also in
    /// [`Config::source_url`].
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(
        flag: Option<&Path>,
        source_use: SourceUse,
        variables: &BTreeMap<String, Secret>,
    ) -> Result<Config> {
        let path = Config::find(flag)?;
        let text = std::fs::read_to_string(&path)
            .map_err(|source| Error::ConfigRead { path: path.clone(), source })?;
        let env = |name: &str| {
            let given = variables.get(name).map(|value| value.0.expose_secret().to_owned());
            given.or_else(|| std::env::var(name).ok())
        };
        let now = SystemClock.now();
        let options = ParseOptions { file: &path, env: &env, now, source_use };
        let mut config = Config::parse(&text, &options)?;
        config.variables = variables.clone();
        Ok(config)
    }

    /// Checks a configuration text.
    ///
    /// # Errors
    /// [`Error::ConfigInvalid`] with all problems.
    pub fn parse(text: &str, options: &ParseOptions<'_>) -> Result<Config> {
        parse(text, options)
            .map_err(|problems| Error::ConfigInvalid { path: options.file.to_path_buf(), problems })
    }

    /// The JSON Schema of the file.
    pub fn json_schema() -> Value {
        schemars::generate::SchemaSettings::draft2020_12()
            .with(|settings| settings.inline_subschemas = true)
            .into_generator()
            .into_root_schema_for::<Config>()
            .to_value()
    }
}

fn parse(text: &str, options: &ParseOptions<'_>) -> std::result::Result<Config, Vec<Problem>> {
    let whole = |message: String| vec![Problem::new("", message)];
    let mut tree: Node =
        serde_yaml_ng::from_str(text).map_err(|error| whole(format!("not YAML: {error}")))?;
    let mut problems = Vec::new();
    substitute::substitute_all(&mut tree, "", source_url::URL_KEY, options.env, &mut problems);
    check::check(&Config::json_schema(), &mut tree, "", &mut problems);
    // the rules between keys need a model; a file with unknown or ill-typed keys has none
    let mut config: Config = match serde_json::from_value(tree.to_json()) {
        Ok(config) => config,
        Err(_) if !problems.is_empty() => return Err(problems),
        Err(error) => return Err(whole(error.to_string())),
    };
    config.resolve();
    config.check_source_url(options.env, options.source_use, &mut problems);
    config.check_rules(options.now, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}
