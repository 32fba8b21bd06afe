//! Positions and tables as manifest.json spells them.

use anyhow::{Context, Result};
use serde_json::Value;

/// A position in the write-ahead log.
pub(crate) type Lsn = u64;

/// Reads PostgreSQL's `X/Y`.
pub(crate) fn parse_lsn(text: &str) -> Result<Lsn> {
    let parts = text.split_once('/').with_context(|| format!("{text:?} is no LSN"))?;
    Ok(Lsn::from_str_radix(parts.0, 16)? << 32 | Lsn::from_str_radix(parts.1, 16)?)
}

/// The LSN in a field of the manifest.
pub(crate) fn lsn_at(manifest: &Value, field: &str) -> Result<Lsn> {
    parse_lsn(manifest[field].as_str().with_context(|| format!("manifest.json has no {field}"))?)
}

/// A table that the manifest names as active.
pub(crate) struct ActiveTable<'a> {
    /// `schema.table`, as the manifest spells it.
    pub(crate) name: &'a str,
    /// Its entry.
    pub(crate) entry: &'a Value,
    /// Its columns in table order.
    pub(crate) columns: Vec<&'a str>,
}

/// The tables of a manifest that are written: active, and not quarantined.
pub(crate) fn written_tables(manifest: &Value) -> Result<Vec<ActiveTable<'_>>> {
    let active = active_tables(manifest)?;
    Ok(active.into_iter().filter(|table| table.entry["state"] == "streaming").collect())
}

/// The active tables of a manifest.
pub(crate) fn active_tables(manifest: &Value) -> Result<Vec<ActiveTable<'_>>> {
    let tables = manifest["tables"].as_object().context("manifest.json has no tables")?;
    let active = tables.iter().filter(|(_, entry)| entry["status"] == "active");
    active
        .map(|(name, entry)| {
            let columns = manifest["schemas"][name]["columns"].as_array();
            let columns = columns.with_context(|| format!("manifest.json: no schema of {name}"))?;
            let columns = columns.iter().filter_map(|column| column["name"].as_str()).collect();
            Ok(ActiveTable { name, entry, columns })
        })
        .collect()
}

/// Splits `schema.table` into its parts; parts with a dot or a quote stand in double quotes.
pub(crate) fn split_name(name: &str) -> Result<(String, String)> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                parts.last_mut().context("no part")?.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ => parts.last_mut().context("no part")?.push(letter),
        }
    }
    let [schema, table]: [String; 2] =
        parts.try_into().ok().with_context(|| format!("{name} is not schema.table"))?;
    Ok((schema, table))
}

/// An identifier as SQL takes it.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_text_becomes_a_64_bit_position() -> Result<()> {
        assert_eq!(parse_lsn("1/A")?, 0x1_0000_000A);
        Ok(())
    }

    #[test]
    fn quoted_parts_of_a_name_keep_dots_and_quotes() -> Result<()> {
        assert_eq!(split_name("public.t")?, ("public".into(), "t".into()));
        assert_eq!(split_name("\"a.b\".\"c\"\"d\"")?, ("a.b".into(), "c\"d".into()));
        Ok(())
    }
}
