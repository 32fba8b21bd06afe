//! What can be tagged and granted: a database, a schema, a table, a column, and the one text that
//! names each everywhere.

use std::fmt;
use std::str::FromStr;

use cdc_core::TableName;

use crate::{Error, Result};

/// How deep a resource lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `db`.
    Database,
    /// `db.schema`.
    Schema,
    /// `db.schema.table`.
    Table,
    /// `db.schema.table.column`.
    Column,
}

impl Level {
    /// The level's name in registry and output.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Database => "database",
            Level::Schema => "schema",
            Level::Table => "table",
            Level::Column => "column",
        }
    }
}

/// The name of a resource, from one part (a database) to four (a column), as PostgreSQL stores the
/// parts.
///
/// The text form joins the parts by dots; `.`, `%`, `/`, `#` and control characters inside a part are
/// percent-encoded, so two names never share a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    /// One to four parts, none of them empty.
    parts: Vec<String>,
}

/// Parts of a column's name.
const PARTS_MAX: usize = 4;

impl ResourceId {
    /// The table of a database.
    pub fn table(database: &str, table: &TableName) -> ResourceId {
        let parts = vec![database.to_owned(), table.schema.clone(), table.name.clone()];
        ResourceId { parts }
    }

    /// What lies directly below under this name; `None` below a column.
    pub fn child(&self, name: &str) -> Option<ResourceId> {
        let is_possible = self.parts.len() < PARTS_MAX && !name.is_empty();
        is_possible.then(|| {
            let mut parts = self.parts.clone();
            parts.push(name.to_owned());
            ResourceId { parts }
        })
    }

    /// What lies directly above; `None` above a database.
    pub fn parent(&self) -> Option<ResourceId> {
        let parts = &self.parts[..self.parts.len() - 1];
        (!parts.is_empty()).then(|| ResourceId { parts: parts.to_vec() })
    }

    /// What lies above, the database first.
    pub fn ancestors(&self) -> Vec<ResourceId> {
        let above = 1..self.parts.len();
        above.map(|length| ResourceId { parts: self.parts[..length].to_vec() }).collect()
    }

    /// Whether `self` is `other` or lies above it.
    pub fn contains(&self, other: &ResourceId) -> bool {
        other.parts.starts_with(&self.parts)
    }

    /// How deep it lies.
    pub fn level(&self) -> Level {
        match self.parts.len() {
            1 => Level::Database,
            2 => Level::Schema,
            3 => Level::Table,
            _ => Level::Column,
        }
    }

    /// The last part.
    pub fn name(&self) -> &str {
        &self.parts[self.parts.len() - 1]
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.parts[0]
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            write_part(f, part)?;
        }
        Ok(())
    }
}

fn must_be_encoded(c: char) -> bool {
    matches!(c, '.' | '%' | '/' | '#') || c.is_control()
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    for c in part.chars() {
        if !must_be_encoded(c) {
            write!(f, "{c}")?;
            continue;
        }
        let mut buffer = [0; 4];
        for byte in c.encode_utf8(&mut buffer).bytes() {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl FromStr for ResourceId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Option<Vec<String>> = text.split('.').map(decode_part).collect();
        parts
            .filter(|parts| parts.len() <= PARTS_MAX)
            .map(|parts| ResourceId { parts })
            .ok_or_else(|| Error::Resource { text: text.to_owned() })
    }
}

fn decode_part(part: &str) -> Option<String> {
    if part.is_empty() || part.chars().any(|c| c != '%' && must_be_encoded(c)) {
        return None;
    }
    let mut pieces = part.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        bytes.push(u8::from_str_radix(digits?, 16).ok()?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_names_nothing_is_refused() {
        for text in
            ["", ".", "a.", "a..b", "a.b.c.d.e", "a/b", "a#", "a%2", "a%zz", "a%+1", "a%FF", "a\n"]
        {
            assert!(text.parse::<ResourceId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn parents_and_levels_follow_the_parts() {
        let column: ResourceId = "d.s.t.c".parse().unwrap();
        let above: Vec<String> = column.ancestors().iter().map(ToString::to_string).collect();
        assert_eq!(above, ["d", "d.s", "d.s.t"]);
        assert_eq!(column.parent().unwrap().to_string(), "d.s.t");
        assert_eq!(column.child("x"), None);
        let database: ResourceId = "d".parse().unwrap();
        assert_eq!((database.parent(), database.level()), (None, Level::Database));
        assert!(database.contains(&column) && !column.contains(&database));
        let other: ResourceId = "d.s2.t.c".parse().unwrap();
        assert!(!"d.s".parse::<ResourceId>().unwrap().contains(&other));
    }
}
