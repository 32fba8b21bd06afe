//! Takes a libpq URL apart. Nothing here puts a part of the URL into an error but parameter names.

use std::collections::BTreeMap;

use super::endpoint::url_error;
use crate::Result;

/// Parameters that have no effect on us and may stay in a URL that other tools share.
const IGNORED: &[&str] = &[
    "channel_binding",
    "client_encoding",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "sslcompression",
    "sslsni",
    "tcp_user_timeout",
];

/// A URL in its parts, percent escapes undone.
pub(super) struct Parts {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Host and port texts; empty without authority.
    pub(super) hosts: Vec<(String, String)>,
    pub(super) database: Option<String>,
    pub(super) parameters: Parameters,
}

/// The query part. Each parameter is taken once; [`Parameters::finish`] refuses what is left.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }

    pub(super) fn finish(&mut self) -> Result<()> {
        match self.0.keys().find(|name| !IGNORED.contains(&name.as_str())) {
            Some(name) => Err(url_error(format!("parameter {name} is not supported"))),
            None => Ok(()),
        }
    }
}

pub(super) fn split(url: &str) -> Result<Parts> {
    let rest = url
        .strip_prefix("postgresql://")
        .or_else(|| url.strip_prefix("postgres://"))
        .ok_or_else(|| url_error("its scheme is not postgresql://"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        Some((user, password)) => (non_empty(user)?, non_empty(password)?),
        None => (None, None),
    };
    let hosts = match hosts {
        "" => Vec::new(),
        list => list.split(',').map(host_and_port).collect::<Result<_>>()?,
    };
    Ok(Parts {
        user,
        password,
        hosts,
        database: non_empty(database)?,
        parameters: Parameters(parameters(query)?),
    })
}

fn parameters(query: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| url_error("a parameter has no value"))?;
        found.insert(decode(name)?, decode(value)?);
    }
    Ok(found)
}

fn host_and_port(text: &str) -> Result<(String, String)> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) =
            rest.split_once(']').ok_or_else(|| url_error("an IPv6 address has no `]`"))?;
        (host, rest.strip_prefix(':').unwrap_or(rest))
    } else {
        text.split_once(':').unwrap_or((text, ""))
    };
    Ok((decode(host)?, port.to_owned()))
}

fn non_empty(text: &str) -> Result<Option<String>> {
    Ok(Some(decode(text)?).filter(|text| !text.is_empty()))
}

fn decode(text: &str) -> Result<String> {
    let bad = || url_error("a percent escape is malformed");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|digit| char::from(digit).to_digit(16));
        let (high, low) = (digit().ok_or_else(bad)?, digit().ok_or_else(bad)?);
        out.push(u8::try_from(high * 16 + low).map_err(|_| bad())?);
    }
    String::from_utf8(out).map_err(|_| bad())
}
