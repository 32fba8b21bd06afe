//! The effective configuration as text: defaults filled in, secrets as `***`.

use serde_json::Value;

use super::model::{Config, TableLabels};

impl Config {
    /// The effective configuration as JSON. Keys without a value and without a default are left
    /// out; secrets are `***`.
    pub fn effective_json(&self) -> Value {
        let mut shown = self.clone();
        shown.metrics.table_labels.get_or_insert(TableLabels::Full);
        // the model is plain data with text keys; nothing in it can fail to become JSON
        serde_json::to_value(&shown).unwrap_or(Value::Null)
    }

    /// The effective configuration as YAML.
    pub fn effective_yaml(&self) -> String {
        serde_yaml_ng::to_string(&self.effective_json()).unwrap_or_default()
    }
}
