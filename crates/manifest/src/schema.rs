//! The JSON Schema of the manifest, for editors: made of the types, and filled from the table of keys with short forms,
//! bounds, defaults and what each key is for.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::keys::mesh::ROOT_SHAPE;
use crate::keys::shape::Keys;
use crate::keys::{Key, Shape, Short};
use crate::types;

/// The JSON Schema (2020-12) of what this version honours.
#[must_use]
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<types::Manifest>().to_value();
    fill(&mut schema, &ROOT_SHAPE);
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".into(), "Synego manifest".into());
        root.insert("description".into(), "synego.yaml: what one mesh is made of".into());
    }
    schema
}

/// Text in which a variable stands, wherever it stands.
const VARIABLE: &str = r"\$\{";

/// Fills what the types leave open.
fn fill(schema: &mut Value, shape: &'static Shape) {
    match shape {
        Shape::Map(section) => {
            if let Some(properties) = schema.pointer_mut("/properties").and_then(Value::as_object_mut) {
                for (name, property) in properties {
                    if let Some(key) = section.key(name) {
                        fill(property, key.shape);
                        *property = nullable(property.take());
                        describe(property, key);
                    }
                }
            }
            tidy(schema);
            shorten(schema, section.shorts, &|name| section.key(name).map(|key| key.shape));
        }
        Shape::Named { keys, of, max, shorts, .. } => {
            if let Some(of_all) = schema.pointer_mut("/additionalProperties") {
                fill(of_all, of);
                *of_all = nullable(of_all.take());
            }
            tidy(schema);
            if let Some(map) = schema.as_object_mut() {
                map.insert("maxProperties".into(), json!(max));
                let pattern = match keys {
                    Keys::Names | Keys::Listeners => Some("^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"),
                    Keys::Variables => Some("^[A-Za-z_][A-Za-z0-9_]*$"),
                    Keys::Places => Some("^[^/]*/"),
                    Keys::Free => None,
                };
                if let Some(pattern) = pattern {
                    map.insert("propertyNames".into(), json!({ "pattern": pattern }));
                }
            }
            shorten(schema, shorts, &|_| Some(of));
        }
        Shape::List { of, max } => {
            if let Some(items) = schema.pointer_mut("/items") {
                fill(items, of);
            }
            tidy(schema);
            if let Some(map) = schema.as_object_mut() {
                map.insert("maxItems".into(), json!(max));
            }
        }
        Shape::Either(shapes) => {
            let inner = mapping_of(schema);
            let all: Vec<Value> = shapes
                .iter()
                .filter(|shape| !matches!(shape, Shape::Later(_)))
                .map(|shape| match shape {
                    Shape::Map(_) => {
                        let mut inner = inner.clone().unwrap_or_else(|| json!({ "type": "object" }));
                        fill(&mut inner, shape);
                        inner
                    }
                    Shape::List { of, max } => json!({ "type": "array", "items": scalar(of), "maxItems": max }),
                    other => scalar(other),
                })
                .collect();
            *schema = match <[Value; 1]>::try_from(all) {
                Ok([one]) => one,
                Err(all) => json!({ "anyOf": all }),
            };
        }
        other => *schema = scalar(other),
    }
}

/// The mapping among the forms that a type allows.
fn mapping_of(schema: &Value) -> Option<Value> {
    if schema.get("properties").is_some() {
        return Some(schema.clone());
    }
    schema.get("anyOf").and_then(Value::as_array).into_iter().flatten().find_map(mapping_of)
}

/// A mapping or list as the types say it, without what does not matter to an editor.
fn tidy(schema: &mut Value) {
    if let Some(inner) = mapping_of(schema).filter(|_| schema.get("anyOf").is_some()) {
        *schema = inner;
    }
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("default");
    map.remove("description");
    if let Some(kind) = map.get_mut("type").filter(|kind| kind.is_array()) {
        *kind = kind.as_array().and_then(|kinds| kinds.first()).cloned().unwrap_or_default();
    }
}

/// The short forms beside the long one.
fn shorten(schema: &mut Value, shorts: &[Short], shape_of: &dyn Fn(&str) -> Option<&'static Shape>) {
    let mut forms: Vec<Value> = Vec::new();
    for short in shorts {
        match short {
            Short::Scalar(key) | Short::List(key) => forms.extend(shape_of(key).and_then(|shape| match shape {
                // A listener's own short form is its address.
                Shape::Map(section) => section.shorts.iter().find_map(|short| match short {
                    Short::Scalar(key) => section.key(key).map(|key| scalar(key.shape)),
                    _ => None,
                }),
                Shape::List { of, max } => Some(json!({ "type": "array", "items": scalar(of), "maxItems": max })),
                other => Some(scalar(other)),
            })),
            Short::Names => forms.push(json!({ "type": "array", "items": scalar(&Shape::Name) })),
            Short::Words(words, key) => {
                forms.push(json!({ "enum": words }));
                forms.extend(shape_of(key).map(scalar));
            }
        }
    }
    if !forms.is_empty() {
        forms.push(schema.take());
        *schema = json!({ "anyOf": forms });
    }
}

fn nullable(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) if map.contains_key("anyOf") && map.len() == 1 => {
            if let Some(Value::Array(forms)) = map.get_mut("anyOf") {
                forms.push(json!({ "type": "null" }));
            }
            Value::Object(map)
        }
        other => json!({ "anyOf": [other, { "type": "null" }] }),
    }
}

fn describe(property: &mut Value, key: &Key) {
    let Some(map) = property.as_object_mut() else { return };
    let mut described = Map::new();
    let default = if key.default.is_empty() { String::new() } else { format!("; default: {}", key.default) };
    described.insert("description".into(), format!("{}{default}; such as `{}`", key.meaning, key.example).into());
    described.append(map);
    *map = described;
}

/// The schema of a scalar, which may hold a variable.
fn scalar(shape: &Shape) -> Value {
    let text = |pattern: &str| json!({ "type": "string", "pattern": format!("{pattern}|{VARIABLE}") });
    match shape {
        Shape::Bool => json!({ "anyOf": [{ "type": "boolean" }, { "type": "string", "pattern": VARIABLE }] }),
        Shape::Off => json!({ "const": false }),
        Shape::Name => text("^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"),
        Shape::Word { built: ["true"], .. } => json!({ "const": true }),
        Shape::Word { built, .. } => json!({ "anyOf": [{ "enum": built }, { "type": "string", "pattern": VARIABLE }] }),
        Shape::Count { min, max, words } => {
            let number = json!({ "type": "integer", "minimum": min, "maximum": max });
            let variable = json!({ "type": "string", "pattern": VARIABLE });
            if words.is_empty() {
                json!({ "anyOf": [number, variable] })
            } else {
                json!({ "anyOf": [number, { "enum": words }, variable] })
            }
        }
        Shape::Cores => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Shape::Duration { .. } => text("^[0-9]+(ms|s|m|h|d)$"),
        Shape::Size { .. } => text("^[0-9]+(B|KiB|MiB|GiB)$"),
        Shape::Flow { .. } => text("^[0-9]+(B|KiB|MiB|GiB)/s$"),
        Shape::Rate => text("^[0-9]+/(s|m|h)$"),
        Shape::Share([]) => text("^[0-9]{1,3}%$"),
        Shape::Share(words) => json!({ "anyOf": [{ "enum": words }, text("^[0-9]{1,3}%$")] }),
        Shape::Bind | Shape::Target => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 65_535 }, { "type": "string", "minLength": 1 }] })
        }
        Shape::Reach => text(":[0-9]+$"),
        Shape::Place => text("^[^/]*/"),
        Shape::UrlPath | Shape::RoutePath => text("/"),
        Shape::Command => {
            let text = json!({ "type": ["string", "number", "boolean"] });
            json!({ "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": text, "minItems": 1 }] })
        }
        // Text stays as written, so a number may stand where text is meant.
        Shape::Text(_) => json!({ "type": ["string", "number", "boolean"] }),
        _ => json!({ "type": "string", "minLength": 1 }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::keys;

    /// All property names below a schema, with their paths as the table writes them.
    fn paths(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
        for form in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
            paths(form, path, out);
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            out.insert(path.clone());
            paths(property, &path, out);
        }
        if let Some(items) = schema.get("items") {
            paths(items, path, out);
        }
        if let Some(each) = schema.get("additionalProperties").filter(|each| each.is_object()) {
            let label = keys::find(path).and_then(|found| found.shape.entries()).map_or("NAME", |(label, _)| label);
            paths(each, &format!("{path}.{label}"), out);
        }
    }

    #[test]
    fn types_and_table_have_the_same_keys() {
        let mut typed = BTreeSet::new();
        paths(&schema(), "", &mut typed);
        let mut built = BTreeSet::new();
        let mut later: Vec<String> = Vec::new();
        keys::each(&mut |path, key, _| {
            let under = later.iter().any(|later| path.starts_with(&format!("{later}.")));
            // The nodes of a map are a later form of a key that is honoured.
            if !key.built || path.starts_with("nodes.") {
                later.push(path.to_owned());
            } else if !under {
                built.insert(path.to_owned());
            }
        });
        assert_eq!(typed, built);
    }
}
