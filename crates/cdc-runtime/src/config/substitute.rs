//! Environment variables in string values: `${VAR}`, `${VAR:-default}`, and `$${` for a literal
//! `${`. It runs on parsed values, so a variable never changes the structure of the file.

use super::node::{Node, join};
use super::{Env, Problem};

/// Substitutes in every string below `node`, except in the value at path `keep`.
pub(crate) fn substitute_all(
    node: &mut Node,
    path: &str,
    keep: &str,
    env: Env<'_>,
    problems: &mut Vec<Problem>,
) {
    match node {
        Node::Str(_) if path == keep => {}
        Node::Str(text) => match substitute(text, env) {
            Ok(done) => *text = done,
            Err(message) => problems.push(Problem::new(path, message)),
        },
        Node::Seq(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                substitute_all(item, &format!("{path}[{at}]"), keep, env, problems);
            }
        }
        Node::Map(entries) => {
            for (key, value) in entries {
                substitute_all(value, &join(path, key), keep, env, problems);
            }
        }
        Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) => {}
    }
}

/// Substitutes in one value.
///
/// # Errors
/// A message that names the variable, never its value or the text around it.
pub(crate) fn substitute(text: &str, env: Env<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let (inner, after) = after
                .split_once('}')
                .ok_or("`${` without `}`; hint: write `$${` for a literal `${`")?;
            out.push_str(&lookup(inner, env)?);
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn lookup(inner: &str, env: Env<'_>) -> Result<String, String> {
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let mut bytes = name.bytes();
    let starts_well = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if !starts_well || !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(
            "`${…}` does not hold a variable name; hint: write `$${` for a literal `${`".to_owned()
        );
    }
    match (env(name), default) {
        (Some(value), None) => Ok(value),
        // as in the shell, `:-` also replaces an empty value
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "environment variable {name} is not set; hint: set it, or give a default with ${{{name}:-default}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "V" => Some("value".into()),
            "EMPTY" => Some(String::new()),
            "YAML" => Some("[a, b]: ${V}".into()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_replaced_once_and_other_dollars_are_text() {
        let cases = [
            ("${V}", "value"),
            ("a${V}b${V}c", "avaluebvaluec"),
            ("${X:-default}", "default"),
            ("${V:-default}", "value"),
            ("${EMPTY}", ""),
            ("${EMPTY:-default}", "default"),
            ("${X:-}", ""),
            ("$${V}", "${V}"),
            ("$V $ $$ p$x", "$V $ $$ p$x"),
            ("${YAML}", "[a, b]: ${V}"),
            ("größe ${V}", "größe value"),
        ];
        for (text, expected) in cases {
            assert_eq!(substitute(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_unset_or_malformed_variable_is_refused_by_name() {
        let message = substitute("postgres://u:secret@${HOST}/db", &env).unwrap_err();
        assert!(message.contains("HOST is not set") && !message.contains("secret"), "{message}");
        for text in ["${V", "${}", "${1V}", "${a-b}"] {
            assert!(substitute(text, &env).is_err(), "{text}");
        }
    }
}
