//! Checks a YAML tree against the JSON Schema of the model, so that every unknown key, wrong type
//! and value out of range is found in one pass, each with its path.

use serde_json::{Map, Value};

use super::Problem;
use super::node::{Node, join};
use super::value::format;

/// Keys of pg-cdc (Go) that never did anything, with what to say about them.
const REFUSED: [(&str, &str); 1] =
    [("storage.partition_by_tag", "not supported; hint: remove it, it never had an effect")];

/// How like a known key an unknown one must be to be suggested.
const SUGGESTION_THRESHOLD: f64 = 0.75;

/// Checks `node` and turns empty sections into empty maps, which is what they mean.
pub(crate) fn check(schema: &Value, node: &mut Node, path: &str, problems: &mut Vec<Problem>) {
    let schema = without_null(schema);
    if let Some(allowed) = constants(schema) {
        return check_choice(&allowed, node, path, problems);
    }
    match type_name(schema) {
        "object" => check_object(schema, node, path, problems),
        "array" => check_array(schema, node, path, problems),
        "string" => check_string(schema, node, path, problems),
        "integer" => check_integer(schema, node, path, problems),
        "number" => check_number(schema, node, path, problems),
        "boolean" if matches!(node, Node::Bool(_)) => {}
        "boolean" => problems.push(expected("true or false", node, path)),
        _ => {}
    }
}

/// The schema of an optional value without the alternative null: absence is how it is left out.
pub(crate) fn without_null(schema: &Value) -> &Value {
    let alternatives = schema["anyOf"].as_array();
    alternatives
        .and_then(|list| list.iter().find(|alternative| alternative["type"] != "null"))
        .unwrap_or(schema)
}

/// The JSON type of a schema, null aside.
pub(crate) fn type_name(schema: &Value) -> &str {
    let listed = schema["type"].as_array().into_iter().flatten().filter_map(Value::as_str);
    schema["type"].as_str().or(listed.into_iter().find(|name| *name != "null")).unwrap_or_default()
}

/// The values of an enumeration, however the schema spells it: `enum`, `const`, or `oneOf` these.
pub(crate) fn constants(schema: &Value) -> Option<Vec<&str>> {
    if let Some(value) = schema["const"].as_str() {
        return Some(vec![value]);
    }
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let alternatives = schema["oneOf"].as_array()?;
    let lists: Option<Vec<Vec<&str>>> = alternatives.iter().map(constants).collect();
    lists.map(|lists| lists.concat())
}

fn expected(wanted: &str, node: &Node, path: &str) -> Problem {
    let hint = match node {
        Node::Null => "; hint: remove the key to have the default",
        Node::Int(_) | Node::Float(_) | Node::Bool(_) if wanted == "text" => {
            "; hint: put the value in quotes"
        }
        Node::Str(text) if wanted.contains("number") && text.parse::<f64>().is_ok() => {
            "; hint: write it without quotes"
        }
        _ => "",
    };
    Problem::new(path, format!("expected {wanted}, found {}{hint}", node.describe()))
}

fn check_choice(allowed: &[&str], node: &Node, path: &str, problems: &mut Vec<Problem>) {
    let choices = || {
        let quoted = |word: &&str| if word.is_empty() { "\"\"".to_owned() } else { (*word).into() };
        allowed.iter().map(quoted).collect::<Vec<_>>().join(", ")
    };
    match node {
        Node::Str(text) if allowed.contains(&text.as_str()) => {}
        Node::Str(text) => {
            let message = format!("`{text}` is not one of {}", choices());
            problems.push(Problem::new(path, message));
        }
        _ => problems.push(expected(&format!("one of {}", choices()), node, path)),
    }
}

fn check_object(schema: &Value, node: &mut Node, path: &str, problems: &mut Vec<Problem>) {
    if *node == Node::Null {
        *node = Node::Map(Vec::new());
    }
    let Node::Map(entries) = node else {
        problems.push(expected("a section", node, path));
        return;
    };
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let mut seen: Vec<String> = Vec::with_capacity(entries.len());
    for (key, value) in entries.iter_mut() {
        let path = join(path, key);
        if seen.contains(key) {
            problems.push(Problem::new(&path, "given twice; hint: keep one of them"));
            continue;
        }
        seen.push(key.clone());
        match properties.get(key.as_str()) {
            Some(schema) => check(schema, value, &path, problems),
            None if schema["additionalProperties"].is_object() => {
                check(&schema["additionalProperties"], value, &path, problems);
            }
            None => problems.push(unknown(&path, key, properties)),
        }
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !seen.iter().any(|seen| seen == key) {
            problems.push(Problem::new(&join(path, key), "required"));
        }
    }
}

fn unknown(path: &str, key: &str, properties: &Map<String, Value>) -> Problem {
    if let Some((_, message)) = REFUSED.iter().find(|(refused, _)| *refused == path) {
        return Problem::new(path, *message);
    }
    let nearest = properties
        .keys()
        .map(|known| (strsim::jaro_winkler(known, key), known))
        .filter(|(likeness, _)| *likeness > SUGGESTION_THRESHOLD)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((_, known)) => {
            Problem::new(path, format!("unknown key; hint: did you mean `{known}`?"))
        }
        None => {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            Problem::new(path, format!("unknown key; hint: known here are {}", known.join(", ")))
        }
    }
}

fn check_array(schema: &Value, node: &mut Node, path: &str, problems: &mut Vec<Problem>) {
    let Node::Seq(items) = node else {
        problems.push(expected("a list", node, path));
        return;
    };
    if schema["minItems"].as_u64().is_some_and(|least| (items.len() as u64) < least) {
        problems.push(Problem::new(path, "must not be empty"));
    }
    for (at, item) in items.iter_mut().enumerate() {
        check(&schema["items"], item, &format!("{path}[{at}]"), problems);
    }
}

fn check_string(schema: &Value, node: &mut Node, path: &str, problems: &mut Vec<Problem>) {
    let duration = schema["format"] == format::DURATION;
    if duration && *node == Node::Int(0) {
        *node = Node::Str("0".into());
    }
    let Node::Str(text) = node else {
        problems.push(match node {
            Node::Int(_) | Node::Float(_) if duration => Problem::new(
                path,
                "a duration needs a unit; hint: such as 500ms, 10s, 5m, 1h or 30d",
            ),
            _ => expected("text", node, path),
        });
        return;
    };
    let complaint = schema["format"].as_str().and_then(|name| format::complaint(name, text));
    let length = text.chars().count() as u64;
    if let Some(message) = complaint {
        problems.push(Problem::new(path, message));
    } else if schema["minLength"].as_u64().is_some_and(|least| length < least) {
        problems.push(Problem::new(path, "must not be empty"));
    } else if let Some(most) = schema["maxLength"].as_u64().filter(|most| length > *most) {
        problems.push(Problem::new(path, format!("longer than {most} characters")));
    }
}

fn check_integer(schema: &Value, node: &Node, path: &str, problems: &mut Vec<Problem>) {
    let Node::Int(value) = node else {
        problems.push(expected("a whole number", node, path));
        return;
    };
    let bound = |key: &str| {
        let number = &schema[key];
        number.as_i64().map(i128::from).or(number.as_f64().map(|float| float as i128))
    };
    let widest = if schema["format"] == "uint32" { i128::from(u32::MAX) } else { i64::MAX.into() };
    let least = bound("minimum").unwrap_or(i64::MIN.into());
    let most = bound("maximum").unwrap_or(widest);
    if *value < least || *value > most {
        problems.push(Problem::new(
            path,
            range_message(value, &least, &most, bound("maximum").is_some()),
        ));
    }
}

fn check_number(schema: &Value, node: &Node, path: &str, problems: &mut Vec<Problem>) {
    let value = match node {
        Node::Int(value) => *value as f64,
        Node::Float(value) if value.is_finite() => *value,
        Node::Float(_) => {
            problems.push(Problem::new(path, "must be finite"));
            return;
        }
        _ => {
            problems.push(expected("a number", node, path));
            return;
        }
    };
    let least = schema["minimum"].as_f64().unwrap_or(f64::MIN);
    let most = schema["maximum"].as_f64().unwrap_or(f64::MAX);
    if value < least || value > most {
        problems.push(Problem::new(path, range_message(&value, &least, &most, most < f64::MAX)));
    }
}

fn range_message<N: std::fmt::Display + PartialOrd>(
    value: &N,
    least: &N,
    most: &N,
    bounded: bool,
) -> String {
    if bounded {
        format!("{value} is outside {least} to {most}")
    } else if value < least {
        format!("{value} is less than {least}")
    } else {
        format!("{value} is more than {most}")
    }
}
