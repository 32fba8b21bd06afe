//! The reference page of the configuration, made from the same schema that checks the file.

use std::fmt::Write;

use serde_json::Value;

use super::check::{constants, type_name, without_null};
use super::model::Config;

/// What stands above the tables.
const HEAD: &str = "# Configuration reference

One YAML file, `pgcdc.yml` (or `pg-cdc.yml`) in the working directory, or the file that `--config`
names. An unknown or repeated key, a wrong type or a bad value is an error with the path of the key,
and all errors are shown at once: `pgcdc config check`. `pgcdc config show` prints the file with all
defaults, `pgcdc config show --schema` its JSON Schema.

In any text value `${VAR}` is replaced by an environment variable and `${VAR:-default}` by a default
when the variable is unset or empty; an unset variable without default is an error; `$${` is a
literal `${`. Durations are written `500ms`, `10s`, `5m`, `1h`, `30d`; sizes are in bytes. Patterns
match `schema.table` with `*` for any text and `?` for one character.

This page is generated from the program's own model.
";

impl Config {
    /// The reference page as Markdown.
    pub fn reference_markdown() -> String {
        let schema = Config::json_schema();
        let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
        let mut page = HEAD.to_owned();
        for (name, section) in schema["properties"].as_object().into_iter().flatten() {
            let section = without_null(section);
            let about = section["description"].as_str().unwrap_or_default();
            let _ = write!(page, "\n## {name}\n\n{}\n\n", one_line(about));
            page.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
            let defaults = if name == "source" || name == "governance" {
                section_defaults(section)
            } else {
                defaults[name].clone()
            };
            rows(&mut page, name, section, &defaults);
        }
        page
    }
}

/// The defaults of a section that a configuration may lack.
fn section_defaults(section: &Value) -> Value {
    let properties = section["properties"].as_object().into_iter().flatten();
    properties.map(|(key, schema)| (key.clone(), schema["default"].clone())).collect()
}

fn rows(page: &mut String, path: &str, schema: &Value, defaults: &Value) {
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        let inner = without_null(property);
        if inner["properties"].is_object() {
            rows(page, &path, inner, &defaults[key]);
            continue;
        }
        let about = property["description"].as_str().or(inner["description"].as_str());
        let default = match &defaults[key] {
            Value::Null => "–".to_owned(),
            value => format!("`{value}`"),
        };
        let kind = type_text(inner).replace('|', "\\|");
        let about = one_line(about.unwrap_or_default()).replace('|', "\\|");
        let _ = writeln!(page, "| `{path}` | {kind} | {default} | {about} |");
    }
}

fn type_text(schema: &Value) -> String {
    if let Some(choices) = constants(schema) {
        let quoted =
            |choice: &&str| if choice.is_empty() { "`\"\"`".into() } else { format!("`{choice}`") };
        return choices.iter().map(quoted).collect::<Vec<_>>().join(", ");
    }
    let base = match type_name(schema) {
        "array" => return format!("list of {}", type_text(without_null(&schema["items"]))),
        "object" if schema["additionalProperties"].is_object() => {
            return format!("map to {}", type_text(without_null(&schema["additionalProperties"])));
        }
        "object" => return object_text(schema),
        "string" => schema["format"].as_str().map_or("text", format_text),
        "integer" => "whole number",
        "boolean" => "true, false",
        other => other,
    };
    match (bound(&schema["minimum"]), bound(&schema["maximum"])) {
        (Some(least), Some(most)) => format!("{base}, {least} to {most}"),
        (Some(least), None) if least != "0" => format!("{base}, at least {least}"),
        _ => base.to_owned(),
    }
}

fn bound(value: &Value) -> Option<String> {
    value.as_i64().map(|number| number.to_string()).or(value.as_f64().map(|n| n.to_string()))
}

fn object_text(schema: &Value) -> String {
    let keys = schema["properties"].as_object().into_iter().flatten();
    let keys: Vec<String> = keys.map(|(key, _)| format!("`{key}`")).collect();
    format!("object of {}", keys.join(", "))
}

fn format_text(format: &str) -> &str {
    match format {
        "duration-text" => "duration",
        "table-glob" => "pattern",
        "secret" => "secret text",
        "stored-form" => "`string`, `double`, `decimal(p,s)`, `list`",
        "listen-address" => "`host:port` or `unix:<path>`",
        "address" => "`host:port`",
        _ => "text",
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
