//! Building a JSON patch, and telling whether an object has everything that one wants of it.

use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, jsonptr::PointerBuf,
};
use serde_json::Value;

/// The operations of a patch, in order.
#[derive(Debug, Default)]
pub(super) struct Edits(Vec<PatchOperation>);

impl Edits {
    pub(super) fn add(&mut self, path: &str, value: Value) {
        self.0.push(PatchOperation::Add(AddOperation { path: pointer(path), value }));
    }

    pub(super) fn replace(&mut self, path: &str, value: Value) {
        self.0.push(PatchOperation::Replace(ReplaceOperation { path: pointer(path), value }));
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.0.push(PatchOperation::Remove(RemoveOperation { path: pointer(path) }));
    }

    pub(super) fn into_patch(self) -> Patch {
        Patch(self.0)
    }
}

fn pointer(path: &str) -> PointerBuf {
    PointerBuf::parse(path).expect("paths are written in this module's callers, with names escaped")
}

/// Whether `existing` has everything that `wanted` has. It may have more: the API server fills in
/// defaults, and other webhooks add variables and mounts.
pub(super) fn covers(existing: &Value, wanted: &Value) -> bool {
    match (existing, wanted) {
        (Value::Object(existing), Value::Object(wanted)) => wanted.iter().all(|(key, wanted)| {
            existing.get(key).map_or_else(|| is_empty(wanted), |found| covers(found, wanted))
        }),
        (Value::Array(existing), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| existing.iter().any(|found| covers(found, wanted)))
        }
        _ => existing == wanted,
    }
}

/// What the API server leaves out: `value: ""` of a variable, `privileged: false` it keeps.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_additions_of_others_do_not_matter() {
        let wanted = json!({"name": "a", "env": [{"name": "X", "value": ""}, {"name": "Y", "value": "1"}]});
        let existing = json!({
            "name": "a",
            "env": [{"name": "Z", "value": "2"}, {"name": "X"}, {"name": "Y", "value": "1"}],
            "terminationMessagePath": "/dev/termination-log",
        });
        assert!(covers(&existing, &wanted));
    }

    #[test]
    fn a_missing_or_different_field_matters() {
        assert!(!covers(&json!({"name": "a"}), &json!({"name": "a", "image": "b"})));
        assert!(!covers(
            &json!({"env": [{"name": "Y", "value": "2"}]}),
            &json!({"env": [{"name": "Y", "value": "1"}]})
        ));
        assert!(!covers(&json!({"args": []}), &json!({"args": ["redirect"]})));
    }
}
