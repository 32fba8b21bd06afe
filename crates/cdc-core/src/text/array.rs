//! One-dimensional array text (`{1,NULL,"a b"}`) to its elements
//! (<https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO>).

use std::borrow::Cow;

use super::{TextError, Unrepresentable};

/// One element: NULL, or its text with quoting undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArrayItem<'a> {
    /// An unquoted `NULL`.
    Null,
    /// The element's text form.
    Text(Cow<'a, [u8]>),
}

const MALFORMED: TextError = TextError::Malformed("array");

/// Calls `visit` for each element in order. `delimiter` is `;` for `box[]`, `,` for all others.
///
/// An array with several dimensions or explicit bounds is [`Unrepresentable::ArrayShape`], before
/// any element is visited where the text says so up front.
pub fn elements<'a, E: From<TextError>>(
    text: &'a [u8],
    delimiter: u8,
    mut visit: impl FnMut(ArrayItem<'a>) -> Result<(), E>,
) -> Result<(), E> {
    if text.first() == Some(&b'[') {
        // PostgreSQL prints bounds only where one differs from 1
        return Err(TextError::Unrepresentable(Unrepresentable::ArrayShape).into());
    }
    let inner = text
        .strip_prefix(b"{")
        .and_then(|rest| rest.strip_suffix(b"}"))
        .ok_or(E::from(MALFORMED))?;
    if inner.first() == Some(&b'{') {
        return Err(TextError::Unrepresentable(Unrepresentable::ArrayShape).into());
    }
    let mut rest = inner;
    while !rest.is_empty() {
        let (item, behind) = read_item(rest, delimiter)?;
        visit(item)?;
        rest = match behind {
            [] => behind,
            [first, next @ ..] if *first == delimiter && !next.is_empty() => next,
            _ => return Err(MALFORMED.into()),
        };
    }
    Ok(())
}

fn read_item(text: &[u8], delimiter: u8) -> Result<(ArrayItem<'_>, &[u8]), TextError> {
    if let Some(quoted) = text.strip_prefix(b"\"") {
        return read_quoted(quoted);
    }
    let end = text.iter().position(|byte| *byte == delimiter).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    if word.is_empty() || word.iter().any(|byte| matches!(byte, b'{' | b'}' | b'"' | b'\\')) {
        return Err(MALFORMED);
    }
    let item = if word == b"NULL" { ArrayItem::Null } else { ArrayItem::Text(Cow::Borrowed(word)) };
    Ok((item, rest))
}

/// Reads up to the closing quote; `text` starts behind the opening one.
fn read_quoted(text: &[u8]) -> Result<(ArrayItem<'_>, &[u8]), TextError> {
    let stop = text.iter().position(|byte| matches!(byte, b'"' | b'\\')).ok_or(MALFORMED)?;
    if text[stop] == b'"' {
        return Ok((ArrayItem::Text(Cow::Borrowed(&text[..stop])), &text[stop + 1..]));
    }
    let mut out = text[..stop].to_vec();
    let mut at = stop;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => return Ok((ArrayItem::Text(Cow::Owned(out)), &text[at + 1..])),
            b'\\' => {
                out.push(*text.get(at + 1).ok_or(MALFORMED)?);
                at += 2;
            }
            other => {
                out.push(other);
                at += 1;
            }
        }
    }
    Err(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Vec<Option<String>>, TextError> {
        let mut items = Vec::new();
        elements(text, b',', |item| {
            items.push(match item {
                ArrayItem::Null => None,
                ArrayItem::Text(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            });
            Ok::<(), TextError>(())
        })?;
        Ok(items)
    }

    #[test]
    fn shapes() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(b"{}"), Ok(vec![]));
        assert_eq!(read(b"{1,NULL,3}"), Ok(vec![some("1"), None, some("3")]));
        assert_eq!(
            read(br#"{"a,b","NULL","","x\"\\y"}"#).unwrap()[1..],
            [some("NULL"), some(""), some("x\"\\y")]
        );
        let shape = Err(TextError::Unrepresentable(Unrepresentable::ArrayShape));
        assert_eq!(read(b"{{1},{2}}"), shape);
        assert_eq!(read(b"[0:1]={1,2}"), shape);
        for bad in ["", "{", "}", "{1,}", "{,1}", "{\"a}", "{a\"b}", "{1 2}x"] {
            assert_eq!(read(bad.as_bytes()), Err(MALFORMED), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&text);
        }

        #[test]
        fn quoted_elements_round_trip(items in prop::collection::vec("\\PC{0,6}", 0..5)) {
            let quoted: Vec<String> = items.iter()
                .map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\"")))
                .collect();
            let text = format!("{{{}}}", quoted.join(","));
            let expected: Vec<Option<String>> = items.into_iter().map(Some).collect();
            prop_assert_eq!(read(text.as_bytes()), Ok(expected));
        }
    }
}
