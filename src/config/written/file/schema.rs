//! The JSON Schema of the file, made from its types.

use std::collections::BTreeSet;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value as Json;

use super::File;

/// The JSON Schema of the file.
#[must_use]
pub fn schema() -> Schema {
    let refine = RecursiveTransform(|schema: &mut Schema| refine(schema));
    SchemaSettings::draft2020_12().with_transform(refine).into_generator().into_root_schema_for::<File>()
}

/// The names of all fields of the file.
pub(in crate::config) fn field_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect_names(schema().as_value(), &mut names);
    names
}

fn collect_names(schema: &Json, names: &mut BTreeSet<String>) {
    match schema {
        Json::Object(object) => {
            if let Some(Json::Object(properties)) = object.get("properties") {
                names.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| collect_names(value, names));
        }
        Json::Array(list) => list.iter().for_each(|value| collect_names(value, names)),
        _ => {}
    }
}

/// Fields are optional here only to be read one by one: null is refused, and so it is in the schema.
fn refine(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    let is_null = |schema: &Json| schema.get("type").is_some_and(|kind| kind == "null");
    if let Some(Json::Array(kinds)) = object.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            object.insert("type".into(), kind);
        }
    }
    if let Some(Json::Array(choices)) = object.get_mut("anyOf") {
        choices.retain(|choice| !is_null(choice));
        if let [Json::Object(only)] = choices.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            for (key, value) in only {
                object.entry(key).or_insert(value);
            }
        }
    }
    if let Some(Json::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}
