//! Where the password comes from, asked again at every connect so that secrets may rotate.

use cdc_core::SecretString;
use futures::future::BoxFuture;

use super::endpoint::{Endpoint, Host};
use crate::{Error, Result};

/// Gives the password of one login. Called once per connection attempt, SQL and replication
/// alike, so a token that lives for minutes is never older than the attempt. Must be cancel safe.
pub trait CredentialProvider: Send + Sync {
    /// The password for this host, or `None` to log in without one.
    fn password<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Option<SecretString>>>;
}

/// The password of the URL, else the matching line of its `passfile`.
#[derive(Clone, Copy, Debug, Default)]
pub struct UrlCredentials;

impl CredentialProvider for UrlCredentials {
    fn password<'a>(
        &'a self,
        endpoint: &'a Endpoint,
        host: &'a Host,
    ) -> BoxFuture<'a, Result<Option<SecretString>>> {
        Box::pin(async move {
            if let Some(password) = &endpoint.password {
                return Ok(Some(password.clone()));
            }
            let Some(path) = &endpoint.passfile else { return Ok(None) };
            let text = std::fs::read_to_string(path)
                .map_err(|source| Error::File { path: path.clone(), source })?;
            Ok(find_password(&text, endpoint, host).map(SecretString::from))
        })
    }
}

/// The password of the first line `host:port:database:user:password` that matches; `*` matches
/// anything, `\` escapes (<https://www.postgresql.org/docs/current/libpq-pgpass.html>).
fn find_password(text: &str, endpoint: &Endpoint, host: &Host) -> Option<String> {
    let port = host.port.to_string();
    let wanted = [host.name(), &port, &endpoint.database, &endpoint.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = split_fields(line);
        let password = fields.get(4)?;
        let matches = fields.iter().zip(wanted).all(|(field, want)| field == "*" || field == want);
        matches.then(|| password.clone())
    })
}

fn split_fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' if fields.len() < 5 => fields.push(String::new()),
            '\\' => fields.last_mut().into_iter().for_each(|field| field.extend(chars.next())),
            other => fields.last_mut().into_iter().for_each(|field| field.push(other)),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use cdc_core::ExposeSecret;

    #[test]
    fn the_first_matching_line_of_a_passfile_is_taken() {
        let url = SecretString::from("postgres://cdc@db:5433/shop".to_owned());
        let endpoint = Endpoint::parse(&url).unwrap();
        let find = |text: &str| find_password(text, &endpoint, &endpoint.hosts[0]);
        let file = "# comment\ndb:5432:shop:cdc:no\n*:*:shop:cdc:a\\:b:c\ndb:*:*:*:late\n";
        assert_eq!(find(file).as_deref(), Some("a:b:c"));
        assert_eq!(find("other:*:*:*:x\n"), None);
    }

    #[tokio::test]
    async fn a_rewritten_passfile_is_read_again() {
        let path = std::env::temp_dir().join(format!("pgcdc-passfile-{}", std::process::id()));
        let url = format!("postgres://cdc@db/shop?passfile={}", path.display());
        let endpoint = Endpoint::parse(&SecretString::from(url)).unwrap();
        for secret in ["one", "two"] {
            std::fs::write(&path, format!("*:*:*:cdc:{secret}\n")).unwrap();
            let found = UrlCredentials.password(&endpoint, &endpoint.hosts[0]).await.unwrap();
            assert_eq!(found.unwrap().expose_secret(), secret);
        }
        std::fs::remove_file(path).unwrap();
    }
}
