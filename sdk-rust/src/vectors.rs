//! The conformance vectors that the three SDKs share: every case of every file is run.

mod backoff;
mod context;
mod errors;
mod hello;
mod patterns;

use serde_json::{Map, Value};

/// Runs every case of a file through `run`, which gives what this SDK makes of `in`, or `None` for a kind it does not
/// know. All cases that differ are told at once.
fn run(file: &str, run: impl Fn(&str, &Value) -> Option<Value>) {
    let path = format!("{}/../tests/conformance/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{path}: {cause}"));
    let vectors: Value = serde_json::from_str(&text).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(!cases.is_empty(), "{file} has no cases");
    let mut differing = Vec::new();
    for case in cases {
        let (name, kind) = (case["name"].as_str().unwrap(), case["kind"].as_str().unwrap());
        let made = run(kind, &case["in"]).unwrap_or_else(|| panic!("{file}: unknown kind {kind}"));
        if made != case["out"] {
            differing.push(format!("{file}: {name}\n  expected {}\n  but made {made}", case["out"]));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// Leaves out what has its default value, as the JSON form of protobuf does.
fn without_defaults(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().map(|(name, value)| (name, without_defaults(value)));
            let is_default = |value: &Value| match value {
                Value::Null => true,
                Value::Bool(set) => !set,
                Value::Number(number) => number.as_u64() == Some(0),
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(_) => false,
            };
            Value::Object(kept.filter(|(_, value)| !is_default(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => items.into_iter().map(without_defaults).collect(),
        other => other,
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}"))
}

fn headers(value: &Value) -> http::HeaderMap {
    let fields = value.as_object().unwrap().iter();
    fields.map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), text(value).parse().unwrap())).collect()
}
