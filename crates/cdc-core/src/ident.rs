//! Quoting for SQL text. Names and literals enter SQL only through these two functions.

/// A name in double quotes, always, so that upper case and reserved words survive.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal for a server with `standard_conforming_strings=on`; backslashes use `E''`.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}
