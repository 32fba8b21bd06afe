//! `source.postgres.url`: kept as a template, substituted again at every connection so that a
//! rotated password is picked up, and checked without ever being printed.

use cdc_core::{ExposeSecret, SecretString};

use super::model::{Config, PostgresConfig};
use super::{Env, Problem, SourceUse, substitute::substitute};
use crate::{Error, Result};

/// Path of the key.
pub(crate) const URL_KEY: &str = "source.postgres.url";

/// `sslmode` values that guarantee TLS.
const SSLMODES_WITH_TLS: [&str; 3] = ["require", "verify-ca", "verify-full"];

impl Config {
    /// The source's URL with the variables of this moment. Call it for each connection.
    ///
    /// # Errors
    /// The key is absent, or a variable in it is unset; the message names both.
    pub fn source_url(&self) -> Result<SecretString> {
        let env = |name: &str| {
            let given = self.variables.get(name).map(|value| value.0.expose_secret().to_owned());
            given.or_else(|| std::env::var(name).ok())
        };
        self.source_url_from(&env).map_err(Error::ConfigKey)
    }

    pub(crate) fn source_url_from(
        &self,
        env: Env<'_>,
    ) -> std::result::Result<SecretString, Problem> {
        let template = self.source.as_ref().and_then(|source| source.postgres.url.as_ref());
        let template = template.ok_or_else(|| {
            Problem::new(URL_KEY, "required by this command; hint: postgresql://user@host:5432/db")
        })?;
        substitute(template.0.expose_secret(), env)
            .map(SecretString::from)
            .map_err(|message| Problem::new(URL_KEY, message))
    }

    pub(crate) fn check_source_url(
        &self,
        env: Env<'_>,
        source_use: SourceUse,
        problems: &mut Vec<Problem>,
    ) {
        let postgres = self.source.as_ref().map(|source| &source.postgres);
        let given = postgres.is_some_and(|postgres| postgres.url.is_some());
        match source_use {
            SourceUse::Unused => return,
            SourceUse::Checked if !given => return,
            SourceUse::Checked | SourceUse::Needed => {}
        }
        match (self.source_url_from(env), postgres) {
            (Ok(url), Some(postgres)) => check_text(url.expose_secret(), postgres, problems),
            (Ok(_), None) => {}
            (Err(problem), _) => problems.push(problem),
        }
    }
}

fn check_text(url: &str, postgres: &PostgresConfig, problems: &mut Vec<Problem>) {
    let rest = ["postgresql://", "postgres://"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let Some(rest) = rest else {
        let message = "expected a URL that starts with postgresql:// or postgres://";
        problems.push(Problem::new(URL_KEY, message));
        return;
    };
    if !postgres.iam_auth {
        return;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let parameter = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)
    };
    let user = place.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(':') || parameter("password").is_some() {
        let message = "must hold no password when source.postgres.iam_auth is on";
        problems.push(Problem::new(URL_KEY, message));
    }
    let mode = parameter("sslmode").map_or("prefer", |(_, mode)| mode);
    if !SSLMODES_WITH_TLS.contains(&mode) {
        let message = "needs sslmode=require or better when source.postgres.iam_auth is on";
        problems.push(Problem::new(URL_KEY, message));
    }
}
