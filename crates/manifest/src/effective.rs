//! Every value in force, with where it was said: what `synego show --effective` prints, and what a plan compares.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cross::OF_A_PROCESS;
use crate::keys::mesh::ROOT;
use crate::keys::{Key, Section, Shape};
use crate::mask;
use crate::read::{Context, Read};
use crate::tree::{Node, quoted};

/// One value in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EffectiveValue {
    /// Its key from the root on, such as `services.users.policy.timeout`.
    pub key: String,
    /// Its value in long form on one line; a secret is masked.
    pub value: String,
    /// Where it was said: `default`, `synego.yaml:12`, `defaults:40`.
    pub origin: String,
    /// Whether it is masked.
    pub secret: bool,
    /// Tells two masked values apart without showing them.
    #[serde(skip)]
    fingerprint: Fingerprint,
}

/// A hash of a value; it is not shown either.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprint(u64);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl EffectiveValue {
    fn new(key: String, raw: &str, origin: String) -> Self {
        let mut hasher = DefaultHasher::new();
        raw.hash(&mut hasher);
        let variable = key.contains(".env.") && key.rsplit('.').next().is_some_and(mask::is_secret_name);
        let masked = if variable { mask::MASK.to_owned() } else { mask::text(raw) };
        let secret = masked != raw;
        Self { key, value: masked, origin, secret, fingerprint: Fingerprint(hasher.finish()) }
    }

    /// Whether both hold the same value, also where it is masked.
    pub(crate) fn same_value(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

/// Sections that are not there unless they are said: their defaults hold only then.
const ABSENT: &[&str] = &["health", "hash"];

/// The values of a manifest that passed every check.
pub(crate) fn of(tree: &Node, value: &Value, read: &Read, context: &Context<'_>) -> Vec<EffectiveValue> {
    let mut walk =
        Walk { out: Vec::new(), context: Some(context), mesh: read.declaration.mesh.as_str(), read: Some(read) };
    walk.section("", &ROOT, value.as_object(), Some(tree));
    walk.out
}

/// The values where nothing was said.
pub(crate) fn of_nothing(mesh: &str) -> Vec<EffectiveValue> {
    let mut walk = Walk { out: Vec::new(), context: None, mesh, read: None };
    walk.section("", &ROOT, None, None);
    walk.out
}

struct Walk<'a> {
    out: Vec<EffectiveValue>,
    context: Option<&'a Context<'a>>,
    mesh: &'a str,
    read: Option<&'a Read>,
}

impl Walk<'_> {
    fn section(
        &mut self,
        path: &str,
        section: &'static Section,
        said: Option<&Map<String, Value>>,
        node: Option<&Node>,
    ) {
        let has = |key: &str| said.is_some_and(|said| said.contains_key(key));
        for key in section.keys() {
            let inner = node.and_then(|node| node.get(key.name));
            // `defaults` shows where it holds: in each service.
            if !key.built || key.name == "defaults" || section.alternatives(key.name).any(has) {
                continue;
            }
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match said.and_then(|said| said.get(key.name)) {
                Some(value) => self.value(path, key.shape, value, inner),
                None if section.noun == "service" && has("address") && OF_A_PROCESS.contains(&key.name) => {}
                None => self.unsaid(path, key),
            }
        }
    }

    fn value(&mut self, path: String, shape: &'static Shape, value: &Value, node: Option<&Node>) {
        match (value, shape.section(), shape.entries(), shape) {
            (Value::Array(_), ..) => self.leaf(path, &flow(value), node),
            (Value::Object(map), Some(section), ..) => self.section(&path, section, Some(map), node),
            (Value::Object(map), None, Some((_, of)), _) if !map.is_empty() => {
                for (name, value) in map {
                    let below = node.and_then(|node| node.get(name));
                    let path = format!("{path}.{name}");
                    let nothing = value.as_object().is_some_and(Map::is_empty);
                    if nothing { self.leaf(path, "{}", below) } else { self.value(path, of, value, below) }
                }
            }
            _ => self.leaf(path, &flow(value), node),
        }
    }

    fn leaf(&mut self, path: String, raw: &str, node: Option<&Node>) {
        let origin = match (node, self.context) {
            (Some(node), _) if node.inherited => format!("defaults:{}", node.span.line),
            (Some(node), Some(context)) => context.problems.place(node.span),
            _ => "default".to_owned(),
        };
        self.out.push(EffectiveValue::new(path, raw, origin));
    }

    /// A key of which nothing is said: its default, or those of its section.
    fn unsaid(&mut self, path: String, key: &'static Key) {
        let (path, value) = match path.as_str() {
            "gateway.listen" => (format!("{path}.http.address"), "8080".to_owned()),
            _ => (path, String::new()),
        };
        let value = match path.as_str() {
            _ if !value.is_empty() => value,
            // A mapping of free keys without one says nothing.
            _ if key.shape.entries().is_some() && key.default.starts_with(['{', '[']) => return,
            "mesh" => self.mesh.to_owned(),
            _ if key.name == "try_timeout" => self.try_timeout(&path).unwrap_or_else(|| key.default.to_owned()),
            _ if key.name == "cwd" => self.cwd(&path).unwrap_or_default(),
            _ => key.default.to_owned(),
        };
        if !value.is_empty() {
            self.out.push(EffectiveValue::new(path, &value, "default".to_owned()));
        } else if let (Some(section), false) = (key.shape.section(), ABSENT.contains(&key.name))
            && !matches!(key.shape, Shape::List { .. })
        {
            self.section(&path, section, None, None);
        }
    }

    /// The smaller of the default and `timeout`, as it was worked out.
    fn try_timeout(&self, path: &str) -> Option<String> {
        let service = path.strip_prefix("services.")?.split('.').next()?;
        let spec = self.read?.declaration.services.get(service)?;
        Some(synego_model::text::duration(spec.policy.try_timeout))
    }

    fn cwd(&self, path: &str) -> Option<String> {
        let service = path.strip_prefix("services.")?.split('.').next()?;
        let local = self.read?.local.iter().find(|local| local.spec.name.as_str() == service)?;
        let root = self.context?.root;
        let inside = local.cwd.strip_prefix(root).unwrap_or(&local.cwd);
        Some(if inside == Path::new("") { ".".to_owned() } else { inside.display().to_string() })
    }
}

/// A value on one line as YAML.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => {
            let mut out = String::new();
            write(other, &mut out);
            out
        }
    }
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number.to_string()),
        Value::String(text) => out.push_str(&quoted(text, false)),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) if map.is_empty() => out.push_str("{}"),
        Value::Object(map) => {
            out.push_str("{ ");
            for (index, (key, value)) in map.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                out.push_str(&quoted(key, false));
                out.push_str(": ");
                write(value, out);
            }
            out.push_str(" }");
        }
    }
}
