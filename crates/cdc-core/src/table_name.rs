//! The name of a table as PostgreSQL stores it, its text form and its place in object keys.

use std::fmt;
use std::str::FromStr;

/// A schema-qualified table name with both parts as PostgreSQL stores them (unquoted).
///
/// The text form is `schema.table`; a part that contains `.` or `"` stands in double quotes with
/// quotes doubled. It is the key of the manifest, the command line and the API.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    /// Schema, as in `pg_namespace.nspname`.
    pub schema: String,
    /// Table, as in `pg_class.relname`.
    pub name: String,
}

impl TableName {
    /// A name from its two parts.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// The directory of the table below the lake's root: both parts escaped and joined by a dot.
    ///
    /// Each byte outside `[A-Za-z0-9_-]` becomes `!` and two lower-case hex digits, so the result
    /// is safe on every store and can be split at its only dot.
    pub fn key_segment(&self) -> String {
        format!("{}.{}", escape(&self.schema), escape(&self.name))
    }

    /// The name quoted for use inside SQL.
    pub fn to_sql(&self) -> String {
        format!("{}.{}", crate::quote_ident(&self.schema), crate::quote_ident(&self.name))
    }
}

fn escape(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("!{byte:02x}"));
        }
    }
    out
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_part(f, &self.schema)?;
        f.write_str(".")?;
        write_part(f, &self.name)
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    if part.contains(['.', '"']) || part.is_empty() {
        write!(f, "\"{}\"", part.replace('"', "\"\""))
    } else {
        f.write_str(part)
    }
}

/// The text is not `schema.table`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a table name of the form schema.table; hint: put a part that contains a dot or a quote in double quotes"
)]
pub struct ParseTableNameError(pub String);

impl FromStr for TableName {
    type Err = ParseTableNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (schema, rest) = read_part(text)?;
            let (name, rest) = read_part(rest.strip_prefix('.')?)?;
            rest.is_empty().then_some(TableName { schema, name })
        };
        parse().ok_or_else(|| ParseTableNameError(text.to_owned()))
    }
}

/// Reads one part and returns it with the text behind it.
fn read_part(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['.', '"']).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut part = String::new();
    let mut chars = quoted.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            part.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            part.push('"');
        } else {
            return Some((part, &quoted[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn key_segments_hold_only_safe_bytes() {
        let cases = [
            (TableName::new("public", "orders"), "public.orders"),
            (TableName::new("Order Items", "Größe"), "Order!20Items.Gr!c3!b6!c3!9fe"),
            (TableName::new("a", "../x"), "a.!2e!2e!2fx"),
        ];
        for (name, expected) in cases {
            assert_eq!(name.key_segment(), expected);
        }
    }

    proptest! {
        #[test]
        fn text_form_round_trips(schema in "[a-z.\" ]{1,8}", name in "\\PC{1,8}") {
            let table = TableName::new(schema, name);
            prop_assert_eq!(table.to_string().parse::<TableName>().unwrap(), table);
        }
    }
}
